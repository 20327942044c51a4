"""The committed reference and JSON Schema are those of the schema."""

import json
import subprocess
import sys
from pathlib import Path

import pytest

from sidecar.config.reference import json_schema, main, markdown

DOCS = Path(__file__).parent.parent.parent / "docs"


def test_the_committed_reference_is_up_to_date() -> None:
    assert (DOCS / "policy-reference.md").read_text() == markdown()


def test_the_committed_json_schema_is_up_to_date() -> None:
    assert json.loads((DOCS / "policy.schema.json").read_text()) == json_schema()


def test_the_tool_writes_the_reference(capsys: pytest.CaptureFixture[str]) -> None:
    main([])
    assert capsys.readouterr().out == markdown()


def test_the_tool_writes_the_json_schema(capsys: pytest.CaptureFixture[str]) -> None:
    main(["--json-schema"])
    assert json.loads(capsys.readouterr().out) == json_schema()


def test_the_module_can_be_run() -> None:
    command = [sys.executable, "-m", "sidecar.config.reference", "--json-schema"]
    output = subprocess.run(command, check=True, capture_output=True).stdout
    assert json.loads(output) == json_schema()


@pytest.mark.parametrize(
    "line",
    [
        '| `handshake_timeout` | duration | `"10s"` | From the first byte',
        "| `url` | text | required | `ws://host:port`",
        "| `secrets` | list of secret or null |  | Shared secrets",
        "| `messages` | rate or mapping or null |  | The rate of the client's messages. |",
        "Not supported yet: `messages`, `shadow`.",
        "| `when` | values by pointer | required | What tells it from other messages. |",
        "| `reply` | message |  | What a good token is answered; null is nothing. |",
        "## `jwt.providers.NAME`",
        "## `routes[].authenticate.sources[]`",
        "| `limits` | mapping |  | What one connection may send. |",
    ],
)
def test_the_reference_tells_type_default_and_meaning(line: str) -> None:
    assert line in markdown()


def test_the_json_schema_knows_short_forms_and_forbids_unknown_keys() -> None:
    schema = json_schema()
    short, mapping = schema["$defs"]["MessageLimit"]["anyOf"]
    assert short["type"] == "string"
    assert mapping["additionalProperties"] is False
    assert schema["$defs"]["Refuse"]["properties"]["with"]["enum"] == ["http", "close", "auto"]
