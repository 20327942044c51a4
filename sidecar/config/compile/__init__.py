"""Validated models to the compiled policy: references, templates, keys, and checks between keys."""

from collections.abc import Mapping

from sidecar.config.compile.jwt import compile_jwt
from sidecar.config.compile.report import Report
from sidecar.config.compile.routes import compile_routes
from sidecar.config.compile.server import compile_admin, compile_logging, compile_server
from sidecar.config.compile.upstreams import compile_upstream
from sidecar.config.nodes import Node
from sidecar.config.problems import sorted_problems
from sidecar.config.schema import PolicyFile
from sidecar.errors import ConfigError, Problem
from sidecar.policy.compiled import Policy

__all__ = ["compile_policy"]


def compile_policy(
    model: PolicyFile, root: Node, environ: Mapping[str, str]
) -> tuple[Policy, tuple[Problem, ...]]:
    """The policy and its warnings. `root` is where the model came from, for places; where it has
    gaps, the model is only the policy's sound part.

    Raises ConfigError with every mistake that does not follow from a gap.
    """
    report = Report(root, environ)
    upstreams = {
        name: compile_upstream(name, upstream, report) for name, upstream in model.upstreams.items()
    }
    policy = Policy(
        server=compile_server(model.server, report),
        admin=compile_admin(model.admin, report),
        upstreams={name: one for name, one in upstreams.items() if one is not None},
        tokens=compile_jwt(model.jwt, report),
        routes=compile_routes(model, report),
        logging=compile_logging(model.logging, report),
    )
    if report.errors:
        raise ConfigError(report.errors)
    return policy, tuple(sorted_problems(report.warnings))
