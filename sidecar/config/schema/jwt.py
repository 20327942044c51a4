"""The section `jwt`: which tokens are good."""

from typing import Annotated, Any

from pydantic import BeforeValidator, WithJsonSchema

from sidecar.config.schema.base import (
    Duration,
    Model,
    Name,
    PositiveDuration,
    Secret,
    Size,
    Text,
    setting,
)
from sidecar.config.values import BadValueError, show

__all__ = ["ALGORITHMS", "KEY_SOURCES", "Jwt", "Provider"]

KEY_SOURCES = ("discovery", "jwks_url", "jwks_file", "public_key")
ALGORITHMS = (
    *("HS256", "HS384", "HS512"),
    *("RS256", "RS384", "RS512"),
    *("PS256", "PS384", "PS512"),
    *("ES256", "ES384", "ES512"),
    "EdDSA",
)


def _algorithm(value: Any) -> Any:
    if value not in ALGORITHMS:
        raise BadValueError(
            f"{show(value)} is not a supported algorithm", f"use {', '.join(ALGORITHMS)}"
        )
    return value


def _as_list(value: Any) -> Any:
    return [value] if isinstance(value, str) else value


Algorithm = Annotated[str, BeforeValidator(_algorithm), WithJsonSchema({"enum": list(ALGORITHMS)})]
Audience = Annotated[list[Text], BeforeValidator(_as_list, json_schema_input_type=str | list[str])]


class Provider(Model):
    """An issuer of tokens."""

    algorithms: list[Algorithm] = setting(
        min_length=1,
        description="The accepted algorithms, of one family: HS256, HS384, HS512 with `secrets`; "
        "or RS, PS, ES256/384/512 and EdDSA with one source of public keys.",
    )
    secrets: list[Secret] | None = setting(
        None, description="Shared secrets of the HS family: all verify, the first signs."
    )
    discovery: Text | None = setting(
        None, description="An OpenID Connect issuer; its metadata names the key set."
    )
    jwks_url: Text | None = setting(None, description="A JWK set on the network.")
    jwks_file: Text | None = setting(None, description="A JWK set on disk; read again on change.")
    public_key: Secret | None = setting(None, description="One PEM public key or certificate.")
    private_key: Secret | None = setting(
        None,
        description="A PEM private key with which the program itself signs (`identity.sign`, "
        "`ws-sidecar token`); without another source its public half verifies.",
    )
    jwks_refresh: PositiveDuration = setting(
        "10m", description="How often keys are fetched; besides once on an unknown kid."
    )
    allow_http: bool = setting(False, description="Permit http:// for `discovery` and `jwks_url`.")
    issuer: Text | None = setting(
        None, description="The exact `iss`; default with `discovery`: its URL; else any."
    )
    audience: Audience | None = setting(
        None, description="A text or a list, any of which must be in `aud`; null is any."
    )
    require: list[Text] | None = setting(
        None,
        description="Claims that must be there. Default: exp and the claim of `user`.",
    )
    allow_no_expiry: bool = setting(
        False, description="Permit a `require` without exp: tokens that never end."
    )
    max_age: PositiveDuration | None = setting(None, description="The longest age, from iat.")
    token_type: list[Text] = setting(
        ["JWT", "at+jwt"],
        min_length=1,
        description="The accepted `typ`; an absent one passes where JWT is accepted.",
    )
    user: Text = setting(
        "sub", description="The claim that names the user: a name, or a JSON pointer."
    )
    allow_weak_secret: bool = setting(
        False,
        description="Permit a secret that is shorter than the hash, or well known.",
    )


class Jwt(Model):
    """Verification of tokens."""

    leeway: Duration = setting(
        "30s", description="Clock difference that exp, nbf and iat allow for."
    )
    max_token_size: Size = setting(
        "8KiB", description="Larger tokens are refused unread; at most 64KiB."
    )
    providers: dict[Name, Provider] = setting(
        {},
        description="By name. A token's provider is found by its iss where providers name issuers, "
        "else by algorithm and kid.",
    )
