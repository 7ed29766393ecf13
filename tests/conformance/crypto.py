"""Ed25519 after RFC 8032 and signed JSON, so that the walks can upload keys that verify. Slow; for tests only."""

from __future__ import annotations

import base64
import hashlib
import json
import secrets

P = 2**255 - 19
ORDER = 2**252 + 27742317777372353535851937790883648493
D = -121665 * pow(121666, P - 2, P) % P
ROOT = pow(2, (P - 1) // 4, P)


def _recover_x(y: int) -> int:
    square = (y * y - 1) * pow(D * y * y + 1, P - 2, P) % P
    x = pow(square, (P + 3) // 8, P)
    if (x * x - square) % P:
        x = x * ROOT % P
    return P - x if x & 1 else x


_BY = 4 * pow(5, P - 2, P) % P
BASE = (_recover_x(_BY), _BY, 1, _recover_x(_BY) * _BY % P)


def _add(a, b):
    m = (a[1] - a[0]) * (b[1] - b[0]) % P
    n = (a[1] + a[0]) * (b[1] + b[0]) % P
    c, d = 2 * a[3] * b[3] * D % P, 2 * a[2] * b[2] % P
    e, f, g, h = n - m, d - c, d + c, n + m
    return (e * f % P, g * h % P, f * g % P, e * h % P)


def _times(point, factor: int):
    result = (0, 1, 1, 0)
    while factor:
        if factor & 1:
            result = _add(result, point)
        point, factor = _add(point, point), factor >> 1
    return result


def _pack(point) -> bytes:
    inverse = pow(point[2], P - 2, P)
    x, y = point[0] * inverse % P, point[1] * inverse % P
    return (y | (x & 1) << 255).to_bytes(32, "little")


def _number(*parts: bytes) -> int:
    return int.from_bytes(hashlib.sha512(b"".join(parts)).digest(), "little") % ORDER


def b64(data: bytes) -> str:
    return base64.b64encode(data).decode().rstrip("=")


def canonical(value) -> bytes:
    return json.dumps(value, ensure_ascii=False, separators=(",", ":"), sort_keys=True).encode()


class SigningKey:
    """A key pair."""

    def __init__(self, seed: bytes | None = None):
        digest = hashlib.sha512(seed or secrets.token_bytes(32)).digest()
        self._scalar = int.from_bytes(digest[:32], "little") & ((1 << 254) - 8) | (1 << 254)
        self._prefix = digest[32:]
        self._raw = _pack(_times(BASE, self._scalar))
        self.public = b64(self._raw)

    def sign(self, message: bytes) -> bytes:
        r = _number(self._prefix, message)
        big_r = _pack(_times(BASE, r))
        s = (r + _number(big_r, self._raw, message) * self._scalar) % ORDER
        return big_r + s.to_bytes(32, "little")

    def sign_json(self, value: dict, user: str, key_id: str) -> dict:
        """`value` with a further signature."""
        bare = {k: v for k, v in value.items() if k not in ("signatures", "unsigned")}
        signatures = {u: dict(s) for u, s in value.get("signatures", {}).items()}
        signatures.setdefault(user, {})[key_id] = b64(self.sign(canonical(bare)))
        return {**value, "signatures": signatures}
