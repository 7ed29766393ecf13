//! A server of accounts in memory, with a clock that stands still until it is told to go on.
#![allow(dead_code)]

use std::sync::{
    Arc,
    atomic::{AtomicU64, Ordering},
};

use sha2::{Digest, Sha256};
use stoa_accounts::{
    Accounts, Challenge, Config, Error, LoggedIn, NewAccount, NewDevice, Password, Registration, Who, uia::AuthData,
};
use stoa_engine::memory::Memory;
use stoa_event::ids::{OwnedUserId, UserId};
use stoa_store::{Clock, Env, Options, Random, Store, Tx, rows::rooms::OwnMembership};

/// The password of everybody here.
pub const SECRET: &str = "correct horse";

struct TestClock(AtomicU64);

impl Clock for TestClock {
    fn now_ms(&self) -> u64 {
        self.0.load(Ordering::SeqCst)
    }
}

#[derive(Default)]
struct TestRandom(AtomicU64);

impl Random for TestRandom {
    fn fill(&self, bytes: &mut [u8]) {
        for chunk in bytes.chunks_mut(32) {
            let n = self.0.fetch_add(1, Ordering::SeqCst);
            chunk.copy_from_slice(&Sha256::digest(n.to_be_bytes())[..chunk.len()]);
        }
    }
}

/// The server.
pub struct Server {
    pub accounts: Accounts,
    pub store: Store,
    clock: Arc<TestClock>,
}

/// Cheap hashing, open registration.
pub fn config() -> Config {
    Config { argon2_memory_kib: 64, argon2_passes: 1, registration: Registration::Open, ..Config::default() }
}

impl Server {
    pub async fn new(config: Config) -> Server {
        let clock = Arc::new(TestClock(AtomicU64::new(1_700_000_000_000)));
        let (store, committer) = Store::open(Arc::new(Memory::with_page(3)), Options::default()).await.unwrap();
        tokio::spawn(committer.run());
        let env = Env { clock: clock.clone(), random: Arc::new(TestRandom::default()) };
        let name = "stoa.test".try_into().unwrap();
        Server { accounts: Accounts::new(store.clone(), env, name, config), store, clock }
    }

    pub async fn open() -> Server {
        Self::new(config()).await
    }

    pub fn wait(&self, ms: u64) {
        self.clock.0.fetch_add(ms, Ordering::SeqCst);
    }

    /// Makes an account and logs it in.
    pub async fn user(&self, name: &str) -> (OwnedUserId, Who, String) {
        self.accounts.create_user(name, password(SECRET), false).await.unwrap();
        let LoggedIn { user, tokens, .. } = self.login(name, NewDevice::default()).await.unwrap();
        let who = self.accounts.whoami(&tokens.access).await.unwrap();
        (user, who, tokens.access)
    }

    pub async fn login(&self, name: &str, device: NewDevice) -> Result<LoggedIn, Error> {
        self.accounts.login(name, password(SECRET), &device).await
    }

    /// A room in which the user is.
    pub async fn room(&self, who: &Who, id: &str) {
        let snapshot = self.store.snapshot().await.unwrap();
        let mut tx = Tx::new();
        let room = self.store.names().name_room(&snapshot, &mut tx, id).await.unwrap();
        let own = OwnMembership {
            membership: stoa_store::Membership::Join,
            event: None,
            at: stoa_store::Position(1),
            joined_at: None,
            left_at: None,
            stripped: None,
            by: None,
            forgotten: false,
            outside: None,
        };
        stoa_store::rows::rooms::put_own_as_is(&mut tx, who.user_no, room, &own);
        self.store.commit(tx).await.unwrap();
    }
}

pub fn password(text: &str) -> Password {
    Password::new(text.to_owned())
}

pub fn device(id: &str) -> NewDevice {
    NewDevice { id: Some(id.to_owned()), ..NewDevice::default() }
}

pub fn new_account(name: &str) -> NewAccount {
    NewAccount {
        username: Some(name.to_owned()),
        password: Some(SECRET.to_owned()),
        device: Some(NewDevice::default()),
        guest_token: None,
    }
}

pub fn user_id(id: &str) -> &UserId {
    id.try_into().unwrap()
}

/// `auth` from JSON.
pub fn auth(json: serde_json::Value) -> AuthData {
    serde_json::from_value(json).unwrap()
}

/// The challenge that an error is.
pub fn challenge<T>(result: Result<T, Error>) -> Challenge {
    match result {
        Err(Error::Challenge(challenge)) => *challenge,
        Err(other) => panic!("not a challenge: {other:?}"),
        Ok(_) => panic!("not a challenge but done"),
    }
}

/// The errcode that a challenge carries.
pub fn refusal<T>(result: Result<T, Error>) -> &'static str {
    challenge(result).refused.expect("a refusal").errcode
}

/// Asserts that a result is an error of a kind.
#[macro_export]
macro_rules! refused {
    ($result:expr, $pattern:pat) => {
        match $result {
            Err($pattern) => {}
            Err(other) => panic!("another error: {other:?}"),
            Ok(_) => panic!("no error"),
        }
    };
}

/// What push rules are told of a room.
pub fn room_context(user: &UserId) -> ruma_common::push::PushConditionRoomCtx {
    let room = "!room:stoa.test".try_into().unwrap();
    ruma_common::push::PushConditionRoomCtx::new(room, 2u32.into(), user.to_owned(), "Alice".to_owned())
}
