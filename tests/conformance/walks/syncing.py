"""/sync v3 with all its parts."""

import json
import threading
import time

from harness import WRONG_TYPE, by_type, ids, joined, timeline, walk


def state_ids(body, room, part="state") -> list:
    return ids(joined(body, room).get(part, {}).get("events", []))


def keyed(events) -> dict:
    return {(e["type"], e["state_key"]): e["event_id"] for e in events if "state_key" in e}


@walk("initial and incremental")
def basics(h):
    alice, bob = h.newcomer("syncer"), h.person("bob")
    empty = alice.sync().json
    h.check("nobody's rooms are empty", not any(empty.get("rooms", {}).get(k) for k in ("join", "invite", "leave")), list(empty))
    room = bob.create_room(preset="public_chat", name="Sync", topic="all of it")
    alice.join(room)
    body = alice.sync().json
    whole = {(e["type"], e["state_key"]): e["event_id"] for e in alice.call("getRoomState", {"roomId": room}).json}
    part = joined(body, room)
    got = keyed(part["state"]["events"] if "state" in part else [])
    got.update(keyed(part["timeline"]["events"]))
    h.check("a room that was just joined comes whole", got == whole, set(whole) ^ set(got))
    h.check("with a summary", part.get("summary", {}).get("m.joined_member_count") == 2, part.get("summary"))
    quiet = alice.sync().json
    h.check("then nothing", joined(quiet, room) == {}, joined(quiet, room))
    h.check("a token again", isinstance(quiet["next_batch"], str))
    sent = bob.say(room, "news")
    body = alice.sync().json
    h.check("only the news", ids(timeline(body, room)) == [sent] and state_ids(body, room) == [], joined(body, room))
    topic = bob.set_state(room, "m.room.topic", {"topic": "changed"})["event_id"]
    body = alice.sync().json
    h.check("a state event in the timeline is not in state too", ids(timeline(body, room)) == [topic] and state_ids(body, room) == [], joined(body, room))
    full = alice.sync(full_state=True).json
    h.check("full_state: everything, though nothing is new", keyed(joined(full, room)["state"]["events"]) .items() >= {("m.room.topic", ""): topic}.items(), joined(full, room))
    fresh = alice.sync(fresh=True).json
    part = joined(fresh, room)
    got = {**keyed(part.get("state", {}).get("events", [])), **keyed(part["timeline"]["events"])}
    whole = {(e["type"], e["state_key"]): e["event_id"] for e in alice.call("getRoomState", {"roomId": room}).json}
    h.check("initial: state and timeline together are the state", got == whole, set(whole.items()) ^ set(got.items()))


@walk("gaps")
def gaps(h):
    alice, bob = h.newcomer("gapper"), h.person("bob")
    room = bob.create_room(preset="public_chat")
    alice.join(room)
    alice.sync()
    name = bob.set_state(room, "m.room.name", {"name": "inside the gap"})["event_id"]
    sent = [bob.say(room, f"g{n}") for n in range(8)]
    late = bob.set_state(room, "m.room.topic", {"topic": "after the gap"})["event_id"]
    since = alice.since
    for use_after in (False, True):
        alice.since = since
        query = {"filter": '{"room":{"timeline":{"limit":4}}}', **({"use_state_after": True} if use_after else {})}
        part = joined(alice.sync(**query).json, room)
        h.check("limited, the newest four", part["timeline"]["limited"] is True and ids(part["timeline"]["events"]) == [*sent[5:], late], part["timeline"])
        if use_after:
            h.check("state_after: all that changed, to the end", sorted(ids(part.get("state_after", {}).get("events", []))) == sorted([name, late]), part.get("state_after"))
            h.check("and no `state`", "state" not in part, list(part))
        else:
            h.check("state: what changed in the gap", ids(part.get("state", {}).get("events", [])) == [name], part.get("state"))
            h.check("and no `state_after`", "state_after" not in part, list(part))
    back = alice.messages(room, **{"from": part["timeline"]["prev_batch"], "limit": 6})
    h.check("the gap can be filled", ids(back["chunk"]) == [*sent[:5][::-1], name], ids(back["chunk"]))
    quiet = alice.sync(use_state_after=True).json
    h.check("nothing after that", joined(quiet, room) == {}, joined(quiet, room))
    fresh = joined(alice.sync(fresh=True, use_state_after=True).json, room)
    whole = {(e["type"], e["state_key"]): e["event_id"] for e in alice.call("getRoomState", {"roomId": room}).json}
    h.check("initial with state_after: the state at the end", keyed(fresh.get("state_after", {}).get("events", [])) == whole, set(keyed(fresh.get("state_after", {}).get("events", []))) ^ set(whole))


@walk("filters")
def filters(h):
    alice, bob = h.newcomer("filterer"), h.person("bob")
    room, other = bob.create_room(preset="public_chat"), bob.create_room(preset="public_chat")
    alice.join(room), alice.join(other)
    bob.say(room), bob.send(room, {"n": 1}, type="chat.stoa.x"), bob.send(room, {"n": 2}, type="chat.stoa.y")
    bob.send(room, {"body": "pic", "msgtype": "m.image", "url": "mxc://localhost/abc"})

    def part(filter, **query):
        return alice.sync(fresh=True, filter=json.dumps(filter), **query).json

    def kinds(filter):
        return [e["type"] for e in timeline(part({"room": {"timeline": {"limit": 30, **filter}}}), room)]

    h.check("types", set(kinds({"types": ["chat.stoa.x"]})) == {"chat.stoa.x"})
    h.check("types with a star", set(kinds({"types": ["chat.stoa.*"]})) == {"chat.stoa.x", "chat.stoa.y"})
    h.check("not_types wins", set(kinds({"types": ["chat.stoa.*"], "not_types": ["chat.stoa.y"]})) == {"chat.stoa.x"})
    h.check("senders", set(e["sender"] for e in timeline(part({"room": {"timeline": {"senders": [alice.id]}}}), room)) == {alice.id})
    h.check("not_senders", alice.id not in set(e["sender"] for e in timeline(part({"room": {"timeline": {"not_senders": [alice.id]}}}), room)))
    h.check("contains_url", kinds({"contains_url": True}) == ["m.room.message"], kinds({"contains_url": True}))
    h.check("an empty list of types is nothing", kinds({"types": []}) == [])
    h.check("rooms", set(part({"room": {"rooms": [room]}})["rooms"]["join"]) == {room})
    h.check("not_rooms", room not in part({"room": {"not_rooms": [room]}})["rooms"]["join"])
    body = part({"room": {"state": {"types": ["m.room.create"]}, "timeline": {"limit": 1}}})
    h.check("state types", {e["type"] for e in joined(body, room)["state"]["events"]} == {"m.room.create"}, joined(body, room).get("state"))
    h.check("account data", part({"account_data": {"not_types": ["*"]}}).get("account_data", {}).get("events", []) == [])
    stored = alice.call("defineFilter", {"userId": alice.id}, body={"room": {"timeline": {"limit": 1}}})["filter_id"]
    h.check("a stored filter by its id", len(timeline(alice.sync(fresh=True, filter=stored).json, room)) == 1)
    h.check("limit 1 is limited", joined(alice.sync(fresh=True, filter=stored).json, room)["timeline"]["limited"] is True)
    for bad in ("no-such-filter", "{", '{"room":[]}', '{"room":{"timeline":{"limit":"x"}}}'):
        alice.call("sync", query={"filter": bad}, expect=(400, 404), note=bad)


@walk("lazy-loaded members")
def lazy(h):
    alice, bob, carol = h.newcomer("lazy"), h.person("bob"), h.person("carol")
    room = bob.create_room(preset="public_chat", name="Lazy")
    alice.join(room), carol.join(room)
    sent = carol.say(room, "only carol speaks")
    wanted = json.dumps({"room": {"state": {"lazy_load_members": True}, "timeline": {"limit": 1}}})
    part = joined(alice.sync(fresh=True, filter=wanted).json, room)
    members = {e["state_key"] for e in by_type(part["state"]["events"], "m.room.member")}
    h.check("the timeline's sender", ids(part["timeline"]["events"]) == [sent] and carol.id in members, members)
    h.check("oneself", alice.id in members, members)
    h.check("other state as ever", by_type(part["state"]["events"], "m.room.name") != [])
    bob.say(room, "now bob")
    part = joined(alice.sync(filter=wanted).json, room)
    members = {e["state_key"] for e in by_type(part.get("state", {}).get("events", []), "m.room.member")}
    h.check("a new sender's membership comes with their message", bob.id in members, part)
    nameless = bob.create_room(preset="public_chat")
    alice.join(nameless)
    part = joined(alice.sync(fresh=True, filter=wanted).json, nameless)
    h.check("heroes where there is no name", part.get("summary", {}).get("m.heroes") == [bob.id], part.get("summary"))
    members = {e["state_key"] for e in by_type(part["state"]["events"] + part["timeline"]["events"], "m.room.member")}
    h.check("and their membership", bob.id in members, members)


@walk("invited, left, banned, forgotten")
def lifecycle(h):
    alice, bob = h.newcomer("moving"), h.person("bob")
    room = bob.create_room(name="Coming and going", preset="private_chat")
    alice.sync()
    bob.invite(room, alice)
    body = alice.sync().json
    h.check("the invite", room in body.get("rooms", {}).get("invite", {}), body.get("rooms"))
    h.check("once", room not in alice.sync().json.get("rooms", {}).get("invite", {}))
    alice.join(room)
    body = alice.sync().json
    h.check("joined, no longer invited", room in body["rooms"]["join"] and room not in body["rooms"].get("invite", {}))
    last = bob.say(room, "the last that alice sees")
    bob.call("kick", {"roomId": room}, body={"user_id": alice.id, "reason": "out"})
    unseen = bob.say(room, "not for alice")
    body = alice.sync().json
    part = body.get("rooms", {}).get("leave", {}).get(room, {})
    got = part.get("timeline", {}).get("events", [])
    h.check("left: up to the kick, nothing after", [last] == ids(got)[:1] and got[-1]["content"].get("membership") == "leave" and unseen not in ids(got), part)
    h.check("not among the joined", joined(body, room) == {})
    h.check("once", room not in alice.sync().json.get("rooms", {}).get("leave", {}))
    short = bob.create_room(preset="public_chat")
    alice.join(short), alice.leave(short)
    fresh = alice.sync(fresh=True).json
    h.check("an initial sync leaves out what one has left", short not in fresh.get("rooms", {}).get("leave", {}))
    fresh = alice.sync(fresh=True, filter='{"room":{"include_leave":true}}').json
    h.check("unless asked for", {room, short} <= set(fresh.get("rooms", {}).get("leave", {})), fresh.get("rooms"))
    h.check("without what came after", unseen not in ids(fresh["rooms"]["leave"][room].get("timeline", {}).get("events", [])))
    alice.call("forgetRoom", {"roomId": room}, body={})
    fresh = alice.sync(fresh=True, filter='{"room":{"include_leave":true}}').json
    h.check("forgotten is gone", room not in fresh.get("rooms", {}).get("leave", {}))
    bob.call("ban", {"roomId": room}, body={"user_id": alice.id})
    bob.call("unban", {"roomId": room}, body={"user_id": alice.id})
    bob.invite(room, alice)
    h.check("invited again", room in alice.sync().json.get("rooms", {}).get("invite", {}))
    bob.call("kick", {"roomId": room}, body={"user_id": alice.id}, note="taking the invite back")
    body = alice.sync().json
    h.check("the invite is gone", room not in body.get("rooms", {}).get("invite", {}), body.get("rooms"))
    h.check("which shows as left", room in body.get("rooms", {}).get("leave", {}), body.get("rooms"))


@walk("long polling")
def long_polling(h):
    alice, bob = h.newcomer("poller"), h.person("bob")
    room = bob.create_room(preset="public_chat")
    alice.join(room)
    alice.sync()
    started = time.monotonic()
    alice.sync(timeout=700)
    took = time.monotonic() - started
    h.check("with nothing new it waits its time", 0.5 < took < 5, f"{took:.2f} s")
    started = time.monotonic()
    alice.sync(timeout=0)
    h.check("timeout=0 answers at once", time.monotonic() - started < 0.5)
    for what, act in {
        "a message": lambda: bob.say(room, "wake up"),
        "account data": lambda: alice.call("setAccountData", {"userId": alice.id, "type": "chat.stoa.wake"}, body={"t": time.time_ns()}),
        "an invite": lambda: bob.create_room(invite=[alice.id]),
        "to-device": lambda: bob.call("sendToDevice", {"eventType": "chat.stoa.wake", "txnId": h.unique("w")}, body={"messages": {alice.id: {"*": {}}}}),
        "typing": lambda: bob.call("setTyping", {"roomId": room, "userId": bob.id}, body={"typing": True, "timeout": 30000}),
        "a receipt": lambda: bob.call("postReceipt", {"roomId": room, "receiptType": "m.read", "eventId": bob.event_for_receipt}, body={}),
    }.items():
        if what == "a receipt":
            bob.event_for_receipt = alice.say(room)
            alice.sync()
            alice.sync()
        timer = threading.Timer(0.4, act)
        started, waiting = time.monotonic(), alice.since
        timer.start()
        answer = alice.sync(timeout=8000)
        took = time.monotonic() - started
        timer.join()
        h.check(f"woken by {what}", took < 5 and answer["next_batch"] != waiting, f"{took:.2f} s")


@walk("tokens")
def tokens(h):
    alice, bob = h.newcomer("token"), h.person("bob")
    room = bob.create_room(preset="public_chat")
    alice.join(room)
    alice.sync()
    since = alice.since
    sent = bob.say(room)
    for _ in range(2):
        h.check("the same token, the same answer", ids(timeline(alice.sync(since=since).json, room)) == [sent])
    other = alice.login()
    h.check("a token serves another device of the same person", ids(timeline(other.sync(since=since).json, room)) == [sent])
    for bad in ("nonsense", "s", "-1", "s99999999999999999999999", "\x00", "é"):
        alice.call("sync", query={"since": bad}, expect=400, errcode=(*WRONG_TYPE, "M_UNKNOWN", "M_UNKNOWN_POS"), note=repr(bad))
    for query in ({"timeout": "long"}, {"timeout": -1}, {"full_state": "perhaps"}):
        alice.call("sync", query=query, expect=(200, 400) if query == {"timeout": -1} else 400, errcode=(*WRONG_TYPE, "M_UNKNOWN", None), note=str(query))
