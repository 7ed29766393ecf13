"""End-to-end keys: devices, one-time and fallback keys, cross-signing, server-side backup, to-device messages."""

from crypto import SigningKey, b64
from harness import MISSING, WRONG_TYPE, Person, by_type, walk

ALGORITHMS = ["m.olm.v1.curve25519-aes-sha2", "m.megolm.v1.aes-sha2"]


def curve_key(text: str) -> str:
    """Looks like a Curve25519 key; the server cannot tell."""
    return b64(text.encode().ljust(32, b".")[:32])


class Keys:
    """The keys of one device."""

    def __init__(self, person: Person):
        self.person, self.signing = person, SigningKey()
        self.key_id = f"ed25519:{person.device}"
        bare = {"user_id": person.id, "device_id": person.device, "algorithms": ALGORITHMS,
                "keys": {f"curve25519:{person.device}": curve_key(person.device), self.key_id: self.signing.public}}  # fmt: skip
        self.device_keys = self.signing.sign_json(bare, person.id, self.key_id)

    def signed(self, name: str, **extra) -> dict:
        return self.signing.sign_json({"key": curve_key(name), **extra}, self.person.id, self.key_id)

    def upload(self, names=(), fallback=None) -> "Keys":
        body = {"device_keys": self.device_keys}
        if names:
            body["one_time_keys"] = {f"signed_curve25519:{n}": self.signed(n) for n in names}
        if fallback:
            body["fallback_keys"] = {f"signed_curve25519:{fallback}": self.signed(fallback, fallback=True)}
        self.person.call("uploadKeys", body=body)
        return self


@walk("device keys: upload and query")
def device_keys(h):
    alice, bob = h.newcomer("keyed"), h.newcomer("asker")
    keys = Keys(alice)
    counts = alice.call("uploadKeys", body={}, note="nothing: the counts")["one_time_key_counts"]
    h.check("no keys yet", all(n == 0 for n in counts.values()), counts)
    keys.upload()
    for asked in ([], [alice.device], ["NOSUCH"]):
        answer = bob.call("queryKeys", body={"device_keys": {alice.id: asked}})
        got = answer["device_keys"].get(alice.id, {})
        h.check(f"asked for {asked}", set(got) == (set() if asked == ["NOSUCH"] else {alice.device}), got)
        for device in got.values():
            same = {k: v for k, v in device.items() if k != "unsigned"}
            h.check("just as uploaded", same == keys.device_keys, device)
    nobody = f"@nobody-{h.run}:{alice.server}"
    answer = bob.call("queryKeys", body={"device_keys": {nobody: [], alice.id: []}})
    h.check("an unknown user does not spoil the others", alice.id in answer["device_keys"], answer.excerpt())
    alice.call("updateDevice", {"deviceId": alice.device}, body={"display_name": "phone"})
    bob.call("queryKeys", body={"device_keys": {alice.id: []}}, note="with a display name")
    stored = bob.reads("queryKeys", body={"device_keys": {alice.id: []}})
    with h.unchanged("bad device keys", stored):
        other = {**keys.device_keys, "user_id": bob.id}
        alice.call("uploadKeys", body={"device_keys": other}, expect=400, errcode=(*WRONG_TYPE, "M_UNKNOWN"), note="of another user (CVE-2025-61672)")
        alice.call("uploadKeys", body={"device_keys": {**keys.device_keys, "device_id": "OTHER"}}, expect=400, note="of another device")
        alice.call("uploadKeys", body={"device_keys": {**keys.device_keys, "keys": "none"}}, expect=400, errcode=WRONG_TYPE)
        alice.call("uploadKeys", body={"device_keys": {**keys.device_keys, "algorithms": 1}}, expect=400, errcode=WRONG_TYPE)
        alice.call("uploadKeys", body={"device_keys": 7}, expect=400, errcode=WRONG_TYPE)
        alice.call("uploadKeys", body={"one_time_keys": ["x"]}, expect=400, errcode=WRONG_TYPE)
        alice.call("uploadKeys", body={"one_time_keys": {"no colon": {"key": "x"}}}, expect=400)
    bob.call("queryKeys", body={}, expect=400, errcode=MISSING)
    bob.call("queryKeys", body={"device_keys": [alice.id]}, expect=400, errcode=WRONG_TYPE)
    bob.call("queryKeys", body={"device_keys": {alice.id: "x"}}, expect=400, errcode=WRONG_TYPE)


@walk("one-time keys and fallback keys")
def one_time_keys(h):
    alice, bob = h.newcomer("otk"), h.newcomer("claimer")
    keys = Keys(alice).upload(["A", "B", "C"], fallback="F")
    first = alice.sync()
    h.check("counts in sync", first.get("device_one_time_keys_count", {}).get("signed_curve25519") == 3, first.get("device_one_time_keys_count"))
    h.check("an unused fallback key in sync", first.get("device_unused_fallback_key_types") == ["signed_curve25519"], first.get("device_unused_fallback_key_types"))
    again = {f"signed_curve25519:{n}": keys.signed(n) for n in "AB"}
    same = alice.call("uploadKeys", body={"one_time_keys": again}, note="the same keys again")
    h.check("counted once", same["one_time_key_counts"]["signed_curve25519"] == 3, same.excerpt())
    changed = {"signed_curve25519:A": keys.signed("changed")}
    alice.call("uploadKeys", body={"one_time_keys": changed}, expect=400, errcode=("M_UNKNOWN", "M_INVALID_PARAM"), note="same id, other key")
    wanted = {"one_time_keys": {alice.id: {alice.device: "signed_curve25519"}}}
    got = []
    for _ in range(4):
        answer = bob.call("claimKeys", body=wanted)
        one = answer["one_time_keys"].get(alice.id, {}).get(alice.device, {})
        h.check("one key an answer", len(one) == 1, one)
        got += list(one.items())
    names = [name for name, _ in got]
    h.check("each one-time key once, oldest first, then the fallback key",
            names == [f"signed_curve25519:{n}" for n in "ABCF"], names)  # fmt: skip
    h.check("the fallback key says so", got[-1][1].get("fallback") is True, got[-1])
    h.check("keys as uploaded", got[0][1] == keys.signed("A"), got[0])
    answer = bob.call("claimKeys", body=wanted, note="the fallback key again")
    h.check("a fallback key is not used up", "signed_curve25519:F" in answer["one_time_keys"][alice.id][alice.device])
    later = alice.sync()
    h.check("counts: none left", later.get("device_one_time_keys_count", {}).get("signed_curve25519", 0) == 0, later.get("device_one_time_keys_count"))
    h.check("the fallback key is used", later.get("device_unused_fallback_key_types") == [], later.get("device_unused_fallback_key_types"))
    keys.upload(fallback="G")
    h.check("a new one is unused", alice.sync().get("device_unused_fallback_key_types") == ["signed_curve25519"])
    for who in ({alice.id: {"NOSUCH": "signed_curve25519"}}, {f"@nobody-{h.run}:{alice.server}": {"X": "signed_curve25519"}}):
        answer = bob.call("claimKeys", body={"one_time_keys": who})
        h.check("nothing for who is not there", not any(answer["one_time_keys"].values()), answer.excerpt())
    bob.call("claimKeys", body={}, expect=400, errcode=MISSING)
    bob.call("claimKeys", body={"one_time_keys": {alice.id: ["x"]}}, expect=400, errcode=WRONG_TYPE)


@walk("device list changes")
def device_lists(h):
    alice, bob, carol = h.newcomer("lists"), h.newcomer("watched"), h.newcomer("stranger")
    # The specification speaks of encrypted rooms only.
    encryption = {"type": "m.room.encryption", "state_key": "", "content": {"algorithm": "m.megolm.v1.aes-sha2"}}
    room = bob.create_room(preset="public_chat", initial_state=[encryption])
    start = alice.sync()["next_batch"]
    alice.join(room)
    answer = alice.sync_until(lambda body: bob.id in body.get("device_lists", {}).get("changed", []))
    before = answer["next_batch"]
    Keys(bob).upload()
    Keys(carol).upload()
    answer = alice.sync_until(lambda body: bob.id in body.get("device_lists", {}).get("changed", []))
    h.check("not of people without a shared room", carol.id not in answer["device_lists"]["changed"], answer.get("device_lists"))
    end = answer["next_batch"]
    changes = alice.call("getKeysChanges", query={"from": before, "to": end})
    h.check("/keys/changes says the same", bob.id in changes["changed"] and carol.id not in changes["changed"], changes.excerpt())
    second = bob.login("SECOND")
    Keys(second).upload()
    alice.sync_until(lambda body: bob.id in body.get("device_lists", {}).get("changed", []))
    second.call("logout")
    answer = alice.sync_until(lambda body: bob.id in body.get("device_lists", {}).get("changed", []))
    bob.leave(room)
    answer = alice.sync_until(lambda body: bob.id in body.get("device_lists", {}).get("left", []))
    changes = alice.call("getKeysChanges", query={"from": end, "to": answer["next_batch"]})
    h.check("left in /keys/changes", bob.id in changes.get("left", []), changes.excerpt())
    alice.call("getKeysChanges", query={"from": start}, expect=(200, 400), note="`to` is required")
    alice.call("getKeysChanges", expect=400, errcode=MISSING)
    alice.call("getKeysChanges", query={"from": "no-token", "to": "no-token"}, expect=400)


def cross_signing_keys(person: Person, master: SigningKey):
    """Master, self-signing and user-signing key as bodies, with the key pairs of the latter two."""
    ssk, usk = SigningKey(), SigningKey()

    def key(usage: str, pair: SigningKey, signed=True):
        bare = {"user_id": person.id, "usage": [usage], "keys": {f"ed25519:{pair.public}": pair.public}}
        return master.sign_json(bare, person.id, f"ed25519:{master.public}") if signed else bare

    return {"master_key": key("master", master, signed=False), "self_signing_key": key("self_signing", ssk),
            "user_signing_key": key("user_signing", usk)}, ssk, usk  # fmt: skip


@walk("cross-signing keys")
def cross_signing(h):
    alice, bob = h.newcomer("cross"), h.newcomer("looker")
    device = Keys(alice).upload()
    master = SigningKey()
    bodies, ssk, usk = cross_signing_keys(alice, master)
    without = {k: v for k, v in bodies.items() if k != "master_key"}
    alice.call("uploadCrossSigningKeys", body=without, expect=400, errcode="M_MISSING_PARAM", note="no master key anywhere")
    forged = {**bodies, "self_signing_key": {**bodies["self_signing_key"], "signatures": {alice.id: {f"ed25519:{master.public}": b64(bytes(64))}}}}
    alice.call("uploadCrossSigningKeys", body=forged, expect=400, errcode="M_INVALID_SIGNATURE")
    alice.call("uploadCrossSigningKeys", body={"master_key": 7}, expect=400, errcode=WRONG_TYPE)
    wrong_user = {**bodies["master_key"], "user_id": bob.id}
    alice.call("uploadCrossSigningKeys", body={"master_key": wrong_user}, expect=(400, 403), note="the key of another user")
    answer = bob.call("queryKeys", body={"device_keys": {alice.id: []}})
    h.check("nothing was stored", alice.id not in answer.get("master_keys", {}), answer.excerpt())
    alice.call("uploadCrossSigningKeys", body=bodies, note="the first keys need no authentication")
    alice.call("uploadCrossSigningKeys", body=bodies, note="nor do the same keys again")
    mine = alice.call("queryKeys", body={"device_keys": {alice.id: []}})
    theirs = bob.call("queryKeys", body={"device_keys": {alice.id: []}})
    for answer, who in ((mine, "the owner"), (theirs, "another")):
        for field in ("master_keys", "self_signing_keys"):
            h.check(f"{who} sees {field}", answer.get(field, {}).get(alice.id, {}).get("keys") == bodies[field[:-1]]["keys"], answer.get(field))
    h.check("only the owner sees the user-signing key", alice.id in mine.get("user_signing_keys", {}) and alice.id not in theirs.get("user_signing_keys", {}))
    other, _, _ = cross_signing_keys(alice, SigningKey())
    stored = bob.reads("queryKeys", body={"device_keys": {alice.id: []}})
    with h.unchanged("other keys without authentication", stored):
        first = alice.call("uploadCrossSigningKeys", body=other, expect=401, note="which flows?")
        alice.call("uploadCrossSigningKeys", body={**other, "auth": alice.password_auth(first["session"], "wrong")}, expect=401, errcode="M_FORBIDDEN")
    signatures(h, alice, bob, device, master, bodies, ssk)
    alice.call("uploadCrossSigningKeys", body={**other, "auth": alice.password_auth(first["session"])}, note="with it")
    mine = alice.call("queryKeys", body={"device_keys": {alice.id: []}})
    h.check("replaced", mine["master_keys"][alice.id]["keys"] == other["master_key"]["keys"], mine.get("master_keys"))


def signatures(h, alice, bob, device, master, bodies, ssk):
    """/keys/signatures/upload: of one's device by the self-signing key, of the master key by the device."""
    signed_device = ssk.sign_json(device.device_keys, alice.id, f"ed25519:{ssk.public}")
    signed_master = device.signing.sign_json(bodies["master_key"], alice.id, device.key_id)
    stored = alice.reads("queryKeys", body={"device_keys": {alice.id: []}})
    with h.unchanged("bad signatures", stored):
        forged = {**device.device_keys, "signatures": {alice.id: {f"ed25519:{ssk.public}": b64(b"x" * 64)}}}
        answer = alice.call("uploadCrossSigningSignatures", body={alice.id: {alice.device: forged}})
        failure = answer.get("failures", {}).get(alice.id, {}).get(alice.device, {})
        h.check("a forged signature fails alone", failure.get("errcode") == "M_INVALID_SIGNATURE", answer.excerpt())
        unknown = ssk.sign_json({**device.device_keys, "device_id": "NOSUCH"}, alice.id, f"ed25519:{ssk.public}")
        answer = alice.call("uploadCrossSigningSignatures", body={alice.id: {"NOSUCH": unknown}})
        failure = answer.get("failures", {}).get(alice.id, {}).get("NOSUCH", {})
        h.check("an unknown device fails", isinstance(failure.get("errcode"), str), answer.excerpt())
        changed = ssk.sign_json({**device.device_keys, "algorithms": []}, alice.id, f"ed25519:{ssk.public}")
        answer = alice.call("uploadCrossSigningSignatures", body={alice.id: {alice.device: changed}})
        h.check("other keys than those uploaded fail", alice.device in answer.get("failures", {}).get(alice.id, {}), answer.excerpt())
        bob.call("uploadCrossSigningSignatures", body={alice.id: {alice.device: signed_device}}, expect=(200, 400, 403), note="by who may not")
        alice.call("uploadCrossSigningSignatures", body={alice.id: 7}, expect=400, errcode=WRONG_TYPE)
    answer = alice.call("uploadCrossSigningSignatures", body={alice.id: {alice.device: signed_device, master.public: signed_master}})
    h.check("no failures", not any(answer.get("failures", {}).values()), answer.excerpt())
    seen = bob.call("queryKeys", body={"device_keys": {alice.id: []}})
    got = seen["device_keys"][alice.id][alice.device]["signatures"][alice.id]
    h.check("others see the device signed", f"ed25519:{ssk.public}" in got and device.key_id in got, got)
    got = alice.call("queryKeys", body={"device_keys": {alice.id: []}})["master_keys"][alice.id].get("signatures", {})
    h.check("the master key is signed by the device", device.key_id in got.get(alice.id, {}), got)


@walk("a cross-signing key may not be named like a device")
def key_named_like_device(h):
    alice = h.newcomer("clash")
    master = SigningKey()
    alice.login(master.public)
    bodies, _, _ = cross_signing_keys(alice, master)
    alice.call("uploadCrossSigningKeys", body=bodies, expect=403, errcode="M_FORBIDDEN")
    other = SigningKey()
    bodies, _, _ = cross_signing_keys(alice, other)
    alice.call("uploadCrossSigningKeys", body=bodies)
    body = {"type": "m.login.password", "identifier": {"type": "m.id.user", "user": alice.username},
            "password": alice.password, "device_id": other.public}  # fmt: skip
    h.call("login", body=body, expect=403, errcode="M_FORBIDDEN", note="nor the other way round")


BACKUP = {"algorithm": "m.megolm_backup.v1.curve25519-aes-sha2", "auth_data": {"public_key": curve_key("backup"), "signatures": {}}}


def session(first=0, forwarded=0, verified=True, text="c2VjcmV0") -> dict:
    data = {"ciphertext": text, "ephemeral": curve_key("ephemeral"), "mac": "bWFjbWFjbWE"}
    return {"first_message_index": first, "forwarded_count": forwarded, "is_verified": verified, "session_data": data}


@walk("key backup: versions")
def backup_versions(h):
    alice = h.newcomer("backup")
    alice.call("getRoomKeysVersionCurrent", expect=404, errcode="M_NOT_FOUND", note="none yet")
    one = alice.call("postRoomKeysVersion", body=BACKUP)["version"]
    current = alice.call("getRoomKeysVersionCurrent")
    h.check("the current one", (current["version"], current["count"], current["algorithm"]) == (one, 0, BACKUP["algorithm"]), current.excerpt())
    two = alice.call("postRoomKeysVersion", body=BACKUP)["version"]
    h.check("a new version has a new name", one != two)
    h.check("and is the current one", alice.call("getRoomKeysVersionCurrent")["version"] == two)
    h.check("the older is still there", alice.call("getRoomKeysVersion", {"version": one})["version"] == one)
    changed = {**BACKUP, "auth_data": {"public_key": curve_key("backup"), "signatures": {alice.id: {"ed25519:X": "c2ln"}}}}
    alice.call("putRoomKeysVersion", {"version": two}, body=changed)
    h.check("auth_data changed", alice.call("getRoomKeysVersion", {"version": two})["auth_data"] == changed["auth_data"])
    alice.call("putRoomKeysVersion", {"version": two}, body={**changed, "version": two}, note="the same version in the body")
    with h.unchanged("bad updates", alice.reads("getRoomKeysVersion", {"version": two})):
        alice.call("putRoomKeysVersion", {"version": two}, body={**changed, "algorithm": "m.other"}, expect=400, errcode="M_INVALID_PARAM")
        alice.call("putRoomKeysVersion", {"version": two}, body={**changed, "version": one}, expect=400, errcode="M_INVALID_PARAM")
        alice.call("putRoomKeysVersion", {"version": "77"}, body=changed, expect=404, errcode="M_NOT_FOUND")
        alice.call("putRoomKeysVersion", {"version": two}, body={"algorithm": BACKUP["algorithm"]}, expect=400, errcode=MISSING)
        alice.call("postRoomKeysVersion", body={"algorithm": "x"}, expect=400, errcode=MISSING)
        alice.call("postRoomKeysVersion", body={"algorithm": 7, "auth_data": {}}, expect=400, errcode=WRONG_TYPE)
        alice.call("postRoomKeysVersion", body={**BACKUP, "auth_data": "x"}, expect=400, errcode=WRONG_TYPE)
    for bad in ("77", "nonsense"):
        alice.call("getRoomKeysVersion", {"version": bad}, expect=404, errcode="M_NOT_FOUND")
        alice.call("deleteRoomKeysVersion", {"version": bad}, expect=404, errcode="M_NOT_FOUND")
    alice.call("deleteRoomKeysVersion", {"version": two})
    alice.call("getRoomKeysVersion", {"version": two}, expect=404, errcode="M_NOT_FOUND")
    alice.call("deleteRoomKeysVersion", {"version": two}, note="deleted before: no error")
    h.check("the older is current again", alice.call("getRoomKeysVersionCurrent")["version"] == one)


@walk("key backup: keys")
def backup_keys(h):
    alice, bob = h.newcomer("bkeys"), h.person("bob")
    old = alice.call("postRoomKeysVersion", body=BACKUP)["version"]
    version = alice.call("postRoomKeysVersion", body=BACKUP)["version"]
    q, room, other = {"version": version}, "!one:localhost", "!two:localhost"

    def at(room_id, session_id):
        return {"roomId": room_id, "sessionId": session_id}

    empty = alice.call("getRoomKeys", query=q)
    h.check("no keys: an empty `rooms`", empty.json == {"rooms": {}}, empty.excerpt())
    h.check("no keys of a room: an empty `sessions`", alice.call("getRoomKeysByRoomId", {"roomId": room}, query=q).json == {"sessions": {}})
    put = alice.call("putRoomKeyBySessionId", at(room, "s/1+✓"), query=q, body=session(5))
    h.check("counted, with an etag", put["count"] == 1 and put["etag"], put.excerpt())
    more = alice.call("putRoomKeysByRoomId", {"roomId": room}, query=q, body={"sessions": {"s2": session(), "s3": session()}})
    h.check("another etag", more["count"] == 3 and more["etag"] != put["etag"], more.excerpt())
    alice.call("putRoomKeys", query=q, body={"rooms": {other: {"sessions": {"s4": session()}}, room: {"sessions": {"s5": session()}}}})
    one = alice.call("getRoomKeyBySessionId", at(room, "s/1+✓"), query=q)
    h.check("as stored", one.json == session(5), one.excerpt())
    whole = alice.call("getRoomKeys", query=q)["rooms"]
    h.check("all", {r: sorted(v["sessions"]) for r, v in whole.items()} == {room: ["s/1+✓", "s2", "s3", "s5"], other: ["s4"]}, whole)
    h.check("of a room", sorted(alice.call("getRoomKeysByRoomId", {"roomId": room}, query=q)["sessions"]) == ["s/1+✓", "s2", "s3", "s5"])
    h.check("the version counts them", alice.call("getRoomKeysVersionCurrent")["count"] == 5)
    better = (session(5, verified=False, text="d29yc2U"), session(9, text="d29yc2U"), session(5, forwarded=3, text="d29yc2U"))
    with h.unchanged("worse keys do not replace better ones", alice.reads("getRoomKeyBySessionId", at(room, "s/1+✓"), query=q)):
        for worse in better:
            alice.call("putRoomKeyBySessionId", at(room, "s/1+✓"), query=q, body=worse)
    alice.call("putRoomKeyBySessionId", at(room, "s/1+✓"), query=q, body=session(2, text="YmV0dGVy"))
    h.check("a better one does", alice.call("getRoomKeyBySessionId", at(room, "s/1+✓"), query=q).json == session(2, text="YmV0dGVy"))
    backup_keys_refused(h, alice, bob, room, version, old)
    gone = alice.call("deleteRoomKeyBySessionId", at(room, "s2"), query=q)
    h.check("one less", gone["count"] == 4, gone.excerpt())
    alice.call("getRoomKeyBySessionId", at(room, "s2"), query=q, expect=404, errcode="M_NOT_FOUND")
    h.check("a room less", alice.call("deleteRoomKeysByRoomId", {"roomId": room}, query=q)["count"] == 1)
    h.check("all gone", alice.call("deleteRoomKeys", query=q)["count"] == 0)
    alice.call("deleteRoomKeysVersion", {"version": version})
    alice.call("getRoomKeys", query=q, expect=404, errcode="M_NOT_FOUND", note="its backup was deleted")


def backup_keys_refused(h, alice, bob, room, version, old):
    """What is wrong with the version, the key or the person."""
    q, at = {"version": version}, {"roomId": room, "sessionId": "s2"}
    rooms = {"rooms": {room: {"sessions": {"s2": session()}}}}
    with h.unchanged("backup writes that are refused", alice.reads("getRoomKeys", query=q)):
        for bad, status, code in ((old, 403, "M_WRONG_ROOM_KEYS_VERSION"), ("77", (403, 404), ("M_WRONG_ROOM_KEYS_VERSION", "M_NOT_FOUND"))):
            wrong = {"version": bad}
            for answer in (
                alice.call("putRoomKeyBySessionId", at, query=wrong, body=session(), expect=status, errcode=code),
                alice.call("putRoomKeysByRoomId", {"roomId": room}, query=wrong, body={"sessions": {"s2": session()}}, expect=status, errcode=code),
                alice.call("putRoomKeys", query=wrong, body=rooms, expect=status, errcode=code),
            ):
                if answer.status == 403:
                    h.check("current_version is told", answer.get("current_version") == version, answer.excerpt())
        bob.call("putRoomKeyBySessionId", at, query=q, body=session(), expect=(403, 404))
        for body in ({}, {"first_message_index": 0}, {**session(), "session_data": "x"}, {**session(), "first_message_index": "0"}):
            alice.call("putRoomKeyBySessionId", at, query=q, body=body, expect=400, errcode=(*MISSING, "M_INVALID_PARAM"), note=str(body)[:60])
        alice.call("putRoomKeys", query=q, body={}, expect=400, errcode=MISSING)
        alice.call("putRoomKeysByRoomId", {"roomId": room}, query=q, body={}, expect=400, errcode=MISSING)
        alice.call("putRoomKeyBySessionId", at, body=session(), expect=400, errcode=MISSING, note="no version")
    nothing = {"version": "77"}
    for operation, path in (("RoomKeys", None), ("RoomKeysByRoomId", {"roomId": room}), ("RoomKeyBySessionId", at)):
        alice.call("get" + operation, path, query=nothing, expect=404, errcode="M_NOT_FOUND")
        alice.call("delete" + operation, path, query=nothing, expect=404, errcode="M_NOT_FOUND")
        alice.call("get" + operation, path, expect=400, errcode=MISSING, note="no version")
    fresh = h.person("carol")
    for operation, path, body in (("putRoomKeys", None, rooms), ("putRoomKeysByRoomId", {"roomId": room}, rooms["rooms"][room])):
        fresh.call(operation, path, query={"version": "1"}, body=body, expect=404, errcode="M_NOT_FOUND", note="no backup at all")


@walk("to-device messages")
def to_device(h):
    alice, bob = h.newcomer("teller"), h.newcomer("hearer")
    second = bob.login("BOB2")
    bob.sync(), second.sync()

    def tell(messages, txn=None, kind="chat.stoa.test", **kwargs):
        return alice.call("sendToDevice", {"eventType": kind, "txnId": txn or h.unique("td")}, body={"messages": messages}, **kwargs)

    def heard(person):
        return [e["content"] for e in by_type(person.sync(timeout=500).get("to_device", {}).get("events", []), "chat.stoa.test")]

    tell({bob.id: {bob.device: {"n": 1}}}, txn="one")
    tell({bob.id: {bob.device: {"n": 1}}}, txn="one", note="the same transaction again")
    tell({bob.id: {"*": {"n": 2}}})
    tell({bob.id: {bob.device: {"n": 3}, "BOB2": {"n": 4}}})
    got = [e for e in bob.sync().get("to_device", {}).get("events", []) if e["type"] == "chat.stoa.test"]
    h.check("once each, in order, with the sender", [e["content"] for e in got] == [{"n": 1}, {"n": 2}, {"n": 3}] and {e["sender"] for e in got} == {alice.id}, got)
    h.check("the other device", heard(second) == [{"n": 2}, {"n": 4}])
    h.check("not again after the token that acknowledges them", heard(bob) == [])
    tell({bob.id: {bob.device: {"n": 5}}})
    since = bob.since
    h.check("seen", heard(bob) == [{"n": 5}])
    bob.since = since
    h.check("seen again with the old token: it may have been lost", heard(bob) == [{"n": 5}])
    tell({bob.id: {"NOSUCH": {"n": 9}}, f"@nobody-{h.run}:{bob.server}": {"*": {"n": 9}}}, note="to nobody: no error")
    tell({}, note="to no one")
    encrypted = {"algorithm": "m.olm.v1.curve25519-aes-sha2", "sender_key": curve_key("s"), "ciphertext": {curve_key("r"): {"type": 0, "body": "x"}}}
    tell({bob.id: {bob.device: encrypted}}, kind="m.room.encrypted")
    events = bob.sync(timeout=500).get("to_device", {}).get("events", [])
    h.check("an encrypted one as sent", [e["content"] for e in events] == [encrypted], events)
    path = {"eventType": "chat.stoa.test", "txnId": "bad"}
    for body in ({}, {"messages": []}, {"messages": {bob.id: []}}, {"messages": {bob.id: {"*": "text"}}}):
        alice.call("sendToDevice", path, body=body, expect=400, errcode=(*MISSING, "M_INVALID_PARAM"), note=str(body))
    h.check("nothing came of these", heard(bob) == [])
    for n in range(120):
        h.client.send("PUT", f"/_matrix/client/v3/sendToDevice/chat.stoa.test/many-{n}", body={"messages": {bob.id: {bob.device: {"n": n}}}}, token=alice.token)
    got = []
    for _ in range(10):
        batch = heard(bob)
        got += [e["n"] for e in batch]
        if not batch:
            break
    h.check("120 messages come in order, in one or several answers", got == list(range(120)), got)
