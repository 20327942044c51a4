"""The section `jwt`, compiled, with every key and secret tried."""

import re
from collections.abc import Sequence
from itertools import combinations
from typing import Final

from sidecar.config.compile.report import Report
from sidecar.config.files import read_bounded
from sidecar.config.nodes import Loc
from sidecar.config.schema import jwt as schema
from sidecar.errors import KeyMaterialError
from sidecar.policy.compiled import TokenRules
from sidecar.policy.keys import (
    ASYMMETRIC,
    MAX_SET_BYTES,
    SYMMETRIC,
    hmac_key,
    jwk_set,
    private_key,
    public_key,
)
from sidecar.policy.origins import parse_authority
from sidecar.policy.providers import (
    Discovery,
    JwksFile,
    JwksUrl,
    KeySource,
    Provider,
    PublicKey,
    SecretRef,
    Secrets,
)

__all__ = ["can_sign", "compile_jwt"]

_MAX_TOKEN: Final = 64 * 1024
_URL: Final = re.compile(r"(https?)://([^/?#]+)(/[!-~]*|)")


def compile_jwt(model: schema.Jwt, report: Report) -> TokenRules:
    """The rules of tokens, without the providers that cannot be used."""
    if model.max_token_size > _MAX_TOKEN:
        report.error(("jwt", "max_token_size"), "is too large", "give at most 64KiB")
    providers = [_provider(name, provider, report) for name, provider in model.providers.items()]
    usable = tuple(provider for provider in providers if provider is not None)
    _check_ambiguous(usable, report)
    return TokenRules(model.leeway, model.max_token_size, usable)


def can_sign(provider: schema.Provider) -> bool:
    """Whether the program has a key with which it could sign as this provider."""
    return bool(provider.secrets) or provider.private_key is not None


def _provider(name: str, model: schema.Provider, report: Report) -> Provider | None:
    loc = ("jwt", "providers", name)
    before = len(report.errors)
    user = report.claim((*loc, "user"), model.user)
    _check_family(loc, model, report)
    require = _require(loc, model, report)
    keys = _keys(loc, model, report)
    private = _private_key(loc, model, report)
    _check_idle_keys(loc, model, report)
    if user is None or len(report.errors) > before:
        return None
    return Provider(
        name=name,
        algorithms=tuple(model.algorithms),
        keys=keys,
        issuer=model.issuer or model.discovery,
        audience=tuple(model.audience or ()),
        require=require,
        max_age=model.max_age,
        user=user,
        token_types=frozenset(kind.lower() for kind in model.token_type),
        allow_weak_secret=model.allow_weak_secret,
        private_key=private,
    )


def _check_family(loc: Loc, model: schema.Provider, report: Report) -> None:
    """RFC 8725 section 3.1: a key is for one kind of algorithm."""
    shared = SYMMETRIC.intersection(model.algorithms)
    if shared and ASYMMETRIC.intersection(model.algorithms):
        report.error(
            (*loc, "algorithms"),
            "mixes shared-secret and public-key algorithms",
            "make two providers, one for each family",
        )
    elif shared:
        _check_symmetric(loc, model, report)
    else:
        _check_asymmetric(loc, model, report)


def _check_symmetric(loc: Loc, model: schema.Provider, report: Report) -> None:
    if not model.secrets:
        report.error((*loc, "secrets"), "is missing", "add a list such as [{env: JWT_SECRET}]")
    for name in (*schema.KEY_SOURCES, "private_key"):
        if getattr(model, name) is not None:
            report.error(
                (*loc, name), "is for public-key algorithms", "remove it, or change algorithms"
            )


def _check_asymmetric(loc: Loc, model: schema.Provider, report: Report) -> None:
    if model.secrets is not None:
        report.error(
            (*loc, "secrets"), "are for HS256, HS384 and HS512", "remove them, or change algorithms"
        )
    given = [name for name in schema.KEY_SOURCES if getattr(model, name) is not None]
    remedy = f"give exactly one of {', '.join(schema.KEY_SOURCES)}"
    if not given and model.private_key is None:
        report.error(loc, "has no source of keys", remedy)
    for name in given[1:]:
        report.error((*loc, name), f"is a second source of keys beside {given[0]}", remedy)


def _check_idle_keys(loc: Loc, model: schema.Provider, report: Report) -> None:
    """Settings that nothing would look at."""
    remote = model.discovery is not None or model.jwks_url is not None
    for name in {"jwks_refresh", "allow_http"} & model.model_fields_set:
        if not remote:
            report.error(
                (*loc, name),
                "has no effect without discovery or jwks_url",
                "remove it",
                key=True,
                given=[(*loc, "discovery"), (*loc, "jwks_url")],
            )
    if model.allow_weak_secret and not model.secrets:
        report.error(
            (*loc, "allow_weak_secret"),
            "has no effect without secrets",
            "remove it",
            key=True,
            given=[(*loc, "secrets")],
        )


def _require(loc: Loc, model: schema.Provider, report: Report) -> tuple[str, ...]:
    if model.require is None:
        named = () if model.user.startswith("/") else (model.user,)
        if model.allow_no_expiry:
            report.error(
                (*loc, "allow_no_expiry"),
                "has no effect without `require`, which has exp by default",
                "add a require without exp, or remove it",
            )
        return tuple(dict.fromkeys(("exp", *named)))
    if "exp" not in model.require:
        if not model.allow_no_expiry:
            report.error(
                (*loc, "require"),
                "leaves out exp, so that a token never ends",
                "add exp, or set allow_no_expiry: true",
                given=[(*loc, "allow_no_expiry")],
            )
        elif model.max_age is None:
            report.warn((*loc, "require"), "tokens never end", "add exp, or set max_age")
    return tuple(model.require)


def _keys(loc: Loc, model: schema.Provider, report: Report) -> KeySource | None:
    """The source of keys that the provider names first; further ones are errors already."""
    if model.secrets is not None and SYMMETRIC.intersection(model.algorithms):
        return Secrets(tuple(_secrets(loc, model, report)))
    if model.discovery is not None:
        url = _url(loc, "discovery", model.discovery, model.allow_http, report)
        if "?" in url:
            report.error((*loc, "discovery"), "an issuer has no query", "remove it")
        return Discovery(url, model.jwks_refresh, model.allow_http)
    if model.jwks_url is not None:
        url = _url(loc, "jwks_url", model.jwks_url, model.allow_http, report)
        return JwksUrl(url, model.jwks_refresh, model.allow_http)
    if model.jwks_file is not None:
        path = report.file((*loc, "jwks_file"), model.jwks_file)
        report.attempt(
            (*loc, "jwks_file"),
            lambda: jwk_set(read_bounded(path, MAX_SET_BYTES), model.algorithms, strict=True),
        )
        return JwksFile(path)
    if model.public_key is not None:
        ref = report.secret((*loc, "public_key"), model.public_key)
        _try_pem((*loc, "public_key"), ref, model.algorithms, report)
        return PublicKey(ref)
    return None


def _secrets(loc: Loc, model: schema.Provider, report: Report) -> list[SecretRef]:
    refs = []
    for index, secret in enumerate(model.secrets or ()):
        here = (*loc, "secrets", index)
        ref = report.secret(here, secret)
        refs.append(ref)
        text = report.read(here, ref)
        if text is not None:
            _try_secret(here, text, model, report)
    return refs


def _try_secret(loc: Loc, text: bytes, model: schema.Provider, report: Report) -> None:
    try:
        hmac_key(text, model.algorithms, allow_weak=False)
    except KeyMaterialError as error:
        if report.attempt(
            loc,
            lambda: hmac_key(text, model.algorithms, allow_weak=model.allow_weak_secret),
            given=[(*loc[:-2], "allow_weak_secret")],
        ):
            report.warn(loc, error.wrong, "use a long random secret")


def _try_pem(loc: Loc, ref: SecretRef, algorithms: Sequence[str], report: Report) -> None:
    pem = report.read(loc, ref)
    if pem is not None:
        report.attempt(loc, lambda: public_key(pem, algorithms))


def _private_key(loc: Loc, model: schema.Provider, report: Report) -> SecretRef | None:
    if model.private_key is None:
        return None
    here = (*loc, "private_key")
    ref = report.secret(here, model.private_key)
    pem = report.read(here, ref)
    if pem is not None and ASYMMETRIC.intersection(model.algorithms):
        report.attempt(here, lambda: private_key(pem, model.algorithms))
    return ref


def _url(loc: Loc, name: str, url: str, allow_http: bool, report: Report) -> str:
    parts = _URL.fullmatch(url)
    if parts is None or parse_authority(parts[2]) is None or "#" in url:
        report.error((*loc, name), "is not a usable URL", "write https://host/path")
    elif parts[1] == "http" and allow_http:
        report.warn(
            (*loc, name), "keys that come over http can be replaced on the way", "use https://"
        )
    elif parts[1] == "http":
        report.error(
            (*loc, name),
            "keys over http:// can be changed on the way",
            "use https://, or set allow_http",
            given=[(*loc, "allow_http")],
        )
    return url


def _check_ambiguous(providers: Sequence[Provider], report: Report) -> None:
    for first, second in combinations(providers, 2):
        if first.issuer == second.issuer and _overlap(first, second):
            report.error(
                ("jwt", "providers", second.name),
                f"cannot be told from {first.name}: the same issuer and algorithm",
                "give each its own issuer or algorithms, or make them one provider",
                key=True,
                given=[("jwt", "providers", first.name)],
            )


def _overlap(first: Provider, second: Provider) -> bool:
    """Whether neither the algorithm nor, for two key sets without issuers, the kid decides."""
    if first.issuer is None and all(
        isinstance(one.keys, JwksUrl | JwksFile) for one in (first, second)
    ):
        return False
    return not set(first.algorithms).isdisjoint(second.algorithms)
