//! E-mail addresses and phone numbers, which this server does not know; pushers. Client-Server API, "Adding Account Administrative
//! Contact Information", "Push Notifications".

use stoa_kit::{json, unique};

use crate::{home, one, strict};

#[tokio::test]
async fn nobody_has_an_address() {
    let (home, alice, _) = one().await;
    assert_eq!(alice.get("/account/3pid").await.ok(), json!({ "threepids": [] }));
    if !strict() {
        return;
    }
    let proof = json!({ "client_secret": "s", "sid": "1", "id_server": "id.example", "id_access_token": "t" });
    for path in ["/account/3pid", "/account/3pid/add", "/account/3pid/bind"] {
        alice
            .post(path, json!({ "three_pid_creds": proof, "client_secret": "s", "sid": "1" }))
            .await
            .expect(403, "M_THREEPID_DENIED");
    }
    let address = json!({ "medium": "email", "address": "alice@example.org" });
    for path in ["/account/3pid/delete", "/account/3pid/unbind"] {
        assert_eq!(alice.post(path, address.clone()).await.ok()["id_server_unbind_result"], "no-support");
    }
    let email = json!({ "client_secret": "s", "email": "alice@example.org", "send_attempt": 1 });
    let phone = json!({ "client_secret": "s", "country": "GB", "phone_number": "07700900001", "send_attempt": 1 });
    for (medium, body) in [("email", email), ("msisdn", phone)] {
        let ask = async |path: &str| home.post(&format!("{path}/{medium}/requestToken"), body.clone()).await;
        ask("/account/3pid").await.expect(400, "M_THREEPID_MEDIUM_NOT_SUPPORTED");
        ask("/account/password").await.expect(400, "M_THREEPID_NOT_FOUND");
        ask("/register").await.expect(403, "M_THREEPID_DENIED");
    }
}

#[tokio::test]
async fn a_pusher_is_set_listed_and_taken_away() {
    let home = home().await;
    let alice = home.user("alice").await;
    let key = unique();
    let pusher = json!({
        "pushkey": key, "kind": "http", "app_id": "org.example.app", "app_display_name": "App",
        "device_display_name": "Phone", "lang": "en", "data": { "url": "https://push.example.org/_matrix/push/v1/notify" },
    });
    alice.post("/pushers/set", pusher.clone()).await.ok();
    let listed = alice.get("/pushers").await.ok();
    assert_eq!(
        (&listed["pushers"][0]["pushkey"], &listed["pushers"][0]["data"]),
        (&pusher["pushkey"], &pusher["data"])
    );
    alice.post("/pushers/set", json!({ "pushkey": key, "app_id": "org.example.app", "kind": null })).await.ok();
    assert_eq!(alice.get("/pushers").await.ok(), json!({ "pushers": [] }));
}
