//! State resolution against ruma-state-res, and in version 1 against a plain form of the text: random rooms in which both
//! must come to the same state at every merge.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

mod room;

use room::{dice::Dice, rounds, world::World};
use stoa_event::{ids::RoomVersionId, version::SUPPORTED};

#[test]
fn random_rooms_resolve_as_in_ruma() {
    for version in SUPPORTED {
        let (mut conflicts, mut difference, mut subgraph, mut loss) = (0, 0, 0, 0);
        let rooms = rounds(12);
        for seed in 0..rooms {
            let mut world = World::started(&version, seed);
            let mut dice = Dice::new(seed);
            for _ in 0..60 {
                if !world.step(&mut dice) {
                    break;
                }
            }
            conflicts += world.counts.conflicts;
            difference += world.counts.with_difference;
            subgraph += world.counts.with_subgraph;
            loss += world.counts.with_loss;
        }
        // The rooms must be such that the algorithm has something to do.
        let rooms = rooms as usize;
        let mut counts = vec![conflicts / 10, difference / 4, subgraph, loss / 3];
        if version == RoomVersionId::V1 {
            // It loses nothing, and knows nothing of the others.
            counts.truncate(1);
        }
        assert!(counts.iter().all(|count| *count >= rooms), "version {version}: {counts:?} in {rooms} rooms");
    }
}
