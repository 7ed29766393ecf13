//! Client-Server API, "GET /_matrix/client/v1/media/preview_url": what a link shows, and where this server does not go for it.

use std::{io::Write, time::Duration};

use flate2::{Compression, write::GzEncoder};
use futures_util::future::join_all;
use stoa_kit::{Home, Launch, Page, Reply, Site, User, encode, json};

use super::PNG;
use crate::own;

/// A homeserver that makes previews of what is at that address of loopback.
fn launch(allowed: &str) -> Option<Launch> {
    Some(own()?.env("STOA_URL_PREVIEWS", "on").env("STOA_URL_PREVIEW_IP_ALLOW", allowed))
}

/// Such a homeserver, somebody on it, and a site at that address.
async fn start() -> Option<(Home, User, Site)> {
    let home = Home::launch(launch("127.0.0.1")?).await;
    let alice = home.user("alice").await;
    Some((home, alice, Site::at("127.0.0.1").await))
}

async fn preview(user: &User, url: &str) -> Reply {
    user.get(&format!("/_matrix/client/v1/media/preview_url?url={}", encode(url))).await
}

/// What compresses well.
fn gzip(head: &[u8], piece: &[u8], times: usize) -> Vec<u8> {
    let mut out = GzEncoder::new(Vec::new(), Compression::fast());
    out.write_all(head).expect("memory");
    for _ in 0..times {
        out.write_all(piece).expect("memory");
    }
    out.finish().expect("memory")
}

#[tokio::test]
async fn a_page_is_shown_with_its_picture() {
    let Some((_home, alice, site)) = start().await else { return };
    site.put("/p.png", Page::new("image/png", PNG));
    let page = "<title>no</title><meta property='og:title' content='A &amp; B'><meta property='og:url' content='x'>
                <meta property='og:image' content='/p.png'><meta property='og:image:width' content='4000'>
                <meta name='description' content='About it'>";
    let url = site.put("/page", Page::html(page));
    let card = preview(&alice, &url).await.ok();
    let image = card["og:image"].as_str().expect("og:image").to_owned();
    let wanted = json!({
        "og:title": "A & B", "og:description": "About it", "og:url": "x", "og:image": image, "og:image:type": "image/png",
        "og:image:width": 1, "og:image:height": 1, "matrix:image:size": PNG.len(),
    });
    assert_eq!(card, wanted);
    let media = image.strip_prefix(&format!("mxc://{}/", alice.server())).expect("an mxc URI of this server");
    let file = format!("/_matrix/client/v1/media/download/{}/{media}", alice.server());
    let reply = alice.get(&file).await;
    assert_eq!((reply.status, &reply.body[..]), (200, PNG));
    assert_eq!((reply.header("content-type"), reply.header("content-disposition")), ("image/png", "inline"));
    // By the old path it is the same.
    let old = alice.get(&format!("/_matrix/media/v3/preview_url?url={}&ts=1510610716656", encode(&url))).await;
    assert_eq!(old.ok(), card);
    let head = site.asked("/page").join("\n").to_lowercase();
    assert!(head.contains("accept-language: en") && head.contains("user-agent: stoa/"), "{head}");
    assert!(!head.contains("authorization") && !head.contains("cookie"), "{head}");
}

#[tokio::test]
async fn pages_that_do_not_describe_themselves_are_read() {
    let Some((_home, alice, site)) = start().await else { return };
    let plain =
        site.put("/plain", Page::html("<title> The\n title </title><nav>Menu</nav><p>First.</p><script>x</script>"));
    let card = preview(&alice, &plain).await.ok();
    assert_eq!(card, json!({ "og:title": "The title", "og:description": "First." }));
    // 日本 in Shift_JIS.
    let foreign = Page::new("text/html; charset=Shift_JIS", b"<title>\x93\xfa\x96\x7b</title>".as_slice());
    let foreign = site.put("/foreign", foreign);
    assert_eq!(preview(&alice, &foreign).await["og:title"], "日本");
    let card = "<meta name=twitter:title content=Bird><meta name=twitter:description content=Song>";
    let bird = site.put("/bird", Page::html(card));
    assert_eq!(preview(&alice, &bird).await.ok(), json!({ "og:title": "Bird", "og:description": "Song" }));
    let picture = site.put("/direct.png", Page::new("image/png", PNG));
    let card = preview(&alice, &picture).await.ok();
    assert_eq!((&card["og:image:type"], &card["matrix:image:size"]), (&json!("image/png"), &json!(PNG.len())));
    let other = site.put("/data.zip", Page::new("application/zip", "PK"));
    assert_eq!(preview(&alice, &other).await.ok(), json!({}));
}

#[tokio::test]
async fn oembed_says_what_the_page_does_not() {
    let Some((_home, alice, site)) = start().await else { return };
    site.put("/t.png", Page::new("image/png", PNG));
    let embed = json!({
        "version": "1.0", "type": "rich", "title": "Embedded", "provider_name": "Site", "thumbnail_url": site.url("/t.png"),
        "html": "<blockquote>The <b>text</b></blockquote><script>no</script>",
    });
    site.put("/oembed?format=json", Page::new("application/json", embed.to_string()));
    let page = "<link rel=alternate type='application/json+oembed' href='/oembed?format=json'><p>";
    let url = site.put("/page", Page::html(page));
    let card = preview(&alice, &url).await.ok();
    assert_eq!(card["og:title"], "Embedded");
    assert_eq!(card["og:description"], "The text");
    assert_eq!(card["og:site_name"], "Site");
    assert_eq!(card["matrix:image:size"], PNG.len());
}

#[tokio::test]
async fn many_who_ask_at_once_are_one_visit() {
    let Some((_home, alice, site)) = start().await else { return };
    let url = site.put("/slow", Page::html("<title>Slow</title>").after(Duration::from_millis(500)));
    for reply in join_all((0..10).map(|_| preview(&alice, &url))).await {
        assert_eq!(reply["og:title"], "Slow");
    }
    assert_eq!(preview(&alice, &format!("{url}#part")).await["og:title"], "Slow");
    assert_eq!(site.visits(), 1);
    // That there is none is remembered too, for a minute.
    let none = site.put("/none", Page::html("<title>Gone</title>").status(404));
    preview(&alice, &none).await.expect(502, "M_UNKNOWN");
    preview(&alice, &none).await.expect(502, "M_UNKNOWN");
    assert_eq!(site.asked("/none").len(), 1);
}

#[tokio::test]
async fn without_the_setting_or_a_token_there_are_none() {
    let Some(launch) = own() else { return };
    let home = Home::launch(launch).await;
    let (alice, site) = (home.user("alice").await, Site::at("127.0.0.1").await);
    preview(&alice, &site.url("/")).await.expect(403, "M_FORBIDDEN");
    let path = "/_matrix/client/v1/media/preview_url";
    home.get(&format!("{path}?url=http%3A%2F%2Fa.example")).await.expect(401, "M_MISSING_TOKEN");
    alice.get(path).await.expect(400, "M_MISSING_PARAM");
    assert_eq!(site.visits(), 0);
}

#[tokio::test]
async fn what_is_no_link_is_refused() {
    let Some((_home, alice, site)) = start().await else { return };
    let long = site.url(&"/x".repeat(3000));
    let bad = [
        "",
        "x",
        "/etc/passwd",
        "file:///etc/passwd",
        "ftp://a.example/",
        "gopher://a",
        "http://u:p@a.example/",
        &long,
    ];
    for url in bad {
        preview(&alice, url).await.expect(400, "M_INVALID_PARAM");
    }
    preview(&alice, "http://no-such-host.invalid/").await.expect(502, "M_UNKNOWN");
}

#[tokio::test]
async fn the_settings_say_which_links_and_how_many() {
    let Some(launch) = launch("127.0.0.1") else { return };
    let file = launch.folder().join("stoa.toml");
    let settings =
        "[url_previews]\ndeny = [\"127.0.0.1/secret/*\"]\n[limits]\npreview = { per_second = 0.01, burst = 5 }";
    std::fs::write(&file, settings).expect("a file");
    let launch = launch.env("STOA_CONFIG", &file.display().to_string()).env("STOA_RATE_LIMITS", "on");
    let home = Home::launch(launch).await;
    let (alice, site) = (home.user("alice").await, Site::at("127.0.0.1").await);
    let page = || Page::html("<title>T</title>");
    preview(&alice, &site.put("/secret/x", page())).await.expect(403, "M_FORBIDDEN");
    preview(&alice, &site.put("/way", Page::moved("/secret/x"))).await.expect(403, "M_FORBIDDEN");
    assert!(site.asked("/secret/x").is_empty());
    for n in 0..3 {
        preview(&alice, &site.put(&format!("/{n}"), page())).await.ok();
    }
    preview(&alice, &site.put("/more", page())).await.expect(429, "M_LIMIT_EXCEEDED");
    // What is here costs nothing.
    preview(&alice, &site.url("/1")).await.ok();
    let bob = home.user("bob").await;
    preview(&bob, &site.url("/more")).await.ok();
}

#[tokio::test]
async fn d3_34_addresses_that_are_not_public_are_not_visited() {
    let Some(launch) = launch("192.0.2.1") else { return };
    let home = Home::launch(launch).await;
    let (alice, site) = (home.user("alice").await, Site::at("127.0.0.1").await);
    let six = Site::at("::1").await;
    let (port, six_port) = (site.port(), six.port());
    site.put("/", Page::html("<title>secret</title>"));
    let hosts = [
        "127.0.0.1",
        "127.1",
        "2130706433",
        "0x7f.1",
        "0177.0.0.1",
        "localhost",
        "LOCALHOST.",
        "0.0.0.0",
        "0",
        "[::ffff:127.0.0.1]",
        "[::ffff:7f00:1]",
        "[::127.0.0.1]",
        "[64:ff9b::127.0.0.1]",
        "[2002:7f00:1::]",
        "[::]",
        "１２７.0.0.1",
    ];
    for host in hosts {
        preview(&alice, &format!("http://{host}:{port}/")).await.expect(502, "M_UNKNOWN");
    }
    preview(&alice, &format!("http://[::1]:{six_port}/")).await.expect(502, "M_UNKNOWN");
    preview(&alice, "http://169.254.169.254/latest/meta-data/").await.expect(502, "M_UNKNOWN");
    assert_eq!(site.visits() + six.visits(), 0);
}

#[tokio::test]
async fn d3_34_nor_are_they_by_way_of_others() {
    let Some((_home, alice, site)) = start().await else { return };
    let secret = Site::at("127.0.0.2").await;
    let inner = secret.put("/", Page::html("<title>secret</title>"));
    secret.put("/p.png", Page::new("image/png", PNG));
    preview(&alice, &site.put("/redirect", Page::moved(&inner))).await.expect(502, "M_UNKNOWN");
    let mapped = format!("http://[::ffff:127.0.0.2]:{}/", secret.port());
    preview(&alice, &site.put("/mapped", Page::moved(&mapped))).await.expect(502, "M_UNKNOWN");
    preview(&alice, &site.put("/file", Page::moved("file:///etc/passwd"))).await.expect(502, "M_UNKNOWN");
    // The page itself may be seen; what it points to is not.
    let page = format!(
        "<title>T</title><link rel=alternate type=application/json+oembed href='{inner}'><meta property=og:image content='{}'>",
        secret.url("/p.png")
    );
    assert_eq!(preview(&alice, &site.put("/page", Page::html(&page))).await.ok(), json!({ "og:title": "T" }));
    let turn = Page::html("<title>U</title><meta property=og:image content='/turn.png'>");
    site.put("/turn.png", Page::moved(&secret.url("/p.png")));
    assert_eq!(preview(&alice, &site.put("/turned", turn)).await.ok(), json!({ "og:title": "U" }));
    let base = format!("<base href='{inner}'><title>V</title><meta property=og:image content='/p.png'>");
    assert_eq!(preview(&alice, &site.put("/based", Page::html(&base))).await.ok(), json!({ "og:title": "V" }));
    assert_eq!(secret.visits(), 0);
}

#[tokio::test]
async fn d3_35_a_page_of_nothing_but_tags_has_a_preview() {
    let Some((_home, alice, site)) = start().await else { return };
    let page = format!("<title>Deep</title>{}", "<div>".repeat(150_000));
    assert_eq!(preview(&alice, &site.put("/deep", Page::html(&page))).await.ok(), json!({ "og:title": "Deep" }));
    alice.get("/account/whoami").await.ok();
}

#[tokio::test]
async fn d3_36_what_does_not_end_is_cut() {
    let Some((_home, alice, site)) = start().await else { return };
    site.put("/endless.png", Page::new("image/png", PNG).endless());
    let page = "<title>Endless</title><meta property=og:image content='/endless.png'><p>more";
    let endless = site.put("/endless", Page::html(page).endless());
    let reply = preview(&alice, &endless).await;
    assert_eq!(reply["og:title"], "Endless", "{reply:?}");
    assert_eq!(reply["og:image"], json!(null));
    site.put("/a", Page::moved("/b"));
    preview(&alice, &site.put("/b", Page::moved("/a"))).await.expect(502, "M_UNKNOWN");
    assert!(site.asked("/a").len() + site.asked("/b").len() <= 8);
}

#[tokio::test]
async fn d3_42_what_is_compressed_is_counted_as_it_comes_out() {
    let Some((home, alice, site)) = start().await else { return };
    let bomb = |kind: &str, body| Page::new(kind, body).header("Content-Encoding", "gzip");
    site.put("/bomb.png", bomb("image/png", gzip(PNG, &[0; 1 << 20], 300)));
    let head = b"<title>Bomb</title><meta property=og:image content='/bomb.png'>";
    let page = gzip(head, &[b' '; 1 << 20], 300);
    let before = memory(&home);
    let reply = preview(&alice, &site.put("/bomb", bomb("text/html", page))).await;
    assert_eq!(reply.ok(), json!({ "og:title": "Bomb" }));
    let grown = memory(&home).saturating_sub(before);
    assert!(grown < 150_000, "{grown} kB");
}

/// The most memory that the server had at once, in kB.
fn memory(home: &Home) -> u64 {
    let status =
        std::fs::read_to_string(format!("/proc/{}/status", home.pid().expect("a process"))).unwrap_or_default();
    let line = status.lines().find_map(|line| line.strip_prefix("VmHWM:"));
    line.and_then(|line| line.trim().trim_end_matches(" kB").parse().ok()).unwrap_or(0)
}
