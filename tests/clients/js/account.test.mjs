// The life of an account with matrix-js-sdk: logging in, devices, refreshed tokens, a new password, the end.

import assert from "node:assert/strict";
import { before, describe, it } from "node:test";
import { Device, fresh, interactive, isSynapse, newClient, refused, reportComplaints, until } from "./support.mjs";

describe("matrix-js-sdk: an account", { timeout: 120_000 }, () => {
    let alice;

    const login = (user, password, more = {}) => newClient("login").loginRequest({
        type: "m.login.password", identifier: { type: "m.id.user", user }, password, ...more,
    });
    const clientOf = (name, answer) => newClient(name, {
        userId: answer.user_id, deviceId: answer.device_id, accessToken: answer.access_token,
    });

    before(async () => {
        alice = await Device.register("alice");
    });

    it("logs in by the name alone and by the whole user ID", async () => {
        const local = alice.userId.slice(1).split(":")[0];
        for (const user of [local, alice.userId]) {
            const answer = await login(user, alice.password);
            assert.equal(answer.user_id, alice.userId);
            assert.notEqual(answer.device_id, alice.deviceId);
            await clientOf("alice", answer).logout();
        }
    });

    it("keeps a device's id when it logs in again, and drops the old token", async () => {
        const first = await login(alice.userId, alice.password, { device_id: "TABLET" });
        const second = await login(alice.userId, alice.password, { device_id: "TABLET" });
        assert.equal(second.device_id, "TABLET");
        // "The server will invalidate any access and refresh tokens previously assigned to that device"; Synapse does not.
        if (!(await isSynapse())) await refused(clientOf("tablet", first).whoami(), 401, "M_UNKNOWN_TOKEN");
        const tablet = clientOf("tablet", second);
        assert.equal((await tablet.whoami()).device_id, "TABLET");
        await tablet.setDeviceDetails("TABLET", { display_name: "the tablet" });
        assert.equal((await alice.client.getDevice("TABLET")).display_name, "the tablet");
        await tablet.logout();
        await refused(alice.client.getDevice("TABLET"), 404, "M_NOT_FOUND");
    });

    it("refuses names that are none", async () => {
        for (const username of ["Not A Name", "ünïcode", "a:b"]) {
            const request = newClient("nobody").registerRequest({ username, password: alice.password });
            await refused(request, 400, "M_INVALID_USERNAME");
        }
    });

    it("refreshes a token, and takes each refresh token once", async () => {
        const answer = await login(alice.userId, alice.password, { refresh_token: true });
        assert.ok(answer.refresh_token && answer.expires_in_ms > 0, "a refresh token and an expiry");
        const client = clientOf("refreshing", answer);
        const next = await client.refreshToken(answer.refresh_token);
        assert.notEqual(next.access_token, answer.access_token);
        const renewed = clientOf("refreshing", { ...answer, ...next });
        assert.equal((await renewed.whoami()).device_id, answer.device_id);
        const used = (await isSynapse()) ? [403, "M_FORBIDDEN"] : [401, "M_UNKNOWN_TOKEN"];
        await refused(client.refreshToken(answer.refresh_token), ...used);

        const last = await renewed.refreshToken(next.refresh_token);
        const again = clientOf("refreshing", { ...answer, ...last });
        assert.equal((await again.whoami()).device_id, answer.device_id);
        await again.logout();
        await refused(again.refreshToken(last.refresh_token), 401, "M_UNKNOWN_TOKEN");
    });

    it("changes the password, and logs the other devices out", async () => {
        const other = await alice.another("alice other");
        const secret = "a new and quite long password";
        await interactive(alice.client, alice.password, (auth) =>
            alice.client.setPassword(auth ?? undefined, secret, true));
        await refused(other.client.whoami(), 401, "M_UNKNOWN_TOKEN");
        assert.equal((await alice.client.whoami()).user_id, alice.userId);
        await refused(login(alice.userId, alice.password), 403, "M_FORBIDDEN");
        alice.password = secret;
        await clientOf("alice", await login(alice.userId, secret)).logout();
    });

    it("refuses a wrong password where a password is asked again", async () => {
        const wrong = interactive(alice.client, "not this one", (auth) =>
            alice.client.setPassword(auth ?? undefined, "yet another long one", false));
        await assert.rejects(until("an answer", () => wrong, 5000), /M_FORBIDDEN/);
        assert.equal((await alice.client.whoami()).user_id, alice.userId);
    });

    it("logs out everywhere", async () => {
        const one = await alice.another("alice one");
        const two = await alice.another("alice two");
        await one.client.http.authedRequest("POST", "/logout/all");
        for (const device of [one, two, alice]) await refused(device.client.whoami(), 401, "M_UNKNOWN_TOKEN");
        alice = await alice.another("alice again");
    });

    it("deactivates an account: it leaves its rooms and cannot come back", async () => {
        const bob = await Device.register("bob");
        await bob.start();
        const { room_id: roomId } = await alice.client.createRoom({ preset: "public_chat", name: fresh("room") });
        await bob.client.joinRoom(roomId);
        await bob.room(roomId);
        await interactive(alice.client, alice.password, (auth) => alice.client.deactivateAccount(auth ?? undefined, false));
        await refused(alice.client.whoami(), 401, "M_UNKNOWN_TOKEN");
        await refused(login(alice.userId, alice.password), 403, "M_FORBIDDEN", "M_USER_DEACTIVATED");
        await bob.sees(roomId, alice.userId, "leave");
        const username = alice.userId.slice(1).split(":")[0];
        assert.equal(await bob.client.isUsernameAvailable(username), false);
        await bob.client.logout(true);
    });

    it("answered nothing with 500 or more", (test) => reportComplaints(test));
});
