"""What the walks are written with: people, calls that are checked, and probes that show that nothing changed."""

from __future__ import annotations

import contextlib
import re
import secrets
import traceback
from dataclasses import dataclass, field

from client import Client, Response, fill
from events import event_problems
from report import Report
from spec import Operation, Spec

WALKS: list[tuple[str, str, object]] = []


def walk(title: str):
    """Registers a walk under `<chapter>: <title>`; the chapter is the file."""

    def register(function):
        chapter = function.__module__.split(".")[-1]
        WALKS.append((chapter, f"{chapter}: {title}", function))
        return function

    return register


def _as_tuple(value):
    return value if isinstance(value, tuple) else (value,)


class Harness:
    """One homeserver under examination."""

    def __init__(self, spec: Spec, client: Client, report: Report, start=None):
        self.spec, self.client, self.report, self._start = spec, client, report, start
        self.run = secrets.token_hex(3)
        self._people: dict[str, Person] = {}
        self._count = 0

    # requests

    def call(self, operation: str, path=None, query=None, body=None, token=None, expect=200, errcode=None, note="",
             headers=None, content_type=None, events=True) -> Response:  # fmt: skip
        """Sends one request of an operation and holds the answer against the specification."""
        op = self.spec.operations[operation]
        if body is None and op.has_json_body and op.method == "POST" and 200 in _as_tuple(expect):
            body = {}
        response = self.client.send(op.method, fill(op.template, path), query, body, token, headers, content_type)
        problems = self.problems(op, response, expect, errcode, events)
        if expect == 200 and response.status == 200 and body is not None and not isinstance(body, bytes):
            problems += self._request_body(op, body)
        self.report.note(operation, response.status, response.errcode)
        self.report.record(operation, note, response)
        what = f"{operation} ({op.method} {response.target[:150]}){': ' + note if note else ''}"
        self.report.result(operation, what, problems, response.excerpt() if problems else "")
        response.problems = problems
        return response

    def raw(self, method: str, path: str, expect=200, errcode=None, note="", **kwargs) -> Response:
        """Sends a request that belongs to no operation: status, error body and CORS are checked."""
        response = self.client.send(method, path, **kwargs)
        problems = self.problems(None, response, expect, errcode)
        self.report.record(f"{method} {re.sub('[?].*', '', path)[:80]}", note, response)
        what = f"{method} {path[:150]}{': ' + note if note else ''}"
        self.report.result(None, what, problems, response.excerpt() if problems else "")
        response.problems = problems
        return response

    def problems(self, op: Operation | None, response: Response, expect, errcode, events=True) -> list[str]:
        """Everything that is wrong with an answer."""
        found = []
        if response.status not in _as_tuple(expect):
            found.append(f"status {response.status} {response.errcode or ''} instead of {expect} {errcode or ''}".rstrip())
        elif errcode is not None and response.errcode not in _as_tuple(errcode):
            found.append(f"errcode {response.errcode} instead of {errcode}")
        if response.headers.get("Access-Control-Allow-Origin") != "*":
            found.append("CORS: no 'Access-Control-Allow-Origin: *'")
        if response.bad_json:
            found.append(f"body: {response.bad_json}")
        elif response.status >= 400:
            found += self._error_body(op, response)
        elif op is not None:
            found += self._success_body(op, response, events)
        return found

    def _request_body(self, op: Operation, body) -> list[str]:
        """A request that is meant to succeed must itself be as specified, or the walk is wrong."""
        schema = self.spec.request_schema(op)
        return [f"the walk itself sent what is not specified: {p}" for p in self.spec.problems(*schema, body)] if schema else []

    def _error_body(self, op, response: Response) -> list[str]:
        if response.json is None:
            return ["body: errors are JSON objects"]
        found = [] if response.content_type == "application/json" else [f"Content-Type is {response.content_type!r}"]
        documented = self.spec.response_schema(op, response.status, "application/json") if op else None
        if response.status == 401 and isinstance(response.json, dict) and "flows" in response.json:
            # User-interactive authentication; one operation (device_signing/upload) requires it without documenting 401.
            return found + self.spec.auth_problems(response.json)
        if documented is not None and response.status != 401:
            found += self.spec.problems(*documented, response.json)
        found += self.spec.error_problems(response.json)
        if response.status == 429 and "Retry-After" not in response.headers:
            found.append("no Retry-After")
        return list(dict.fromkeys(found))

    def _success_body(self, op, response: Response, events: bool) -> list[str]:
        schema = self.spec.response_schema(op, response.status, "application/json")
        if schema is None:
            return []
        if response.json is None:
            return ["body: no JSON"]
        found = [] if response.content_type == "application/json" else [f"Content-Type is {response.content_type!r}"]
        found += self.spec.problems(*schema, response.json)
        if events:
            found += event_problems(self.spec, response.json)
        return found

    # checks that are not answers

    def check(self, what: str, ok, detail="") -> bool:
        return self.report.result(None, what, [] if ok else [f"does not hold{': ' + str(detail)[:400] if detail != '' else ''}"])

    @contextlib.contextmanager
    def unchanged(self, what: str, *probes):
        """Whatever happens inside, the probes must read the same before and after."""
        before = [probe() for probe in probes]
        yield
        after = [probe() for probe in probes]
        self.check(f"nothing changed by: {what}", before == after, _difference(before, after))

    @contextlib.contextmanager
    def another(self, **settings):
        """A further server with other settings; None where the server under examination is not ours."""
        if self._start is None:
            yield None
            return
        server = self._start(**settings)
        try:
            yield Harness(self.spec, Client(server.url), self.report)
        finally:
            server.stop()

    # people

    def unique(self, stem: str = "x") -> str:
        self._count += 1
        return f"{stem}-{self.run}-{self._count}"

    def person(self, name: str) -> Person:
        """A user that the walks of a run share."""
        if name not in self._people:
            self._people[name] = self.newcomer(name)
        return self._people[name]

    def newcomer(self, stem: str, **extra) -> Person:
        """A user of one's own."""
        username, password = self.unique(stem), "pass-" + secrets.token_hex(8)
        body = {"username": username, "password": password, **extra}
        first = self.call("register", body=body, expect=401, note="which flows?")
        stages = first["flows"][0]["stages"]
        if stages != ["m.login.dummy"]:
            raise LookupError(f"registration is not open: {first['flows']}")
        answer = self.call("register", body={**body, "auth": {"type": "m.login.dummy", "session": first["session"]}})
        return Person(self, username, password, answer["user_id"], answer.get("access_token"), answer.get("device_id"))

    # running

    def run_walk(self, title: str, function) -> None:
        self.report.walk = title
        try:
            function(self)
        except Exception as error:  # the walk cannot go on; the others can
            frames = [f for f in traceback.extract_tb(error.__traceback__) if "/walks/" in f.filename]
            place = f"{frames[-1].name} line {frames[-1].lineno}" if frames else "setup"
            self.report.result(title, f"walk stopped at {place}", [f"{type(error).__name__}: {error}"])


def _difference(before, after) -> str:
    for left, right in zip(before, after):
        if left != right:
            if isinstance(left, list) and isinstance(right, list):
                return f"gone {[x for x in left if x not in right][:5]}, new {[x for x in right if x not in left][:5]}"
            return f"{str(left)[:180]} became {str(right)[:180]}"
    return ""


@dataclass
class Person:
    """Somebody with an account, a device and an access token."""

    h: Harness
    username: str
    password: str
    id: str
    token: str | None
    device: str | None
    since: str | None = field(default=None)

    @property
    def server(self) -> str:
        return self.id.split(":", 1)[1]

    def call(self, operation: str, path=None, **kwargs) -> Response:
        return self.h.call(operation, path, token=self.token, **kwargs)

    def login(self, device_id=None, **extra) -> Person:
        """The same person on another device."""
        body = {"type": "m.login.password", "identifier": {"type": "m.id.user", "user": self.username},
                "password": self.password, **extra}  # fmt: skip
        if device_id:
            body["device_id"] = device_id
        answer = self.h.call("login", body=body)
        return Person(self.h, self.username, self.password, self.id, answer["access_token"], answer["device_id"])

    def password_auth(self, session: str, password=None) -> dict:
        return {"type": "m.login.password", "session": session, "password": password or self.password,
                "identifier": {"type": "m.id.user", "user": self.username}}  # fmt: skip

    # rooms

    def create_room(self, **body) -> str:
        return self.call("createRoom", body=body)["room_id"]

    def invite(self, room: str, other: Person, **kwargs) -> Response:
        return self.call("inviteUser", {"roomId": room}, body={"user_id": other.id}, **kwargs)

    def join(self, room: str, **kwargs) -> Response:
        return self.call("joinRoomById", {"roomId": room}, body={}, **kwargs)

    def leave(self, room: str, **kwargs) -> Response:
        return self.call("leaveRoom", {"roomId": room}, body={}, **kwargs)

    def send(self, room: str, content=None, type="m.room.message", txn=None, **kwargs) -> Response:
        content = {"msgtype": "m.text", "body": "hello"} if content is None else content
        path = {"roomId": room, "eventType": type, "txnId": txn or self.h.unique("t")}
        return self.call("sendMessage", path, body=content, **kwargs)

    def say(self, room: str, text: str = "hello", **extra) -> str:
        return self.send(room, {"msgtype": "m.text", "body": text, **extra})["event_id"]

    def set_state(self, room: str, type: str, content, key: str = "", **kwargs) -> Response:
        return self.call("setRoomStateWithKey", {"roomId": room, "eventType": type, "stateKey": key}, body=content, **kwargs)

    def get_state(self, room: str, type: str, key: str = "", **kwargs) -> Response:
        return self.call("getRoomStateWithKey", {"roomId": room, "eventType": type, "stateKey": key}, **kwargs)

    def messages(self, room: str, **query) -> Response:
        return self.call("getRoomEvents", {"roomId": room}, query={"dir": "b", "limit": 50, **query})

    def event(self, room: str, event_id: str, **kwargs) -> Response:
        return self.call("getOneRoomEvent", {"roomId": room, "eventId": event_id}, **kwargs)

    # sync

    def sync(self, fresh=False, **query) -> Response:
        """One sync; goes on from the last one unless `fresh`."""
        query.setdefault("timeout", 0)
        if self.since and not fresh and "since" not in query:
            query["since"] = self.since
        answer = self.call("sync", query=query)
        self.since = answer["next_batch"]
        return answer

    def sync_until(self, seen, tries: int = 10, **query) -> Response:
        """Syncs until `seen(body)` holds; a failed check when it never does."""
        for _ in range(tries):
            answer = self.sync(timeout=1000 if self.since else 0, **query)
            if seen(answer.json):
                return answer
        self.h.check(f"sync shows it ({getattr(seen, '__doc__', None) or 'see the walk'})", False, answer.excerpt())
        return answer

    # probes for `unchanged`

    def sees(self, room: str):
        """State and newest part of the timeline, as this person reads them."""

        def probe():
            state = self.call("getRoomState", {"roomId": room}).json
            ids = sorted(e.get("event_id", "") for e in state) if isinstance(state, list) else state
            return [ids, [e.get("event_id") for e in self.messages(room).get("chunk", [])]]

        return probe

    def reads(self, operation: str, path=None, **kwargs):
        """Any answer of an operation that only reads."""
        kwargs.setdefault("expect", (200, 404))
        return lambda: (lambda r: (r.status, r.json))(self.call(operation, path, **kwargs))


def joined(body, room: str) -> dict:
    """The part of a sync about a joined room (empty when it is not there)."""
    return body.get("rooms", {}).get("join", {}).get(room, {})


def timeline(body, room: str) -> list[dict]:
    return joined(body, room).get("timeline", {}).get("events", [])


def ids(events) -> list[str]:
    return [e.get("event_id") for e in events]


def by_type(events, type: str) -> list[dict]:
    return [e for e in events if e.get("type") == type]


# Which of several common error codes fits is left open by "Common error codes".
MISSING = ("M_MISSING_PARAM", "M_BAD_JSON")  # a required key is not there
WRONG_TYPE = ("M_BAD_JSON", "M_INVALID_PARAM")  # a key has a value of the wrong kind
NO_OBJECT = ("M_BAD_JSON", "M_NOT_JSON")  # a body that is JSON, but no object
HIDDEN = {"expect": (403, 404), "errcode": ("M_FORBIDDEN", "M_NOT_FOUND")}  # not yours, or not there
