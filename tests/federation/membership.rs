//! Leaving, kicks, bans, power levels, server ACLs and upgrades across servers.

use stoa_kit::{Value, encode, json};

use crate::{Two, aliased_room, arrives, becomes, between, eventually, membership, shared_room};

const SAY: &str = "m.room.message";

fn text(body: &str) -> Value {
    json!({ "msgtype": "m.text", "body": body })
}

between!(leaving);
async fn leaving(two: Two) {
    let (alice, bob) = two.users().await;
    let room = shared_room(&alice, &bob).await;
    let token = alice.sync().await.token().to_owned();
    bob.post(&format!("/rooms/{}/leave", encode(&room)), json!({ "reason": "tired" })).await.ok();
    let left = |event: &&Value| event["state_key"] == bob.id && event["content"]["membership"] == "leave";
    let sync = alice.sync_until(Some(&token), |sync| sync.timeline(&room).iter().any(&left)).await;
    let timeline = sync.timeline(&room);
    let event = timeline.iter().find(|event| left(event)).expect("the leave");
    assert_eq!(event["content"]["reason"], "tired");
    bob.send(&room, SAY, text("gone")).await.expect(403, "M_FORBIDDEN");
    // What is said now is not for Bob.
    let event = alice.text(&room, "finally").await;
    tokio::time::sleep(std::time::Duration::from_secs(1)).await;
    let seen = bob.event(&room, &event).await;
    assert!(seen.status >= 400, "{seen:?}");
}

between!(the_creator_leaves);
async fn the_creator_leaves(two: Two) {
    let (alice, bob) = two.users().await;
    let carol = two.a.home.user("carol").await;
    let (room, alias) = aliased_room(&alice, json!({})).await;
    bob.join(&alias).await.ok();
    becomes(&alice, &room, &bob, "join").await;
    alice.leave(&room).await.ok();
    becomes(&bob, &room, &alice, "leave").await;
    bob.text(&room, "alone now").await;
    // The room lives on at Bob's server; whoever comes back is let in there.
    let via = encode(bob.server());
    carol.post(&format!("/join/{}?server_name={via}&via={via}", encode(&room)), json!({})).await.ok();
    becomes(&bob, &room, &carol, "join").await;
    let event = carol.text(&room, "here we are").await;
    arrives(&bob, &room, &event).await;
}

between!(kicks);
async fn kicks(two: Two) {
    let (alice, bob) = two.users().await;
    let (room, alias) = aliased_room(&alice, json!({})).await;
    bob.join(&alias).await.ok();
    let token = bob.sync().await.token().to_owned();
    let body = json!({ "user_id": bob.id, "reason": "noise" });
    alice.post(&format!("/rooms/{}/kick", encode(&room)), body).await.ok();
    let sync = bob.sync_until(Some(&token), |sync| !sync.left(&room).is_null()).await;
    let last = sync.timeline(&room).last().map(|event| (*event).clone()).expect("the kick");
    assert_eq!((&last["sender"], &last["content"]["reason"]), (&json!(alice.id), &json!("noise")));
    bob.send(&room, SAY, text("but")).await.expect(403, "M_FORBIDDEN");
    bob.join(&alias).await.ok();
    becomes(&alice, &room, &bob, "join").await;
}

between!(a_guest_moderator_kicks);
async fn a_guest_moderator_kicks(two: Two) {
    let (alice, bob) = two.users().await;
    let carol = two.a.home.user("carol").await;
    let (room, alias) = aliased_room(&alice, json!({})).await;
    carol.join(&alias).await.ok();
    bob.join(&alias).await.ok();
    bob.kick(&room, &carol).await.expect(403, "M_FORBIDDEN");
    alice.change_power(&room, |levels| levels["users"][&bob.id] = json!(50)).await;
    let token = carol.sync().await.token().to_owned();
    let may = async || (bob.state(&room, "m.room.power_levels", "").await.ok()["users"][&bob.id] == 50).then_some(());
    eventually("Bob is a moderator on his server", may).await;
    bob.kick(&room, &carol).await.ok();
    becomes(&alice, &room, &carol, "leave").await;
    carol.sync_until(Some(&token), |sync| !sync.left(&room).is_null()).await;
    bob.kick(&room, &alice).await.expect(403, "M_FORBIDDEN");
    assert_eq!(membership(&alice, &room, &alice).await, "join");
}

between!(bans);
async fn bans(two: Two) {
    let (alice, bob) = two.users().await;
    let (room, alias) = aliased_room(&alice, json!({})).await;
    bob.join(&alias).await.ok();
    let token = bob.sync().await.token().to_owned();
    alice.ban(&room, &bob).await.ok();
    bob.sync_until(Some(&token), |sync| !sync.left(&room).is_null()).await;
    bob.join(&alias).await.expect_any(&[403], &["M_FORBIDDEN", "M_BAD_STATE"]);
    bob.send(&room, SAY, text("but")).await.expect(403, "M_FORBIDDEN");
    alice.unban(&room, &bob).await.ok();
    assert_eq!(membership(&alice, &room, &bob).await, "leave");
    bob.join(&alias).await.ok();
    becomes(&alice, &room, &bob, "join").await;
    assert_eq!(membership(&bob, &room, &bob).await, "join");
}

between!(power_levels);
async fn power_levels(two: Two) {
    let (alice, bob) = two.users().await;
    let room = shared_room(&alice, &bob).await;
    bob.text(&room, "I may speak").await;
    alice.change_power(&room, |levels| levels["events_default"] = json!(10)).await;
    let silent =
        async || (bob.state(&room, "m.room.power_levels", "").await.ok()["events_default"] == 10).then_some(());
    eventually("Bob's server knows the new levels", silent).await;
    bob.send(&room, SAY, text("may I?")).await.expect(403, "M_FORBIDDEN");
    alice.change_power(&room, |levels| levels["users"][&bob.id] = json!(10)).await;
    let may = async || (bob.state(&room, "m.room.power_levels", "").await.ok()["users"][&bob.id] == 10).then_some(());
    eventually("Bob has some power on his server", may).await;
    let event = bob.text(&room, "thank you").await;
    arrives(&alice, &room, &event).await;
    let mut levels = bob.state(&room, "m.room.power_levels", "").await.ok();
    levels["users"][&bob.id] = json!(100);
    bob.set_state(&room, "m.room.power_levels", "", levels).await.expect(403, "M_FORBIDDEN");
}

between!(an_upgrade, ignore_from_stoa = "rooms cannot be upgraded yet");
async fn an_upgrade(two: Two) {
    let (alice, bob) = two.users().await;
    let (old, alias) = aliased_room(&alice, json!({ "room_version": "10", "name": "House" })).await;
    bob.join(&alias).await.ok();
    let token = bob.sync().await.token().to_owned();
    let body = json!({ "new_version": "11" });
    let reply = alice.post(&format!("/rooms/{}/upgrade", encode(&old)), body).await.ok();
    let new = reply["replacement_room"].as_str().expect("replacement_room").to_owned();
    let stone = |event: &&Value| event["type"] == "m.room.tombstone";
    let sync = bob.sync_until(Some(&token), |sync| sync.timeline(&old).iter().any(&stone)).await;
    let timeline = sync.timeline(&old);
    let event = timeline.iter().find(|event| stone(event)).expect("the tombstone");
    assert_eq!(event["content"]["replacement_room"], new);
    // The alias went with it.
    assert_eq!(bob.join(&alias).await.ok()["room_id"], new);
    assert_eq!(bob.state(&new, "m.room.create", "").await.ok()["predecessor"]["room_id"], old);
    assert_eq!(bob.state(&new, "m.room.name", "").await.ok()["name"], "House");
    bob.send(&old, SAY, text("still here?")).await.expect(403, "M_FORBIDDEN");
    let event = bob.text(&new, "moved").await;
    arrives(&alice, &new, &event).await;
}

between!(a_server_is_shut_out);
async fn a_server_is_shut_out(two: Two) {
    let (alice, bob) = two.users().await;
    let (room, alias) = aliased_room(&alice, json!({})).await;
    bob.join(&alias).await.ok();
    becomes(&alice, &room, &bob, "join").await;
    // The names of ACLs have no port, so this one means nobody.
    let acl = json!({ "allow": ["*"], "deny": [bob.server()], "allow_ip_literals": true });
    alice.set_state(&room, "m.room.server_acl", "", acl).await.ok();
    let event = bob.text(&room, "by the port").await;
    arrives(&alice, &room, &event).await;
    let acl = json!({ "allow": ["*"], "deny": ["localhost"], "allow_ip_literals": true });
    alice.set_state(&room, "m.room.server_acl", "", acl.clone()).await.ok();
    let event = bob.text(&room, "shut out").await;
    tokio::time::sleep(std::time::Duration::from_secs(2)).await;
    let seen = alice.event(&room, &event).await;
    assert!(seen.status >= 400, "{seen:?}");
    // And one whose server is not in the room does not get in.
    let acl = json!([{ "type": "m.room.server_acl", "state_key": "", "content": acl }]);
    let (other, alias) = aliased_room(&alice, json!({ "initial_state": acl })).await;
    bob.join(&alias).await.expect(403, "M_FORBIDDEN");
    assert!(membership(&alice, &other, &bob).await.is_null());
}
