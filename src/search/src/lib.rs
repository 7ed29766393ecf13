//! Search in what people say (Client-Server API, "Server Side Search") and for people ("User Directory"): an index beside the
//! store, kept by a follower of the feed. It says what fits; what somebody may see of it is for others to decide.

mod find;
mod follow;
mod index;
mod people;
mod texts;
mod words;

use std::{path::PathBuf, sync::Arc, time::Duration};

use stoa_store::Store;
use tokio::sync::watch;

pub use crate::{
    find::{Cursor, Found, Hit, Order, Terms, Within},
    follow::FOLLOWER,
    people::{Person, Sight},
    texts::{Key, text},
    words::LANGUAGES,
};
use crate::{index::Index, words::Words};

/// How long a search waits for the index to be opened.
const PATIENCE: Duration = Duration::from_secs(5);
/// How many searches go on at once.
const AT_ONCE: usize = 4;

/// What goes wrong in a search.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// There is no stemmer for a language of the settings.
    #[error("there are no rules for the language `{0}`")]
    Language(String),
    /// What is looked for is too long.
    #[error("{0}")]
    TooLong(&'static str),
    /// The index is not open (yet).
    #[error("the search is not ready")]
    NotReady,
    /// The index failed.
    #[error(transparent)]
    Index(#[from] tantivy::TantivyError),
    /// The folder of the index refuses.
    #[error(transparent)]
    Io(#[from] std::io::Error),
    /// The store failed.
    #[error(transparent)]
    Store(#[from] stoa_store::Error),
    /// Work was broken off.
    #[error("{0}")]
    Task(String),
}

/// How the search is to be.
#[derive(Clone, Debug)]
pub struct Config {
    /// The name of this server: its users are found by their profiles.
    pub server: String,
    /// Where the index is kept.
    pub folder: PathBuf,
    /// Whether messages can be searched; people always can.
    pub messages: bool,
    /// By which languages words are stemmed.
    pub languages: Vec<String>,
    /// How much memory collects what is written next, in bytes.
    pub memory: usize,
}

/// Whether there are rules for all of these languages.
///
/// # Errors
/// [`Error::Language`]
pub fn known_languages(languages: &[String]) -> Result<(), Error> {
    Words::new(languages).map(drop)
}

struct Inner {
    store: Store,
    config: Config,
    words: Words,
    open: watch::Sender<Option<Arc<Index>>>,
    searches: tokio::sync::Semaphore,
    again: tokio::sync::Notify,
}

/// A handle to the search; clones are the same.
#[derive(Clone)]
pub struct Search {
    inner: Arc<Inner>,
}

impl Search {
    /// The search over a store. [`Search::run`] must be run for it to know anything.
    ///
    /// # Errors
    /// [`Error::Language`]
    pub fn new(store: Store, config: Config) -> Result<Search, Error> {
        let words = Words::new(&config.languages)?;
        let (open, searches) = (watch::Sender::new(None), tokio::sync::Semaphore::new(AT_ONCE));
        Ok(Search {
            inner: Arc::new(Inner { store, config, words, open, searches, again: tokio::sync::Notify::new() }),
        })
    }

    /// Whether messages can be searched.
    pub fn has_messages(&self) -> bool {
        self.inner.config.messages
    }

    /// Has the index made anew from the store, in the background.
    pub fn rebuild(&self) {
        self.inner.again.notify_one();
    }

    /// Does something with the index beside the tasks of the network.
    async fn with_index<T: Send + 'static>(
        &self,
        work: impl FnOnce(&Index) -> Result<T, Error> + Send + 'static,
    ) -> Result<T, Error> {
        let _turn = self.inner.searches.acquire().await.map_err(|_| Error::NotReady)?;
        let mut open = self.inner.open.subscribe();
        let index = match tokio::time::timeout(PATIENCE, open.wait_for(Option::is_some)).await {
            Ok(Ok(index)) => index.clone(),
            _ => None,
        };
        let index = index.ok_or(Error::NotReady)?;
        let work = tokio::task::spawn_blocking(move || work(&index));
        work.await.map_err(|why| Error::Task(why.to_string()))?
    }
}
