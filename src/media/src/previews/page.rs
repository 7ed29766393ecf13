//! What is at a URL: a page, whose beginning is read, a picture, or something that has no preview.

use std::time::Duration;

use bytes::{Bytes, BytesMut};
use futures_util::StreamExt;
use http::{HeaderMap, StatusCode, header};
use stoa_remote::{
    Limits, Pieces,
    outside::{Fetched, Rules, Url},
};

use super::{
    Previews, Why,
    card::{self, Card},
    html, oembed, text,
};

/// How long one server may take, redirects and all.
const TIME: Duration = Duration::from_secs(12);
const REDIRECTS: usize = 5;
/// How much of an oEmbed answer is read.
const OEMBED_BYTES: usize = 256 * 1024;
const AGENT: &str = concat!("Stoa/", env!("CARGO_PKG_VERSION"), " (bot; previews of links)");
const PAGES: &str = "text/html,application/xhtml+xml,image/*;q=0.9,*/*;q=0.5";

/// What is at a URL.
pub(super) enum Page {
    /// A page, and where it was in the end.
    Text {
        url: Url,
        card: Card,
    },
    /// A picture that begins to come.
    Picture(Pieces),
    Other,
}

impl Previews {
    pub(super) async fn page(&self, url: Url) -> Result<Page, Why> {
        let Fetched { url, response } = self.get(&url, PAGES).await?;
        let (parts, body) = response.into_parts();
        let content_type = content_type(&parts.headers);
        let kind = content_type.split(';').next().unwrap_or_default().trim().to_ascii_lowercase();
        match kind.as_str() {
            "text/html" | "application/xhtml+xml" | "" => {}
            kind if kind.starts_with("image/") => return Ok(Page::Picture(body)),
            _ => return Ok(Page::Other),
        }
        let bytes = beginning(body, self.config.max_page).await?;
        let read = move || html::read(&text::decode(&bytes, &content_type));
        let mut facts = self.reading(read).await?;
        let url = facts.base.take().and_then(|base| url.join(&base).ok()).unwrap_or(url);
        let embed = match facts.oembed.take() {
            Some(place) if !card::is_whole(&facts) => self.embed(&url, &place).await,
            _ => None,
        };
        Ok(Page::Text { card: card::make(facts, embed.unwrap_or_default()), url })
    }

    /// What a site says in oEmbed. Nothing where that goes wrong: there is still the page.
    async fn embed(&self, page: &Url, place: &str) -> Option<oembed::Embed> {
        let answer = self.get(&page.join(place).ok()?, "application/json").await.ok()?;
        let bytes = beginning(answer.response.into_body(), OEMBED_BYTES).await.ok()?;
        self.reading(move || oembed::read(&bytes)).await.ok()?
    }

    /// Gets something; an answer that is not one of success is none.
    pub(super) async fn get(&self, url: &Url, accept: &str) -> Result<Fetched<Pieces>, Why> {
        let request = http::Request::get(url.as_str())
            .header(header::USER_AGENT, AGENT)
            .header(header::ACCEPT, accept)
            .header(header::ACCEPT_LANGUAGE, &self.config.languages)
            .body(Bytes::new());
        let limits = Limits { timeout: TIME, max_bytes: self.config.max_page };
        let rules = Rules { limits, redirects: REDIRECTS, https_only: false };
        let fetched = self.config.web.open(request.map_err(|_| Why::NoPage)?, rules);
        let fetched = tokio::time::timeout(TIME, fetched).await.map_err(|_| Why::NoPage)??;
        match fetched.response.status() {
            StatusCode::OK => Ok(fetched),
            _ => Err(Why::NoPage),
        }
    }

    /// Does something that needs a core for a while: a few at a time.
    pub(super) async fn reading<T: Send + 'static>(&self, work: impl FnOnce() -> T + Send + 'static) -> Result<T, Why> {
        let _turn = self.reading.acquire().await.map_err(|_| Why::Ours)?;
        tokio::task::spawn_blocking(work).await.map_err(|_| Why::NoPage)
    }
}

fn content_type(headers: &HeaderMap) -> String {
    let value = headers.get(header::CONTENT_TYPE).map(|value| String::from_utf8_lossy(value.as_bytes()));
    value.unwrap_or_default().into_owned()
}

/// The first bytes of a body, after decompression. Nothing more is read.
async fn beginning(mut body: Pieces, most: usize) -> Result<Bytes, Why> {
    let mut bytes = BytesMut::new();
    while let Some(piece) = body.next().await {
        let piece = piece?;
        bytes.extend_from_slice(&piece[..piece.len().min(most - bytes.len())]);
        if bytes.len() == most {
            break;
        }
    }
    Ok(bytes.freeze())
}
