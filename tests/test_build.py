"""The package is built with and without the compiled scanner, and says which one it has."""

import os
import shutil
import subprocess
import sys
import tarfile
from pathlib import Path
from zipfile import ZipFile

import pytest

from tests.support.tokens import SECRET

ROOT = Path(__file__).parent.parent
SOURCES = ("pyproject.toml", "setup.py", "README.md", "LICENSE", "sidecar")
MADE_BY_COMPILING = (".so", ".c", ".html", ".pyd")
NO_COMPILER = {"CC": "no-such-compiler", "LDSHARED": "no-such-compiler"}
WHEEL = "-m pip wheel -v --no-index --no-deps --no-build-isolation --wheel-dir dist ."


def copy(folder: Path) -> Path:
    """What the package is built from, in a folder of its own."""
    ignored = shutil.ignore_patterns("__pycache__")
    for name in SOURCES:
        if (ROOT / name).is_dir():
            shutil.copytree(ROOT / name, folder / name, ignore=ignored)
        else:
            shutil.copy(ROOT / name, folder)
    return folder


def build(folder: Path, command: str, **environ: str) -> subprocess.CompletedProcess[str]:
    """Run Python with this command, there and with these variables."""
    return subprocess.run(
        [sys.executable, *command.split(maxsplit=1 if command.startswith("-c ") else -1)],
        cwd=folder,
        env={**os.environ, **environ},
        capture_output=True,
        text=True,
    )


def wheel_of(folder: Path, compiling: str, **environ: str) -> Path:
    done = build(copy(folder), WHEEL, WS_SIDECAR_COMPILE=compiling, **environ)
    assert done.returncode == 0, done.stdout + done.stderr
    (wheel,) = (folder / "dist").glob("*.whl")
    return wheel


@pytest.fixture(scope="module")
def python_wheel(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return wheel_of(tmp_path_factory.mktemp("python"), "off")


@pytest.fixture(scope="module")
def compiled_wheel(tmp_path_factory: pytest.TempPathFactory) -> Path:
    wheel = wheel_of(tmp_path_factory.mktemp("compiled"), "auto")
    if wheel.name.endswith("-none-any.whl"):
        pytest.skip("nothing can be compiled here: no Cython or no C compiler")
    return wheel


def compiled_files(wheel: Path) -> set[str]:
    names = ZipFile(wheel).namelist()
    return {name.partition(".")[0] for name in names if name.endswith(MADE_BY_COMPILING)}


def checked(wheel: Path, folder: Path) -> str:
    """What the program in the wheel says of the sample policy."""
    ZipFile(wheel).extractall(folder)
    done = build(
        folder,
        f"-m sidecar check {ROOT / 'sample-config.yaml'}",
        PYTHONPATH=str(folder),
        JWT_SECRET=SECRET,
    )
    assert done.returncode == 0, done.stderr
    return done.stdout


def test_without_compiling_the_wheel_is_for_every_machine(python_wheel: Path) -> None:
    assert python_wheel.name.endswith("-py3-none-any.whl")
    assert compiled_files(python_wheel) == set()


def test_with_compiling_the_wheel_is_for_this_machine(compiled_wheel: Path) -> None:
    version = f"cp{sys.version_info.major}{sys.version_info.minor}"
    assert f"-{version}-{version}-" in compiled_wheel.name
    assert compiled_files(compiled_wheel) == {
        "sidecar/wire/buckets",
        "sidecar/wire/scanner",
        "sidecar/wire/tap",
    }


def test_both_wheels_hold_the_same_beside_it(python_wheel: Path, compiled_wheel: Path) -> None:
    def rest(wheel: Path) -> set[str]:
        return {name for name in ZipFile(wheel).namelist() if not name.endswith(MADE_BY_COMPILING)}

    assert rest(python_wheel) == rest(compiled_wheel)


def test_the_program_of_the_python_wheel_runs_and_says_so(
    python_wheel: Path, tmp_path: Path
) -> None:
    assert checked(python_wheel, tmp_path).endswith("; scanner: python\n")


def test_the_program_of_the_compiled_wheel_runs_and_says_so(
    compiled_wheel: Path, tmp_path: Path
) -> None:
    assert checked(compiled_wheel, tmp_path).endswith("; scanner: compiled\n")


def test_without_a_compiler_the_wheel_is_built_with_a_warning(tmp_path: Path) -> None:
    done = build(copy(tmp_path), WHEEL, WS_SIDECAR_COMPILE="auto", **NO_COMPILER)
    assert done.returncode == 0, done.stdout + done.stderr
    assert "warning: the scanner is not compiled and will be slower: there is no C compiler" in (
        done.stdout + done.stderr
    )
    assert [file.name[-17:] for file in (tmp_path / "dist").iterdir()] == ["-py3-none-any.whl"]


def test_without_cython_the_wheel_is_built_with_a_warning(tmp_path: Path) -> None:
    absent = tmp_path / "absent" / "Cython"
    absent.mkdir(parents=True)
    (absent / "__init__.py").write_text("raise ImportError")
    done = build(copy(tmp_path), WHEEL, WS_SIDECAR_COMPILE="auto", PYTHONPATH=str(absent.parent))
    assert done.returncode == 0, done.stdout + done.stderr
    assert "will be slower: Cython is not installed" in done.stdout + done.stderr
    assert [file.name[-17:] for file in (tmp_path / "dist").iterdir()] == ["-py3-none-any.whl"]


def test_where_compiling_is_required_a_build_without_a_compiler_fails(tmp_path: Path) -> None:
    done = build(copy(tmp_path), WHEEL, WS_SIDECAR_COMPILE="require", **NO_COMPILER)
    assert done.returncode != 0
    assert "error: the scanner cannot be compiled: there is no C compiler" in (
        done.stdout + done.stderr
    )


def test_an_unknown_wish_is_an_error(tmp_path: Path) -> None:
    done = build(copy(tmp_path), WHEEL, WS_SIDECAR_COMPILE="yes")
    assert done.returncode != 0
    assert "error: WS_SIDECAR_COMPILE is 'yes'; write auto, require or off" in (
        done.stdout + done.stderr
    )


@pytest.mark.parametrize("wish", ["auto", "off"])
def test_the_source_archive_has_what_compiling_needs_and_nothing_it_makes(
    tmp_path: Path, wish: str
) -> None:
    copy(tmp_path)
    for made in ("scanner.c", "scanner.html", "scanner.so"):
        (tmp_path / "sidecar" / "wire" / made).touch()
    done = build(
        tmp_path,
        "-c from setuptools import build_meta; build_meta.build_sdist('dist')",
        WS_SIDECAR_COMPILE=wish,
    )
    assert done.returncode == 0, done.stderr
    (archive,) = (tmp_path / "dist").glob("*.tar.gz")
    with tarfile.open(archive) as opened:
        names = {name.partition("/")[2] for name in opened.getnames()}
    wanted = {f"sidecar/wire/{name}.pxd" for name in ("buckets", "scanner", "tap")}
    assert {"setup.py", *wanted} <= names
    assert [name for name in names if name.endswith(MADE_BY_COMPILING)] == []


def test_the_wheel_leaves_out_what_a_compiler_left_among_the_sources(tmp_path: Path) -> None:
    copy(tmp_path)
    for made in ("scanner.c", "scanner.html", "scanner.so"):
        (tmp_path / "sidecar" / "wire" / made).touch()
    done = build(tmp_path, WHEEL, WS_SIDECAR_COMPILE="off")
    assert done.returncode == 0, done.stderr
    (wheel,) = (tmp_path / "dist").glob("*.whl")
    assert compiled_files(wheel) == set()


def test_an_editable_install_never_compiles_among_the_sources(tmp_path: Path) -> None:
    done = build(
        copy(tmp_path),
        "-c from setuptools import build_meta; build_meta.build_editable('dist')",
        WS_SIDECAR_COMPILE="auto",
    )
    assert done.returncode == 0, done.stderr
    assert list((tmp_path / "dist").glob("*.whl"))
    made = [file for file in (tmp_path / "sidecar").rglob("*") if file.suffix in MADE_BY_COMPILING]
    assert made == []


def test_a_build_in_place_compiles_nothing(tmp_path: Path) -> None:
    done = build(copy(tmp_path), "setup.py build_ext --inplace", WS_SIDECAR_COMPILE="auto")
    assert done.returncode == 0, done.stderr
    made = [file for file in (tmp_path / "sidecar").rglob("*") if file.suffix in MADE_BY_COMPILING]
    assert made == []


def test_no_compiled_module_stands_among_the_sources() -> None:
    made = [file for file in (ROOT / "sidecar").rglob("*") if file.suffix in MADE_BY_COMPILING]
    assert made == []
