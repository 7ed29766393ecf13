//! Request bodies: limited before they are buffered, and refused with words that help.

use std::time::Duration;

use axum::{
    body::HttpBody,
    extract::{FromRequest, Request},
};
use bytes::{Bytes, BytesMut};
use http::header;
use http_body_util::BodyExt;
use serde::de::DeserializeOwned;
use serde_json::value::RawValue;

use crate::Error;

/// The most bytes of a JSON body. Key backups and first key uploads are the largest that clients send.
pub const JSON_BYTES: usize = 4 << 20;
/// The most levels of a JSON body: what the law allows for events (127), with room for what is around them.
pub const JSON_LEVELS: usize = 120;
/// How long a body may take to arrive.
const WHOLE: Duration = Duration::from_secs(60);
/// How long each piece of a file may take.
const PIECE: Duration = Duration::from_secs(30);

/// The body as a value. An empty body counts as `{}`.
///
/// What is not JSON is `M_NOT_JSON`; JSON of another shape is `M_BAD_JSON`, which names the field.
#[derive(Clone, Debug)]
pub struct Body<T>(pub T);

/// The body as bytes that are one JSON object. An empty body counts as `{}`.
#[derive(Clone, Debug)]
pub struct Raw(pub Bytes);

impl<S: Send + Sync, T: DeserializeOwned> FromRequest<S> for Body<T> {
    type Rejection = Error;

    async fn from_request(request: Request, _: &S) -> Result<Self, Error> {
        let bytes = object(read(request.into_body(), JSON_BYTES).await?)?;
        parse(&bytes).map(Body)
    }
}

impl<S: Send + Sync> FromRequest<S> for Raw {
    type Rejection = Error;

    async fn from_request(request: Request, _: &S) -> Result<Self, Error> {
        let bytes = object(read(request.into_body(), JSON_BYTES).await?)?;
        whole(&bytes)?;
        Ok(Raw(bytes))
    }
}

/// Reads a JSON object into a value, with errors as [`Body`] has them.
///
/// # Errors
/// `M_NOT_JSON`, `M_BAD_JSON`
pub fn parse<T: DeserializeOwned>(bytes: &[u8]) -> Result<T, Error> {
    whole(bytes)?;
    if bytes.iter().find(|byte| !byte.is_ascii_whitespace()) != Some(&b'{') {
        return Err(Error::bad_json("A JSON object is needed"));
    }
    let mut json = serde_json::Deserializer::from_slice(bytes);
    let value = serde_path_to_error::deserialize(&mut json).map_err(|error| {
        let path = error.path().to_string();
        let inner = error.into_inner();
        match inner.classify() {
            serde_json::error::Category::Data if path == "." => Error::bad_json(inner.to_string()),
            serde_json::error::Category::Data => Error::bad_json(format!("{path}: {inner}")),
            _ => Error::not_json(inner.to_string()),
        }
    })?;
    json.end().map_err(|error| Error::not_json(error.to_string()))?;
    Ok(value)
}

/// Looks at all of it, so that what is wrong behind the fields that are read is refused too.
fn whole(bytes: &[u8]) -> Result<(), Error> {
    let text = std::str::from_utf8(bytes).map_err(|error| Error::not_json(error.to_string()))?;
    serde_json::from_str::<&RawValue>(text).map(drop).map_err(|error| Error::not_json(error.to_string()))
}

/// Reads a whole body of at most `limit` bytes.
///
/// # Errors
/// `M_TOO_LARGE`, known from `Content-Length` or found while reading; 408 where it does not arrive in time.
pub async fn read(body: axum::body::Body, limit: usize) -> Result<Bytes, Error> {
    if body.size_hint().lower() > limit as u64 {
        return Err(too_large(limit));
    }
    match tokio::time::timeout(WHOLE, gather(body, limit)).await {
        Ok(bytes) => bytes,
        Err(_) => Err(Error::timeout("The request body did not arrive in time")),
    }
}

async fn gather(mut body: axum::body::Body, limit: usize) -> Result<Bytes, Error> {
    let mut first = Bytes::new();
    let mut all = BytesMut::new();
    while let Some(frame) = body.frame().await {
        let frame = frame.map_err(|error| Error::unknown(format!("The request body broke off: {error}")))?;
        let Ok(data) = frame.into_data() else { continue };
        if first.len() + all.len() + data.len() > limit {
            return Err(too_large(limit));
        }
        // Most bodies come in one piece, which needs no copy.
        if first.is_empty() && all.is_empty() {
            first = data;
        } else {
            all.extend_from_slice(&std::mem::take(&mut first));
            all.extend_from_slice(&data);
        }
    }
    Ok(if all.is_empty() { first } else { all.freeze() })
}

/// A body that is taken piece by piece, for files.
pub struct Pieces(axum::body::Body);

impl Pieces {
    /// The pieces of a body.
    pub fn of(body: axum::body::Body) -> Pieces {
        Pieces(body)
    }

    /// How many bytes will come, where the client said it.
    pub fn length(&self) -> Option<u64> {
        self.0.size_hint().exact()
    }

    /// The next piece, and nothing at the end.
    ///
    /// # Errors
    /// 408 where none comes in time, 400 where the connection breaks.
    pub async fn next(&mut self) -> Result<Option<Bytes>, Error> {
        loop {
            match tokio::time::timeout(PIECE, self.0.frame()).await {
                Err(_) => return Err(Error::timeout("The request body did not arrive in time")),
                Ok(None) => return Ok(None),
                Ok(Some(Err(error))) => return Err(Error::unknown(format!("The request body broke off: {error}"))),
                Ok(Some(Ok(frame))) => {
                    if let Ok(data) = frame.into_data() {
                        return Ok(Some(data));
                    }
                }
            }
        }
    }
}

/// 413 `M_TOO_LARGE`
pub fn too_large(limit: usize) -> Error {
    Error::too_large(format!("The request body is larger than {limit} bytes"))
}

/// Refuses what is not an object or is nested too deeply, before anything recursive looks at it.
fn object(bytes: Bytes) -> Result<Bytes, Error> {
    if bytes.iter().all(u8::is_ascii_whitespace) {
        return Ok(Bytes::from_static(b"{}"));
    }
    if levels(&bytes) > JSON_LEVELS {
        return Err(Error::bad_json(format!("The JSON is nested deeper than {JSON_LEVELS} levels")));
    }
    if bytes.iter().find(|byte| !byte.is_ascii_whitespace()) != Some(&b'{') {
        return Err(match serde_json::from_slice::<&RawValue>(&bytes) {
            Ok(_) => Error::bad_json("The request body must be a JSON object"),
            Err(error) => Error::not_json(error.to_string()),
        });
    }
    Ok(bytes)
}

/// How deep brackets are nested outside of strings.
fn levels(json: &[u8]) -> usize {
    let (mut deepest, mut level, mut string, mut escaped) = (0, 0usize, false, false);
    for byte in json {
        match (string, byte) {
            (true, _) if escaped => escaped = false,
            (true, b'\\') => escaped = true,
            (_, b'"') => string = !string,
            (false, b'{' | b'[') => {
                level += 1;
                deepest = deepest.max(level);
            }
            (false, b'}' | b']') => level = level.saturating_sub(1),
            _ => {}
        }
    }
    deepest
}

/// The declared media type of a request, as it stands in the header.
pub fn content_type(headers: &http::HeaderMap) -> Option<&str> {
    headers.get(header::CONTENT_TYPE).and_then(|value| value.to_str().ok())
}

#[cfg(test)]
mod tests {
    use serde::Deserialize;

    use super::*;

    #[derive(Debug, Deserialize)]
    struct Inner {
        #[allow(dead_code)]
        count: u32,
    }

    #[derive(Debug, Deserialize)]
    struct Example {
        #[serde(default)]
        inner: Vec<Inner>,
    }

    async fn body(text: impl Into<axum::body::Body>) -> Result<Example, Error> {
        let request = Request::new(text.into());
        Body::from_request(request, &()).await.map(|Body(value)| value)
    }

    #[tokio::test]
    async fn an_empty_body_is_an_empty_object() {
        assert!(body("").await.unwrap().inner.is_empty());
        assert!(body(" \n").await.unwrap().inner.is_empty());
    }

    #[tokio::test]
    async fn what_is_wrong_is_named() {
        let error = body(r#"{"inner":[{"count":1},{"count":"x"}]}"#).await.unwrap_err();
        assert_eq!((error.status.as_u16(), error.errcode), (400, "M_BAD_JSON"));
        assert!(error.message.starts_with("inner[1].count: invalid type: string"), "{}", error.message);
    }

    #[tokio::test]
    async fn not_json_and_not_an_object_are_told_apart() {
        for text in ["{", "nonsense", "{} {}", r#"{"a":tru}"#, "{\"a\":\"\u{1}\"}"] {
            assert_eq!(body(text).await.unwrap_err().errcode, "M_NOT_JSON", "{text}");
        }
        assert_eq!(body(&b"{\"a\":\"\xFF\"}"[..]).await.unwrap_err().errcode, "M_NOT_JSON");
        for text in ["[]", "[[]]", "1", "null", "\"{}\""] {
            assert_eq!(body(text).await.unwrap_err().errcode, "M_BAD_JSON", "{text}");
        }
    }

    #[tokio::test]
    async fn deep_nesting_is_refused_without_recursion() {
        let deep = |n: usize| format!("{{\"x\":{}{}}}", "[".repeat(n), "]".repeat(n));
        assert!(body(deep(JSON_LEVELS - 1)).await.is_ok());
        assert_eq!(body(deep(JSON_LEVELS)).await.unwrap_err().errcode, "M_BAD_JSON");
        assert_eq!(body(deep(1_000_000)).await.unwrap_err().errcode, "M_BAD_JSON");
        assert!(body(r#"{"x":"[[[[\"[["}"#).await.is_ok());
    }

    #[tokio::test]
    async fn a_body_is_counted_while_it_arrives() {
        let pieces = (0..5000).map(|_| Ok::<_, std::io::Error>(Bytes::from(vec![b' '; 1024])));
        let stream = axum::body::Body::from_stream(futures_util::stream::iter(pieces));
        assert_eq!(body(stream).await.unwrap_err().errcode, "M_TOO_LARGE");
        let error = body(vec![b' '; JSON_BYTES + 1]).await.unwrap_err();
        assert_eq!((error.status.as_u16(), error.errcode), (413, "M_TOO_LARGE"));
    }

    #[tokio::test(start_paused = true)]
    async fn a_body_that_never_ends_is_given_up() {
        let never = futures_util::stream::pending::<Result<Bytes, std::io::Error>>();
        let error = body(axum::body::Body::from_stream(never)).await.unwrap_err();
        assert_eq!(error.status.as_u16(), 408);
    }

    #[tokio::test]
    async fn raw_keeps_the_bytes() {
        let text = r#"{ "b":1.50, "a" : [] }"#;
        let Raw(bytes) = Raw::from_request(Request::new(text.into()), &()).await.unwrap();
        assert_eq!(bytes, text);
        assert!(Raw::from_request(Request::new(r#"{"a":}"#.into()), &()).await.is_err());
    }
}
