//! One play from its seed: the servers and users, the troubles, the healing.

use std::{sync::Arc, time::Duration};

use serde_json::json;
use tokio::{
    task::JoinSet,
    time::{Instant, sleep},
};

use crate::{
    acts::{Log, Stage, choose},
    chance::{Dice, SimClock},
    network::{Faults, Network},
    node::Node,
    rooms::{Kind, SimRoom, make},
    user::{User, part},
};

/// How many acts there are in a play: few, so that what went wrong can be found, or many.
const ACTS: [u64; 4] = [40, 100, 120, 250];
/// How long nothing is done after an act at most, in milliseconds.
const PAUSES: [u64; 12] = [0, 0, 200, 200, 200, 200, 2_000, 2_000, 10_000, 10_000, 60_000, 600_000];

/// What a play was.
#[derive(Clone, Debug)]
pub struct Played {
    /// A hash of everything that happened: the same for the same seed.
    pub trace: String,
    /// What happened, line by line, if that was asked for.
    pub lines: Vec<String>,
    /// Events that were acknowledged.
    pub said: usize,
    /// Simulated time.
    pub took: Duration,
    /// What was wrong, if anything was.
    pub wrong: Option<String>,
}

/// Everything.
pub(crate) struct World {
    pub(crate) network: Arc<Network>,
    pub(crate) nodes: Vec<Arc<Node>>,
    pub(crate) stage: Arc<Stage>,
    dice: Dice,
}

/// Plays what follows from a seed. It needs a runtime of one thread whose clock is paused.
pub async fn play(seed: u64, lines: bool) -> Played {
    let begin = Instant::now();
    let network = Network::new(seed, begin, lines);
    let told = tell(seed, &network, begin).await;
    let (trace, lines) = network.trace();
    Played {
        trace,
        lines,
        said: *told.as_ref().unwrap_or(&0),
        took: Instant::now().duration_since(begin),
        wrong: told.err(),
    }
}

async fn tell(seed: u64, network: &Arc<Network>, begin: Instant) -> Result<usize, String> {
    let mut world = World::open(seed, network, begin).await?;
    let told = world.whole().await;
    for node in &world.nodes {
        node.stop().await?;
    }
    told?;
    let said = world.stage.log.lock().said.len();
    Ok(said)
}

impl World {
    async fn open(seed: u64, network: &Arc<Network>, begin: Instant) -> Result<World, String> {
        let mut dice = Dice::new(seed, "world");
        let mut nodes = Vec::new();
        for name in &["a.test", "b.test", "c.test"][..*dice.pick(&[2, 3, 3])] {
            let clock = SimClock::new(begin, dice.below(5_000));
            nodes.push(Node::new(name, network, clock, seed));
        }
        let mut users = Vec::new();
        for node in &nodes {
            node.start().await?;
        }
        for name in ["first", "second"] {
            for node in &nodes {
                sleep(Duration::from_millis(50)).await;
                users.push(User::register(node, name).await?);
            }
        }
        let mut rooms: Vec<SimRoom> = Vec::new();
        for kind in [Kind::Steady, Kind::Quarrel] {
            rooms.push(make(kind, &users, &mut dice).await?);
        }
        network.note(|| format!("rooms of versions {:?}", rooms.iter().map(|room| room.version).collect::<Vec<_>>()));
        let stage = Arc::new(Stage { users, rooms, log: parking_lot::Mutex::new(Log::default()) });
        Ok(World { network: network.clone(), nodes, stage, dice })
    }

    async fn whole(&mut self) -> Result<(), String> {
        self.quiet().await?;
        self.trouble().await?;
        self.quiet().await?;
        // What one of them soft-failed another may have accepted. When those who are in a room have said something, each has
        // the branches of all.
        for round in 0..3 {
            self.amen(round).await;
            self.quiet().await?;
        }
        self.judge().await
    }

    /// Users act while things go wrong, until all have done what they wanted and everything works again.
    async fn trouble(&mut self) -> Result<(), String> {
        let mut acts = JoinSet::new();
        for _ in 0..*self.dice.pick(&ACTS) {
            self.change().await?;
            acts.spawn(choose(&self.stage, &mut self.dice));
            let longest = *self.dice.pick(&PAUSES);
            sleep(Duration::from_millis(self.dice.below(longest + 1))).await;
        }
        self.network.heal();
        for node in &self.nodes {
            if !node.is_up() {
                node.start().await?;
            }
        }
        while let Some(done) = acts.join_next().await {
            done.map_err(|why| format!("an act panicked: {why}"))?;
        }
        Ok(())
    }

    /// Sometimes something breaks, or works again.
    async fn change(&mut self) -> Result<(), String> {
        let dice = &mut self.dice;
        let (from, to) = (dice.index(self.nodes.len()), dice.index(self.nodes.len()));
        let (from, to) = (self.nodes[from].clone(), self.nodes[to].clone());
        match dice.below(40) {
            0..4 if from.name != to.name => {
                let faults = Faults { cut: true, ..Faults::default() };
                self.network.set(&from.name, &to.name, faults);
                if dice.percent(70) {
                    self.network.set(&to.name, &from.name, faults);
                }
            }
            4..7 if from.name != to.name => {
                let faults = Faults {
                    cut: false,
                    lose: dice.below(30),
                    mute: dice.below(30),
                    twice: dice.below(30),
                    late: dice.below(20),
                    slow_ms: *dice.pick(&[0, 100, 5_000, 30_000]),
                };
                self.network.set(&from.name, &to.name, faults);
            }
            7..10 => {
                self.network.set(&from.name, &to.name, Faults::default());
                self.network.set(&to.name, &from.name, Faults::default());
            }
            10 => self.network.heal(),
            11..13 if from.is_up() && dice.percent(60) => from.crash().await?,
            11..13 if from.is_up() => from.stop().await?,
            13..20 => {
                for node in &self.nodes {
                    if !node.is_up() {
                        node.start().await?;
                    }
                }
            }
            _ => {}
        }
        Ok(())
    }

    /// Everybody says something everywhere, so that each server hears of the branches of all.
    async fn amen(&self, round: u64) {
        for room in &self.stage.rooms {
            for user in &self.stage.users {
                let path = format!("/rooms/{}/send/m.room.message/amen{round}", part(room.id.as_str()));
                // Those who are not in the room cannot.
                let _ = user.put(&path, &json!({ "msgtype": "m.text", "body": "amen" })).await;
                sleep(Duration::from_millis(300)).await;
            }
        }
    }
}
