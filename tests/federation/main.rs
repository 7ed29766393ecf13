//! Two homeservers share rooms, told by their users: Alice is on the one, Bob on the other, and only the Client-Server
//! API is spoken to either. One module a chapter; every scenario is played by Stoa and Stoa, and with Synapse on each side.
//!
//! Synapse takes part where `STOA_SYNAPSE` names the virtual environment that it is installed in (`scripts/federation`
//! does that). What two Synapses do is only asked to check a scenario itself: `scripts/federation --check`.

mod directory;
mod edus;
mod history;
mod joining;
mod keys;
mod media;
mod membership;
mod messages;
mod outages;
mod profile;
mod search;
mod spaces;
mod upgrade;

use std::time::Duration;

use stoa_kit::{Ca, Home, Launch, Link, User, Value, json};
use tokio::time::{Instant, sleep};

/// How long something may take to arrive.
const PATIENCE: Duration = Duration::from_secs(20);

/// Who made a homeserver.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Make {
    Stoa,
    Synapse,
}

/// A homeserver and the line on which others reach it.
struct Place {
    home: Home,
    link: Link,
}

/// Alice's homeserver and Bob's.
struct Two {
    a: Place,
    b: Place,
}

impl Two {
    /// Alice on the one, Bob on the other.
    async fn users(&self) -> (User, User) {
        (self.a.home.user("alice").await, self.b.home.user("bob").await)
    }
}

impl Drop for Place {
    #[expect(clippy::print_stderr, reason = "what a failed test has to say")]
    fn drop(&mut self) {
        if std::thread::panicking() {
            let how = self.home.how();
            eprintln!("--- the last words of {} in {}\n{}", how.server_name(), how.folder().display(), how.log());
        }
    }
}

/// Plays a scenario between two homeservers. Without Synapse there is nothing to play where it has a part.
async fn play(a: Make, b: Make, scenario: impl AsyncFnOnce(Two)) {
    let synapse = std::env::var("STOA_SYNAPSE").ok();
    if synapse.is_none() && [a, b].contains(&Make::Synapse) {
        return;
    }
    let ca = Ca::shared();
    let start = async |make: Make| {
        let mut launch = match (make, &synapse) {
            (Make::Synapse, Some(venv)) => Launch::synapse(venv, &ca),
            _ => Launch::federating(binary(), &ca),
        };
        let link = launch.behind_link().await;
        Place { home: Home::launch(launch).await, link }
    };
    let (a, b) = tokio::join!(start(a), start(b));
    scenario(Two { a, b }).await;
}

/// The tests of a scenario, one for each pair of homeservers. `not_to_synapse` leaves out those with Bob on Synapse and
/// `stoa_only` all with Synapse, which then lacks what the scenario is about. What Stoa cannot do yet is ignored: in all
/// pairs (`ignore`), in those with Alice or with Bob on it, in those with Synapse, or in one of them.
macro_rules! between {
    ($scenario:ident $(, ignore = $why:literal)?) => {
        mod $scenario {
            crate::between!(@ $scenario stoa_stoa Stoa Stoa $([$why])?);
            crate::between!(@ $scenario stoa_synapse Stoa Synapse $([$why])?);
            crate::between!(@ $scenario synapse_stoa Synapse Stoa $([$why])?);
            crate::between!(@ $scenario synapse_synapse Synapse Synapse ["checks the scenario, not Stoa"]);
        }
    };
    ($scenario:ident, not_to_synapse $(, ignore = $why:literal)?) => {
        mod $scenario {
            crate::between!(@ $scenario stoa_stoa Stoa Stoa $([$why])?);
            crate::between!(@ $scenario synapse_stoa Synapse Stoa $([$why])?);
        }
    };
    ($scenario:ident, stoa_only $(, ignore = $why:literal)?) => {
        mod $scenario {
            crate::between!(@ $scenario stoa_stoa Stoa Stoa $([$why])?);
        }
    };
    ($scenario:ident, ignore_from_stoa = $why:literal) => {
        mod $scenario {
            crate::between!(@ $scenario stoa_stoa Stoa Stoa [$why]);
            crate::between!(@ $scenario stoa_synapse Stoa Synapse [$why]);
            crate::between!(@ $scenario synapse_stoa Synapse Stoa);
            crate::between!(@ $scenario synapse_synapse Synapse Synapse ["checks the scenario, not Stoa"]);
        }
    };
    ($scenario:ident, ignore_to_stoa = $why:literal) => {
        mod $scenario {
            crate::between!(@ $scenario stoa_stoa Stoa Stoa [$why]);
            crate::between!(@ $scenario stoa_synapse Stoa Synapse);
            crate::between!(@ $scenario synapse_stoa Synapse Stoa [$why]);
            crate::between!(@ $scenario synapse_synapse Synapse Synapse ["checks the scenario, not Stoa"]);
        }
    };
    ($scenario:ident, ignore_with_synapse = $why:literal) => {
        mod $scenario {
            crate::between!(@ $scenario stoa_stoa Stoa Stoa);
            crate::between!(@ $scenario stoa_synapse Stoa Synapse [$why]);
            crate::between!(@ $scenario synapse_stoa Synapse Stoa [$why]);
            crate::between!(@ $scenario synapse_synapse Synapse Synapse ["checks the scenario, not Stoa"]);
        }
    };
    ($scenario:ident, ignore_stoa_synapse = $why:literal) => {
        mod $scenario {
            crate::between!(@ $scenario stoa_stoa Stoa Stoa);
            crate::between!(@ $scenario stoa_synapse Stoa Synapse [$why]);
            crate::between!(@ $scenario synapse_stoa Synapse Stoa);
            crate::between!(@ $scenario synapse_synapse Synapse Synapse ["checks the scenario, not Stoa"]);
        }
    };
    ($scenario:ident, ignore_synapse_stoa = $why:literal) => {
        mod $scenario {
            crate::between!(@ $scenario stoa_stoa Stoa Stoa);
            crate::between!(@ $scenario stoa_synapse Stoa Synapse);
            crate::between!(@ $scenario synapse_stoa Synapse Stoa [$why]);
            crate::between!(@ $scenario synapse_synapse Synapse Synapse ["checks the scenario, not Stoa"]);
        }
    };
    (@ $scenario:ident $name:ident $a:ident $b:ident $([$why:literal])?) => {
        #[tokio::test]
        $(#[ignore = $why])?
        async fn $name() {
            crate::play(crate::Make::$a, crate::Make::$b, super::$scenario).await;
        }
    };
}
use between;

/// The binary under test.
fn binary() -> String {
    let built = option_env!("CARGO_BIN_EXE_stoa").map(str::to_owned);
    std::env::var("STOA_BIN").ok().or(built).expect("the binary stoa: built by cargo, or named by STOA_BIN")
}

/// Asks again and again until there is an answer.
async fn eventually<T>(what: &str, mut ask: impl AsyncFnMut() -> Option<T>) -> T {
    let start = Instant::now();
    loop {
        if let Some(answer) = ask().await {
            return answer;
        }
        assert!(start.elapsed() < PATIENCE, "waited in vain for this: {what}");
        sleep(Duration::from_millis(50)).await;
    }
}

/// The membership of somebody as somebody sees it; null if there is none.
async fn membership(seen_by: &User, room: &str, of: &User) -> Value {
    let reply = seen_by.state(room, "m.room.member", &of.id).await;
    if reply.status == 200 { reply["membership"].clone() } else { Value::Null }
}

/// Waits until somebody sees this membership of somebody.
async fn becomes(seen_by: &User, room: &str, of: &User, wanted: &str) {
    let what = format!("{} sees {wanted} of {}", seen_by.id, of.id);
    eventually(&what, async || (membership(seen_by, room, of).await == wanted).then_some(())).await;
}

/// Waits until somebody sees this event.
async fn arrives(at: &User, room: &str, event: &str) -> Value {
    let what = format!("{event} at {}", at.id);
    let found = async || {
        let reply = at.event(room, event).await;
        (reply.status == 200).then_some(reply.json)
    };
    eventually(&what, found).await
}

/// Waits until somebody sees this state.
async fn has_state(at: &User, room: &str, kind: &str, key: &str, wanted: Value) {
    let what = format!("{kind} {key} is {wanted} for {}", at.id);
    let same = async || {
        let reply = at.state(room, kind, key).await;
        (reply.status == 200 && reply.json == wanted).then_some(())
    };
    eventually(&what, same).await;
}

/// Waits for an invite and joins, until clients see the room (Synapse shows it to most of them when it has the whole state).
async fn accept(user: &User, room: &str) {
    let sync = user.sync_until(None, |sync| !sync.invited(room).is_null()).await;
    user.join(room).await.ok();
    user.sync_until(Some(sync.token()), |sync| !sync.joined(room).is_null()).await;
}

/// A private room of one server, in which somebody of another one is too.
async fn shared_room(alice: &User, bob: &User) -> String {
    let room = alice.create_room(json!({ "preset": "private_chat", "invite": [bob.id] })).await;
    accept(bob, &room).await;
    becomes(alice, &room, bob, "join").await;
    room
}

/// A public room with a new alias.
async fn aliased_room(alice: &User, mut options: Value) -> (String, String) {
    let local = stoa_kit::unique();
    options["room_alias_name"] = json!(local);
    if options["preset"].is_null() {
        options["preset"] = json!("public_chat");
    }
    let room = alice.create_room(options).await;
    (room, format!("#{local}:{}", alice.server()))
}
