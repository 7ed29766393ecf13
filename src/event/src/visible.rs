//! History visibility (Client-Server API, "Room History Visibility"): who may see an event, from the state of the room at it.

#![deny(clippy::indexing_slicing)]

use crate::{json::Object, pdu::Pdu};

/// The value of `m.room.history_visibility`.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum HistoryVisibility {
    /// Everybody, whether they were ever in the room or not.
    WorldReadable,
    /// Members, what was before they joined included. What a room has that says nothing, or says something unknown.
    #[default]
    Shared,
    /// Members, from their invitation on.
    Invited,
    /// Members, from when they joined.
    Joined,
}

impl HistoryVisibility {
    /// From the value in the event.
    pub fn parse(value: &str) -> HistoryVisibility {
        match value {
            "world_readable" => HistoryVisibility::WorldReadable,
            "invited" => HistoryVisibility::Invited,
            "joined" => HistoryVisibility::Joined,
            _ => HistoryVisibility::Shared,
        }
    }

    /// From the content of the event. A content that cannot be read says nothing.
    pub fn of_content(content: &[u8]) -> HistoryVisibility {
        Object::parse_lenient(content)
            .ok()
            .and_then(|content| content.get_str("history_visibility").map(HistoryVisibility::parse))
            .unwrap_or_default()
    }

    /// From the room's state event, if it has one.
    pub fn of_event(event: Option<&Pdu>) -> HistoryVisibility {
        event.map_or_else(HistoryVisibility::default, |event| HistoryVisibility::of_content(event.content()))
    }
}

/// What visibility asks about a membership. Leaving, being banned, knocking and never having been there come to the same.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord)]
pub enum Membership {
    /// Neither of the two below.
    #[default]
    Outside,
    /// `invite`.
    Invited,
    /// `join`.
    Joined,
}

impl Membership {
    /// From the `membership` of a member event.
    pub fn parse(membership: &str) -> Membership {
        match membership {
            "join" => Membership::Joined,
            "invite" => Membership::Invited,
            _ => Membership::Outside,
        }
    }

    /// From the content of a member event.
    pub fn of_content(content: &[u8]) -> Membership {
        Object::parse_lenient(content)
            .ok()
            .and_then(|content| content.get_str("membership").map(Membership::parse))
            .unwrap_or_default()
    }

    /// The strongest of several: what a server is, by its users.
    pub fn of_server(users: impl IntoIterator<Item = Membership>) -> Membership {
        users.into_iter().max().unwrap_or_default()
    }
}

/// A value in the state before an event and in the state after it. They differ only if the event itself changes it.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Around<T> {
    /// In the state before the event.
    pub before: T,
    /// In the state after it.
    pub after: T,
}

impl<T: Copy> Around<T> {
    /// The event does not change it.
    pub fn same(value: T) -> Around<T> {
        Around { before: value, after: value }
    }

    fn any(self, mut pleases: impl FnMut(T) -> bool) -> bool {
        pleases(self.before) || pleases(self.after)
    }
}

/// What is known about someone who asks for an event.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Viewpoint {
    /// The room's visibility; it differs around `m.room.history_visibility` events.
    pub visibility: Around<HistoryVisibility>,
    /// The user's membership; it differs around the user's own member events.
    pub membership: Around<Membership>,
    /// Whether the user joined at any point after the event, also if they left again since.
    pub joined_later: bool,
}

/// Whether a user may see an event.
pub fn user_may_see(view: &Viewpoint) -> bool {
    view.visibility.any(|visibility| {
        view.membership.any(|membership| match (visibility, membership) {
            (HistoryVisibility::WorldReadable, _) | (_, Membership::Joined) => true,
            (HistoryVisibility::Shared, _) => view.joined_later,
            (HistoryVisibility::Invited, Membership::Invited) => true,
            (HistoryVisibility::Invited | HistoryVisibility::Joined, _) => false,
        })
    })
}

/// Whether a server that is in the room now may see an event (backfill, missing events, state): if one of its users might.
/// `membership` is the strongest of its users around the event ([`Membership::of_server`]).
///
/// That the server is in the room now, and that the ACL lets it speak, is asked elsewhere; being there counts as having
/// joined later. A server that may not see an event still gets its redacted form, so that the graph holds together.
pub fn server_may_see(visibility: Around<HistoryVisibility>, membership: Around<Membership>) -> bool {
    user_may_see(&Viewpoint { visibility, membership, joined_later: true })
}

#[cfg(test)]
mod tests {
    use super::{HistoryVisibility::*, Membership::*, *};

    fn sees(visibility: HistoryVisibility, membership: Membership, joined_later: bool) -> bool {
        user_may_see(&Viewpoint {
            visibility: Around::same(visibility),
            membership: Around::same(membership),
            joined_later,
        })
    }

    /// The five rules as a table: visibility, membership, joined later.
    #[test]
    fn the_rules() {
        for later in [false, true] {
            for membership in [Outside, Membership::Invited, Membership::Joined] {
                assert!(sees(WorldReadable, membership, later));
            }
            for visibility in [Shared, HistoryVisibility::Invited, HistoryVisibility::Joined] {
                assert!(sees(visibility, Membership::Joined, later));
            }
            assert_eq!(sees(Shared, Outside, later), later);
            assert_eq!(sees(Shared, Membership::Invited, later), later);
            assert!(sees(HistoryVisibility::Invited, Membership::Invited, later));
            assert!(!sees(HistoryVisibility::Invited, Outside, later));
            assert!(!sees(HistoryVisibility::Joined, Membership::Invited, later));
            assert!(!sees(HistoryVisibility::Joined, Outside, later));
        }
    }

    #[test]
    fn a_change_of_visibility_is_seen_if_either_side_lets_it() {
        let outsider =
            |before, after| user_may_see(&Viewpoint { visibility: Around { before, after }, ..Viewpoint::default() });
        assert!(outsider(WorldReadable, HistoryVisibility::Joined));
        assert!(outsider(HistoryVisibility::Joined, WorldReadable));
        assert!(!outsider(HistoryVisibility::Joined, HistoryVisibility::Invited));
    }

    #[test]
    fn ones_own_member_event_is_seen_if_either_side_lets_it() {
        let own = |visibility, before, after| {
            user_may_see(&Viewpoint {
                visibility: Around::same(visibility),
                membership: Around { before, after },
                joined_later: false,
            })
        };
        for visibility in [Shared, HistoryVisibility::Invited, HistoryVisibility::Joined] {
            assert!(own(visibility, Outside, Membership::Joined), "joining");
            assert!(own(visibility, Membership::Joined, Outside), "leaving");
        }
        assert!(own(HistoryVisibility::Invited, Outside, Membership::Invited));
        assert!(own(HistoryVisibility::Invited, Membership::Invited, Outside));
        assert!(!own(HistoryVisibility::Joined, Membership::Invited, Outside));
    }

    #[test]
    fn unknown_values_are_shared() {
        assert_eq!(HistoryVisibility::of_event(None), Shared);
        for content in ["{}", r#"{"history_visibility":"secret"}"#, r#"{"history_visibility":1}"#, "[]", ""] {
            assert_eq!(HistoryVisibility::of_content(content.as_bytes()), Shared);
        }
        assert_eq!(HistoryVisibility::of_content(br#"{"history_visibility":"joined"}"#), HistoryVisibility::Joined);
    }

    #[test]
    fn memberships() {
        assert_eq!(Membership::of_content(br#"{"membership":"join"}"#), Membership::Joined);
        assert_eq!(Membership::of_content(br#"{"membership":"invite"}"#), Membership::Invited);
        for other in ["leave", "ban", "knock", ""] {
            assert_eq!(Membership::parse(other), Outside);
        }
    }

    #[test]
    fn a_server_is_what_its_strongest_user_is() {
        let was = |users: &[Membership]| Around::same(Membership::of_server(users.iter().copied()));
        assert!(server_may_see(Around::same(Shared), was(&[])));
        assert!(!server_may_see(Around::same(HistoryVisibility::Joined), was(&[])));
        assert!(!server_may_see(Around::same(HistoryVisibility::Joined), was(&[Outside, Membership::Invited])));
        assert!(server_may_see(Around::same(HistoryVisibility::Joined), was(&[Outside, Membership::Joined])));
        assert!(server_may_see(Around::same(HistoryVisibility::Invited), was(&[Outside, Membership::Invited])));
    }
}
