use std::{
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
    },
    time::Duration,
};

use bytes::Bytes;
use futures_util::TryStreamExt;
use image::{DynamicImage, ImageFormat, Rgb, RgbImage, RgbaImage};
use stoa_event::{ids::OwnedServerName, sign::SigningKey};
use stoa_remote::Remote;
use stoa_store::{Clock, Env, Options, Random, Store, UserNo};

use crate::{About, Config, Error, Media, Method, Thumbnail, ThumbnailRequest, remote_tests::Net, sweep::Whose};

pub(crate) struct Hands(pub(crate) AtomicU64);

impl Clock for Hands {
    fn now_ms(&self) -> u64 {
        self.0.load(Ordering::Relaxed)
    }
}

struct Counting(AtomicU64);

impl Random for Counting {
    fn fill(&self, bytes: &mut [u8]) {
        for byte in bytes {
            *byte = (self.0.fetch_add(1, Ordering::Relaxed).wrapping_mul(0x9E37_79B9_7F4A_7C15) >> 56) as u8;
        }
    }
}

pub(crate) struct World {
    pub(crate) media: Media,
    pub(crate) clock: Arc<Hands>,
    pub(crate) net: Arc<Net>,
    pub(crate) here: OwnedServerName,
    folder: tempfile::TempDir,
}

const ALICE: UserNo = UserNo(1);
const BOB: UserNo = UserNo(2);
pub(crate) const NOW: Duration = Duration::ZERO;

pub(crate) async fn world() -> World {
    let engine = Arc::new(stoa_engine::memory::Memory::new());
    let (store, committer) = Store::open(engine, Options::default()).await.unwrap();
    tokio::spawn(committer.run());
    let clock = Arc::new(Hands(AtomicU64::new(1000)));
    let env = Env { clock: clock.clone(), random: Arc::new(Counting(AtomicU64::new(7))) };
    let folder = tempfile::tempdir().unwrap();
    let here: OwnedServerName = "here.example".try_into().unwrap();
    let config = Config {
        max_upload: 100_000,
        max_pending: 2,
        pending_ms: 5000,
        max_pixels: 1_000_000,
        ..Config::in_folder(folder.path().join("media"))
    };
    let net = Arc::new(Net::default());
    let key = Arc::new(SigningKey::from_seed(&[1; 32], "here").unwrap());
    let others = stoa_remote::Config { deny: vec!["denied.example".to_owned()], ..stoa_remote::Config::default() };
    let remote = Remote::new(store.clone(), env.clone(), here.clone(), key, net.clone(), others);
    let media = Media::new(store, env, here.clone(), remote, config).unwrap();
    media.prepare().await.unwrap();
    World { media, clock, net, here, folder }
}

impl World {
    /// The same files after a restart, with other settings.
    pub(crate) fn reopen(&mut self, change: impl FnOnce(&mut Config)) {
        let inner = &self.media.inner;
        let mut config = inner.config.clone();
        change(&mut config);
        let (store, env, remote) = (inner.store.clone(), inner.env.clone(), inner.fetches.remote.clone());
        self.media = Media::new(store, env, self.here.clone(), remote, config).unwrap();
    }

    pub(crate) async fn upload(&self, bytes: &[u8], kind: &str) -> String {
        let mut upload = self.media.begin(ALICE, None).await.unwrap();
        upload.write(&Bytes::copy_from_slice(bytes)).await.unwrap();
        let about = About { content_type: Some(kind.into()), name: Some("name".into()) };
        self.media.keep(upload, ALICE, about).await.unwrap()
    }

    pub(crate) async fn read(&self, id: &str, from: u64, length: u64) -> Vec<u8> {
        let download = self.media.open(&self.here, id, NOW).await.unwrap();
        let pieces: Vec<Bytes> = download.bytes(from, length).await.unwrap().try_collect().await.unwrap();
        pieces.concat()
    }

    async fn thumbnail(&self, id: &str, side: (u32, u32), method: Method) -> Result<Thumbnail, Error> {
        let request = ThumbnailRequest { width: side.0, height: side.1, method, animated: false };
        self.media.thumbnail(&self.here, id, request, NOW).await
    }

    pub(crate) fn files(&self) -> usize {
        fn count(folder: &std::path::Path) -> usize {
            let entries = std::fs::read_dir(folder).unwrap().map(|entry| entry.unwrap().path());
            entries.map(|path| if path.is_dir() { count(&path) } else { 1 }).sum()
        }
        count(self.folder.path())
    }
}

pub(crate) fn png(image: impl Into<DynamicImage>) -> Vec<u8> {
    let mut out = std::io::Cursor::new(Vec::new());
    image.into().write_to(&mut out, ImageFormat::Png).unwrap();
    out.into_inner()
}

#[tokio::test]
async fn a_file_comes_back_as_it_was() {
    let world = world().await;
    let bytes: Vec<u8> = (0..90_000u32).map(|i| (i % 251) as u8).collect();
    let id = world.upload(&bytes, "application/x-thing").await;
    assert!(id.len() >= 20);
    let download = world.media.open(&world.here, &id, NOW).await.unwrap();
    assert_eq!((download.size, download.name.as_deref()), (90_000, Some("name")));
    assert_eq!(download.content_type.as_deref(), Some("application/x-thing"));
    assert_eq!(world.read(&id, 0, 90_000).await, bytes);
    assert_eq!(world.read(&id, 70_000, 10).await, bytes[70_000..70_010]);
    assert_eq!(world.read(&id, 89_999, 10).await, bytes[89_999..]);
}

#[tokio::test]
async fn too_large_is_refused_early_and_late_and_leaves_nothing() {
    let world = world().await;
    assert!(matches!(world.media.begin(ALICE, Some(100_001)).await, Err(Error::TooLarge(100_000))));
    let mut upload = world.media.begin(ALICE, None).await.unwrap();
    upload.write(&vec![0; 60_000].into()).await.unwrap();
    assert!(matches!(upload.write(&vec![0; 60_000].into()).await, Err(Error::TooLarge(100_000))));
    drop(upload);
    assert_eq!(world.files(), 0);
}

#[tokio::test]
async fn ids_that_mean_something_in_a_path_are_refused() {
    let world = world().await;
    for id in ["..", "../x", "a/b", "a%2Fb", "", ".", "a b", "ä", "a\0b", &"x".repeat(256)] {
        assert!(matches!(world.media.open(&world.here, id, NOW).await, Err(Error::BadId)), "{id:?}");
    }
    assert!(matches!(world.media.open(&world.here, "unknown", NOW).await, Err(Error::NotFound(_))));
    let there: OwnedServerName = "there.example".try_into().unwrap();
    assert!(matches!(world.media.open(&there, "../x", NOW).await, Err(Error::BadId)));
    assert!(world.net.asked().is_empty());
}

#[tokio::test]
async fn a_reserved_id_is_filled_once_by_its_owner() {
    let world = world().await;
    let pending = world.media.reserve(ALICE).await.unwrap();
    let id = pending.id.as_str();
    assert!(matches!(world.media.open(&world.here, id, NOW).await, Err(Error::NotYetUploaded)));
    assert!(matches!(world.media.may_fill(&world.here, id, BOB).await, Err(Error::Forbidden(_))));
    assert!(matches!(world.media.may_fill(&world.here, "other", ALICE).await, Err(Error::NotFound(_))));
    world.media.may_fill(&world.here, id, ALICE).await.unwrap();
    let mut upload = world.media.begin(ALICE, None).await.unwrap();
    upload.write(&"late".into()).await.unwrap();
    let waiting = world.media.open(&world.here, id, Duration::from_secs(20));
    let (waited, filled) = tokio::join!(waiting, world.media.fill(upload, id, ALICE, About::default()));
    filled.unwrap();
    assert_eq!(waited.unwrap().size, 4);
    assert!(matches!(world.media.may_fill(&world.here, id, ALICE).await, Err(Error::CannotOverwrite)));
    let second = world.media.begin(ALICE, None).await.unwrap();
    assert!(matches!(world.media.fill(second, id, ALICE, About::default()).await, Err(Error::CannotOverwrite)));
    assert_eq!(world.read(id, 0, 9).await, b"late");
}

#[tokio::test]
async fn reserved_ids_are_few_and_end() {
    let world = world().await;
    let first = world.media.reserve(ALICE).await.unwrap();
    world.media.reserve(ALICE).await.unwrap();
    let refused = world.media.reserve(ALICE).await;
    assert!(matches!(refused, Err(Error::TooManyPending { retry_after_ms: 5000 })));
    assert!(world.media.reserve(BOB).await.is_ok());
    world.clock.0.store(first.expires, Ordering::Relaxed);
    assert!(matches!(world.media.may_fill(&world.here, &first.id, ALICE).await, Err(Error::NotFound(_))));
    assert!(matches!(world.media.open(&world.here, &first.id, NOW).await, Err(Error::NotFound(_))));
    assert!(world.media.reserve(ALICE).await.is_ok(), "the old ones no longer count");
}

#[tokio::test]
async fn thumbnails_fit_and_are_kept() {
    let world = world().await;
    let picture = RgbImage::from_fn(800, 400, |x, _| Rgb([(x % 256) as u8, 0, 0]));
    let id = world.upload(&png(picture), "image/png").await;
    let before = world.files();
    for (side, method, size) in [
        ((300, 200), Method::Scale, (320, 160)),
        ((96, 96), Method::Crop, (96, 96)),
        ((10, 10), Method::Scale, (32, 16)),
        ((64, 64), Method::Crop, (96, 96)),
    ] {
        let Thumbnail::Made { bytes, content_type } = world.thumbnail(&id, side, method).await.unwrap() else {
            panic!("{side:?} should be smaller than the picture")
        };
        assert_eq!(content_type, "image/jpeg");
        let made = image::load_from_memory_with_format(&bytes, ImageFormat::Jpeg).unwrap();
        assert_eq!((made.width(), made.height()), size, "{side:?}");
    }
    assert_eq!(world.files(), before + 3);
    let large = world.thumbnail(&id, (800, 600), Method::Scale).await.unwrap();
    assert!(matches!(large, Thumbnail::Original(_)), "nothing grows");
}

#[tokio::test]
async fn transparent_pictures_stay_transparent() {
    let world = world().await;
    let id = world.upload(&png(RgbaImage::new(400, 400)), "image/png").await;
    let made = world.thumbnail(&id, (96, 96), Method::Scale).await.unwrap();
    assert!(matches!(made, Thumbnail::Made { content_type: "image/png", .. }));
}

#[tokio::test]
async fn what_is_no_picture_or_too_large_has_no_thumbnail() {
    let world = world().await;
    let text = world.upload(b"<svg/>", "image/svg+xml").await;
    assert!(matches!(world.thumbnail(&text, (32, 32), Method::Crop).await, Err(Error::NoThumbnail)));
    let liar = world.upload(b"no picture at all", "image/png").await;
    assert!(matches!(world.thumbnail(&liar, (32, 32), Method::Crop).await, Err(Error::NoThumbnail)));
    let large = world.upload(&png(DynamicImage::new_luma8(2000, 600)), "image/png").await;
    assert!(matches!(world.thumbnail(&large, (32, 32), Method::Crop).await, Err(Error::ImageTooLarge)));
    assert!(matches!(world.thumbnail(&large, (0, 32), Method::Crop).await, Err(Error::InvalidParam(_))));
}

#[tokio::test]
async fn files_without_a_row_are_swept_up_when_they_are_old() {
    let world = world().await;
    let known = world.upload(b"known", "text/plain").await;
    let orphan = world.media.inner.files.of("AbCdEfGh");
    std::fs::create_dir_all(orphan.parent().unwrap()).unwrap();
    std::fs::write(&orphan, "orphan").unwrap();
    let small = world.media.inner.files.thumbnails("AbCdEfGh").join("t");
    std::fs::create_dir_all(small.parent().unwrap()).unwrap();
    std::fs::write(&small, "small").unwrap();
    let reserved = world.media.reserve(ALICE).await.unwrap();
    let strange = orphan.with_file_name("not an id");
    std::fs::write(&strange, "what somebody put there").unwrap();
    let running = world.media.begin(ALICE, None).await.unwrap();
    let round = async || {
        let (mut after, mut steps) = (None, 0);
        loop {
            after = world.media.sweep(Whose::Ours, after.as_deref()).await.unwrap();
            steps += 1;
            if after.is_none() {
                return steps;
            }
        }
    };
    let written = std::fs::metadata(&orphan).unwrap().modified().unwrap();
    let written = written.duration_since(std::time::UNIX_EPOCH).unwrap().as_millis() as u64;
    world.clock.0.store(written + 3_599_000, Ordering::Relaxed);
    round().await;
    assert!(orphan.exists(), "it may be of an upload that is just coming to its end");
    world.clock.0.store(written + 3_700_000, Ordering::Relaxed);
    assert!(round().await >= 2);
    assert!(!orphan.exists() && !small.exists());
    assert!(strange.exists());
    assert_eq!(world.read(&known, 0, 5).await, b"known");
    // An upload that runs is in another folder, and comes to its place with its row.
    world.media.keep(running, ALICE, About::default()).await.unwrap();
    assert!(world.media.may_fill(&world.here, &reserved.id, ALICE).await.is_err(), "it has expired meanwhile");
}

#[tokio::test]
async fn a_quota_is_for_all_files_of_a_user_together() {
    let mut world = world().await;
    world.reopen(|config| config.user_quota = Some(1000));
    let media = &world.media;
    let put = async |who, bytes: usize| {
        let mut upload = media.begin(who, None).await?;
        upload.write(&Bytes::from(vec![1; bytes])).await?;
        media.keep(upload, who, About::default()).await
    };
    put(ALICE, 600).await.unwrap();
    assert!(matches!(put(ALICE, 401).await, Err(Error::Forbidden(_))));
    assert!(matches!(media.begin(ALICE, Some(401)).await, Err(Error::Forbidden(_))));
    put(BOB, 900).await.unwrap();
    // Two that both fit when they begin, but not together; the second may not leave anything behind.
    let files = world.files();
    let (mut one, mut two) = (media.begin(ALICE, None).await.unwrap(), media.begin(ALICE, None).await.unwrap());
    for upload in [&mut one, &mut two] {
        upload.write(&Bytes::from(vec![1; 300])).await.unwrap();
    }
    media.keep(one, ALICE, About::default()).await.unwrap();
    assert!(matches!(media.keep(two, ALICE, About::default()).await, Err(Error::Forbidden(_))));
    assert_eq!(world.files(), files + 1);
    put(ALICE, 100).await.unwrap();
    assert!(matches!(put(ALICE, 1).await, Err(Error::Forbidden(_))));
    // A file that was reserved counts when it comes.
    let pending = media.reserve(BOB).await.unwrap();
    let mut upload = media.begin(BOB, Some(100)).await.unwrap();
    upload.write(&Bytes::from(vec![1; 100])).await.unwrap();
    media.fill(upload, &pending.id, BOB, About::default()).await.unwrap();
    assert!(matches!(put(BOB, 1).await, Err(Error::Forbidden(_))));
}

/// Follows a round of what is done a little each minute.
async fn retain(world: &World, whose: Whose) {
    let mut after = None;
    loop {
        after = world.media.retain(whose, after).await.unwrap();
        if after.is_none() {
            return;
        }
    }
}

#[tokio::test]
async fn files_go_when_the_settings_say_so_and_no_longer_count() {
    let mut world = world().await;
    let start = world.clock.0.load(Ordering::Relaxed);
    let hour = 60 * 60 * 1000;
    let (old, used) = (world.upload(&[1; 600], "text/plain").await, world.upload(&[2; 300], "text/plain").await);
    world.clock.0.store(start + 100 * hour, Ordering::Relaxed);
    retain(&world, Whose::Ours).await;
    assert_eq!(world.read(&old, 0, 1).await, [1], "without a rule nothing goes");
    world.reopen(|config| {
        config.user_quota = Some(1000);
        config.local = crate::Retention { age_ms: Some(500 * hour), unused_ms: Some(200 * hour), space: None };
    });
    world.read(&used, 0, 1).await;
    let fresh = world.upload(&[3; 100], "text/plain").await;
    let small = world.media.inner.files.thumbnails(&old);
    std::fs::create_dir_all(&small).unwrap();
    world.clock.0.store(start + 200 * hour, Ordering::Relaxed);
    retain(&world, Whose::Ours).await;
    let gone = world.media.open(&world.here, &old, NOW).await;
    assert!(matches!(gone, Err(Error::NotFound(_))));
    assert!(!world.media.inner.files.of(&old).exists() && !small.exists());
    assert_eq!((world.read(&used, 0, 1).await, world.read(&fresh, 0, 1).await), (vec![2], vec![3]));
    assert!(matches!(world.media.begin(ALICE, Some(601)).await, Err(Error::Forbidden(_))));
    world.media.begin(ALICE, Some(600)).await.expect("what is gone counts no longer");
    // However often it is used, it is too old in the end.
    for hours in [350, 499] {
        world.clock.0.store(start + hours * hour, Ordering::Relaxed);
        world.read(&used, 0, 1).await;
        retain(&world, Whose::Ours).await;
    }
    world.clock.0.store(start + 500 * hour, Ordering::Relaxed);
    retain(&world, Whose::Ours).await;
    assert!(matches!(world.media.open(&world.here, &used, NOW).await, Err(Error::NotFound(_))));
}

#[tokio::test]
async fn ids_whose_files_never_came_are_forgotten() {
    let world = world().await;
    let pending = world.media.reserve(ALICE).await.unwrap();
    retain(&world, Whose::Ours).await;
    world.media.may_fill(&world.here, &pending.id, ALICE).await.unwrap();
    world.clock.0.store(pending.expires, Ordering::Relaxed);
    retain(&world, Whose::Ours).await;
    let snapshot = world.media.inner.store.snapshot().await.unwrap();
    assert!(!snapshot.has(&stoa_store::schema::MEDIA, &pending.id).await.unwrap());
    assert!(!snapshot.has(&stoa_store::schema::MEDIA_PENDING, &(ALICE, pending.id)).await.unwrap());
}

#[tokio::test]
async fn what_was_not_used_for_the_longest_goes_where_space_is_short() {
    let mut world = world().await;
    world.reopen(|config| config.local = crate::Retention { space: Some(100), ..crate::Retention::default() });
    let mut ids = Vec::new();
    for day in 1..=4 {
        world.clock.0.store(day * 24 * 3_600_000, Ordering::Relaxed);
        ids.push(world.upload(&[b'x'; 40], "text/plain").await);
    }
    // The first is used again today.
    world.read(&ids[0], 0, 1).await;
    let there = async |world: &World| {
        let mut there = Vec::new();
        for id in &ids {
            there.push(world.media.find(&world.here, id, NOW).await.is_ok());
        }
        there
    };
    // A round finds out what has to go, the next one lets it go.
    for _ in 0..2 {
        retain(&world, Whose::Ours).await;
    }
    assert_eq!(there(&world).await, [true, false, false, true]);
    for _ in 0..3 {
        retain(&world, Whose::Ours).await;
    }
    assert_eq!(there(&world).await, [true, false, false, true], "what fits stays");
    // Where even today's do not fit, they stay all the same.
    let large = world.upload(&[b'x'; 1000], "text/plain").await;
    for _ in 0..2 {
        retain(&world, Whose::Ours).await;
    }
    assert!(world.media.find(&world.here, &large, NOW).await.is_ok());
}
