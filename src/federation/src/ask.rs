//! Questions to other servers whose answers hold events: those stay the bytes that they came as.

use std::{fmt::Write, time::Duration};

use bytes::Bytes;
use http::{Method, Request, header};
use percent_encoding::{AsciiSet, NON_ALPHANUMERIC, utf8_percent_encode};
use serde::{Serialize, de::DeserializeOwned};
use stoa_event::{ids::ServerName, pdu::Pdu};
use stoa_remote::{Error, Options};

use crate::Inner;

/// What need not be escaped in a path segment or a query value.
const SAFE: &AsciiSet = &NON_ALPHANUMERIC.remove(b'-').remove(b'_').remove(b'.').remove(b'~');

/// How long the answer to a join may take: the other server may have to gather a large state.
pub(crate) const PATIENT: Duration = Duration::from_secs(300);
/// How long other questions may take.
pub(crate) const USUAL: Duration = Duration::from_secs(30);

/// A path with a query below `/_matrix/federation`.
pub(crate) struct Path(String, char);

impl Path {
    /// Begins with literal text such as `v1/event`.
    pub(crate) fn new(start: &str) -> Path {
        Path(format!("/_matrix/federation/{start}"), '?')
    }

    /// Adds a segment.
    pub(crate) fn part(mut self, part: &str) -> Path {
        let _ = write!(self.0, "/{}", utf8_percent_encode(part, SAFE));
        self
    }

    /// Adds a query parameter.
    pub(crate) fn ask(mut self, name: &str, value: &str) -> Path {
        let _ = write!(self.0, "{}{name}={}", self.1, utf8_percent_encode(value, SAFE));
        self.1 = '&';
        self
    }
}

impl Inner {
    pub(crate) async fn get<T: DeserializeOwned>(
        &self,
        to: &ServerName,
        path: Path,
        timeout: Duration,
    ) -> Result<T, Error> {
        self.question(to, Method::GET, path, None, timeout).await
    }

    pub(crate) async fn put<T: DeserializeOwned>(
        &self,
        to: &ServerName,
        path: Path,
        body: &(impl Serialize + ?Sized),
        timeout: Duration,
    ) -> Result<T, Error> {
        let body = serde_json::to_vec(body).map_err(|why| Error::Request(why.to_string()))?;
        self.question(to, Method::PUT, path, Some(body.into()), timeout).await
    }

    /// Sends an event, as it is; the answer is given as it came.
    pub(crate) async fn put_event(
        &self,
        to: &ServerName,
        path: Path,
        pdu: &Pdu,
        timeout: Duration,
    ) -> Result<Bytes, Error> {
        self.answer(to, Method::PUT, path, Some(pdu.json().clone()), timeout).await
    }

    /// The same question as [`Inner::get`]; the answer is given as it came.
    pub(crate) async fn get_bytes(&self, to: &ServerName, path: Path, timeout: Duration) -> Result<Bytes, Error> {
        self.answer(to, Method::GET, path, None, timeout).await
    }

    pub(crate) async fn post<T: DeserializeOwned>(
        &self,
        to: &ServerName,
        path: Path,
        body: &(impl Serialize + ?Sized),
        timeout: Duration,
    ) -> Result<T, Error> {
        let body = serde_json::to_vec(body).map_err(|why| Error::Request(why.to_string()))?;
        self.question(to, Method::POST, path, Some(body.into()), timeout).await
    }

    async fn question<T: DeserializeOwned>(
        &self,
        to: &ServerName,
        method: Method,
        path: Path,
        body: Option<Bytes>,
        timeout: Duration,
    ) -> Result<T, Error> {
        let answer = self.answer(to, method, path, body, timeout).await?;
        serde_json::from_slice(&answer).map_err(|why| Error::Malformed(why.to_string()))
    }

    async fn answer(
        &self,
        to: &ServerName,
        method: Method,
        path: Path,
        body: Option<Bytes>,
        timeout: Duration,
    ) -> Result<Bytes, Error> {
        let mut request = Request::builder().method(method).uri(path.0);
        if body.is_some() {
            request = request.header(header::CONTENT_TYPE, "application/json");
        }
        let request = request.body(body.unwrap_or_default()).map_err(|why| Error::Request(why.to_string()))?;
        let options = Options { timeout: Some(timeout), ..Options::default() };
        Ok(self.remote.call_raw(to, request, options).await?.into_body())
    }
}
