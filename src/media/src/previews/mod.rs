//! Previews of links (Client-Server API, "GET /_matrix/client/v1/media/preview_url"): got once however many ask for one, kept
//! for an hour, and never from an address that is not public.

mod card;
mod html;
mod oembed;
mod page;
mod picture;
mod text;

use std::{sync::Arc, time::Duration};

use bytes::Bytes;
use futures_util::FutureExt;
use quick_cache::{Weighter, sync::Cache};
use serde_json::{Map, Value};
use stoa_remote::{
    TransportError,
    outside::{Client, Url},
};
use tokio::{sync::Semaphore, time::timeout};

use crate::{Error, Media, flight::Flights};

/// The longest URL.
const URL_BYTES: usize = 4096;
/// How long all of it may take, and how long one may wait for its turn.
const TIME: Duration = Duration::from_secs(30);
const PATIENCE: Duration = Duration::from_secs(10);
/// How many previews are made at once, and how many pages or pictures are read at once: each needs a core and memory.
const MAKING: usize = 32;
const READING: usize = 2;
/// How long a preview is kept, and how long is remembered that there is none.
const KEEP_MS: u64 = 60 * 60 * 1000;
const KEEP_NONE_MS: u64 = 60 * 1000;
/// How many bytes of previews are kept in memory, and about how many that is.
const KEPT_BYTES: u64 = 8 << 20;
const KEPT: usize = 10_000;

/// How previews are made.
#[derive(Clone, Debug)]
pub struct PreviewConfig {
    /// What gets pages: it must refuse addresses that are not public.
    pub web: Client,
    /// The languages that pages are asked for, as in `Accept-Language`.
    pub languages: String,
    /// How much of a page is read, in bytes.
    pub max_page: usize,
    /// The largest picture, in bytes.
    pub max_picture: u64,
}

impl PreviewConfig {
    /// The defaults, with that client.
    pub fn with(web: Client) -> PreviewConfig {
        PreviewConfig { web, languages: "en".to_owned(), max_page: 1 << 20, max_picture: 10 << 20 }
    }
}

/// A preview.
#[derive(Debug)]
struct Preview {
    json: Bytes,
    /// The name of its picture among the files of others.
    picture: Option<String>,
}

/// Why there is no preview. What it was exactly is nobody's business: it may say something of the network that this server
/// is in.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Why {
    /// The page cannot be had.
    NoPage,
    /// The settings do not allow it.
    NotAllowed,
    Busy,
    /// Disk or store failed; that is in the log.
    Ours,
}

type Made = Result<Arc<Preview>, Why>;

#[derive(Clone)]
struct Kept {
    until: u64,
    made: Made,
}

#[derive(Clone)]
struct Weigh;

impl Weighter<String, Kept> for Weigh {
    fn weight(&self, url: &String, kept: &Kept) -> u64 {
        (url.len() + kept.made.as_ref().map_or(0, |made| made.json.len()) + 128) as u64
    }
}

/// What is kept, and what is under way.
pub(crate) struct Previews {
    config: PreviewConfig,
    kept: Cache<String, Kept, Weigh>,
    under_way: Flights<Made>,
    making: Semaphore,
    reading: Semaphore,
}

impl Previews {
    pub(crate) fn new(config: PreviewConfig) -> Previews {
        Previews {
            config,
            kept: Cache::with_weighter(KEPT, KEPT_BYTES, Weigh),
            under_way: Flights::default(),
            making: Semaphore::new(MAKING),
            reading: Semaphore::new(READING),
        }
    }
}

impl Media {
    /// Whether the preview of a URL is here, so that nobody else needs to be asked.
    pub async fn has_preview(&self, url: &str) -> bool {
        let (Ok(previews), Ok(url)) = (self.previews(), parse(url)) else { return false };
        self.kept_preview(previews, url.as_str()).await.is_some()
    }

    /// The preview of a URL, as JSON.
    ///
    /// # Errors
    /// [`Error::Forbidden`] where there are no previews, or none of that URL; [`Error::InvalidParam`], [`Error::NoPreview`],
    /// [`Error::Busy`]
    pub async fn preview(&self, url: &str) -> Result<Bytes, Error> {
        let previews = self.previews()?;
        let url = parse(url)?;
        if let Some(made) = self.kept_preview(previews, url.as_str()).await {
            return json(made);
        }
        let begin = || {
            let (media, url) = (self.clone(), url.clone());
            async move { media.make_preview(url).await }.boxed()
        };
        json(previews.under_way.join(url.as_str(), begin).await)
    }

    fn previews(&self) -> Result<&Previews, Error> {
        self.inner.previews.as_ref().ok_or(Error::Forbidden("this server makes no previews of links"))
    }

    async fn kept_preview(&self, previews: &Previews, url: &str) -> Option<Made> {
        let kept = previews.kept.get(url).filter(|kept| self.inner.env.now_ms() < kept.until)?;
        if let Ok(Preview { picture: Some(hash), .. }) = kept.made.as_deref() {
            // Without its picture it is made again.
            self.cached(hash).await.ok()??;
        }
        Some(kept.made)
    }

    async fn make_preview(&self, url: Url) -> Made {
        let previews = self.previews().map_err(|_| Why::Ours)?;
        let _turn = timeout(PATIENCE, previews.making.acquire()).await.map_err(|_| Why::Busy)?;
        let made = timeout(TIME, self.look_at(previews, url.clone())).await.unwrap_or(Err(Why::NoPage)).map(Arc::new);
        let keep_ms = match made {
            Ok(_) => KEEP_MS,
            Err(Why::NoPage | Why::NotAllowed) => KEEP_NONE_MS,
            Err(Why::Busy | Why::Ours) => return made,
        };
        let until = self.inner.env.now_ms() + keep_ms;
        previews.kept.insert(url.into(), Kept { until, made: made.clone() });
        made
    }

    async fn look_at(&self, previews: &Previews, url: Url) -> Result<Preview, Why> {
        let (mut fields, picture) = match previews.page(url).await? {
            page::Page::Text { url, card } => (card.fields, self.find_picture(previews, &url, card.pictures).await),
            page::Page::Picture(body) => (Map::new(), self.keep_picture(previews, body).await.ok()),
            page::Page::Other => (Map::new(), None),
        };
        if let Some(picture) = &picture {
            picture.describe(self.server(), &mut fields);
        }
        let json = Value::Object(fields).to_string().into();
        Ok(Preview { json, picture: picture.map(|picture| picture.hash) })
    }
}

fn json(made: Made) -> Result<Bytes, Error> {
    made.map(|made| made.json.clone()).map_err(|why| match why {
        Why::NoPage => Error::NoPreview,
        Why::NotAllowed => Error::Forbidden("this server makes no previews of that link"),
        Why::Busy => Error::Busy,
        Why::Ours => Error::Failed("a preview could not be made".to_owned()),
    })
}

/// A URL that a preview can be of.
fn parse(url: &str) -> Result<Url, Error> {
    let bad = Error::InvalidParam("url: not a URL of the web");
    if url.len() > URL_BYTES {
        return Err(bad);
    }
    let Ok(mut url) = Url::parse(url) else { return Err(bad) };
    if !matches!(url.scheme(), "http" | "https") || !url.username().is_empty() || url.password().is_some() {
        return Err(bad);
    }
    url.set_fragment(None);
    Ok(url)
}

impl From<TransportError> for Why {
    fn from(why: TransportError) -> Why {
        tracing::debug!(%why, "no preview");
        match why {
            TransportError::NotAllowed => Why::NotAllowed,
            _ => Why::NoPage,
        }
    }
}

impl From<Error> for Why {
    fn from(why: Error) -> Why {
        match why {
            Error::TooLarge(_) => Why::NoPage,
            why => {
                tracing::warn!(%why, "cannot keep the picture of a preview");
                Why::Ours
            }
        }
    }
}
