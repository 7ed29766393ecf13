"""Two people with matrix-nio, each in a sync_forever loop with callbacks, as a bot runs."""

import asyncio
import io
import os
import tempfile
import unittest
import uuid

import nio
from nio.crypto import decrypt_attachment

URL = os.environ["STOA_CLIENTS_URL"]
PATIENCE = float(os.environ.get("STOA_CLIENTS_PATIENCE", "20"))
PASSWORD = "correct horse battery staple"


class Person:
    """One matrix-nio client and everything that its callbacks were given."""

    def __init__(self, user_id: str, store: str | None = None):
        config = nio.AsyncClientConfig(encryption_enabled=store is not None, max_timeouts=1, request_timeout=30)
        self.client = nio.AsyncClient(URL, user_id, store_path=store or "", config=config)
        self.events: list[nio.Event] = []
        self.invites: list[nio.InviteEvent] = []
        self.typing: dict[str, list[str]] = {}
        self.receipts: list[nio.Receipt] = []
        self.responses: list[nio.Response] = []
        self.loop: asyncio.Task | None = None
        self.heard: list[tuple[str, str]] = []
        self.client.add_event_callback(self._event, nio.Event)
        self.client.add_event_callback(self._invite, nio.InviteEvent)
        self.client.add_ephemeral_callback(self._typing, nio.TypingNoticeEvent)
        self.client.add_ephemeral_callback(self._receipts, nio.ReceiptEvent)
        self.client.add_response_callback(self._response, nio.SyncResponse)

    async def _event(self, room, event):
        self.events.append(event)
        if isinstance(event, nio.RoomMessageText):
            self.heard.append((room.room_id, event.body))

    async def _invite(self, room, event):
        self.invites.append(event)

    async def _typing(self, room, event):
        self.typing[room.room_id] = event.users

    async def _receipts(self, room, event):
        self.receipts.extend(event.receipts)

    async def _response(self, response):
        self.responses.append(response)

    def start(self, sync_filter=None):
        self.loop = asyncio.create_task(self.client.sync_forever(timeout=5000, sync_filter=sync_filter))

    async def stop(self):
        if self.loop:
            self.loop.cancel()
            await asyncio.gather(self.loop, return_exceptions=True)
        await self.client.close()

    def bodies(self, room_id: str) -> list[str]:
        return [body for where, body in self.heard if where == room_id]


class NioTest(unittest.IsolatedAsyncioTestCase):
    """Each test has two accounts of its own."""

    encrypted = False

    async def asyncSetUp(self):
        asyncio.get_running_loop().set_debug(False)
        self.people: list[Person] = []
        self.alice = await self.register("alice")
        self.bob = await self.register("bob")

    async def asyncTearDown(self):
        for person in self.people:
            await person.stop()

    def store(self) -> str | None:
        if not self.encrypted:
            return None
        folder = tempfile.TemporaryDirectory(prefix="stoa-clients-")
        self.addCleanup(folder.cleanup)
        return folder.name

    async def register(self, name: str) -> Person:
        """Signs up with one client, and logs in with another, as nio's examples do."""
        username = f"{name}-{uuid.uuid4().hex[:8]}"
        first = nio.AsyncClient(URL, username)
        answer = self.ok(await first.register(username, PASSWORD, f"{name} 1"), nio.RegisterResponse)
        self.assertTrue(answer.user_id.startswith(f"@{username}:"))
        self.ok(await first.logout(), nio.LogoutResponse)
        await first.close()
        return await self.login(answer.user_id, f"{name} 2")

    async def login(self, user_id: str, device_name: str) -> Person:
        person = Person(user_id, self.store())
        self.people.append(person)
        answer = self.ok(await person.client.login(PASSWORD, device_name=device_name), nio.LoginResponse)
        self.assertEqual(answer.user_id, user_id)
        return person

    def ok(self, answer, kind):
        self.assertIsInstance(answer, kind, f"{answer}")
        return answer

    def fails(self, answer, kind, *errcodes):
        self.assertIsInstance(answer, kind, f"{answer}")
        self.assertIn(answer.status_code, errcodes, f"{answer}")

    async def until(self, what, check):
        """Waits until the check holds, and gives up loudly, with the loop's own error when it has ended."""
        end = asyncio.get_running_loop().time() + PATIENCE
        while not (found := check()):
            for person in self.people:
                if person.loop and person.loop.done() and not person.loop.cancelled() and person.loop.exception():
                    raise person.loop.exception()
            if asyncio.get_running_loop().time() > end:
                self.fail(f"not within {PATIENCE} s: {what}")
            await asyncio.sleep(0.04)
        return found

    async def room_of_two(self, **more) -> str:
        """A room where both are joined, both loops running."""
        for person in (self.alice, self.bob):
            if not person.loop:
                person.start()
        made = self.ok(
            await self.alice.client.room_create(name="Porch", topic="Painted", invite=[self.bob.client.user_id], **more),
            nio.RoomCreateResponse,
        )
        invite = await self.until("the invite", lambda: [
            e for e in self.bob.invites
            if isinstance(e, nio.InviteMemberEvent) and e.membership == "invite" and e.state_key == self.bob.client.user_id
        ])
        self.assertEqual(invite[0].sender, self.alice.client.user_id)
        self.ok(await self.bob.client.join(made.room_id), nio.JoinResponse)
        await self.until("the room at bob", lambda: made.room_id in self.bob.client.rooms)
        room = self.alice.client.rooms
        await self.until("bob joined at alice", lambda: (
            made.room_id in room and self.bob.client.user_id in room[made.room_id].users
            and self.bob.client.user_id not in room[made.room_id].invited_users
        ))
        return made.room_id

    async def say(self, person: Person, room_id: str, body: str, **more) -> str:
        sent = await person.client.room_send(
            room_id, "m.room.message", {"msgtype": "m.text", "body": body}, ignore_unverified_devices=True, **more
        )
        return self.ok(sent, nio.RoomSendResponse).event_id


class Accounts(NioTest):
    async def test_login_whoami_devices_logout(self):
        who = self.ok(await self.alice.client.whoami(), nio.WhoamiResponse)
        self.assertEqual(who.user_id, self.alice.client.user_id)
        self.assertEqual(who.device_id, self.alice.client.device_id)
        info = self.ok(await self.alice.client.login_info(), nio.LoginInfoResponse)
        self.assertIn("m.login.password", info.flows)

        second = await self.login(self.alice.client.user_id, "alice 3")
        devices = self.ok(await self.alice.client.devices(), nio.DevicesResponse).devices
        self.assertEqual({d.id for d in devices}, {self.alice.client.device_id, second.client.device_id})
        renamed = await self.alice.client.update_device(second.client.device_id, {"display_name": "spare"})
        self.ok(renamed, nio.UpdateDeviceResponse)
        devices = self.ok(await self.alice.client.devices(), nio.DevicesResponse).devices
        self.assertIn("spare", [d.display_name for d in devices])

        asked = self.ok(await self.alice.client.delete_devices([second.client.device_id]), nio.DeleteDevicesAuthResponse)
        auth = {
            "type": "m.login.password", "session": asked.session, "password": PASSWORD,
            "identifier": {"type": "m.id.user", "user": self.alice.client.user_id},
        }
        self.ok(await self.alice.client.delete_devices([second.client.device_id], auth), nio.DeleteDevicesResponse)
        self.fails(await second.client.whoami(), nio.WhoamiError, "M_UNKNOWN_TOKEN")

        token = self.alice.client.access_token
        self.ok(await self.alice.client.logout(), nio.LogoutResponse)
        self.alice.client.access_token = token
        self.fails(await self.alice.client.whoami(), nio.WhoamiError, "M_UNKNOWN_TOKEN")

    async def test_wrong_password(self):
        stranger = nio.AsyncClient(URL, self.alice.client.user_id)
        self.fails(await stranger.login("wrong"), nio.LoginError, "M_FORBIDDEN")
        await stranger.close()

    async def test_profile(self):
        client = self.alice.client
        self.ok(await client.set_displayname("Alice of Kition"), nio.ProfileSetDisplayNameResponse)
        name = self.ok(await self.bob.client.get_displayname(client.user_id), nio.ProfileGetDisplayNameResponse)
        self.assertEqual(name.displayname, "Alice of Kition")
        self.ok(await client.set_avatar("mxc://localhost/picture"), nio.ProfileSetAvatarResponse)
        profile = self.ok(await self.bob.client.get_profile(client.user_id), nio.ProfileGetResponse)
        self.assertEqual((profile.displayname, profile.avatar_url), ("Alice of Kition", "mxc://localhost/picture"))
        unknown = client.user_id.replace("alice", "nobody")
        self.fails(await client.get_displayname(unknown), nio.ProfileGetDisplayNameError, "M_NOT_FOUND")

    async def test_push_rules_and_filter(self):
        client = self.alice.client
        rule = await client.set_pushrule("global", nio.PushRuleKind.content, "porch", pattern="porch", actions=[nio.PushNotify()])
        self.ok(rule, nio.SetPushRuleResponse)
        self.ok(await client.enable_pushrule("global", nio.PushRuleKind.content, "porch", False), nio.EnablePushRuleResponse)
        self.ok(await client.delete_pushrule("global", nio.PushRuleKind.content, "porch"), nio.DeletePushRuleResponse)
        made = self.ok(await client.upload_filter(room={"timeline": {"limit": 2}}), nio.UploadFilterResponse)
        room_id = await self.room_of_two()
        for n in range(4):
            await self.say(self.alice, room_id, f"{n}")
        late = await self.login(client.user_id, "alice filtered")
        answer = self.ok(await late.client.sync(sync_filter=made.filter_id), nio.SyncResponse)
        timeline = answer.rooms.join[room_id].timeline
        self.assertEqual([e.body for e in timeline.events], ["2", "3"])
        self.assertTrue(timeline.limited)


class Rooms(NioTest):
    async def test_messages_both_ways_by_callback(self):
        room_id = await self.room_of_two()
        room = self.bob.client.rooms[room_id]
        self.assertEqual((room.name, room.topic), ("Porch", "Painted"))
        for n in range(6):
            speaker, listener = (self.alice, self.bob) if n % 2 == 0 else (self.bob, self.alice)
            await self.say(speaker, room_id, f"line {n}")
            await self.until(f"line {n}", lambda: f"line {n}" in listener.bodies(room_id))
        for person in (self.alice, self.bob):
            await self.until("the last line", lambda: "line 5" in person.bodies(room_id))
            self.assertEqual(person.bodies(room_id), [f"line {n}" for n in range(6)])

    async def test_a_transaction_is_sent_once(self):
        room_id = await self.room_of_two()
        first = await self.say(self.alice, room_id, "once", tx_id="the-same")
        self.assertEqual(await self.say(self.alice, room_id, "once", tx_id="the-same"), first)
        await self.say(self.alice, room_id, "twice")
        await self.until("the last", lambda: "twice" in self.bob.bodies(room_id))
        self.assertEqual(self.bob.bodies(room_id), ["once", "twice"])

    async def test_members_state_and_joined_rooms(self):
        room_id = await self.room_of_two()
        members = self.ok(await self.bob.client.joined_members(room_id), nio.JoinedMembersResponse).members
        self.assertEqual({m.user_id for m in members}, {self.alice.client.user_id, self.bob.client.user_id})
        rooms = self.ok(await self.bob.client.joined_rooms(), nio.JoinedRoomsResponse).rooms
        self.assertEqual(rooms, [room_id])
        state = self.ok(await self.bob.client.room_get_state(room_id), nio.RoomGetStateResponse).events
        self.assertIn("m.room.create", [e["type"] for e in state])
        put = await self.alice.client.room_put_state(room_id, "org.example.colour", {"colour": "red"}, "wall")
        self.ok(put, nio.RoomPutStateResponse)
        got = await self.bob.client.room_get_state_event(room_id, "org.example.colour", "wall")
        self.assertEqual(self.ok(got, nio.RoomGetStateEventResponse).content, {"colour": "red"})
        absent = await self.bob.client.room_get_state_event(room_id, "org.example.colour", "door")
        self.fails(absent, nio.RoomGetStateEventError, "M_NOT_FOUND")
        refused = await self.bob.client.room_put_state(room_id, "m.room.name", {"name": "Bob's"})
        self.fails(refused, nio.RoomPutStateError, "M_FORBIDDEN")

    async def test_aliases(self):
        room_id = await self.room_of_two()
        alias = f"#porch-{uuid.uuid4().hex[:8]}:{self.alice.client.user_id.split(':', 1)[1]}"
        self.ok(await self.alice.client.room_put_alias(alias, room_id), nio.RoomPutAliasResponse)
        found = self.ok(await self.bob.client.room_resolve_alias(alias), nio.RoomResolveAliasResponse)
        self.assertEqual(found.room_id, room_id)
        self.ok(await self.alice.client.room_delete_alias(alias), nio.RoomDeleteAliasResponse)
        self.fails(await self.bob.client.room_resolve_alias(alias), nio.RoomResolveAliasError, "M_NOT_FOUND")

    async def test_typing_and_receipts(self):
        room_id = await self.room_of_two()
        self.ok(await self.alice.client.room_typing(room_id, True, 10_000), nio.RoomTypingResponse)
        await self.until("alice typing", lambda: self.bob.typing.get(room_id) == [self.alice.client.user_id])
        self.ok(await self.alice.client.room_typing(room_id, False), nio.RoomTypingResponse)
        await self.until("nobody typing", lambda: self.bob.typing.get(room_id) == [])

        event_id = await self.say(self.alice, room_id, "read me")
        await self.until("the message", lambda: "read me" in self.bob.bodies(room_id))
        await self.until("one unread", lambda: self.bob.client.rooms[room_id].unread_notifications == 1)
        self.ok(await self.bob.client.update_receipt_marker(room_id, event_id), nio.UpdateReceiptMarkerResponse)
        receipt = await self.until("the receipt", lambda: [r for r in self.alice.receipts if r.event_id == event_id])
        self.assertEqual((receipt[0].user_id, receipt[0].receipt_type), (self.bob.client.user_id, "m.read"))
        await self.until("nothing unread", lambda: self.bob.client.rooms[room_id].unread_notifications == 0)
        self.ok(await self.bob.client.room_read_markers(room_id, event_id, event_id), nio.RoomReadMarkersResponse)
        await self.until("the read marker", lambda: self.bob.client.rooms[room_id].fully_read_marker == event_id)

    async def test_redaction(self):
        room_id = await self.room_of_two()
        event_id = await self.say(self.alice, room_id, "a slip")
        await self.until("the message", lambda: "a slip" in self.bob.bodies(room_id))
        self.fails(await self.bob.client.room_redact(room_id, event_id), nio.RoomRedactError, "M_FORBIDDEN")
        self.ok(await self.alice.client.room_redact(room_id, event_id, "wrong room"), nio.RoomRedactResponse)
        event = await self.until("the redaction", lambda: [e for e in self.bob.events if isinstance(e, nio.RedactionEvent)])
        self.assertEqual((event[0].redacts, event[0].reason), (event_id, "wrong room"))
        stored = self.ok(await self.bob.client.room_get_event(room_id, event_id), nio.RoomGetEventResponse)
        self.assertIsInstance(stored.event, nio.RedactedEvent)

    async def test_context(self):
        room_id = await self.room_of_two()
        ids = [await self.say(self.alice, room_id, f"{n}") for n in range(5)]
        answer = self.ok(await self.bob.client.room_context(room_id, ids[2], 4), nio.RoomContextResponse)
        self.assertEqual(answer.event.event_id, ids[2])
        self.assertEqual([e.event_id for e in answer.events_before], [ids[1], ids[0]])
        self.assertEqual([e.event_id for e in answer.events_after], [ids[3], ids[4]])
        unknown = await self.bob.client.room_context(room_id, "$unknown", 4)
        self.fails(unknown, nio.RoomContextError, "M_NOT_FOUND")

    async def test_paging_back_and_forth(self):
        room_id = await self.room_of_two()
        ids = [await self.say(self.alice, room_id, f"page {n}") for n in range(35)]
        late = await self.login(self.bob.client.user_id, "bob late")
        answer = self.ok(await late.client.sync(sync_filter={"room": {"timeline": {"limit": 5}}}), nio.SyncResponse)
        timeline = answer.rooms.join[room_id].timeline
        self.assertEqual([e.event_id for e in timeline.events], ids[-5:])

        back, token, first_page = [], timeline.prev_batch, None
        while token:
            page = self.ok(await late.client.room_messages(room_id, token, limit=7), nio.RoomMessagesResponse)
            first_page = first_page or page
            self.assertLessEqual(len(page.chunk), 7)
            back += [e.event_id for e in page.chunk]
            token = page.end if page.chunk else None
        self.assertEqual(len(back), len(set(back)), "an event came twice")
        self.assertEqual([i for i in back if i in ids], ids[:-5][::-1])
        forth = await late.client.room_messages(
            room_id, first_page.end, direction=nio.MessageDirection.front, limit=7, message_filter={"types": ["m.room.message"]}
        )
        forth = self.ok(forth, nio.RoomMessagesResponse)
        self.assertEqual([e.event_id for e in forth.chunk], back[:7][::-1])

    async def test_leave_forget_kick_ban(self):
        room_id = await self.room_of_two()
        bob = self.bob.client
        self.ok(await bob.room_leave(room_id), nio.RoomLeaveResponse)
        await self.until("bob gone at alice", lambda: bob.user_id not in self.alice.client.rooms[room_id].users)
        self.ok(await bob.room_forget(room_id), nio.RoomForgetResponse)
        self.fails(await bob.room_messages(room_id, limit=5), nio.RoomMessagesError, "M_FORBIDDEN")
        self.fails(await bob.join(room_id), nio.JoinError, "M_FORBIDDEN")
        self.ok(await self.alice.client.room_invite(room_id, bob.user_id), nio.RoomInviteResponse)
        self.ok(await bob.join(room_id), nio.JoinResponse)
        self.ok(await self.alice.client.room_kick(room_id, bob.user_id, "noise"), nio.RoomKickResponse)
        rooms = self.ok(await bob.joined_rooms(), nio.JoinedRoomsResponse).rooms
        self.assertEqual(rooms, [])
        self.ok(await self.alice.client.room_ban(room_id, bob.user_id, "more noise"), nio.RoomBanResponse)
        self.fails(await self.alice.client.room_invite(room_id, bob.user_id), nio.RoomInviteError, "M_FORBIDDEN", "M_BAD_STATE")
        self.ok(await self.alice.client.room_unban(room_id, bob.user_id), nio.RoomUnbanResponse)
        self.ok(await self.alice.client.room_invite(room_id, bob.user_id), nio.RoomInviteResponse)
        self.ok(await bob.join(room_id), nio.JoinResponse)


class Media(NioTest):
    async def test_upload_and_download(self):
        data = os.urandom(300_000)
        answer, keys = await self.alice.client.upload(
            io.BytesIO(data), content_type="application/pdf", filename="On Nature.pdf", filesize=len(data)
        )
        self.assertIsNone(keys)
        mxc = self.ok(answer, nio.UploadResponse).content_uri
        got = self.ok(await self.bob.client.download(mxc), nio.MemoryDownloadResponse)
        self.assertEqual(got.body, data)
        self.assertEqual((got.content_type, got.filename), ("application/pdf", "On Nature.pdf"))
        limit = self.ok(await self.alice.client.content_repository_config(), nio.ContentRepositoryConfigResponse)
        self.assertGreater(limit.upload_size, len(data))
        self.fails(await self.bob.client.download(mxc + "x"), nio.DownloadError, "M_NOT_FOUND")

    async def test_encrypted_upload(self):
        data = os.urandom(70_000)
        answer, keys = await self.alice.client.upload(io.BytesIO(data), filesize=len(data), encrypt=True)
        mxc = self.ok(answer, nio.UploadResponse).content_uri
        got = self.ok(await self.bob.client.download(mxc), nio.MemoryDownloadResponse)
        self.assertEqual(decrypt_attachment(got.body, keys["key"]["k"], keys["hashes"]["sha256"], keys["iv"]), data)


class Encrypted(NioTest):
    """matrix-nio's own end-to-end encryption (vodozemac)."""

    encrypted = True

    async def test_messages_both_ways(self):
        content = {"algorithm": "m.megolm.v1.aes-sha2"}
        room_id = await self.room_of_two(initial_state=[{"type": "m.room.encryption", "content": content}])
        for person in (self.alice, self.bob):
            await self.until("the room encrypted", lambda: person.client.rooms[room_id].encrypted)
        first = await self.say(self.alice, room_id, "the walls have ears")
        await self.until("it at bob", lambda: "the walls have ears" in self.bob.bodies(room_id))
        stored = self.ok(await self.bob.client.room_get_event(room_id, first), nio.RoomGetEventResponse)
        self.assertTrue(stored.event.decrypted and stored.event.sender == self.alice.client.user_id)
        await self.say(self.bob, room_id, "let them listen")
        await self.until("it at alice", lambda: "let them listen" in self.alice.bodies(room_id))


if __name__ == "__main__":
    unittest.main()
