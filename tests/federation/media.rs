//! Server-Server API, "Content Repository": files of another server.

use stoa_kit::{Method, Reply, User};

use crate::{Two, between};

/// A PNG of one red dot.
const PNG: &[u8] = &[
    0x89, b'P', b'N', b'G', 0x0D, 0x0A, 0x1A, 0x0A, 0, 0, 0, 0x0D, b'I', b'H', b'D', b'R', 0, 0, 0, 1, 0, 0, 0, 1, 8,
    2, 0, 0, 0, 0x90, 0x77, 0x53, 0xDE, 0, 0, 0, 0x0C, b'I', b'D', b'A', b'T', 0x08, 0xD7, 0x63, 0xF8, 0xCF, 0xC0, 0,
    0, 0x03, 0x01, 0x01, 0, 0x18, 0xDD, 0x8D, 0xB0, 0, 0, 0, 0, b'I', b'E', b'N', b'D', 0xAE, 0x42, 0x60, 0x82,
];

async fn upload(user: &User, query: &str, kind: &str, body: &[u8]) -> String {
    let reply = user.raw(Method::POST, &format!("/_matrix/media/v3/upload{query}"), kind, body.to_vec()).await.ok();
    let uri = reply["content_uri"].as_str().expect("content_uri");
    uri.strip_prefix("mxc://").expect("an mxc URI").to_owned()
}

async fn download(user: &User, media: &str) -> Reply {
    user.get(&format!("/_matrix/client/v1/media/download/{media}")).await
}

between!(files);
async fn files(two: Two) {
    let (alice, bob) = two.users().await;
    let bytes: Vec<u8> = (0..3_000_000_u32).map(|n| (n * 31 % 251) as u8).collect();
    let media = upload(&alice, "?filename=data.bin", "application/octet-stream", &bytes).await;
    let carol = two.b.home.user("carol").await;
    // The second time it comes from a cache.
    for user in [&bob, &carol, &bob] {
        let reply = download(user, &media).await;
        assert_eq!((reply.status, reply.body.len()), (200, bytes.len()), "{:?}", reply.headers);
        assert_eq!(reply.body, bytes);
        assert_eq!(reply.header("content-type"), "application/octet-stream");
        assert!(reply.header("content-disposition").contains("data.bin"), "{:?}", reply.headers);
    }
    two.b.home.get(&format!("/_matrix/client/v1/media/download/{media}")).await.expect(401, "M_MISSING_TOKEN");
}

between!(thumbnails);
async fn thumbnails(two: Two) {
    let (alice, bob) = two.users().await;
    let media = upload(&alice, "?filename=dot.png", "image/png", PNG).await;
    let path = format!("/_matrix/client/v1/media/thumbnail/{media}?width=32&height=32&method=scale");
    let reply = bob.get(&path).await;
    assert_eq!(reply.status, 200, "{reply:?}");
    assert!(reply.header("content-type").starts_with("image/"), "{:?}", reply.headers);
}

between!(files_that_are_not_there);
async fn files_that_are_not_there(two: Two) {
    let (alice, bob) = two.users().await;
    download(&bob, &format!("{}/nothing", alice.server())).await.expect(404, "M_NOT_FOUND");
    // A server that does not exist is a failure of the same kind, and soon.
    let reply = download(&bob, "localhost:9/nothing").await;
    assert!([404, 502, 504].contains(&reply.status), "{reply:?}");
}
