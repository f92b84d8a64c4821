"""`embedway budget`, as a user runs it: omitted options stay unchanged, every table has a header, and pins."""

import asyncio
import csv
import io

import pytest

from embedway.ledger.pins import new_pin
from embedway.ledger.sqlite_pins import SqlitePins
from embedway.types import Space

SMALL = Space("small", "service:small", 8, "service", normalized=True)


@pytest.fixture
def command(own_settings):
    """Return a runner of commands that name the settings of their folder."""
    return own_settings


def budgets(command):
    return {one["name"]: one for one in command("budget", "show", "--json").json["budgets"]}


def test_what_is_not_said_of_a_budget_stays_as_it_is(command, place):
    options = ("--per", "month", "--collection", "docs", "--soft", "--warn-at", "90")
    first = command("budget", "set", "all", "5", *options)
    assert "budget all: $5.00 a month for collection docs, soft\n" in first.stderr
    before = budgets(command)["all"]
    second = command("budget", "set", "all", "6")
    assert "budget all: $6.00 a month for collection docs, soft (it was $5.00 a month for collection docs, soft)" in (
        second.stderr
    )
    assert budgets(command)["all"] == {**before, "limit_usd": "6.00", "left_usd": "6.00"}
    command("budget", "set", "all", "6", "--hard", "--per", "total", "--model", "openai/text-embedding-3-small")
    now = budgets(command)["all"]
    assert (now["hard"], now["period"], now["scope"]) == (True, "total", "model:text-embedding-3-small")
    assert now["warn_at"] == [90]
    command("budget", "set", "other", "1")
    assert {name: budgets(command)["other"][name] for name in ("hard", "period", "scope", "warn_at")} == {
        "hard": True,
        "period": "total",
        "scope": "*",
        "warn_at": [50, 80, 100],
    }


@pytest.mark.parametrize(
    ("arguments", "told"),
    [
        (("set", "", "1"), "a budget needs a name"),
        (("set", "x", "1", "--collection", ""), "scope is 'collection:'"),
        (("show", "--csv", "--json"), "--csv and --json cannot be combined"),
        (("ledger", "--csv", "--json"), "--csv and --json cannot be combined"),
    ],
)
def test_what_cannot_be_meant_is_refused(command, place, arguments, told):
    done = command("budget", *arguments)
    assert done.code == 2
    assert told in done.stderr
    assert not done.stdout
    assert not budgets(command)


def test_a_table_without_rows_has_the_header_of_one_with_rows(command, place):
    (place / "embedway.toml").write_text(
        '[models.m]\nname = "acme/m"\ndimensions = 16\nmax_tokens = 50\nprice_usd_per_million_tokens = "1"\n'
        '[routes.r]\nmodel = "acme/m"\nprovider = "fake"\n'
    )
    empty = {name: command("budget", name, "--csv").stdout for name in ("show", "ledger")}
    command("budget", "set", "all", "5")
    assert command("embed", "--model", "acme/m", "one two three").code == 0
    for name, header in empty.items():
        filled = command("budget", name, "--csv").stdout
        assert filled.startswith(header)
        (row,) = csv.DictReader(io.StringIO(filled))
        assert None not in row
        rows = command("budget", name, "--json").json
        assert list(row) == list((rows["budgets"] if name == "show" else rows)[0])


def test_a_call_without_an_answer_is_shown_as_failed(command, place):
    model = '[models.m]\nname = "acme/m"\ndimensions = 16\nmax_tokens = 50\nprice_usd_per_million_tokens = "1"\n'
    route = '[routes.r]\nmodel = "acme/m"\nprovider = "openai-compatible"\nbase_url = "http://127.0.0.1:1/v1"\n'
    (place / "embedway.toml").write_text(f"{model}{route}[upstream]\nmax_attempts = 1\n")
    assert command("embed", "--model", "acme/m", "one two three").code == 1
    assert "  failed  acme/m" in command("budget", "ledger").stdout
    (entry,) = command("budget", "ledger", "--json").json
    # The stored state is that of every finished call.
    assert (entry["state"], entry["spent_usd"], entry["unsure_usd"]) == ("done", "0.00", "0.00")
    assert entry["failed"]
    (row,) = csv.DictReader(io.StringIO(command("budget", "ledger", "--csv").stdout))
    assert row["failed"] == "true"


def test_collections_are_listed_and_forgotten(command, place, environment):
    assert command("budget", "pins").stdout == "no collections: the first write to a collection pins it\n"
    assert command("budget", "pins", "--json").json == []
    (place / "embedway.toml").write_text('[pins]\npath = "pins.sqlite"\n')

    async def write():
        pins = SqlitePins(place / "pins.sqlite")
        await pins.confirm(new_pin("docs", "small", SMALL, "a"))
        await pins.claim(new_pin("new", "small", SMALL, "b"), 60)
        await pins.aclose()

    asyncio.run(write())
    listed = command("budget", "pins", "--json").json
    assert [(one["collection"], one["space"], one["pinned"]) for one in listed] == [
        ("docs", SMALL.id, True),
        ("new", SMALL.id, False),
    ]
    docs, new = command("budget", "pins").stdout.splitlines()[1:]
    assert docs.startswith("docs")
    assert "first write in progress" in new
    assert "first write in progress" not in docs
    done = command("budget", "unpin", "docs")
    assert done.code == 0
    assert "its next write pins it again" in done.stderr
    assert [one["collection"] for one in command("budget", "pins", "--json").json] == ["new"]
    gone = command("budget", "unpin", "docs")
    assert gone.code == 2
    assert "collection 'docs' is not pinned" in gone.stderr


@pytest.mark.parametrize("amount", ["-5", "-0.5", "nan", "inf", "", "0x1", "99999999999", "1e99999", "1e-10", "5,00"])
def test_an_amount_that_is_none_is_refused_with_the_rule(started, amount):
    for words in (["budget", "set", "b", amount], ["budget", "set", "b", "--per", "day", "--", amount]):
        done = started(*words)
        assert (done.code, done.stdout) == (2, "")
        assert done.stderr.startswith("embedway: error: USD is ")
        assert "it must " in done.stderr
    assert started("budget", "show", "--json").json["budgets"] == []


def test_an_unknown_option_of_a_budget_is_not_its_name(started):
    done = started("budget", "set", "--hrd", "5")
    assert (done.code, done.stderr) == (
        2,
        "embedway: error: there is no option --hrd, and the name of a budget cannot start with -\n",
    )
