//! Joining a large room of another server: until the first message, until all members are known, and how much memory it
//! takes. The room is on Stoa; who joins is Stoa, and Synapse where it is given.

use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::Duration;

use serde::Serialize;
use stoa_kit::{Ca, Crowd, Home, Launch, Stranger, User, encode, json};
use tokio::time::{Instant, sleep};

use crate::args::Join;
use crate::meter;

/// How often the memory is looked at.
const LOOK: Duration = Duration::from_millis(25);
/// How long anything may take.
const PATIENCE: Duration = Duration::from_secs(1800);

/// What one join cost.
#[derive(Serialize)]
pub struct Joined {
    name: String,
    members: usize,
    messages: usize,
    join_s: f64,
    first_message_s: f64,
    whole_s: f64,
    cpu_s: f64,
    memory_before: u64,
    memory_peak: u64,
    memory_after: u64,
}

/// Makes the room and joins it.
///
/// # Errors
/// What did not come out right.
pub async fn run(args: &Join) -> Result<Vec<Joined>, String> {
    let ca = Ca::shared();
    let host = Home::launch(Launch::federating(&args.stoa, &ca)).await;
    let crowd = Stranger::start(&ca, 7).await;
    let alice = host.user("alice").await;
    let room = alice.create_room(json!({ "preset": "public_chat", "name": "A large room" })).await;
    let begin = Instant::now();
    let mut people = Crowd::enter(&crowd, &host, &room).await;
    people.join(args.members).await;
    people.talk(args.messages).await;
    say(&format!("{} members and {} messages in {:.0} s", args.members, args.messages, begin.elapsed().as_secs_f64()));
    let mut results = Vec::new();
    // Who joined stays: its key is asked for by who comes after it.
    let (joined, _here) = join("Stoa", Launch::federating(&args.stoa, &ca), &alice, &room, args).await?;
    results.push(joined);
    if let Some(venv) = &args.synapse {
        // What was measured is there, whatever comes of the other.
        say(&table(&results));
        results.push(join("Synapse", Launch::synapse(venv as &Path, &ca), &alice, &room, args).await?.0);
    }
    Ok(results)
}

async fn join(name: &str, launch: Launch, alice: &User, room: &str, args: &Join) -> Result<(Joined, Home), String> {
    let home = Home::launch(launch).await;
    let bob = home.user("bob").await.with_patience(PATIENCE);
    let pid = home.pid().ok_or("no process")?;
    sleep(Duration::from_secs(2)).await;
    let memory_before = meter::memory(&[pid]).pss;
    let watch = Watch::start(pid);
    let cpu = meter::cpu(&[pid]);
    let begin = Instant::now();
    let path = format!("/join/{}?via={}", encode(room), encode(alice.server()));
    bob.post(&path, json!({})).await.ok();
    let join_s = begin.elapsed().as_secs_f64();
    let said = bob.text(room, "hello from afar").await;
    while alice.event(room, &said).await.status != 200 {
        if begin.elapsed() > PATIENCE {
            return Err(format!("what was said on {name} did not arrive"));
        }
        sleep(Duration::from_millis(5)).await;
    }
    let first_message_s = begin.elapsed().as_secs_f64();
    let members = loop {
        // Waits where the members are not known yet, or says that it takes longer.
        let reply = bob.get(&format!("/rooms/{}/joined_members", encode(room))).await;
        if reply.status == 200 {
            break reply.ok()["joined"].as_object().map_or(0, |joined| joined.len());
        }
        if begin.elapsed() > PATIENCE {
            return Err(format!("{name} does not know the members"));
        }
    };
    let whole_s = begin.elapsed().as_secs_f64();
    // Alice, Bob, and whoever joined before Bob in the same run.
    if members < args.members + 2 {
        return Err(format!("{name} knows {members} members of {}", args.members + 2));
    }
    sleep(Duration::from_secs(2)).await;
    let cpu_s = (meter::cpu(&[pid]) - cpu) / 1000.0;
    let memory_after = meter::memory(&[pid]).pss;
    let memory_peak = watch.stop();
    let (members, messages) = (args.members, args.messages);
    let name = name.to_owned();
    let joined = Joined {
        name,
        members,
        messages,
        join_s,
        first_message_s,
        whole_s,
        cpu_s,
        memory_before,
        memory_peak,
        memory_after,
    };
    Ok((joined, home))
}

/// Looks at the memory of a process again and again.
struct Watch {
    peak: Arc<AtomicU64>,
    done: Arc<AtomicBool>,
}

impl Watch {
    fn start(pid: u32) -> Watch {
        let watch = Watch { peak: Arc::default(), done: Arc::default() };
        let (peak, done) = (watch.peak.clone(), watch.done.clone());
        tokio::spawn(async move {
            while !done.load(Ordering::Relaxed) {
                peak.fetch_max(meter::memory(&[pid]).pss, Ordering::Relaxed);
                sleep(LOOK).await;
            }
        });
        watch
    }

    fn stop(self) -> u64 {
        self.done.store(true, Ordering::Relaxed);
        self.peak.load(Ordering::Relaxed)
    }
}

/// The results as a table.
pub fn table(results: &[Joined]) -> String {
    let mut out = String::from("| |");
    results.iter().for_each(|it| out += &format!(" {} |", it.name));
    out += "\n|---|";
    results.iter().for_each(|_| out += "---|");
    type Column = (&'static str, fn(&Joined) -> String);
    let columns: [Column; 7] = [
        ("join answered, s", |it| format!("{:.2}", it.join_s)),
        ("first message seen on the other server, s", |it| format!("{:.2}", it.first_message_s)),
        ("all members known, s", |it| format!("{:.1}", it.whole_s)),
        ("CPU until then, s", |it| format!("{:.1}", it.cpu_s)),
        ("memory (PSS) before, MB", |it| mb_of(it.memory_before)),
        ("memory at its peak, MB", |it| mb_of(it.memory_peak)),
        ("memory two seconds after, MB", |it| mb_of(it.memory_after)),
    ];
    for (what, value) in columns {
        out += &format!("\n| {what} |");
        results.iter().for_each(|it| out += &format!(" {} |", value(it)));
    }
    out
}

fn mb_of(bytes: u64) -> String {
    format!("{:.0}", bytes as f64 / 1e6)
}

#[expect(clippy::print_stderr, reason = "a program for the terminal")]
fn say(text: &str) {
    eprintln!("{text}");
}
