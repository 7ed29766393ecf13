//! Locking and suspending accounts, and who is behind one (Client-Server API, "Account moderation", "Server administration").

use stoa_event::ids::UserId;

use crate::{Account, Accounts, DeviceInfo, Error, Result, User, Who};

/// What an administrator can do to an account, and take back.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Measure {
    /// Nothing can be done with it, but its sessions stay.
    Lock,
    /// Its owner can read and leave, and not speak.
    Suspend,
}

impl Measure {
    fn of(self, row: &User) -> bool {
        match self {
            Measure::Lock => row.locked,
            Measure::Suspend => row.suspended,
        }
    }
}

impl Accounts {
    /// Whether a measure is in force for an account of this server.
    ///
    /// # Errors
    /// [`Error::Forbidden`] for who is no administrator, and about other administrators; [`Error::InvalidParam`] for users of
    /// other servers; [`Error::NotFound`]. The first comes before anything is looked up.
    pub async fn measure(&self, by: &Who, user: &UserId, measure: Measure) -> Result<bool> {
        Ok(measure.of(&self.subject(by, user).await?.row))
    }

    /// Puts a measure in force, or ends it.
    ///
    /// # Errors
    /// As [`Accounts::measure`].
    pub async fn set_measure(&self, by: &Who, user: &UserId, measure: Measure, on: bool) -> Result<()> {
        let no = self.subject(by, user).await?.no;
        let _guard = self.lock(no).await;
        let mut row = self.subject(by, user).await?.row;
        match measure {
            Measure::Lock => row.locked = on,
            Measure::Suspend => row.suspended = on,
        }
        self.write_row(no, &row).await
    }

    /// An account that an administrator may do something to.
    async fn subject(&self, by: &Who, user: &UserId) -> Result<Account> {
        if !by.admin {
            return Err(Error::Forbidden("only administrators of this server may do that"));
        }
        if user.server_name() != self.server_name() {
            return Err(Error::InvalidParam("the user does not belong to this server".to_owned()));
        }
        let account = self.account(user).await?.filter(|account| account.row.deactivated.is_none());
        let account = account.ok_or(Error::NotFound("there is no such user"))?;
        if account.row.admin {
            return Err(Error::Forbidden("administrators cannot do that to administrators"));
        }
        Ok(account)
    }

    /// The devices of an account, for its owner and for administrators.
    ///
    /// # Errors
    /// [`Error::Forbidden`] for others, [`Error::NotFound`]
    pub async fn whois(&self, by: &Who, user: &UserId) -> Result<Vec<DeviceInfo>> {
        if by.user != *user && !by.admin {
            return Err(Error::Forbidden("only administrators of this server may look up others"));
        }
        let account = self.account(user).await?.ok_or(Error::NotFound("there is no such user"))?;
        self.devices(account.no).await
    }
}
