//! State resolution against ruma-state-res: random rooms in which both must come to the same state at every merge.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

mod room;

use room::{VERSIONS, dice::Dice, rounds, world::World};

#[test]
fn random_rooms_resolve_as_in_ruma() {
    for version in VERSIONS {
        for seed in 0..rounds(12) {
            let mut world = World::started(&version, seed);
            let mut dice = Dice::new(seed);
            for _ in 0..60 {
                world.step(&mut dice);
            }
        }
    }
}
