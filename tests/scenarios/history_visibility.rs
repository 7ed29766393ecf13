//! Client-Server API, "Room History Visibility": who sees what was said before they came and after they left.

use stoa_kit::{Home, Reply, User, encode, json};

use crate::home;

struct Story {
    alice: User,
    bob: User,
    room: String,
    ids: Vec<(&'static str, String)>,
}

/// Alice speaks before Bob is invited, while he is invited, while he is there, and after he left.
async fn story(home: &Home, visibility: &str) -> Story {
    let (alice, bob) = (home.user("alice").await, home.user("bob").await);
    let visibility = json!({ "history_visibility": visibility });
    let state = json!([{ "type": "m.room.history_visibility", "state_key": "", "content": visibility }]);
    let room = alice.create_room(json!({ "preset": "private_chat", "initial_state": state })).await;
    let mut ids = vec![("before", alice.text(&room, "before").await)];
    alice.invite(&room, &bob).await.ok();
    ids.push(("invited", alice.text(&room, "invited").await));
    bob.join(&room).await.ok();
    ids.push(("joined", alice.text(&room, "joined").await));
    bob.leave(&room).await.ok();
    ids.push(("left", alice.text(&room, "left").await));
    Story { alice, bob, room, ids }
}

/// Synapse shows single events of shared history only to those who are in the room now.
fn fits(reply: &Reply, seen: bool) -> bool {
    (reply.status == 200) == seen || (seen && !crate::strict())
}

impl Story {
    /// Holds every way of reading against what the user may see.
    async fn sees(&self, user: &User, expected: &[&str]) {
        let bodies: Vec<String> = self.bodies(user).await;
        assert_eq!(bodies, expected, "/messages");
        for (body, id) in &self.ids {
            let seen = expected.contains(body);
            let event = user.event(&self.room, id).await;
            assert!(fits(&event, seen), "/event {body}: {event:?}");
            let context = user.get(&format!("/rooms/{}/context/{}?limit=20", self.room, encode(id))).await;
            assert!(fits(&context, seen), "/context {body}: {context:?}");
            if context.status == 200 {
                let text = context.ok().to_string();
                for (other, other_id) in &self.ids {
                    assert!(
                        expected.contains(other) || !text.contains(other_id.as_str()),
                        "/context {body} shows {other}"
                    );
                }
            }
        }
    }

    async fn bodies(&self, user: &User) -> Vec<String> {
        let mut history = user.whole_history(&self.room).await;
        history.reverse();
        history.iter().filter_map(|event| event["content"]["body"].as_str().map(str::to_owned)).collect()
    }
}

#[tokio::test]
async fn shared_history_is_for_all_who_were_ever_there() {
    let home = home().await;
    let story = story(&home, "shared").await;
    story.sees(&story.alice, &["before", "invited", "joined", "left"]).await;
    story.sees(&story.bob, &["before", "invited", "joined"]).await;
}

#[tokio::test]
async fn invited_history_begins_with_the_invite() {
    let home = home().await;
    let story = story(&home, "invited").await;
    story.sees(&story.alice, &["before", "invited", "joined", "left"]).await;
    story.sees(&story.bob, &["invited", "joined"]).await;
}

#[tokio::test]
async fn joined_history_is_for_who_is_there() {
    let home = home().await;
    let story = story(&home, "joined").await;
    story.sees(&story.alice, &["before", "invited", "joined", "left"]).await;
    story.sees(&story.bob, &["joined"]).await;
}

#[tokio::test]
async fn world_readable_history_is_for_everybody() {
    let home = home().await;
    let story = story(&home, "world_readable").await;
    let stranger = home.user("stranger").await;
    for (body, id) in &story.ids {
        assert_eq!(stranger.event(&story.room, id).await.ok()["content"]["body"], *body);
    }
    assert_eq!(story.bodies(&stranger).await, ["before", "invited", "joined", "left"]);
    stranger.state(&story.room, "m.room.create", "").await.ok();
}

#[tokio::test]
async fn who_comes_back_sees_what_was_shared_meanwhile() {
    let home = home().await;
    for (visibility, expected) in [
        ("shared", vec!["before", "invited", "joined", "left", "back"]),
        ("invited", vec!["invited", "joined", "back"]),
        ("joined", vec!["joined", "back"]),
    ] {
        let mut story = story(&home, visibility).await;
        story.alice.invite(&story.room, &story.bob).await.ok();
        story.bob.join(&story.room).await.ok();
        story.ids.push(("back", story.alice.text(&story.room, "back").await));
        story.sees(&story.bob, &expected).await;
    }
}

#[tokio::test]
async fn a_change_counts_for_what_is_said_after_it() {
    let home = home().await;
    let (alice, bob) = (home.user("alice").await, home.user("bob").await);
    let room = alice.create_room(json!({ "preset": "private_chat" })).await;
    let shared = alice.text(&room, "shared").await;
    alice.set_state(&room, "m.room.history_visibility", "", json!({ "history_visibility": "joined" })).await.ok();
    let joined = alice.text(&room, "joined").await;
    alice.invite(&room, &bob).await.ok();
    bob.join(&room).await.ok();
    let now = alice.text(&room, "now").await;
    bob.event(&room, &shared).await.ok();
    bob.event(&room, &joined).await.expect_any(&[403, 404], &["M_NOT_FOUND", "M_FORBIDDEN"]);
    bob.event(&room, &now).await.ok();
    let sync = bob.sync().await;
    assert!(!sync.0.to_string().contains(&joined));
}

#[tokio::test]
async fn sync_shows_no_more_than_messages() {
    let home = home().await;
    let (alice, bob) = (home.user("alice").await, home.user("bob").await);
    let state = json!([{ "type": "m.room.history_visibility", "content": { "history_visibility": "joined" } }]);
    let room = alice.create_room(json!({ "preset": "public_chat", "initial_state": state })).await;
    let token = bob.sync().await.token().to_owned();
    alice.text(&room, "before").await;
    bob.join(&room).await.ok();
    alice.text(&room, "after").await;
    assert_eq!(bob.sync_since(&token).await.bodies(&room), ["after"]);
    assert_eq!(bob.sync().await.bodies(&room), ["after"]);
}

#[tokio::test]
async fn strangers_and_the_invited_see_nothing_of_a_private_room() {
    let home = home().await;
    let (alice, bob, carol) = (home.user("alice").await, home.user("bob").await, home.user("carol").await);
    let room = alice.create_room(json!({ "preset": "private_chat", "name": "Secret" })).await;
    let id = alice.text(&room, "secret").await;
    alice.invite(&room, &bob).await.ok();
    for outsider in [&bob, &carol] {
        outsider.messages(&room, "dir=b").await.expect(403, "M_FORBIDDEN");
        outsider.event(&room, &id).await.expect_any(&[403, 404], &["M_FORBIDDEN", "M_NOT_FOUND"]);
        let context = outsider.get(&format!("/rooms/{room}/context/{}", encode(&id))).await;
        context.expect_any(&[403, 404], &["M_FORBIDDEN", "M_NOT_FOUND"]);
        outsider.get(&format!("/rooms/{room}/joined_members")).await.expect(403, "M_FORBIDDEN");
        let sync = outsider.sync().await.0.to_string();
        assert!(!sync.contains(&id));
    }
}
