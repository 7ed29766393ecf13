//! The network between the servers: calls of one another's routers, with everything that goes wrong on the way.

use std::{
    collections::BTreeMap,
    fmt::Write,
    sync::{Arc, Weak},
    time::Duration,
};

use bytes::Bytes;
use futures_util::future::BoxFuture;
use http::{Method, Request, Response};
use parking_lot::Mutex;
use sha2::{Digest, Sha256};
use stoa_event::ids::ServerName;
use stoa_remote::{Limits, Transport, TransportError};
use tokio::time::{Instant, sleep};

use crate::{chance::Dice, node::Node};

/// What goes wrong on the way from one server to another, in hundredths.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Faults {
    /// Nothing gets through.
    pub(crate) cut: bool,
    /// A request is lost.
    pub(crate) lose: u64,
    /// The request is done, but its answer is lost.
    pub(crate) mute: u64,
    /// A request is done twice.
    pub(crate) twice: u64,
    /// A request is done long after its sender gave up.
    pub(crate) late: u64,
    /// How long the way takes at most.
    pub(crate) slow_ms: u64,
}

/// What becomes of one request.
struct Plan {
    there: Duration,
    back: Duration,
    lose: bool,
    mute: bool,
    hang: bool,
    twice: Option<Duration>,
    late: Option<Duration>,
}

struct Inner {
    dice: Dice,
    faults: BTreeMap<(String, String), Faults>,
    nodes: BTreeMap<String, Weak<Node>>,
    under_way: usize,
    /// What happened, and its hash.
    hash: Sha256,
    lines: Option<Vec<String>>,
}

/// The network.
pub(crate) struct Network {
    begin: Instant,
    inner: Mutex<Inner>,
}

impl Network {
    pub(crate) fn new(seed: u64, begin: Instant, lines: bool) -> Arc<Network> {
        let inner = Inner {
            dice: Dice::new(seed, "network"),
            faults: BTreeMap::new(),
            nodes: BTreeMap::new(),
            under_way: 0,
            hash: Sha256::new(),
            lines: lines.then(Vec::new),
        };
        Arc::new(Network { begin, inner: Mutex::new(inner) })
    }

    pub(crate) fn add(&self, node: &Arc<Node>) {
        self.inner.lock().nodes.insert(node.name.clone(), Arc::downgrade(node));
    }

    /// Sets what goes wrong from one server to another.
    pub(crate) fn set(&self, from: &str, to: &str, faults: Faults) {
        self.note(|| format!("{from} -> {to}: {faults:?}"));
        self.inner.lock().faults.insert((from.to_owned(), to.to_owned()), faults);
    }

    /// Everything works again.
    pub(crate) fn heal(&self) {
        self.note(|| "healed".to_owned());
        self.inner.lock().faults.clear();
    }

    /// Whether no request is under way.
    pub(crate) fn is_quiet(&self) -> bool {
        self.inner.lock().under_way == 0
    }

    /// Remembers that something happened.
    pub(crate) fn note(&self, what: impl FnOnce() -> String) {
        let line = format!("{:>9} {}", Instant::now().duration_since(self.begin).as_millis(), what());
        let mut inner = self.inner.lock();
        inner.hash.update(&line);
        if let Some(lines) = &mut inner.lines {
            lines.push(line);
        }
    }

    /// The hash of all that happened, and what it was if that was asked for.
    pub(crate) fn trace(&self) -> (String, Vec<String>) {
        let mut inner = self.inner.lock();
        let mut hex = String::new();
        for byte in &inner.hash.clone().finalize()[..8] {
            let _ = write!(hex, "{byte:02x}");
        }
        (hex, inner.lines.take().unwrap_or_default())
    }

    fn plan(&self, from: &str, to: &str, method: &Method) -> Plan {
        let mut inner = self.inner.lock();
        let Inner { dice, faults, .. } = &mut *inner;
        let there = faults.get(&(from.to_owned(), to.to_owned())).copied().unwrap_or_default();
        let back = faults.get(&(to.to_owned(), from.to_owned())).copied().unwrap_or_default();
        let mut way = |faults: &Faults| Duration::from_millis(1 + dice.below(5 + faults.slow_ms));
        let (way_there, way_back) = (way(&there), way(&back));
        // What is asked for twice must be something that may be.
        let again = method == Method::PUT;
        Plan {
            there: way_there,
            back: way_back,
            lose: dice.percent(there.lose),
            mute: dice.percent(back.mute),
            hang: dice.percent(30),
            twice: (again && dice.percent(there.twice)).then(|| after(dice, &[0, 0, 2, 1_000, 20_000])),
            late: (again && dice.percent(there.late)).then(|| after(dice, &[1_000, 30_000, 60_000, 600_000])),
        }
    }

    fn is_cut(&self, from: &str, to: &str) -> bool {
        self.inner.lock().faults.get(&(from.to_owned(), to.to_owned())).is_some_and(|faults| faults.cut)
    }

    async fn carry(
        self: Arc<Network>,
        from: String,
        to: String,
        request: Request<Bytes>,
        limits: Limits,
    ) -> Result<Response<Bytes>, TransportError> {
        let plan = self.plan(&from, &to, request.method());
        let nothing = || async {
            // Either somebody says that there is nobody, or nobody says anything.
            match plan.hang {
                true => sleep(limits.timeout * 2).await,
                false => sleep(plan.back).await,
            }
        };
        sleep(plan.there).await;
        let node = self.inner.lock().nodes.get(&to).and_then(Weak::upgrade);
        let Some(node) = node.filter(|_| !plan.lose && !self.is_cut(&from, &to)) else {
            nothing().await;
            return Err(TransportError::Connect("no way".into()));
        };
        if let Some(after) = plan.late {
            node.ask_after(after, request);
            nothing().await;
            return Err(TransportError::Broken("nothing comes back".into()));
        }
        if let Some(after) = plan.twice {
            node.ask_after(after, request.clone());
        }
        let Some(answer) = node.ask_after(Duration::ZERO, request) else {
            return Err(TransportError::Connect("it is down".into()));
        };
        let Ok(answer) = answer.await else {
            return Err(TransportError::Broken("it went down".into()));
        };
        sleep(plan.back).await;
        if plan.mute || self.is_cut(&to, &from) {
            nothing().await;
            return Err(TransportError::Broken("the answer is lost".into()));
        }
        Ok(answer)
    }
}

/// Some time, at most one of these in milliseconds.
fn after(dice: &mut Dice, most: &[u64]) -> Duration {
    let most = *dice.pick(most);
    Duration::from_millis(dice.below(most + 1))
}

/// The way of one server to all others.
pub(crate) struct Way {
    pub(crate) from: String,
    pub(crate) network: Arc<Network>,
}

/// Counts a request for as long as somebody waits for its answer.
struct UnderWay(Arc<Network>);

impl UnderWay {
    fn new(network: &Arc<Network>) -> UnderWay {
        network.inner.lock().under_way += 1;
        UnderWay(network.clone())
    }
}

impl Drop for UnderWay {
    fn drop(&mut self) {
        self.0.inner.lock().under_way -= 1;
    }
}

impl Transport for Way {
    fn call(
        &self,
        to: &ServerName,
        request: Request<Bytes>,
        limits: Limits,
    ) -> BoxFuture<'_, Result<Response<Bytes>, TransportError>> {
        let (from, to, network) = (self.from.clone(), to.to_string(), self.network.clone());
        Box::pin(async move {
            let _under_way = UnderWay::new(&network);
            let what = format!("{from} > {to} {} {}", request.method(), request.uri());
            let body = format!("{:x?}", &Sha256::digest(request.body())[..4]);
            network.note(|| format!("{what} {body}"));
            let answer = network.clone().carry(from, to, request, limits).await;
            network.note(|| match &answer {
                Ok(answer) => format!("{what} = {} {:x?}", answer.status(), &Sha256::digest(answer.body())[..4]),
                Err(why) => format!("{what} = {why}"),
            });
            answer
        })
    }
}
