//! A homeserver process of our own: the real binary, temporary data, a free port of loopback.

use std::collections::BTreeMap;
use std::fs::File;
use std::net::TcpListener;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::Arc;
use std::time::Duration;

use http::Method;
use tempfile::TempDir;

use crate::http::Client;

/// How long a start may take before it counts as failed.
const PATIENCE: Duration = Duration::from_secs(60);

/// What to start and how.
#[derive(Clone)]
pub struct Launch {
    binary: PathBuf,
    env: BTreeMap<String, String>,
    folder: Arc<TempDir>,
}

impl Launch {
    /// This binary with open registration, no rate limits and temporary data, which go when the last copy goes.
    ///
    /// # Panics
    /// If no temporary folder can be made.
    pub fn new(binary: impl Into<PathBuf>) -> Self {
        let folder = Arc::new(tempfile::Builder::new().prefix("stoa-test-").tempdir().expect("a temporary folder"));
        let mut env = BTreeMap::new();
        env.insert("STOA_SERVER_NAME".to_owned(), "localhost".to_owned());
        env.insert("STOA_DATA".to_owned(), folder.path().join("data").display().to_string());
        env.insert("STOA_REGISTRATION".to_owned(), "open".to_owned());
        env.insert("STOA_RATE_LIMITS".to_owned(), "off".to_owned());
        Self { binary: binary.into(), env, folder }
    }

    /// Sets one variable of the server's environment.
    pub fn env(mut self, name: &str, value: &str) -> Self {
        self.env.insert(name.to_owned(), value.to_owned());
        self
    }

    /// Where the data are.
    pub fn data(&self) -> PathBuf {
        PathBuf::from(&self.env["STOA_DATA"])
    }

    /// Starts the server and waits until it answers.
    ///
    /// # Panics
    /// If it does not, with its log.
    pub async fn start(&self) -> Server {
        // Another process can take the free port in between; then the server says so and ends.
        for _ in 0..5 {
            if let Some(server) = self.start_on(free_port()).await {
                return server;
            }
        }
        panic!("{} did not start:\n{}", self.binary.display(), self.log());
    }

    /// Starts the server on this port; `None` if it ended at once.
    ///
    /// # Panics
    /// If the binary cannot be run, or stays silent.
    pub async fn start_on(&self, port: u16) -> Option<Server> {
        let listen = format!("127.0.0.1:{port}");
        let log = File::options().create(true).append(true).open(self.log_file()).expect("a log file");
        let child = Command::new(&self.binary)
            .arg("serve")
            .envs(&self.env)
            .env("STOA_LISTEN", &listen)
            .current_dir(self.folder.path())
            .stdin(Stdio::null())
            .stdout(log.try_clone().expect("a second handle of the log"))
            .stderr(log)
            .spawn()
            .unwrap_or_else(|error| panic!("cannot run {}: {error}", self.binary.display()));
        let mut server = Server { child, url: format!("http://{listen}"), port };
        let client = Client::new(&server.url);
        let start = tokio::time::Instant::now();
        while start.elapsed() < PATIENCE {
            if matches!(server.child.try_wait(), Ok(Some(_))) {
                return None;
            }
            let ask = client.attempt(Method::GET, "/_matrix/client/versions", None, "", bytes::Bytes::new());
            if ask.await.is_ok_and(|reply| reply.status == 200) {
                return Some(server);
            }
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
        panic!("{} stayed silent for {PATIENCE:?}:\n{}", self.binary.display(), self.log());
    }

    /// The last lines that the server wrote.
    pub fn log(&self) -> String {
        let text = std::fs::read_to_string(self.log_file()).unwrap_or_default();
        let lines: Vec<&str> = text.lines().collect();
        lines[lines.len().saturating_sub(40)..].join("\n")
    }

    fn log_file(&self) -> PathBuf {
        Path::new(self.folder.path()).join("log")
    }
}

/// A running server; it is killed when this goes.
pub struct Server {
    child: Child,
    /// Its address.
    pub url: String,
    /// Its port.
    pub port: u16,
}

impl Server {
    /// Its process id.
    pub fn pid(&self) -> u32 {
        self.child.id()
    }

    /// SIGKILL: no warning, no flush.
    pub fn kill(&mut self) {
        // Either fails only if it has ended already.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }

    /// Asks the server to end (SIGTERM) and waits until it has.
    ///
    /// # Panics
    /// If it does not end within half a minute.
    pub async fn stop(mut self) -> std::process::ExitStatus {
        let pid = self.pid().to_string();
        let asked = Command::new("kill").args(["-TERM", &pid]).status();
        assert!(asked.is_ok_and(|status| status.success()), "cannot ask process {pid} to end");
        let start = tokio::time::Instant::now();
        loop {
            if let Ok(Some(status)) = self.child.try_wait() {
                return status;
            }
            assert!(start.elapsed() < Duration::from_secs(30), "process {pid} does not end when asked");
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        self.kill();
    }
}

/// A port of loopback that nobody listens on now.
fn free_port() -> u16 {
    let probe = TcpListener::bind("127.0.0.1:0").expect("a free port of loopback");
    probe.local_addr().expect("an address").port()
}
