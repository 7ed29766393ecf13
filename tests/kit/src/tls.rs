//! One request over TLS, with everything about the connection in the hands of the test.

use std::sync::Arc;

use bytes::Bytes;
use http::Request;
use http_body_util::{BodyExt, Empty};
use hyper::client::conn::{http1, http2};
use hyper_util::rt::{TokioExecutor, TokioIo};
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, ServerName};
use rustls::{ClientConfig, RootCertStore};
use tokio::net::TcpStream;
use tokio_rustls::TlsConnector;

use crate::ca::Ca;

/// What a server answered over TLS.
#[derive(Debug)]
pub struct TlsReply {
    /// The HTTP status.
    pub status: u16,
    /// The protocol that was agreed on, such as `h2`.
    pub protocol: String,
    /// The certificate that was shown.
    pub certificate: Vec<u8>,
    /// The body.
    pub body: Bytes,
}

/// `GET` from a port of loopback by somebody who trusts this authority, expects this name, and offers these protocols.
///
/// # Errors
/// Why there is no connection, or no answer.
///
/// # Panics
/// If the authority's certificate cannot be read.
pub async fn get_over_tls(port: u16, ca: &Ca, name: &str, protocols: &[&str], path: &str) -> Result<TlsReply, String> {
    let mut roots = RootCertStore::empty();
    let root = CertificateDer::from_pem_file(ca.file()).expect("the certificate of the authority");
    roots.add(root).expect("an authority");
    let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
    let config = ClientConfig::builder_with_provider(provider).with_safe_default_protocol_versions();
    let mut config = config.map_err(|why| why.to_string())?.with_root_certificates(roots).with_no_client_auth();
    config.alpn_protocols = protocols.iter().map(|protocol| protocol.as_bytes().to_vec()).collect();
    let stream = TcpStream::connect(("127.0.0.1", port)).await.map_err(|why| why.to_string())?;
    let server = ServerName::try_from(name.to_owned()).map_err(|why| why.to_string())?;
    let stream = TlsConnector::from(Arc::new(config)).connect(server, stream).await.map_err(|why| why.to_string())?;
    let session = stream.get_ref().1;
    let protocol = String::from_utf8_lossy(session.alpn_protocol().unwrap_or_default()).into_owned();
    let certificate = session.peer_certificates().and_then(|chain| chain.first()).map(|first| first.to_vec());
    let answer = ask(TokioIo::new(stream), protocol == "h2", &format!("{name}:{port}"), path).await;
    let (status, body) = answer.map_err(|why| why.to_string())?;
    Ok(TlsReply { status, protocol, certificate: certificate.unwrap_or_default(), body })
}

type Stream = TokioIo<tokio_rustls::client::TlsStream<TcpStream>>;

async fn ask(stream: Stream, h2: bool, host: &str, path: &str) -> Result<(u16, Bytes), Box<dyn std::error::Error>> {
    let answer = if h2 {
        let (mut sender, connection) = http2::handshake(TokioExecutor::new(), stream).await?;
        tokio::spawn(connection);
        let request = Request::get(format!("https://{host}{path}")).body(Empty::<Bytes>::new())?;
        sender.send_request(request).await?
    } else {
        let (mut sender, connection) = http1::handshake(stream).await?;
        tokio::spawn(connection);
        let request = Request::get(path).header("Host", host).body(Empty::<Bytes>::new())?;
        sender.send_request(request).await?
    };
    let status = answer.status().as_u16();
    Ok((status, answer.into_body().collect().await?.to_bytes()))
}
