"""`ws-sidecar token`: mint a token that the policy accepts, for trying things."""

import argparse
import json
import os
import sys
import time
import uuid
from collections.abc import Callable, Mapping, Sequence
from typing import Any

from sidecar.auth.local import LocalKeys
from sidecar.cli.arguments import add_policy, policy_paths
from sidecar.config.source import load_policy
from sidecar.config.values import duration
from sidecar.errors import ConfigError, KeyMaterialError, SidecarError
from sidecar.policy.keys import SigningKey
from sidecar.policy.mint import mint
from sidecar.policy.pointers import ClaimPath
from sidecar.policy.providers import Provider

__all__ = ["add_parser", "run"]

Claim = tuple[ClaimPath, Any]


class MintingError(SidecarError):
    """No such token can be made; the text is "what is wrong; what would be right"."""


def add_parser(subparsers: "argparse._SubParsersAction[argparse.ArgumentParser]") -> None:
    """Add the command and its options."""
    parser = subparsers.add_parser(
        "token",
        help="mint a token for trying things",
        description="Mint a token as a provider of the policy would issue it, signed with its "
        "first secret or its private_key. Prints the token and nothing else.",
    )
    add_policy(parser, positional=False)
    parser.add_argument("--provider", metavar="NAME", help="default: the policy's only provider")
    parser.add_argument("--user", required=True, help="who the token is for")
    parser.add_argument(
        "--claim",
        action="append",
        default=[],
        type=_usage(parse_claim),
        metavar="NAME=TEXT|NAME:=JSON",
        help="another claim, or an own value for one that is filled in; NAME may be a JSON "
        "pointer; may be repeated",
    )
    parser.add_argument(
        "--ttl",
        default=3600.0,
        type=_usage(duration),
        metavar="DURATION",
        help="how long the token is good, such as 90s or 12h (default: 1h)",
    )
    parser.add_argument(
        "--audience",
        action="append",
        default=[],
        metavar="NAME",
        help="the aud claim (default: the provider's first audience); may be repeated",
    )


def run(args: argparse.Namespace) -> int:
    """Print the token. 0, or 1 after saying on stderr why there is none."""
    try:
        policy = load_policy(policy_paths(args), os.environ, pipes=True).policy
        provider = choose(policy.tokens.providers, args.provider)
        key = signing_key(provider, os.environ)
        claims = fill(provider, args.user, args.ttl, args.audience, args.claim, now=time.time())
        print(mint(claims, key, token_type=token_type(provider)))
    except ConfigError as error:
        print(error, file=sys.stderr)
        return 1
    except (MintingError, KeyMaterialError, ValueError) as error:
        print(f"error: {error}", file=sys.stderr)
        return 1
    return 0


def parse_claim(text: str) -> Claim:
    """`name=text` or `name:=json`. Raises ValueError("what is wrong; what would be right")."""
    name, equals, value = text.partition("=")
    if not equals:
        raise ValueError(f"{text!r} has no value; write NAME=TEXT, or NAME:=JSON")
    if not name.endswith(":"):
        return ClaimPath.parse(name), value
    try:
        return ClaimPath.parse(name[:-1]), json.loads(value)
    except json.JSONDecodeError as error:
        raise ValueError(f"{value!r} is not JSON ({error}); write text as NAME=TEXT") from None


def choose(providers: Sequence[Provider], name: str | None) -> Provider:
    """The provider of that name, or the only one. Raises MintingError."""
    known = ", ".join(provider.name for provider in providers)
    if name is None:
        if len(providers) != 1:
            raise MintingError(
                f"the policy has several providers; name one with --provider: {known}"
                if providers
                else "the policy has no provider; add one under jwt.providers"
            )
        return providers[0]
    for provider in providers:
        if provider.name == name:
            return provider
    raise MintingError(f"the policy has no provider {name!r}; it has: {known or 'none'}")


def signing_key(provider: Provider, environ: Mapping[str, str]) -> SigningKey:
    """What the provider signs with: its private key, or its first secret.

    Raises MintingError where it has neither, KeyMaterialError where it cannot be used.
    """
    signer = LocalKeys(provider, environ).material.signer
    if signer is None:
        raise MintingError(
            f"the provider {provider.name!r} can only verify; "
            "give it a private_key, or choose a provider with secrets"
        )
    return signer


def token_type(provider: Provider) -> str:
    """A `typ` that the provider accepts: JWT where it can be."""
    return "JWT" if "jwt" in provider.token_types else min(provider.token_types)


def fill(
    provider: Provider,
    user: str,
    ttl: float,
    audience: Sequence[str],
    extra: Sequence[Claim],
    *,
    now: float,
) -> dict[str, Any]:
    """The claims, as the provider wants them. `ttl` in seconds, `now` in seconds since the epoch.

    `extra` overrides what would be filled in. Raises MintingError for a claim that has no place, or
    a required one that nobody gave.
    """
    claims: dict[str, Any] = {
        "sub": user,
        "iat": int(now),
        "exp": int(now + ttl),
        "jti": str(uuid.uuid4()),
    }
    if "nbf" in provider.require:
        claims["nbf"] = claims["iat"]
    if provider.issuer is not None:
        claims["iss"] = provider.issuer
    names = list(audience) or list(provider.audience[:1])
    if names:
        claims["aud"] = names[0] if len(names) == 1 else names
    for path, value in ((provider.user, user), *extra):
        _put(claims, path, value)
    missing = [name for name in provider.require if claims.get(name) is None]
    if missing:
        wanted = " ".join(f"--claim {name}=…" for name in missing)
        raise MintingError(f"the provider requires {', '.join(missing)}; add {wanted}")
    return claims


def _put(claims: dict[str, Any], path: ClaimPath, value: Any) -> None:
    """Set the claim, with the objects that lead to it."""
    place = claims
    for step in path.tokens[:-1]:
        inner = place.setdefault(step, {})
        if not isinstance(inner, dict):
            raise MintingError(
                f"{path.source!r} leads through {step!r}, which is no object; "
                "give that claim as a JSON object"
            )
        place = inner
    place[path.tokens[-1]] = value


def _usage(parse: Callable[[str], Any]) -> Callable[[str], Any]:
    """The parser as argparse wants it: the error's own text, shown with the usage."""

    def checked(text: str) -> Any:
        try:
            return parse(text)
        except ValueError as error:
            raise argparse.ArgumentTypeError(str(error)) from None

    return checked
