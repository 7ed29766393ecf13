//! Who asks: from an access token to a user and a device. It is asked at every request, so the answers are kept in
//! memory until the token is taken away.

use std::sync::{
    Arc,
    atomic::{AtomicU64, Ordering},
};

use quick_cache::sync::Cache;
use stoa_event::ids::OwnedUserId;
use stoa_store::{
    Snapshot, UserNo,
    rows::tokens::{AccessToken, TokenHash},
    schema,
};

use crate::{Accounts, Error, Result, Service, token};

/// Who asks.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Who {
    /// The user.
    pub user: OwnedUserId,
    /// The user's number in the store.
    pub user_no: UserNo,
    /// The id of the device; empty for an application service that named none.
    pub device: String,
    /// Whether the user administers this server.
    pub admin: bool,
    /// Whether the user is a guest.
    pub guest: bool,
    /// Whether an administrator locked the account.
    pub locked: bool,
    /// Whether an administrator suspended the account.
    pub suspended: bool,
    /// The application service that asks as the user.
    pub service: Option<Arc<Service>>,
}

impl Who {
    /// Whether rate limits do not hold for who asks (Application Service API, `rate_limited`).
    pub fn is_unlimited(&self) -> bool {
        self.service.as_ref().is_some_and(|service| !service.rate_limited || service.sender == self.user)
    }

    /// Whether a device asks.
    pub fn has_device(&self) -> bool {
        !self.device.is_empty()
    }
}

struct Session {
    who: Who,
    expires: Option<u64>,
}

impl Session {
    fn ended(&self, now_ms: u64) -> bool {
        self.expires.is_some_and(|end| end <= now_ms)
    }
}

/// Access tokens that were seen, by their hash.
pub(crate) struct Sessions {
    cache: Cache<TokenHash, Arc<Session>>,
    /// Counts what was taken away: who read the rows before must not leave in the cache what he saw.
    revocations: AtomicU64,
}

impl Sessions {
    pub(crate) fn new(items: usize) -> Self {
        Sessions { cache: Cache::new(items.max(16)), revocations: AtomicU64::new(0) }
    }

    /// Forgets tokens. Call it after the commit that took them away.
    pub(crate) fn forget<'a>(&self, hashes: impl IntoIterator<Item = &'a TokenHash>) {
        self.revocations.fetch_add(1, Ordering::SeqCst);
        for hash in hashes {
            self.cache.remove(hash);
        }
    }

    fn keep(&self, hash: TokenHash, session: &Arc<Session>, revocations: u64) {
        if self.revocations.load(Ordering::SeqCst) != revocations {
            return;
        }
        self.cache.insert(hash, session.clone());
        if self.revocations.load(Ordering::SeqCst) != revocations {
            self.cache.remove(&hash);
        }
    }
}

impl Accounts {
    /// Whose token that is.
    ///
    /// # Errors
    /// [`Error::UnknownToken`]; soft, where the token has ended but its device could get a new one.
    pub async fn whoami(&self, token: &str) -> Result<Who> {
        let hash = token::hash(token);
        let session = match self.inner.sessions.cache.get(&hash) {
            Some(session) => session,
            None => self.read_session(hash).await?,
        };
        if session.ended(self.env().now_ms()) {
            return Err(Error::UnknownToken { soft_logout: true });
        }
        Ok(session.who.clone())
    }

    async fn read_session(&self, hash: TokenHash) -> Result<Arc<Session>> {
        let revocations = self.inner.sessions.revocations.load(Ordering::SeqCst);
        let snapshot = self.store().snapshot().await?;
        let unknown = Error::UnknownToken { soft_logout: false };
        let Some(row) = snapshot.get(&schema::ACCESS_TOKENS, &hash).await? else { return Err(unknown) };
        let fresh = row.fresh;
        let session = Arc::new(self.session(&snapshot, row).await?.ok_or(unknown)?);
        if fresh && !session.ended(self.env().now_ms()) {
            self.first_use(hash).await?;
            // Not kept this time: that it took others away looks like a race with itself.
            return Ok(session);
        }
        self.inner.sessions.keep(hash, &session, revocations);
        Ok(session)
    }

    async fn session(&self, snapshot: &Snapshot, row: AccessToken) -> Result<Option<Session>> {
        let account = snapshot.get(&schema::USERS, &row.user).await?;
        let Some(account) = account.filter(|account| account.deactivated.is_none()) else { return Ok(None) };
        let user = self.user_id(snapshot, row.user).await?;
        let who = Who {
            user,
            user_no: row.user,
            device: row.device,
            admin: account.admin,
            guest: account.guest,
            locked: account.locked,
            suspended: account.suspended,
            service: None,
        };
        Ok(Some(Session { who, expires: row.expires }))
    }

    /// The id of a user's number.
    pub(crate) async fn user_id(&self, snapshot: &Snapshot, user: UserNo) -> Result<OwnedUserId> {
        let id = self.store().names().user_id(snapshot, user).await?;
        OwnedUserId::try_from(&*id).map_err(|_| stoa_store::Error::Corrupt("a user's id is none").into())
    }
}
