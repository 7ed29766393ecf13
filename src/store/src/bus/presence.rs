//! Presence on the live bus (Client-Server API, "Presence"): who is online, as this server knows it. In memory; what changes
//! is told once a second, so that many who come at once wake others once.

use std::{
    collections::{BTreeMap, BTreeSet, HashMap},
    sync::Arc,
};

use tokio::sync::broadcast;

use super::{Bus, Place};
use crate::UserNo;

/// How long after the end of its last `/sync` a device counts as there.
pub const GRACE_MS: u64 = 30_000;
/// After how long without doing anything a user is `unavailable`.
pub const IDLE_MS: u64 = 5 * 60_000;
/// How long it is believed what another server said of its user: it says it again before.
pub const BELIEVED_MS: u64 = 30 * 60_000;
/// How many people of other servers are known at most; who changed first is forgotten first.
const STRANGERS: usize = 100_000;
/// How many devices of a user count.
const DEVICES: usize = 100;

/// A presence state, the weakest first: of several devices the strongest counts.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord)]
pub enum Presence {
    /// Not there.
    #[default]
    Offline,
    /// There, but idle.
    Unavailable,
    /// There.
    Online,
    /// There, and not to be disturbed (MSC3026).
    Busy,
}

impl Presence {
    /// The word of the specification.
    pub fn as_str(self) -> &'static str {
        match self {
            Presence::Offline => "offline",
            Presence::Unavailable => "unavailable",
            Presence::Online => "online",
            Presence::Busy => "org.matrix.msc3026.busy",
        }
    }

    /// From the word of the specification.
    pub fn parse(word: &str) -> Option<Presence> {
        Some(match word {
            "offline" => Presence::Offline,
            "unavailable" => Presence::Unavailable,
            "online" => Presence::Online,
            "org.matrix.msc3026.busy" => Presence::Busy,
            _ => return None,
        })
    }
}

/// How somebody is there.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Shown {
    /// The state.
    pub presence: Presence,
    /// What the user says about it.
    pub status: Option<Arc<str>>,
    /// When the user last did something, in milliseconds since 1970.
    pub active: u64,
    /// Where this changed last.
    pub place: Place,
}

struct Device {
    name: Arc<str>,
    presence: Presence,
    /// Until when it counts.
    until: u64,
}

struct Person {
    /// Devices of a user of ours.
    devices: Vec<Device>,
    /// What another server said of its user, and until when that is believed.
    told: Option<(Presence, u64)>,
    shown: Shown,
    /// When it is looked at again, if it changes by itself.
    due: Option<u64>,
}

/// Everyone of whom anything is known.
pub(super) struct People {
    all: HashMap<UserNo, Person>,
    /// By the place of the last change.
    order: BTreeMap<Place, UserNo>,
    due: BTreeSet<(u64, UserNo)>,
    /// Who changed since that was told last.
    fresh: BTreeSet<UserNo>,
    strangers: usize,
    tell: broadcast::Sender<Arc<[UserNo]>>,
}

impl Default for People {
    fn default() -> Self {
        People {
            all: HashMap::new(),
            order: BTreeMap::new(),
            due: BTreeSet::new(),
            fresh: BTreeSet::new(),
            strangers: 0,
            tell: broadcast::channel(1024).0,
        }
    }
}

impl Person {
    fn new() -> Person {
        let shown = Shown { presence: Presence::Offline, status: None, active: 0, place: 0 };
        Person { devices: Vec::new(), told: None, shown, due: None }
    }

    /// How the person is there now, and when that may change by itself.
    fn judge(&mut self, now: u64) -> (Presence, Option<u64>) {
        if let Some((presence, until)) = self.told {
            let here = until > now && presence != Presence::Offline;
            return if here { (presence, Some(until)) } else { (Presence::Offline, None) };
        }
        self.devices.retain(|device| device.until > now);
        let best = self.devices.iter().map(|device| device.presence).max().unwrap_or_default();
        let gone = self.devices.iter().map(|device| device.until).min();
        let idle = self.shown.active + IDLE_MS;
        match best {
            Presence::Online if idle <= now => (Presence::Unavailable, gone),
            Presence::Online => (best, gone.map(|gone| gone.min(idle))),
            _ => (best, gone),
        }
    }
}

impl People {
    /// Works out anew how somebody is there; `changed` says that something else to be told changed.
    fn review(&mut self, user: UserNo, now: u64, changed: bool, next: &mut Place) {
        let Some(person) = self.all.get_mut(&user) else { return };
        let (presence, due) = person.judge(now);
        if person.due != due {
            if let Some(old) = std::mem::replace(&mut person.due, due) {
                self.due.remove(&(old, user));
            }
            self.due.extend(due.map(|due| (due, user)));
        }
        if person.shown.presence == presence && !changed {
            return;
        }
        self.order.remove(&person.shown.place);
        person.shown.presence = presence;
        person.shown.place = *next;
        self.order.insert(*next, user);
        self.fresh.insert(user);
        *next += 1;
    }

    /// Makes room for one more person of another server.
    fn make_room(&mut self) {
        while self.strangers >= STRANGERS {
            let oldest = self.order.iter().find(|(_, user)| self.all.get(user).is_some_and(|it| it.told.is_some()));
            let Some((place, user)) = oldest.map(|(place, user)| (*place, *user)) else { return };
            self.order.remove(&place);
            if let Some(due) = self.all.remove(&user).and_then(|person| person.due) {
                self.due.remove(&(due, user));
            }
            self.strangers -= 1;
        }
    }

    /// Looks at whom time has changed, and gives everyone who changed since the last time.
    pub(super) fn tick(&mut self, now: u64, next: &mut Place) -> Vec<UserNo> {
        while let Some((due, user)) = self.due.first().copied().filter(|(due, _)| *due <= now) {
            self.due.remove(&(due, user));
            if let Some(person) = self.all.get_mut(&user) {
                person.due = None;
            }
            self.review(user, now, false, next);
        }
        std::mem::take(&mut self.fresh).into_iter().collect()
    }

    pub(super) fn tell(&self) -> broadcast::Sender<Arc<[UserNo]>> {
        self.tell.clone()
    }
}

impl Bus {
    /// Who changed, told about once a second.
    pub fn listen_to_presence(&self) -> broadcast::Receiver<Arc<[UserNo]>> {
        self.state.lock().people.tell.subscribe()
    }

    /// A device of a user of ours is there until a moment. `status` replaces what the user says about it.
    pub fn is_there(
        &self,
        user: UserNo,
        device: &str,
        presence: Presence,
        status: Option<Option<&str>>,
        (now_ms, until): (u64, u64),
    ) {
        let mut state = self.state.lock();
        let super::State { people, next, .. } = &mut *state;
        let person = people.all.entry(user).or_insert_with(Person::new);
        let explicit = status.is_some();
        let mut changed = false;
        if let Some(status) = status {
            changed = person.shown.status.as_deref() != status;
            person.shown.status = status.map(Into::into);
        }
        let many = person.devices.len() >= DEVICES;
        let known = person.devices.iter_mut().find(|known| &*known.name == device);
        match known {
            // Who is busy is so until saying otherwise.
            Some(known) if known.presence == Presence::Busy && !explicit => known.until = known.until.max(until),
            Some(known) => (known.presence, known.until) = (presence, known.until.max(until)),
            None if !many => {
                person.devices.push(Device { name: device.into(), presence, until });
            }
            None => {}
        }
        // Coming online is doing something; staying there is not.
        let came = person.shown.presence == Presence::Offline && presence != Presence::Offline;
        if explicit || came {
            person.shown.active = now_ms;
        }
        people.review(user, now_ms, changed, next);
    }

    /// A user of ours does something.
    pub fn is_active(&self, user: UserNo, now_ms: u64) {
        let mut state = self.state.lock();
        let super::State { people, next, .. } = &mut *state;
        let Some(person) = people.all.get_mut(&user) else { return };
        person.shown.active = now_ms;
        if person.shown.presence == Presence::Unavailable {
            people.review(user, now_ms, false, next);
        }
    }

    /// Another server says how its user is there.
    pub fn is_told(&self, user: UserNo, presence: Presence, status: Option<&str>, active: u64, now_ms: u64) {
        let mut state = self.state.lock();
        let super::State { people, next, .. } = &mut *state;
        if !people.all.contains_key(&user) {
            people.make_room();
            people.strangers += 1;
        }
        let person = people.all.entry(user).or_insert_with(Person::new);
        person.told = Some((presence, now_ms + BELIEVED_MS));
        let changed = person.shown.status.as_deref() != status;
        person.shown.status = status.map(Into::into);
        person.shown.active = active.min(now_ms);
        people.review(user, now_ms, changed, next);
    }

    /// How somebody is there; `None` if nothing was heard of them.
    pub fn presence(&self, user: UserNo) -> Option<Shown> {
        self.state.lock().people.all.get(&user).map(|person| person.shown.clone())
    }

    /// Who changed between two places, the latest first; without the first everyone who is there.
    pub fn presences(&self, after: Option<Place>, upto: Place, limit: usize) -> Vec<(UserNo, Shown)> {
        let state = self.state.lock();
        let people = &state.people;
        let from = after.map_or(0, |after| after.saturating_add(1));
        if from > upto {
            return Vec::new();
        }
        let found = people.order.range(from..=upto).rev();
        let found = found.filter_map(|(_, user)| Some((*user, people.all.get(user)?.shown.clone())));
        found.filter(|(_, shown)| after.is_some() || shown.presence != Presence::Offline).take(limit).collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const ALICE: UserNo = UserNo(1);
    const NOW: u64 = 1_000_000;

    fn state(bus: &Bus) -> Presence {
        bus.presence(ALICE).map(|shown| shown.presence).unwrap_or_default()
    }

    #[test]
    fn devices_come_idle_and_go() {
        let bus = Bus::new(NOW);
        bus.is_there(ALICE, "phone", Presence::Online, None, (NOW, NOW + 1000));
        assert_eq!(state(&bus), Presence::Online);
        bus.is_there(ALICE, "desk", Presence::Unavailable, None, (NOW, NOW + 2 * IDLE_MS));
        assert_eq!(state(&bus), Presence::Online, "the strongest counts");
        bus.expire(NOW + 1000);
        assert_eq!(state(&bus), Presence::Unavailable, "the phone went");
        bus.is_there(ALICE, "phone", Presence::Online, None, (NOW + 2000, NOW + 2 * IDLE_MS));
        assert_eq!(state(&bus), Presence::Online);
        bus.expire(NOW + IDLE_MS + 1);
        assert_eq!(state(&bus), Presence::Unavailable, "coming back to a device that idles is doing nothing");
        bus.is_active(ALICE, NOW + IDLE_MS + 2);
        assert_eq!(state(&bus), Presence::Online);
        bus.expire(NOW + 2 * IDLE_MS);
        assert_eq!(state(&bus), Presence::Offline);
    }

    #[test]
    fn what_is_said_of_it_stays() {
        let bus = Bus::new(NOW);
        bus.is_there(ALICE, "phone", Presence::Busy, Some(Some("in a meeting")), (NOW, NOW + 1000));
        bus.is_there(ALICE, "phone", Presence::Online, None, (NOW, NOW + 1000));
        assert_eq!(state(&bus), Presence::Busy, "syncing does not end it");
        bus.expire(NOW + 1000);
        let shown = bus.presence(ALICE).unwrap();
        assert_eq!((shown.presence, shown.status.as_deref()), (Presence::Offline, Some("in a meeting")));
    }

    #[test]
    fn changes_are_told_once_and_found_by_their_place() {
        let bus = Bus::new(NOW);
        let mut told = bus.listen_to_presence();
        let before = bus.place();
        bus.is_there(ALICE, "phone", Presence::Online, None, (NOW, NOW + 1000));
        bus.is_there(ALICE, "phone", Presence::Online, None, (NOW, NOW + 1000));
        bus.is_told(UserNo(2), Presence::Online, None, NOW, NOW);
        bus.expire(NOW);
        assert_eq!(&*told.try_recv().unwrap(), [ALICE, UserNo(2)]);
        bus.expire(NOW);
        assert!(told.try_recv().is_err());
        let users = |after| bus.presences(after, bus.place(), 10).into_iter().map(|(user, _)| user).collect::<Vec<_>>();
        assert_eq!(users(Some(before)), [UserNo(2), ALICE]);
        assert_eq!(users(Some(bus.place())), []);
        bus.expire(NOW + BELIEVED_MS);
        assert_eq!(users(None), [], "who was not heard of for long is not there");
    }
}
