//! Sliding sync (MSC4186): the rooms that a client's lists and subscriptions ask for, and of each what it does not have.
//! It reads the same parts as `/sync` and shows nothing that `/sync` would not.

mod connection;
mod extensions;
mod lists;
mod request;
mod room;
mod wanted;

use std::{
    collections::{BTreeMap, HashSet},
    sync::Arc,
    time::Duration,
};

use roaring::RoaringBitmap;
use tokio::time::Instant;

pub(crate) use self::connection::Connections;
pub(crate) use self::lists::Activity;
pub use self::request::Body;
use self::{
    connection::{Connection, Had, Told},
    lists::Candidate,
    room::News,
};
use crate::{
    Error, Filter, View, Viewer,
    json::Object,
    sync::{AccountNews, Span, wait_for_news},
    token::{SlidingToken, SyncToken},
};

/// What a client asks for.
#[derive(Clone, Debug)]
pub struct SlidingRequest {
    /// Who asks.
    pub viewer: Viewer,
    /// What for.
    pub body: Body,
    /// Whether the client speaks the accepted proposal and not the spelling of before.
    pub stable: bool,
}

/// A request, with what is known of its connection.
struct Asked<'a> {
    request: &'a SlidingRequest,
    had: &'a Had,
    from: Option<SyncToken>,
}

/// An answer that is not sent yet.
struct Answer {
    json: Vec<u8>,
    serial: u64,
    told: Told,
}

/// What one look at everything works with.
struct Look<'a> {
    asked: &'a Asked<'a>,
    span: &'a Span<'a>,
    account: &'a AccountNews,
    /// The ids of the rooms that the user calls direct chats.
    direct: HashSet<String>,
}

impl View {
    /// Answers a request of sliding sync; waits for something new if there is nothing and the client lets it.
    ///
    /// # Errors
    /// [`Error::UnknownPos`] where the connection is not known, [`Error::InvalidParam`] for what nobody may ask for
    pub async fn sliding(&self, request: SlidingRequest) -> Result<Vec<u8>, Error> {
        let inner = &*self.inner;
        request.body.check()?;
        let pos =
            request.body.pos.as_deref().map(|pos| SlidingToken::parse(pos).ok_or(Error::UnknownPos)).transpose()?;
        let Viewer { user_no, device, .. } = &request.viewer;
        let name = request.body.conn_id.as_deref().unwrap_or_default();
        let (connection, had) = inner.connections.open((*user_no, device, name), pos)?;
        let asked = Asked { request: &request, had: &had, from: pos.map(|pos| pos.at) };
        let wait = request.body.timeout.unwrap_or(0).min(inner.config.max_wait_ms);
        let deadline = (wait > 0 && pos.is_some()).then(|| Instant::now() + Duration::from_millis(wait));
        let answer = wait_for_news(self, *user_no, deadline, || self.look_for(&asked)).await?;
        Ok(send(&connection, answer))
    }

    /// Builds one answer, and says whether there is anything new in it.
    async fn look_for(&self, asked: &Asked<'_>) -> Result<(Answer, bool), Error> {
        let inner = &*self.inner;
        let store = &inner.store;
        let viewer = &asked.request.viewer;
        // In this order: whatever the snapshot has beyond these is told the next time.
        let to = SyncToken { place: store.bus().place(), position: store.who().position() };
        if asked.from.is_some_and(|from| from.position > to.position) {
            // From before a restore: only beginning anew is right then.
            return Err(Error::UnknownPos);
        }
        let snapshot = store.snapshot().await?;
        let filter = Filter::default();
        let span = Span::new(inner, &snapshot, viewer, &filter, (asked.from, to)).await?;
        let account = span.account_news().await?;
        let direct = lists::direct(&snapshot, viewer).await?;
        let look = Look { asked, span: &span, account: &account, direct };
        look.build().await
    }
}

fn send(connection: &Connection, answer: Answer) -> Vec<u8> {
    connection.tell(answer.serial, answer.told);
    answer.json
}

impl Look<'_> {
    async fn build(&self) -> Result<(Answer, bool), Error> {
        let body = &self.asked.request.body;
        let window = self.window().await?;
        let mut told = Told { wanted: RoaringBitmap::new(), ..Told::default() };
        let mut rooms: BTreeMap<Arc<str>, Vec<u8>> = BTreeMap::new();
        let mut timelines = HashSet::new();
        for candidate in window.rooms.values() {
            match self.room(candidate, &mut timelines).await? {
                News::Some(shown) => {
                    told.rooms.insert(candidate.room, shown.sent);
                    rooms.insert(candidate.id.clone(), shown.json);
                }
                News::None => {}
                // It is as if it were not in the window.
                News::Later => continue,
            }
            told.wanted.insert(candidate.room.0);
        }
        // Rooms that leave the window are remembered as far as they were sent.
        for room in self.asked.had.wanted.iter().filter(|room| !told.wanted.contains(*room)) {
            let room = stoa_store::RoomNo(room);
            if let Some(sent) = self.asked.had.rooms.get(&room) {
                let at = self.asked.from.unwrap_or(sent.at);
                told.rooms.insert(room, connection::Sent { at, ..sent.clone() });
            }
        }
        let scope: Vec<&Candidate> = window.rooms.values().collect();
        let extensions = self.extensions(&scope, &timelines).await?;
        let news = !rooms.is_empty() || extensions.news;

        let serial = self.span.inner.connections.serial();
        let mut out = Vec::with_capacity(1024);
        let mut object = Object::new(&mut out);
        object.str("pos", &SlidingToken { serial, at: self.span.to }.to_string());
        if let Some(txn) = &body.txn_id {
            object.str("txn_id", txn);
        }
        let mut lists = Object::new(object.key("lists"));
        for (name, count) in &window.counts {
            let mut list = Object::new(lists.key(name));
            list.plain("count", count);
            list.end();
        }
        lists.end();
        let mut by_id = Object::new(object.key("rooms"));
        for (id, json) in &rooms {
            by_id.raw(id, json);
        }
        by_id.end();
        object.raw("extensions", &extensions.json);
        object.end();
        Ok((Answer { json: out, serial, told }, news))
    }

    /// Up to where the client has what concerns a room.
    fn base(&self, candidate: &Candidate) -> Option<SyncToken> {
        let sent = self.asked.had.rooms.get(&candidate.room)?;
        let covered = self.asked.had.wanted.contains(candidate.room.0);
        Some(self.asked.from.filter(|_| covered).unwrap_or(sent.at))
    }
}
