//! What application services do with accounts (Application Service API, "Identity assertion", "Server admin style permissions",
//! "Device management"): act as their users, make them, log them in, make their devices.

use std::sync::Arc;

use stoa_event::ids::UserId;
use stoa_store::{Tx, rows::devices, schema};
use tokio::sync::watch;

use crate::{
    Accounts, Error, LoggedIn, NewDevice, Registered, Result, Service, Services, Who,
    devices::{check_id, check_name},
    login::check_device,
    users::{NewRow, new_device},
};

impl Accounts {
    /// The application services as they are now.
    pub fn services(&self) -> Arc<Services> {
        self.inner.services.borrow().clone()
    }

    /// Hears when there are others.
    pub fn services_changed(&self) -> watch::Receiver<Arc<Services>> {
        self.inner.services.subscribe()
    }

    /// Puts these application services in the place of those before, and makes the users that they send as.
    ///
    /// # Errors
    /// Where the store fails; then those before stay.
    pub async fn set_services(&self, services: Services) -> Result<()> {
        for service in services.all() {
            let made = self.make_service_user(&service.sender, None).await;
            match made {
                Ok(_) | Err(Error::UserInUse) => {}
                Err(why) => return Err(why),
            }
        }
        self.inner.services.send_replace(Arc::new(services));
        Ok(())
    }

    /// Whom a service is that asks: the user that it names, or its own.
    ///
    /// # Errors
    /// [`Error::Forbidden`] for users that are not its own or not there, [`Error::UserDeactivated`],
    /// [`Error::UnknownDevice`]
    pub async fn act_as(&self, service: &Arc<Service>, user: Option<&str>, device: Option<&str>) -> Result<Who> {
        let user = match user {
            None => service.sender.clone(),
            Some(user) if service.is_mine(user) => {
                UserId::parse(user).map_err(|_| Error::Forbidden("user_id is no user of this server"))?
            }
            Some(_) => return Err(Error::Forbidden("the application service cannot act as that user")),
        };
        let account = self.account(&user).await?;
        let account = account.ok_or(Error::Forbidden("the application service has not registered that user"))?;
        if account.row.deactivated.is_some() {
            return Err(Error::UserDeactivated);
        }
        if let Some(device) = device {
            let snapshot = self.store().snapshot().await?;
            if !snapshot.has(&schema::DEVICES, &(account.no, device.to_owned())).await? {
                return Err(Error::UnknownDevice);
            }
        }
        Ok(Who {
            user,
            user_no: account.no,
            device: device.unwrap_or_default().to_owned(),
            admin: account.row.admin,
            guest: false,
            locked: account.row.locked,
            suspended: account.row.suspended,
            service: Some(service.clone()),
        })
    }

    /// Makes an account for a user of a service, who has no password.
    ///
    /// # Errors
    /// [`Error::Exclusive`] outside of its namespace, [`Error::UserInUse`], [`Error::InvalidUsername`],
    /// [`Error::InvalidParam`]
    pub async fn register_for(&self, service: &Service, name: &str, device: Option<&NewDevice>) -> Result<Registered> {
        let id = self.new_user_id(name)?;
        if !service.is_mine(id.as_str()) || self.services().keeps_user(id.as_str(), Some(service)) {
            return Err(Error::Exclusive);
        }
        device.map_or(Ok(()), check_device)?;
        self.make_service_user(&id, device).await
    }

    async fn make_service_user(&self, id: &UserId, device: Option<&NewDevice>) -> Result<Registered> {
        let _guard = self.lock_name(id).await;
        let snapshot = self.store().snapshot().await?;
        let mut tx = Tx::new();
        let no = self.add_user(&snapshot, &mut tx, id, NewRow::default()).await?;
        let session = match device {
            Some(device) => {
                let issued = self.issue(&snapshot, &mut tx, no, device).await?;
                Some((issued.device, issued.tokens))
            }
            None => None,
        };
        self.commit_new(tx).await?;
        Ok(Registered { user: id.to_owned(), session })
    }

    /// Logs in a user of a service.
    ///
    /// # Errors
    /// [`Error::Exclusive`] outside of its namespace, [`Error::BadCredentials`] where there is no such user,
    /// [`Error::UserDeactivated`], [`Error::UserLocked`], [`Error::InvalidParam`]
    pub async fn login_for(&self, service: &Service, user: &str, device: &NewDevice) -> Result<LoggedIn> {
        check_device(device)?;
        let id = self.existing_id(user).ok_or(Error::BadCredentials)?;
        if !service.is_mine(id.as_str()) {
            return Err(Error::Exclusive);
        }
        self.login_trusted(&id, device).await
    }

    /// Makes a device of the user as whom a service asks, or gives it another name. Whether it is new is the answer.
    ///
    /// # Errors
    /// [`Error::InvalidParam`], [`Error::Forbidden`] for the name of a cross-signing key
    pub async fn put_device(&self, who: &Who, id: &str, name: Option<&str>) -> Result<bool> {
        check_id(id)?;
        name.map_or(Ok(()), check_name)?;
        {
            let _guard = self.lock(who.user_no).await;
            let snapshot = self.store().snapshot().await?;
            if !snapshot.has(&schema::DEVICES, &(who.user_no, id.to_owned())).await? {
                if self.is_cross_signing_key(&snapshot, who.user_no, id).await? {
                    return Err(Error::Forbidden("a device may not be named like a cross-signing key"));
                }
                let mut tx = Tx::new();
                devices::put(&mut tx, who.user_no, id, &new_device(name, self.env().now_ms()));
                self.store().commit(tx).await?;
                return Ok(true);
            }
        }
        self.rename_device(who.user_no, id, name).await?;
        Ok(false)
    }

    /// Whether who asks may make an alias, or delete it.
    ///
    /// # Errors
    /// [`Error::Exclusive`] for a service outside of its namespace, and for everybody in that of another
    pub fn may_have_alias(&self, who: &Who, alias: &str) -> Result<()> {
        let service = who.service.as_deref();
        let outside = service.is_some_and(|service| !service.has_alias(alias));
        match outside || self.services().keeps_alias(alias, service) {
            true => Err(Error::Exclusive),
            false => Ok(()),
        }
    }
}
