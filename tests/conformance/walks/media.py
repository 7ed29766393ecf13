"""The content repository: upload, download, thumbnails of local files."""

import http.server
import struct
import threading
import zlib
from contextlib import contextmanager

from harness import MISSING, walk


def png(width: int, height: int) -> bytes:
    """A picture with a little to see in it."""
    rows = b"".join(b"\x00" + bytes((x * 255 // width, y * 255 // height, 90)[i] for x in range(width) for i in range(3)) for y in range(height))

    def chunk(kind: bytes, data: bytes) -> bytes:
        return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))

    return (b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", struct.pack(">IIBBBBB", width, height, 8, 2, 0, 0, 0))
            + chunk(b"IDAT", zlib.compress(rows)) + chunk(b"IEND", b""))  # fmt: skip


def size_of(raw: bytes):
    """Width and height of a PNG or JPEG."""
    if raw[:4] == b"\x89PNG":
        return struct.unpack(">II", raw[16:24])
    place = 2
    while raw[:2] == b"\xff\xd8" and place + 9 < len(raw):
        kind, length = raw[place + 1], struct.unpack(">H", raw[place + 2 : place + 4])[0]
        if 0xC0 <= kind <= 0xCF and kind not in (0xC4, 0xC8, 0xCC):
            height, width = struct.unpack(">HH", raw[place + 5 : place + 9])
            return width, height
        place += 2 + length
    return None


def place(uri: str) -> dict:
    server, media = uri.removeprefix("mxc://").split("/")
    return {"serverName": server, "mediaId": media}


@walk("upload and download")
def upload(h):
    alice, bob = h.person("alice"), h.person("bob")
    config = alice.call("getConfigAuthed")
    h.check("the limit", isinstance(config.get("m.upload.size"), int), config.excerpt())
    data = bytes(range(256)) * 5
    uri = alice.call("uploadContent", query={"filename": "ünï name.bin"}, body=data, content_type="application/octet-stream")["content_uri"]
    h.check("an mxc uri of this server", uri.startswith(f"mxc://{alice.server}/"), uri)
    got = bob.call("getContentAuthed", place(uri), note="by another user")
    h.check("the same bytes", got.raw == data)
    h.check("type and disposition", got.content_type == "application/octet-stream" and got.headers.get("Content-Disposition", "").startswith("attachment"), dict(got.headers))
    h.check("the file name", "%C3%BCn%C3%AF%20name.bin" in got.headers.get("Content-Disposition", ""), got.headers.get("Content-Disposition"))
    h.check("a policy against scripts", "sandbox" in got.headers.get("Content-Security-Policy", ""), got.headers.get("Content-Security-Policy"))
    h.check("readable from other origins", got.headers.get("Cross-Origin-Resource-Policy") == "cross-origin", dict(got.headers))
    named = bob.call("getContentOverrideNameAuthed", {**place(uri), "fileName": "other.bin"})
    h.check("under another name", "other.bin" in named.headers.get("Content-Disposition", "") and named.raw == data, dict(named.headers))
    again = alice.call("uploadContent", body=data, content_type="application/octet-stream")["content_uri"]
    h.check("the same bytes twice are two uris", again != uri)
    empty = alice.call("uploadContent", body=b"", content_type="text/plain")["content_uri"]
    h.check("an empty file", bob.call("getContentAuthed", place(empty)).raw == b"")
    for kind, inline in (("text/html", False), ("image/svg+xml", False), ("TEXT/HTML; charset=utf-8", False), ("image/png", True), ("text/plain", True)):
        uri = alice.call("uploadContent", body=b"<script>alert(1)</script>", content_type=kind)["content_uri"]
        got = bob.call("getContentAuthed", place(uri))
        disposition = got.headers.get("Content-Disposition", "")
        h.check(f"{kind}: {'inline' if inline else 'attachment'}", disposition.startswith("inline" if inline else "attachment"), disposition)
        h.check(f"{kind}: policy", "sandbox" in got.headers.get("Content-Security-Policy", ""), got.headers.get("Content-Security-Policy"))


@walk("media refused")
def refused(h):
    alice = h.person("alice")
    limit = alice.call("getConfigAuthed").get("m.upload.size") or 50_000_000
    h.call("uploadContent", body=b"x", expect=401, errcode="M_MISSING_TOKEN")
    if limit <= 300_000_000:
        alice.call("uploadContent", body=bytes(limit + 1), content_type="application/octet-stream", expect=413, errcode="M_TOO_LARGE")
    nothing = {"serverName": alice.server, "mediaId": "NoSuchMediaIdHere"}
    for operation, path, query in (("getContentAuthed", nothing, None), ("getContentOverrideNameAuthed", {**nothing, "fileName": "x"}, None),
                                   ("getContentThumbnailAuthed", nothing, {"width": 32, "height": 32})):  # fmt: skip
        alice.call(operation, path, query=query, expect=404, errcode="M_NOT_FOUND")
        h.call(operation, path, query=query, expect=401, errcode="M_MISSING_TOKEN")
        for bad in ("..", "../../etc/passwd", "a/b", "%2e%2e", "\x00", "a" * 300):
            alice.call(operation, {**path, "mediaId": bad}, query=query, expect=(400, 404), note=repr(bad[:30]))
        alice.call(operation, {**path, "serverName": "../.."}, query=query, expect=(400, 404))


@walk("thumbnails")
def thumbnails(h):
    alice = h.person("alice")
    uri = alice.call("uploadContent", query={"filename": "p.png"}, body=png(400, 200), content_type="image/png")["content_uri"]

    def thumb(expect=200, errcode=None, **query):
        return alice.call("getContentThumbnailAuthed", place(uri), query=query, expect=expect, errcode=errcode, note=str(query))

    for query in ({"width": 100, "height": 100, "method": "scale"}, {"width": 96, "height": 96, "method": "crop"}, {"width": 320, "height": 240},
                  {"width": 64, "height": 64, "animated": False}):  # fmt: skip
        got = thumb(**query)
        size = size_of(got.raw)
        h.check("a picture of an allowed type", got.content_type in ("image/png", "image/jpeg", "image/webp", "image/gif") and (size or got.content_type == "image/webp"), got.content_type)
        h.check("inline", got.headers.get("Content-Disposition", "").startswith("inline"), got.headers.get("Content-Disposition"))
        if size and query.get("method") == "crop":
            h.check("cropped to a square", size[0] == size[1], size)
        elif size:
            h.check("keeps its proportions", abs(size[0] / size[1] - 2) < 0.1, size)
    big = size_of(thumb(width=2000, height=2000).raw)
    h.check("never larger than the original", big is None or big <= (400, 200), big)
    for query in ({"width": "x", "height": 10}, {"width": -1, "height": 10}, {"width": 10, "height": -5},
                  {"width": 1.5, "height": 10}, {"width": 10, "height": 10, "method": "stretch"}):  # fmt: skip
        thumb(expect=400, errcode=("M_UNKNOWN", "M_INVALID_PARAM", "M_BAD_JSON"), **query)
    thumb(expect=400, errcode=(*MISSING, "M_UNKNOWN", "M_INVALID_PARAM"), width=10)
    broken = alice.call("uploadContent", body=png(50, 50)[:60], content_type="image/png")["content_uri"]
    text = alice.call("uploadContent", body=b"no picture", content_type="text/plain")["content_uri"]
    for what, answers in ((broken, (200, 400, 404)), (text, (400, 404))):
        alice.call("getContentThumbnailAuthed", place(what), query={"width": 32, "height": 32}, expect=answers, note="half a picture, none")
    thumb(expect=(200, 400), errcode=(None, "M_UNKNOWN", "M_INVALID_PARAM"), width=0, height=0)
    header = png(8, 8).replace(struct.pack(">II", 8, 8), struct.pack(">II", 60_000, 60_000), 1)
    ihdr = header[12:29]
    bomb = header[:29] + struct.pack(">I", zlib.crc32(ihdr)) + header[33:]
    bomb_uri = alice.call("uploadContent", body=bomb, content_type="image/png")["content_uri"]
    alice.call("getContentThumbnailAuthed", place(bomb_uri), query={"width": 32, "height": 32}, expect=(400, 404, 413), note="claims 60,000 pixels each way")


@contextmanager
def site(pages: dict):
    """A web site on loopback: path -> (media type, body). Gives its address."""

    class Handler(http.server.BaseHTTPRequestHandler):
        def do_GET(self):  # noqa: N802
            kind, body = pages.get(self.path, (None, b""))
            self.send_response(200 if kind else 404)
            self.send_header("Content-Type", kind or "text/plain")
            self.send_header("Content-Length", str(len(body)))
            self.end_headers()
            self.wfile.write(body)

        def log_message(self, *_):
            pass

    server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    try:
        yield f"http://127.0.0.1:{server.server_port}"
    finally:
        server.shutdown()
        server.server_close()


@walk("previews of links")
def previews(h):
    alice = h.person("alice")
    page = b"<title>T</title><meta property=og:description content=D><meta property=og:image content=/p.png>"
    picture = png(40, 30)
    with site({"/": ("text/html", page), "/p.png": ("image/png", picture), "/none": ("application/pdf", b"%PDF")}) as url:
        for operation in ("getUrlPreviewAuthed", "getUrlPreview"):
            got = alice.call(operation, query={"url": f"{url}/", "ts": 1510610716656})
            h.check("title and description", (got.get("og:title"), got.get("og:description")) == ("T", "D"), got.excerpt())
            h.check("the picture is described", (got.get("og:image:width"), got.get("og:image:height"), got.get("matrix:image:size")) == (40, 30, len(picture)), got.excerpt())
            h.check("the picture is here", alice.call("getContentAuthed", place(got["og:image"])).raw == picture)
            alice.call(operation, query={"url": f"{url}/none"}, note="nothing to show")
            h.call(operation, query={"url": f"{url}/"}, expect=401, errcode="M_MISSING_TOKEN")
            alice.call(operation, expect=400, errcode=MISSING, note="no url")
            for bad in ("", "no url", "file:///etc/passwd"):
                alice.call(operation, query={"url": bad}, expect=400, note=repr(bad))
            alice.call(operation, query={"url": "http://169.254.169.254/"}, expect=502, note="an address that is not public")
