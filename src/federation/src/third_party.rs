//! Invites by third-party identifiers (Client-Server API, "Third-party Invites"; Server-Server API, "Third-party invites"):
//! an address is invited, an identity server holds the invite, and who proves the address is invited by their user id.

use serde::Deserialize;
use serde_json::{Map, Value, json};
use stoa_event::{
    auth::kind,
    ids::{OwnedRoomId, OwnedUserId, RoomId, ServerName},
    json::Object,
    sign::{VerifyKey, signed_with},
};
use stoa_rooms::{Action, Change, NewEvent, Profile};

use crate::{
    Error, Federation, Inner,
    ask::{Path, USUAL},
    identity::{Key, ThirdParty},
};

/// How many invites one address may bring at once.
const INVITES: usize = 50;
/// How many keys of one invite are looked at.
const KEYS: usize = 10;

/// An address was bound to a user of ours: the body of `/3pid/onbind`.
#[derive(Clone, Debug, Deserialize)]
pub struct Bound {
    /// The user.
    pub mxid: OwnedUserId,
    /// Invites that waited for the address.
    #[serde(default)]
    pub invites: Vec<Pending>,
}

/// An invite that waited for an address.
#[derive(Clone, Debug, Deserialize)]
pub struct Pending {
    /// The room.
    pub room_id: OwnedRoomId,
    /// Who invited.
    pub sender: OwnedUserId,
    /// The proof, signed by the identity server: user id, token and signatures.
    pub signed: Map<String, Value>,
}

/// What the server of who is invited asks that of who invited: the body of `/exchange_third_party_invite`.
#[derive(Clone, Debug, Deserialize)]
pub struct Exchange {
    #[serde(rename = "type")]
    kind: String,
    room_id: OwnedRoomId,
    sender: OwnedUserId,
    state_key: OwnedUserId,
    content: ExchangeContent,
}

#[derive(Clone, Debug, Deserialize)]
struct ExchangeContent {
    membership: String,
    third_party_invite: Proof,
}

#[derive(Clone, Debug, Deserialize)]
struct Proof {
    signed: Map<String, Value>,
}

/// What an `m.room.third_party_invite` says.
#[derive(Deserialize)]
struct Waiting {
    display_name: String,
    public_key: Option<String>,
    key_validity_url: Option<String>,
    #[serde(default)]
    public_keys: Vec<Key>,
}

impl Federation {
    /// Invites who has an address: the user, if the identity server knows one, otherwise whoever proves to have it.
    ///
    /// # Errors
    /// Where the sender may not, or the identity server does not help.
    pub async fn invite_address(&self, room: &RoomId, sender: &OwnedUserId, of: ThirdParty) -> Result<(), Error> {
        let inner = &*self.inner;
        inner.may_ask(&of.id_server)?;
        // Nobody gets mail from somebody who may not invite.
        let may = inner.rooms.with_powers(room, sender, |powers| powers.can_invite(sender)).await?;
        if !may {
            return Err(Error::Forbidden(format!("{sender} may not invite")));
        }
        if let Some(user) = inner.look_up(&of).await? {
            return self.invite_user(room, sender, user, Map::new()).await;
        }
        let about = inner.about(room, sender, &of).await?;
        let stored = inner.store_invite(&of, about).await?;
        let keys: Vec<Key> = stored.public_keys.into_iter().take(KEYS).collect();
        let first = keys.first().ok_or_else(|| Error::Bad(format!("{} gave no key", of.id_server)))?;
        let content = json!({
            "display_name": stored.display_name,
            "public_key": first.public_key,
            "key_validity_url": first.key_validity_url,
            "public_keys": keys,
        });
        let event = NewEvent {
            sender: sender.clone(),
            kind: kind::THIRD_PARTY_INVITE.to_owned(),
            state_key: Some(stored.token),
            content: content.to_string().into_bytes(),
            redacts: None,
            txn: None,
            ts: None,
        };
        self.send(room, event).await.map(drop)
    }

    /// An identity server says that an address is a user's, and which invites waited for it. Those that cannot be redeemed
    /// have no effect.
    ///
    /// # Errors
    /// Where the user is none of ours.
    pub async fn bound(&self, bound: Bound) -> Result<(), Error> {
        let Bound { mxid, invites } = bound;
        let account = match mxid.server_name() == self.server() {
            true => self.inner.accounts.account(&mxid).await?,
            false => None,
        };
        if account.is_none_or(|account| account.row.deactivated.is_some()) {
            return Err(Error::NotFound("there is no such user"));
        }
        for Pending { room_id, sender, signed } in invites.into_iter().take(INVITES) {
            if let Err(why) = self.redeem(&room_id, &sender, &mxid, signed).await {
                tracing::info!(room = %room_id, user = %mxid, %why, "a third-party invite cannot be redeemed");
            }
        }
        Ok(())
    }

    /// Has a user of ours invited by the proof that an address is theirs: here, where who invited is ours too, or by their
    /// server.
    ///
    /// # Errors
    /// Where the proof does not hold, or the other server refuses.
    pub async fn redeem(
        &self,
        room: &RoomId,
        sender: &OwnedUserId,
        user: &OwnedUserId,
        signed: Map<String, Value>,
    ) -> Result<(), Error> {
        if signed.get("mxid").and_then(Value::as_str) != Some(user.as_str()) {
            return Err(Error::Forbidden("the proof is for another user".into()));
        }
        if sender.server_name() == self.server() {
            return self.exchange_here(room, sender, user, signed).await;
        }
        let body = json!({
            "type": kind::MEMBER,
            "room_id": room,
            "sender": sender,
            "state_key": user,
            "content": {
                "membership": "invite",
                "third_party_invite": { "display_name": user, "signed": signed },
            },
        });
        let path = Path::new("v1/exchange_third_party_invite").part(room.as_str());
        let _: Value = self.inner.put(sender.server_name(), path, &body, USUAL).await?;
        Ok(())
    }

    /// The server of an invited user asks for the invite that the proof stands for.
    ///
    /// # Errors
    /// Where it is not that server, who invited is none of ours, or the proof does not hold.
    pub async fn exchange(&self, origin: &ServerName, room: &RoomId, asked: Exchange) -> Result<(), Error> {
        self.inner.admitted(origin, room).await?;
        let Exchange { kind, room_id, sender, state_key: user, content } = asked;
        if kind != kind::MEMBER || content.membership != "invite" || room_id != *room {
            return Err(Error::Bad("the event is no invite into that room".into()));
        }
        if user.server_name() != origin || sender.server_name() != self.server() {
            return Err(Error::Forbidden("the event is not between your user and ours".into()));
        }
        self.exchange_here(room, &sender, &user, content.third_party_invite.signed).await
    }

    async fn exchange_here(
        &self,
        room: &RoomId,
        sender: &OwnedUserId,
        user: &OwnedUserId,
        signed: Map<String, Value>,
    ) -> Result<(), Error> {
        let display_name = self.inner.proven(room, user, &signed).await?;
        let invite = json!({ "display_name": display_name, "signed": signed });
        let content = Map::from_iter([("third_party_invite".to_owned(), invite)]);
        self.invite_user(room, sender, user.clone(), content).await
    }

    async fn invite_user(
        &self,
        room: &RoomId,
        sender: &OwnedUserId,
        target: OwnedUserId,
        content: Map<String, Value>,
    ) -> Result<(), Error> {
        let ours = target.server_name() == self.server();
        let profile = match ours {
            true => self.inner.accounts.short_profile(&target).await?,
            false => stoa_accounts::ShortProfile::default(),
        };
        let avatar_url = profile.avatar_url.map(|url| url.to_string());
        let profile = Profile { displayname: profile.displayname, avatar_url };
        let sender = sender.clone();
        let change = Change { action: Action::Invite, sender, target, reason: None, content, profile };
        if ours { self.change(room, change).await } else { self.invite(room, change).await }
    }
}

impl Inner {
    /// What an identity server is told of the room, for the mail that it sends.
    async fn about(&self, room: &RoomId, sender: &OwnedUserId, of: &ThirdParty) -> Result<Value, Error> {
        let mut about = json!({
            "medium": of.medium,
            "address": of.address,
            "room_id": room,
            "sender": sender,
        });
        for (name, kind, field) in [
            ("room_alias", "m.room.canonical_alias", "alias"),
            ("room_avatar_url", "m.room.avatar", "url"),
            ("room_join_rules", kind::JOIN_RULES, "join_rule"),
            ("room_name", "m.room.name", "name"),
            ("room_type", kind::CREATE, "type"),
        ] {
            let event = self.rooms.state_event(room, kind, "").await?;
            let content: Option<Map<String, Value>> = event.and_then(|event| event.content_as().ok());
            if let Some(value) = content.and_then(|mut content| content.remove(field)).filter(Value::is_string) {
                about[name] = value;
            }
        }
        let profile = self.accounts.short_profile(sender).await?;
        if let Some(name) = profile.displayname {
            about["sender_display_name"] = name.into();
        }
        if let Some(picture) = profile.avatar_url {
            about["sender_avatar_url"] = picture.to_string().into();
        }
        Ok(about)
    }

    /// Whether a proof belongs to an invite that waits in the room, and its key still holds; gives the name that the invite
    /// has instead of the address.
    async fn proven(&self, room: &RoomId, user: &OwnedUserId, signed: &Map<String, Value>) -> Result<String, Error> {
        let refuse = |why: &str| Err(Error::Forbidden(why.to_owned()));
        let text = |field: &str| signed.get(field).and_then(Value::as_str);
        let (Some(mxid), Some(token)) = (text("mxid"), text("token")) else {
            return refuse("the proof has no mxid or no token");
        };
        if mxid != user.as_str() {
            return refuse("the proof is for another user");
        }
        let waiting = self.rooms.state_event(room, kind::THIRD_PARTY_INVITE, token).await?;
        let waiting: Option<Waiting> = waiting.and_then(|event| event.content_as().ok());
        let Some(waiting) = waiting else { return refuse("no such third-party invite waits in the room") };
        let first = waiting.public_key.map(|public_key| Key { public_key, key_validity_url: waiting.key_validity_url });
        let bytes = Value::Object(signed.clone()).to_string();
        let object = Object::parse(bytes.as_bytes()).map_err(|why| Error::Bad(why.to_string()))?;
        let signs = |key: &Key| VerifyKey::parse_any(&key.public_key).is_ok_and(|key| signed_with(&object, &key));
        let keys = waiting.public_keys.into_iter().chain(first).take(KEYS);
        let keys: Vec<Key> = keys.filter(signs).collect();
        drop(object);
        for key in keys {
            if self.is_valid(&key).await {
                return Ok(waiting.display_name);
            }
        }
        refuse("the proof is not signed with a key of the invite that holds")
    }
}
