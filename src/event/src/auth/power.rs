//! Power: what a user has, and what an action needs (Client-Server API, `m.room.power_levels`).

use std::{fmt, sync::Arc};

use serde_json::value::RawValue;

use super::{Create, Reject, Rule, content::each_field, integer::integer};
use crate::{
    ids::{OwnedUserId, UserId},
    pdu::Pdu,
    version::Rules,
};

/// A user's power. Numbers compare as numbers; a creator of a version 12 room is above all of them.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Power {
    /// A number.
    Level(i64),
    /// Above every number, equal to each other.
    Creator,
}

impl Power {
    /// Whether it suffices for something that needs a level.
    pub fn reaches(self, level: i64) -> bool {
        self >= Power::Level(level)
    }
}

impl fmt::Display for Power {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Power::Level(level) => level.fmt(f),
            Power::Creator => f.write_str("that of a creator"),
        }
    }
}

/// The properties of `m.room.power_levels` that are single numbers.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(usize)]
pub enum Field {
    /// What users have who are not listed.
    UsersDefault,
    /// What message events need that are not listed.
    EventsDefault,
    /// What state events need that are not listed.
    StateDefault,
    /// What a ban needs.
    Ban,
    /// What redacting others' events needs.
    Redact,
    /// What a kick needs.
    Kick,
    /// What an invite needs.
    Invite,
}

impl Field {
    /// All of them, in the order of the text.
    pub const ALL: [Field; 7] = [
        Field::UsersDefault,
        Field::EventsDefault,
        Field::StateDefault,
        Field::Ban,
        Field::Redact,
        Field::Kick,
        Field::Invite,
    ];

    /// As it is written in events.
    pub fn as_str(self) -> &'static str {
        match self {
            Field::UsersDefault => "users_default",
            Field::EventsDefault => "events_default",
            Field::StateDefault => "state_default",
            Field::Ban => "ban",
            Field::Redact => "redact",
            Field::Kick => "kick",
            Field::Invite => "invite",
        }
    }

    /// What counts where it is not given.
    pub fn default_level(self) -> i64 {
        match self {
            Field::UsersDefault | Field::EventsDefault | Field::Invite => 0,
            Field::StateDefault | Field::Ban | Field::Redact | Field::Kick => 50,
        }
    }
}

/// What is read of a content. The stable name of the last two stands after the unstable one and so wins.
const KEYS: [&str; 14] = [
    "users_default",
    "events_default",
    "state_default",
    "ban",
    "redact",
    "kick",
    "invite",
    "events",
    "notifications",
    "users",
    "org.matrix.msc2477.ephemeral",
    "ephemeral",
    "org.matrix.msc2477.ephemeral_default",
    "ephemeral_default",
];

/// Names with levels, sorted by name.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Levels(Vec<(Box<str>, i64)>);

impl Levels {
    /// The level of a name.
    pub fn get(&self, name: &str) -> Option<i64> {
        self.0.binary_search_by(|(n, _)| n.as_ref().cmp(name)).ok().map(|i| self.0[i].1)
    }

    /// All of them, sorted by name.
    pub fn iter(&self) -> impl Iterator<Item = (&str, i64)> {
        self.0.iter().map(|(name, level)| (name.as_ref(), *level))
    }

    /// `None` if the value is no object of integers. An entry that is `null` is left out and said, where it is allowed.
    fn read(rules: &Rules, value: &RawValue, nulls: Option<&mut bool>) -> Option<Levels> {
        let mut levels: Vec<(Box<str>, Entry)> = Vec::new();
        let object = each_field(value.get().as_bytes(), &mut |name, value| {
            levels.push((name.into(), entry(rules, value)));
        });
        if !object {
            return None;
        }
        // Of two equal names the last counts: the sort is stable, so it comes last and replaces the earlier one.
        levels.sort_by(|a, b| a.0.cmp(&b.0));
        levels.dedup_by(|later, earlier| {
            let same = later.0 == earlier.0;
            if same {
                earlier.1 = later.1;
            }
            same
        });
        let (mut read, mut has_null) = (Vec::with_capacity(levels.len()), false);
        for (name, entry) in levels {
            match entry {
                Entry::Level(level) => read.push((name, level)),
                Entry::Null => has_null = true,
                Entry::Other => return None,
            }
        }
        match nulls {
            Some(nulls) => *nulls |= has_null,
            None if has_null => return None,
            None => {}
        }
        Some(Levels(read))
    }
}

/// What stands where a level is expected.
#[derive(Clone, Copy)]
enum Entry {
    Level(i64),
    Null,
    Other,
}

fn entry(rules: &Rules, value: &RawValue) -> Entry {
    match integer(rules, value) {
        Some(level) => Entry::Level(level),
        None if value.get() == "null" && !rules.integer_power_levels => Entry::Null,
        None => Entry::Other,
    }
}

/// Whether a key of `users` is a user. In versions 1 to 5, as in Synapse, whatever has a sigil and a colon: people typed
/// these by hand.
fn names_user(rules: &Rules, id: &str) -> bool {
    <&UserId>::try_from(id).is_ok() || (!rules.strict_json && id.starts_with('@') && id.contains(':'))
}

/// The content of an `m.room.power_levels` event.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct PowerLevels {
    fields: [Option<i64>; 7],
    /// What users have.
    pub users: Levels,
    /// What event types need.
    pub events: Levels,
    /// What notifying everyone needs, by key (`room`).
    pub notifications: Levels,
    ephemeral: Levels,
    ephemeral_default: Option<i64>,
    nulls: bool,
}

impl PowerLevels {
    /// Reads a content.
    ///
    /// # Errors
    /// Where a level is not what the room version calls an integer, or `users` names somebody who is no user. For
    /// versions before 10 the text asks this of `users` only and leaves open what other malformed levels mean; here as
    /// in ruma they make the event invalid (Synapse fails on the next comparison with them). `null` counts there as
    /// not given, as in Synapse, but see [`PowerLevels::has_nulls`].
    pub fn read(rules: &Rules, content: &[u8]) -> Result<PowerLevels, Reject> {
        let mut found: [Option<&RawValue>; KEYS.len()] = [None; KEYS.len()];
        let whole = each_field(content, &mut |key, value| {
            if let Some(i) = KEYS.iter().position(|known| *known == key) {
                found[i] = Some(value);
            }
        });
        if !whole {
            return Err(Reject::new(rules, Rule::LevelsFields, "the content is no object"));
        }
        let mut levels = PowerLevels::default();
        for (key, value) in KEYS.into_iter().zip(found) {
            let Some(value) = value else { continue };
            levels
                .read_field(rules, key, value)
                .map_err(|rule| Reject::new(rules, rule, format!("`{key}` has a value that no power level is")))?;
        }
        Ok(levels)
    }

    fn read_field(&mut self, rules: &Rules, key: &str, value: &RawValue) -> Result<(), Rule> {
        match key {
            "users" => {
                self.users = Levels::read(rules, value, None).ok_or(Rule::LevelsUsers)?;
                if self.users.iter().any(|(id, _)| !names_user(rules, id)) {
                    return Err(Rule::LevelsUsers);
                }
            }
            "events" => {
                self.events = Levels::read(rules, value, Some(&mut self.nulls)).ok_or(Rule::LevelsMaps)?;
            }
            "notifications" => match Levels::read(rules, value, rules.limit_notifications.then_some(&mut self.nulls)) {
                Some(levels) => self.notifications = levels,
                None if rules.limit_notifications => return Err(Rule::LevelsMaps),
                None => {}
            },
            // No rule of any version speaks of these (MSC2477), so they can make no event invalid.
            "org.matrix.msc2477.ephemeral" | "ephemeral" => {
                self.ephemeral = Levels::read(rules, value, None).unwrap_or_default();
            }
            "org.matrix.msc2477.ephemeral_default" | "ephemeral_default" => {
                self.ephemeral_default = integer(rules, value);
            }
            _ => {
                if let Some(field) = Field::ALL.into_iter().find(|field| field.as_str() == key) {
                    match entry(rules, value) {
                        Entry::Level(level) => self.fields[field as usize] = Some(level),
                        Entry::Null => self.nulls = true,
                        Entry::Other => return Err(Rule::LevelsFields),
                    }
                }
            }
        }
        Ok(())
    }

    /// Whether a level is `null`, which only the first power levels of a room before version 10 may have: no change from
    /// or to it is allowed, as it cannot be compared (in Synapse that fails).
    pub fn has_nulls(&self) -> bool {
        self.nulls
    }

    /// A single number as it stands in the content, without its default.
    pub fn given(&self, field: Field) -> Option<i64> {
        self.fields[field as usize]
    }

    /// A single number, or its default.
    pub fn get(&self, field: Field) -> i64 {
        self.given(field).unwrap_or(field.default_level())
    }
}

/// Who has what power in a room: its create event and its power levels together.
#[derive(Clone, Debug)]
pub struct Powers {
    create: Arc<Create>,
    levels: Option<Arc<PowerLevels>>,
}

impl Powers {
    /// Reads both events. `power_levels` is the room's, if there is one.
    ///
    /// # Errors
    /// If the power levels are malformed, which those of an accepted event are not.
    pub fn read(rules: &Rules, create: &Pdu, power_levels: Option<&Pdu>) -> Result<Powers, Reject> {
        let levels = power_levels.map(|event| PowerLevels::read(rules, event.content())).transpose()?;
        Ok(Powers::new(Create::read(rules, create), levels.map(Arc::new)))
    }

    /// From parts that were read before.
    pub fn new(create: impl Into<Arc<Create>>, levels: Option<Arc<PowerLevels>>) -> Powers {
        Powers { create: create.into(), levels }
    }

    /// What is known of the create event.
    pub fn create(&self) -> &Create {
        &self.create
    }

    /// The power levels, if the room has any.
    pub fn levels(&self) -> Option<&PowerLevels> {
        self.levels.as_deref()
    }

    /// What a user has.
    pub fn of(&self, user: &UserId) -> Power {
        if self.create.creators_are_privileged() && self.is_creator(user) {
            return Power::Creator;
        }
        Power::Level(match &self.levels {
            Some(levels) => levels.users.get(user.as_str()).unwrap_or(levels.get(Field::UsersDefault)),
            None if self.is_creator(user) => 100,
            None => Field::UsersDefault.default_level(),
        })
    }

    fn is_creator(&self, user: &UserId) -> bool {
        self.create.creators().iter().any(|creator: &OwnedUserId| creator == user)
    }

    /// A single number, or its default.
    pub fn get(&self, field: Field) -> i64 {
        self.levels.as_ref().map_or(field.default_level(), |levels| levels.get(field))
    }

    /// What sending an event of a type needs.
    pub fn needed(&self, event_type: &str, is_state: bool) -> i64 {
        let listed = self.levels.as_ref().and_then(|levels| levels.events.get(event_type));
        listed.unwrap_or_else(|| self.get(if is_state { Field::StateDefault } else { Field::EventsDefault }))
    }

    /// What sending an ephemeral event of a type of one's own needs (MSC2477).
    pub fn needed_for_ephemeral(&self, event_type: &str) -> i64 {
        const DEFAULT: i64 = 50;
        self.levels
            .as_ref()
            .map_or(DEFAULT, |levels| levels.ephemeral.get(event_type).or(levels.ephemeral_default).unwrap_or(DEFAULT))
    }

    /// What notifying everyone needs (`room` for `@room`).
    pub fn needed_to_notify(&self, key: &str) -> i64 {
        self.levels.as_ref().and_then(|levels| levels.notifications.get(key)).unwrap_or(50)
    }

    /// Whether a user has the power to send such an event. Membership is another question.
    pub fn can_send(&self, user: &UserId, event_type: &str, is_state: bool) -> bool {
        self.of(user).reaches(self.needed(event_type, is_state))
    }

    /// Whether a user has the power to invite.
    pub fn can_invite(&self, user: &UserId) -> bool {
        self.of(user).reaches(self.get(Field::Invite))
    }

    /// Whether a user has the power to kick another.
    pub fn can_kick(&self, user: &UserId, target: &UserId) -> bool {
        let power = self.of(user);
        power.reaches(self.get(Field::Kick)) && self.of(target) < power
    }

    /// Whether a user has the power to ban another.
    pub fn can_ban(&self, user: &UserId, target: &UserId) -> bool {
        let power = self.of(user);
        power.reaches(self.get(Field::Ban)) && self.of(target) < power
    }

    /// Whether a user has the power to end another's ban.
    pub fn can_unban(&self, user: &UserId, target: &UserId) -> bool {
        self.of(user).reaches(self.get(Field::Ban)) && self.can_kick(user, target)
    }

    /// Whether a user has the power to redact what others sent.
    pub fn can_redact_others(&self, user: &UserId) -> bool {
        self.of(user).reaches(self.get(Field::Redact))
    }
}
