//! Where a server is, in every branch of the specification's steps, over a DNS and a web that are tables.

mod common;

use std::{
    collections::HashMap,
    net::{IpAddr, SocketAddr},
    sync::{Arc, Mutex},
    time::Duration,
};

use bytes::Bytes;
use common::*;
use futures_util::future::{BoxFuture, join_all};
use http::HeaderMap;
use stoa_event::ids::ServerName;
use stoa_remote::{
    Config, Limits, TransportError,
    addresses::Filter,
    discovery::{self, Route},
    dns::{Dns, Srv},
    outside::{self, Hop, Rules},
    well_known::{self, WellKnown, lifetime, parse},
};

#[derive(Default)]
struct Table {
    addresses: HashMap<&'static str, Vec<&'static str>>,
    srv: HashMap<&'static str, Vec<Srv>>,
    broken: Vec<&'static str>,
}

impl Dns for Table {
    fn addresses<'a>(&'a self, name: &'a str) -> BoxFuture<'a, Result<Vec<IpAddr>, TransportError>> {
        Box::pin(async move {
            let found = self.addresses.get(name).ok_or_else(|| TransportError::Resolve(name.to_owned()))?;
            Ok(found.iter().map(|address| address.parse().unwrap()).collect())
        })
    }

    fn srv<'a>(&'a self, name: &'a str) -> BoxFuture<'a, Result<Vec<Srv>, TransportError>> {
        Box::pin(async move {
            if self.broken.contains(&name) {
                return Err(TransportError::Resolve("SERVFAIL".to_owned()));
            }
            Ok(self.srv.get(name).cloned().unwrap_or_default())
        })
    }
}

fn srv(priority: u16, weight: u16, target: &str, port: u16) -> Srv {
    Srv { priority, weight, target: target.to_owned(), port }
}

/// What each URL answers, and what was asked.
#[derive(Default)]
struct Web {
    pages: Mutex<HashMap<String, Answer>>,
    asked: Mutex<Vec<String>>,
}

impl Web {
    fn page(&self, url: &str, answer: Answer) {
        self.pages.lock().unwrap().insert(url.to_owned(), answer);
    }

    fn says(&self, host: &str, server: &str) {
        self.page(&well_known_of(host), answer(200, format!("{{\"m.server\":\"{server}\"}}")));
    }

    fn count(&self) -> usize {
        self.asked.lock().unwrap().len()
    }
}

impl Hop for Web {
    fn hop(&self, request: http::Request<Bytes>, limits: Limits) -> BoxFuture<'_, Answer> {
        Box::pin(async move {
            tokio::task::yield_now().await;
            let url = request.uri().to_string();
            self.asked.lock().unwrap().push(url.clone());
            let page = self.pages.lock().unwrap().get(&url).cloned();
            let page = page.unwrap_or(Err(TransportError::Connect("refused".to_owned())))?;
            if page.body().len() > limits.max_bytes {
                return Err(TransportError::TooLarge(limits.max_bytes));
            }
            Ok(page)
        })
    }
}

fn well_known_of(host: &str) -> String {
    format!("https://{host}/.well-known/matrix/server")
}

fn limits() -> Limits {
    Limits { timeout: Duration::from_secs(5), max_bytes: well_known::MAX_BYTES }
}

struct Found {
    web: Arc<Web>,
    well_known: WellKnown,
    clock: Arc<TestClock>,
}

impl Found {
    fn new() -> Found {
        let (env, clock) = env();
        let web = Arc::new(Web::default());
        Found { well_known: WellKnown::new(web.clone(), env, limits()), web, clock }
    }

    async fn route(&self, server: &str) -> Route {
        discovery::route(<&ServerName>::try_from(server).unwrap(), &self.well_known).await
    }

    async fn delegated(&self, host: &str) -> Option<String> {
        self.well_known.delegated(host).await.map(|name| name.to_string())
    }

    fn wait(&self, ms: u64) {
        self.clock.advance(ms);
    }
}

fn at(authority: &str) -> Route {
    Route::Direct { authority: authority.to_owned(), host: None }
}

fn at_as(authority: &str, host: &str) -> Route {
    Route::Direct { authority: authority.to_owned(), host: Some(host.to_owned()) }
}

fn look(host: &str) -> Route {
    Route::Lookup { host: host.to_owned() }
}

#[tokio::test]
async fn step_1_addresses() {
    let found = Found::new();
    assert_eq!(found.route("1.2.3.4").await, at_as("1.2.3.4:8448", "1.2.3.4"));
    assert_eq!(found.route("1.2.3.4:5").await, at("1.2.3.4:5"));
    assert_eq!(found.route("[2001:db8::1]").await, at_as("[2001:db8::1]:8448", "[2001:db8::1]"));
    assert_eq!(found.route("[2001:db8::1]:5").await, at("[2001:db8::1]:5"));
    assert_eq!(found.web.count(), 0);
}

#[tokio::test]
async fn step_2_a_port() {
    let found = Found::new();
    assert_eq!(found.route("a.example:8448").await, at("a.example:8448"));
    assert_eq!(found.route("a.example:443").await, at_as("a.example:443", "a.example:443"));
    assert_eq!(found.route("localhost:1").await, at("localhost:1"));
    assert_eq!(found.web.count(), 0);
}

#[tokio::test]
async fn step_3_delegation() {
    let found = Found::new();
    for (says, route) in [
        ("5.6.7.8", at_as("5.6.7.8:8448", "5.6.7.8")),
        ("5.6.7.8:9", at("5.6.7.8:9")),
        ("[2001:db8::2]", at_as("[2001:db8::2]:8448", "[2001:db8::2]")),
        ("b.example:9", at("b.example:9")),
        ("b.example:443", at_as("b.example:443", "b.example:443")),
        ("b.example", look("b.example")),
        // No second well-known.
        ("a.example", look("a.example")),
    ] {
        found.web.says("a.example", says);
        assert_eq!(found.route("a.example").await, route, "{says}");
        found.wait(3 * DAY);
    }
    assert_eq!(found.web.count(), 7);
}

#[tokio::test]
async fn steps_4_to_6_without_delegation() {
    let found = Found::new();
    for bad in [
        answer(404, r#"{"m.server":"b.example"}"#),
        answer(200, "{"),
        answer(200, "{}"),
        answer(200, r#"{"m.server":5}"#),
        answer(200, r#"{"m.server":""}"#),
        answer(200, r#"{"m.server":"https://b.example"}"#),
        answer(200, r#"{"m.server":"b.example:99999"}"#),
        answer(200, format!("{{\"m.server\":\"b.example\",\"x\":\"{}\"}}", "x".repeat(60_000))),
        answer(500, ""),
        Err(TransportError::Timeout),
    ] {
        found.web.page(&well_known_of("a.example"), bad.clone());
        assert_eq!(found.route("a.example").await, look("a.example"), "{bad:?}");
        found.wait(3 * DAY);
    }
}

async fn addresses(table: Table, host: &str) -> Result<Vec<SocketAddr>, TransportError> {
    let (env, _) = env();
    discovery::addresses(&table, &Filter::new(&Config::default()), &env, host).await
}

fn sockets(list: &[&str]) -> Vec<SocketAddr> {
    list.iter().map(|socket| socket.parse().unwrap()).collect()
}

#[tokio::test]
async fn srv_records_of_the_registered_service_come_first() {
    let table = Table {
        addresses: [
            ("t.example", vec!["9.9.9.1", "2a00::1"]),
            ("u.example", vec!["9.9.9.2"]),
            ("a.example", vec!["9.9.9.3"]),
        ]
        .into(),
        srv: [
            ("_matrix-fed._tcp.a.example", vec![srv(10, 0, "t.example.", 1)]),
            ("_matrix._tcp.a.example", vec![srv(10, 0, "u.example.", 2)]),
        ]
        .into(),
        ..Table::default()
    };
    assert_eq!(addresses(table, "a.example").await.unwrap(), sockets(&["9.9.9.1:1", "[2a00::1]:1"]));
}

#[tokio::test]
async fn then_those_of_the_old_service_then_the_host_itself() {
    let table = || Table {
        addresses: [("u.example", vec!["9.9.9.2"]), ("a.example", vec!["9.9.9.3", "2a00::3"])].into(),
        srv: [("_matrix._tcp.a.example", vec![srv(10, 0, "u.example.", 2)])].into(),
        broken: vec!["_matrix-fed._tcp.a.example"],
    };
    assert_eq!(addresses(table(), "a.example").await.unwrap(), sockets(&["9.9.9.2:2"]));
    let without = Table { srv: HashMap::new(), ..table() };
    assert_eq!(addresses(without, "a.example").await.unwrap(), sockets(&["9.9.9.3:8448", "[2a00::3]:8448"]));
    assert!(matches!(addresses(table(), "b.example").await, Err(TransportError::Resolve(_))));
}

#[tokio::test]
async fn targets_by_priority_those_that_are_there() {
    let table = Table {
        addresses: [("one.example", vec!["9.9.9.1"]), ("three.example", vec!["9.9.9.3"])].into(),
        srv: [(
            "_matrix-fed._tcp.a.example",
            vec![srv(30, 9, "three.example.", 3), srv(20, 0, "gone.example.", 2), srv(10, 0, "one.example.", 1)],
        )]
        .into(),
        ..Table::default()
    };
    assert_eq!(addresses(table, "a.example").await.unwrap(), sockets(&["9.9.9.1:1", "9.9.9.3:3"]));
}

#[tokio::test]
async fn targets_of_one_priority_by_chance_and_weight() {
    let (env, _) = env();
    let filter = Filter::new(&Config::default());
    let table = Table {
        addresses: [("much.example", vec!["9.9.9.1"]), ("little.example", vec!["9.9.9.2"])].into(),
        srv: [("_matrix-fed._tcp.a.example", vec![srv(1, 10, "little.example.", 2), srv(1, 90, "much.example.", 1)])]
            .into(),
        ..Table::default()
    };
    let mut much = 0;
    for _ in 0..1000 {
        let found = discovery::addresses(&table, &filter, &env, "a.example").await.unwrap();
        assert_eq!(found.len(), 2);
        much += usize::from(found[0].port() == 1);
    }
    assert!((820..960).contains(&much), "{much}");
}

#[tokio::test]
async fn a_dot_says_that_there_is_no_server() {
    let table = Table {
        addresses: [("a.example", vec!["9.9.9.3"])].into(),
        srv: [("_matrix-fed._tcp.a.example", vec![srv(0, 0, ".", 0)])].into(),
        ..Table::default()
    };
    assert!(matches!(addresses(table, "a.example").await, Err(TransportError::Resolve(_))));
}

#[tokio::test]
async fn private_addresses_are_left_out_wherever_they_come_from() {
    let refused = |table| async { matches!(addresses(table, "a.example").await, Err(TransportError::Refused(_))) };
    let own = [("a.example", vec!["10.0.0.1", "::ffff:127.0.0.1"])].into();
    assert!(refused(Table { addresses: own, ..Table::default() }).await);
    let record = || [("_matrix-fed._tcp.a.example", vec![srv(0, 0, "t.example.", 1)])].into();
    let target = [("t.example", vec!["169.254.169.254"])].into();
    assert!(refused(Table { addresses: target, srv: record(), ..Table::default() }).await);
    let literal = [("_matrix-fed._tcp.a.example", vec![srv(0, 0, "127.0.0.1", 1)])].into();
    assert!(refused(Table { srv: literal, ..Table::default() }).await);
    let mixed = [("t.example", vec!["10.0.0.1", "9.9.9.9"])].into();
    let found = addresses(Table { addresses: mixed, srv: record(), ..Table::default() }, "a.example").await;
    assert_eq!(found.unwrap(), sockets(&["9.9.9.9:1"]));
}

#[tokio::test]
async fn well_known_files_are_remembered_as_long_as_they_say() {
    let with = |name: &'static str, value: &str| {
        let mut page = answer(200, r#"{"m.server":"b.example"}"#).unwrap();
        page.headers_mut().insert(name, value.parse().unwrap());
        Ok(page)
    };
    for (page, lifetime) in [
        (with("cache-control", "public, max-age=3600"), HOUR),
        (with("cache-control", "Max-Age=\"3600\""), HOUR),
        (with("cache-control", "max-age=0"), 5 * 60_000),
        (with("cache-control", "no-store"), 5 * 60_000),
        (with("cache-control", "max-age=99999999999999"), 48 * HOUR),
        (with("cache-control", "max-age=soon"), 24 * HOUR),
        (with("expires", "0"), 5 * 60_000),
        // START is Tue, 14 Nov 2023 22:13:20 GMT.
        (with("expires", "Wed, 15 Nov 2023 08:13:20 GMT"), 10 * HOUR),
        (answer(200, r#"{"m.server":"b.example"}"#), 24 * HOUR),
    ] {
        let found = Found::new();
        found.web.page(&well_known_of("a.example"), page.clone());
        assert_eq!(found.delegated("A.example").await.as_deref(), Some("b.example"));
        found.wait(lifetime - 1);
        found.delegated("a.example").await;
        assert_eq!(found.web.count(), 1, "{page:?}");
        found.wait(1);
        found.delegated("a.example").await;
        assert_eq!(found.web.count(), 2, "{page:?}");
    }
}

#[test]
fn dates_of_http() {
    let headers = |date: &str, expires: &str| {
        HeaderMap::from_iter([
            (http::header::DATE, date.parse().unwrap()),
            (http::header::EXPIRES, expires.parse().unwrap()),
        ])
    };
    let span = |date: &str, expires: &str| lifetime(&headers(date, expires), 0);
    assert_eq!(span("Thu, 29 Feb 2024 23:00:00 GMT", "Fri, 01 Mar 2024 01:30:00 GMT"), HOUR * 5 / 2);
    assert_eq!(span("Sun, 31 Dec 2023 23:59:59 GMT", "Mon, 01 Jan 2024 00:59:59 GMT"), HOUR);
    assert_eq!(span("Thu, 01 Jan 1970 00:00:00 GMT", "Thu, 01 Jan 1970 12:00:00 GMT"), 12 * HOUR);
    for bad in ["Fri, 31 Foo 2024 00:00:00 GMT", "tomorrow", "", "Fri, 01 Mar 2024", "Fri, 01 Mar 99999 00:00:00 GMT"] {
        assert_eq!(span("Thu, 29 Feb 2024 23:00:00 GMT", bad), 5 * 60_000, "{bad}");
    }
}

#[tokio::test]
async fn failures_are_remembered_longer_and_longer() {
    let found = Found::new();
    for _ in 0..24 * 60 {
        assert_eq!(found.delegated("a.example").await, None);
        found.wait(60_000);
    }
    assert!((20..40).contains(&found.web.count()), "{}", found.web.count());
    // Who says that there is none is not asked for an hour.
    let found = Found::new();
    found.web.page(&well_known_of("a.example"), answer(404, ""));
    found.delegated("a.example").await;
    found.wait(HOUR - 1);
    found.delegated("a.example").await;
    assert_eq!(found.web.count(), 1);
}

#[tokio::test]
async fn trouble_that_passes_does_not_undo_a_delegation() {
    let found = Found::new();
    found.web.says("a.example", "b.example");
    found.delegated("a.example").await;
    found.wait(30 * HOUR);
    found.web.page(&well_known_of("a.example"), Err(TransportError::Timeout));
    assert_eq!(found.delegated("a.example").await.as_deref(), Some("b.example"));
    found.wait(20 * HOUR);
    assert_eq!(found.delegated("a.example").await, None);
    // Who takes it back does so at once.
    let found = Found::new();
    found.web.says("a.example", "b.example");
    found.delegated("a.example").await;
    found.wait(24 * HOUR);
    found.web.page(&well_known_of("a.example"), answer(404, ""));
    assert_eq!(found.delegated("a.example").await, None);
}

#[tokio::test]
async fn many_at_once_ask_once() {
    let found = Found::new();
    found.web.says("a.example", "b.example");
    let all = join_all((0..20).map(|_| found.delegated("a.example"))).await;
    assert!(all.iter().all(|name| name.as_deref() == Some("b.example")));
    assert_eq!(found.web.count(), 1);
}

fn to(location: &str) -> Answer {
    let mut page = answer(302, "").unwrap();
    page.headers_mut().insert("location", location.parse().unwrap());
    Ok(page)
}

#[tokio::test]
async fn redirects_are_followed_but_not_for_ever_and_not_to_plain_http() {
    let found = Found::new();
    let first = well_known_of("a.example");
    found.web.page(&first, to("https://www.a.example/other"));
    found.web.page("https://www.a.example/other", to("/third?x#frag"));
    found.web.page("https://www.a.example/third?x", answer(200, r#"{"m.server":"b.example"}"#));
    assert_eq!(found.delegated("a.example").await.as_deref(), Some("b.example"));
    for bad in ["http://a.example/x", "ftp://a.example/x", "https://user@a.example/x", "https://"] {
        let found = Found::new();
        found.web.page(&first, to(bad));
        found.web.page("http://a.example/x", answer(200, r#"{"m.server":"b.example"}"#));
        assert_eq!(found.delegated("a.example").await, None, "{bad}");
        assert_eq!(found.web.count(), 1, "{bad}");
    }
    let found = Found::new();
    found.web.page(&first, to(&first));
    assert_eq!(found.delegated("a.example").await, None);
    assert_eq!(found.web.count(), 6);
}

#[tokio::test]
async fn secrets_do_not_follow_to_another_host() {
    struct Seen(Mutex<Vec<bool>>);
    impl Hop for Seen {
        fn hop(&self, request: http::Request<Bytes>, _: Limits) -> BoxFuture<'_, Answer> {
            self.0.lock().unwrap().push(request.headers().contains_key("authorization"));
            let next = match request.uri().path() {
                "/1" => to("/2"),
                "/2" => to("https://b.example/3"),
                _ => answer(200, "done"),
            };
            Box::pin(std::future::ready(next))
        }
    }
    let seen = Seen(Mutex::default());
    let request = |method: &str| {
        let builder = http::Request::builder().method(method).uri("https://a.example/1");
        builder.header("authorization", "secret").body(Bytes::new()).unwrap()
    };
    let rules = Rules { limits: limits(), redirects: 3, https_only: true };
    let done = outside::follow(&seen, request("GET"), rules).await.unwrap();
    assert_eq!((done.url.as_str(), &done.response.body()[..]), ("https://b.example/3", &b"done"[..]));
    assert_eq!(*seen.0.lock().unwrap(), [true, true, false]);
    // What is not a GET is not sent twice.
    assert_eq!(outside::follow(&seen, request("POST"), rules).await.unwrap().response.status(), 302);
}

#[test]
fn bodies() {
    assert_eq!(parse(br#"{"m.server":"a.example:1","other":[]}"#).unwrap(), "a.example:1");
    for bad in ["", "[]", "null", r#"{"m.server":null}"#, r#"{"m.server":"a b"}"#, r#"{"m.server":"a.example/x"}"#] {
        assert!(parse(bad.as_bytes()).is_none(), "{bad}");
    }
    assert!(parse(&[0xff; 10]).is_none());
}
