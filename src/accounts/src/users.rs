//! Accounts as the administrator sees them: made, listed, deactivated; and the rules of their names.

use stoa_event::ids::{MAX_ID_BYTES, OwnedUserId, UserId};
use stoa_store::{
    Direction, Snapshot, Tx, UserNo,
    rows::{account_data, devices::Device, filters, key_backup, users},
    schema,
};

use crate::{Accounts, Error, Result, passwords, passwords::Password};

pub use stoa_store::rows::users::User;

/// An account that was found.
#[derive(Clone, Debug)]
pub struct Account {
    /// Its id.
    pub id: OwnedUserId,
    /// Its number in the store.
    pub no: UserNo,
    /// What is known of it.
    pub row: User,
}

/// What is written of a new account.
#[derive(Default)]
pub(crate) struct NewRow<'a> {
    /// The hash of its password.
    pub(crate) phc: Option<&'a str>,
    pub(crate) admin: bool,
    pub(crate) guest: bool,
    /// What its owner agreed to.
    pub(crate) agreed: Vec<String>,
}

impl Accounts {
    /// Makes an account, as the administrator does: reserved names are allowed.
    ///
    /// # Errors
    /// [`Error::UserInUse`], [`Error::InvalidUsername`], [`Error::WeakPassword`]
    pub async fn create_user(&self, name: &str, password: Password, admin: bool) -> Result<OwnedUserId> {
        let id = self.new_user_id(name)?;
        passwords::check_new(self.config(), &password)?;
        let phc = self.inner.passwords.hash(self.env(), password).await?;
        let _guard = self.lock_name(&id).await;
        let snapshot = self.store().snapshot().await?;
        let mut tx = Tx::new();
        self.add_user(&snapshot, &mut tx, &id, NewRow { phc: Some(&phc), admin, ..NewRow::default() }).await?;
        self.commit_new(tx).await?;
        Ok(id)
    }

    /// Writes a new account into `tx`; the name must be locked.
    pub(crate) async fn add_user(
        &self,
        snapshot: &Snapshot,
        tx: &mut Tx,
        id: &UserId,
        new: NewRow<'_>,
    ) -> Result<UserNo> {
        let no = self.store().names().name_user(snapshot, tx, id.as_str()).await?;
        if snapshot.has(&schema::USERS, &no).await? {
            return Err(Error::UserInUse);
        }
        let NewRow { phc, admin, guest, agreed } = new;
        users::create(tx, no, &User { created: self.env().now_ms(), admin, guest, agreed, ..User::default() });
        if let Some(phc) = phc {
            users::put_password(tx, no, phc);
        }
        let name = serde_json::Value::from(id.localpart()).to_string();
        users::put_profile_field(tx, no, "displayname", Some(&name.into()));
        Ok(no)
    }

    /// Commits a new account: a conflict means that somebody else was faster.
    pub(crate) async fn commit_new(&self, tx: Tx) -> Result<()> {
        match self.store().commit(tx).await {
            Err(stoa_store::Error::Conflict) => Err(Error::UserInUse),
            other => Ok(other.map(drop)?),
        }
    }

    /// Sets a password, as the administrator does. All devices are logged out.
    ///
    /// # Errors
    /// [`Error::NotFound`], [`Error::UserDeactivated`], [`Error::WeakPassword`]
    pub async fn set_password(&self, user: &UserId, password: Password) -> Result<()> {
        passwords::check_new(self.config(), &password)?;
        let phc = self.inner.passwords.hash(self.env(), password).await?;
        let account = self.active(user).await?;
        self.replace_password(account.no, &phc, true, None).await
    }

    /// Every account, in the order in which they were made.
    ///
    /// # Errors
    /// Where the store fails.
    pub async fn list_users(&self) -> Result<Vec<Account>> {
        let snapshot = self.store().snapshot().await?;
        let mut all = Vec::new();
        for (no, row) in snapshot.scan(&schema::USERS, &(), Direction::Forward, usize::MAX).await? {
            all.push(Account { id: self.user_id(&snapshot, no).await?, no, row });
        }
        Ok(all)
    }

    /// Whether there is any account yet.
    ///
    /// # Errors
    /// Where the store fails.
    pub async fn has_users(&self) -> Result<bool> {
        let snapshot = self.store().snapshot().await?;
        Ok(!snapshot.scan(&schema::USERS, &(), Direction::Forward, 1).await?.is_empty())
    }

    /// Makes somebody an administrator, or no longer.
    ///
    /// # Errors
    /// [`Error::NotFound`], [`Error::UserDeactivated`]
    pub async fn set_admin(&self, user: &UserId, admin: bool) -> Result<()> {
        let no = self.active(user).await?.no;
        let _guard = self.lock(no).await;
        let account = self.active(user).await?;
        self.write_row(account.no, &User { admin, ..account.row }).await
    }

    /// Writes what is known of an account; whoever calls holds its lock.
    pub(crate) async fn write_row(&self, no: UserNo, row: &User) -> Result<()> {
        let mut tx = Tx::new();
        users::put(&mut tx, no, row);
        self.store().commit(tx).await?;
        self.forget_sessions(no).await
    }

    /// What is known of the tokens of an account is read again when they are used.
    pub(crate) async fn forget_sessions(&self, no: UserNo) -> Result<()> {
        let snapshot = self.store().snapshot().await?;
        let tokens = snapshot.scan(&schema::DEVICE_TOKENS, &no, Direction::Forward, usize::MAX).await?;
        self.inner.sessions.forget(tokens.iter().map(|((_, _, hash), _)| hash));
        Ok(())
    }

    /// Ends an account: no password, no devices, no pushers, no key backup; with `erase` nothing of its data either.
    /// Its name is never given out again. Rooms are not left by this: see `stoa_client_api::end_account`.
    ///
    /// # Errors
    /// [`Error::NotFound`]
    pub async fn deactivate(&self, user: &UserId, erase: bool) -> Result<()> {
        let unknown = || Error::NotFound("there is no such user");
        let no = self.account(user).await?.ok_or_else(unknown)?.no;
        let _guard = self.lock(no).await;
        let account = self.account(user).await?.ok_or_else(unknown)?;
        let snapshot = self.store().snapshot().await?;
        let mut tx = Tx::new();
        let now = self.env().now_ms();
        let erased = account.row.erased || erase;
        let deactivated = account.row.deactivated.or(Some(now));
        users::put(&mut tx, account.no, &User { admin: false, deactivated, erased, ..account.row });
        users::delete_password(&mut tx, account.no);
        let gone = self.remove_all_devices(&snapshot, &mut tx, account.no, None).await?;
        self.remove_all_pushers(&snapshot, &mut tx, account.no).await?;
        self.delete_emails(&snapshot, &mut tx, account.no).await?;
        key_backup::delete_all(&mut tx, account.no);
        if erase {
            users::delete_profile(&mut tx, account.no);
            account_data::delete_all(&mut tx, account.no);
            filters::delete_all(&mut tx, account.no);
        }
        self.store().commit(tx).await?;
        self.inner.sessions.forget(&gone);
        Ok(())
    }

    /// The account of an id, deactivated ones too.
    ///
    /// # Errors
    /// Where the store fails.
    pub async fn account(&self, user: &UserId) -> Result<Option<Account>> {
        if user.server_name() != self.server_name() {
            return Ok(None);
        }
        let snapshot = self.store().snapshot().await?;
        let Some(no) = self.store().names().user(&snapshot, user.as_str()).await? else { return Ok(None) };
        let row = snapshot.get(&schema::USERS, &no).await?;
        Ok(row.map(|row| Account { id: user.to_owned(), no, row }))
    }

    pub(crate) async fn active(&self, user: &UserId) -> Result<Account> {
        match self.account(user).await? {
            None => Err(Error::NotFound("there is no such user")),
            Some(account) if account.row.deactivated.is_some() => Err(Error::UserDeactivated),
            Some(account) => Ok(account),
        }
    }

    /// The id that a new account with that name would have; capitals become small.
    pub(crate) fn new_user_id(&self, name: &str) -> Result<OwnedUserId> {
        if name.is_empty() {
            return Err(Error::InvalidUsername("a user name has at least one character"));
        }
        let name = name.to_ascii_lowercase();
        let allowed = |byte: u8| byte.is_ascii_lowercase() || byte.is_ascii_digit() || b"._=-/+".contains(&byte);
        if !name.bytes().all(allowed) {
            return Err(Error::InvalidUsername("a user name has only the characters a-z, 0-9, ., _, =, -, / and +"));
        }
        let id = format!("@{name}:{}", self.server_name());
        if id.len() > MAX_ID_BYTES {
            return Err(Error::InvalidUsername("a user id has at most 255 bytes"));
        }
        OwnedUserId::try_from(id).map_err(|_| Error::InvalidUsername("that cannot be a user name"))
    }

    /// Whether a name is kept from being registered.
    pub(crate) fn is_reserved(&self, localpart: &str) -> bool {
        self.config().reserved.iter().any(|rule| match rule.strip_suffix('*') {
            Some(prefix) => localpart.starts_with(prefix),
            None => rule == localpart,
        })
    }

    /// Writes another password, and takes the devices away if asked to, but `keep`.
    pub(crate) async fn replace_password(
        &self,
        user: UserNo,
        phc: &str,
        logout: bool,
        keep: Option<&str>,
    ) -> Result<()> {
        let _guard = self.lock(user).await;
        let snapshot = self.store().snapshot().await?;
        let mut tx = Tx::new();
        users::put_password(&mut tx, user, phc);
        let gone = if logout { self.remove_all_devices(&snapshot, &mut tx, user, keep).await? } else { Vec::new() };
        self.store().commit(tx).await?;
        self.inner.sessions.forget(&gone);
        Ok(())
    }
}

/// A device that was never seen before.
pub(crate) fn new_device(name: Option<&str>, now_ms: u64) -> Device {
    Device { name: name.map(str::to_owned), created: now_ms, ..Device::default() }
}
