//! `/sync` against a plain model: random joins, leaves, bans, messages and state, and clients who know only what `/sync`
//! tells them, with timelines so short that gaps are the rule. In the end each client's copy of a room is the room, and
//! each event of the time in which the user was there was met once. `STOA_LONG=1` tries many more.

mod common;

use std::collections::{BTreeMap, BTreeSet};

use common::{Dice, Home, ids, list, token};
use serde_json::{Value, json};
use stoa_event::ids::OwnedRoomId;
use stoa_rooms::Action;
use stoa_view::Viewer;

type State = BTreeMap<(String, String), String>;

fn put(state: &mut State, events: &Value) {
    for event in list(events).iter().filter(|event| event["state_key"].is_string()) {
        let text = |name: &str| event[name].as_str().unwrap().to_owned();
        state.insert((text("type"), text("state_key")), text("event_id"));
    }
}

/// What a client knows of a room.
#[derive(Default)]
struct Copy {
    joined: bool,
    state: State,
    /// In the order in which they were told, the gaps closed.
    timeline: Vec<String>,
}

struct Client {
    who: Viewer,
    since: Option<String>,
    limit: usize,
    after: bool,
    lazy: bool,
    rooms: BTreeMap<String, Copy>,
    gaps: usize,
}

impl Client {
    /// Asks once; answers whether there was anything new.
    async fn follow(&mut self, home: &Home) -> bool {
        let filter = json!({ "room": {
            "timeline": { "limit": self.limit }, "state": { "lazy_load_members": self.lazy }, "include_leave": true
        } });
        let mut request = home.request(&self.who, self.since.as_deref(), filter);
        request.state_after = self.after.then_some("state_after");
        let sync = home.answer(request).await;
        for (kind, joined) in [("join", true), ("leave", false)] {
            for (id, room) in sync["rooms"][kind].as_object().into_iter().flatten() {
                self.take(home, id, room, joined).await;
            }
        }
        for (id, _) in sync["rooms"]["invite"].as_object().into_iter().flatten() {
            // Left and invited again between two answers: only the invite is told.
            self.rooms.remove(id);
        }
        let news = self.since.is_none() || sync.get("rooms").is_some();
        self.since = Some(token(&sync));
        news
    }

    async fn take(&mut self, home: &Home, id: &str, room: &Value, joined: bool) {
        let mut copy = self.rooms.remove(id).unwrap_or_default();
        let told = [&room["state"], &room["state_after"], &room["timeline"]];
        if told.iter().any(|part| list(&part["events"]).iter().any(|event| event["type"] == "m.room.create")) {
            // Who comes (back) is told everything anew.
            copy = Copy::default();
        }
        let timeline = &room["timeline"];
        let told = ids(&timeline["events"]);
        if joined && timeline["limited"] == true && !copy.timeline.is_empty() {
            self.gaps += 1;
            let missed = self.missed(home, id, timeline, &copy).await;
            copy.timeline.extend(missed);
        }
        for event in &told {
            assert!(!copy.timeline.contains(event), "{} was told {event} twice", self.who.user);
        }
        copy.timeline.extend(told);
        put(&mut copy.state, &room["state"]["events"]);
        match self.after {
            true => put(&mut copy.state, &room["state_after"]["events"]),
            false => put(&mut copy.state, &timeline["events"]),
        }
        copy.joined = joined;
        self.rooms.insert(id.to_owned(), copy);
    }

    /// What lies in a gap, oldest first.
    async fn missed(&self, home: &Home, id: &str, timeline: &Value, copy: &Copy) -> Vec<String> {
        let id = OwnedRoomId::try_from(id).unwrap();
        let (mut missed, mut from) = (Vec::new(), timeline["prev_batch"].as_str().map(str::to_owned));
        while let Some(at) = from {
            let page = home.page(&self.who, &id, Some(&at), true, 3).await;
            for event in ids(&page["chunk"]) {
                if copy.timeline.contains(&event) {
                    missed.reverse();
                    return missed;
                }
                missed.push(event);
            }
            from = page["end"].as_str().map(str::to_owned);
        }
        panic!("a gap without end");
    }

    /// Holds the copies against the rooms.
    async fn verify(&self, home: &Home) {
        for (id, copy) in self.rooms.iter().filter(|(_, copy)| copy.joined) {
            let room = OwnedRoomId::try_from(id.as_str()).unwrap();
            let whole: Value = serde_json::from_slice(&home.view.state(&self.who, &room).await.unwrap()).unwrap();
            let mut real = State::new();
            put(&mut real, &whole);
            let mut known = copy.state.clone();
            if self.lazy {
                // Not all members, but none that is not so any more.
                for (key, event) in known.iter().filter(|((kind, _), _)| kind == "m.room.member") {
                    assert_eq!(real.get(key), Some(event), "{key:?}");
                }
                known.retain(|(kind, _), _| kind != "m.room.member");
                real.retain(|(kind, _), _| kind != "m.room.member");
            }
            assert_eq!(known, real, "{} in {id}, state_after: {}", self.who.user, self.after);
            // The timeline is the end of the history, without holes.
            let mut history = ids(&home.page(&self.who, &room, None, true, 1000).await["chunk"]);
            history.truncate(copy.timeline.len());
            history.reverse();
            assert_eq!(copy.timeline, history, "{} in {id}", self.who.user);
        }
    }
}

/// Somebody does something; whether it is allowed is not this test's affair.
async fn act(home: &Home, dice: &mut Dice, people: &[Viewer], room: &OwnedRoomId, step: usize) {
    let (who, whom) = (&people[dice.below(people.len())], &people[1 + dice.below(people.len() - 1)]);
    match dice.below(20) {
        0..9 => {
            let content = json!({ "msgtype": "m.text", "body": step.to_string() });
            let _ = home.try_send(who, room, "m.room.message", None, content).await;
        }
        9..12 => {
            let key = format!("k{}", dice.below(3));
            let _ = home.try_send(who, room, "org.example.state", Some(&key), json!({ "step": step })).await;
        }
        12..15 => drop(home.act(Action::Join, who, who, room).await),
        // The first stays, so that the rooms go on.
        15..17 => drop(home.act(Action::Leave, whom, whom, room).await),
        17 => drop(home.act(Action::Kick, who, whom, room).await),
        18 => drop(home.act(if dice.below(3) == 0 { Action::Ban } else { Action::Unban }, who, whom, room).await),
        _ => drop(home.act(Action::Invite, who, whom, room).await),
    }
}

async fn history(seed: u64, steps: usize) {
    let mut dice = Dice::new(seed);
    let mut home = Home::open().await;
    let mut people = Vec::new();
    for n in 0..4 {
        people.push(home.user(&format!("user{n}")).await);
    }
    let rooms = [home.room(&people[0]).await, home.room(&people[0]).await];
    let mut clients = Vec::new();
    for (n, user) in people.iter().enumerate() {
        for (after, lazy) in [(false, false), (true, false), (false, true), (true, true)] {
            let who = Viewer { device: format!("{n} {after} {lazy}"), ..user.clone() };
            let limit = 1 + dice.below(5);
            clients.push(Client { who, since: None, limit, after, lazy, rooms: BTreeMap::new(), gaps: 0 });
        }
    }
    for step in 0..steps {
        let room = &rooms[dice.below(2)];
        act(&home, &mut dice, &people, room, step).await;
        if dice.below(2) == 0 {
            let n = dice.below(clients.len());
            clients[n].follow(&home).await;
        }
        if dice.below(60) == 0 {
            home = home.reopened().await;
        }
    }
    for client in &mut clients {
        let mut left = 20;
        while client.follow(&home).await {
            left -= 1;
            assert!(left > 0, "seed {seed}: news without end");
        }
        client.verify(&home).await;
    }
    let joined: BTreeSet<_> = clients.iter().flat_map(|client| client.rooms.values()).map(|copy| copy.joined).collect();
    assert!(joined.contains(&true));
    assert!(clients.iter().any(|client| client.gaps > 0), "seed {seed}: a history without gaps proves little");
}

#[tokio::test]
async fn who_follows_sync_ends_with_the_room_as_it_is() {
    let (seeds, steps) = if std::env::var_os("STOA_LONG").is_some() { (200, 600) } else { (6, 150) };
    for seed in 1..=seeds {
        history(seed, steps).await;
    }
}
