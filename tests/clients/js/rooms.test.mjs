// Rooms among rooms with matrix-js-sdk: spaces, doors that are knocked at or open to members of another room, upgrades, threads,
// search, push rules of one's own, events that are sent later.

import assert from "node:assert/strict";
import { after, before, describe, it } from "node:test";
import { Device, fresh, refused, reportComplaints, sdk, until } from "./support.mjs";

const { EventType, JoinRule, Preset, PushRuleKind, RoomCreateTypeField } = sdk;

describe("matrix-js-sdk: rooms among rooms", { timeout: 240_000 }, () => {
    let alice, bob, space, inside;

    const state = (kind, content, state_key = "") => ({ type: kind, state_key, content });

    before(async () => {
        alice = await Device.register("alice");
        bob = await Device.register("bob");
        await alice.start();
        await bob.start();
        const created = await alice.client.createRoom({
            name: "A space", preset: Preset.PublicChat, creation_content: { [RoomCreateTypeField]: "m.space" },
        });
        space = created.room_id;
    });
    after(() => {
        alice?.stop();
        bob?.stop();
    });

    it("lets members of a space into a restricted room, and nobody else", async () => {
        const allow = [{ type: "m.room_membership", room_id: space }];
        const rules = state(EventType.RoomJoinRules, { join_rule: JoinRule.Restricted, allow });
        inside = (await alice.client.createRoom({ name: "Inside", initial_state: [rules] })).room_id;
        const via = [alice.userId.split(":").slice(1).join(":")];
        await alice.client.sendStateEvent(space, EventType.SpaceChild, { via, suggested: true }, inside);
        await refused(bob.client.joinRoom(inside), 403, "M_FORBIDDEN");
        await bob.client.joinRoom(space);
        await bob.client.joinRoom(inside);
        await bob.room(inside);
    });

    it("shows what is in a space", async () => {
        const { rooms } = await bob.client.getRoomHierarchy(space, 10, 2);
        assert.deepEqual(rooms.map((room) => room.room_id), [space, inside]);
        assert.equal(rooms[0].room_type, "m.space");
        assert.equal(rooms[0].children_state[0].state_key, inside);
        assert.equal(rooms[1].name, "Inside");
        const summary = await bob.client.getRoomSummary(inside);
        assert.equal(summary.membership, "join");
    });

    it("lets somebody knock, and in", async () => {
        const rules = state(EventType.RoomJoinRules, { join_rule: JoinRule.Knock });
        const { room_id } = await alice.client.createRoom({ name: "Knock", initial_state: [rules] });
        await bob.client.knockRoom(room_id, { reason: "let me in" });
        await bob.room(room_id, "knock");
        await alice.sees(room_id, bob.userId, "knock");
        await alice.client.invite(room_id, bob.userId);
        await bob.room(room_id, "invite");
        await bob.client.joinRoom(room_id);
        await alice.sees(room_id, bob.userId, "join");
    });

    it("replaces a room", async () => {
        const { room_id } = await alice.client.createRoom({ name: "Old", preset: Preset.PublicChat, room_version: "10" });
        await bob.client.joinRoom(room_id);
        await bob.client.setRoomTag(room_id, "m.favourite", { order: 0.5 });
        const { replacement_room } = await alice.client.upgradeRoom(room_id, "11");
        const old = await bob.room(room_id);
        await until("the tombstone at bob", () => {
            const event = old.currentState.getStateEvents(EventType.RoomTombstone, "");
            return event?.getContent().replacement_room === replacement_room;
        });
        await bob.client.joinRoom(replacement_room);
        const room = await bob.room(replacement_room);
        assert.equal(room.name, "Old");
        assert.equal(room.getVersion(), "11");
        await until("the tag moved along", () => room.tags["m.favourite"]?.order === 0.5);
    });

    it("finds the threads of a room", async () => {
        const root = await alice.say(inside, "what shall we eat?");
        const room = await bob.room(inside);
        await bob.event(inside, root);
        bob.client.getRoom(inside).createThread(root, room.findEventById(root), [], true);
        const relation = { rel_type: "m.thread", event_id: root, is_falling_back: true, "m.in_reply_to": { event_id: root } };
        const reply = await bob.say(inside, "soup", { "m.relates_to": relation });
        await until("the thread at alice", () => alice.client.getRoom(inside).getThread(root));
        const list = await alice.client.createThreadListMessagesRequest(inside, null, 10, sdk.Direction.Backward, null);
        assert.equal(list.chunk[0].event_id, root);
        assert.equal(list.chunk[0].unsigned["m.relations"]["m.thread"].latest_event.event_id, reply);
        const { events } = await alice.client.relations(inside, root, "m.thread", null);
        assert.deepEqual(events.map((event) => event.getId()), [reply]);
    });

    it("searches in what was said, and for people", async () => {
        const word = fresh("rhubarb").replaceAll("-", "");
        const said = await alice.say(inside, `the ${word} grows`);
        const found = await until("the message found", async () => {
            const results = await bob.client.searchRoomEvents({ term: word, filter: { rooms: [inside] } });
            return results.count > 0 ? results : null;
        });
        assert.equal(found.results[0].context.getEvent().getId(), said);
        assert.ok(found.highlights.includes(word));
        await until("alice found", async () => {
            const { results } = await bob.client.searchUserDirectory({ term: alice.userId.split(":")[0].slice(1) });
            return results.some((person) => person.user_id === alice.userId);
        });
    });

    it("keeps push rules of one's own", async () => {
        const body = { conditions: [{ kind: "event_match", key: "room_id", pattern: inside }], actions: [] };
        await bob.client.addPushRule("global", PushRuleKind.Override, "quiet", body);
        await until("the rule in a sync", () => bob.client.pushRules.global.override.some((rule) => rule.rule_id === "quiet"));
        await alice.say(inside, "nobody is told of this");
        const last = await alice.say(inside, "nor of this");
        await bob.event(inside, last);
        assert.equal((await bob.serverView(inside)).unread_notifications.notification_count, 0);
        await bob.client.deletePushRule("global", PushRuleKind.Override, "quiet");
    });

    it("sends events later, or not at all", async () => {
        const later = (body, delay) =>
            alice.client._unstable_sendDelayedEvent(inside, { delay }, null, EventType.RoomMessage, { msgtype: "m.text", body });
        const soon = (await later("a little later", 200)).delay_id;
        const never = (await later("never", 3_600_000)).delay_id;
        const now = (await later("now after all", 3_600_000)).delay_id;
        const waits = async (id) => !(await alice.client._unstable_getDelayedEvent(id)).finalised;
        assert.equal(await waits(never), true);
        await alice.client._unstable_restartScheduledDelayedEvent(never);
        await alice.client._unstable_cancelScheduledDelayedEvent(never);
        await alice.client._unstable_sendScheduledDelayedEvent(now);
        for (const id of [soon, now]) {
            await until(`${id} is sent`, async () => !(await waits(id)));
            await bob.event(inside, (await alice.client._unstable_getDelayedEvent(id)).finalised.event_id);
        }
        const said = bob.client.getRoom(inside).getLiveTimeline().getEvents().map((event) => event.getContent().body);
        assert.ok(said.includes("a little later") && said.includes("now after all") && !said.includes("never"), said);
        // What the server writes when a call loses somebody.
        const left = await alice.client._unstable_sendDelayedStateEvent(inside, { delay: 100 }, "org.example.call", {}, "alice");
        await until("the state is there", async () => !(await waits(left.delay_id)));
        assert.deepEqual(await alice.client.getStateEvent(inside, "org.example.call", "alice"), {});
    });

    it("found nothing broken on the way", (test) => reportComplaints(test));
});
