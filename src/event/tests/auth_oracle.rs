//! The authorisation rules against ruma-state-res: random states, and events of all kinds of people, good and bad.
//!
//! Where ruma differs from the text or from Synapse the difference is named in [`Case::ruma_differs`], and `auth.rs`
//! holds it down with an example of its own.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

mod room;

use std::{collections::BTreeMap, sync::Arc};

use room::{
    Plan,
    dice::Dice,
    hash_id,
    oracle::{self, Events, Seen, ruma_rules},
    rounds, rules,
};
use serde_json::{Map, Value, json};
use stoa_event::{
    auth::{self, AuthState, Reject, Rule},
    ids::RoomVersionId,
    pdu::Pdu,
    sign::{SigningKey, sign_json},
    version::{Rules, SUPPORTED},
};

const USERS: [&str; 5] =
    ["@alice:one.example", "@bob:two.example", "@carol:one.example", "@dave:three.example", "@eve:two.example"];
const FIELDS: [&str; 7] = ["users_default", "events_default", "state_default", "ban", "redact", "kick", "invite"];
const KINDS: [&str; 5] = ["m.room.topic", "m.room.message", "m.room.power_levels", "m.room.member", "m.room.redaction"];
const LEVELS: [i64; 14] = [-10, -1, 0, 1, 25, 49, 50, 50, 51, 99, 100, 101, (1 << 53) - 1, -((1 << 53) - 1)];

fn signing_key() -> SigningKey {
    SigningKey::from_seed(&[7; 32], "1").unwrap()
}

struct Case {
    rules: Rules,
    room: String,
    state: Vec<Arc<Pdu>>,
    event: Arc<Pdu>,
    /// The events that the event names, and whether they were rejected.
    named: Vec<(Arc<Pdu>, bool)>,
}

/// Makes a state and an event.
struct Maker<'a> {
    dice: &'a mut Dice,
    rules: Rules,
    room: String,
    count: usize,
}

impl Maker<'_> {
    fn level(&mut self) -> Value {
        let level = *self.dice.pick(&LEVELS);
        if self.rules.integer_power_levels || !self.dice.one_in(4) {
            return json!(level);
        }
        json!(match self.dice.below(3) {
            0 => level.to_string(),
            1 => format!("  {level} "),
            _ => format!("+00{}", level.abs()),
        })
    }

    /// A level, or something that is none.
    fn odd_level(&mut self) -> Value {
        if !self.dice.one_in(8) {
            return self.level();
        }
        let odd = [
            json!(null),
            json!(true),
            json!(1.5),
            json!(100.0),
            json!("abc"),
            json!(""),
            json!("50"),
            json!(" 50 "),
            json!("+50"),
            json!("--5"),
            json!("1_0"),
            json!("50.0"),
            json!([]),
            json!({}),
            json!(1_u64 << 53),
            json!(u64::MAX),
        ];
        self.dice.pick(&odd).clone()
    }

    fn map(&mut self, names: &[&str], odd: bool) -> Value {
        if odd && self.dice.one_in(20) {
            return self.dice.pick(&[json!(null), json!([]), json!("x"), json!(5)]).clone();
        }
        let mut map = Map::new();
        for name in names {
            if self.dice.one_in(2) {
                let level = if odd { self.odd_level() } else { self.level() };
                map.insert((*name).into(), level);
            }
        }
        Value::Object(map)
    }

    fn power_levels(&mut self, odd: bool) -> Value {
        let mut content = Map::new();
        for field in FIELDS {
            if self.dice.one_in(2) {
                content.insert(field.into(), if odd { self.odd_level() } else { self.level() });
            }
        }
        let mut names = USERS.to_vec();
        if odd && self.dice.one_in(15) {
            names.extend(["@nobody", "alice", "", "@a:b c"]);
        }
        if !odd && self.rules.creators_are_privileged {
            names.remove(0);
        }
        for (property, names) in [("users", names), ("events", KINDS.to_vec()), ("notifications", vec!["room", "x"])] {
            if !self.dice.one_in(4) {
                content.insert(property.into(), self.map(&names, odd));
            }
        }
        Value::Object(content)
    }

    /// The current levels with one thing changed: random ones hardly ever pass.
    fn changed(&mut self, current: &Value) -> Value {
        let mut content = current.clone();
        let level = self.odd_level();
        let property = *self.dice.pick(&["users", "events", "notifications", "", ""]);
        let (name, place) = match property {
            "" => (*self.dice.pick(&FIELDS), &mut content),
            "users" => (*self.dice.pick(&USERS), &mut content["users"]),
            property => (*self.dice.pick(&KINDS), &mut content[property]),
        };
        if place.is_null() {
            *place = json!({});
        }
        if self.dice.one_in(4) {
            place.as_object_mut().unwrap().remove(name);
        } else {
            place[name] = level;
        }
        content
    }

    fn build(&mut self, plan: &Plan) -> Arc<Pdu> {
        self.count += 1;
        plan.pdu(&self.rules, &self.room, &hash_id(&format!("{} {}", self.room, self.count)))
    }

    fn create(&mut self, odd: bool) -> Plan {
        let mut content = json!({ "room_version": self.rules.id, "creator": USERS[0] });
        if self.dice.one_in(6) {
            content["m.federate"] = json!(self.dice.one_in(2));
        }
        if self.rules.creators_are_privileged && self.dice.one_in(3) {
            content["additional_creators"] = json!([USERS[3]]);
        }
        let mut plan = Plan::new("m.room.create", Some(""), USERS[0], content);
        if odd {
            match self.dice.below(8) {
                0 => drop(plan.content.as_object_mut().unwrap().remove("creator")),
                1 => plan.content["additional_creators"] = json!("@x:y"),
                2 => plan.content["additional_creators"] = json!(["nobody"]),
                3 => plan.content["additional_creators"] = json!([5]),
                4 => plan.content["additional_creators"] = json!(null),
                5 => plan.sender = USERS[1].into(),
                6 => plan.content["room_version"] = json!("unheard of"),
                _ => {}
            }
        }
        if !odd || !self.dice.one_in(4) {
            plan.prev.clear();
        }
        plan
    }

    fn state(&mut self) -> BTreeMap<&'static str, Plan> {
        let mut state = BTreeMap::new();
        for user in USERS {
            let some = ["", "join", "invite", "leave", "ban", "knock"];
            let membership = if self.dice.one_in(2) { "join" } else { *self.dice.pick(&some) };
            if !membership.is_empty() {
                state.insert(user, Plan::member(user, membership));
            }
        }
        if !self.dice.one_in(6) {
            let content = self.power_levels(false);
            state.insert("levels", Plan::new("m.room.power_levels", Some(""), USERS[0], content));
        }
        let rule = *self.dice.pick(&["public", "invite", "knock", "restricted", "knock_restricted", "private", "x"]);
        state.insert("rule", Plan::new("m.room.join_rules", Some(""), USERS[0], json!({ "join_rule": rule })));
        if self.dice.one_in(2) {
            let key = signing_key().verify_key().to_base64();
            let content = match self.dice.below(4) {
                0 => json!({ "public_key": key }),
                1 => json!({ "public_keys": [{ "public_key": key }], "public_key": "AAAA" }),
                2 => json!({ "public_key": SigningKey::from_seed(&[8; 32], "1").unwrap().verify_key().to_base64() }),
                _ => json!({}),
            };
            let sender = *self.dice.pick(&USERS[..2]);
            state.insert("invite", Plan::new("m.room.third_party_invite", Some("token"), sender, content));
        }
        state
    }

    fn third_party_invite(&mut self, target: &str) -> Value {
        let mut signed = json!({ "mxid": target, "token": "token", "n": 5, "\u{e9}": ["\n", { "b": 1, "a": null }] });
        match self.dice.below(12) {
            0 => drop(signed.as_object_mut().unwrap().remove("mxid")),
            1 => drop(signed.as_object_mut().unwrap().remove("token")),
            2 => signed["mxid"] = json!(5),
            3 => signed["token"] = json!("other"),
            4 => signed["mxid"] = json!(USERS[4]),
            _ => {}
        }
        let server = "identity.example".try_into().unwrap();
        let bytes = sign_json(signed.to_string().as_bytes(), server, &signing_key()).unwrap();
        let mut signed: Value = serde_json::from_slice(&bytes).unwrap();
        match self.dice.below(16) {
            0 => drop(signed.as_object_mut().unwrap().remove("signatures")),
            1 => signed["signatures"] = json!([]),
            2 => signed["signatures"]["identity.example"]["ed25519:1"] = json!("AAAA"),
            3 => signed["more"] = json!(1),
            4 => return json!({}),
            5 => return json!(5),
            6 => return json!(null),
            7 => return json!({ "signed": 5 }),
            _ => {}
        }
        json!({ "display_name": "x", "signed": signed })
    }

    fn member(&mut self) -> Plan {
        let target = *self.dice.pick(&USERS);
        let sender =
            if self.dice.one_in(2) { target } else { *self.dice.pick(&[USERS[0], USERS[0], USERS[1], USERS[2]]) };
        let membership = *self.dice.pick(&["join", "join", "invite", "invite", "leave", "ban", "knock", "x"]);
        let mut plan = Plan::member(target, membership).by(sender);
        match self.dice.below(30) {
            0 => plan.key = None,
            1 => plan.key = Some((*self.dice.pick(&["", "x", "@x", "@:one.example"])).into()),
            2 => plan.content = json!({}),
            3 => plan.content = json!({ "membership": 5 }),
            4 => plan.content = json!({ "membership": null }),
            _ => {}
        }
        if self.dice.one_in(3) {
            let odd = [json!("nobody"), json!(5), json!(null), json!({})];
            let user = *self.dice.pick(&USERS);
            let value = if self.dice.one_in(6) { self.dice.pick(&odd).clone() } else { json!(user) };
            plan.content["join_authorised_via_users_server"] = value;
        }
        if membership == "invite" && self.dice.one_in(2) {
            plan.content["third_party_invite"] = self.third_party_invite(target);
        }
        plan
    }

    fn event(&mut self, levels: Option<&Value>) -> Plan {
        let sender = if self.dice.one_in(2) { USERS[0] } else { *self.dice.pick(&USERS) };
        let mut plan = match self.dice.below(14) {
            0..=5 => self.member(),
            6 => {
                let content = self.power_levels(true);
                Plan::new("m.room.power_levels", Some(""), sender, content)
            }
            7 | 8 => {
                let content = self.changed(levels.unwrap_or(&json!({})));
                Plan::new("m.room.power_levels", Some(""), sender, content)
            }
            9 => Plan::new("m.room.message", None, sender, json!({})),
            10 => Plan::new("m.room.topic", Some(""), sender, json!({})),
            11 => Plan::new("m.room.third_party_invite", Some("t"), sender, json!({})),
            12 => Plan::new("org.example.own", Some(*self.dice.pick(&USERS)), sender, json!({})),
            _ if self.dice.one_in(3) => self.create(true),
            _ => {
                let kind = *self.dice.pick(&["m.room.redaction", "m.room.aliases"]);
                Plan::new(kind, Some(sender), sender, json!({}))
            }
        };
        plan.ts = 5;
        plan
    }
}

fn make(version: &RoomVersionId, dice: &mut Dice) -> Case {
    let rules = rules(version);
    let id = hash_id(&format!("{version} {}", dice.next()));
    let room = if rules.room_id_is_create_hash { id.replacen('$', "!", 1) } else { "!room:one.example".into() };
    let mut maker = Maker { dice, rules: rules.clone(), room: room.clone(), count: 0 };
    let create = maker.create(false).pdu(&rules, &room, &id);
    let plans = maker.state();
    let levels = plans.get("levels").map(|plan| plan.content.clone());
    let mut state = vec![create];
    state.extend(plans.values().map(|plan| maker.build(plan)).collect::<Vec<_>>());

    let mut plan = maker.event(levels.as_ref());
    if plan.kind != "m.room.create" {
        match maker.dice.below(10) {
            0 => plan.prev = vec![id],
            1 => plan.prev.push(id),
            _ => {}
        }
    }
    let bare = maker.build(&plan);
    let needed = auth::needs(&rules, bare.sender(), bare.kind(), bare.state_key(), bare.content());
    let mut named: Vec<(Arc<Pdu>, bool)> =
        state.iter().filter(|e| needed.iter().any(|(k, s)| e.is_state(k, s))).map(|e| (e.clone(), false)).collect();
    let mut repeated = None;
    if maker.dice.one_in(7) && !named.is_empty() {
        let any = maker.dice.below(named.len());
        match maker.dice.below(7) {
            0 => drop(named.remove(any)),
            1 => named[any].1 = true,
            2 => repeated = Some(named[any].0.event_id().to_string()),
            3 => {
                let again = Plan::new(named[any].0.kind(), named[any].0.state_key(), USERS[0], json!({ "again": 1 }));
                named.push((maker.build(&again), false));
            }
            4 => named.push((state[maker.dice.below(state.len())].clone(), false)),
            5 => named.push((maker.build(&Plan::new("m.room.message", None, USERS[0], json!({}))), false)),
            _ => {
                let other = Plan::new("m.room.power_levels", Some(""), USERS[0], json!({}));
                let room = match rules.room_id_is_create_hash {
                    true => hash_id("other").replacen('$', "!", 1),
                    false => "!other:one.example".into(),
                };
                named.retain(|(e, _)| e.kind() != "m.room.power_levels");
                named.push((other.pdu(&rules, &room, &hash_id(&format!("other {}", maker.dice.next()))), false));
            }
        }
    }
    plan.auth = named.iter().map(|(e, _)| e.event_id().to_string()).chain(repeated).collect();
    let event = maker.build(&plan);
    Case { rules, room, state, event, named }
}

impl Case {
    fn ours(&self) -> Result<(), Reject> {
        let named: Vec<(&Pdu, bool)> = self.named.iter().map(|(e, rejected)| (e.as_ref(), *rejected)).collect();
        auth::check_auth_events(&self.rules, &self.event, &named, Some(&self.state[0]))?;
        let state: AuthState = self.state.iter().cloned().collect();
        auth::check(&self.rules, &self.event, &self.state[0], &state)
    }

    fn rumas(&self) -> Result<(), String> {
        let version = &self.rules.id;
        let auth = ruma_rules(version).authorization;
        let seen = |e: &Arc<Pdu>, rejected| Seen::new(e, rejected, version);
        let mut known: Events = self.state.iter().map(|e| (e.event_id().clone(), seen(e, false))).collect();
        known.extend(self.named.iter().map(|(e, rejected)| (e.event_id().clone(), seen(e, *rejected))));
        let event = seen(&self.event, false);
        oracle::check_auth_events(&auth, &event, &known)?;
        let state: Vec<Seen> = self.state.iter().map(|e| seen(e, false)).collect();
        oracle::check(&auth, &event, &state)
    }

    /// The differences that are meant. Each has an example in `auth.rs`.
    fn ruma_differs(&self, ours: &Result<(), Reject>) -> bool {
        let content: Value = self.event.content_as().unwrap();
        let is_null = |name: &str| content.get(name) == Some(&Value::Null);
        match ours {
            // ruma takes the version for known and does not look at it.
            Err(reject) if reject.rule == Rule::CreateVersion => content["room_version"] == "unheard of",
            // ruma takes null for "not there".
            Err(reject) if reject.rule == Rule::MemberAuthoriser => is_null("join_authorised_via_users_server"),
            Err(reject) if matches!(reject.rule, Rule::InviteSigned | Rule::InviteBanned) => {
                is_null("third_party_invite")
            }
            // Power levels as only Synapse takes them: `old_rooms.rs` compares these with it.
            Ok(()) if self.event.kind() == "m.room.power_levels" && only_synapse(&self.rules, &content) => true,
            // ruma compares the default of a level that is added or removed.
            Ok(()) if self.event.kind() == "m.room.power_levels" => {
                let levels = self.state.iter().find(|e| e.is_state("m.room.power_levels", ""));
                let old: Value = levels.map_or(json!({}), |e| e.content_as().unwrap());
                FIELDS.iter().any(|field| old.get(field).is_some() != content.get(field).is_some())
            }
            _ => false,
        }
    }
}

/// Whether power levels hold what Synapse takes in old versions and ruma does not.
fn only_synapse(rules: &Rules, content: &Value) -> bool {
    let odd = |level: &Value| level.is_null() || level.is_boolean() || *level == json!("1_0");
    let any = |map: &Value| map.as_object().is_some_and(|map| map.values().any(odd));
    // Before version 6 no rule looks at `notifications`, and users are hardly looked at.
    let unread =
        !rules.strict_json && (content.get("notifications").is_some() || content["users"].get("@a:b c").is_some());
    let odd = FIELDS.iter().filter_map(|field| content.get(field)).any(odd)
        || ["users", "events", "notifications"].iter().any(|map| any(&content[map]));
    !rules.integer_power_levels && (odd || unread)
}

#[test]
fn random_events_are_judged_as_in_ruma() {
    for version in SUPPORTED {
        let mut dice = Dice::new(15);
        let (mut allowed, mut differ) = (0, 0);
        let mut refused: BTreeMap<String, usize> = BTreeMap::new();
        let cases = rounds(2_000);
        for n in 0..cases {
            let case = make(&version, &mut dice);
            let (ours, rumas) = (case.ours(), case.rumas());
            match &ours {
                Ok(()) => allowed += 1,
                Err(reject) => *refused.entry(format!("{:?}", reject.rule)).or_default() += 1,
            }
            if ours.is_ok() == rumas.is_ok() {
                continue;
            }
            differ += 1;
            let state: Vec<_> = case.state.iter().map(|e| std::str::from_utf8(e.json()).unwrap()).collect();
            assert!(
                case.ruma_differs(&ours),
                "case {n} in {} of version {version}: ours {ours:?}, ruma {rumas:?}\nevent {}\nstate {}",
                case.room,
                std::str::from_utf8(case.event.json()).unwrap(),
                state.join("\n      "),
            );
        }
        // A test that refuses everything, or hits few rules, or excuses much, would say little.
        assert!(allowed * 8 > cases, "version {version}: only {allowed} allowed");
        assert!(differ * 50 < cases, "version {version}: {differ} excused");
        assert!(refused.len() > 25, "version {version}: {refused:?}");
    }
}
