"""The scanner as Python and compiled, side by side in one process."""

import functools
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from importlib.machinery import EXTENSION_SUFFIXES
from importlib.util import module_from_spec, spec_from_file_location
from pathlib import Path
from types import ModuleType

import pytest

import sidecar.proxy.scanners
import sidecar.wire
from sidecar.wire import buckets, scanner, tap

SOURCES = Path(__file__).parents[2] / "sidecar" / "wire"
BUILT = SOURCES.parents[1] / "build" / "compiled" / "sidecar" / "wire"
MODULES = ("buckets", "scanner", "tap")
CLASSES = ("Bucket", "FrameScanner", "TappedScanner")


@dataclass(frozen=True)
class Implementation:
    """The classes in one form; `name` is what `sidecar.wire.implementation` says of it."""

    name: str
    Bucket: type[buckets.Bucket]
    FrameScanner: type[scanner.FrameScanner]
    TappedScanner: type[tap.TappedScanner]


PYTHON = Implementation("python", buckets.Bucket, scanner.FrameScanner, tap.TappedScanner)


@functools.cache
def compiled() -> Implementation:
    """What `make test` compiled; the test is skipped where it could not.

    The test fails where the sources have changed since.
    """
    files = [file for name in MODULES if (file := _compiled_file(name)) is not None]
    if len(files) < len(MODULES):
        pytest.skip("no compiled scanner: `make test` builds it, with Cython and a C compiler")
    for name in (f"{module}.{kind}" for module in MODULES for kind in ("py", "pxd")):
        if (SOURCES / name).read_bytes() != (BUILT / name).read_bytes():
            pytest.fail(f"{name} has changed since it was compiled: run `make test`")
    loaded = _load(files)
    return Implementation(
        "compiled",
        loaded["buckets"].Bucket,
        loaded["scanner"].FrameScanner,
        loaded["tap"].TappedScanner,
    )


def _compiled_file(name: str) -> Path | None:
    files = (BUILT / f"{name}{suffix}" for suffix in EXTENSION_SUFFIXES)
    return next((file for file in files if file.exists()), None)


def _load(files: list[Path]) -> dict[str, ModuleType]:
    """Import these under their own names, without a trace in `sys.modules`."""
    names = [f"sidecar.wire.{name}" for name in MODULES]
    before = {name: sys.modules[name] for name in names}
    loaded = {}
    try:
        for short, name, file in zip(MODULES, names, files, strict=True):
            spec = spec_from_file_location(name, file)
            assert spec is not None
            assert spec.loader is not None
            module = module_from_spec(spec)
            sys.modules[name] = loaded[short] = module  # the scanner imports the buckets
            spec.loader.exec_module(module)
    finally:
        sys.modules.update(before)
    return loaded


@pytest.fixture(scope="module", params=["python", "compiled"])
def implementation(request: pytest.FixtureRequest) -> Iterator[Implementation]:
    """Run the module's tests with the one, then with the other; the relay too takes that one."""
    chosen = PYTHON if request.param == "python" else compiled()
    with pytest.MonkeyPatch.context() as patch:
        for module in (request.module, sidecar.wire, sidecar.proxy.scanners):
            for name in CLASSES:
                if hasattr(module, name):
                    patch.setattr(module, name, getattr(chosen, name))
        yield chosen
