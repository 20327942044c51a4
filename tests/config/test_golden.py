"""Policies that cannot be used, or are unwise, and every word that is said of them.

After a change of the texts: `ws-sidecar check NAME.yaml` in the folder, with the environment of
conftest.py, gives what `NAME.expected` should hold, and a last line. Warnings are in
`NAME.warnings`, without the word.
"""

from collections.abc import Mapping
from pathlib import Path

import pytest

from sidecar.config.source import load_policy
from sidecar.errors import ConfigError

GOLDEN = Path(__file__).parent / "golden"
BAD = sorted(file.stem for file in GOLDEN.glob("*.expected"))
UNWISE = sorted(file.stem for file in GOLDEN.glob("*.warnings"))


@pytest.mark.parametrize("name", BAD)
def test_every_mistake_is_told_at_once(
    name: str, environ: Mapping[str, str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(GOLDEN)
    with pytest.raises(ConfigError) as caught:
        load_policy([Path(f"{name}.yaml")], environ)
    assert f"{caught.value}\n" == Path(f"{name}.expected").read_text()


@pytest.mark.parametrize("name", UNWISE)
def test_every_warning_is_told(
    name: str, environ: Mapping[str, str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(GOLDEN)
    warnings = load_policy([Path(f"{name}.yaml")], environ).warnings
    assert "".join(f"{each}\n" for each in warnings) == Path(f"{name}.warnings").read_text()


def test_every_bad_or_unwise_policy_has_its_expected_texts() -> None:
    names = sorted([*BAD, *UNWISE, "full"])
    assert sorted(file.stem for file in GOLDEN.glob("*.yaml")) == names
    assert len(BAD) >= 5
    assert UNWISE
