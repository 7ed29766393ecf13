//! Client-Server API, "Cross-signing": publishing the three keys, and signatures that others put on them.

use stoa_kit::{Keys, User, Value, json};

use crate::home;

struct Cross {
    master: Keys,
    own: Keys,
    others: Keys,
}

impl Cross {
    fn new(seed: u8) -> Self {
        Self { master: Keys::new(seed), own: Keys::new(seed + 1), others: Keys::new(seed + 2) }
    }

    fn body(&self, user: &User) -> Value {
        let signed = |key: Value| self.master.sign(&user.id, &self.master.id(), key);
        json!({
            "master_key": self.master.cross_signing(&user.id, "master"),
            "self_signing_key": signed(self.own.cross_signing(&user.id, "self_signing")),
            "user_signing_key": signed(self.others.cross_signing(&user.id, "user_signing")),
        })
    }

    async fn upload(&self, user: &User) {
        user.post_with_password("/keys/device_signing/upload", self.body(user)).await.ok();
    }
}

async fn query(by: &User, of: &User) -> Value {
    by.post("/keys/query", json!({ "device_keys": { &of.id: [] } })).await.ok()
}

#[tokio::test]
async fn the_keys_are_published_but_the_user_signing_key_is_ones_own() {
    let home = home().await;
    let (alice, bob) = (home.user("alice").await, home.user("bob").await);
    alice.room_with(&[&bob]).await;
    let cross = Cross::new(10);
    cross.upload(&alice).await;
    let own = query(&alice, &alice).await;
    assert_eq!(own["master_keys"][&alice.id]["keys"][cross.master.id()], cross.master.public());
    assert_eq!(own["self_signing_keys"][&alice.id]["keys"][cross.own.id()], cross.own.public());
    assert_eq!(own["user_signing_keys"][&alice.id]["keys"][cross.others.id()], cross.others.public());
    let seen = query(&bob, &alice).await;
    assert_eq!(seen["master_keys"][&alice.id]["keys"][cross.master.id()], cross.master.public());
    assert!(seen["user_signing_keys"][&alice.id].is_null());
}

#[tokio::test]
async fn replacing_the_keys_asks_for_the_password() {
    let home = home().await;
    let alice = home.user("alice").await;
    Cross::new(10).upload(&alice).await;
    let next = Cross::new(20);
    let asked = alice.post("/keys/device_signing/upload", next.body(&alice)).await;
    assert_eq!(asked.status, 401, "{asked:?}");
    assert_eq!(
        query(&alice, &alice).await["master_keys"][&alice.id]["keys"][Cross::new(10).master.id()],
        Keys::new(10).public()
    );
    next.upload(&alice).await;
    assert_eq!(query(&alice, &alice).await["master_keys"][&alice.id]["keys"][next.master.id()], next.master.public());
}

#[tokio::test]
async fn the_signature_of_ones_own_device_is_kept() {
    let home = home().await;
    let (alice, bob) = (home.user("alice").await, home.user("bob").await);
    alice.room_with(&[&bob]).await;
    let device = Keys::new(1).device(&alice.id, &alice.device);
    alice.post("/keys/upload", json!({ "device_keys": device })).await.ok();
    let cross = Cross::new(10);
    cross.upload(&alice).await;
    let from = bob.sync().await.token().to_owned();
    let signed = cross.own.sign(&alice.id, &cross.own.id(), device);
    let reply = alice.post("/keys/signatures/upload", json!({ &alice.id: { &alice.device: signed } })).await.ok();
    assert!(reply["failures"].as_object().is_none_or(|failures| failures.is_empty()), "{reply}");
    let found = query(&bob, &alice).await;
    let signatures = &found["device_keys"][&alice.id][&alice.device]["signatures"][&alice.id];
    assert!(signatures[cross.own.id()].is_string() && signatures[format!("ed25519:{}", alice.device)].is_string());
    bob.sync_until(Some(&from), |sync| sync.changed_devices().contains(&alice.id.as_str())).await;
}

#[tokio::test]
async fn a_signature_on_someone_elses_master_key_is_seen_by_the_signer() {
    let home = home().await;
    let (alice, bob, carol) = (home.user("alice").await, home.user("bob").await, home.user("carol").await);
    alice.room_with(&[&bob, &carol]).await;
    let (of_alice, of_bob) = (Cross::new(10), Cross::new(20));
    of_alice.upload(&alice).await;
    of_bob.upload(&bob).await;
    let theirs = query(&alice, &bob).await["master_keys"][&bob.id].clone();
    let signed = of_alice.others.sign(&alice.id, &of_alice.others.id(), theirs);
    let body = json!({ &bob.id: { of_bob.master.public(): signed } });
    let reply = alice.post("/keys/signatures/upload", body).await.ok();
    assert!(reply["failures"].as_object().is_none_or(|failures| failures.is_empty()), "{reply}");
    let by_alice =
        |found: &Value| found["master_keys"][&bob.id]["signatures"][&alice.id][of_alice.others.id()].is_string();
    assert!(by_alice(&query(&alice, &bob).await));
    assert!(!by_alice(&query(&carol, &bob).await), "who Alice trusts is her own affair");
}

#[tokio::test]
async fn a_forged_signature_fails_alone_and_is_not_stored() {
    let home = home().await;
    let alice = home.user("alice").await;
    let device = Keys::new(1).device(&alice.id, &alice.device);
    alice.post("/keys/upload", json!({ "device_keys": device })).await.ok();
    let cross = Cross::new(10);
    cross.upload(&alice).await;
    let forged = Keys::new(99).sign(&alice.id, &cross.own.id(), device);
    let body =
        json!({ &alice.id: { &alice.device: forged, "UNKNOWN": { "device_id": "UNKNOWN", "user_id": alice.id } } });
    let reply = alice.post("/keys/signatures/upload", body).await.ok();
    let failures = &reply["failures"][&alice.id];
    assert!(failures[&alice.device]["errcode"].is_string() && failures["UNKNOWN"]["errcode"].is_string(), "{reply}");
    let found = query(&alice, &alice).await;
    let signatures = &found["device_keys"][&alice.id][&alice.device]["signatures"][&alice.id];
    assert!(signatures[cross.own.id()].is_null(), "{signatures}");
}

#[tokio::test]
async fn keys_of_somebody_else_are_refused() {
    let home = home().await;
    let (alice, bob) = (home.user("alice").await, home.user("bob").await);
    let body = Cross::new(10).body(&bob);
    let reply = alice.post_with_password("/keys/device_signing/upload", body).await;
    assert!(reply.status == 400 || reply.status == 403, "{reply:?}");
    assert!(query(&bob, &bob).await["master_keys"][&bob.id].is_null());
}
