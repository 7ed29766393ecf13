//! E-mail addresses of people (Client-Server API, "Adding Account Administrative Contact Information"): asked for, shown to be
//! theirs by a letter, added and removed; and what they are good for, which is registering, logging in and a new password.
//!
//! A session is for one address and one purpose; whoever uses it knows its client secret, and it is used once. Letters are
//! written down here and sent by others, so that none is lost.

use std::ops::Bound;

use serde::Deserialize;
use sha2::{Digest, Sha256};
use stoa_store::{
    Direction, Snapshot, Tx, UserNo,
    rows::emails::{self, Email, EmailSession, Letter},
    schema,
};
use subtle::ConstantTimeEq;
use zeroize::Zeroizing;

use crate::{
    Accounts, Error, Result, Who, passwords,
    uia::{AuthData, Operation},
};

/// How long a session lives.
const SESSION_MS: u64 = 24 * 60 * 60 * 1000;
/// How many sessions may be about one address at once: so many letters somebody gets whom others annoy.
const MAX_SESSIONS: usize = 10;
/// How many addresses somebody has at most.
const MAX_EMAILS: usize = 20;
/// The longest address (RFC 5321, 4.5.3.1.3), and the longest link to go on with.
const MAX_ADDRESS: usize = 254;
const MAX_NEXT: usize = 2048;
/// The longest client secret ("client_secret").
const MAX_SECRET: usize = 255;
/// The path of the page that a letter leads to.
pub const PAGE: &str = "/_stoa/email/";

/// What an address is to be shown for. A session for one is worth nothing for another.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Purpose {
    /// Making an account.
    Register,
    /// Adding it to an account.
    Add,
    /// Setting a new password.
    Password,
}

impl Purpose {
    fn as_str(self) -> &'static str {
        match self {
            Purpose::Register => "register",
            Purpose::Add => "add",
            Purpose::Password => "password",
        }
    }
}

/// A request for a letter.
#[derive(Clone, Debug)]
pub struct EmailRequest {
    /// The address, as somebody typed it.
    pub address: String,
    /// What the client alone knows.
    pub secret: String,
    /// Another letter is sent only if this is greater than the last time.
    pub attempt: u64,
    /// Where to go from the page that the letter leads to.
    pub next: Option<String>,
    /// The languages that its reader wants (RFC 9110, "Accept-Language").
    pub languages: String,
}

/// What a client shows of a session that it has been through ("m.login.email.identity", "threepid_creds").
#[derive(Clone, Default, Deserialize)]
pub struct Credentials {
    /// The session.
    pub sid: String,
    /// Its secret.
    pub client_secret: String,
}

/// A session that was gone through.
#[derive(Clone)]
pub(crate) struct Shown {
    pub(crate) sid: String,
    pub(crate) session: EmailSession,
}

impl Accounts {
    /// Whether this server sends letters.
    pub fn sends_mail(&self) -> bool {
        self.config().mail.is_some()
    }

    /// Sends a letter to an address, and gives the id of the session. Asking again with the same secret and no greater attempt
    /// gives the same session and sends nothing.
    ///
    /// # Errors
    /// [`Error::ThreepidDenied`] where no letters are sent, [`Error::InvalidParam`], [`Error::ThreepidInUse`],
    /// [`Error::ThreepidNotFound`], [`Error::LimitExceeded`]
    pub async fn request_email(&self, who: Option<UserNo>, purpose: Purpose, request: EmailRequest) -> Result<String> {
        let mail = self.config().mail.as_ref().ok_or(Error::ThreepidDenied)?;
        let address = address(&request.address)?;
        check_secret(&request.secret)?;
        let next = request.next.map(check_next).transpose()?;
        let _one = self.inner.emails.lock().await;
        let snapshot = self.store().snapshot().await?;
        let owner = snapshot.get(&schema::EMAIL_OWNERS, &address).await?;
        match (purpose, owner) {
            (Purpose::Password, None) => return Err(Error::ThreepidNotFound),
            (Purpose::Register | Purpose::Add, Some(_)) => return Err(Error::ThreepidInUse),
            _ => {}
        }
        let now = self.env().now_ms();
        let secret = Sha256::digest(request.secret.as_bytes()).to_vec();
        let (mut same, mut about) = (None, 0);
        let (from, to) = (begin_of(&address), format!("{}~", begin_of(&address)));
        let (from, to) = (Bound::Included(from), Bound::Excluded(to));
        let known = snapshot.range(&schema::EMAIL_SESSIONS, from, to, Direction::Forward, MAX_SESSIONS * 2).await?;
        for (sid, session) in known {
            if session.address != address || session.expires <= now {
                continue;
            }
            about += 1;
            if session.secret == secret && session.purpose == purpose.as_str() && session.user == who {
                same = Some((sid, session));
            }
        }
        if let Some((sid, session)) = &same
            && (request.attempt <= session.attempt || session.validated.is_some())
        {
            return Ok(sid.clone());
        }
        if same.is_none() && about >= MAX_SESSIONS {
            return Err(Error::LimitExceeded { retry_after_ms: SESSION_MS });
        }
        let token = self.env().token(40);
        let sid = same.map_or_else(|| format!("{}{}", begin_of(&address), self.env().token(24)), |(sid, _)| sid);
        let session = EmailSession {
            address: address.clone(),
            purpose: purpose.as_str().to_owned(),
            secret,
            token: Sha256::digest(token.as_bytes()).to_vec(),
            attempt: request.attempt,
            user: who,
            next,
            validated: None,
            expires: now + SESSION_MS,
        };
        let link = format!("{}{PAGE}{sid}?token={token}", mail.base_url.trim_end_matches('/'));
        let letter = Letter {
            to: address,
            about: session.purpose.clone(),
            languages: request.languages,
            link,
            tries: 0,
            expires: session.expires,
        };
        let mut tx = Tx::new();
        emails::put_session(&mut tx, &sid, &session);
        emails::put_letter(&mut tx, now, &self.env().token(24), &letter);
        self.store().commit(tx).await?;
        Ok(sid)
    }

    /// What the link of a letter is about: the address and the purpose; nothing where it is worth nothing (any more).
    ///
    /// # Errors
    /// Where the store fails.
    pub async fn email_link(&self, sid: &str, token: &str) -> Result<Option<EmailSession>> {
        let snapshot = self.store().snapshot().await?;
        let Some(session) = snapshot.get(&schema::EMAIL_SESSIONS, &sid.to_owned()).await? else { return Ok(None) };
        let given = Sha256::digest(token.as_bytes());
        let fits = bool::from(session.token.as_slice().ct_eq(given.as_slice()));
        Ok(Some(session).filter(|session| fits && session.expires > self.env().now_ms()))
    }

    /// Notes that the link of a letter was followed.
    ///
    /// # Errors
    /// Where the store fails.
    pub async fn follow_email_link(&self, sid: &str, token: &str) -> Result<Option<EmailSession>> {
        let _one = self.inner.emails.lock().await;
        let Some(mut session) = self.email_link(sid, token).await? else { return Ok(None) };
        if session.validated.is_none() {
            session.validated = Some(self.env().now_ms());
            let mut tx = Tx::new();
            emails::put_session(&mut tx, sid, &session);
            self.store().commit(tx).await?;
        }
        Ok(Some(session))
    }

    /// A session that was gone through for a purpose; nothing where it was not (yet).
    pub(crate) async fn shown(&self, by: &Credentials, purpose: Purpose) -> Result<Option<Shown>> {
        let snapshot = self.store().snapshot().await?;
        let Some(session) = snapshot.get(&schema::EMAIL_SESSIONS, &by.sid).await? else { return Ok(None) };
        let given = Sha256::digest(by.client_secret.as_bytes());
        let fits = bool::from(session.secret.as_slice().ct_eq(given.as_slice()))
            && session.purpose == purpose.as_str()
            && session.validated.is_some()
            && session.expires > self.env().now_ms();
        Ok(fits.then(|| Shown { sid: by.sid.clone(), session }))
    }

    /// Uses a session up and gives its address to somebody, in a transaction that fails where somebody else was faster.
    pub(crate) fn give_email(&self, tx: &mut Tx, user: UserNo, shown: &Shown) {
        let EmailSession { address, validated, .. } = &shown.session;
        let now = self.env().now_ms();
        tx.assert(&schema::EMAIL_OWNERS, address, None);
        tx.assert(&schema::EMAIL_SESSIONS, &shown.sid, Some(&shown.session));
        emails::put(tx, user, address, &Email { validated: validated.unwrap_or(now), added: now });
        emails::delete_session(tx, &shown.sid);
    }

    /// The addresses of somebody.
    ///
    /// # Errors
    /// Where the store fails.
    pub async fn emails(&self, user: UserNo) -> Result<Vec<(String, Email)>> {
        let snapshot = self.store().snapshot().await?;
        let rows = snapshot.scan(&schema::EMAILS, &user, Direction::Forward, usize::MAX).await?;
        Ok(rows.into_iter().map(|((_, address), email)| (address, email)).collect())
    }

    /// Adds an address to the account of who asks, after user-interactive authentication.
    ///
    /// # Errors
    /// [`Error::Challenge`], [`Error::ThreepidAuthFailed`], [`Error::ThreepidInUse`], [`Error::TooLarge`]
    pub async fn add_email(&self, who: &Who, by: &Credentials, auth: Option<&AuthData>) -> Result<()> {
        let proof = self.confirm(who, Operation::add_email(), auth).await?;
        let added = self.add_shown(who, by).await;
        self.settle(proof, added)
    }

    async fn add_shown(&self, who: &Who, by: &Credentials) -> Result<()> {
        let shown = self.shown(by, Purpose::Add).await?.ok_or(Error::ThreepidAuthFailed)?;
        // A letter that somebody else had sent is not for this account.
        if shown.session.user.is_some_and(|user| user != who.user_no) {
            return Err(Error::ThreepidAuthFailed);
        }
        let _guard = self.lock(who.user_no).await;
        if self.emails(who.user_no).await?.len() >= MAX_EMAILS {
            return Err(Error::TooLarge("too many addresses"));
        }
        let mut tx = Tx::new();
        self.give_email(&mut tx, who.user_no, &shown);
        match self.store().commit(tx).await {
            Err(stoa_store::Error::Conflict) => Err(Error::ThreepidInUse),
            other => Ok(other.map(drop)?),
        }
    }

    /// Removes an address of who asks, if it is his.
    ///
    /// # Errors
    /// Where the store fails.
    pub async fn delete_email(&self, who: &Who, address: &str) -> Result<()> {
        let Ok(address) = self::address(address) else { return Ok(()) };
        let _guard = self.lock(who.user_no).await;
        let snapshot = self.store().snapshot().await?;
        if !snapshot.has(&schema::EMAILS, &(who.user_no, address.clone())).await? {
            return Ok(());
        }
        let mut tx = Tx::new();
        emails::delete(&mut tx, who.user_no, &address);
        self.store().commit(tx).await?;
        Ok(())
    }

    /// Removes all addresses of somebody.
    pub(crate) async fn delete_emails(&self, snapshot: &Snapshot, tx: &mut Tx, user: UserNo) -> Result<()> {
        for ((_, address), _) in snapshot.scan(&schema::EMAILS, &user, Direction::Forward, usize::MAX).await? {
            emails::delete(tx, user, &address);
        }
        Ok(())
    }

    /// The user id of who has an address.
    ///
    /// # Errors
    /// Where the store fails.
    pub async fn user_of_email(&self, address: &str) -> Result<Option<String>> {
        let Ok(address) = self::address(address) else { return Ok(None) };
        let snapshot = self.store().snapshot().await?;
        let Some(user) = snapshot.get(&schema::EMAIL_OWNERS, &address).await? else { return Ok(None) };
        Ok(Some(self.user_id(&snapshot, user).await?.to_string()))
    }

    /// Sets a new password for who shows that an address of the account is his. All devices are logged out, unless he wants
    /// them not to be.
    ///
    /// # Errors
    /// [`Error::Challenge`], [`Error::WeakPassword`], [`Error::UserDeactivated`]
    pub async fn reset_password(&self, new: &str, logout_devices: bool, auth: Option<&AuthData>) -> Result<()> {
        passwords::check_new(self.config(), new)?;
        let proof = self.prove_email(Operation::reset_password(), auth).await?;
        let done = self.reset_shown(proof.email(), new, logout_devices).await;
        self.settle(proof, done)
    }

    async fn reset_shown(&self, shown: Option<Shown>, new: &str, logout_devices: bool) -> Result<()> {
        let shown = shown.ok_or(Error::ThreepidAuthFailed)?;
        let phc = self.inner.passwords.hash(self.env(), Zeroizing::new(new.to_owned())).await?;
        let snapshot = self.store().snapshot().await?;
        let owner = snapshot.get(&schema::EMAIL_OWNERS, &shown.session.address).await?;
        let user = self.user_id(&snapshot, owner.ok_or(Error::ThreepidAuthFailed)?).await?;
        let account = self.active(&user).await?;
        // Used up first: what is left over after a crash lets nobody in twice.
        let mut tx = Tx::new();
        tx.assert(&schema::EMAIL_SESSIONS, &shown.sid, Some(&shown.session));
        emails::delete_session(&mut tx, &shown.sid);
        match self.store().commit(tx).await {
            Err(stoa_store::Error::Conflict) => return Err(Error::ThreepidAuthFailed),
            other => drop(other?),
        }
        self.replace_password(account.no, &phc, logout_devices, None).await
    }

    /// Forgets sessions that have ended.
    ///
    /// # Errors
    /// Where the store fails.
    pub async fn forget_email_sessions(&self) -> Result<()> {
        let _one = self.inner.emails.lock().await;
        let (snapshot, now) = (self.store().snapshot().await?, self.env().now_ms());
        let mut tx = Tx::new();
        let mut any = false;
        for (sid, session) in snapshot.scan(&schema::EMAIL_SESSIONS, &(), Direction::Forward, usize::MAX).await? {
            if session.expires <= now {
                emails::delete_session(&mut tx, &sid);
                any = true;
            }
        }
        if any {
            self.store().commit(tx).await?;
        }
        Ok(())
    }
}

/// An address as it is compared: there is one `@`, something before it, a name of a host after it, and nothing that could end a
/// line or add another address. Case does not matter ("Third-party Identifiers": compared case-folded).
fn address(text: &str) -> Result<String> {
    let bad = || Error::InvalidParam("that is no e-mail address".to_owned());
    let text = text.trim().to_lowercase();
    let (local, host) = text.split_once('@').ok_or_else(bad)?;
    let fine = |c: char| c.is_alphanumeric() || ".!#$%&'*+/=?^_`{|}~-".contains(c);
    let label = |label: &str| !label.is_empty() && !label.starts_with('-') && !label.ends_with('-');
    let hosts = |c: char| c.is_alphanumeric() || c == '.' || c == '-';
    let local_is_fine = !local.is_empty() && local.chars().all(fine) && local.split('.').all(|part| !part.is_empty());
    let host_is_fine = host.chars().all(hosts) && host.split('.').all(label);
    if text.len() > MAX_ADDRESS || !local_is_fine || !host_is_fine {
        return Err(bad());
    }
    Ok(text)
}

/// How the ids of all sessions of an address begin.
fn begin_of(address: &str) -> String {
    let digest = Sha256::digest(address.as_bytes());
    digest.iter().take(8).map(|byte| format!("{byte:02x}")).collect::<String>() + "_"
}

/// "client_secret": `[0-9a-zA-Z.=_-]`.
fn check_secret(secret: &str) -> Result<()> {
    let fine = |byte: u8| byte.is_ascii_alphanumeric() || b".=_-".contains(&byte);
    if secret.is_empty() || secret.len() > MAX_SECRET || !secret.bytes().all(fine) {
        return Err(Error::InvalidParam("client_secret has 1 to 255 letters, digits and .=_-".to_owned()));
    }
    Ok(())
}

/// A link that a page may show: nothing that runs.
fn check_next(next: String) -> Result<String> {
    if next.len() > MAX_NEXT || !(next.starts_with("https://") || next.starts_with("http://")) {
        return Err(Error::InvalidParam("next_link is an http or https URL".to_owned()));
    }
    Ok(next)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn addresses() {
        for (text, read) in [
            ("a@b", Some("a@b")),
            (" Alice.X+y@Example.ORG ", Some("alice.x+y@example.org")),
            ("ä@straße.de", Some("ä@straße.de")),
            ("a", None),
            ("@b", None),
            ("a@", None),
            ("a@b@c", None),
            ("a@b..c", None),
            (".a@b", None),
            ("a b@c", None),
            ("a@b\r\nBcc: x@y", None),
            ("a@b,c@d", None),
            ("\"a\"@b", None),
            ("a@-b", None),
        ] {
            assert_eq!(address(text).ok().as_deref(), read, "{text:?}");
        }
        assert!(address(&format!("{}@b", "a".repeat(300))).is_err());
    }

    #[test]
    fn secrets_and_links() {
        assert!(check_secret("aB1.=_-").is_ok());
        for bad in ["", "a b", "ä", &"x".repeat(256)] {
            assert!(check_secret(bad).is_err());
        }
        assert!(check_next("https://x/".to_owned()).is_ok());
        assert!(check_next("javascript:alert(1)".to_owned()).is_err());
    }
}
