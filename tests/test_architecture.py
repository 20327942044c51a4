"""The shape of the code: imports point down, pure modules stay pure, files and functions short."""

import ast
from collections.abc import Iterator
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent
FILES = sorted((ROOT / "sidecar").rglob("*.py"))

# Each package (or top-level module) may import what stands in a lower tier, and itself.
TIERS = (
    ("model", "errors"),
    ("policy", "wire", "clock"),
    ("state", "observe", "config"),
    ("auth",),
    ("proxy", "admin", "issue"),
    ("workers",),
    ("cli",),
)
# Within one tier: the shell wires the admin listener, and errors carry the model's reasons.
SIDEWAYS = {("proxy", "admin"), ("errors", "model")}
PURE = ("model", "errors", "wire", "policy")
PURE_FILES = {"auth/verify.py", "auth/logout.py", "state/base.py", "state/memory.py"}
IMPURE = {"asyncio", "aiohttp", "redis", "socket", "structlog", "time"}
LONGEST_FILE = 400
LONGEST_FUNCTION = 60
# The loop that every byte passes: a call for each of its steps would cost more than the step.
HOT_LOOPS = {"sidecar/wire/scanner.py": {"feed": 100}}


def tier(package: str) -> int:
    return next(number for number, names in enumerate(TIERS) if package in names)


def may_import(importer: str, imported: str) -> bool:
    return (
        importer == imported or (importer, imported) in SIDEWAYS or tier(imported) < tier(importer)
    )


def package_of(file: Path) -> str:
    """The package or module right under sidecar/ that a file belongs to; "" for its __init__."""
    first = file.relative_to(ROOT / "sidecar").parts[0].removesuffix(".py")
    return "" if first.startswith("__") else first


def imports(tree: ast.AST) -> Iterator[tuple[int, str]]:
    """Line and full dotted name of everything that is imported, at any depth."""
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            yield from ((node.lineno, alias.name) for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            yield from ((node.lineno, f"{node.module}.{alias.name}") for alias in node.names)


def upward_imports(package: str, source: str) -> list[str]:
    found = []
    for line, name in imports(ast.parse(source)):
        root, _, rest = name.partition(".")
        imported = rest.partition(".")[0]
        if root != "sidecar" or imported.startswith("__"):
            continue
        if not may_import(package, imported):
            found.append(f"{line}: {package} imports {name}")
    return found


def impure_imports(source: str) -> list[str]:
    names = imports(ast.parse(source))
    return [f"{line}: {name}" for line, name in names if name.partition(".")[0] in IMPURE]


def functions(tree: ast.AST) -> Iterator[tuple[str, int]]:
    for node in ast.walk(tree):
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef):
            assert node.end_lineno is not None
            yield node.name, node.end_lineno - node.lineno + 1


def is_pure(file: Path) -> bool:
    inside = file.relative_to(ROOT / "sidecar").as_posix()
    return package_of(file) in PURE or inside in PURE_FILES


def name_of(file: Path) -> str:
    return file.relative_to(ROOT).as_posix()


@pytest.mark.parametrize("file", [file for file in FILES if package_of(file)], ids=name_of)
def test_imports_point_down(file: Path) -> None:
    assert upward_imports(package_of(file), file.read_text()) == []


@pytest.mark.parametrize("file", [file for file in FILES if is_pure(file)], ids=name_of)
def test_pure_modules_know_no_clock_and_no_network(file: Path) -> None:
    assert impure_imports(file.read_text()) == []


@pytest.mark.parametrize("file", FILES, ids=name_of)
def test_imports_are_absolute(file: Path) -> None:
    nodes = ast.walk(ast.parse(file.read_text()))
    assert [node.lineno for node in nodes if isinstance(node, ast.ImportFrom) and node.level] == []


@pytest.mark.parametrize("file", FILES, ids=name_of)
def test_files_and_functions_are_short(file: Path) -> None:
    source = file.read_text()
    assert source.count("\n") <= LONGEST_FILE
    allowed = HOT_LOOPS.get(name_of(file), {})
    long = [
        (name, length)
        for name, length in functions(ast.parse(source))
        if length > allowed.get(name, LONGEST_FUNCTION)
    ]
    assert long == []


@pytest.mark.parametrize(
    ("package", "source"),
    [
        ("policy", "from sidecar.wire.handshake import parse"),
        ("policy", "import sidecar.config"),
        ("wire", "from sidecar import auth"),
        ("admin", "from sidecar.proxy.app import serve"),
        ("auth", "def late():\n    from sidecar.proxy import app"),
        ("model", "import sidecar.errors"),
    ],
)
def test_an_import_that_does_not_point_down_is_found(package: str, source: str) -> None:
    assert len(upward_imports(package, source)) == 1


@pytest.mark.parametrize(
    ("package", "source"),
    [
        ("policy", "from sidecar.policy.routes import Route\nimport asyncio"),
        ("proxy", "from sidecar.admin import app"),
        ("cli", "from sidecar import __version__, proxy"),
    ],
)
def test_an_import_that_points_down_passes(package: str, source: str) -> None:
    assert upward_imports(package, source) == []


@pytest.mark.parametrize("source", ["import aiohttp.web", "from time import time"])
def test_an_impure_import_is_found(source: str) -> None:
    assert len(impure_imports(source)) == 1


def test_every_package_has_its_tier() -> None:
    packages = {package_of(file) for file in FILES} - {""}
    assert packages <= {name for names in TIERS for name in names}
