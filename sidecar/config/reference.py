"""The policy's reference and its JSON Schema, both made from the schema's own descriptions.

``python -m sidecar.config.reference > docs/policy-reference.md``
``python -m sidecar.config.reference --json-schema > docs/policy.schema.json``
"""

import argparse
import json
import sys
from collections.abc import Iterator, Mapping, Sequence
from typing import Any, Final

from pydantic.json_schema import GenerateJsonSchema, JsonSchemaMode

from sidecar.config.schema import PolicyFile

__all__ = ["json_schema", "main", "markdown"]

_Schema = Mapping[str, Any]

_HEAD: Final = """\
# Policy reference

Every key that the sidecar understands. This page is made from the program's own schema by
`python -m sidecar.config.reference`; `policy.schema.json` beside it serves editors.

Several files, or folders with `*.yaml` and `*.yml` files, make one policy: mappings are merged, the
lists of routes joined. The same provider, upstream or route name twice, and two values for one key,
are errors. File names in a policy are relative to the folder of the file that they stand in.

## Values

| Form | Meaning |
|---|---|
| duration | `250ms`, `30s`, `5m`, `1h30m`, `7d`: the unit is part of the value |
| size | `512B`, `64KiB`, `1MiB`, `100KB`: KB is 1000 bytes, KiB 1024 |
| rate | `100/second`, `60/minute`, `10/hour`, or a mapping with `rate` and `burst`; of bytes: \
`1MiB/second` |
| secret | `{env: NAME}`, `{file: /path}` (without one newline at its end; read again when it \
changes) or `{value: "..."}` (`check` warns) |
| template | `{user}`, `{claims.email}`, `{path.room}`, `{request.host}`, `{session.provider}`; \
`{{` is a brace. Put quotes around it |
| message | any value, sent as one JSON text message; in its texts the templates `{user}`, \
`{claims.NAME}`, `{reason}`, `{expires_in}` and `{now}` (whole seconds), `{now_ms}` and `{uuid}`. \
A text that is one template keeps the value's type; what is missing is null, or nothing in a \
longer text |
| pointer | `/data/token`: a JSON pointer (RFC 6901) into a message |
| claim | a top-level name such as `email`, or a JSON pointer such as `/realm_access/roles` |
| true, false | only these; `yes`, `no`, `on` and `off` are text |
| number | decimal digits; `012`, `0x1f`, `1_000` and `12:30` are text |

`${NAME}` and `${NAME:-default}` in a value stand for an environment variable (upper case); the
default also for an empty one. `$${` is the text `${`. In a value without quotes the result is read
again, so that `${MAX:-100}` can be a number; in quotes it stays text. Anchors, aliases, merge keys,
tags, duplicate keys and further documents are errors.
"""


class _Untitled(GenerateJsonSchema):
    """Without titles that only repeat the keys."""

    def field_title_should_be_set(self, schema: Any) -> bool:
        return False


def json_schema(mode: JsonSchemaMode = "validation") -> dict[str, Any]:
    """The JSON Schema of a policy, after environment variables are filled in."""
    schema = PolicyFile.model_json_schema(schema_generator=_Untitled, mode=mode)
    return {"$schema": _Untitled.schema_dialect, **schema, "title": "ws-auth-sidecar policy"}


def markdown() -> str:
    """The reference as Markdown."""
    schema = json_schema()
    return _HEAD + "".join(_section("", schema, schema["$defs"]))


def _section(path: str, schema: _Schema, definitions: _Schema) -> Iterator[str]:
    """The table of one mapping, then those of the mappings in it."""
    yield f"\n## {f'`{path}`' if path else 'The file'}\n\n{_line(schema['description'])}\n\n"
    yield "| Key | Value | Default | Meaning |\n|---|---|---|---|\n"
    required = schema.get("required", ())
    for name, member in schema["properties"].items():
        default = "required" if name in required else _default(member)
        # pydantic leaves out a key's description that only repeats its mapping's
        meaning = member.get("description") or _resolve(member, definitions)["description"]
        cells = (f"`{name}`", _form(member, definitions), default, meaning)
        yield f"| {' | '.join(_cell(cell) for cell in cells)} |\n"
    if later := schema.get("x-not-supported-yet"):
        yield f"\nNot supported yet: {', '.join(f'`{name}`' for name in later)}.\n"
    for name, member in schema["properties"].items():
        for suffix, inner in _mappings(member, definitions):
            yield from _section(f"{path}.{name}{suffix}".lstrip("."), inner, definitions)


def _mappings(schema: _Schema, definitions: _Schema) -> Iterator[tuple[str, _Schema]]:
    """The mappings with known keys that a value may be or hold; secrets are explained above."""
    if schema.get("$ref", "").endswith("/Secret"):
        return
    schema = _resolve(schema, definitions)
    if "properties" in schema:
        yield "", schema
    for option in schema.get("anyOf", ()):
        yield from _mappings(option, definitions)
    for key, mark in (("items", "[]"), ("additionalProperties", ".NAME")):
        if isinstance(inner := schema.get(key), dict):
            for suffix, mapping in _mappings(inner, definitions):
                yield mark + suffix, mapping


def _resolve(schema: _Schema, definitions: _Schema) -> _Schema:
    reference = schema.get("$ref")
    return definitions[reference.rpartition("/")[2]] if reference else schema


def _form(schema: _Schema, definitions: _Schema) -> str:
    """What a value looks like, in a word or two."""
    if schema.get("$ref", "").endswith("/Secret"):
        return "secret"
    schema = _resolve(schema, definitions)
    if "anyOf" in schema:
        return " or ".join(dict.fromkeys(_form(one, definitions) for one in schema["anyOf"]))
    if "const" in schema:
        return f"`{schema['const']}`"
    if "enum" in schema:
        return ", ".join(f"`{word}`" for word in schema["enum"])
    if "x-form" in schema:
        return str(schema["x-form"])
    return _plain_form(schema, definitions)


def _plain_form(schema: _Schema, definitions: _Schema) -> str:
    kind = schema["type"]
    if kind == "array":
        return f"list of {_form(schema['items'], definitions)}"
    if kind == "object":
        inner = schema.get("additionalProperties")
        return f"{_form(inner, definitions)} by name" if isinstance(inner, dict) else "mapping"
    names: dict[Any, str] = {"boolean": "true, false", "integer": "whole number", "string": "text"}
    kinds = kind if isinstance(kind, list) else [kind]
    return " or ".join(names.get(one, str(one)) for one in kinds)


def _default(member: _Schema) -> str:
    default = member["default"]
    return "" if default in (None, {}, [], [{}]) else f"`{json.dumps(default)}`"


def _cell(text: str) -> str:
    return _line(text).replace("|", "\\|")


def _line(text: str) -> str:
    return " ".join(text.split())


def main(argv: Sequence[str] | None = None) -> None:
    """Write the reference, or the JSON Schema, to the standard output."""
    parser = argparse.ArgumentParser(prog="python -m sidecar.config.reference")
    parser.add_argument("--json-schema", action="store_true", help="write the JSON Schema instead")
    args = parser.parse_args(argv)
    text = json.dumps(json_schema(), indent=2) + "\n" if args.json_schema else markdown()
    sys.stdout.write(text)


if __name__ == "__main__":
    main()
