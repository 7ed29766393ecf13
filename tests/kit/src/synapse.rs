//! Synapse as the other server: what it is told so that it federates on loopback and stands in nobody's way.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD_NO_PAD;
use serde_json::{Value, json};

use crate::ca::{Ca, CertificateFiles};
use crate::random::unique;

/// A virtual environment with Synapse in it.
#[derive(Clone, Debug)]
pub(crate) struct Synapse {
    venv: PathBuf,
}

/// Where this one server listens, and what it shows.
pub(crate) struct Place<'a> {
    pub(crate) folder: &'a Path,
    pub(crate) name: &'a str,
    pub(crate) client_port: u16,
    pub(crate) tls_port: u16,
    pub(crate) ca: &'a Ca,
    pub(crate) files: &'a CertificateFiles,
}

impl Synapse {
    pub(crate) fn new(venv: PathBuf) -> Self {
        Self { venv }
    }

    /// Writes its configuration and gives the command that runs it.
    ///
    /// # Panics
    /// If a file cannot be written.
    pub(crate) fn command(&self, place: &Place<'_>) -> Command {
        let file = place.folder.join("homeserver.yaml");
        // JSON is YAML.
        fs::write(&file, format!("{:#}", settings(place))).expect("homeserver.yaml is written");
        let key = place.folder.join("signing.key");
        if !key.exists() {
            let seed: String = (0..4).map(|_| unique()).collect();
            let line = format!("ed25519 a_{} {}\n", unique(), STANDARD_NO_PAD.encode(&seed.as_bytes()[..32]));
            fs::write(key, line).expect("the signing key is written");
        }
        let (empty, database) = (self.venv.join("empty.db"), place.folder.join("homeserver.db"));
        if empty.exists() && !database.exists() {
            fs::copy(empty, database).expect("an empty database is copied");
        }
        let mut command = Command::new(self.venv.join("bin/python"));
        command.args(["-m", "synapse.app.homeserver", "-c"]).arg(file);
        command
    }
}

fn settings(place: &Place<'_>) -> Value {
    let path = |name: &str| place.folder.join(name);
    let listener = |port: u16, tls: bool, names: &[&str]| {
        json!({
            "port": port, "bind_addresses": ["127.0.0.1"], "type": "http", "tls": tls,
            "resources": [{ "names": names, "compress": false }],
        })
    };
    let mut settings = json!({
        "server_name": place.name,
        "public_baseurl": format!("http://127.0.0.1:{}/", place.client_port),
        "report_stats": false,
        "listeners": [
            listener(place.client_port, false, &["client"]),
            listener(place.tls_port, true, &["client", "federation"]),
        ],
        "tls_certificate_path": place.files.certificate,
        "tls_private_key_path": place.files.key,
        "federation_custom_ca_list": [place.ca.file()],
        "federation_ip_range_blacklist": [],
        "ip_range_blacklist": [],
        "trusted_key_servers": [],
        "suppress_key_server_warning": true,
        "database": { "name": "sqlite3", "args": { "database": path("homeserver.db") } },
        "media_store_path": path("media_store"),
        "pid_file": path("homeserver.pid"),
        "signing_key_path": path("signing.key"),
        "macaroon_secret_key": "of a test",
        "form_secret": "of a test",
        "registration_shared_secret": "of a test",
        "enable_registration": true,
        "enable_registration_without_verification": true,
        "bcrypt_rounds": 4,
        "presence": { "enabled": true },
        "url_preview_enabled": false,
        "allow_public_rooms_over_federation": true,
        "allow_public_rooms_without_auth": true,
        "room_list_publication_rules": [{ "action": "allow" }],
        "enable_room_list_search": true,
        // Not the answer of before to a first sync that is asked for again.
        "caches": { "sync_response_cache_duration": "0s" },
        // A server that was away is asked again soon.
        "federation": {
            "destination_min_retry_interval": "1s",
            "destination_retry_multiplier": 2,
            "destination_max_retry_interval": "3s",
        },
    });
    if let (Some(all), Value::Object(limits)) = (settings.as_object_mut(), no_limits()) {
        all.extend(limits);
    }
    settings
}

fn no_limits() -> Value {
    let off = json!({ "per_second": 1_000_000, "burst_count": 1_000_000 });
    json!({
        "rc_message": off,
        "rc_registration": off,
        "rc_registration_token_validity": off,
        "rc_login": { "address": off, "account": off, "failed_attempts": off },
        "rc_admin_redaction": off,
        "rc_joins": { "local": off, "remote": off },
        "rc_joins_per_room": off,
        "rc_invites": { "per_room": off, "per_user": off, "per_issuer": off },
        "rc_3pid_validation": off,
        "rc_third_party_invite": off,
        "rc_room_creation": off,
        "rc_media_create": off,
        "rc_presence": { "per_user": off },
        "rc_key_requests": off,
        "rc_user_directory": off,
        "rc_profile": off,
        "rc_reports": off,
        "rc_delayed_event_mgmt": off,
        "rc_federation": {
            "window_size": 1000, "sleep_limit": 1_000_000, "sleep_delay": 1, "reject_limit": 1_000_000, "concurrent": 100,
        },
        "remote_media_download_per_second": "1G",
        "remote_media_download_burst_count": "1G",
    })
}
