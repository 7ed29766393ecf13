//! A push gateway on loopback: it writes down what it is told, and fails as it is told to.

use std::collections::{BTreeSet, VecDeque};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use serde_json::{Value, json};
use tokio::io::{AsyncBufReadExt, AsyncReadExt, AsyncWriteExt, BufReader};
use tokio::net::{TcpListener, TcpStream};
use tokio::task::JoinSet;

use crate::process::lasting_port;

/// How long a test waits for a push at most.
const PATIENCE: Duration = Duration::from_secs(20);

/// What a gateway does with a request, instead of taking it.
#[derive(Clone, Debug)]
pub enum Fault {
    /// It says so, with this status.
    Status(u16),
    /// The same, asking to be left alone for so many seconds.
    RetryAfter(u16, u64),
    /// The connection ends before anything was read.
    Drop,
    /// It takes what it is told, and the connection ends before it says so.
    TakeAndDrop,
    /// The push key is none.
    Reject,
    /// It takes it, slowly.
    Slow(Duration),
    /// It takes it and says something without end.
    Endless,
    /// It takes it and says what is no JSON.
    Nonsense,
}

/// One request that a gateway was sent.
#[derive(Clone, Debug)]
pub struct Pushed {
    /// The lines before the body.
    pub head: String,
    /// The body.
    pub body: Vec<u8>,
    /// The body as JSON.
    pub json: Value,
    /// Whether the gateway took it.
    pub taken: bool,
}

impl Pushed {
    /// The `notification`.
    pub fn notification(&self) -> &Value {
        &self.json["notification"]
    }

    /// The event id, if one was told.
    pub fn event_id(&self) -> Option<&str> {
        self.notification()["event_id"].as_str()
    }

    /// A header, in any case of letters.
    pub fn header(&self, name: &str) -> Option<&str> {
        self.head.lines().find_map(|line| {
            let (found, value) = line.split_once(':')?;
            found.eq_ignore_ascii_case(name).then(|| value.trim())
        })
    }
}

#[derive(Default)]
struct Inner {
    /// For the next requests, one each; and for all after them.
    faults: Mutex<VecDeque<Fault>>,
    always: Mutex<Option<Fault>>,
    pushed: Mutex<Vec<Pushed>>,
    /// How many requests are being answered, and how many at most were at once.
    busy: Mutex<(usize, usize)>,
}

/// A push gateway; it ends with the test.
pub struct Gateway {
    inner: Arc<Inner>,
    port: u16,
    tasks: Option<JoinSet<()>>,
}

impl Gateway {
    /// Opens at loopback.
    ///
    /// # Panics
    /// If there is no port.
    pub async fn start() -> Gateway {
        let mut gateway = Gateway { inner: Arc::default(), port: lasting_port(), tasks: None };
        gateway.open().await;
        gateway
    }

    /// Opens again where it was.
    ///
    /// # Panics
    /// If the port was taken.
    pub async fn open(&mut self) {
        let listener = TcpListener::bind(("127.0.0.1", self.port)).await.expect("the port of the gateway");
        let inner = self.inner.clone();
        let mut tasks = JoinSet::new();
        tasks.spawn(async move {
            let mut connections = JoinSet::new();
            while let Ok((stream, _)) = listener.accept().await {
                let inner = inner.clone();
                connections.spawn(async move { drop(inner.serve(stream).await) });
            }
        });
        self.tasks = Some(tasks);
    }

    /// It is gone, with all connections. What it was told stays.
    pub async fn close(&mut self) {
        if let Some(mut tasks) = self.tasks.take() {
            tasks.shutdown().await;
        }
    }

    /// The URL for a pusher.
    pub fn url(&self) -> String {
        format!("http://127.0.0.1:{}/_matrix/push/v1/notify", self.port)
    }

    /// Any other URL there.
    pub fn at(&self, path: &str) -> String {
        format!("http://127.0.0.1:{}{path}", self.port)
    }

    /// The next request goes wrong.
    ///
    /// # Panics
    /// If a test failed while it did the same.
    pub fn fail_next(&self, fault: Fault) {
        self.inner.faults.lock().expect("no panic").push_back(fault);
    }

    /// All requests go wrong, or none any more.
    ///
    /// # Panics
    /// If a test failed while it did the same.
    pub fn fail(&self, fault: Option<Fault>) {
        *self.inner.always.lock().expect("no panic") = fault;
    }

    /// All that was told so far, also what was not taken.
    ///
    /// # Panics
    /// If a test failed while it did the same.
    pub fn told(&self) -> Vec<Pushed> {
        self.inner.pushed.lock().expect("no panic").clone()
    }

    /// What was taken so far.
    pub fn taken(&self) -> Vec<Pushed> {
        self.told().into_iter().filter(|pushed| pushed.taken).collect()
    }

    /// The ids of the events that were taken, in order.
    pub fn events(&self) -> Vec<String> {
        self.taken().iter().filter_map(|pushed| pushed.event_id().map(str::to_owned)).collect()
    }

    /// How many push keys were told of an event.
    ///
    /// # Panics
    /// If a test failed while it did the same.
    pub fn phones_told(&self, event: &str) -> usize {
        let pushed = self.inner.pushed.lock().expect("no panic");
        let told = pushed.iter().rev().filter(|pushed| pushed.taken && pushed.event_id() == Some(event));
        told.map(|pushed| pushed.notification()["devices"][0]["pushkey"].to_string()).collect::<BTreeSet<_>>().len()
    }

    /// How many requests at most were under way at once.
    ///
    /// # Panics
    /// If a test failed while it did the same.
    pub fn most_at_once(&self) -> usize {
        self.inner.busy.lock().expect("no panic").1
    }

    /// Waits until something was taken that fits, and gives the first.
    ///
    /// # Panics
    /// If it does not come.
    pub async fn until(&self, fits: impl Fn(&Pushed) -> bool) -> Pushed {
        let start = tokio::time::Instant::now();
        loop {
            if let Some(found) = self.taken().into_iter().find(|pushed| fits(pushed)) {
                return found;
            }
            let told: Vec<Value> = self.told().into_iter().map(|pushed| pushed.json).collect();
            assert!(start.elapsed() < PATIENCE, "no such push came, only {}", json!(told));
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
    }

    /// Waits until it was told of an event.
    pub async fn event(&self, id: &str) -> Pushed {
        self.until(|pushed| pushed.event_id() == Some(id)).await
    }

    /// Waits until it was told of a number of unread messages, by itself.
    pub async fn badge(&self, unread: u64) -> Pushed {
        self.until(|pushed| pushed.event_id().is_none() && pushed.notification()["counts"]["unread"] == unread).await
    }
}

impl Inner {
    async fn serve(&self, stream: TcpStream) -> std::io::Result<()> {
        let mut stream = BufReader::new(stream);
        loop {
            let mut head = String::new();
            loop {
                match stream.read_line(&mut head).await? {
                    0 => return Ok(()),
                    2 => break,
                    _ => {}
                }
            }
            let fault = self.faults.lock().expect("no panic").pop_front();
            let fault = fault.or_else(|| self.always.lock().expect("no panic").clone());
            if matches!(fault, Some(Fault::Drop)) {
                return Ok(());
            }
            let length = head
                .lines()
                .find_map(|line| line.to_ascii_lowercase().strip_prefix("content-length:")?.trim().parse().ok());
            let mut body = vec![0; length.unwrap_or_default()];
            stream.read_exact(&mut body).await?;
            self.count(true);
            let answer = self.answer(&mut stream, head, body, fault).await;
            self.count(false);
            if !answer? {
                return Ok(());
            }
        }
    }

    fn count(&self, begins: bool) {
        let mut busy = self.busy.lock().expect("no panic");
        busy.0 = if begins { busy.0 + 1 } else { busy.0 - 1 };
        busy.1 = busy.1.max(busy.0);
    }

    /// Whether the connection stays.
    async fn answer(
        &self,
        stream: &mut BufReader<TcpStream>,
        head: String,
        body: Vec<u8>,
        fault: Option<Fault>,
    ) -> std::io::Result<bool> {
        let json: Value = serde_json::from_slice(&body).unwrap_or_default();
        let key = json["notification"]["devices"][0]["pushkey"].clone();
        let taken = !matches!(fault, Some(Fault::Status(_) | Fault::RetryAfter(..) | Fault::Reject));
        if let Some(Fault::Slow(delay)) = fault {
            tokio::time::sleep(delay).await;
        }
        self.pushed.lock().expect("no panic").push(Pushed { head, body, json, taken });
        let (status, more, said) = match fault {
            Some(Fault::TakeAndDrop) => return Ok(false),
            Some(Fault::Status(status)) => (status, String::new(), "no".to_owned()),
            Some(Fault::RetryAfter(status, seconds)) => {
                (status, format!("Retry-After: {seconds}\r\n"), "no".to_owned())
            }
            Some(Fault::Reject) => (200, String::new(), json!({ "rejected": [key] }).to_string()),
            Some(Fault::Nonsense) => (200, String::new(), "thank you".to_owned()),
            Some(Fault::Endless) => {
                stream.write_all(b"HTTP/1.1 200 Said\r\nConnection: close\r\n\r\n").await?;
                loop {
                    stream.write_all(&[b' '; 4096]).await?;
                }
            }
            _ => (200, String::new(), json!({ "rejected": [] }).to_string()),
        };
        let length = said.len();
        let answer = format!("HTTP/1.1 {status} Said\r\n{more}Content-Length: {length}\r\n\r\n{said}");
        stream.write_all(answer.as_bytes()).await?;
        Ok(true)
    }
}
