"""Runs the walks against a homeserver. See README.md; called by scripts/conformance."""

from __future__ import annotations

import argparse
import importlib
import json
import os
import sys
from pathlib import Path

here = Path(__file__).resolve().parent
sys.path.insert(0, str(here))

import selftest  # noqa: E402
from client import Client  # noqa: E402
from harness import WALKS, Harness  # noqa: E402
from report import Report  # noqa: E402
from scope import CHAPTERS, NOT_EXERCISED, REQUIRED  # noqa: E402
from server import Stoa  # noqa: E402
from spec import Spec  # noqa: E402


def arguments():
    parser = argparse.ArgumentParser(prog="conformance", description=__doc__)
    parser.add_argument("--spec", type=Path, required=True, help="folder of the specification's data")
    parser.add_argument("--url", help="a running homeserver with open registration (default: start stoa)")
    parser.add_argument("--binary", type=Path, help="the stoa binary (default: the debug build)")
    parser.add_argument("--coverage", type=Path, help="write the coverage table (markdown) here")
    parser.add_argument("--only", action="append", default=[], help="walks whose title contains this (may be repeated)")
    parser.add_argument("--oracle", choices=["synapse"], help="excuse what this server is known to do otherwise")
    parser.add_argument("--record", type=Path, help="write every answer's status, errcode and shape as JSON here")
    parser.add_argument("--failures", type=Path, help="write the failures as JSON here")
    parser.add_argument("--self-test", action="store_true", help="check the checker by the specification's examples, and stop")
    parser.add_argument("--list", action="store_true", help="list the walks and stop")
    return parser.parse_args()


def binary_path(given: Path | None) -> Path:
    target = os.environ.get("CARGO_TARGET_DIR")
    path = given or Path(target or here.parents[1] / "target") / "debug" / "stoa"
    if not path.is_file():
        raise SystemExit(f"no stoa binary at {path}; build it (cargo build) or give --binary or --url")
    return path


def main() -> int:
    args = arguments()
    for chapter in CHAPTERS:
        importlib.import_module(f"walks.{chapter}")
    chosen = [w for w in WALKS if not args.only or any(o in w[1] for o in args.only)]
    if args.list:
        print("\n".join(title for _, title, _ in chosen))
        return 0
    spec = Spec(args.spec)
    known = []
    if args.oracle:
        known = importlib.import_module(f"oracle_{args.oracle}").KNOWN
    report = Report(spec, known)
    selftest.run(spec, report)
    if args.self_test or report.failures:
        return finish(report)
    report.passed = 0
    stoa = None

    def start(**settings) -> Stoa:
        server = Stoa(binary_path(args.binary), (here / "stoa.toml").read_text(), **settings)
        server.wait()
        return server

    if not args.url:
        stoa = start()
    try:
        harness = Harness(spec, Client(args.url or stoa.url), report, start if stoa else None)
        for _, title, function in chosen:
            harness.run_walk(title, function)
            if stoa and stoa.process.poll() is not None:
                report.result(None, "the server ended during this walk", [stoa.tail()])
                break
    finally:
        if stoa:
            code = stoa.stop()
            report.walk = "after the run"
            report.result(None, "graceful shutdown on SIGTERM", [] if code == 0 else [f"exit code {code}"])
    report.walk = "coverage"
    if not args.only:
        for gap in report.gaps(REQUIRED, NOT_EXERCISED):
            report.result(gap.split(":")[0], "coverage", [gap])
    if args.coverage:
        args.coverage.write_text(report.table(REQUIRED, NOT_EXERCISED))
    if args.record:
        args.record.write_text(json.dumps(report.recorded))
    if args.failures:
        args.failures.write_text(json.dumps([vars(f) for f in report.failures], indent=1))
    for reason, times in sorted(report.excused.items()):
        print(f"known of {args.oracle}: {reason} ({times})")
    return finish(report)


def finish(report: Report) -> int:
    print(f"{report.passed} passed, {len(report.failures)} failed")
    return 1 if report.failures else 0


if __name__ == "__main__":
    sys.exit(main())
