"""Checks of the checker: what the specification itself gives as examples fits its schemas, and spoilt examples do not."""

from __future__ import annotations

import copy
import json
from pathlib import Path

from events import event_problems
from report import Report
from spec import Spec, _strip_refs


def run(spec: Spec, report: Report) -> None:
    report.walk = "self-test"
    spoilt = 0
    for operation in spec.operations.values():
        for status in operation.node["responses"]:
            path, response = spec.response(operation, int(status))
            content = response.get("content", {}).get("application/json", {})
            if "schema" not in content:
                continue
            for name, example in content.get("examples", {}).items():
                where, node = spec.resolve(path, example)
                if "value" not in node:
                    continue
                value = whole(spec, where, node["value"])
                what = f"the specification's example {name} of {operation.id} {status}"
                report.result("self-test", what, spec.problems(path, content["schema"], value))
                spoilt += spoil(spec, report, path, content["schema"], value, what)
    report.result("self-test", "spoilt examples were found out", [] if spoilt > 500 else [f"only {spoilt} were tried"])
    for name in spec.event_schemas:
        example = spec.root / "event-schemas/examples" / f"{name}.yaml"
        if example.is_file():
            report.result("self-test", f"the specification's example event {name}", event_problems(spec, whole(spec, example, spec.load(example))))


def whole(spec: Spec, path: Path, node):
    """An example with its references filled in."""
    if isinstance(node, dict):
        if "$ref" in node:
            target = (path.parent / node["$ref"]).resolve()
            if target.suffix == ".json":
                referred = _strip_refs(json.loads(target.read_text()))
            else:
                referred = spec.load(target)
            return {**whole(spec, target, referred), **{k: whole(spec, path, v) for k, v in node.items() if k != "$ref"}}
        return {k: whole(spec, path, v) for k, v in node.items()}
    if isinstance(node, list):
        return [whole(spec, path, v) for v in node]
    return node


def spoil(spec: Spec, report: Report, path: Path, schema: dict, value, what: str) -> int:
    """Removes each required key and gives each described key of the top level a value of the wrong kind."""
    _, resolved = spec.resolve(path, schema)
    if not isinstance(value, dict) or not isinstance(resolved, dict):
        return 0
    tried = 0
    for key in resolved.get("required", []):
        broken = copy.deepcopy(value)
        if broken.pop(key, None) is not None:
            tried += 1
            found = spec.problems(path, schema, broken)
            report.result("self-test", what, [] if found else [f"nobody misses {key!r}"])
    for key, node in resolved.get("properties", {}).items():
        kind = node.get("type") if isinstance(node, dict) else None
        if key in value and kind in ("string", "integer", "object", "array", "boolean"):
            wrong = 1.5 if kind != "string" else 17
            tried += 1
            found = spec.problems(path, schema, {**value, key: wrong})
            report.result("self-test", what, [] if found else [f"{key!r} may be {wrong}, though it is of type {kind}"])
    return tried
