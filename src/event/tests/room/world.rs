//! A room that grows by chance: users on several servers who do not see each other's events at once.

use std::{
    collections::{BTreeMap, HashMap, HashSet},
    sync::Arc,
};

use serde_json::{Value, json};
use stoa_event::{
    auth::{self, AuthState, Membership, needs},
    ids::{OwnedEventId, RoomVersionId, UserId},
    pdu::Pdu,
    resolve::{AuthEvents, Graph, auth_difference, conflicted_subgraph, conflicts, resolve_states},
    version::Rules,
};

use super::{
    Plan,
    dice::Dice,
    hash_id,
    oracle::{self, Events, Seen},
    plain,
};

pub const USERS: [&str; 8] = [
    "@alice:one.example",
    "@bob:two.example",
    "@carol:one.example",
    "@dave:three.example",
    "@eve:two.example",
    "@frank:three.example",
    "@grace:one.example",
    "@heidi:two.example",
];

pub type StateOf = BTreeMap<u32, u32>;

pub struct World {
    pub version: RoomVersionId,
    pub rules: Rules,
    pub room: String,
    pub pdus: Vec<Arc<Pdu>>,
    pub rejected: Vec<bool>,
    pub numbers: HashMap<OwnedEventId, u32>,
    pub keys: HashMap<(String, String), u32>,
    /// The state after every event.
    pub after: Vec<StateOf>,
    pub seen: Events,
    pub counts: Counts,
    seed: u64,
}

/// What the resolutions were like, so that a test can tell whether it tested anything.
#[derive(Clone, Copy, Debug, Default)]
pub struct Counts {
    /// The states differed.
    pub conflicts: usize,
    /// The auth difference had more than the conflicted events.
    pub with_difference: usize,
    /// The conflicted state subgraph had more than both.
    pub with_subgraph: usize,
    /// A state key that one of the states had is not set in the result.
    pub with_loss: usize,
}

impl Graph for World {
    fn pdu(&self, event: u32) -> Option<Arc<Pdu>> {
        self.pdus.get(event as usize).cloned()
    }
    fn auth_events(&self, event: u32) -> AuthEvents {
        self.pdus[event as usize].auth_events().iter().map(|id| self.numbers[id]).collect()
    }
    fn is_rejected(&self, event: u32) -> bool {
        self.rejected[event as usize]
    }
    fn state_key(&self, event: u32) -> Option<u32> {
        let pdu = &self.pdus[event as usize];
        self.find_key(pdu.kind(), pdu.state_key()?)
    }
    fn find_key(&self, kind: &str, key: &str) -> Option<u32> {
        self.keys.get(&(kind.to_owned(), key.to_owned())).copied()
    }
    fn create(&self) -> Option<u32> {
        Some(0)
    }
}

impl World {
    /// A room with its create event only.
    pub fn new(version: &RoomVersionId, seed: u64, create: Value) -> World {
        let rules = super::rules(version);
        let id = hash_id(&format!("{version} {seed} create"));
        let room = if rules.room_id_is_create_hash { id.replacen('$', "!", 1) } else { "!room:one.example".into() };
        let mut world = World {
            version: version.clone(),
            rules,
            room,
            pdus: Vec::new(),
            rejected: Vec::new(),
            numbers: HashMap::new(),
            keys: HashMap::new(),
            after: Vec::new(),
            seen: Events::new(),
            counts: Counts::default(),
            seed,
        };
        let mut plan = Plan::new("m.room.create", Some(""), USERS[0], create);
        plan.prev.clear();
        let pdu = plan.pdu(&world.rules, &world.room, &id);
        world.push(pdu, StateOf::new(), false);
        world
    }

    /// A room with the events that a room starts with.
    pub fn started(version: &RoomVersionId, seed: u64) -> World {
        let mut create = json!({ "creator": USERS[0], "room_version": version });
        let rules = super::rules(version);
        if rules.creators_are_privileged && seed.is_multiple_of(3) {
            create["additional_creators"] = json!([USERS[3]]);
        }
        let mut world = World::new(version, seed, create);
        let mut users = json!({ USERS[1]: 50, USERS[2]: 100 });
        if !rules.creators_are_privileged {
            users[USERS[0]] = json!(100);
        }
        world.must(Plan::member(USERS[0], "join"));
        world.must(Plan::new("m.room.power_levels", Some(""), USERS[0], levels(users)));
        world.must(Plan::new("m.room.join_rules", Some(""), USERS[0], json!({ "join_rule": "public" })));
        for user in &USERS[1..5] {
            world.must(Plan::member(user, "join"));
        }
        world
    }

    /// Adds an event behind the last one, which must be allowed.
    pub fn must(&mut self, plan: Plan) -> u32 {
        self.must_after(self.pdus.len() as u32 - 1, plan)
    }

    /// Adds an event behind another one, without asking anybody.
    pub fn add_after(&mut self, prev: u32, mut plan: Plan) -> u32 {
        plan.ts = plan.ts.max(10 * self.pdus.len() as u64);
        let before = self.after[prev as usize].clone();
        let plan = self.completed(plan, &[prev], &before, None);
        let pdu = self.build(&plan);
        self.push(pdu, before, false)
    }

    /// Adds an event behind another one, which must be allowed.
    pub fn must_after(&mut self, prev: u32, mut plan: Plan) -> u32 {
        plan.ts = plan.ts.max(10 * self.pdus.len() as u64);
        let before = self.after[prev as usize].clone();
        let plan = self.completed(plan, &[prev], &before, None);
        let pdu = self.build(&plan);
        self.judge(&pdu, &before).unwrap();
        self.push(pdu, before, false)
    }

    /// Says afterwards that an event was rejected: some servers may have, and have it in states nevertheless.
    pub fn reject(&mut self, n: u32) {
        let pdu = &self.pdus[n as usize];
        self.rejected[n as usize] = true;
        self.seen.insert(pdu.event_id().clone(), Seen::new(pdu, true, &self.version));
    }

    /// The number of a state key.
    pub fn key(&self, kind: &str, key: &str) -> u32 {
        self.find_key(kind, key).unwrap()
    }

    pub fn push(&mut self, pdu: Arc<Pdu>, before: StateOf, rejected: bool) -> u32 {
        let number = self.pdus.len() as u32;
        let mut after = before;
        if let Some(key) = pdu.state_key() {
            let next = self.keys.len() as u32;
            let key = *self.keys.entry((pdu.kind().into(), key.into())).or_insert(next);
            if !rejected {
                after.insert(key, number);
            }
        }
        self.numbers.insert(pdu.event_id().clone(), number);
        self.seen.insert(pdu.event_id().clone(), Seen::new(&pdu, rejected, &self.version));
        self.pdus.push(pdu);
        self.rejected.push(rejected);
        self.after.push(after);
        number
    }

    /// Fills in what an event refers to. `without` leaves one auth event out.
    pub fn completed(&self, mut plan: Plan, prev: &[u32], before: &StateOf, without: Option<usize>) -> Plan {
        let sender = plan.sender.clone();
        let sender = <&UserId>::try_from(sender.as_str()).unwrap();
        let (content, kind, key) = (plan.content.to_string(), plan.kind.clone(), plan.key.clone());
        let needed = needs(&self.rules, sender, &kind, key.as_deref(), content.as_bytes());
        let events = needed.iter().enumerate();
        let events = events.filter(|(i, (kind, _))| Some(*i) != without || *kind == "m.room.join_rules");
        let auth = events.filter_map(|(_, (kind, key))| before.get(&self.find_key(kind, key)?));
        plan.auth = auth.map(|n| self.pdus[*n as usize].event_id().to_string()).collect();
        plan.prev = prev.iter().map(|n| self.pdus[*n as usize].event_id().to_string()).collect();
        plan.depth = 1 + prev.iter().map(|n| self.pdus[*n as usize].depth()).max().unwrap_or(0);
        plan
    }

    pub fn build(&self, plan: &Plan) -> Arc<Pdu> {
        let id = hash_id(&format!("{} {} {}", self.version, self.seed, self.pdus.len()));
        plan.pdu(&self.rules, &self.room, &id)
    }

    /// Whether an event is allowed by a state; ruma must agree.
    pub fn judge(&self, pdu: &Arc<Pdu>, before: &StateOf) -> Result<(), auth::Reject> {
        let state: AuthState = before.values().map(|n| self.pdus[*n as usize].clone()).collect();
        let ours = auth::check(&self.rules, pdu, &self.pdus[0], &state);
        let theirs: Vec<Seen> = before.values().map(|n| self.seen[self.pdus[*n as usize].event_id()].clone()).collect();
        let seen = Seen::new(pdu, false, &self.version);
        let theirs = oracle::check(&oracle::ruma_rules(&self.version).authorization, &seen, &theirs);
        assert_eq!(
            ours.is_ok(),
            theirs.is_ok(),
            "{:?}: ours {ours:?}, ruma {theirs:?}",
            std::str::from_utf8(pdu.json())
        );
        ours
    }

    /// Resolves states; ruma must agree, or in version 1, which it has not, the plain form of the text.
    pub fn resolve(&self, states: &[&StateOf]) -> StateOf {
        let ours = resolve_states(&self.rules, states, self);
        let as_ruma = |state: &StateOf| {
            state
                .values()
                .map(|n| {
                    let pdu = &self.pdus[*n as usize];
                    ((pdu.kind().into(), pdu.state_key().unwrap().to_owned()), pdu.event_id().clone())
                })
                .collect()
        };
        if self.version == RoomVersionId::V1 {
            assert_eq!(ours, plain::resolve(self, states), "seed {}, {} events", self.seed, self.pdus.len());
            return ours;
        }
        let theirs: Vec<_> = states.iter().map(|state| as_ruma(state)).collect();
        let theirs: StateOf = oracle::resolve(&self.version, &self.seen, &theirs)
            .values()
            .map(|id| {
                let n = self.numbers[id];
                (self.state_key(n).unwrap(), n)
            })
            .collect();
        assert_eq!(ours, theirs, "version {}, seed {}, {} events", self.version, self.seed, self.pdus.len());
        ours
    }

    /// One step of chance: somebody who has seen some part of the room does something. `false` if the room has lost its
    /// join rules (as version 2 of the algorithm can do): from there on ruma differs, see `auth.rs`.
    pub fn step(&mut self, dice: &mut Dice) -> bool {
        let count = self.pdus.len();
        let mut prev: Vec<u32> = Vec::new();
        for _ in 0..=dice.below(3) {
            let far = if dice.one_in(8) { 40 } else { 6 };
            let back = 1 + dice.below(count.min(far));
            let n = (count - back) as u32;
            if !prev.contains(&n) {
                prev.push(n);
            }
        }
        let mut states: Vec<StateOf> = prev.iter().map(|n| self.after[*n as usize].clone()).collect();
        if dice.one_in(6) {
            self.make_older(dice, &mut states);
        }
        let rejected = 1 + dice.below(count - 1);
        if dice.one_in(40) && self.pdus[rejected].kind() != "m.room.join_rules" {
            self.reject(rejected as u32);
        }
        let before = self.resolve(&states.iter().collect::<Vec<_>>());
        self.count(&states, &before);
        let join_rules = self.find_key("m.room.join_rules", "").unwrap();
        if !before.contains_key(&join_rules) {
            return false;
        }

        let plan = self.action(dice, &before);
        // Some servers name fewer auth events than they should. Create event and join rules are never left out.
        let without = if dice.one_in(12) { Some(1 + dice.below(4)) } else { None };
        let plan = self.completed(plan, &prev, &before, without);
        let pdu = self.build(&plan);
        match self.judge(&pdu, &before) {
            Ok(()) => drop(self.push(pdu, before, false)),
            Err(_) if dice.one_in(10) => drop(self.push(pdu, before, true)),
            Err(_) => {}
        }
        true
    }

    fn count(&mut self, states: &[StateOf], resolved: &StateOf) {
        let found = conflicts(&states.iter().collect::<Vec<_>>());
        if found.conflicted.is_empty() {
            return;
        }
        let events: Vec<u32> = found.conflicted.values().flatten().copied().collect();
        let sets: Vec<&[u32]> = found.sets.iter().map(Vec::as_slice).collect();
        let mut full: HashSet<u32> = events.iter().copied().collect();
        let mut counts = self.counts;
        counts.conflicts += 1;
        full.extend(auth_difference(&sets, found.unconflicted.values().copied(), self));
        counts.with_difference += usize::from(full.len() > events.len());
        let before = full.len();
        full.extend(conflicted_subgraph(&events, self));
        counts.with_subgraph += usize::from(full.len() > before);
        counts.with_loss += usize::from(found.conflicted.keys().any(|key| !resolved.contains_key(key)));
        self.counts = counts;
    }

    /// A server got an outdated event in a state, as the proposal for resolution 2.1 describes.
    fn make_older(&self, dice: &mut Dice, states: &mut [StateOf]) {
        let i = dice.below(states.len());
        let state = &mut states[i];
        let keys: Vec<u32> = state.keys().copied().collect();
        let key = *dice.pick(&keys);
        let older: Vec<u32> = (0..self.pdus.len() as u32).filter(|n| self.state_key(*n) == Some(key)).collect();
        state.insert(key, *dice.pick(&older));
    }

    fn action(&self, dice: &mut Dice, before: &StateOf) -> Plan {
        let get =
            |kind: &str, key: &str| before.get(&self.find_key(kind, key)?).map(|n| self.pdus[*n as usize].clone());
        let joined: Vec<&str> = USERS
            .into_iter()
            .filter(|user| Membership::of(get("m.room.member", user).as_deref()) == Membership::Join)
            .collect();
        let sender = if joined.is_empty() || dice.one_in(10) { *dice.pick(&USERS) } else { *dice.pick(&joined) };
        let target = *dice.pick(&USERS);
        let mut plan = match dice.below(20) {
            0..=2 => Plan::member(target, "join"),
            3 => Plan::member(target, "leave"),
            4 => Plan::member(target, "knock"),
            5 | 6 => Plan::member(target, "leave").by(sender),
            7 | 8 => Plan::member(target, "ban").by(sender),
            9 | 10 => Plan::member(target, "invite").by(sender),
            11..=13 => {
                let old = get("m.room.power_levels", "").map_or(levels(json!({})), |p| p.content_as().unwrap());
                Plan::new("m.room.power_levels", Some(""), sender, change_levels(dice, old))
            }
            14 | 15 => {
                let rule = *dice.pick(&["public", "public", "invite", "knock", "restricted", "knock_restricted"]);
                Plan::new("m.room.join_rules", Some(""), sender, json!({ "join_rule": rule }))
            }
            16 => Plan::new("m.room.message", None, sender, json!({ "body": "hello" })),
            17 => {
                let mut plan = Plan::member(target, "join");
                plan.content["join_authorised_via_users_server"] = json!(sender);
                plan
            }
            _ => {
                let kind = *dice.pick(&["m.room.topic", "m.room.name", "m.room.history_visibility"]);
                Plan::new(kind, Some(""), sender, json!({ "x": dice.below(1000) }))
            }
        };
        // Clocks differ, and sometimes agree exactly.
        plan.ts = 10 * self.pdus.len() as u64 + [0, 0, 5, 50][dice.below(4)];
        if dice.one_in(15) {
            plan.ts = plan.ts.saturating_sub(200);
        }
        plan
    }
}

/// Power levels with every property, as most servers write them.
pub fn levels(users: Value) -> Value {
    json!({
        "ban": 50, "kick": 50, "redact": 50, "invite": 0,
        "events_default": 0, "state_default": 50, "users_default": 0,
        "events": { "m.room.name": 50, "m.room.power_levels": 100, "m.room.topic": 25 },
        "notifications": { "room": 50 },
        "users": users,
    })
}

fn change_levels(dice: &mut Dice, mut levels: Value) -> Value {
    let level = json!(*dice.pick(&[0, 0, 25, 50, 50, 75, 100]));
    match dice.below(6) {
        0 => levels["events"]["m.room.topic"] = level,
        1 => levels["events"]["m.room.power_levels"] = level,
        2 => {
            let field = *dice.pick(&["ban", "kick", "invite", "state_default", "events_default", "users_default"]);
            levels[field] = level;
        }
        3 => {
            levels["users"].as_object_mut().unwrap().remove(*dice.pick(&USERS));
        }
        _ => levels["users"][*dice.pick(&USERS)] = level,
    }
    levels
}
