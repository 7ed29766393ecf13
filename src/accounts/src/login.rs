//! Login, refreshing and the tokens that come of them (Client-Server API, "Login", "Refreshing access tokens").

use std::net::IpAddr;

use stoa_event::ids::{OwnedUserId, UserId};
use stoa_store::{
    Snapshot, Tx, UserNo,
    rows::{
        devices,
        tokens::{self, AccessToken, RefreshToken, TokenHash},
    },
    schema,
};
use zeroize::Zeroizing;

use crate::{
    Accounts, Error, Result,
    devices::{check_id, check_name},
    passwords::{self, Password},
    token,
    uia::{AuthData, Operation},
    users::{Account, User, new_device},
    who::Who,
};

/// How long a token from [`Accounts::new_login_token`] can be used (Client-Server API: two minutes are recommended).
pub const TOKEN_LIFE_MS: u64 = 2 * 60 * 1000;

/// The device that somebody logs in with.
#[derive(Clone, Debug, Default)]
pub struct NewDevice {
    /// Its id: a new one is made if there is none.
    pub id: Option<String>,
    /// Its name, if it is new.
    pub name: Option<String>,
    /// Whether its client can refresh access tokens.
    pub refresh: bool,
    /// From where it came.
    pub ip: Option<IpAddr>,
}

/// A new session.
#[derive(Clone, PartialEq, Eq)]
pub struct LoggedIn {
    /// The user.
    pub user: OwnedUserId,
    /// The device.
    pub device: String,
    /// Its tokens.
    pub tokens: Tokens,
}

/// The tokens of a session.
#[derive(Clone, PartialEq, Eq)]
pub struct Tokens {
    /// For requests.
    pub access: String,
    /// For the next access token.
    pub refresh: Option<String>,
    /// How long the access token holds, in milliseconds.
    pub expires_in_ms: Option<u64>,
}

/// Tokens that a transaction is about to make valid.
pub(crate) struct Issued {
    pub(crate) device: String,
    pub(crate) tokens: Tokens,
    pub(crate) gone: Vec<TokenHash>,
}

impl Accounts {
    /// Logs in with a password. `user` is a user id or a localpart.
    ///
    /// # Errors
    /// [`Error::BadCredentials`], [`Error::UserDeactivated`], [`Error::LimitExceeded`], [`Error::InvalidParam`]
    pub async fn login(&self, user: &str, password: Password, device: &NewDevice) -> Result<LoggedIn> {
        check_device(device)?;
        let Some(id) = self.existing_id(user) else {
            self.inner.passwords.verify(self.env(), password, None).await?;
            return Err(Error::BadCredentials);
        };
        let Some(account) = self.account(&id).await? else {
            // Takes as long and waits as long as with an account.
            self.try_password(&id, password, None).await?;
            return Err(Error::BadCredentials);
        };
        may_enter(&account.row, false)?;
        let before = self.password_of(account.no).await?;
        if !self.try_password(&id, password, before.clone()).await? {
            return Err(Error::BadCredentials);
        }
        let _guard = self.lock(account.no).await;
        // While the password was checked it may have been replaced, or the account ended.
        if before != self.password_of(account.no).await? {
            return Err(Error::BadCredentials);
        }
        self.begin_session(account, device).await
    }

    /// Logs in who is believed already; whoever calls has locked the account.
    pub(crate) async fn begin_session(&self, account: Account, device: &NewDevice) -> Result<LoggedIn> {
        let snapshot = self.store().snapshot().await?;
        let row = snapshot.get(&schema::USERS, &account.no).await?.ok_or(Error::BadCredentials)?;
        may_enter(&row, true)?;
        if let Some(id) = &device.id
            && self.is_cross_signing_key(&snapshot, account.no, id).await?
        {
            return Err(Error::Forbidden("a device may not be named like a cross-signing key"));
        }
        let mut tx = Tx::new();
        let issued = self.issue(&snapshot, &mut tx, account.no, device).await?;
        self.store().commit(tx).await?;
        self.inner.sessions.forget(&issued.gone);
        Ok(LoggedIn { user: account.id, device: issued.device, tokens: issued.tokens })
    }

    /// A token by which another client of who asks can log in once, after user-interactive authentication (Client-Server
    /// API, "Token-based").
    ///
    /// # Errors
    /// [`Error::Challenge`]
    pub async fn new_login_token(&self, who: &Who, auth: Option<&AuthData>) -> Result<String> {
        let proof = self.confirm(who, Operation::login_token(), auth).await?;
        self.settle(proof, Ok(self.inner.login_tokens.give(self.env(), who.user.clone())))
    }

    /// Logs in with such a token.
    ///
    /// # Errors
    /// [`Error::Forbidden`], [`Error::UserDeactivated`], [`Error::UserLocked`], [`Error::InvalidParam`]
    pub async fn login_by_token(&self, token: &str, device: &NewDevice) -> Result<LoggedIn> {
        check_device(device)?;
        let user = self.inner.login_tokens.take(self.env(), token);
        let user = user.ok_or(Error::Forbidden("the login token is unknown, was used, or has ended"))?;
        self.login_trusted(&user, device).await
    }

    /// Logs in who another proof than a password stands for.
    pub(crate) async fn login_trusted(&self, user: &UserId, device: &NewDevice) -> Result<LoggedIn> {
        let account = self.account(user).await?.ok_or(Error::BadCredentials)?;
        let _guard = self.lock(account.no).await;
        self.begin_session(account, device).await
    }

    async fn password_of(&self, user: UserNo) -> Result<Option<String>> {
        Ok(self.store().snapshot().await?.get(&schema::PASSWORDS, &user).await?)
    }

    /// Whether that is the password of the user who asks.
    ///
    /// # Errors
    /// [`Error::LimitExceeded`] after many wrong ones.
    pub(crate) async fn check_password(&self, who: &Who, password: Password) -> Result<bool> {
        let phc = self.password_of(who.user_no).await?;
        self.try_password(&who.user, password, phc).await
    }

    async fn try_password(&self, user: &UserId, password: Password, phc: Option<String>) -> Result<bool> {
        let passwords = &self.inner.passwords;
        passwords.may_try(user, self.env().now_ms())?;
        let right = passwords::possible(&password) && passwords.verify(self.env(), password, phc).await?;
        passwords.tried(user, right, self.env().now_ms());
        Ok(right)
    }

    /// The id that somebody means who writes a user id or a localpart, if it can be one of this server.
    pub(crate) fn existing_id(&self, name: &str) -> Option<OwnedUserId> {
        let id = match name.strip_prefix('@') {
            Some(_) => UserId::parse(name).ok()?,
            None => UserId::parse(format!("@{}:{}", name, self.server_name())).ok()?,
        };
        if id.server_name() != self.server_name() {
            return None;
        }
        // Names are made in small letters.
        OwnedUserId::try_from(format!("@{}:{}", id.localpart().to_ascii_lowercase(), self.server_name())).ok()
    }

    /// Gives a device new tokens, makes it if it is new, and takes its old tokens away.
    pub(crate) async fn issue(
        &self,
        snapshot: &Snapshot,
        tx: &mut Tx,
        user: UserNo,
        device: &NewDevice,
    ) -> Result<Issued> {
        let now = self.env().now_ms();
        let id = device.id.clone().unwrap_or_else(|| self.env().token(10).to_ascii_uppercase());
        let known = snapshot.get(&schema::DEVICES, &(user, id.clone())).await?;
        let mut row = known.unwrap_or_else(|| new_device(device.name.as_deref(), now));
        row.seen_ts = Some(now);
        row.seen_ip = device.ip.map(|ip| ip.to_string()).or(row.seen_ip);
        devices::put(tx, user, &id, &row);
        let gone = self.remove_tokens(snapshot, tx, user, &id, &[]).await?;
        let tokens = self.put_tokens(tx, user, &id, device.refresh, false);
        Ok(Issued { device: id, tokens, gone })
    }

    fn put_tokens(&self, tx: &mut Tx, user: UserNo, device: &str, refresh: bool, fresh: bool) -> Tokens {
        let access = token::new(self.env(), "sta");
        let refresh = refresh.then(|| token::new(self.env(), "str"));
        let expires_in_ms = refresh.as_ref().map(|_| self.config().access_token_ms);
        let expires = expires_in_ms.map(|life| self.env().now_ms().saturating_add(life));
        let hash = token::hash(&access);
        let refresh_hash = refresh.as_deref().map(token::hash);
        let row = AccessToken { user, device: device.to_owned(), expires, refresh: refresh_hash, fresh };
        tokens::put_access(tx, &hash, &row);
        if let Some(refresh_hash) = &refresh_hash {
            tokens::put_refresh(tx, refresh_hash, &RefreshToken { user, device: device.to_owned(), access: hash });
        }
        Tokens { access, refresh, expires_in_ms }
    }

    /// New tokens for a refresh token. The old ones hold until one of the new is used, so that an answer that got lost
    /// locks nobody out.
    ///
    /// # Errors
    /// [`Error::UnknownToken`]
    pub async fn refresh(&self, refresh_token: &str) -> Result<Tokens> {
        let hash = token::hash(refresh_token);
        let unknown = || Error::UnknownToken { soft_logout: false };
        let row = self.store().snapshot().await?.get(&schema::REFRESH_TOKENS, &hash).await?.ok_or_else(unknown)?;
        let _guard = self.lock(row.user).await;
        let snapshot = self.store().snapshot().await?;
        let account = snapshot.get(&schema::USERS, &row.user).await?.ok_or_else(unknown)?;
        may_enter(&account, true)?;
        // It may have been taken away meanwhile.
        let row = snapshot.get(&schema::REFRESH_TOKENS, &hash).await?.ok_or_else(unknown)?;
        let mut tx = Tx::new();
        // Using it makes it the one that counts: what came before it ends, and what came of it and was never used.
        let gone = self.remove_tokens(&snapshot, &mut tx, row.user, &row.device, &[hash, row.access]).await?;
        if let Some(access) = snapshot.get(&schema::ACCESS_TOKENS, &row.access).await?
            && access.fresh
        {
            tokens::put_access(&mut tx, &row.access, &AccessToken { fresh: false, ..access });
        }
        let tokens = self.put_tokens(&mut tx, row.user, &row.device, true, true);
        self.store().commit(tx).await?;
        self.inner.sessions.forget(&gone);
        Ok(tokens)
    }

    /// The first use of an access token from [`Accounts::refresh`]: what came before it ends.
    pub(crate) async fn first_use(&self, hash: TokenHash) -> Result<()> {
        let Some(row) = self.store().snapshot().await?.get(&schema::ACCESS_TOKENS, &hash).await? else { return Ok(()) };
        let _guard = self.lock(row.user).await;
        let snapshot = self.store().snapshot().await?;
        let Some(row) = snapshot.get(&schema::ACCESS_TOKENS, &hash).await?.filter(|row| row.fresh) else {
            return Ok(());
        };
        let mut tx = Tx::new();
        let keep: Vec<_> = [Some(hash), row.refresh].into_iter().flatten().collect();
        let gone = self.remove_tokens(&snapshot, &mut tx, row.user, &row.device, &keep).await?;
        tokens::put_access(&mut tx, &hash, &AccessToken { fresh: false, ..row });
        self.store().commit(tx).await?;
        self.inner.sessions.forget(&gone);
        Ok(())
    }

    /// Replaces the password of the user who asks, after user-interactive authentication.
    ///
    /// # Errors
    /// [`Error::Challenge`], [`Error::WeakPassword`]
    pub async fn change_password(
        &self,
        who: &Who,
        new: &str,
        logout_devices: bool,
        auth: Option<&AuthData>,
    ) -> Result<()> {
        passwords::check_new(self.config(), new)?;
        let proof = self.confirm(who, Operation::password(), auth).await?;
        let done = match self.inner.passwords.hash(self.env(), Zeroizing::new(new.to_owned())).await {
            Ok(phc) => self.replace_password(who.user_no, &phc, logout_devices, Some(&who.device)).await,
            Err(error) => Err(error),
        };
        self.settle(proof, done)
    }
}

/// Whether an account is open to its owner. That it is locked is told only to who proved to be the owner.
fn may_enter(row: &User, proven: bool) -> Result<()> {
    match row {
        User { deactivated: Some(_), .. } => Err(Error::UserDeactivated),
        User { locked: true, .. } if proven => Err(Error::UserLocked),
        _ => Ok(()),
    }
}

/// Whether somebody may log in with that device.
pub(crate) fn check_device(device: &NewDevice) -> Result<()> {
    device.id.as_deref().map_or(Ok(()), check_id)?;
    device.name.as_deref().map_or(Ok(()), check_name)
}
