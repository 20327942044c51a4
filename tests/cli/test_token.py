"""`ws-sidecar token`: the token is good for the policy it was minted from."""

import argparse
import time
from pathlib import Path

import pytest
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.serialization import Encoding, NoEncryption, PrivateFormat
from joserfc import jwt
from joserfc.jwk import ECKey, OctKey

from sidecar.auth.local import LocalKeys
from sidecar.auth.verify import Unverified, parse, verify
from sidecar.cli import token
from sidecar.config.source import load_policy
from sidecar.model import Identity

SECRET = "correct-horse-battery-staple-4711"
POLICY = f"""
version: 1
admin: {{listen: "127.0.0.1:9090"}}
upstreams: {{chat: {{url: "ws://127.0.0.1:9000"}}}}
jwt:
  providers:
    app:
      algorithms: [HS256]
      secrets: [{{value: {SECRET}}}]
routes: [{{name: chat, match: {{path: "/{{rest...}}"}}, upstream: chat}}]
"""


@pytest.fixture
def policy(tmp_path: Path) -> Path:
    file = tmp_path / "policy.yaml"
    file.write_text(POLICY)
    return file


def provider_keys(file: Path, keys: str) -> None:
    """Give the policy's provider more keys, as a flow mapping's inside."""
    text = file.read_text().replace("algorithms: [HS256]", f"algorithms: [HS256]\n      {keys}")
    file.write_text(text)


def key_pair(folder: Path) -> ECKey:
    """Write private.pem; give the key."""
    pem = ec.generate_private_key(ec.SECP256R1()).private_bytes(
        Encoding.PEM, PrivateFormat.PKCS8, NoEncryption()
    )
    (folder / "private.pem").write_bytes(pem)
    return ECKey.import_key(pem)


def sidecar(*args: str | Path) -> int:
    parser = argparse.ArgumentParser()
    token.add_parser(parser.add_subparsers())
    return token.run(parser.parse_args(["token", *map(str, args)]))


class Output:
    def __init__(self, capsys: pytest.CaptureFixture[str]) -> None:
        self.capsys = capsys

    def text(self) -> str:
        """The token: the only thing on stdout, with nothing on stderr."""
        out, err = self.capsys.readouterr()
        assert err == ""
        assert out.count("\n") == 1
        return out.strip()

    def token(self, key: OctKey | ECKey | None = None) -> jwt.Token:
        """The token, its signature verified."""
        chosen = key or OctKey.import_key(SECRET)
        return jwt.decode(self.text(), chosen, algorithms=["HS256", "ES256"])

    def error(self) -> str:
        """What went to stderr, with nothing on stdout."""
        out, err = self.capsys.readouterr()
        assert out == ""
        return err


@pytest.fixture
def output(capsys: pytest.CaptureFixture[str]) -> Output:
    return Output(capsys)


def test_a_token_names_the_user_and_ends_in_an_hour(policy: Path, output: Output) -> None:
    assert sidecar("--config", policy, "--user", "alice") == 0
    minted = output.token()
    assert minted.header == {"alg": "HS256", "typ": "JWT"}
    assert minted.claims.keys() == {"sub", "iat", "exp", "jti"}
    assert minted.claims["sub"] == "alice"
    assert minted.claims["exp"] - minted.claims["iat"] == 3600
    assert abs(minted.claims["iat"] - time.time()) < 60


def test_the_policy_accepts_the_token(policy: Path, output: Output) -> None:
    provider_keys(
        policy,
        "issuer: https://a.example\n      audience: chat\n      user: /who/name\n      max_age: 1h",
    )
    assert sidecar("--config", policy, "--user", "alice") == 0
    unverified = parse(output.text(), 8192)
    assert isinstance(unverified, Unverified)
    provider = load_policy([policy], {}).policy.tokens.providers[0]
    keys = LocalKeys(provider, {}).material.keys
    identity = verify(unverified, provider, keys, leeway=0, now=time.time())
    assert isinstance(identity, Identity)
    assert identity.user == "alice"


def test_the_first_secret_signs(policy: Path, output: Output) -> None:
    text = policy.read_text()
    first = "another-secret-that-is-long-enough-0815"
    policy.write_text(text.replace("secrets: [", f"secrets: [{{value: {first}}}, "))
    assert sidecar("--config", policy, "--user", "alice") == 0
    assert output.token(OctKey.import_key(first)).claims["sub"] == "alice"


def test_a_secret_may_come_from_the_environment(
    policy: Path, output: Output, monkeypatch: pytest.MonkeyPatch
) -> None:
    policy.write_text(policy.read_text().replace(f"value: {SECRET}", "env: APP_SECRET"))
    monkeypatch.setenv("APP_SECRET", SECRET)
    assert sidecar("--config", policy, "--user", "alice") == 0
    assert output.token().claims["sub"] == "alice"


def test_a_private_key_signs(policy: Path, tmp_path: Path, output: Output) -> None:
    key = key_pair(tmp_path)
    text = policy.read_text().replace("HS256", "ES256")
    private = f"private_key: {{file: {tmp_path / 'private.pem'}}}"
    policy.write_text(text.replace(f"secrets: [{{value: {SECRET}}}]", private))
    assert sidecar("--config", policy, "--user", "alice") == 0
    assert output.token(key).header["alg"] == "ES256"


def test_issuer_audience_and_type_are_as_the_provider_wants(policy: Path, output: Output) -> None:
    provider_keys(
        policy,
        "issuer: https://login.example.com\n"
        "      audience: [chat, other]\n"
        "      token_type: [at+jwt]\n"
        "      require: [exp, sub, nbf]",
    )
    assert sidecar("--config", policy, "--user", "alice") == 0
    minted = output.token()
    assert minted.header["typ"] == "at+jwt"
    assert minted.claims["iss"] == "https://login.example.com"
    assert minted.claims["aud"] == "chat"
    assert minted.claims["nbf"] == minted.claims["iat"]


@pytest.mark.parametrize(("names", "aud"), [(["a"], "a"), (["a", "b"], ["a", "b"])])
def test_the_audience_can_be_chosen(
    policy: Path, output: Output, names: list[str], aud: object
) -> None:
    options = [option for name in names for option in ("--audience", name)]
    assert sidecar("--config", policy, "--user", "alice", *options) == 0
    assert output.token().claims["aud"] == aud


def test_the_user_stands_where_the_provider_looks(policy: Path, output: Output) -> None:
    provider_keys(policy, "user: /account/id")
    options = ["--claim", "/account/plan=free"]
    assert sidecar("--config", policy, "--user", "alice", *options) == 0
    claims = output.token().claims
    assert claims["account"] == {"id": "alice", "plan": "free"}
    assert claims["sub"] == "alice"


@pytest.mark.parametrize(
    ("option", "name", "value"),
    [
        ("room=blue", "room", "blue"),
        ("equation=a=b", "equation", "a=b"),
        ("empty=", "empty", ""),
        ('roles:=["a","b"]', "roles", ["a", "b"]),
        ("exp:=1", "exp", 1),
        ("https://example.com/level:=3", "https://example.com/level", 3),
    ],
)
def test_a_claim_is_text_or_json(
    policy: Path, output: Output, option: str, name: str, value: object
) -> None:
    assert sidecar("--config", policy, "--user", "alice", "--claim", option) == 0
    assert output.token().claims[name] == value


def test_the_time_to_live_can_be_chosen(policy: Path, output: Output) -> None:
    assert sidecar("--config", policy, "--user", "alice", "--ttl", "1m30s") == 0
    claims = output.token().claims
    assert claims["exp"] - claims["iat"] == 90


@pytest.mark.parametrize(
    ("options", "said"),
    [
        (["--ttl", "90"], "90"),
        (["--claim", "room"], "write NAME=TEXT, or NAME:=JSON"),
        (["--claim", "=blue"], "name is empty"),
        (["--claim", "roles:=[a]"], "is not JSON"),
    ],
)
def test_a_mistaken_option_is_explained(
    policy: Path, output: Output, options: list[str], said: str
) -> None:
    with pytest.raises(SystemExit) as exit_:
        sidecar("--config", policy, "--user", "alice", *options)
    assert exit_.value.code == 2
    assert said in output.error()


SEVERAL = """
version: 1
jwt:
  providers:
    spare:
      algorithms: [HS512]
      issuer: https://spare.example.com
      secrets:
        - value: a-third-secret-that-is-long-enough-for-hs512-which-wants-64-bytes-of-it
"""


def test_one_of_several_providers_must_be_named(
    policy: Path, tmp_path: Path, output: Output
) -> None:
    (tmp_path / "more.yaml").write_text(SEVERAL)
    provider_keys(policy, "issuer: https://app.example.com")
    files: list[str | Path] = ["--config", policy, "--config", tmp_path / "more.yaml"]
    assert sidecar(*files, "--user", "alice") == 1
    assert "--provider: app, spare" in output.error()
    assert sidecar(*files, "--user", "alice", "--provider", "app") == 0
    assert output.token().claims["iss"] == "https://app.example.com"


def test_an_unknown_provider_is_an_error(policy: Path, output: Output) -> None:
    assert sidecar("--config", policy, "--user", "alice", "--provider", "ap") == 1
    assert output.error() == "error: the policy has no provider 'ap'; it has: app\n"


def test_a_policy_without_providers_is_an_error() -> None:
    with pytest.raises(token.MintingError, match=r"add one under jwt\.providers"):
        token.choose((), None)
    with pytest.raises(token.MintingError, match="it has: none"):
        token.choose((), "app")


def test_a_provider_that_only_verifies_is_an_error(policy: Path, output: Output) -> None:
    text = policy.read_text().replace("HS256", "RS256")
    discovery = "discovery: https://login.example.com"
    policy.write_text(text.replace(f"secrets: [{{value: {SECRET}}}]", discovery))
    assert sidecar("--config", policy, "--user", "alice") == 1
    assert "'app' can only verify; give it a private_key" in output.error()


def test_a_required_claim_that_is_missing_is_an_error(policy: Path, output: Output) -> None:
    provider_keys(policy, "require: [exp, email, aud]")
    assert sidecar("--config", policy, "--user", "alice") == 1
    assert "requires email, aud; add --claim email=… --claim aud=…" in output.error()
    options = ["--claim", "email=a@example.com", "--audience", "chat"]
    assert sidecar("--config", policy, "--user", "alice", *options) == 0


def test_a_claim_inside_text_is_an_error(policy: Path, output: Output) -> None:
    assert sidecar("--config", policy, "--user", "alice", "--claim", "/sub/name=x") == 1
    assert "leads through 'sub', which is no object" in output.error()


def test_a_claim_that_json_cannot_say_is_an_error(policy: Path, output: Output) -> None:
    assert sidecar("--config", policy, "--user", "alice", "--claim", "level:=NaN") == 1
    assert output.error().startswith("error: ")


def test_a_broken_policy_is_an_error_with_its_place(policy: Path, output: Output) -> None:
    policy.write_text(policy.read_text().replace("upstream: chat}", "upstream: chta}"))
    assert sidecar("--config", policy, "--user", "alice") == 1
    assert f"{policy}:" in output.error()
