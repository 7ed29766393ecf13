"""Two people with mautrix-python, the library of most bridges, used as a plain client."""

import asyncio
import os
import struct
import unittest
import uuid
import zlib

from mautrix.client import Client
from mautrix.errors import MatrixRequestError
from mautrix.types import (
    EventType, Filter, LoginType, Membership, MessageType, PaginationDirection, RoomCreatePreset, RoomEventFilter,
    RoomFilter,
)

URL = os.environ["STOA_CLIENTS_URL"]
PATIENCE = float(os.environ.get("STOA_CLIENTS_PATIENCE", "20"))
PASSWORD = "correct horse battery staple"


def png(width: int, height: int) -> bytes:
    def chunk(kind: bytes, data: bytes) -> bytes:
        return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))

    rows = b"".join(b"\0" + bytes((x * 255 // width, y * 255 // height, 99)[c] for x in range(width) for c in range(3))
                    for y in range(height))
    header = struct.pack(">IIBBBBB", width, height, 8, 2, 0, 0, 0)
    return b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", header) + chunk(b"IDAT", zlib.compress(rows)) + chunk(b"IEND", b"")


class MautrixTest(unittest.IsolatedAsyncioTestCase):
    async def asyncSetUp(self):
        asyncio.get_running_loop().set_debug(False)
        self.clients: list[Client] = []
        self.heard: dict[str, list] = {}
        self.alice = await self.person("alice")
        self.bob = await self.person("bob")

    async def asyncTearDown(self):
        for client in self.clients:
            task = client.syncing_task
            client.stop()
            if task:
                await asyncio.gather(task, return_exceptions=True)
            await client.api.session.close()

    async def person(self, name: str) -> Client:
        """mautrix-python cannot sign up by itself: one request does, then it logs in."""
        username = f"{name}-{uuid.uuid4().hex[:8]}"
        client = Client(base_url=URL)
        self.clients.append(client)
        body = {"username": username, "password": PASSWORD, "inhibit_login": True, "auth": {"type": "m.login.dummy"}}
        async with client.api.session.post(f"{URL}/_matrix/client/v3/register", json=body) as answer:
            made = await answer.json()
            self.assertEqual(answer.status, 200, made)
            self.assertNotIn("access_token", made)
        flows = await client.get_login_flows()
        self.assertTrue(flows.supports_type(LoginType.PASSWORD))
        login = await client.login(username, password=PASSWORD, device_name=f"{name} 1")
        self.assertEqual(login.user_id, made["user_id"])

        events = self.heard[client.mxid] = []

        async def keep(event):
            events.append(event)

        client.add_event_handler(EventType.ALL, keep)
        client.start(None)
        return client

    async def until(self, what: str, check):
        end = asyncio.get_running_loop().time() + PATIENCE
        while not (found := check()):
            if asyncio.get_running_loop().time() > end:
                self.fail(f"not within {PATIENCE} s: {what}")
            await asyncio.sleep(0.04)
        return found

    def seen(self, client: Client, event_id: str):
        return next((e for e in self.heard[client.mxid] if getattr(e, "event_id", None) == event_id), None)

    def of_type(self, client: Client, kind: EventType) -> list:
        return [e for e in self.heard[client.mxid] if e.type == kind]

    async def refused(self, call, status: int, errcode: str):
        with self.assertRaises(MatrixRequestError) as caught:
            await call
        self.assertEqual((caught.exception.http_status, caught.exception.errcode), (status, errcode))

    async def room_of_two(self) -> str:
        room_id = await self.alice.create_room(
            preset=RoomCreatePreset.PRIVATE, name="Porch", topic="Painted", invitees=[self.bob.mxid]
        )
        await self.until("the invite", lambda: [
            e for e in self.of_type(self.bob, EventType.ROOM_MEMBER)
            if e.room_id == room_id and e.state_key == self.bob.mxid and e.content.membership == Membership.INVITE
        ])
        await self.bob.join_room_by_id(room_id)
        await self.until("bob joined", lambda: [
            e for e in self.of_type(self.alice, EventType.ROOM_MEMBER)
            if e.state_key == self.bob.mxid and e.content.membership == Membership.JOIN
        ])
        return room_id

    async def test_login_and_logout(self):
        who = await self.alice.whoami()
        self.assertEqual((who.user_id, who.device_id), (self.alice.mxid, self.alice.device_id))
        second = Client(base_url=URL, mxid=self.alice.mxid)
        self.clients.append(second)
        await self.refused(second.login(password="wrong"), 403, "M_FORBIDDEN")
        await second.login(password=PASSWORD)
        await second.logout(clear_access_token=False)
        await self.refused(second.whoami(), 401, "M_UNKNOWN_TOKEN")

    async def test_profile(self):
        room_id = await self.room_of_two()
        await self.alice.set_displayname("Alice of Kition")
        await self.alice.set_avatar_url("mxc://localhost/picture")
        self.assertEqual(await self.bob.get_displayname(self.alice.mxid), "Alice of Kition")
        profile = await self.bob.get_profile(self.alice.mxid)
        self.assertEqual((profile.displayname, profile.avatar_url), ("Alice of Kition", "mxc://localhost/picture"))
        await self.until("it in the room", lambda: [
            e for e in self.of_type(self.bob, EventType.ROOM_MEMBER)
            if e.room_id == room_id and e.content.displayname == "Alice of Kition" and e.content.avatar_url
        ])
        member = await self.bob.get_state_event(room_id, EventType.ROOM_MEMBER, self.alice.mxid)
        self.assertEqual(member.displayname, "Alice of Kition")

    async def test_messages(self):
        room_id = await self.room_of_two()
        sent = await self.alice.send_text(room_id, "a *bold* thing", html="a <em>bold</em> thing")
        event = await self.until("the message", lambda: self.seen(self.bob, sent))
        self.assertEqual((event.sender, event.content.formatted_body), (self.alice.mxid, "a <em>bold</em> thing"))
        reaction = await self.bob.react(room_id, sent, "🏛")
        event = await self.until("the reaction", lambda: self.seen(self.alice, reaction))
        self.assertEqual((event.content.relates_to.event_id, event.content.relates_to.key), (sent, "🏛"))
        notice = await self.bob.send_notice(room_id, "noted")
        event = await self.until("the notice", lambda: self.seen(self.alice, notice))
        self.assertEqual(event.content.msgtype, MessageType.NOTICE)
        redaction = await self.alice.redact(room_id, sent, "a slip")
        event = await self.until("the redaction", lambda: self.seen(self.bob, redaction))
        self.assertEqual((event.redacts, event.content.reason), (sent, "a slip"))
        self.assertEqual((await self.bob.get_event(room_id, sent)).content.serialize(), {})

    async def test_state_and_members(self):
        room_id = await self.room_of_two()
        name = await self.bob.get_state_event(room_id, EventType.ROOM_NAME)
        self.assertEqual(name.name, "Porch")
        await self.alice.send_state_event(room_id, EventType.ROOM_TOPIC, {"topic": "Newly painted"})
        await self.until("the topic", lambda: [
            e for e in self.of_type(self.bob, EventType.ROOM_TOPIC) if e.content.topic == "Newly painted"
        ])
        types = {str(e.type) for e in await self.bob.get_state(room_id)}
        self.assertTrue({"m.room.create", "m.room.power_levels", "m.room.join_rules", "m.room.member"} <= types, types)
        self.assertEqual(set(await self.bob.get_joined_members(room_id)), {self.alice.mxid, self.bob.mxid})
        members = await self.bob.get_members(room_id, membership=Membership.JOIN)
        self.assertEqual({m.state_key for m in members}, {self.alice.mxid, self.bob.mxid})
        await self.refused(self.bob.send_state_event(room_id, EventType.ROOM_TOPIC, {"topic": "x"}), 403, "M_FORBIDDEN")

    async def test_alias_and_leaving(self):
        room_id = await self.room_of_two()
        local = f"porch-{uuid.uuid4().hex[:8]}"
        await self.alice.add_room_alias(room_id, local)
        found = await self.bob.resolve_room_alias(f"#{local}:{self.alice.domain}")
        self.assertEqual(found.room_id, room_id)
        await self.alice.remove_room_alias(local)
        await self.refused(self.bob.resolve_room_alias(f"#{local}:{self.alice.domain}"), 404, "M_NOT_FOUND")
        self.assertEqual(await self.bob.get_joined_rooms(), [room_id])
        await self.bob.leave_room(room_id, reason="enough")
        left = await self.until("the leave", lambda: [
            e for e in self.of_type(self.alice, EventType.ROOM_MEMBER) if e.content.membership == Membership.LEAVE
        ])
        self.assertEqual(left[0].content.reason, "enough")
        await self.bob.forget_room(room_id)
        self.assertEqual(await self.bob.get_joined_rooms(), [])
        await self.refused(self.bob.send_text(room_id, "still?"), 403, "M_FORBIDDEN")

    async def test_paging(self):
        room_id = await self.room_of_two()
        sent = [await self.alice.send_text(room_id, f"page {n}") for n in range(25)]
        only = RoomEventFilter(types=[EventType.ROOM_MESSAGE])
        got, token = [], None
        while True:
            page = await self.bob.get_messages(room_id, PaginationDirection.BACKWARD, token, limit=10, filter_json=only)
            got += [e.event_id for e in page.events]
            if not page.end or page.end == token:
                break
            token = page.end
        self.assertEqual(got, sent[::-1])
        context = await self.bob.get_event_context(room_id, sent[12], limit=4)
        self.assertEqual([e.event_id for e in context.events_before], [sent[11], sent[10]])
        self.assertEqual([e.event_id for e in context.events_after], [sent[13], sent[14]])

    async def test_typing_receipt_and_filter(self):
        room_id = await self.room_of_two()
        sent = await self.alice.send_text(room_id, "read me")
        await self.until("the message", lambda: self.seen(self.bob, sent))
        await self.bob.set_typing(room_id, timeout=5000)
        await self.until("typing", lambda: [
            e for e in self.of_type(self.alice, EventType.TYPING) if self.bob.mxid in e.content.user_ids
        ])
        await self.bob.send_receipt(room_id, sent)
        await self.until("the receipt", lambda: [e for e in self.of_type(self.alice, EventType.RECEIPT) if sent in e.content])
        await self.bob.set_fully_read_marker(room_id, sent, sent)
        marker = await self.bob.get_account_data("m.fully_read", room_id)
        self.assertEqual(marker["event_id"], sent)
        made = await self.bob.create_filter(Filter(room=RoomFilter(timeline=RoomEventFilter(limit=1))))
        self.assertEqual((await self.bob.get_filter(made)).room.timeline.limit, 1)
        answer = await self.bob.sync(filter_id=made, timeout=0)
        self.assertEqual([e["event_id"] for e in answer["rooms"]["join"][room_id]["timeline"]["events"]], [sent])

    async def test_account_data_and_tags(self):
        room_id = await self.room_of_two()
        await self.alice.set_account_data("org.example.colour", {"colour": "red"})
        self.assertEqual(await self.alice.get_account_data("org.example.colour"), {"colour": "red"})
        await self.refused(self.alice.get_account_data("org.example.absent"), 404, "M_NOT_FOUND")
        await self.alice.set_room_tag(room_id, "m.favourite")
        self.assertIn("m.favourite", (await self.alice.get_room_tags(room_id)).tags)
        await self.alice.remove_room_tag(room_id, "m.favourite")
        self.assertEqual((await self.alice.get_room_tags(room_id)).tags, {})

    async def test_media(self):
        data = os.urandom(50_000)
        mxc = await self.alice.upload_media(data, mime_type="application/octet-stream", filename="random.bin")
        self.assertEqual(await self.bob.download_media(mxc), data)
        picture = await self.alice.upload_media(png(200, 100), mime_type="image/png", filename="porch.png")
        small = await self.bob.download_thumbnail(picture, 32, 32, "crop")
        self.assertTrue(small.startswith((b"\x89PNG", b"\xff\xd8")))
        self.assertGreater((await self.bob.get_media_repo_config()).upload_size, 1_000_000)


if __name__ == "__main__":
    unittest.main()
