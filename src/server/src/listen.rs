//! Connections: accepts them, reads requests with patience but not for ever, and ends them in order.

use std::{io, net::SocketAddr, time::Duration};

use axum::{Router, response::Response};
use hyper::{Method, Request, body::Incoming, service::service_fn};
use hyper_util::{
    rt::{TokioExecutor, TokioIo, TokioTimer},
    server::conn::auto::Builder,
};
use stoa_http::Peer;
use tokio::{
    net::{TcpListener, TcpStream},
    task::JoinError,
    time::{sleep, timeout},
};
use tower::Service;

use crate::{
    Error,
    workers::{Ending, Group},
};

/// How long a client may take for the headers of a request, also for the first byte of the next one.
const HEADERS: Duration = Duration::from_secs(75);
/// Bytes of headers: filters travel in the query string of `/sync`.
const HEADER_BYTES: usize = 64 * 1024;
/// How long a request that has begun may take to end when the server stops.
pub const PATIENCE: Duration = Duration::from_secs(10);
/// What HTTP/2 without TLS begins with.
const H2: &[u8] = b"PRI";

/// Takes an address.
///
/// # Errors
/// Where it cannot be had, with the address in the words.
pub async fn bind(address: SocketAddr) -> Result<TcpListener, Error> {
    TcpListener::bind(address).await.map_err(|why| match why.kind() {
        io::ErrorKind::AddrInUse => Error::AddressInUse(address),
        _ => Error::Listen { address, why },
    })
}

/// Accepts connections until the server ends.
pub async fn run(listener: TcpListener, router: Router, connections: Group, mut ending: Ending) {
    loop {
        let accepted = tokio::select! {
            accepted = listener.accept() => accepted,
            () = ending.wait() => return,
        };
        match accepted {
            Ok((stream, peer)) => {
                connections.start(serve(stream, peer, router.clone(), connections.clone(), ending.clone()));
            }
            Err(why) => {
                tracing::warn!(%why, "cannot accept a connection");
                // Usually there are too many open files; some will be closed soon.
                sleep(Duration::from_millis(100)).await;
            }
        }
    }
}

async fn serve(stream: TcpStream, peer: SocketAddr, router: Router, tasks: Group, mut ending: Ending) {
    // Small answers at once.
    let _ = stream.set_nodelay(true);
    let h2 = tokio::select! {
        first = timeout(HEADERS, speaks_h2(&stream)) => match first {
            Ok(Ok(h2)) => h2,
            _ => return,
        },
        () = ending.wait() => return,
    };
    let service = service_fn(move |mut request: Request<Incoming>| {
        request.extensions_mut().insert(Peer(peer.ip()));
        answer(router.clone(), request, tasks.clone())
    });
    let mut builder = Builder::new(TokioExecutor::new());
    builder.http1().timer(TokioTimer::new()).header_read_timeout(HEADERS).max_buf_size(HEADER_BYTES);
    builder
        .http2()
        .timer(TokioTimer::new())
        .max_concurrent_streams(100)
        .max_header_list_size(HEADER_BYTES as u32)
        .keep_alive_interval(Some(Duration::from_secs(60)));
    let builder = if h2 { builder.http2_only() } else { builder.http1_only() };
    let connection = builder.serve_connection(TokioIo::new(stream), service);
    tokio::pin!(connection);
    let result = tokio::select! {
        result = connection.as_mut() => result,
        () = ending.wait() => {
            connection.as_mut().graceful_shutdown();
            match timeout(PATIENCE, connection).await {
                Ok(result) => result,
                Err(_) => return,
            }
        }
    };
    if let Err(why) = result {
        tracing::trace!(%why, "a connection broke");
    }
}

/// A request that only reads ends when its client goes. One that changes something goes on to its end: what is kept in
/// memory must follow what was committed, whoever is still there to hear of it.
async fn answer(mut router: Router, request: Request<Incoming>, tasks: Group) -> Result<Response, JoinError> {
    let reads = matches!(*request.method(), Method::GET | Method::HEAD | Method::OPTIONS);
    let answered = router.call(request);
    let Ok(response) = if reads { answered.await } else { tasks.whole(answered).await? };
    Ok(response)
}

/// Looks at the first bytes without taking them.
async fn speaks_h2(stream: &TcpStream) -> io::Result<bool> {
    let mut first = [0; H2.len()];
    loop {
        let n = stream.peek(&mut first).await?;
        if n == 0 || !H2.starts_with(&first[..n]) {
            return Ok(false);
        }
        if n == H2.len() {
            return Ok(true);
        }
        sleep(Duration::from_millis(20)).await;
    }
}
