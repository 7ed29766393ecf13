//! Application services (Application Service API, "Registration"): which there are, and whose names are whose. The value does not
//! change; reading the files again makes another one.

use std::{collections::HashMap, fmt, sync::Arc};

use regex::{Regex, RegexBuilder};
use serde::Deserialize;
use stoa_event::ids::{OwnedUserId, ServerName};
use stoa_store::rows::tokens::TokenHash;

use crate::token;

/// How many services there are at most, and how many expressions one has of each kind.
const SERVICES: usize = 1_000;
const EXPRESSIONS: usize = 100;
/// How large an expression may become when it is compiled, in bytes.
const COMPILED: usize = 1 << 20;
/// How long an id, a token or a name may be, in bytes.
const TEXT: usize = 1024;

/// A registration as the file says it.
#[derive(Clone, Deserialize)]
pub struct ServiceFile {
    id: String,
    url: Option<String>,
    as_token: String,
    hs_token: String,
    sender_localpart: String,
    #[serde(default)]
    namespaces: NamespacesFile,
    rate_limited: Option<bool>,
    protocols: Option<Vec<String>>,
    receive_ephemeral: Option<bool>,
    /// As it was called before Matrix 1.13.
    #[serde(rename = "de.sorunome.msc2409.push_ephemeral")]
    push_ephemeral: Option<bool>,
    #[serde(rename = "org.matrix.msc3202")]
    encryption: Option<bool>,
}

#[derive(Clone, Default, Deserialize)]
#[serde(default)]
struct NamespacesFile {
    users: Option<Vec<NamespaceFile>>,
    aliases: Option<Vec<NamespaceFile>>,
    rooms: Option<Vec<NamespaceFile>>,
}

#[derive(Clone, Deserialize)]
struct NamespaceFile {
    regex: String,
    exclusive: bool,
}

/// What is wrong with a registration: the field, and why.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{field}: {why}")]
pub struct BadService {
    /// The field.
    pub field: &'static str,
    /// What is wrong with it.
    pub why: String,
}

fn bad(field: &'static str, why: impl Into<String>) -> BadService {
    BadService { field, why: why.into() }
}

struct Namespace {
    regex: Regex,
    exclusive: bool,
}

/// A program beside this server that may act for many users.
pub struct Service {
    /// Its id.
    pub id: String,
    /// Where it is told what happens; `None` if it wants to hear nothing.
    pub url: Option<String>,
    /// By what it knows that it is us.
    pub hs_token: String,
    /// The user that it is where it says nothing else.
    pub sender: OwnedUserId,
    /// Whether its users are held to the rate limits.
    pub rate_limited: bool,
    /// Whether it wants typing, receipts and presence.
    pub ephemeral: bool,
    /// Whether it wants what encryption needs: messages to devices, news of devices, counts of keys (MSC3202, MSC4203).
    pub encryption: bool,
    /// The networks that it knows.
    pub protocols: Vec<String>,
    token: TokenHash,
    users: Vec<Namespace>,
    aliases: Vec<Namespace>,
    rooms: Vec<Namespace>,
}

impl fmt::Debug for Service {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        // The rest holds secrets.
        f.debug_struct("Service").field("id", &self.id).finish_non_exhaustive()
    }
}

impl PartialEq for Service {
    fn eq(&self, other: &Service) -> bool {
        self.id == other.id
    }
}

impl Eq for Service {}

impl Service {
    fn new(file: ServiceFile, server: &ServerName) -> Result<Service, BadService> {
        let ServiceFile { id, url, as_token, hs_token, sender_localpart: sender, namespaces, .. } = file;
        for (field, text) in
            [("id", &id), ("as_token", &as_token), ("hs_token", &hs_token), ("sender_localpart", &sender)]
        {
            if text.is_empty() || text.len() > TEXT || text.chars().any(char::is_control) {
                return Err(bad(field, format!("it has 1 to {TEXT} bytes and no control characters")));
            }
        }
        // What `instance_id` of a network is put together with.
        if id.contains('|') {
            return Err(bad("id", "it must not contain `|`"));
        }
        let allowed = |byte: u8| byte.is_ascii_lowercase() || byte.is_ascii_digit() || b"._=-/+".contains(&byte);
        if !sender.bytes().all(allowed) {
            return Err(bad("sender_localpart", "it has only the characters a-z, 0-9, ., _, =, -, / and +"));
        }
        let sender = OwnedUserId::try_from(format!("@{sender}:{server}"))
            .map_err(|_| bad("sender_localpart", "that cannot be the name of a user"))?;
        let url = url.map(|url| url.trim_end_matches('/').to_owned()).filter(|url| !url.is_empty());
        if url.as_ref().is_some_and(|url| !url.starts_with("http://") && !url.starts_with("https://")) {
            return Err(bad("url", "it must begin with http:// or https://, or be null"));
        }
        Ok(Service {
            token: token::hash(&as_token),
            rate_limited: file.rate_limited.unwrap_or(true),
            ephemeral: file.receive_ephemeral.or(file.push_ephemeral).unwrap_or(false),
            encryption: file.encryption.unwrap_or(false),
            protocols: file.protocols.unwrap_or_default(),
            users: compile("namespaces.users", namespaces.users)?,
            aliases: compile("namespaces.aliases", namespaces.aliases)?,
            rooms: compile("namespaces.rooms", namespaces.rooms)?,
            id,
            url,
            hs_token,
            sender,
        })
    }

    /// Whether it may act as a user of this server, and hears of it: the user is its sender or in its namespace.
    pub fn is_mine(&self, user: &str) -> bool {
        user == self.sender.as_str() || (self.is_local(user) && any(&self.users, user))
    }

    /// Whether nobody else may have the name of a user.
    pub fn is_mine_alone(&self, user: &str) -> bool {
        user == self.sender.as_str() || (self.is_local(user) && exclusive(&self.users, user))
    }

    fn is_local(&self, user: &str) -> bool {
        user.split_once(':').is_some_and(|(_, server)| server == self.sender.server_name().as_str())
    }

    /// Whether an alias is in its namespace.
    pub fn has_alias(&self, alias: &str) -> bool {
        any(&self.aliases, alias)
    }

    /// Whether nobody else may have an alias.
    pub fn has_alias_alone(&self, alias: &str) -> bool {
        exclusive(&self.aliases, alias)
    }

    /// Whether it has a namespace of aliases at all.
    pub fn has_aliases(&self) -> bool {
        !self.aliases.is_empty()
    }

    /// Whether a room's id is in its namespace.
    pub fn has_room(&self, room: &str) -> bool {
        any(&self.rooms, room)
    }
}

fn compile(field: &'static str, given: Option<Vec<NamespaceFile>>) -> Result<Vec<Namespace>, BadService> {
    let given = given.unwrap_or_default();
    if given.len() > EXPRESSIONS {
        return Err(bad(field, format!("there are more than {EXPRESSIONS} expressions")));
    }
    let one = |NamespaceFile { regex, exclusive }: NamespaceFile| {
        // As Synapse does, and as bridges rely on: from the beginning, not to the end.
        let compiled = RegexBuilder::new(&format!("^(?:{regex})")).size_limit(COMPILED).build();
        let regex = compiled.map_err(|why| bad(field, format!("`{regex}` cannot be used: {why}")))?;
        Ok(Namespace { regex, exclusive })
    };
    given.into_iter().map(one).collect()
}

fn any(namespaces: &[Namespace], name: &str) -> bool {
    namespaces.iter().any(|namespace| namespace.regex.is_match(name))
}

fn exclusive(namespaces: &[Namespace], name: &str) -> bool {
    namespaces.iter().any(|namespace| namespace.exclusive && namespace.regex.is_match(name))
}

/// All application services.
#[derive(Default)]
pub struct Services {
    all: Vec<Arc<Service>>,
    by_token: HashMap<TokenHash, Arc<Service>>,
}

impl fmt::Debug for Services {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_list().entries(self.all.iter().map(|service| &service.id)).finish()
    }
}

impl Services {
    /// None yet.
    pub fn new() -> Services {
        Services::default()
    }

    /// Adds the one that a file registers.
    ///
    /// # Errors
    /// Where something in it cannot be, or another one has its id or token.
    pub fn add(&mut self, file: ServiceFile, server: &ServerName) -> Result<(), BadService> {
        let service = Arc::new(Service::new(file, server)?);
        if self.all.len() >= SERVICES {
            return Err(bad("id", format!("there are more than {SERVICES} application services")));
        }
        if self.all.iter().any(|other| other.id == service.id) {
            return Err(bad("id", format!("another registration has the id `{}`", service.id)));
        }
        if let Some(other) = self.by_token.get(&service.token) {
            return Err(bad("as_token", format!("it is also that of `{}`", other.id)));
        }
        self.by_token.insert(service.token, service.clone());
        self.all.push(service);
        Ok(())
    }

    /// All of them, in the order of the files.
    pub fn all(&self) -> &[Arc<Service>] {
        &self.all
    }

    /// The one of an id.
    pub fn get(&self, id: &str) -> Option<&Arc<Service>> {
        self.all.iter().find(|service| service.id == id)
    }

    /// The one whose token that is. It is found by the token's hash: how long that takes tells nothing of the token.
    pub fn by_token(&self, token: &str) -> Option<&Arc<Service>> {
        if self.by_token.is_empty() {
            return None;
        }
        self.by_token.get(&token::hash(token))
    }

    /// Whether a user's name is kept for others than `but`.
    pub fn keeps_user(&self, user: &str, but: Option<&Service>) -> bool {
        self.all.iter().any(|service| but != Some(&**service) && service.is_mine_alone(user))
    }

    /// Whether an alias is kept for others than `but`.
    pub fn keeps_alias(&self, alias: &str, but: Option<&Service>) -> bool {
        self.all.iter().any(|service| but != Some(&**service) && service.has_alias_alone(alias))
    }
}

#[cfg(test)]
mod tests {
    use serde_json::{Value, json};

    use super::*;

    fn file(id: &str, token: &str, users: Value) -> ServiceFile {
        serde_json::from_value(json!({
            "id": id, "url": "http://127.0.0.1:9/", "as_token": token, "hs_token": "hs", "sender_localpart": "_bot",
            "namespaces": { "users": users }, "unknown.to.us": true, "de.sorunome.msc2409.push_ephemeral": true,
        }))
        .unwrap()
    }

    fn add(services: &mut Services, file: ServiceFile) -> Result<(), BadService> {
        services.add(file, <&ServerName>::try_from("a.example").unwrap())
    }

    #[test]
    fn expressions_count_from_the_beginning_and_for_this_server() {
        let mut services = Services::new();
        add(&mut services, file("irc", "one", json!([{ "regex": "@_irc_", "exclusive": true }]))).unwrap();
        let service = services.by_token("one").unwrap();
        assert!(service.is_mine("@_irc_alice:a.example") && service.is_mine("@_bot:a.example"));
        assert!(!service.is_mine("@x@_irc_alice:a.example") && !service.is_mine("@_irc_alice:b.example"));
        assert!(services.keeps_user("@_irc_alice:a.example", None));
        assert!(!services.keeps_user("@_irc_alice:a.example", Some(service)));
        assert!(service.ephemeral && service.rate_limited && !service.encryption);
        assert_eq!(service.url.as_deref(), Some("http://127.0.0.1:9"));
        assert!(services.by_token("two").is_none());
    }

    #[test]
    fn what_cannot_be_is_refused_by_its_field() {
        let mut services = Services::new();
        add(&mut services, file("irc", "one", json!([]))).unwrap();
        let mut refused = |file| add(&mut services, file).unwrap_err().field;
        assert_eq!(refused(file("irc", "two", json!([]))), "id");
        assert_eq!(refused(file("b", "one", json!([]))), "as_token");
        assert_eq!(refused(file("b|c", "two", json!([]))), "id");
        let users = |regex: &str| json!([{ "regex": regex, "exclusive": true }]);
        assert_eq!(refused(file("b", "two", users("@("))), "namespaces.users");
        // A small expression that becomes a large one.
        assert_eq!(refused(file("b", "two", users("(?:(?:.{1000}){1000}){1000}"))), "namespaces.users");
        assert_eq!(
            refused(ServiceFile { sender_localpart: "A b".into(), ..file("b", "two", json!([])) }),
            "sender_localpart"
        );
        assert_eq!(refused(ServiceFile { url: Some("unix:/x".into()), ..file("b", "two", json!([])) }), "url");
        assert_eq!(refused(ServiceFile { hs_token: String::new(), ..file("b", "two", json!([])) }), "hs_token");
    }
}
