//! Files: uploads, downloads, thumbnails (Client-Server API, "Content repository").

use std::{path::PathBuf, sync::Arc};

use stoa_store::{Env, Store};

/// How media is to be.
#[derive(Clone, Debug)]
pub struct Config {
    /// The folder that holds the files.
    pub folder: PathBuf,
}

struct Inner {
    #[expect(dead_code, reason = "uploads come next")]
    parts: (Store, Env, Config),
}

/// A handle to the files; clones are the same.
#[derive(Clone)]
pub struct Media {
    #[expect(dead_code, reason = "uploads come next")]
    inner: Arc<Inner>,
}

impl Media {
    /// The files that a store knows.
    pub fn new(store: Store, env: Env, config: Config) -> Media {
        Media { inner: Arc::new(Inner { parts: (store, env, config) }) }
    }
}
