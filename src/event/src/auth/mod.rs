//! Authorisation: whether an event is allowed (room version specifications, "Authorisation rules").
//!
//! [`check_auth_events`] asks once what does not depend on state, [`check`] everything else, as often as there are states
//! to be judged by. What must be signed by whom is not asked here.

mod content;
mod create;
mod integer;
mod member;
mod needs;
mod power;
mod power_change;
mod redaction;
mod reject;
mod third_party;

use std::{borrow::Borrow, sync::Arc};

pub use content::{JoinRule, Membership};
pub use create::Create;
pub use needs::{Needs, needs};
pub use power::{Field, Levels, Power, PowerLevels, Powers};
pub use redaction::redaction_applies;
pub use reject::{Reject, Rule};
use smallvec::SmallVec;

use crate::{pdu::Pdu, version::Rules};

/// The event types that the rules know.
pub mod kind {
    /// `m.room.create`
    pub const CREATE: &str = "m.room.create";
    /// `m.room.member`
    pub const MEMBER: &str = "m.room.member";
    /// `m.room.power_levels`
    pub const POWER_LEVELS: &str = "m.room.power_levels";
    /// `m.room.join_rules`
    pub const JOIN_RULES: &str = "m.room.join_rules";
    /// `m.room.third_party_invite`
    pub const THIRD_PARTY_INVITE: &str = "m.room.third_party_invite";
    /// `m.room.aliases`
    pub const ALIASES: &str = "m.room.aliases";
    /// `org.matrix.dummy_event`: it says nothing, but brings forward extremities together.
    pub const DUMMY: &str = "org.matrix.dummy_event";
    /// `m.room.policy`
    pub const POLICY: &str = "m.room.policy";
    /// `m.room.redaction`
    pub const REDACTION: &str = "m.room.redaction";
}

/// The state that an event is judged by; what [`needs`] names suffices.
pub trait State {
    /// The event with that type and state key, if the state has one.
    fn get(&self, kind: &str, state_key: &str) -> Option<&Pdu>;

    /// A user's membership. To be given where it is known without reading the event.
    fn membership(&self, user: &str) -> Membership {
        Membership::of(self.get(kind::MEMBER, user))
    }
}

/// A handful of state events.
#[derive(Clone, Debug, Default)]
pub struct AuthState<P = Arc<Pdu>>(SmallVec<[P; 6]>);

impl<P: Borrow<Pdu>> AuthState<P> {
    /// An empty state.
    pub fn new() -> AuthState<P> {
        AuthState(SmallVec::new())
    }

    /// Sets a state event in place of the one with the same type and key. Other events change nothing.
    pub fn set(&mut self, event: P) {
        let pdu: &Pdu = event.borrow();
        let Some(key) = pdu.state_key() else { return };
        let place = self.0.iter().position(|old| Borrow::<Pdu>::borrow(old).is_state(pdu.kind(), key));
        match place {
            Some(place) => self.0[place] = event,
            None => self.0.push(event),
        }
    }
}

impl<P: Borrow<Pdu>> FromIterator<P> for AuthState<P> {
    fn from_iter<I: IntoIterator<Item = P>>(events: I) -> Self {
        let mut state = AuthState(SmallVec::new());
        events.into_iter().for_each(|event| state.set(event));
        state
    }
}

impl<P: Borrow<Pdu>> State for AuthState<P> {
    fn get(&self, kind: &str, state_key: &str) -> Option<&Pdu> {
        self.0.iter().map(Borrow::borrow).find(|event: &&Pdu| event.is_state(kind, state_key))
    }
}

/// Asks the rules that do not depend on state: those for create events, and those for the list of auth events.
///
/// `auth` are the events that the event names, each with whether it was rejected; `create` is the room's create event if
/// it was accepted (asked for only where the room id names it, from version 12 on).
///
/// # Errors
/// The rule that refuses.
pub fn check_auth_events(
    rules: &Rules,
    event: &Pdu,
    auth: &[(&Pdu, bool)],
    create: Option<&Pdu>,
) -> Result<(), Reject> {
    if event.kind() == kind::CREATE {
        return create::check(rules, event);
    }
    let reject = |rule, why: String| Err(Reject::new(rules, rule, why));
    if rules.room_id_is_create_hash && !create.is_some_and(|create| is_create_of(create, event)) {
        return reject(Rule::RoomId, format!("{} is not the id of an accepted create event", event.room_id()));
    }
    let needed = needs(rules, event.sender(), event.kind(), event.state_key(), event.content());
    let mut seen: SmallVec<[bool; 8]> = SmallVec::from_elem(false, needed.len());
    for id in event.auth_events() {
        let Some((named, rejected)) = auth.iter().find(|(named, _)| named.event_id() == id) else {
            return reject(Rule::AuthUnknown, format!("the auth event {id} is not known"));
        };
        if named.room_id() != event.room_id() {
            return reject(Rule::AuthRoom, format!("the auth event {id} is of another room"));
        }
        let place = needed.iter().position(|(kind, key)| named.is_state(kind, key));
        let Some(place) = place else {
            return reject(Rule::AuthUnneeded, format!("the auth event {id} ({}) is not needed", named.kind()));
        };
        if std::mem::replace(&mut seen[place], true) {
            return reject(Rule::AuthDuplicate, format!("the auth event {id} ({}) repeats another", named.kind()));
        }
        if *rejected {
            return reject(Rule::AuthRejected, format!("the auth event {id} was rejected"));
        }
    }
    let has_create = needed.iter().zip(&seen).any(|((kind, _), seen)| *seen && *kind == kind::CREATE);
    if !rules.room_id_is_create_hash && !has_create {
        return reject(Rule::AuthCreate, "no create event among the auth events".into());
    }
    Ok(())
}

fn is_create_of(create: &Pdu, event: &Pdu) -> bool {
    let (id, room) = (create.event_id().as_str(), event.room_id().as_str());
    create.is_state(kind::CREATE, "") && room.strip_prefix('!') == id.strip_prefix('$')
}

/// Asks every rule that depends on state. `create` is the create event of that state; in version 12, of the room.
///
/// # Errors
/// The rule that refuses.
pub fn check(rules: &Rules, event: &Pdu, create: &Pdu, state: &dyn State) -> Result<(), Reject> {
    let powers = Powers::read(rules, create, state.get(kind::POWER_LEVELS, ""))?;
    check_with(rules, event, &powers, state)
}

/// The same with powers that were read before: those of the state's create event and power levels.
///
/// # Errors
/// The rule that refuses.
pub fn check_with(rules: &Rules, event: &Pdu, powers: &Powers, state: &dyn State) -> Result<(), Reject> {
    if event.kind() == kind::CREATE {
        return create::check(rules, event);
    }
    let reject = |rule, why: String| Err(Reject::new(rules, rule, why));
    let sender = event.sender();
    // Synapse refuses memberships of other servers' users there too; with one server nobody can disagree about it.
    if !powers.create().admits(sender.server_name()) {
        return reject(Rule::Federate, format!("the room is not federated and {sender} is of another server"));
    }
    if rules.special_case_aliases && event.kind() == kind::ALIASES {
        if event.state_key() == Some(sender.server_name().as_str()) {
            return Ok(());
        }
        return reject(Rule::Aliases, "the state key is not the sender's domain".into());
    }
    if event.kind() == kind::MEMBER {
        return member::check(rules, event, powers, state);
    }
    if state.membership(sender.as_str()) != Membership::Join {
        return reject(Rule::SenderNotJoined, format!("{sender} is not joined"));
    }
    if event.kind() == kind::THIRD_PARTY_INVITE {
        if powers.can_invite(sender) {
            return Ok(());
        }
        return reject(Rule::ThirdPartyInvitePower, format!("{sender} has not the power to invite"));
    }
    let needed = powers.needed(event.kind(), event.state_key().is_some());
    let power = powers.of(sender);
    if !power.reaches(needed) {
        let why = format!("{sender} has power {power}, {} needs {needed}", event.kind());
        return reject(Rule::RequiredPower, why);
    }
    if event.state_key().is_some_and(|key| key.starts_with('@') && key != sender.as_str()) {
        return reject(Rule::StateKeyOther, format!("{sender} cannot set the state of another user"));
    }
    match event.kind() {
        kind::POWER_LEVELS => power_change::check(rules, event, powers),
        kind::REDACTION if rules.special_case_redaction => redaction::check(rules, event, powers),
        _ => Ok(()),
    }
}
