//! A request that is refused before all of it has come: the rest is read for a moment, because a client that goes on
//! sending into a closed connection never reads why it was refused.

use std::{
    pin::Pin,
    sync::Arc,
    task::{Context, Poll},
    time::Duration,
};

use axum::{
    body::{Body, Bytes, HttpBody},
    extract::Request,
    middleware::Next,
    response::Response,
};
use http_body::{Frame, SizeHint};
use http_body_util::BodyExt;
use parking_lot::Mutex;

/// How much of a refused request is read, and how long.
const BYTES: u64 = 128 << 20;
const TIME: Duration = Duration::from_secs(2);

/// A body that is given to the handler and can be taken back.
#[derive(Clone)]
struct Lent(Arc<Mutex<Body>>);

impl HttpBody for Lent {
    type Data = Bytes;
    type Error = axum::Error;

    fn poll_frame(
        self: Pin<&mut Self>,
        context: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Self::Data>, Self::Error>>> {
        Pin::new(&mut *self.0.lock()).poll_frame(context)
    }

    fn is_end_stream(&self) -> bool {
        self.0.lock().is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        self.0.lock().size_hint()
    }
}

/// The layer.
pub(crate) async fn drain(request: Request, next: Next) -> Response {
    if request.body().is_end_stream() {
        return next.run(request).await;
    }
    let (parts, body) = request.into_parts();
    let lent = Lent(Arc::new(Mutex::new(body)));
    let response = next.run(Request::from_parts(parts, Body::new(lent.clone()))).await;
    if !response.status().is_success() && !lent.is_end_stream() {
        // Whether it ends, breaks off or takes too long: the answer is the same.
        let _ = tokio::time::timeout(TIME, rest(lent)).await;
    }
    response
}

async fn rest(mut body: Lent) {
    let mut read = 0;
    while let Some(Ok(frame)) = body.frame().await {
        read += frame.data_ref().map_or(0, |data| data.len() as u64);
        if read > BYTES {
            return;
        }
    }
}

#[cfg(test)]
mod tests {
    use std::sync::atomic::{AtomicUsize, Ordering};

    use axum::{Router, middleware::from_fn, routing::post};
    use futures_util::{StreamExt, stream};
    use http::StatusCode;
    use tower::ServiceExt;

    use super::*;

    /// How many pieces of 1 MiB are read of a body that has so many, by a handler that reads just one.
    async fn taken(pieces: usize, status: StatusCode) -> usize {
        let taken = Arc::new(AtomicUsize::new(0));
        let counter = taken.clone();
        let body = stream::iter(0..pieces).map(move |_| {
            counter.fetch_add(1, Ordering::SeqCst);
            Ok::<_, std::io::Error>(Bytes::from(vec![0; 1 << 20]))
        });
        let handler = async move |request: Request| {
            let mut body = request.into_body();
            body.frame().await.unwrap().unwrap();
            status
        };
        let app = Router::new().route("/", post(handler)).layer(from_fn(drain));
        let request = Request::post("/").body(Body::from_stream(body)).unwrap();
        assert_eq!(app.oneshot(request).await.unwrap().status(), status);
        taken.load(Ordering::SeqCst)
    }

    #[tokio::test]
    async fn the_rest_of_what_is_refused_is_read() {
        assert_eq!(taken(50, StatusCode::PAYLOAD_TOO_LARGE).await, 50);
        assert_eq!(taken(50, StatusCode::OK).await, 1);
    }

    #[tokio::test]
    async fn but_not_without_end() {
        assert!(taken(1000, StatusCode::PAYLOAD_TOO_LARGE).await <= 130);
    }

    #[tokio::test(start_paused = true)]
    async fn and_not_for_ever() {
        let never = stream::pending::<Result<Bytes, std::io::Error>>();
        let app = Router::new().route("/", post(|| async { StatusCode::FORBIDDEN })).layer(from_fn(drain));
        let request = Request::post("/").body(Body::from_stream(never)).unwrap();
        let begin = tokio::time::Instant::now();
        assert_eq!(app.oneshot(request).await.unwrap().status(), 403);
        assert_eq!(begin.elapsed().as_secs(), 2);
    }
}
