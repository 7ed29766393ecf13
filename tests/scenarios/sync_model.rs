//! `/sync` against a plain model: random histories of several users, and clients that know only what `/sync` tells them
//! (with timelines of a few events, so that gaps are the rule). In the end their copies must be the rooms.
//!
//! A failure names its seed; `STOA_SEED=n` repeats it. `STOA_SYNC_RUNS` and `STOA_SYNC_STEPS` make the long form.

use stoa_kit::{Dice, Home, Replica, User, Value, json};

use crate::home;

fn setting(name: &str, default: usize) -> usize {
    std::env::var(name).ok().and_then(|value| value.parse().ok()).unwrap_or(default)
}

/// The people, the rooms, and what may be redacted.
struct World {
    users: Vec<User>,
    rooms: Vec<String>,
    messages: Vec<(usize, String)>,
}

impl World {
    async fn new(home: &Home, people: usize, rooms: usize) -> Self {
        let mut users = Vec::new();
        for n in 0..people {
            users.push(home.user(&format!("user{n}")).await);
        }
        let mut ids = Vec::new();
        for _ in 0..rooms {
            let power = json!({ "state_default": 0, "redact": 0, "kick": 0, "invite": 0, "ban": 50 });
            let options = json!({ "preset": "public_chat", "power_level_content_override": power });
            ids.push(users[0].create_room(options).await);
        }
        Self { users, rooms: ids, messages: Vec::new() }
    }

    /// Somebody does something; whether it is allowed is the server's affair.
    async fn act(&mut self, dice: &mut Dice, step: usize) {
        let room = dice.below(self.rooms.len());
        let (id, user, other) = (&self.rooms[room], dice.pick(&self.users), dice.pick(&self.users));
        let reply = match dice.below(100) {
            0..45 => {
                let content = json!({ "msgtype": "m.text", "body": format!("step {step}") });
                let reply = user.send(id, "m.room.message", content).await;
                if reply.status == 200 {
                    self.messages.push((room, reply.event_id()));
                    return;
                }
                reply
            }
            45..58 => user.join(id).await,
            58..66 => user.leave(id).await,
            66..69 => user.kick(id, other).await,
            69..71 => self.users[0].ban(id, other).await,
            71..74 => self.users[0].unban(id, other).await,
            74..77 => user.invite(id, other).await,
            77..88 => {
                let key = format!("k{}", dice.below(4));
                user.set_state(id, "org.example.state", &key, json!({ "step": step })).await
            }
            88..91 => user.set_state(id, "m.room.topic", "", json!({ "topic": step.to_string() })).await,
            91..93 => {
                let content = json!({ "membership": "join", "displayname": format!("name {step}") });
                let member = user.state(id, "m.room.member", &user.id).await;
                if member.status != 200 || member["membership"] != "join" {
                    return;
                }
                user.set_state(id, "m.room.member", &user.id, content).await
            }
            _ => {
                let Some((room, event)) = self.pick_message(dice) else { return };
                user.redact(&self.rooms[room], &event).await
            }
        };
        let calm = reply.status == 200 || (400..500).contains(&reply.status);
        assert!(calm, "step {step}: {reply:?}");
    }

    fn pick_message(&self, dice: &mut Dice) -> Option<(usize, String)> {
        (!self.messages.is_empty()).then(|| dice.pick(&self.messages).clone())
    }
}

/// One history: each user has one or two clients, which sync whenever the dice say so.
async fn run(home: &Home, seed: u64, steps: usize) {
    let mut dice = Dice::new(seed);
    let mut world = World::new(home, 4, 2).await;
    let mut clients = Vec::new();
    for user in &world.users {
        clients.push(Replica::new(user, 1 + dice.below(6)));
        clients.push(Replica::new(user, 2));
    }
    let versions = home.get("/_matrix/client/versions").await.ok();
    let knows = versions["versions"].as_array().is_some_and(|list| list.contains(&json!("v1.16")));
    if crate::strict() || knows {
        for user in &world.users {
            clients.push(Replica::new(user, 3).with_state_after());
        }
    }
    if slides(home).await {
        for user in &world.users {
            clients.push(Replica::new(user, 1 + dice.below(4)).with_sliding_sync());
        }
    }
    for step in 0..steps {
        world.act(&mut dice, step).await;
        if dice.chance(30) {
            let client = dice.below(clients.len());
            // Rooms slide out of the window and come back.
            clients[client].window = dice.chance(60).then_some(1);
            clients[client].step(0).await;
        }
    }
    for client in &mut clients {
        client.window = None;
        client.catch_up().await;
        client.verify().await;
    }
    let gaps: usize = clients.iter().flat_map(|client| client.rooms.values()).map(|room| room.gaps).sum();
    assert!(gaps > 0, "a history without gaps proves little");
}

/// Whether the homeserver has sliding sync.
async fn slides(home: &Home) -> bool {
    let versions = home.get("/_matrix/client/versions").await.ok();
    versions["unstable_features"]["org.matrix.simplified_msc3575"] == true
}

#[tokio::test]
async fn a_client_that_follows_sync_ends_with_the_room_as_it_is() {
    let home = home().await;
    let first = setting("STOA_SEED", 1);
    for seed in first..first + setting("STOA_SYNC_RUNS", 3) {
        eprintln_seed(seed);
        run(&home, seed as u64, setting("STOA_SYNC_STEPS", 120)).await;
    }
}

/// Tests print only when they fail: then the last seed is the one to repeat.
#[expect(clippy::print_stderr, reason = "the seed belongs to the message of a failing test")]
fn eprintln_seed(seed: usize) {
    eprintln!("STOA_SEED={seed}");
}

#[tokio::test]
async fn clients_that_sync_while_others_write_at_once_agree_too() {
    let home = home().await;
    let (alice, bob, carol) = (home.user("alice").await, home.user("bob").await, home.user("carol").await);
    let room = alice.room_with(&[&bob, &carol]).await;
    let write = async |user: &User| {
        for n in 0..25 {
            user.text(&room, &format!("{} {n}", user.localpart())).await;
            if n % 5 == 0 {
                let mood = json!({ "membership": "join", "displayname": format!("{n}") });
                user.set_state(&room, "m.room.member", &user.id, mood).await.ok();
            }
        }
    };
    let mut follower = Replica::new(&carol, 4);
    let follow = async {
        let mut told: Vec<Value> = Vec::new();
        for _ in 0..60 {
            let sync = follower.step(200).await;
            told.extend(sync.timeline(&room).into_iter().cloned());
            if sync.quiet() && told.len() > 40 {
                break;
            }
        }
    };
    tokio::join!(write(&alice), write(&bob), follow);
    follower.catch_up().await;
    follower.verify().await;
}
