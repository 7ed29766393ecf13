"""The HTTP side: one request, sent exactly as written, and what came back, read strictly."""

from __future__ import annotations

import http.client
import json
import threading
from dataclasses import dataclass, field
from urllib.parse import quote, urlencode, urlsplit


class BadJson(ValueError):
    """A body that no Matrix client should have to read."""


def _no_constant(name):
    raise BadJson(f"{name} is not JSON")


def _no_doubles(pairs):
    seen = {}
    for key, value in pairs:
        if key in seen:
            raise BadJson(f"key {key!r} twice in one object")
        seen[key] = value
    return seen


def parse_strictly(raw: bytes):
    """JSON without NaN, Infinity, double keys or broken UTF-8."""
    try:
        return json.loads(raw.decode("utf-8"), parse_constant=_no_constant, object_pairs_hook=_no_doubles)
    except UnicodeDecodeError as error:
        raise BadJson(f"not UTF-8: {error}") from error
    except json.JSONDecodeError as error:
        raise BadJson(f"not JSON: {error}") from error


@dataclass
class Response:
    """What a homeserver answered."""

    method: str
    target: str
    status: int
    headers: http.client.HTTPMessage
    raw: bytes
    json: object = None
    bad_json: str | None = None
    problems: list[str] = field(default_factory=list)

    @property
    def content_type(self) -> str:
        return self.headers.get("Content-Type", "").split(";")[0].strip().lower()

    @property
    def errcode(self):
        return self.json.get("errcode") if isinstance(self.json, dict) else None

    def __getitem__(self, key):
        if not isinstance(self.json, dict) or key not in self.json:
            raise LookupError(f"no {key!r} in the answer to {self.method} {self.target}: {self.status} {self.excerpt()}")
        return self.json[key]

    def get(self, key, default=None):
        return self.json.get(key, default) if isinstance(self.json, dict) else default

    def excerpt(self, limit: int = 400) -> str:
        text = self.raw[: limit + 1].decode("utf-8", "replace")
        return text if len(text) <= limit else text[:limit] + "..."


def fill(template: str, params: dict | None) -> str:
    """The path of a template, every parameter percent-encoded whole."""
    path = template
    for name, value in (params or {}).items():
        path = path.replace("{" + name + "}", quote(str(value), safe=""))
    if "{" in path:
        raise LookupError(f"path parameters left open in {path}")
    return path


class Client:
    """Connections to one homeserver, one a thread, kept open."""

    def __init__(self, url: str, timeout: float = 60):
        parts = urlsplit(url)
        self.url, self.host, self.port, self.timeout = url, parts.hostname, parts.port or 80, timeout
        self._local = threading.local()

    def _connection(self) -> http.client.HTTPConnection:
        if getattr(self._local, "connection", None) is None:
            self._local.connection = http.client.HTTPConnection(self.host, self.port, timeout=self.timeout)
        return self._local.connection

    def send(self, method, path, query=None, body=None, token=None, headers=None, content_type=None) -> Response:
        """Sends one request. `body`: bytes go as they are, None sends nothing, anything else as JSON."""
        pairs = []
        for key, value in (query or {}).items():
            for item in value if isinstance(value, (list, tuple)) else [value]:
                pairs.append((key, str(item).lower() if isinstance(item, bool) else str(item)))
        target = path + ("?" + urlencode(pairs, quote_via=quote) if pairs else "")
        sent = dict(headers or {})
        data = None
        if isinstance(body, bytes):
            data = body
        elif body is not None:
            data = json.dumps(body, ensure_ascii=False, allow_nan=True).encode("utf-8", "surrogatepass")
        if data is not None:
            sent.setdefault("Content-Type", content_type or "application/json")
        elif method in ("POST", "PUT"):
            sent.setdefault("Content-Length", "0")
        if token is not None:
            sent["Authorization"] = f"Bearer {token}"
        answer, raw = self._exchange(method, target, data, sent)
        response = Response(method, target, answer.status, answer.headers, raw)
        if response.content_type == "application/json" or (raw[:1] in b"{[" and raw):
            try:
                response.json = parse_strictly(raw)
            except BadJson as error:
                response.bad_json = str(error)
        return response

    def _exchange(self, method, target, data, headers):
        for attempt in (1, 2):
            connection = self._connection()
            fresh = connection.sock is None
            try:
                try:
                    connection.request(method, target, body=data, headers=headers)
                except (BrokenPipeError, ConnectionResetError):
                    # A server that has read enough may answer and close; its answer is there to be read.
                    if fresh is False:
                        raise
                answer = connection.getresponse()
                return answer, answer.read()
            except (http.client.HTTPException, ConnectionError, BrokenPipeError, TimeoutError) as error:
                self._local.connection = None
                connection.close()
                # A kept connection may have been closed by the server in the meantime; a fresh one may not.
                if fresh or attempt == 2 or isinstance(error, TimeoutError):
                    raise ConnectionError(f"{method} {target}: {type(error).__name__}: {error}") from error
