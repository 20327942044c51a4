"""What is shipped: the wheel, the lock files, the container image."""

import configparser
import os
import re
import shutil
import subprocess
import sys
import tomllib
from pathlib import Path
from zipfile import ZipFile

import pytest
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

from sidecar import __version__

ROOT = Path(__file__).parent.parent
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
DOCKERFILE = (ROOT / "Dockerfile").read_text().replace("\\\n", " ")
LOCKS = ("requirements.lock", "requirements-dev.lock", "requirements-build.lock")
WHEEL_SOURCES = ("pyproject.toml", "setup.py", "README.md", "LICENSE", "sidecar")


@pytest.fixture(scope="module")
def wheel(tmp_path_factory: pytest.TempPathFactory) -> ZipFile:
    """The wheel, built from the same files as in the image and as the Dockerfile does it."""
    source = tmp_path_factory.mktemp("source")
    for name in WHEEL_SOURCES:
        if (ROOT / name).is_dir():
            shutil.copytree(
                ROOT / name, source / name, ignore=shutil.ignore_patterns("__pycache__")
            )
        else:
            shutil.copy(ROOT / name, source)
    command = "-m pip --quiet wheel --no-index --no-deps --no-build-isolation --wheel-dir dist ."
    done = subprocess.run(
        [sys.executable, *command.split()],
        cwd=source,
        env={**os.environ, "WS_SIDECAR_COMPILE": "off"},  # test_build.py compiles
        capture_output=True,
        text=True,
    )
    assert done.returncode == 0, done.stderr
    (built,) = (source / "dist").glob("*.whl")
    return ZipFile(built)


def instructions(name: str) -> list[str]:
    return re.findall(rf"^{name}\s+(.*)$", DOCKERFILE, flags=re.MULTILINE)


def pins(lock: str) -> dict[str, str]:
    """Names and versions that a lock file pins."""
    found = re.findall(r"^([\w.-]+)==([^\s;]+)", (ROOT / lock).read_text(), flags=re.MULTILINE)
    return {canonicalize_name(name): version for name, version in found}


def test_the_wheel_holds_every_module_and_the_type_marker(wheel: ZipFile) -> None:
    files = (ROOT / "sidecar").rglob("*.py")
    modules = {file.relative_to(ROOT).as_posix() for file in files}
    assert modules | {"sidecar/py.typed"} <= set(wheel.namelist())


def test_the_wheel_holds_nothing_else(wheel: ZipFile) -> None:
    roots = {name.partition("/")[0] for name in wheel.namelist()}
    assert roots == {"sidecar", f"ws_auth_sidecar-{__version__}.dist-info"}


def test_the_wheel_carries_the_license(wheel: ZipFile) -> None:
    info = f"ws_auth_sidecar-{__version__}.dist-info"
    assert wheel.read(f"{info}/licenses/LICENSE") == (ROOT / "LICENSE").read_bytes()


def test_the_wheel_installs_the_command(wheel: ZipFile) -> None:
    scripts = configparser.ConfigParser()
    scripts.read_string(
        wheel.read(f"ws_auth_sidecar-{__version__}.dist-info/entry_points.txt").decode()
    )
    assert dict(scripts["console_scripts"]) == {"ws-sidecar": "sidecar.cli:main"}


def test_the_version_is_one() -> None:
    assert PROJECT["version"] == __version__
    assert f"## {__version__}" in (ROOT / "CHANGELOG.md").read_text()


@pytest.mark.parametrize(
    ("lock", "wanted"),
    [
        ("requirements.lock", PROJECT["dependencies"]),
        (
            "requirements-dev.lock",
            PROJECT["dependencies"] + PROJECT["optional-dependencies"]["dev"],
        ),
    ],
)
def test_a_lock_file_fits_the_project(lock: str, wanted: list[str]) -> None:
    pinned = pins(lock)
    for text in wanted:
        requirement = Requirement(text)
        assert requirement.specifier.contains(pinned[canonicalize_name(requirement.name)]), text


@pytest.mark.parametrize("lock", ["requirements.lock", "requirements-build.lock"])
def test_the_lock_files_agree(lock: str) -> None:
    assert pins(lock).items() <= pins("requirements-dev.lock").items()


@pytest.mark.parametrize("lock", LOCKS)
def test_a_lock_file_pins_hashes_and_names_no_place(lock: str) -> None:
    text = (ROOT / lock).read_text()
    entries = re.findall(r"^[\w.-]+==(?:\\\n|.)*", text, flags=re.MULTILINE)
    assert len(entries) == len(pins(lock)) > 0
    assert all("--hash=sha256:" in entry for entry in entries)
    assert not re.search(r"://|^-|\s@\s|(?<!\w)/", text, flags=re.MULTILINE)


def test_the_dockerfile_passes_its_linter() -> None:
    hadolint = Path(sys.executable).with_name("hadolint")
    done = subprocess.run([hadolint, ROOT / "Dockerfile"], capture_output=True, text=True)
    assert done.returncode == 0, done.stdout


def test_the_image_is_made_in_two_stages_from_pinned_tags() -> None:
    first, last = instructions("FROM")
    assert re.fullmatch(r"python:3\.\d+-slim AS builder", first)
    assert first.split()[0] == last


def test_the_image_installs_locked_dependencies_only() -> None:
    installs = [
        step for run in instructions("RUN") for step in run.split("&&") if " install " in step
    ]
    (from_debian,) = (step.split() for step in installs if "apt-get" in step)
    assert from_debian[-2:] == ["gcc", "libc6-dev"]
    for step in installs:
        if "apt-get" in step:
            continue
        assert "--require-hashes" in step or "--no-deps" in step


def test_the_image_has_the_compiled_scanner_and_no_compiler() -> None:
    builder, final = DOCKERFILE.rsplit("FROM ", 1)
    assert "WS_SIDECAR_COMPILE=require pip wheel" in builder
    assert not re.search(r"gcc|apt-get|cython", final, flags=re.IGNORECASE)


def test_the_image_runs_as_a_numeric_user() -> None:
    (user,) = instructions("USER")
    assert re.fullmatch(r"[1-9]\d*:[1-9]\d*", user)


def test_the_image_has_a_health_check_without_a_shell() -> None:
    (check,) = instructions("HEALTHCHECK")
    assert 'CMD ["python", "-I"' in check
    assert "/livez" in check


def test_the_image_writes_no_bytecode() -> None:
    assert any("PYTHONDONTWRITEBYTECODE=1" in line for line in instructions("ENV"))


def test_the_image_starts_the_server_with_the_mounted_policy() -> None:
    assert instructions("ENTRYPOINT") == ['["ws-sidecar"]']
    command = [line for line in instructions("CMD") if line.startswith('["serve"')]
    assert command == ['["serve", "--config", "/etc/ws-auth-sidecar"]']
    assert instructions("EXPOSE") == ["8080 9090"]


def test_the_build_context_lets_in_what_the_dockerfile_copies() -> None:
    ignored = (ROOT / ".dockerignore").read_text().splitlines()
    copied = {
        source
        for line in instructions("COPY")
        if not line.startswith("--from")
        for source in line.split()[:-1]
    }
    assert ignored[1] == "*"
    assert {f"!{source}" for source in copied} <= set(ignored)
    assert copied >= set(WHEEL_SOURCES)
