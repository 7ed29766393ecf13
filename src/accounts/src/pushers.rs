//! Pushers: where a user wants to be told of events (Client-Server API, "Push Notifications"). Who tells them reads the
//! rows.

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

impl Accounts {
    /// The pushers of a user: JSON objects.
    ///
    /// # Errors
    /// Where the store fails.
    pub async fn pushers(&self, user: UserNo) -> Result<Vec<Vec<u8>>> {
        let snapshot = self.store().snapshot().await?;
        let rows = snapshot.scan(&schema::PUSHERS, &user, Direction::Forward, usize::MAX).await?;
        Ok(rows.into_iter().map(|(_, pusher)| pusher.json).collect())
    }

    /// Sets a pusher. Without `append`, other users' pushers of the same app and key go: a telephone has one owner.
    ///
    /// # Errors
    /// [`Error::InvalidParam`], [`Error::TooLarge`]
    pub async fn set_pusher(&self, who: &Who, app: &str, key: &str, json: &[u8], append: bool) -> Result<()> {
        if app.is_empty() || app.len() > MAX_APP_ID {
            return Err(Error::InvalidParam(format!("app_id has 1 to {MAX_APP_ID} bytes")));
        }
        if key.is_empty() || key.len() > MAX_PUSHKEY {
            return Err(Error::InvalidParam(format!("pushkey has 1 to {MAX_PUSHKEY} bytes")));
        }
        let _guard = self.lock(who.user_no).await;
        let snapshot = self.store().snapshot().await?;
        let known = snapshot.scan(&schema::PUSHERS, &who.user_no, Direction::Forward, MAX_PUSHERS).await?;
        let is_new = !known.iter().any(|((_, a, k), _)| a == app && k == key);
        if is_new && known.len() >= MAX_PUSHERS {
            return Err(Error::TooLarge("too many pushers"));
        }
        let mut tx = Tx::new();
        if !append {
            let same = (app.to_owned(), key.to_owned());
            for ((_, _, other), ()) in
                snapshot.scan(&schema::PUSHER_OWNERS, &same, Direction::Forward, usize::MAX).await?
            {
                pushers::delete(&mut tx, other, app, key);
            }
        }
        let row = Pusher { json: json.to_vec(), device: who.device.clone(), created: self.env().now_ms() };
        pushers::put(&mut tx, who.user_no, app, key, &row);
        self.store().commit(tx).await?;
        Ok(())
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
