//! Reading event contents as the rules do: field by field, the last of two equal keys counts, and a field of the wrong
//! type is a finding of its own instead of a parse error of the whole.

use std::{borrow::Cow, fmt};

use serde::{
    Deserialize,
    de::{Deserializer as _, IgnoredAny, MapAccess, Visitor},
};
use serde_json::value::RawValue;

use crate::{ids::UserId, pdu::Pdu, version::Rules};

#[derive(Deserialize)]
struct Text<'a>(#[serde(borrow)] Cow<'a, str>);

/// Calls `each` for every key of a JSON object. `false` if it is no object.
pub(crate) fn each_field<'a>(json: &'a [u8], each: &mut dyn FnMut(Cow<'a, str>, &'a RawValue)) -> bool {
    let mut reader = serde_json::Deserializer::from_slice(json);
    reader.deserialize_map(Fields(each)).is_ok() && reader.end().is_ok()
}

struct Fields<'f, 'a>(&'f mut dyn FnMut(Cow<'a, str>, &'a RawValue));

impl<'a> Visitor<'a> for Fields<'_, 'a> {
    type Value = ();

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("an object")
    }

    fn visit_map<A: MapAccess<'a>>(self, mut map: A) -> Result<(), A::Error> {
        while let Some(key) = map.next_key::<Text<'a>>()? {
            (self.0)(key.0, map.next_value()?);
        }
        Ok(())
    }
}

/// The string that a JSON value is, if it is one.
pub(crate) fn text(value: &RawValue) -> Option<Cow<'_, str>> {
    serde_json::from_str::<Text<'_>>(value.get()).ok().map(|t| t.0)
}

/// Whether a JSON object has a field. `false` too if it is no object.
pub(crate) fn has_field(json: &[u8], name: &str) -> bool {
    struct Has<'n>(&'n str, bool);
    impl<'a> Visitor<'a> for Has<'_> {
        type Value = bool;
        fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
            f.write_str("an object")
        }
        fn visit_map<A: MapAccess<'a>>(mut self, mut map: A) -> Result<bool, A::Error> {
            while let Some(key) = map.next_key::<Text<'a>>()? {
                self.1 |= key.0 == self.0;
                map.next_value::<IgnoredAny>()?;
            }
            Ok(self.1)
        }
    }
    serde_json::Deserializer::from_slice(json).deserialize_map(Has(name, false)).unwrap_or(false)
}

/// `membership` of an `m.room.member` event.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Membership {
    /// In the room.
    Join,
    /// Invited.
    Invite,
    /// Not in the room; also everyone without a member event.
    Leave,
    /// Banned.
    Ban,
    /// Asked to be let in (7 and later).
    Knock,
    /// Something else, which no rule allows.
    Unknown,
}

impl Membership {
    /// Reads the value.
    pub fn parse(value: &str) -> Membership {
        match value {
            "join" => Membership::Join,
            "invite" => Membership::Invite,
            "leave" => Membership::Leave,
            "ban" => Membership::Ban,
            "knock" => Membership::Knock,
            _ => Membership::Unknown,
        }
    }

    /// Reads it from the content of a member event.
    pub fn of_content(content: &[u8]) -> Membership {
        MemberContent::read(content).membership.unwrap_or(Membership::Unknown)
    }

    /// A user's membership, given their member event, if there is one.
    pub fn of(event: Option<&Pdu>) -> Membership {
        event.map_or(Membership::Leave, |event| Membership::of_content(event.content()))
    }

    /// As it is written in events.
    pub fn as_str(self) -> &'static str {
        match self {
            Membership::Join => "join",
            Membership::Invite => "invite",
            Membership::Leave => "leave",
            Membership::Ban => "ban",
            Membership::Knock => "knock",
            Membership::Unknown => "(unknown)",
        }
    }
}

/// `join_rule` of an `m.room.join_rules` event.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum JoinRule {
    /// Everyone may join.
    Public,
    /// Invited users may join; also where there is no join rule.
    Invite,
    /// Like invite, and others may knock (7 and later).
    Knock,
    /// Members of other rooms may join too (8 and later).
    Restricted,
    /// Both (10 and later).
    KnockRestricted,
    /// Reserved, or not known.
    Other,
}

impl JoinRule {
    /// Reads the value.
    pub fn parse(value: &str) -> JoinRule {
        match value {
            "public" => JoinRule::Public,
            "invite" => JoinRule::Invite,
            "knock" => JoinRule::Knock,
            "restricted" => JoinRule::Restricted,
            "knock_restricted" => JoinRule::KnockRestricted,
            _ => JoinRule::Other,
        }
    }

    /// The room's join rule, given its join rules event, if there is one. Without the event or without the field it is
    /// `invite`: the text does not say so, every room that misses one depends on it (Synapse does the same).
    pub fn of(event: Option<&Pdu>) -> JoinRule {
        let mut rule = JoinRule::Invite;
        if let Some(event) = event {
            each_field(event.content(), &mut |key, value| {
                if key == "join_rule" {
                    rule = text(value).map_or(JoinRule::Other, |value| JoinRule::parse(&value));
                }
            });
        }
        rule
    }

    /// Whether the rule lets people knock in rooms of this version.
    pub fn allows_knock(self, rules: &Rules) -> bool {
        match self {
            JoinRule::Knock => rules.knock,
            JoinRule::KnockRestricted => rules.knock_restricted,
            _ => false,
        }
    }

    /// Whether the rule lets a member authorise others in rooms of this version.
    pub fn allows_restricted(self, rules: &Rules) -> bool {
        match self {
            JoinRule::Restricted => rules.restricted,
            JoinRule::KnockRestricted => rules.knock_restricted,
            _ => false,
        }
    }

    /// Whether the rule lets those join who are invited.
    pub fn allows_invited(self, rules: &Rules) -> bool {
        match self {
            JoinRule::Public | JoinRule::Invite => true,
            JoinRule::Knock => rules.knock,
            _ => self.allows_restricted(rules),
        }
    }
}

/// What the rules read in the content of a member event.
#[derive(Default)]
pub(crate) struct MemberContent<'a> {
    /// `None` if there is no such field, or no string.
    pub(crate) membership: Option<Membership>,
    /// The field is there; `Some(None)` if it is no user id.
    pub(crate) authoriser: Option<Option<Cow<'a, str>>>,
    /// The field is there.
    pub(crate) third_party_invite: Option<&'a RawValue>,
}

impl<'a> MemberContent<'a> {
    pub(crate) fn read(content: &'a [u8]) -> MemberContent<'a> {
        let mut found = MemberContent::default();
        let whole = each_field(content, &mut |key, value| match key.as_ref() {
            "membership" => found.membership = text(value).map(|value| Membership::parse(&value)),
            "join_authorised_via_users_server" => {
                found.authoriser = Some(text(value).filter(|id| <&UserId>::try_from(id.as_ref()).is_ok()));
            }
            "third_party_invite" => found.third_party_invite = Some(value),
            _ => {}
        });
        if whole { found } else { MemberContent::default() }
    }
}
