//! The registration files of application services (Application Service API, "Registration").

use std::{
    io,
    path::{Path, PathBuf},
};

use stoa_accounts::{ServiceFile, Services};

use crate::{Error, config::Config};

/// The largest file that is read.
const MAX_BYTES: u64 = 1 << 20;
/// How many files of a folder are looked at.
const MAX_FILES: usize = 10_000;

/// Reads all that the settings name.
///
/// # Errors
/// Where a file cannot be read, or registers what cannot be: which file, and which field.
pub fn load(config: &Config) -> Result<Services, Error> {
    let server = config.name()?;
    let mut services = Services::new();
    for named in &config.appservices.files {
        for path in files(named).map_err(|why| wrong(named, why.to_string()))? {
            let file = parse(&path).map_err(|why| wrong(&path, why))?;
            services.add(file, &server).map_err(|why| wrong(&path, why.to_string()))?;
        }
    }
    Ok(services)
}

fn wrong(path: &Path, why: String) -> Error {
    Error::Appservice { path: path.to_owned(), why }
}

/// The file, or the registrations in a folder in the order of their names.
fn files(named: &Path) -> io::Result<Vec<PathBuf>> {
    if !named.is_dir() {
        return Ok(vec![named.to_owned()]);
    }
    let mut found = Vec::new();
    for entry in std::fs::read_dir(named)?.take(MAX_FILES) {
        let path = entry?.path();
        if path.extension().is_some_and(|ending| ending == "yaml" || ending == "yml") {
            found.push(path);
        }
    }
    found.sort();
    Ok(found)
}

fn parse(path: &Path) -> Result<ServiceFile, String> {
    let size = std::fs::metadata(path).map_err(|why| why.to_string())?.len();
    if size > MAX_BYTES {
        return Err("it is far too large for a registration".to_owned());
    }
    let text = std::fs::read_to_string(path).map_err(|why| why.to_string())?;
    serde_saphyr::from_str(&text).map_err(|why| {
        // Without the lines around the place: they may hold tokens.
        let why = why.without_snippet().to_string();
        format!("{}{why}", field(&text).map(|field| format!("{field}: ")).unwrap_or_default())
    })
}

/// Which field cannot be, where it is one.
fn field(text: &str) -> Option<String> {
    let json: serde_json::Value = serde_saphyr::from_str(text).ok()?;
    let wrong = serde_path_to_error::deserialize::<_, ServiceFile>(json).err()?;
    Some(wrong.path().to_string()).filter(|path| path != ".")
}

#[cfg(test)]
mod tests {
    use super::*;

    const BRIDGE: &str = r#"# made by a bridge
id: irc
url: http://127.0.0.1:29328
as_token: "123"
hs_token: def
sender_localpart: _irc_bot
rate_limited: false
namespaces:
    users:
    - regex: ^@_irc_.*:localhost$
      exclusive: true
    aliases: []
    rooms:
de.sorunome.msc2409.push_ephemeral: true
receive_ephemeral: true
org.matrix.msc3202: true
io.element.msc4190: true
"#;

    fn config(files: &[&Path]) -> Config {
        let mut config = Config::default();
        config.appservices.files = files.iter().map(|path| path.to_path_buf()).collect();
        config
    }

    #[test]
    fn a_folder_of_registrations() {
        let folder = tempfile::tempdir().unwrap();
        std::fs::write(folder.path().join("irc.yaml"), BRIDGE).unwrap();
        std::fs::write(folder.path().join("notes.txt"), "not one").unwrap();
        let services = load(&config(&[folder.path()])).unwrap();
        let irc = services.get("irc").unwrap();
        assert!(irc.ephemeral && irc.encryption && !irc.rate_limited && irc.is_mine("@_irc_a:localhost"));
        assert!(services.by_token("123").is_some());
    }

    #[test]
    fn what_is_wrong_is_said_with_file_and_field() {
        let folder = tempfile::tempdir().unwrap();
        let file = folder.path().join("irc.yaml");
        let why = |text: &str| {
            std::fs::write(&file, text).unwrap();
            load(&config(&[&file])).unwrap_err().to_string()
        };
        let missing = why(&BRIDGE.replace("hs_token: def\n", ""));
        assert!(missing.contains("irc.yaml") && missing.contains("hs_token") && !missing.contains("123"), "{missing}");
        assert!(why(&BRIDGE.replace("_irc_.*", "_irc_(?=x)")).contains("namespaces.users"));
        let null = why(&BRIDGE.replace("hs_token: def", "hs_token:"));
        assert!(null.contains("hs_token: "), "{null}");
        assert!(why("id: [").contains("irc.yaml"));
        std::fs::write(&file, BRIDGE).unwrap();
        assert!(load(&config(&[&file, &file])).unwrap_err().to_string().contains("`irc`"));
        assert!(load(&config(&[Path::new("no such file")])).unwrap_err().to_string().contains("no such file"));
    }
}
