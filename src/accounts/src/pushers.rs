//! Pushers: where a user wants to be told of events (Client-Server API, "Push Notifications"). Who tells them reads the
//! rows.

use serde_json::Value;
use stoa_store::{
    Direction, Snapshot, Tx, UserNo,
    rows::pushers::{self, Pusher},
    schema,
};

use crate::{Accounts, Error, Result, Who};

/// How many pushers a user has at most.
const MAX_PUSHERS: usize = 100;
/// The greatest length of an app id (Client-Server API, `POST /pushers/set`).
const MAX_APP_ID: usize = 64;
/// The greatest length of a push key.
const MAX_PUSHKEY: usize = 512;
/// The greatest length of all that is said of a pusher.
const MAX_JSON: usize = 8 << 10;

/// A pusher that somebody sets.
#[derive(Clone, Debug, Default)]
pub struct NewPusher {
    /// The app id.
    pub app: String,
    /// The push key.
    pub key: String,
    /// The pusher as it is listed: a JSON object.
    pub json: Vec<u8>,
    /// Whether other users' pushers of the same app and key stay.
    pub append: bool,
    /// Whether it is switched off for now (MSC3881).
    pub disabled: bool,
    /// Whether it is told nothing before its owner shows that it arrives there (MSC4174).
    pub to_be_shown: bool,
}

impl Accounts {
    /// The pushers of a user.
    ///
    /// # Errors
    /// Where the store fails.
    pub async fn pushers(&self, user: UserNo) -> Result<Vec<Pusher>> {
        let snapshot = self.store().snapshot().await?;
        let rows = snapshot.scan(&schema::PUSHERS, &user, Direction::Forward, usize::MAX).await?;
        Ok(rows.into_iter().map(|(_, pusher)| pusher).collect())
    }

    /// Sets a pusher. Without `append`, other users' pushers of the same app and key go: a telephone has one owner. Answers
    /// whether its owner has to show first that it arrives there.
    ///
    /// # Errors
    /// [`Error::InvalidParam`], [`Error::TooLarge`]
    pub async fn set_pusher(&self, who: &Who, new: &NewPusher) -> Result<bool> {
        let (app, key) = (&new.app, &new.key);
        if app.is_empty() || app.len() > MAX_APP_ID {
            return Err(Error::InvalidParam(format!("app_id has 1 to {MAX_APP_ID} bytes")));
        }
        if key.is_empty() || key.len() > MAX_PUSHKEY {
            return Err(Error::InvalidParam(format!("pushkey has 1 to {MAX_PUSHKEY} bytes")));
        }
        if new.json.len() > MAX_JSON {
            return Err(Error::TooLarge("a pusher has at most 8 KiB"));
        }
        let _guard = self.lock(who.user_no).await;
        let snapshot = self.store().snapshot().await?;
        let known = snapshot.scan(&schema::PUSHERS, &who.user_no, Direction::Forward, MAX_PUSHERS).await?;
        let old = known.iter().find(|((_, a, k), _)| a == app && k == key).map(|(_, old)| old);
        if old.is_none() && known.len() >= MAX_PUSHERS {
            return Err(Error::TooLarge("too many pushers"));
        }
        let mut tx = Tx::new();
        if !new.append {
            let same = (app.clone(), key.clone());
            for ((_, _, other), ()) in
                snapshot.scan(&schema::PUSHER_OWNERS, &same, Direction::Forward, usize::MAX).await?
            {
                if other != who.user_no {
                    pushers::delete(&mut tx, other, app, key);
                }
            }
        }
        let shown = old.is_some_and(|old| !old.dormant && leads_to(&old.json) == leads_to(&new.json));
        let row = Pusher {
            json: new.json.clone(),
            device: who.device.clone(),
            created: self.env().now_ms(),
            disabled: new.disabled,
            dormant: new.to_be_shown && !shown,
        };
        pushers::put(&mut tx, who.user_no, app, key, &row);
        self.store().commit(tx).await?;
        Ok(row.dormant)
    }

    /// Removes a pusher, if it is there.
    ///
    /// # Errors
    /// Where the store fails.
    pub async fn delete_pusher(&self, user: UserNo, app: &str, key: &str) -> Result<()> {
        let mut tx = Tx::new();
        pushers::delete(&mut tx, user, app, key);
        self.store().commit(tx).await?;
        Ok(())
    }

    /// Removes the pushers that a device set.
    pub(crate) async fn remove_pushers_of(
        &self,
        snapshot: &Snapshot,
        tx: &mut Tx,
        user: UserNo,
        device: &str,
    ) -> Result<()> {
        for ((_, app, key), pusher) in snapshot.scan(&schema::PUSHERS, &user, Direction::Forward, usize::MAX).await? {
            if pusher.device == device {
                pushers::delete(tx, user, &app, &key);
            }
        }
        Ok(())
    }

    /// Removes all pushers of a user.
    pub(crate) async fn remove_all_pushers(&self, snapshot: &Snapshot, tx: &mut Tx, user: UserNo) -> Result<()> {
        for ((_, app, key), _) in snapshot.scan(&schema::PUSHERS, &user, Direction::Forward, usize::MAX).await? {
            pushers::delete(tx, user, &app, &key);
        }
        Ok(())
    }
}

/// Where a pusher leads to, beside its push key: the URL and the secret of Web Push.
fn leads_to(json: &[u8]) -> Option<(Value, Value)> {
    let pusher: Value = serde_json::from_slice(json).ok()?;
    Some((pusher["data"]["url"].clone(), pusher["data"]["auth"].clone()))
}
