//! The listener that speaks TLS: for other servers, and for clients where no proxy stands in between.

use std::process::Command;
use std::time::Duration;

use stoa_kit::{Ca, Home, Launch, Method, Value, get_over_tls};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;

use crate::{binary, own};

const VERSIONS: &str = "/_matrix/client/versions";

/// A homeserver with a certificate of this authority.
async fn home(ca: &std::sync::Arc<Ca>) -> Option<Home> {
    own()?;
    Some(Home::launch(Launch::federating(binary(), ca)).await)
}

#[tokio::test]
async fn who_trusts_the_authority_is_answered() {
    let ca = Ca::new();
    let Some(home) = home(&ca).await else { return };
    let port = home.how().tls().0;
    for (offered, agreed) in [(&["h2", "http/1.1"][..], "h2"), (&["http/1.1"], "http/1.1"), (&[], "")] {
        let reply = get_over_tls(port, &ca, "localhost", offered, VERSIONS).await.expect("an answer");
        assert_eq!((reply.status, reply.protocol.as_str()), (200, agreed));
        let body: Value = serde_json::from_slice(&reply.body).expect("JSON");
        assert!(body["versions"].is_array(), "{body}");
    }
    let reply = get_over_tls(port, &ca, "127.0.0.1", &[], VERSIONS).await.expect("an answer");
    assert_eq!(reply.status, 200);
}

#[tokio::test]
async fn who_does_not_trust_the_authority_or_expects_another_name_goes_away() {
    let ca = Ca::new();
    let Some(home) = home(&ca).await else { return };
    let port = home.how().tls().0;
    let why = get_over_tls(port, &Ca::new(), "localhost", &[], VERSIONS).await.expect_err("another authority");
    assert!(why.contains("UnknownIssuer") || why.contains("BadSignature"), "{why}");
    let why = get_over_tls(port, &ca, "example.org", &[], VERSIONS).await.expect_err("another name");
    assert!(why.contains("not valid for name"), "{why}");
    // And one who speaks no TLS at all hears nothing of the server.
    let mut stream = TcpStream::connect(("127.0.0.1", port)).await.expect("a connection");
    stream.write_all(b"GET /_matrix/client/versions HTTP/1.1\r\nHost: localhost\r\n\r\n").await.expect("written");
    let mut answer = Vec::new();
    let _ = tokio::time::timeout(Duration::from_secs(10), stream.read_to_end(&mut answer)).await.expect("closed");
    assert!(!answer.starts_with(b"HTTP"), "{:?}", String::from_utf8_lossy(&answer));
}

#[tokio::test]
async fn clients_are_told_the_address_that_they_used() {
    let ca = Ca::new();
    let Some(home) = home(&ca).await else { return };
    let port = home.how().tls().0;
    for protocol in ["h2", "http/1.1"] {
        let reply = get_over_tls(port, &ca, "localhost", &[protocol], "/.well-known/matrix/client").await;
        let body: Value = serde_json::from_slice(&reply.expect("an answer").body).expect("JSON");
        assert_eq!(body["m.homeserver"]["base_url"], format!("https://localhost:{port}"), "over {protocol}");
    }
}

#[tokio::test]
async fn a_new_certificate_is_shown_after_a_signal() {
    let ca = Ca::new();
    let Some(home) = home(&ca).await else { return };
    let (port, files) = home.how().tls();
    let shown = async || get_over_tls(port, &ca, "localhost", &[], VERSIONS).await.expect("an answer").certificate;
    let first = shown().await;
    // What cannot be used changes nothing.
    std::fs::write(&files.certificate, "no certificate").expect("written");
    hang_up(&home).await;
    assert_eq!(shown().await, first);
    ca.issue(home.how().folder(), &["localhost"]);
    hang_up(&home).await;
    for _ in 0..100 {
        if shown().await != first {
            return;
        }
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
    panic!("still the old certificate");
}

/// SIGHUP, and a moment to act on it.
async fn hang_up(home: &Home) {
    let pid = home.pid().expect("a process").to_string();
    assert!(Command::new("kill").args(["-HUP", &pid]).status().is_ok_and(|status| status.success()));
    tokio::time::sleep(Duration::from_millis(300)).await;
    assert_eq!(home.client().json(Method::GET, VERSIONS, None, None).await.status, 200, "it lives");
}

#[tokio::test]
async fn a_certificate_that_cannot_be_used_is_said_at_the_start() {
    if own().is_none() {
        return;
    }
    let (one, two) = (Ca::new(), Ca::new());
    let launch = Launch::federating(binary(), &one);
    let other = tempfile::tempdir().expect("a folder");
    let foreign = two.issue(other.path(), &["localhost"]);
    let key = foreign.key.display().to_string();
    let certificate = foreign.certificate.display().to_string();
    for (name, value, said) in [
        ("STOA_TLS_KEY", key.as_str(), "cannot be used together"),
        ("STOA_TLS_KEY", certificate.as_str(), "no PEM section with a private key"),
        ("STOA_TLS_CERTIFICATE", key.as_str(), "no PEM section with a certificate"),
        ("STOA_TLS_CERTIFICATE", "/nowhere/at/all.pem", "/nowhere/at/all.pem"),
    ] {
        let broken = launch.clone().env(name, value);
        assert!(broken.start_on(broken.tls().0 + 1).await.is_none(), "{said}");
        assert!(broken.log().contains(said), "{said}: {}", broken.log());
    }
}
