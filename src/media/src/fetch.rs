//! Files of other servers (Server-Server API, "Content Repository"): asked for once, however many wait for one, and kept.

use std::{
    collections::HashMap,
    sync::{Arc, Weak},
    time::Duration,
};

use bytes::Bytes;
use futures_util::{FutureExt, StreamExt};
use http::{StatusCode, header};
use parking_lot::Mutex;
use stoa_event::{
    hash,
    ids::{OwnedServerName, ServerName},
};
use stoa_remote::{Pace, Pieces, Remote, TransportError};
use stoa_store::rows::remote_media::RemoteMedia;
use tokio::{sync::Semaphore, time::timeout};

use crate::{
    Error, Media,
    flight::Flights,
    multipart::{self, Reader},
    upload::{About, Upload},
};

/// How long another server may take to begin, beside the time that it may wait for a file that is still to come.
const PATIENCE: Duration = Duration::from_secs(30);
/// How many files are fetched at once, and how many of them from one server.
const FETCHES: usize = 64;
const FETCHES_OF_ONE: usize = 8;
/// What an answer may have beside the file.
const AROUND: u64 = 256 * 1024;

/// For how long a server is not asked again for a file that it does not have, and of how many files that is known.
const NONE_MS: u64 = 60_000;
const NONE_MANY: usize = 1_000;

/// Why a file is not had. All who wait for it hear the same.
#[derive(Clone, Debug)]
enum Miss {
    None,
    NotYet,
    TooLarge,
    Busy,
    /// What the other server, or the way to it, did wrong.
    Away(String),
    /// What is wrong here.
    Ours(String),
}

/// What is under way.
pub(crate) struct Fetches {
    pub(crate) remote: Remote,
    under_way: Flights<Result<RemoteMedia, Miss>>,
    /// Files that their servers did not have, and until when that is believed.
    none: Mutex<HashMap<String, u64>>,
    /// How many more a server may be asked for, while there are some.
    servers: Mutex<HashMap<OwnedServerName, Weak<Semaphore>>>,
    all: Semaphore,
}

impl Fetches {
    pub(crate) fn new(remote: Remote) -> Fetches {
        let (none, servers) = (Mutex::default(), Mutex::default());
        Fetches { remote, under_way: Flights::default(), none, servers, all: Semaphore::new(FETCHES) }
    }

    /// Whether a server lately did not have a file.
    fn is_none(&self, hash: &str, now: u64) -> bool {
        self.none.lock().get(hash).is_some_and(|until| now < *until)
    }

    fn note_none(&self, hash: &str, now: u64) {
        let mut none = self.none.lock();
        if none.len() >= NONE_MANY {
            none.retain(|_, until| now < *until);
        }
        if none.len() < NONE_MANY {
            none.insert(hash.to_owned(), now + NONE_MS);
        }
    }

    fn turns_of(&self, server: &ServerName) -> Arc<Semaphore> {
        let mut servers = self.servers.lock();
        if let Some(turns) = servers.get(server).and_then(Weak::upgrade) {
            return turns;
        }
        servers.retain(|_, turns| turns.strong_count() > 0);
        let turns = Arc::new(Semaphore::new(FETCHES_OF_ONE));
        servers.insert(server.to_owned(), Arc::downgrade(&turns));
        turns
    }
}

/// What a file of another server is called here: nothing that it chose.
pub(crate) fn hash_of(server: &ServerName, id: &str) -> String {
    let digest = hash::sha256(format!("{server}/{id}").as_bytes());
    hash::base64_encode(&digest).replace('+', "-").replace('/', "_")
}

impl Media {
    /// Whether a file is of another server and must be asked for there.
    ///
    /// # Errors
    /// Where the store fails.
    pub async fn is_far(&self, server: &ServerName, id: &str) -> Result<bool, Error> {
        Ok(server != self.inner.server && self.cached(&hash_of(server, id)).await?.is_none())
    }

    /// A file of another server, which is here then. The hash is its name.
    pub(crate) async fn of_elsewhere(
        &self,
        server: &ServerName,
        id: &str,
        wait: Duration,
    ) -> Result<(String, RemoteMedia), Error> {
        if !self.inner.fetches.remote.is_allowed(server) {
            return Err(Error::NotFound("this server has nothing of that one"));
        }
        let hash = hash_of(server, id);
        if let Some(row) = self.cached(&hash).await? {
            self.used(&hash, &row).await?;
            return Ok((hash, row));
        }
        if self.inner.fetches.is_none(&hash, self.inner.env.now_ms()) {
            return Err(Miss::None.into());
        }
        let begin = || {
            let (media, key, server, id) = (self.clone(), hash.clone(), server.to_owned(), id.to_owned());
            async move { media.fetch(&key, &server, &id, wait).await }.boxed()
        };
        let fetched = self.inner.fetches.under_way.join(&hash, begin).await;
        if matches!(fetched, Err(Miss::None)) {
            self.inner.fetches.note_none(&hash, self.inner.env.now_ms());
        }
        fetched.map(|row| (hash, row)).map_err(Error::from)
    }

    async fn fetch(&self, hash: &str, server: &ServerName, id: &str, wait: Duration) -> Result<RemoteMedia, Miss> {
        // It may have come between the look and now.
        if let Some(row) = self.cached(hash).await? {
            return Ok(row);
        }
        let fetches = &self.inner.fetches;
        let of_server = fetches.turns_of(server);
        let turns = async { (of_server.acquire().await, fetches.all.acquire().await) };
        let _turns = timeout(PATIENCE, turns).await.map_err(|_| Miss::Busy)?;
        let mut upload = self.receive(self.inner.config.max_remote).await?;
        let about = self.ask(server, id, wait, &mut upload).await?;
        Ok(self.cache(upload, hash, (server.as_str(), id), about).await?)
    }

    /// Asks a server for its file, in the way of now or, where it does not know that, in the old one.
    async fn ask(&self, server: &ServerName, id: &str, wait: Duration, into: &mut Upload) -> Result<About, Miss> {
        let remote = &self.inner.fetches.remote;
        let pace = self.pace(wait);
        let timeout_ms = wait.as_millis();
        let path = format!("/_matrix/federation/v1/media/download/{id}?timeout_ms={timeout_ms}");
        match remote.open(server, get(path)?, true, pace).await {
            Ok(answer) => return self.two_parts(answer, into).await,
            Err(why) if is_unknown(&why) => {}
            Err(why) => return Err(why.into()),
        }
        // An address of IPv6 has brackets, which are written differently in a path.
        let name = server.as_str().replace('[', "%5B").replace(']', "%5D");
        let path = format!(
            "/_matrix/media/v3/download/{name}/{id}?allow_remote=false&timeout_ms={timeout_ms}&allow_redirect=true"
        );
        let answer = remote.open(server, get(path)?, false, pace).await?;
        match answer.headers().get(header::LOCATION).and_then(|place| place.to_str().ok()) {
            Some(place) if answer.status().is_redirection() => self.elsewhere(place, into).await,
            _ => whole(answer, into).await,
        }
    }

    fn pace(&self, wait: Duration) -> Pace {
        let max_bytes = usize::try_from(self.inner.config.max_remote + AROUND).unwrap_or(usize::MAX);
        Pace { head: wait + PATIENCE, grace: PATIENCE, bytes_per_second: 16 * 1024, max_bytes }
    }

    async fn two_parts(&self, answer: http::Response<Pieces>, into: &mut Upload) -> Result<About, Miss> {
        let content_type = answer.headers().get(header::CONTENT_TYPE).and_then(|value| value.to_str().ok());
        let mut reader = Reader::new(content_type.unwrap_or_default())?;
        let mut body = answer.into_body();
        while let Some(piece) = body.next().await {
            let of_file = reader.take(&piece?)?;
            if !of_file.is_empty() {
                into.write(&of_file).await?;
            }
            if reader.is_done() {
                break;
            }
        }
        // A file without its end is none.
        let head = reader.head().filter(|_| reader.is_done()).cloned().ok_or(Miss::away("the answer has no end"))?;
        drop(body);
        match head.location {
            Some(place) => self.elsewhere(&place, into).await,
            None => Ok(head.about),
        }
    }

    /// A file that is at some URL, with no say of how we ask.
    async fn elsewhere(&self, url: &str, into: &mut Upload) -> Result<About, Miss> {
        let answer = self.inner.fetches.remote.open_url(url, self.pace(Duration::ZERO)).await?;
        whole(answer, into).await
    }
}

/// A file that is the whole body.
async fn whole(answer: http::Response<Pieces>, into: &mut Upload) -> Result<About, Miss> {
    if answer.status() != StatusCode::OK {
        return Err(if answer.status() == StatusCode::NOT_FOUND { Miss::None } else { Miss::away("no file") });
    }
    let (parts, mut body) = answer.into_parts();
    while let Some(piece) = body.next().await {
        into.write(&piece?).await?;
    }
    let text = |name: header::HeaderName| parts.headers.get(name).map(http::HeaderValue::as_bytes);
    Ok(About {
        content_type: text(header::CONTENT_TYPE).and_then(multipart::content_type),
        name: text(header::CONTENT_DISPOSITION).and_then(multipart::file_name),
    })
}

fn get(path: String) -> Result<http::Request<Bytes>, Miss> {
    http::Request::get(path).body(Bytes::new()).map_err(|why| Miss::Away(why.to_string()))
}

/// Whether the other server does not know the endpoint. Some say so without words of Matrix.
fn is_unknown(why: &stoa_remote::Error) -> bool {
    let Some(answer) = why.answer() else { return false };
    let unrecognized = answer.errcode.as_deref() == Some("M_UNRECOGNIZED");
    unrecognized || (matches!(answer.status, 404 | 405) && answer.errcode.is_none())
}

impl Miss {
    fn away(why: &str) -> Miss {
        Miss::Away(why.to_owned())
    }
}

impl From<stoa_remote::Error> for Miss {
    fn from(why: stoa_remote::Error) -> Miss {
        use stoa_remote::Error as E;
        let Some(answer) = why.answer() else {
            return match why {
                E::Transport(why) => why.into(),
                E::Busy => Miss::Busy,
                E::Store(why) => Miss::Ours(why.to_string()),
                why => Miss::Away(why.to_string()),
            };
        };
        match (answer.status, answer.errcode.as_deref()) {
            (_, Some("M_NOT_FOUND")) | (404, _) => Miss::None,
            (_, Some("M_NOT_YET_UPLOADED")) => Miss::NotYet,
            (_, Some("M_TOO_LARGE")) => Miss::TooLarge,
            _ => Miss::Away(answer.to_string()),
        }
    }
}

impl From<TransportError> for Miss {
    fn from(why: TransportError) -> Miss {
        match why {
            TransportError::TooLarge(_) => Miss::TooLarge,
            why => Miss::Away(why.to_string()),
        }
    }
}

impl From<multipart::Bad> for Miss {
    fn from(why: multipart::Bad) -> Miss {
        Miss::Away(why.to_string())
    }
}

impl From<Error> for Miss {
    fn from(why: Error) -> Miss {
        match why {
            Error::TooLarge(_) => Miss::TooLarge,
            why => Miss::Ours(why.to_string()),
        }
    }
}

impl From<Miss> for Error {
    fn from(miss: Miss) -> Error {
        match miss {
            Miss::None => Error::NotFound("the other server has no such file"),
            Miss::NotYet => Error::NotYetUploaded,
            Miss::TooLarge => Error::RemoteTooLarge,
            Miss::Busy => Error::Busy,
            Miss::Away(why) => Error::Away(why),
            Miss::Ours(why) => Error::Failed(why),
        }
    }
}

#[cfg(test)]
impl crate::Inner {
    /// Whether nothing is remembered of fetches that are over.
    pub(crate) fn fetches_are_empty(&self) -> bool {
        self.fetches.under_way.is_empty()
    }
}
