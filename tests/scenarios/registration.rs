//! Registration: Client-Server API, "Account registration", with the identifier grammar of the appendices.

use stoa_kit::{Home, json, unique};

use crate::{home, own};

#[tokio::test]
async fn registration_asks_for_a_stage_and_names_the_session() {
    let home = home().await;
    let asked = home.post("/register", json!({ "username": unique(), "password": "a long password" })).await;
    assert_eq!(asked.status, 401);
    assert!(asked["session"].is_string());
    let flows = asked["flows"].as_array().expect("flows");
    assert!(flows.iter().any(|flow| flow["stages"] == json!(["m.login.dummy"])), "{flows:?}");
}

#[tokio::test]
async fn a_new_account_is_logged_in() {
    let home = home().await;
    let alice = home.user("alice").await;
    assert_eq!(alice.get("/account/whoami").await.ok()["user_id"], alice.id);
}

#[tokio::test]
async fn the_device_can_be_named() {
    let home = home().await;
    let body = json!({
        "username": unique(),
        "password": "a long password",
        "device_id": "LAPTOP",
        "initial_device_display_name": "Laptop",
    });
    assert_eq!(home.register(body).await.ok()["device_id"], "LAPTOP");
}

#[tokio::test]
async fn without_a_username_the_server_makes_one() {
    let home = home().await;
    let reply = home.register(json!({ "password": "a long password" })).await.ok();
    assert!(reply["user_id"].as_str().is_some_and(|id| id.starts_with('@') && id.len() > 2));
}

#[tokio::test]
async fn inhibit_login_makes_the_account_and_nothing_else() {
    let home = home().await;
    let name = unique();
    let body = json!({ "username": name, "password": "a long password", "inhibit_login": true });
    let reply = home.register(body).await.ok();
    assert!(reply["user_id"].as_str().is_some_and(|id| id.starts_with(&format!("@{name}:"))));
    assert!(reply.get("access_token").is_none() && reply.get("device_id").is_none(), "{reply}");
}

#[tokio::test]
async fn a_name_is_given_once() {
    let home = home().await;
    let alice = home.user("alice").await;
    let body = json!({ "username": alice.localpart(), "password": "a long password" });
    home.register(body).await.expect(400, "M_USER_IN_USE");
    home.get(&format!("/register/available?username={}", alice.localpart())).await.expect(400, "M_USER_IN_USE");
}

#[tokio::test]
async fn a_free_name_is_available() {
    let home = home().await;
    assert_eq!(home.get(&format!("/register/available?username={}", unique())).await.ok()["available"], true);
}

#[tokio::test]
async fn names_outside_the_grammar_are_refused() {
    let home = home().await;
    for name in ["with space", "käse", "a:b", "q?", "percent%25", &"long".repeat(80)] {
        let body = json!({ "username": name, "password": "a long password" });
        home.register(body).await.expect(400, "M_INVALID_USERNAME");
        let asked = format!("/register/available?username={}", stoa_kit::encode(name));
        home.get(&asked).await.expect_any(
            &[400],
            if name.is_ascii() { &["M_INVALID_USERNAME"] } else { &["M_INVALID_USERNAME", "M_UNKNOWN"] },
        );
    }
}

#[tokio::test]
async fn the_odd_characters_of_the_grammar_are_allowed() {
    let home = home().await;
    let name = format!("a.b=c_d-e/f+{}", unique());
    let reply = home.register(json!({ "username": name, "password": "a long password" })).await.ok();
    assert!(reply["user_id"].as_str().is_some_and(|id| id.starts_with(&format!("@{name}:"))));
}

#[tokio::test]
async fn a_password_is_needed() {
    let home = home().await;
    let reply = home.register(json!({ "username": unique() })).await;
    assert!((400..=403).contains(&reply.status), "{reply:?}");
}

#[tokio::test]
async fn two_who_ask_for_one_name_at_once_do_not_both_get_it() {
    let home = home().await;
    let name = unique();
    let ask = || home.register(json!({ "username": name, "password": "a long password" }));
    let (one, two, three) = tokio::join!(ask(), ask(), ask());
    let won = [&one, &two, &three].iter().filter(|reply| reply.status == 200).count();
    assert_eq!(won, 1, "{one:?} {two:?} {three:?}");
}

#[tokio::test]
async fn closed_registration_is_forbidden() {
    let Some(launch) = own() else { return };
    let home = Home::launch(launch.env("STOA_REGISTRATION", "closed")).await;
    let body = json!({ "username": unique(), "password": "a long password" });
    home.register(body).await.expect(403, "M_FORBIDDEN");
}

#[tokio::test]
async fn a_registration_token_is_asked_for_and_checked() {
    let Some(launch) = own() else { return };
    let home = Home::launch(launch.env("STOA_REGISTRATION", "token").env("STOA_REGISTRATION_TOKEN", "sesame")).await;
    let validity = async |token: &str| {
        let path = format!("/_matrix/client/v1/register/m.login.registration_token/validity?token={token}");
        home.get(&path).await.ok()["valid"].clone()
    };
    assert_eq!(validity("sesame").await, true);
    assert_eq!(validity("poppy").await, false);
    let body = json!({ "username": unique(), "password": "a long password" });
    let asked = home.post("/register", body.clone()).await;
    assert_eq!(asked.status, 401);
    let flows = asked["flows"].as_array().expect("flows");
    assert!(
        flows
            .iter()
            .all(|flow| flow["stages"].as_array().is_some_and(|s| s.contains(&json!("m.login.registration_token")))),
        "{flows:?}"
    );
    let with = |token: &str| {
        let mut body = body.clone();
        body["auth"] = json!({ "type": "m.login.registration_token", "token": token, "session": asked["session"] });
        body
    };
    let wrong = home.post("/register", with("poppy")).await;
    assert!(wrong.status == 401 && wrong["errcode"].is_string(), "{wrong:?}");
    let made = home.post("/register", with("sesame")).await;
    assert!(made.status == 200 || made["completed"] == json!(["m.login.registration_token"]), "{made:?}");
}

const TERMS: &str = r#"[registration]
mode = "open"
policies = [
  { id = "terms_of_service", version = "1.2", languages = { en = { name = "Terms", url = "https://example.org/en" }, de = { name = "Bedingungen", url = "https://example.org/de" } } },
]
"#;

#[tokio::test]
async fn who_registers_agrees_to_the_terms() {
    let Some(launch) = own() else { return };
    let home = Home::launch(launch.with_config(TERMS)).await;
    let mut body = json!({ "username": unique(), "password": "a long password" });
    let asked = home.post("/register", body.clone()).await;
    assert_eq!((asked.status, &asked["flows"]), (401, &json!([{ "stages": ["m.login.terms"] }])));
    let policy = &asked["params"]["m.login.terms"]["policies"]["terms_of_service"];
    assert_eq!(policy["version"], "1.2");
    assert_eq!(policy["de"], json!({ "name": "Bedingungen", "url": "https://example.org/de" }));
    // Another stage will not do.
    body["auth"] = json!({ "type": "m.login.dummy", "session": asked["session"] });
    let refused = home.post("/register", body.clone()).await;
    assert_eq!(refused.status, 401);
    body["auth"] = json!({ "type": "m.login.terms", "session": refused["session"] });
    home.post("/register", body).await.ok();
}
