//! What Element X does, by its own SDK, against a homeserver: `stoa-clients-rust URL`. The last line says how many cases passed.

use std::{error::Error, future::Future, pin::pin, time::Duration};

use eyeball_im::{Vector, VectorDiff};
use futures_util::{Stream, StreamExt};
use matrix_sdk::{
    Client, Room, RoomState,
    encryption::{
        BackupDownloadStrategy, EncryptionSettings, VerificationState,
        recovery::RecoveryState,
        verification::{SasVerification, VerificationRequest},
    },
    room::edit::EditedContent,
    ruma::{
        OwnedRoomId, OwnedUserId,
        api::client::{
            account::register::v3::Request as Register,
            receipt::create_receipt::v3::ReceiptType,
            room::create_room::v3::{Request as Create, RoomPreset},
            uiaa::{AuthData, Dummy},
        },
        events::room::message::{RoomMessageEventContent, RoomMessageEventContentWithoutRelation},
    },
};
use matrix_sdk_ui::{
    room_list_service::{RoomListItem, RoomListLoadingState, filters::new_filter_non_left},
    sync_service::{State, SyncService},
    timeline::{EventTimelineItem, RoomExt, Timeline},
};

type Result<T = ()> = std::result::Result<T, Box<dyn Error>>;

const PASSWORD: &str = "correct horse battery staple";
const PATIENCE: Duration = Duration::from_secs(60);

/// A device of somebody, with Element X's way of syncing.
struct Phone {
    client: Client,
    sync: SyncService,
}

/// Where a homeserver is, and what tells the people of this run from those of others.
struct World {
    url: String,
    run: u128,
}

impl World {
    fn name(&self, who: &str) -> String {
        format!("{who}-{}", self.run)
    }

    async fn client(&self) -> Result<Client> {
        let settings = EncryptionSettings {
            auto_enable_cross_signing: true,
            backup_download_strategy: BackupDownloadStrategy::AfterDecryptionFailure,
            auto_enable_backups: true,
        };
        Ok(Client::builder().homeserver_url(&self.url).with_encryption_settings(settings).build().await?)
    }

    /// Somebody new, on a first phone.
    async fn join(&self, who: &str) -> Result<Phone> {
        let client = self.client().await?;
        let mut request = Register::new();
        request.username = Some(self.name(who));
        request.password = Some(PASSWORD.to_owned());
        request.auth = Some(AuthData::Dummy(Dummy::new()));
        request.inhibit_login = true;
        client.matrix_auth().register(request).await?;
        self.log_in(who).await
    }

    /// One more phone of somebody.
    async fn log_in(&self, who: &str) -> Result<Phone> {
        let client = self.client().await?;
        let login = client.matrix_auth().login_username(self.name(who), PASSWORD);
        login.initial_device_display_name("the SDK").send().await?;
        client.encryption().wait_for_e2ee_initialization_tasks().await;
        let sync = SyncService::builder(client.clone()).build().await?;
        sync.start().await;
        Ok(Phone { client, sync })
    }
}

impl Phone {
    fn user(&self) -> OwnedUserId {
        self.client.user_id().expect("logged in").to_owned()
    }

    async fn room(&self, id: &OwnedRoomId) -> Result<Room> {
        eventually("the room is in the list", async || self.client.get_room(id)).await
    }

    /// Takes an invite that comes.
    async fn accept(&self, id: &OwnedRoomId) -> Result<Room> {
        let room = eventually("an invite comes", async || {
            self.client.get_room(id).filter(|room| room.state() == RoomState::Invited)
        });
        room.await?.join().await?;
        eventually("the room is joined", async || {
            self.client.get_room(id).filter(|room| room.state() == RoomState::Joined)
        })
        .await
    }
}

/// Asks until there is something.
async fn eventually<T>(what: &str, mut ask: impl AsyncFnMut() -> Option<T>) -> Result<T> {
    let asking = async {
        loop {
            if let Some(found) = ask().await {
                return found;
            }
            tokio::time::sleep(Duration::from_millis(50)).await;
        }
    };
    tokio::time::timeout(PATIENCE, asking).await.map_err(|_| format!("not within {PATIENCE:?}: {what}").into())
}

fn same<T: PartialEq + std::fmt::Debug>(what: &str, found: T, wanted: T) -> Result {
    if found == wanted { Ok(()) } else { Err(format!("{what}: {found:?} instead of {wanted:?}").into()) }
}

/// The newest item that fits.
async fn item(timeline: &Timeline, fits: impl Fn(&EventTimelineItem) -> bool) -> Option<EventTimelineItem> {
    let items = timeline.items().await;
    items.iter().rev().filter_map(|item| item.as_event()).find(|item| fits(item)).cloned()
}

fn says(item: &EventTimelineItem, text: &str) -> bool {
    item.content().as_message().is_some_and(|message| message.body() == text)
}

async fn said(timeline: &Timeline, text: &str) -> Result<EventTimelineItem> {
    let is_it = |item: &EventTimelineItem| says(item, text) && item.is_remote_event();
    eventually(&format!("`{text}` is in the timeline"), async || item(timeline, is_it).await).await
}

async fn private_room(of: &Phone, with: &Phone) -> Result<(Room, Room)> {
    let room = of.client.create_dm(&with.user()).await?;
    let id = room.room_id().to_owned();
    let theirs = with.accept(&id).await?;
    let room = of.room(&id).await?;
    eventually("the other one is in the room", async || {
        let member = room.get_member(&with.user()).await.ok().flatten()?;
        (*member.membership() == matrix_sdk::ruma::events::room::member::MembershipState::Join).then_some(())
    })
    .await?;
    Ok((room, theirs))
}

/// The list of rooms, by sliding sync: rooms appear, the newest first, with names, and go.
async fn the_room_list(world: &World) -> Result {
    let alice = world.join("list-alice").await?;
    let list = alice.sync.room_list_service().all_rooms().await?;
    let loading = list.loading_state();
    eventually("the list is loaded", async || {
        matches!(loading.get(), RoomListLoadingState::Loaded { .. }).then_some(())
    })
    .await?;
    let (entries, controller) = list.entries_with_dynamic_adapters(50);
    controller.set_filter(Box::new(new_filter_non_left()));
    let mut entries = pin!(entries);
    let mut ids = Vec::new();
    for number in 0..5 {
        let mut request = Create::new();
        request.name = Some(format!("Room {number}"));
        request.preset = Some(RoomPreset::PrivateChat);
        ids.push(alice.client.create_room(request).await?.room_id().to_owned());
    }
    let mut rooms = Vector::new();
    shows(&mut entries, &mut rooms, &[4, 3, 2, 1, 0]).await?;
    // A message brings a room to the top; leaving takes one away.
    let first = alice.room(&ids[0]).await?;
    first.send(RoomMessageEventContent::text_plain("up")).await?;
    alice.room(&ids[4]).await?.leave().await?;
    shows(&mut entries, &mut rooms, &[0, 3, 2, 1]).await?;
    alice.sync.stop().await;
    Ok(())
}

/// Reads on until the list shows these rooms in this order.
async fn shows(
    entries: &mut (impl Stream<Item = Vec<VectorDiff<RoomListItem>>> + Unpin),
    rooms: &mut Vector<RoomListItem>,
    numbers: &[u32],
) -> Result {
    let wanted: Vec<String> = numbers.iter().map(|number| format!("Room {number}")).collect();
    let mut shown = Vec::new();
    let reading = async {
        while shown != wanted {
            let Some(diffs) = entries.next().await else { return };
            for diff in diffs {
                diff.apply(rooms);
            }
            shown = rooms.iter().filter_map(|room| Some(room.cached_display_name()?.to_string())).collect();
        }
    };
    let _ = tokio::time::timeout(PATIENCE, reading).await;
    same("the rooms in the list", shown, wanted)
}

/// An encrypted conversation: a message, an answer, an edit, a reaction, a redaction, receipts, unread counts.
async fn an_encrypted_timeline(world: &World) -> Result {
    let (alice, bob) = (world.join("tl-alice").await?, world.join("tl-bob").await?);
    let (hers, his) = private_room(&alice, &bob).await?;
    same("the room is encrypted", hers.latest_encryption_state().await?.is_encrypted(), true)?;
    let (her_view, his_view) = (hers.timeline().await?, his.timeline().await?);
    her_view.send(RoomMessageEventContent::text_plain("Hello Bob").into()).await?;
    let hello = said(&his_view, "Hello Bob").await?;
    same("it came encrypted", hello.encryption_info().is_some(), true)?;
    eventually("it counts as unread", async || (his.num_unread_messages() >= 1).then_some(())).await?;
    let id = hello.event_id().ok_or("no event id")?.to_owned();
    his_view.send_reply(RoomMessageEventContentWithoutRelation::text_plain("Hello Alice"), id.clone()).await?;
    let answer = said(&her_view, "Hello Alice").await?;
    same("it answers hers", answer.content().in_reply_to().map(|to| to.event_id), Some(id.clone()))?;
    his_view.toggle_reaction(&hello.identifier(), "👍").await?;
    let her_hello = said(&her_view, "Hello Bob").await?;
    let reacted = |item: &EventTimelineItem| {
        item.content().reactions().is_some_and(|all| all.get("👍").is_some_and(|by| by.contains_key(&bob.user())))
    };
    eventually("the reaction is shown", async || item(&her_view, reacted).await).await?;
    let edit = RoomMessageEventContentWithoutRelation::text_plain("Hello dear Bob");
    her_view.edit(&her_hello.identifier(), EditedContent::RoomMessage(edit)).await?;
    let edited = said(&his_view, "Hello dear Bob").await?;
    same("it is the same message", edited.event_id(), Some(&*id))?;
    same("it says that it was edited", edited.content().as_message().is_some_and(|m| m.is_edited()), true)?;
    his_view.mark_as_read(ReceiptType::Read).await?;
    eventually("nothing is unread any more", async || (his.num_unread_messages() == 0).then_some(())).await?;
    let read = |item: &EventTimelineItem| item.read_receipts().contains_key(&bob.user());
    eventually("his receipt is shown", async || item(&her_view, read).await).await?;
    her_view.redact(&her_hello.identifier(), Some("no")).await?;
    let gone = |item: &EventTimelineItem| item.event_id() == Some(&id) && item.content().is_redacted();
    eventually("it is gone", async || item(&his_view, gone).await).await?;
    Ok(())
}

/// History is read page by page.
async fn paging_back(world: &World) -> Result {
    let (alice, bob) = (world.join("back-alice").await?, world.join("back-bob").await?);
    let mut request = Create::new();
    request.invite = vec![bob.user()];
    let id = alice.client.create_room(request).await?.room_id().to_owned();
    let room = alice.room(&id).await?;
    for number in 0..60 {
        room.send(RoomMessageEventContent::text_plain(format!("message {number}"))).await?;
    }
    let his = bob.accept(&id).await?.timeline().await?;
    let mut steps = 0;
    while item(&his, |item| says(item, "message 0")).await.is_none() {
        steps += 1;
        if his.paginate_backwards(20).await? || steps > 20 {
            break;
        }
    }
    for number in [0, 17, 59] {
        said(&his, &format!("message {number}")).await?;
    }
    Ok(())
}

/// Two devices of one person verify each other by emoji.
async fn two_devices_verify_each_other(world: &World) -> Result {
    let first = world.join("ver-alice").await?;
    eventually("cross-signing is there", async || {
        first.client.encryption().cross_signing_status().await.filter(|status| status.is_complete())
    })
    .await?;
    let second = world.log_in("ver-alice").await?;
    let me = first.user();
    let state = second.client.encryption().verification_state();
    eventually("the new device knows that it is not verified", async || {
        (state.get() == VerificationState::Unverified).then_some(())
    })
    .await?;
    let identity = eventually("the identity is known", async || {
        second.client.encryption().request_user_identity(&me).await.ok().flatten()
    })
    .await?;
    let asking = identity.request_verification().await?;
    let asked: VerificationRequest = eventually("the request comes", async || {
        first.client.encryption().get_verification_request(&me, asking.flow_id()).await
    })
    .await?;
    asked.accept().await?;
    eventually("the request is accepted", async || asking.is_ready().then_some(())).await?;
    let ours = asking.start_sas().await?.ok_or("no SAS")?;
    let theirs: SasVerification = eventually("the SAS begins", async || {
        first.client.encryption().get_verification(&me, asking.flow_id()).await?.sas()
    })
    .await?;
    theirs.accept().await?;
    let shown = eventually("emoji are shown", async || Some((ours.emoji()?, theirs.emoji()?))).await?;
    let names = |emoji: [matrix_sdk::encryption::verification::Emoji; 7]| emoji.map(|one| one.symbol.to_owned());
    same("both show the same", names(shown.0), names(shown.1))?;
    // The old device first. The SDK sends what is due all at once: were both of them done in one sync, the new device's request for
    // the secrets could overtake the word that it is done, and an old device gives nothing to who is not verified, nor is it asked again.
    theirs.confirm().await?;
    tokio::time::sleep(Duration::from_secs(1)).await;
    ours.confirm().await?;
    eventually("both are done", async || (ours.is_done() && theirs.is_done()).then_some(())).await?;
    eventually("the new device is verified", async || (state.get() == VerificationState::Verified).then_some(()))
        .await?;
    // The secrets came with it.
    eventually("the new device can sign others", async || {
        second.client.encryption().cross_signing_status().await.filter(|status| status.is_complete())
    })
    .await?;
    Ok(())
}

/// A new device gets everything back by the recovery key: its identity and the keys of old messages.
async fn recovery(world: &World) -> Result {
    let (alice, bob) = (world.join("rec-alice").await?, world.join("rec-bob").await?);
    let (hers, _) = private_room(&alice, &bob).await?;
    let her_view = hers.timeline().await?;
    her_view.send(RoomMessageEventContent::text_plain("from before").into()).await?;
    // Sending only puts it into a queue.
    said(&her_view, "from before").await?;
    let key = alice.client.encryption().recovery().enable().wait_for_backups_to_upload().await?;
    same("recovery is on", alice.client.encryption().recovery().state(), RecoveryState::Enabled)?;
    let id = hers.room_id().to_owned();
    // The old phone falls into the water.
    alice.sync.stop().await;
    drop(alice);
    let phone = world.log_in("rec-alice").await?;
    let recovery = phone.client.encryption().recovery();
    eventually("the new phone knows that there is a recovery", async || {
        (recovery.state() == RecoveryState::Incomplete).then_some(())
    })
    .await?;
    let wrong = "EsTt iJLT 4vYL Jfnw YLhk uWTN iuRg 8xXU YTvX 1mPh iBDT 3wTs";
    same("a wrong key opens nothing", recovery.recover(wrong).await.is_err(), true)?;
    recovery.recover(&key).await?;
    eventually("it is recovered", async || (recovery.state() == RecoveryState::Enabled).then_some(())).await?;
    let view = phone.room(&id).await?.timeline().await?;
    let mut found = None;
    for _ in 0..20 {
        view.paginate_backwards(20).await?;
        found = item(&view, |item| says(item, "from before")).await;
        if found.is_some() {
            break;
        }
        tokio::time::sleep(Duration::from_millis(500)).await;
    }
    found.map(drop).ok_or_else(|| "the old message cannot be read".into())
}

/// A sync that lost its place goes on.
async fn going_on_after_a_pause(world: &World) -> Result {
    let (alice, bob) = (world.join("pause-alice").await?, world.join("pause-bob").await?);
    let (hers, his) = private_room(&alice, &bob).await?;
    let his_view = his.timeline().await?;
    bob.sync.stop().await;
    bob.sync.expire_sessions().await;
    hers.timeline().await?.send(RoomMessageEventContent::text_plain("while away").into()).await?;
    bob.sync.start().await;
    eventually("it runs again", async || matches!(bob.sync.state().get(), State::Running).then_some(())).await?;
    said(&his_view, "while away").await?;
    Ok(())
}

async fn play(name: &str, case: impl Future<Output = Result>, passed: &mut usize, failed: &mut usize) {
    match tokio::time::timeout(Duration::from_secs(180), case).await {
        Ok(Ok(())) => {
            *passed += 1;
            println!("ok   {name}");
        }
        Ok(Err(why)) => {
            *failed += 1;
            println!("FAIL {name}: {why}");
        }
        Err(_) => {
            *failed += 1;
            println!("FAIL {name}: it did not end");
        }
    }
}

#[tokio::main]
async fn main() {
    let url = std::env::args().nth(1).expect("the URL of a homeserver");
    let run = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH).expect("a time after 1970");
    let world = World { url, run: run.as_millis() };
    let only = std::env::args().nth(2).unwrap_or_default();
    let (mut passed, mut failed) = (0, 0);
    macro_rules! cases {
        ($($case:ident)*) => {
            $(if stringify!($case).contains(&only) {
                play(stringify!($case), $case(&world), &mut passed, &mut failed).await;
            })*
        };
    }
    cases!(the_room_list an_encrypted_timeline paging_back two_devices_verify_each_other recovery going_on_after_a_pause);
    println!("{passed} passed, {failed} failed");
    std::process::exit(i32::from(failed > 0 || passed == 0));
}
