//! Settings of application services.

use std::path::PathBuf;

use serde::Deserialize;

/// Application services: bridges and bots beside this server.
#[derive(Clone, Debug, Default, PartialEq, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct AppservicesConfig {
    /// Registration files, and folders of them.
    pub files: Vec<PathBuf>,
    /// Whether their token is also sent in the query, as before Matrix 1.4.
    pub legacy_authorization: bool,
}
