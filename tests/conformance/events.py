"""Events wherever they appear in a body: each is held against the schema of its type."""

from __future__ import annotations

from spec import Spec

# A redacted event keeps only some keys of its content, so the schema of its type says nothing about it.
STRIPPED_LISTS = {"invite_state", "knock_state", "children_state"}


def event_problems(spec: Spec, body) -> list[str]:
    """Problems of all events anywhere in `body`."""
    found: list[str] = []
    _walk(spec, body, "$", False, found)
    return found


def _walk(spec: Spec, node, path: str, stripped: bool, found: list[str]) -> None:
    if isinstance(node, list):
        for index, item in enumerate(node):
            _walk(spec, item, f"{path}[{index}]", stripped, found)
    elif isinstance(node, dict):
        if isinstance(node.get("type"), str) and isinstance(node.get("content"), dict):
            found += [f"{path} ({node['type']}) {p}" for p in one_event(spec, node, stripped)]
            unsigned = node.get("unsigned")
            if isinstance(unsigned, dict):
                for key in ("redacted_because", "m.relations", "invite_room_state", "knock_room_state"):
                    _walk(spec, unsigned.get(key), f"{path}.unsigned.{key}", key.endswith("_state"), found)
            return
        for key, value in node.items():
            _walk(spec, value, f"{path}.{key}", stripped or key in STRIPPED_LISTS, found)


def one_event(spec: Spec, event: dict, stripped: bool) -> list[str]:
    """Problems of one event, as room event, stripped state event or plain event by the keys that it has."""
    core = spec.root / "event-schemas/schema/core-event-schema"
    redacted = isinstance(event.get("unsigned"), dict) and "redacted_because" in event["unsigned"]
    schema_path = None if redacted else spec.event_schema(event["type"], event["content"])
    if stripped:
        problems = spec.problems(core / "stripped_state.yaml", spec.load(core / "stripped_state.yaml"), event)
        return problems + _content_problems(spec, schema_path, event)
    if "event_id" not in event:
        path = schema_path or core / "event.yaml"
        return spec.problems(path, spec.load(path), event)
    # Events in /sync have no room_id; the schemas of room events require one "everywhere else".
    whole = event if "room_id" in event else {**event, "room_id": "!from-the-key-above:localhost"}
    base = core / ("state_event.yaml" if "state_key" in event else "room_event.yaml")
    problems = spec.problems(base, spec.load(base), whole)
    if schema_path is not None:
        problems += spec.problems(schema_path, spec.load(schema_path), whole)
    unsigned = event.get("unsigned", {})
    if isinstance(unsigned, dict) and isinstance(unsigned.get("age"), int) and not -60_000 < unsigned["age"] < 86_400_000:
        problems.append(f"$.unsigned.age: {unsigned['age']} is not the age of an event that this run sent")
    return list(dict.fromkeys(problems))


def _content_problems(spec: Spec, schema_path, event: dict) -> list[str]:
    if schema_path is None:
        return []
    filled = {
        "event_id": "$stripped", "room_id": "!stripped:localhost", "origin_server_ts": 0, **event,
    }  # fmt: skip
    return [p for p in spec.problems(schema_path, spec.load(schema_path), filled) if p.startswith("$.content")]
