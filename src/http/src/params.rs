//! Query strings and path parameters.

use axum::extract::{FromRequestParts, Path, rejection::PathRejection};
use http::request::Parts;
use serde::de::DeserializeOwned;

use crate::Error;

/// The query string as a value. A key may be repeated where the field is a `Vec`. Wrong values are `M_INVALID_PARAM`,
/// missing ones `M_MISSING_PARAM`.
#[derive(Clone, Debug)]
pub struct Params<T>(pub T);

/// The path parameters in order, percent-decoded: `Segments((room, kind)): Segments<(OwnedRoomId, String)>`.
/// What does not parse is `M_INVALID_PARAM`. Name them as the specification does (`{roomId}`): all routes of one path must
/// use the same names.
#[derive(Clone, Debug)]
pub struct Segments<T>(pub T);

impl<S: Send + Sync, T: DeserializeOwned> FromRequestParts<S> for Params<T> {
    type Rejection = Error;

    async fn from_request_parts(parts: &mut Parts, _: &S) -> Result<Self, Error> {
        query(parts.uri.query().unwrap_or_default()).map(Params)
    }
}

fn query<T: DeserializeOwned>(query: &str) -> Result<T, Error> {
    let pairs = serde_html_form::Deserializer::from_bytes(query.as_bytes());
    serde_path_to_error::deserialize(pairs).map_err(|error| {
        let path = error.path().to_string();
        let inner = error.into_inner().to_string();
        match path.as_str() {
            _ if inner.starts_with("missing field") => Error::missing_param(inner),
            "." => Error::invalid_param(inner),
            _ => Error::invalid_param(format!("{path}: {inner}")),
        }
    })
}

impl<S: Send + Sync, T: DeserializeOwned + Send> FromRequestParts<S> for Segments<T> {
    type Rejection = Error;

    async fn from_request_parts(parts: &mut Parts, state: &S) -> Result<Self, Error> {
        match Path::from_request_parts(parts, state).await {
            Ok(Path(value)) => Ok(Segments(value)),
            Err(PathRejection::FailedToDeserializePathParams(error)) => Err(Error::invalid_param(error.body_text())),
            Err(error) => Err(Error::internal(error)),
        }
    }
}

#[cfg(test)]
mod tests {
    use axum::{Router, body::Body, http::Request, routing::get};
    use ruma_common::OwnedRoomId;
    use serde::Deserialize;
    use tower::ServiceExt;

    use super::*;

    #[derive(Debug, Deserialize)]
    struct Example {
        limit: Option<u32>,
        #[serde(default)]
        via: Vec<String>,
        dir: String,
    }

    #[test]
    fn a_query_string_is_read() {
        let read: Example = query("dir=b&via=a.example&via=b.example&limit=7&other=1").unwrap();
        assert_eq!((read.limit, read.via.len(), read.dir.as_str()), (Some(7), 2, "b"));
        assert_eq!(query::<Example>("limit=7").unwrap_err().errcode, "M_MISSING_PARAM");
        let error = query::<Example>("dir=b&limit=many").unwrap_err();
        assert_eq!(error.errcode, "M_INVALID_PARAM");
        assert!(error.message.contains("limit"), "{}", error.message);
    }

    #[tokio::test]
    async fn path_parameters_are_decoded_and_checked() {
        let handler = |Segments((room, key)): Segments<(OwnedRoomId, String)>| async move { format!("{room} {key}") };
        let app = Router::new().route("/rooms/{roomId}/{key}", get(handler));
        let ask = |path: &str| app.clone().oneshot(Request::get(path).body(Body::empty()).unwrap());
        let good = ask("/rooms/%21a%2Fb:example.org/%F0%9F%8E%A8%2Fx").await.unwrap();
        assert_eq!(good.status(), 200);
        assert_eq!(ask("/rooms/nonsense/x").await.unwrap().status(), 400);
        assert_eq!(ask("/rooms/%21a:example.org/%FF").await.unwrap().status(), 400);
    }
}
