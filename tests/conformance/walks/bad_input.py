"""Bad input of every kind: the specified error, and nothing changed. Cases named after published advisories say so."""

import http.client
import json
from urllib.parse import quote

from harness import NO_OBJECT, WRONG_TYPE, timeline, walk

TOO_LARGE = {"expect": 413, "errcode": "M_TOO_LARGE"}


def send_raw(h, who, room, raw, expect, errcode=None, type="chat.stoa.bad", note=""):
    path = {"roomId": room, "eventType": type, "txnId": h.unique("bad")}
    return h.call("sendMessage", path, body=raw, token=who.token, expect=expect, errcode=errcode, note=note or repr(raw[:40]))


@walk("numbers that canonical JSON does not have")
def numbers(h):
    alice, bob = h.person("alice"), h.person("bob")
    room = alice.create_room(preset="public_chat")
    bob.join(room)
    with h.unchanged("floats, infinities and integers beyond 2^53-1 (CVE-2020-26890)", alice.sees(room), bob.sees(room)):
        for text in ("1.5", "-0.1", "1e400", "9007199254740992", "-9007199254740992", "18446744073709551616", "1" + "0" * 400):
            for shape in ('{"n":%s}', '{"deep":[{"n":[%s]}]}'):
                send_raw(h, alice, room, (shape % text).encode(), 400, NO_OBJECT)
            path = {"roomId": room, "eventType": "chat.stoa.bad", "stateKey": ""}
            alice.call("setRoomStateWithKey", path, body=f'{{"n":{text}}}'.encode(), expect=400, errcode=NO_OBJECT, note=text[:30])
        for text in ("NaN", "Infinity", "-Infinity", "01", "+1", ".5", "0x10"):
            send_raw(h, alice, room, f'{{"n":{text}}}'.encode(), 400, NO_OBJECT)
    content = {"max": 9007199254740991, "min": -9007199254740991, "zero": 0}
    event = alice.send(room, content, type="chat.stoa.good")["event_id"]
    h.check("the limits themselves are kept", bob.event(room, event)["content"] == content)


@walk("sizes")
def sizes(h):
    alice, bob = h.person("alice"), h.person("bob")
    room = alice.create_room(preset="public_chat")
    bob.join(room)
    with h.unchanged("events beyond 65,536 bytes", alice.sees(room), bob.sees(room)):
        for size in (65_537, 65_536 - 12, 200_000):
            # The event is larger than its content, so content of 65,524 bytes is too much as well.
            alice.send(room, {"body": "x" * size}, type="chat.stoa.big", **TOO_LARGE, note=f"{size} bytes")
            alice.set_state(room, "chat.stoa.big", {"body": "x" * size}, **TOO_LARGE, note=f"{size} bytes")
        alice.send(room, {"body": "ü" * 33_000}, type="chat.stoa.big", **TOO_LARGE, note="bytes are counted, not characters")
        alice.send(room, {str(n): n for n in range(8000)}, type="chat.stoa.big", **TOO_LARGE, note="many small keys")
        codes = ("M_TOO_LARGE", "M_INVALID_PARAM", "M_BAD_JSON")
        for long in ("t" * 256, "ü" * 128):
            alice.send(room, {}, type=long, expect=(400, 413), errcode=codes, note="a type of 256 bytes")
            alice.set_state(room, long, {}, expect=(400, 413), errcode=codes, note="a type of 256 bytes")
            alice.set_state(room, "chat.stoa.big", {}, key=long, expect=(400, 413), errcode=codes, note="a state key of 256 bytes")
    big = {"body": "x" * 63_000}
    event = alice.send(room, big, type="chat.stoa.big")["event_id"]
    h.check("63,000 bytes are no trouble", bob.event(room, event)["content"] == big)
    for long in ("t" * 255, "ü" * 127):
        alice.set_state(room, long, {"a": 1}, key=long)
        h.check("255 bytes of type and of state key neither", alice.get_state(room, long, long).json == {"a": 1})


@walk("bodies beyond reason")
def huge(h):
    alice = h.person("alice")
    room = alice.create_room()
    with h.unchanged("huge bodies", alice.sees(room), alice.reads("getPushRules")):
        huge_body = b'{"body":"' + b"x" * 20_000_000 + b'"}'
        for method, path in (("PUT", f"/_matrix/client/v3/rooms/{quote(room)}/send/m.room.message/huge"), ("POST", "/_matrix/client/v3/login"),
                             ("PUT", f"/_matrix/client/v3/user/{quote(alice.id)}/account_data/chat.stoa.huge")):  # fmt: skip
            try:
                h.raw(method, path, token=alice.token, body=huge_body, **TOO_LARGE, note="20 MB")
            except ConnectionError:
                h.check(f"{method} {path[:60]}: 20 MB are cut off", True)
        status, code = chunked(h, alice, f"/_matrix/client/v3/rooms/{quote(room)}/send/m.room.message/chunked")
        h.check("20 MB without a Content-Length (CVE-2024-52805)", (status, code) in ((413, "M_TOO_LARGE"), (None, None)), (status, code))


def chunked(h, person, path):
    """Sends an endless-looking chunked body; a server may also just close the connection."""
    connection = http.client.HTTPConnection(h.client.host, h.client.port, timeout=30)
    pieces = (b'{"body":"' if n == 0 else b"x" * 100_000 for n in range(200))
    try:
        connection.request("PUT", path, body=pieces, headers={"Authorization": f"Bearer {person.token}"}, encode_chunked=True)
        answer = connection.getresponse()
        return answer.status, json.loads(answer.read()).get("errcode")
    except (ConnectionError, http.client.HTTPException, ValueError):
        return None, None
    finally:
        connection.close()


@walk("deep nesting")
def nesting(h):
    alice, bob = h.person("alice"), h.person("bob")
    room = alice.create_room(preset="public_chat")
    bob.join(room)
    with h.unchanged("nesting without end", alice.sees(room), bob.sees(room)):
        for depth in (5_000, 30_000):
            for raw in (b'{"a":' * depth + b"1" + b"}" * depth, b'{"a":' + b"[" * depth + b"]" * depth + b"}"):
                send_raw(h, alice, room, raw, (400, 413), (*NO_OBJECT, "M_TOO_LARGE", "M_UNKNOWN"), note=f"{depth} levels")
        deep = b'{"a":' + b"[" * 30_000 + b"]" * 30_000 + b"}"
        for operation, path in (("login", None), ("setAccountData", {"userId": alice.id, "type": "chat.stoa.deep"}), ("createRoom", None),
                                ("queryKeys", None), ("defineFilter", {"userId": alice.id})):  # fmt: skip
            alice.call(operation, path, body=deep, expect=(400, 413), errcode=(*NO_OBJECT, "M_TOO_LARGE", "M_UNKNOWN"), note="30,000 levels")
    content = {"a": json.loads("[" * 50 + "]" * 50)}
    event = alice.send(room, content, type="chat.stoa.deep")["event_id"]
    h.check("50 levels are kept", bob.event(room, event)["content"] == content)


ODD = ["\u0001\u001f\u007f", "\u2028\u2029", "\ufeff", "\uffff\ufffe", "\U0010ffff\U0001f600", "e\u0301\u0302\u0303", "\u202eright to left",
       "\\\"/\b\f\n\r\t", "", " ", "\ud7ff\ue000", "İıſ"]  # fmt: skip


@walk("odd Unicode")
def unicode(h):
    alice, bob = h.person("alice"), h.person("bob")
    room = alice.create_room(preset="public_chat")
    bob.join(room)
    bob.sync()
    content = {"values": ODD, **{f"{odd}key": odd for odd in ODD}}
    event = alice.send(room, content, type="chat.stoa.odd")["event_id"]
    h.check("kept as sent, in /event", bob.event(room, event)["content"] == content)
    h.check("and in sync", [e["content"] for e in timeline(bob.sync().json, room)] == [content])
    for odd in ODD:
        if odd:
            alice.set_state(room, "chat.stoa.odd", {"odd": odd}, key=odd)
            h.check(f"as a state key: {odd!r}", alice.get_state(room, "chat.stoa.odd", odd).json == {"odd": odd})
    probes = (alice.sees(room), bob.sees(room))
    with h.unchanged("text that is no Unicode", *probes):
        for raw in (b'{"a":"\\ud800"}', b'{"\\udfff":1}', b'{"a":"\xed\xa0\x80"}', b'{"a":"\xc0\x80"}', b'{"a":"\xff"}', b'{"a":"\n"}', b'{"a":"\\x41"}',
                    b'{"a":1}\x00', '{"a":1}'.encode("utf-16")):  # fmt: skip
            send_raw(h, alice, room, raw, 400, NO_OBJECT)
    for place, body in (("value", {"a": "nul \x00 here"}), ("key", {"nul\x00key": 1})):
        answer = alice.send(room, body, type="chat.stoa.nul", expect=(200, 400), errcode=(None, *WRONG_TYPE), note=f"NUL in a {place}")
        if answer.status == 200:
            h.check(f"NUL in a {place} is kept", bob.event(room, answer["event_id"])["content"] == body)
    answer = alice.set_state(room, "chat.stoa.nul", {"a": 1}, key="nul\x00key", expect=(200, 400), note="NUL in a state key")
    if answer.status == 200:
        h.check("NUL in a state key is kept", alice.get_state(room, "chat.stoa.nul", "nul\x00key").json == {"a": 1})
    for path in ("/_matrix/client/v3/profile/%ff%fe", "/_matrix/client/v3/profile/%zz", f"/_matrix/client/v3/rooms/{quote(room)}/state/%c0%80/", "/_matrix/client/v3/directory/room/%23%ed%a0%80%3Alocalhost"):
        h.raw("GET", path, token=alice.token, expect=(400, 404), note="a path that is no UTF-8")
    bob.sync(fresh=True)


@walk("double keys")
def double_keys(h):
    alice, bob = h.person("alice"), h.person("bob")
    room = alice.create_room(preset="public_chat")
    bob.join(room)
    answer = send_raw(h, alice, room, b'{"a":1,"a":2,"b":{"c":1,"c":1}}', (200, 400), (None, *NO_OBJECT))
    if answer.status == 200:
        h.check("one of them stays", bob.event(room, answer["event_id"])["content"] in ({"a": 2, "b": {"c": 1}}, {"a": 1, "b": {"c": 1}}))
    bob.messages(room)


ROOMS = ["!no-such-room:localhost", "!" + "r" * 43, "!" + "r" * 300, "!", "no-room", "#alias:localhost", "@user:localhost", "%", "!x:localhost:99999999",
         "!nul\x00:localhost", "!ünï:localhost", "..", "!a:" + "b" * 300]  # fmt: skip


@walk("rooms that are not there")
def no_room(h):
    alice = h.person("alice")
    probes = (lambda: sorted(alice.call("getJoinedRooms")["joined_rooms"]),)
    event = "$" + "e" * 43
    with h.unchanged("calls on rooms that are not there", *probes):
        for room in ROOMS:
            where = {"roomId": room}
            calls = [
                ("getRoomState", {}, None), ("getMembersByRoom", {}, None), ("getJoinedMembersByRoom", {}, None),
                ("getRoomStateWithKey", {"eventType": "m.room.name", "stateKey": ""}, None), ("getOneRoomEvent", {"eventId": event}, None),
                ("getEventContext", {"eventId": event}, None), ("getRoomEvents", {}, None), ("getLocalAliases", {}, None),
                ("sendMessage", {"eventType": "m.room.message", "txnId": h.unique("n")}, {"msgtype": "m.text", "body": "x"}),
                ("setRoomStateWithKey", {"eventType": "m.room.name", "stateKey": ""}, {"name": "x"}),
                ("redactEvent", {"eventId": event, "txnId": h.unique("n")}, {}), ("joinRoomById", {}, {}), ("leaveRoom", {}, {}),
                ("inviteUser", {}, {"user_id": "@bob:localhost"}), ("kick", {}, {"user_id": "@bob:localhost"}), ("ban", {}, {"user_id": "@bob:localhost"}),
                ("unban", {}, {"user_id": "@bob:localhost"}), ("setTyping", {"userId": alice.id}, {"typing": True}),
            ]  # fmt: skip
            for operation, more, body in calls:
                query = {"dir": "b"} if operation == "getRoomEvents" else None
                alice.call(operation, {**where, **more}, query=query, body=body, expect=(400, 403, 404),
                           errcode=("M_INVALID_PARAM", "M_FORBIDDEN", "M_NOT_FOUND", "M_UNRECOGNIZED"), note=f"room {room[:30]!r}")  # fmt: skip


PEOPLE = ["@" + "u" * 260 + ":localhost", "@no-server", "no-sigil:localhost", "@", "", "@nul\x00:localhost", "@a:b:c:d", "@a:" + "b" * 300]


@walk("people that cannot be")
def no_person(h):
    alice = h.person("alice")
    room = alice.create_room()
    with h.unchanged("calls about people that cannot be", alice.sees(room)):
        for person in PEOPLE:
            for operation in ("inviteUser", "kick", "ban", "unban"):
                alice.call(operation, {"roomId": room}, body={"user_id": person}, expect=(400, 403, 404, 413),
                           errcode=(*WRONG_TYPE, "M_FORBIDDEN", "M_NOT_FOUND", "M_BAD_STATE", "M_TOO_LARGE"), note=repr(person[:30]))  # fmt: skip
            if person:
                h.call("getUserProfile", {"userId": person}, expect=(400, 404), note=repr(person[:30]))
                alice.call("setAccountData", {"userId": person, "type": "x"}, body={}, expect=(400, 403, 404), note=repr(person[:30]))
                alice.call("setTyping", {"roomId": room, "userId": person}, body={"typing": True}, expect=(400, 403, 404), note=repr(person[:30]))
        alice.call("queryKeys", body={"device_keys": {"no-user-id": []}}, expect=(200, 400), note="a user id that is none")
        alice.call("claimKeys", body={"one_time_keys": {"no-user-id": {"D": "signed_curve25519"}}}, expect=(200, 400))


@walk("somebody else's things")
def not_yours(h):
    alice, mallory = h.newcomer("owner"), h.person("mallory")
    room = alice.create_room(name="private")
    event = alice.say(room, "not for mallory")
    alice.call("setAccountData", {"userId": alice.id, "type": "chat.stoa.private"}, body={"secret": 1})
    filter_id = alice.call("defineFilter", {"userId": alice.id}, body={"room": {"timeline": {"limit": 4}}})["filter_id"]
    second = alice.login("ALICE2")
    probes = (alice.sees(room), alice.reads("getUserProfile", {"userId": alice.id}), alice.reads("getAccountData", {"userId": alice.id, "type": "chat.stoa.private"}),
              lambda: sorted(d["device_id"] for d in alice.call("getDevices")["devices"]))  # fmt: skip
    forbidden = {"expect": 403, "errcode": "M_FORBIDDEN"}
    with h.unchanged("reaching for somebody else's things (CVE-2021-39164)", *probes):
        mallory.call("getAccountData", {"userId": alice.id, "type": "chat.stoa.private"}, **forbidden)
        mallory.call("setAccountData", {"userId": alice.id, "type": "chat.stoa.private"}, body={"secret": 2}, **forbidden)
        mallory.call("setAccountDataPerRoom", {"userId": alice.id, "roomId": room, "type": "chat.stoa.private"}, body={}, **forbidden)
        mallory.call("getFilter", {"userId": alice.id, "filterId": filter_id}, expect=(403, 404))
        mallory.call("getDevice", {"deviceId": "ALICE2"}, expect=404, errcode="M_NOT_FOUND")
        mallory.call("updateDevice", {"deviceId": "ALICE2"}, body={"display_name": "mine"}, expect=404, errcode="M_NOT_FOUND")
        first = mallory.call("deleteDevices", body={"devices": ["ALICE2", alice.device]}, expect=(200, 401))
        if first.status == 401:
            mallory.call("deleteDevices", body={"devices": ["ALICE2", alice.device], "auth": mallory.password_auth(first["session"])})
        mallory.call("setProfileField", {"userId": alice.id, "keyName": "displayname"}, body={"displayname": "m"}, **forbidden)
        for operation, more in (("getRoomState", {}), ("getMembersByRoom", {}), ("getJoinedMembersByRoom", {}), ("getLocalAliases", {}),
                                ("getRoomStateWithKey", {"eventType": "m.room.name", "stateKey": ""})):  # fmt: skip
            mallory.call(operation, {"roomId": room, **more}, **forbidden)
        mallory.event(room, event, expect=(403, 404))
        mallory.call("setRoomStateWithKey", {"roomId": room, "eventType": "m.room.member", "stateKey": mallory.id}, body={"membership": "join"}, **forbidden)
        mallory.call("redactEvent", {"roomId": room, "eventId": event, "txnId": "m"}, body={}, **forbidden)
        mallory.call("setTyping", {"roomId": room, "userId": alice.id}, body={"typing": True}, **forbidden)
    second.call("getTokenOwner", note="still logged in")
    h.check("nothing of it in mallory's sync", b"not for mallory" not in mallory.sync(fresh=True).raw)


@walk("transactions replayed with other bodies")
def replayed(h):
    alice, bob = h.person("alice"), h.person("bob")
    room = alice.create_room(preset="public_chat")
    bob.join(room)
    path = {"roomId": room, "eventType": "m.room.message", "txnId": "replayed ✓"}
    first = alice.call("sendMessage", path, body={"msgtype": "m.text", "body": "first"})["event_id"]
    with h.unchanged("replays", alice.sees(room), bob.sees(room)):
        for body in ({"msgtype": "m.text", "body": "second"}, {}, {"body": "x" * 1000}):
            h.check("the first event id", alice.call("sendMessage", path, body=body)["event_id"] == first)
        alice.call("sendMessage", path, body=b"{", expect=(200, 400), note="a broken replay")
    h.check("the first body", bob.event(room, first)["content"]["body"] == "first")
    bob.sync()
    message = {"eventType": "chat.stoa.replay", "txnId": "replayed"}
    for n in range(3):
        alice.call("sendToDevice", message, body={"messages": {bob.id: {"*": {"n": n}}}})
    got = [e["content"] for e in bob.sync(timeout=500).get("to_device", {}).get("events", []) if e["type"] == "chat.stoa.replay"]
    h.check("to-device once", got == [{"n": 0}], got)
