//! Invites to rooms that this server is not in (Server-Server API, "Inviting to a room"): of the room nothing is known but what the
//! other server shows, and the phone rings all the same.

use stoa_kit::{Ca, Gateway, Home, Launch, Stranger, encode, json};

use super::{SETTINGS, set_pusher};
use crate::{binary, own};

#[tokio::test]
async fn who_is_invited_from_elsewhere_is_told() {
    if own().is_none() {
        return;
    }
    let ca = Ca::shared();
    let mut home = Home::launch(Launch::federating(binary(), &ca).with_config(SETTINGS)).await;
    let other = Stranger::start(&ca, 1).await;
    let alice = home.user("alice").await;
    let mut gateway = Gateway::start().await;
    set_pusher(&alice, &gateway.url(), json!({})).await;
    // The invite outlives the server, though its phone cannot be told yet.
    gateway.close().await;
    let (room, bob) = (format!("!party:{}", other.name()), other.user("bob"));
    let (id, event) = other.event(json!({
        "type": "m.room.member", "room_id": room, "sender": bob, "state_key": alice.id,
        "content": { "membership": "invite" }, "origin_server_ts": 1_700_000_000_000_u64, "depth": 7,
        "prev_events": ["$AAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAA"],
        "auth_events": ["$AAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAA"],
    }));
    let shown =
        |kind: &str, key: &str, content| json!({ "type": kind, "state_key": key, "sender": bob, "content": content });
    let state = [
        shown("m.room.name", "", json!({ "name": "Party" })),
        shown("m.room.member", &bob, json!({ "membership": "join", "displayname": "Bob" })),
    ];
    let body = json!({ "room_version": "11", "event": event, "invite_room_state": state });
    other.put(&home, &format!("/_matrix/federation/v2/invite/{}/{}", encode(&room), encode(&id)), &body).await.ok();
    home.kill();
    gateway.open().await;
    home.restart().await;
    let pushed = gateway.until(|pushed| pushed.notification()["room_id"] == room.as_str()).await;
    let told = pushed.notification();
    assert_eq!((&told["event_id"], &told["type"]), (&json!(id), &json!("m.room.member")));
    assert_eq!((&told["sender"], &told["sender_display_name"]), (&json!(bob), &json!("Bob")));
    assert_eq!((&told["room_name"], &told["user_is_target"]), (&json!("Party"), &json!(true)));
    assert_eq!((&told["content"]["membership"], &told["counts"]["unread"]), (&json!("invite"), &json!(1)));
    alice.leave(&room).await.ok();
    gateway.badge(0).await;
}
