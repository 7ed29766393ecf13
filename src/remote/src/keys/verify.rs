//! Whether a request that came to us is from the server that it says (Server-Server API, "Request Authentication").

use std::time::Duration;

use stoa_event::{hash::base64_decode, ids::ServerName};

use super::{KeyRing, document::is_key_id};
use crate::{
    error::{Error, Unauthorized},
    xmatrix,
};

impl KeyRing {
    /// Checks the signature of a request that came to us. `uri` is the path with the query as they came; `destination`,
    /// where it was given, must be us.
    ///
    /// # Errors
    /// [`Error::Unauthorized`] where it is not to be believed, [`Error::NotAllowed`] where the settings do not want that
    /// server.
    #[expect(clippy::too_many_arguments, reason = "the parts of a request, as they stand in it")]
    pub async fn verify_request(
        &self,
        method: &str,
        uri: &str,
        origin: &ServerName,
        destination: Option<&ServerName>,
        key_id: &str,
        signature: &str,
        body: Option<&[u8]>,
    ) -> Result<(), Error> {
        let us = &self.ring.caller.server;
        if destination.is_some_and(|destination| destination != us) {
            return Err(Error::Unauthorized(Unauthorized::Destination));
        }
        if origin == us {
            return Err(Error::Unauthorized(Unauthorized::FromOurselves));
        }
        if !self.ring.caller.lists.allows(origin) {
            return Err(Error::NotAllowed(origin.to_owned()));
        }
        // What costs nothing first: a stranger can send anything.
        let message = xmatrix::signed_bytes(method, uri, origin, us, body)
            .map_err(|_| Error::Unauthorized(Unauthorized::Body))?;
        let signature = base64_decode(signature).and_then(|bytes| <[u8; 64]>::try_from(bytes).ok());
        let signature = signature.ok_or(Error::Unauthorized(Unauthorized::Signature))?;
        let key = self.key_in_use(origin, key_id).await?;
        if !key.verify(&message, &signature) {
            return Err(Error::Unauthorized(Unauthorized::Signature));
        }
        Ok(())
    }

    /// A key that its server signs with now.
    async fn key_in_use(&self, server: &ServerName, key_id: &str) -> Result<stoa_event::sign::VerifyKey, Error> {
        let unknown = || Error::Unauthorized(Unauthorized::UnknownKey);
        if !is_key_id(key_id) {
            return Err(unknown());
        }
        let ring = &self.ring;
        let now = ring.caller.env.now_ms();
        ring.know(server, key_id, now).await;
        if ring.lacks(server, key_id, Some(now)) {
            let patience = Duration::from_millis(ring.caller.tuning.key_timeout_ms);
            let turn = tokio::time::timeout(patience, ring.strangers.acquire()).await;
            let _turn = turn.map_err(|_| Error::Busy)?.map_err(|_| Error::Busy)?;
            // It speaks, so it is there, even if it failed before.
            let ids = [(key_id.to_owned(), Some(now))].into();
            if ring.refresh(server, &ids, true).await && ring.lacks(server, key_id, Some(now)) {
                ring.ask_notaries_for(server, &ids).await;
            }
        }
        let key = ring.held(server, key_id).ok_or_else(unknown)?;
        if key.old || key.known.valid_until_ts < now {
            return Err(Error::Unauthorized(Unauthorized::ExpiredKey));
        }
        Ok(key.known.key)
    }
}
