//! Answers that hold events: the bytes that were stored, put together without reading them.

use std::convert::Infallible;

use axum::{
    body::Body,
    response::{IntoResponse, Response},
};
use bytes::{BufMut, Bytes, BytesMut};
use futures_util::stream;
use http::{HeaderValue, header};
use serde::Serialize;
use stoa_http::{Error, JsonBytes};

/// Larger answers are sent piece by piece: the state of a large room is put together as it goes out.
const WHOLE: usize = 1 << 20;
/// How large such a piece is.
const PIECE: usize = 64 << 10;

/// An object that is being written.
pub(crate) struct Answer {
    pieces: Vec<Bytes>,
    end: &'static str,
    failed: Option<serde_json::Error>,
}

impl Answer {
    /// An object.
    pub(crate) fn new() -> Answer {
        Answer { pieces: vec![Bytes::from_static(b"{")], end: "}", failed: None }
    }

    /// `[200, {...}]`, as the first versions of some endpoints have it.
    pub(crate) fn with_status() -> Answer {
        Answer { pieces: vec![Bytes::from_static(b"[200,{")], end: "}]", failed: None }
    }

    /// A field with a list of JSON that is there.
    pub(crate) fn list(mut self, name: &str, items: Vec<Bytes>) -> Answer {
        self.key(name);
        self.pieces.push(Bytes::from_static(b"["));
        for (n, item) in items.into_iter().enumerate() {
            if n > 0 {
                self.pieces.push(Bytes::from_static(b","));
            }
            self.pieces.push(item);
        }
        self.pieces.push(Bytes::from_static(b"]"));
        self
    }

    /// A field with JSON that is there.
    pub(crate) fn raw(mut self, name: &str, json: Bytes) -> Answer {
        self.key(name);
        self.pieces.push(json);
        self
    }

    /// A field with a value.
    pub(crate) fn value(mut self, name: &str, value: &impl Serialize) -> Answer {
        self.key(name);
        match serde_json::to_vec(value) {
            Ok(json) => self.pieces.push(json.into()),
            Err(why) => self.failed = Some(why),
        }
        self
    }

    fn key(&mut self, name: &str) {
        let comma = if self.pieces.len() > 1 { "," } else { "" };
        // The names are literals of ours: nothing to escape.
        self.pieces.push(format!("{comma}\"{name}\":").into());
    }
}

impl IntoResponse for Answer {
    fn into_response(mut self) -> Response {
        if let Some(why) = self.failed {
            return Error::internal(why).into_response();
        }
        self.pieces.push(Bytes::from_static(self.end.as_bytes()));
        let size: usize = self.pieces.iter().map(Bytes::len).sum();
        let mut pieces = self.pieces.into_iter();
        if size <= WHOLE {
            return JsonBytes(join(&mut pieces, size)).into_response();
        }
        let stream = stream::iter(std::iter::from_fn(move || {
            let piece = join(&mut pieces, PIECE);
            (!piece.is_empty()).then_some(Ok::<_, Infallible>(piece))
        }));
        let mut response = Response::new(Body::from_stream(stream));
        let headers = response.headers_mut();
        headers.insert(header::CONTENT_TYPE, HeaderValue::from_static("application/json"));
        headers.insert(header::CONTENT_LENGTH, size.into());
        response
    }
}

/// Puts pieces together until there are so many bytes.
fn join(pieces: &mut impl Iterator<Item = Bytes>, enough: usize) -> Bytes {
    let mut out = BytesMut::with_capacity(enough.min(WHOLE));
    while out.len() < enough
        && let Some(piece) = pieces.next()
    {
        out.put_slice(&piece);
    }
    out.freeze()
}

#[cfg(test)]
mod tests {
    use http_body_util::BodyExt;
    use serde_json::{Value, json};

    use super::*;

    async fn read(answer: Answer) -> (Option<usize>, Bytes) {
        let response = answer.into_response();
        assert_eq!(response.headers()["content-type"], "application/json");
        let length = response.headers().get("content-length").map(|value| value.to_str().unwrap().parse().unwrap());
        (length, response.into_body().collect().await.unwrap().to_bytes())
    }

    #[tokio::test]
    async fn small_ones_are_whole() {
        let list = vec![Bytes::from_static(b"{\"a\":1}"), Bytes::from_static(b"{}")];
        let answer = Answer::new().value("origin", &"x").list("pdus", list).list("none", Vec::new());
        let (_, bytes) = read(answer.raw("event", Bytes::from_static(b"{}"))).await;
        assert_eq!(bytes, r#"{"origin":"x","pdus":[{"a":1},{}],"none":[],"event":{}}"#);
        assert_eq!(read(Answer::with_status()).await.1, "[200,{}]");
    }

    #[tokio::test]
    async fn large_ones_come_whole_too() {
        let event = json!({ "content": "x".repeat(3000) });
        let events: Vec<Bytes> = (0..1000).map(|_| event.to_string().into()).collect();
        let (length, bytes) = read(Answer::with_status().list("pdus", events)).await;
        assert_eq!(length, Some(bytes.len()));
        let body: Value = serde_json::from_slice(&bytes).unwrap();
        assert_eq!(body[1]["pdus"], Value::from(vec![event; 1000]));
    }
}
