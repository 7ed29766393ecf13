//! Registration (Client-Server API, "Account registration").

use stoa_event::ids::OwnedUserId;
use stoa_store::Tx;
use zeroize::Zeroizing;

use crate::{
    Accounts, Error, Registration, Result,
    emails::Shown,
    login::{NewDevice, Tokens, check_device},
    passwords,
    uia::AuthData,
    users::NewRow,
};

/// What somebody asks for who registers.
#[derive(Clone, Default)]
pub struct NewAccount {
    /// The name; one is made up if there is none.
    pub username: Option<String>,
    /// The password.
    pub password: Option<String>,
    /// The device to log in with; `None`: no login.
    pub device: Option<NewDevice>,
    /// The access token of the guest who registers.
    pub guest_token: Option<String>,
}

/// A new account.
#[derive(Clone, PartialEq, Eq)]
pub struct Registered {
    /// Its id.
    pub user: OwnedUserId,
    /// Its device and tokens, unless no login was asked for.
    pub session: Option<(String, Tokens)>,
}

impl Accounts {
    /// Makes an account for somebody who passes user-interactive authentication.
    ///
    /// # Errors
    /// [`Error::Forbidden`] where registration is closed, [`Error::Challenge`], [`Error::UserInUse`],
    /// [`Error::InvalidUsername`], [`Error::Exclusive`], [`Error::WeakPassword`], [`Error::MissingParam`]
    pub async fn register(&self, new: &NewAccount, auth: Option<&AuthData>) -> Result<Registered> {
        if self.config().registration == Registration::Closed {
            return Err(Error::Forbidden("registration is closed on this server"));
        }
        let guest = match &new.guest_token {
            Some(token) => Some(self.guest_of(token, new.username.as_deref()).await?),
            None => None,
        };
        if let (Some(name), None) = (&new.username, &guest) {
            self.free_name(name).await?;
        }
        new.password.as_deref().map_or(Ok(()), |password| passwords::check_new(self.config(), password))?;
        new.device.as_ref().map_or(Ok(()), check_device)?;
        let proof = self.admit(auth).await?;
        let email = proof.email();
        let made = match &guest {
            Some(guest) => self.upgrade_guest(guest, new, email.as_ref()).await,
            None => self.make_account(new, email.as_ref()).await,
        };
        self.settle(proof, made)
    }

    /// Whether somebody could register with that name.
    ///
    /// # Errors
    /// [`Error::UserInUse`], [`Error::InvalidUsername`], [`Error::Exclusive`]
    pub async fn username_available(&self, name: &str) -> Result<()> {
        self.free_name(name).await.map(drop)
    }

    pub(crate) async fn free_name(&self, name: &str) -> Result<OwnedUserId> {
        let id = self.new_user_id(name)?;
        if self.is_reserved(id.localpart()) || self.services().keeps_user(id.as_str(), None) {
            return Err(Error::Exclusive);
        }
        match self.account(&id).await? {
            Some(_) => Err(Error::UserInUse),
            None => Ok(id),
        }
    }

    async fn make_account(&self, new: &NewAccount, email: Option<&Shown>) -> Result<Registered> {
        let id = match &new.username {
            Some(name) => self.free_name(name).await?,
            None => self.free_name(&self.env().token(12)).await?,
        };
        let password = new.password.clone().ok_or(Error::MissingParam("password"))?;
        let phc = self.inner.passwords.hash(self.env(), Zeroizing::new(password)).await?;
        let _guard = self.lock_name(&id).await;
        let snapshot = self.store().snapshot().await?;
        let mut tx = Tx::new();
        let row = NewRow { phc: Some(&phc), agreed: self.config().agreed(), ..NewRow::default() };
        let no = self.add_user(&snapshot, &mut tx, &id, row).await?;
        if let Some(email) = email {
            self.give_email(&mut tx, no, email);
        }
        let session = match &new.device {
            Some(device) => {
                let issued = self.issue(&snapshot, &mut tx, no, device).await?;
                Some((issued.device, issued.tokens))
            }
            None => None,
        };
        match (self.commit_new(tx).await, email) {
            (Err(Error::UserInUse), Some(email)) if self.user_of_email(&email.session.address).await?.is_some() => {
                return Err(Error::ThreepidInUse);
            }
            (done, _) => done?,
        }
        Ok(Registered { user: id, session })
    }
}
