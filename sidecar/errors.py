"""The exceptions of the program.

SidecarError
├── ConfigError            the policy cannot be used; carries every problem found
├── HandshakeError         bytes that are not a valid upgrade (client's or upstream's)
├── KeyMaterialError       a key or secret that must not be used
├── KeysUnavailable        a provider has no keys at the moment
├── StateFull              the shared state has no room for what it was to remember
├── TemplateError          a template that does not parse or cannot be filled in
├── UpstreamError          the upstream cannot be reached or does not upgrade
└── WorkerError            a worker process does not do what it was asked for
"""

from collections.abc import Sequence
from dataclasses import dataclass

from sidecar.model import Reason

__all__ = [
    "ConfigError",
    "HandshakeError",
    "KeyMaterialError",
    "KeysUnavailable",
    "Problem",
    "SidecarError",
    "StateFull",
    "TemplateError",
    "UpstreamError",
    "WorkerError",
]


class SidecarError(Exception):
    """Base of every exception that this program raises itself."""


@dataclass(frozen=True, slots=True)
class Problem:
    """One mistake (or warning) in a policy: where it stands, what is wrong, what would be right.

    `line` and `column` count from 1; 0 means that the file as a whole is meant.
    """

    file: str
    line: int
    column: int
    path: str
    wrong: str
    remedy: str

    def __str__(self) -> str:
        where = f"{self.file}:{self.line}:{self.column}" if self.line else self.file
        key = f" {self.path}:" if self.path else ""
        return f"{where}:{key} {self.wrong}; {self.remedy}"


class ConfigError(SidecarError):
    """The policy cannot be used. `problems` holds all that is wrong with it."""

    def __init__(self, problems: Sequence[Problem]) -> None:
        self.problems = tuple(problems)
        super().__init__(self.problems)

    def __str__(self) -> str:
        return "\n".join(str(problem) for problem in self.problems)


class HandshakeError(SidecarError):
    """A handshake that RFC 6455 does not allow. `unsupported_version` asks for a 426."""

    def __init__(self, detail: str, *, unsupported_version: bool = False) -> None:
        self.detail = detail
        self.unsupported_version = unsupported_version
        super().__init__(detail)


class KeyMaterialError(SidecarError):
    """A key or secret that must not be used: `wrong` says why, `remedy` what would be right."""

    def __init__(self, wrong: str, remedy: str) -> None:
        self.wrong = wrong
        self.remedy = remedy
        super().__init__(f"{wrong}; {remedy}")


class KeysUnavailable(SidecarError):  # noqa: N818  # a state, which passes
    """A provider's keys could not be had. `provider` names it, `detail` says why."""

    def __init__(self, provider: str, detail: str) -> None:
        self.provider = provider
        self.detail = detail
        super().__init__(f"{provider}: {detail}")


class StateFull(SidecarError):  # noqa: N818  # a state, which passes
    """The shared state remembers `capacity` of `what`, and all of them are still in force."""

    def __init__(self, capacity: int, what: str) -> None:
        self.capacity = capacity
        self.what = what
        super().__init__(f"there is no room for more than {capacity} {what}")


class TemplateError(SidecarError):
    """A template that does not parse, or names something that is not there."""


class UpstreamError(SidecarError):
    """The upstream did not give a WebSocket. `reason` is one of the upstream_* reasons."""

    def __init__(self, reason: Reason, detail: str) -> None:
        self.reason = reason
        self.detail = detail
        super().__init__(f"{reason}: {detail}")


class WorkerError(SidecarError):
    """A worker process, or its parent, does not do what it was asked for; the text says why."""
