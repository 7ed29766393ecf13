//! Scenarios on the real binary: the Client-Server API told by users who do things, one module a chapter.
//!
//! Every test starts a homeserver of its own. With `STOA_TEST_URL=http://127.0.0.1:8008` they run against a homeserver
//! that is there already, of any make (open registration, no rate limits), which keeps the tests themselves honest.

mod account_data;
mod aliases;
mod appservices;
mod bad_input;
mod calls;
mod contacts;
mod create_room;
mod cross_signing;
mod delayed_events;
mod devices;
mod email;
mod ephemeral;
mod filters;
mod guests;
mod history_visibility;
mod http;
mod invite_permission;
mod key_backup;
mod keys;
mod lazy_members;
mod login;
mod media;
mod membership;
mod moderation;
mod mutual_rooms;
mod old_sync;
mod other_servers;
mod paging;
mod presence;
mod profile;
mod push;
mod push_rules;
mod receipts;
mod redaction;
mod registration;
mod relations;
mod reports;
mod restart;
mod search;
mod sending;
mod sliding;
mod spaces;
mod state;
mod sync;
mod sync_model;
mod thread_subscriptions;
mod tls;
mod to_device;
mod typing;
mod uia;
mod upgrade;
mod user_directory;

use stoa_kit::{Home, Launch, Reply, User, json};

/// The homeserver of a test.
async fn home() -> Home {
    match std::env::var("STOA_TEST_URL") {
        Ok(url) => Home::at(&url),
        Err(_) => Home::start(&binary()).await,
    }
}

/// Somebody alone in a room.
async fn one() -> (Home, User, String) {
    let home = home().await;
    let alice = home.user("alice").await;
    let room = alice.create_room(json!({})).await;
    (home, alice, room)
}

/// Two people in the room of the first.
async fn two() -> (Home, User, User, String) {
    let home = home().await;
    let (alice, bob) = (home.user("alice").await, home.user("bob").await);
    let room = alice.room_with(&[&bob]).await;
    (home, alice, bob, room)
}

/// How to start a homeserver that this test may configure and kill; `None` when the tests run against another one.
fn own() -> Option<Launch> {
    match std::env::var("STOA_TEST_URL") {
        Ok(_) => None,
        Err(_) => Some(Launch::new(binary())),
    }
}

/// Whether our own server is under test: where another is known to leave the specification, only ours is held to it.
fn strict() -> bool {
    std::env::var("STOA_TEST_URL").is_err()
}

/// An error of the client, in the form of the specification. (Another homeserver may fail as it likes, if it fails.)
#[track_caller]
fn refused(reply: &Reply) {
    let proper =
        (400..500).contains(&reply.status) && reply["errcode"].as_str().is_some_and(|code| code.starts_with("M_"));
    assert!(if strict() { proper } else { reply.status != 200 }, "expected a proper refusal, got {reply:?}");
}

/// The binary under test.
fn binary() -> String {
    let built = option_env!("CARGO_BIN_EXE_stoa").map(str::to_owned);
    std::env::var("STOA_BIN").ok().or(built).expect("the binary stoa: built by cargo, or named by STOA_BIN")
}
