//! What happens around every request: CORS, logs, a panic that hurts only its own request, compression, and JSON errors for
//! paths and methods that are not there.

use std::any::Any;

use axum::{
    Router,
    body::HttpBody,
    extract::{MatchedPath, Request},
    middleware::{Next, from_fn},
    response::{IntoResponse, Response},
};
use http::{HeaderMap, HeaderValue, Method, header};
use tower_http::{
    CompressionLevel,
    catch_panic::CatchPanicLayer,
    compression::{CompressionLayer, Predicate},
};

use crate::{Error, drain::drain};

/// JSON answers from this many bytes on are compressed for clients that ask for it.
const COMPRESS_FROM: u64 = 1024;

/// Puts the layers around all routes that the router has by now, and around what is not there.
pub fn around<S: Clone + Send + Sync + 'static>(router: Router<S>) -> Router<S> {
    beside(router.fallback(|| async { Error::unrecognized("No such endpoint") }))
}

/// The same for a router that is put beside another one, which answers what is not there.
pub fn beside<S: Clone + Send + Sync + 'static>(router: Router<S>) -> Router<S> {
    let compression = CompressionLayer::new().quality(CompressionLevel::Fastest).compress_when(LargeJson);
    router
        .method_not_allowed_fallback(|| async { Error::wrong_method("The endpoint does not know this method") })
        .layer(CatchPanicLayer::custom(panicked))
        .layer(compression)
        .layer(from_fn(cors))
        .layer(from_fn(drain))
        .layer(from_fn(log))
}

/// Events are compressed, files are not: they are compressed already, or were encrypted.
#[derive(Clone, Copy)]
struct LargeJson;

impl Predicate for LargeJson {
    fn should_compress<B: HttpBody>(&self, response: &http::Response<B>) -> bool {
        let json = response.headers().get(header::CONTENT_TYPE).is_some_and(|kind| kind == "application/json");
        json && response.body().size_hint().lower() >= COMPRESS_FROM
    }
}

/// Client-Server API, "Web Browser Clients": the headers on every answer, and `OPTIONS` without the endpoint's logic.
async fn cors(request: Request, next: Next) -> Response {
    let mut response = if request.method() == Method::OPTIONS { Response::default() } else { next.run(request).await };
    allow(response.headers_mut());
    response
}

fn allow(headers: &mut HeaderMap) {
    let set = [
        (header::ACCESS_CONTROL_ALLOW_ORIGIN, "*"),
        (header::ACCESS_CONTROL_ALLOW_METHODS, "GET, HEAD, POST, PUT, DELETE, OPTIONS"),
        (header::ACCESS_CONTROL_ALLOW_HEADERS, "X-Requested-With, Content-Type, Authorization"),
        (header::ACCESS_CONTROL_EXPOSE_HEADERS, "Retry-After, Content-Disposition"),
        // Preflights need not be asked again and again.
        (header::ACCESS_CONTROL_MAX_AGE, "86400"),
    ];
    for (name, value) in set {
        headers.insert(name, HeaderValue::from_static(value));
    }
}

/// One line a request: the route, never what is in it. Tokens, ids and bodies stay out.
async fn log(request: Request, next: Next) -> Response {
    let started = tokio::time::Instant::now();
    let method = request.method().clone();
    let route = request.extensions().get::<MatchedPath>().cloned();
    let response = next.run(request).await;
    let status = response.status().as_u16();
    let route = route.as_ref().map_or("-", MatchedPath::as_str);
    let ms = started.elapsed().as_micros() as f64 / 1000.0;
    match status {
        500.. => tracing::warn!(target: "stoa::request", %method, route, status, ms),
        _ => tracing::debug!(target: "stoa::request", %method, route, status, ms),
    }
    response
}

fn panicked(panic: Box<dyn Any + Send + 'static>) -> Response {
    let text = panic.downcast_ref::<&str>().copied().or_else(|| panic.downcast_ref::<String>().map(String::as_str));
    Error::internal(format!("panic: {}", text.unwrap_or("(no text)"))).into_response()
}

#[cfg(test)]
mod tests {
    use axum::{body::Body, routing::get};
    use http_body_util::BodyExt;
    use tower::ServiceExt;

    use super::*;
    use crate::Json;

    fn app() -> Router {
        let router = Router::new()
            .route("/small", get(|| async { Json("x") }))
            .route("/large", get(|| async { Json("x".repeat(2000)) }))
            .route("/file", get(|| async { "x".repeat(2000) }))
            .route(
                "/panic",
                get(|| async {
                    if true {
                        panic!("on purpose")
                    }
                }),
            );
        around(router)
    }

    async fn ask(method: Method, path: &str) -> (Response, serde_json::Value) {
        let request = Request::builder().method(method).uri(path).header("accept-encoding", "gzip");
        let (parts, body) = app().oneshot(request.body(Body::empty()).unwrap()).await.unwrap().into_parts();
        let body = body.collect().await.unwrap().to_bytes();
        (Response::from_parts(parts, Body::empty()), serde_json::from_slice(&body).unwrap_or_default())
    }

    #[tokio::test]
    async fn unknown_paths_and_methods_are_unrecognized() {
        let (response, body) = ask(Method::GET, "/nowhere").await;
        assert_eq!((response.status().as_u16(), &body["errcode"]), (404, &"M_UNRECOGNIZED".into()));
        let (response, body) = ask(Method::POST, "/small").await;
        assert_eq!((response.status().as_u16(), &body["errcode"]), (405, &"M_UNRECOGNIZED".into()));
    }

    #[tokio::test]
    async fn cors_is_on_everything() {
        for (method, path, status) in [
            (Method::GET, "/small", 200),
            (Method::HEAD, "/small", 200),
            (Method::GET, "/nowhere", 404),
            (Method::DELETE, "/small", 405),
            (Method::GET, "/panic", 500),
            (Method::OPTIONS, "/small", 200),
            (Method::OPTIONS, "/panic", 200),
            (Method::OPTIONS, "/nowhere", 200),
        ] {
            let (response, _) = ask(method.clone(), path).await;
            assert_eq!(response.status().as_u16(), status, "{method} {path}");
            assert_eq!(response.headers()["access-control-allow-origin"], "*", "{method} {path}");
            assert!(response.headers().contains_key("access-control-allow-headers"));
        }
    }

    #[tokio::test]
    async fn a_panic_is_an_answer() {
        let (response, body) = ask(Method::GET, "/panic").await;
        assert_eq!((response.status().as_u16(), &body["errcode"]), (500, &"M_UNKNOWN".into()));
        assert!(!body.to_string().contains("on purpose"));
    }

    #[tokio::test]
    async fn only_large_json_is_compressed() {
        assert_eq!(ask(Method::GET, "/large").await.0.headers()["content-encoding"], "gzip");
        assert!(!ask(Method::GET, "/small").await.0.headers().contains_key("content-encoding"));
        assert!(!ask(Method::GET, "/file").await.0.headers().contains_key("content-encoding"));
    }
}
