"""What was asked, what came back, what was wrong with it; the coverage table; the known list for an oracle."""

from __future__ import annotations

import re
from collections import Counter, defaultdict
from dataclasses import dataclass, field

from spec import Spec

# Objects whose keys are names of things; and those that are the clients' own.
NAMED = re.compile(r"^[!@$#]|:|^[A-Z0-9]{6,}$|^\d+$|^[A-Za-z0-9+/_-]{20,}$")
OPAQUE = {"content", "prev_content", "auth_data", "session_data", "signatures", "keys", "unsigned", "unstable_features", "redacted_because"}


def shape_of(value, path: str = "", depth: int = 0) -> set[str]:
    """The paths of the keys of a JSON value, with the kinds of the leaves."""
    if isinstance(value, dict) and depth < 6:
        found = set()
        for key, inner in value.items():
            name = "*" if NAMED.search(key) else key
            below = f"{path}.{name}" if path else name
            found |= {f"{below} object"} if name in OPAQUE else shape_of(inner, below, depth + 1)
        return found
    if isinstance(value, list) and depth < 6:
        return set().union(*(shape_of(inner, f"{path}[]", depth + 1) for inner in value[:50])) if value else set()
    return {f"{path} {type(value).__name__}"}


@dataclass
class Failure:
    walk: str
    what: str
    problems: list[str]
    excerpt: str = ""


@dataclass
class Report:
    spec: Spec
    known: list[tuple[str, str, str]] = field(default_factory=list)  # (operation or walk, pattern, reason)
    passed: int = 0
    failures: list[Failure] = field(default_factory=list)
    excused: Counter = field(default_factory=Counter)
    seen: dict = field(default_factory=lambda: defaultdict(Counter))  # operation -> (status, errcode) -> times
    walk: str = ""
    verbose: bool = False
    recorded: list[dict] = field(default_factory=list)

    def result(self, operation: str | None, what: str, problems: list[str], excerpt: str = "") -> bool:
        """Counts one check. Problems that an oracle is known for do not count against it."""
        left = [p for p in problems if not self._is_known(operation, what, p)]
        if not left:
            self.passed += 1
            return not problems
        failure = Failure(self.walk, what, left, excerpt)
        self.failures.append(failure)
        print(f"FAIL [{self.walk}] {what}", flush=True)
        for problem in left:
            print(f"     {problem}")
        if excerpt:
            print(f"     got: {excerpt}")
        return False

    def _is_known(self, operation, what, problem) -> bool:
        for where, pattern, reason in self.known:
            if where in ("*", operation, self.walk) and re.search(pattern, f"{what} :: {problem}"):
                self.excused[f"{where}: {reason}"] += 1
                return True
        return False

    def note(self, operation: str, status: int, errcode) -> None:
        self.seen[operation][(str(status), errcode or "")] += 1

    def record(self, operation: str, note: str, response) -> None:
        """What was answered, for a comparison with another homeserver."""
        shape = sorted(shape_of(response.json)) if response.status < 400 else []
        entry = {"walk": self.walk, "operation": operation, "note": note, "status": response.status, "errcode": response.errcode}
        self.recorded.append({**entry, "shape": shape, "target": f"{response.method} {response.target[:120]}"})

    # coverage

    def gaps(self, scope: set[str], not_exercised: dict[tuple[str, str, str], str]) -> list[str]:
        """Documented answers of the operations in scope that no walk brought about and no reason excuses."""
        missing = []
        for name in sorted(scope):
            operation = self.spec.operations[name]
            seen = self.seen.get(name, {})
            if not any(status == "200" for status, _ in seen):
                if (name, "200", "") not in not_exercised:
                    missing.append(f"{name}: no 200 was seen")
            for status, codes in operation.documented.items():
                for code in sorted(codes) or [""]:
                    hit = any(s == status and (not code or c == code) for s, c in seen)
                    if not hit and not _excused(not_exercised, name, status, code):
                        missing.append(f"{name}: documented {status} {code} was not seen".rstrip())
        return missing

    def table(self, scope: set[str], not_exercised) -> str:
        """The coverage as a markdown table."""
        lines = [
            "# Coverage of the specification by the conformance run", "",
            f"{self.passed} checks passed, {len(self.failures)} failed. "
            "Numbers in brackets say how often an answer was seen and held against its schema.", "",
            "| Operation | Endpoint | Answers seen | Documented, not seen |", "|---|---|---|---|",
        ]  # fmt: skip
        for name in sorted(set(scope) | set(self.seen), key=lambda n: (n not in scope, self.spec.operations[n].template)):
            operation = self.spec.operations[name]
            seen = ", ".join(
                f"{status}{' ' + code if code else ''} ({times})" for (status, code), times in sorted(self.seen[name].items())
            )
            unseen = []
            for status, codes in operation.documented.items():
                for code in sorted(codes) or [""]:
                    if not any(s == status and (not code or c == code) for s, c in self.seen[name]):
                        reason = _excused(not_exercised, name, status, code)
                        unseen.append(f"{status} {code}".strip() + (f": {reason}" if reason else ""))
            outside = "" if name in scope else " (not required yet)"
            lines.append(f"| {name}{outside} | {operation.method} {operation.template} | {seen} | {'; '.join(unseen)} |")
        return "\n".join(lines) + "\n"


def _excused(not_exercised, name: str, status: str, code: str) -> str | None:
    for key in ((name, status, code), (name, status, "*"), ("*", status, code), ("*", status, "*")):
        if key in not_exercised:
            return not_exercised[key]
    return None
