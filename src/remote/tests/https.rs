//! The real transport against real TLS on loopback: whose certificate is accepted, which addresses, how much and how long.

mod common;

use std::{
    convert::Infallible,
    io::Write,
    net::{IpAddr, SocketAddr},
    sync::{Arc, Mutex},
    time::Duration,
};

use bytes::Bytes;
use common::*;
use futures_util::future::BoxFuture;
use http_body_util::{BodyExt, Full, StreamBody, combinators::BoxBody};
use hyper::{body::Frame, service::service_fn};
use hyper_util::rt::{TokioExecutor, TokioIo};
use rcgen::{BasicConstraints, CertificateParams, CertifiedIssuer, IsCa, KeyPair};
use rustls::pki_types::{PrivateKeyDer, PrivatePkcs8KeyDer};
use stoa_remote::{
    Config, HttpTransport, Limits, Transport, TransportError,
    dns::{Dns, Srv},
    outside::{Client, Rules},
};
use tokio::net::TcpListener;

struct Authority {
    issuer: CertifiedIssuer<'static, KeyPair>,
    file: tempfile::NamedTempFile,
}

impl Authority {
    fn new() -> Authority {
        let mut params = CertificateParams::new(Vec::new()).unwrap();
        params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        let issuer = CertifiedIssuer::self_signed(params, KeyPair::generate().unwrap()).unwrap();
        let mut file = tempfile::NamedTempFile::new().unwrap();
        file.write_all(issuer.pem().as_bytes()).unwrap();
        Authority { issuer, file }
    }

    fn config(&self) -> Config {
        Config {
            extra_ca: vec![self.file.path().to_owned()],
            ip_range_allow: vec!["127.0.0.1/32".parse().unwrap()],
            ..Config::default()
        }
    }

    fn tls(&self, names: &[&str], protocols: &[&[u8]]) -> Arc<rustls::ServerConfig> {
        let key = KeyPair::generate().unwrap();
        let names: Vec<_> = names.iter().map(|name| (*name).to_owned()).collect();
        let certificate = CertificateParams::new(names).unwrap().signed_by(&key, &self.issuer).unwrap();
        let key = PrivateKeyDer::Pkcs8(PrivatePkcs8KeyDer::from(key.serialize_der()));
        let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
        let mut config = rustls::ServerConfig::builder_with_provider(provider)
            .with_safe_default_protocol_versions()
            .unwrap()
            .with_no_client_auth()
            .with_single_cert(vec![certificate.der().clone()], key)
            .unwrap();
        config.alpn_protocols = protocols.iter().map(|protocol| protocol.to_vec()).collect();
        Arc::new(config)
    }

    /// A server with a certificate for these names.
    async fn serve(&self, names: &[&str]) -> Peer {
        self.serve_with(names, &[b"h2", b"http/1.1"]).await
    }

    async fn serve_with(&self, names: &[&str], protocols: &[&[u8]]) -> Peer {
        self.serve_at("127.0.0.1:0", names, protocols).await
    }

    async fn serve_at(&self, address: &str, names: &[&str], protocols: &[&[u8]]) -> Peer {
        let listener = TcpListener::bind(address).await.unwrap();
        let address = listener.local_addr().unwrap();
        let acceptor = tokio_rustls::TlsAcceptor::from(self.tls(names, protocols));
        let seen = Arc::new(Mutex::new(Seen::default()));
        let peer = Peer { address, seen: seen.clone() };
        tokio::spawn(async move {
            while let Ok((stream, _)) = listener.accept().await {
                let (acceptor, seen) = (acceptor.clone(), seen.clone());
                tokio::spawn(async move {
                    let Ok(stream) = acceptor.accept(stream).await else { return };
                    {
                        let mut seen = seen.lock().unwrap();
                        seen.connections += 1;
                        seen.sni = stream.get_ref().1.server_name().map(str::to_owned);
                    }
                    let service = service_fn(move |request| {
                        let seen = seen.clone();
                        async move { Ok::<_, Infallible>(respond(request, &seen).await) }
                    });
                    let server = hyper_util::server::conn::auto::Builder::new(TokioExecutor::new());
                    let _ = server.serve_connection(TokioIo::new(stream), service).await;
                });
            }
        });
        peer
    }
}

/// What a peer saw.
#[derive(Clone, Debug, Default)]
struct Seen {
    connections: usize,
    sni: Option<String>,
    host: String,
    path: String,
    version: String,
}

struct Peer {
    address: SocketAddr,
    seen: Arc<Mutex<Seen>>,
}

impl Peer {
    fn port(&self) -> u16 {
        self.address.port()
    }

    fn seen(&self) -> Seen {
        self.seen.lock().unwrap().clone()
    }
}

type Body = BoxBody<Bytes, Infallible>;

async fn respond(request: http::Request<hyper::body::Incoming>, seen: &Mutex<Seen>) -> http::Response<Body> {
    {
        let mut seen = seen.lock().unwrap();
        let header = request.headers().get("host").map(|host| host.to_str().unwrap().to_owned());
        seen.host = header.or(request.uri().authority().map(ToString::to_string)).unwrap_or_default();
        seen.path = request.uri().path_and_query().unwrap().to_string();
        seen.version = format!("{:?}", request.version());
    }
    let whole = |text: &str| Full::new(Bytes::copy_from_slice(text.as_bytes())).boxed();
    match request.uri().path() {
        // A body without end, without a length.
        "/endless" => {
            let pieces = futures_util::stream::repeat_with(|| Ok(Frame::data(Bytes::from_static(&[b'x'; 4096]))));
            http::Response::new(StreamBody::new(pieces).boxed())
        }
        "/bomb" => {
            let response = http::Response::builder().header("content-encoding", "gzip");
            response.body(Full::new(bomb()).boxed()).unwrap()
        }
        "/slow" => {
            tokio::time::sleep(Duration::from_secs(30)).await;
            http::Response::new(whole("late"))
        }
        "/trickle" => {
            let pieces = futures_util::stream::unfold((), |()| async {
                tokio::time::sleep(Duration::from_millis(50)).await;
                Some((Ok(Frame::data(Bytes::from_static(b"x"))), ()))
            });
            http::Response::new(StreamBody::new(pieces).boxed())
        }
        "/redirect" => {
            let response = http::Response::builder().status(302).header("location", "/elsewhere");
            response.body(whole("")).unwrap()
        }
        "/echo" => {
            let body = request.into_body().collect().await.unwrap().to_bytes();
            http::Response::builder().status(418).header("x-test", "yes").body(Full::new(body).boxed()).unwrap()
        }
        _ => http::Response::new(whole("hello")),
    }
}

/// How many zeros [`bomb`] has.
const ZEROS: usize = 1 + 258 * 10_000;

/// `gzip` of [`ZEROS`] zeros, which is 16 kB: one zero, and again and again "the same for 258 bytes" (RFC 1951 and 1952).
fn bomb() -> Bytes {
    let mut bits = vec![true, true, false];
    let mut huffman = |code: u32, length: u32| bits.extend((0..length).rev().map(|bit| code >> bit & 1 == 1));
    huffman(0b0011_0000, 8);
    for _ in 0..10_000 {
        huffman(0b1100_0101, 8);
        huffman(0, 5);
    }
    huffman(0, 7);
    let mut out = vec![0x1f, 0x8b, 8, 0, 0, 0, 0, 0, 0, 255];
    // The first bit is the lowest one of a byte.
    let byte = |bits: &[bool]| bits.iter().rev().fold(0, |sum, bit| sum << 1 | u8::from(*bit));
    out.extend(bits.chunks(8).map(byte));
    let mut crc = u32::MAX;
    for _ in 0..8 * ZEROS {
        crc = crc >> 1 ^ if crc & 1 == 1 { 0xedb8_8320 } else { 0 };
    }
    out.extend((!crc).to_le_bytes());
    out.extend((ZEROS as u32).to_le_bytes());
    out.into()
}

/// Names that the test chooses; everything leads to loopback.
#[derive(Default)]
struct Names {
    srv: Vec<(&'static str, u16)>,
    /// Where it leads instead.
    to: Option<IpAddr>,
}

impl Dns for Names {
    fn addresses<'a>(&'a self, _: &'a str) -> BoxFuture<'a, Result<Vec<IpAddr>, TransportError>> {
        Box::pin(async { Ok(vec![self.to.unwrap_or(IpAddr::from([127, 0, 0, 1]))]) })
    }

    fn srv<'a>(&'a self, name: &'a str) -> BoxFuture<'a, Result<Vec<Srv>, TransportError>> {
        Box::pin(async move {
            let of_name = self.srv.iter().filter(|(service, _)| *service == name);
            Ok(of_name
                .map(|(_, port)| Srv { priority: 0, weight: 0, target: "target.example.".to_owned(), port: *port })
                .collect())
        })
    }
}

fn transport(config: &Config, names: Names) -> HttpTransport {
    HttpTransport::with_dns(config, env().0, Arc::new(names)).unwrap()
}

fn get(path: &str) -> http::Request<Bytes> {
    http::Request::builder().uri(path).body(Bytes::new()).unwrap()
}

fn limits() -> Limits {
    Limits { timeout: Duration::from_secs(10), max_bytes: 1 << 20 }
}

#[tokio::test]
async fn the_right_certificate_is_accepted_and_connections_are_used_again() {
    let authority = Authority::new();
    let peer = authority.serve(&["localhost"]).await;
    // The resolver of the system knows localhost.
    let transport = HttpTransport::new(&authority.config(), env().0).unwrap();
    let to = name(&format!("localhost:{}", peer.port()));
    for _ in 0..3 {
        let answer = transport.call(&to, get("/_matrix/x?y=%2F"), limits()).await.unwrap();
        assert_eq!((answer.status().as_u16(), &answer.body()[..]), (200, &b"hello"[..]));
    }
    let seen = peer.seen();
    assert_eq!((seen.connections, seen.sni.as_deref()), (1, Some("localhost")));
    assert_eq!((seen.host.as_str(), seen.path.as_str()), (to.as_str(), "/_matrix/x?y=%2F"));
    assert_eq!(seen.version, "HTTP/2.0");
}

#[tokio::test]
async fn bodies_headers_and_statuses_pass() {
    let authority = Authority::new();
    let peer = authority.serve_with(&["localhost"], &[b"http/1.1"]).await;
    let transport = transport(&authority.config(), Names::default());
    let mut request = get("/echo");
    *request.method_mut() = http::Method::PUT;
    *request.body_mut() = Bytes::from_static(b"{}");
    let answer = transport.call(&name(&format!("localhost:{}", peer.port())), request, limits()).await.unwrap();
    assert_eq!(
        (answer.status().as_u16(), &answer.headers()["x-test"], &answer.body()[..]),
        (418, &http::HeaderValue::from_static("yes"), &b"{}"[..])
    );
    assert_eq!(peer.seen().version, "HTTP/1.1");
}

#[tokio::test]
async fn another_name_or_another_authority_is_refused() {
    let authority = Authority::new();
    let wrong_name = authority.serve(&["other.example"]).await;
    let stranger = Authority::new();
    let wrong_authority = stranger.serve(&["localhost"]).await;
    let transport = transport(&authority.config(), Names::default());
    for peer in [&wrong_name, &wrong_authority] {
        let to = name(&format!("localhost:{}", peer.port()));
        let refused = transport.call(&to, get("/"), limits()).await;
        let Err(TransportError::Connect(why)) = refused else { panic!("{refused:?}") };
        assert!(why.to_lowercase().contains("certificate"), "{why}");
        assert_eq!(peer.seen().path, "", "nothing was asked");
    }
    let mut config = authority.config();
    config.extra_ca.clear();
    let without = self::transport(&config, Names::default());
    let good = authority.serve(&["localhost"]).await;
    let to = name(&format!("localhost:{}", good.port()));
    assert!(matches!(without.call(&to, get("/"), limits()).await, Err(TransportError::Connect(_))));
}

#[tokio::test]
async fn files_that_are_no_authorities_are_errors_that_name_them() {
    let config = Config { extra_ca: vec!["/no/such/file.pem".into()], ..Config::default() };
    let why = HttpTransport::new(&config, env().0).err().unwrap();
    assert!(why.to_string().contains("/no/such/file.pem"), "{why}");
    let empty = tempfile::NamedTempFile::new().unwrap();
    let config = Config { extra_ca: vec![empty.path().to_owned()], ..Config::default() };
    assert!(HttpTransport::new(&config, env().0).is_err());
}

#[tokio::test]
async fn srv_records_choose_the_port_and_nothing_else() {
    let authority = Authority::new();
    let peer = authority.serve(&["them.example"]).await;
    let names = Names { srv: vec![("_matrix-fed._tcp.them.example", peer.port())], to: None };
    let transport = transport(&authority.config(), names);
    // There is no well-known file on port 443 of loopback.
    transport.call(&name("them.example"), get("/"), limits()).await.unwrap();
    let seen = peer.seen();
    assert_eq!((seen.host.as_str(), seen.sni.as_deref()), ("them.example", Some("them.example")));
    // The certificate must be for the name, not for the target.
    let target = authority.serve(&["target.example"]).await;
    let names = Names { srv: vec![("_matrix-fed._tcp.them.example", target.port())], to: None };
    let refused = self::transport(&authority.config(), names).call(&name("them.example"), get("/"), limits()).await;
    assert!(matches!(refused, Err(TransportError::Connect(_))), "{refused:?}");
}

#[tokio::test]
async fn addresses_need_a_certificate_for_themselves() {
    let authority = Authority::new();
    let transport = transport(&authority.config(), Names::default());
    let good = authority.serve(&["127.0.0.1"]).await;
    let to = name(&format!("127.0.0.1:{}", good.port()));
    transport.call(&to, get("/"), limits()).await.unwrap();
    assert_eq!((good.seen().host.as_str(), good.seen().sni), (to.as_str(), None));
    let bad = authority.serve(&["localhost"]).await;
    let refused = transport.call(&name(&format!("127.0.0.1:{}", bad.port())), get("/"), limits()).await;
    assert!(matches!(refused, Err(TransportError::Connect(_))), "{refused:?}");
}

#[tokio::test]
async fn an_address_without_a_port_is_asked_at_8448_and_named_without_it() {
    let authority = Authority::new();
    let peer = authority.serve_at("127.0.0.77:8448", &["127.0.0.77"], &[b"h2", b"http/1.1"]).await;
    let config = Config { ip_range_allow: vec!["127.0.0.77/32".parse().unwrap()], ..authority.config() };
    transport(&config, Names::default()).call(&name("127.0.0.77"), get("/"), limits()).await.unwrap();
    assert_eq!((peer.seen().host.as_str(), peer.seen().version.as_str()), ("127.0.0.77", "HTTP/1.1"));
}

#[tokio::test]
async fn private_addresses_are_refused_unless_they_are_allowed() {
    let authority = Authority::new();
    let peer = authority.serve(&["localhost", "127.0.0.1", "them.example"]).await;
    let config = Config { ip_range_allow: Vec::new(), ..authority.config() };
    let names = Names { srv: vec![("_matrix-fed._tcp.them.example", peer.port())], to: None };
    let transport = transport(&config, names);
    let port = peer.port();
    for to in [
        format!("localhost:{port}"),
        format!("127.0.0.1:{port}"),
        format!("[::ffff:127.0.0.1]:{port}"),
        "them.example".to_owned(),
    ] {
        let refused = transport.call(&name(&to), get("/"), limits()).await;
        assert!(matches!(refused, Err(TransportError::Refused(_))), "{to}: {refused:?}");
        assert!(!refused.unwrap_err().to_string().contains("127.0"), "it says how a name resolves here");
    }
    // What a URL parser takes for an address is one, whatever the grammar of server names says.
    for to in [format!("0x7f.1:{port}"), format!("2130706433:{port}"), format!("127.1:{port}")] {
        let refused = transport.call(&name(&to), get("/"), limits()).await;
        assert!(matches!(refused, Err(TransportError::Refused(_))), "{to}: {refused:?}");
    }
    assert_eq!(peer.seen().connections, 0);
}

#[tokio::test]
async fn answers_without_end_are_cut() {
    let authority = Authority::new();
    let peer = authority.serve(&["localhost"]).await;
    let transport = transport(&authority.config(), Names::default());
    let to = name(&format!("localhost:{}", peer.port()));
    let small = Limits { max_bytes: 100_000, ..limits() };
    for path in ["/endless", "/bomb"] {
        let cut = transport.call(&to, get(path), small).await;
        assert_eq!(cut.unwrap_err(), TransportError::TooLarge(100_000), "{path}");
    }
    assert!(bomb().len() < small.max_bytes);
    let whole = Limits { max_bytes: ZEROS, ..limits() };
    assert_eq!(transport.call(&to, get("/bomb"), whole).await.unwrap().body().len(), ZEROS);
}

#[tokio::test]
async fn answers_that_take_too_long_are_given_up() {
    let authority = Authority::new();
    let peer = authority.serve(&["localhost"]).await;
    let transport = transport(&authority.config(), Names::default());
    let to = name(&format!("localhost:{}", peer.port()));
    let quick = Limits { timeout: Duration::from_millis(300), ..limits() };
    for path in ["/slow", "/trickle"] {
        let started = tokio::time::Instant::now();
        assert_eq!(transport.call(&to, get(path), quick).await.unwrap_err(), TransportError::Timeout, "{path}");
        assert!(started.elapsed() < Duration::from_secs(3));
    }
}

#[tokio::test]
async fn redirects_are_answers() {
    let authority = Authority::new();
    let peer = authority.serve(&["localhost"]).await;
    let transport = transport(&authority.config(), Names::default());
    let answer = transport.call(&name(&format!("localhost:{}", peer.port())), get("/redirect"), limits()).await;
    assert_eq!(answer.unwrap().status(), 302);
    assert_eq!(peer.seen().path, "/redirect");
}

#[tokio::test]
async fn nobody_there_and_paths_that_would_change() {
    let authority = Authority::new();
    let transport = transport(&authority.config(), Names::default());
    let closed = TcpListener::bind("127.0.0.1:0").await.unwrap().local_addr().unwrap();
    let to = name(&format!("localhost:{}", closed.port()));
    assert!(matches!(transport.call(&to, get("/"), limits()).await, Err(TransportError::Connect(_))));
    for path in ["/a/../b", "/a/%2e%2e/b", "/a/./b"] {
        assert!(matches!(transport.call(&to, get(path), limits()).await, Err(TransportError::BadUrl(_))), "{path}");
    }
}

#[tokio::test]
async fn the_client_for_what_strangers_name() {
    let authority = Authority::new();
    let peer = authority.serve(&["localhost"]).await;
    let rules = Rules { limits: limits(), redirects: 3, https_only: true };
    let open = Client::new(&authority.config(), Arc::new(Names::default())).unwrap();
    let url = format!("https://localhost:{}/redirect", peer.port());
    let fetched = open.fetch(get(&url), rules).await.unwrap();
    assert_eq!((fetched.url.path(), &fetched.response.body()[..]), ("/elsewhere", &b"hello"[..]));
    let config = Config { ip_range_allow: Vec::new(), ..authority.config() };
    let careful = Client::new(&config, Arc::new(Names::default())).unwrap();
    for url in [url, format!("https://127.0.0.1:{}/", peer.port()), format!("https://0x7f000001:{}/", peer.port())] {
        let refused = careful.fetch(get(&url), rules).await;
        assert!(matches!(refused, Err(TransportError::Refused(_))), "{url}: {refused:?}");
    }
    let plain = careful.fetch(get("http://example.org/"), rules).await;
    assert!(matches!(plain, Err(TransportError::BadUrl(_))));
}
