"""Changes of a policy's files, as editors, deployments and kubelets make them.

A watcher is asked here by hand, so that no test waits for a clock.
"""

import os
import shutil
import time
from collections.abc import Mapping
from pathlib import Path

import pytest

from sidecar.config.source import load_policy
from sidecar.config.watch import PolicyWatcher, named_files

POLICY = """\
upstreams: {{chat: {{url: "ws://127.0.0.1:{port}"}}}}
routes: [{{authenticate: {{anonymous: true}}}}]
# {padding}
"""


def text(port: int) -> str:
    """A policy whose size tells it from those with other ports: a file system's clock ticks only
    every few milliseconds.
    """
    return POLICY.format(port=port, padding="x" * (port - 9000))


def write(path: Path, port: int = 9000) -> Path:
    path.write_text(text(port))
    return path


def tick(path: Path) -> None:
    """Wait until the clock of the file system has moved on since the file was changed."""
    probe = path.with_name("probe")
    probe.touch()
    while probe.stat().st_ctime_ns <= path.stat().st_ctime_ns:
        time.sleep(0.001)
        probe.touch()
    probe.unlink()


def settled(watcher: PolicyWatcher) -> bool:
    """What the watcher says once nothing moves any more."""
    return any([watcher.changed(), watcher.changed()])


def port(path: Path) -> int:
    return load_policy([path], {}).policy.upstreams["chat"].address.port


@pytest.fixture
def policy(tmp_path: Path) -> Path:
    return write(tmp_path / "policy.yaml")


@pytest.fixture
def watcher(policy: Path) -> PolicyWatcher:
    return PolicyWatcher([policy])


def test_nothing_has_changed_where_nothing_changes(watcher: PolicyWatcher) -> None:
    assert not any(watcher.changed() for _ in range(5))


def test_a_change_is_told_once_and_when_it_has_settled(
    watcher: PolicyWatcher, policy: Path
) -> None:
    write(policy, 9001)
    assert [watcher.changed() for _ in range(4)] == [False, True, False, False]
    write(policy, 9002)
    assert [watcher.changed() for _ in range(3)] == [False, True, False]


def test_a_file_that_is_being_written_is_left_alone(watcher: PolicyWatcher, policy: Path) -> None:
    with policy.open("w") as file:
        for line in text(9001).splitlines(keepends=True):
            file.write(line)
            file.flush()
            assert not watcher.changed()
    assert watcher.changed()
    assert port(policy) == 9001


def test_a_write_that_stalls_is_told_again_when_it_is_done(
    watcher: PolicyWatcher, policy: Path
) -> None:
    with policy.open("w") as file:  # empty now, as an editor that truncates leaves it
        assert settled(watcher)
        file.write(text(9001))
    assert settled(watcher)
    assert port(policy) == 9001


def test_an_editor_that_renames_is_noticed(watcher: PolicyWatcher, policy: Path) -> None:
    written = write(policy.with_name(".policy.yaml.swp"), 9001)
    assert not settled(watcher)
    written.rename(policy)
    assert settled(watcher)


def test_an_editor_that_moves_the_old_file_away_is_noticed_once(
    watcher: PolicyWatcher, policy: Path
) -> None:
    policy.rename(policy.with_name("policy.yaml~"))
    assert not watcher.changed()
    write(policy, 9001)
    assert [watcher.changed() for _ in range(3)] == [False, True, False]


def test_a_change_of_nothing_but_the_text_is_noticed(watcher: PolicyWatcher, policy: Path) -> None:
    times = policy.stat()
    tick(policy)
    policy.write_text(policy.read_text().replace("9000", "9009"))
    os.utime(policy, ns=(times.st_atime_ns, times.st_mtime_ns))
    assert policy.stat().st_size == times.st_size
    assert settled(watcher)


def test_a_change_that_was_undone_before_it_settled_is_none(policy: Path) -> None:
    link, other = policy.with_name("link.yaml"), write(policy.with_name("other.yaml"), 9001)
    link.symlink_to(policy)
    watcher = PolicyWatcher([link])
    link.unlink()
    link.symlink_to(other)
    assert not watcher.changed()
    link.unlink()
    link.symlink_to(policy)
    assert not settled(watcher)


def test_a_file_that_vanishes_and_returns_is_told_of_both(
    watcher: PolicyWatcher, policy: Path
) -> None:
    policy.unlink()
    assert settled(watcher)
    assert not settled(watcher)
    write(policy, 9001)
    assert settled(watcher)


def test_a_file_that_is_not_there_yet_is_waited_for(tmp_path: Path) -> None:
    watcher = PolicyWatcher([tmp_path / "late.yaml"])
    assert not settled(watcher)
    write(tmp_path / "late.yaml")
    assert settled(watcher)


def test_new_rights_are_a_change(watcher: PolicyWatcher, policy: Path) -> None:
    tick(policy)
    policy.chmod(0)
    assert settled(watcher)
    tick(policy)
    policy.chmod(0o600)
    assert settled(watcher)


# Mounted ConfigMaps: config/policy.yaml -> ..data/policy.yaml, and ..data -> a folder with a date


@pytest.fixture
def mounted(tmp_path: Path) -> Path:
    folder = tmp_path / "config"
    folder.mkdir()
    for name in ("a.yaml", "b.yaml"):
        (folder / name).symlink_to(f"..data/{name}")
    swap(folder, 9000)
    return folder


def swap(folder: Path, number: int) -> None:
    """What a kubelet does: a new folder, a new link, one rename; then the old folder goes."""
    old = (folder / "..data").resolve() if (folder / "..data").exists() else None
    new = folder / f"..2026_01_01_{number}"
    new.mkdir()
    write(new / "a.yaml", number)
    (new / "b.yaml").write_text("logging: {level: debug}\n")
    (folder / "..data_tmp").symlink_to(new.name)
    (folder / "..data_tmp").rename(folder / "..data")
    if old is not None:
        shutil.rmtree(old)


def test_the_swap_of_a_config_map_is_noticed(mounted: Path) -> None:
    by_file, by_folder = PolicyWatcher([mounted / "a.yaml"]), PolicyWatcher([mounted])
    assert not settled(by_file)
    for number in (9001, 9002):
        swap(mounted, number)
        assert [by_file.changed() for _ in range(3)] == [False, True, False]
        assert settled(by_folder)
        assert port(mounted / "a.yaml") == number


def test_two_swaps_in_a_row_are_read_once(mounted: Path) -> None:
    watcher = PolicyWatcher([mounted])
    swap(mounted, 9001)
    assert not watcher.changed()
    swap(mounted, 9002)
    assert [watcher.changed() for _ in range(3)] == [False, True, False]


def test_files_of_a_folder_that_come_and_go_are_noticed(tmp_path: Path) -> None:
    write(tmp_path / "a.yaml")
    watcher = PolicyWatcher([tmp_path])
    (tmp_path / "notes.txt").write_text("not a policy")
    (tmp_path / ".hidden.yaml").write_text("{")
    assert not settled(watcher)
    more = tmp_path / "b.yml"
    more.write_text("logging: {level: debug}")
    assert settled(watcher)
    more.rename(tmp_path / "c.yml")
    assert settled(watcher)
    (tmp_path / "c.yml").unlink()
    assert settled(watcher)


def test_a_folder_that_cannot_be_listed_is_a_change(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    write(tmp_path / "a.yaml")
    watcher = PolicyWatcher([tmp_path])

    def refuse(_: Path) -> None:  # rights do not stop the superuser, who may run this
        raise PermissionError

    with monkeypatch.context() as patch:
        patch.setattr(Path, "iterdir", refuse)
        assert settled(watcher)
    assert settled(watcher)


# Files that the policy names


def test_only_files_that_are_not_watched_elsewhere_are_named(
    material: Path, environ: Mapping[str, str], tmp_path: Path
) -> None:
    tls = f"{{ca: {material}/tls.crt, certificate: {material}/tls.crt, key: {material}/tls.key}}"
    app = f"{{algorithms: [HS256], secrets: [{{file: {material}/secret}}]}}"
    lines = (
        "upstreams:\n"
        f'  up: {{url: "wss://127.0.0.1:9000", tls: {tls}}}\n'
        '  down: {url: "ws://127.0.0.1:9001"}\n'
        f"jwt: {{providers: {{app: {app}}}}}\n"
        "routes: [{upstream: up}]\n"
    )
    (tmp_path / "p.yaml").write_text(lines)
    policy = load_policy([tmp_path / "p.yaml"], environ).policy
    assert named_files(policy) == (f"{material}/tls.crt", f"{material}/tls.key")


def test_named_files_are_followed(watcher: PolicyWatcher, tmp_path: Path) -> None:
    one, two = tmp_path / "one.pem", tmp_path / "two.pem"
    one.write_text("1")
    watcher.follow([str(one), str(two)])
    assert not settled(watcher)
    two.write_text("2")
    assert settled(watcher)
    watcher.follow([str(two)])
    one.write_text("11")
    assert not settled(watcher)


def test_a_change_while_the_policy_was_read_is_not_missed(
    watcher: PolicyWatcher, policy: Path, tmp_path: Path
) -> None:
    certificate = tmp_path / "ca.pem"
    certificate.write_text("1")
    watcher.follow([str(certificate)])
    certificate.write_text("22")
    watcher.follow([str(certificate)])
    assert settled(watcher)
    write(policy, 9001)
    watcher.follow([])
    assert settled(watcher)
