"""The documents name what is there."""

import re
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent
THREATS = [
    [cell.strip() for cell in line.strip("|\n").split("|")]
    for line in (ROOT / "THREAT_MODEL.md").read_text().splitlines()
    if line.startswith("| ") and not line.startswith("| Threat")
]


@pytest.mark.parametrize("name", ["THREAT_MODEL.md", "CONTRIBUTING.md"])
def test_every_file_that_a_document_names_is_there(name: str) -> None:
    named = re.findall(r"`((?:sidecar|tests)/[^`]*|\.ci/run)`", (ROOT / name).read_text())
    assert named
    assert [path for path in named if not (ROOT / path).exists()] == []


def test_every_threat_has_its_modules_and_tests() -> None:
    assert len(THREATS) >= 30
    for threat, answer, where, tests in THREATS:
        assert threat
        assert answer
        assert where.startswith("`sidecar/")
        assert tests.startswith("`tests/")
