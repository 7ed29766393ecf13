//! Client-Server API, "Syncing".

use std::time::Duration;

use stoa_kit::{SyncOptions, User, Value, json};
use tokio::time::{Instant, sleep};

use crate::home;

fn limit(count: usize) -> SyncOptions {
    SyncOptions::default().filter(User::timeline_filter(count))
}

#[tokio::test]
async fn a_new_account_has_no_rooms() {
    let home = home().await;
    let alice = home.user("alice").await;
    let sync = alice.sync().await;
    assert!(sync.quiet() && sync.to_device().is_empty());
}

#[tokio::test]
async fn an_initial_sync_has_the_room_and_its_last_events() {
    let home = home().await;
    let alice = home.user("alice").await;
    let room = alice.create_room(json!({ "name": "Stoa" })).await;
    alice.texts(&room, ["a", "b", "c"].map(str::to_owned)).await;
    let sync = alice.sync_with(&limit(2)).await;
    assert_eq!(sync.bodies(&room), ["b", "c"]);
    assert_eq!(sync.joined(&room)["timeline"]["limited"], true);
    let types: Vec<&str> = sync.state(&room).iter().filter_map(|event| event["type"].as_str()).collect();
    for kind in ["m.room.create", "m.room.member", "m.room.power_levels", "m.room.join_rules", "m.room.name"] {
        assert_eq!(types.iter().filter(|found| **found == kind).count(), 1, "{kind} in {types:?}");
    }
}

#[tokio::test]
async fn a_room_that_fits_is_not_limited() {
    let home = home().await;
    let alice = home.user("alice").await;
    let room = alice.create_room(json!({})).await;
    let sync = alice.sync_with(&limit(100)).await;
    assert_eq!(sync.joined(&room)["timeline"]["limited"], false);
    assert_eq!(sync.timeline(&room)[0]["type"], "m.room.create");
    assert!(sync.state(&room).is_empty(), "state before the first event is empty");
}

#[tokio::test]
async fn an_incremental_sync_has_exactly_what_is_new() {
    let home = home().await;
    let (alice, bob) = (home.user("alice").await, home.user("bob").await);
    let (room, quiet) = (alice.room_with(&[&bob]).await, alice.room_with(&[&bob]).await);
    let token = bob.sync().await.token().to_owned();
    let id = alice.text(&room, "new").await;
    let sync = bob.sync_since(&token).await;
    let ids: Vec<&Value> = sync.timeline(&room).iter().map(|event| &event["event_id"]).collect();
    assert_eq!(ids, [&json!(id)]);
    assert_eq!(sync.joined(&room)["timeline"]["limited"], false);
    assert!(sync.joined(&quiet).is_null(), "nothing happened there");
    assert!(bob.sync_since(sync.token()).await.quiet());
}

#[tokio::test]
async fn the_same_token_gives_the_same_again() {
    let home = home().await;
    let alice = home.user("alice").await;
    let room = alice.create_room(json!({})).await;
    let token = alice.sync().await.token().to_owned();
    alice.texts(&room, ["a", "b"].map(str::to_owned)).await;
    for _ in 0..3 {
        assert_eq!(alice.sync_since(&token).await.bodies(&room), ["a", "b"]);
    }
}

#[tokio::test]
async fn state_that_changed_in_a_gap_is_told() {
    let home = home().await;
    let (alice, bob) = (home.user("alice").await, home.user("bob").await);
    let room = alice.create_room(json!({ "name": "Old" })).await;
    let filter = User::timeline_filter(2);
    let token = alice.sync_with(&limit(2)).await.token().to_owned();
    alice.set_state(&room, "m.room.name", "", json!({ "name": "New" })).await.ok();
    alice.invite(&room, &bob).await.ok();
    alice.texts(&room, (0..6).map(|n| n.to_string())).await;
    let sync = alice.sync_with(&SyncOptions::since(&token).filter(filter)).await;
    assert_eq!(sync.bodies(&room), ["4", "5"]);
    assert_eq!(sync.joined(&room)["timeline"]["limited"], true);
    let mut keys: Vec<(String, String)> = sync
        .state(&room)
        .iter()
        .map(|event| {
            (event["type"].as_str().unwrap_or("").to_owned(), event["state_key"].as_str().unwrap_or("").to_owned())
        })
        .collect();
    keys.sort();
    assert_eq!(keys, [("m.room.member".to_owned(), bob.id.clone()), ("m.room.name".to_owned(), String::new())]);
}

#[tokio::test]
async fn a_gap_can_be_filled_from_prev_batch() {
    let home = home().await;
    let alice = home.user("alice").await;
    let room = alice.create_room(json!({})).await;
    let token = alice.sync_with(&limit(1)).await.token().to_owned();
    let sent = alice.texts(&room, (0..9).map(|n| n.to_string())).await;
    let sync = alice.sync_with(&SyncOptions::since(&token).filter(User::timeline_filter(3))).await;
    let prev = sync.joined(&room)["timeline"]["prev_batch"].as_str().expect("prev_batch").to_owned();
    let page = alice.messages(&room, &format!("dir=b&limit=6&from={}", stoa_kit::encode(&prev))).await.ok();
    let mut ids: Vec<Value> =
        page["chunk"].as_array().expect("chunk").iter().map(|event| event["event_id"].clone()).collect();
    ids.reverse();
    ids.extend(sync.timeline(&room).iter().map(|event| event["event_id"].clone()));
    assert_eq!(ids, sent);
}

#[tokio::test]
async fn full_state_tells_all_state_again() {
    let home = home().await;
    let alice = home.user("alice").await;
    let room = alice.create_room(json!({ "name": "Stoa" })).await;
    let token = alice.sync().await.token().to_owned();
    let sync = alice.sync_with(&SyncOptions { full_state: true, ..SyncOptions::since(&token) }).await;
    let all = alice.all_state(&room).await;
    assert_eq!(sync.state(&room).len(), all.len());
}

#[tokio::test]
async fn state_after_is_the_state_at_the_end() {
    let home = home().await;
    let alice = home.user("alice").await;
    let room = alice.create_room(json!({ "name": "Old" })).await;
    let options = SyncOptions { state_after: true, ..limit(2) };
    let first = alice.sync_with(&options).await;
    if first.joined(&room)["state_after"].is_null() {
        // Not every homeserver knows it: the specification has it since v1.16.
        assert!(std::env::var("STOA_TEST_URL").is_ok(), "use_state_after is ignored: {first:?}");
        return;
    }
    assert!(first.joined(&room)["state"].is_null());
    assert_eq!(first.events(&room, "state_after").len(), alice.all_state(&room).await.len());
    alice.set_state(&room, "m.room.name", "", json!({ "name": "New" })).await.ok();
    let next = alice.sync_with(&SyncOptions { state_after: true, ..SyncOptions::since(first.token()) }).await;
    let names: Vec<&Value> = next.events(&room, "state_after").iter().map(|event| &event["content"]["name"]).collect();
    assert_eq!(names, [&json!("New")]);
}

#[tokio::test]
async fn joining_a_room_brings_all_its_state() {
    let home = home().await;
    let (alice, bob) = (home.user("alice").await, home.user("bob").await);
    let room = alice.create_room(json!({ "preset": "public_chat", "name": "Stoa" })).await;
    let token = bob.sync().await.token().to_owned();
    bob.join(&room).await.ok();
    let sync = bob.sync_with(&SyncOptions::since(&token).filter(User::timeline_filter(1))).await;
    let names: Vec<&Value> = sync.state(&room).iter().filter(|event| event["type"] == "m.room.name").copied().collect();
    assert_eq!(names[0]["content"]["name"], "Stoa");
}

#[tokio::test]
async fn a_left_room_is_told_once_and_shows_nothing_of_later() {
    let home = home().await;
    let (alice, bob) = (home.user("alice").await, home.user("bob").await);
    let room = alice.room_with(&[&bob]).await;
    let token = bob.sync().await.token().to_owned();
    alice.text(&room, "before").await;
    bob.leave(&room).await.ok();
    alice.text(&room, "after").await;
    let sync = bob.sync_since(&token).await;
    assert_eq!(sync.bodies(&room), ["before"]);
    assert!(sync.joined(&room).is_null() && !sync.left(&room).is_null());
    let later = bob.sync_since(sync.token()).await;
    assert!(later.quiet(), "{later:?}");
}

#[tokio::test]
async fn nothing_new_waits_as_long_as_asked() {
    let home = home().await;
    let alice = home.user("alice").await;
    alice.create_room(json!({})).await;
    let token = alice.sync().await.token().to_owned();
    let start = Instant::now();
    assert!(alice.sync_with(&SyncOptions::since(&token).wait(700)).await.quiet());
    let waited = start.elapsed();
    assert!(waited >= Duration::from_millis(650) && waited < Duration::from_secs(10), "{waited:?}");
    let start = Instant::now();
    alice.sync_since(&token).await;
    assert!(start.elapsed() < Duration::from_secs(5), "a timeout of 0 answers at once");
}

#[tokio::test]
async fn a_message_wakes_who_waits() {
    let home = home().await;
    let (alice, bob) = (home.user("alice").await, home.user("bob").await);
    let room = alice.room_with(&[&bob]).await;
    let token = bob.sync().await.token().to_owned();
    let options = SyncOptions::since(&token).wait(30_000);
    let start = Instant::now();
    let (sync, id) = tokio::join!(bob.sync_with(&options), async {
        sleep(Duration::from_millis(400)).await;
        alice.text(&room, "wake up").await
    });
    assert!(sync.has(&room, &id), "{sync:?}");
    assert!(start.elapsed() < Duration::from_secs(10));
}

#[tokio::test]
async fn an_invite_wakes_who_waits() {
    let home = home().await;
    let (alice, bob) = (home.user("alice").await, home.user("bob").await);
    let room = alice.create_room(json!({})).await;
    let token = bob.sync().await.token().to_owned();
    let options = SyncOptions::since(&token).wait(30_000);
    let (sync, ()) = tokio::join!(bob.sync_with(&options), async {
        sleep(Duration::from_millis(400)).await;
        alice.invite(&room, &bob).await.ok();
    });
    assert!(!sync.invited(&room).is_null(), "{sync:?}");
}

#[tokio::test]
async fn an_initial_sync_with_a_timeout_answers_at_once() {
    let home = home().await;
    let alice = home.user("alice").await;
    let start = Instant::now();
    alice.sync_with(&SyncOptions::default().wait(30_000)).await;
    assert!(start.elapsed() < Duration::from_secs(10));
}

#[tokio::test]
async fn the_summary_counts_members_and_names_heroes() {
    let home = home().await;
    let (alice, bob, carol) = (home.user("alice").await, home.user("bob").await, home.user("carol").await);
    let room = alice.room_with(&[&bob]).await;
    alice.invite(&room, &carol).await.ok();
    let lazy = json!({ "room": { "state": { "lazy_load_members": true } } });
    let sync = alice.sync_with(&SyncOptions::default().filter(lazy)).await;
    let summary = sync.joined(&room)["summary"].clone();
    assert_eq!(summary["m.joined_member_count"], 2, "{summary}");
    assert_eq!(summary["m.invited_member_count"], 1, "{summary}");
    let mut heroes: Vec<&str> =
        summary["m.heroes"].as_array().expect("heroes").iter().filter_map(Value::as_str).collect();
    heroes.sort_unstable();
    let mut others = [bob.id.as_str(), carol.id.as_str()];
    others.sort_unstable();
    assert_eq!(heroes, others);
}

#[tokio::test]
async fn a_token_that_is_none_is_refused() {
    let home = home().await;
    let alice = home.user("alice").await;
    for wrong in ["nonsense", "💥"] {
        let reply = alice.try_sync(&SyncOptions::since(wrong)).await;
        reply.expect_any(&[400], &["M_UNKNOWN", "M_INVALID_PARAM", "M_UNKNOWN_POS"]);
    }
    alice.get("/sync?timeout=soon").await.expect_any(&[400], &["M_UNKNOWN", "M_INVALID_PARAM"]);
}

#[tokio::test]
async fn sync_events_do_not_repeat_the_room_id() {
    let home = home().await;
    let alice = home.user("alice").await;
    let room = alice.create_room(json!({})).await;
    alice.text(&room, "x").await;
    let sync = alice.sync().await;
    assert!(!crate::strict() || sync.timeline(&room).iter().all(|event| event["room_id"].is_null()));
    assert!(sync.timeline(&room).iter().all(|event| event["auth_events"].is_null() && event["hashes"].is_null()));
}

#[tokio::test]
async fn ignored_users_are_not_heard() {
    let home = home().await;
    let (alice, bob, carol) = (home.user("alice").await, home.user("bob").await, home.user("carol").await);
    let room = alice.room_with(&[&bob, &carol]).await;
    let ignore = json!({ "ignored_users": { &bob.id: {} } });
    alice.set_account_data(None, "m.ignored_user_list", ignore).await.ok();
    let token = alice.sync().await.token().to_owned();
    bob.text(&room, "unheard").await;
    bob.set_state(&room, "m.room.member", &bob.id, json!({ "membership": "join", "displayname": "B" })).await.ok();
    let id = carol.text(&room, "heard").await;
    let sync = alice.sync_until(Some(&token), |sync| sync.has(&room, &id)).await;
    assert_eq!(sync.bodies(&room), ["heard"]);
    assert!(
        sync.timeline(&room).iter().any(|event| event["state_key"] == bob.id),
        "state of ignored users is still told"
    );
    let invited = bob.create_room(json!({ "invite": [alice.id] })).await;
    assert!(alice.sync_since(&token).await.invited(&invited).is_null(), "nor are their invites");
}

#[tokio::test]
async fn many_who_wait_all_get_every_message_once_and_in_order() {
    let home = home().await;
    let alice = home.user("alice").await;
    let room = alice.public_room().await;
    let mut watchers = Vec::new();
    for _ in 0..12 {
        let bob = home.user("bob").await;
        bob.join(&room).await.ok();
        let token = bob.sync().await.token().to_owned();
        watchers.push((bob, token));
    }
    let follow = async |(bob, mut token): (User, String)| {
        let mut bodies = Vec::new();
        while bodies.len() < 15 {
            let sync = bob.sync_with(&SyncOptions::since(&token).wait(20_000)).await;
            bodies.extend(sync.bodies(&room).into_iter().map(str::to_owned));
            token = sync.token().to_owned();
        }
        bodies
    };
    let everybody: Vec<_> = watchers.into_iter().map(follow).collect();
    let (all, _) =
        tokio::join!(futures_util::future::join_all(everybody), alice.texts(&room, (0..15).map(|n| n.to_string())));
    for bodies in all {
        assert_eq!(bodies, (0..15).map(|n| n.to_string()).collect::<Vec<_>>());
    }
}

#[tokio::test]
async fn a_visit_between_two_syncs_is_told_as_a_room_that_was_left() {
    let home = home().await;
    let (alice, bob) = (home.user("alice").await, home.user("bob").await);
    let room = alice.public_room().await;
    for _ in 0..2 {
        // The second time Bob has been there before.
        let token = bob.sync().await.token().to_owned();
        bob.join(&room).await.ok();
        bob.leave(&room).await.ok();
        let sync = bob.sync_since(&token).await;
        let last = sync.timeline(&room).last().map(|event| event["content"]["membership"].clone());
        assert_eq!(last, Some(json!("leave")), "{sync:?}");
        assert!(sync.joined(&room).is_null());
    }
}
