use std::{
    sync::{
        Mutex,
        atomic::{AtomicUsize, Ordering},
    },
    time::Duration,
};

use bytes::Bytes;
use futures_util::{FutureExt, StreamExt, TryStreamExt, future::BoxFuture, stream};
use image::{Rgb, RgbImage};
use stoa_event::ids::{OwnedServerName, ServerName};
use stoa_remote::{Limits, Pieces, Transport, TransportError};
use tokio::sync::Semaphore;

use crate::{
    Download, Error, Method, Thumbnail, ThumbnailRequest,
    fetch::hash_of,
    sweep::Whose,
    tests::{NOW, World, png, world},
};

type Answer = Result<http::Response<Pieces>, TransportError>;
type Handler = Box<dyn Fn(&str) -> Answer + Send + Sync>;

/// The other servers: what they answer, and what was asked.
pub(crate) struct Net {
    handler: Mutex<Option<Handler>>,
    asked: Mutex<Vec<http::Request<Bytes>>>,
    /// Who asks waits for one of these.
    gate: Semaphore,
    now: AtomicUsize,
    most: AtomicUsize,
}

impl Default for Net {
    fn default() -> Self {
        let (handler, asked, gate) = (Mutex::default(), Mutex::default(), Semaphore::new(1000));
        Net { handler, asked, gate, now: AtomicUsize::new(0), most: AtomicUsize::new(0) }
    }
}

impl Net {
    fn serve(&self, handler: impl Fn(&str) -> Answer + Send + Sync + 'static) {
        *self.handler.lock().unwrap() = Some(Box::new(handler));
    }

    /// What was asked: paths and URLs without their queries.
    pub(crate) fn asked(&self) -> Vec<String> {
        let asked = self.asked.lock().unwrap();
        asked.iter().map(|request| request.uri().to_string().split('?').next().unwrap().to_owned()).collect()
    }

    fn last(&self) -> http::Request<Bytes> {
        self.asked.lock().unwrap().last().unwrap().clone()
    }

    async fn answer(&self, request: http::Request<Bytes>) -> Answer {
        let now = self.now.fetch_add(1, Ordering::SeqCst) + 1;
        self.most.fetch_max(now, Ordering::SeqCst);
        let path = request.uri().to_string();
        self.asked.lock().unwrap().push(request);
        let gate = self.gate.acquire().await;
        self.now.fetch_sub(1, Ordering::SeqCst);
        drop(gate);
        self.handler.lock().unwrap().as_ref().unwrap()(&path)
    }
}

impl Transport for Net {
    fn call(
        &self,
        _: &ServerName,
        _: http::Request<Bytes>,
        _: Limits,
    ) -> BoxFuture<'_, Result<http::Response<Bytes>, TransportError>> {
        panic!("files come piece by piece")
    }

    fn open(&self, _: &ServerName, request: http::Request<Bytes>, _: Limits) -> BoxFuture<'_, Answer> {
        self.answer(request).boxed()
    }

    fn open_url(&self, url: &str, _: Limits) -> BoxFuture<'_, Answer> {
        self.answer(http::Request::get(url).body(Bytes::new()).unwrap()).boxed()
    }
}

fn pieces(body: impl Into<Vec<u8>>) -> Pieces {
    let body = body.into();
    stream::iter(body.chunks(1000).map(|piece| Ok(Bytes::copy_from_slice(piece))).collect::<Vec<_>>()).boxed()
}

fn answer(status: u16, headers: &[(&str, &str)], body: impl Into<Vec<u8>>) -> Answer {
    let mut response = http::Response::builder().status(status);
    for (name, value) in headers {
        response = response.header(*name, *value);
    }
    Ok(response.body(pieces(body)).unwrap())
}

const MIXED: &[(&str, &str)] = &[("content-type", "multipart/mixed; boundary=xyz")];

fn two_parts(kind: &str, file: &[u8]) -> Vec<u8> {
    let head = format!(
        "\r\n--xyz\r\nContent-Type: application/json\r\n\r\n{{}}\r\n--xyz\r\nContent-Type: {kind}\r\n\
         Content-Disposition: attachment; filename=\"a.bin\"\r\n\r\n"
    );
    [head.as_bytes(), file, b"\r\n--xyz--\r\n"].concat()
}

fn file(bytes: usize) -> Answer {
    answer(200, MIXED, two_parts("application/x-thing", &vec![7; bytes]))
}

fn refusal(status: u16, errcode: &str) -> Answer {
    answer(status, &[], format!("{{\"errcode\":\"{errcode}\",\"error\":\"no\"}}"))
}

impl World {
    async fn far(&self, id: &str) -> Result<Download, Error> {
        self.media.open(&there(), id, NOW).await
    }

    fn is_kept(&self, id: &str) -> bool {
        self.media.inner.remote_files.of(&hash_of(&there(), id)).exists()
    }
}

fn there() -> OwnedServerName {
    "there.example".try_into().unwrap()
}

async fn read(download: Download) -> Vec<u8> {
    let size = download.size;
    let pieces: Vec<Bytes> = download.bytes(0, size).await.unwrap().try_collect().await.unwrap();
    pieces.concat()
}

const PATH: &str = "/_matrix/federation/v1/media/download/Id";
const OLD_PATH: &str = "/_matrix/media/v3/download/there.example/Id";

#[tokio::test]
async fn a_file_is_fetched_once_and_kept() {
    let mut world = world().await;
    world.net.serve(|_| file(70_000));
    assert!(world.media.is_far(&there(), "Id").await.unwrap());
    let all = futures_util::future::join_all((0..10).map(|_| world.far("Id"))).await;
    for download in all {
        let download = download.unwrap();
        assert_eq!(download.content_type.as_deref(), Some("application/x-thing"));
        assert_eq!((download.name.as_deref(), download.size), (Some("a.bin"), 70_000));
        assert_eq!(read(download).await, vec![7; 70_000]);
    }
    assert_eq!(world.net.asked(), [PATH]);
    assert!(world.net.last().headers().contains_key("authorization"));
    assert!(world.media.inner.fetches_are_empty());
    world.reopen(|_| ());
    assert!(!world.media.is_far(&there(), "Id").await.unwrap());
    assert_eq!(read(world.far("Id").await.unwrap()).await.len(), 70_000);
    assert_eq!(world.net.asked().len(), 1);
    // Another server's file of that id is another file, and ours is none of both.
    world.media.open(<&ServerName>::try_from("else.example").unwrap(), "Id", NOW).await.unwrap();
    assert_eq!((world.net.asked().len(), world.files()), (2, 2));
}

#[tokio::test]
async fn who_leaves_takes_nothing_from_those_who_stay() {
    let world = world().await;
    world.net.serve(|_| file(10));
    let closed = world.net.gate.acquire_many(1000).await.unwrap();
    let (mut first, mut second) = (Box::pin(world.far("Id")), Box::pin(world.far("Id")));
    while world.net.asked().is_empty() {
        let wait = Duration::from_millis(1);
        assert!(tokio::time::timeout(wait, futures_util::future::select(&mut first, &mut second)).await.is_err());
    }
    drop(first);
    drop(closed);
    assert_eq!(read(second.await.unwrap()).await, [7; 10]);
    assert_eq!(world.net.asked().len(), 1);
    // When all leave, it ends, and nothing remains.
    let closed = world.net.gate.acquire_many(1000).await.unwrap();
    assert!(tokio::time::timeout(Duration::from_millis(50), world.far("Other")).await.is_err());
    drop(closed);
    assert!(world.media.inner.fetches_are_empty());
    assert_eq!(world.files(), 1);
}

#[tokio::test]
async fn a_server_is_asked_for_a_few_files_at_once() {
    let world = world().await;
    world.net.serve(|_| file(10));
    let closed = world.net.gate.acquire_many(1000).await.unwrap();
    let ids: Vec<_> = (0..30).map(|n| format!("Id{n}")).collect();
    let all = futures_util::future::join_all(ids.iter().map(|id| world.far(id)));
    let open = async {
        tokio::time::sleep(Duration::from_millis(100)).await;
        drop(closed);
    };
    let (all, ()) = tokio::join!(all, open);
    assert!(all.iter().all(Result::is_ok));
    assert_eq!(world.net.most.load(Ordering::SeqCst), 8);
}

#[tokio::test]
async fn what_does_not_come_whole_is_not_kept() {
    let world = world().await;
    let whole = two_parts("a/b", &[7; 5000]);
    let broken = stream::iter([Ok(Bytes::from(whole[..3000].to_vec())), Err(TransportError::Broken("cut".to_owned()))]);
    let broken = Mutex::new(Some(broken.boxed()));
    world.net.serve(move |_| answer(200, MIXED, &whole[..4000]));
    assert!(matches!(world.far("Id").await, Err(Error::Away(_))));
    world.net.serve(move |_| Ok(answer(200, MIXED, "")?.map(|_| broken.lock().unwrap().take().unwrap())));
    assert!(matches!(world.far("Id").await, Err(Error::Away(_))));
    for (kind, body) in
        [("text/html", "<html>"), ("multipart/mixed", "x"), (MIXED[0].1, "no part at all"), (MIXED[0].1, "")]
    {
        world.net.serve(move |_| answer(200, &[("content-type", kind)], body));
        assert!(matches!(world.far("Id").await, Err(Error::Away(_))), "{kind} {body}");
    }
    assert_eq!(world.files(), 0);
    world.net.serve(|_| file(5000));
    assert!(world.far("Id").await.is_ok());
}

#[tokio::test]
async fn what_is_too_large_is_given_up() {
    let mut world = world().await;
    world.reopen(|config| config.max_remote = 50_000);
    world.net.serve(|_| file(50_000));
    assert!(world.far("Id").await.is_ok());
    world.net.serve(|_| file(50_001));
    assert!(matches!(world.far("Large").await, Err(Error::RemoteTooLarge)));
    // One that has no end, in the file or before it; and one that says it is too large.
    let endless = || stream::repeat_with(|| Ok(Bytes::from(vec![b'x'; 1000]))).boxed();
    let head = two_parts("a/b", b"");
    let head = head[..head.len() - 11].to_vec();
    world.net.serve(move |_| Ok(answer(200, MIXED, "")?.map(|_| pieces(head.clone()).chain(endless()).boxed())));
    assert!(matches!(world.far("Large").await, Err(Error::RemoteTooLarge)));
    world.net.serve(move |_| Ok(answer(200, MIXED, "")?.map(|_| endless())));
    assert!(matches!(world.far("Large").await, Err(Error::Away(_))));
    world.net.serve(|_| answer(200, &[MIXED[0], ("content-length", "99999999999")], ""));
    assert!(matches!(world.far("Large").await, Err(Error::RemoteTooLarge)));
    assert_eq!(world.files(), 1);
}

#[tokio::test]
async fn what_only_drips_is_given_up() {
    let world = world().await;
    world.net.serve(|_| {
        Ok(answer(200, MIXED, "")?.map(|_| pieces(two_parts("a/b", b"")).take(0).chain(stream::pending()).boxed()))
    });
    tokio::time::pause();
    let refused = world.far("Id").await;
    assert!(matches!(&refused, Err(Error::Away(why)) if why == "no answer in time"), "{refused:?}");
    assert_eq!(world.files(), 0);
}

#[tokio::test]
async fn a_server_that_does_not_know_the_endpoint_is_asked_in_the_old_way() {
    let world = world().await;
    let headers: &[_] =
        &[("content-type", "image/png"), ("content-disposition", "inline; filename*=utf-8''%C3%A4.png")];
    world.net.serve(move |path| match path.starts_with(PATH) {
        true => refusal(404, "M_UNRECOGNIZED"),
        false => answer(200, headers, "old"),
    });
    let download = world.far("Id").await.unwrap();
    assert_eq!((download.content_type.as_deref(), download.name.as_deref()), (Some("image/png"), Some("\u{e4}.png")));
    assert_eq!(read(download).await, b"old");
    assert_eq!(world.net.asked(), [PATH, OLD_PATH]);
    let request = world.net.last();
    assert!(request.uri().query().unwrap().contains("allow_remote=false"), "{:?}", request.uri());
    assert!(!request.headers().contains_key("authorization"));
    // A proxy that does not know it either; and one that sends elsewhere.
    world.net.serve(move |path| match path {
        path if path.contains("federation") => answer(404, &[], "<html>"),
        path if path.contains("old") => answer(200, headers, "elsewhere"),
        _ => answer(307, &[("location", "https://cdn.example/old")], ""),
    });
    assert_eq!(read(world.far("Other").await.unwrap()).await, b"elsewhere");
    // A file that is not there is not there in the old way either.
    for (id, refused, asked) in
        [("Third", refusal(404, "M_NOT_FOUND"), 1), ("Fourth", refusal(404, "M_UNRECOGNIZED"), 2)]
    {
        let refused = Mutex::new(Some(refused));
        let before = world.net.asked().len();
        world.net.serve(move |_| refused.lock().unwrap().take().unwrap_or_else(|| refusal(404, "M_NOT_FOUND")));
        assert!(matches!(world.far(id).await, Err(Error::NotFound(_))));
        assert_eq!(world.net.asked().len(), before + asked);
    }
}

#[tokio::test]
async fn a_file_that_is_not_there_is_not_asked_for_again_at_once() {
    let world = world().await;
    world.net.serve(|_| refusal(404, "M_NOT_FOUND"));
    for _ in 0..5 {
        assert!(matches!(world.far("Gone").await, Err(Error::NotFound(_))));
    }
    assert_eq!(world.net.asked().len(), 1);
    // Others are; and it too after a while.
    assert!(world.far("Else").await.is_err());
    assert_eq!(world.net.asked().len(), 2);
    world.clock.0.fetch_add(60_000, Ordering::SeqCst);
    assert!(world.far("Gone").await.is_err());
    assert_eq!(world.net.asked().len(), 3);
    // What only could not be had now is asked for each time.
    world.net.serve(|_| refusal(504, "M_NOT_YET_UPLOADED"));
    for _ in 0..2 {
        assert!(world.far("Soon").await.is_err());
    }
    assert_eq!(world.net.asked().len(), 5);
}

#[tokio::test]
async fn a_file_that_is_elsewhere_is_had_from_there() {
    let world = world().await;
    let body = b"--xyz\r\nContent-Type: application/json\r\n\r\n{}\r\n--xyz\r\nLocation: https://cdn.example/f?sig=a\r\n\r\n\r\n--xyz--";
    let cdn = |status| {
        move |path: &str| match path.starts_with("https://cdn.example/f") {
            true => answer(status, &[("content-type", "text/plain")], "from there"),
            false => answer(200, MIXED, body),
        }
    };
    world.net.serve(cdn(403));
    assert!(matches!(world.far("Id").await, Err(Error::Away(_))));
    world.net.serve(cdn(200));
    let download = world.far("Id").await.unwrap();
    assert_eq!(download.content_type.as_deref(), Some("text/plain"));
    assert_eq!(read(download).await, b"from there");
    assert!(!world.net.last().headers().contains_key("authorization"));
}

#[tokio::test]
async fn what_another_server_refuses() {
    let world = world().await;
    let refused = async |answer: fn() -> Answer| {
        world.net.serve(move |_| answer());
        world.far("Id").await.unwrap_err()
    };
    assert!(matches!(refused(|| refusal(504, "M_NOT_YET_UPLOADED")).await, Error::NotYetUploaded));
    assert!(matches!(refused(|| refusal(502, "M_TOO_LARGE")).await, Error::RemoteTooLarge));
    assert!(matches!(refused(|| refusal(403, "M_FORBIDDEN")).await, Error::Away(_)));
    assert!(matches!(refused(|| answer(502, &[], "bad gateway")).await, Error::Away(_)));
    // None of this makes the server one that fails; that nobody is there does.
    let asked = world.net.asked().len();
    let nobody = refused(|| Err(TransportError::Connect("nobody".to_owned()))).await;
    assert!(matches!(nobody, Error::Away(_)));
    assert_eq!(world.net.asked().len(), asked + 1);
    assert!(matches!(refused(|| file(1)).await, Error::Away(_)));
    assert_eq!(world.net.asked().len(), asked + 1);
    // What the settings forbid is not asked for.
    let denied = world.media.open(<&ServerName>::try_from("denied.example").unwrap(), "Id", NOW).await;
    assert!(matches!(denied, Err(Error::NotFound(_))));
    assert_eq!((world.net.asked().len(), world.files()), (asked + 1, 0));
}

#[tokio::test]
async fn what_was_not_used_for_the_longest_goes_first() {
    let mut world = world().await;
    world.reopen(|config| config.remote_cache = Some(2500));
    world.net.serve(|_| file(1000));
    let later = |hours: u64| world.clock.0.fetch_add(hours * 3_600_000, Ordering::SeqCst);
    world.far("One").await.unwrap();
    later(2);
    world.far("Two").await.unwrap();
    later(2);
    world.far("One").await.unwrap();
    later(2);
    world.far("Three").await.unwrap();
    assert!(world.is_kept("One") && !world.is_kept("Two") && world.is_kept("Three"));
    assert!(world.media.is_far(&there(), "Two").await.unwrap());
    // After a restart it is known how many there are.
    world.reopen(|_| ());
    world.far("Four").await.unwrap();
    assert!(!world.is_kept("One") && world.is_kept("Three") && world.is_kept("Four"));
    // One that is more than all that may be kept is kept for those who wait for it, alone.
    world.net.serve(|_| file(3000));
    assert_eq!(world.far("Large").await.unwrap().size, 3000);
    assert_eq!(world.files(), 1);
    world.reopen(|config| config.remote_cache = Some(100));
    world.media.forget().await.unwrap();
    assert_eq!(world.files(), 0);
}

#[tokio::test]
async fn what_is_old_goes() {
    let mut world = world().await;
    world.reopen(|config| config.remote_cache_ms = Some(24 * 3_600_000));
    world.net.serve(|_| file(1000));
    for n in 0..150 {
        world.far(&format!("Old{n}")).await.unwrap();
    }
    world.clock.0.fetch_add(20 * 3_600_000, Ordering::SeqCst);
    world.far("Old7").await.unwrap();
    world.media.forget().await.unwrap();
    assert_eq!(world.files(), 150);
    world.clock.0.fetch_add(5 * 3_600_000, Ordering::SeqCst);
    world.media.forget().await.unwrap();
    assert_eq!(world.files(), 1);
    assert!(world.is_kept("Old7"));
}

#[tokio::test]
async fn what_came_long_ago_is_asked_for_again() {
    let mut world = world().await;
    world.reopen(|config| config.remote_age_ms = Some(24 * 3_600_000));
    world.net.serve(|_| file(1000));
    for id in ["Used", "Unused"] {
        world.far(id).await.unwrap();
    }
    world.clock.0.fetch_add(23 * 3_600_000, Ordering::SeqCst);
    world.far("Used").await.unwrap();
    assert_eq!(world.net.asked().len(), 2);
    world.clock.0.fetch_add(3_600_000, Ordering::SeqCst);
    world.far("Used").await.unwrap();
    assert_eq!(world.net.asked().len(), 3);
    let after = world.media.retain(Whose::Theirs, None).await.unwrap();
    assert_eq!(world.media.retain(Whose::Theirs, after).await.unwrap(), None);
    assert_eq!(world.files(), 1);
    assert!(world.is_kept("Used") && !world.is_kept("Unused"));
}

#[tokio::test]
async fn a_folder_that_was_deleted_fills_again() {
    let world = world().await;
    world.net.serve(|_| file(1000));
    world.far("Id").await.unwrap();
    std::fs::remove_dir_all(world.media.inner.remote_files.folder()).unwrap();
    assert!(world.media.is_far(&there(), "Id").await.unwrap());
    assert_eq!(world.far("Id").await.unwrap().size, 1000);
    assert_eq!(*world.media.inner.cached_bytes.lock().await, Some(1000));
    // Bytes that the store does not know of go, others stay.
    let orphan = world.media.inner.remote_files.of(&hash_of(&there(), "Orphan"));
    std::fs::create_dir_all(orphan.parent().unwrap()).unwrap();
    std::fs::write(&orphan, "x").unwrap();
    world.clock.0.store(u64::MAX / 2, Ordering::SeqCst);
    let mut after = None;
    loop {
        after = world.media.sweep(Whose::Theirs, after.as_deref()).await.unwrap();
        if after.is_none() {
            break;
        }
    }
    assert!(!orphan.exists() && world.is_kept("Id"));
}

#[tokio::test]
async fn thumbnails_are_made_here() {
    let mut world = world().await;
    let picture = png(RgbImage::from_fn(800, 400, |x, _| Rgb([(x % 256) as u8, 0, 0])));
    world.net.serve(move |_| answer(200, MIXED, two_parts("image/png", &picture)));
    let ask = ThumbnailRequest { width: 96, height: 96, method: Method::Crop, animated: false };
    for _ in 0..2 {
        let made = world.media.thumbnail(&there(), "Id", ask, NOW).await.unwrap();
        assert!(matches!(made, Thumbnail::Made { content_type: "image/jpeg", .. }));
    }
    assert_eq!((world.net.asked().len(), world.files()), (1, 2));
    world.reopen(|config| (config.remote_cache, config.max_pixels) = (Some(1), 1000));
    let refused = world.media.thumbnail(&there(), "Large", ask, NOW).await;
    assert!(matches!(refused, Err(Error::RemoteTooLarge)));
    // It goes with its thumbnails.
    world.media.forget().await.unwrap();
    assert_eq!(world.files(), 0);
}
