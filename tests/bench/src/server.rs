//! The homeserver that is measured: starting and stopping it.

use std::process::{Child, Command, ExitStatus, Stdio};
use std::time::Duration;

use stoa_kit::{Client, Method};
use tokio::time::{Instant, sleep};

/// How long a start or a stop may take.
const PATIENCE: Duration = Duration::from_secs(120);

/// A running homeserver.
pub struct Server {
    child: Child,
}

impl Server {
    /// Starts it; gives the time to the first answer.
    pub async fn start(command: &str, client: &Client) -> Result<(Self, Duration), String> {
        let begin = Instant::now();
        let child = Command::new("sh")
            .args(["-c", &format!("exec {command}")])
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(Stdio::inherit())
            .spawn()
            .map_err(|error| format!("cannot run {command}: {error}"))?;
        let mut server = Self { child };
        while begin.elapsed() < PATIENCE {
            if let Ok(Some(status)) = server.child.try_wait() {
                return Err(format!("{command} ended: {status}"));
            }
            let ask = client.attempt(Method::GET, "/_matrix/client/versions", None, "", Default::default());
            if ask.await.is_ok_and(|reply| reply.status == 200) {
                return Ok((server, begin.elapsed()));
            }
            sleep(Duration::from_millis(2)).await;
        }
        Err(format!("{command} does not answer"))
    }

    /// Its process.
    pub fn pid(&self) -> u32 {
        self.child.id()
    }

    /// Asks it to end, and waits.
    pub async fn stop(mut self) -> Result<ExitStatus, String> {
        let asked = Command::new("kill").args(["-TERM", &self.pid().to_string()]).status();
        asked.map_err(|error| error.to_string())?;
        let begin = Instant::now();
        while begin.elapsed() < PATIENCE {
            if let Ok(Some(status)) = self.child.try_wait() {
                return Ok(status);
            }
            sleep(Duration::from_millis(10)).await;
        }
        Err("it does not end when asked".to_owned())
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        // Either fails only if it has ended already.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}
