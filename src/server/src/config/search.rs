//! Settings of the search and of the user directory.

use serde::Deserialize;

use super::{Config, Error, Size};

/// Search in what people say.
#[derive(Clone, Debug, PartialEq, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct SearchConfig {
    /// Whether messages can be searched.
    pub enabled: bool,
    /// The languages by whose rules words are reduced to their stems.
    pub languages: Vec<String>,
    /// Memory that collects what is written into the index next.
    pub memory: Size,
}

/// Search for people.
#[derive(Clone, Debug, Default, PartialEq, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct UserDirectoryConfig {
    /// Whether everybody can find all accounts of this server, not only those in the same or in public rooms.
    pub search_all_users: bool,
}

impl Default for SearchConfig {
    fn default() -> Self {
        let languages = stoa_search::LANGUAGES.map(str::to_owned).to_vec();
        SearchConfig { enabled: true, languages, memory: Size(24 << 20) }
    }
}

impl SearchConfig {
    pub(super) fn check(&self) -> Result<(), Error> {
        let bad = |option, why: String| Err(Error::Value { option, why });
        if !(16 << 20..=2 << 30).contains(&self.memory.0) {
            return bad("search.memory", "it must be between 16M and 2G".to_owned());
        }
        match stoa_search::known_languages(&self.languages) {
            Err(why) => bad("search.languages", why.to_string()),
            Ok(()) => Ok(()),
        }
    }
}

impl Config {
    /// What this means for the search.
    pub fn search(&self) -> stoa_search::Config {
        stoa_search::Config {
            server: self.server_name.clone(),
            folder: self.data.join("search"),
            messages: self.search.enabled,
            languages: self.search.languages.clone(),
            memory: usize::try_from(self.search.memory.0).unwrap_or(usize::MAX),
        }
    }
}
