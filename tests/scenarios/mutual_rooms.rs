//! Client-Server API, "Mutual rooms".

use stoa_kit::{User, Value, encode, json};

use crate::{home, two};

const PATHS: [&str; 2] =
    ["/_matrix/client/v1/mutual_rooms", "/_matrix/client/unstable/uk.half-shot.msc2666/user/mutual_rooms"];

async fn shared(user: &User, other: &str) -> Value {
    let first = user.get(&format!("{}?user_id={}", PATHS[0], encode(other))).await.ok();
    let second = user.get(&format!("{}?user_id={}", PATHS[1], encode(other))).await.ok();
    assert_eq!(first, second);
    first
}

#[tokio::test]
async fn only_rooms_that_both_are_joined_to_count() {
    let (home, alice, bob, room) = two().await;
    let carol = home.user("carol").await;
    let (public, invited) = (alice.public_room().await, alice.create_room(json!({ "invite": [bob.id] })).await);
    bob.join(&public).await.ok();
    carol.join(&public).await.ok();
    let mut both = [room.clone(), public.clone()];
    let mut told: Vec<String> = serde_json::from_value(shared(&alice, &bob.id).await["joined"].clone()).unwrap();
    both.sort();
    told.sort();
    assert_eq!(told, both);
    assert_eq!(shared(&bob, &alice.id).await["count"], 2);
    assert_eq!(shared(&carol, &bob.id).await, json!({ "joined": [public], "count": 1 }));
    bob.leave(&public).await.ok();
    assert_eq!(shared(&alice, &bob.id).await, json!({ "joined": [room], "count": 1 }));
    assert_eq!(shared(&carol, &bob.id).await, json!({ "joined": [], "count": 0 }));
    bob.join(&invited).await.ok();
    assert_eq!(shared(&alice, &bob.id).await["count"], 2);
}

#[tokio::test]
async fn who_is_not_known_shares_nothing() {
    let home = home().await;
    let alice = home.user("alice").await;
    for other in ["@nobody:localhost", "@nobody:elsewhere.example"] {
        assert_eq!(shared(&alice, other).await, json!({ "joined": [], "count": 0 }));
    }
}

#[tokio::test]
async fn what_cannot_be_asked_is_refused() {
    let home = home().await;
    let alice = home.user("alice").await;
    let ask = |query: String| {
        let alice = alice.clone();
        async move { alice.get(&format!("{}{query}", PATHS[0])).await }
    };
    ask(format!("?user_id={}", alice.path_id())).await.expect(400, "M_INVALID_PARAM");
    ask(format!("?user_id={}", encode("@Ugly Name:localhost"))).await.expect(400, "M_INVALID_PARAM");
    ask("?user_id=nonsense".to_owned()).await.expect(400, "M_INVALID_PARAM");
    ask(format!("?user_id={}&from=nonsense", encode("@a:localhost"))).await.expect(400, "M_INVALID_PARAM");
    ask(String::new()).await.expect_any(&[400], &["M_MISSING_PARAM", "M_INVALID_PARAM"]);
    home.get(&format!("{}?user_id=%40a%3Alocalhost", PATHS[0])).await.expect(401, "M_MISSING_TOKEN");
}

#[tokio::test]
async fn many_rooms_come_in_pages() {
    let home = home().await;
    let (alice, bob) = (home.user("alice").await, home.user("bob").await);
    for _ in 0..103 {
        let room = alice.public_room().await;
        bob.join(&room).await.ok();
    }
    let first = shared(&alice, &bob.id).await;
    let next = first["next_batch"].as_str().expect("more to come");
    let path = format!("{}?user_id={}&from={}", PATHS[0], bob.path_id(), encode(next));
    let second = alice.get(&path).await.ok();
    assert_eq!((&first["count"], &second["count"]), (&json!(103), &json!(103)));
    assert!(second.get("next_batch").is_none());
    let ids = |page: &Value| page["joined"].as_array().unwrap().iter().map(Value::to_string).collect::<Vec<_>>();
    let all: std::collections::BTreeSet<String> = ids(&first).into_iter().chain(ids(&second)).collect();
    assert_eq!((all.len(), ids(&second).len()), (103, 3));
}
