//! Guests: people without a password (Client-Server API, "Guest Access").

use stoa_event::ids::{OwnedUserId, UserId};
use stoa_store::{Tx, rows::users};
use zeroize::Zeroizing;

use crate::{
    Accounts, Error, NewDevice, Registered, Result, emails::Shown, login::check_device, register::NewAccount,
    users::NewRow,
};

impl Accounts {
    /// Lets a guest in.
    ///
    /// # Errors
    /// [`Error::Forbidden`] where there are none, [`Error::InvalidParam`]
    pub async fn register_guest(&self, device: &NewDevice) -> Result<Registered> {
        if !self.config().guests {
            return Err(Error::Forbidden("there are no guests on this server"));
        }
        // The name of the device is the guest's to choose, its id is not.
        let device = NewDevice { id: None, refresh: false, ..device.clone() };
        check_device(&device)?;
        let user = self.free_name(&format!("guest-{}", self.env().token(12))).await?;
        let _guard = self.lock_name(&user).await;
        let snapshot = self.store().snapshot().await?;
        let mut tx = Tx::new();
        let no = self.add_user(&snapshot, &mut tx, &user, NewRow { guest: true, ..NewRow::default() }).await?;
        let issued = self.issue(&snapshot, &mut tx, no, &device).await?;
        self.commit_new(tx).await?;
        Ok(Registered { user, session: Some((issued.device, issued.tokens)) })
    }

    /// All guests.
    ///
    /// # Errors
    /// Where the store fails.
    pub async fn guests(&self) -> Result<Vec<OwnedUserId>> {
        let all = self.list_users().await?;
        Ok(all.into_iter().filter(|account| account.row.guest).map(|account| account.id).collect())
    }

    /// The guest whose access token that is, who registers now under the name that the guest has.
    pub(crate) async fn guest_of(&self, token: &str, name: Option<&str>) -> Result<OwnedUserId> {
        let who = self.whoami(token).await.map_err(|_| Error::Forbidden("guest_access_token is no guest's"))?;
        if !who.guest || name != Some(who.user.localpart()) {
            return Err(Error::Forbidden("guest_access_token is not that of the guest of this name"));
        }
        Ok(who.user)
    }

    /// Makes a guest a user.
    pub(crate) async fn upgrade_guest(
        &self,
        user: &UserId,
        new: &NewAccount,
        email: Option<&Shown>,
    ) -> Result<Registered> {
        let password = new.password.clone().ok_or(Error::MissingParam("password"))?;
        let phc = self.inner.passwords.hash(self.env(), Zeroizing::new(password)).await?;
        let no = self.active(user).await?.no;
        let _guard = self.lock(no).await;
        let account = self.active(user).await?;
        if !account.row.guest {
            return Err(Error::UserInUse);
        }
        let snapshot = self.store().snapshot().await?;
        let mut tx = Tx::new();
        users::put_password(&mut tx, no, &phc);
        let row = crate::User { guest: false, agreed: self.config().agreed(), ..account.row };
        users::put(&mut tx, no, &row);
        if let Some(email) = email {
            self.give_email(&mut tx, no, email);
        }
        let session = match &new.device {
            Some(device) => Some(self.issue(&snapshot, &mut tx, no, device).await?),
            None => None,
        };
        self.store().commit(tx).await?;
        self.forget_sessions(no).await?;
        let session = session.map(|issued| {
            self.inner.sessions.forget(&issued.gone);
            (issued.device, issued.tokens)
        });
        Ok(Registered { user: user.to_owned(), session })
    }
}
