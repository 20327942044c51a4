"""The price list from end to end, and the different tokens from load to load."""

import json
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from benchmarks import load
from benchmarks.build import build
from benchmarks.credentials import Credentials
from benchmarks.figures import Handshake
from benchmarks.peers import COMPILED, Peer, Running, Site, free_port
from benchmarks.tasks import Extent, handshake

pytestmark = pytest.mark.skipif(shutil.which("cc") is None, reason="no C compiler")


@pytest.mark.skipif(not COMPILED.exists(), reason="no compiled scanner")
def test_a_price_is_measured_with_what_it_builds_on(tmp_path: Path) -> None:
    flags = ["--quick", "--seconds", "1", "--only", "refuse-close", "--loads", "handshakes"]
    done = subprocess.run(
        [sys.executable, "-m", "benchmarks.prices", *flags, "--output", str(tmp_path)],
        cwd=Path(__file__).parent.parent.parent,
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stdout + done.stderr
    document = json.loads((tmp_path / "prices.json").read_text())
    figure = document["figures"]["handshake.cpu_us"]
    assert set(figure["samples"]) == {"least", "HS256", "refuse-close"}
    over = {name: price["over"] for name, price in figure["prices"].items()}
    assert over == {"HS256": "least", "refuse-close": "HS256"}
    assert "refused with a close frame" in (tmp_path / "prices.md").read_text()


def test_a_load_takes_the_tokens_behind_those_of_the_last(tmp_path: Path) -> None:
    build(tmp_path)
    site = Site(tmp_path, tmp_path, Credentials.make(tmp_path), {0}, free_port())
    argv = ("@BUILD@/relay", "--port", "@PORT@", "--upstream", "@PORT_UPSTREAM@")
    extent = Extent(seconds=1, warmup=0, idle=(0, 0, 0), tokens=10)
    different = Handshake("handshake", "", "HS256", different=True)
    same = Handshake("same", "", "HS256")
    with (
        load.echo(tmp_path, site.upstream),
        Running(Peer("relay", "", argv, ("HS256",), blind=True), site) as it,
    ):
        assert it.target("HS256", 10)[-2:] == ["--header-start", "0"]
        handshake(different, site, extent, it)
        first = it.presented["HS256"]
        handshake(same, site, extent, it)
        assert it.presented["HS256"] == first > 0
        assert it.target("HS256", 10)[-2:] == ["--header-start", str(first)]
        handshake(different, site, extent, it)
        assert it.presented["HS256"] > first
