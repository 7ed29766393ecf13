"""The specification's data as validators.

Reads the OpenAPI files (api/client-server/*.yaml) and the event schemas (event-schemas/schema/*.yaml) of the folder that
is given, and answers two questions: is this body what operation X may answer with status Y, and is this event what its
type says. The files are JSON Schema 2020-12 with `x-` keys; `format: mx-...` names are those of string-formats.yaml.
"""

from __future__ import annotations

import re
from dataclasses import dataclass, field
from pathlib import Path
from urllib.parse import unquote, urlsplit

import yaml
from jsonschema import Draft202012Validator, FormatChecker, validators
from jsonschema.exceptions import ValidationError
from referencing import Registry, Resource
from referencing.jsonschema import DRAFT202012

Loader = getattr(yaml, "CSafeLoader", yaml.SafeLoader)
METHODS = ("get", "put", "post", "delete")

SERVER_NAME = r"(?:\[[0-9A-Fa-f:.]{2,45}\]|[0-9A-Za-z.-]{1,255})(?::[0-9]{1,5})?"
FORMATS = {
    "mx-user-id": rf"@[^:\x00]+:{SERVER_NAME}",
    "mx-event-id": r"\$.+",
    # Room version 12 room ids have no server name.
    "mx-room-id": r"!.+",
    "mx-room-alias": rf"#[^:\x00]+:{SERVER_NAME}",
    "mx-server-name": SERVER_NAME,
    "mx-mxc-uri": rf"mxc://{SERVER_NAME}/[0-9A-Za-z_-]+",
    "mx-unpadded-base64": r"[0-9A-Za-z+/]*",
    "mx-urlsafe-unpadded-base64": r"[0-9A-Za-z_-]*",
    "email": r"[^@\s]+@[^@\s]+",
}
LONGEST_ID = {"mx-user-id", "mx-event-id", "mx-room-id", "mx-room-alias"}


def _format_checker() -> FormatChecker:
    checker = FormatChecker(formats=())
    for name, pattern in FORMATS.items():

        def check(value, regex=re.compile(pattern, re.DOTALL), limited=name in LONGEST_ID):
            if not isinstance(value, str):
                return True
            return bool(regex.fullmatch(value)) and not (limited and len(value.encode()) > 255)

        checker.checks(name)(check)
    checker.checks("uri")(lambda v: not isinstance(v, str) or bool(urlsplit(v).scheme))
    checker.checks("int64")(
        lambda v: not isinstance(v, int) or isinstance(v, bool) or -(2**63) <= v < 2**63
    )
    return checker


def _is_integer(_checker, value) -> bool:
    # JSON Schema lets 1.0 pass as an integer; a Matrix server has no business writing floats there.
    return isinstance(value, int) and not isinstance(value, bool)


def _pattern_properties(validator, patterns, instance, schema):
    """As usual, and in addition: where every pattern has an x-pattern-format, no other keys may appear."""
    if not validator.is_type(instance, "object"):
        return
    known = schema.get("properties", {})
    strict = all(isinstance(s, dict) and "x-pattern-format" in s for s in patterns.values())
    for key, value in instance.items():
        hit = False
        for pattern, subschema in patterns.items():
            if not re.search(pattern, key):
                continue
            hit = True
            wanted = isinstance(subschema, dict) and subschema.get("x-pattern-format")
            if wanted in FORMATS and not re.fullmatch(FORMATS[wanted], key, re.DOTALL):
                yield ValidationError(f"key {key!r} is not a {wanted}")
            yield from validator.descend(value, subschema, path=key, schema_path=pattern)
        if strict and not hit and key not in known:
            yield ValidationError(f"key {key!r} matches none of {sorted(patterns)}")


def _one_of(validator, subschemas, instance, _schema):
    """At least one: some alternatives of the specification overlap (an event is also "an object")."""
    reasons = []
    for subschema in subschemas:
        errors = list(validator.descend(instance, subschema))
        if not errors:
            return
        reasons.append(f"{_json_path(errors[0])}: {_short(errors[0].message)}")
    yield ValidationError("fits none of the alternatives: " + " | ".join(reasons))


MatrixValidator = validators.extend(
    Draft202012Validator,
    {"patternProperties": _pattern_properties, "oneOf": _one_of},
    type_checker=Draft202012Validator.TYPE_CHECKER.redefine("integer", _is_integer),
)


@dataclass
class Operation:
    """One row of the specification: a method on a path template."""

    id: str
    method: str
    template: str
    auth: bool
    file: Path
    node: dict
    documented: dict[str, set[str]] = field(default_factory=dict)  # status -> error codes that it names

    @property
    def has_json_body(self) -> bool:
        return "application/json" in self.node.get("requestBody", {}).get("content", {})


class Spec:
    """Everything that is read from the folder of the specification's data."""

    def __init__(self, root: Path):
        self.root = root.resolve()
        self._files: dict[Path, dict] = {}
        self._registry = Registry(retrieve=self._retrieve)
        self._validators: dict[str, MatrixValidator] = {}
        self.operations: dict[str, Operation] = {}
        self.by_route: dict[tuple[str, str], Operation] = {}
        folder = self.root / "api/client-server"
        if not folder.is_dir():
            raise SystemExit(f"{root} is not the folder of the specification's data (no api/client-server in it)")
        for path in sorted(folder.glob("*.yaml")):
            self._read_operations(path)
        self.event_schemas = {p.name[:-5]: p for p in (self.root / "event-schemas/schema").glob("m.*.yaml")}

    # reading

    def load(self, path: Path) -> dict:
        if path not in self._files:
            self._files[path] = _strip_refs(yaml.load(path.read_text(encoding="utf-8"), Loader))
        return self._files[path]

    def _retrieve(self, uri: str) -> Resource:
        return Resource(contents=self.load(Path(unquote(urlsplit(uri).path))), specification=DRAFT202012)

    def _read_operations(self, path: Path) -> None:
        document = self.load(path)
        server = document["servers"][0]
        base = server.get("variables", {}).get("basePath", {}).get("default", "")
        for template, node in document["paths"].items():
            for method in METHODS:
                if method not in node:
                    continue
                op_node = node[method]
                operation = Operation(
                    id=op_node["operationId"],
                    method=method.upper(),
                    # Two operations share a path in places, and the files then add a space to the second.
                    template=(base + template).strip(),
                    auth=any("accessTokenBearer" in s and len(s) == 1 for s in op_node.get("security", [])),
                    file=path,
                    node=op_node,
                )
                for status, response in op_node["responses"].items():
                    if str(status) != "200":
                        operation.documented[str(status)] = _error_codes(self.resolve(path, response)[1])
                self.operations[operation.id] = operation
                self.by_route.setdefault((operation.method, operation.template), operation)

    def resolve(self, path: Path, node):
        """Follows a chain of $ref; returns the file it ended in and the node."""
        while isinstance(node, dict) and "$ref" in node:
            target, _, pointer = node["$ref"].partition("#")
            if target:
                path = (path.parent / target).resolve()
            node = self.load(path)
            for part in filter(None, pointer.split("/")):
                node = node[part]
        return path, node

    # validating

    def _validator(self, path: Path, schema: dict) -> MatrixValidator:
        key = f"{path}#{id(schema)}"
        if key not in self._validators:
            # The schema stands inside a larger file, so its $refs (also '#/components/...') resolve against that file.
            resolver = self._registry.resolver(path.as_uri())
            self._validators[key] = MatrixValidator(
                schema, registry=self._registry, _resolver=resolver, format_checker=_format_checker()
            )
        return self._validators[key]

    def problems(self, path: Path, schema: dict, value) -> list[str]:
        errors = self._validator(path, schema).iter_errors(value)
        return [f"{_json_path(e)}: {_short(e.message)}" for e in sorted(errors, key=lambda e: list(map(str, e.path)))]

    def response(self, operation: Operation, status: int):
        """(file, response object) for a status, or None where the operation does not document it."""
        responses = operation.node["responses"]
        for key in (str(status), status, f"{status // 100}xx", f"{status // 100}XX", "default"):
            if key in responses:
                return self.resolve(operation.file, responses[key])
        return None

    def response_schema(self, operation: Operation, status: int, content_type: str):
        """(file, schema), or None where the operation has no schema for this status and type."""
        found = self.response(operation, status)
        if found is None:
            return None
        path, response = found
        content = response.get("content", {}).get(content_type)
        if content is None or "schema" not in content:
            return None
        return path, content["schema"]

    def request_schema(self, operation: Operation):
        path, body = self.resolve(operation.file, operation.node.get("requestBody", {}))
        content = body.get("content", {}).get("application/json")
        return (path, content["schema"]) if content and "schema" in content else None

    def error_problems(self, body) -> list[str]:
        """The standard error response: both keys, whatever the operation documents."""
        path = self.root / "api/client-server/definitions/errors/error.yaml"
        problems = self.problems(path, self.load(path), body)
        if isinstance(body, dict) and not isinstance(body.get("error"), str):
            problems.append("$: the key 'error' must always be present as a string")
        return problems

    def auth_problems(self, body) -> list[str]:
        """A 401 of user-interactive authentication."""
        path = self.root / "api/client-server/definitions/auth_response.yaml"
        problems = self.problems(path, self.load(path), body)
        if not isinstance(body.get("session"), str):
            problems.append("$: no session")
        if "errcode" in body:
            problems += self.error_problems(body)
        return problems

    def event_schema(self, event_type: str, content: dict) -> Path | None:
        """The schema file of an event, by type and (for m.room.message and key verification) by its variant."""
        if event_type == "m.room.message" and isinstance(content.get("msgtype"), str):
            return self.event_schemas.get(f"m.room.message${content['msgtype']}") or self.event_schemas.get(event_type)
        return self.event_schemas.get(event_type)


def _strip_refs(node):
    """Removes stray white space in $ref, of which the files have some."""
    if isinstance(node, dict):
        return {
            k: v.strip() if k == "$ref" and isinstance(v, str) else _strip_refs(v) for k, v in node.items() if k != "$schema"
        }
    if isinstance(node, list):
        return [_strip_refs(v) for v in node]
    return node


def _error_codes(response) -> set[str]:
    codes = set(re.findall(r"\bM_[A-Z_]+[A-Z]\b", str(response)))
    # Some examples have the reference to the common error object only, whose own example is M_UNKNOWN.
    return codes


def _json_path(error: ValidationError) -> str:
    return "$" + "".join(f"[{p}]" if isinstance(p, int) else f".{p}" for p in error.absolute_path)


def _short(text: str, limit: int = 300) -> str:
    return text if len(text) <= limit else text[: limit - 40] + " ... " + text[-35:]
