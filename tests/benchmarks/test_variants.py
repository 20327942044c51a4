"""The variants of the price list: each is a good policy, and one thing more than another one."""

import secrets
from pathlib import Path

import pytest

from benchmarks.credentials import Credentials, write_certificate
from benchmarks.variants import LOADS, VARIANTS, Variant, merged
from sidecar.config.source import load_policy

BY_NAME = {variant.name: variant for variant in VARIANTS}


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    made = tmp_path_factory.mktemp("site")
    Credentials.make(made)
    write_certificate(made)
    return made


def of(variant: Variant) -> Variant:
    assert variant.over is not None
    return BY_NAME[variant.over]


@pytest.mark.parametrize("variant", VARIANTS, ids=lambda variant: variant.name)
def test_every_policy_is_good(variant: Variant, folder: Path) -> None:
    text = variant.policy().replace("@FOLDER@", str(folder))
    for number, name in enumerate(("PORT", "PORT_ADMIN", "PORT_UPSTREAM", "PORT_BACK")):
        text = text.replace(f"@{name}@", str(18_000 + number))
    assert "@" not in text.replace("alice@example.com", "").replace("+@example[.]com", "")
    file = folder / f"{variant.name}.yaml"
    file.write_text(text)
    assert load_policy([file], {"BENCH_SECRET": secrets.token_hex(32)}).policy.routes


@pytest.mark.parametrize("variant", VARIANTS[1:], ids=lambda variant: variant.name)
def test_every_variant_differs_from_the_one_below(variant: Variant) -> None:
    below = of(variant)
    client = ("token", "forwarded", "compiled", "carrier", "headers", "preface", "refused")
    differs = variant.policy() != below.policy() or any(
        getattr(variant, name) != getattr(below, name) for name in client
    )
    assert differs == (variant.name != "again")


@pytest.mark.parametrize("variant", VARIANTS[1:], ids=lambda variant: variant.name)
def test_every_variant_has_a_price(variant: Variant) -> None:
    assert set(variant.loads) & set(of(variant).loads)
    assert set(variant.loads) <= set(LOADS)
    assert VARIANTS.index(of(variant)) < VARIANTS.index(variant)


def test_names_and_prices_are_told_apart() -> None:
    assert len(BY_NAME) == len(VARIANTS)
    assert len({(variant.title, variant.over) for variant in VARIANTS}) == len(VARIANTS)


def test_mappings_are_merged_at_every_depth_and_lists_replaced() -> None:
    below = {"a": {"b": {"c": 1}, "d": [1, 2]}, "e": 1}
    assert merged(below, {"a": {"b": {"f": 2}, "d": [3]}, "e": {"g": 3}}) == {
        "a": {"b": {"c": 1, "f": 2}, "d": [3]},
        "e": {"g": 3},
    }
    assert below == {"a": {"b": {"c": 1}, "d": [1, 2]}, "e": 1}
