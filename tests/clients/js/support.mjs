// What the tests share: a person with one matrix-js-sdk client a device, started as a chat application starts it
// (threads, lazily loaded members, Rust crypto held in memory), and waiting with a deadline.

import assert from "node:assert/strict";
import { appendFileSync } from "node:fs";
import { randomUUID } from "node:crypto";
import * as sdk from "matrix-js-sdk";
import { logger } from "matrix-js-sdk/lib/logger.js";

export { sdk };
export const url = process.env.STOA_CLIENTS_URL;
if (!url) throw new Error("STOA_CLIENTS_URL is not set; scripts/clients sets it");

const trace = process.env.STOA_CLIENTS_TRACE;
// The SDK and its WebAssembly log to the console, and a great deal.
if (!process.env.STOA_CLIENTS_LOG) {
    for (const method of ["trace", "debug", "log", "info", "warn", "error"]) console[method] = () => {};
}

/** How long anything may take until it has arrived. */
const PATIENCE = Number(process.env.STOA_CLIENTS_PATIENCE ?? 20) * 1000;

/** Waits until `check` gives something truthy, and returns that. */
export async function until(what, check, patience = PATIENCE) {
    const end = Date.now() + patience;
    for (;;) {
        const found = await check();
        if (found) return found;
        if (Date.now() > end) throw new Error(`not within ${patience / 1000} s: ${what}`);
        await new Promise((wake) => setTimeout(wake, 40));
    }
}

/** A name that no earlier run used, so that one server can be tested many times. */
export function fresh(name) {
    return `${name}-${randomUUID().slice(0, 8)}`;
}

/** What went wrong on the server's side in this process: answers of 500 and more, and endpoints that it does not know. */
export const complaints = [];

/** One device's way to the server: recorded, and it can be cut. */
class Line {
    cut = new AbortController();
    busy = 0;
    last = 0;

    constructor(who) {
        this.who = who;
    }

    fetch = async (resource, options = {}) => {
        if (String(resource).includes("/sync?")) return this.ask(resource, options);
        this.busy += 1;
        try {
            return await this.ask(resource, options);
        } finally {
            this.busy -= 1;
            this.last = Date.now();
        }
    };

    async ask(resource, options) {
        this.cut.signal.throwIfAborted();
        const signal = options.signal ? AbortSignal.any([options.signal, this.cut.signal]) : this.cut.signal;
        const address = new URL(String(resource));
        const response = await fetch(resource, { ...options, signal });
        const line = `${this.who} ${options.method ?? "GET"} ${address.pathname}`;
        if (response.status >= 400 || trace) {
            const body = await response.clone().text().catch((problem) => String(problem));
            if (response.status >= 500) complaints.push(`${line} -> ${response.status} ${body.slice(0, 300)}`);
            else if (body.includes("M_UNRECOGNIZED")) complaints.push(`${line} -> ${response.status} M_UNRECOGNIZED`);
            if (trace) {
                const sent = typeof options.body === "string" ? options.body : "";
                appendFileSync(trace, `${line}${address.search} ${sent}\n  -> ${response.status} ${body}\n`);
            }
        }
        return response;
    }
}

export function newClient(name, options = {}, line = new Line(name)) {
    return sdk.createClient({
        baseUrl: url,
        fetchFn: line.fetch,
        store: new sdk.MemoryStore(),
        timelineSupport: true,
        useAuthorizationHeader: true,
        logger: logger.getChild(`[${name}]`),
        verificationMethods: ["m.sas.v1"],
        ...options,
    });
}

/** Drives user-interactive authentication with what a form would ask the user for. */
export function interactive(client, password, request) {
    const steps = new sdk.InteractiveAuth({
        matrixClient: client,
        doRequest: (auth) => request(auth),
        stateUpdated: (stage, status) => {
            if (status.errcode) throw new Error(`${stage}: ${status.errcode} ${status.error}`);
            assert.equal(stage, "m.login.password", "the only stage that needs this user's help");
            const identifier = { type: "m.id.user", user: client.getUserId() };
            steps.submitAuthDict({ type: stage, identifier, password, session: steps.getSessionId() });
        },
        requestEmailToken: () => Promise.reject(new Error("no e-mail here")),
    });
    return steps.attemptAuth();
}

/** One device of a user. */
export class Device {
    /** The secret storage key that this device's user can type in; the SDK asks for it. */
    recoveryKey = undefined;

    constructor(name, password, credentials) {
        this.name = name;
        this.password = password;
        this.line = new Line(name);
        const options = {
            userId: credentials.user_id,
            deviceId: credentials.device_id,
            accessToken: credentials.access_token,
            cryptoCallbacks: {
                getSecretStorageKey: async ({ keys }) => {
                    const [id] = Object.keys(keys);
                    return this.recoveryKey ? [id, this.recoveryKey] : null;
                },
            },
        };
        this.client = newClient(name, options, this.line);
        this.userId = credentials.user_id;
        this.deviceId = credentials.device_id;
        /** Who was last seen typing, by room and user. */
        this.typing = new Map();
        this.client.on(sdk.RoomMemberEvent.Typing, (_event, member) => {
            this.typing.set(`${member.roomId} ${member.userId}`, member.typing);
        });
    }

    /** Makes an account through the sign-up steps that the server asks for. */
    static async register(name, password = "correct horse battery staple") {
        const client = newClient(name);
        const username = fresh(name);
        const credentials = await interactive(client, password, (auth) =>
            client.registerRequest({ username, password, auth: auth ?? undefined, initial_device_display_name: `${name} 1` }),
        );
        return new Device(name, password, credentials);
    }

    /** Logs in once more as the same user: a second device. */
    async another(label) {
        const client = newClient(label);
        const credentials = await client.loginRequest({
            type: "m.login.password",
            identifier: { type: "m.id.user", user: this.userId },
            password: this.password,
            initial_device_display_name: label,
        });
        return new Device(label, this.password, credentials);
    }

    /** Starts syncing as a chat application does, by sliding sync if it is given one, and waits for the first answer. */
    async start({ crypto = false, slidingSync = undefined } = {}) {
        if (crypto) await this.client.initRustCrypto({ useIndexedDB: false });
        const state = () => this.client.getSyncState();
        const options = { initialSyncLimit: 8, lazyLoadMembers: true, threadSupport: true, pollTimeout: 10_000 };
        await this.client.startClient({ ...options, slidingSync });
        await until(`${this.name}'s first sync`, () => state() === sdk.SyncState.Prepared || state() === sdk.SyncState.Syncing);
    }

    /** Waits until the SDK has nothing more to ask but to sync. */
    async quiet() {
        await until(`${this.name} quiet`, () => this.line.busy === 0 && Date.now() - this.line.last > 500);
    }

    /** Cuts the device off, in the middle of whatever it was asking. */
    disconnect() {
        this.line.cut.abort(new TypeError("the network is down"));
    }

    reconnect() {
        this.line.cut = new AbortController();
        this.client.retryImmediately();
    }

    get crypto() {
        return this.client.getCrypto();
    }

    /** The room, once it is here with this membership. */
    room(roomId, membership = "join") {
        return until(`${membership} of ${this.name} in ${roomId}`, () => {
            const room = this.client.getRoom(roomId);
            return room?.getMyMembership() === membership ? room : null;
        });
    }

    /** An event of a room, once it has arrived (and, if it was encrypted, was decrypted). */
    event(roomId, eventId) {
        return until(`${eventId} at ${this.name}`, () => {
            const event = this.client.getRoom(roomId)?.findEventById(eventId);
            if (!event || event.status) return null;
            if (!event.isEncrypted() || event.isRedacted()) return event;
            return event.getClearContent() && !event.isDecryptionFailure() ? event : null;
        });
    }

    /** The text of a message, once it has arrived and can be read. */
    async reads(roomId, eventId) {
        return (await this.event(roomId, eventId)).getContent().body;
    }

    async say(roomId, body, more = {}) {
        return (await this.client.sendMessage(roomId, { msgtype: "m.text", body, ...more })).event_id;
    }

    /** What another member's membership is, as this device sees it. */
    async sees(roomId, userId, membership) {
        await until(`${this.name} sees ${userId} as ${membership}`, () => {
            return this.client.getRoom(roomId)?.getMember(userId)?.membership === membership;
        });
    }

    /** The unread counts that the SDK has for a room. */
    unread(roomId) {
        const room = this.client.getRoom(roomId);
        return {
            total: room.getUnreadNotificationCount(sdk.NotificationCountType.Total),
            highlight: room.getUnreadNotificationCount(sdk.NotificationCountType.Highlight),
        };
    }

    /** What a sync from nothing answers for one joined room: the server's own word, past the SDK's own counting. */
    async serverView(roomId) {
        const filter = JSON.stringify({
            presence: { not_senders: [`@${fresh("nobody")}:nowhere`] }, // No two requests are the same: Synapse keeps answers.
            room: { rooms: [roomId], timeline: { limit: 1, unread_thread_notifications: true }, state: { lazy_load_members: true } },
        });
        const answer = await this.client.http.authedRequest("GET", "/sync", { filter, timeout: 0 }, undefined, {
            prefix: "/_matrix/client/v3",
        });
        return answer.rooms.join[roomId];
    }

    /** Downloads media the way a client shows a picture: the authenticated address and a bearer token. */
    async download(mxc, width, height, method) {
        const address = this.client.mxcUrlToHttp(mxc, width, height, method, false, true, true);
        const response = await fetch(address, { headers: { Authorization: `Bearer ${this.client.getAccessToken()}` } });
        assert.equal(response.status, 200, `${address} -> ${await (response.ok ? "" : response.text())}`);
        return { type: response.headers.get("content-type"), bytes: Buffer.from(await response.arrayBuffer()) };
    }

    stop() {
        this.client.stopClient();
    }
}

/** An error that the server is expected to answer with; more than one code where the specification leaves it open. */
export async function refused(promise, status, ...errcodes) {
    const problem = await promise.then(
        () => assert.fail(`expected ${status} ${errcodes.join(" or ")}, but it was allowed`),
        (error) => error,
    );
    assert.equal(problem.httpStatus, status, String(problem));
    assert.ok(errcodes.includes(problem.errcode), `${problem} instead of ${errcodes.join(" or ")}`);
}

/** The suites were made against Synapse; where it departs from the specification, they have to know. */
export async function isSynapse() {
    const { headers } = await fetch(`${url}/_matrix/client/versions`);
    return headers.get("server")?.startsWith("Synapse") ?? false;
}

/** Tells what the server answered with 5xx (a failure) and what it did not know (a remark). */
export function reportComplaints(test) {
    for (const line of new Set(complaints)) test.diagnostic(line);
    const broken = complaints.filter((line) => / -> 5\d\d /.test(line));
    assert.deepEqual(broken, [], "answers of 500 and more");
}
