"""Files and folders to one compiled policy."""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from sidecar.config.compile import compile_policy
from sidecar.config.load import MAX_BYTES, load, unknown
from sidecar.config.merge import merge_files, with_defaults
from sidecar.config.nodes import Section
from sidecar.config.problems import bounded, sorted_problems
from sidecar.config.salvage import validate
from sidecar.errors import ConfigError, Problem
from sidecar.policy.compiled import Policy

__all__ = ["Loaded", "load_policy"]


@dataclass(frozen=True, slots=True)
class Loaded:
    """A policy that can be used, and what is unwise about it."""

    policy: Policy
    warnings: tuple[Problem, ...]


def load_policy(paths: Sequence[Path], environ: Mapping[str, str]) -> Loaded:
    """Read the files, and the files of the folders, as one policy.

    Raises ConfigError with every mistake: of YAML, between the files, of keys, of values and
    between them. What may only follow from another mistake is left out.
    """
    root, problems = _read_all(paths, environ)
    salvaged = validate(with_defaults(root))
    problems += salvaged.problems
    compiled = None
    if salvaged.model is not None:
        try:
            compiled = compile_policy(salvaged.model, salvaged.root, environ)
        except ConfigError as error:
            problems += error.problems
    if problems or compiled is None:
        raise ConfigError(bounded(sorted_problems(problems)))
    return Loaded(*compiled)


def _read_all(paths: Sequence[Path], environ: Mapping[str, str]) -> tuple[Section, list[Problem]]:
    if not paths:
        raise ConfigError([Problem("", 0, 0, "", "there is no policy", "name a file or folder")])
    read = [one for path in paths for one in _sections(path, environ)]
    root, problems = read[0][0], list(read[0][1])
    for section, found in read[1:]:
        root, conflicts = merge_files(root, section)
        problems += [*found, *conflicts]
    return root, problems


def _sections(
    path: Path, environ: Mapping[str, str]
) -> Iterator[tuple[Section, tuple[Problem, ...]]]:
    """The file, or each of the folder's, as far as it can be read."""
    try:
        files = _files(path)
    except OSError as error:
        yield _unreadable(path, error)
        return
    if not files:
        yield unknown(str(path), "the folder has no *.yaml or *.yml file", "name a policy file")
    for file in files:
        try:
            data = _read(file)
        except (OSError, ValueError) as error:
            yield _unreadable(file, error)
        else:
            yield load(data, str(file), environ)


def _unreadable(path: Path, error: Exception) -> tuple[Section, tuple[Problem, ...]]:
    why = getattr(error, "strerror", None) or "not a valid path"
    return unknown(str(path), f"cannot be read ({why})", "check the path and its rights")


def _files(path: Path) -> list[Path]:
    """The file itself, or a folder's YAML files in name order.

    Hidden names are left out, so that the ``..data`` of a mounted ConfigMap is not read twice.
    """
    if not path.is_dir():
        return [path]
    names = sorted(entry.name for entry in path.iterdir())
    found = [name for name in names if name.endswith((".yaml", ".yml")) and name[0] != "."]
    return [path / name for name in found]


def _read(path: Path) -> bytes:
    with path.open("rb") as file:
        return file.read(MAX_BYTES + 1)
