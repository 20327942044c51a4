"""Files and folders to one compiled policy."""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import reduce
from pathlib import Path

from pydantic import ValidationError

from sidecar.config.compile import compile_policy
from sidecar.config.load import MAX_BYTES, load
from sidecar.config.merge import merge_files, with_defaults
from sidecar.config.nodes import Section, plain
from sidecar.config.problems import bounded, schema_problems, sorted_problems
from sidecar.config.salvage import further_problems
from sidecar.config.schema import PolicyFile
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

    Raises ConfigError with every mistake: where the YAML itself is broken those of the YAML, else
    those of keys, of values and between them.
    """
    try:
        root = with_defaults(_read_all(paths, environ))
        return Loaded(*compile_policy(_validate(root, environ), root, environ))
    except ConfigError as error:
        raise ConfigError(bounded(error.problems)) from None


def _validate(root: Section, environ: Mapping[str, str]) -> PolicyFile:
    try:
        return PolicyFile.model_validate(plain(root))
    except ValidationError as error:
        found = schema_problems(error, root)
        further = further_problems(found, error, root, environ)
        raise ConfigError(sorted_problems([*found, *further])) from None


def _read_all(paths: Sequence[Path], environ: Mapping[str, str]) -> Section:
    if not paths:
        raise ConfigError([Problem("", 0, 0, "", "there is no policy", "name a file or folder")])
    problems: list[Problem] = []
    sections: list[Section] = []
    for path in paths:
        try:
            sections += [load(_read(file), str(file), environ) for file in _files(path)]
        except ConfigError as error:
            problems += error.problems
    if problems:
        raise ConfigError(problems)
    return reduce(_merge, sections)


def _merge(first: Section, second: Section) -> Section:
    merged, problems = merge_files(first, second)
    if problems:
        raise ConfigError(problems)
    return merged


def _files(path: Path) -> Iterator[Path]:
    """The file itself, or a folder's YAML files in name order.

    Hidden names are left out, so that the ``..data`` of a mounted ConfigMap is not read twice.
    """
    if not path.is_dir():
        yield path
        return
    names = sorted(entry.name for entry in path.iterdir())
    found = [name for name in names if name.endswith((".yaml", ".yml")) and name[0] != "."]
    if not found:
        raise _unreadable(path, "the folder has no *.yaml or *.yml file", "name a policy file")
    yield from (path / name for name in found)


def _read(path: Path) -> bytes:
    try:
        with path.open("rb") as file:
            return file.read(MAX_BYTES + 1)
    except (OSError, ValueError) as error:
        why = getattr(error, "strerror", None) or "not a valid path"
        raise _unreadable(
            path, f"cannot be read ({why})", "check the path and its rights"
        ) from None


def _unreadable(path: Path, wrong: str, remedy: str) -> ConfigError:
    return ConfigError([Problem(str(path), 0, 0, "", wrong, remedy)])
