//! The error that a client sees (Client-Server API, "Standard error response").

use std::fmt;

use axum::response::{IntoResponse, Response};
use http::{HeaderValue, StatusCode, header};
use serde_json::{Map, Value};

use crate::json::Json;

/// A refusal as the specification words it: a status, an error code, a sentence, and fields that some codes add.
#[derive(Clone, Debug, PartialEq)]
pub struct Error {
    /// The HTTP status.
    pub status: StatusCode,
    /// `M_...`; empty where the answer is no error in itself, which is so for a challenge to authenticate.
    pub errcode: &'static str,
    /// A sentence for people.
    pub message: String,
    /// When to try again, for `M_LIMIT_EXCEEDED`.
    pub retry_after_ms: Option<u64>,
    /// Fields beside `errcode` and `error`.
    pub extra: Map<String, Value>,
}

impl Error {
    /// Any error.
    pub fn new(status: StatusCode, errcode: &'static str, message: impl Into<String>) -> Error {
        Error { status, errcode, message: message.into(), retry_after_ms: None, extra: Map::new() }
    }

    /// The same with one more field.
    #[must_use]
    pub fn with(mut self, field: &str, value: impl Into<Value>) -> Error {
        self.extra.insert(field.to_owned(), value.into());
        self
    }

    /// 429 `M_LIMIT_EXCEEDED`, to be tried again after so many milliseconds.
    pub fn limit_exceeded(retry_after_ms: u64) -> Error {
        let error = Error::new(StatusCode::TOO_MANY_REQUESTS, "M_LIMIT_EXCEEDED", "Too many requests");
        Error { retry_after_ms: Some(retry_after_ms), ..error }
    }

    /// 401 `M_UNKNOWN_TOKEN`; after a soft logout the client keeps its keys and logs in again.
    pub fn unknown_token(soft_logout: bool, message: impl Into<String>) -> Error {
        let error = Error::new(StatusCode::UNAUTHORIZED, "M_UNKNOWN_TOKEN", message);
        if soft_logout { error.with("soft_logout", true) } else { error }
    }

    /// 401 `M_MISSING_TOKEN`
    pub fn missing_token() -> Error {
        Error::new(StatusCode::UNAUTHORIZED, "M_MISSING_TOKEN", "Missing access token")
    }

    /// 500 `M_UNKNOWN`. What went wrong is logged, not told.
    pub fn internal(why: impl fmt::Display) -> Error {
        tracing::error!(%why, "a request failed");
        Error::new(StatusCode::INTERNAL_SERVER_ERROR, "M_UNKNOWN", "Internal server error")
    }
}

macro_rules! constructors {
    ($($(#[$doc:meta])* $name:ident = $status:ident $errcode:literal;)*) => {
        impl Error {
            $($(#[$doc])* pub fn $name(message: impl Into<String>) -> Error {
                Error::new(StatusCode::$status, $errcode, message)
            })*
        }
    };
}

constructors! {
    /// 403 `M_FORBIDDEN`
    forbidden = FORBIDDEN "M_FORBIDDEN";
    /// 404 `M_NOT_FOUND`
    not_found = NOT_FOUND "M_NOT_FOUND";
    /// 404 `M_UNRECOGNIZED`: no such endpoint.
    unrecognized = NOT_FOUND "M_UNRECOGNIZED";
    /// 405 `M_UNRECOGNIZED`: the endpoint is there, but not with this method.
    wrong_method = METHOD_NOT_ALLOWED "M_UNRECOGNIZED";
    /// 400 `M_NOT_JSON`
    not_json = BAD_REQUEST "M_NOT_JSON";
    /// 400 `M_BAD_JSON`
    bad_json = BAD_REQUEST "M_BAD_JSON";
    /// 400 `M_INVALID_PARAM`
    invalid_param = BAD_REQUEST "M_INVALID_PARAM";
    /// 400 `M_MISSING_PARAM`
    missing_param = BAD_REQUEST "M_MISSING_PARAM";
    /// 400 `M_UNKNOWN`
    unknown = BAD_REQUEST "M_UNKNOWN";
    /// 413 `M_TOO_LARGE`
    too_large = PAYLOAD_TOO_LARGE "M_TOO_LARGE";
    /// 408 `M_UNKNOWN`: the request did not arrive in time.
    timeout = REQUEST_TIMEOUT "M_UNKNOWN";
}

impl fmt::Display for Error {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} {}: {}", self.status.as_u16(), self.errcode, self.message)
    }
}

impl std::error::Error for Error {}

impl IntoResponse for Error {
    fn into_response(self) -> Response {
        let mut body = self.extra;
        if !self.errcode.is_empty() {
            body.insert("errcode".to_owned(), self.errcode.into());
            body.insert("error".to_owned(), self.message.into());
        }
        if let Some(ms) = self.retry_after_ms {
            body.insert("retry_after_ms".to_owned(), ms.into());
        }
        let mut response = (self.status, Json(body)).into_response();
        if let Some(ms) = self.retry_after_ms {
            response.headers_mut().insert(header::RETRY_AFTER, HeaderValue::from(ms.div_ceil(1000)));
        }
        response
    }
}

#[cfg(test)]
mod tests {
    use http_body_util::BodyExt;

    use super::*;

    #[tokio::test]
    async fn a_limit_says_when_to_come_back() {
        let response = Error::limit_exceeded(1500).into_response();
        assert_eq!(response.status(), 429);
        assert_eq!(response.headers()["retry-after"], "2");
        assert_eq!(response.headers()["content-type"], "application/json");
        let body = response.into_body().collect().await.unwrap().to_bytes();
        let body: Value = serde_json::from_slice(&body).unwrap();
        assert_eq!(body["errcode"], "M_LIMIT_EXCEEDED");
        assert_eq!(body["retry_after_ms"], 1500);
    }

    #[test]
    fn soft_logout_is_said_only_when_it_is_one() {
        assert_eq!(Error::unknown_token(true, "x").extra["soft_logout"], true);
        assert!(Error::unknown_token(false, "x").extra.is_empty());
    }
}
