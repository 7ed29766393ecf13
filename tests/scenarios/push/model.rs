//! A phone, `/sync` and `/notifications` tell the same, whatever somebody mutes, ignores and reads, and in whatever order.

use std::collections::BTreeSet;

use stoa_kit::{Dice, Gateway, Home, User, Value, encode, json};

use super::{launch, set_pusher};

/// How many things happen: the short form here, the long form with `STOA_LONG=1`.
fn steps() -> usize {
    if std::env::var("STOA_LONG").is_ok() { 500 } else { 50 }
}

/// What Bob is to be told of, by what was done.
#[derive(Default)]
struct Model {
    muted: BTreeSet<usize>,
    /// Writers whom Bob ignores.
    ignored: BTreeSet<usize>,
    /// Whether he wants to hear of mentions only.
    mentions_only: bool,
    /// Messages that are to be told, in order.
    told: Vec<String>,
}

struct Scene {
    bob: User,
    writers: Vec<User>,
    rooms: Vec<String>,
    /// Where Bob is always mentioned, so that what was before it is known to have been looked at.
    quay: String,
    gateway: Gateway,
    model: Model,
    last: Vec<Option<String>>,
}

impl Scene {
    async fn new(home: &Home) -> Scene {
        let bob = home.user("bob").await;
        let writers = vec![home.user("alice").await, home.user("carol").await];
        let mut rooms = Vec::new();
        for _ in 0..3 {
            rooms.push(writers[0].room_with(&[&bob, &writers[1]]).await);
        }
        let dave = home.user("dave").await;
        let quay = dave.room_with(&[&bob, &writers[0]]).await;
        let gateway = Gateway::start().await;
        set_pusher(&bob, &gateway.url(), json!({ "format": "event_id_only" })).await;
        let last = vec![None; rooms.len()];
        let mut scene =
            Scene { bob, writers: [writers, vec![dave]].concat(), rooms, quay, gateway, model: Model::default(), last };
        // The invites are over.
        scene.agree().await;
        scene.model.told = scene.gateway.events();
        scene
    }

    async fn say(&mut self, room: usize, writer: usize, mention: bool) {
        let users = if mention { vec![self.bob.id.clone()] } else { Vec::new() };
        let content = json!({ "msgtype": "m.text", "body": "hey", "m.mentions": { "user_ids": users } });
        let id = self.writers[writer].send(&self.rooms[room], "m.room.message", content).await.event_id();
        let Model { muted, ignored, mentions_only, told } = &mut self.model;
        if !muted.contains(&room) && !ignored.contains(&writer) && (mention || !*mentions_only) {
            told.push(id.clone());
        }
        self.last[room] = Some(id);
    }

    async fn mute(&mut self, room: usize) {
        let id = &self.rooms[room];
        let path = format!("/pushrules/global/override/{}", encode(id));
        if self.model.muted.remove(&room) {
            self.bob.delete(&path).await.ok();
            return;
        }
        self.model.muted.insert(room);
        let rule = json!({ "actions": [], "conditions": [{ "kind": "event_match", "key": "room_id", "pattern": id }] });
        self.bob.put(&path, rule).await.ok();
    }

    async fn ignore(&mut self, writer: usize) {
        if !self.model.ignored.remove(&writer) {
            self.model.ignored.insert(writer);
        }
        let ids = self.model.ignored.iter().map(|it| (self.writers[*it].id.clone(), json!({})));
        let content = json!({ "ignored_users": ids.collect::<serde_json::Map<_, _>>() });
        self.bob.set_account_data(None, "m.ignored_user_list", content).await.ok();
    }

    async fn only_mentions(&mut self) {
        self.model.mentions_only = !self.model.mentions_only;
        let body = json!({ "enabled": !self.model.mentions_only });
        self.bob.put("/pushrules/global/underride/.m.rule.message/enabled", body).await.ok();
    }

    async fn read(&mut self, room: usize, private: bool) {
        let Some(last) = &self.last[room] else { return };
        let kind = if private { "m.read.private" } else { "m.read" };
        self.bob.receipt(&self.rooms[room], kind, last, json!({})).await.ok();
    }

    /// What was told so far is what the model says, and its number is that of `/sync` and of `/notifications`.
    async fn agree(&mut self) {
        let dave = self.writers.last().expect("dave");
        let mention = json!({ "msgtype": "m.text", "body": "hey", "m.mentions": { "user_ids": [self.bob.id] } });
        let id = dave.send(&self.quay, "m.room.message", mention).await.event_id();
        let pushed = self.gateway.event(&id).await;
        let told = pushed.notification()["counts"]["unread"].as_u64().unwrap_or(0);
        let sync = self.bob.sync().await;
        let count =
            |room: &String| sync.joined(room)["unread_notifications"]["notification_count"].as_u64().unwrap_or(0);
        let expected: u64 = self.rooms.iter().chain([&self.quay]).map(count).sum();
        assert_eq!(told, expected, "the phone and /sync count the same");
        let list = self.bob.get("/notifications?limit=100").await.ok();
        let list = list["notifications"].as_array().cloned().unwrap_or_default();
        let unread = list.iter().filter(|it| it["read"] == false).count();
        assert!(list.len() == 100 || unread as u64 == expected, "{unread} of the list are unread, and {expected} are");
        self.model.told.push(id);
    }
}

#[tokio::test]
async fn phone_sync_and_list_agree() {
    let Some(launch) = launch() else { return };
    let home = Home::launch(launch).await;
    let seed = std::env::var("STOA_SEED").ok().and_then(|seed| seed.parse().ok()).unwrap_or(11);
    let mut dice = Dice::new(seed);
    let mut scene = Scene::new(&home).await;
    for step in 0..steps() {
        let (room, writer) = (dice.below(3), dice.below(2));
        match dice.below(10) {
            0..5 => scene.say(room, writer, dice.chance(40)).await,
            5 => scene.mute(room).await,
            6 => scene.ignore(writer).await,
            7 => scene.only_mentions().await,
            _ => scene.read(room, dice.chance(50)).await,
        }
        // Rules hold from when they are set, for what comes afterwards: what came before is looked at first.
        scene.agree().await;
        let told: Vec<Value> = scene.gateway.events().into_iter().map(Value::from).collect();
        let expected: Vec<Value> = scene.model.told.iter().cloned().map(Value::from).collect();
        assert_eq!(told, expected, "after step {step} of seed {seed}");
    }
}
