"""What holds for every operation: tokens, bodies that are no objects, methods, CORS."""

from client import fill
from harness import NO_OBJECT, walk
from scope import REQUIRED


def samples(h):
    """Path parameters that exist, so that what is refused is refused for the reason under test."""
    alice = h.person("alice")
    room = alice.create_room(preset="public_chat")
    event = alice.say(room)
    return alice, {
        "roomId": room, "roomIdOrAlias": room, "roomAlias": f"#{h.unique('generic')}:{alice.server}", "eventId": event,
        "userId": alice.id, "deviceId": alice.device, "eventType": "chat.stoa.generic", "stateKey": "", "txnId": "generic",
        "type": "chat.stoa.generic", "filterId": "0", "kind": "override", "ruleId": "generic", "version": "1", "sessionId": "s",
        "serverName": alice.server, "mediaId": "generic", "fileName": "f", "receiptType": "m.read", "keyName": "displayname",
        "tag": "m.favourite", "relType": "m.thread", "protocol": "irc", "idpId": "x", "networkId": "x", "appserviceId": "x",
    }  # fmt: skip


def path_of(op, params):
    names = [p.strip("{}") for p in op.template.split("/") if p.startswith("{")]
    return {n: params[n] for n in names}


def query_of(op):
    """Required query parameters, so that the token is what is wrong."""
    known = {"version": "1", "from": "x", "to": "y", "dir": "b", "width": 10, "height": 10, "username": "x", "token": "x"}
    found = {}
    for node in op.node.get("parameters", []):
        if node.get("in") == "query" and node.get("required"):
            found[node["name"]] = known.get(node["name"], "x")
    return found


@walk("no token and an unknown token")
def tokens(h):
    alice, params = samples(h)
    with h.unchanged("requests without a token", alice.sees(params["roomId"])):
        for name in sorted(REQUIRED):
            op = h.spec.operations[name]
            if not op.auth or name == "getVersions":  # that one answers everybody
                continue
            path, query = path_of(op, params), query_of(op)
            body = {} if op.has_json_body and op.method != "GET" else None
            # Two operations may be offered without login, by e-mail: they then answer with the flows.
            optional = {} in op.node["security"]
            h.call(name, path, query=query, body=body, expect=401, errcode=("M_MISSING_TOKEN", None) if optional else "M_MISSING_TOKEN", note="no token")
            h.call(name, path, query=query, body=body, token="no-such-token", expect=401, errcode="M_UNKNOWN_TOKEN", note="unknown token")
    for header in ("Basic YWxpY2U6cHc=", "Bearer", "Bearer ", alice.token):
        h.raw("GET", "/_matrix/client/v3/account/whoami", headers={"Authorization": header}, expect=401,
              errcode=("M_MISSING_TOKEN", "M_UNKNOWN_TOKEN"), note=f"Authorization: {header[:12]}")  # fmt: skip
    h.raw("GET", "/_matrix/client/v3/account/whoami", token="t" * 10_000, expect=(401, 400, 431), errcode=("M_UNKNOWN_TOKEN", "M_TOO_LARGE", None))


@walk("bodies that are no JSON, and JSON that is no object")
def bodies(h):
    alice, params = samples(h)
    with h.unchanged("bodies that are no objects", alice.sees(params["roomId"])):
        for name in sorted(REQUIRED):
            op = h.spec.operations[name]
            if not op.has_json_body or op.method not in ("POST", "PUT"):
                continue
            token = alice.token if op.auth else None
            common = {"path": path_of(op, params), "query": query_of(op), "token": token, "expect": 400}
            for raw in (b"{", b"nonsense", b'{"a":"\xff\xfe"}', b'{"a":1}}', b"{'a': 1}", b'{"a": NaN}'):
                h.call(name, body=raw, errcode=NO_OBJECT if b"NaN" in raw else "M_NOT_JSON", note=repr(raw), **common)
            for raw in (b"[]", b'"text"', b"17", b"null", b"true"):
                h.call(name, body=raw, errcode=NO_OBJECT, note=repr(raw), **common)


@walk("paths and methods that are not there")
def unrecognized(h):
    alice, params = samples(h)
    for path in ("/_matrix/client/v3/no/such", "/_matrix/client/v99/sync", "/_matrix/client/unstable/chat.stoa.no.such", "/_matrix/nothing",
                 "/_matrix/client", "/_matrix/client/v3/rooms", "/_matrix/client/v3/rooms/%21x%3Alocalhost/nothing"):  # fmt: skip
        for method in ("GET", "POST", "PUT", "DELETE"):
            h.raw(method, path, token=alice.token, expect=404, errcode="M_UNRECOGNIZED", body={} if method in ("POST", "PUT") else None)
    methods: dict[str, set] = {}
    for op in h.spec.operations.values():
        methods.setdefault(op.template, set()).add(op.method)
    for name in sorted(REQUIRED):
        op = h.spec.operations[name]
        wrong = sorted({"GET", "POST", "PUT", "DELETE"} - methods[op.template])
        if wrong:
            path = fill(op.template, path_of(op, params))
            h.raw(wrong[0], path, token=alice.token, body={} if wrong[0] in ("POST", "PUT") else None, expect=405, errcode="M_UNRECOGNIZED", note=f"of {name}")
    h.raw("PATCH", "/_matrix/client/v3/sync", token=alice.token, expect=405, errcode="M_UNRECOGNIZED")


@walk("CORS")
def cors(h):
    _, params = samples(h)
    asked = {"Origin": "https://app.example", "Access-Control-Request-Method": "PUT", "Access-Control-Request-Headers": "authorization,content-type"}
    for template in sorted({h.spec.operations[n].template for n in REQUIRED} | {"/_matrix/client/v3/no/such"}):
        op = next((o for o in h.spec.operations.values() if o.template == template), None)
        path = fill(template, path_of(op, params)) if op else template
        answer = h.raw("OPTIONS", path, headers=asked, expect=(200, 204), note="preflight, no token")
        allowed = {m.strip() for m in answer.headers.get("Access-Control-Allow-Methods", "").split(",")}
        names = {m.strip().lower() for m in answer.headers.get("Access-Control-Allow-Headers", "").split(",")}
        h.check(f"methods for {template}", {"GET", "POST", "PUT", "DELETE", "OPTIONS"} <= allowed, allowed)
        h.check(f"headers for {template}", {"x-requested-with", "content-type", "authorization"} <= names, names)


@walk("bodies without a word about their type")
def content_types(h):
    alice, params = samples(h)
    path = {"roomId": params["roomId"], "eventType": "m.room.message"}
    body = b'{"msgtype":"m.text","body":"x"}'
    for kind in ("text/plain", "application/x-www-form-urlencoded", "application/json; charset=utf-8", "nonsense"):
        h.call("sendMessage", {**path, "txnId": h.unique("ct")}, body=body, token=alice.token, content_type=kind, note=f"Content-Type: {kind}")
    for name, where in (("joinRoom", {"roomIdOrAlias": params["roomId"]}), ("joinRoomById", {"roomId": params["roomId"]})):
        h.call(name, where, body=b"", token=alice.token, expect=(200, 400), note="no body at all")
    h.call("joinRoom", {"roomIdOrAlias": params["roomId"]}, query={"via": [alice.server, "elsewhere.example"]}, token=alice.token, note="via")
