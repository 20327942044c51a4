"""Where the policy is, in the arguments of every command."""

import argparse
from pathlib import Path

import pytest

from sidecar.cli import main
from sidecar.cli.arguments import add_policy, policy_paths

POLICY = """\
upstreams: {chat: {url: "ws://127.0.0.1:9000"}}
jwt: {providers: {app: {algorithms: [HS256], secrets: [{env: SECRET}]}}}
"""


def parsed(*args: str, positional: bool = True) -> list[Path]:
    parser = argparse.ArgumentParser()
    add_policy(parser, positional=positional)
    return list(policy_paths(parser.parse_args(args)))


@pytest.mark.parametrize(
    "args",
    [
        ["a", "b"],
        ["-c", "a", "-c", "b"],
        ["--config", "a", "--config", "b"],
        ["--config=a", "-cb"],
    ],
)
def test_paths_come_alone_or_as_options(args: list[str]) -> None:
    assert parsed(*args) == [Path("a"), Path("b")]


@pytest.mark.parametrize("args", [[], ["-c"], ["a", "-c", "b"], ["-c", "a", "b"]])
def test_no_path_and_both_forms_at_once_are_refused(
    args: list[str], capsys: pytest.CaptureFixture[str]
) -> None:
    with pytest.raises(SystemExit) as ended:
        parsed(*args)
    assert ended.value.code == 2
    assert "--config" in capsys.readouterr().err


def test_a_command_may_take_options_alone(capsys: pytest.CaptureFixture[str]) -> None:
    assert parsed("-c", "a", positional=False) == [Path("a")]
    for args in ([], ["a"]):
        with pytest.raises(SystemExit):
            parsed(*args, positional=False)
    assert "--config" in capsys.readouterr().err


@pytest.mark.parametrize(
    "args",
    [
        ["check", "{}"],
        ["check", "-c", "{}"],
        ["check", "--config", "{}"],
        ["token", "-c", "{}", "--user", "alice"],
        ["token", "--user", "alice", "--config", "{}"],
    ],
)
def test_the_commands_take_the_policy_in_the_same_ways(
    args: list[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("SECRET", "7f3c0e9a1b5d48e2a6c4f8b0d1e29375")
    (tmp_path / "p.yaml").write_text(POLICY)
    assert main([one.format(tmp_path / "p.yaml") for one in args]) == 0


@pytest.mark.parametrize("args", [["serve", "{}"], ["serve", "-c", "{}"], ["serve", "--config={}"]])
def test_serve_takes_the_policy_in_the_same_ways(
    args: list[str], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main([one.format(tmp_path / "none.yaml") for one in args]) == 1
    assert "none.yaml: cannot be read" in capsys.readouterr().err
