//! `/sync` (Client-Server API, "Syncing"): built from a snapshot at one position. A room costs something only if it
//! changed after the client's token.

mod account;
mod devices;
mod joined;
pub(crate) mod lazy;
pub(crate) mod summary;

use std::{
    collections::{BTreeMap, BTreeSet, HashSet},
    sync::Arc,
    time::Duration,
};

use stoa_event::ids::UserId;
use stoa_store::{
    Direction, Membership, Position, RoomNo, Snapshot, UserNo,
    rows::{
        invite_permission::{self, InvitePermission, Verdict},
        rooms::OwnMembership,
    },
    schema,
};
use tokio::{sync::OnceCell, time::Instant};

use self::devices::DeviceNews;
pub(crate) use self::{
    account::AccountNews,
    joined::{RoomWork, Timeline},
};
use crate::{Error, Filter, Inner, View, Viewer, bundle::ignored, counts, json::Object, token::SyncToken};

/// What a client asks for.
#[derive(Clone, Debug)]
pub struct SyncRequest {
    /// Who asks.
    pub viewer: Viewer,
    /// The token of the last answer.
    pub since: Option<String>,
    /// What is wanted.
    pub filter: Arc<Filter>,
    /// Whether the whole state of all rooms is wanted, also with a token.
    pub full_state: bool,
    /// Whether the state is wanted as it is after the timeline (`use_state_after`), and under which name: clients that
    /// ask by the name from before it was stable look only there.
    pub state_after: Option<&'static str>,
    /// How long to wait for something new, in milliseconds.
    pub timeout_ms: u64,
}

/// What one answer covers: after `from`, up to and with `to`.
pub(crate) struct Span<'a> {
    pub(crate) inner: &'a Inner,
    pub(crate) snapshot: &'a Snapshot,
    pub(crate) viewer: &'a Viewer,
    pub(crate) filter: &'a Filter,
    pub(crate) from: Option<SyncToken>,
    pub(crate) to: SyncToken,
    pub(crate) full_state: bool,
    pub(crate) state_after: Option<&'static str>,
    pub(crate) now_ms: u64,
    /// Users from whom the viewer wants to hear nothing (Client-Server API, "Ignoring Users").
    pub(crate) ignored: Arc<HashSet<String>>,
    /// From whom the viewer wants invites, read when there is one.
    pub(crate) invites: OnceCell<Arc<InvitePermission>>,
    /// The viewer's push rules, read once for all rooms.
    pub(crate) rules: OnceCell<counts::ReadyRules>,
}

impl<'a> Span<'a> {
    /// Everything that is after `from`, up to and with `to`.
    pub(crate) async fn new(
        inner: &'a Inner,
        snapshot: &'a Snapshot,
        viewer: &'a Viewer,
        filter: &'a Filter,
        (from, to): (Option<SyncToken>, SyncToken),
    ) -> Result<Span<'a>, Error> {
        Ok(Span {
            inner,
            snapshot,
            viewer,
            filter,
            from,
            to,
            full_state: false,
            state_after: None,
            now_ms: inner.env.now_ms(),
            ignored: Arc::new(ignored(snapshot, viewer.user_no).await?),
            invites: OnceCell::new(),
            rules: OnceCell::new(),
        })
    }

    /// The same for one room of which the client has something else.
    pub(crate) fn of_room<'b>(&'b self, from: Option<SyncToken>, filter: &'b Filter) -> Span<'b> {
        Span {
            filter,
            from,
            ignored: self.ignored.clone(),
            invites: self.invites.clone(),
            rules: self.rules.clone(),
            ..*self
        }
    }

    /// Whether the viewer wants to hear of an invite. What is not known of who sent it is no reason against it.
    pub(crate) async fn wants_invite(&self, own: &OwnMembership) -> Result<bool, Error> {
        let Some(by) = &own.by else { return Ok(true) };
        if self.ignored.contains(by) {
            return Ok(false);
        }
        let read = || async { invite_permission::get(self.snapshot, self.viewer.user_no).await.map(Arc::new) };
        let permission = self.invites.get_or_try_init(read).await?;
        Ok(<&UserId>::try_from(by.as_str()).map_or(true, |by| permission.judge(by) == Verdict::Allow))
    }

    /// The viewer's push rules, and where they were changed last.
    pub(crate) async fn rules(&self) -> Result<counts::ReadyRules, Error> {
        self.rules.get_or_try_init(|| counts::rules(self)).await.cloned()
    }

    /// Whether the client wants all members of its rooms, not only those whom it needs.
    pub(crate) fn wants_all_members(&self) -> bool {
        !self.filter.room.state.lazy_load_members
    }

    /// The position that the client has seen.
    pub(crate) fn seen(&self) -> Position {
        self.from.map_or(Position::MIN, |from| from.position)
    }
}

/// Answers of rooms, by membership; and whether there is anything at all.
#[derive(Default)]
struct Rooms {
    join: Vec<(Arc<str>, Vec<u8>)>,
    invite: Vec<(Arc<str>, Vec<u8>)>,
    knock: Vec<(Arc<str>, Vec<u8>)>,
    leave: Vec<(Arc<str>, Vec<u8>)>,
}

impl View {
    /// Answers a `/sync`; waits for something new if there is nothing and the client lets it.
    ///
    /// # Errors
    /// Where the token is not ours or the engine fails.
    pub async fn sync(&self, request: SyncRequest) -> Result<Vec<u8>, Error> {
        let since = request.since.as_deref().map(SyncToken::parse).transpose()?;
        let wait = request.timeout_ms.min(self.inner.config.max_wait_ms);
        let waits = wait > 0 && since.is_some() && !request.full_state;
        let deadline = waits.then(|| Instant::now() + Duration::from_millis(wait));
        wait_for_news(self, request.viewer.user_no, deadline, || self.look(&request, since)).await
    }

    /// Builds one answer, and says whether there is anything new in it.
    async fn look(&self, request: &SyncRequest, since: Option<SyncToken>) -> Result<(Vec<u8>, bool), Error> {
        let inner = &*self.inner;
        let store = &inner.store;
        // In this order: whatever the snapshot has beyond these is told the next time.
        let to = SyncToken { place: store.bus().place(), position: store.who().position() };
        // A token from the future is from before a restore: only everything is right then.
        let from = since.filter(|since| since.position <= to.position);
        let snapshot = store.snapshot().await?;
        let mut span = Span::new(inner, &snapshot, &request.viewer, &request.filter, (from, to)).await?;
        (span.full_state, span.state_after) = (request.full_state, request.state_after);
        // More messages than fit into one answer: then the whole answer ends where they do.
        let (messages, until) = span.to_device().await?;
        span.to.position = until;
        span.build(messages).await
    }
}

/// Looks until there is something new, or until the deadline; once, where there is none. `look` says whether what it found is
/// news.
pub(crate) async fn wait_for_news<T, F>(
    view: &View,
    user: UserNo,
    deadline: Option<Instant>,
    look: impl Fn() -> F,
) -> Result<T, Error>
where
    F: Future<Output = Result<(T, bool), Error>>,
{
    let waiter = deadline.map(|deadline| (deadline, view.inner.waiters.enter(user)));
    loop {
        // Listening begins before looking, so that nothing falls between.
        let bell = waiter.as_ref().map(|(_, waiter)| waiter.bell.clone());
        let rung = bell.as_ref().map(|bell| bell.notified());
        let mut rung = std::pin::pin!(rung);
        if let Some(rung) = rung.as_mut().as_pin_mut() {
            rung.enable();
        }
        let (answer, news) = look().await?;
        let (Some(rung), Some((deadline, _))) = (rung.as_mut().as_pin_mut(), &waiter) else { return Ok(answer) };
        if news || view.is_stopping() || tokio::time::timeout_at(*deadline, rung).await.is_err() {
            return Ok(answer);
        }
    }
}

impl Span<'_> {
    async fn build(&self, to_device: Vec<Vec<u8>>) -> Result<(Vec<u8>, bool), Error> {
        let account = self.account_news().await?;
        let mut devices = DeviceNews::default();
        let rooms = self.rooms(&account, &mut devices).await?;
        let lists = self.device_lists(devices).await?;
        let presence = self.presence().await?;
        let news = self.from.is_none()
            || !presence.is_empty()
            || !account.global.is_empty()
            || !rooms.is_empty()
            || !to_device.is_empty()
            || !lists.is_empty();

        let mut out = Vec::with_capacity(1024);
        let mut body = Object::new(&mut out);
        body.str("next_batch", &self.to.to_string());
        if !account.global.is_empty() {
            body.events("account_data", &account.global);
        }
        if !presence.is_empty() {
            body.events("presence", &presence);
        }
        if !to_device.is_empty() {
            body.events("to_device", &to_device);
        }
        if !lists.is_empty() {
            let mut object = Object::new(body.key("device_lists"));
            object.strings("changed", &lists.changed).strings("left", &lists.left);
            object.end();
        }
        self.write_key_counts(&mut body).await?;
        rooms.write(&mut body);
        body.end();
        Ok((out, news))
    }

    pub(crate) async fn write_key_counts(&self, body: &mut Object<'_>) -> Result<(), Error> {
        let Viewer { user_no, device, .. } = self.viewer;
        let counts = stoa_store::rows::keys::counts(self.snapshot, *user_no, device).await?;
        let mut object = Object::new(body.key("device_one_time_keys_count"));
        // Clients take an absent algorithm for "unknown" and would upload no keys.
        if !counts.one_time.contains_key("signed_curve25519") {
            object.plain("signed_curve25519", 0);
        }
        for (algorithm, count) in &counts.one_time {
            object.plain(algorithm, count);
        }
        object.end();
        body.strings("device_unused_fallback_key_types", &counts.unused_fallback);
        Ok(())
    }

    /// All rooms that have something to say.
    async fn rooms(&self, account: &AccountNews, devices: &mut DeviceNews) -> Result<Rooms, Error> {
        let mut rooms = Rooms::default();
        for (room, own) in self.candidates(account).await? {
            let Some(own) = self.at_end(own) else { continue };
            let id = self.inner.store.names().room_id(self.snapshot, room).await?;
            if !self.filter.wants_room(&id) {
                continue;
            }
            let fresh = own.at > self.seen();
            match own.membership {
                Membership::Join => {
                    let Some(work) = RoomWork::open(self, room, &id, own).await? else { continue };
                    if let Some(body) = work.joined(account, devices).await? {
                        rooms.join.push((id, body));
                    }
                }
                Membership::Invite if (fresh || self.full_state) && self.wants_invite(&own).await? => {
                    rooms.invite.push((id, stripped("invite_state", &own)))
                }
                Membership::Knock if fresh || self.full_state => rooms.knock.push((id, stripped("knock_state", &own))),
                Membership::Leave | Membership::Ban if self.wants_left(&own, fresh) => {
                    // An invite that was refused to a room that this server is not in: nothing is known but that.
                    let body = match RoomWork::open(self, room, &id, own).await? {
                        Some(work) => work.left(account, devices).await?,
                        None => b"{}".to_vec(),
                    };
                    rooms.leave.push((id, body));
                }
                _ => {}
            }
        }
        Ok(rooms)
    }

    /// Who came into or went out of encrypted rooms of the user.
    pub(crate) async fn device_news(&self) -> Result<DeviceNews, Error> {
        let mut news = DeviceNews::default();
        for (room, own) in self.candidates(&AccountNews::default()).await? {
            let Some(own) = self.at_end(own) else { continue };
            let id = self.inner.store.names().room_id(self.snapshot, room).await?;
            match own.membership {
                Membership::Join => {
                    let Some(work) = RoomWork::open(self, room, &id, own).await? else { continue };
                    work.device_news(&mut news).await?;
                }
                Membership::Leave | Membership::Ban => {
                    let Some(work) = RoomWork::open(self, room, &id, own).await? else { continue };
                    work.device_news_of_left(&mut news).await?;
                }
                _ => {}
            }
        }
        Ok(news)
    }

    /// A membership as it was at the end of the answer: the snapshot may know of later ones. `None` where the later one has
    /// taken the place of what was; the next answer, which begins here, tells it as a whole.
    pub(crate) fn at_end(&self, own: OwnMembership) -> Option<OwnMembership> {
        let end = self.to.position;
        if own.at <= end {
            return Some(own);
        }
        let joined = own.joined_at.is_some_and(|at| at <= end)
            && (own.membership == Membership::Join || own.left_at.is_some_and(|left| left > end));
        joined.then_some(OwnMembership { membership: Membership::Join, ..own })
    }

    fn wants_left(&self, own: &OwnMembership, fresh: bool) -> bool {
        // Who begins anew is told of rooms that were left before only on request.
        let begins = self.from.is_none() || self.full_state;
        let told = (self.from.is_some() && fresh) || (begins && self.filter.room.include_leave);
        told && !own.forgotten
    }

    /// The user's rooms that may have something new, with the user's membership.
    async fn candidates(&self, account: &AccountNews) -> Result<BTreeMap<RoomNo, OwnMembership>, Error> {
        let user = self.viewer.user_no;
        let who = self.inner.store.who();
        let all = self.from.is_none() || self.full_state;
        let mut wanted: BTreeSet<RoomNo> = BTreeSet::new();
        let mut found = BTreeMap::new();
        if let Some(from) = self.from.filter(|_| !all) {
            wanted.extend(who.changed_rooms(user, from.position));
            let live = self.inner.store.bus().rooms_after(from.place);
            wanted.extend(live.into_iter().filter(|room| who.is_joined(*room, user)));
            wanted.extend(account.rooms.keys());
            wanted.extend(&account.read);
        }
        if all || who.user_last(user) > self.seen() {
            let rows = self.snapshot.scan(&schema::MEMBERSHIPS, &user, Direction::Forward, usize::MAX).await?;
            for ((_, room), own) in rows {
                if all || own.at > self.seen() || wanted.contains(&room) {
                    found.insert(room, own);
                }
            }
        } else {
            let rooms: Vec<RoomNo> = wanted.into_iter().collect();
            let rows = self.snapshot.get_many(&schema::MEMBERSHIPS, rooms.iter().map(|room| (user, *room))).await?;
            found.extend(rooms.into_iter().zip(rows).filter_map(|(room, own)| Some((room, own?))));
        }
        Ok(found)
    }
}

fn stripped(name: &str, own: &OwnMembership) -> Vec<u8> {
    let mut out = Vec::new();
    let mut room = Object::new(&mut out);
    let mut state = Object::new(room.key(name));
    state.raw("events", own.stripped.as_deref().unwrap_or(b"[]"));
    state.end();
    room.end();
    out
}

impl Rooms {
    fn is_empty(&self) -> bool {
        self.join.is_empty() && self.invite.is_empty() && self.knock.is_empty() && self.leave.is_empty()
    }

    fn write(&self, body: &mut Object<'_>) {
        if self.is_empty() {
            return;
        }
        let mut object = Object::new(body.key("rooms"));
        for (name, rooms) in
            [("join", &self.join), ("invite", &self.invite), ("knock", &self.knock), ("leave", &self.leave)]
        {
            if !rooms.is_empty() {
                let mut by_id = Object::new(object.key(name));
                for (id, room) in rooms {
                    by_id.raw(id, room);
                }
                by_id.end();
            }
        }
        object.end();
    }
}
