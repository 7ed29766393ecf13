//! A homeserver as a test sees it: where it answers, and how to get users on it.

use http::Method;
use serde_json::{Value, json};

use crate::account::User;
use crate::http::{Client, Reply};
use crate::process::{Launch, Server};
use crate::random::unique;

/// A homeserver.
pub struct Home {
    client: Client,
    running: Option<(Launch, Server)>,
}

impl Home {
    /// Starts this binary with open registration on temporary data.
    pub async fn start(binary: &str) -> Self {
        Self::launch(Launch::new(binary)).await
    }

    /// Starts what was laid out.
    pub async fn launch(launch: Launch) -> Self {
        let server = launch.start().await;
        Self { client: Client::new(&server.url), running: Some((launch, server)) }
    }

    /// A homeserver that runs already.
    pub fn at(url: &str) -> Self {
        Self { client: Client::new(url), running: None }
    }

    /// Its address.
    pub fn url(&self) -> &str {
        self.client.base()
    }

    /// Its name, the part of user IDs after the colon.
    ///
    /// # Panics
    /// If it was not started here.
    pub fn server_name(&self) -> String {
        self.how().server_name()
    }

    /// The process, if it was started here.
    pub fn pid(&self) -> Option<u32> {
        self.running.as_ref().map(|(_, server)| server.pid())
    }

    /// How it was started.
    ///
    /// # Panics
    /// If it was not started here.
    pub fn how(&self) -> &Launch {
        &self.running.as_ref().expect("a server that was started here").0
    }

    /// Kills the server without warning.
    ///
    /// # Panics
    /// If it was not started here.
    pub fn kill(&mut self) {
        self.running.as_mut().expect("a server that was started here").1.kill();
    }

    /// Starts the same data again on the same port, so that users keep their address.
    ///
    /// # Panics
    /// If it was not started here or does not come up.
    pub async fn restart(&mut self) {
        let (launch, mut server) = self.running.take().expect("a server that was started here");
        server.kill();
        let again = launch.start_on(server.port).await;
        let again = again.unwrap_or_else(|| panic!("it does not start again:\n{}", launch.log()));
        self.running = Some((launch, again));
    }

    /// Asks the server to end and waits; gives back how it was started.
    ///
    /// # Panics
    /// If it was not started here or does not end.
    pub async fn stop(mut self) -> (Launch, std::process::ExitStatus) {
        let (launch, server) = self.running.take().expect("a server that was started here");
        let status = server.stop().await;
        (launch, status)
    }

    /// Registers a new account; the name gets an ending, so that several tests can share one homeserver.
    pub async fn user(&self, name: &str) -> User {
        User::register(&self.client, &format!("{name}-{}", unique())).await
    }

    /// Logs in once more with the password, as another device.
    pub async fn device_of(&self, user: &User) -> User {
        User::login(&self.client, &user.id, &user.password).await
    }

    /// An administrator, made by the command of the binary.
    ///
    /// # Panics
    /// If it fails.
    pub async fn administrator(&self) -> User {
        let name = format!("admin-{}", unique());
        self.how().run(&["user", "add", &name, "--admin", "--password-stdin"], "a password of a test\n").await;
        User::login(&self.client, &name, "a password of a test").await
    }

    /// `GET` without an access token.
    pub async fn get(&self, path: &str) -> Reply {
        self.client.json(Method::GET, path, None, None).await
    }

    /// `POST` without an access token.
    pub async fn post(&self, path: &str, body: Value) -> Reply {
        self.client.json(Method::POST, path, None, Some(&body)).await
    }

    /// Registers with exactly this body, going through `m.login.dummy` if the server asks for it.
    pub async fn register(&self, mut body: Value) -> Reply {
        let first = self.post("/register", body.clone()).await;
        if first.status != 401 {
            return first;
        }
        body["auth"] = json!({ "type": "m.login.dummy", "session": first["session"] });
        self.post("/register", body).await
    }

    /// The client beneath, for requests of any shape.
    pub fn client(&self) -> &Client {
        &self.client
    }
}
