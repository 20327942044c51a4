"""The section `routes`, compiled."""

from collections.abc import Mapping, Sequence

from sidecar.config.compile.identity import compile_forward_headers, compile_identity
from sidecar.config.compile.report import Report
from sidecar.config.compile.rules import compile_rule
from sidecar.config.compile.session import compile_message_source, compile_session
from sidecar.config.nodes import Loc
from sidecar.config.schema import PolicyFile
from sidecar.config.schema import routes as schema
from sidecar.config.schema.limits import ByteLimit, ControlLimit, MessageLimit
from sidecar.config.schema.limits import Limits as LimitsModel
from sidecar.config.values import did_you_mean
from sidecar.model import Reason
from sidecar.policy.claims import Rule
from sidecar.policy.credentials import Authenticate, MessageSource, Source, SourceKind
from sidecar.policy.limits import Exceed, Limits, Rate
from sidecar.policy.origins import OriginPattern, OriginRule
from sidecar.policy.refuse import Refuse, RefuseWith
from sidecar.policy.routes import HostPattern, PathPattern, Route, check_path
from sidecar.policy.templates import Template

__all__ = ["compile_routes"]

_LIVE = frozenset(
    {
        Reason.TLS_REQUIRED,
        Reason.ORIGIN_DENIED,
        Reason.ORIGIN_MISSING,
        Reason.TOKEN_MISSING,
        Reason.TOKEN_INVALID,
        Reason.TOKEN_EXPIRED,
        Reason.TOKEN_REVOKED,
        Reason.CLAIMS_DENIED,
        Reason.NO_ROUTE,
        Reason.PROTOCOL_ERROR,
        Reason.MESSAGE_TOO_BIG,
        Reason.MESSAGE_RATE,
        Reason.IDLE_TIMEOUT,
        Reason.HEARTBEAT_TIMEOUT,
        Reason.SESSION_LIFETIME,
        Reason.KICKED,
        Reason.UPSTREAM_LOST,
    }
)
"""Reasons that end a connection, in a close frame whatever `with` says."""

_TOLD = [
    reason
    for reason in Reason
    if reason not in {Reason.BAD_HANDSHAKE, Reason.OVERLOADED, Reason.INTERNAL_ERROR}
]
"""Reasons that may be told in a close frame. The others come before a route or a handshake."""


def compile_routes(policy: PolicyFile, report: Report) -> tuple[Route, ...]:
    """Every route in order, without those that cannot be used."""
    routes = [_Compiler(index, model, policy, report) for index, model in enumerate(policy.routes)]
    compiled = [(index, compiler.route()) for index, compiler in enumerate(routes)]
    usable = [(index, route) for index, route in compiled if route is not None]
    _check_names(policy.routes, report)
    _check_reachable(usable, report)
    return tuple(route for _, route in usable)


def _name(index: int, route: schema.Route) -> str:
    return route.name or f"route-{index + 1}"


def _check_names(routes: Sequence[schema.Route], report: Report) -> None:
    first: dict[str, int] = {}
    for index, route in enumerate(routes):
        name = _name(index, route)
        other = first.setdefault(name, index)
        if other != index:
            report.error(
                ("routes", index, "name"),
                f"{name} is already the name of the route at {_where(other, report)}",
                "give each route its own name",
                given=[("routes", other, "name")],
            )


def _where(index: int, report: Report) -> str:
    return report.where(("routes", index))


def _check_reachable(routes: Sequence[tuple[int, Route]], report: Report) -> None:
    for position, (index, route) in enumerate(routes):
        for other, earlier in routes[:position]:
            if _covers(earlier, route):
                report.error(
                    ("routes", index, "match"),
                    f"never matches: the route {earlier.name} at {_where(other, report)} "
                    "takes every such request first",
                    "put this route before it, or remove it",
                    given=[("routes", other, "match")],
                )
                break


def _covers(earlier: Route, later: Route) -> bool:
    """Whether every request for `later` is taken by `earlier`."""
    if earlier.host is not None and earlier.host != later.host:
        return False
    mine, theirs = earlier.path, later.path
    if mine.rest:
        if len(theirs.segments) + bool(theirs.rest) <= len(mine.segments):
            return False
    elif theirs.rest or len(theirs.segments) != len(mine.segments):
        return False
    pairs = zip(mine.segments, theirs.segments, strict=False)
    return all(own == other or (own[1] and (other[0] or other[1])) for own, other in pairs)


class _Compiler:
    """Compiles one route; each method one section of it."""

    def __init__(self, index: int, model: schema.Route, policy: PolicyFile, report: Report) -> None:
        self._loc: Loc = ("routes", index)
        self._name = _name(index, model)
        self._model = model
        self._policy = policy
        self._report = report

    def route(self) -> Route | None:
        """The route; None, with errors written down, where it cannot be used."""
        match = self._model.match
        path, host = self._path(match.path), self._host(match.host)
        captures = path.captures if path else None
        rules = self._rules(captures)
        identity = compile_identity(
            self._at("identity"), self._model.identity, self._policy.jwt.providers, self._report
        )
        forwarded = compile_forward_headers(
            self._at("forward_headers"), self._model.forward_headers, identity.names, self._report
        )
        upstream = self._upstream()
        upstream_path = self._upstream_path(captures)
        origins, authenticate = self._origins(), self._authenticate()
        limits, refuse = _limits(self._model.limits), self._refuse()
        session = compile_session(
            self._at("session"),
            self._model.session,
            self._policy.jwt.max_token_size,
            self._report,
        )
        if path is None or (host is None and match.host is not None):
            return None
        return Route(
            name=self._name,
            path=path,
            host=host,
            upstream=upstream,
            upstream_path=upstream_path,
            origins=origins,
            authenticate=authenticate,
            authorize=rules,
            identity=identity,
            forward_headers=forwarded,
            limits=limits,
            refuse=refuse,
            session=session,
        )

    def _at(self, *steps: str | int) -> Loc:
        return (*self._loc, *steps)

    def _path(self, source: str) -> PathPattern | None:
        loc = self._at("match", "path")
        if self._report.doubtful(loc):
            return None
        self._check_wildcards(loc, source)
        return self._report.attempt(loc, lambda: PathPattern.parse(source))

    def _check_wildcards(self, loc: Loc, path: str) -> None:
        """Other programs' ways to write captures."""
        for segment in path.split("/"):
            if "*" in segment or segment.startswith(":"):
                self._report.warn(
                    loc, f"{segment} stands for itself", "write {name} or {rest...} for any text"
                )

    def _host(self, source: str | None) -> HostPattern | None:
        if source is None:
            return None
        return self._report.attempt(self._at("match", "host"), lambda: HostPattern.parse(source))

    def _upstream(self) -> str:
        name, upstreams = self._model.upstream, self._policy.upstreams
        if name is None:
            if len(upstreams) > 1:
                self._report.error(
                    self._at("upstream"),
                    "is missing, and there are several upstreams",
                    f"name one of {', '.join(upstreams)}",
                )
            return next(iter(upstreams))
        if not self._report.defines(("upstreams", name)):
            self._report.error(
                self._at("upstream"), f"there is no upstream {name}", _hint(name, upstreams)
            )
        return name

    def _upstream_path(self, captures: Sequence[str] | None) -> Template | None:
        source, loc = self._model.upstream_path, self._at("upstream_path")
        if source is None or captures is None:
            return None
        self._check_wildcards(loc, source)
        template = self._report.attempt(loc, lambda: Template.parse(source, {*captures, "path"}))
        if template is None:
            return None
        names = dict.fromkeys(captures, "x")
        wrong = self._report.attempt(
            loc, lambda: check_path(template.render({"path": names, **names})) or ""
        )
        if wrong:
            self._report.error(loc, wrong, "write a plain path, such as /chat/{room}")
        return template

    def _origins(self) -> OriginRule:
        model, loc = self._model.origins, self._at("origins")
        patterns = None
        if model.allow is not None:
            parsed = [self._origin(index, text) for index, text in enumerate(model.allow)]
            patterns = tuple(pattern for pattern in parsed if pattern is not None)
        if model.missing == "allow":
            self._report.warn((*loc, "missing"), *self._missing_origin())
        return OriginRule(patterns, model.missing == "allow")

    def _missing_origin(self) -> tuple[str, str]:
        authenticate = self._model.authenticate
        if not authenticate.anonymous and all(one.cookie for one in authenticate.sources):
            return (
                "has no effect: a token from a cookie is never taken without an Origin",
                "remove it, or add a source such as header",
            )
        return (
            "lets programs that are no browsers in without an Origin",
            "leave it out where only browsers connect",
        )

    def _origin(self, index: int, source: str) -> OriginPattern | None:
        loc = self._at("origins", "allow", index)
        pattern = self._report.attempt(loc, lambda: OriginPattern.parse(source))
        if pattern is not None and pattern.anything:
            self._report.warn(loc, "every web page may connect", "name the pages' origins")
        return pattern

    def _authenticate(self) -> Authenticate:
        model, loc = self._model.authenticate, self._at("authenticate")
        known = self._policy.jwt.providers
        for index, name in enumerate(model.providers or ()):
            if not self._report.defines(("jwt", "providers", name)):
                self._report.error(
                    (*loc, "providers", index), f"there is no provider {name}", _hint(name, known)
                )
        if model.anonymous:
            self._report.warn(
                (*loc, "anonymous"),
                "lets clients without a token through",
                "leave it out where every client has one",
            )
        elif not known and not self._report.defines(("jwt", "providers")):
            self._report.error(
                ("jwt", "providers"),
                "is empty, so that no token could ever be good",
                "add a provider, or set authenticate.anonymous on every route",
                given=[(*loc, "anonymous")],
            )
        return Authenticate(
            tuple(model.providers) if model.providers is not None else None,
            tuple(_source(one) for one in model.sources if one.message is None),
            model.anonymous,
            self._message_source(),
        )

    def _message_source(self) -> MessageSource | None:
        sources, compiled = self._model.authenticate.sources, None
        for index, source in enumerate(sources):
            if source.message is None:
                continue
            loc = self._at("authenticate", "sources", index)
            if index < len(sources) - 1:
                self._report.error(
                    loc,
                    "is not the last source",
                    "put it last, once: the handshake is looked at first",
                )
            if self._model.authenticate.anonymous:
                self._report.error(
                    self._at("authenticate", "anonymous"),
                    "lets in without a token, so that no first message is waited for",
                    "remove it, or the source `message`",
                    given=[loc],
                )
            limit = self._policy.jwt.max_token_size
            compiled = compile_message_source(
                (*loc, "message"), source.message, limit, self._report
            )
        return compiled

    def _rules(self, captures: Sequence[str] | None) -> tuple[Rule, ...]:
        rules = [
            compile_rule(self._at("authorize", index), rule, captures, self._report)
            for index, rule in enumerate(self._model.authorize)
        ]
        return tuple(rule for rule in rules if rule is not None)

    def _refuse(self) -> Refuse:
        model, loc = self._model.refuse, self._at("refuse")
        own = [rule.reason for rule in self._model.authorize if rule.reason]
        known = [*map(str, _TOLD), *own]
        for name in model.codes:
            if name not in known and name in set(map(str, Reason)):
                self._report.error(
                    (*loc, "codes", name), "is never told in a close frame", "remove it", key=True
                )
            elif name not in known:
                near = did_you_mean(name, known)
                remedy = f"did you mean {near}?" if near else f"use one of {', '.join(known)}"
                self._report.error(
                    (*loc, "codes", name),
                    "is not a reason",
                    remedy,
                    key=True,
                    given=[self._at("authorize")],
                )
        told = any(one.message for one in self._model.authenticate.sources)
        if model.with_ == "http" and not told and not _LIVE.issuperset(model.codes):
            self._report.warn(
                (*loc, "codes"),
                "has no effect on handshakes with `with: http`",
                "use `with: close` or auto",
            )
        if model.hold and model.with_ == "http" and not told:
            self._report.warn(
                (*loc, "hold"), "has no effect with `with: http`", "use `with: close` or auto"
            )
        return Refuse(RefuseWith(model.with_), model.hold, dict(model.codes))


def _hint(name: str, known: Mapping[str, object]) -> str:
    near = did_you_mean(name, known)
    if near is not None:
        return f"did you mean {near}?"
    return f"use one of {', '.join(known)}" if known else "define it first"


def _source(model: schema.Source) -> Source:
    kind, name = next(iter(model.model_dump(exclude_none=True).items()))
    return Source(SourceKind(kind), name)


def _limits(model: LimitsModel) -> Limits:
    return Limits(
        client_message=model.message_size.client,
        upstream_message=model.message_size.upstream,
        frame=model.frame_size,
        messages=_rate(model.messages),
        bytes=_rate(model.bytes),
        control_frames=_rate(model.control_frames),
    )


def _rate(model: MessageLimit | ByteLimit | ControlLimit | None) -> Rate | None:
    if model is None:
        return None
    amount, seconds = model.rate
    on_exceed = Exceed.CLOSE if isinstance(model, ControlLimit) else Exceed(model.on_exceed)
    return Rate(amount, seconds, model.burst or amount, on_exceed)
