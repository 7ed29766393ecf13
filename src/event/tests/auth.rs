//! The authorisation rules by example: every refusal names its rule, and where ruma differs from the text or from
//! Synapse, which judges most rooms, both sides of the difference are held down here.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

mod room;

use std::sync::Arc;

use room::{
    Plan, VERSIONS, hash_id,
    oracle::{self, Seen, ruma_rules},
    rules,
};
use serde_json::{Value, json};
use stoa_event::{
    auth::{self, AuthState, Field, JoinRule, Membership, Power, PowerLevels, Powers, Reject, Rule, State, kind},
    ids::{RoomVersionId, UserId},
    pdu::Pdu,
    sign::{SigningKey, sign_json},
    version::Rules,
};

const ALICE: &str = "@alice:one.example";
const BOB: &str = "@bob:two.example";
const CAROL: &str = "@carol:one.example";
const MOD: &str = "@mod:two.example";
const V6: RoomVersionId = RoomVersionId::V6;
const V9: RoomVersionId = RoomVersionId::V9;
const V11: RoomVersionId = RoomVersionId::V11;
const V12: RoomVersionId = RoomVersionId::V12;

fn user(id: &str) -> &UserId {
    id.try_into().unwrap()
}

fn state(kind: &str, content: Value) -> Plan {
    Plan::new(kind, Some(""), ALICE, content)
}

/// Auth events, and whether they were rejected.
type Named = Vec<(Arc<Pdu>, bool)>;

/// A room with Alice, who made it, a moderator, and Carol.
struct Room {
    rules: Rules,
    room: String,
    create: Plan,
    state: Vec<Plan>,
}

impl Room {
    fn new(version: &RoomVersionId) -> Room {
        let rules = rules(version);
        let mut users = json!({ MOD: 50 });
        if !rules.creators_are_privileged {
            users[ALICE] = json!(100);
        }
        let create = json!({ "creator": ALICE, "room_version": version });
        let room = if rules.room_id_is_create_hash {
            hash_id("create").replacen('$', "!", 1)
        } else {
            "!r:one.example".into()
        };
        Room {
            room,
            create: Plan { prev: vec![], ..state(kind::CREATE, create) },
            state: vec![
                Plan::member(ALICE, "join"),
                Plan::member(MOD, "join"),
                Plan::member(CAROL, "join"),
                state(kind::POWER_LEVELS, json!({ "users": users })),
                state(kind::JOIN_RULES, json!({ "join_rule": "invite" })),
            ],
            rules,
        }
    }

    /// Sets a state event.
    fn with(mut self, plan: Plan) -> Room {
        self.state.retain(|old| old.kind != plan.kind || old.key != plan.key);
        self.state.push(plan);
        self
    }

    fn without(mut self, kind: &str) -> Room {
        self.state.retain(|old| old.kind != kind);
        self
    }

    fn create(mut self, content: Value) -> Room {
        self.create.content = content;
        self
    }

    fn build(&self, plan: &Plan, name: &str) -> Arc<Pdu> {
        plan.pdu(&self.rules, &self.room, &hash_id(name))
    }

    fn events(&self) -> Vec<Arc<Pdu>> {
        let named = |plan: &Plan| format!("{} {:?}", plan.kind, plan.key);
        let create = self.build(&self.create, "create");
        [create].into_iter().chain(self.state.iter().map(|plan| self.build(plan, &named(plan)))).collect()
    }

    fn judge(&self, plan: &Plan) -> Result<(), Reject> {
        let events = self.events();
        let state: AuthState = events.iter().cloned().collect();
        auth::check(&self.rules, &self.build(plan, "event"), &events[0], &state)
    }

    fn ruma(&self, plan: &Plan) -> Result<(), String> {
        let version = &self.rules.id;
        let seen: Vec<Seen> = self.events().iter().map(|e| Seen::new(e, false, version)).collect();
        let event = Seen::new(&self.build(plan, "event"), false, version);
        oracle::check(&ruma_rules(version).authorization, &event, &seen)
    }

    #[track_caller]
    fn allows(&self, plan: &Plan) {
        assert_eq!(self.judge(plan), Ok(()), "version {}", self.rules.id);
    }

    #[track_caller]
    fn refuses(&self, plan: &Plan, rule: Rule, number: &str) {
        let reject = self.judge(plan).unwrap_err();
        assert_eq!((reject.rule, reject.number), (rule, number), "version {}: {reject}", self.rules.id);
    }

    /// The list of auth events as it should be, changed.
    fn names(&self, plan: &Plan, change: impl FnOnce(&mut Named)) -> Result<(), Reject> {
        let events = self.events();
        let bare = self.build(plan, "event");
        let needed = auth::needs(&self.rules, bare.sender(), bare.kind(), bare.state_key(), bare.content());
        let selected = events.iter().filter(|e| needed.iter().any(|(kind, key)| e.is_state(kind, key)));
        let mut named: Named = selected.map(|e| (e.clone(), false)).collect();
        change(&mut named);
        let mut plan = plan.clone();
        plan.auth = named.iter().map(|(e, _)| e.event_id().to_string()).collect();
        let named: Vec<(&Pdu, bool)> = named.iter().map(|(e, rejected)| (e.as_ref(), *rejected)).collect();
        auth::check_auth_events(&self.rules, &self.build(&plan, "event"), &named, Some(&events[0]))
    }
}

fn message(sender: &str) -> Plan {
    Plan::new("m.room.message", None, sender, json!({ "body": "x" }))
}

fn power_levels(sender: &str, content: Value) -> Plan {
    state(kind::POWER_LEVELS, content).by(sender)
}

#[test]
fn refusals_name_rule_and_version() {
    let reject = Room::new(&V12).judge(&message(BOB)).unwrap_err();
    assert_eq!(
        reject.to_string(),
        "room version 12, authorisation rule 6 (SenderNotJoined): @bob:two.example is not joined"
    );
}

#[test]
fn membership_rules_in_version_12() {
    let room = Room::new(&V12).with(Plan::member("@banned:x", "ban"));
    let not_joined = |membership: &str| Plan::member(CAROL, membership).by(BOB);
    room.refuses(&Plan { key: None, ..Plan::member(BOB, "join") }, Rule::MemberShape, "5.1");
    room.refuses(&Plan { content: json!({}), ..Plan::member(BOB, "join") }, Rule::MemberShape, "5.1");
    room.refuses(&Plan { key: Some("bob".into()), ..Plan::member(BOB, "join") }, Rule::MemberShape, "5.1");
    room.refuses(&Plan::member(BOB, "join").by(ALICE), Rule::JoinOther, "5.3.2");
    room.refuses(&Plan::member("@banned:x", "join"), Rule::JoinBanned, "5.3.3");
    room.refuses(&Plan::member(BOB, "join"), Rule::JoinRule, "5.3.7");
    room.allows(&Plan::member(CAROL, "join"));
    room.refuses(&not_joined("invite"), Rule::InviteNotJoined, "5.4.2");
    room.refuses(&Plan::member(CAROL, "invite").by(ALICE), Rule::InviteTarget, "5.4.3");
    room.refuses(&Plan::member("@banned:x", "invite").by(ALICE), Rule::InviteTarget, "5.4.3");
    room.allows(&Plan::member(BOB, "invite").by(CAROL));
    room.refuses(&Plan::member(BOB, "leave"), Rule::LeaveSelf, "5.5.1");
    room.refuses(&Plan::member("@banned:x", "leave"), Rule::LeaveSelf, "5.5.1");
    room.refuses(&not_joined("leave"), Rule::KickNotJoined, "5.5.2");
    room.refuses(&Plan::member("@banned:x", "leave").by(CAROL), Rule::UnbanPower, "5.5.3");
    room.refuses(&Plan::member(MOD, "leave").by(CAROL), Rule::KickPower, "5.5.5");
    room.refuses(&Plan::member(ALICE, "leave").by(MOD), Rule::KickPower, "5.5.5");
    room.allows(&Plan::member(CAROL, "leave").by(MOD));
    room.allows(&Plan::member("@banned:x", "leave").by(MOD));
    room.refuses(&not_joined("ban"), Rule::BanNotJoined, "5.6.1");
    room.refuses(&Plan::member(BOB, "ban").by(CAROL), Rule::BanPower, "5.6.3");
    room.refuses(&Plan::member(MOD, "ban").by(MOD), Rule::BanPower, "5.6.3");
    room.allows(&Plan::member(BOB, "ban").by(MOD));
    room.refuses(&Plan::member(BOB, "knock"), Rule::KnockRule, "5.7.1");
    room.refuses(&Plan::member(BOB, "x"), Rule::MembershipUnknown, "5.8");
}

#[test]
fn the_creator_joins_first_and_needs_no_join_rule() {
    for version in VERSIONS {
        let room = Room::new(&version).without(kind::MEMBER).without(kind::POWER_LEVELS).without(kind::JOIN_RULES);
        let first = Plan { prev: vec![hash_id("create")], ..Plan::member(ALICE, "join") };
        room.allows(&first);
        let number =
            if version == V12 { "5.3.7" } else { room.judge(&Plan::member(ALICE, "join")).unwrap_err().number };
        room.refuses(&Plan::member(ALICE, "join"), Rule::JoinRule, number);
        let later = Plan { prev: vec![hash_id("create"), hash_id("x")], ..first.clone() };
        assert_eq!(room.judge(&later).unwrap_err().rule, Rule::JoinRule);
        let other = Plan { prev: vec![hash_id("create")], ..Plan::member(BOB, "join") };
        assert_eq!(room.judge(&other).unwrap_err().rule, Rule::JoinRule);
    }
}

#[test]
fn knocking_is_for_those_outside() {
    for (rule, version, number) in [("knock", RoomVersionId::V7, "4.6"), ("knock_restricted", V12, "5.7")] {
        let room = Room::new(&version).with(state(kind::JOIN_RULES, json!({ "join_rule": rule })));
        room.allows(&Plan::member(BOB, "knock"));
        room.refuses(&Plan::member(BOB, "knock").by(CAROL), Rule::KnockOther, &format!("{number}.2"));
        room.refuses(&Plan::member(CAROL, "knock"), Rule::KnockMembership, &format!("{number}.4"));
        let knocked = room.with(Plan::member(BOB, "knock"));
        knocked.allows(&Plan::member(BOB, "leave"));
        knocked.allows(&Plan::member(BOB, "invite").by(CAROL));
        knocked.with(Plan::member(BOB, "invite").by(CAROL)).allows(&Plan::member(BOB, "join"));
    }
    let knock = state(kind::JOIN_RULES, json!({ "join_rule": "knock" }));
    Room::new(&V6).with(knock.clone()).refuses(&Plan::member(BOB, "knock"), Rule::MembershipUnknown, "4.6");
    // In version 6 `knock` is no join rule either: not even the invited may join.
    let invited = Room::new(&V6).with(knock).with(Plan::member(BOB, "invite").by(ALICE));
    invited.refuses(&Plan::member(BOB, "join"), Rule::JoinRule, "4.2.6");
}

#[test]
fn restricted_joins_need_a_member_who_can_invite() {
    let join = |by: Value| {
        let mut plan = Plan::member(BOB, "join");
        plan.content["join_authorised_via_users_server"] = by;
        plan
    };
    for (rule, version) in [("restricted", RoomVersionId::V8), ("knock_restricted", V12)] {
        let room = Room::new(&version).with(state(kind::JOIN_RULES, json!({ "join_rule": rule })));
        let part = if version == V12 { "5.3" } else { "4.3" };
        room.allows(&join(json!(CAROL)));
        room.refuses(&Plan::member(BOB, "join"), Rule::JoinAuthoriser, &format!("{part}.5.2"));
        room.refuses(&join(json!("@dave:x")), Rule::JoinAuthoriser, &format!("{part}.5.2"));
        room.refuses(&join(json!(5)), Rule::MemberAuthoriser, if version == V12 { "5.2.1" } else { "4.2.1" });
        let strict = room.with(state(kind::POWER_LEVELS, json!({ "invite": 50, "users": { MOD: 50 } })));
        strict.allows(&join(json!(MOD)));
        strict.refuses(&join(json!(CAROL)), Rule::JoinAuthoriser, &format!("{part}.5.2"));
        strict.with(Plan::member(BOB, "invite").by(MOD)).allows(&Plan::member(BOB, "join"));
    }
    // Not a rule of version 7, and half of it not of version 9.
    let room = Room::new(&RoomVersionId::V7).with(state(kind::JOIN_RULES, json!({ "join_rule": "restricted" })));
    room.refuses(&join(json!(CAROL)), Rule::JoinRule, "4.2.6");
    let room = Room::new(&V9).with(state(kind::JOIN_RULES, json!({ "join_rule": "knock_restricted" })));
    room.refuses(&join(json!(CAROL)), Rule::JoinRule, "4.3.7");
}

fn identity() -> SigningKey {
    SigningKey::from_seed(&[9; 32], "0").unwrap()
}

fn third_party(target: &str, change: impl FnOnce(&mut Value)) -> Plan {
    let signed = json!({ "mxid": target, "token": "tok" }).to_string();
    let signed = sign_json(signed.as_bytes(), "id.example".try_into().unwrap(), &identity()).unwrap();
    let mut invite = json!({ "signed": serde_json::from_slice::<Value>(&signed).unwrap() });
    change(&mut invite);
    let mut plan = Plan::member(target, "invite").by(CAROL);
    plan.content["third_party_invite"] = invite;
    plan
}

#[test]
fn third_party_invites_are_proven() {
    let key = identity().verify_key().to_base64();
    let sent = |content: Value| Plan::new(kind::THIRD_PARTY_INVITE, Some("tok"), CAROL, content);
    let room = Room::new(&V12).with(sent(json!({ "public_key": key })));
    room.allows(&third_party(BOB, |_| {}));
    // The sender need not be in the room any more.
    Room::new(&V12)
        .with(sent(json!({ "public_keys": [{ "public_key": "AA" }, { "public_key": key }, 5] })))
        .with(Plan::member(CAROL, "leave"))
        .allows(&third_party(BOB, |_| {}));
    room.refuses(&third_party(BOB, |i| *i = json!({})), Rule::InviteSigned, "5.4.1.2");
    room.refuses(&third_party(BOB, |i| i["signed"]["token"] = json!(1)), Rule::InviteToken, "5.4.1.3");
    room.refuses(&third_party(BOB, |i| i["signed"]["mxid"] = json!(MOD)), Rule::InviteMxid, "5.4.1.4");
    room.refuses(&third_party(BOB, |i| i["signed"]["token"] = json!("x")), Rule::InviteUnknownToken, "5.4.1.5");
    room.refuses(&third_party(BOB, |_| {}).by(ALICE), Rule::InviteSender, "5.4.1.6");
    room.refuses(&third_party(BOB, |i| i["signed"]["more"] = json!(1)), Rule::InviteSignature, "5.4.1.8");
    let wrong = SigningKey::from_seed(&[1; 32], "0").unwrap().verify_key().to_base64();
    let room = room.with(sent(json!({ "public_key": wrong })));
    room.refuses(&third_party(BOB, |_| {}), Rule::InviteSignature, "5.4.1.8");
    let room = Room::new(&V6).with(sent(json!({ "public_key": key }))).with(Plan::member(BOB, "ban"));
    room.refuses(&third_party(BOB, |_| {}), Rule::InviteBanned, "4.3.1.1");
}

#[test]
fn sending_needs_membership_and_power() {
    let room = Room::new(&V12);
    room.allows(&message(CAROL));
    room.refuses(&message(BOB), Rule::SenderNotJoined, "6");
    room.refuses(&state("m.room.topic", json!({})).by(CAROL), Rule::RequiredPower, "8");
    let own = Plan::new("org.example.own", Some(CAROL), CAROL, json!({}));
    let free = Room::new(&V12).with(state(kind::POWER_LEVELS, json!({ "state_default": 0, "invite": 10 })));
    free.allows(&own);
    free.refuses(&own.clone().by(ALICE), Rule::StateKeyOther, "9");
    let invite = Plan::new(kind::THIRD_PARTY_INVITE, Some("t"), CAROL, json!({}));
    free.refuses(&invite, Rule::ThirdPartyInvitePower, "7.1");
    // The invite level alone decides about third-party invites, not the one for state.
    room.allows(&invite);
}

/// gomatrixserverlib GHSA-grvv-h2f9-7v9c: `events_default` counts for messages, and only for them.
#[test]
fn events_default_is_the_level_of_messages() {
    for version in VERSIONS {
        for (level, allowed) in [(json!(0), true), (json!(1), false), (json!(-5), true), (json!(50), false)] {
            let room = Room::new(&version).with(state(kind::POWER_LEVELS, json!({ "events_default": level })));
            assert_eq!(room.judge(&message(CAROL)).is_ok(), allowed, "version {version}, {level}");
            let topic = state("m.room.topic", json!({})).by(CAROL);
            assert!(room.judge(&topic).is_err(), "the level of state is 50 still");
        }
        let room = Room::new(&version).with(state(kind::POWER_LEVELS, json!({ "users_default": -1 })));
        assert!(room.judge(&message(CAROL)).is_err(), "nobody speaks below 0 where 0 is needed");
    }
}

#[test]
fn levels_are_changed_within_ones_own() {
    let base = json!({
        "users": { MOD: 50, "@other:x": 50, "@low:x": 10 }, "ban": 60, "kick": 50, "state_default": 0,
        "events": { "high": 70, "low": 20 }, "notifications": { "room": 50 },
    });
    let room = Room::new(&V12).with(power_levels(ALICE, base.clone()));
    let change = |change: &dyn Fn(&mut Value)| {
        let mut content = base.clone();
        change(&mut content);
        power_levels(MOD, content)
    };
    room.allows(&change(&|_| {}));
    room.allows(&change(&|c| c["kick"] = json!(0)));
    room.allows(&change(&|c| c["users"]["@low:x"] = json!(50)));
    room.allows(&change(&|c| c["users"][MOD] = json!(0)));
    room.allows(&change(&|c| c["events"]["low"] = json!(50)));
    room.refuses(&change(&|c| c["ban"] = json!(50)), Rule::LevelsFieldOld, "10.6.1");
    room.refuses(&change(&|c| c["kick"] = json!(51)), Rule::LevelsFieldNew, "10.6.2");
    room.refuses(&change(&|c| c["events"]["high"] = json!(0)), Rule::LevelsEntryOld, "10.7.1");
    room.refuses(&change(&|c| c["events"] = json!({})), Rule::LevelsEntryOld, "10.7.1");
    room.refuses(&change(&|c| c["events"]["new"] = json!(51)), Rule::LevelsEntryNew, "10.8.1");
    room.refuses(&change(&|c| c["notifications"]["room"] = json!(51)), Rule::LevelsEntryNew, "10.8.1");
    room.refuses(&change(&|c| c["users"]["@other:x"] = json!(0)), Rule::LevelsUserOld, "10.9.1");
    room.refuses(&change(&|c| c["users"]["@low:x"] = json!(51)), Rule::LevelsUserNew, "10.10.1");
    room.refuses(&change(&|c| c["users"][MOD] = json!(51)), Rule::LevelsUserNew, "10.10.1");
    room.refuses(&change(&|c| c["users"][ALICE] = json!(5)), Rule::LevelsCreator, "10.4");
    room.refuses(&change(&|c| c["ban"] = json!("60")), Rule::LevelsFields, "10.1");
    room.refuses(&change(&|c| c["events"] = json!(null)), Rule::LevelsMaps, "10.2");
    room.refuses(&change(&|c| c["users"] = json!({ "low": 10 })), Rule::LevelsUsers, "10.3");
    // A creator is above all of it.
    room.allows(&change(&|c| c["users"] = json!({ "@low:x": 1_000_000 })).by(ALICE));
}

#[test]
fn numbers_of_rules_follow_the_text_of_each_version() {
    let number = |version: &RoomVersionId, rule: Rule| rule.number(&rules(version));
    use RoomVersionId::*;
    let rows = [
        (Rule::Federate, ["3", "3", "3", "3", "3", "3", "4"]),
        (Rule::MembershipUnknown, ["4.6", "4.7", "4.8", "4.8", "4.8", "4.8", "5.8"]),
        (Rule::KnockRule, ["", "4.6.1", "4.7.1", "4.7.1", "4.7.1", "4.7.1", "5.7.1"]),
        (Rule::BanPower, ["4.5.3", "4.5.3", "4.6.3", "4.6.3", "4.6.3", "4.6.3", "5.6.3"]),
        (Rule::LevelsUserNew, ["9.7.1", "9.7.1", "9.7.1", "9.7.1", "9.9.1", "9.9.1", "10.10.1"]),
        (Rule::AuthRejected, ["2.3", "2.3", "2.3", "2.3", "2.3", "2.3", "3.3"]),
    ];
    for (rule, numbers) in rows {
        assert_eq!(VERSIONS.map(|version| number(&version, rule)), numbers, "{rule:?}");
    }
    assert_eq!([V1, V5].map(|version| number(&version, Rule::Aliases)), ["4.2", "4.2"]);
}

#[test]
fn create_events_are_judged_alone() {
    for version in VERSIONS {
        let room = Room::new(&version);
        let judge = |plan: &Plan| {
            let event = plan.pdu(&room.rules, &room.room, &hash_id("create"));
            let judged = auth::check_auth_events(&room.rules, &event, &[], None);
            let by_state = auth::check(&room.rules, &event, &event, &AuthState::<Arc<Pdu>>::new());
            assert_eq!(judged, by_state, "the rules for create events are asked whatever is called");
            judged.map_err(|reject| reject.rule)
        };
        let change = |change: &dyn Fn(&mut Plan)| {
            let mut plan = room.create.clone();
            change(&mut plan);
            judge(&plan)
        };
        assert_eq!(change(&|_| {}), Ok(()));
        assert_eq!(change(&|p| p.prev = vec![hash_id("x")]), Err(Rule::CreatePrevEvents));
        assert_eq!(change(&|p| p.content["room_version"] = json!("no such")), Err(Rule::CreateVersion));
        assert_eq!(change(&|p| p.content["room_version"] = json!(12)), Err(Rule::CreateVersion));
        assert_eq!(change(&|p| p.content["room_version"] = json!(null)), Err(Rule::CreateVersion));
        let without = change(&|p| drop(p.content.as_object_mut().unwrap().remove("creator")));
        assert_eq!(without.is_ok(), room.rules.creator_is_sender);
        let additional = |value: Value| change(&|p| p.content["additional_creators"] = value.clone());
        assert_eq!(additional(json!([BOB, CAROL])), Ok(()));
        for bad in [json!(null), json!(BOB), json!(["bob"]), json!([5]), json!({})] {
            let expected = if version == V12 { Err(Rule::CreateAdditional) } else { Ok(()) };
            assert_eq!(additional(bad), expected);
        }
        if version != V12 {
            assert_eq!(change(&|p| p.sender = BOB.into()), Err(Rule::CreateRoomId));
        }
    }
}

#[test]
fn auth_events_are_those_that_are_selected() {
    for version in VERSIONS {
        let room = Room::new(&version);
        let is_12 = version == V12;
        let rule = |change: &dyn Fn(&mut Named)| room.names(&message(CAROL), change).map_err(|reject| reject.rule);
        let other = |name: &str| room.build(&message(ALICE), name);
        assert_eq!(rule(&|_| {}), Ok(()));
        assert_eq!(rule(&|named| named.retain(|(e, _)| e.kind() == kind::CREATE)), Ok(()));
        let first = |named: &[(Arc<Pdu>, bool)]| named[0].clone();
        assert_eq!(rule(&|named| named.push(first(named))), Err(Rule::AuthDuplicate));
        let again = |named: &[(Arc<Pdu>, bool)]| {
            let e = &named[0].0;
            (room.build(&Plan::new(e.kind(), e.state_key(), ALICE, json!({})), "again"), false)
        };
        assert_eq!(rule(&|named| named.push(again(named))), Err(Rule::AuthDuplicate));
        assert_eq!(rule(&|named| named[0].1 = true), Err(Rule::AuthRejected));
        // Rules that nobody needs for a message; an event that is no state; a create event where it is not selected.
        let join_rules = room.events().into_iter().find(|e| e.kind() == kind::JOIN_RULES).unwrap();
        assert_eq!(rule(&|named| named.push((join_rules.clone(), false))), Err(Rule::AuthUnneeded));
        assert_eq!(rule(&|named| named.push((other("message"), false))), Err(Rule::AuthUnneeded));
        let create = room.events()[0].clone();
        if is_12 {
            assert_eq!(rule(&|named| named.push((create.clone(), false))), Err(Rule::AuthUnneeded));
        } else {
            assert_eq!(rule(&|named| named.retain(|(e, _)| e.kind() != kind::CREATE)), Err(Rule::AuthCreate));
        }
        let foreign = if is_12 { hash_id("elsewhere").replacen('$', "!", 1) } else { "!elsewhere:x".into() };
        let foreign = state(kind::POWER_LEVELS, json!({})).pdu(&room.rules, &foreign, &hash_id("foreign"));
        let replace = |named: &mut Named| {
            named.retain(|(e, _)| e.kind() != kind::POWER_LEVELS);
            named.push((foreign.clone(), false));
        };
        assert_eq!(rule(&replace), Err(Rule::AuthRoom));
    }
}

#[test]
fn what_an_event_names_must_be_known() {
    let room = Room::new(&V11);
    let event = Plan { auth: vec![hash_id("never seen")], ..message(CAROL) };
    let event = room.build(&event, "event");
    let reject = auth::check_auth_events(&room.rules, &event, &[], None).unwrap_err();
    assert_eq!(reject.rule, Rule::AuthUnknown);
}

/// From version 12 on the room id is the create event.
#[test]
fn the_room_id_names_an_accepted_create_event() {
    let room = Room::new(&V12);
    let check = |create: Option<&Pdu>, room_id: &str| {
        let event = message(CAROL).pdu(&room.rules, room_id, &hash_id("event"));
        auth::check_auth_events(&room.rules, &event, &[], create).map_err(|reject| (reject.rule, reject.number))
    };
    let events = room.events();
    assert_eq!(check(Some(&events[0]), &room.room), Ok(()));
    assert_eq!(check(None, &room.room), Err((Rule::RoomId, "2")));
    assert_eq!(check(Some(&events[1]), &room.room), Err((Rule::RoomId, "2")));
    let other = hash_id("other").replacen('$', "!", 1);
    assert_eq!(check(Some(&events[0]), &other), Err((Rule::RoomId, "2")));
}

#[test]
fn selection() {
    let needs = |version: &RoomVersionId, plan: &Plan| {
        let content = plan.content.to_string();
        let needs =
            auth::needs(&rules(version), user(&plan.sender), &plan.kind, plan.key.as_deref(), content.as_bytes());
        let mut needs: Vec<String> =
            needs.iter().map(|(kind, key)| format!("{}/{key}", &kind["m.room.".len()..])).collect();
        needs.sort();
        needs.join(" ")
    };
    let with = |mut plan: Plan, name: &str, value: Value| {
        plan.content[name] = value;
        plan
    };
    assert_eq!(needs(&V12, &state(kind::CREATE, json!({}))), "");
    assert_eq!(needs(&V11, &message(CAROL)), "create/ member/@carol:one.example power_levels/");
    assert_eq!(needs(&V12, &message(CAROL)), "member/@carol:one.example power_levels/");
    assert_eq!(needs(&V12, &Plan::member(CAROL, "leave")), "member/@carol:one.example power_levels/");
    assert_eq!(needs(&V12, &Plan::member(CAROL, "join")), "join_rules/ member/@carol:one.example power_levels/");
    assert_eq!(
        needs(&V12, &Plan::member(BOB, "ban").by(CAROL)),
        "member/@bob:two.example member/@carol:one.example power_levels/"
    );
    let authorised = with(Plan::member(BOB, "join"), "join_authorised_via_users_server", json!(CAROL));
    assert_eq!(needs(&V12, &authorised), "join_rules/ member/@bob:two.example member/@carol:one.example power_levels/");
    assert_eq!(needs(&V6, &authorised), "create/ join_rules/ member/@bob:two.example power_levels/");
    let invite = third_party(BOB, |_| {});
    assert_eq!(
        needs(&V12, &invite),
        "join_rules/ member/@bob:two.example member/@carol:one.example power_levels/ third_party_invite/tok"
    );
}

#[test]
fn unfederated_rooms_are_for_one_server() {
    let room = Room::new(&V11).create(json!({ "m.federate": false }));
    room.allows(&message(CAROL));
    room.refuses(&message(MOD), Rule::Federate, "3");
}

#[test]
fn powers_answer_for_others() {
    let rules = rules(&V12);
    let room = Room::new(&V12).create(json!({ "room_version": "12", "additional_creators": [BOB] }));
    let content = json!({
        "users": { MOD: 50 }, "events": { "m.room.topic": 0, "m.room.message": 5 }, "redact": 60,
        "notifications": { "room": 20 },
        "ephemeral": { "org.example.draw": 0 }, "org.matrix.msc2477.ephemeral_default": 10,
    });
    let room = room.with(power_levels(ALICE, content));
    let events = room.events();
    let levels = events.iter().find(|e| e.kind() == kind::POWER_LEVELS);
    let powers = Powers::read(&rules, &events[0], levels.map(AsRef::as_ref)).unwrap();
    let (alice, bob, carol, moderator) = (user(ALICE), user(BOB), user(CAROL), user(MOD));
    assert_eq!(
        [alice, bob, carol, moderator].map(|u| powers.of(u)),
        [Power::Creator, Power::Creator, Power::Level(0), Power::Level(50)]
    );
    assert!(Power::Creator > Power::Level(i64::MAX) && Power::Creator.reaches(i64::MAX));
    assert!(powers.can_send(carol, "m.room.topic", true) && !powers.can_send(carol, "m.room.message", false));
    assert!(!powers.can_send(carol, "m.room.name", true) && powers.can_send(carol, "m.reaction", false));
    assert!(powers.can_invite(carol) && powers.can_kick(moderator, carol) && powers.can_ban(moderator, carol));
    assert!(!powers.can_kick(alice, bob), "creators do not stand above each other");
    assert!(powers.can_kick(bob, moderator) && !powers.can_kick(moderator, bob) && powers.can_unban(moderator, carol));
    assert!(!powers.can_redact_others(moderator) && powers.can_redact_others(bob));
    assert_eq!((powers.needed_to_notify("room"), powers.needed_to_notify("x")), (20, 50));
    assert_eq!((powers.needed_for_ephemeral("org.example.draw"), powers.needed_for_ephemeral("other")), (0, 10));
    assert_eq!(powers.levels().unwrap().given(Field::Ban), None);

    let none = Powers::read(&rules, &events[0], None).unwrap();
    assert_eq!((none.of(alice), none.of(carol)), (Power::Creator, Power::Level(0)));
    assert_eq!((none.needed("x", true), none.needed("x", false), none.needed_for_ephemeral("x")), (50, 0, 50));
    let old = Room::new(&V11);
    let none = Powers::read(&old.rules, &old.events()[0], None).unwrap();
    assert_eq!((none.of(alice), none.of(carol)), (Power::Level(100), Power::Level(0)));
}

#[test]
fn levels_are_integers_as_each_version_has_them() {
    let read = |version: &RoomVersionId, json: &str| {
        let content = format!(r#"{{"ban":{json}}}"#);
        PowerLevels::read(&rules(version), content.as_bytes()).ok().map(|levels| levels.get(Field::Ban))
    };
    for (json, v5, v9, v10) in [
        ("5", Some(5), Some(5), Some(5)),
        ("-5", Some(-5), Some(-5), Some(-5)),
        (r#"" +005 ""#, Some(5), Some(5), None),
        (r#""-5""#, Some(-5), Some(-5), None),
        (r#""5.0""#, None, None, None),
        (r#""1_0""#, Some(10), Some(10), None),
        (r#""""#, None, None, None),
        ("5.9", Some(5), None, None),
        ("-5.9e1", Some(-59), None, None),
        ("9007199254740991", Some(9007199254740991), Some(9007199254740991), Some(9007199254740991)),
        ("9007199254740992", Some(9007199254740992), None, None),
        (r#""9007199254740992""#, Some(9007199254740992), Some(9007199254740992), None),
        ("null", Some(50), Some(50), None),
        ("true", Some(1), Some(1), None),
        ("[5]", None, None, None),
    ] {
        let found = [RoomVersionId::V5, V9, RoomVersionId::V10].map(|version| read(&version, json));
        assert_eq!(found, [v5, v9, v10], "{json}");
    }
    // Of two equal keys the last counts.
    let twice = br#"{"users":{"@a:x":"bad","@a:x":7},"ban":true,"ban":3}"#;
    let levels = PowerLevels::read(&rules(&V12), twice).unwrap();
    assert_eq!((levels.get(Field::Ban), levels.users.get("@a:x")), (3, Some(7)));
}

#[test]
fn early_versions_have_rules_for_aliases_and_redactions() {
    let v1 = rules(&RoomVersionId::V1);
    let room = Room { rules: v1, ..Room::new(&V6) };
    // Events of version 1 have ids with a domain.
    let judge = |kind: &str, key: Option<&str>, sender: &str, redacts: &str| {
        let event = json!({
            "event_id": "$e:two.example", "room_id": room.room, "type": kind, "sender": sender, "state_key": key,
            "redacts": redacts, "content": {}, "origin_server_ts": 1, "depth": 1, "hashes": {"sha256": ""},
            "prev_events": [], "auth_events": [], "signatures": {},
        });
        let mut event: Value = event;
        if key.is_none() {
            event.as_object_mut().unwrap().remove("state_key");
        }
        let event = Pdu::stored(event.to_string().into(), "$e:two.example".try_into().unwrap(), &room.rules).unwrap();
        let six = Room::new(&V6).events();
        let state: AuthState = six.iter().cloned().collect();
        auth::check(&room.rules, &event, &six[0], &state).map_err(|reject| (reject.rule, reject.number))
    };
    assert_eq!(judge(kind::ALIASES, Some("two.example"), BOB, "$x:y"), Ok(()), "even for somebody who is not joined");
    assert_eq!(judge(kind::ALIASES, Some("one.example"), BOB, "$x:y"), Err((Rule::Aliases, "4.2")));
    assert_eq!(judge(kind::REDACTION, None, CAROL, "$x:two.example"), Ok(()));
    assert_eq!(judge(kind::REDACTION, None, CAROL, "$x:one.example"), Err((Rule::Redaction, "11.3")));
    assert_eq!(judge(kind::REDACTION, None, MOD, "$x:one.example"), Ok(()));
}

#[test]
fn redactions_apply_by_power_or_by_server() {
    let room = Room::new(&V12);
    let events = room.events();
    let levels = events.iter().find(|e| e.kind() == kind::POWER_LEVELS);
    let powers = Powers::read(&room.rules, &events[0], levels.map(AsRef::as_ref)).unwrap();
    let by = |sender: &str| room.build(&Plan::new(kind::REDACTION, None, sender, json!({})), "redaction");
    let of = |sender: &str| room.build(&message(sender), "message");
    let applies = |a: &str, b: &str| auth::redaction_applies(&room.rules, &by(a), &of(b), &powers);
    assert!(applies(CAROL, CAROL) && applies(CAROL, ALICE), "of one server");
    assert!(applies(MOD, CAROL), "by power");
    assert!(!applies(CAROL, MOD));
}

#[test]
fn states_replace_and_find() {
    let room = Room::new(&V12).with(Plan::member(CAROL, "leave"));
    let mut state: AuthState = room.events().into_iter().collect();
    assert_eq!(state.membership(CAROL), Membership::Leave);
    state.set(room.build(&Plan::member(CAROL, "ban"), "later"));
    assert_eq!((state.membership(CAROL), state.membership(BOB)), (Membership::Ban, Membership::Leave));
    state.set(room.build(&message(CAROL), "message"));
    assert!(state.get("m.room.message", "").is_none());
    assert_eq!(JoinRule::of(state.get(kind::JOIN_RULES, "")), JoinRule::Invite);
}

/// Where ruma differs, and why we do.
mod differences {
    use super::*;

    #[track_caller]
    fn differs(room: &Room, plan: &Plan, ours: bool) {
        assert_eq!((room.judge(plan).is_ok(), room.ruma(plan).is_ok()), (ours, !ours), "version {}", room.rules.id);
    }

    /// Synapse: `join_rule_event.content.get("join_rule", "invite")`, and invite too where there is no event at all.
    #[test]
    fn without_a_join_rule_it_is_invite() {
        for version in VERSIONS {
            let invited = Room::new(&version).with(Plan::member(BOB, "invite").by(ALICE));
            let empty = Room::new(&version)
                .with(Plan::member(BOB, "invite").by(ALICE))
                .with(state(kind::JOIN_RULES, json!({})));
            for room in [invited.without(kind::JOIN_RULES), empty] {
                differs(&room, &Plan::member(BOB, "join"), true);
                assert_eq!(room.judge(&Plan::member("@dave:x", "join")).unwrap_err().rule, Rule::JoinRule);
            }
        }
    }

    /// The text: "If the property was added, changed or removed: if the current value is higher ...". Synapse compares
    /// no value where there is none.
    #[test]
    fn a_default_is_not_the_value_of_a_level_that_is_not_there() {
        for version in VERSIONS {
            let low = json!({ "users": { MOD: 40 }, "events": { "m.room.power_levels": 40 } });
            let mut with = low.clone();
            with["ban"] = json!(30);
            differs(
                &Room::new(&version).with(power_levels(ALICE, low.clone())),
                &power_levels(MOD, with.clone()),
                true,
            );
            differs(&Room::new(&version).with(power_levels(ALICE, with)), &power_levels(MOD, low), true);
        }
    }

    /// The text: "if `content` has a property". With null it has one.
    #[test]
    fn null_is_there() {
        let mut invite = Plan::member(BOB, "invite").by(CAROL);
        invite.content["third_party_invite"] = json!(null);
        differs(&Room::new(&V12), &invite, false);
        let mut join = Plan::member(CAROL, "join");
        join.content["join_authorised_via_users_server"] = json!(null);
        differs(&Room::new(&V12), &join, false);
    }

    /// A signature is enough, whatever else stands beside it.
    #[test]
    fn one_good_key_and_one_good_signature_suffice() {
        let key = identity().verify_key().to_base64();
        let sent = |content: Value| Plan::new(kind::THIRD_PARTY_INVITE, Some("tok"), CAROL, content);
        let keys = Room::new(&V12).with(sent(json!({ "public_key": 5, "public_keys": [{ "public_key": key }] })));
        differs(&keys, &third_party(BOB, |_| {}), true);
        let room = Room::new(&V12).with(sent(json!({ "public_key": key })));
        differs(&room, &third_party(BOB, |i| i["signed"]["signatures"]["a"] = json!(5)), true);
    }

    /// Synapse: `content.get("m.federate", True) is True`. ruma refuses every event of such a room.
    #[test]
    fn an_odd_federate_is_false() {
        let room = Room::new(&V11).create(json!({ "m.federate": "yes" }));
        differs(&room, &message(CAROL), true);
        assert_eq!(room.judge(&message(MOD)).unwrap_err().rule, Rule::Federate);
    }

    /// The text asks for the property only. Then nobody is the creator; ruma refuses every event of such a room.
    #[test]
    fn an_odd_creator_is_nobody() {
        let room = Room::new(&V9).create(json!({ "creator": 5 }));
        differs(&room, &message(CAROL), true);
        let empty = room.without(kind::POWER_LEVELS);
        assert_eq!(empty.judge(&state("m.room.topic", json!({}))).unwrap_err().rule, Rule::RequiredPower);
    }

    /// The text sets no limit to strings, and Synapse has none.
    #[test]
    fn strings_may_be_longer_than_canonical_integers() {
        differs(&Room::new(&V9), &power_levels(ALICE, json!({ "ban": "-9007199254740993" })), true);
    }

    /// ruma takes the version for known. Both sides of the version are looked at here.
    #[test]
    fn unknown_room_versions_are_refused() {
        let room = Room::new(&V12);
        let plan = Plan { content: json!({ "room_version": "x" }), ..room.create.clone() };
        let event = room.build(&plan, "create");
        assert_eq!(auth::check_auth_events(&room.rules, &event, &[], None).unwrap_err().rule, Rule::CreateVersion);
        let seen = Seen::new(&event, false, &V12);
        assert!(oracle::check_auth_events(&ruma_rules(&V12).authorization, &seen, &oracle::Events::new()).is_ok());
    }
}
