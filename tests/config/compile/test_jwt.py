"""Providers: their keys, and what tells them apart."""

from collections.abc import Callable
from pathlib import Path

import pytest

from sidecar.config.source import Loaded
from sidecar.policy.providers import Discovery, PublicKey, SecretRef

Load = Callable[[str], Loaded]
Mistakes = Callable[[str], list[str]]

UPSTREAM = 'upstreams: {chat: {url: "ws://127.0.0.1:9000"}}\n'
SECRET = "algorithms: [HS256], secrets: [{env: JWT_SECRET}]"


def policy(**providers: str) -> str:
    lines = [f"    {name}: {{{keys}}}\n" for name, keys in providers.items()]
    return f"{UPSTREAM}jwt:\n  providers:\n{''.join(lines)}"


def require(loaded: Loaded) -> tuple[str, ...]:
    return loaded.policy.tokens.providers[0].require


def test_a_token_must_name_its_end_and_its_user(load: Load) -> None:
    assert require(load(policy(app=SECRET))) == ("exp", "sub")
    assert require(load(policy(app=f"{SECRET}, user: user_id"))) == ("exp", "user_id")
    assert require(load(policy(app=f"{SECRET}, user: exp"))) == ("exp",)
    assert require(load(policy(app=f"{SECRET}, user: /user/id"))) == ("exp",)
    assert require(load(policy(app=f"{SECRET}, require: [exp, jti]"))) == ("exp", "jti")


def test_tokens_without_an_end_are_warned_of(load: Load) -> None:
    loaded = load(policy(app=f"{SECRET}, require: [sub], allow_no_expiry: true"))
    assert [warning.wrong for warning in loaded.warnings] == ["tokens never end"]


def test_tokens_that_age_do_end(load: Load) -> None:
    keys = f"{SECRET}, require: [sub], allow_no_expiry: true, max_age: 1h"
    assert load(policy(app=keys)).warnings == ()


def test_a_plain_text_secret_is_warned_of(load: Load) -> None:
    secret = "0f4b8d27c6a95e1372d8e4f1b0c3a697"
    loaded = load(policy(app=f"algorithms: [HS256], secrets: [{{value: {secret}}}]"))
    assert [warning.wrong for warning in loaded.warnings] == ["the secret stands in the policy"]
    assert secret not in repr(loaded)


@pytest.mark.parametrize("algorithm", ["HS384", "HS512"])
def test_a_secret_is_as_long_as_the_hash(mistakes: Mistakes, algorithm: str) -> None:
    (mistake,) = mistakes(policy(app=f"algorithms: [{algorithm}], secrets: [{{env: JWT_SECRET}}]"))
    assert "fewer than the hash's" in mistake


def test_a_weak_secret_that_is_allowed_is_warned_of(load: Load) -> None:
    keys = "algorithms: [HS512], secrets: [{env: JWT_SECRET}], allow_weak_secret: true"
    (warning,) = load(policy(app=keys)).warnings
    assert "32 bytes, fewer than the hash's 64" in warning.wrong


def test_an_empty_secret_is_never_allowed(mistakes: Mistakes) -> None:
    keys = 'algorithms: [HS256], secrets: [{value: "\\n"}], allow_weak_secret: true'
    assert "the secret is empty" in mistakes(policy(app=keys))[0]


def test_a_public_key_as_a_shared_secret_is_refused(mistakes: Mistakes, material: Path) -> None:
    keys = f"algorithms: [HS256], secrets: [{{file: {material}/public.pem}}]"
    (mistake,) = mistakes(policy(app=keys))
    assert "the secret is an asymmetric key, a certificate or a JWK" in mistake


@pytest.mark.parametrize(
    ("keys", "wrong"),
    [
        ("public_key: {file: M/tls.key}", "this is a private key"),
        ("public_key: {file: M/jwks.json}", "this is not exactly one PEM block"),
        ("public_key: {file: M/none.pem}", "cannot be read"),
        ("public_key: {file: /dev/zero}", "is not a regular file"),
        ("jwks_file: /dev/zero", "is not a regular file"),
        ("jwks_file: M/secret", "the JWK set is"),
        ("jwks_file: M/none.json", "cannot be read"),
        ("private_key: {file: M/public.pem}", "this is not an unencrypted PEM private key"),
        ("private_key: {env: NOT_SET}", "NOT_SET is not set"),
    ],
)
def test_every_key_is_tried(mistakes: Mistakes, material: Path, keys: str, wrong: str) -> None:
    text = policy(app=f"algorithms: [ES256], {keys.replace('M/', f'{material}/')}")
    (mistake,) = mistakes(text)
    assert wrong in mistake


def test_a_public_key_may_have_its_private_half_beside_it(load: Load, material: Path) -> None:
    keys = f"public_key: {{file: {material}/public.pem}}, private_key: {{file: {material}/tls.key}}"
    (provider,) = load(policy(app=f"algorithms: [ES256], {keys}")).policy.tokens.providers
    assert provider.keys == PublicKey(SecretRef("file", f"{material}/public.pem"))
    assert provider.private_key == SecretRef("file", f"{material}/tls.key")


def test_the_issuer_of_a_discovery_is_its_url_unless_it_is_named(load: Load) -> None:
    url = "https://login.example.com"
    keys = f"algorithms: [RS256], discovery: '{url}'"
    (provider,) = load(policy(app=keys)).policy.tokens.providers
    assert (provider.keys, provider.issuer) == (Discovery(url, 600.0), url)
    (provider,) = load(policy(app=f"{keys}, issuer: other")).policy.tokens.providers
    assert provider.issuer == "other"


@pytest.mark.parametrize(
    "url",
    [
        *(
            "login.example.com",
            "https://",
            "https://a@b.example",
            "https://a.example/#x",
            "file:///a",
        ),
        *("https://a.example/ b", "https://a.example:0", "https://a.example/ä"),
    ],
)
def test_what_is_no_url_of_keys(mistakes: Mistakes, url: str) -> None:
    (mistake,) = mistakes(policy(app=f"algorithms: [RS256], jwks_url: '{url}'"))
    assert "is not a usable URL; write https://host/path" in mistake


def test_keys_over_http_must_be_asked_for(load: Load, mistakes: Mistakes) -> None:
    keys = "algorithms: [RS256], jwks_url: 'http://a.example'"
    assert "can be changed on the way" in mistakes(policy(app=keys))[0]
    assert load(policy(app=f"{keys}, allow_http: true")).policy


@pytest.mark.parametrize("key", ["allow_http: true", "jwks_refresh: 5m"])
def test_settings_of_a_fetch_without_one_are_refused(mistakes: Mistakes, key: str) -> None:
    (mistake,) = mistakes(policy(app=f"{SECRET}, {key}"))
    assert "has no effect without discovery or jwks_url; remove it" in mistake


@pytest.mark.parametrize(
    ("one", "two"),
    [
        (SECRET, SECRET),
        (f"{SECRET}, issuer: a", f"{SECRET}, issuer: a"),
        (
            "algorithms: [RS256, ES256], jwks_url: 'https://a.example'",
            "algorithms: [ES256], private_key: {file: M/tls.key}",
        ),
    ],
)
def test_providers_that_cannot_be_told_apart_are_refused(
    mistakes: Mistakes, material: Path, one: str, two: str
) -> None:
    (mistake,) = mistakes(policy(one=one, two=two.replace("M/", f"{material}/")))
    assert "jwt.providers.two: cannot be told from one: the same issuer and algorithm" in mistake


@pytest.mark.parametrize(
    ("one", "two"),
    [
        (f"{SECRET}, issuer: a", f"{SECRET}, issuer: b"),
        (f"{SECRET}, issuer: a", SECRET),
        (SECRET, "algorithms: [RS256], jwks_url: 'https://a.example'"),
        *[("algorithms: [RS256], jwks_url: 'https://a.example'",) * 2],
    ],
)
def test_providers_that_differ_in_issuer_algorithm_or_kid(load: Load, one: str, two: str) -> None:
    assert len(load(policy(one=one, two=two)).policy.tokens.providers) == 2


def test_the_largest_token_is_bounded(load: Load, mistakes: Mistakes) -> None:
    text = policy(app=SECRET).replace("jwt:\n", "jwt:\n  max_token_size: {}\n")
    assert load(text.replace("{}", "64KiB")).policy.tokens.max_token_size == 65536
    assert "is too large; give at most 64KiB" in mistakes(text.replace("{}", "65KiB"))[0]


def test_a_permission_that_permits_nothing_is_refused(mistakes: Mistakes) -> None:
    (mistake,) = mistakes(policy(app=f"{SECRET}, allow_no_expiry: true"))
    assert "allow_no_expiry: has no effect without `require`" in mistake


def test_keys_over_http_are_warned_of(load: Load) -> None:
    keys = "algorithms: [RS256], jwks_url: 'http://127.0.0.1/jwks', allow_http: true"
    (warning,) = load(policy(app=keys)).warnings
    assert warning.path == "jwt.providers.app.jwks_url"
