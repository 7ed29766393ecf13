//! Client-Server API, "Redactions": what is left of an event, for whom, and who may do it.

use stoa_kit::{Value, encode, json};

use crate::{home, one, two};

#[tokio::test]
async fn a_redacted_message_has_no_content_on_any_path() {
    let (_home, alice, bob, room) = two().await;
    let id = alice.text(&room, "regret").await;
    let redaction = alice.redact(&room, &id).await.event_id();
    let bare = |event: &Value| {
        assert_eq!(event["content"], json!({}), "{event}");
        assert_eq!(event["unsigned"]["redacted_because"]["event_id"], redaction, "{event}");
    };
    bare(&bob.event(&room, &id).await.ok());
    let sync = bob.sync().await;
    bare(sync.timeline(&room).into_iter().find(|event| event["event_id"] == id).expect("in sync"));
    bare(bob.whole_history(&room).await.iter().find(|event| event["event_id"] == id).expect("in /messages"));
    let context = bob.get(&format!("/rooms/{room}/context/{}", encode(&id))).await.ok();
    bare(&context["event"]);
    let later = bob.text(&room, "later").await;
    let context = bob.get(&format!("/rooms/{room}/context/{}", encode(&later))).await.ok();
    let before = context["events_before"].as_array().expect("events_before").clone();
    bare(before.iter().find(|event| event["event_id"] == id).expect("in /context"));
}

#[tokio::test]
async fn the_redaction_itself_is_told_with_its_reason() {
    let (_home, alice, bob, room) = two().await;
    let id = alice.text(&room, "regret").await;
    let token = bob.sync().await.token().to_owned();
    alice.redact(&room, &id).await.ok();
    let sync = bob.sync_until(Some(&token), |sync| !sync.timeline(&room).is_empty()).await;
    let event = sync.timeline(&room)[0];
    assert_eq!(event["type"], "m.room.redaction");
    assert_eq!(event["content"]["reason"], "because");
    assert_eq!(event["content"]["redacts"], id);
    assert_eq!(event["redacts"], id, "for older clients it stands at the top as well");
}

#[tokio::test]
async fn one_redacts_ones_own_and_moderators_redact_all() {
    let home = home().await;
    let (alice, bob, carol) = (home.user("alice").await, home.user("bob").await, home.user("carol").await);
    let room = alice.room_with(&[&bob, &carol]).await;
    let of_carol = carol.text(&room, "mine").await;
    bob.redact(&room, &of_carol).await.expect(403, "M_FORBIDDEN");
    assert_eq!(alice.event(&room, &of_carol).await.ok()["content"]["body"], "mine");
    let of_bob = bob.text(&room, "own").await;
    bob.redact(&room, &of_bob).await.ok();
    alice.redact(&room, &of_carol).await.ok();
    for id in [of_bob, of_carol] {
        assert_eq!(carol.event(&room, &id).await.ok()["content"], json!({}));
    }
}

#[tokio::test]
async fn redacted_state_keeps_what_the_rules_need() {
    let (_home, alice, bob, room) = two().await;
    let name = alice.set_state(&room, "m.room.name", "", json!({ "name": "Oops" })).await.event_id();
    alice.redact(&room, &name).await.ok();
    assert_eq!(alice.state(&room, "m.room.name", "").await.ok(), json!({}));
    let all = alice.all_state(&room).await;
    let member = all.iter().find(|event| event["state_key"] == bob.id).expect("a member");
    alice.redact(&room, member["event_id"].as_str().expect("an ID")).await.ok();
    assert_eq!(alice.state(&room, "m.room.member", &bob.id).await.ok(), json!({ "membership": "join" }));
    bob.text(&room, "still a member").await;
}

#[tokio::test]
async fn a_repeated_transaction_is_one_redaction() {
    let (_home, alice, room) = one().await;
    let id = alice.text(&room, "x").await;
    let path = format!("/rooms/{room}/redact/{}/same", encode(&id));
    let one = alice.put(&path, json!({})).await.event_id();
    let two = alice.put(&path, json!({})).await.event_id();
    assert_eq!(one, two);
}

#[tokio::test]
async fn an_event_of_another_room_stays_untouched() {
    let (_home, alice, bob, room) = two().await;
    let id = alice.text(&room, "safe").await;
    let own = bob.create_room(json!({})).await;
    let reply = bob.redact(&own, &id).await;
    assert!((400..500).contains(&reply.status) || reply.status == 200, "{reply:?}");
    assert_eq!(alice.event(&room, &id).await.ok()["content"]["body"], "safe");
}

#[tokio::test]
async fn a_redacted_edit_is_bundled_no_more() {
    let (_home, alice, room) = one().await;
    let id = alice.text(&room, "first").await;
    let edit = json!({
        "msgtype": "m.text",
        "body": "* second",
        "m.new_content": { "msgtype": "m.text", "body": "second" },
        "m.relates_to": { "rel_type": "m.replace", "event_id": id },
    });
    let edit = alice.send(&room, "m.room.message", edit).await.event_id();
    alice.redact(&room, &edit).await.ok();
    assert!(alice.event(&room, &id).await.ok()["unsigned"]["m.relations"]["m.replace"].is_null());
}

#[tokio::test]
async fn a_reaction_can_be_taken_back_and_given_again() {
    let (_home, alice, room) = one().await;
    let id = alice.text(&room, "x").await;
    let reaction = json!({ "m.relates_to": { "rel_type": "m.annotation", "event_id": id, "key": "👍" } });
    let first = alice.send(&room, "m.reaction", reaction.clone()).await.event_id();
    alice.redact(&room, &first).await.ok();
    alice.send(&room, "m.reaction", reaction).await.ok();
}

#[tokio::test]
async fn a_redaction_can_be_sent_as_any_event() {
    let home = home().await;
    let (alice, bob) = (home.user("alice").await, home.user("bob").await);
    for version in ["5", "10", "11", "12"] {
        let room = alice.create_room(json!({ "room_version": version, "preset": "public_chat" })).await;
        bob.join(&room).await.ok();
        let said = alice.text(&room, "not for long").await;
        let path = |txn: &str| format!("/rooms/{}/send/m.room.redaction/{txn}", encode(&room));
        // Who may not redact it by the other endpoint may not by this one.
        bob.put(&path("b"), json!({ "redacts": said })).await.expect(403, "M_FORBIDDEN");
        let sent = alice.put(&path("a"), json!({ "redacts": said, "reason": "a slip" })).await.event_id();
        let gone = alice.event(&room, &said).await.ok();
        assert_eq!((&gone["content"], &gone["unsigned"]["redacted_because"]["event_id"]), (&json!({}), &json!(sent)));
        assert_eq!(gone["unsigned"]["redacted_because"]["content"]["reason"], "a slip");
        assert_eq!(alice.event(&room, &sent).await.ok()["redacts"], said.as_str(), "in version {version}");
        alice.put(&path("c"), json!({})).await.expect(400, "M_BAD_JSON");
        alice.put(&path("d"), json!({ "redacts": 17 })).await.expect(400, "M_BAD_JSON");
    }
}
