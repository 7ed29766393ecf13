//! What users do: one act by chance.

use std::sync::Arc;

use parking_lot::Mutex;
use serde_json::{Value, json};

use crate::{
    chance::Dice,
    rooms::{Kind, SimRoom, event_id},
    user::{User, part},
};

/// What was acknowledged.
#[derive(Clone, Debug)]
pub(crate) struct Said {
    pub(crate) room: String,
    pub(crate) event: String,
    pub(crate) by: String,
    /// The text of a message, which nobody else writes.
    pub(crate) text: Option<String>,
    pub(crate) redacts: Option<String>,
}

/// Everything that was acknowledged, and texts of which nobody knows whether they were.
#[derive(Default)]
pub(crate) struct Log {
    pub(crate) said: Vec<Said>,
    pub(crate) unsure: Vec<String>,
    pub(crate) acts: u64,
}

#[derive(Clone, Copy)]
enum Act {
    Say,
    Topic,
    Levels,
    JoinRules,
    Ban,
    Unban,
    Kick,
    Invite,
    Join,
    Leave,
    Redact,
    Typing,
    Receipt,
    ToDevice,
    Knock,
    Keys,
    Sync,
    Messages,
}

const ACTS: [(u64, Act); 18] = [
    (30, Act::Say),
    (6, Act::Topic),
    (4, Act::Levels),
    (4, Act::JoinRules),
    (4, Act::Ban),
    (4, Act::Unban),
    (3, Act::Kick),
    (4, Act::Invite),
    (10, Act::Join),
    (4, Act::Leave),
    (6, Act::Redact),
    (3, Act::Typing),
    (4, Act::Receipt),
    (14, Act::ToDevice),
    (5, Act::Knock),
    (5, Act::Keys),
    (8, Act::Sync),
    (3, Act::Messages),
];

/// Who acts where, and with whom.
pub(crate) struct Stage {
    pub(crate) users: Vec<Arc<User>>,
    pub(crate) rooms: Vec<SimRoom>,
    pub(crate) log: Mutex<Log>,
}

/// One act, chosen; it is done when the future is.
pub(crate) fn choose(stage: &Arc<Stage>, dice: &mut Dice) -> impl Future<Output = ()> + Send + 'static + use<> {
    let number = {
        let mut log = stage.log.lock();
        log.acts += 1;
        log.acts
    };
    let act = dice.weighted(&ACTS);
    let me = dice.index(stage.users.len());
    let other = dice.index(stage.users.len());
    let room = dice.index(stage.rooms.len());
    let more = Dice::new(dice.next(), "act");
    let stage = stage.clone();
    async move { Scene { stage: &stage, number, me, other, room, dice: more }.play(act).await }
}

struct Scene<'a> {
    stage: &'a Stage,
    number: u64,
    me: usize,
    other: usize,
    room: usize,
    dice: Dice,
}

impl Scene<'_> {
    fn me(&self) -> &User {
        &self.stage.users[self.me]
    }

    fn other(&self) -> &User {
        &self.stage.users[self.other]
    }

    fn room(&self) -> &SimRoom {
        &self.stage.rooms[self.room]
    }

    /// Whether somebody is the first user of a server.
    fn is_anchor(&self, user: usize) -> bool {
        crate::rooms::anchors(&self.stage.users).iter().any(|anchor| anchor.id == self.stage.users[user].id)
    }

    /// Whether somebody must stay in the room.
    fn stays(&self, user: usize) -> bool {
        match self.room().kind {
            Kind::Steady => self.is_anchor(user),
            Kind::Quarrel => user == 0,
        }
    }

    async fn play(mut self, act: Act) {
        let room = part(self.room().id.as_str());
        let target = json!({ "user_id": self.other().id });
        match act {
            Act::Say => self.say().await,
            Act::Topic => {
                self.state("m.room.topic", json!({ "topic": format!("topic {}", self.number) })).await;
            }
            Act::Levels => self.levels().await,
            Act::JoinRules => self.join_rules().await,
            Act::Ban | Act::Kick if self.stays(self.other) => {}
            Act::Ban => drop(self.me().post(&format!("/rooms/{room}/ban"), &target).await),
            Act::Kick => drop(self.me().post(&format!("/rooms/{room}/kick"), &target).await),
            Act::Unban => drop(self.me().post(&format!("/rooms/{room}/unban"), &target).await),
            Act::Invite => drop(self.me().post(&format!("/rooms/{room}/invite"), &target).await),
            Act::Join => {
                let via = &self.other().node.name;
                drop(self.me().post(&format!("/join/{room}?via={via}"), &json!({})).await);
            }
            Act::Knock => {
                let via = &self.other().node.name;
                drop(self.me().post(&format!("/knock/{room}?via={via}"), &json!({})).await);
            }
            Act::Keys => self.me().change_keys(&self.stage.users).await,
            Act::Leave if self.stays(self.me) => {}
            Act::Leave => drop(self.me().post(&format!("/rooms/{room}/leave"), &json!({})).await),
            Act::Redact => self.redact().await,
            Act::Typing => {
                let path = format!("/rooms/{room}/typing/{}", part(&self.me().id));
                drop(self.me().put(&path, &json!({ "typing": true, "timeout": 20_000 })).await);
            }
            Act::Receipt => {
                if let Some(event) = self.some_event() {
                    let path = format!("/rooms/{room}/receipt/m.read/{}", part(&event));
                    drop(self.me().post(&path, &json!({})).await);
                }
            }
            Act::ToDevice => self.me().write_to(self.other(), self.number.is_multiple_of(2)).await,
            Act::Sync => drop(self.me().sync(self.number % 3 * 10_000).await),
            Act::Messages => drop(self.me().get(&format!("/rooms/{room}/messages?dir=b&limit=30")).await),
        }
    }

    /// Something that was acknowledged in the room, but no redaction: what one redacts cannot be told any more when it is
    /// redacted itself.
    fn some_event(&mut self) -> Option<String> {
        let log = self.stage.log.lock();
        let room = self.stage.rooms[self.room].id.as_str();
        let here: Vec<&Said> = log.said.iter().filter(|said| said.room == room && said.redacts.is_none()).collect();
        match here.is_empty() {
            true => None,
            false => Some(self.dice.pick(&here).event.clone()),
        }
    }

    fn keep(&self, said: &Value, text: Option<String>, redacts: Option<String>) {
        self.stage.log.lock().said.push(Said {
            room: self.room().id.to_string(),
            event: event_id(said),
            by: self.me().id.clone(),
            text,
            redacts,
        });
    }

    async fn say(&self) {
        let text = format!("message {}", self.number);
        let path = format!("/rooms/{}/send/m.room.message/t{}", part(self.room().id.as_str()), self.number);
        let body = json!({ "msgtype": "m.text", "body": text });
        match self.me().insist(&path, &body).await {
            Some((200, said)) => self.keep(&said, Some(text), None),
            Some(_) => {}
            None => self.stage.log.lock().unsure.push(text),
        }
    }

    async fn state(&self, kind: &str, content: Value) {
        let path = format!("/rooms/{}/state/{kind}/", part(self.room().id.as_str()));
        if let Some((200, said)) = self.me().put(&path, &content).await {
            self.keep(&said, None, None);
        }
    }

    /// Who may come in changes. In rooms of some versions those may who are in another room.
    async fn join_rules(&mut self) {
        let room = self.room();
        if room.kind == Kind::Steady {
            return;
        }
        let mut rules = vec!["public", "public", "public", "invite"];
        rules.extend(
            [(7, "knock"), (8, "restricted"), (8, "restricted"), (10, "knock_restricted")]
                .iter()
                .filter_map(|(since, rule)| (room.version() >= *since).then_some(*rule)),
        );
        let mut content = json!({ "join_rule": *self.dice.pick(&rules) });
        if content["join_rule"].as_str().is_some_and(|rule| rule.ends_with("restricted")) {
            let of = self.dice.pick(&self.stage.rooms).id.clone();
            content["allow"] = json!([{ "type": "m.room_membership", "room_id": of }]);
        }
        self.state("m.room.join_rules", content).await;
    }

    /// Somebody else gets another power.
    async fn levels(&mut self) {
        if self.room().kind == Kind::Steady || self.other == 0 {
            return;
        }
        let path = format!("/rooms/{}/state/m.room.power_levels/", part(self.room().id.as_str()));
        let Some((200, mut levels)) = self.me().get(&path).await else { return };
        let power = *self.dice.pick(&[0, 25, 50, 75, 100]);
        let other = self.other().id.clone();
        if let Some(users) = levels.get_mut("users").and_then(Value::as_object_mut) {
            users.insert(other, power.into());
        }
        self.state("m.room.power_levels", levels).await;
    }

    /// In steady rooms those do it who may whatever happens: whether others still may is seen differently on each side.
    async fn redact(&mut self) {
        if self.room().kind == Kind::Steady && !self.is_anchor(self.me) {
            return;
        }
        let Some(event) = self.some_event() else { return };
        let room = part(self.room().id.as_str());
        let path = format!("/rooms/{room}/redact/{}/t{}", part(&event), self.number);
        if let Some((200, said)) = self.me().insist(&path, &json!({})).await {
            self.keep(&said, None, Some(event));
        }
    }
}
