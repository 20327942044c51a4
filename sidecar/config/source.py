"""Files and folders to one compiled policy."""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from sidecar.config.compile import compile_policy
from sidecar.config.files import fault, open_regular
from sidecar.config.load import MAX_BYTES, load, unknown
from sidecar.config.merge import merge_files, with_defaults
from sidecar.config.nodes import Section
from sidecar.config.problems import bounded, sorted_problems
from sidecar.config.salvage import validate
from sidecar.errors import ConfigError, Problem
from sidecar.policy.compiled import Policy

__all__ = ["Document", "Loaded", "compile_documents", "load_policy", "policy_files"]


@dataclass(frozen=True, slots=True)
class Document:
    """The content of a policy file, as it was read. It may hold a secret, and is not shown."""

    file: str
    data: bytes = field(repr=False)


@dataclass(frozen=True, slots=True)
class Loaded:
    """A policy that can be used, what is unwise about it, and what it was made of."""

    policy: Policy
    warnings: tuple[Problem, ...]
    documents: tuple[Document, ...]


def load_policy(
    paths: Sequence[Path], environ: Mapping[str, str], *, pipes: bool = False
) -> Loaded:
    """Read the files, and the files of the folders, as one policy. With `pipes` a path may also be
    a pipe or a terminal, whose end is waited for: for commands that read it once.

    Raises ConfigError with every mistake: of YAML, between the files, of keys, of values and
    between them. What may only follow from another mistake is left out.
    """
    if not paths:
        raise ConfigError([Problem("", 0, 0, "", "there is no policy", "name a file or folder")])
    return compile_documents([one for path in paths for one in _read_all(path, pipes)], environ)


def compile_documents(read: Sequence[Document | Problem], environ: Mapping[str, str]) -> Loaded:
    """The policy of files that were read before, whatever they hold by now; a Problem stands for
    one that could not be.

    Raises ConfigError as `load_policy` does: also for what the policy only names, such as secrets
    and certificates, which is read now.
    """
    root, problems = _merged(read, environ)
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
    documents = tuple(one for one in read if isinstance(one, Document))
    return Loaded(*compiled, documents)


def _merged(
    read: Sequence[Document | Problem], environ: Mapping[str, str]
) -> tuple[Section, list[Problem]]:
    (root, first), *more = (_section(one, environ) for one in read)
    problems = list(first)
    for section, found in more:
        root, conflicts = merge_files(root, section)
        problems += [*found, *conflicts]
    return root, problems


def _section(
    one: Document | Problem, environ: Mapping[str, str]
) -> tuple[Section, tuple[Problem, ...]]:
    if isinstance(one, Problem):
        return unknown(one.file, one.wrong, one.remedy)
    return load(one.data, one.file, environ)


def _read_all(path: Path, pipes: bool) -> Iterator[Document | Problem]:
    """The file, or each of the folder's; or why it cannot be read."""
    try:
        files = policy_files(path)
    except OSError as error:
        yield _unreadable(path, error)
        return
    if not files:
        wrong = "the folder has no *.yaml or *.yml file"
        yield Problem(str(path), 0, 0, "", wrong, "name a policy file")
    for file in files:
        try:
            yield Document(str(file), _read(file, pipes and file == path))
        except (OSError, ValueError) as error:
            yield _unreadable(file, error)


def _unreadable(path: Path, error: OSError | ValueError) -> Problem:
    return Problem(str(path), 0, 0, "", *fault(error, "check the path and its rights"))


def policy_files(path: Path) -> list[Path]:
    """The file itself, or a folder's YAML files in name order. Raises OSError for a folder that
    cannot be listed.

    Hidden names are left out, so that the ``..data`` of a mounted ConfigMap is not read twice.
    """
    if not path.is_dir():
        return [path]
    names = sorted(entry.name for entry in path.iterdir())
    found = [name for name in names if name.endswith((".yaml", ".yml")) and name[0] != "."]
    return [path / name for name in found]


def _read(path: Path, pipes: bool) -> bytes:
    with path.open("rb") if pipes else open_regular(path) as file:
        return file.read(MAX_BYTES + 1)
