//! The server is stopping: whoever waits for news answers now.

use tokio::sync::watch;

/// Tells those who wait that the server is stopping.
#[derive(Clone, Debug)]
pub struct Stopping(watch::Receiver<bool>);

/// The one that stops.
#[derive(Debug)]
pub struct Stop(watch::Sender<bool>);

impl Stop {
    /// A new one, not stopping.
    #[expect(clippy::new_ret_no_self, reason = "the two ends are made together")]
    pub fn new() -> (Stop, Stopping) {
        let (send, receive) = watch::channel(false);
        (Stop(send), Stopping(receive))
    }

    /// From now on everything is stopping.
    pub fn stop(&self) {
        self.0.send_replace(true);
    }
}

impl Stopping {
    /// One that never stops, for tests.
    pub fn never() -> Stopping {
        Stop::new().1
    }

    /// Returns when the server begins to stop. Long polls wait for this too and then answer with what they have.
    pub async fn wait(&self) {
        let mut receiver = self.0.clone();
        if receiver.wait_for(|stopping| *stopping).await.is_err() {
            // Nobody is left who could stop it.
            std::future::pending::<()>().await;
        }
    }

    /// Whether it is.
    pub fn is_stopping(&self) -> bool {
        *self.0.borrow()
    }
}
