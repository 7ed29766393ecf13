//! The `X-Matrix` header: as ruma reads and writes it, and what the specification says of it.

use proptest::prelude::*;
use ruma_federation_api::authentication::XMatrix as Oracle;
use stoa_event::{
    ids::{OwnedServerName, ServerName},
    sign::SigningKey,
};
use stoa_remote::xmatrix::{ParseError, XMatrix, signed_bytes};

fn name(server: &str) -> OwnedServerName {
    server.try_into().unwrap()
}

fn read(header: &str) -> XMatrix {
    XMatrix::parse(header).unwrap()
}

#[test]
fn what_the_specification_shows() {
    let header = "X-Matrix origin=\"origin.hs.example.com\",destination=\"destination.hs.example.com\",\
                  key=\"ed25519:key1\",sig=\"ABCDEF...\"";
    let read = read(header);
    assert_eq!(read.origin, "origin.hs.example.com");
    assert_eq!(read.destination.as_deref(), Some(&*name("destination.hs.example.com")));
    assert_eq!((read.key.as_str(), read.sig.as_str()), ("ed25519:key1", "ABCDEF..."));
    assert_eq!(read.to_string(), header);
}

#[test]
fn what_may_differ() {
    let plain = read("X-Matrix origin=\"a.example:8448\",key=\"ed25519:1\",sig=\"AB+/=\"");
    assert_eq!(plain.destination, None);
    for same in [
        "x-matrix origin=a.example:8448,key=ed25519:1,sig=AB+/=",
        "X-MATRIX   ORIGIN=\"a.example:8448\" ,\tKey=\"ed25519:1\"\t ,  sIg=\"AB+/=\"  ",
        "X-Matrix sig=\"AB+/=\",origin=\"a.example:8448\",key=\"ed25519:1\"",
        "X-Matrix origin=\"a.example:8448\",key=\"ed25519:1\",sig=\"AB+/=\",new=\"thing, with = and \\\" in it\"",
        "X-Matrix origin=\"a.ex\\ample:8448\",key=\"ed25519\\:1\",sig=\"AB+/=\"",
        "X-Matrix ,,origin=\"a.example:8448\",,key=\"ed25519:1\",sig=\"AB+/=\",",
    ] {
        assert_eq!(read(same), plain, "{same}");
    }
    let v6 = read("X-Matrix origin=[::1]:8448,destination=\"[::1]\",key=\"ed25519:1\",sig=\"A\"");
    assert_eq!((v6.origin.as_str(), v6.destination.as_deref()), ("[::1]:8448", Some(&*name("[::1]"))));
}

#[test]
fn what_is_refused() {
    let refused = |header: &str| XMatrix::parse(header).unwrap_err();
    assert_eq!(refused("Bearer abc"), ParseError::Scheme);
    assert_eq!(refused("X-Matrix"), ParseError::Scheme);
    assert_eq!(refused("X-Matrix key=\"ed25519:1\",sig=\"A\""), ParseError::Missing("origin"));
    assert_eq!(refused("X-Matrix origin=a.example,sig=A"), ParseError::Missing("key"));
    assert_eq!(refused("X-Matrix origin=a.example,key=ed25519:1"), ParseError::Missing("sig"));
    assert_eq!(refused("X-Matrix origin=a.example,origin=b.example,key=k,sig=s"), ParseError::Twice("origin"));
    assert_eq!(refused("X-Matrix origin=\"a b\",key=k,sig=s"), ParseError::ServerName("origin"));
    assert_eq!(refused("X-Matrix origin=a,destination=\"\",key=k,sig=s"), ParseError::ServerName("destination"));
    for syntax in [
        "X-Matrix origin",
        "X-Matrix origin=\"a",
        "X-Matrix origin=\"a\\",
        "X-Matrix origin=a b,key=k",
        "X-Matrix =a",
        "X-Matrix origin=",
    ] {
        assert_eq!(refused(syntax), ParseError::Syntax, "{syntax}");
    }
    assert_eq!(refused(&format!("X-Matrix origin=\"{}\"", "a".repeat(5000))), ParseError::TooLong);
}

/// The key and the way of signing of the specification's appendix "Signing JSON", applied to a request.
#[test]
fn a_signature_that_ruma_accepts() {
    let key = SigningKey::parse("ed25519 1 YJDBA9Xnr2sVqXD9Vj7XVUnmFZcZrlw8Md7kMW+3XA1").unwrap();
    let (origin, destination) = (name("origin.example"), name("destination.example:8448"));
    let public = ruma_common::serde::Base64::new(key.verify_key().as_bytes().to_vec());
    let keys = [(origin.to_string(), [("ed25519:1".to_owned(), public)].into())].into();
    for (method, uri, body) in [
        ("GET", "/_matrix/federation/v1/version", ""),
        ("PUT", "/_matrix/federation/v1/send/1%2F2?a=%C3%A9&b=", r#"{"b":{"z":1,"a":[null,true]},"a":"\n\u0001é😀"}"#),
    ] {
        let message = signed_bytes(method, uri, &origin, &destination, Some(body.as_bytes())).unwrap();
        let header = XMatrix {
            origin: origin.clone(),
            destination: Some(destination.clone()),
            key: "ed25519:1".to_owned(),
            sig: key.sign_base64(&message),
        };
        let request = http::Request::builder()
            .method(method)
            .uri(uri)
            .header("authorization", header.to_string())
            .body(body.as_bytes())
            .unwrap();
        let theirs = Oracle::extract_from_http_headers(request.headers()).unwrap();
        theirs.verify_http_request(&request, &destination, &keys).unwrap();
        let object = Oracle::request_object(&request, &origin, &destination).unwrap();
        assert_eq!(serde_json::to_vec(&object).unwrap(), message);
    }
}

/// The signature was made once with OpenSSL over these bytes, so that both sides cannot be wrong together.
#[test]
fn the_bytes_that_are_signed() {
    let (origin, destination) = (name("a.example"), name("b.example"));
    let bytes = signed_bytes("GET", "/x", &origin, &destination, None).unwrap();
    assert_eq!(bytes, br#"{"destination":"b.example","method":"GET","origin":"a.example","uri":"/x"}"#);
    let bytes = signed_bytes("PUT", "/x", &origin, &destination, Some(br#"{ "b" : 1, "a": [] }"#)).unwrap();
    let text = r#"{"content":{"a":[],"b":1},"destination":"b.example","method":"PUT","origin":"a.example","uri":"/x"}"#;
    assert_eq!(bytes, text.as_bytes());
    let key = SigningKey::parse("ed25519 1 YJDBA9Xnr2sVqXD9Vj7XVUnmFZcZrlw8Md7kMW+3XA1").unwrap();
    let signature = "xnfX6+WmGJXkRCogwa6QtP5k1Cqg8ZkFRBKUNOGFHEH1WQt4E8D+bA81EJGeK1uNPHnGY4+ANAssG/ottn1bAQ";
    assert_eq!(key.sign_base64(&bytes), signature);
    assert!(signed_bytes("PUT", "/x", &origin, &destination, Some(b"{")).is_err());
}

proptest! {
    #[test]
    fn nothing_that_comes_makes_it_fail(header in ".{0,200}", tail in "[a-z=\",\\\\ :\\[\\]]{0,100}") {
        let _ = XMatrix::parse(&header);
        let _ = XMatrix::parse(&format!("X-Matrix {tail}"));
    }

    #[test]
    fn what_ruma_writes_is_read_as_it_was_meant(
        origin in "[a-z]{1,10}\\.example(:[1-9][0-9]{0,3})?",
        destination in "[a-z]{1,10}\\.example",
        key in "ed25519:[a-zA-Z0-9_]{1,10}",
        sig in proptest::collection::vec(any::<u8>(), 64),
    ) {
        let oracle = Oracle::new(
            name(&origin),
            name(&destination),
            key.as_str().try_into().unwrap(),
            ruma_common::serde::Base64::new(sig),
        );
        let ours = XMatrix::parse(&oracle.to_string()).unwrap();
        prop_assert_eq!(&ours.origin, &oracle.origin);
        prop_assert_eq!(&ours.destination, &oracle.destination);
        prop_assert_eq!(&ours.key, oracle.key.as_str());
        prop_assert_eq!(&ours.sig, &oracle.sig.encode());
        let theirs = Oracle::parse(ours.to_string()).unwrap();
        prop_assert_eq!(theirs.to_string(), oracle.to_string());
        let server: &ServerName = &theirs.origin;
        prop_assert_eq!(server, &*oracle.origin);
    }
}
