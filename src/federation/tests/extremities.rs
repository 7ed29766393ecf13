//! Forward extremities: who speaks brings them together, and where nobody does, an event that says nothing.

mod common;

use std::sync::Arc;

use common::{World, settle};
use serde_json::Value;
use stoa_accounts::Who;
use stoa_event::{ids::OwnedRoomId, pdu::Pdu};
use stoa_rooms::{Arrival, Outcome};

const FORKS: usize = 60;

/// A room with as many forks: so many users of another server came in, and none saw the others.
async fn forked(world: &World) -> (Who, OwnedRoomId) {
    let alice = world.user("alice").await;
    let room = world.room(&alice).await;
    world.net.up("b.example");
    let mut joins = Vec::with_capacity(FORKS);
    for n in 0..FORKS {
        joins.push(world.member_event(&room, &format!("@u{n}:b.example"), "join").await);
    }
    for join in joins {
        let outcome = world.rooms.ingest(&room, vec![Arrival::Live(join, Vec::new())]).await.unwrap();
        assert_eq!(outcome, [Outcome::Accepted]);
    }
    assert_eq!(world.rooms.tips(&room).await.unwrap().len(), FORKS);
    (alice, room)
}

async fn event(world: &World, id: &str) -> Arc<Pdu> {
    let snapshot = world.store.snapshot().await.unwrap();
    let (place, event) = world.store.events().by_id(&snapshot, id).await.unwrap().unwrap();
    let room = world.store.names().room_id(&snapshot, place.room).await.unwrap();
    let rules = world.rooms.rules_of(&OwnedRoomId::try_from(&*room).unwrap()).await.unwrap();
    Arc::new(event.pdu(&rules).unwrap())
}

async fn joined(world: &World, room: &OwnedRoomId) -> u64 {
    let snapshot = world.store.snapshot().await.unwrap();
    let head = snapshot.get(&stoa_store::schema::ROOMS, &world.no(room).await).await.unwrap().unwrap();
    head.joined.into()
}

#[tokio::test(start_paused = true)]
async fn who_speaks_brings_them_together() {
    let mut world = World::open().await;
    world.stop().await;
    let (alice, room) = forked(&world).await;
    let mut left = FORKS;
    while left > 1 {
        let said = world.say(&room, &alice, "hello").await;
        let named = event(&world, said.as_str()).await.prev_events().len();
        assert_eq!(named, left.min(20));
        left = left - named + 1;
        assert_eq!(world.rooms.tips(&room).await.unwrap().len(), left);
    }
    assert_eq!(joined(&world, &room).await, FORKS as u64 + 1);
}

#[tokio::test(start_paused = true)]
async fn where_nobody_speaks_they_are_brought_together_after_a_while() {
    let world = World::open().await;
    let (_, room) = forked(&world).await;
    settle().await;
    assert_eq!(world.rooms.tips(&room).await.unwrap().len(), FORKS);
    for _ in 0..100 {
        world.wait(10_000);
        tokio::time::sleep(std::time::Duration::from_secs(2)).await;
    }
    let tips = world.rooms.tips(&room).await.unwrap();
    assert!(tips.len() <= 10, "{} are left", tips.len());
    let last = event(&world, tips.last().unwrap().as_str()).await;
    assert_eq!(last.kind(), "org.matrix.dummy_event");
    // Others get them as they get any event.
    world.all_sent().await;
    let sent: Vec<Value> = world.net.got("b.example").into_iter().flat_map(|got| got.pdus).collect();
    assert!(sent.iter().any(|pdu| pdu["type"] == "org.matrix.dummy_event"));
    assert_eq!(joined(&world, &room).await, FORKS as u64 + 1);
}
