// Two people in a room that is not encrypted, each with matrix-js-sdk.

import assert from "node:assert/strict";
import { after, before, describe, it } from "node:test";
import { Device, fresh, interactive, refused, reportComplaints, sdk, until } from "./support.mjs";
import { png, sizeOf } from "./picture.mjs";

const { EventType } = sdk;

describe("matrix-js-sdk: a plain room", { timeout: 300_000 }, () => {
    let alice, bob, roomId;

    before(async () => {
        alice = await Device.register("alice");
        bob = await Device.register("bob");
        await alice.start();
        await bob.start();
    });
    after(() => {
        alice?.stop();
        bob?.stop();
    });

    it("says which versions and which ways to log in it has", async () => {
        const { versions } = await alice.client.getVersions();
        assert.ok(versions.includes("v1.11"), versions.join(" "));
        const { flows } = await alice.client.loginFlows();
        assert.ok(flows.some((flow) => flow.type === "m.login.password"));
        const who = await alice.client.whoami();
        assert.equal(who.user_id, alice.userId);
        assert.equal(who.device_id, alice.deviceId);
    });

    it("refuses a wrong password and a name that is taken", async () => {
        const login = { type: "m.login.password", identifier: { type: "m.id.user", user: alice.userId } };
        await refused(bob.client.loginRequest({ ...login, password: "wrong" }), 403, "M_FORBIDDEN");
        const username = alice.userId.slice(1).split(":")[0];
        await refused(bob.client.registerRequest({ username, password: "x1y2z3-long-enough" }), 400, "M_USER_IN_USE");
        assert.equal(await bob.client.isUsernameAvailable(username), false);
        assert.equal(await bob.client.isUsernameAvailable(fresh("nobody")), true);
    });

    it("gave the push rules before the first sync", () => {
        const ids = Object.values(alice.client.pushRules.global).flat().map((rule) => rule.rule_id);
        for (const id of [".m.rule.master", ".m.rule.suppress_notices", ".m.rule.invite_for_me", ".m.rule.is_user_mention",
            ".m.rule.is_room_mention", ".m.rule.reaction", ".m.rule.message", ".m.rule.encrypted", ".m.rule.room_one_to_one"]) {
            assert.ok(ids.includes(id), `${id} is missing from ${ids.join(" ")}`);
        }
    });

    it("keeps a filter and gives it back", async () => {
        const definition = { room: { timeline: { limit: 3, types: ["m.room.message"] } }, event_format: "client" };
        const made = await alice.client.createFilter(definition);
        const { filter_id: id } = await alice.client.http.authedRequest(
            "POST", `/user/${encodeURIComponent(alice.userId)}/filter`, undefined, definition,
        );
        assert.ok(made.filterId && id);
        const back = await alice.client.getFilter(alice.userId, id, false);
        assert.equal(back.getDefinition().room.timeline.limit, 3);
        assert.deepEqual(back.getDefinition().room.timeline.types, ["m.room.message"]);
    });

    it("creates a room with a name, a topic and an alias; the other joins by the alias", async () => {
        const local = fresh("agora");
        const created = await alice.client.createRoom({
            preset: "public_chat", name: "Agora", topic: "Under the stoa", room_alias_name: local,
        });
        roomId = created.room_id;
        const room = await alice.room(roomId);
        await until("the name", () => room.name === "Agora");
        const alias = `#${local}:${alice.client.getDomain()}`;
        assert.equal((await bob.client.getRoomIdForAlias(alias)).room_id, roomId);
        const joined = await bob.client.joinRoom(alias);
        assert.equal(joined.roomId, roomId);
        const seen = await bob.room(roomId);
        await until("the room's name at bob", () => seen.name === "Agora");
        assert.equal(seen.currentState.getStateEvents("m.room.topic", "").getContent().topic, "Under the stoa");
        assert.equal(seen.getCanonicalAlias(), alias);
        await alice.sees(roomId, bob.userId, "join");
    });

    it("brings messages both ways, once and in order", async () => {
        const sent = [];
        for (let n = 0; n < 6; n++) {
            const [speaker, listener] = n % 2 ? [bob, alice] : [alice, bob];
            sent.push(await speaker.say(roomId, `line ${n}`));
            assert.equal(await listener.reads(roomId, sent.at(-1)), `line ${n}`);
        }
        for (const device of [alice, bob]) {
            await device.event(roomId, sent.at(-1));
            const timeline = device.client.getRoom(roomId).getLiveTimeline().getEvents().map((event) => event.getId());
            assert.deepEqual(timeline.filter((id) => sent.includes(id)), sent);
        }
    });

    it("sends the same transaction only once", async () => {
        const content = { msgtype: "m.text", body: "once" };
        const path = `/rooms/${encodeURIComponent(roomId)}/send/m.room.message/${fresh("txn")}`;
        const first = await alice.client.http.authedRequest("PUT", path, undefined, content);
        const second = await alice.client.http.authedRequest("PUT", path, undefined, content);
        assert.equal(second.event_id, first.event_id);
    });

    it("changes the name and the topic for everyone", async () => {
        await alice.client.setRoomName(roomId, "Agora of Athens");
        await alice.client.setRoomTopic(roomId, "Painted");
        const room = bob.client.getRoom(roomId);
        await until("the new name", () => room.name === "Agora of Athens");
        await until("the new topic", () => room.currentState.getStateEvents("m.room.topic", "").getContent().topic === "Painted");
        await refused(bob.client.setRoomName(roomId, "Bob's"), 403, "M_FORBIDDEN");
    });

    it("shows a changed display name and picture to the other", async () => {
        await bob.client.setDisplayName("Bob the Stoic");
        await until("the new display name", () => {
            return alice.client.getRoom(roomId).getMember(bob.userId)?.rawDisplayName === "Bob the Stoic";
        });
        const { content_uri: mxc } = await bob.client.uploadContent(png(64, 64), { type: "image/png", name: "bob.png" });
        await bob.client.setAvatarUrl(mxc);
        await until("the new picture", () => alice.client.getRoom(roomId).getMember(bob.userId)?.getMxcAvatarUrl() === mxc);
        assert.deepEqual(await alice.client.getProfileInfo(bob.userId), { displayname: "Bob the Stoic", avatar_url: mxc });
    });

    it("shows edits, reactions and redactions", async () => {
        const id = await alice.say(roomId, "helo");
        const original = await bob.event(roomId, id);
        await alice.say(roomId, "* hello", {
            "m.new_content": { msgtype: "m.text", body: "hello" },
            "m.relates_to": { rel_type: "m.replace", event_id: id },
        });
        await until("the edit at bob", () => original.getContent().body === "hello");

        const reaction = await bob.client.sendEvent(roomId, EventType.Reaction, {
            "m.relates_to": { rel_type: "m.annotation", event_id: id, key: "👍" },
        });
        const reactions = () => {
            const related = alice.client.getRoom(roomId).relations.getChildEventsForEvent(id, "m.annotation", "m.reaction");
            return related?.getSortedAnnotationsByKey()?.map(([key, events]) => [key, events.size]) ?? [];
        };
        await until("the reaction at alice", () => JSON.stringify(reactions()) === '[["👍",1]]');
        await bob.client.redactEvent(roomId, reaction.event_id);
        await until("the reaction taken back", () => reactions().every(([, count]) => count === 0));

        await alice.client.redactEvent(roomId, id, undefined, { reason: "a slip" });
        await until("the redaction at bob", () => original.isRedacted());
        assert.equal(original.getContent().body, undefined);
        assert.equal(original.getRedactionEvent().content.reason, "a slip");
        const stored = await bob.client.fetchRoomEvent(roomId, id);
        assert.deepEqual(stored.content, {});
        assert.equal(stored.unsigned.redacted_because.sender, alice.userId);
    });

    it("shows who is typing", async () => {
        const key = `${roomId} ${alice.userId}`;
        await alice.client.sendTyping(roomId, true, 10_000);
        await until("alice typing", () => bob.typing.get(key) === true);
        await alice.client.sendTyping(roomId, false, 0);
        await until("alice no longer typing", () => bob.typing.get(key) === false);
    });

    it("counts unread messages and mentions, and forgets them when read", async () => {
        const room = bob.client.getRoom(roomId);
        await bob.client.sendReadReceipt(room.getLiveTimeline().getEvents().at(-1));
        await until("nothing unread", () => bob.unread(roomId).total === 0);
        await alice.client.sendReadReceipt(alice.client.getRoom(roomId).getLiveTimeline().getEvents().at(-1));

        await alice.say(roomId, "one");
        const last = await alice.say(roomId, "two, bob", { "m.mentions": { user_ids: [bob.userId] } });
        const event = await bob.event(roomId, last);
        await until("two unread, one a mention", () => {
            const { total, highlight } = bob.unread(roomId);
            return total === 2 && highlight === 1;
        });
        assert.deepEqual((await bob.serverView(roomId)).unread_notifications, { notification_count: 2, highlight_count: 1 });

        await bob.client.sendReadReceipt(event);
        await until("nothing unread after the receipt", () => {
            const { total, highlight } = bob.unread(roomId);
            return total === 0 && highlight === 0;
        });
        assert.deepEqual((await bob.serverView(roomId)).unread_notifications, { notification_count: 0, highlight_count: 0 });
        const seen = alice.client.getRoom(roomId);
        await until("bob's receipt at alice", () => seen.getEventReadUpTo(bob.userId) === last);
        const own = (await alice.serverView(roomId)).unread_notifications;
        assert.equal(own.notification_count, 0, "one's own messages are not unread");
    });

    it("keeps a private receipt from the other and still clears the count", async () => {
        const last = await alice.say(roomId, "psst");
        const event = await bob.event(roomId, last);
        await until("one unread", () => bob.unread(roomId).total === 1);
        await bob.client.sendReadReceipt(event, sdk.ReceiptType.ReadPrivate);
        await until("nothing unread", () => bob.unread(roomId).total === 0);
        assert.equal((await bob.serverView(roomId)).unread_notifications.notification_count, 0);
        const after = await alice.say(roomId, "later");
        await bob.event(roomId, after);
        await alice.event(roomId, after);
        assert.notEqual(alice.client.getRoom(roomId).getEventReadUpTo(bob.userId), last);
        await bob.client.setRoomReadMarkers(roomId, after, await bob.event(roomId, after));
        const marker = () => bob.client.getRoom(roomId).getAccountData("m.fully_read")?.getContent().event_id;
        await until("the read marker", () => marker() === after);
    });

    it("sends later, starts the wait again, and cancels (MSC4140)", async () => {
        const { delay_id: soon } = await alice.client._unstable_sendDelayedEvent(
            roomId, { delay: 1500 }, null, EventType.RoomMessage, { msgtype: "m.text", body: "sent by the server" },
        );
        const { delay_id: never } = await alice.client._unstable_sendDelayedStateEvent(
            roomId, { delay: 1500 }, "org.example.call", { left: true }, alice.userId,
        );
        await alice.client._unstable_restartScheduledDelayedEvent(soon);
        await alice.client._unstable_cancelScheduledDelayedEvent(never);
        assert.equal((await alice.client._unstable_getDelayedEvent(soon)).delay_ms, 1500);
        const { delayed_events: waiting } = await alice.client._unstable_getDelayedEvents();
        assert.deepEqual(waiting.map((event) => event.delay_id), [soon]);
        const event = await until("the delayed event at bob", () => bob.client.getRoom(roomId).getLiveTimeline().getEvents()
            .find((event) => event.getContent().body === "sent by the server"));
        const { finalised } = await alice.client._unstable_getDelayedEvent(soon);
        assert.equal(finalised.event_id, event.getId());
        await refused(alice.client._unstable_restartScheduledDelayedEvent(soon), 404, "M_NOT_FOUND");
        await refused(alice.client.getStateEvent(roomId, "org.example.call", alice.userId), 404, "M_NOT_FOUND");
    });

    it("counts a thread by itself", async () => {
        const root = await alice.say(roomId, "a thread begins");
        await bob.client.sendReadReceipt(await bob.event(roomId, root));
        await until("nothing unread", () => bob.unread(roomId).total === 0);
        // As an application does that opens the thread's panel; without it the SDK may take its own echo for an error.
        alice.client.getRoom(roomId).createThread(root, alice.client.getRoom(roomId).findEventById(root), [], true);
        const reply = await alice.say(roomId, "in the thread", { "m.relates_to": { rel_type: "m.thread", event_id: root } });
        const room = bob.client.getRoom(roomId);
        await until("one unread in the thread", () => {
            return room.getThreadUnreadNotificationCount(root, sdk.NotificationCountType.Total) === 1;
        });
        const view = await bob.serverView(roomId);
        assert.equal(view.unread_thread_notifications[root].notification_count, 1);
        assert.equal(view.unread_notifications.notification_count, 0);
        const event = await until("the reply at bob", () => room.findEventById(reply));
        await until("the thread at bob", () => room.getThread(root));
        await bob.client.sendReadReceipt(event);
        await until("the thread read", () => {
            return room.getThreadUnreadNotificationCount(root, sdk.NotificationCountType.Total) === 0;
        });
        const read = await bob.serverView(roomId);
        assert.equal(read.unread_thread_notifications?.[root]?.notification_count ?? 0, 0);
    });

    it("obeys a push rule that mutes the room", async () => {
        await bob.client.setRoomMutePushRule("global", roomId, true);
        await until("the rule at bob", () => bob.client.getRoomPushRule("global", roomId) ||
            bob.client.pushRules.global.override.some((rule) => rule.rule_id === roomId));
        const muted = await alice.say(roomId, "into the silence");
        await bob.event(roomId, muted);
        assert.equal((await bob.serverView(roomId)).unread_notifications.notification_count, 0);
        await bob.client.setRoomMutePushRule("global", roomId, false);
    });

    it("uploads a picture, gives it back byte by byte, and makes it small", async () => {
        const picture = png(640, 480);
        const { content_uri: mxc } = await alice.client.uploadContent(picture, { type: "image/png", name: "stoa poikile.png" });
        const id = (await alice.client.sendMessage(roomId, {
            msgtype: "m.image", body: "stoa poikile.png", url: mxc,
            info: { mimetype: "image/png", size: picture.length, w: 640, h: 480 },
        })).event_id;
        const content = (await bob.event(roomId, id)).getContent();
        const whole = await bob.download(content.url);
        assert.ok(whole.bytes.equals(picture), "the picture came back changed");
        assert.equal(whole.type, "image/png");

        const small = await bob.download(content.url, 320, 240, "scale");
        assert.match(small.type, /^image\/(png|jpeg)$/);
        assert.deepEqual(sizeOf(small.bytes), [320, 240]);
        const icon = await bob.download(content.url, 96, 96, "crop");
        assert.deepEqual(sizeOf(icon.bytes), [96, 96]);

        const address = bob.client.mxcUrlToHttp(mxc, undefined, undefined, undefined, false, true, true);
        const bare = await fetch(address);
        assert.equal(bare.status, 401);
        assert.equal((await bare.json()).errcode, "M_MISSING_TOKEN");
        const { "m.upload.size": limit } = await bob.client.getMediaConfig(true);
        assert.ok(limit >= 1_000_000);
    });

    it("pages back to the beginning, each event once", async () => {
        const spoken = [];
        for (let n = 0; n < 45; n++) spoken.push(await alice.say(roomId, `page ${n}`));
        const late = await bob.another("bob late");
        await late.start();
        try {
            const room = await late.room(roomId);
            const timeline = () => room.getLiveTimeline().getEvents();
            assert.ok(timeline().length <= 8, `${timeline().length} events in the first sync`);
            let more = 0;
            while (room.oldState.paginationToken !== null && more++ < 60) await late.client.scrollback(room, 10);
            const ids = timeline().map((event) => event.getId());
            assert.equal(new Set(ids).size, ids.length, "an event came twice");
            assert.deepEqual(ids.filter((id) => spoken.includes(id)), spoken);
            assert.equal(timeline()[0].getType(), "m.room.create");
        } finally {
            await late.client.logout(true);
        }
    });

    it("shows what stood around an event", async () => {
        const middle = await alice.say(roomId, "the middle");
        await alice.say(roomId, "the end");
        const late = await bob.another("bob context");
        await late.start();
        try {
            const room = await late.room(roomId);
            const old = room.getLiveTimeline().getEvents().at(0).getId();
            const timeline = await late.client.getEventTimeline(room.getUnfilteredTimelineSet(), old);
            assert.ok(timeline.getEvents().some((event) => event.getId() === old));
            const context = await late.client.http.authedRequest(
                "GET", `/rooms/${encodeURIComponent(roomId)}/context/${encodeURIComponent(middle)}`, { limit: "6" },
            );
            assert.equal(context.event.event_id, middle);
            assert.equal(context.events_after[0].content.body, "the end");
            assert.ok(context.events_before.length > 0 && context.start && context.end && context.state.length > 0);
        } finally {
            await late.client.logout(true);
        }
    });

    it("keeps account data, for the account and for a room, on every device", async () => {
        const type = "org.example.colour";
        const second = await alice.another("alice colour");
        await second.start();
        try {
            await alice.client.setAccountData(type, { colour: "red" });
            await alice.client.setRoomAccountData(roomId, type, { colour: "blue" });
            await alice.client.setRoomTag(roomId, "m.favourite", { order: 0.5 });
            const room = await second.room(roomId);
            await until("the account's", () => second.client.getAccountData(type)?.getContent().colour === "red");
            await until("the room's", () => room.getAccountData(type)?.getContent().colour === "blue");
            await until("the tag", () => room.tags["m.favourite"]?.order === 0.5);
            assert.deepEqual(await second.client.getAccountDataFromServer(type), { colour: "red" });
            await alice.client.deleteRoomTag(roomId, "m.favourite");
            await until("the tag gone", () => !("m.favourite" in room.tags));
        } finally {
            await second.client.logout(true);
        }
        const { devices } = await alice.client.getDevices();
        assert.deepEqual(devices.map((device) => device.device_id), [alice.deviceId]);
    });

    it("ends a device's session after asking for the password", async () => {
        const doomed = await alice.another("alice doomed");
        await interactive(alice.client, alice.password, (auth) =>
            alice.client.deleteDevice(doomed.deviceId, auth ?? undefined));
        await refused(doomed.client.whoami(), 401, "M_UNKNOWN_TOKEN");
    });

    it("invites, and takes a refusal", async () => {
        const { room_id: closed } = await alice.client.createRoom({ preset: "private_chat", name: "Closed", invite: [bob.userId] });
        const invited = await bob.room(closed, "invite");
        await until("the name in the invite", () => invited.name === "Closed");
        assert.equal(invited.getMember(bob.userId).events.member.getSender(), alice.userId);
        await bob.client.leave(closed);
        await alice.sees(closed, bob.userId, "leave");
        await refused(bob.client.joinRoom(closed), 403, "M_FORBIDDEN");
    });

    it("leaves, comes back, is kicked, banned and unbanned", async () => {
        await bob.client.leave(roomId);
        await alice.sees(roomId, bob.userId, "leave");
        await refused(bob.client.sendMessage(roomId, { msgtype: "m.text", body: "no longer here" }), 403, "M_FORBIDDEN");
        await bob.client.joinRoom(roomId);
        await alice.sees(roomId, bob.userId, "join");

        await refused(bob.client.kick(roomId, alice.userId), 403, "M_FORBIDDEN");
        await alice.client.kick(roomId, bob.userId, "noise");
        await bob.room(roomId, "leave");
        assert.equal(bob.client.getRoom(roomId).getMember(bob.userId).events.member.getContent().reason, "noise");
        await bob.client.joinRoom(roomId);
        await bob.room(roomId, "join");

        await alice.client.ban(roomId, bob.userId, "more noise");
        await bob.room(roomId, "ban");
        await refused(bob.client.joinRoom(roomId), 403, "M_FORBIDDEN", "M_BAD_STATE");
        await alice.client.unban(roomId, bob.userId);
        await alice.sees(roomId, bob.userId, "leave");
        await bob.client.joinRoom(roomId);
        await bob.room(roomId, "join");
        const id = await bob.say(roomId, "back again");
        assert.equal(await alice.reads(roomId, id), "back again");
    });

    it("forgets a room", async () => {
        await bob.client.leave(roomId);
        await bob.room(roomId, "leave");
        await bob.client.forget(roomId);
        const { joined_rooms: joined } = await bob.client.getJoinedRooms();
        assert.ok(!joined.includes(roomId));
        const late = await bob.another("bob forgot");
        await late.start();
        assert.equal(late.client.getRoom(roomId), null);
        await late.client.logout(true);
        await refused(late.client.whoami(), 401, "M_UNKNOWN_TOKEN");
    });

    it("answered nothing with 500 or more", (test) => reportComplaints(test));
});
