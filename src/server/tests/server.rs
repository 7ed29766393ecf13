//! Servers as values: started, asked and stopped in this process.

use std::{net::SocketAddr, path::Path, time::Duration};

use serde_json::{Value, json};
use stoa_server::{
    Config, Error, Server,
    admin::{self, Answer, Command},
    env,
};
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::TcpStream,
    time::{Instant, timeout},
};

fn config(name: &str, data: &Path) -> Config {
    Config {
        server_name: name.to_owned(),
        data: data.to_owned(),
        listen: vec!["127.0.0.1:0".parse().unwrap()],
        ..Config::default()
    }
}

async fn start(name: &str, data: &Path) -> Server {
    Server::start(&config(name, data), env::system()).await.unwrap()
}

/// Sends a request and reads until the server closes.
async fn raw(address: SocketAddr, request: &str) -> String {
    let mut stream = TcpStream::connect(address).await.unwrap();
    stream.write_all(request.as_bytes()).await.unwrap();
    let mut answer = String::new();
    timeout(Duration::from_secs(20), stream.read_to_string(&mut answer)).await.unwrap().unwrap();
    answer
}

async fn ask(server: &Server, method: &str, path: &str, token: &str, body: Value) -> Value {
    let body = body.to_string();
    let request = format!(
        "{method} {path} HTTP/1.1\r\nhost: x\r\nconnection: close\r\nauthorization: Bearer {token}\r\n\
         content-length: {}\r\n\r\n{body}",
        body.len()
    );
    let answer = raw(server.addresses()[0], &request).await;
    serde_json::from_str(answer.split_once("\r\n\r\n").unwrap().1).unwrap()
}

async fn add_user(data: &Path, name: &str) -> Option<Answer> {
    let command = Command::AddUser { name: name.into(), password: "a long password".into(), admin: false };
    admin::ask(data, &command).await.unwrap()
}

async fn login(server: &Server, name: &str) -> String {
    let body = json!({
        "type": "m.login.password",
        "identifier": { "type": "m.id.user", "user": name },
        "password": "a long password",
    });
    let session = ask(server, "POST", "/_matrix/client/v3/login", "", body).await;
    session["access_token"].as_str().unwrap_or_else(|| panic!("{session}")).to_owned()
}

#[tokio::test(flavor = "multi_thread")]
async fn a_process_can_have_several() {
    let (one, two) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
    let (a, b) = (start("a.example", one.path()).await, start("b.example", two.path()).await);
    for (server, data, name) in [(&a, &one, "a.example"), (&b, &two, "b.example")] {
        let made = add_user(data.path(), "alice").await;
        assert!(matches!(made, Some(Answer::Done { admin: true, .. })), "the first is administrator: {made:?}");
        let second = add_user(data.path(), "bob").await;
        assert!(matches!(second, Some(Answer::Done { admin: false, .. })), "{second:?}");
        let token = login(server, "alice").await;
        let who = ask(server, "GET", "/_matrix/client/v3/account/whoami", &token, json!({})).await;
        assert_eq!(who["user_id"], format!("@alice:{name}"));
    }
    a.stop().await;
    b.stop().await;
    assert!(add_user(one.path(), "carol").await.is_none(), "nobody listens any more");
}

#[tokio::test(flavor = "multi_thread")]
async fn what_was_kept_is_there_again_and_only_for_the_same_server() {
    let data = tempfile::tempdir().unwrap();
    let server = start("a.example", data.path()).await;
    add_user(data.path(), "alice").await;
    let token = login(&server, "alice").await;
    server.stop().await;

    let other = Server::start(&config("b.example", data.path()), env::system()).await;
    assert!(matches!(other, Err(Error::OtherServer { .. })));

    let server = start("a.example", data.path()).await;
    let who = ask(&server, "GET", "/_matrix/client/v3/account/whoami", &token, json!({})).await;
    assert_eq!(who["user_id"], "@alice:a.example");
    let mut taken = config("c.example", tempfile::tempdir().unwrap().path());
    taken.listen = server.addresses().to_vec();
    assert!(matches!(Server::start(&taken, env::system()).await, Err(Error::AddressInUse(_))));
    let twice = Server::start(&config("a.example", data.path()), env::system()).await;
    assert!(matches!(twice, Err(Error::Database(_))));
    server.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn stopping_answers_who_waits_and_is_not_held_up_by_who_is_slow() {
    let data = tempfile::tempdir().unwrap();
    let server = start("a.example", data.path()).await;
    add_user(data.path(), "alice").await;
    let token = login(&server, "alice").await;
    let sync = ask(&server, "GET", "/_matrix/client/v3/sync", &token, json!({})).await;
    let since = sync["next_batch"].as_str().unwrap().to_owned();

    // One that connected and says nothing, and one that is in the middle of its headers.
    let _silent = TcpStream::connect(server.addresses()[0]).await.unwrap();
    let mut slow = TcpStream::connect(server.addresses()[0]).await.unwrap();
    slow.write_all(b"GET /_matrix/client/versions HTTP/1.1\r\nhost").await.unwrap();

    let address = server.addresses()[0];
    let poll = tokio::spawn(async move {
        let path = format!("/_matrix/client/v3/sync?timeout=60000&since={since}");
        raw(address, &format!("GET {path} HTTP/1.1\r\nhost: x\r\nauthorization: Bearer {token}\r\n\r\n")).await
    });
    tokio::time::sleep(Duration::from_millis(300)).await;
    let begun = Instant::now();
    server.stop().await;
    assert!(begun.elapsed() < Duration::from_secs(14), "{:?}", begun.elapsed());
    let answer = poll.await.unwrap();
    assert!(answer.starts_with("HTTP/1.1 200"), "{answer}");
    assert!(answer.contains("next_batch"));
}

#[tokio::test(flavor = "multi_thread")]
async fn http_2_without_tls_is_understood_and_nonsense_is_refused() {
    let data = tempfile::tempdir().unwrap();
    let server = start("a.example", data.path()).await;
    let mut stream = TcpStream::connect(server.addresses()[0]).await.unwrap();
    // The preface and an empty SETTINGS frame; the server answers with its own SETTINGS (type 4).
    stream.write_all(b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n\0\0\0\x04\0\0\0\0\0").await.unwrap();
    let mut head = [0; 9];
    timeout(Duration::from_secs(20), stream.read_exact(&mut head)).await.unwrap().unwrap();
    assert_eq!(head[3], 4);
    drop(stream);
    let answer = raw(server.addresses()[0], "\x16\x03\x01\x02\r\n\r\n").await;
    assert!(answer.starts_with("HTTP/1.1 400"), "{answer}");
    let long = format!("GET /{} HTTP/1.1\r\nhost: x\r\n\r\n", "x".repeat(200_000));
    let mut stream = TcpStream::connect(server.addresses()[0]).await.unwrap();
    let _ = stream.write_all(long.as_bytes()).await;
    let mut answer = [0; 12];
    timeout(Duration::from_secs(20), stream.read_exact(&mut answer)).await.unwrap().unwrap();
    assert!(answer.starts_with(b"HTTP/1.1 4"), "{}", String::from_utf8_lossy(&answer));
    drop(stream);
    server.stop().await;
}
