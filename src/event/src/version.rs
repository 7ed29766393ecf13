//! Room versions as a table of rules (specification, "Room Versions"): code asks for a rule, never for a number.

use crate::{
    ids::RoomVersionId,
    json::{JsonError, Object, Parser},
};

/// How event ids come to be.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum EventIdFormat {
    /// `$opaque:server`, chosen by the sender's server and carried in the event (versions 1 and 2).
    Given,
    /// `$` and the unpadded standard base64 of the reference hash (version 3).
    Hash,
    /// The same in URL-safe base64 (version 4 and later).
    UrlSafeHash,
}

/// Which algorithm resolves conflicting state.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum StateResolution {
    /// Version 1 rooms.
    V1,
    /// Version 2 to 11 rooms.
    V2,
    /// Version 12 rooms: starts from the empty state and adds the conflicted state subgraph.
    V2_1,
}

/// What redaction keeps beyond what every version keeps.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct RedactionRules {
    /// `m.room.aliases` keeps `aliases` (up to version 5).
    pub keep_aliases: bool,
    /// `m.room.join_rules` keeps `allow` (8 and later).
    pub keep_join_rules_allow: bool,
    /// `m.room.member` keeps `join_authorised_via_users_server` (9 and later).
    pub keep_member_authorised_via: bool,
    /// `m.room.create` keeps its whole content; `origin`, `membership` and `prev_state` are no longer kept at the top;
    /// `m.room.power_levels` keeps `invite`, `m.room.member` keeps `third_party_invite.signed`, `m.room.redaction` keeps
    /// `redacts` (11 and later).
    pub updated: bool,
}

/// Everything in which room versions differ.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Rules {
    /// The version that these are the rules of.
    pub id: RoomVersionId,
    /// How event ids come to be.
    pub event_id: EventIdFormat,
    /// `prev_events` and `auth_events` are pairs of id and hashes (1 and 2) instead of plain ids.
    pub reference_pairs: bool,
    /// The algorithm for conflicting state.
    pub state_resolution: StateResolution,
    /// What redaction keeps.
    pub redaction: RedactionRules,
    /// Only canonical JSON is accepted: no floats, no integers beyond 2^53-1, no key twice (6 and later).
    pub strict_json: bool,
    /// Signing keys must be valid at the event's time (5 and later).
    pub enforce_key_validity: bool,
    /// `m.room.aliases` has an auth rule of its own (up to 5).
    pub special_case_aliases: bool,
    /// A redaction is allowed to anyone of the redacted event's domain by the auth rules themselves (1 and 2).
    pub special_case_redaction: bool,
    /// `notifications` in power levels may be changed only within one's own level (6 and later).
    pub limit_notifications: bool,
    /// Knocking (7 and later).
    pub knock: bool,
    /// Restricted joins (8 and later).
    pub restricted: bool,
    /// `knock_restricted` (10 and later).
    pub knock_restricted: bool,
    /// Power levels are JSON integers, never strings (10 and later).
    pub integer_power_levels: bool,
    /// The creator is the sender of `m.room.create`; `content.creator` is gone; `redacts` is in the content (11 and later).
    pub creator_is_sender: bool,
    /// The room id is the create event's id with `!`; create is not listed in `auth_events` (12 and later).
    pub room_id_is_create_hash: bool,
    /// Creators, `additional_creators` included, have a power above every number (12 and later).
    pub creators_are_privileged: bool,
}

impl Rules {
    /// The rules of a version, or `None` if it is not known to this server.
    pub fn of(id: &RoomVersionId) -> Option<Rules> {
        let number = match id {
            RoomVersionId::V1 => 1,
            RoomVersionId::V2 => 2,
            RoomVersionId::V3 => 3,
            RoomVersionId::V4 => 4,
            RoomVersionId::V5 => 5,
            RoomVersionId::V6 => 6,
            RoomVersionId::V7 => 7,
            RoomVersionId::V8 => 8,
            RoomVersionId::V9 => 9,
            RoomVersionId::V10 => 10,
            RoomVersionId::V11 => 11,
            RoomVersionId::V12 => 12,
            _ => return None,
        };
        Some(Self::row(id.clone(), number))
    }

    /// Reads an event, or a part of one, as this version wants its JSON.
    ///
    /// # Errors
    /// If it is no object, or holds what the version does not allow.
    pub fn parse<'a>(&self, json: &'a [u8]) -> Result<Object<'a>, JsonError> {
        if self.strict_json { Object::parse(json) } else { Object::parse_lenient(json) }
    }

    pub(crate) fn parser<'a>(&self, json: &'a [u8]) -> Result<Parser<'a>, JsonError> {
        if self.strict_json { Parser::new(json) } else { Parser::lenient(json) }
    }

    fn row(id: RoomVersionId, n: u8) -> Rules {
        Rules {
            id,
            event_id: match n {
                1 | 2 => EventIdFormat::Given,
                3 => EventIdFormat::Hash,
                _ => EventIdFormat::UrlSafeHash,
            },
            reference_pairs: n <= 2,
            state_resolution: match n {
                1 => StateResolution::V1,
                2..=11 => StateResolution::V2,
                _ => StateResolution::V2_1,
            },
            redaction: RedactionRules {
                keep_aliases: n <= 5,
                keep_join_rules_allow: n >= 8,
                keep_member_authorised_via: n >= 9,
                updated: n >= 11,
            },
            strict_json: n >= 6,
            enforce_key_validity: n >= 5,
            special_case_aliases: n <= 5,
            special_case_redaction: n <= 2,
            limit_notifications: n >= 6,
            knock: n >= 7,
            restricted: n >= 8,
            knock_restricted: n >= 10,
            integer_power_levels: n >= 10,
            creator_is_sender: n >= 11,
            room_id_is_create_hash: n >= 12,
            creators_are_privileged: n >= 12,
        }
    }
}

/// The version that new rooms get.
pub const DEFAULT: RoomVersionId = RoomVersionId::V12;

/// The versions that this server can take part in: all that the specification calls stable.
pub const SUPPORTED: [RoomVersionId; 12] = [
    RoomVersionId::V1,
    RoomVersionId::V2,
    RoomVersionId::V3,
    RoomVersionId::V4,
    RoomVersionId::V5,
    RoomVersionId::V6,
    RoomVersionId::V7,
    RoomVersionId::V8,
    RoomVersionId::V9,
    RoomVersionId::V10,
    RoomVersionId::V11,
    RoomVersionId::V12,
];
