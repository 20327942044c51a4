"""The tokens of a run."""

import jwt
import pytest

from benchmarks.credentials import ALGORITHMS, Credentials


@pytest.fixture(scope="module")
def credentials(tmp_path_factory: pytest.TempPathFactory) -> Credentials:
    return Credentials.make(tmp_path_factory.mktemp("keys"))


def key_of(credentials: Credentials, algorithm: str) -> jwt.PyJWK:
    return jwt.PyJWKSet.from_json((credentials.folder / f"{algorithm}.jwks").read_text()).keys[0]


@pytest.mark.parametrize("algorithm", ALGORITHMS)
def test_the_different_tokens_are_all_good_and_no_two_alike(
    credentials: Credentials, algorithm: str
) -> None:
    lines = credentials.different(algorithm, 20).read_text().splitlines()
    tokens = [line.removeprefix("Authorization: Bearer ") for line in lines]
    key = key_of(credentials, algorithm)
    claims = [jwt.decode(token, key, algorithms=[algorithm]) for token in tokens]
    assert len(tokens) == 20
    assert len({claim["sub"] for claim in claims}) == 20
    assert len({claim["jti"] for claim in claims}) == 20


@pytest.mark.parametrize("algorithm", ALGORITHMS)
def test_the_one_token_is_good_and_as_long_as_the_others(
    credentials: Credentials, algorithm: str
) -> None:
    token = credentials.tokens[algorithm]
    assert jwt.decode(token, key_of(credentials, algorithm), algorithms=[algorithm])["exp"]
    line = credentials.different(algorithm, 1).read_text()
    assert line.removeprefix("Authorization: Bearer ").rstrip() != token
    assert len(line) == len(f"Authorization: Bearer {token}\n")


def test_different_tokens_are_made_once(credentials: Credentials) -> None:
    first = credentials.different("HS256", 3)
    before = first.read_text()
    assert credentials.different("HS256", 3) == first
    assert first.read_text() == before


def test_different_counts_are_different_files(credentials: Credentials) -> None:
    counts = {count: credentials.different("HS256", count) for count in (2, 4)}
    assert {n: len(path.read_text().splitlines()) for n, path in counts.items()} == {2: 2, 4: 4}


def test_forged_tokens_fail_for_their_signature_alone(credentials: Credentials) -> None:
    line = credentials.different("HS256", 1, "Cookie: session=", forged=True).read_text()
    token = line.removeprefix("Cookie: session=").strip()
    assert jwt.decode(token, options={"verify_signature": False})["rooms"] == ["lobby", "HS256"]
    with pytest.raises(jwt.InvalidSignatureError):
        jwt.decode(token, key_of(credentials, "HS256"), algorithms=["HS256"])
