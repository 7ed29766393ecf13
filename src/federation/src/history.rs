//! History that other servers hold (Server-Server API, "Backfilling and retrieving missing events"): fetched when somebody
//! pages back to where ours begins.

use std::{sync::Arc, time::Duration};

use serde::Deserialize;
use serde_json::value::RawValue;
use stoa_event::{
    ids::{OwnedEventId, OwnedServerName, RoomId, ServerName},
    pdu::Pdu,
    version::Rules,
};
use stoa_rooms::{Arrival, Outcome};

use crate::{
    Error, Federation, Inner,
    ask::Path,
    fetch::{by_prevs, bytes_of},
};

/// How many events are asked for at once.
const PAGE: &str = "100";
/// How many servers are asked before history stays as it is.
const SERVERS: usize = 4;
/// How long one of them may take: somebody waits.
const PATIENCE: Duration = Duration::from_secs(15);

#[derive(Deserialize)]
struct Pdus {
    #[serde(default)]
    pdus: Vec<Box<RawValue>>,
}

#[derive(Deserialize)]
struct Found {
    event_id: OwnedEventId,
    origin_server_ts: u64,
}

impl Federation {
    /// Fetches history before the gaps of a room that are not later than a depth. Says whether there is more now.
    ///
    /// # Errors
    /// Where the store fails. That no server answers is no error: then history stays as it is.
    pub async fn backfill(&self, room: &RoomId, depth: u64) -> Result<bool, Error> {
        let inner = &*self.inner;
        let rules = inner.rooms.rules_of(room).await?;
        // Who comes second finds what the first one fetched.
        let turn = inner.intake.turn(self.server(), &room.to_owned());
        let _turn = turn.lock().await;
        let missing = inner.rooms.missing(room, depth).await?;
        tracing::debug!(%room, depth, ?missing, "history is paged back to where something is missing");
        if missing.is_empty() {
            return Ok(false);
        }
        for server in inner.others(room).await? {
            if inner.fetch_before(&server, room, &rules, &missing).await? {
                return Ok(true);
            }
        }
        Ok(false)
    }

    /// Asks other servers for an event that is closer to a moment than the one that is held here (of the time `held`), and
    /// fetches it with some history before it. Says whether there is more now.
    ///
    /// # Errors
    /// Where the store fails. That no server answers is no error.
    pub async fn history_near(&self, room: &RoomId, ts: u64, backward: bool, held: Option<u64>) -> Result<bool, Error> {
        let inner = &*self.inner;
        let rules = inner.rooms.rules_of(room).await?;
        let turn = inner.intake.turn(self.server(), &room.to_owned());
        let _turn = turn.lock().await;
        for server in inner.others(room).await? {
            let path = Path::new("v1/timestamp_to_event").part(room.as_str());
            let path = path.ask("ts", &ts.to_string()).ask("dir", if backward { "b" } else { "f" });
            let found: Found = match inner.get(&server, path, PATIENCE).await {
                Ok(found) => found,
                Err(why) => {
                    tracing::debug!(%room, %server, %why, "no event of that time can be had from there");
                    continue;
                }
            };
            let there = if backward { found.origin_server_ts <= ts } else { found.origin_server_ts >= ts };
            let closer = held.is_none_or(|held| found.origin_server_ts.abs_diff(ts) < held.abs_diff(ts));
            if there && closer && inner.fetch_before(&server, room, &rules, &[found.event_id]).await? {
                return Ok(true);
            }
        }
        Ok(false)
    }
}

impl Inner {
    /// Fetches events and what is before them. Says whether any of it is new.
    async fn fetch_before(
        &self,
        server: &ServerName,
        room: &RoomId,
        rules: &Arc<Rules>,
        events: &[OwnedEventId],
    ) -> Result<bool, Error> {
        let mut path = Path::new("v1/backfill").part(room.as_str()).ask("limit", PAGE);
        for id in events {
            path = path.ask("v", id.as_str());
        }
        let answer: Pdus = match self.get(server, path, PATIENCE).await {
            Ok(answer) => answer,
            Err(why) => {
                tracing::debug!(%room, %server, %why, "history cannot be had from there");
                return Ok(false);
            }
        };
        let raw = answer.pdus.iter().take(200).map(bytes_of).collect();
        let events = self.verified(rules, raw).await;
        self.fill(server, room, rules, events).await
    }

    /// Gives events their places in history, the oldest first. Says whether any got one.
    async fn fill(
        &self,
        from: &ServerName,
        room: &RoomId,
        rules: &Arc<Rules>,
        mut events: Vec<Arc<Pdu>>,
    ) -> Result<bool, Error> {
        events.retain(|pdu| pdu.room_id() == room);
        events.sort_by_key(|pdu| pdu.depth());
        let mut left: Vec<Arrival> =
            by_prevs(events).into_iter().map(|pdu| Arrival::History(pdu, Vec::new())).collect();
        let mut any = false;
        while !left.is_empty() {
            // What follows only what is held is one commit; the state of the first of the others is asked for.
            let outcomes = self.rooms.ingest(room, left.clone()).await?;
            any |= outcomes.iter().any(|outcome| matches!(outcome, Outcome::Accepted));
            let waiting = left.into_iter().zip(outcomes).filter(|(_, it)| matches!(it, Outcome::Needs(_)));
            left = waiting.map(|(arrival, _)| arrival).collect();
            if left.is_empty() {
                break;
            }
            match self.settle(from, room, rules, left.remove(0)).await {
                Ok(outcome) => any |= outcome == Outcome::Accepted,
                Err(Error::Store(why)) => return Err(why.into()),
                Err(why) => tracing::debug!(%room, %from, %why, "an event of history cannot be judged"),
            }
        }
        Ok(any)
    }

    /// Other servers in a room that may be asked: those that are not known to be away, at most a few.
    pub(crate) async fn others(&self, room: &RoomId) -> Result<Vec<OwnedServerName>, Error> {
        let mut others = Vec::new();
        for server in self.rooms.servers(room).await? {
            let ours = server == self.rooms.server();
            if !ours && self.remote.is_allowed(&server) && self.remote.backing_off(&server).await?.is_none() {
                others.push(server);
                if others.len() == SERVERS {
                    break;
                }
            }
        }
        Ok(others)
    }
}
