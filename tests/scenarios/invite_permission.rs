//! Client-Server API, "Invite permission", and the filters of MSC4155. Invites from other servers: `other_servers/news.rs`.

use stoa_kit::{Reply, User, Value, json};

use crate::home;

const ALL: &str = "m.invite_permission_config";
const FILTERS: &str = "org.matrix.msc4155.invite_permission_config";

async fn block_all(user: &User) {
    user.set_account_data(None, ALL, json!({ "default_action": "block" })).await.ok();
}

async fn invite_by_state(by: &User, room: &str, user: &User) -> Reply {
    by.set_state(room, "m.room.member", &user.id, json!({ "membership": "invite" })).await
}

#[tokio::test]
async fn invites_of_all_are_refused_by_every_way() {
    let home = home().await;
    let (alice, bob) = (home.user("alice").await, home.user("bob").await);
    let room = alice.create_room(json!({})).await;
    block_all(&bob).await;
    alice.invite(&room, &bob).await.expect(403, "M_INVITE_BLOCKED");
    invite_by_state(&alice, &room, &bob).await.expect(403, "M_INVITE_BLOCKED");
    alice.post("/createRoom", json!({ "invite": [bob.id] })).await.expect(403, "M_INVITE_BLOCKED");
    alice.state(&room, "m.room.member", &bob.id).await.expect(404, "M_NOT_FOUND");
    assert!(bob.sync().await.quiet());
    // He may be banned all the same, and invited again when he lets people.
    alice.ban(&room, &bob).await.ok();
    alice.unban(&room, &bob).await.ok();
    bob.set_account_data(None, ALL, json!({})).await.ok();
    alice.invite(&room, &bob).await.ok();
    assert!(bob.sync().await.invited(&room).is_object());
}

#[tokio::test]
async fn an_invite_from_before_is_not_shown_while_they_are_blocked() {
    let home = home().await;
    let (alice, bob) = (home.user("alice").await, home.user("bob").await);
    let room = alice.create_room(json!({ "invite": [bob.id] })).await;
    block_all(&bob).await;
    assert!(bob.sync().await.invited(&room).is_null());
    let list = json!({ "lists": { "all": { "ranges": [[0, 9]], "required_state": [], "timeline_limit": 1 } } });
    let slid = bob.slide(None, 0, list).await.ok();
    assert!(slid["rooms"].get(&room).is_none(), "{slid}");
    // It is there, and can be taken.
    bob.join(&room).await.ok();
    assert!(bob.sync().await.joined(&room).is_object());
}

#[tokio::test]
async fn d3_69_who_blocks_invites_may_still_invite() {
    let home = home().await;
    let (alice, bob) = (home.user("alice").await, home.user("bob").await);
    block_all(&bob).await;
    bob.set_account_data(None, FILTERS, json!({ "blocked_users": [alice.id] })).await.ok();
    let room = bob.create_room(json!({})).await;
    bob.invite(&room, &alice).await.ok();
    assert!(alice.sync().await.invited(&room).is_object());
    alice.join(&room).await.ok();
    let other = bob.create_room(json!({ "invite": [alice.id] })).await;
    alice.join(&other).await.ok();
}

#[tokio::test]
async fn filters_block_and_ignore() {
    let home = home().await;
    let (alice, bob, carol) = (home.user("alice").await, home.user("bob").await, home.user("carol").await);
    let filters = json!({ "allowed_users": [carol.id], "ignored_users": [alice.id], "blocked_servers": ["*"] });
    bob.set_account_data(None, FILTERS, filters.clone()).await.ok();
    // Ignored: as if nothing were, for the inviter; and nothing is shown.
    let ignored = alice.create_room(json!({})).await;
    alice.invite(&ignored, &bob).await.ok();
    assert_eq!(alice.state(&ignored, "m.room.member", &bob.id).await.ok()["membership"], "invite");
    // Allowed, in spite of the server.
    let allowed = carol.create_room(json!({ "invite": [bob.id] })).await;
    let dave = home.user("dave").await;
    dave.post("/createRoom", json!({ "invite": [bob.id] })).await.expect(403, "M_INVITE_BLOCKED");
    let sync = bob.sync().await;
    assert!(sync.invited(&allowed).is_object() && sync.invited(&ignored).is_null());
    let mut off: Value = filters;
    off["enabled"] = json!(false);
    bob.set_account_data(None, FILTERS, off).await.ok();
    let sync = bob.sync().await;
    assert!(sync.invited(&ignored).is_object(), "what was held back is shown again");
    bob.join(&ignored).await.ok();
}
