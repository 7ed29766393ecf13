//! User-interactive authentication (Client-Server API, "User-Interactive Authentication API"): a small state machine.
//!
//! A session belongs to one operation of one user. It knows which stages are done, never what was sent to pass them. It
//! lives in memory: after a restart a client is asked again.

use std::{
    collections::{HashMap, VecDeque},
    fmt,
};

use parking_lot::Mutex;
use serde::Deserialize;
use stoa_store::UserNo;
use subtle::ConstantTimeEq;
use zeroize::Zeroizing;

use crate::{
    Accounts, Error, Purpose, Registration, Result, Who,
    emails::{Credentials, Shown},
    error::{Challenge, Flow, Refused},
};

/// The stage of a password.
pub const PASSWORD: &str = "m.login.password";
/// The stage that everybody passes.
pub const DUMMY: &str = "m.login.dummy";
/// The stage of a registration token.
pub const REGISTRATION_TOKEN: &str = "m.login.registration_token";
/// The stage of agreeing to documents (Client-Server API, "Terms of service at registration").
pub const TERMS: &str = "m.login.terms";

/// The stage of showing that an e-mail address is one's own.
pub const EMAIL: &str = "m.login.email.identity";

/// How many sessions are kept; the oldest fall off.
const MAX_SESSIONS: usize = 10_000;

/// What a client sends as `auth`.
#[derive(Clone, Default, Deserialize)]
pub struct AuthData {
    /// The stage that it attempts; without it, it only asks whether the others are done.
    #[serde(rename = "type")]
    pub kind: Option<String>,
    /// The session that the server gave.
    pub session: Option<String>,
    /// Whose password it is.
    pub identifier: Option<Identifier>,
    /// The same in an older form.
    pub user: Option<String>,
    /// The password.
    pub password: Option<String>,
    /// The registration token.
    pub token: Option<String>,
    /// The session of an e-mail address.
    #[serde(alias = "threepidCreds")]
    pub threepid_creds: Option<Credentials>,
}

impl fmt::Debug for AuthData {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        // The rest is secret.
        f.debug_struct("AuthData").field("kind", &self.kind).finish_non_exhaustive()
    }
}

/// Who somebody says to be (Client-Server API, "Identifier types").
#[derive(Clone, Debug, Default, Deserialize)]
pub struct Identifier {
    /// `m.id.user`, `m.id.thirdparty` or `m.id.phone`.
    #[serde(rename = "type")]
    pub kind: Option<String>,
    /// For `m.id.user`: the user id or its localpart.
    pub user: Option<String>,
    /// For `m.id.thirdparty`: `email`.
    pub medium: Option<String>,
    /// For `m.id.thirdparty`: the address.
    pub address: Option<String>,
}

impl Identifier {
    /// The user that is named; `None` for third-party identifiers.
    pub fn user(&self) -> Option<&str> {
        match self.kind.as_deref() {
            Some("m.id.user") => self.user.as_deref(),
            _ => None,
        }
    }

    /// The e-mail address that is named.
    pub fn email(&self) -> Option<&str> {
        match (self.kind.as_deref(), self.medium.as_deref()) {
            (Some("m.id.thirdparty"), Some("email")) => self.address.as_deref(),
            _ => None,
        }
    }
}

/// What the authentication is for. A session made for one is worth nothing for another.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Operation(String);

impl Operation {
    /// Making an account.
    pub fn register() -> Self {
        Operation("register".to_owned())
    }

    /// Setting another password.
    pub fn password() -> Self {
        Operation("password".to_owned())
    }

    /// Setting another password without being logged in.
    pub fn reset_password() -> Self {
        Operation("reset_password".to_owned())
    }

    /// Adding an address.
    pub fn add_email() -> Self {
        Operation("add_email".to_owned())
    }

    /// Ending the account.
    pub fn deactivate() -> Self {
        Operation("deactivate".to_owned())
    }

    /// Letting another client log in.
    pub fn login_token() -> Self {
        Operation("login_token".to_owned())
    }

    /// Replacing the cross-signing keys.
    pub fn cross_signing() -> Self {
        Operation("cross_signing".to_owned())
    }

    /// Removing devices: just these.
    pub fn delete_devices(ids: &[String]) -> Self {
        let mut ids: Vec<_> = ids.iter().map(|id| format!("{id:?}")).collect();
        ids.sort();
        Operation(format!("delete_devices {}", ids.join(" ")))
    }

    /// Whether application services need no more than their token for it (Application Service API, "Device management",
    /// "Cross-signing"; and their users have no password to end their accounts with).
    fn is_for_services(&self) -> bool {
        self.0.starts_with("delete_devices ") || *self == Self::cross_signing() || *self == Self::deactivate()
    }
}

#[derive(Clone)]
struct Session {
    operation: Operation,
    /// `None` while registering.
    user: Option<UserNo>,
    completed: Vec<&'static str>,
    /// The address that was shown.
    email: Option<Shown>,
    expires: u64,
}

/// That somebody was believed. Hand it back with [`Accounts::settle`] when the operation is over.
#[must_use]
#[derive(Debug)]
pub struct Proof {
    /// `None` for who needs no proof.
    session: Option<(String, Session)>,
}

impl Proof {
    /// The e-mail address that was shown.
    pub(crate) fn email(&self) -> Option<Shown> {
        self.session.as_ref().and_then(|(_, session)| session.email.clone())
    }
}

impl fmt::Debug for Session {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Session").field("operation", &self.operation).finish_non_exhaustive()
    }
}

/// The sessions that are going on.
#[derive(Default)]
pub(crate) struct Uia {
    state: Mutex<State>,
}

#[derive(Default)]
struct State {
    sessions: HashMap<String, Session>,
    /// In the order in which they end. One that was taken and put back is there twice, and goes with the first.
    order: VecDeque<(u64, String)>,
}

impl Uia {
    fn put(&self, id: &str, session: Session, now_ms: u64) {
        let mut state = self.state.lock();
        state.order.push_back((session.expires, id.to_owned()));
        state.sessions.insert(id.to_owned(), session);
        while state.order.front().is_some_and(|(end, _)| *end <= now_ms) || state.order.len() > MAX_SESSIONS {
            if let Some((_, id)) = state.order.pop_front() {
                state.sessions.remove(&id);
            }
        }
    }

    /// Takes a session out: whoever has it is the only one who works with it.
    fn take(&self, id: &str, operation: &Operation, user: Option<UserNo>, now_ms: u64) -> Option<Session> {
        let mut state = self.state.lock();
        let fits =
            |session: &Session| session.expires > now_ms && session.operation == *operation && session.user == user;
        if !state.sessions.get(id).is_some_and(fits) {
            return None;
        }
        state.sessions.remove(id)
    }
}

/// The ways through: each a list of stages.
type Flows = [Vec<&'static str>];

impl Accounts {
    /// Lets somebody prove to be who the access token says.
    ///
    /// # Errors
    /// [`Error::Challenge`], until all is proven.
    pub async fn confirm(&self, who: &Who, operation: Operation, auth: Option<&AuthData>) -> Result<Proof> {
        if who.service.is_some() && operation.is_for_services() {
            return Ok(Proof { session: None });
        }
        self.authenticate(&[vec![PASSWORD]], Some(who), operation, auth).await
    }

    /// Lets somebody prove to be allowed to register.
    pub(crate) async fn admit(&self, auth: Option<&AuthData>) -> Result<Proof> {
        let mut stages = match &self.config().registration {
            Registration::Closed => return Err(Error::Forbidden("registration is closed on this server")),
            Registration::Token(_) => vec![REGISTRATION_TOKEN],
            Registration::Open => Vec::new(),
        };
        if !self.config().policies.is_empty() {
            stages.push(TERMS);
        }
        let with_email = [&stages[..], &[EMAIL]].concat();
        if stages.is_empty() {
            stages.push(DUMMY);
        }
        let flows = match &self.config().mail {
            None => vec![stages],
            Some(mail) if mail.required => vec![with_email],
            Some(_) => vec![stages, with_email],
        };
        self.authenticate(&flows, None, Operation::register(), auth).await
    }

    /// Lets somebody prove to have an e-mail address.
    pub(crate) async fn prove_email(&self, operation: Operation, auth: Option<&AuthData>) -> Result<Proof> {
        self.authenticate(&[vec![EMAIL]], None, operation, auth).await
    }

    /// Ends a session of user-interactive authentication if its operation succeeded; otherwise the client may try the
    /// same operation again with it.
    ///
    /// # Errors
    /// Those of the operation.
    pub fn settle<T>(&self, proof: Proof, done: Result<T>) -> Result<T> {
        if let (Err(_), Some((id, session))) = (&done, proof.session) {
            self.inner.uia.put(&id, session, self.env().now_ms());
        }
        done
    }

    async fn authenticate(
        &self,
        flows: &Flows,
        who: Option<&Who>,
        operation: Operation,
        auth: Option<&AuthData>,
    ) -> Result<Proof> {
        let user = who.map(|who| who.user_no);
        let now = self.env().now_ms();
        let fresh = || {
            let session = Session {
                operation: operation.clone(),
                user,
                completed: Vec::new(),
                email: None,
                expires: now.saturating_add(self.config().uia_ms),
            };
            let id = self.env().token(24);
            self.inner.uia.put(&id, session, now);
            id
        };
        // Nothing attempted: here is what is asked for.
        let Some(auth) = auth.filter(|auth| auth.kind.is_some() || auth.session.is_some()) else {
            return Err(self.challenge(fresh(), flows, Vec::new(), None));
        };
        let id = auth.session.clone().unwrap_or_else(fresh);
        let Some(mut session) = self.inner.uia.take(&id, &operation, user, now) else {
            let gone = refused("M_UNKNOWN", "the session is unknown or has ended");
            return Err(self.challenge(fresh(), flows, Vec::new(), Some(gone)));
        };
        let outcome = self.attempt(flows, who, &mut session, auth).await;
        if matches!(outcome, Ok(None)) && flows.contains(&session.completed) {
            return Ok(Proof { session: Some((id, session)) });
        }
        let completed = session.completed.clone();
        self.inner.uia.put(&id, session, now);
        Err(self.challenge(id, flows, completed, outcome?))
    }

    /// One attempt on one stage. The answer is why it was refused.
    async fn attempt(
        &self,
        flows: &Flows,
        who: Option<&Who>,
        session: &mut Session,
        auth: &AuthData,
    ) -> Result<Option<Refused>> {
        let Some(kind) = auth.kind.as_deref() else { return Ok(None) };
        if session.completed.contains(&kind) {
            return Ok(None);
        }
        // The next stage of a way that begins with what is done.
        let next = flows.iter().filter(|flow| flow.starts_with(&session.completed));
        let mut next = next.filter_map(|flow| flow.get(session.completed.len()));
        let Some(stage) = next.find(|stage| **stage == kind) else {
            return Ok(Some(refused("M_UNRECOGNIZED", "this stage is not what is asked for now")));
        };
        let refusal = match *stage {
            // The client says so: that is all there is.
            DUMMY | TERMS => None,
            REGISTRATION_TOKEN => self.check_registration_token(auth),
            EMAIL => self.check_email(session, auth).await?,
            _ => self.check_own_password(who, auth).await?,
        };
        if refusal.is_none() {
            session.completed.push(stage);
        }
        Ok(refusal)
    }

    fn challenge(
        &self,
        session: String,
        flows: &Flows,
        completed: Vec<&'static str>,
        refused: Option<Refused>,
    ) -> Error {
        let mut params = serde_json::Map::new();
        if flows.iter().any(|stages| stages.contains(&TERMS)) {
            params.insert(TERMS.to_owned(), self.config().terms());
        }
        let flows = flows.iter().map(|stages| Flow { stages: stages.clone() }).collect();
        Error::Challenge(Box::new(Challenge { session, flows, params, completed, refused }))
    }

    async fn check_email(&self, session: &mut Session, auth: &AuthData) -> Result<Option<Refused>> {
        let Some(by) = &auth.threepid_creds else {
            return Ok(Some(refused("M_MISSING_PARAM", "threepid_creds is missing")));
        };
        let purpose = match session.operation == Operation::register() {
            true => Purpose::Register,
            false => Purpose::Password,
        };
        session.email = self.shown(by, purpose).await?;
        let is_shown = session.email.is_some();
        Ok((!is_shown).then(|| refused("M_UNAUTHORIZED", "the link in the letter was not followed yet")))
    }

    fn check_registration_token(&self, auth: &AuthData) -> Option<Refused> {
        let Some(token) = &auth.token else { return Some(refused("M_MISSING_PARAM", "token is missing")) };
        if self.is_registration_token(token) {
            return None;
        }
        Some(refused("M_FORBIDDEN", "this registration token is not valid"))
    }

    /// Whether a token lets somebody register.
    pub fn is_registration_token(&self, token: &str) -> bool {
        let Registration::Token(tokens) = &self.config().registration else { return false };
        // All are looked at, so that the time does not tell which one begins well.
        let found = tokens.iter().map(|known| known.as_bytes().ct_eq(token.as_bytes()).unwrap_u8());
        !token.is_empty() && found.fold(0, |any, one| any | one) == 1
    }

    async fn check_own_password(&self, who: Option<&Who>, auth: &AuthData) -> Result<Option<Refused>> {
        let wrong = Ok(Some(refused("M_FORBIDDEN", "wrong user or password")));
        let Some(password) = &auth.password else {
            return Ok(Some(refused("M_MISSING_PARAM", "password is missing")));
        };
        let Some(who) = who else { return wrong };
        // Old clients leave the identifier out; the access token says who it is.
        let named = match (&auth.identifier, &auth.user) {
            (Some(identifier), _) => identifier.user(),
            (None, Some(user)) => Some(user.as_str()),
            (None, None) => Some(who.user.as_str()),
        };
        if named.and_then(|named| self.existing_id(named)).as_ref() != Some(&who.user) {
            return wrong;
        }
        match self.check_password(who, Zeroizing::new(password.clone())).await {
            Ok(true) => Ok(None),
            Ok(false) => wrong,
            Err(error) => Err(error),
        }
    }
}

fn refused(errcode: &'static str, error: &'static str) -> Refused {
    Refused { errcode, error }
}
