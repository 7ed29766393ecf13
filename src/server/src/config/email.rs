//! The section `[email]`: how letters are sent, if they are.

use std::path::PathBuf;

use serde::Deserialize;
use stoa_accounts::Mail;
use stoa_notify::mail::{MailConfig, Security};

use super::{Config, Error, Secret};

/// Letters.
#[derive(Clone, Debug, Default, PartialEq, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct EmailConfig {
    /// The host of the mail server; without one no letters are sent.
    pub host: String,
    /// Its port; without one the usual one of `security`.
    pub port: Option<u16>,
    /// How it is spoken with.
    pub security: EmailSecurity,
    /// The user that it wants.
    pub user: Option<String>,
    /// The password of that user.
    pub password: Option<Secret>,
    /// The file in which the password stands.
    pub password_file: Option<PathBuf>,
    /// From whom letters are.
    pub from: String,
    /// Whether who registers must have an address.
    pub required: bool,
}

/// How a mail server is spoken with.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum EmailSecurity {
    /// TLS from the first byte (port 465).
    #[default]
    Tls,
    /// TLS after `STARTTLS` (port 587).
    StartTls,
    /// In the open (port 25): to a mail server on the same machine.
    None,
}

impl EmailConfig {
    pub(super) fn check(&self) -> Result<(), Error> {
        let bad = |option, why: &str| Err(Error::Value { option, why: why.to_owned() });
        if self.host.is_empty() {
            return match *self == EmailConfig::default() {
                true => Ok(()),
                false => bad("email.host", "there is no mail server"),
            };
        }
        if self.from.is_empty() {
            return bad("email.from", "letters are from somebody: \"Stoa <stoa@example.org>\"");
        }
        if self.user.is_some() != (self.password.is_some() || self.password_file.is_some()) {
            return bad("email.user", "user and password (or password_file) need each other");
        }
        Ok(())
    }
}

impl Config {
    /// What this means for those who send letters.
    ///
    /// # Errors
    /// Where the file with the password cannot be read.
    pub fn mail(&self) -> Result<Option<MailConfig>, Error> {
        let email = &self.email;
        if email.host.is_empty() {
            return Ok(None);
        }
        let (security, port) = match email.security {
            EmailSecurity::Tls => (Security::Tls, 465),
            EmailSecurity::StartTls => (Security::StartTls, 587),
            EmailSecurity::None => (Security::None, 25),
        };
        let password = super::secret(email.password.as_ref(), email.password_file.as_deref())?;
        Ok(Some(MailConfig {
            host: email.host.clone(),
            port: email.port.unwrap_or(port),
            security,
            login: email.user.clone().zip(password),
            from: email.from.clone(),
            server: self.server_name.clone(),
        }))
    }

    /// What this means for accounts.
    pub(super) fn letters(&self) -> Option<Mail> {
        let base_url = self.base_url.clone().unwrap_or_else(|| format!("https://{}", self.server_name));
        (!self.email.host.is_empty()).then_some(Mail { base_url, required: self.email.required })
    }
}
