//! Connections: accepts them, reads requests with patience but not for ever, and ends them in order.

use std::{io, net::SocketAddr, time::Duration};

use axum::{Router, response::Response};
use http::{HeaderValue, header};
use hyper::{Method, Request, body::Incoming, service::service_fn};
use hyper_util::{
    rt::{TokioExecutor, TokioIo, TokioTimer},
    server::conn::auto::Builder,
};
use stoa_http::Peer;
use tokio::{
    io::{AsyncRead, AsyncWrite},
    net::{TcpListener, TcpStream},
    task::JoinError,
    time::{sleep, timeout},
};
use tokio_rustls::TlsAcceptor;
use tower::Service;

use crate::{
    Error,
    workers::{Ending, Group},
};

/// How long a client may take for the headers of a request, also for the first byte of the next one.
const HEADERS: Duration = Duration::from_secs(75);
/// How long a TLS handshake may take.
const HANDSHAKE: Duration = Duration::from_secs(15);
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

/// What every connection leads to.
#[derive(Clone)]
pub struct Door {
    /// Who answers.
    pub router: Router,
    /// Connections, and requests that must not be given up half-way.
    pub tasks: Group,
    /// When it closes.
    pub ending: Ending,
    /// Whether it speaks TLS.
    pub tls: Option<TlsAcceptor>,
}

/// Accepts connections until the server ends.
pub async fn run(listener: TcpListener, mut door: Door) {
    loop {
        let accepted = tokio::select! {
            accepted = listener.accept() => accepted,
            () = door.ending.wait() => return,
        };
        match accepted {
            Ok((stream, peer)) => {
                door.tasks.start(serve(stream, peer, door.clone()));
            }
            Err(why) => {
                tracing::warn!(%why, "cannot accept a connection");
                // Usually there are too many open files; some will be closed soon.
                sleep(Duration::from_millis(100)).await;
            }
        }
    }
}

async fn serve(stream: TcpStream, peer: SocketAddr, mut door: Door) {
    // Small answers at once.
    let _ = stream.set_nodelay(true);
    if let Some(acceptor) = door.tls.clone() {
        let shaken = tokio::select! {
            shaken = timeout(HANDSHAKE, acceptor.accept(stream)) => shaken,
            () = door.ending.wait() => return,
        };
        match shaken {
            Ok(Ok(stream)) => {
                let h2 = stream.get_ref().1.alpn_protocol() == Some(b"h2");
                converse(stream, h2, peer, door).await;
            }
            Ok(Err(why)) => tracing::debug!(%why, "a TLS handshake failed"),
            Err(_) => tracing::debug!("a TLS handshake took too long"),
        }
    } else {
        let h2 = tokio::select! {
            first = timeout(HEADERS, speaks_h2(&stream)) => match first {
                Ok(Ok(h2)) => h2,
                _ => return,
            },
            () = door.ending.wait() => return,
        };
        converse(stream, h2, peer, door).await;
    }
}

async fn converse(
    stream: impl AsyncRead + AsyncWrite + Unpin + Send + 'static,
    h2: bool,
    peer: SocketAddr,
    mut door: Door,
) {
    let (router, tasks, secure) = (door.router, door.tasks, door.tls.is_some());
    let service = service_fn(move |mut request: Request<Incoming>| {
        request.extensions_mut().insert(Peer(peer.ip()));
        if secure {
            say_https(&mut request);
        }
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
        () = door.ending.wait() => {
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

/// Says what a proxy that speaks TLS for us would say: how the client came. (HTTP/2 has the host in the address.)
fn say_https(request: &mut Request<Incoming>) {
    let host = request.uri().authority().and_then(|host| HeaderValue::from_str(host.as_str()).ok());
    let headers = request.headers_mut();
    headers.insert("x-forwarded-proto", HeaderValue::from_static("https"));
    if let (Some(host), false) = (host, headers.contains_key(header::HOST)) {
        headers.insert(header::HOST, host);
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
