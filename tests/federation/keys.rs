//! Server-Server API, "Device Management", "End-to-End Encryption", "Send-to-device messaging".

use stoa_kit::{Keys, Sync, User, Value, encode, json};

use crate::{PATIENCE, Two, accept, arrives, becomes, between, eventually};

const CURVE: &str = "signed_curve25519";

async fn upload_device(user: &User, seed: u8) -> Value {
    let keys = Keys::new(seed).device(&user.id, &user.device);
    user.post("/keys/upload", json!({ "device_keys": keys })).await.ok();
    keys
}

fn signed_key(user: &User, name: &str) -> Value {
    let key = json!({ "key": format!("public-{name}") });
    Keys::new(9).sign(&user.id, &format!("ed25519:{}", user.device), key)
}

/// An encrypted room of both.
async fn encrypted_room(alice: &User, bob: &User) -> String {
    let state = json!([
        { "type": "m.room.encryption", "state_key": "", "content": { "algorithm": "m.megolm.v1.aes-sha2" } },
    ]);
    let room = alice.create_room(json!({ "preset": "private_chat", "invite": [bob.id], "initial_state": state })).await;
    accept(bob, &room).await;
    becomes(alice, &room, bob, "join").await;
    room
}

/// Waits until somebody is told that the devices of somebody changed; gives the token after that.
async fn changed(user: &User, since: &str, of: &User) -> String {
    user.sync_until(Some(since), |sync| sync.changed_devices().contains(&of.id.as_str())).await.token().to_owned()
}

async fn devices(asked_by: &User, of: &User) -> Value {
    asked_by.post("/keys/query", json!({ "device_keys": { &of.id: [] } })).await.ok()["device_keys"][&of.id].clone()
}

/// Waits until somebody finds exactly these devices of somebody.
async fn has_devices(asked_by: &User, of: &User, wanted: &[&str]) {
    let same = async || {
        let found = devices(asked_by, of).await;
        let names: Vec<&str> = found.as_object().into_iter().flat_map(|map| map.keys()).map(String::as_str).collect();
        let mut wanted = wanted.to_vec();
        wanted.sort_unstable();
        let mut names = names;
        names.sort_unstable();
        (names == wanted).then_some(())
    };
    eventually(&format!("{} finds the devices {wanted:?} of {}", asked_by.id, of.id), same).await;
}

between!(device_keys_of_a_stranger);
async fn device_keys_of_a_stranger(two: Two) {
    let (alice, bob) = two.users().await;
    let keys = upload_device(&alice, 1).await;
    let found = devices(&bob, &alice).await;
    let device = &found[&alice.device];
    assert_eq!((&device["keys"], &device["signatures"]), (&keys["keys"], &keys["signatures"]));
    assert_eq!(device["algorithms"], keys["algorithms"]);
}

between!(device_lists_follow);
async fn device_lists_follow(two: Two) {
    let (alice, bob) = two.users().await;
    encrypted_room(&alice, &bob).await;
    for (home, owner, watcher) in [(&two.b.home, &bob, &alice), (&two.a.home, &alice, &bob)] {
        let token = watcher.sync().await.token().to_owned();
        upload_device(owner, 1).await;
        let token = changed(watcher, &token, owner).await;
        has_devices(watcher, owner, &[&owner.device]).await;
        let phone = home.device_of(owner).await;
        upload_device(&phone, 2).await;
        let token = changed(watcher, &token, owner).await;
        has_devices(watcher, owner, &[&owner.device, &phone.device]).await;
        phone.post("/logout", json!({})).await.ok();
        changed(watcher, &token, owner).await;
        has_devices(watcher, owner, &[&owner.device]).await;
    }
}

between!(one_time_keys);
async fn one_time_keys(two: Two) {
    let (alice, bob) = two.users().await;
    upload_device(&bob, 1).await;
    let mut fallback = json!({ "key": "public-fallback", "fallback": true });
    fallback = Keys::new(9).sign(&bob.id, &format!("ed25519:{}", bob.device), fallback);
    let keys = json!({
        "one_time_keys": {
            format!("{CURVE}:a"): signed_key(&bob, "a"),
            format!("{CURVE}:b"): signed_key(&bob, "b"),
        },
        "fallback_keys": { format!("{CURVE}:f"): fallback },
    });
    bob.post("/keys/upload", keys).await.ok();
    let claim = async || {
        let body = json!({ "one_time_keys": { &bob.id: { &bob.device: CURVE } } });
        let reply = alice.post("/keys/claim", body).await.ok();
        reply["one_time_keys"][&bob.id][&bob.device].as_object().cloned().unwrap_or_default()
    };
    let mut names = Vec::new();
    for _ in 0..4 {
        let keys = claim().await;
        assert_eq!(keys.len(), 1, "{keys:?}");
        for (name, key) in keys {
            assert!(key["signatures"][&bob.id].is_object(), "{key}");
            names.push(name);
        }
    }
    names[..2].sort();
    // Each once, and then the one that may be used again.
    assert_eq!(names, ["a", "b", "f", "f"].map(|name| format!("{CURVE}:{name}")));
}

between!(to_device_messages);
async fn to_device_messages(two: Two) {
    let (alice, bob) = two.users().await;
    let phone = two.b.home.device_of(&bob).await;
    for (from, to, device, name) in [(&alice, &bob, &bob, "one"), (&bob, &alice, &alice, "other")] {
        let words: Vec<String> = (0..30).map(|n| format!("{name} {n}")).collect();
        for word in &words {
            let messages = json!({ "messages": { &to.id: { &device.device: { "word": word } } } });
            from.put(&format!("/sendToDevice/org.example.hello/{}", encode(word)), messages).await.ok();
        }
        let heard = heard(device, words.len()).await;
        assert_eq!(heard, words, "each once, in order");
    }
    let messages = json!({ "messages": { &bob.id: { "*": { "word": "all" } } } });
    alice.put("/sendToDevice/org.example.hello/all", messages).await.ok();
    for device in [&bob, &phone] {
        let has = |sync: &Sync| sync.to_device().iter().any(|event| event["content"]["word"] == "all");
        let sync = device.sync_until(None, has).await;
        assert!(sync.to_device().iter().all(|event| event["sender"] == alice.id), "{}", sync.0);
    }
}

/// Follows the to-device messages of a device until there are this many, and a moment longer.
async fn heard(device: &User, count: usize) -> Vec<String> {
    let mut words: Vec<String> = Vec::new();
    let mut since: Option<String> = None;
    let start = tokio::time::Instant::now();
    loop {
        let complete = words.len() >= count;
        let options = stoa_kit::SyncOptions { since, timeout: 1000, ..Default::default() };
        let sync = device.sync_with(&options).await;
        let new = sync.to_device();
        words.extend(new.iter().filter_map(|event| event["content"]["word"].as_str()).map(str::to_owned));
        if complete || start.elapsed() > PATIENCE {
            return words;
        }
        since = Some(sync.token().to_owned());
    }
}

between!(cross_signing);
async fn cross_signing(two: Two) {
    let (alice, bob) = two.users().await;
    encrypted_room(&alice, &bob).await;
    upload_device(&bob, 1).await;
    let token = alice.sync().await.token().to_owned();
    let (master, signing) = (Keys::new(20), Keys::new(21));
    let master_key = master.cross_signing(&bob.id, "master");
    let self_signing = master.sign(&bob.id, &master.id(), signing.cross_signing(&bob.id, "self_signing"));
    let body = json!({ "master_key": master_key, "self_signing_key": self_signing });
    bob.post_with_password("/keys/device_signing/upload", body).await.ok();
    changed(&alice, &token, &bob).await;
    let found = async || {
        let reply = alice.post("/keys/query", json!({ "device_keys": { &bob.id: [] } })).await.ok();
        let same = reply["master_keys"][&bob.id]["keys"] == master_key["keys"]
            && reply["self_signing_keys"][&bob.id]["keys"] == self_signing["keys"];
        assert!(reply["user_signing_keys"][&bob.id].is_null(), "that one is nobody else's business");
        same.then_some(())
    };
    eventually("Bob's cross-signing keys at Alice's server", found).await;
    // The device is signed, and that is told too.
    let mut device = devices(&bob, &bob).await[&bob.device].clone();
    if let Some(fields) = device.as_object_mut() {
        fields.remove("unsigned");
    }
    let signed = signing.sign(&bob.id, &signing.id(), device);
    let body = json!({ &bob.id: { &bob.device: signed } });
    let reply = bob.post("/keys/signatures/upload", body).await.ok();
    assert!(reply["failures"].as_object().is_none_or(|failures| failures.is_empty()), "{reply}");
    let signed = async || {
        let found = devices(&alice, &bob).await;
        found[&bob.device]["signatures"][&bob.id][signing.id()].is_string().then_some(())
    };
    eventually("the signature of Bob's device at Alice's server", signed).await;
}

between!(an_encrypted_conversation);
async fn an_encrypted_conversation(two: Two) {
    let (alice, bob) = two.users().await;
    let room = encrypted_room(&alice, &bob).await;
    upload_device(&alice, 1).await;
    upload_device(&bob, 2).await;
    let one_time = json!({ format!("{CURVE}:k"): signed_key(&bob, "k") });
    bob.post("/keys/upload", json!({ "one_time_keys": one_time })).await.ok();
    // As a client does it: find the devices, claim a key for each, hand over the session, send.
    has_devices(&alice, &bob, &[&bob.device]).await;
    let body = json!({ "one_time_keys": { &bob.id: { &bob.device: CURVE } } });
    let claimed = alice.post("/keys/claim", body).await.ok();
    assert!(claimed["one_time_keys"][&bob.id][&bob.device][format!("{CURVE}:k")].is_object(), "{claimed}");
    let olm = json!({
        "algorithm": "m.olm.v1.curve25519-aes-sha2", "sender_key": "hers",
        "ciphertext": { "his": { "type": 0, "body": "the session" } },
    });
    let messages = json!({ "messages": { &bob.id: { &bob.device: olm } } });
    alice.put("/sendToDevice/m.room.encrypted/1", messages).await.ok();
    let megolm = json!({
        "algorithm": "m.megolm.v1.aes-sha2", "sender_key": "hers", "session_id": "s",
        "device_id": alice.device, "ciphertext": "unreadable",
    });
    let event = alice.send(&room, "m.room.encrypted", megolm.clone()).await.event_id();
    assert_eq!(arrives(&bob, &room, &event).await["content"], megolm);
    let session = |sync: &Sync| sync.to_device().iter().any(|event| event["content"] == olm);
    let sync = bob.sync_until(None, session).await;
    let message = sync.to_device()[0].clone();
    assert_eq!((&message["type"], &message["sender"]), (&json!("m.room.encrypted"), &json!(alice.id)));
}
