"""`ws-sidecar check`."""

import argparse
import os
from pathlib import Path

import pytest

from sidecar.cli import check

POLICY = """\
upstreams: {chat: {url: "ws://127.0.0.1:9000"}}
jwt: {providers: {app: {algorithms: [HS256], secrets: [{env: SECRET}]}}}
"""


@pytest.fixture(autouse=True)
def surroundings(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("SECRET", "7f3c0e9a1b5d48e2a6c4f8b0d1e29375")


def run(*paths: str) -> int:
    parser = argparse.ArgumentParser()
    check.add_parser(parser.add_subparsers())
    return check.run(parser.parse_args(["check", *paths]))


def test_a_usable_policy_is_summed_up(capsys: pytest.CaptureFixture[str]) -> None:
    Path("p.yaml").write_text(POLICY)
    assert run("p.yaml") == 0
    output = capsys.readouterr()
    assert (
        output.out == "OK: 1 route, 1 provider, 1 upstream, 1 worker, 0 warnings; scanner: python\n"
    )
    assert output.err == ""


def test_what_holds_in_each_worker_is_told(capsys: pytest.CaptureFixture[str]) -> None:
    Path("p.yaml").write_text(POLICY + "server: {workers: 4, max_connections: 10}")
    assert run("p.yaml") == 0
    assert capsys.readouterr().out == (
        "OK: 1 route, 1 provider, 1 upstream, 4 workers, 0 warnings; scanner: python\n"
        "server.max_connections: each of 4 workers takes 3 of 10\n"
    )


def test_several_files_are_one_policy(capsys: pytest.CaptureFixture[str]) -> None:
    Path("p.yaml").write_text(POLICY)
    Path("more").mkdir()
    Path("more/q.yaml").write_text("routes: [{match: {path: /a}}, {match: {path: /b}}]")
    assert run("p.yaml", "more") == 0
    assert capsys.readouterr().out.startswith("OK: 2 routes, ")


def test_warnings_are_told_and_do_no_harm(capsys: pytest.CaptureFixture[str]) -> None:
    Path("p.yaml").write_text(POLICY + "routes: [{authenticate: {anonymous: true}}]")
    assert run("p.yaml") == 0
    output = capsys.readouterr()
    assert (
        output.out == "OK: 1 route, 1 provider, 1 upstream, 1 worker, 1 warning; scanner: python\n"
    )
    assert output.err == (
        "p.yaml:3:37: warning: routes[0].authenticate.anonymous: lets clients without a token "
        "through; leave it out where every client has one\n"
    )


def test_every_mistake_is_told_and_counted(capsys: pytest.CaptureFixture[str]) -> None:
    Path("p.yaml").write_text(POLICY + "serverr: {}\nlogging: {level: loud}\n")
    assert run("p.yaml") == 1
    output = capsys.readouterr()
    assert output.out == ""
    assert output.err == (
        "p.yaml:3:1: serverr: is not a known key; did you mean server?\n"
        "p.yaml:4:18: logging.level: 'loud' is not one of its values; "
        "use debug or info or warning or error\n"
        "not usable: 2 problems\n"
    )


def test_a_missing_file_is_told(capsys: pytest.CaptureFixture[str]) -> None:
    assert run("missing.yaml") == 1
    assert capsys.readouterr().err == (
        "missing.yaml: cannot be read (No such file or directory); check the path and its rights\n"
        "not usable: 1 problem\n"
    )


def test_a_pipe_is_read_to_its_end(capsys: pytest.CaptureFixture[str]) -> None:
    reading, writing = os.pipe()
    try:
        os.write(writing, POLICY.encode())
        os.close(writing)
        assert run(f"/dev/fd/{reading}") == 0
    finally:
        os.close(reading)
    assert capsys.readouterr().out.startswith("OK: 1 route, ")


def test_a_secret_that_is_not_set_is_a_mistake(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("SECRET")
    Path("p.yaml").write_text(POLICY)
    assert run("p.yaml") == 1
    assert "the environment variable SECRET is not set; set it" in capsys.readouterr().err
