//! Rooms that are joined without all their members (Server-Server API, `send_join` with `omit_members`): what is judged before
//! the whole state is there, and what becomes of it.

mod common;

use std::sync::Arc;

use common::{Dice, House, clock};
use serde_json::json;
use stoa_event::{
    ids::{OwnedEventId, OwnedRoomId, OwnedUserId, RoomVersionId},
    pdu::Pdu,
};
use stoa_rooms::{Action, Error, Outcome};
use stoa_store::rows::events::Standing;

/// Alice's room on the first server with ten more members, into which Bob of the second came without them.
struct Half {
    a: House,
    b: House,
    room: OwnedRoomId,
    join: OwnedEventId,
}

impl Half {
    async fn new(version: RoomVersionId) -> Half {
        let clock = clock();
        let (a, b) = (House::open("a.test", &clock).await, House::open("b.test", &clock).await);
        let room = a.create(&a.user("alice"), version).await;
        for n in 0..10 {
            let user = a.user(&format!("user{n}"));
            a.change(&room, Action::Join, &user, &user).await.unwrap();
        }
        let join = b.join_without_members(&a, &room, &b.user("bob")).await;
        Half { a, b, room, join }
    }

    /// The whole state comes, and all is worked out again.
    async fn make_whole(&self) {
        self.b.hear_whole_state(&self.a, &self.room, &self.join).await.unwrap();
        self.b.finish(&self.room).await;
    }

    async fn has_member(&self, user: &OwnedUserId) -> bool {
        self.b.current(&self.room).await.contains_key(&("m.room.member".into(), user.to_string()))
    }

    /// Both know the same of the room and its graph, whatever else they hold.
    async fn same(&self) {
        assert_eq!(self.a.current(&self.room).await, self.b.current(&self.room).await);
        let known: std::collections::BTreeMap<_, _> = self.a.graph(&self.room).await.into_iter().collect();
        for (id, placed) in self.b.graph(&self.room).await {
            assert_eq!(known.get(&id), Some(&placed), "{id}");
        }
    }
}

#[tokio::test]
async fn who_comes_in_talks_at_once_and_knows_all_later() {
    for version in stoa_event::version::SUPPORTED {
        let half = Half::new(version.clone()).await;
        let Half { a, b, room, join } = &half;
        assert!(!half.has_member(&a.user("user1")).await && half.has_member(&b.user("bob")).await);
        let partial = b.rooms.partial(room).await.unwrap().unwrap();
        assert_eq!((&partial.join, partial.told), (join, false));
        assert_eq!(partial.servers, ["a.test"]);
        assert_eq!(b.rooms.servers(room).await.unwrap().len(), 2);
        let id = b.say(room, &b.user("bob"), "hello").await.unwrap();
        assert_eq!(a.live(room, &[b.event(room, &id).await]).await, [Outcome::Accepted], "{version}");
        half.make_whole().await;
        assert!(b.rooms.partial(room).await.unwrap().is_none() && b.rooms.partial_rooms().await.unwrap().is_empty());
        half.same().await;
        assert_eq!(b.head(room).await.joined, 12);
    }
}

#[tokio::test]
async fn who_speaks_is_known_by_what_the_event_names() {
    let half = Half::new(RoomVersionId::V12).await;
    let Half { a, b, room, .. } = &half;
    let user = a.user("user3");
    let id = a.say(room, &user, "you do not know me").await.unwrap();
    let pdu = a.event(room, &id).await;
    let outcome = b.live(room, std::slice::from_ref(&pdu)).await.pop().unwrap();
    let Outcome::Needs(needs) = outcome else { panic!("{outcome:?}") };
    assert_eq!(needs.events.len(), 1, "the member event of its sender");
    b.keep(room, &[a.event(room, &needs.events[0]).await]).await;
    assert_eq!(b.live(room, &[pdu]).await, [Outcome::Accepted]);
    assert!(half.has_member(&user).await && !half.has_member(&a.user("user4")).await);
    assert_eq!(b.head(room).await.joined, 2);
    half.make_whole().await;
    half.same().await;
}

/// An event that Mallory's server makes as if Mallory had not been banned.
async fn as_if_not_banned(a: &House, c: &House, room: &OwnedRoomId, mallory: &OwnedUserId) -> Arc<Pdu> {
    let rules = a.rooms.rules_of(room).await.unwrap();
    let (now, before) = (a.current(room).await, c.current(room).await);
    let key = |kind: &str, key: &str| (kind.to_owned(), key.to_owned());
    let mut auth =
        vec![now[&key("m.room.power_levels", "")].clone(), before[&key("m.room.member", mallory.as_str())].clone()];
    if !rules.room_id_is_create_hash {
        auth.push(now[&key("m.room.create", "")].clone());
    }
    let draft = stoa_event::build::Draft {
        room_id: Some(room.clone()),
        sender: mallory.clone(),
        kind: "m.room.topic".into(),
        state_key: Some(String::new()),
        content: json!({ "topic": "mine" }).to_string().into_bytes(),
        prev_events: a.rooms.tips(room).await.unwrap(),
        auth_events: auth.into_iter().map(|id| OwnedEventId::try_from(id).unwrap()).collect(),
        depth: 100,
        origin_server_ts: 1_700_000_100_000,
        redacts: None,
    };
    let key = stoa_event::sign::SigningKey::from_seed(&[1; 32], "1").unwrap();
    Arc::new(stoa_event::build::seal(draft, &rules, mallory.server_name(), &key).unwrap())
}

#[tokio::test]
async fn what_the_whole_state_does_not_allow_is_undone() {
    let clock = clock();
    let mut houses = Vec::new();
    for name in ["a.test", "b.test", "c.test"] {
        houses.push(House::open(name, &clock).await);
    }
    let [a, b, c] = &houses[..] else { unreachable!() };
    let (alice, bob, mallory) = (a.user("alice"), b.user("bob"), c.user("mallory"));
    let room = a.create(&alice, RoomVersionId::V11).await;
    let levels = json!({ "users": { alice.as_str(): 100, mallory.as_str(): 50 } });
    a.state(&room, &alice, "m.room.power_levels", Some(""), levels).await.unwrap();
    a.state(&room, &alice, "m.room.topic", Some(""), json!({ "topic": "ours" })).await.unwrap();
    c.join_by(a, &room, &mallory).await;
    a.change(&room, Action::Ban, &alice, &mallory).await.unwrap();
    let join = b.join_without_members(a, &room, &bob).await;
    let before = b.current(&room).await;
    let forged = as_if_not_banned(a, c, &room, &mallory).await;
    assert!(matches!(a.live(&room, std::slice::from_ref(&forged)).await[..], [Outcome::Rejected(_)]));
    // Nobody told us of the ban: it is believed, and Bob answers.
    let named: Vec<_> = forged.auth_events().to_vec();
    for id in named {
        b.keep(&room, &[c.event(&room, &id).await]).await;
    }
    assert_eq!(b.live(&room, std::slice::from_ref(&forged)).await, [Outcome::Accepted]);
    assert_ne!(b.current(&room).await, before);
    let answer = b.say(&room, &bob, "really?").await.unwrap();
    b.hear_whole_state(a, &room, &join).await.unwrap();
    b.finish(&room).await;
    assert_eq!(b.standing(&room, forged.event_id()).await, Some(Standing::Rejected));
    assert_eq!(b.standing(&room, &answer).await, Some(Standing::Accepted));
    assert_eq!(b.rooms.tips(&room).await.unwrap(), std::slice::from_ref(&answer));
    a.live(&room, &[b.event(&room, &answer).await]).await;
    assert_eq!(a.current(&room).await, b.current(&room).await);
    assert_eq!(
        b.current(&room).await[&("m.room.topic".into(), String::new())],
        before[&("m.room.topic".into(), "".into())]
    );
}

#[tokio::test]
async fn what_cannot_be_the_state_of_the_room_is_not_believed() {
    let half = Half::new(RoomVersionId::V12).await;
    let Half { a, b, room, join } = &half;
    let (state, _) = a.around(room, join).await;
    let ids: Vec<OwnedEventId> = state.iter().map(|pdu| pdu.event_id().clone()).collect();
    let refused = async |ids: &[OwnedEventId], strict: bool| {
        let why = b.rooms.set_whole_state(room, ids, strict).await.unwrap_err();
        assert!(matches!(why, Error::BadContent(_)), "{why}");
        assert!(!b.rooms.partial(room).await.unwrap().unwrap().told);
    };
    // Its events cannot be had.
    refused(&ids, false).await;
    b.keep(room, &a.auth_chain(room, &state).await).await;
    b.keep(room, &state).await;
    let without = |kind: &str| -> Vec<OwnedEventId> {
        state.iter().filter(|pdu| pdu.kind() != kind).map(|pdu| pdu.event_id().clone()).collect()
    };
    refused(&without("m.room.create"), false).await;
    refused(&[], false).await;
    // Without the rule by which Bob came in.
    refused(&without("m.room.join_rules"), false).await;
    // A part of it: at first not, but if nobody ever says more, that is what it is.
    refused(&without("m.room.history_visibility"), true).await;
    assert!(matches!(b.rooms.make_whole(room).await, Err(Error::Partial)));
    b.rooms.set_whole_state(room, &without("m.room.history_visibility"), false).await.unwrap();
    b.finish(room).await;
    assert!(!b.current(room).await.contains_key(&("m.room.history_visibility".into(), String::new())));
}

#[tokio::test]
async fn memberships_that_nobody_can_know_yet_are_not_changed() {
    let half = Half::new(RoomVersionId::V12).await;
    let Half { a, b, room, .. } = &half;
    let (bob, carol) = (b.user("bob"), b.user("carol"));
    for (action, sender, target) in [
        (Action::Kick, &bob, &a.user("user1")),
        (Action::Ban, &bob, &a.user("user1")),
        (Action::Invite, &bob, &carol),
        (Action::Join, &carol, &carol),
    ] {
        let done = b.change(room, action, sender, target).await;
        assert!(matches!(done, Err(Error::Partial)), "{action:?}: {done:?}");
    }
    assert!(!b.rooms.wait_whole(room, std::time::Duration::from_millis(10)).await.unwrap());
    half.make_whole().await;
    assert!(b.rooms.wait_whole(room, std::time::Duration::ZERO).await.unwrap());
    b.change(room, Action::Join, &carol, &carol).await.unwrap();
    assert!(matches!(b.change(room, Action::Kick, &bob, &a.user("user1")).await, Err(Error::Rejected(_))));
}

#[tokio::test]
async fn a_restart_forgets_nothing_of_it() {
    let Half { a, b, room, join } = Half::new(RoomVersionId::V12).await;
    let first = b.say(&room, &b.user("bob"), "before").await.unwrap();
    let b = b.reopened().await;
    assert_eq!(b.rooms.partial_rooms().await.unwrap(), std::slice::from_ref(&room));
    let second = b.say(&room, &b.user("bob"), "between").await.unwrap();
    b.hear_whole_state(&a, &room, &join).await.unwrap();
    let b = b.reopened().await;
    assert!(b.rooms.partial(&room).await.unwrap().unwrap().told);
    let half = Half { a, b, room, join };
    half.b.finish(&half.room).await;
    let told = [half.b.event(&half.room, &first).await, half.b.event(&half.room, &second).await];
    assert_eq!(half.a.live(&half.room, &told).await, [Outcome::Accepted, Outcome::Accepted]);
    half.same().await;
}

#[tokio::test]
async fn who_leaves_and_comes_back_builds_on_nothing_that_was_half_known() {
    let half = Half::new(RoomVersionId::V12).await;
    let Half { a, b, room, .. } = &half;
    let bob = b.user("bob");
    b.change(room, Action::Leave, &bob, &bob).await.unwrap();
    assert!(b.rooms.partial_rooms().await.unwrap().is_empty(), "nobody waits for it");
    assert!(!b.rooms.knows(room).await.unwrap(), "others are there who are not known");
    let left = b.rooms.tips(room).await.unwrap();
    assert_eq!(a.live(room, &[b.event(room, &left[0]).await]).await, [Outcome::Accepted]);
    // The join follows the leaving, whose state was never whole.
    let join = b.join_without_members(a, room, &bob).await;
    assert_eq!(b.rooms.partial(room).await.unwrap().unwrap().join, join);
    b.hear_whole_state(a, room, &join).await.unwrap();
    b.finish(room).await;
    assert_eq!(a.current(room).await, b.current(room).await);
    let (whole, _) = b.around(room, &join).await;
    assert!(whole.iter().any(|pdu| pdu.state_key() == Some(a.user("user7").as_str())));
}

#[tokio::test]
async fn a_large_room_is_written_piece_by_piece() {
    let clock = clock();
    let (a, b) = (House::open("a.test", &clock).await, House::open("b.test", &clock).await);
    let room = a.create(&a.user("alice"), RoomVersionId::V12).await;
    for n in 0..1_300 {
        let user = a.user(&format!("user{n}"));
        a.change(&room, Action::Join, &user, &user).await.unwrap();
    }
    // Whole at once, and in two parts.
    b.join_by(&a, &room, &b.user("bob")).await;
    assert!(a.current(&room).await == b.current(&room).await);
    let c = House::open("c.test", &clock).await;
    let join = c.join_without_members(&a, &room, &c.user("carol")).await;
    c.hear_whole_state(&a, &room, &join).await.unwrap();
    assert!(!c.rooms.make_whole(&room).await.unwrap(), "so many members take more than one step");
    // Between two steps the room goes on.
    let said = c.say(&room, &c.user("carol"), "on we go").await.unwrap();
    c.finish(&room).await;
    a.live(&room, &[c.event(&room, &said).await]).await;
    let (of_a, of_c) = (a.current(&room).await, c.current(&room).await);
    let differing: Vec<_> = of_a.iter().filter(|(key, id)| of_c.get(*key) != Some(*id)).collect();
    assert!(differing.is_empty() && of_a.len() == of_c.len(), "{} {} {differing:?}", of_a.len(), of_c.len());
    assert_eq!((c.head(&room).await.joined, c.head(&room).await.partial), (1_303, false));
}

/// Whatever happens while the state is not whole, in the end it is as where it was whole from the beginning.
#[tokio::test]
async fn in_the_end_all_agree() {
    let seeds: u64 = std::env::var("STOA_SEEDS").ok().and_then(|seeds| seeds.parse().ok()).unwrap_or(6);
    for seed in 0..seeds {
        let version = if seed % 3 == 0 { RoomVersionId::V10 } else { RoomVersionId::V12 };
        let half = Half::new(version).await;
        let Half { a, b, room, .. } = &half;
        let mut dice = Dice(seed);
        let mut told = false;
        for n in 0..40 {
            let user = a.user(&format!("user{}", dice.below(10)));
            let alice = a.user("alice");
            // Refusals are part of the game.
            let _ = match dice.below(8) {
                0 | 1 => a.say(room, &user, &n.to_string()).await.map(drop),
                2 => a.change(room, Action::Leave, &user, &user).await,
                3 => a.change(room, Action::Join, &user, &user).await,
                4 => a.change(room, Action::Ban, &alice, &user).await,
                5 => a.state(room, &alice, "m.room.topic", Some(""), json!({ "topic": n })).await.map(drop),
                6 => b.say(room, &b.user("bob"), &n.to_string()).await.map(drop),
                _ => exchange(&half, &mut dice).await,
            };
            if n == 20 + dice.below(15) && !told {
                b.hear_whole_state(a, room, &half.join).await.unwrap();
                told = true;
            }
            if told && dice.below(4) == 0 {
                b.rooms.make_whole(room).await.unwrap();
            }
        }
        exchange(&half, &mut dice).await.unwrap();
        if !told {
            b.hear_whole_state(a, room, &half.join).await.unwrap();
        }
        b.finish(room).await;
        a.say(room, &a.user("alice"), "amen").await.unwrap();
        exchange(&half, &mut dice).await.unwrap();
        half.same().await;
    }
}

/// Both hear what the other one made, with what that names.
async fn exchange(half: &Half, dice: &mut Dice) -> Result<(), Error> {
    let Half { a, b, room, .. } = half;
    for (from, to) in [(a, b), (b, a)] {
        let mut left: Vec<Arc<Pdu>> = Vec::new();
        let graph = to.graph(room).await;
        for (pdu, standing) in from.events(room).await {
            let placed = graph.iter().any(|(id, _)| *id == pdu.event_id().as_str());
            if standing != Standing::Outlier && !placed && pdu.sender().server_name().as_str() == from.name {
                left.push(pdu);
            }
        }
        if from.name == "a.test" {
            // What happened before the join is not told.
            let join = b.event(room, &half.join).await;
            left.retain(|pdu| pdu.depth() > join.depth());
        }
        for i in (1..left.len()).rev() {
            left.swap(i, dice.below(i + 1));
        }
        for _ in 0..200 {
            if left.is_empty() {
                break;
            }
            let outcomes = to.live(room, &left).await;
            let mut waiting = Vec::new();
            for (pdu, outcome) in left.into_iter().zip(outcomes) {
                let Outcome::Needs(needs) = outcome else { continue };
                for id in needs.events {
                    to.keep(room, &[from.event(room, &id).await]).await;
                }
                waiting.push(pdu);
            }
            left = waiting;
        }
        assert!(left.is_empty(), "events that nobody can judge: {left:?}");
    }
    Ok(())
}
