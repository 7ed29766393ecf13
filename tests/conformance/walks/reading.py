"""Reading rooms: messages, context, events, members, state; who may see what."""

import json

from harness import HIDDEN, ids, walk

NOWHERE = "!no-such-room:localhost"


@walk("paging through /messages")
def paging(h):
    alice, bob = h.person("alice"), h.person("bob")
    room = alice.create_room(preset="public_chat")
    sent = [alice.say(room, f"message {n}") for n in range(25)]
    for direction, order in (("b", sent[::-1]), ("f", sent)):
        got, token, pages = [], None, 0
        while pages < 20:
            page = alice.call("getRoomEvents", {"roomId": room}, query={"dir": direction, "limit": 7, **({"from": token} if token else {})})
            h.check("no more than asked for", len(page["chunk"]) <= 7)
            got += [e["event_id"] for e in page["chunk"] if e["type"] == "m.room.message"]
            pages, token = pages + 1, page.get("end")
            if token is None:
                break
        h.check(f"dir={direction}: every message once, in order, and an end", got == order and token is None, (len(got), token))
    newest = alice.call("getRoomEvents", {"roomId": room}, query={"dir": "b"})
    h.check("ten without a limit", len(newest["chunk"]) == 10, len(newest["chunk"]))
    synced = alice.sync(fresh=True, filter='{"room":{"timeline":{"limit":3}}}')["rooms"]["join"][room]["timeline"]
    h.check("sync is limited", synced["limited"] is True and len(synced["events"]) == 3, synced)
    page = alice.messages(room, **{"from": synced["prev_batch"], "limit": 3})
    h.check("prev_batch goes on without a gap", ids(page["chunk"]) == sent[19:22][::-1], ids(page["chunk"]))
    back = alice.messages(room, **{"from": page["end"], "limit": 5, "dir": "f"})
    h.check("and back", ids(back["chunk"])[:3] == sent[19:22], ids(back["chunk"]))
    bounded = alice.messages(room, **{"to": page["end"], "limit": 100})
    h.check("not beyond `to`", ids(bounded["chunk"]) == sent[19:][::-1], len(bounded["chunk"]))
    wanted = json.dumps({"types": ["m.room.member"], "not_senders": [bob.id]})
    h.check("a filter", {e["type"] for e in alice.messages(room, filter=wanted)["chunk"]} == {"m.room.member"})
    lazy = alice.messages(room, limit=5, filter='{"lazy_load_members":true}')
    h.check("lazy members: the senders' membership in `state`", [e["state_key"] for e in lazy.get("state", [])] == [alice.id], lazy.get("state"))
    bob.call("getRoomEvents", {"roomId": room}, query={"dir": "b"}, expect=403, errcode="M_FORBIDDEN", note="not a member")
    alice.call("getRoomEvents", {"roomId": NOWHERE}, query={"dir": "b"}, **HIDDEN)
    for query in ({"dir": "x"}, {"dir": "b", "limit": "many"}, {"dir": "b", "limit": -1}, {"dir": "b", "from": "no token"},
                  {"dir": "b", "filter": "{"}, {"dir": "b", "filter": "[]"}):  # fmt: skip
        alice.call("getRoomEvents", {"roomId": room}, query=query, expect=400, note=str(query))
    alice.call("getRoomEvents", {"roomId": room}, query={"dir": "b", "limit": 10**12}, note="a limit beyond reason is cut")


@walk("context and single events")
def context(h):
    alice, bob = h.person("alice"), h.person("bob")
    room = alice.create_room(preset="public_chat", name="Context")
    sent = [alice.say(room, f"c{n}") for n in range(9)]
    answer = alice.call("getEventContext", {"roomId": room, "eventId": sent[4]}, query={"limit": 4})
    h.check("the event", answer["event"]["event_id"] == sent[4])
    h.check("those before, newest first", ids(answer["events_before"]) == sent[2:4][::-1], ids(answer["events_before"]))
    h.check("those after", ids(answer["events_after"]) == sent[5:7], ids(answer["events_after"]))
    h.check("state", any(e["type"] == "m.room.name" for e in answer["state"]))
    before = alice.messages(room, **{"from": answer["start"], "limit": 2})
    h.check("`start` goes on backwards", ids(before["chunk"]) == sent[0:2][::-1], ids(before["chunk"]))
    after = alice.messages(room, **{"from": answer["end"], "limit": 2, "dir": "f"})
    h.check("`end` goes on forwards", ids(after["chunk"]) == sent[7:9], ids(after["chunk"]))
    alone = alice.call("getEventContext", {"roomId": room, "eventId": sent[4]}, query={"limit": 0})
    h.check("limit 0", alone.get("events_before", []) == [] and alone.get("events_after", []) == [], alone.excerpt())
    lazy = alice.call("getEventContext", {"roomId": room, "eventId": sent[4]}, query={"filter": '{"lazy_load_members":true}'})
    members = [e["state_key"] for e in lazy["state"] if e["type"] == "m.room.member"]
    h.check("lazy members", members == [alice.id], members)
    h.check("an event", alice.event(room, sent[0])["content"]["body"] == "c0")
    elsewhere = alice.create_room()
    for event, place in (("$no-such-event", room), (sent[0], elsewhere), (sent[0], NOWHERE), ("no-event-id", room)):
        alice.event(place, event, expect=(400, 403, 404) if event[0] != "$" else (403, 404), errcode=("M_NOT_FOUND", "M_FORBIDDEN", "M_INVALID_PARAM"))
        alice.call("getEventContext", {"roomId": place, "eventId": event}, expect=(400, 403, 404), errcode=("M_NOT_FOUND", "M_FORBIDDEN", "M_INVALID_PARAM"))
    alice.event(room, "$no-such-event", expect=404, errcode="M_NOT_FOUND")
    bob.event(room, sent[0], expect=(403, 404), errcode=("M_NOT_FOUND", "M_FORBIDDEN"), note="not a member")
    bob.call("getEventContext", {"roomId": room, "eventId": sent[0]}, expect=(403, 404), errcode=("M_NOT_FOUND", "M_FORBIDDEN"))


@walk("members")
def members(h):
    alice, bob, carol, dave = (h.person(n) for n in ("alice", "bob", "carol", "dave"))
    room = alice.create_room(preset="public_chat", invite=[carol.id])
    early = alice.sync(fresh=True)["next_batch"]
    bob.join(room), dave.join(room), dave.leave(room)

    def listed(**query):
        answer = alice.call("getMembersByRoom", {"roomId": room}, query=query)
        return {e["state_key"]: e["content"]["membership"] for e in answer["chunk"]}

    whole = {alice.id: "join", bob.id: "join", carol.id: "invite", dave.id: "leave"}
    h.check("all", listed() == whole, listed())
    h.check("membership=join", listed(membership="join") == {alice.id: "join", bob.id: "join"}, listed(membership="join"))
    h.check("not_membership=leave", listed(not_membership="leave") == {k: v for k, v in whole.items() if v != "leave"})
    h.check("at an earlier token", listed(at=early) == {alice.id: "join", carol.id: "invite"}, listed(at=early))
    joined = alice.call("getJoinedMembersByRoom", {"roomId": room})["joined"]
    h.check("joined members", set(joined) == {alice.id, bob.id}, joined)
    h.check("as a member who left sees it", set(e["state_key"] for e in dave.call("getMembersByRoom", {"roomId": room})["chunk"]) >= {alice.id, dave.id})
    for who in (carol, h.person("erin")):
        who.call("getJoinedMembersByRoom", {"roomId": room}, expect=403, errcode="M_FORBIDDEN")
        who.call("getMembersByRoom", {"roomId": room}, expect=403, errcode="M_FORBIDDEN")
    dave.call("getJoinedMembersByRoom", {"roomId": room}, expect=403, errcode="M_FORBIDDEN", note="no longer in the room")
    alice.call("getMembersByRoom", {"roomId": NOWHERE}, **HIDDEN)
    alice.call("getJoinedMembersByRoom", {"roomId": NOWHERE}, **HIDDEN)
    alice.call("getMembersByRoom", {"roomId": room}, query={"membership": "nonsense"}, expect=(200, 400))
    alice.call("getMembersByRoom", {"roomId": room}, query={"at": "no token"}, expect=400)


@walk("history visibility")
def history(h):
    alice, bob, carol = h.person("alice"), h.person("bob"), h.person("carol")
    for rule in ("joined", "invited", "shared", "world_readable"):
        room = alice.create_room(preset="private_chat", initial_state=[
            {"type": "m.room.history_visibility", "state_key": "", "content": {"history_visibility": rule}}])  # fmt: skip
        early = alice.say(room, "before the invite")
        alice.invite(room, bob)
        between = alice.say(room, "between")
        bob.join(room)
        late = alice.say(room, "after the join")
        seen = {"joined": [late], "invited": [between, late]}.get(rule, [early, between, late])
        got = [e for e in reversed(ids(bob.messages(room)["chunk"])) if e in (early, between, late)]
        h.check(f"{rule}: messages", got == seen, got)
        for event in (early, between, late):
            visible = event in seen
            bob.event(room, event, **({} if visible else {"expect": (403, 404), "errcode": ("M_NOT_FOUND", "M_FORBIDDEN")}), note=f"{rule}")
            bob.call("getEventContext", {"roomId": room, "eventId": event}, expect=200 if visible else (403, 404), note=f"{rule}")
        around = bob.call("getEventContext", {"roomId": room, "eventId": late}, query={"limit": 50})
        h.check(f"{rule}: context", (early in ids(around["events_before"])) == (early in seen), ids(around["events_before"]))
        synced = [e for e in ids(bob.sync(fresh=True)["rooms"]["join"][room]["timeline"]["events"]) if e in (early, between, late)]
        h.check(f"{rule}: sync", synced == seen, synced)
        bob.leave(room)
        hidden = alice.say(room, "after bob left")
        got = ids(bob.messages(room)["chunk"])
        if rule != "world_readable":
            h.check(f"{rule}: nothing after leaving", hidden not in got and late in got, got)
            bob.event(room, hidden, expect=(403, 404), errcode=("M_NOT_FOUND", "M_FORBIDDEN"))
            carol.event(room, early, expect=(403, 404), errcode=("M_NOT_FOUND", "M_FORBIDDEN"), note=f"{rule}: a stranger")
        alice.set_state(room, "m.room.topic", {"topic": "after bob left"})
        state = bob.call("getRoomState", {"roomId": room}, note="as it was when he left")
        if rule != "world_readable":
            h.check(f"{rule}: the state of his leaving", not any(e["type"] == "m.room.topic" for e in state.json), rule)
            bob.get_state(room, "m.room.topic", expect=404, errcode="M_NOT_FOUND")


@walk("what the server adds to events")
def additions(h):
    alice, bob = h.person("alice"), h.newcomer("addee")
    versions = h.call("getVersions")["versions"]
    room = alice.create_room()
    first = alice.set_state(room, "m.room.topic", {"topic": "one"})["event_id"]
    alice.invite(room, bob)
    second = alice.set_state(room, "m.room.topic", {"topic": "two"})["event_id"]
    bob.join(room)
    late = alice.say(room)
    places = {
        "/event": {e: bob.event(room, e)["unsigned"] for e in (first, second, late)},
        "/messages": {e["event_id"]: e.get("unsigned", {}) for e in bob.messages(room)["chunk"]},
        "/sync": {e["event_id"]: e.get("unsigned", {}) for e in bob.sync(fresh=True)["rooms"]["join"][room]["timeline"]["events"]},
    }
    for place, unsigned in places.items():
        h.check(f"{place}: age", all(isinstance(u.get("age"), int) for u in unsigned.values()), unsigned)
        got = [unsigned.get(e, {}).get("membership") for e in (first, second, late)]
        h.check(f"{place}: the reader's membership at the time", got == ["leave", "invite", "join"], got)
        topic = unsigned.get(second, {})
        h.check(f"{place}: prev_content", topic.get("prev_content") == {"topic": "one"}, topic)
        if "v1.19" in versions:
            h.check(f"{place}: replaces_state", topic.get("replaces_state") == first, topic)
