//! What our users want of rooms that other servers hold: joining, knocking, leaving; and inviting users of other servers
//! (Server-Server API, "Joining Rooms", "Knocking upon a room", "Leaving Rooms", "Inviting to a room").

use std::{sync::Arc, time::Duration};

use bytes::Bytes;
use serde::Deserialize;
use serde_json::{Map, Value, json, value::RawValue};
use stoa_event::{
    ids::{OwnedRoomId, OwnedServerName, OwnedUserId, RoomAliasId, RoomId, RoomVersionId, ServerName},
    pdu::Pdu,
    version::{Rules, SUPPORTED},
};
use stoa_rooms::{Arrival, Change, Entry, Omitted, Outcome, Wanted};
use stoa_store::{Membership, rows::rooms::Outside};

use crate::{
    Error, Federation, Inner,
    ask::{PATIENT, Path, USUAL},
    fetch::{bytes_of, piece_of},
    serve::shown_of,
};

/// How many servers are asked before a join fails.
const SERVERS: usize = 10;

/// Servers that may know a room.
pub type Via = Vec<OwnedServerName>;

#[derive(Deserialize)]
struct Made {
    #[serde(default)]
    room_version: Option<RoomVersionId>,
    event: Box<RawValue>,
}

#[derive(Deserialize)]
struct SentJoin<'a> {
    #[serde(borrow, default)]
    state: Vec<&'a RawValue>,
    #[serde(borrow, default)]
    auth_chain: Vec<&'a RawValue>,
    #[serde(borrow, default)]
    event: Option<&'a RawValue>,
    #[serde(default)]
    members_omitted: bool,
    #[serde(default)]
    servers_in_room: Vec<String>,
}

/// A room as the server tells it that lets our user in; the events are pieces of its answer.
struct Told {
    state: Vec<Bytes>,
    auth: Vec<Bytes>,
    event: Option<Bytes>,
    omitted: Option<Omitted>,
}

#[derive(Deserialize)]
struct SentKnock {
    #[serde(default)]
    knock_room_state: Vec<Box<RawValue>>,
}

#[derive(Deserialize)]
struct SentInvite {
    event: Box<RawValue>,
}

#[derive(Deserialize)]
struct Alias {
    room_id: OwnedRoomId,
    #[serde(default)]
    servers: Vec<OwnedServerName>,
}

/// A member event of ours, made by a template of another server.
struct Filled {
    pdu: Arc<Pdu>,
    rules: Arc<Rules>,
}

impl Federation {
    /// The room of an alias of another server, and servers that are in it.
    ///
    /// # Errors
    /// Where that server cannot be asked or does not know it.
    pub async fn resolve_alias(&self, alias: &RoomAliasId) -> Result<(OwnedRoomId, Via), Error> {
        let path = Path::new("v1/query/directory").ask("room_alias", alias.as_str());
        let answer: Alias = self.inner.get(alias.server_name(), path, USUAL).await?;
        let mut servers = answer.servers;
        servers.truncate(100);
        if !servers.iter().any(|server| server == alias.server_name()) {
            servers.insert(0, alias.server_name().to_owned());
        }
        Ok((answer.room_id, servers))
    }

    /// Lets a user of ours into a room that this server is not in (or into which nobody here may let the user).
    ///
    /// # Errors
    /// Where no server is known or none lets the user in.
    pub async fn join(
        &self,
        room: &RoomId,
        user: &OwnedUserId,
        via: Via,
        content: Map<String, Value>,
    ) -> Result<(), Error> {
        let wanted = Wanted { room: room.to_owned(), user: user.clone(), membership: "join", content };
        self.inner.with_each(&wanted, via).await
    }

    /// Lets a user of ours knock on a room that this server is not in.
    ///
    /// # Errors
    /// Where no server is known or none takes the knock.
    pub async fn knock(
        &self,
        room: &RoomId,
        user: &OwnedUserId,
        via: Via,
        content: Map<String, Value>,
    ) -> Result<(), Error> {
        let wanted = Wanted { room: room.to_owned(), user: user.clone(), membership: "knock", content };
        self.inner.with_each(&wanted, via).await
    }

    /// Refuses an invite to, or withdraws a knock on, a room that this server is not in. It is gone for the user also where
    /// no other server can be told.
    ///
    /// # Errors
    /// Where the store fails.
    pub async fn leave(&self, room: &RoomId, user: &OwnedUserId, content: Map<String, Value>) -> Result<(), Error> {
        let wanted = Wanted { room: room.to_owned(), user: user.clone(), membership: "leave", content };
        let inner = &*self.inner;
        let told = inner.with_each(&wanted, Via::new()).await;
        if let Err(why) = told {
            tracing::info!(%room, %user, %why, "no other server was told that the user does not come");
        }
        Ok(inner.rooms.hide(room, user).await?)
    }

    /// Invites a user of another server.
    ///
    /// # Errors
    /// Where the sender may not, or the other server refuses or cannot be reached.
    pub async fn invite(&self, room: &RoomId, change: Change) -> Result<(), Error> {
        let inner = &*self.inner;
        let server = change.target.server_name().to_owned();
        if !inner.rooms.admits(room, &server).await? {
            return Err(Error::Forbidden(format!("{server} is banned from the room")));
        }
        let rules = inner.rooms.rules_of(room).await?;
        let pdu = inner.recommended(room, &rules, inner.rooms.prepare(room, change).await?).await?;
        let shown = inner.rooms.shown_state(room).await?;
        let shown: Vec<&RawValue> = shown.iter().filter_map(|pdu| serde_json::from_slice(pdu.json()).ok()).collect();
        let event: &RawValue = serde_json::from_slice(pdu.json()).map_err(|why| Error::Bad(why.to_string()))?;
        let body = json!({ "room_version": rules.id, "event": event, "invite_room_state": shown });
        let path = Path::new("v2/invite").part(room.as_str()).part(pdu.event_id().as_str());
        let answer: SentInvite = inner.put(&server, path, &body, USUAL).await?;
        let signed = inner.verified(&rules, vec![bytes_of(&answer.event)]).await.pop();
        let signed = signed.filter(|signed| signed.event_id() == pdu.event_id() && signed_by(signed, &server));
        let signed = signed.ok_or_else(|| Error::Bad(format!("{server} did not sign the invite")))?;
        match inner.settle(&server, room, &rules, Arrival::Live(signed, Vec::new())).await? {
            Outcome::Accepted | Outcome::Known => Ok(()),
            Outcome::Rejected(why) | Outcome::SoftFailed(why) => Err(Error::Forbidden(why)),
            Outcome::Needs(_) => Err(Error::Bad("the room changed too much meanwhile".into())),
        }
    }
}

/// Whether an event has a signature of a server. That all signatures which it must have are right was checked.
fn signed_by(pdu: &Pdu, server: &ServerName) -> bool {
    let event: Value = serde_json::from_slice(pdu.json()).unwrap_or_default();
    event["signatures"].get(server.as_str()).is_some_and(Value::is_object)
}

impl Inner {
    /// Asks one server after the other until one helps.
    async fn with_each(&self, wanted: &Wanted, via: Via) -> Result<(), Error> {
        let Wanted { room, user, membership, .. } = wanted;
        let mut servers = via;
        if let Some(own) = self.rooms.membership_outside(room, user).await? {
            servers.extend(own.outside.and_then(|outside| OwnedServerName::try_from(outside.via).ok()));
            let inviter = own.by.and_then(|user| OwnedUserId::try_from(user).ok());
            servers.extend(inviter.map(|user| user.server_name().to_owned()));
        }
        servers.extend(room.server_name().map(ToOwned::to_owned));
        let mut asked: Via = Vec::new();
        let mut last = None;
        for server in servers {
            let fits = server != self.rooms.server() && self.remote.is_allowed(&server);
            if !fits || asked.contains(&server) || asked.len() == SERVERS {
                continue;
            }
            asked.push(server.clone());
            let done = match *membership {
                "join" => self.join_by(&server, wanted).await,
                "knock" => self.knock_by(&server, wanted).await,
                _ => self.leave_by(&server, wanted).await,
            };
            match done {
                Ok(()) => return Ok(()),
                // Ours to answer for: another server would not help.
                Err(Error::Store(why)) => return Err(why.into()),
                Err(why) => {
                    tracing::info!(%room, %user, %server, %why, "a server did not help");
                    last = Some(better(last, why));
                }
            }
        }
        Err(last.unwrap_or(Error::NoServers))
    }

    async fn made(&self, server: &ServerName, wanted: &Wanted) -> Result<Filled, Error> {
        let mut path = Path::new(&format!("v1/make_{}", wanted.membership));
        path = path.part(wanted.room.as_str()).part(wanted.user.as_str());
        if wanted.membership != "leave" {
            for version in &SUPPORTED {
                path = path.ask("ver", version.as_str());
            }
        }
        let made: Made = self.get(server, path, USUAL).await?;
        let version = made.room_version.unwrap_or(RoomVersionId::V1);
        let known = Rules::of(&version).filter(|_| SUPPORTED.contains(&version));
        let rules = Arc::new(known.ok_or_else(|| Error::IncompatibleVersion(version.to_string()))?);
        // What another server got wrong is not our client's mistake.
        let blame = |why: stoa_rooms::Error| match why {
            stoa_rooms::Error::BadContent(why) => stoa_remote::Error::Malformed(why).into(),
            other => Error::from(other),
        };
        let pdu = self.rooms.fill(&made.event, &rules, wanted).map_err(blame)?;
        Ok(Filled { pdu, rules })
    }

    async fn join_by(&self, server: &ServerName, wanted: &Wanted) -> Result<(), Error> {
        let filled = self.made(server, wanted).await?;
        // Members can come later only where nothing is judged by them meanwhile.
        if !self.rooms.is_in(&wanted.room).await? {
            match self.enter_by(server, wanted, &filled, true).await {
                Err(Error::Rooms(stoa_rooms::Error::Partial)) => {}
                entered => return entered,
            }
        }
        self.enter_by(server, wanted, &filled, false).await
    }

    async fn enter_by(&self, server: &ServerName, wanted: &Wanted, filled: &Filled, omit: bool) -> Result<(), Error> {
        let Filled { pdu, rules } = filled;
        let Told { state, auth, event, omitted } = self.send_join(server, wanted, pdu, omit).await?;
        let signed = match event {
            Some(event) => self.verified(rules, vec![event]).await.pop(),
            None => None,
        };
        let join = signed.filter(|signed| signed.event_id() == pdu.event_id()).unwrap_or_else(|| pdu.clone());
        let auth = self.verified(rules, auth).await;
        let state = self.verified(rules, state).await;
        let entry = Entry { room: wanted.room.clone(), rules: rules.clone(), join, state, auth, omitted };
        let left_out = entry.omitted.is_some();
        self.rooms.enter(entry).await?;
        if left_out {
            self.whole.wake();
        }
        Ok(())
    }

    async fn send_join(&self, server: &ServerName, wanted: &Wanted, pdu: &Pdu, omit: bool) -> Result<Told, Error> {
        let path = |start: &str| Path::new(start).part(wanted.room.as_str()).part(pdu.event_id().as_str());
        let second = path("v2/send_join").ask("omit_members", if omit { "true" } else { "false" });
        let (body, first) = match self.put_event(server, second, pdu, PATIENT).await {
            Err(why) if is_unrecognised(&why) => {
                (self.put_event(server, path("v1/send_join"), pdu, PATIENT).await?, true)
            }
            other => (other?, false),
        };
        let bad = |why: serde_json::Error| stoa_remote::Error::Malformed(why.to_string());
        let sent: SentJoin<'_> = match first {
            true => serde_json::from_slice::<(u16, _)>(&body).map_err(bad)?.1,
            false => serde_json::from_slice(&body).map_err(bad)?,
        };
        if sent.members_omitted && !omit {
            return Err(Error::Bad(format!("{server} left out members that were asked for")));
        }
        let pieces = |events: &[&RawValue]| events.iter().map(|event| piece_of(&body, event)).collect();
        let omitted = || Omitted { via: server.to_string(), servers: sent.servers_in_room };
        Ok(Told {
            state: pieces(&sent.state),
            auth: pieces(&sent.auth_chain),
            event: sent.event.map(|event| piece_of(&body, event)),
            omitted: sent.members_omitted.then(omitted),
        })
    }

    async fn knock_by(&self, server: &ServerName, wanted: &Wanted) -> Result<(), Error> {
        let Filled { pdu, rules } = self.made(server, wanted).await?;
        let event: &RawValue = serde_json::from_slice(pdu.json()).map_err(|why| Error::Bad(why.to_string()))?;
        let path = Path::new("v1/send_knock").part(wanted.room.as_str()).part(pdu.event_id().as_str());
        let sent: SentKnock = self.put(server, path, event, USUAL).await?;
        let shown = shown_of(&sent.knock_room_state);
        let outside = Outside { via: server.to_string(), version: rules.id.to_string(), ..Outside::default() };
        Ok(self.rooms.shown(&wanted.room, &wanted.user, &pdu, Membership::Knock, &shown, outside).await?)
    }

    async fn leave_by(&self, server: &ServerName, wanted: &Wanted) -> Result<(), Error> {
        let Filled { pdu, .. } = self.made(server, wanted).await?;
        let event: &RawValue = serde_json::from_slice(pdu.json()).map_err(|why| Error::Bad(why.to_string()))?;
        let path = |start: &str| Path::new(start).part(wanted.room.as_str()).part(pdu.event_id().as_str());
        let sent: Result<Value, _> = self.put(server, path("v2/send_leave"), event, USUAL).await;
        match sent {
            Err(why) if is_unrecognised(&why) => {
                let _: Value = self.put(server, path("v1/send_leave"), event, Duration::from_secs(30)).await?;
                Ok(())
            }
            other => Ok(other.map(drop)?),
        }
    }
}

/// Whether a server does not know an endpoint.
fn is_unrecognised(why: &stoa_remote::Error) -> bool {
    why.answer().is_some_and(|answer| {
        matches!(answer.status, 404 | 405)
            && answer.errcode.as_deref().is_none_or(|errcode| errcode == "M_UNRECOGNIZED")
    })
}

/// Of two refusals the one that tells more: what a server answered, rather than that one could not be reached.
fn better(last: Option<Error>, new: Error) -> Error {
    match (last, &new) {
        (Some(Error::Remote(old)), Error::Remote(why)) if old.answer().is_some() && why.answer().is_none() => {
            Error::Remote(old)
        }
        _ => new,
    }
}
