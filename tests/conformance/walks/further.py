"""Operations that a later milestone requires: examined where a server has them, passed over where it has not."""

import time

from client import fill
from harness import HIDDEN, MISSING, WRONG_TYPE, by_type, ids, joined, walk
from walks.media import place, png


def built(h, person, operation, path=None, **kwargs) -> bool:
    """Whether the server has the operation at all."""
    op = h.spec.operations[operation]
    answer = h.client.send(op.method, fill(op.template, path), token=person.token, **kwargs)
    return not (answer.status in (404, 405) and answer.errcode == "M_UNRECOGNIZED")


@walk("room directory")
def directory(h):
    alice, bob = h.person("alice"), h.person("bob")
    room = alice.create_room(visibility="public", name=h.unique("Public"), topic="for all")
    if not built(h, alice, "getRoomVisibilityOnDirectory", {"roomId": room}):
        return
    where = {"roomId": room}
    h.check("published", h.call("getRoomVisibilityOnDirectory", where)["visibility"] == "public")
    bob.call("setRoomVisibilityOnDirectory", where, body={"visibility": "private"}, expect=403, errcode="M_FORBIDDEN")
    alice.call("setRoomVisibilityOnDirectory", where, body={"visibility": "private"})
    h.check("withdrawn", h.call("getRoomVisibilityOnDirectory", where)["visibility"] == "private")
    h.call("getRoomVisibilityOnDirectory", {"roomId": "!no-such:localhost"}, expect=404, errcode="M_NOT_FOUND")
    alice.call("setRoomVisibilityOnDirectory", {"roomId": "!no-such:localhost"}, body={"visibility": "public"}, expect=404, errcode="M_NOT_FOUND")
    alice.call("setRoomVisibilityOnDirectory", where, body={"visibility": "maybe"}, expect=400, errcode=WRONG_TYPE)
    alice.call("setRoomVisibilityOnDirectory", where, body={"visibility": "public"})
    if built(h, alice, "getPublicRooms"):
        h.call("getPublicRooms", query={"limit": 5}, expect=(200, 401, 403))
        found = bob.call("queryPublicRooms", body={"limit": 50, "filter": {"generic_search_term": "Public"}})["chunk"]
        h.check("found by search", room in [r["room_id"] for r in found], found)


@walk("tags")
def tags(h):
    alice = h.newcomer("tagger")
    room = alice.create_room()
    where = {"userId": alice.id, "roomId": room}
    if not built(h, alice, "getRoomTags", where):
        return
    alice.sync()
    alice.call("setRoomTag", {**where, "tag": "m.favourite"}, body={"order": 0.25})
    alice.call("setRoomTag", {**where, "tag": "u.ünï tag"}, body={})
    h.check("both", set(alice.call("getRoomTags", where)["tags"]) == {"m.favourite", "u.ünï tag"})
    events = by_type(joined(alice.sync().json, room).get("account_data", {}).get("events", []), "m.tag")
    h.check("in sync", events and events[-1]["content"]["tags"]["m.favourite"] == {"order": 0.25}, events)
    alice.call("deleteRoomTag", {**where, "tag": "m.favourite"})
    h.check("one left", set(alice.call("getRoomTags", where)["tags"]) == {"u.ünï tag"})
    h.person("bob").call("getRoomTags", where, expect=403, errcode="M_FORBIDDEN")
    alice.call("setRoomTag", {**where, "tag": "m.favourite"}, body={"order": "first"}, expect=400, errcode=WRONG_TYPE)


@walk("presence")
def presence(h):
    alice, bob = h.newcomer("present"), h.person("bob")
    where = {"userId": alice.id}
    if not built(h, alice, "getPresence", where):
        return
    alice.call("setPresence", where, body={"presence": "online", "status_msg": "here"})
    alice.call("getPresence", where)
    bob.call("getPresence", where, expect=403, errcode="M_FORBIDDEN")
    bob.call("setPresence", where, body={"presence": "offline"}, expect=403, errcode="M_FORBIDDEN")
    alice.call("setPresence", where, body={"presence": "asleep"}, expect=400)


@walk("relations and threads")
def relations(h):
    alice = h.person("alice")
    room = alice.create_room()
    root = alice.say(room, "root")
    where = {"roomId": room, "eventId": root}
    if not built(h, alice, "getRelatingEvents", where):
        return
    inside = [alice.say(room, f"t{n}", **{"m.relates_to": {"rel_type": "m.thread", "event_id": root}}) for n in range(3)]
    reaction = alice.send(room, {"m.relates_to": {"rel_type": "m.annotation", "event_id": root, "key": "x"}}, type="m.reaction")["event_id"]
    h.check("all", set(ids(alice.call("getRelatingEvents", where)["chunk"])) == {*inside, reaction})
    page = alice.call("getRelatingEventsWithRelType", {**where, "relType": "m.thread"}, query={"limit": 2})
    h.check("of a type, newest first", ids(page["chunk"]) == inside[:0:-1], ids(page["chunk"]))
    more = alice.call("getRelatingEventsWithRelType", {**where, "relType": "m.thread"}, query={"from": page["next_batch"]})
    h.check("the rest", ids(more["chunk"]) == inside[:1], ids(more["chunk"]))
    alice.call("getRelatingEventsWithRelTypeAndEventType", {**where, "relType": "m.annotation", "eventType": "m.reaction"})
    h.person("carol").call("getRelatingEvents", where, expect=404, errcode="M_NOT_FOUND")
    h.person("carol").call("getRelatingEventsWithRelType", {**where, "relType": "m.thread"}, expect=404, errcode="M_NOT_FOUND")
    where_all = {**where, "relType": "m.annotation", "eventType": "m.reaction"}
    h.person("carol").call("getRelatingEventsWithRelTypeAndEventType", where_all, expect=404, errcode="M_NOT_FOUND")
    if built(h, alice, "getThreadRoots", {"roomId": room}):
        h.check("the thread", ids(alice.call("getThreadRoots", {"roomId": room})["chunk"]) == [root])
        alice.call("getThreadRoots", {"roomId": room}, query={"from": "nowhere"}, expect=400, errcode="M_INVALID_PARAM")
        h.person("carol").call("getThreadRoots", {"roomId": room}, expect=403, errcode="M_FORBIDDEN")


def soon(found, patience=15.0):
    """What `found` gives when it gives something: an index may be a moment behind."""
    until = time.monotonic() + patience
    while not (what := found()) and time.monotonic() < until:
        time.sleep(0.1)
    return what


@walk("search")
def search(h):
    alice, bob = h.newcomer("searcher"), h.newcomer("searched")
    room = alice.create_room(preset="private_chat", name="Quinces")
    alice.invite(room, bob)
    bob.join(room)
    word = h.unique("quince").replace("-", "")
    said = [alice.say(room, f"{word} {n}") for n in range(4)]
    criteria = {
        "search_term": word, "order_by": "recent", "include_state": True, "filter": {"limit": 2},
        "event_context": {"before_limit": 1, "after_limit": 1, "include_profile": True},
        "groupings": {"group_by": [{"key": "room_id"}, {"key": "sender"}]},
    }
    body = {"search_categories": {"room_events": criteria}}

    def all_of_it():
        found = bob.call("search", body=body)["search_categories"]["room_events"]
        return found if found.get("count") == len(said) else None

    found = soon(all_of_it) or {}
    h.check("the latest first", [r["result"]["event_id"] for r in found.get("results", [])] == said[:1:-1], found)
    h.check("in their groups", set(found.get("groups", {})) == {"room_id", "sender"} and room in found["groups"]["room_id"], found.get("groups"))
    rest = bob.call("search", query={"next_batch": found.get("next_batch", "")}, body=body)["search_categories"]["room_events"]
    h.check("the next page", [r["result"]["event_id"] for r in rest["results"]] == said[1::-1], rest)
    for wrong in ({}, {"search_categories": {"room_events": {}}}):
        alice.call("search", body=wrong, expect=400, errcode=MISSING)
    alice.call("search", body={"search_categories": {"room_events": {**criteria, "order_by": "size"}}}, expect=400, errcode=WRONG_TYPE)


@walk("user directory")
def people(h):
    alice, bob = h.newcomer("seeker"), h.newcomer("sought")
    name = h.unique("Sought").replace("-", "")
    bob.call("setProfileField", {"userId": bob.id, "keyName": "displayname"}, body={"displayname": f"{name} of the hills"})
    bob.call("setProfileField", {"userId": bob.id, "keyName": "avatar_url"}, body={"avatar_url": "mxc://localhost/hills"})
    bob.create_room(visibility="public", preset="public_chat")
    body = {"search_term": name, "limit": 5}
    found = soon(lambda: alice.call("searchUserDirectory", body=body)["results"])
    h.check("found by name", [person["user_id"] for person in found] == [bob.id], found)
    alice.call("searchUserDirectory", body={}, expect=400, errcode=MISSING)


@walk("knocking and upgrades")
def knock(h):
    alice, bob = h.person("alice"), h.newcomer("knocker")
    room = alice.create_room(preset="private_chat", name="Knock", initial_state=[{"type": "m.room.join_rules", "state_key": "", "content": {"join_rule": "knock"}}])
    if built(h, bob, "knockRoom", {"roomIdOrAlias": room}, body={}):
        bob.call("knockRoom", {"roomIdOrAlias": room}, body={"reason": "let me in"})
        h.check("seen in sync", room in bob.sync(fresh=True).get("rooms", {}).get("knock", {}))
        alice.invite(room, bob)
        bob.join(room)
        closed = alice.create_room()
        bob.call("knockRoom", {"roomIdOrAlias": closed}, body={}, expect=403, errcode="M_FORBIDDEN")
    if built(h, alice, "upgradeRoom", {"roomId": room}, body={"new_version": "no-such"}):
        alice.call("upgradeRoom", {"roomId": room}, body={"new_version": "no-such"}, expect=400, errcode="M_UNSUPPORTED_ROOM_VERSION")
        bob.call("upgradeRoom", {"roomId": room}, body={"new_version": "11"}, expect=403, errcode="M_FORBIDDEN")
        alice.call("upgradeRoom", {"roomId": room}, body={}, expect=400, errcode=MISSING)
        new = alice.call("upgradeRoom", {"roomId": room}, body={"new_version": "11"})["replacement_room"]
        h.check("a tombstone", alice.get_state(room, "m.room.tombstone").get("replacement_room") == new)


@walk("spaces, summaries and times")
def spaces(h):
    alice, bob = h.person("alice"), h.person("bob")
    space = alice.create_room(name="Space", preset="public_chat", creation_content={"type": "m.space"})
    child = alice.create_room(name="Child", preset="public_chat", room_alias_name=h.unique("child"))
    closed = alice.create_room(name="Closed", preset="private_chat")
    for room in (child, closed):
        alice.set_state(space, "m.space.child", {"via": [alice.server], "suggested": True}, room)
    where = {"roomId": space}
    if built(h, alice, "getSpaceHierarchy", where):
        h.check("what bob may enter", [r["room_id"] for r in bob.call("getSpaceHierarchy", where)["rooms"]] == [space, child])
        page = alice.call("getSpaceHierarchy", where, query={"limit": 1})
        alice.call("getSpaceHierarchy", where, query={"limit": 2, "from": page["next_batch"]})
        alice.call("getSpaceHierarchy", where, query={"max_depth": 1, "from": page["next_batch"]}, expect=400, errcode="M_INVALID_PARAM")
        bob.call("getSpaceHierarchy", {"roomId": closed}, expect=403, errcode="M_FORBIDDEN")
    if built(h, alice, "getRoomSummary", {"roomIdOrAlias": child}):
        alice.call("getRoomSummary", {"roomIdOrAlias": child})
        bob.call("getRoomSummary", {"roomIdOrAlias": closed}, expect=404, errcode="M_NOT_FOUND")
    if built(h, alice, "getEventByTimestamp", where, query={"ts": 1, "dir": "f"}):
        alice.call("getEventByTimestamp", where, query={"ts": 1, "dir": "f"})
        alice.call("getEventByTimestamp", where, query={"ts": 1, "dir": "b"}, expect=404, errcode="M_NOT_FOUND")


@walk("media that come later, and the old media endpoints")
def more_media(h):
    alice, bob = h.person("alice"), h.person("bob")
    picture = png(20, 20)
    if built(h, alice, "createContent"):
        made = alice.call("createContent")
        where = place(made["content_uri"])
        bob.call("uploadContentToMXC", where, body=picture, content_type="image/png", expect=403, errcode="M_FORBIDDEN")
        alice.call("getContentAuthed", where, query={"timeout_ms": 0}, expect=504, errcode="M_NOT_YET_UPLOADED")
        alice.call("uploadContentToMXC", where, body=picture, content_type="image/png")
        alice.call("uploadContentToMXC", where, body=picture, content_type="image/png", expect=409, errcode="M_CANNOT_OVERWRITE_MEDIA")
        alice.call("uploadContentToMXC", {**where, "mediaId": "NeverCreated"}, body=picture, content_type="image/png", expect=404, errcode="M_NOT_FOUND")
        h.check("the bytes", bob.call("getContentAuthed", where).raw == picture)
    if built(h, alice, "getConfig"):
        alice.call("getConfig")


@walk("what clients ask for at start")
def at_start(h):
    alice = h.person("alice")
    for operation in ("getTurnServer", "getAccount3PIDs", "getPushers", "getProtocols", "getNotifications"):
        if built(h, alice, operation):
            alice.call(operation)
    if built(h, alice, "getAuthMetadata"):
        h.call("getAuthMetadata", expect=(200, 404))
    if built(h, alice, "searchUserDirectory", body={"search_term": "x"}):
        alice.call("searchUserDirectory", body={"search_term": "alice", "limit": 3})
        alice.call("searchUserDirectory", body={}, expect=400, errcode=MISSING)
    if built(h, alice, "requestOpenIdToken", {"userId": alice.id}, body={}):
        alice.call("requestOpenIdToken", {"userId": alice.id}, body={})
        h.person("bob").call("requestOpenIdToken", {"userId": alice.id}, body={}, expect=403, errcode="M_FORBIDDEN")
    room = alice.create_room()
    event = alice.say(room)
    if built(h, alice, "reportEvent", {"roomId": room, "eventId": event}, body={}):
        alice.call("reportEvent", {"roomId": room, "eventId": event}, body={"reason": "spam"})
        h.person("bob").call("reportEvent", {"roomId": room, "eventId": event}, body={}, **HIDDEN)
    for operation, where in (("reportRoom", {"roomId": room}), ("reportUser", {"userId": alice.id})):
        if built(h, alice, operation, where, body={"reason": ""}):
            alice.call(operation, where, body={"reason": "spam"})
            alice.call(operation, where, body={}, expect=400, errcode=MISSING)
