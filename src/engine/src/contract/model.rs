//! Random work, beside a plain map that says what has to come out.

use std::collections::BTreeMap;

use super::*;
use crate::Error;

type Model = BTreeMap<(Space, Bytes), Bytes>;

/// Whatever is done, the engine, and each snapshot of it, is what a map would be.
pub async fn agrees_with_a_map<S: Subject>() {
    for seed in 0..rounds(4) as u64 {
        Run::<S>::new(seed).go(400).await;
    }
}

struct Run<S> {
    subject: S,
    engine: Arc<dyn Engine>,
    model: Model,
    snapshots: Vec<(Arc<dyn Reader>, Model)>,
    dice: Dice,
    seed: u64,
}

impl<S: Subject> Run<S> {
    fn new(seed: u64) -> Self {
        let subject = S::new();
        let engine = subject.open();
        Run { subject, engine, model: Model::new(), snapshots: Vec::new(), dice: Dice(seed), seed }
    }

    async fn go(mut self, steps: usize) {
        for step in 0..steps {
            match self.dice.below(100) {
                0..60 => self.commit().await,
                60..70 => self.snapshots.push((self.engine.snapshot(), self.model.clone())),
                70..78 if !self.snapshots.is_empty() => {
                    let gone = self.dice.below(self.snapshots.len());
                    self.snapshots.swap_remove(gone);
                }
                78..97 => self.look(step).await,
                97 => self.subject.settle().await,
                98 if S::PERSISTENT => self = self.reopen(),
                _ => {}
            }
        }
        self.look_at_all(steps).await;
    }

    fn reopen(mut self) -> Self {
        self.snapshots.clear();
        let Run { subject, engine, model, snapshots, dice, seed } = self;
        drop(engine);
        let engine = subject.open();
        Run { subject, engine, model, snapshots, dice, seed }
    }

    /// Few keys, so that they meet often; with bytes at both ends of the order.
    fn key(&mut self) -> Bytes {
        let length = self.dice.below(4);
        (0..length).map(|_| [0, 1, b'k', 0xFE, 0xFF][self.dice.below(5)]).collect()
    }

    fn space(&mut self) -> Space {
        Space::ALL[self.dice.below(Space::ALL.len())]
    }

    fn op(&mut self) -> Op {
        let space = self.space();
        match self.dice.below(10) {
            0..6 => {
                let length = self.dice.below(20);
                Op::Put { space, key: self.key(), value: (0..length).map(|_| self.dice.next() as u8).collect() }
            }
            6..9 => Op::Delete { space, key: self.key() },
            _ => Op::DeleteRange { space, from: self.key(), to: self.key() },
        }
    }

    /// A condition that mostly holds.
    fn assert(&mut self) -> Assert {
        let (space, key) = (self.space(), self.key());
        let mut value = self.model.get(&(space, key.clone())).cloned();
        if self.dice.below(8) == 0 {
            value = if self.dice.below(2) == 0 { None } else { Some(Bytes::from_static(b"not this")) };
        }
        Assert { space, key, value }
    }

    async fn commit(&mut self) {
        let (asserts, ops) = (self.dice.below(3), self.dice.below(8));
        let batch = Batch {
            asserts: (0..asserts).map(|_| self.assert()).collect(),
            ops: (0..ops).map(|_| self.op()).collect(),
        };
        let holds = batch.asserts.iter().all(|it| self.model.get(&(it.space, it.key.clone())) == it.value.as_ref());
        let durability = if self.dice.below(10) == 0 { Durability::Synced } else { Durability::Relaxed };
        match self.engine.commit(batch.clone(), durability).await {
            Ok(()) => assert!(holds, "seed {}: {batch:?} went through", self.seed),
            Err(Error::Conflict) => assert!(!holds, "seed {}: {batch:?} was refused", self.seed),
            Err(error) => panic!("seed {}: {error}", self.seed),
        }
        if holds {
            apply(&mut self.model, batch.ops);
        }
    }

    /// Compares one view with its model by a few random reads.
    async fn look(&mut self, step: usize) {
        let which = self.dice.below(self.snapshots.len() + 1);
        let (reader, model) = match self.snapshots.get(which) {
            Some((reader, model)) => (Arc::clone(reader), model.clone()),
            None => (self.engine.snapshot(), self.model.clone()),
        };
        let about = format!("seed {}, step {step}", self.seed);
        let count = self.dice.below(12);
        let asked: Vec<_> = (0..count).map(|_| (self.space(), self.key())).collect();
        let expected: Vec<_> = asked.iter().map(|key| model.get(key).cloned()).collect();
        assert_eq!(reader.get_many(asked.clone()).await.expect("the read"), expected, "{about}: {asked:?}");

        let direction = if self.dice.below(2) == 0 { Direction::Forward } else { Direction::Backward };
        let scan =
            Scan { space: self.space(), from: self.key(), to: self.key(), direction, limit: 1 + self.dice.below(30) };
        assert_eq!(all(&*reader, scan.clone()).await, range(&model, &scan), "{about}: {scan:?}");
    }

    async fn look_at_all(&mut self, step: usize) {
        self.snapshots.push((self.engine.snapshot(), self.model.clone()));
        for (reader, model) in &self.snapshots {
            for space in Space::ALL {
                let expected: Vec<_> = model
                    .iter()
                    .filter(|(key, _)| key.0 == space)
                    .map(|(key, value)| (key.1.clone(), value.clone()))
                    .collect();
                assert_eq!(everything(&**reader, space).await, expected, "seed {}, step {step}", self.seed);
            }
        }
    }
}

fn apply(model: &mut Model, ops: Vec<Op>) {
    for op in ops {
        match op {
            Op::Put { space, key, value } => drop(model.insert((space, key), value)),
            Op::Delete { space, key } => drop(model.remove(&(space, key))),
            Op::DeleteRange { space, from, to } => {
                model.retain(|(here, key), _| *here != space || !(&from..&to).contains(&key));
            }
        }
    }
}

fn range(model: &Model, scan: &Scan) -> Vec<(Bytes, Bytes)> {
    let inside = |(space, key): &(Space, Bytes)| *space == scan.space && (&scan.from..&scan.to).contains(&key);
    let mut found: Vec<_> =
        model.iter().filter(|(key, _)| inside(key)).map(|(key, value)| (key.1.clone(), value.clone())).collect();
    if scan.direction == Direction::Backward {
        found.reverse();
    }
    found
}
