"""Contexts from a policy's files, and their re-reading."""

import asyncio
import os
import ssl
from pathlib import Path

import pytest
from structlog.testing import capture_logs

from sidecar.config.source import load_policy
from sidecar.policy.compiled import Policy
from sidecar.proxy import certificates
from sidecar.proxy.certificates import Certificates
from tests.support.certificates import Authority, authority
from tests.support.sidecars import ENVIRON, policy_of
from tests.support.special_files import special_file

Files = tuple[Path, Path]


def policy(folder: Path, files: Files, client_ca: Path | None = None, **upstream: object) -> Policy:
    path = folder / "policy.yaml"
    tls = {"certificate": str(files[0]), "key": str(files[1])}
    tls |= {"client_ca": str(client_ca)} if client_ca else {}
    main = {"url": "ws://127.0.0.1:9000", **upstream}
    path.write_text(policy_of("", server={"tls": tls}, upstreams={"main": main}))
    return load_policy([path], ENVIRON).policy


def shown_by(context: ssl.SSLContext, trusted: Authority, client: Files | None = None) -> bool:
    """Whether a handshake in memory succeeds: with a certificate of this authority shown, and
    this client certificate accepted.
    """
    server_in, client_in = ssl.MemoryBIO(), ssl.MemoryBIO()
    server_side = context.wrap_bio(server_in, client_in, server_side=True)
    trusting = ssl.create_default_context(cafile=str(trusted.ca))
    if client is not None:
        trusting.load_cert_chain(*client)
    client_side = trusting.wrap_bio(client_in, server_in, server_hostname="127.0.0.1")
    for _ in range(4):
        for side in (client_side, server_side):
            try:
                side.do_handshake()
            except ssl.SSLWantReadError:
                continue
            except ssl.SSLError:
                return False
    return True


def put(fresh: Files, files: Files) -> None:
    for source, target in zip(fresh, files, strict=True):
        os.replace(source, target)


def test_without_tls_there_is_nothing(tmp_path: Path) -> None:
    path = tmp_path / "policy.yaml"
    path.write_text(policy_of("ws://127.0.0.1:9000"))
    found = Certificates(load_policy([path], ENVIRON).policy)
    assert (found.server, found.upstreams) == (None, {})
    found.refresh()
    assert found.server is None


def test_files_that_have_not_changed_are_left_alone(tmp_path: Path) -> None:
    ours = authority(tmp_path)
    found = Certificates(policy(tmp_path, ours.issue("127.0.0.1")))
    with capture_logs() as logs:
        found.refresh()
    assert logs == []


def test_a_new_certificate_is_shown_from_then_on(tmp_path: Path) -> None:
    old, new = authority(tmp_path, "old"), authority(tmp_path, "new")
    files = old.issue("127.0.0.1")
    found = Certificates(policy(tmp_path, files))
    assert found.server is not None
    assert shown_by(found.server, old)
    put(new.issue("127.0.0.1"), files)
    with capture_logs() as logs:
        found.refresh()
    assert [line["event"] for line in logs] == ["certificate_reloaded"]
    assert shown_by(found.server, new)
    assert not shown_by(found.server, old)


def test_a_new_client_authority_is_the_only_one_asked(tmp_path: Path) -> None:
    ours, old, new = (authority(tmp_path, name) for name in ("ours", "old", "new"))
    client_ca = tmp_path / "clients.pem"
    client_ca.write_bytes(old.ca.read_bytes())
    found = Certificates(policy(tmp_path, ours.issue("127.0.0.1"), client_ca))
    known, unknown = old.issue("somebody", client=True), new.issue("somebody", client=True)
    assert found.server is not None
    assert shown_by(found.server, ours, known)
    assert not shown_by(found.server, ours, unknown)
    assert not shown_by(found.server, ours)
    client_ca.write_bytes(new.ca.read_bytes())
    found.refresh()
    assert shown_by(found.server, ours, unknown)
    assert not shown_by(found.server, ours, known)
    assert not shown_by(found.server, ours)


def test_a_client_certificate_is_asked_for_in_every_handshake(tmp_path: Path) -> None:
    ours = authority(tmp_path)
    found = Certificates(policy(tmp_path, ours.issue("127.0.0.1"), ours.ca))
    assert found.server is not None
    assert found.server.num_tickets == 0
    assert found.server.options & ssl.OP_NO_TICKET


def test_the_swap_of_a_mounted_secret_is_seen(tmp_path: Path) -> None:
    """A mounted Secret is a folder of symlinks through ..data, which is renamed over."""
    old, new = authority(tmp_path, "old"), authority(tmp_path, "new")
    for issuer in (old, new):
        folder = tmp_path / f"..{issuer.name}"
        folder.mkdir()
        put(issuer.issue("127.0.0.1"), (folder / "tls.crt", folder / "tls.key"))
    data = tmp_path / "..data"
    data.symlink_to("..old")
    files = tmp_path / "tls.crt", tmp_path / "tls.key"
    for file in files:
        file.symlink_to(f"..data/{file.name}")
    found = Certificates(policy(tmp_path, files))
    swapped = tmp_path / "..data_tmp"
    swapped.symlink_to("..new")
    os.replace(swapped, data)
    found.refresh()
    assert found.server is not None
    assert shown_by(found.server, new)


@pytest.mark.parametrize("broken", ["certificate", "key", "mismatch", "gone", "pipe"])
def test_files_that_cannot_be_used_leave_the_old_ones(tmp_path: Path, broken: str) -> None:
    old, new = authority(tmp_path, "old"), authority(tmp_path, "new")
    files = old.issue("127.0.0.1")
    found = Certificates(policy(tmp_path, files))
    fresh = new.issue("127.0.0.1")
    match broken:
        case "certificate":
            files[0].write_text("nothing of the kind")
        case "key":
            files[1].write_text("nothing of the kind")
        case "mismatch":
            os.replace(fresh[0], files[0])
        case "gone":
            files[0].unlink()
        case "pipe":
            special_file(files[0].parent, "pipe", files[0].name)
    with capture_logs() as logs:
        found.refresh()
        found.refresh()
    (failed,) = logs
    assert failed["event"] == "certificate_reload_failed"
    assert failed["files"] == [str(file) for file in files]
    assert failed["remedy"] == "mend the files; what they said before is in use until then"
    assert found.server is not None
    assert shown_by(found.server, old)
    put(new.issue("127.0.0.1"), files)
    found.refresh()
    assert shown_by(found.server, new)


def test_a_wss_upstream_has_a_context_of_its_own(tmp_path: Path) -> None:
    ours = authority(tmp_path)
    client = ours.issue("sidecar", client=True)
    tls = {"ca": str(ours.ca), "certificate": str(client[0]), "key": str(client[1])}
    found = Certificates(
        policy(tmp_path, ours.issue("127.0.0.1"), url="wss://127.0.0.1:9443", tls=tls)
    )
    context = found.upstreams["main"]
    assert context.verify_mode is ssl.CERT_REQUIRED
    assert context.check_hostname
    assert context.minimum_version is ssl.TLSVersion.TLSv1_2
    assert len(context.get_ca_certs()) == 1


async def test_the_watch_sees_a_change_by_itself(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(certificates, "_POLL", 0.01)
    old, new = authority(tmp_path, "old"), authority(tmp_path, "new")
    files = old.issue("127.0.0.1")
    found = Certificates(policy(tmp_path, files))
    assert found.server is not None
    watching = asyncio.create_task(found.watch())
    put(new.issue("127.0.0.1"), files)
    async with asyncio.timeout(5):
        while not shown_by(found.server, new):
            await asyncio.sleep(0.01)
    watching.cancel()
    with pytest.raises(asyncio.CancelledError):
        await watching


def test_old_versions_of_tls_are_refused(tmp_path: Path) -> None:
    ours = authority(tmp_path)
    found = Certificates(policy(tmp_path, ours.issue("127.0.0.1")))
    assert found.server is not None
    assert found.server.minimum_version is ssl.TLSVersion.TLSv1_2


def test_others_take_their_place_and_are_watched(tmp_path: Path) -> None:
    old, new, newest = (authority(tmp_path, name) for name in ("old", "new", "newest"))
    found = Certificates(policy(tmp_path, old.issue("127.0.0.1")))
    files = new.issue("127.0.0.1")
    tls = {"ca": str(new.ca)}
    found.adopt(Certificates(policy(tmp_path, files, url="wss://127.0.0.1:9443", tls=tls)))
    assert found.server is not None
    assert shown_by(found.server, new)
    assert set(found.upstreams) == {"main"}
    put(newest.issue("127.0.0.1"), files)
    found.refresh()
    assert shown_by(found.server, newest)
