//! From whom a user wants invites (Client-Server API, "Invite permission"; the filters of MSC4155): read from account data,
//! which `rows/account_data.rs` writes. It is about invites that come; who blocks them may still invite.

use serde::Deserialize;
use stoa_event::{acl::Glob, ids::UserId};

use super::account_data;
use crate::{Error, Snapshot, UserNo};

/// The event types of the specification and of MSC4380 before it was in there.
const ALL: [&str; 2] = ["m.invite_permission_config", "org.matrix.msc4380.invite_permission_config"];
/// The event type of the filters.
const FILTERS: &str = "org.matrix.msc4155.invite_permission_config";

/// What is to become of an invite.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Verdict {
    /// It is shown.
    Allow,
    /// It is not shown, and the inviter is not told.
    Ignore,
    /// It is refused.
    Block,
}

/// From whom a user wants invites.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct InvitePermission {
    block_all: bool,
    filters: Option<Filters>,
}

#[derive(Deserialize)]
struct All {
    default_action: Option<String>,
}

/// The content of the filters. What is not all lists of strings counts as nothing.
#[derive(Deserialize)]
#[serde(default)]
struct Lists {
    enabled: bool,
    allowed_users: Vec<String>,
    ignored_users: Vec<String>,
    blocked_users: Vec<String>,
    allowed_servers: Vec<String>,
    ignored_servers: Vec<String>,
    blocked_servers: Vec<String>,
}

impl Default for Lists {
    fn default() -> Self {
        let none = Vec::new;
        Lists {
            enabled: true,
            allowed_users: none(),
            ignored_users: none(),
            blocked_users: none(),
            allowed_servers: none(),
            ignored_servers: none(),
            blocked_servers: none(),
        }
    }
}

/// The filters in the order in which they are asked.
#[derive(Clone, Debug, PartialEq, Eq)]
struct Filters {
    users: [(Verdict, Vec<Glob>); 3],
    servers: [(Verdict, Vec<Glob>); 3],
}

impl Filters {
    fn of(lists: &Lists) -> Option<Filters> {
        let ready = |verdict, globs: &[String]| (verdict, globs.iter().filter_map(|glob| Glob::new(glob)).collect());
        lists.enabled.then(|| Filters {
            users: [
                ready(Verdict::Allow, &lists.allowed_users),
                ready(Verdict::Ignore, &lists.ignored_users),
                ready(Verdict::Block, &lists.blocked_users),
            ],
            servers: [
                ready(Verdict::Allow, &lists.allowed_servers),
                ready(Verdict::Ignore, &lists.ignored_servers),
                ready(Verdict::Block, &lists.blocked_servers),
            ],
        })
    }

    fn judge(&self, inviter: &UserId) -> Verdict {
        let user = inviter.as_str().to_ascii_lowercase();
        let server = inviter.server_name().host().to_ascii_lowercase();
        let users = self.users.iter().map(|filter| (filter, &user));
        let asked = users.chain(self.servers.iter().map(|filter| (filter, &server)));
        let mut fits = asked.filter(|((_, globs), name)| globs.iter().any(|glob| glob.matches(name.as_bytes())));
        fits.next().map_or(Verdict::Allow, |((verdict, _), _)| *verdict)
    }
}

impl InvitePermission {
    /// What is to become of an invite by somebody.
    pub fn judge(&self, inviter: &UserId) -> Verdict {
        match &self.filters {
            _ if self.block_all => Verdict::Block,
            Some(filters) => filters.judge(inviter),
            None => Verdict::Allow,
        }
    }

    fn read(all: &[Option<Vec<u8>>], filters: Option<&[u8]>) -> InvitePermission {
        let blocks = |json: &Vec<u8>| {
            let all = serde_json::from_slice::<All>(json).ok();
            all.is_some_and(|all| all.default_action.as_deref() == Some("block"))
        };
        let lists = filters.and_then(|json| serde_json::from_slice::<Lists>(json).ok());
        InvitePermission {
            block_all: all.iter().flatten().any(blocks),
            filters: lists.and_then(|lists| Filters::of(&lists)),
        }
    }
}

/// From whom a user wants invites.
///
/// # Errors
/// Where the engine fails.
pub async fn get(snapshot: &Snapshot, user: UserNo) -> Result<InvitePermission, Error> {
    let mut all = Vec::with_capacity(ALL.len());
    for kind in ALL {
        all.push(account_data::get(snapshot, user, None, kind).await?.map(|row| row.json));
    }
    let filters = account_data::get(snapshot, user, None, FILTERS).await?;
    Ok(InvitePermission::read(&all, filters.as_ref().map(|row| row.json.as_slice())))
}

#[cfg(test)]
mod tests {
    use serde_json::{Value, json};

    use super::*;

    fn judge(filters: &Value, inviter: &str) -> Verdict {
        let permission = InvitePermission::read(&[], Some(filters.to_string().as_bytes()));
        permission.judge(<&UserId>::try_from(inviter).unwrap())
    }

    #[test]
    fn the_order_of_the_proposal_decides() {
        let only =
            json!({ "allowed_servers": ["good.org"], "blocked_servers": ["*"], "blocked_users": ["@no:good.org"] });
        assert_eq!(judge(&only, "@a:good.org"), Verdict::Allow);
        assert_eq!(judge(&only, "@a:good.org:8448"), Verdict::Allow, "the port does not matter");
        assert_eq!(judge(&only, "@no:good.org"), Verdict::Block);
        assert_eq!(judge(&only, "@a:bad.org"), Verdict::Block);
        let quiet = json!({ "allowed_users": ["@friend:*"], "ignored_servers": ["*.bad.org"] });
        assert_eq!(judge(&quiet, "@a:x.bad.org"), Verdict::Ignore);
        assert_eq!(judge(&quiet, "@friend:x.bad.org"), Verdict::Allow);
        assert_eq!(judge(&quiet, "@a:bad.org"), Verdict::Allow);
    }

    #[test]
    fn what_is_off_or_cannot_be_read_filters_nothing() {
        assert_eq!(judge(&json!({ "enabled": false, "blocked_servers": ["*"] }), "@a:b"), Verdict::Allow);
        assert_eq!(judge(&json!({ "blocked_servers": ["*"], "ignored_users": [1] }), "@a:b"), Verdict::Allow);
        assert_eq!(judge(&json!({ "blocked_servers": "*" }), "@a:b"), Verdict::Allow);
    }

    #[test]
    fn all_can_be_blocked() {
        let read = |content: Value| InvitePermission::read(&[Some(content.to_string().into_bytes())], None);
        let alice = <&UserId>::try_from("@a:b").unwrap();
        assert_eq!(read(json!({ "default_action": "block" })).judge(alice), Verdict::Block);
        assert_eq!(read(json!({ "default_action": "allow" })).judge(alice), Verdict::Allow);
        assert_eq!(read(json!({ "default_action": 1 })).judge(alice), Verdict::Allow);
        assert_eq!(read(json!({})).judge(alice), Verdict::Allow);
    }
}
