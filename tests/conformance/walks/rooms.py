"""Rooms: creation, membership, aliases."""

from harness import HIDDEN, MISSING, WRONG_TYPE, ids, walk

NOWHERE = "!no-such-room:localhost"


def state_of(person, room) -> dict:
    """Current state by type and key."""
    return {(e["type"], e["state_key"]): e for e in person.call("getRoomState", {"roomId": room}).json}


@walk("creation: presets")
def presets(h):
    alice, bob = h.person("alice"), h.person("bob")
    wanted = {"private_chat": ("invite", "shared", "can_join"), "trusted_private_chat": ("invite", "shared", "can_join"),
              "public_chat": ("public", "shared", "forbidden")}  # fmt: skip
    for preset, (join, visibility, guests) in wanted.items():
        room = alice.create_room(preset=preset, invite=[bob.id])
        state = state_of(alice, room)
        got = tuple(state.get((t, ""), {}).get("content", {}).get(k) for t, k in
                    (("m.room.join_rules", "join_rule"), ("m.room.history_visibility", "history_visibility"), ("m.room.guest_access", "guest_access")))  # fmt: skip
        h.check(f"{preset}: rules", got == (join, visibility, guests) or (guests == "forbidden" and got == (join, visibility, None)), got)
        h.check("the invited is invited", state[("m.room.member", bob.id)]["content"]["membership"] == "invite")
        if preset == "trusted_private_chat":
            create, levels = state[("m.room.create", "")]["content"], state[("m.room.power_levels", "")]["content"]
            trusted = bob.id in create.get("additional_creators", []) or levels.get("users", {}).get(bob.id) == 100
            h.check("the invited have the creator's power", trusted, (create, levels))
    h.check("public visibility means public_chat", state_of(alice, alice.create_room(visibility="public"))[("m.room.join_rules", "")]["content"]["join_rule"] == "public")


@walk("creation: every option")
def options(h):
    alice, bob = h.person("alice"), h.person("bob")
    alias = h.unique("opt")
    room = alice.create_room(
        name="The ✓ room", topic="What we talk about", room_alias_name=alias, invite=[bob.id], is_direct=True, preset="private_chat",
        creation_content={"m.federate": False, "type": "chat.stoa.kind"},
        initial_state=[{"type": "m.room.history_visibility", "state_key": "", "content": {"history_visibility": "joined"}},
                       {"type": "chat.stoa.initial", "content": {"a": 1}},
                       {"type": "m.room.encryption", "state_key": "", "content": {"algorithm": "m.megolm.v1.aes-sha2"}}],
        power_level_content_override={"events_default": 10, "users_default": 5, "users": {bob.id: 50}},
    )  # fmt: skip
    state = state_of(alice, room)

    def content(type, key=""):
        return state.get((type, key), {}).get("content", {})

    h.check("name", content("m.room.name") == {"name": "The ✓ room"}, content("m.room.name"))
    h.check("topic", content("m.room.topic").get("topic") == "What we talk about", content("m.room.topic"))
    h.check("topic as text block", content("m.room.topic").get("m.topic", {}).get("m.text", [{}])[0].get("body") == "What we talk about", content("m.room.topic"))
    h.check("canonical alias", content("m.room.canonical_alias").get("alias") == f"#{alias}:{alice.server}", content("m.room.canonical_alias"))
    h.check("creation content", content("m.room.create").get("m.federate") is False and content("m.room.create").get("type") == "chat.stoa.kind")
    h.check("initial state overrides the preset", content("m.room.history_visibility") == {"history_visibility": "joined"})
    h.check("initial state with an empty key", content("chat.stoa.initial") == {"a": 1})
    h.check("encryption", content("m.room.encryption").get("algorithm") == "m.megolm.v1.aes-sha2")
    levels = content("m.room.power_levels")
    h.check("power level override", (levels.get("events_default"), levels.get("users_default"), levels.get("users", {}).get(bob.id)) == (10, 5, 50), levels)
    h.check("is_direct on the invite", content("m.room.member", bob.id).get("is_direct") is True, content("m.room.member", bob.id))
    created = h.call("getRoomIdByAlias", {"roomAlias": f"#{alias}:{alice.server}"})
    h.check("the alias leads there", created["room_id"] == room)
    first = [e["type"] for e in reversed(alice.messages(room)["chunk"])][:3]
    h.check("create, join, power levels come first", first == ["m.room.create", "m.room.member", "m.room.power_levels"], first)


@walk("creation: room versions")
def versions(h):
    alice = h.person("alice")
    rooms = alice.call("getCapabilities")["capabilities"]["m.room_versions"]
    default = state_of(alice, alice.create_room())[("m.room.create", "")]["content"]["room_version"]
    h.check("the default version is the one announced", default == rooms["default"], default)
    for version in (v for v in rooms["available"] if v in ("6", "7", "8", "9", "10", "11", "12")):
        room = alice.create_room(room_version=version, preset="public_chat")
        state = state_of(alice, room)
        create = state[("m.room.create", "")]
        h.check(f"version {version}", create["content"].get("room_version") == version, create)
        h.check("creator in content up to version 10 only", ("creator" in create["content"]) == (int(version) <= 10), create)
        levels = state[("m.room.power_levels", "")]["content"]
        if version == "12":
            h.check("version 12: the room id is the create event's", room == "!" + create["event_id"][1:], room)
            h.check("version 12: the creator is not in power levels", alice.id not in levels.get("users", {}), levels)
            h.check("version 12: tombstones need more than state_default", levels["events"].get("m.room.tombstone", 0) > levels.get("state_default", 50), levels)
        else:
            h.check("the creator has 100", levels["users"].get(alice.id) == 100, levels)
        event = alice.say(room)
        redaction = alice.call("redactEvent", {"roomId": room, "eventId": event, "txnId": h.unique("t")}, body={"reason": "test"})["event_id"]
        shown = alice.event(room, redaction)
        h.check("`redacts` at the top for old clients and in content for new ones", shown.get("redacts", event) == event and (int(version) < 11 or shown["content"].get("redacts") == event), shown.excerpt())


@walk("creation refused")
def creation_refused(h):
    alice, bob = h.person("alice"), h.person("bob")
    taken = h.unique("taken")
    alice.create_room(room_alias_name=taken)
    with h.unchanged("rooms that cannot be made", lambda: sorted(alice.call("getJoinedRooms")["joined_rooms"])):
        bad = [
            ({"room_alias_name": taken}, "M_ROOM_IN_USE"),
            ({"room_version": "no-such"}, "M_UNSUPPORTED_ROOM_VERSION"),
            ({"room_version": 12}, (*WRONG_TYPE, "M_UNSUPPORTED_ROOM_VERSION")),
            ({"preset": "no_such"}, (*WRONG_TYPE, "M_UNKNOWN")), ({"visibility": "no_such"}, (*WRONG_TYPE, "M_UNKNOWN")),
            ({"name": 17}, WRONG_TYPE), ({"topic": ["x"]}, WRONG_TYPE), ({"invite": bob.id}, WRONG_TYPE), ({"invite": [17]}, WRONG_TYPE),
            ({"invite": ["no-user-id"]}, WRONG_TYPE), ({"initial_state": {}}, WRONG_TYPE), ({"initial_state": [17]}, WRONG_TYPE),
            ({"initial_state": [{"type": "m.x"}]}, (*WRONG_TYPE, *MISSING)), ({"creation_content": []}, WRONG_TYPE),
            ({"power_level_content_override": []}, WRONG_TYPE), ({"room_alias_name": "with:colon"}, WRONG_TYPE),
            ({"room_alias_name": "nul\x00"}, WRONG_TYPE), ({"room_alias_name": "a" * 260}, WRONG_TYPE), ({"room_alias_name": 17}, WRONG_TYPE),
            ({"power_level_content_override": {"users": {alice.id: "100"}}}, (*WRONG_TYPE, "M_INVALID_ROOM_STATE")),
            ({"power_level_content_override": {"ban": 1.5}}, (*WRONG_TYPE, "M_INVALID_ROOM_STATE")),
            ({"name": "x" * 70_000}, ("M_TOO_LARGE", *WRONG_TYPE, "M_INVALID_ROOM_STATE")),
            ({"room_version": "11", "power_level_content_override": {"users": {}, "users_default": 0}}, "M_INVALID_ROOM_STATE"),
        ]  # fmt: skip
        for body, code in bad:
            alice.call("createRoom", body=body, expect=(400, 413) if "x" * 99 in str(body) else 400, errcode=code, note=str(body)[:80])
        alice.call("createRoom", body=b"{", expect=400, errcode="M_NOT_JSON")
        alice.call("createRoom", body=[], expect=400, errcode=("M_BAD_JSON", "M_NOT_JSON"))
    h.call("getRoomIdByAlias", {"roomAlias": f"#{taken}:{alice.server}"}, note="still there")


@walk("invite, join, leave, forget")
def membership(h):
    alice, bob = h.person("alice"), h.newcomer("guest")
    room = alice.create_room(name="Membership")
    bob.join(room, **HIDDEN, note="not invited")
    alice.invite(room, bob)
    invited = bob.sync(fresh=True)["rooms"]["invite"][room]["invite_state"]["events"]
    shown = {e["type"] for e in invited}
    h.check("the invite shows what the room is", {"m.room.create", "m.room.join_rules", "m.room.name", "m.room.member"} <= shown, shown)
    h.check("and who invites", any(e["type"] == "m.room.member" and e["state_key"] == bob.id and e["sender"] == alice.id for e in invited), invited)
    h.check("nothing else is in the rooms", room not in bob.call("getJoinedRooms")["joined_rooms"])
    bob.call("getRoomEvents", {"roomId": room}, query={"dir": "b"}, expect=403, errcode="M_FORBIDDEN", note="invited is not joined")
    joined = bob.join(room)
    h.check("the room's id", joined["room_id"] == room)
    h.check("joined", room in bob.call("getJoinedRooms")["joined_rooms"])
    bob.join(room, note="again: no error")
    members = alice.call("getJoinedMembersByRoom", {"roomId": room})["joined"]
    h.check("both are members", set(members) == {alice.id, bob.id}, members)
    bob.call("forgetRoom", {"roomId": room}, body={}, expect=400, errcode="M_UNKNOWN", note="still joined")
    bob.call("leaveRoom", {"roomId": room}, body={"reason": "dinner"})
    member = alice.get_state(room, "m.room.member", bob.id)
    h.check("left with a reason", (member.get("membership"), member.get("reason")) == ("leave", "dinner"), member.excerpt())
    h.check("no longer joined", room not in bob.call("getJoinedRooms")["joined_rooms"])
    bob.send(room, expect=403, errcode="M_FORBIDDEN")
    bob.join(room, expect=403, errcode="M_FORBIDDEN", note="an invite holds once")
    bob.messages(room)
    bob.call("forgetRoom", {"roomId": room}, body={})
    bob.call("getRoomEvents", {"roomId": room}, query={"dir": "b"}, **HIDDEN, note="forgotten")
    alice.invite(room, bob)
    bob.call("leaveRoom", {"roomId": room}, body={}, note="an invite refused")
    h.check("refused", alice.get_state(room, "m.room.member", bob.id).get("membership") == "leave")
    h.check("gone from sync", room not in bob.sync(fresh=True).get("rooms", {}).get("invite", {}))
    alice.call("inviteUser", {"roomId": room}, body={"user_id": bob.id, "reason": "come back"})
    bob.call("joinRoom", {"roomIdOrAlias": room}, body={"reason": "here I am"})
    h.check("joined with a reason", alice.get_state(room, "m.room.member", bob.id).get("reason") == "here I am")


@walk("invites that are not wanted")
def invites_blocked(h):
    alice, bob = h.person("alice"), h.newcomer("left-alone")
    room = alice.create_room()
    where = {"userId": bob.id, "type": "m.invite_permission_config"}
    bob.call("setAccountData", where, body={"default_action": "block"})
    alice.invite(room, bob, expect=403, errcode="M_INVITE_BLOCKED")
    alice.set_state(room, "m.room.member", {"membership": "invite"}, bob.id, expect=403, errcode="M_INVITE_BLOCKED")
    alice.call("createRoom", body={"invite": [bob.id]}, expect=(200, 403), errcode=("M_INVITE_BLOCKED", None))
    bob.invite(bob.create_room(), alice, note="who blocks invites may invite")
    bob.call("setAccountData", where, body={})
    alice.invite(room, bob)


@walk("rooms that two are in")
def mutual_rooms(h):
    alice, bob = h.newcomer("mutual"), h.newcomer("mutual")
    rooms = {alice.create_room(invite=[bob.id]) for _ in range(3)}
    for room in list(rooms)[:2]:
        bob.join(room)
    shared = alice.call("getMutualRooms", query={"user_id": bob.id})
    h.check("both are joined", set(shared["joined"]) == set(list(rooms)[:2]) and shared["count"] == 2)
    h.check("nobody is shared with strangers", alice.call("getMutualRooms", query={"user_id": "@nobody:localhost"})["joined"] == [])
    alice.call("getMutualRooms", query={"user_id": alice.id}, expect=400, errcode="M_INVALID_PARAM")
    alice.call("getMutualRooms", query={"user_id": bob.id, "from": "nowhere"}, expect=400, errcode="M_INVALID_PARAM")


@walk("invites and joins refused")
def joins_refused(h):
    alice, bob, carol = h.person("alice"), h.person("bob"), h.person("carol")
    room = alice.create_room(name="Refusals", invite=[bob.id])
    bob.join(room)
    nobody = f"@nobody-{h.run}:{alice.server}"
    with h.unchanged("invites that are refused", alice.sees(room)):
        carol.invite(room, bob, expect=403, errcode="M_FORBIDDEN", note="the inviter is not in the room")
        alice.invite(room, bob, expect=403, errcode="M_FORBIDDEN", note="a member already")
        alice.call("inviteUser", {"roomId": room}, body={}, expect=400, errcode=MISSING)
        alice.call("inviteUser", {"roomId": room}, body={"user_id": 17}, expect=400, errcode=WRONG_TYPE)
        alice.call("inviteUser", {"roomId": room}, body={"user_id": "no-user-id"}, expect=400, errcode=WRONG_TYPE)
        alice.call("inviteUser", {"roomId": room}, body={"user_id": h.person("erin").id, "reason": 17}, expect=400, errcode=WRONG_TYPE)
        alice.call("inviteUser", {"roomId": room}, body=b"nonsense", expect=400, errcode="M_NOT_JSON")
        alice.call("inviteUser", {"roomId": room}, body=[], expect=400, errcode=("M_BAD_JSON", "M_NOT_JSON"))
        alice.call("inviteUser", {"roomId": NOWHERE}, body={"user_id": carol.id}, **HIDDEN)
        carol.join(room, expect=403, errcode="M_FORBIDDEN")
        carol.call("joinRoom", {"roomIdOrAlias": room}, body={}, expect=403, errcode="M_FORBIDDEN")
        carol.call("joinRoom", {"roomIdOrAlias": NOWHERE}, body={}, **HIDDEN)
        carol.join(NOWHERE, **HIDDEN)
        carol.call("joinRoom", {"roomIdOrAlias": f"#nowhere-{h.run}:{alice.server}"}, body={}, expect=404, errcode="M_NOT_FOUND")
        carol.call("joinRoom", {"roomIdOrAlias": "neither"}, body={}, expect=400, errcode="M_INVALID_PARAM")
        carol.call("joinRoomById", {"roomId": room}, body={"reason": 17}, expect=(400, 403))
        carol.leave(room, expect=(200, 403, 404), note="never in it")
        carol.leave(NOWHERE, **HIDDEN)
        carol.call("forgetRoom", {"roomId": NOWHERE}, body={}, expect=(200, 400, 403, 404))


@walk("kick, ban and unban")
def moderation(h):
    alice, bob, carol, dave = (h.person(n) for n in ("alice", "bob", "carol", "dave"))
    room = alice.create_room(preset="public_chat", room_version="11")
    bob.join(room), carol.join(room)
    alice.set_state(room, "m.room.power_levels", {**alice.get_state(room, "m.room.power_levels").json, "users": {alice.id: 100, bob.id: 50}})

    def act(who, what, whom, **kwargs):
        return who.call(what, {"roomId": room}, body={"user_id": whom.id, **kwargs.pop("extra", {})}, **kwargs)

    def is_now(whom):
        return alice.get_state(room, "m.room.member", whom.id).get("membership")

    refused = {"expect": 403, "errcode": "M_FORBIDDEN"}
    with h.unchanged("moderation without the right", alice.sees(room)):
        for what in ("kick", "ban", "unban"):
            codes = ("M_FORBIDDEN", "M_BAD_STATE") if what == "unban" else "M_FORBIDDEN"
            act(carol, what, bob, expect=403, errcode=codes, note="too little power")
            act(dave, what, bob, expect=403, errcode=codes, note="not in the room")
            alice.call(what, {"roomId": NOWHERE}, body={"user_id": bob.id}, **HIDDEN)
            alice.call(what, {"roomId": room}, body={}, expect=400, errcode=MISSING)
            alice.call(what, {"roomId": room}, body={"user_id": 17}, expect=400, errcode=WRONG_TYPE)
            alice.call(what, {"roomId": room}, body={"user_id": "no-user-id"}, expect=(400, 403), errcode=(*WRONG_TYPE, "M_FORBIDDEN"))
            alice.call(what, {"roomId": room}, body={"user_id": carol.id, "reason": {}}, expect=400, errcode=WRONG_TYPE)
        act(bob, "kick", alice, **refused, note="who stands higher")
        act(bob, "ban", alice, **refused, note="who stands higher")
        act(alice, "kick", dave, **refused, note="not in the room")
        act(alice, "unban", carol, expect=(400, 403), errcode=("M_FORBIDDEN", "M_BAD_STATE"), note="not banned")
    act(bob, "kick", carol, extra={"reason": "noise"})
    member = alice.get_state(room, "m.room.member", carol.id)
    h.check("kicked, with a reason", (member.get("membership"), member.get("reason")) == ("leave", "noise"), member.excerpt())
    carol.join(room, note="a kick does not keep anyone out")
    act(bob, "ban", carol, extra={"reason": "more noise"})
    h.check("banned", is_now(carol) == "ban")
    with h.unchanged("attempts of and for a banned user", alice.sees(room)):
        carol.join(room, **refused)
        carol.call("joinRoom", {"roomIdOrAlias": room}, body={}, **refused)
        carol.send(room, **refused)
        alice.invite(room, carol, **refused)
        act(alice, "kick", carol, **refused)
    act(bob, "ban", dave, note="also who was never there")
    with h.unchanged("unban by a stranger", alice.sees(room)):
        act(dave, "unban", carol, **refused)
    act(bob, "unban", carol)
    h.check("unbanned is left", is_now(carol) == "leave")
    carol.join(room)
    h.check("and may come again", is_now(carol) == "join")
    carol.set_state(room, "m.room.member", {"membership": "leave"}, key=carol.id)
    h.check("leaving by a state event", is_now(carol) == "leave")
    with h.unchanged("membership events for others", alice.sees(room)):
        alice.set_state(room, "m.room.member", {"membership": "join"}, key=carol.id, **refused)
        alice.set_state(room, "m.room.member", {"membership": "nonsense"}, key=carol.id, expect=(400, 403), errcode=(*WRONG_TYPE, "M_FORBIDDEN"))
        alice.set_state(room, "m.room.member", {}, key=carol.id, expect=(400, 403), errcode=(*MISSING, "M_FORBIDDEN", "M_UNKNOWN"))
        alice.set_state(room, "m.room.member", {"membership": "invite"}, key="no-user-id", expect=(400, 403), errcode=(*WRONG_TYPE, "M_FORBIDDEN"))


@walk("aliases")
def aliases(h):
    alice, bob, carol = h.person("alice"), h.person("bob"), h.person("carol")
    room = alice.create_room(preset="public_chat")
    bob.join(room)
    alias = f"#{h.unique('alias')}-ünï:{alice.server}"
    alice.call("setRoomAlias", {"roomAlias": alias}, body={"room_id": room})
    found = h.call("getRoomIdByAlias", {"roomAlias": alias}, note="without a token")
    h.check("leads to the room, by this server", found["room_id"] == room and alice.server in found["servers"], found.excerpt())
    h.check("listed", alice.call("getLocalAliases", {"roomId": room})["aliases"] == [alias])
    carol.call("getLocalAliases", {"roomId": room}, expect=403, errcode="M_FORBIDDEN", note="not a member")
    carol.call("joinRoom", {"roomIdOrAlias": alias}, body={}, note="join by alias")
    other = alice.create_room()
    with h.unchanged("aliases that are refused", alice.reads("getRoomIdByAlias", {"roomAlias": alias}), alice.reads("getLocalAliases", {"roomId": room})):
        bob.call("setRoomAlias", {"roomAlias": alias}, body={"room_id": room}, expect=409, errcode="M_UNKNOWN", note="taken")
        alice.call("setRoomAlias", {"roomAlias": alias}, body={"room_id": other}, expect=409, errcode="M_UNKNOWN", note="taken, for another room")
        new = {"roomAlias": f"#{h.unique('new')}:{alice.server}"}
        alice.call("setRoomAlias", new, body={}, expect=400, errcode=MISSING)
        alice.call("setRoomAlias", new, body={"room_id": 17}, expect=400, errcode=WRONG_TYPE)
        alice.call("setRoomAlias", new, body={"room_id": "no-room-id"}, expect=(400, 404))
        alice.call("setRoomAlias", new, body={"room_id": NOWHERE}, expect=(400, 403, 404))
        for bad in ("no-alias", "#no-server", f"#{'a' * 255}:{alice.server}", f"#nul\x00:{alice.server}"):
            alice.call("setRoomAlias", {"roomAlias": bad}, body={"room_id": room}, expect=400, errcode="M_INVALID_PARAM", note=repr(bad[:30]))
        alice.call("setRoomAlias", {"roomAlias": "#a:elsewhere.example"}, body={"room_id": room}, expect=(400, 403), note="of another server")
        h.call("getRoomIdByAlias", {"roomAlias": "no-alias"}, expect=400, errcode="M_INVALID_PARAM")
        h.call("getRoomIdByAlias", new, expect=404, errcode="M_NOT_FOUND")
        alice.call("deleteRoomAlias", new, expect=404, errcode="M_NOT_FOUND")
        bob.call("deleteRoomAlias", {"roomAlias": alias}, expect=403, errcode="M_FORBIDDEN", note="neither its maker nor a moderator")
    alice.call("getLocalAliases", {"roomId": "no-room-id"}, expect=(400, 403), errcode=("M_INVALID_PARAM", "M_FORBIDDEN"))
    canonical_alias(h, alice, room, other, alias)
    alice.call("deleteRoomAlias", {"roomAlias": alias})
    h.call("getRoomIdByAlias", {"roomAlias": alias}, expect=404, errcode="M_NOT_FOUND", note="deleted")
    alice.get_state(room, "m.room.canonical_alias", note="a server may update it, but need not")


def canonical_alias(h, alice, room, other, alias):
    """m.room.canonical_alias may only name aliases of its room."""
    alice.set_state(room, "m.room.canonical_alias", {"alias": alias, "alt_aliases": [alias]})
    with h.unchanged("canonical aliases that are refused", alice.sees(room), alice.sees(other)):
        alice.set_state(other, "m.room.canonical_alias", {"alias": alias}, expect=400, errcode="M_BAD_ALIAS", note="of another room")
        nowhere = f"#nowhere-{h.run}:{alice.server}"
        alice.set_state(other, "m.room.canonical_alias", {"alt_aliases": [nowhere]}, expect=400, errcode="M_BAD_ALIAS", note="that does not exist")
        for bad in ("no-alias", "!room:localhost", "#"):
            alice.set_state(other, "m.room.canonical_alias", {"alias": bad}, expect=400, errcode="M_INVALID_PARAM")
            alice.set_state(other, "m.room.canonical_alias", {"alt_aliases": [bad]}, expect=400, errcode="M_INVALID_PARAM")
        alice.set_state(other, "m.room.canonical_alias", {"alias": 17}, expect=400, errcode=WRONG_TYPE)
    h.check("the joined rooms", {room, other} <= set(alice.call("getJoinedRooms")["joined_rooms"]))
    h.check("one timeline entry", ids(alice.messages(room)["chunk"]).count(None) == 0)
