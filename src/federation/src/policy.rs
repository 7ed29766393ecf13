//! What is sent into rooms that ask a policy server (Server-Server API, "Policy Servers"): events of our users are sent when
//! it signed them, those of other servers are asked about if they come without its signature. No lock of a room is held
//! meanwhile.

use std::{collections::BTreeMap, sync::Arc, time::Duration};

use bytes::Bytes;
use futures_util::future::join_all;
use http::{Request, header};
use stoa_event::{
    ids::{OwnedEventId, OwnedUserId, RoomId},
    pdu::Pdu,
    sign::POLICY_KEY_ID,
    version::Rules,
};
use stoa_remote::Options;
use stoa_rooms::{Arrival, Change, NewEvent, Policy, Profile, Unsigned};

use crate::{Error, Federation, Inner};

/// How long a policy server may think: some look into pictures.
const THINKS: Duration = Duration::from_secs(30);
/// How large its answer may be.
const MAX_ANSWER: usize = 1 << 16;
/// How many policy servers one event is shown to when the room changes its mind meanwhile.
const MINDS: usize = 3;

/// Signatures by server and key id.
type Signatures = BTreeMap<String, BTreeMap<String, String>>;

impl Federation {
    /// Sends an event of a user of ours, as [`stoa_rooms::Rooms::send`].
    ///
    /// # Errors
    /// As there, and what the room's policy server says against it.
    pub async fn send(&self, room: &RoomId, new: NewEvent) -> Result<OwnedEventId, Error> {
        self.inner.agreed(self.inner.rooms.send(room, new).await).await
    }

    /// Redacts an event, as [`stoa_rooms::Rooms::redact`].
    ///
    /// # Errors
    /// As there, and what the room's policy server says against it.
    pub async fn redact(&self, room: &RoomId, new: NewEvent) -> Result<OwnedEventId, Error> {
        self.inner.agreed(self.inner.rooms.redact(room, new).await).await
    }

    /// Changes a membership in a room that is known here, as [`stoa_rooms::Rooms::change`].
    ///
    /// # Errors
    /// As there, and what the room's policy server says against it.
    pub async fn change(&self, room: &RoomId, change: Change) -> Result<(), Error> {
        match self.inner.rooms.change(room, change).await {
            Err(stoa_rooms::Error::Unsigned(unsigned)) => self.inner.agree(unsigned).await.map(drop),
            other => Ok(other?),
        }
    }

    /// Shows a user's new name and picture in every room, as [`stoa_rooms::Rooms::show_profile`].
    ///
    /// # Errors
    /// Where the store fails.
    pub async fn show_profile(&self, user: &OwnedUserId, profile: &Profile) -> Result<(), Error> {
        let unsigned = self.inner.rooms.show_profile(user, profile).await?;
        let mut work = Vec::with_capacity(unsigned.len());
        for unsigned in unsigned {
            work.push(self.inner.agree(unsigned));
        }
        for why in join_all(work).await.into_iter().filter_map(Result::err) {
            tracing::debug!(%why, "a room keeps the old profile");
        }
        Ok(())
    }
}

impl Inner {
    pub(crate) async fn agreed(&self, sent: Result<OwnedEventId, stoa_rooms::Error>) -> Result<OwnedEventId, Error> {
        match sent {
            Err(stoa_rooms::Error::Unsigned(unsigned)) => self.agree(unsigned).await,
            other => Ok(other?),
        }
    }

    /// Has an event of ours signed, and sends it.
    async fn agree(&self, mut unsigned: Box<Unsigned>) -> Result<OwnedEventId, Error> {
        for _ in 0..MINDS {
            // A user waits for it: it is asked even if it failed before.
            let signature = self.ask_policy(&unsigned.policy, &unsigned.pdu, true).await?;
            match self.rooms.signed(*unsigned, &signature).await {
                Err(stoa_rooms::Error::Unsigned(again)) => unsigned = again,
                other => return Ok(other?),
            }
        }
        Err(Error::Forbidden("the room changes its policy server too fast".into()))
    }

    /// An event of ours that is given to another server before it is sent, signed by the room's policy server if it has one.
    pub(crate) async fn recommended(&self, room: &RoomId, rules: &Rules, pdu: Arc<Pdu>) -> Result<Arc<Pdu>, Error> {
        let Some(policy) = self.rooms.policy(room).await? else { return Ok(pdu) };
        let signature = self.ask_policy(&policy, &pdu, true).await?;
        Ok(policy.add(&pdu, rules, &signature)?)
    }

    /// Asks about an event that came without its signature. What is not signed is judged all the same.
    pub(crate) async fn asked(&self, rules: &Rules, arrival: Arrival, policy: &Policy) -> Arrival {
        let Arrival::Live(pdu, states) = arrival else { return arrival };
        let signature = self.ask_policy(policy, &pdu, false).await;
        let signed = signature.and_then(|signature| Ok(policy.add(&pdu, rules, &signature)?));
        match signed {
            Ok(pdu) => Arrival::Live(pdu, states),
            Err(why) => Arrival::Unsigned(pdu, states, format!("the room's policy server does not sign it: {why}")),
        }
    }

    /// The signature of a policy server (`POST /_matrix/policy/v1/sign`).
    async fn ask_policy(&self, policy: &Policy, pdu: &Pdu, ignore_backoff: bool) -> Result<String, Error> {
        let request = Request::post("/_matrix/policy/v1/sign")
            .header(header::CONTENT_TYPE, "application/json")
            .body(Bytes::clone(pdu.json()))
            .map_err(|why| stoa_remote::Error::Request(why.to_string()))?;
        let options = Options { timeout: Some(THINKS), max_response: Some(MAX_ANSWER), ignore_backoff };
        let answer = self.remote.call_raw(&policy.server, request, options).await?;
        let signatures: Result<Signatures, _> = serde_json::from_slice(answer.body());
        let signature = signatures.ok().and_then(|mut all| all.remove(policy.server.as_str())?.remove(POLICY_KEY_ID));
        // Before Matrix 1.18 an empty answer was a refusal.
        let refused = || Error::Forbidden(format!("the policy server {} did not sign the event", policy.server));
        signature.ok_or_else(refused)
    }
}
