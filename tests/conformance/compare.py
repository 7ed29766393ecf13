"""Sends Stoa and Synapse the same requests, the walks, and tells where status, errcode or shape of the answers differ.

Called by scripts/compare. Every difference must have a row in differences.py, which says why it is as it is; a row that no longer
differs is told too. With --docs the rows are written as docs/differences.md.
"""

from __future__ import annotations

import argparse
import json
import re
import subprocess
import sys
import tempfile
from collections import defaultdict
from pathlib import Path

here = Path(__file__).resolve().parent
sys.path.insert(0, str(here))

from differences import EXPLAINED  # noqa: E402
from synapse import Synapse  # noqa: E402

PAGE = here.parents[1] / "docs/differences.md"


def recorded(spec: Path, more: list[str]) -> list[dict]:
    with tempfile.NamedTemporaryFile(suffix=".json") as file:
        command = [sys.executable, "-B", str(here), "--spec", str(spec), "--record", file.name, *more]
        subprocess.run(command, stdout=subprocess.DEVNULL, check=False)
        return json.loads(Path(file.name).read_text() or "[]")


def by_place(entries: list[dict]) -> dict[tuple, dict]:
    """Each answer by what was asked: the walk, the operation, the note, and which of several."""
    count, found = defaultdict(int), {}
    for entry in entries:
        # What differs between two runs and says nothing.
        note = re.sub(r"[0-9a-f]{6}-\d+|\$[\w-]+|!\w+|localhost:\d+", "*", entry["note"])
        place = (entry["walk"], re.sub(r"[0-9a-f]{6}-\d+|%21[\w-]+|![\w-]+", "*", entry["operation"]), note)
        count[place] += 1
        found[(*place, count[place])] = entry
    return found


def answer(entry: dict) -> str:
    return f"{entry['status']} {entry['errcode'] or ''}".strip()


def differences(ours: dict, theirs: dict) -> dict[tuple[str, str, str], list[str]]:
    """Operation, our answer, theirs -> where."""
    found = defaultdict(list)
    for place, one in ours.items():
        other = theirs.get(place)
        if other is None:
            continue
        where = f"{place[0]}: {place[2] or one['target']}"
        if (one["status"], one["errcode"]) != (other["status"], other["errcode"]):
            found[place[1], answer(one), answer(other)].append(where)
            continue
        left, right = set(one["shape"]), set(other["shape"])
        for key in sorted(left ^ right):
            which = ("has `" if key in left else "lacks `") + key + "`"
            found[place[1], f"200 {which}", ""].append(where)
    return found


def explanation(key: tuple[str, str, str]) -> tuple | None:
    operation, ours, theirs = key
    text = f"{operation} | {ours} | {theirs}"
    return next((row for row in EXPLAINED if re.search(row[0], text)), None)


def page(found: dict) -> str:
    lines = [
        "# Where Stoa answers otherwise than Synapse", "",
        "Made by `scripts/compare`, which sends both the same requests (the walks of `tests/conformance`) and compares status, errcode and the",
        "keys of the answers. Every difference is here, with what decides. Sections are of the Client-Server API of Matrix 1.19.", "",
        "| operation | Stoa | Synapse | times | why |", "|---|---|---|---|---|",
    ]  # fmt: skip
    for key, places in sorted(found.items()):
        row = explanation(key)
        lines.append(f"| {key[0]} | {key[1]} | {key[2]} | {len(places)} | {row[1] if row else '**not explained**'} |")
    return "\n".join(lines) + "\n"


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--spec", type=Path, required=True)
    parser.add_argument("--synapse", type=Path, required=True, help="a virtual environment with Synapse in it")
    parser.add_argument("--binary", help="the stoa binary (default: the debug build)")
    parser.add_argument("--only", action="append", default=[], help="walks whose title contains this (may be repeated)")
    parser.add_argument("--docs", action="store_true", help="write docs/differences.md")
    args = parser.parse_args()
    more = [part for only in args.only for part in ("--only", only)]
    ours = recorded(args.spec, more + (["--binary", args.binary] if args.binary else []))
    synapse = Synapse(args.synapse)
    try:
        synapse.wait()
        theirs = recorded(args.spec, [*more, "--url", synapse.url])
    finally:
        synapse.stop()
    ours, theirs = by_place(ours), by_place(theirs)
    both = ours.keys() & theirs.keys()
    found = differences(ours, theirs)
    unexplained = {key: places for key, places in found.items() if explanation(key) is None}
    for key, places in sorted(unexplained.items()):
        print(f"{key[0]}: Stoa {key[1]}{', Synapse ' + key[2] if key[2] else ''} ({len(places)}), as in {places[0][:160]}")
    if not args.only:
        for row in EXPLAINED:
            if not any(explanation(key) is row for key in found):
                print(f"no difference any more: {row[0]}")
    if args.docs:
        PAGE.write_text(page(found))
    print(f"{len(both)} requests were answered by both; {len(found)} kinds of differences, {len(unexplained)} not explained")
    print(f"{len(both) - sum(map(len, unexplained.values()))} passed, {sum(map(len, unexplained.values()))} failed")
    return bool(unexplained)


sys.exit(main())
