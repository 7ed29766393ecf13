// Sliding sync (MSC4186) with matrix-js-sdk: two people whose clients never ask the older /sync, in a plain and in an
// end-to-end encrypted room.

import assert from "node:assert/strict";
import { after, before, describe, it } from "node:test";
import { SlidingSync } from "matrix-js-sdk/lib/sliding-sync.js";
import { Device, reportComplaints, sdk, until, url } from "./support.mjs";

const { EventType } = sdk;
const ENCRYPTION = { type: EventType.RoomEncryption, state_key: "", content: { algorithm: "m.megolm.v1.aes-sha2" } };
const WANTED = [
    ["m.room.create", ""], ["m.room.name", ""], ["m.room.encryption", ""], ["m.room.power_levels", ""],
    ["m.room.member", "$ME"], ["m.room.member", "$LAZY"], ["m.space.parent", "*"],
];

/** What a client asks for: a window of the newest rooms. */
function sliding(device, last = 19) {
    const list = { ranges: [[0, last]], timeline_limit: 20, required_state: WANTED };
    return new SlidingSync(url, new Map([["rooms", list]]), { timeline_limit: 50, required_state: WANTED }, device.client, 10_000);
}

describe("matrix-js-sdk: sliding sync", { timeout: 200_000 }, () => {
    let alice, bob, window, plain, secret;

    before(async () => {
        alice = await Device.register("alice");
        bob = await Device.register("bob");
        window = sliding(bob);
        await alice.start({ crypto: true, slidingSync: sliding(alice) });
        await bob.start({ crypto: true, slidingSync: window });
    });
    after(() => {
        for (const device of [alice, bob]) device?.stop();
    });

    it("shows an invite, and the room when it is accepted", async () => {
        const { room_id: roomId } = await alice.client.createRoom({ name: "Tea", invite: [bob.userId] });
        plain = roomId;
        await alice.room(plain);
        await bob.room(plain, "invite");
        await bob.client.joinRoom(plain);
        const room = await bob.room(plain);
        await until("the name", () => room.name === "Tea");
        await alice.sees(plain, bob.userId, "join");
    });

    it("carries messages, edits of the name, typing, receipts and unread counts", async () => {
        const first = await alice.say(plain, "hello bob");
        assert.equal(await bob.reads(plain, first), "hello bob");
        await until("one unread", () => bob.unread(plain).total === 1);
        const event = await bob.event(plain, first);
        await bob.client.sendReadReceipt(event);
        await until("none unread", () => bob.unread(plain).total === 0);
        const here = await alice.room(plain);
        await until("alice sees that bob read it", () => here.hasUserReadEvent(bob.userId, first));
        await bob.client.sendTyping(plain, true, 20_000);
        await until("bob types", () => alice.typing.get(`${plain} ${bob.userId}`) === true);
        await bob.client.sendTyping(plain, false, 0);
        await until("bob stops", () => alice.typing.get(`${plain} ${bob.userId}`) === false);
        await alice.client.setRoomName(plain, "Coffee");
        const room = await bob.room(plain);
        await until("the new name", () => room.name === "Coffee");
    });

    it("carries account data", async () => {
        await bob.client.setAccountData("org.example.mood", { mood: "good" });
        await until("the mood", () => bob.client.getAccountData("org.example.mood")?.getContent().mood === "good");
        await bob.client.setRoomTag(plain, "m.favourite", { order: 0.5 });
        const room = await bob.room(plain);
        await until("the tag", () => room.tags["m.favourite"]?.order === 0.5);
    });

    it("carries an end-to-end encrypted conversation", async () => {
        const options = { invite: [bob.userId], preset: "private_chat", initial_state: [ENCRYPTION] };
        secret = (await alice.client.createRoom(options)).room_id;
        await bob.room(secret, "invite");
        await bob.client.joinRoom(secret);
        await bob.room(secret);
        await alice.sees(secret, bob.userId, "join");
        const asked = await alice.say(secret, "can you read this?");
        assert.equal(await bob.reads(secret, asked), "can you read this?");
        const answered = await bob.say(secret, "every word");
        assert.equal(await alice.reads(secret, answered), "every word");
        const raw = await alice.event(secret, asked);
        assert.equal(raw.getWireType(), "m.room.encrypted");
    });

    it("grows its window to older rooms", async () => {
        const rooms = [];
        for (let n = 0; n < 3; n += 1) rooms.push((await bob.client.createRoom({ name: `room ${n}` })).room_id);
        window.setListRanges("rooms", [[0, 0]]);
        await until("the count of all rooms", () => window.getListData("rooms").joinedCount === 5);
        const phone = await bob.another("bob 2");
        const narrow = sliding(phone, 0);
        try {
            await phone.start({ slidingSync: narrow });
            await phone.room(rooms[2]);
            assert.equal(phone.client.getRoom(rooms[0]), null, "not in the window");
            narrow.setListRanges("rooms", [[0, 9]]);
            for (const roomId of rooms) await phone.room(roomId);
        } finally {
            phone.stop();
        }
    });

    it("ends with a kick", async () => {
        await alice.client.kick(plain, bob.userId, "enough");
        await bob.room(plain, "leave");
    });

    it("met no trouble on the server's side", (test) => reportComplaints(test));
});
