// Two people in an end-to-end encrypted room, each with matrix-js-sdk and its Rust crypto; then a second device of
// the first that knows nothing but the password and the recovery key.

import assert from "node:assert/strict";
import { after, before, describe, it } from "node:test";
import { Attachment, EncryptedAttachment } from "@matrix-org/matrix-sdk-crypto-wasm";
import { CryptoEvent, DecryptionFailureCode, VerificationPhase, VerificationRequestEvent, VerifierEvent }
    from "matrix-js-sdk/lib/crypto-api/index.js";
import { Device, interactive, refused, reportComplaints, sdk, until } from "./support.mjs";
import { png } from "./picture.mjs";

const { EventType } = sdk;
const ENCRYPTION = { type: EventType.RoomEncryption, state_key: "", content: { algorithm: "m.megolm.v1.aes-sha2" } };

/** Signs the account's identity: cross-signing keys, and with `recovery` secret storage and a key backup. */
async function bootstrap(device, recovery) {
    const { crypto, client } = device;
    await crypto.bootstrapCrossSigning({
        authUploadDeviceSigningKeys: (request) => interactive(client, device.password, request),
    });
    if (!recovery) return;
    await crypto.bootstrapSecretStorage({
        setupNewKeyBackup: true,
        createSecretStorageKey: async () => {
            const key = await crypto.createRecoveryKeyFromPassphrase();
            device.recoveryKey = key.privateKey;
            return key;
        },
    });
}

/** Compares emoji on both sides of a verification until it is done. */
async function compareEmoji(asking, request, answering) {
    const offered = await until("the request at the other", () => answering.requests.at(-1));
    await offered.accept();
    await until("both ready", () => request.phase === VerificationPhase.Ready);
    const shown = [];
    const confirm = (verifier) => {
        verifier.on(VerifierEvent.ShowSas, async (callbacks) => {
            shown.push(JSON.stringify(callbacks.sas.emoji));
            await until("emoji on both sides", () => shown.length === 2);
            await callbacks.confirm();
        });
        return verifier.verify();
    };
    const mine = confirm(await request.startVerification("m.sas.v1"));
    const theirs = until("the other's verifier", () => offered.verifier).then(confirm);
    await Promise.all([mine, theirs]);
    assert.equal(shown[0], shown[1], "both see the same emoji");
    await until("done", () => request.phase === VerificationPhase.Done && offered.phase === VerificationPhase.Done);
}

describe("matrix-js-sdk: an encrypted room", { timeout: 400_000 }, () => {
    let alice, bob, phone, roomId, early, second;

    before(async () => {
        alice = await Device.register("alice");
        bob = await Device.register("bob");
        for (const device of [alice, bob]) {
            device.requests = [];
            device.client.on(CryptoEvent.VerificationRequestReceived, (request) => device.requests.push(request));
            await device.start({ crypto: true });
        }
    });
    after(() => {
        for (const device of [alice, bob, phone]) device?.stop();
    });

    it("bootstraps cross-signing, secret storage and a key backup", async () => {
        await bootstrap(alice, true);
        await bootstrap(bob, false);
        assert.ok(await alice.crypto.isCrossSigningReady());
        assert.ok(await bob.crypto.isCrossSigningReady());
        await until("the secrets in secret storage", () => alice.crypto.isSecretStorageReady());
        const version = await until("the backup in use", () => alice.crypto.getActiveSessionBackupVersion());
        const info = await alice.crypto.getKeyBackupInfo();
        assert.equal(info.version, version);
        assert.equal(info.algorithm, "m.megolm_backup.v1.curve25519-aes-sha2");
        const trust = await alice.crypto.isKeyBackupTrusted(info);
        assert.ok(trust.trusted && trust.matchesDecryptionKey);
        const status = await alice.crypto.getDeviceVerificationStatus(alice.userId, alice.deviceId);
        assert.ok(status.crossSigningVerified);
    });

    it("asks for the password before the identity is replaced", async () => {
        // The SDK forgets new keys when an answer that it asked for before comes late, with the old ones.
        await bob.quiet();
        const master = await bob.crypto.getCrossSigningKeyId();
        let asked = 0;
        await bob.crypto.bootstrapCrossSigning({
            setupNewCrossSigning: true,
            authUploadDeviceSigningKeys: (request) => interactive(bob.client, bob.password, (auth) => {
                if (auth?.type === "m.login.password") asked += 1;
                return request(auth);
            }),
        });
        assert.equal(asked, 1);
        assert.notEqual(await bob.crypto.getCrossSigningKeyId(), master);
        assert.ok(await bob.crypto.isCrossSigningReady());
    });

    it("creates an encrypted room, invites and is joined", async () => {
        const created = await alice.client.createRoom({
            preset: "trusted_private_chat", is_direct: true, invite: [bob.userId], initial_state: [ENCRYPTION],
        });
        roomId = created.room_id;
        const invited = await bob.room(roomId, "invite");
        assert.equal(invited.getDMInviter(), alice.userId);
        await bob.client.joinRoom(roomId);
        await bob.room(roomId);
        await alice.sees(roomId, bob.userId, "join");
        for (const device of [alice, bob]) assert.ok(await device.crypto.isEncryptionEnabledInRoom(roomId));
    });

    it("decrypts messages both ways, and the server sees no text", async () => {
        early = await alice.say(roomId, "the walls have ears");
        assert.equal(await bob.reads(roomId, early), "the walls have ears");
        const answer = await bob.say(roomId, "let them listen");
        assert.equal(await alice.reads(roomId, answer), "let them listen");
        const stored = await bob.client.fetchRoomEvent(roomId, early);
        assert.equal(stored.type, "m.room.encrypted");
        assert.ok(!JSON.stringify(stored).includes("walls"));
    });

    it("decrypts a burst in order", async () => {
        const sent = [];
        for (let n = 0; n < 12; n++) sent.push(await alice.say(roomId, `number ${n}`));
        for (let n = 0; n < 12; n++) assert.equal(await bob.reads(roomId, sent[n]), `number ${n}`);
    });

    it("shows edits, reactions and redactions", async () => {
        const id = await bob.say(roomId, "wrnog");
        const original = await alice.event(roomId, id);
        await bob.say(roomId, "* wrong", {
            "m.new_content": { msgtype: "m.text", body: "wrong" },
            "m.relates_to": { rel_type: "m.replace", event_id: id },
        });
        await until("the edit at alice", () => original.getContent().body === "wrong");
        await alice.client.sendEvent(roomId, EventType.Reaction, {
            "m.relates_to": { rel_type: "m.annotation", event_id: id, key: "✅" },
        });
        await until("the reaction at bob", () => {
            const related = bob.client.getRoom(roomId).relations.getChildEventsForEvent(id, "m.annotation", "m.reaction");
            return related?.getSortedAnnotationsByKey()?.some(([key, events]) => key === "✅" && events.size === 1);
        });
        await bob.client.redactEvent(roomId, id);
        await until("the redaction at alice", () => original.isRedacted());
        assert.deepEqual((await alice.client.fetchRoomEvent(roomId, id)).content, {});
    });

    it("shows typing and receipts, and counts what is unread", async () => {
        const key = `${roomId} ${bob.userId}`;
        await bob.client.sendTyping(roomId, true, 10_000);
        await until("bob typing", () => alice.typing.get(key) === true);

        const last = () => bob.client.getRoom(roomId).getLiveTimeline().getEvents().at(-1);
        await bob.client.sendReadReceipt(last());
        await until("nothing unread", () => bob.unread(roomId).total === 0);
        const id = await alice.say(roomId, "count me");
        const event = await bob.event(roomId, id);
        await until("one unread", () => bob.unread(roomId).total === 1);
        assert.equal((await bob.serverView(roomId)).unread_notifications.notification_count, 1);
        await bob.client.sendReadReceipt(event);
        await until("nothing unread again", () => bob.unread(roomId).total === 0);
        assert.equal((await bob.serverView(roomId)).unread_notifications.notification_count, 0);
        await until("the receipt at alice", () => alice.client.getRoom(roomId).getEventReadUpTo(bob.userId) === id);

        await bob.say(roomId, "done typing");
        await bob.client.sendTyping(roomId, false, 0);
        await until("bob no longer typing", () => alice.typing.get(key) === false);
    });

    it("sends an encrypted picture that the other can open", async () => {
        const picture = png(320, 200);
        const closed = Attachment.encrypt(picture);
        const secret = JSON.parse(closed.mediaEncryptionInfo);
        const cipher = closed.encryptedData;
        const { content_uri: mxc } = await alice.client.uploadContent(Buffer.from(cipher), {
            type: "application/octet-stream", includeFilename: false,
        });
        const { event_id: id } = await alice.client.sendMessage(roomId, {
            msgtype: "m.image", body: "stoa.png", file: { ...secret, url: mxc },
            info: { mimetype: "image/png", size: picture.length, w: 320, h: 200 },
        });
        const { file } = (await bob.event(roomId, id)).getContent();
        const { bytes } = await bob.download(file.url);
        assert.ok(bytes.equals(Buffer.from(cipher)), "the stored bytes are those that were sent");
        const opened = Attachment.decrypt(new EncryptedAttachment(bytes, JSON.stringify(file)));
        assert.ok(Buffer.from(opened).equals(picture), "the picture came back changed");
    });

    it("verifies the other by emoji", async () => {
        const request = await alice.crypto.requestVerificationDM(bob.userId, roomId);
        await compareEmoji(alice, request, bob);
        await until("bob verified at alice", async () => (await alice.crypto.getUserVerificationStatus(bob.userId)).isVerified());
        await until("alice verified at bob", async () => (await bob.crypto.getUserVerificationStatus(alice.userId)).isVerified());
    });

    it("cannot read old messages on a second device before it is given the recovery key", async () => {
        await until("every key in the backup", async () => {
            const keys = await alice.crypto.exportRoomKeys();
            const info = await alice.client.http.authedRequest("GET", "/room_keys/version");
            return info.count >= keys.length && keys.length >= 2;
        });
        phone = await alice.another("alice phone");
        await phone.start({ crypto: true });
        const room = await phone.room(roomId);
        await phone.client.scrollback(room, 100);
        const event = await until("the old message at the phone", () => room.findEventById(early));
        await until("a failure to decrypt", () => event.isDecryptionFailure());
        assert.equal(event.decryptionFailureReason, DecryptionFailureCode.HISTORICAL_MESSAGE_BACKUP_UNCONFIGURED);
        const status = await bob.crypto.getDeviceVerificationStatus(alice.userId, phone.deviceId);
        assert.ok(!status?.signedByOwner);
    });

    it("signs the second device with the key from secret storage, and everyone sees it verified", async () => {
        phone.recoveryKey = alice.recoveryKey;
        assert.ok(await phone.crypto.userHasCrossSigningKeys(), "the account's public keys");
        await phone.crypto.bootstrapCrossSigning({});
        assert.ok(await phone.crypto.isCrossSigningReady());
        for (const [who, device] of [["itself", phone], ["the first device", alice], ["bob", bob]]) {
            await until(`the phone verified as seen by ${who}`, async () => {
                const status = await device.crypto.getDeviceVerificationStatus(alice.userId, phone.deviceId);
                return status?.signedByOwner && status.crossSigningVerified;
            });
        }
    });

    it("restores the keys from the backup and reads what was written before", async () => {
        await phone.crypto.loadSessionBackupPrivateKeyFromSecretStorage();
        await phone.crypto.checkKeyBackupAndEnable();
        const { total, imported } = await phone.crypto.restoreKeyBackup();
        assert.ok(total >= 2 && imported === total, `${imported} of ${total} keys`);
        assert.equal(await phone.reads(roomId, early), "the walls have ears");
        for (const event of phone.client.getRoom(roomId).getLiveTimeline().getEvents()) {
            if (!event.isEncrypted()) continue;
            await until(`${event.getId()} readable`, () => !event.isDecryptionFailure() && !event.isBeingDecrypted());
        }
    });

    it("brings new messages to all three devices", async () => {
        second = await bob.say(roomId, "to both of you");
        assert.equal(await alice.reads(roomId, second), "to both of you");
        assert.equal(await phone.reads(roomId, second), "to both of you");
        const mine = await phone.say(roomId, "from the phone");
        assert.equal(await alice.reads(roomId, mine), "from the phone");
        const seen = await bob.event(roomId, mine);
        assert.equal(seen.getContent().body, "from the phone");
        const { shieldReason } = await bob.crypto.getEncryptionInfoForEvent(seen);
        assert.equal(shieldReason, null, "sent by a verified device");
        const own = await alice.say(roomId, "to my own phone too");
        assert.equal(await phone.reads(roomId, own), "to my own phone too");
    });

    it("keeps to-device messages for a device that is away", async () => {
        phone.disconnect();
        const away = [];
        for (let n = 0; n < 3; n++) {
            await bob.crypto.forceDiscardSession(roomId);
            away.push(await bob.say(roomId, `while you were away ${n}`));
        }
        await until("bob's last at alice", () => alice.client.getRoom(roomId).findEventById(away.at(-1)));
        phone.reconnect();
        for (let n = 0; n < 3; n++) assert.equal(await phone.reads(roomId, away[n]), `while you were away ${n}`);
    });

    it("encrypts for a device that has no one-time keys left", async () => {
        const third = await bob.another("bob tablet");
        await third.start({ crypto: true });
        await until("its one-time keys uploaded", async () => {
            const { one_time_key_counts: counts } = await third.client.http.authedRequest("POST", "/keys/upload", undefined, {});
            return counts.signed_curve25519 >= 50;
        });
        third.disconnect();
        const claim = { one_time_keys: { [bob.userId]: { [third.deviceId]: "signed_curve25519" } } };
        let fallback = false;
        for (let n = 0; n < 120 && !fallback; n++) {
            const { one_time_keys: keys } = await bob.client.http.authedRequest("POST", "/keys/claim", undefined, claim);
            fallback = Object.values(keys[bob.userId][third.deviceId])[0].fallback === true;
        }
        assert.ok(fallback, "the fallback key is given when the others are used up");
        await until("the tablet known to alice", async () => {
            return (await alice.crypto.getUserDeviceInfo([bob.userId])).get(bob.userId)?.has(third.deviceId);
        });
        const id = await alice.say(roomId, "for the tablet");
        third.reconnect();
        assert.equal(await third.reads(roomId, id), "for the tablet");
        await third.client.logout(true);
    });

    it("tells everyone of a device that logged out", async () => {
        const deviceId = phone.deviceId;
        await phone.client.logout(true);
        await refused(phone.client.whoami(), 401, "M_UNKNOWN_TOKEN");
        for (const device of [alice, bob]) {
            await until(`the phone gone at ${device.name}`, async () => {
                return !(await device.crypto.getUserDeviceInfo([alice.userId])).get(alice.userId)?.has(deviceId);
            });
        }
        const id = await bob.say(roomId, "only you now");
        assert.equal(await alice.reads(roomId, id), "only you now");
    });

    it("deletes the backup with the key storage", async () => {
        await alice.crypto.disableKeyStorage();
        assert.equal(await alice.crypto.getActiveSessionBackupVersion(), null);
        await refused(alice.client.http.authedRequest("GET", "/room_keys/version"), 404, "M_NOT_FOUND");
    });

    it("answered nothing with 500 or more", (test) => reportComplaints(test));
});
