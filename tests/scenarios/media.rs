//! Client-Server API, "Content repository": upload, authenticated download, thumbnails.

mod bucket;
mod previews;

use stoa_kit::{Home, Method, User, json};

use crate::{home, own, strict};

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

fn download(media: &str) -> String {
    format!("/_matrix/client/v1/media/download/{media}")
}

#[tokio::test]
async fn what_was_uploaded_comes_back() {
    let home = home().await;
    let (alice, bob) = (home.user("alice").await, home.user("bob").await);
    let bytes: Vec<u8> = (0..200_000_u32).map(|n| (n * 31 % 251) as u8).collect();
    let media = upload(&alice, "?filename=data.bin", "application/octet-stream", &bytes).await;
    assert!(media.starts_with(&format!("{}/", alice.server())));
    let reply = bob.get(&download(&media)).await;
    assert_eq!((reply.status, reply.body.len()), (200, bytes.len()));
    assert_eq!(reply.body, bytes);
    assert_eq!(reply.header("content-type"), "application/octet-stream");
    assert!(reply.header("content-disposition").contains("data.bin"), "{:?}", reply.headers);
}

#[tokio::test]
async fn a_download_needs_a_token() {
    let home = home().await;
    let alice = home.user("alice").await;
    let media = upload(&alice, "", "text/plain", b"private").await;
    home.get(&download(&media)).await.expect(401, "M_MISSING_TOKEN");
    let reply = home.client().raw(Method::POST, "/_matrix/media/v3/upload", None, "text/plain", "x".into()).await;
    reply.expect(401, "M_MISSING_TOKEN");
    // Without a token nothing that was uploaded now is served by the old paths either.
    home.get(&format!("/_matrix/media/v3/download/{media}"))
        .await
        .expect_any(&[404], &["M_NOT_FOUND", "M_UNRECOGNIZED"]);
}

#[tokio::test]
async fn another_file_name_can_be_asked_for() {
    let home = home().await;
    let alice = home.user("alice").await;
    let media = upload(&alice, "?filename=a.txt", "text/plain", b"hello").await;
    let reply = alice.get(&format!("{}/other%20name.txt", download(&media))).await;
    assert_eq!(reply.status, 200);
    let named = reply.header("content-disposition").replace("%20", " ");
    assert!(named.contains("other name.txt"), "{named}");
}

#[tokio::test]
async fn d3_43_what_a_browser_might_run_is_only_for_saving() {
    let home = home().await;
    let alice = home.user("alice").await;
    let kinds = [
        "text/html",
        "TEXT/HTML",
        "Text/Html ;charset=x",
        "image/SVG+xml",
        "application/javascript",
        "text/html; charset=utf-8",
    ];
    for kind in kinds {
        let media = upload(&alice, "", kind, b"<script>alert(1)</script>").await;
        let reply = alice.get(&download(&media)).await;
        assert!(reply.header("content-disposition").starts_with("attachment"), "{kind}: {:?}", reply.headers);
        assert!(reply.header("content-security-policy").contains("sandbox"), "{kind}: {:?}", reply.headers);
        assert!(reply.header("content-security-policy").contains("default-src 'none'"), "{kind}: {:?}", reply.headers);
        assert_eq!(reply.header("cross-origin-resource-policy"), "cross-origin");
        assert!(!strict() || reply.header("x-content-type-options") == "nosniff", "{kind}: {:?}", reply.headers);
    }
    for kind in ["image/png", "IMAGE/PNG", "Image/Png; q=1"] {
        let media = upload(&alice, "", kind, PNG).await;
        let reply = alice.get(&download(&media)).await;
        assert!(reply.header("content-disposition").starts_with("inline"), "{kind}: {:?}", reply.headers);
    }
}

#[tokio::test]
async fn a_picture_has_a_thumbnail() {
    let home = home().await;
    let alice = home.user("alice").await;
    let media = upload(&alice, "", "image/png", PNG).await;
    for method in ["scale", "crop"] {
        let path = format!("/_matrix/client/v1/media/thumbnail/{media}?width=32&height=32&method={method}");
        let reply = alice.get(&path).await;
        assert_eq!(reply.status, 200, "{reply:?}");
        assert!(reply.header("content-type").starts_with("image/"));
    }
    home.get(&format!("/_matrix/client/v1/media/thumbnail/{media}?width=32&height=32"))
        .await
        .expect(401, "M_MISSING_TOKEN");
}

#[tokio::test]
async fn what_is_no_picture_has_no_thumbnail_and_breaks_nothing() {
    let home = home().await;
    let alice = home.user("alice").await;
    for bytes in [b"not a picture".as_slice(), &PNG[..40]] {
        let media = upload(&alice, "", "image/png", bytes).await;
        let path = format!("/_matrix/client/v1/media/thumbnail/{media}?width=32&height=32&method=scale");
        let reply = alice.get(&path).await;
        crate::refused(&reply);
    }
    alice.get("/account/whoami").await.ok();
}

#[tokio::test]
async fn d3_37_no_path_leads_out_of_the_files() {
    let home = home().await;
    let alice = home.user("alice").await;
    let server = alice.server();
    alice.get(&download(&format!("{server}/nothing"))).await.expect(404, "M_NOT_FOUND");
    let odd = [
        "..%2F..%2Fetc%2Fpasswd",
        "%00",
        "..",
        "a%2Fb",
        "..%5C..%5Cx",
        "%2e%2e",
        "%252e%252e%252fx",
        "unfinished",
        "remote",
    ];
    for odd in odd {
        for path in ["download", "thumbnail"] {
            let query = "width=32&height=32";
            let reply = alice.get(&format!("/_matrix/client/v1/media/{path}/{server}/{odd}?{query}")).await;
            assert!(reply.status == 400 || reply.status == 404, "{odd}: {reply:?}");
        }
        let path = format!("/_matrix/media/v3/upload/{server}/{odd}");
        let reply = alice.raw(Method::PUT, &path, "text/plain", "x").await;
        crate::refused(&reply);
    }
    for server in ["..", "..%2F..", "%00", "a%2Fb"] {
        // Two dots are the name of a server by the grammar, but of none that is there.
        let reply = alice.get(&download(&format!("{server}/abc"))).await;
        assert!([400, 404, 502].contains(&reply.status), "{server}: {reply:?}");
    }
}

#[tokio::test]
async fn d3_38_no_content_type_gets_past_the_limit_of_a_body() {
    let home = home().await;
    let alice = home.user("alice").await;
    let large = vec![b' '; 20 << 20];
    let kinds = [
        "multipart/form-data; boundary=x",
        "multipart/mixed",
        "application/x-www-form-urlencoded",
        "text/plain",
        "x",
        "\u{e9}",
    ];
    for kind in kinds {
        for path in ["/createRoom", "/login", "/keys/upload"] {
            let request = alice.client().attempt(Method::POST, path, Some(&alice.token), kind, large.clone().into());
            // A server may also close the connection on a client that goes on sending.
            if let Ok(reply) = request.await {
                reply.expect(413, "M_TOO_LARGE");
            }
        }
    }
    alice.get("/account/whoami").await.ok();
}

#[tokio::test]
async fn d3_40_files_of_others_are_for_those_who_log_in_and_not_without_end() {
    let Some(launch) = own() else { return };
    let file = launch.folder().join("stoa.toml");
    std::fs::write(&file, "[limits]\nremote_media = { per_second = 0.01, burst = 3 }").expect("a file");
    let home = Home::launch(launch.env("STOA_CONFIG", &file.display().to_string()).env("STOA_RATE_LIMITS", "on")).await;
    let alice = home.user("alice").await;
    let far = |n: usize| download(&format!("127.0.0.1:1/File{n}"));
    home.get(&far(0)).await.expect(401, "M_MISSING_TOKEN");
    home.get("/_matrix/media/v3/download/127.0.0.1:1/File0").await.expect(404, "M_NOT_FOUND");
    for n in 0..3 {
        alice.get(&far(n)).await.expect(502, "M_UNKNOWN");
    }
    alice.get(&far(3)).await.expect(429, "M_LIMIT_EXCEEDED");
    let thumbnail = "/_matrix/client/v1/media/thumbnail/127.0.0.1:1/File4?width=32&height=32";
    alice.get(thumbnail).await.expect(429, "M_LIMIT_EXCEEDED");
}

#[tokio::test]
async fn the_limit_is_told_and_kept() {
    let home = home().await;
    let alice = home.user("alice").await;
    let limit =
        alice.get("/_matrix/client/v1/media/config").await.ok()["m.upload.size"].as_u64().expect("m.upload.size");
    if limit > 200_000_000 {
        return;
    }
    let body = vec![0; limit as usize + 1];
    let reply = alice.client().attempt(
        Method::POST,
        "/_matrix/media/v3/upload",
        Some(&alice.token),
        "application/octet-stream",
        body.into(),
    );
    // A server may also close the connection on a client that goes on sending.
    if let Ok(reply) = reply.await {
        reply.expect(413, "M_TOO_LARGE");
    }
    alice.get("/account/whoami").await.ok();
}

#[tokio::test]
async fn media_can_be_named_first_and_uploaded_later() {
    let home = home().await;
    let alice = home.user("alice").await;
    let made = alice.post("/_matrix/media/v1/create", json!({})).await;
    if made.status == 404 {
        return; // optional here, and then unrecognised
    }
    let uri = made.ok()["content_uri"].as_str().expect("content_uri").to_owned();
    let media = uri.strip_prefix("mxc://").expect("an mxc URI");
    alice.get(&format!("{}?timeout_ms=0", download(media))).await.expect(504, "M_NOT_YET_UPLOADED");
    let path = format!("/_matrix/media/v3/upload/{media}");
    alice.raw(Method::PUT, &path, "text/plain", "late").await.ok();
    assert_eq!(alice.get(&download(media)).await.body, "late");
    alice.raw(Method::PUT, &path, "text/plain", "again").await.expect(409, "M_CANNOT_OVERWRITE_MEDIA");
}

#[tokio::test]
async fn the_old_paths_without_a_token_are_shut_unless_they_are_opened() {
    let Some(launch) = own() else { return };
    let opened = "[registration]\nmode = \"open\"\n[media]\nallow_unauthenticated = true\n";
    let open = Home::launch(own().expect("as before").with_config(opened)).await;
    for (home, is_open) in [(Home::launch(launch).await, false), (open, true)] {
        let alice = home.user("alice").await;
        let sent = alice.raw(Method::POST, "/_matrix/media/v3/upload", "text/plain", "hello").await.ok();
        let id = sent["content_uri"].as_str().and_then(|uri| uri.strip_prefix("mxc://")).expect("a uri").to_owned();
        assert!(alice.get("/_matrix/media/v3/config").await.ok()["m.upload.size"].is_u64());
        let old = home.get(&format!("/_matrix/media/v3/download/{id}/hello.txt")).await;
        let small = home.get(&format!("/_matrix/media/v3/thumbnail/{id}?width=10&height=10")).await;
        match is_open {
            true => {
                assert_eq!((old.status, &old.body[..]), (200, &b"hello"[..]));
                assert_ne!(small["errcode"], "M_NOT_FOUND", "it is there, and no picture");
            }
            false => {
                old.expect(404, "M_NOT_FOUND");
                small.expect(404, "M_NOT_FOUND");
            }
        }
    }
}
