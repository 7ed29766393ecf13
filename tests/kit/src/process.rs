//! A homeserver process of our own, Stoa or Synapse: the real program, temporary data, free ports of loopback.

use std::collections::BTreeMap;
use std::fs::File;
use std::net::TcpListener;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::Arc;
use std::sync::atomic::{AtomicU16, Ordering};
use std::time::Duration;

use http::Method;
use tempfile::TempDir;
use tokio::io::AsyncWriteExt as _;

use crate::ca::{Ca, CertificateFiles};
use crate::http::Client;
use crate::link::Link;
use crate::synapse::{Place, Synapse};

/// How long a start may take before it counts as failed.
const PATIENCE: Duration = Duration::from_secs(60);

/// What to start and how.
#[derive(Clone)]
pub struct Launch {
    program: Program,
    env: BTreeMap<String, String>,
    folder: Arc<TempDir>,
    federation: Option<Federation>,
}

#[derive(Clone)]
enum Program {
    Stoa(PathBuf),
    Synapse(Synapse),
}

/// How other servers find it.
#[derive(Clone)]
struct Federation {
    ca: Arc<Ca>,
    files: CertificateFiles,
    /// The port that is part of its name.
    known: u16,
    /// The port that it listens on; another one if there is a [`Link`] in between.
    listens: u16,
}

impl Launch {
    /// This binary of Stoa with open registration, no rate limits and temporary data, which go when the last copy goes.
    ///
    /// # Panics
    /// If no temporary folder can be made.
    pub fn new(binary: impl Into<PathBuf>) -> Self {
        let mut launch = Self::of(Program::Stoa(binary.into()));
        launch.env.insert("STOA_SERVER_NAME".to_owned(), "localhost".to_owned());
        launch.env.insert("STOA_DATA".to_owned(), launch.folder.path().join("data").display().to_string());
        launch.env.insert("STOA_REGISTRATION".to_owned(), "open".to_owned());
        launch.env.insert("STOA_RATE_LIMITS".to_owned(), "off".to_owned());
        launch
    }

    /// The same as a server that others find: it is named `localhost:PORT`, listens there with a certificate of this
    /// authority, trusts the authority, and reaches servers on loopback.
    ///
    /// # Panics
    /// If no certificate can be made.
    pub fn federating(binary: impl Into<PathBuf>, ca: &Arc<Ca>) -> Self {
        let mut launch = Self::new(binary).known_to_others(ca);
        let federation = launch.federation.clone().expect("set in the line before");
        let mut set = |name: &str, value: String| launch.env.insert(name.to_owned(), value);
        set("STOA_SERVER_NAME", format!("localhost:{}", federation.known));
        set("STOA_TLS_CERTIFICATE", federation.files.certificate.display().to_string());
        set("STOA_TLS_KEY", federation.files.key.display().to_string());
        set("STOA_FEDERATION_CA", ca.file().display().to_string());
        set("STOA_FEDERATION_IP_ALLOW", "127.0.0.0/8,::1/128".to_owned());
        launch
    }

    /// Synapse, installed in this virtual environment, as a server that others find.
    ///
    /// # Panics
    /// If no certificate can be made.
    pub fn synapse(venv: impl Into<PathBuf>, ca: &Arc<Ca>) -> Self {
        Self::of(Program::Synapse(Synapse::new(venv.into()))).known_to_others(ca)
    }

    fn of(program: Program) -> Self {
        let keep = std::env::var_os("STOA_TEST_KEEP").is_some();
        let folder = tempfile::Builder::new().prefix("stoa-test-").disable_cleanup(keep).tempdir();
        let folder = Arc::new(folder.expect("a temporary folder"));
        Self { program, env: BTreeMap::new(), folder, federation: None }
    }

    fn known_to_others(mut self, ca: &Arc<Ca>) -> Self {
        let files = ca.issue(self.folder.path(), &["localhost", "127.0.0.1", "::1"]);
        let known = lasting_port();
        self.federation = Some(Federation { ca: ca.clone(), files, known, listens: known });
        self
    }

    /// Puts a line between this server and the others, which can be cut and be slow.
    ///
    /// # Panics
    /// If this server is unknown to others, or it has one already.
    pub async fn behind_link(&mut self) -> Link {
        let federation = self.federation.as_mut().expect("a server that others find");
        assert_eq!(federation.known, federation.listens, "one link is enough");
        federation.listens = lasting_port();
        Link::new(federation.known, federation.listens).await
    }

    /// The name of the server.
    pub fn server_name(&self) -> String {
        match &self.federation {
            Some(federation) => format!("localhost:{}", federation.known),
            None => self.env["STOA_SERVER_NAME"].clone(),
        }
    }

    /// The port where it listens with TLS, and the files of its certificate.
    ///
    /// # Panics
    /// If this server is unknown to others.
    pub fn tls(&self) -> (u16, &CertificateFiles) {
        let federation = self.federation.as_ref().expect("a server that others find");
        (federation.listens, &federation.files)
    }

    /// Whether this is Synapse.
    pub fn is_synapse(&self) -> bool {
        matches!(self.program, Program::Synapse(_))
    }

    /// Sets one variable of the server's environment.
    pub fn env(mut self, name: &str, value: &str) -> Self {
        self.env.insert(name.to_owned(), value.to_owned());
        self
    }

    /// Where the data of Stoa are.
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
        panic!("{} did not start:\n{}", self.what(), self.log());
    }

    /// Starts the server on this port; `None` if it ended at once.
    ///
    /// # Panics
    /// If the binary cannot be run, or stays silent.
    pub async fn start_on(&self, port: u16) -> Option<Server> {
        let log = File::options().create(true).append(true).open(self.log_file()).expect("a log file");
        let child = self
            .command(port)
            .envs(&self.env)
            .current_dir(self.folder.path())
            .stdin(Stdio::null())
            .stdout(log.try_clone().expect("a second handle of the log"))
            .stderr(log)
            .spawn()
            .unwrap_or_else(|error| panic!("cannot run {}: {error}", self.what()));
        let mut server = Server { child, url: format!("http://127.0.0.1:{port}"), port };
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
        panic!("{} stayed silent for {PATIENCE:?}:\n{}", self.what(), self.log());
    }

    fn command(&self, port: u16) -> Command {
        match (&self.program, &self.federation) {
            (Program::Synapse(synapse), Some(Federation { ca, files, listens, .. })) => synapse.command(&Place {
                folder: self.folder.path(),
                name: &self.server_name(),
                client_port: port,
                tls_port: *listens,
                ca,
                files,
            }),
            (Program::Synapse(_), None) => unreachable!("Synapse is always made to be found"),
            (Program::Stoa(binary), federation) => {
                let mut command = Command::new(binary);
                command.arg("serve").env("STOA_LISTEN", format!("127.0.0.1:{port}"));
                if let Some(federation) = federation {
                    command.env("STOA_TLS_LISTEN", format!("127.0.0.1:{}", federation.listens));
                }
                command
            }
        }
    }

    /// Writes a configuration file and starts with it.
    ///
    /// # Panics
    /// If it cannot be written.
    #[must_use]
    pub fn with_config(self, toml: &str) -> Self {
        let file = self.folder.path().join("stoa.toml");
        std::fs::write(&file, toml).expect("a configuration file");
        self.env("STOA_CONFIG", &file.display().to_string())
    }

    /// Runs a command of the binary beside the server, with this as standard input.
    ///
    /// # Panics
    /// If it cannot be run, or fails.
    pub async fn run(&self, args: &[&str], input: &str) {
        let Program::Stoa(binary) = &self.program else { panic!("only Stoa has commands") };
        let mut command = tokio::process::Command::new(binary);
        command.args(args).envs(&self.env).current_dir(self.folder.path()).stdin(Stdio::piped());
        let mut child = command.stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().expect("the command runs");
        let mut stdin = child.stdin.take().expect("its input");
        stdin.write_all(input.as_bytes()).await.expect("it reads");
        drop(stdin);
        let output = child.wait_with_output().await.expect("it ends");
        assert!(output.status.success(), "{args:?}: {}", String::from_utf8_lossy(&output.stderr));
    }

    fn what(&self) -> String {
        match &self.program {
            Program::Stoa(binary) => binary.display().to_string(),
            Program::Synapse(_) => "Synapse".to_owned(),
        }
    }

    /// The folder of everything that it writes.
    pub fn folder(&self) -> &Path {
        self.folder.path()
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

/// A port that will be free again after its server was killed: not one of those that the system gives to connections.
pub(crate) fn lasting_port() -> u16 {
    static NEXT: AtomicU16 = AtomicU16::new(0);
    // Each process begins elsewhere, because tests run side by side.
    let start = std::process::id().wrapping_mul(7919) as u16;
    for _ in 0..20_000 {
        let port = 11_000 + start.wrapping_add(NEXT.fetch_add(1, Ordering::Relaxed)) % 20_000;
        if TcpListener::bind(("127.0.0.1", port)).is_ok() {
            return port;
        }
    }
    panic!("no port of loopback is free");
}
