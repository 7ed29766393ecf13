//! One homeserver: its disk, which stays, and the server over it, which comes and goes.

use std::{
    net::{IpAddr, Ipv4Addr},
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    time::Duration,
};

use axum::{Router, body::Body};
use bytes::Bytes;
use http::{Request, Response};
use http_body_util::BodyExt;
use parking_lot::Mutex;
use stoa_engine::{Engine, memory::Memory};
use stoa_http::Peer;
use stoa_rooms::Rooms;
use stoa_server::{Config, Ground, Parts, assemble, config::Mode, router};
use stoa_store::{Env, Store};
use tokio::{sync::oneshot, task::JoinSet, time::sleep};
use tower::ServiceExt;

use crate::{
    chance::{Dice, SimClock, SimRandom},
    disk::Disk,
    network::{Network, Way},
};

/// A homeserver.
pub(crate) struct Node {
    pub(crate) name: String,
    pub(crate) network: Arc<Network>,
    config: Config,
    memory: Memory,
    /// How long the disk takes.
    dice: Arc<Mutex<Dice>>,
    env: Env,
    running: Mutex<Option<Running>>,
}

struct Running {
    parts: Parts,
    router: Router,
    /// Requests that it is answering.
    tasks: JoinSet<()>,
    disk: Arc<dyn Engine>,
    on: Arc<AtomicBool>,
}

impl Node {
    pub(crate) fn new(name: &str, network: &Arc<Network>, clock: SimClock, seed: u64) -> Arc<Node> {
        let mut config = Config { server_name: name.to_owned(), ..Config::default() };
        config.registration.mode = Mode::Open;
        config.limits.enabled = false;
        let node = Arc::new(Node {
            name: name.to_owned(),
            network: network.clone(),
            config,
            // Small pages find callers that do not ask again.
            memory: Memory::with_page(50),
            dice: Arc::new(Mutex::new(Dice::new(seed, &format!("disk of {name}")))),
            env: Env { clock: Arc::new(clock), random: Arc::new(SimRandom::new(seed, name)) },
            running: Mutex::new(None),
        });
        network.add(&node);
        node
    }

    /// Starts the server over what is on its disk.
    pub(crate) async fn start(&self) -> Result<(), String> {
        self.network.note(|| format!("{} starts", self.name));
        let (disk, on) = Disk::of(&self.memory, &self.dice);
        let disk: Arc<dyn Engine> = Arc::new(disk);
        let way = Way { from: self.name.clone(), network: self.network.clone() };
        let (engine, transport, env) = (disk.clone(), Arc::new(way), self.env.clone());
        let ground = Ground { engine, transport, previews: None, push: None, env, search: false };
        let parts = assemble(&self.config, ground).await;
        let parts = parts.map_err(|why| format!("{} does not start: {why}", self.name))?;
        let router = router(&self.config, &parts.api);
        *self.running.lock() = Some(Running { parts, router, tasks: JoinSet::new(), disk, on });
        Ok(())
    }

    /// Everything stops between one moment and the next, and what was not committed is lost.
    pub(crate) async fn crash(&self) -> Result<(), String> {
        let Some(running) = self.running.lock().take() else { return Ok(()) };
        self.network.note(|| format!("{} crashes", self.name));
        running.on.store(false, Ordering::SeqCst);
        let Running { parts, router, tasks, disk, .. } = running;
        drop((tasks, router, parts));
        self.gone(disk).await
    }

    /// The server ends as it should.
    pub(crate) async fn stop(&self) -> Result<(), String> {
        let Some(running) = self.running.lock().take() else { return Ok(()) };
        self.network.note(|| format!("{} stops", self.name));
        let Running { parts, router, mut tasks, disk, .. } = running;
        parts.api.view.stop_waiting();
        let ended = tokio::time::timeout(Duration::from_secs(10), async { while tasks.join_next().await.is_some() {} });
        let _ = ended.await;
        drop((tasks, router));
        parts.close().await;
        self.gone(disk).await
    }

    /// A store that outlives its server would write beside the next one.
    async fn gone(&self, disk: Arc<dyn Engine>) -> Result<(), String> {
        for _ in 0..100 {
            sleep(Duration::from_millis(1)).await;
            if Arc::strong_count(&disk) == 1 {
                return Ok(());
            }
        }
        Err(format!("{}: something still holds the store after the end", self.name))
    }

    pub(crate) fn is_up(&self) -> bool {
        self.running.lock().is_some()
    }

    /// What is inside of the server, if it runs.
    pub(crate) fn inside(&self) -> Option<(Store, Rooms)> {
        let running = self.running.lock();
        running.as_ref().map(|running| (running.parts.store.clone(), running.parts.api.rooms.clone()))
    }

    /// Asks the server, which does it to the end if it does not crash, whoever waits for the answer.
    pub(crate) fn ask_after(
        &self,
        after: Duration,
        request: Request<Bytes>,
    ) -> Option<oneshot::Receiver<Response<Bytes>>> {
        let mut running = self.running.lock();
        let running = running.as_mut()?;
        while running.tasks.try_join_next().is_some() {}
        let (sender, receiver) = oneshot::channel();
        let router = running.router.clone();
        running.tasks.spawn(async move {
            if !after.is_zero() {
                sleep(after).await;
            }
            // Nobody waiting any more is fine.
            let _ = sender.send(answer(router, request).await);
        });
        Some(receiver)
    }

    /// Asks the server as a client does. `None` where it is down, or goes down before it answers.
    pub(crate) async fn ask(&self, request: Request<Bytes>) -> Option<Response<Bytes>> {
        self.ask_after(Duration::ZERO, request)?.await.ok()
    }
}

async fn answer(router: Router, request: Request<Bytes>) -> Response<Bytes> {
    let mut request = request.map(Body::from);
    request.extensions_mut().insert(Peer(IpAddr::V4(Ipv4Addr::LOCALHOST)));
    let Ok(response) = router.oneshot(request).await;
    let (parts, body) = response.into_parts();
    let body = body.collect().await.map(|body| body.to_bytes()).unwrap_or_default();
    Response::from_parts(parts, body)
}
