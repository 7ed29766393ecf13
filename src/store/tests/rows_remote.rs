//! The bytes of what is stored of other servers, as `rows.rs` holds those of everything else: what changes here is read by
//! newer releases from older databases.

use bytes::Bytes;
use stoa_store::{
    Value,
    rows::{
        keys::RemoteDevices,
        media::File,
        outbox::ToldDevice,
        remote::{Destination, ServerKey, ServerKeys},
        remote_media::RemoteMedia,
    },
    stored_bytes,
};

#[track_caller]
fn same<V: Value + PartialEq + std::fmt::Debug>(value: &V, bytes: &str) {
    let written: String = stored_bytes(value).iter().map(|byte| format!("{byte:02x}")).collect();
    assert_eq!(written, bytes);
    let raw: Vec<u8> =
        (0..bytes.len()).step_by(2).map(|at| u8::from_str_radix(&bytes[at..at + 2], 16).unwrap()).collect();
    assert_eq!(&V::from_bytes(Bytes::from(raw)).unwrap(), value);
}

#[test]
fn keys_of_servers() {
    let key = |id: &str, expired| ServerKey { id: id.to_owned(), key: [7; 32], valid_until: 1000, expired };
    let keys = vec![key("ed25519:1", None), key("ed25519:2", Some(5))];
    let row = ServerKeys { keys, document: b"{}".to_vec(), valid_until: 2000, fetched_at: 3 };
    same(
        &row,
        "0184828369656432353531393a3158200707070707070707070707070707070707070707070707070707070707\
         0707071903e88469656432353531393a3258200707070707070707070707070707070707070707070707070707\
         0707070707071903e805427b7d1907d003",
    );
    same(&ServerKeys::default(), "018480400000");
}

#[test]
fn servers_that_fail() {
    same(
        &Destination { failing_since: 1, retry_at: 1_700_000_000_000, failures: 300 },
        "0183011b0000018bcfe5680019012c",
    );
}

#[test]
fn files_of_servers() {
    let file = File { size: 300, content_type: Some("a/b".to_owned()), name: None };
    same(
        &RemoteMedia { server: "x".to_owned(), id: "Id".to_owned(), file, fetched: 1000, used: 2000 },
        "018561786249648219012c63612f621903e81907d0",
    );
}

#[test]
fn devices_of_users_of_servers() {
    same(&RemoteDevices { stream: 1000, stale: true }, "01821903e8f5");
    same(&RemoteDevices { stream: 0, stale: false }, "018200f4");
}

#[test]
fn devices_as_servers_were_told_of_them() {
    same(&ToldDevice { stream: 300, digest: Some(vec![7; 3]) }, "018219012c43070707");
    same(&ToldDevice { stream: 1, digest: None }, "018101");
}
