//! Answers in JSON.

use axum::{
    body::Body,
    response::{IntoResponse, Response},
};
use bytes::Bytes;
use http::{HeaderValue, header};
use serde::Serialize;

use crate::Error;

/// 200 with a value as JSON.
#[derive(Clone, Copy, Debug, Default)]
pub struct Json<T>(pub T);

/// 200 with bytes that are JSON already: responses that are spliced together from stored events.
#[derive(Clone, Debug)]
pub struct JsonBytes(pub Bytes);

/// 200 with `{}`.
#[derive(Clone, Copy, Debug, Default, Serialize)]
pub struct Empty {}

impl<T: Serialize> IntoResponse for Json<T> {
    fn into_response(self) -> Response {
        match serde_json::to_vec(&self.0) {
            Ok(bytes) => JsonBytes(bytes.into()).into_response(),
            Err(error) => Error::internal(error).into_response(),
        }
    }
}

impl IntoResponse for JsonBytes {
    fn into_response(self) -> Response {
        let mut response = Response::new(Body::from(self.0));
        response.headers_mut().insert(header::CONTENT_TYPE, HeaderValue::from_static("application/json"));
        response
    }
}

impl IntoResponse for Empty {
    fn into_response(self) -> Response {
        JsonBytes(Bytes::from_static(b"{}")).into_response()
    }
}
