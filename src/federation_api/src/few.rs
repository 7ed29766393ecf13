//! Working out a whole state or auth chain costs much: a server may ask for a few of them at once, the others wait.

use std::{collections::HashMap, sync::Arc, time::Duration};

use axum::{
    extract::{Request, State},
    middleware::Next,
    response::{IntoResponse, Response},
};
use parking_lot::Mutex;
use ruma_common::OwnedServerName;
use stoa_http::{Error, origin::Origin};
use tokio::sync::Semaphore;

/// How many of one server's questions are worked on at once.
const AT_ONCE: usize = 2;
/// How long the others wait.
const PATIENCE: Duration = Duration::from_secs(20);

/// Whose questions are being worked on.
#[derive(Clone, Default)]
pub(crate) struct Few {
    turns: Arc<Mutex<HashMap<OwnedServerName, Arc<Semaphore>>>>,
}

impl Few {
    fn turns_of(&self, origin: OwnedServerName) -> Arc<Semaphore> {
        let mut turns = self.turns.lock();
        turns.retain(|_, turns| Arc::strong_count(turns) > 1);
        turns.entry(origin).or_insert_with(|| Arc::new(Semaphore::new(AT_ONCE))).clone()
    }
}

/// The layer.
pub(crate) async fn few(State(few): State<Few>, Origin(origin): Origin, request: Request, next: Next) -> Response {
    let turns = few.turns_of(origin);
    match tokio::time::timeout(PATIENCE, turns.acquire()).await {
        Ok(Ok(_turn)) => next.run(request).await,
        _ => Error::limit_exceeded(PATIENCE.as_secs() * 1000).into_response(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn each_server_has_a_few_turns() {
        let few = Few::default();
        let name = |name: &str| OwnedServerName::try_from(name).unwrap();
        let (one, again, other) =
            (few.turns_of(name("a.example")), few.turns_of(name("a.example")), few.turns_of(name("b.example")));
        let _held = [one.acquire().await.unwrap(), again.acquire().await.unwrap()];
        assert!(one.try_acquire().is_err());
        assert!(other.try_acquire().is_ok());
        // Who asks nothing is forgotten.
        drop(other);
        few.turns_of(name("c.example"));
        assert!(!few.turns.lock().contains_key(&name("b.example")));
        assert!(few.turns.lock().contains_key(&name("a.example")));
    }
}
