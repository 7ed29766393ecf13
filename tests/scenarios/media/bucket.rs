//! Client-Server API, "Content repository", where the files are in an S3-compatible bucket.

use stoa_kit::{Bucket, Client, Home, Method, Reply, Request, User, json};

use super::{PNG, download, upload};
use crate::own;

const NAME: &str = "files";

/// A bucket, a homeserver that keeps its files there, and somebody on it.
async fn start(more: &str) -> Option<(Bucket, Home, User)> {
    let launch = own()?;
    let bucket = Bucket::open(NAME).await;
    let home = Home::launch(launch.with_config(&bucket.config(NAME, more))).await;
    let alice = home.user("alice").await;
    Some((bucket, home, alice))
}

/// Bytes without a pattern that a mistake could hide in.
fn bytes(many: u32) -> Vec<u8> {
    (0..many).map(|n| (n.wrapping_mul(2_654_435_761) >> 24) as u8).collect()
}

/// The files in the data folder that hold these bytes.
fn on_disk(home: &Home, bytes: &[u8]) -> usize {
    let (mut found, mut folders) = (0, vec![home.how().data().join("media")]);
    while let Some(folder) = folders.pop() {
        for entry in std::fs::read_dir(folder).into_iter().flatten().flatten() {
            match entry.file_type() {
                Ok(kind) if kind.is_dir() => folders.push(entry.path()),
                _ => found += usize::from(std::fs::read(entry.path()).is_ok_and(|file| file == bytes)),
            }
        }
    }
    found
}

#[tokio::test]
async fn what_was_uploaded_is_in_the_bucket_and_comes_back() {
    let Some((bucket, home, alice)) = start("prefix = \"of/stoa\"").await else { return };
    let small = bytes(1_000);
    // More than one part.
    let large = bytes(20 << 20);
    for file in [&small, &large] {
        let media = upload(&alice, "?filename=data.bin", "application/octet-stream", file).await;
        let id = media.split('/').nth(1).expect("a media id").to_owned();
        let objects = bucket.objects(NAME);
        let object = objects.iter().find(|(name, _)| name.ends_with(&id)).expect("an object");
        assert!(object.0.starts_with("of/stoa/"), "{}", object.0);
        assert!(object.1 == **file, "the object is not the file");
        assert_eq!(on_disk(&home, file), 0, "the file is on disk as well");
        let reply = alice.get(&download(&media)).await;
        assert_eq!((reply.status, reply.header("content-type")), (200, "application/octet-stream"));
        assert!(reply.header("content-disposition").contains("data.bin"), "{:?}", reply.headers);
        assert!(reply.body == *file, "other bytes came back");
    }
}

#[tokio::test]
async fn an_empty_file_and_a_reserved_one_are_files_too() {
    let Some((bucket, _home, alice)) = start("").await else { return };
    let empty = upload(&alice, "", "text/plain", b"").await;
    let reply = alice.get(&download(&empty)).await;
    assert_eq!((reply.status, reply.body.len()), (200, 0));
    let uri = alice.post("/_matrix/media/v1/create", json!({})).await.ok();
    let media = uri["content_uri"].as_str().expect("a URI").trim_start_matches("mxc://").to_owned();
    alice.get(&format!("{}?timeout_ms=0", download(&media))).await.expect(504, "M_NOT_YET_UPLOADED");
    let path = format!("/_matrix/media/v3/upload/{media}");
    alice.raw(Method::PUT, &path, "text/plain", b"later".to_vec()).await.ok();
    assert_eq!(alice.get(&download(&media)).await.body, b"later"[..]);
    assert_eq!(bucket.objects(NAME).iter().filter(|(_, bytes)| bytes == b"later").count(), 1);
    alice.raw(Method::PUT, &path, "text/plain", b"again".to_vec()).await.expect(409, "M_CANNOT_OVERWRITE_MEDIA");
    assert_eq!(alice.get(&download(&media)).await.body, b"later"[..]);
}

#[tokio::test]
async fn a_part_of_a_file_can_be_had() {
    let Some((_bucket, home, alice)) = start("").await else { return };
    let file = bytes(100_000);
    let media = upload(&alice, "", "application/octet-stream", &file).await;
    let request = Request::builder()
        .uri(format!("{}{}", home.url(), download(&media)))
        .header("Authorization", format!("Bearer {}", alice.token))
        .header("Range", "bytes=70000-70099")
        .body(Default::default())
        .expect("a request");
    let reply = home.client().send("a range".to_owned(), request).await.expect("a reply");
    assert_eq!((reply.status, reply.header("content-range")), (206, "bytes 70000-70099/100000"));
    assert_eq!(reply.body, file[70_000..70_100]);
}

#[tokio::test]
async fn pictures_of_the_bucket_have_thumbnails() {
    let Some((_bucket, _home, alice)) = start("").await else { return };
    let media = upload(&alice, "", "image/png", PNG).await;
    for query in ["method=scale", "method=crop", "method=scale&animated=true"] {
        let path = format!("/_matrix/client/v1/media/thumbnail/{media}?width=32&height=32&{query}");
        for _ in 0..2 {
            let reply = alice.get(&path).await;
            assert_eq!(reply.status, 200, "{query}: {reply:?}");
            assert!(reply.header("content-type").starts_with("image/"), "{query}");
        }
    }
}

/// What the bucket itself says at a path.
async fn there(bucket: &Bucket, path: &str) -> Reply {
    let request = Request::builder().uri(format!("{}{path}", bucket.url())).body(Default::default());
    let client = Client::new(&bucket.url());
    client.send("a link to the bucket".to_owned(), request.expect("a request")).await.expect("a reply")
}

#[tokio::test]
async fn who_can_be_sent_to_the_bucket_is() {
    let Some((bucket, _home, alice)) = start("link_minutes = 5").await else { return };
    let media = upload(&alice, "?filename=a.html", "text/html", b"<script>alert(1)</script>").await;
    let reply = alice.get(&format!("{}?allow_redirect=true", download(&media))).await;
    assert_eq!(reply.status, 307, "{reply:?}");
    let link = reply.header("location").strip_prefix(&bucket.url()).expect("a link to the bucket").to_owned();
    // Without any token of ours; and what is in it cannot run as a page of the bucket's.
    let reply = there(&bucket, &link).await;
    assert_eq!((reply.status, &reply.body[..]), (200, &b"<script>alert(1)</script>"[..]));
    assert!(reply.header("content-disposition").starts_with("attachment"), "{:?}", reply.headers);
    // A link is for this file and no other.
    let other = upload(&alice, "", "text/plain", b"secret").await;
    let (mine, its) = (media.split('/').nth(1).expect("an id"), other.split('/').nth(1).expect("an id"));
    let (shard, other_shard) = (format!("/{}/{}/", &mine[..2], &mine[2..4]), format!("/{}/{}/", &its[..2], &its[2..4]));
    let forged = link.replace(mine, its).replace(&shard, &other_shard);
    let reply = there(&bucket, &forged).await;
    assert_eq!(reply.status, 403, "{reply:?}");
    // Who does not say that he can be sent there gets the file.
    for query in ["", "?allow_redirect=false"] {
        assert_eq!(alice.get(&format!("{}{query}", download(&media))).await.status, 200);
    }
}

#[tokio::test]
async fn nobody_is_sent_to_the_bucket_unless_the_host_wants_it() {
    let Some((_bucket, _home, alice)) = start("").await else { return };
    let media = upload(&alice, "", "text/plain", b"hello").await;
    assert_eq!(alice.get(&format!("{}?allow_redirect=true", download(&media))).await.status, 200);
}

#[tokio::test]
async fn files_from_before_the_bucket_are_still_there() {
    let Some(launch) = own() else { return };
    let bucket = Bucket::open(NAME).await;
    let home = Home::launch(launch).await;
    let alice = home.user("alice").await;
    let media = upload(&alice, "", "text/plain", b"from before").await;
    let (launch, _) = home.stop().await;
    let home = Home::launch(launch.with_config(&bucket.config(NAME, ""))).await;
    let path = format!("{}?access_token={}", download(&media), alice.token);
    assert_eq!(home.get(&path).await.body, b"from before"[..]);
}

#[tokio::test]
async fn a_bucket_that_is_away_is_an_error_and_no_harm() {
    let Some((mut bucket, mut home, alice)) = start("").await else { return };
    let media = upload(&alice, "", "text/plain", b"hello").await;
    bucket.stop().await;
    let reply = alice.raw(Method::POST, "/_matrix/media/v3/upload", "text/plain", b"lost".to_vec()).await;
    reply.expect(500, "M_UNKNOWN");
    alice.get(&download(&media)).await.expect(500, "M_UNKNOWN");
    // Rooms do not need it, nor does a start.
    home.restart().await;
    alice.create_room(json!({})).await;
    bucket.start().await;
    assert_eq!(alice.get(&download(&media)).await.body, b"hello"[..]);
    assert!(!bucket.objects(NAME).iter().any(|(_, bytes)| bytes == b"lost"));
}
