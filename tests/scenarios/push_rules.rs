//! Client-Server API, "Push Rules": the default rules, changing them, and the counts that follow from them in `/sync`.

use stoa_kit::{Sync, User, Value, json};

use crate::home;

fn ids(rules: &Value, kind: &str) -> Vec<String> {
    let rules = rules["global"][kind].as_array().expect("rules of this kind");
    rules.iter().map(|rule| rule["rule_id"].as_str().expect("rule_id").to_owned()).collect()
}

async fn rules(user: &User) -> Value {
    user.get("/pushrules/").await.ok()
}

#[tokio::test]
async fn everybody_begins_with_the_default_rules() {
    let home = home().await;
    let alice = home.user("alice").await;
    let rules = rules(&alice).await;
    let overrides = ids(&rules, "override");
    assert_eq!(overrides[0], ".m.rule.master");
    for rule in [
        ".m.rule.suppress_notices",
        ".m.rule.invite_for_me",
        ".m.rule.member_event",
        ".m.rule.is_user_mention",
        ".m.rule.is_room_mention",
        ".m.rule.tombstone",
        ".m.rule.reaction",
        ".m.rule.room.server_acl",
        ".m.rule.suppress_edits",
    ] {
        assert!(overrides.iter().any(|found| found == rule), "{rule} is missing in {overrides:?}");
    }
    let underrides = ids(&rules, "underride");
    for rule in [
        ".m.rule.call",
        ".m.rule.encrypted_room_one_to_one",
        ".m.rule.room_one_to_one",
        ".m.rule.message",
        ".m.rule.encrypted",
    ] {
        assert!(underrides.iter().any(|found| found == rule), "{rule} is missing in {underrides:?}");
    }
    let master = rules["global"]["override"][0].clone();
    assert_eq!((&master["enabled"], &master["default"]), (&json!(false), &json!(true)));
}

#[tokio::test]
async fn a_rule_of_ones_own_is_kept_and_removed() {
    let home = home().await;
    let alice = home.user("alice").await;
    let path = "/pushrules/global/content/ping";
    alice.put(path, json!({ "pattern": "ping", "actions": ["notify"] })).await.ok();
    let rule = alice.get(path).await.ok();
    assert_eq!(rule["pattern"], "ping");
    assert_eq!(rule["enabled"], true);
    assert_eq!(rule["default"], false);
    alice.delete(path).await.ok();
    alice.get(path).await.expect(404, "M_NOT_FOUND");
    alice.delete(path).await.expect(404, "M_NOT_FOUND");
}

#[tokio::test]
async fn rules_stand_where_they_are_put() {
    let home = home().await;
    let alice = home.user("alice").await;
    let body = |pattern: &str| json!({ "pattern": pattern, "actions": ["notify"] });
    alice.put("/pushrules/global/content/one", body("one")).await.ok();
    alice.put("/pushrules/global/content/two?before=one", body("two")).await.ok();
    alice.put("/pushrules/global/content/three?after=two", body("three")).await.ok();
    let order: Vec<String> =
        ids(&rules(&alice).await, "content").into_iter().filter(|id| !id.starts_with('.')).collect();
    assert_eq!(order, ["two", "three", "one"]);
    let reply = alice.put("/pushrules/global/content/four?before=nothing", body("four")).await;
    reply.expect_any(&[400, 404], &["M_UNKNOWN", "M_NOT_FOUND", "M_INVALID_PARAM"]);
}

#[tokio::test]
async fn rules_can_be_switched_off_and_given_other_actions() {
    let home = home().await;
    let alice = home.user("alice").await;
    let path = "/pushrules/global/underride/.m.rule.message";
    alice.put(&format!("{path}/enabled"), json!({ "enabled": false })).await.ok();
    assert_eq!(alice.get(&format!("{path}/enabled")).await.ok(), json!({ "enabled": false }));
    let actions = json!({ "actions": ["notify", { "set_tweak": "highlight" }] });
    alice.put(&format!("{path}/actions"), actions.clone()).await.ok();
    assert_eq!(alice.get(&format!("{path}/actions")).await.ok(), actions);
    assert_eq!(alice.get(path).await.ok()["enabled"], false);
}

#[tokio::test]
async fn default_rules_cannot_be_deleted_and_their_names_not_be_taken() {
    let home = home().await;
    let alice = home.user("alice").await;
    let reply = alice.delete("/pushrules/global/underride/.m.rule.message").await;
    crate::refused(&reply);
    let body = json!({ "conditions": [], "actions": ["notify"] });
    let reply = alice.put("/pushrules/global/override/.m.mine", body).await;
    crate::refused(&reply);
    assert!(ids(&rules(&alice).await, "underride").iter().any(|id| id == ".m.rule.message"));
}

#[tokio::test]
async fn malformed_rules_are_refused() {
    let home = home().await;
    let alice = home.user("alice").await;
    let before = rules(&alice).await;
    for (path, body) in [
        ("/pushrules/global/content/x", json!({ "actions": ["notify"] })),
        ("/pushrules/global/content/x", json!({ "pattern": "x" })),
        ("/pushrules/global/underride/.m.rule.message/enabled", json!({ "enabled": "yes" })),
        ("/pushrules/global/nothing/x", json!({ "actions": [] })),
        ("/pushrules/device/content/x", json!({ "pattern": "x", "actions": [] })),
    ] {
        let reply = alice.put(path, body).await;
        crate::refused(&reply);
    }
    assert_eq!(rules(&alice).await, before);
}

#[tokio::test]
async fn sync_tells_of_changed_rules() {
    let home = home().await;
    let alice = home.user("alice").await;
    let first = alice.sync().await;
    assert!(first.account_data(None, "m.push_rules").is_some());
    alice.put("/pushrules/global/content/ping", json!({ "pattern": "ping", "actions": ["notify"] })).await.ok();
    let sync = alice.sync_until(Some(first.token()), |sync| sync.account_data(None, "m.push_rules").is_some()).await;
    let rules = sync.account_data(None, "m.push_rules").expect("rules");
    assert!(ids(rules, "content").iter().any(|id| id == "ping"));
}

fn counts(sync: &Sync, room: &str) -> (u64, u64) {
    let counts = &sync.joined(room)["unread_notifications"];
    (counts["notification_count"].as_u64().unwrap_or(99), counts["highlight_count"].as_u64().unwrap_or(99))
}

#[tokio::test]
async fn messages_of_others_count_until_they_are_read() {
    let home = home().await;
    let (alice, bob) = (home.user("alice").await, home.user("bob").await);
    let room = alice.room_with(&[&bob]).await;
    let read = bob.sync().await;
    assert_eq!(counts(&read, &room).1, 0);
    alice.text(&room, "one").await;
    let last = alice.text(&room, "two").await;
    bob.text(&room, "my own does not count").await;
    bob.receipt(&room, "m.read", &last, json!({})).await.ok();
    assert_eq!(counts(&bob.sync().await, &room), (0, 0));
    alice.text(&room, "three").await;
    alice.text(&room, "four").await;
    assert_eq!(counts(&bob.sync().await, &room), (2, 0));
}

#[tokio::test]
async fn a_mention_is_a_highlight() {
    let home = home().await;
    let (alice, bob) = (home.user("alice").await, home.user("bob").await);
    let room = alice.room_with(&[&bob]).await;
    let start = alice.text(&room, "start").await;
    bob.receipt(&room, "m.read", &start, json!({})).await.ok();
    let content = json!({ "msgtype": "m.text", "body": "hey", "m.mentions": { "user_ids": [bob.id] } });
    alice.send(&room, "m.room.message", content).await.ok();
    assert_eq!(counts(&bob.sync().await, &room), (1, 1));
}

#[tokio::test]
async fn notices_and_edits_do_not_notify() {
    let home = home().await;
    let (alice, bob) = (home.user("alice").await, home.user("bob").await);
    let room = alice.room_with(&[&bob]).await;
    let start = alice.text(&room, "start").await;
    bob.receipt(&room, "m.read", &start, json!({})).await.ok();
    alice.send(&room, "m.room.message", json!({ "msgtype": "m.notice", "body": "a bot" })).await.ok();
    let edit = json!({
        "msgtype": "m.text",
        "body": "* begin",
        "m.new_content": { "msgtype": "m.text", "body": "begin" },
        "m.relates_to": { "rel_type": "m.replace", "event_id": start },
    });
    alice.send(&room, "m.room.message", edit).await.ok();
    assert_eq!(counts(&bob.sync().await, &room), (0, 0));
}

#[tokio::test]
async fn a_muted_room_does_not_notify() {
    let home = home().await;
    let (alice, bob) = (home.user("alice").await, home.user("bob").await);
    let room = alice.room_with(&[&bob]).await;
    let start = alice.text(&room, "start").await;
    bob.receipt(&room, "m.read", &start, json!({})).await.ok();
    let mute = json!({
        "actions": [],
        "conditions": [{ "kind": "event_match", "key": "room_id", "pattern": room }],
    });
    bob.put(&format!("/pushrules/global/override/{}", stoa_kit::encode(&room)), mute).await.ok();
    alice.text(&room, "quiet").await;
    assert_eq!(counts(&bob.sync().await, &room), (0, 0));
}

#[tokio::test]
async fn the_rules_of_the_global_scope_are_those_of_all() {
    let home = home().await;
    let alice = home.user("alice").await;
    assert_eq!(alice.get("/pushrules/global/").await.ok(), alice.get("/pushrules/").await.ok()["global"]);
}
