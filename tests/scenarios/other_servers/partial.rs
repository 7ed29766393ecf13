//! Rooms that are joined before their members are known (`send_join` with `omit_members`), over a server that says what the
//! test wants it to say.

use std::time::Duration;

use stoa_kit::{Garden, SyncOptions, User, Value, encode, json};
use tokio::time::sleep;

use super::{Meeting, path};

/// How many members the rooms of the other server have besides the one who made it.
const MEMBERS: usize = 30;

/// How the other server tells the state of its room.
#[derive(Clone, Debug)]
enum Mood {
    /// As it is.
    Honest,
    /// Not at all.
    Refusing,
    /// Without the events of this type.
    Without(&'static str),
    /// With events that it does not give when asked for them.
    Withholding,
    /// With members whose content is not what was hashed.
    Tampered,
}

fn lazy() -> Value {
    json!({ "room": { "state": { "lazy_load_members": true } } })
}

/// A room of the other server with so many members, which it tells to who joins without them.
fn large_garden(meeting: &Meeting, members: usize) -> Garden {
    let other = &meeting.other;
    let garden = Garden::of(other);
    garden.state(other, "m.room.name", "", json!({ "name": "Garden" }));
    for n in 0..members {
        let content = json!({ "membership": "join", "displayname": format!("Number {n}") });
        garden.state(other, "m.room.member", &other.user(&format!("user{n}")), content);
    }
    let (told, name) = (garden.clone(), other.name().to_owned());
    other.answers(&format!("v2/send_join/{}", garden.id), move |asked| {
        let (status, answer) = told.tell_join(asked);
        let mut answer: Value = serde_json::from_str(&answer).expect("what was just written");
        if asked.query.contains("omit_members=true") {
            answer["state"].as_array_mut().expect("state").retain(|event| event["type"] != "m.room.member");
            answer["members_omitted"] = json!(true);
            answer["servers_in_room"] = json!([name]);
        }
        (status, answer.to_string())
    });
    garden
}

/// From now on the other server tells the state so.
fn tell(meeting: &Meeting, garden: &Garden, mood: Mood) {
    let (other, id) = (&meeting.other, garden.id.clone());
    let (of_ids, of_state, of_events) = (garden.clone(), garden.clone(), garden.clone());
    let (for_ids, for_state) = (mood.clone(), mood.clone());
    let refused = || (404, json!({ "errcode": "M_NOT_FOUND", "error": "not now" }).to_string());
    other.answers(&format!("v1/state_ids/{id}"), move |asked| {
        let (status, answer) = of_ids.tell_state_ids(asked);
        let mut answer: Value = serde_json::from_str(&answer).expect("what was just written");
        match &for_ids {
            Mood::Refusing => return refused(),
            Mood::Without(kind) => {
                let is =
                    |id: &Value| of_ids.event(id.as_str().unwrap_or_default()).is_some_and(|it| it["type"] == *kind);
                answer["pdu_ids"].as_array_mut().expect("ids").retain(|id| !is(id));
            }
            _ => {}
        }
        (status, answer.to_string())
    });
    other.answers(&format!("v1/state/{id}"), move |asked| {
        let (status, answer) = of_state.tell_state(asked);
        let mut answer: Value = serde_json::from_str(&answer).expect("what was just written");
        let pdus = answer["pdus"].as_array_mut().expect("state");
        match &for_state {
            Mood::Refusing => return refused(),
            Mood::Withholding => pdus.truncate(pdus.len() / 2),
            Mood::Tampered => pdus.iter_mut().for_each(rename),
            _ => {}
        }
        (status, answer.to_string())
    });
    other.answers("v1/event/", move |asked| match (&mood, of_events.event(asked.segment(2))) {
        (Mood::Withholding, _) | (_, None) => refused(),
        (_, Some(event)) => (200, json!({ "pdus": [event] }).to_string()),
    });
}

fn rename(event: &mut Value) {
    if event["type"] == "m.room.member" {
        event["content"]["displayname"] = json!("Somebody else");
    }
}

/// A room of the other server, which says so little of it that its members stay unknown, and Alice in it.
async fn half_joined(meeting: &Meeting) -> (User, String, Garden) {
    let garden = large_garden(meeting, MEMBERS);
    tell(meeting, &garden, Mood::Refusing);
    let alice = meeting.home.user("alice").await;
    join(meeting, &alice, &garden.id).await;
    (alice, garden.id.clone(), garden)
}

async fn join(meeting: &Meeting, user: &User, room: &str) {
    user.post(&format!("/join/{}?via={}", encode(room), encode(meeting.other.name())), json!({})).await.ok();
}

fn members_path(room: &str) -> String {
    format!("/rooms/{}/joined_members", encode(room))
}

async fn count_members(user: &User, room: &str) -> usize {
    user.get(&members_path(room)).await.ok()["joined"].as_object().map_or(0, |joined| joined.len())
}

fn count_in_state(sync: &stoa_kit::Sync, room: &str) -> usize {
    sync.state(room).iter().filter(|event| event["type"] == "m.room.member").count()
}

#[tokio::test]
async fn the_user_is_in_and_talks_before_the_members_are_known() {
    let Some(meeting) = Meeting::new().await else { return };
    let (alice, room, garden) = half_joined(&meeting).await;
    let before = alice.sync_with(&SyncOptions::default().filter(lazy())).await;
    assert_eq!(alice.state(&room, "m.room.name", "").await.ok()["name"], "Garden");
    let own = format!("@{}:{}", alice.localpart(), alice.server());
    assert_eq!(alice.state(&room, "m.room.member", &own).await.ok()["membership"], "join");
    alice.text(&room, "here I am").await;
    meeting.other.hears_of("here I am").await;
    // Clients that load members lazily see the room, without counts that nobody knows.
    let told = alice.sync_with(&SyncOptions::since(before.token()).filter(lazy())).await;
    assert_eq!(told.timeline(&room).last().map(|event| &event["content"]["body"]), Some(&json!("here I am")));
    assert!(before.joined(&room)["summary"]["m.joined_member_count"].is_null());
    // Others are shown it when it is whole.
    assert!(alice.sync().await.joined(&room).is_null());
    let waiting = alice.clone();
    let of_room = room.clone();
    let members = tokio::spawn(async move { count_members(&waiting, &of_room).await });
    sleep(Duration::from_millis(300)).await;
    assert!(!members.is_finished(), "the members are not known yet");
    tell(&meeting, &garden, Mood::Honest);
    assert_eq!(members.await.expect("the members"), MEMBERS + 2);
    let whole = alice.sync_until(None, |sync| !sync.joined(&room).is_null()).await;
    assert_eq!(count_in_state(&whole, &room), MEMBERS + 1, "and Alice in the timeline");
    let told = alice.sync_with(&SyncOptions::since(told.token()).filter(lazy())).await;
    assert_eq!(told.joined(&room)["summary"]["m.joined_member_count"], MEMBERS + 2);
    assert_eq!(count_in_state(&told, &room), 0, "whoever wants all members asks for them");
    let at = format!("/rooms/{}/members?at={}", encode(&room), encode(before.token()));
    assert_eq!(alice.get(&at).await.ok()["chunk"].as_array().map(Vec::len), Some(MEMBERS + 2));
}

#[tokio::test]
async fn a_client_that_wants_all_members_gets_the_room_when_it_is_whole() {
    let Some(meeting) = Meeting::new().await else { return };
    let alice = meeting.home.user("alice").await;
    let start = alice.sync().await;
    let garden = large_garden(&meeting, MEMBERS);
    tell(&meeting, &garden, Mood::Refusing);
    let room = garden.id.clone();
    join(&meeting, &alice, &room).await;
    alice.text(&room, "a beginning").await;
    let nothing = alice.sync_since(start.token()).await;
    assert!(nothing.joined(&room).is_null());
    tell(&meeting, &garden, Mood::Honest);
    let whole = alice.sync_until(Some(nothing.token()), |sync| !sync.joined(&room).is_null()).await;
    let said = whole.timeline(&room).iter().filter(|event| event["content"]["body"] == "a beginning").count();
    assert_eq!((count_in_state(&whole, &room) >= MEMBERS, said), (true, 1));
}

#[tokio::test]
async fn sliding_sync_shows_the_room_lazily_or_when_it_is_whole() {
    let Some(meeting) = Meeting::new().await else { return };
    let (alice, room, garden) = half_joined(&meeting).await;
    let ask = |name: &str, wanted: Value| {
        let list = json!({ "ranges": [[0, 9]], "timeline_limit": 5, "required_state": wanted });
        json!({ "conn_id": name, "lists": { "all": list } })
    };
    let lazy = ask("lazy", json!([["m.room.member", "$LAZY"], ["m.room.name", ""]]));
    let whole = ask("whole", json!([["*", "*"]]));
    let members = |answer: &Value| {
        let state = answer["rooms"][&room]["required_state"].as_array().map(Vec::as_slice).unwrap_or_default();
        state.iter().filter(|event| event["type"] == "m.room.member").count()
    };
    let lazily = alice.slide(None, 0, lazy.clone()).await.ok();
    assert_eq!(lazily["rooms"][&room]["name"], "Garden");
    assert!(lazily["rooms"][&room]["joined_count"].is_null(), "nobody knows");
    let nothing = alice.slide(None, 0, whole.clone()).await.ok();
    assert!(nothing["rooms"][&room].is_null());
    tell(&meeting, &garden, Mood::Honest);
    alice.sync_until(None, |sync| !sync.joined(&room).is_null()).await;
    let lazily = alice.slide(lazily["pos"].as_str(), 0, lazy).await.ok();
    assert_eq!(lazily["rooms"][&room]["joined_count"], MEMBERS + 2);
    assert_eq!(members(&lazily), 0, "whoever wants all members asks for them");
    let all = alice.slide(nothing["pos"].as_str(), 0, whole).await.ok();
    assert_eq!((&all["rooms"][&room]["initial"], members(&all)), (&json!(true), MEMBERS + 2));
}

#[tokio::test]
async fn who_speaks_is_shown_with_a_name() {
    let Some(meeting) = Meeting::new().await else { return };
    let (alice, room, garden) = half_joined(&meeting).await;
    let before = alice.sync_with(&SyncOptions::default().filter(lazy())).await;
    let speaker = meeting.other.user("user7");
    let content = json!({ "msgtype": "m.text", "body": "good morning" });
    let (_, event) = meeting.other.event(garden.draft(&speaker, "m.room.message", None, content));
    let answer = meeting.other.send(&meeting.home, &[&event]).await.ok();
    assert!(
        answer["pdus"].as_object().is_some_and(|pdus| pdus.values().all(|it| it.get("error").is_none())),
        "{answer}"
    );
    let told = alice.sync_with(&SyncOptions::since(before.token()).filter(lazy())).await;
    assert_eq!(told.timeline(&room).last().map(|event| &event["content"]["body"]), Some(&json!("good morning")));
    let state = told.state(&room);
    let named = state.iter().find(|event| event["state_key"] == speaker.as_str()).expect("the speaker's member event");
    assert_eq!(named["content"]["displayname"], "Number 7");
    // Whether another one is there cannot be said.
    let asked = meeting.other.get(&meeting.home, &path("make_join", &[&room, &meeting.other.user("new")])).await;
    asked.expect(404, "M_NOT_FOUND");
}

#[tokio::test]
async fn other_servers_are_told_nothing_that_is_not_whole() {
    let Some(meeting) = Meeting::new().await else { return };
    let (alice, room, garden) = half_joined(&meeting).await;
    let said = alice.text(&room, "in between").await;
    let ask = async |what: &str| {
        let path = format!("{}?event_id={}", path(what, &[&room]), encode(&said));
        meeting.other.get(&meeting.home, &path).await
    };
    ask("state_ids").await.expect(404, "M_NOT_FOUND");
    ask("state").await.expect(404, "M_NOT_FOUND");
    tell(&meeting, &garden, Mood::Honest);
    assert_eq!(count_members(&alice, &room).await, MEMBERS + 2);
    let whole = ask("state_ids").await.ok();
    assert!(whole["pdu_ids"].as_array().is_some_and(|ids| ids.len() > MEMBERS + 2));
}

#[tokio::test]
async fn what_is_no_whole_state_is_not_believed() {
    let without = ["m.room.create", "m.room.join_rules", "m.room.name"].map(Mood::Without);
    for mood in without.into_iter().chain([Mood::Withholding]) {
        let Some(meeting) = Meeting::new().await else { return };
        let garden = large_garden(&meeting, 60);
        tell(&meeting, &garden, mood.clone());
        let room = garden.id.clone();
        let alice = meeting.home.user("alice").await;
        join(&meeting, &alice, &room).await;
        sleep(Duration::from_millis(1500)).await;
        assert!(alice.sync().await.joined(&room).is_null(), "{mood:?} was believed");
        alice.text(&room, "still here").await;
        tell(&meeting, &garden, Mood::Honest);
        assert_eq!(count_members(&alice, &room).await, 62, "{mood:?}");
    }
}

#[tokio::test]
async fn members_that_are_not_what_was_hashed_lose_what_was_changed() {
    let Some(meeting) = Meeting::new().await else { return };
    let garden = large_garden(&meeting, 60);
    tell(&meeting, &garden, Mood::Tampered);
    let room = garden.id.clone();
    let alice = meeting.home.user("alice").await;
    join(&meeting, &alice, &room).await;
    let joined = alice.get(&members_path(&room)).await.ok()["joined"].clone();
    let joined = joined.as_object().expect("members");
    assert_eq!(joined.len(), 62);
    assert!(joined.values().all(|member| member["display_name"] != "Somebody else"));
}

#[tokio::test]
async fn a_restart_goes_on_with_it() {
    let Some(mut meeting) = Meeting::new().await else { return };
    let (alice, room, garden) = half_joined(&meeting).await;
    alice.text(&room, "before").await;
    meeting.home.restart().await;
    let alice = meeting.home.device_of(&alice).await;
    assert!(alice.sync().await.joined(&room).is_null());
    alice.text(&room, "after").await;
    tell(&meeting, &garden, Mood::Honest);
    assert_eq!(count_members(&alice, &room).await, MEMBERS + 2);
    let sync = alice.sync_until(None, |sync| !sync.joined(&room).is_null()).await;
    let bodies: Vec<&Value> = sync.timeline(&room).iter().map(|event| &event["content"]["body"]).collect();
    assert!(bodies.contains(&&json!("before")) && bodies.contains(&&json!("after")), "{bodies:?}");
}

#[tokio::test]
async fn leaving_needs_no_members_and_coming_back_asks_again() {
    let Some(meeting) = Meeting::new().await else { return };
    let (alice, room, garden) = half_joined(&meeting).await;
    alice.leave(&room).await.ok();
    assert!(alice.get(&members_path(&room)).await.status != 200);
    join(&meeting, &alice, &room).await;
    alice.text(&room, "again").await;
    tell(&meeting, &garden, Mood::Honest);
    assert_eq!(count_members(&alice, &room).await, MEMBERS + 2);
}

#[tokio::test]
async fn changing_a_membership_that_is_not_known_waits() {
    let Some(meeting) = Meeting::new().await else { return };
    let (alice, room, garden) = half_joined(&meeting).await;
    let bob = meeting.home.user("bob").await;
    let target = meeting.other.user("user3");
    let (kicking, of_room) = (alice.clone(), room.clone());
    let kick = tokio::spawn(async move {
        kicking.post(&format!("/rooms/{}/kick", encode(&of_room)), json!({ "user_id": target })).await
    });
    let (joining, of_room) = (bob.clone(), room.clone());
    let second = tokio::spawn(async move { joining.join(&of_room).await });
    sleep(Duration::from_millis(500)).await;
    assert!(!kick.is_finished() && !second.is_finished());
    tell(&meeting, &garden, Mood::Honest);
    kick.await.expect("an answer").expect(403, "M_FORBIDDEN");
    second.await.expect("an answer").ok();
    assert_eq!(count_members(&bob, &room).await, MEMBERS + 3);
}

#[tokio::test]
async fn a_server_that_asks_for_it_is_told_a_room_without_its_members() {
    let Some(meeting) = Meeting::new().await else { return };
    let (home, other) = (&meeting.home, &meeting.other);
    let (alice, carol) = (home.user("alice").await, home.user("carol").await);
    let room = alice.public_room().await;
    carol.join(&room).await.ok();
    let third = meeting.another(2).await;
    third.join(home, &room, &third.user("dan")).await;
    let join = async |server: &stoa_kit::Stranger, user: &str, omit: &str| {
        let (id, event) = server.make(home, "join", &room, &server.user(user)).await;
        let path = format!("/_matrix/federation/v2/send_join/{}/{}{omit}", encode(&room), encode(&id));
        server.put(home, &path, &event).await.ok()
    };
    let members = |answer: &Value, of: &str| -> Vec<String> {
        let events = answer[of].as_array().expect("events").iter().filter(|event| event["type"] == "m.room.member");
        events.map(|event| event["state_key"].as_str().unwrap_or_default().to_owned()).collect()
    };
    // A room without a name is called by its members.
    let answer = join(other, "bob", "?omit_members=true").await;
    let whole = join(other, "erin", "?omit_members=false").await;
    assert_eq!((&whole["members_omitted"], whole["servers_in_room"].is_null()), (&json!(false), true));
    assert!(members(&whole, "state").contains(&other.user("bob")));
    assert_eq!(members(&answer, "state").len(), 3);
    assert_eq!(answer["members_omitted"], false, "those three are all");
    alice.set_state(&room, "m.room.name", "", json!({ "name": "Garden" })).await.ok();
    let answer = join(other, "frank", "?omit_members=true").await;
    assert_eq!((&answer["members_omitted"], members(&answer, "state").len()), (&json!(true), 0));
    let mut servers: Vec<&str> =
        answer["servers_in_room"].as_array().expect("servers").iter().filter_map(Value::as_str).collect();
    servers.sort_unstable();
    let mut expected = vec![home.server_name(), other.name().to_owned(), third.name().to_owned()];
    expected.sort();
    assert_eq!(servers, expected);
    // Who made the room is needed to allow what is told; nothing is told twice.
    assert!(members(&answer, "auth_chain").contains(&alice.id));
    let state = answer["state"].as_array().expect("state");
    assert!(answer["auth_chain"].as_array().expect("a chain").iter().all(|event| !state.contains(event)));
    // Whose server comes first is not among those that were there.
    let fourth = meeting.another(3).await;
    let answer = join(&fourth, "gina", "?omit_members=true").await;
    assert!(!answer["servers_in_room"].to_string().contains(fourth.name()));
}
