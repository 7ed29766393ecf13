"""mautrix-python as a bridge: an application service with its bot and ghosts, both directions, encryption, an outage with
`kill -9` of the homeserver in the middle. It starts a homeserver of its own, because that must know the registration."""

import asyncio
import os
import signal
import socket
import subprocess
import tempfile
import unittest
import uuid
from pathlib import Path

import aiohttp
from mautrix.appservice import AppService, ASStateStore
from mautrix.client import Client
from mautrix.client.state_store import MemoryStateStore
from mautrix.crypto import MemoryCryptoStore, OlmMachine
from mautrix.errors import MatrixRequestError
from mautrix.types import (
    EncryptionAlgorithm, EventType, Membership, MessageType, PaginationDirection,
    RoomCreatePreset, RoomEncryptionStateEventContent, TextMessageEventContent, TrustState,
)

BINARY = os.environ.get("STOA_CLIENTS_BINARY")
PATIENCE = float(os.environ.get("STOA_CLIENTS_PATIENCE", "20"))
PASSWORD = "correct horse battery staple"
AS_TOKEN, HS_TOKEN = uuid.uuid4().hex, uuid.uuid4().hex

# As mautrix writes it.
REGISTRATION = """id: bridge
as_token: {as_token}
hs_token: {hs_token}
namespaces:
    users:
    -   exclusive: true
        regex: '@bridge_.*:localhost'
    -   exclusive: true
        regex: '@bridgebot:localhost'
    aliases:
    -   exclusive: true
        regex: \\#bridge_.*:localhost
url: http://127.0.0.1:{port}
sender_localpart: {sender}
rate_limited: false
de.sorunome.msc2409.push_ephemeral: true
push_ephemeral: true
org.matrix.msc3202: true
io.element.msc4190: true
"""


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return probe.getsockname()[1]


class Store(MemoryStateStore, ASStateStore):
    """What the bridge knows of rooms, in memory."""

    def __init__(self) -> None:
        MemoryStateStore.__init__(self)
        ASStateStore.__init__(self)


class CryptoRooms:
    """What the encryption asks about rooms: all are encrypted, and everybody is in all of them."""

    def __init__(self, rooms: list) -> None:
        self.rooms = rooms

    async def is_encrypted(self, room_id) -> bool:
        return True

    async def get_encryption_info(self, room_id):
        return RoomEncryptionStateEventContent(algorithm=EncryptionAlgorithm.MEGOLM_V1)

    async def find_shared_rooms(self, user_id):
        return self.rooms


class Home:
    """A homeserver that knows the bridge."""

    def __init__(self, bridge_port: int) -> None:
        self.folder = tempfile.TemporaryDirectory(prefix="stoa-bridge-")
        self.port = free_port()
        self.url = f"http://127.0.0.1:{self.port}"
        registration = Path(self.folder.name) / "bridge.yaml"
        registration.write_text(REGISTRATION.format(
            as_token=AS_TOKEN, hs_token=HS_TOKEN, port=bridge_port, sender=uuid.uuid4().hex))
        # Nothing of who started the tests.
        self.env = {name: value for name, value in os.environ.items() if not name.startswith("STOA_")} | {
            "STOA_SERVER_NAME": "localhost", "STOA_DATA": f"{self.folder.name}/data",
            "STOA_LISTEN": f"127.0.0.1:{self.port}", "STOA_REGISTRATION": "open",
            "STOA_APPSERVICE": str(registration), "STOA_FEDERATION": "off", "STOA_RATE_LIMITS": "off",
        }
        self.process = None

    async def start(self) -> None:
        log = open(f"{self.folder.name}/log", "a", encoding="utf-8")
        self.process = subprocess.Popen([BINARY, "serve"], env=self.env, stdout=log, stderr=log)
        async with aiohttp.ClientSession() as session:
            for _ in range(300):
                try:
                    async with session.get(f"{self.url}/_matrix/client/versions") as answer:
                        if answer.status == 200:
                            return
                except aiohttp.ClientError:
                    pass
                if self.process.poll() is not None:
                    break
                await asyncio.sleep(0.1)
        raise AssertionError("stoa did not start:\n" + Path(f"{self.folder.name}/log").read_text())

    def end(self, how=signal.SIGTERM) -> None:
        if self.process and self.process.poll() is None:
            self.process.send_signal(how)
            self.process.wait(30)


@unittest.skipUnless(BINARY, "needs a homeserver that can be configured")
class BridgeTest(unittest.IsolatedAsyncioTestCase):
    async def asyncSetUp(self):
        asyncio.get_running_loop().set_debug(False)
        self.port = free_port()
        self.home = Home(self.port)
        self.clients, self.bridge = [], None
        # All that the bridge heard in all its lives: it remembers transactions for one life only.
        self.heard, self.transactions = [], set()
        await self.home.start()
        await self.live()

    async def asyncTearDown(self):
        for client in self.clients:
            task = client.syncing_task
            client.stop()
            if task:
                await asyncio.gather(task, return_exceptions=True)
            await client.api.session.close()
        if self.bridge:
            await self.bridge.stop()
        self.home.end()
        self.home.folder.cleanup()

    async def live(self) -> None:
        """The bridge begins a life."""
        self.bridge = AppService(
            server=self.home.url, domain="localhost", as_token=AS_TOKEN, hs_token=HS_TOKEN,
            bot_localpart="bridgebot", id="bridge", state_store=Store(), ephemeral_events=True,
            encryption_events=True, query_alias=self.make_room)
        self.bridge.synchronous_handlers = True
        self.bridge.transactions = self.transactions

        async def keep(event):
            self.heard.append(event)

        self.bridge.matrix_event_handler(keep)
        for handler in ("otk_handler", "device_list_handler", "to_device_handler"):
            setattr(self.bridge, handler, self.ignore)
        await self.bridge.start("127.0.0.1", self.port)
        self.assertTrue(await self.bridge.ping_self("meow"))
        await self.bridge.intent.ensure_registered()

    async def ignore(self, _) -> None:
        pass

    async def make_room(self, alias: str):
        self.made = await self.bridge.intent.create_room(alias_localpart=alias[1:].split(":")[0],
                                                         preset=RoomCreatePreset.PUBLIC)
        return {}

    async def person(self, name: str, **options) -> Client:
        username = f"{name}-{uuid.uuid4().hex[:8]}"
        client = Client(base_url=self.home.url, **options)
        self.clients.append(client)
        body = {"username": username, "password": PASSWORD, "inhibit_login": True, "auth": {"type": "m.login.dummy"}}
        async with client.api.session.post(f"{self.home.url}/_matrix/client/v3/register", json=body) as answer:
            self.assertEqual(answer.status, 200, await answer.text())
        await client.login(username, password=PASSWORD, device_name=name)
        return client

    async def until(self, what: str, check):
        end = asyncio.get_running_loop().time() + PATIENCE
        while not (found := check()):
            if asyncio.get_running_loop().time() > end:
                self.fail(f"not within {PATIENCE} s: {what}\n" + Path(f"{self.home.folder.name}/log").read_text()[-2000:])
            await asyncio.sleep(0.02)
        return found

    def texts(self) -> list[str]:
        return [event.content.body for event in self.heard if event.type == EventType.ROOM_MESSAGE]

    async def portal(self, alice: Client):
        """A room of Alice's, into which she invites the bot, which brings a ghost."""
        room = await alice.create_room(preset=RoomCreatePreset.PRIVATE, invitees=[self.bridge.bot_mxid])
        await self.until("the invite of the bot", lambda: [
            event for event in self.heard if event.type == EventType.ROOM_MEMBER and event.room_id == room
            and event.state_key == self.bridge.bot_mxid and event.content.membership == Membership.INVITE])
        await self.bridge.intent.ensure_joined(room)
        levels = await alice.get_state_event(room, EventType.ROOM_POWER_LEVELS)
        levels.users[self.bridge.bot_mxid] = 100
        await alice.send_state_event(room, EventType.ROOM_POWER_LEVELS, levels)
        ghost = self.bridge.intent.user("@bridge_carol:localhost")
        # It is not in, and may not: the bot invites it.
        await ghost.ensure_joined(room)
        return room, ghost

    async def test_a_life(self):
        alice = await self.person("alice")
        room, ghost = await self.portal(alice)
        # From the other network to Matrix.
        await ghost.set_displayname("Carol (IRC)")
        event = await ghost.send_text(room, "hello from far away", timestamp=1_500_000_000_000)
        await ghost.set_typing(room, timeout=5000)
        await ghost.mark_read(room, event)
        page = await alice.get_messages(room, direction=PaginationDirection.BACKWARD, limit=20)
        message = next(it for it in page.events if it.event_id == event)
        self.assertEqual((message.sender, message.content.body, message.timestamp),
                         ("@bridge_carol:localhost", "hello from far away", 1_500_000_000_000))
        member = await alice.get_state_event(room, EventType.ROOM_MEMBER, "@bridge_carol:localhost")
        self.assertEqual(member.displayname, "Carol (IRC)")
        await ghost.redact(room, event, reason="gone there too")
        # And back.
        await alice.set_typing(room, timeout=5000)
        answer = await alice.send_text(room, "hello to you")
        await self.until("Alice's message", lambda: "hello to you" in self.texts())
        await self.until("her typing", lambda: [
            it for it in self.heard if it.type == EventType.TYPING and alice.mxid in it.content.user_ids])
        await alice.send_receipt(room, answer)
        await self.until("her receipt", lambda: [
            it for it in self.heard if it.type == EventType.RECEIPT and alice.mxid in str(it.content)])
        # Nobody else is a ghost.
        with self.assertRaises(MatrixRequestError):
            await Client(mxid=alice.mxid, api=alice.api).api.request(
                "POST", "/_matrix/client/v3/register",
                {"username": "bridge_eve", "password": PASSWORD, "auth": {"type": "m.login.dummy"}})
        # A room that is made because somebody wants it.
        joined = await alice.join_room("#bridge_chat:localhost")
        self.assertEqual(joined, self.made)

    async def test_an_outage(self):
        alice = await self.person("alice")
        room, _ = await self.portal(alice)
        await alice.send_text(room, "0")
        await self.until("the first", lambda: self.texts() == ["0"])
        await self.bridge.stop()
        self.bridge = None
        for n in range(1, 60):
            await alice.send_text(room, str(n))
        self.home.end(signal.SIGKILL)
        await self.home.start()
        for n in range(60, 130):
            await alice.send_text(room, str(n))
        # It is back for a moment, in which we are gone; then both are there.
        await self.live()
        self.home.end(signal.SIGKILL)
        await self.bridge.stop()
        await self.home.start()
        await alice.send_text(room, "130")
        await self.live()
        await self.until("the last", lambda: "130" in self.texts())
        self.assertEqual(self.texts(), [str(n) for n in range(131)], "each once, in order")

    async def test_encryption(self):
        rooms = []
        bot = Client(mxid=self.bridge.bot_mxid, base_url=self.home.url, token=AS_TOKEN)
        self.clients.append(bot)
        machine = OlmMachine(bot, MemoryCryptoStore("bot", "key"), CryptoRooms(rooms))
        self.bridge.otk_handler = machine.handle_as_otk_counts
        self.bridge.device_list_handler = machine.handle_as_device_lists
        self.bridge.to_device_handler = machine.handle_as_to_device_event
        # Without a login, MSC4190.
        await bot.create_device_msc4190(device_id="BRIDGE", initial_display_name="the bridge")
        self.assertEqual((await bot.whoami()).device_id, "BRIDGE")
        await machine.load()
        await machine.share_keys()

        store = MemoryCryptoStore("alice", "key")
        alice = await self.person("alice", sync_store=store, state_store=MemoryStateStore())
        hers = OlmMachine(alice, store, CryptoRooms(rooms))
        alice.crypto = hers
        await hers.load()
        await hers.share_keys()
        alice.start(None)
        room, ghost = await self.portal(alice)
        rooms.append(room)
        info = RoomEncryptionStateEventContent(algorithm=EncryptionAlgorithm.MEGOLM_V1)
        await alice.send_state_event(room, EventType.ROOM_ENCRYPTION, info)
        people = [alice.mxid, self.bridge.bot_mxid]

        async def encrypted(sender: OlmMachine, text: str):
            sender.send_keys_min_trust = sender.share_keys_min_trust = TrustState.UNVERIFIED
            await sender.share_group_session(room, people)
            content = TextMessageEventContent(msgtype=MessageType.TEXT, body=text)
            return await sender.encrypt_megolm_event(room, EventType.ROOM_MESSAGE, content)

        # Alice to the bridge: the key comes as a message to the device, in a transaction.
        sent = await alice.send_message_event(
            room, EventType.ROOM_ENCRYPTED, await encrypted(hers, "a secret"), disable_encryption=True)
        secret = await self.until("the encrypted message", lambda: next(
            (it for it in self.heard if getattr(it, "event_id", None) == sent), None))
        plain = await machine.decrypt_megolm_event(secret)
        self.assertEqual(plain.content.body, "a secret")
        # And back, by the ghost of the other network.
        answer = await encrypted(machine, "another one")
        sent = await ghost.send_message_event(room, EventType.ROOM_ENCRYPTED, answer)
        event = await alice.get_event(room, sent)
        end = asyncio.get_running_loop().time() + PATIENCE
        while True:
            try:
                plain = await hers.decrypt_megolm_event(event)
                break
            except Exception:
                if asyncio.get_running_loop().time() > end:
                    raise
                await asyncio.sleep(0.1)
        self.assertEqual(plain.content.body, "another one")
        # Keys are uploaded again as the counts say so.
        counts = []

        async def count(told):
            counts.append(told)
            await machine.handle_as_otk_counts(told)

        self.bridge.otk_handler = count
        for _ in range(30):
            await alice.api.request("POST", "/_matrix/client/v3/keys/claim", {
                "one_time_keys": {self.bridge.bot_mxid: {"BRIDGE": "signed_curve25519"}}})
        # It holds back for a minute after it uploaded some, unless hardly any is left.
        await self.until("news of keys", lambda: counts)
        told = counts[-1][self.bridge.bot_mxid]["BRIDGE"]
        self.assertGreater(told.signed_curve25519, 0)


if __name__ == "__main__":
    unittest.main()
