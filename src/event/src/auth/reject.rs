//! Refusals: which rule of which room version said no, and why (room version specifications, "Authorisation rules").

use std::fmt;

use crate::{ids::RoomVersionId, version::Rules};

/// A refusal.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("room version {version}, authorisation rule {}: {why}", Named(*rule, number))]
pub struct Reject {
    /// The room version whose rules were asked.
    pub version: RoomVersionId,
    /// The rule.
    pub rule: Rule,
    /// The rule's number in the text of that version, `5.3.7` for instance. Empty where the text has none.
    pub number: &'static str,
    /// What is wrong with this event.
    pub why: String,
}

impl Reject {
    /// A refusal by a rule.
    pub fn new(rules: &Rules, rule: Rule, why: impl Into<String>) -> Reject {
        Reject { version: rules.id.clone(), rule, number: rule.number(rules), why: why.into() }
    }
}

struct Named<'a>(Rule, &'a str);

impl fmt::Display for Named<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if self.1.is_empty() { write!(f, "{:?}", self.0) } else { write!(f, "{} ({:?})", self.1, self.0) }
    }
}

/// The rules that can refuse an event. Their numbers differ between room versions.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum Rule {
    /// A create event has previous events.
    CreatePrevEvents,
    /// A create event's room id is of another domain than its sender, or (12) it has one at all.
    CreateRoomId,
    /// A create event is for a room version that is not known.
    CreateVersion,
    /// A create event has no `creator` (up to 10).
    CreateCreator,
    /// `additional_creators` is not a list of user ids (12).
    CreateAdditional,
    /// The room id is not that of an accepted create event (12).
    RoomId,
    /// Two auth events for the same type and state key.
    AuthDuplicate,
    /// An auth event that the selection algorithm does not select.
    AuthUnneeded,
    /// An auth event that was itself rejected.
    AuthRejected,
    /// No create event among the auth events, or in the state.
    AuthCreate,
    /// An auth event of another room.
    AuthRoom,
    /// An auth event that is not known here; the text has no number for it, as it cannot be judged.
    AuthUnknown,
    /// The room is not federated and the sender is of another domain.
    Federate,
    /// An `m.room.aliases` event whose state key is not the sender's domain (up to 5).
    Aliases,
    /// An `m.room.member` event without a state key that is a user, or without membership.
    MemberShape,
    /// `join_authorised_via_users_server` names nobody whose server could have signed.
    MemberAuthoriser,
    /// A join of somebody else.
    JoinOther,
    /// A join of somebody who is banned.
    JoinBanned,
    /// A join by the authority of somebody who cannot invite.
    JoinAuthoriser,
    /// A join that the join rule does not allow.
    JoinRule,
    /// A third-party invite of somebody who is banned.
    InviteBanned,
    /// A third-party invite without `signed`.
    InviteSigned,
    /// A third-party invite without `mxid` or `token`.
    InviteToken,
    /// A third-party invite for another user.
    InviteMxid,
    /// No third-party invite with that token in the room.
    InviteUnknownToken,
    /// A third-party invite redeemed by another sender than its own.
    InviteSender,
    /// A third-party invite without a valid signature.
    InviteSignature,
    /// An invite by somebody who is not joined.
    InviteNotJoined,
    /// An invite of somebody who is joined or banned.
    InviteTarget,
    /// An invite by somebody without the power for it.
    InvitePower,
    /// Leaving without being there.
    LeaveSelf,
    /// A kick by somebody who is not joined.
    KickNotJoined,
    /// The end of a ban by somebody without the power for it.
    UnbanPower,
    /// A kick by somebody without the power for it.
    KickPower,
    /// A ban by somebody who is not joined.
    BanNotJoined,
    /// A ban by somebody without the power for it.
    BanPower,
    /// A knock where the join rule has no knocking.
    KnockRule,
    /// A knock for somebody else.
    KnockOther,
    /// A knock by somebody who is banned, invited or joined.
    KnockMembership,
    /// A membership that is not known.
    MembershipUnknown,
    /// The sender is not joined.
    SenderNotJoined,
    /// A third-party invite by somebody without the power to invite.
    ThirdPartyInvitePower,
    /// Less power than the event type requires.
    RequiredPower,
    /// State of another user.
    StateKeyOther,
    /// A power level that is no integer.
    LevelsFields,
    /// `events` or `notifications` is no object of integers.
    LevelsMaps,
    /// `users` is no object of user ids and integers.
    LevelsUsers,
    /// `users` names a creator (12).
    LevelsCreator,
    /// A level above one's own is changed.
    LevelsFieldOld,
    /// A level is set above one's own.
    LevelsFieldNew,
    /// An entry above one's own level is changed.
    LevelsEntryOld,
    /// An entry is set above one's own level.
    LevelsEntryNew,
    /// Somebody else's level that is not below one's own is changed.
    LevelsUserOld,
    /// A user's level is set above one's own.
    LevelsUserNew,
    /// A redaction without the power for it (1 and 2).
    Redaction,
}

impl Rule {
    /// The number in the text of a room version; empty if it has none there.
    pub fn number(self, rules: &Rules) -> &'static str {
        let column = match rules {
            r if r.special_case_aliases => 0,
            r if !r.knock => 1,
            r if !r.restricted => 2,
            r if !r.knock_restricted => 3,
            r if !r.room_id_is_create_hash => 4,
            _ => 5,
        };
        self.numbers()[column]
    }

    /// In versions 1-5, 6, 7, 8-9, 10-11 and 12.
    fn numbers(self) -> [&'static str; 6] {
        use Rule::*;
        match self {
            CreatePrevEvents => ["1.1"; 6],
            CreateRoomId => ["1.2"; 6],
            CreateVersion => ["1.3"; 6],
            CreateCreator => ["1.4", "1.4", "1.4", "1.4", "1.4", ""],
            CreateAdditional => ["", "", "", "", "", "1.4"],
            RoomId => ["", "", "", "", "", "2"],
            AuthDuplicate => ["2.1", "2.1", "2.1", "2.1", "2.1", "3.1"],
            AuthUnneeded => ["2.2", "2.2", "2.2", "2.2", "2.2", "3.2"],
            AuthRejected => ["2.3", "2.3", "2.3", "2.3", "2.3", "3.3"],
            AuthCreate => ["2.4", "2.4", "2.4", "2.4", "2.4", "2"],
            AuthRoom => ["2.5", "2.5", "2.5", "2.5", "2.5", "3.4"],
            AuthUnknown => [""; 6],
            Federate => ["3", "3", "3", "3", "3", "4"],
            Aliases => ["4.2", "", "", "", "", ""],
            MemberShape => ["5.1", "4.1", "4.1", "4.1", "4.1", "5.1"],
            MemberAuthoriser => ["", "", "", "4.2.1", "4.2.1", "5.2.1"],
            JoinOther => ["5.2.2", "4.2.2", "4.2.2", "4.3.2", "4.3.2", "5.3.2"],
            JoinBanned => ["5.2.3", "4.2.3", "4.2.3", "4.3.3", "4.3.3", "5.3.3"],
            JoinAuthoriser => ["", "", "", "4.3.5.2", "4.3.5.2", "5.3.5.2"],
            JoinRule => ["5.2.6", "4.2.6", "4.2.6", "4.3.7", "4.3.7", "5.3.7"],
            InviteBanned => ["5.3.1.1", "4.3.1.1", "4.3.1.1", "4.4.1.1", "4.4.1.1", "5.4.1.1"],
            InviteSigned => ["5.3.1.2", "4.3.1.2", "4.3.1.2", "4.4.1.2", "4.4.1.2", "5.4.1.2"],
            InviteToken => ["5.3.1.3", "4.3.1.3", "4.3.1.3", "4.4.1.3", "4.4.1.3", "5.4.1.3"],
            InviteMxid => ["5.3.1.4", "4.3.1.4", "4.3.1.4", "4.4.1.4", "4.4.1.4", "5.4.1.4"],
            InviteUnknownToken => ["5.3.1.5", "4.3.1.5", "4.3.1.5", "4.4.1.5", "4.4.1.5", "5.4.1.5"],
            InviteSender => ["5.3.1.6", "4.3.1.6", "4.3.1.6", "4.4.1.6", "4.4.1.6", "5.4.1.6"],
            InviteSignature => ["5.3.1.8", "4.3.1.8", "4.3.1.8", "4.4.1.8", "4.4.1.8", "5.4.1.8"],
            InviteNotJoined => ["5.3.2", "4.3.2", "4.3.2", "4.4.2", "4.4.2", "5.4.2"],
            InviteTarget => ["5.3.3", "4.3.3", "4.3.3", "4.4.3", "4.4.3", "5.4.3"],
            InvitePower => ["5.3.5", "4.3.5", "4.3.5", "4.4.5", "4.4.5", "5.4.5"],
            LeaveSelf => ["5.4.1", "4.4.1", "4.4.1", "4.5.1", "4.5.1", "5.5.1"],
            KickNotJoined => ["5.4.2", "4.4.2", "4.4.2", "4.5.2", "4.5.2", "5.5.2"],
            UnbanPower => ["5.4.3", "4.4.3", "4.4.3", "4.5.3", "4.5.3", "5.5.3"],
            KickPower => ["5.4.5", "4.4.5", "4.4.5", "4.5.5", "4.5.5", "5.5.5"],
            BanNotJoined => ["5.5.1", "4.5.1", "4.5.1", "4.6.1", "4.6.1", "5.6.1"],
            BanPower => ["5.5.3", "4.5.3", "4.5.3", "4.6.3", "4.6.3", "5.6.3"],
            KnockRule => ["", "", "4.6.1", "4.7.1", "4.7.1", "5.7.1"],
            KnockOther => ["", "", "4.6.2", "4.7.2", "4.7.2", "5.7.2"],
            KnockMembership => ["", "", "4.6.4", "4.7.4", "4.7.4", "5.7.4"],
            MembershipUnknown => ["5.6", "4.6", "4.7", "4.8", "4.8", "5.8"],
            SenderNotJoined => ["6", "5", "5", "5", "5", "6"],
            ThirdPartyInvitePower => ["7.1", "6.1", "6.1", "6.1", "6.1", "7.1"],
            RequiredPower => ["8", "7", "7", "7", "7", "8"],
            StateKeyOther => ["9", "8", "8", "8", "8", "9"],
            LevelsFields => ["10", "9", "9", "9", "9.1", "10.1"],
            LevelsMaps => ["10", "9", "9", "9", "9.2", "10.2"],
            LevelsUsers => ["10.1", "9.1", "9.1", "9.1", "9.3", "10.3"],
            LevelsCreator => ["", "", "", "", "", "10.4"],
            LevelsFieldOld => ["10.3.1", "9.3.1", "9.3.1", "9.3.1", "9.5.1", "10.6.1"],
            LevelsFieldNew => ["10.3.2", "9.3.2", "9.3.2", "9.3.2", "9.5.2", "10.6.2"],
            LevelsEntryOld => ["10.4.1", "9.4.1", "9.4.1", "9.4.1", "9.6.1", "10.7.1"],
            LevelsEntryNew => ["10.5.1", "9.5.1", "9.5.1", "9.5.1", "9.7.1", "10.8.1"],
            LevelsUserOld => ["10.6.1", "9.6.1", "9.6.1", "9.6.1", "9.8.1", "10.9.1"],
            LevelsUserNew => ["10.7.1", "9.7.1", "9.7.1", "9.7.1", "9.9.1", "10.10.1"],
            Redaction => ["11.3", "", "", "", "", ""],
        }
    }
}
