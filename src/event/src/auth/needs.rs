//! Which state an event is judged by (Server-Server API, "Auth events selection").

use std::borrow::Cow;

use smallvec::SmallVec;

use super::{Membership, content::MemberContent, kind, third_party};
use crate::{ids::UserId, version::Rules};

/// Types and state keys, without repetition.
pub type Needs<'a> = SmallVec<[(&'static str, Cow<'a, str>); 5]>;

/// The state that belongs into the `auth_events` of an event, known before the event is built.
///
/// In version 12 the create event is not among them, though judging needs it too: the room id says which it is.
/// Content that is not well formed needs less here and is refused by [`check`](super::check).
pub fn needs<'a>(
    rules: &Rules,
    sender: &'a UserId,
    event_type: &str,
    state_key: Option<&'a str>,
    content: &'a [u8],
) -> Needs<'a> {
    let mut needs = Needs::new();
    if event_type == kind::CREATE {
        return needs;
    }
    if !rules.room_id_is_create_hash {
        needs.push((kind::CREATE, Cow::Borrowed("")));
    }
    needs.push((kind::POWER_LEVELS, Cow::Borrowed("")));
    needs.push((kind::MEMBER, Cow::Borrowed(sender.as_str())));
    if event_type == kind::MEMBER {
        member(rules, state_key, content, &mut needs);
    }
    needs
}

fn member<'a>(rules: &Rules, target: Option<&'a str>, content: &'a [u8], needs: &mut Needs<'a>) {
    let content = MemberContent::read(content);
    if let Some(target) = target {
        add(needs, kind::MEMBER, Cow::Borrowed(target));
    }
    let Some(membership) = content.membership else {
        return;
    };
    if matches!(membership, Membership::Join | Membership::Invite | Membership::Knock) {
        add(needs, kind::JOIN_RULES, Cow::Borrowed(""));
    }
    match membership {
        Membership::Invite => {
            if let Some(token) = content.third_party_invite.and_then(third_party::token) {
                add(needs, kind::THIRD_PARTY_INVITE, token);
            }
        }
        Membership::Join if rules.restricted => {
            if let Some(Some(user)) = content.authoriser {
                add(needs, kind::MEMBER, user);
            }
        }
        _ => {}
    }
}

fn add<'a>(needs: &mut Needs<'a>, kind: &'static str, key: Cow<'a, str>) {
    if !needs.iter().any(|(k, s)| *k == kind && *s == key) {
        needs.push((kind, key));
    }
}
