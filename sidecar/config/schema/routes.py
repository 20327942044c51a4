"""The section `routes`: who may open which WebSocket, and what the upstream is told."""

from collections.abc import Mapping
from typing import Annotated, Any, ClassVar

from pydantic import BeforeValidator, model_validator

from sidecar.config.schema.base import (
    CloseCodeNumber,
    Duration,
    HeaderName,
    Model,
    Name,
    PositiveDuration,
    Text,
    exactly_one,
    setting,
    word,
)
from sidecar.config.schema.limits import Limits
from sidecar.config.schema.rules import Rule
from sidecar.config.schema.session import MessageSource, Session
from sidecar.config.values import BadValueError, show

__all__ = [
    "Authenticate",
    "ForwardToken",
    "HeaderValue",
    "Identity",
    "Match",
    "Origins",
    "Refuse",
    "Route",
    "Sign",
    "Source",
]

SOURCES = ("header", "cookie", "query", "subprotocol", "message")


class Match(Model):
    """Which handshakes a route is for."""

    path: Text = setting(
        "/{rest...}",
        description="Literal text, `{name}` for one segment, `{rest...}` for the remainder.",
    )
    host: Text | None = setting(
        None, description='The Host; a leading "*." matches one label or more. null is any.'
    )


class Origins(Model):
    """From which web pages a browser may connect."""

    allow: list[Text] | None = setting(
        None,
        description="Exact `scheme://host[:port]`; `https://*.example.org` for subdomains; `*` for "
        "every one. Default: only the host that the request is for.",
    )
    missing: Annotated[str, *word("deny", "allow")] = setting(
        "deny",
        description="A request without Origin (not a browser). Always denied where the token comes "
        "from a cookie.",
    )


class Source(Model):
    """A place that a token can come in: exactly one key."""

    later: ClassVar[frozenset[str]] = frozenset({"ticket"})
    short_form: ClassVar[Mapping[str, Any] | None] = {"const": "header"}

    header: HeaderName | None = setting(
        None, description="A header; Authorization where nothing is named. `Bearer …`."
    )
    cookie: HeaderName | None = setting(None, description="A cookie's name.")
    query: Text | None = setting(
        None, description="A query parameter; stripped before the upstream and from every log."
    )
    subprotocol: HeaderName | None = setting(
        None,
        description="The marker in Sec-WebSocket-Protocol: `bearer, <token>` or `bearer.<token>`, "
        "and base64url.bearer.authorization.k8s.io.<token>; stripped.",
    )
    message: MessageSource | None = setting(
        None, description="The first message, where the handshake had no token. The last source."
    )

    @model_validator(mode="before")
    @classmethod
    def _short_form(cls, data: Any) -> Any:
        if data == "header":
            return {"header": "Authorization"}
        if isinstance(data, str):
            if data in cls.later:
                raise BadValueError(f"{show(data)} is not supported yet", "remove it")
            remedy = "write header, {cookie: NAME}, {query: NAME} or {subprotocol: bearer}"
            if data == "message":
                raise BadValueError("'message' needs keys", "write {message: {token: /data/token}}")
            if data in SOURCES:
                raise BadValueError(f"{show(data)} needs a name", remedy)
            raise BadValueError(f"{show(data)} is not a source of tokens", remedy)
        return data

    @model_validator(mode="after")
    def _one_place(self) -> "Source":
        exactly_one(self, SOURCES)
        return self


class Authenticate(Model):
    """How a client proves who it is."""

    providers: list[Name] | None = setting(
        None, min_length=1, description="Whose tokens are accepted. Default: all providers'."
    )
    sources: list[Source] = setting(
        ["header"],
        min_length=1,
        description="Where the token is looked for, in order; two different tokens are refused.",
    )
    anonymous: bool = setting(
        False, description="No token is fine; the identity headers are then removed, not set."
    )


class HeaderValue(Model):
    """What an identity header says: `user`, `claims.NAME`, or a mapping."""

    short_form: ClassVar[Mapping[str, Any] | None] = {
        "x-form": "user | claims.NAME",
        "type": "string",
    }

    user: bool = setting(False, description="true: the user's name. Short form: `user`.")
    claim: Text | None = setting(
        None, description="A claim's name or JSON pointer. Short form: `claims.NAME`."
    )
    claims: Annotated[str, *word("all")] | None = setting(
        None, description="`all`: every claim; takes `encode: base64url-json`."
    )
    join: str | None = setting(None, max_length=16, description="Joins the elements of a list.")
    encode: Annotated[str, *word("text", "base64url-json")] = setting(
        "text", description="`text`, or the JSON of the value in base64url."
    )

    @model_validator(mode="before")
    @classmethod
    def _short_form(cls, data: Any) -> Any:
        if not isinstance(data, str):
            return data
        if data == "user":
            return {"user": True}
        if data.startswith("claims.") and data != "claims.":
            return {"claim": data.removeprefix("claims.")}
        raise BadValueError(
            f"{show(data)} is not a value for a header",
            'write user, claims.NAME or a mapping such as {claim: roles, join: ","}',
        )

    @model_validator(mode="after")
    def _one_value(self) -> "HeaderValue":
        if self.user + (self.claim is not None) + (self.claims is not None) != 1:
            raise BadValueError("does not say one value", "give exactly one of user, claim, claims")
        if self.claims and self.encode != "base64url-json":
            raise BadValueError("all claims are no text", "add `encode: base64url-json`")
        if self.join is not None and (self.claim is None or self.encode != "text"):
            raise BadValueError("`join` is for a list as text", "remove `join`")
        return self


class ForwardToken(Model):
    """The header in which the upstream gets the client's token."""

    header: HeaderName = setting("Authorization", description="Its name.")


class Sign(Model):
    """A fresh identity token for the upstream."""

    provider: Name = setting(description="Whose key signs.")
    ttl: PositiveDuration = setting("60s", description="From now to its exp.")
    header: HeaderName = setting("X-Identity", description="The header that carries it.")


def _forward_token(value: Any) -> Any:
    if value is False:
        return None
    return {} if value is True else value


class Identity(Model):
    """What the upstream is told of the client."""

    headers: dict[HeaderName, HeaderValue] = setting(
        {},
        description="Each named header is removed from the client's request in every spelling, "
        "then set where the claim is there.",
    )
    forward_token: Annotated[
        ForwardToken | None,
        BeforeValidator(_forward_token, json_schema_input_type=bool | ForwardToken | None),
    ] = setting(None, description="false, true (Authorization) or {header: NAME}.")
    sign: Sign | None = setting(None, description="Sign a fresh JWT for the upstream.")


class Refuse(Model):
    """How a refused handshake looks."""

    with_: Annotated[str, *word("http", "close", "auto")] = setting(
        "http",
        alias="with",
        description="`http`: a status and a JSON body. `close`: accept, then close with a code "
        "that a browser can read. `auto`: close for browsers, http otherwise.",
    )
    hold: Duration = setting(
        "0s", description="With close: the wait before closing, against storms of reconnects."
    )
    codes: dict[Text, CloseCodeNumber] = setting(
        {}, description="Close codes by reason, where they differ from the defaults."
    )


class Route(Model):
    """One rule set. The first route that matches counts; no match is 404."""

    later: ClassVar[frozenset[str]] = frozenset({"messages", "shadow"})

    name: Name | None = setting(
        None, description="Names it in logs and metrics. Default: route-1, route-2, …"
    )
    match: Match = setting({}, description="Which handshakes it is for.")
    upstream: Name | None = setting(
        None, description="An upstream's name; may be left out where there is only one."
    )
    upstream_path: Text | None = setting(
        None,
        description="The path at the upstream; may use the captures, such as `{room}`. Default: "
        "the path as it came.",
    )
    http: Annotated[str, *word("deny", later=("authenticate", "open"))] = setting(
        "deny", description="Requests that are not WebSocket upgrades."
    )
    origins: Origins = setting({}, description="From which web pages a browser may connect.")
    authenticate: Authenticate = setting({}, description="How a client proves itself.")
    authorize: list[Rule] = setting([], description="Rules on the claims; all must hold.")
    identity: Identity = setting({}, description="What the upstream is told.")
    forward_headers: list[HeaderName] = setting(
        [],
        description="Client headers to pass on beyond the handshake's own; Cookie only if named.",
    )
    limits: Limits = setting({}, description="What one connection may send.")
    session: Session = setting({}, description="What holds while the connection lives.")
    refuse: Refuse = setting({}, description="How a refused handshake looks.")
    compression: Annotated[str, *word("off", later=("passthrough",))] = setting(
        "off", description="permessage-deflate."
    )
