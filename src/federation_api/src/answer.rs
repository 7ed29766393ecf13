//! Answers that hold events: the bytes that were stored, put together without reading them.

use std::collections::VecDeque;

use axum::{
    body::Body,
    response::{IntoResponse, Response},
};
use bytes::{BufMut, Bytes, BytesMut};
use futures_util::stream;
use http::{HeaderValue, header};
use serde::Serialize;
use stoa_http::{Error, JsonBytes, Result};
use stoa_view::Pdus;

/// Longer lists of events are read while they are sent.
const WHOLE: usize = 500;

/// An object that is being written.
pub(crate) struct Answer {
    parts: VecDeque<Part>,
    end: &'static str,
    empty: bool,
    failed: Option<serde_json::Error>,
}

enum Part {
    /// JSON that is there.
    Text(Bytes),
    /// Events that are not read yet, and whether some of their list were sent already.
    Events(Pdus, bool),
}

impl Answer {
    /// An object.
    pub(crate) fn new() -> Answer {
        Self::between("{", "}")
    }

    /// `[200, {...}]`, as the first versions of some endpoints have it.
    pub(crate) fn with_status() -> Answer {
        Self::between("[200,{", "}]")
    }

    fn between(start: &'static str, end: &'static str) -> Answer {
        let start = Part::Text(Bytes::from_static(start.as_bytes()));
        Answer { parts: VecDeque::from([start]), end, empty: true, failed: None }
    }

    /// A field with a list of JSON that is there.
    pub(crate) fn list(mut self, name: &str, items: &[Bytes]) -> Answer {
        let mut list = BytesMut::from(&b"["[..]);
        join(&mut list, items, true);
        list.put_u8(b']');
        self.field(name, list.freeze());
        self
    }

    /// A field with a list of events. Only a short one is read now.
    pub(crate) async fn events(mut self, name: &str, mut events: Pdus) -> Result<Answer> {
        if events.len() > WHOLE {
            self.field(name, Bytes::from_static(b"["));
            self.parts.push_back(Part::Events(events, false));
            self.parts.push_back(Part::Text(Bytes::from_static(b"]")));
            return Ok(self);
        }
        let mut all = Vec::with_capacity(events.len());
        while let Some(some) = events.next().await? {
            all.extend(some);
        }
        Ok(self.list(name, &all))
    }

    /// A field with JSON that is there.
    pub(crate) fn raw(mut self, name: &str, json: Bytes) -> Answer {
        self.field(name, json);
        self
    }

    /// A field with a value.
    pub(crate) fn value(mut self, name: &str, value: &impl Serialize) -> Answer {
        match serde_json::to_vec(value) {
            Ok(json) => self.field(name, json.into()),
            Err(why) => self.failed = Some(why),
        }
        self
    }

    fn field(&mut self, name: &str, json: Bytes) {
        let comma = if std::mem::take(&mut self.empty) { "" } else { "," };
        // The names are literals of ours: nothing to escape.
        self.parts.push_back(Part::Text(format!("{comma}\"{name}\":").into()));
        self.parts.push_back(Part::Text(json));
    }
}

impl IntoResponse for Answer {
    fn into_response(mut self) -> Response {
        if let Some(why) = self.failed {
            return Error::internal(why).into_response();
        }
        self.parts.push_back(Part::Text(Bytes::from_static(self.end.as_bytes())));
        if self.parts.iter().all(|part| matches!(part, Part::Text(_))) {
            let texts = self.parts.into_iter().filter_map(|part| match part {
                Part::Text(text) => Some(text),
                Part::Events(..) => None,
            });
            let mut whole = BytesMut::new();
            texts.for_each(|text| whole.put_slice(&text));
            return JsonBytes(whole.freeze()).into_response();
        }
        let mut response = Response::new(Body::from_stream(stream::try_unfold(self.parts, next)));
        response.headers_mut().insert(header::CONTENT_TYPE, HeaderValue::from_static("application/json"));
        response
    }
}

/// The next piece of an answer that is sent as it is read. Where that fails the answer breaks off, which no reader can
/// take for the whole.
async fn next(mut parts: VecDeque<Part>) -> Result<Option<(Bytes, VecDeque<Part>)>, stoa_view::Error> {
    while let Some(part) = parts.front_mut() {
        match part {
            Part::Text(text) => {
                let text = std::mem::take(text);
                parts.pop_front();
                return Ok(Some((text, parts)));
            }
            Part::Events(events, begun) => match events.next().await {
                Ok(Some(some)) => {
                    let mut piece = BytesMut::new();
                    join(&mut piece, &some, !std::mem::replace(begun, true));
                    return Ok(Some((piece.freeze(), parts)));
                }
                Ok(None) => {
                    parts.pop_front();
                }
                Err(why) => {
                    tracing::warn!(%why, "an answer to another server breaks off");
                    return Err(why);
                }
            },
        }
    }
    Ok(None)
}

/// Writes items with commas between them; `first` says that none stand before them.
fn join(out: &mut BytesMut, items: &[Bytes], mut first: bool) {
    out.reserve(items.iter().map(|item| item.len() + 1).sum());
    for item in items {
        if !std::mem::take(&mut first) {
            out.put_u8(b',');
        }
        out.put_slice(item);
    }
}

#[cfg(test)]
mod tests {
    use http_body_util::BodyExt;

    use super::*;

    async fn read(answer: Answer) -> Bytes {
        let response = answer.into_response();
        assert_eq!(response.headers()["content-type"], "application/json");
        response.into_body().collect().await.unwrap().to_bytes()
    }

    #[tokio::test]
    async fn fields_and_lists() {
        let list = [Bytes::from_static(b"{\"a\":1}"), Bytes::from_static(b"{}")];
        let answer = Answer::new().value("origin", &"x").list("pdus", &list).list("none", &[]);
        let bytes = read(answer.raw("event", Bytes::from_static(b"{}"))).await;
        assert_eq!(bytes, r#"{"origin":"x","pdus":[{"a":1},{}],"none":[],"event":{}}"#);
        assert_eq!(read(Answer::with_status()).await, "[200,{}]");
        assert_eq!(read(Answer::with_status().list("x", &[])).await, r#"[200,{"x":[]}]"#);
    }
}
