"""Sending messages and state, transactions, redaction, power levels."""

from harness import HIDDEN, WRONG_TYPE, by_type, ids, timeline, walk

NOWHERE = "!no-such-room:localhost"


@walk("messages")
def messages(h):
    alice, bob = h.person("alice"), h.person("bob")
    room = alice.create_room(preset="public_chat")
    bob.join(room)
    bob.sync(), alice.sync()
    contents = [
        {"msgtype": "m.text", "body": "plain"},
        {"msgtype": "m.text", "body": "*b*", "format": "org.matrix.custom.html", "formatted_body": "<b>b</b>"},
        {"msgtype": "m.notice", "body": "noticed"}, {"msgtype": "m.emote", "body": "waves"},
        {"msgtype": "m.image", "body": "i.png", "url": "mxc://localhost/abc", "info": {"w": 1, "h": 2, "size": 3, "mimetype": "image/png"}},
        {"msgtype": "m.file", "body": "f.txt", "filename": "f.txt", "url": "mxc://localhost/abc"},
        {"msgtype": "chat.stoa.own", "body": "", "deep": {"list": [None, True, [1, [2, [{}]]]]}, "": "empty key", "ключ": "\U0001f600\t\n\u2028"},
    ]  # fmt: skip
    sent = [alice.send(room, content)["event_id"] for content in contents]
    got = timeline(bob.sync().json, room)
    h.check("the other gets them once, in order", ids(got) == sent, ids(got))
    h.check("content as sent", [e["content"] for e in got] == contents, got[-1:])
    h.check("from whom", {e["sender"] for e in got} == {alice.id})
    h.check("no transaction id for others", not any("transaction_id" in e.get("unsigned", {}) for e in got))
    alice.send(room, txn="my txn ✓/")
    own = timeline(alice.sync().json, room)
    h.check("the sender gets the transaction id back", own[-1].get("unsigned", {}).get("transaction_id") == "my txn ✓/", own[-1:])
    second = alice.login()
    shown = timeline(second.sync().json, room)
    h.check("but no other device of theirs", not any("transaction_id" in e.get("unsigned", {}) for e in shown))
    encrypted = {"algorithm": "m.megolm.v1.aes-sha2", "ciphertext": "YWJj", "session_id": "s", "device_id": "D", "sender_key": "k"}
    alice.send(room, encrypted, type="m.room.encrypted")
    alice.send(room, {"m.relates_to": {"rel_type": "m.annotation", "event_id": sent[0], "key": "👍"}}, type="m.reaction")
    alice.send(room, {"m.relates_to": {"rel_type": "m.annotation", "event_id": sent[0], "key": "👍"}}, type="m.reaction", expect=400,
               errcode="M_DUPLICATE_ANNOTATION")  # fmt: skip
    alice.say(room, "* better", **{"m.new_content": {"msgtype": "m.text", "body": "better"}, "m.relates_to": {"rel_type": "m.replace", "event_id": sent[0]}})


@walk("transactions")
def transactions(h):
    alice, bob = h.newcomer("txn"), h.person("bob")
    room, other = alice.create_room(preset="public_chat"), alice.create_room()
    bob.join(room)
    first = alice.send(room, txn="one")["event_id"]
    with h.unchanged("a transaction sent again", alice.sees(room)):
        h.check("the same event id", alice.send(room, txn="one")["event_id"] == first)
        changed = alice.send(room, {"msgtype": "m.text", "body": "something else"}, txn="one")
        h.check("whatever the body says now", changed["event_id"] == first, changed.excerpt())
    h.check("another room", alice.send(other, txn="one")["event_id"] != first)
    h.check("another type", alice.send(room, {"a": 1}, type="chat.stoa.x", txn="one")["event_id"] != first)
    h.check("another person", bob.send(room, txn="one")["event_id"] != first)
    h.check("another device", alice.login("TXN2").send(room, txn="one")["event_id"] != first)
    path = {"roomId": room, "eventId": first, "txnId": "one"}
    gone = alice.call("redactEvent", path, body={})["event_id"]
    h.check("redaction has transactions too", alice.call("redactEvent", path, body={})["event_id"] == gone)
    again = alice.login(alice.device)
    h.check("a new login on the same device keeps them", again.send(room, txn="one")["event_id"] == first)
    again.send(room, [], txn="failed", expect=400, errcode=("M_BAD_JSON", "M_NOT_JSON"))
    h.check("a request that failed is no transaction", again.send(room, txn="failed")["event_id"])


@walk("sending refused")
def sending_refused(h):
    alice, bob, carol = h.person("alice"), h.person("bob"), h.person("carol")
    room = alice.create_room(preset="public_chat")
    bob.join(room)
    refused = {"expect": 403, "errcode": "M_FORBIDDEN"}
    with h.unchanged("sends without the right", alice.sees(room)):
        carol.send(room, **refused, note="not in the room")
        carol.set_state(room, "m.room.topic", {"topic": "x"}, **refused)
        carol.send(NOWHERE, **HIDDEN)
        carol.send("no-room-id", expect=(400, 403, 404), errcode=("M_INVALID_PARAM", "M_FORBIDDEN", "M_NOT_FOUND"))
        carol.set_state(NOWHERE, "m.room.topic", {"topic": "x"}, **HIDDEN)
        bob.set_state(room, "m.room.topic", {"topic": "x"}, **refused, note="too little power")
        bob.set_state(room, "m.room.power_levels", {"users": {bob.id: 100}}, **refused)
        bob.set_state(room, "m.room.create", {"room_version": "12"}, expect=(400, 403))
        alice.set_state(room, "m.room.create", {"room_version": "12", "again": True}, expect=(400, 403), note="there is one create event")
        alice.send(room, {"room_version": "11"}, type="m.room.create", expect=(400, 403))
        bob.set_state(room, "chat.stoa.mine", {}, key=alice.id, **refused, note="a state key that is somebody else's id")
    alice.set_state(room, "m.room.power_levels", {**alice.get_state(room, "m.room.power_levels").json, "events_default": 10})
    with h.unchanged("a message below events_default", alice.sees(room)):
        bob.send(room, **refused)
    with h.unchanged("bad power levels", alice.sees(room)):
        for bad in ({"users": {bob.id: "50"}}, {"users": []}, {"ban": "50"}, {"events": {"m.room.name": 1.5}}, {"users": {"no-user-id": 1}}, {"users_default": True}):
            alice.set_state(room, "m.room.power_levels", bad, expect=(400, 403), errcode=(*WRONG_TYPE, "M_FORBIDDEN"), note=str(bad))
        if alice.call("getRoomState", {"roomId": room}).json and "12" == alice.get_state(room, "m.room.create").get("room_version"):
            alice.set_state(room, "m.room.power_levels", {"users": {alice.id: 100}}, expect=(400, 403), note="version 12: the creator may not be listed")


@walk("state events")
def state(h):
    alice, bob, carol = h.person("alice"), h.person("bob"), h.person("carol")
    room = alice.create_room(preset="public_chat")
    bob.join(room)
    first = alice.set_state(room, "m.room.topic", {"topic": "one"})["event_id"]
    h.check("content", alice.get_state(room, "m.room.topic").json == {"topic": "one"})
    whole = alice.get_state(room, "m.room.topic", query={"format": "event"})
    h.check("the whole event", (whole.get("event_id"), whole.get("state_key"), whole.get("sender")) == (first, "", alice.id), whole.excerpt())
    alice.set_state(room, "m.room.topic", {"topic": "two"})
    event = by_type(alice.messages(room)["chunk"], "m.room.topic")[0]
    h.check("what it replaced", event.get("unsigned", {}).get("prev_content") == {"topic": "one"}, event.get("unsigned"))
    for key in ("with/slash", "ünï \U0001f600", "@not.a.user", "..", "%2F", " "):
        alice.set_state(room, "chat.stoa.keyed", {"key": key}, key=key, expect=(200, 403) if key[0] == "@" else 200)
        if key[0] != "@":
            h.check(f"state key {key!r}", alice.get_state(room, "chat.stoa.keyed", key).json == {"key": key})
    url = f"/_matrix/client/v3/rooms/{room}/state/chat.stoa.slash"
    h.raw("PUT", url, token=alice.token, body={"n": 1}, note="an empty state key needs no slash at the end")
    h.raw("PUT", url + "/", token=alice.token, body={"n": 2}, note="nor minds one")
    for end in ("", "/"):
        h.check("the same state", h.raw("GET", url + end, token=alice.token).json == {"n": 2})
    bob.set_state(room, "m.room.member", {"membership": "join", "displayname": "Bobby"}, key=bob.id)
    h.check("a name for this room only", alice.get_state(room, "m.room.member", bob.id).get("displayname") == "Bobby")
    alice.get_state(room, "chat.stoa.none", expect=404, errcode="M_NOT_FOUND")
    alice.get_state(room, "m.room.topic", "other", expect=404, errcode="M_NOT_FOUND")
    carol.get_state(room, "m.room.topic", expect=403, errcode="M_FORBIDDEN", note="never a member")
    carol.call("getRoomState", {"roomId": room}, expect=403, errcode="M_FORBIDDEN")
    carol.get_state(NOWHERE, "m.room.topic", **HIDDEN)
    alice.set_state(room, "chat.stoa.empty", {}, note="empty content is content")
    alice.set_state(room, "m.room.pinned_events", {"pinned": [first]})
    alice.set_state(room, "m.room.avatar", {"url": "mxc://localhost/abc"})
    alice.set_state(room, "m.room.server_acl", {"allow": ["*"], "deny": ["evil.example"], "allow_ip_literals": False})
    alice.set_state(room, "m.room.encryption", {"algorithm": "m.megolm.v1.aes-sha2", "rotation_period_ms": 604800000})


@walk("redaction")
def redaction(h):
    alice, bob, carol = h.person("alice"), h.person("bob"), h.person("carol")
    room = alice.create_room(preset="public_chat")
    bob.join(room)
    alice.sync(), bob.sync()
    event, other = bob.say(room, "a secret"), alice.say(room, "by alice")

    def redact(who, what, **kwargs):
        path = {"roomId": kwargs.pop("room", room), "eventId": what, "txnId": h.unique("r")}
        return who.call("redactEvent", path, body=kwargs.pop("body", {"reason": "why not"}), **kwargs)

    with h.unchanged("redactions that are refused", alice.sees(room), lambda: alice.event(room, other)["content"]):
        redact(bob, other, expect=403, errcode="M_FORBIDDEN", note="of somebody else, without power")
        redact(carol, event, expect=403, errcode="M_FORBIDDEN", note="not in the room")
        redact(alice, event, room=NOWHERE, **HIDDEN)
        redact(alice, event, body={"reason": 17}, expect=400, errcode=WRONG_TYPE)
        elsewhere = alice.create_room()
        redact(alice, alice.say(elsewhere), expect=(400, 403, 404), note="of another room")
    redact(bob, "$no-such-event", expect=(200, 400, 403, 404), note="an event that is not here (it may be on its way)")
    gone = redact(bob, event)["event_id"]
    shown = bob.event(room, event)
    h.check("the content is gone", shown["content"] == {}, shown.excerpt())
    because = shown["unsigned"]["redacted_because"]
    h.check("and it says why", because["event_id"] == gone and because["content"].get("reason") == "why not", because)
    in_sync = timeline(alice.sync().json, room)
    h.check("the redaction is in the timeline", [e.get("redacts") or e["content"].get("redacts") for e in by_type(in_sync, "m.room.redaction")][-1:] == [event], in_sync)
    h.check("the secret is nowhere in sync, messages and context", not any(
        b"a secret" in answer.raw for answer in (alice.sync(fresh=True), alice.messages(room),
                                                 alice.call("getEventContext", {"roomId": room, "eventId": other}))))  # fmt: skip
    redact(alice, bob.say(room, "by bob"), note="of others, with power")
    topic = alice.set_state(room, "m.room.topic", {"topic": "hush"})["event_id"]
    redact(alice, topic)
    h.check("redacted state is empty", alice.get_state(room, "m.room.topic").json == {})
    member = alice.get_state(room, "m.room.member", bob.id, query={"format": "event"})
    redact(alice, member["event_id"])
    h.check("a redacted member event keeps its membership", alice.get_state(room, "m.room.member", bob.id).json == {"membership": "join"})


@walk("power levels")
def power_levels(h):
    alice, bob, carol = h.person("alice"), h.person("bob"), h.person("carol")
    room = alice.create_room(preset="public_chat", room_version="11")
    bob.join(room), carol.join(room)
    levels = alice.get_state(room, "m.room.power_levels").json

    def put(who, users=None, **changes):
        new = {**levels, **{k: v for k, v in changes.items() if k not in ("expect", "errcode", "note")}}
        new["users"] = {**levels["users"], **(users or {})}
        return who.set_state(room, "m.room.power_levels", new, **{k: v for k, v in changes.items() if k in ("expect", "errcode", "note")})

    put(alice, {bob.id: 50}, events={**levels.get("events", {}), "m.room.power_levels": 50, "m.room.name": 60})
    levels = alice.get_state(room, "m.room.power_levels").json
    refused = {"expect": 403, "errcode": "M_FORBIDDEN"}
    with h.unchanged("power that one does not have", alice.sees(room)):
        put(bob, {bob.id: 60}, **refused, note="more for oneself")
        put(bob, {carol.id: 60}, **refused, note="more than one's own")
        put(bob, {alice.id: 0}, **refused, note="less for who stands higher")
        put(bob, ban=70, **refused)
        put(bob, events={**levels["events"], "m.room.name": 10}, **refused, note="a level above one's own")
        bob.set_state(room, "m.room.name", {"name": "x"}, **refused)
    put(bob, {carol.id: 50}, note="as much as one's own")
    levels = alice.get_state(room, "m.room.power_levels").json
    with h.unchanged("demoting an equal", alice.sees(room)):
        put(bob, {carol.id: 0}, **refused)
    put(bob, {bob.id: 0}, note="less for oneself")
    h.check("done", alice.get_state(room, "m.room.power_levels")["users"][bob.id] == 0)
