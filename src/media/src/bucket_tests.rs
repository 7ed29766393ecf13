use std::sync::atomic::Ordering;

use stoa_kit::Bucket;

use crate::{BucketConfig, Retention, sweep::Whose, tests::world};

const NAME: &str = "files";
const HOUR: u64 = 60 * 60 * 1000;

fn config(bucket: &Bucket) -> BucketConfig {
    let (id, key) = bucket.key();
    BucketConfig {
        name: NAME.to_owned(),
        endpoint: Some(bucket.url()),
        region: "us-east-1".to_owned(),
        prefix: "p".to_owned(),
        key: Some((id.to_owned(), key.to_owned())),
        virtual_host: false,
        links: None,
    }
}

#[tokio::test]
async fn what_the_store_forgets_leaves_the_bucket() {
    let (mut world, bucket) = (world().await, Bucket::open(NAME).await);
    world.reopen(|settings| {
        settings.bucket = Some(config(&bucket));
        settings.local = Retention { age_ms: Some(HOUR), ..Retention::default() };
    });
    let id = world.upload(b"file", "text/plain").await;
    assert_eq!(bucket.objects(NAME).len(), 1);
    world.clock.0.fetch_add(HOUR - 1, Ordering::Relaxed);
    world.media.retain(Whose::Ours, None).await.unwrap();
    assert_eq!(world.read(&id, 0, 4).await, b"file");
    world.clock.0.fetch_add(1, Ordering::Relaxed);
    world.media.retain(Whose::Ours, None).await.unwrap();
    assert_eq!(bucket.objects(NAME).len(), 0);
}

#[tokio::test]
async fn what_nobody_can_ask_for_is_swept_out_of_the_bucket() {
    let (mut world, bucket) = (world().await, Bucket::open(NAME).await);
    world.reopen(|settings| settings.bucket = Some(config(&bucket)));
    let known = world.upload(b"known", "text/plain").await;
    bucket.put(NAME, "p/or/ph/orphan_of_a_crash", b"x");
    bucket.put(NAME, "p/notes.txt", b"of somebody else");
    bucket.put(NAME, "elsewhere/or/ph/orphan", b"of somebody else");
    let now = stoa_kit::now_ms();
    let round = async || {
        let mut after = world.media.sweep_bucket(None).await.unwrap();
        while after.is_some() {
            after = world.media.sweep_bucket(after).await.unwrap();
        }
        bucket.objects(NAME).len()
    };
    world.clock.0.store(now, Ordering::Relaxed);
    assert_eq!(round().await, 4, "it may be of an upload that is just coming to its end");
    world.clock.0.store(now + 2 * HOUR, Ordering::Relaxed);
    assert_eq!(round().await, 3);
    assert!(bucket.objects(NAME).iter().all(|(name, _)| !name.contains("orphan_of_a_crash")));
    assert_eq!(world.read(&known, 0, 5).await, b"known");
}
