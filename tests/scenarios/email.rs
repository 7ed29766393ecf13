//! Client-Server API, "Adding Account Administrative Contact Information" and "m.login.email.identity": letters, what they lead to,
//! and what an address that was shown is good for.

use stoa_kit::{Home, Mailbox, Method, Reply, Value, json, unique};

use crate::own;

const PASSWORD: &str = "a long password";

async fn start(more: &str) -> Option<(Mailbox, Home)> {
    let launch = own()?;
    let mailbox = Mailbox::open().await;
    let home = Home::launch(launch.with_config(&mailbox.config(more))).await;
    Some((mailbox, home))
}

/// Asks for a letter; `what` is the beginning of the path.
async fn ask(home: &Home, what: &str, address: &str, secret: &str, attempt: u64) -> Reply {
    let body = json!({ "client_secret": secret, "email": address, "send_attempt": attempt });
    home.post(&format!("/{what}/email/requestToken"), body).await
}

fn sid(reply: Reply) -> String {
    reply.ok()["sid"].as_str().expect("a sid").to_owned()
}

/// Opens the page of a letter and presses its button.
async fn follow(home: &Home, path: &str) -> u16 {
    let page = home.get(path).await;
    assert_eq!(page.header("content-type"), "text/html; charset=utf-8", "{page:?}");
    assert!(page.header("content-security-policy").starts_with("default-src 'none'"), "{page:?}");
    assert_eq!((page.header("referrer-policy"), page.header("cache-control")), ("no-referrer", "no-store"));
    home.client().raw(Method::POST, path, None, "application/x-www-form-urlencoded", "x=y".into()).await.status
}

fn shown(sid: &str, secret: &str) -> Value {
    json!({ "type": "m.login.email.identity", "threepid_creds": { "sid": sid, "client_secret": secret } })
}

/// An account whose address was shown while it was made.
async fn with_address(home: &Home, mailbox: &Mailbox, address: &str) -> String {
    let sid = sid(ask(home, "register", address, "made", 1).await);
    follow(home, &mailbox.letter(address, mailbox.letters(address).len().max(1)).await.path()).await;
    let body = json!({ "username": unique(), "password": PASSWORD, "auth": shown(&sid, "made") });
    home.post("/register", body).await.ok()["user_id"].as_str().expect("a user id").to_owned()
}

async fn log_in(home: &Home, address: &str, password: &str) -> Reply {
    let identifier = json!({ "type": "m.id.thirdparty", "medium": "email", "address": address });
    home.post("/login", json!({ "type": "m.login.password", "identifier": identifier, "password": password })).await
}

#[tokio::test]
async fn an_account_is_made_with_an_address() {
    let Some((mailbox, home)) = start("required = true").await else { return };
    let body = json!({ "username": unique(), "password": PASSWORD });
    let asked = home.post("/register", body.clone()).await;
    assert_eq!((asked.status, &asked["flows"]), (401, &json!([{ "stages": ["m.login.email.identity"] }])));
    let address = "Alice@Example.org";
    let sid = sid(ask(&home, "register", address, "s3cret", 1).await);
    let letter = mailbox.letter("alice@example.org", 1).await;
    assert_eq!(letter.header("Auto-Submitted"), "auto-generated");
    assert!(letter.header("Subject").contains(&home.server_name()), "{letter:?}");
    let mut with = body.clone();
    // Not before the link was followed, and not with another secret.
    with["auth"] = shown(&sid, "s3cret");
    assert_eq!(home.post("/register", with.clone()).await.status, 401);
    assert_eq!(follow(&home, &letter.path()).await, 200);
    with["auth"] = shown(&sid, "other");
    assert_eq!(home.post("/register", with.clone()).await.status, 401);
    with["auth"] = shown(&sid, "s3cret");
    let made = home.post("/register", with.clone()).await.ok();
    let token = made["access_token"].as_str().expect("a token");
    let mine = home.client().json(Method::GET, "/account/3pid", Some(token), None).await.ok();
    assert_eq!(mine["threepids"][0]["address"], "alice@example.org");
    assert_eq!(mine["threepids"][0]["medium"], "email");
    // A session is used once, and an address is one account's.
    with["username"] = unique().into();
    assert_eq!(home.post("/register", with).await.status, 401);
    ask(&home, "register", "ALICE@example.org", "more", 1).await.expect(400, "M_THREEPID_IN_USE");
    // Whoever knows the password logs in by the address.
    assert_eq!(log_in(&home, address, PASSWORD).await.ok()["user_id"], made["user_id"]);
    log_in(&home, address, "wrong").await.expect(403, "M_FORBIDDEN");
    log_in(&home, "nobody@example.org", PASSWORD).await.expect(403, "M_FORBIDDEN");
}

#[tokio::test]
async fn an_address_is_added_and_removed() {
    let Some((mailbox, home)) = start("").await else { return };
    let (alice, mallory) = (home.user("alice").await, home.user("mallory").await);
    let asked = json!({ "client_secret": "add", "email": "a@example.org", "send_attempt": 1 });
    let sid = sid(alice.post("/account/3pid/email/requestToken", asked).await);
    let creds = json!({ "sid": sid, "client_secret": "add" });
    let with_password = |user: &stoa_kit::User| {
        let mut auth = user.password_stage("");
        auth.as_object_mut().expect("an object").remove("session");
        json!({ "sid": sid, "client_secret": "add", "auth": auth })
    };
    // The password first, then the letter.
    assert_eq!(alice.post("/account/3pid/add", creds.clone()).await.status, 401);
    alice.post("/account/3pid/add", with_password(&alice)).await.expect(400, "M_THREEPID_AUTH_FAILED");
    follow(&home, &mailbox.letter("a@example.org", 1).await.path()).await;
    // What she asked for is not for somebody else's account.
    mallory.post("/account/3pid/add", with_password(&mallory)).await.expect(400, "M_THREEPID_AUTH_FAILED");
    alice.post("/account/3pid/add", with_password(&alice)).await.ok();
    assert_eq!(alice.get("/account/3pid").await.ok()["threepids"][0]["address"], "a@example.org");
    assert_eq!(alice.get("/capabilities").await.ok()["capabilities"]["m.3pid_changes"]["enabled"], true);
    let gone = json!({ "medium": "email", "address": "A@example.org" });
    mallory.post("/account/3pid/delete", gone.clone()).await.ok();
    assert_eq!(alice.get("/account/3pid").await.ok()["threepids"].as_array().map(Vec::len), Some(1));
    alice.post("/account/3pid/delete", gone).await.ok();
    assert_eq!(alice.get("/account/3pid").await.ok()["threepids"], json!([]));
}

#[tokio::test]
async fn a_forgotten_password_is_replaced() {
    let Some((mailbox, home)) = start("").await else { return };
    let address = "forgot@example.org";
    ask(&home, "account/password", address, "reset", 1).await.expect(400, "M_THREEPID_NOT_FOUND");
    let user = with_address(&home, &mailbox, address).await;
    let before = log_in(&home, address, PASSWORD).await.ok();
    let reset = sid(ask(&home, "account/password", address, "reset", 1).await);
    let letter = mailbox.letter(address, 2).await;
    let change = |auth: Value| json!({ "new_password": "another long password", "auth": auth });
    assert_eq!(home.post("/account/password", change(json!({}))).await.status, 401);
    assert_eq!(home.post("/account/password", change(shown(&reset, "reset"))).await.status, 401);
    follow(&home, &letter.path()).await;
    home.post("/account/password", change(shown(&reset, "reset"))).await.ok();
    log_in(&home, address, PASSWORD).await.expect(403, "M_FORBIDDEN");
    assert_eq!(log_in(&home, address, "another long password").await.ok()["user_id"], user.as_str());
    // All devices are logged out, and the letter is used up.
    let token = before["access_token"].as_str();
    home.client().json(Method::GET, "/account/whoami", token, None).await.expect(401, "M_UNKNOWN_TOKEN");
    assert_eq!(home.post("/account/password", change(shown(&reset, "reset"))).await.status, 401);
}

#[tokio::test]
async fn a_letter_for_one_thing_is_worth_nothing_for_another() {
    let Some((mailbox, home)) = start("").await else { return };
    let address = "one@example.org";
    with_address(&home, &mailbox, address).await;
    let other = "two@example.org";
    let sid = sid(ask(&home, "register", other, "r", 1).await);
    follow(&home, &mailbox.letter(other, 1).await.path()).await;
    let body = json!({ "new_password": "another long password", "auth": shown(&sid, "r") });
    assert_eq!(home.post("/account/password", body).await.status, 401);
    // And one for an account does not reset its password either.
    let alice = home.user("alice").await;
    let asked = json!({ "client_secret": "a", "email": "three@example.org", "send_attempt": 1 });
    let add = self::sid(alice.post("/account/3pid/email/requestToken", asked).await);
    follow(&home, &mailbox.letter("three@example.org", 1).await.path()).await;
    let body = json!({ "new_password": "another long password", "auth": shown(&add, "a") });
    assert_eq!(home.post("/account/password", body).await.status, 401);
}

#[tokio::test]
async fn asking_again_sends_another_letter_only_when_that_is_wanted() {
    let Some((mailbox, home)) = start("").await else { return };
    let address = "again@example.org";
    let first = sid(ask(&home, "register", address, "s", 1).await);
    let letter = mailbox.letter(address, 1).await;
    assert_eq!(sid(ask(&home, "register", address, "s", 1).await), first);
    assert_eq!(sid(ask(&home, "register", address, "s", 2).await), first);
    let second = mailbox.letter(address, 2).await;
    assert_eq!(mailbox.letters(address).len(), 2);
    assert_eq!(follow(&home, &letter.path()).await, 400, "the first letter is worth nothing now");
    assert_eq!(follow(&home, &second.path()).await, 200);
    // Nobody is buried in letters.
    let mut replies = Vec::new();
    for number in 0..20 {
        replies.push(ask(&home, "register", address, &format!("secret{number}"), 1).await.status);
    }
    assert!(replies.contains(&429), "{replies:?}");
}

#[tokio::test]
async fn bad_addresses_secrets_and_links_are_refused() {
    let Some((mailbox, home)) = start("").await else { return };
    for address in ["", "a", "a@", "@b", "a@b@c", "a@b\r\nBcc: c@d", "a@b,c@d", "<a@b>", "a b@c"] {
        ask(&home, "register", address, "s", 1).await.expect(400, "M_INVALID_PARAM");
    }
    for secret in ["", "a b", "ä", &"x".repeat(300)] {
        ask(&home, "register", "a@b.example", secret, 1).await.expect(400, "M_INVALID_PARAM");
    }
    let asked =
        |next: &str| json!({ "client_secret": "s", "email": "a@b.example", "send_attempt": 1, "next_link": next });
    let path = "/register/email/requestToken";
    home.post(path, asked("javascript:alert(1)")).await.expect(400, "M_INVALID_PARAM");
    home.post(path, asked("https://client.example/\"><script>alert(1)</script>")).await.ok();
    let letter = mailbox.letter("a@b.example", 1).await;
    let page = home.client().raw(Method::POST, &letter.path(), None, "text/plain", "x".into()).await;
    assert!(!String::from_utf8_lossy(&page.body).contains("<script"), "{page:?}");
    let wrong = letter.path().replace("token=", "token=x");
    assert_eq!(follow(&home, &wrong).await, 400);
}

#[tokio::test]
async fn letters_outlive_outages_and_restarts() {
    let Some((mut mailbox, mut home)) = start("").await else { return };
    mailbox.refuse(Some("450 not now"));
    let address = "late@example.org";
    let sid = sid(ask(&home, "register", address, "s", 1).await);
    while mailbox.asked() == 0 {
        tokio::time::sleep(std::time::Duration::from_millis(50)).await;
    }
    mailbox.stop().await;
    home.kill();
    home.restart().await;
    mailbox.refuse(None);
    mailbox.start().await;
    let letter = mailbox.letter(address, 1).await;
    follow(&home, &letter.path()).await;
    let body = json!({ "username": unique(), "password": PASSWORD, "auth": shown(&sid, "s") });
    home.post("/register", body).await.ok();
    // What the mail server never wants is not tried again.
    mailbox.refuse(Some("550 nobody here"));
    let before = mailbox.asked();
    ask(&home, "register", "never@example.org", "s", 1).await.ok();
    tokio::time::sleep(std::time::Duration::from_secs(3)).await;
    assert_eq!(mailbox.asked(), before + 1);
}

#[tokio::test]
async fn letters_speak_the_language_of_their_readers() {
    let Some((mailbox, home)) = start("").await else { return };
    let body = json!({ "client_secret": "s", "email": "de@example.org", "send_attempt": 1 }).to_string();
    let request = stoa_kit::Request::builder()
        .method(Method::POST)
        .uri(format!("{}/_matrix/client/v3/register/email/requestToken", home.url()))
        .header("Accept-Language", "de-CH, en;q=0.5")
        .header("Content-Type", "application/json")
        .body(body.into())
        .expect("a request");
    home.client().send("a letter".to_owned(), request).await.expect("a reply").ok();
    assert!(mailbox.letter("de@example.org", 1).await.text().contains("hoffentlich du"));
}

#[tokio::test]
async fn without_a_mail_server_it_is_said() {
    let Some(launch) = own() else { return };
    let home = Home::launch(launch).await;
    ask(&home, "register", "a@b.example", "s", 1).await.expect(403, "M_THREEPID_DENIED");
    ask(&home, "account/password", "a@b.example", "s", 1).await.expect(400, "M_THREEPID_NOT_FOUND");
    ask(&home, "account/3pid", "a@b.example", "s", 1).await.expect(400, "M_THREEPID_MEDIUM_NOT_SUPPORTED");
    home.post("/account/password", json!({ "new_password": "another long password" }))
        .await
        .expect(401, "M_MISSING_TOKEN");
}
