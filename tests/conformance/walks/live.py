"""What lives beside the events: receipts, read markers, typing."""

from harness import HIDDEN, MISSING, WRONG_TYPE, by_type, joined, walk

NOWHERE = "!no-such-room:localhost"


def receipts(body, room) -> list:
    """(event, type, user, thread) of every receipt in a sync."""
    found = []
    for event in by_type(joined(body, room).get("ephemeral", {}).get("events", []), "m.receipt"):
        for event_id, kinds in event["content"].items():
            for kind, users in kinds.items():
                found += [(event_id, kind, user, data.get("thread_id")) for user, data in users.items()]
    return found


def counts(body, room) -> tuple:
    unread = joined(body, room).get("unread_notifications", {})
    return unread.get("notification_count"), unread.get("highlight_count")


@walk("relays for calls")
def relays(h):
    answer = h.person("alice").call("getTurnServer")
    h.check("relays with a password", answer["uris"] and answer["password"] and answer["ttl"] > 0)


@walk("receipts and unread counts")
def read_receipts(h):
    alice, bob = h.newcomer("reader"), h.newcomer("writer")
    room = bob.create_room(preset="public_chat")
    alice.join(room)
    alice.sync(), bob.sync()
    first, second = bob.say(room, "one"), bob.say(room, "two")
    bob.say(room, f"hello {alice.id}", **{"m.mentions": {"user_ids": [alice.id]}})
    body = alice.sync().json
    h.check("unread: three, one a highlight", counts(body, room) == (3, 1), joined(body, room).get("unread_notifications"))

    def receipt(event, kind="m.read", who=alice, **kwargs):
        return who.call("postReceipt", {"roomId": room, "receiptType": kind, "eventId": event}, body=kwargs.pop("body", {}), **kwargs)

    receipt(first)
    body = bob.sync(timeout=1000).json
    h.check("the other sees it", (first, "m.read", alice.id, None) in receipts(body, room), receipts(body, room))
    body = alice.sync(timeout=1000).json
    h.check("two left", counts(body, room) == (2, 1), joined(body, room).get("unread_notifications"))
    receipt(second, "m.read.private")
    body = alice.sync(timeout=1000).json
    h.check("a private one counts", counts(body, room) == (1, 1), joined(body, room).get("unread_notifications"))
    h.check("and comes to oneself", (second, "m.read.private", alice.id, None) in receipts(body, room), receipts(body, room))
    bob.say(room, "marker for sync")
    body = bob.sync(timeout=1000).json
    h.check("but to nobody else", not any(kind == "m.read.private" for _, kind, _, _ in receipts(body, room)), receipts(body, room))
    fresh = alice.sync(fresh=True).json
    h.check("an initial sync has them", {(first, "m.read", alice.id, None), (second, "m.read.private", alice.id, None)} <= set(receipts(fresh, room)), receipts(fresh, room))
    with h.unchanged("receipts that are refused", lambda: sorted(map(str, receipts(alice.sync(fresh=True).json, room)))):
        refused = {"expect": 400, "errcode": "M_INVALID_PARAM"}
        receipt(first, "m.nonsense", expect=400)
        for thread in (17, "", [], None):
            receipt(first, body={"thread_id": thread}, **refused, note=f"thread_id {thread!r}")
        receipt(first, "m.fully_read", body={"thread_id": "main"}, **refused, note="a thread for a marker")
        receipt(second, body={"thread_id": first}, **refused, note="an event that is not in the thread")
        h.person("carol").call("postReceipt", {"roomId": room, "receiptType": "m.read", "eventId": first}, body={}, **HIDDEN)
        alice.call("postReceipt", {"roomId": NOWHERE, "receiptType": "m.read", "eventId": first}, body={}, **HIDDEN)
    receipt("$no-such-event", expect=(200, 400, 403, 404), note="of an event that is not there")


@walk("threaded receipts and counts")
def threaded(h):
    alice, bob = h.newcomer("treader"), h.newcomer("twriter")
    room = bob.create_room(preset="public_chat")
    alice.join(room)
    wanted = '{"room":{"timeline":{"unread_thread_notifications":true}}}'
    alice.sync(filter=wanted)
    root = bob.say(room, "root")
    thread = {"m.relates_to": {"rel_type": "m.thread", "event_id": root}}
    inside = [bob.say(room, f"in thread {n}", **thread) for n in range(2)]
    body = alice.sync(filter=wanted).json
    threads = joined(body, room).get("unread_thread_notifications", {})
    h.check("main and thread are counted apart", counts(body, room) == (1, 0) and threads.get(root, {}).get("notification_count") == 2, joined(body, room))
    alice.call("postReceipt", {"roomId": room, "receiptType": "m.read", "eventId": inside[0]}, body={"thread_id": root})
    body = alice.sync(filter=wanted, timeout=1000).json
    threads = joined(body, room).get("unread_thread_notifications", {})
    h.check("a receipt in the thread", counts(body, room)[0] in (1, None) and threads.get(root, {}).get("notification_count") == 1, joined(body, room))
    h.check("says its thread", (inside[0], "m.read", alice.id, root) in receipts(body, room), receipts(body, room))
    alice.call("postReceipt", {"roomId": room, "receiptType": "m.read", "eventId": root}, body={"thread_id": "main"})
    body = alice.sync(filter=wanted, timeout=1000).json
    h.check("a receipt in main", counts(body, room) == (0, 0), joined(body, room).get("unread_notifications"))
    body = alice.sync(fresh=True, filter=wanted).json
    got = receipts(body, room)
    h.check("both are kept", {(inside[0], "m.read", alice.id, root), (root, "m.read", alice.id, "main")} <= set(got), got)
    alice.call("postReceipt", {"roomId": room, "receiptType": "m.read", "eventId": inside[1]}, body={}, note="unthreaded: everything")
    body = alice.sync(fresh=True, filter=wanted).json
    threads = joined(body, room).get("unread_thread_notifications", {})
    h.check("all read", counts(body, room) == (0, 0) and threads.get(root, {}).get("notification_count", 0) == 0, joined(body, room))


@walk("read markers")
def read_markers(h):
    alice, bob = h.newcomer("marker"), h.person("bob")
    room = bob.create_room(preset="public_chat")
    alice.join(room)
    alice.sync()
    first, second, third = (bob.say(room, f"m{n}") for n in range(3))
    alice.call("setReadMarker", {"roomId": room}, body={"m.fully_read": first, "m.read": second, "m.read.private": third})
    body = alice.sync(timeout=1000).json
    marker = by_type(joined(body, room).get("account_data", {}).get("events", []), "m.fully_read")
    h.check("the marker comes as account data", [e["content"] for e in marker] == [{"event_id": first}], marker)
    h.check("with both receipts", {(second, "m.read", alice.id, None), (third, "m.read.private", alice.id, None)} <= set(receipts(body, room)), receipts(body, room))
    alice.call("setReadMarker", {"roomId": room}, body={}, note="nothing to set")
    alice.call("postReceipt", {"roomId": room, "receiptType": "m.fully_read", "eventId": second}, body={}, note="also by /receipt")
    read = {"userId": alice.id, "roomId": room, "type": "m.fully_read"}
    h.check("moved on", alice.call("getAccountDataPerRoom", read)["event_id"] == second)
    with h.unchanged("markers that are refused", alice.reads("getAccountDataPerRoom", read)):
        alice.call("setReadMarker", {"roomId": room}, body={"m.fully_read": 17}, expect=400, errcode=WRONG_TYPE)
        alice.call("setReadMarker", {"roomId": room}, body={"m.read": {}}, expect=400, errcode=WRONG_TYPE)
        alice.call("setReadMarker", {"roomId": NOWHERE}, body={"m.fully_read": first}, **HIDDEN)


@walk("typing")
def typing(h):
    alice, bob = h.newcomer("typist"), h.person("bob")
    room = bob.create_room(preset="public_chat")
    alice.join(room)
    bob.sync()
    me = {"roomId": room, "userId": alice.id}

    def typing_now(body):
        """typing changes"""
        events = by_type(joined(body, room).get("ephemeral", {}).get("events", []), "m.typing")
        return events[-1]["content"]["user_ids"] if events else None

    alice.call("setTyping", me, body={"typing": True, "timeout": 30000})
    h.check("seen", typing_now(bob.sync_until(lambda b: typing_now(b) is not None).json) == [alice.id])
    alice.call("setTyping", me, body={"typing": False})
    h.check("and over", typing_now(bob.sync_until(lambda b: typing_now(b) is not None).json) == [])
    alice.call("setTyping", me, body={"typing": True, "timeout": 1})
    bob.sync_until(lambda b: typing_now(b) == [] or typing_now(b) == [alice.id])
    h.check("it ends by itself", typing_now(bob.sync_until(lambda b: typing_now(b) == [], tries=15).json if typing_now(bob.sync(timeout=200).json) != [] else {}) in ([], None))
    alice.call("setTyping", me, body={"typing": True, "timeout": 30000})
    bob.sync_until(lambda b: typing_now(b) == [alice.id])
    alice.say(room)
    bob.sync()
    refused = {"expect": 403, "errcode": "M_FORBIDDEN"}
    bob.call("setTyping", me, body={"typing": True}, **refused, note="for somebody else")
    carol = h.person("carol")
    carol.call("setTyping", {"roomId": room, "userId": carol.id}, body={"typing": True}, **refused, note="not in the room")
    alice.call("setTyping", {"roomId": NOWHERE, "userId": alice.id}, body={"typing": True}, **HIDDEN)
    for body, code in (({}, MISSING), ({"typing": "yes"}, WRONG_TYPE), ({"typing": True, "timeout": "long"}, WRONG_TYPE)):
        alice.call("setTyping", me, body=body, expect=400, errcode=code, note=str(body))
