//! Profiles (Client-Server API, "Profiles"). Showing a change in rooms is composed a floor above.

use ruma_common::MxcUri;
use serde_json::{Map, Value};
use stoa_event::ids::{OwnedMxcUri, UserId};
use stoa_store::{Direction, Snapshot, Tx, UserNo, rows::users, schema};

use crate::{Accounts, Error, Result, Who};

/// The field of the display name.
pub const DISPLAYNAME: &str = "displayname";
/// The field of the picture.
pub const AVATAR_URL: &str = "avatar_url";
/// The greatest size of a whole profile.
const MAX_PROFILE: usize = 64 * 1024;
/// The greatest length of a field's name.
const MAX_KEY: usize = 255;
/// The greatest length of a display name, in characters.
const MAX_NAME: usize = 256;
/// The greatest length of the address of a picture.
const MAX_URL: usize = 1000;

/// Name and picture, as member events show them.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct ShortProfile {
    /// The display name.
    pub displayname: Option<String>,
    /// The picture.
    pub avatar_url: Option<OwnedMxcUri>,
}

impl Accounts {
    /// A local user's whole profile.
    ///
    /// # Errors
    /// [`Error::NotFound`]
    pub async fn profile(&self, user: &UserId) -> Result<Map<String, Value>> {
        let account = self.account(user).await?.ok_or(Error::NotFound("there is no such user"))?;
        let snapshot = self.store().snapshot().await?;
        let fields = read(&snapshot, account.no).await?;
        if fields.is_empty() && account.row.deactivated.is_some() {
            return Err(Error::NotFound("there is no such user"));
        }
        Ok(fields)
    }

    /// One field of a local user's profile.
    ///
    /// # Errors
    /// [`Error::NotFound`]
    pub async fn profile_field(&self, user: &UserId, field: &str) -> Result<Value> {
        let mut fields = self.profile(user).await?;
        fields.remove(field).ok_or(Error::NotFound("the profile has no such field"))
    }

    /// Name and picture of a local user; nothing for others.
    ///
    /// # Errors
    /// Where the store fails.
    pub async fn short_profile(&self, user: &UserId) -> Result<ShortProfile> {
        let mut fields = match self.profile(user).await {
            Err(Error::NotFound(_)) => return Ok(ShortProfile::default()),
            fields => fields?,
        };
        let mut text = |field| match fields.remove(field) {
            Some(Value::String(text)) => Some(text),
            _ => None,
        };
        Ok(ShortProfile { displayname: text(DISPLAYNAME), avatar_url: text(AVATAR_URL).map(OwnedMxcUri::from) })
    }

    /// Sets a field of the profile of the user who asks; `None` removes it. Answers whether something changed that rooms
    /// show.
    ///
    /// # Errors
    /// [`Error::Forbidden`] for somebody else's, [`Error::KeyTooLarge`], [`Error::ProfileTooLarge`],
    /// [`Error::InvalidParam`], [`Error::BadJson`]
    pub async fn set_profile_field(
        &self,
        who: &Who,
        user: &UserId,
        field: &str,
        value: Option<&Value>,
    ) -> Result<bool> {
        if user != who.user {
            return Err(Error::Forbidden("this is somebody else's profile"));
        }
        check_field(field)?;
        let value = match value {
            Some(value) => check_value(field, value)?,
            None => None,
        };
        let _guard = self.lock(who.user_no).await;
        let snapshot = self.store().snapshot().await?;
        let mut fields = read(&snapshot, who.user_no).await?;
        let before = match value {
            Some(value) => fields.insert(field.to_owned(), value.clone()),
            None => fields.remove(field),
        };
        if before.as_ref() == value {
            return Ok(false);
        }
        if value.is_some() && Value::Object(fields).to_string().len() > MAX_PROFILE {
            return Err(Error::ProfileTooLarge);
        }
        let mut tx = Tx::new();
        let json = value.map(|value| value.to_string().into());
        users::put_profile_field(&mut tx, who.user_no, field, json.as_ref());
        self.store().commit(tx).await?;
        Ok(field == DISPLAYNAME || field == AVATAR_URL)
    }
}

async fn read(snapshot: &Snapshot, user: UserNo) -> Result<Map<String, Value>> {
    let mut fields = Map::new();
    for ((_, field), json) in snapshot.scan(&schema::PROFILES, &user, Direction::Forward, usize::MAX).await? {
        let value = serde_json::from_slice(&json);
        fields.insert(field, value.map_err(|_| stoa_store::Error::Corrupt("a profile field is not JSON"))?);
    }
    Ok(fields)
}

/// Appendices, "Common Namespaced Identifier Grammar".
fn check_field(field: &str) -> Result<()> {
    if field.len() > MAX_KEY {
        return Err(Error::KeyTooLarge);
    }
    let allowed = |byte: u8| byte.is_ascii_lowercase() || byte.is_ascii_digit() || b"._-".contains(&byte);
    if !field.starts_with(|first: char| first.is_ascii_lowercase()) || !field.bytes().all(allowed) {
        let why = "the name of a profile field begins with a letter and has only the characters a-z, 0-9, ., _ and -";
        return Err(Error::InvalidParam(why.to_owned()));
    }
    Ok(())
}

/// What a field becomes. An empty name or picture is none, which is how clients take it away.
fn check_value<'a>(field: &str, value: &'a Value) -> Result<Option<&'a Value>> {
    let limits = match field {
        DISPLAYNAME => MAX_NAME,
        AVATAR_URL => MAX_URL,
        "m.tz" => MAX_KEY,
        _ => return Ok(Some(value)),
    };
    let text = value.as_str().ok_or_else(|| Error::BadJson(format!("{field} is not a string")))?;
    if text.chars().count() > limits {
        return Err(Error::InvalidParam(format!("{field} has at most {limits} characters")));
    }
    match text {
        "" if field != "m.tz" => Ok(None),
        _ if field == AVATAR_URL && !<&MxcUri>::from(text).is_valid() => {
            Err(Error::InvalidParam("avatar_url is no mxc:// address".to_owned()))
        }
        _ => Ok(Some(value)),
    }
}
