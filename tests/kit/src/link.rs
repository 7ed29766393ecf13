//! The line to a server that can be cut and be slow: a TCP proxy between the port that others know and the real one.

use std::sync::Arc;
use std::time::Duration;

use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::watch;
use tokio::task::JoinHandle;
use tokio::time::sleep;

#[derive(Clone, Copy, Default)]
struct Condition {
    cut: bool,
    delay: Duration,
}

/// The line to one server, for as long as this lives.
pub struct Link {
    condition: Arc<watch::Sender<Condition>>,
    task: JoinHandle<()>,
}

impl Link {
    /// A line from one port of loopback to another.
    ///
    /// # Panics
    /// If the port is taken.
    pub async fn new(from: u16, to: u16) -> Link {
        let listener = TcpListener::bind(("127.0.0.1", from)).await.expect("the port of a link");
        let condition = Arc::new(watch::channel(Condition::default()).0);
        let conditions = condition.clone();
        let task = tokio::spawn(async move {
            while let Ok((near, _)) = listener.accept().await {
                let mut watching = conditions.subscribe();
                if watching.borrow().cut {
                    continue;
                }
                tokio::spawn(async move {
                    let ends = watching.clone();
                    tokio::select! {
                        () = carry(near, to, ends) => {}
                        _ = watching.wait_for(|condition| condition.cut) => {}
                    }
                });
            }
        });
        Link { condition, task }
    }

    /// Breaks all connections, and every one that is tried from now on.
    pub fn cut(&self) {
        self.condition.send_modify(|condition| condition.cut = true);
    }

    /// Lets connections through again.
    pub fn mend(&self) {
        self.condition.send_modify(|condition| condition.cut = false);
    }

    /// Holds up whatever is carried, each way.
    pub fn delay(&self, delay: Duration) {
        self.condition.send_modify(|condition| condition.delay = delay);
    }
}

impl Drop for Link {
    fn drop(&mut self) {
        self.cut();
        self.task.abort();
    }
}

async fn carry(near: TcpStream, to: u16, condition: watch::Receiver<Condition>) {
    let Ok(far) = TcpStream::connect(("127.0.0.1", to)).await else { return };
    let ((near_in, near_out), (far_in, far_out)) = (near.into_split(), far.into_split());
    tokio::join!(copy(near_in, far_out, condition.clone()), copy(far_in, near_out, condition));
}

async fn copy(
    mut from: impl AsyncRead + Unpin,
    mut to: impl AsyncWrite + Unpin,
    condition: watch::Receiver<Condition>,
) {
    let mut buffer = vec![0; 64 * 1024];
    while let Ok(n @ 1..) = from.read(&mut buffer).await {
        let delay = condition.borrow().delay;
        if !delay.is_zero() {
            sleep(delay).await;
        }
        if to.write_all(&buffer[..n]).await.is_err() {
            return;
        }
    }
    let _ = to.shutdown().await;
}
