"""Rows of models that services and libraries run."""

import datetime as dt
import decimal

import pytest
from hypothesis import given
from hypothesis import strategies as st

from embedway.catalog import default_catalog
from embedway.catalog.services import TodaysPrice, default_services, read_services
from embedway.errors import ConfigError
from embedway.providers.registry import PROVIDERS, RERANKERS, provider_names

SERVICES = {facts.name: facts for facts in default_services().values()}

ROW = """
[[model]]
name = "m"
aliases = []
dimensions = 16
matryoshka = [8]
max_tokens = 100
tokenizer = "estimate"
normalized = true
languages = ["en"]
routes = [{ provider = "openai", model = "m" }]
[[model.sources]]
url = "https://example.com"
date = 2026-11-23
facts = ["dimensions", "matryoshka", "max_tokens", "tokenizer", "normalized", "languages", "routes"]
"""


@pytest.mark.parametrize("facts", SERVICES.values(), ids=lambda facts: facts.name)
def test_row_leads_to_providers_that_there_are(facts):
    group = RERANKERS if facts.task == "rerank" else PROVIDERS
    assert {route.provider for route in facts.routes} <= set(provider_names(group))
    assert facts.default_dimensions in facts.sizes or facts.task == "rerank"
    assert facts.price_usd_per_million_tokens is None or facts.price_usd_per_thousand_searches is None
    # The classic unit error is a price a thousand times too high: no price list has a model above one dollar.
    assert (facts.price_usd_per_million_tokens or 0) < 1


def test_no_name_leads_to_a_service_and_to_weights():
    local = {name.casefold() for facts in default_catalog() for name in (facts.name, *facts.aliases)}
    assert not local & set(default_services())


@pytest.mark.parametrize(
    ("name", "dimensions", "price"),
    [
        ("text-embedding-3-small", 1536, "0.02"),
        ("text-embedding-3-large", 3072, "0.13"),
        ("text-embedding-ada-002", 1536, "0.10"),
        ("embed-v4.0", 1536, "0.12"),
        ("voyage-4-lite", 1024, "0.02"),
        ("gemini-embedding-001", 3072, "0.15"),
        ("mistral-embed", 1024, "0.10"),
        ("nvidia/nv-embed-v2", 4096, "0"),
        ("fastembed-bge-base-en-v1.5", 768, "0"),
    ],
)
def test_facts_that_users_know_by_heart(name, dimensions, price):
    facts = default_services()[name.casefold()]
    assert (facts.default_dimensions, facts.price_usd_per_million_tokens) == (dimensions, decimal.Decimal(price))


def test_families_share_a_space_and_others_do_not():
    families = {}
    for facts in SERVICES.values():
        families.setdefault(facts.family, []).append(facts.name)
    assert families["voyage-4"] == ["voyage-4-large", "voyage-4", "voyage-4-lite"]
    assert families["embed-v5.0"] == ["embed-v5.0-pro", "embed-v5.0-fast"]
    assert set(families) == {"", "voyage-4", "embed-v5.0"}
    for family, names in families.items():
        assert not family or len({SERVICES[name].dimensions for name in names}) == 1


@given(st.integers(0, 10**12), st.sampled_from(sorted(SERVICES)))
def test_costs_are_exact_and_never_rounded_down(tokens, name):
    facts = SERVICES[name]
    price = facts.price_usd_per_million_tokens
    if price is not None:
        exact = price * 1000 * tokens
        assert exact <= facts.cost_nanousd(tokens) < exact + 1


@pytest.mark.parametrize(
    "context",
    [
        decimal.Context(prec=1, rounding=decimal.ROUND_UP),
        decimal.Context(prec=2, Emax=1, Emin=-1, traps=[decimal.Inexact, decimal.Rounded, decimal.FloatOperation]),
        decimal.Context(prec=3, traps=[]),
    ],
    ids=str,
)
def test_a_cost_is_the_same_in_any_decimal_context_of_the_caller(context):
    def costs():
        numbers = 1, 999, 1234, 987_654_321
        return [facts.cost_nanousd(count, searches=count) for facts in SERVICES.values() for count in numbers]

    expected = costs()
    with decimal.localcontext(context):
        assert costs() == expected


@pytest.mark.parametrize(
    ("name", "words", "default"),
    [
        ("text-embedding-3-small", "1 to 1536", 1536),
        ("text-embedding-3-large", "1 to 3072", 3072),
        ("text-embedding-ada-002", "1536", 1536),
        ("gemini-embedding-001", "128 to 3072", 3072),
        ("gemini-embedding-2", "128 to 3072", 3072),
        ("codestral-embed", "1 to 3072", 1536),
        ("jina-embeddings-v3", "1 to 1024", 1024),
        ("jina-embeddings-v4", "1 to 2048", 2048),
        ("jina-embeddings-v5-text-nano", "1 to 768", 768),
        ("embed-v4.0", "1536, 1024, 512, 256", 1536),
        ("voyage-4", "2048, 1024, 512, 256", 1024),
    ],
)
def test_sizes_are_those_of_the_reference(name, words, default):
    assert (str(SERVICES[name].supported), SERVICES[name].default_dimensions) == (words, default)


def test_a_model_of_a_range_is_free_only_if_every_size_is():
    ranged = DATED.replace("matryoshka = [8]", "matryoshka = [8]\nmin_dimensions = 4", 1)
    (facts,) = read_services(ranged.replace("facts = [", 'facts = ["min_dimensions", ', 1), where="x.toml")
    assert set(facts.sizes_by_price) == {16, 8, 4}  # 4 stands for all sizes that no price names


def test_searches_cost_by_the_thousand():
    assert SERVICES["rerank-v3.5"].cost_nanousd(10**6, searches=3) == 6_000_000
    assert SERVICES["rerank-2.5"].cost_nanousd(10**6, searches=3) == 50_000_000
    assert SERVICES["jina-reranker-v3"].cost_nanousd(10**6) is None


@pytest.mark.parametrize(
    ("old", "new", "said"),
    [
        ("max_tokens = 100", "max_tokens = 0", "greater than 0"),
        ('"estimate"', '"guess"', "tiktoken:ENCODING"),
        ("matryoshka = [8]", "matryoshka = [8]\ndefault_dimensions = 4", "one of `matryoshka`"),
        ("matryoshka = [8]", "matryoshka = [8]\nmin_dimensions = 16", "must be below dimensions, which is 16"),
        (
            "matryoshka = [8]",
            "matryoshka = [8]\nmin_dimensions = 9",
            "must not be above the smallest size of matryoshka",
        ),
        ("matryoshka = [8]", "matryoshka = [8]\nmin_dimensions = 0", "greater than 0"),
        ("matryoshka = [8]", "matryoshka = [8]\nmin_dimensions = 1", "no source"),
        ("matryoshka = [8]", 'matryoshka = [8]\nfamily = "f"', "no source"),
        ("matryoshka = [8]", 'matryoshka = [8]\nprice_usd_per_thousand_searches = "2"', "only rerankers"),
        ("matryoshka = [8]", 'matryoshka = [8]\ntask = "rerank"', "has no vectors"),
        ("matryoshka = [8]", 'matryoshka = [8]\nprice_usd_per_million_tokens = "2e-5"', "dollars as a string"),
    ],
)
def test_a_mistake_is_reported_with_file_model_and_field(old, new, said):
    assert read_services(ROW, where="x.toml")[0].name == "m"
    with pytest.raises(ConfigError, match=r"x\.toml: model 'm'") as caught:
        read_services(ROW.replace(old, new, 1), where="x.toml")
    assert said in str(caught.value)


DATED = ROW.replace(
    "matryoshka = [8]",
    """matryoshka = [8]
prices = [
  { since = 2024-01-01, usd_per_million_tokens = "0.10", batch_usd_per_million_tokens = "0.05" },
  { since = 2025-06-01, usd_per_million_tokens = "0.04" },
  { since = 2025-01-01, usd_per_million_tokens = "0.08", batch_usd_per_million_tokens = "0.03", dimensions = [8] },
]""",
    1,
).replace("facts = [", 'facts = ["prices", ', 1)


@pytest.mark.parametrize(
    ("day", "dimensions", "batch", "price"),
    [
        ("2023-12-31", 16, False, None),
        ("2024-01-01", 16, False, "0.10"),
        ("2024-01-01", 16, True, "0.05"),
        ("2025-05-31", 16, False, "0.10"),
        ("2025-06-01", 16, False, "0.04"),
        # The newer price has no batch price, and the older one has ended.
        ("2025-06-01", 16, True, None),
        # A price for a size overrides one for all sizes.
        ("2024-12-31", 8, False, "0.10"),
        ("2025-01-01", 8, False, "0.08"),
        ("2025-07-01", 8, False, "0.08"),
        ("2025-07-01", 8, True, "0.03"),
    ],
)
def test_prices_by_day_size_and_batch(day, dimensions, batch, price):
    (facts,) = read_services(DATED, where="x.toml")
    found = facts.price(day=dt.date.fromisoformat(day), dimensions=dimensions, batch=batch)
    assert found == (None if price is None else decimal.Decimal(price))


def test_a_price_is_found_again_on_the_next_day():
    (facts,) = read_services(DATED, where="x.toml")
    last, first = (dt.datetime.fromisoformat(day).timestamp() for day in ("2025-05-31T23:59:59Z", "2025-06-01T00:00Z"))
    now = [last]
    price = TodaysPrice(facts, 16, clock=lambda: now[0])
    assert price(1_000_000) == 100_000_000
    now[0] = first
    assert price(1_000_000) == 40_000_000
    now[0] = last - 1000 * 86_400
    assert price(1) is None


def test_dated_prices_are_those_of_today():
    (facts,) = read_services(DATED, where="x.toml")
    assert facts.price_usd_per_million_tokens == decimal.Decimal("0.04")
    assert facts.cost_nanousd(1_000_000) == 40_000_000
    assert facts.cost_nanousd(1_000_000, dimensions=8) == 80_000_000
    small = SERVICES["text-embedding-3-small"]
    assert small.price(batch=True) == small.price() / 2
    with pytest.raises(ConfigError, match="not both"):
        read_services(DATED.replace("prices = [", 'price_usd_per_million_tokens = "1"\nprices = [', 1), where="x.toml")
    with pytest.raises(ConfigError, match="usd_per_million_tokens"):
        read_services(DATED.replace('usd_per_million_tokens = "0.04" ', "dimensions = [8] ", 1), where="x.toml")
