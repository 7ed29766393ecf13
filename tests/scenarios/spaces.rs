//! Client-Server API, "Spaces" and room summaries: the tree of a space as far as one may look into it.

use stoa_kit::{User, Value, encode, json, unique};

use crate::{home, own};

const V1: &str = "/_matrix/client/v1";

async fn space(user: &User, name: &str) -> String {
    let options = json!({ "name": name, "preset": "public_chat", "creation_content": { "type": "m.space" } });
    user.create_room(options).await
}

async fn named(user: &User, name: &str, preset: &str) -> String {
    user.create_room(json!({ "name": name, "preset": preset })).await
}

async fn put_in(user: &User, space: &str, child: &str, more: Value) {
    let mut content = json!({ "via": [user.server()] });
    if let Some(more) = more.as_object() {
        content.as_object_mut().expect("an object").extend(more.clone());
    }
    user.set_state(space, "m.space.child", child, content).await.ok();
}

async fn hierarchy(user: &User, room: &str, query: &str) -> Value {
    user.get(&format!("{V1}/rooms/{}/hierarchy{query}", encode(room))).await.ok()
}

fn names(hierarchy: &Value) -> Vec<&str> {
    hierarchy["rooms"].as_array().expect("rooms").iter().filter_map(|room| room["name"].as_str()).collect()
}

#[tokio::test]
async fn a_space_is_walked_depth_first_in_its_order() {
    let home = home().await;
    let (alice, bob) = (home.user("alice").await, home.user("bob").await);
    let (top, below) = (space(&alice, "top").await, space(&alice, "below").await);
    let (first, last, deep) = (
        named(&alice, "first", "public_chat").await,
        named(&alice, "last", "public_chat").await,
        named(&alice, "deep", "public_chat").await,
    );
    put_in(&alice, &top, &below, json!({ "order": "b" })).await;
    put_in(&alice, &top, &first, json!({ "order": "a" })).await;
    put_in(&alice, &top, &last, json!({ "suggested": true })).await;
    put_in(&alice, &below, &deep, json!({})).await;
    let all = hierarchy(&bob, &top, "").await;
    assert_eq!(names(&all), ["top", "first", "below", "deep", "last"]);
    assert!(all["next_batch"].is_null(), "{all}");
    let root = &all["rooms"][0];
    assert_eq!((&root["room_type"], &root["join_rule"]), (&json!("m.space"), &json!("public")));
    assert_eq!(root["children_state"].as_array().map(Vec::len), Some(3));
    assert_eq!(all["rooms"][1]["children_state"], json!([]));
    assert_eq!(names(&hierarchy(&bob, &top, "?max_depth=0").await), ["top"]);
    assert_eq!(names(&hierarchy(&bob, &top, "?max_depth=1").await), ["top", "first", "below", "last"]);
    assert_eq!(names(&hierarchy(&bob, &top, "?suggested_only=true").await), ["top", "last"]);
}

#[tokio::test]
async fn a_tree_comes_in_pages() {
    let home = home().await;
    let alice = home.user("alice").await;
    let top = space(&alice, "top").await;
    for n in 0..4 {
        let room = named(&alice, &format!("room {n}"), "public_chat").await;
        put_in(&alice, &top, &room, json!({ "order": n.to_string() })).await;
    }
    let mut found = Vec::new();
    let mut page = hierarchy(&alice, &top, "?limit=2").await;
    loop {
        assert!(names(&page).len() <= 2);
        found.extend(names(&page).into_iter().map(str::to_owned));
        let Some(next) = page["next_batch"].as_str() else { break };
        page = hierarchy(&alice, &top, &format!("?limit=2&from={}", encode(next))).await;
    }
    assert_eq!(found, ["top", "room 0", "room 1", "room 2", "room 3"]);
    let first = hierarchy(&alice, &top, "?limit=2").await;
    let next = encode(first["next_batch"].as_str().expect("a next page"));
    let path = format!("{V1}/rooms/{}/hierarchy", encode(&top));
    for query in [
        format!("?from={next}&max_depth=1"),
        format!("?from={next}&suggested_only=true"),
        "?from=nowhere".to_owned(),
        "?limit=0".to_owned(),
        "?max_depth=-1".to_owned(),
    ] {
        let reply = alice.get(&format!("{path}{query}")).await;
        reply.expect_any(&[400], &["M_INVALID_PARAM", "M_UNKNOWN"]);
    }
}

#[tokio::test]
async fn a_space_that_contains_itself_is_shown_once() {
    let home = home().await;
    let alice = home.user("alice").await;
    let (one, two) = (space(&alice, "one").await, space(&alice, "two").await);
    for (outer, inner) in [(&one, &one), (&one, &two), (&two, &one)] {
        put_in(&alice, outer, inner, json!({})).await;
    }
    assert_eq!(names(&hierarchy(&alice, &one, "").await), ["one", "two"]);
}

#[tokio::test]
async fn only_rooms_are_shown_that_one_might_enter() {
    let home = home().await;
    let (alice, bob) = (home.user("alice").await, home.user("bob").await);
    let top = space(&alice, "top").await;
    let closed = named(&alice, "closed", "private_chat").await;
    let invited = named(&alice, "invited", "private_chat").await;
    let banned = named(&alice, "banned", "public_chat").await;
    let rules = json!({ "join_rule": "restricted", "allow": [{ "type": "m.room_membership", "room_id": top }] });
    let rules = json!([{ "type": "m.room.join_rules", "state_key": "", "content": rules }]);
    let members = alice.create_room(json!({ "name": "members", "initial_state": rules })).await;
    for room in [&closed, &invited, &banned, &members] {
        put_in(&alice, &top, room, json!({})).await;
    }
    put_in(&alice, &top, "!gone:example.org", json!({})).await;
    alice.set_state(&top, "m.space.child", "!taken-out:example.org", json!({})).await.ok();
    alice.invite(&invited, &bob).await.ok();
    alice.ban(&banned, &bob).await.ok();
    let seen = |hierarchy: &Value| {
        let mut names: Vec<String> = names(hierarchy).into_iter().map(str::to_owned).collect();
        names.sort();
        names
    };
    assert_eq!(seen(&hierarchy(&bob, &top, "").await), ["invited", "top"]);
    bob.join(&top).await.ok();
    let all = hierarchy(&bob, &top, "").await;
    assert_eq!(seen(&all), ["invited", "members", "top"]);
    let restricted = all["rooms"].as_array().expect("rooms").iter().find(|room| room["name"] == "members");
    assert_eq!(restricted.expect("it")["allowed_room_ids"], json!([top]));
    assert_eq!(seen(&hierarchy(&alice, &top, "").await), ["banned", "closed", "invited", "members", "top"]);
    let path = |room: &str| format!("{V1}/rooms/{}/hierarchy", encode(room));
    bob.get(&path(&closed)).await.expect(403, "M_FORBIDDEN");
    bob.get(&path("!nowhere:example.org")).await.expect(403, "M_FORBIDDEN");
}

#[tokio::test]
async fn what_is_no_space_leads_nowhere() {
    let home = home().await;
    let alice = home.user("alice").await;
    let (room, other) = (named(&alice, "room", "public_chat").await, named(&alice, "other", "public_chat").await);
    put_in(&alice, &room, &other, json!({})).await;
    assert_eq!(names(&hierarchy(&alice, &room, "").await), ["room"]);
}

#[tokio::test]
async fn a_room_is_summed_up_for_who_might_enter() {
    let home = home().await;
    let (alice, bob) = (home.user("alice").await, home.user("bob").await);
    let local = unique();
    let room = alice
        .create_room(json!({ "name": "Garden", "topic": "Plants", "preset": "public_chat", "room_alias_name": local }))
        .await;
    let path = |name: &str| format!("{V1}/room_summary/{}", encode(name));
    let alias = format!("#{local}:{}", alice.server());
    for name in [&room, &alias] {
        let summary = bob.get(&path(name)).await.ok();
        assert_eq!((&summary["room_id"], &summary["name"]), (&json!(room), &json!("Garden")));
        assert_eq!((&summary["membership"], &summary["num_joined_members"]), (&json!("leave"), &json!(1)));
        assert_eq!((&summary["room_version"], &summary["join_rule"]), (&json!("12"), &json!("public")));
        assert!(summary["children_state"].is_null());
    }
    assert_eq!(alice.get(&path(&room)).await.ok()["membership"], "join");
    let closed = named(&alice, "closed", "private_chat").await;
    bob.get(&path(&closed)).await.expect(404, "M_NOT_FOUND");
    bob.get(&path("#nowhere:localhost")).await.expect(404, "M_NOT_FOUND");
    if own().is_some() {
        let stranger = home.client().json(stoa_kit::Method::GET, &path(&room), None, None).await.ok();
        assert!(stranger["name"] == "Garden" && stranger["membership"].is_null(), "{stranger}");
        let unstable = format!("/_matrix/client/unstable/im.nheko.summary/summary/{}", encode(&room));
        assert_eq!(bob.get(&unstable).await.ok()["name"], "Garden");
    }
}
