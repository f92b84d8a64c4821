"""`embedway keys`, as a user runs it."""

import re

import pytest

from embedway.server.keys import parse_key

MINILM = "sentence-transformers/all-MiniLM-L6-v2"


@pytest.fixture
def command(own_settings):
    """Return a runner of commands that name the settings of their folder."""
    return own_settings


def test_the_key_alone_is_on_standard_output_and_stored_nowhere(command, place, tmp_path):
    done = command("keys", "create", "web")
    assert done.code == 0
    text, end = done.stdout[:-1], done.stdout[-1]
    assert end == "\n"
    assert parse_key(text) is not None
    assert "key web is created; it is shown only now" in done.stderr
    assert text not in done.stderr
    secret = parse_key(text)[1].encode()
    files = [path for path in tmp_path.rglob("*") if path.is_file()]
    assert any(path.name == "ledger.sqlite" for path in files)
    assert all(secret not in path.read_bytes() for path in files)
    for arguments in (("list",), ("list", "--json"), ("show", "web"), ("show", "web", "--json")):
        assert secret.decode() not in command("keys", *arguments).stdout


def test_a_key_has_the_rights_and_limits_of_its_options(command, place):
    options = ("--tenant", "acme", "--models", "all-minilm-l6-v2,text-embedding-3-small", "--weight", "2.5")
    limits = ("--requests-per-minute", "60", "--tokens-per-minute", "10000", "--max-priority", "3", "--admin")
    made = command("keys", "create", "web", *options, *limits, "--json").json
    shown = command("keys", "show", "web", "--json").json
    assert parse_key(made.pop("key")) is not None
    assert made.pop("budget") is None
    assert shown.pop("budgets") == []
    assert made == shown == command("keys", "list", "--json").json[0]
    created = shown.pop("created")
    assert re.fullmatch(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d\+00:00", created)
    assert shown == {
        "name": "web",
        "id": made["id"],
        "tenant": "acme",
        "models": [MINILM, "text-embedding-3-small"],
        "weight": 2.5,
        "max_priority": 3,
        "requests_per_minute": 60,
        "tokens_per_minute": 10_000,
        "admin": True,
        "revoked": None,
    }
    table = command("keys", "list").stdout
    assert re.search(
        rf"^web +{made['id']} +acme +{MINILM}, text-embedding-3-small +60 +10,000 +2\.5 .* admin$", table, 8
    )
    lines = command("keys", "show", "web").stdout
    assert "tenant: acme\n" in lines
    assert "tokens_per_minute: 10,000\n" in lines
    assert "no budgets: create one with `embedway budget set BUDGET USD --api-key web`" in lines


def test_the_budget_of_a_key_is_one_of_the_ledger(command, place):
    made = command("keys", "create", "web", "--budget", "5", "--period", "month", "--json").json
    assert made["budget"]["scope"] == "api_key:web"
    command("budget", "set", "day of web", "0.5", "--per", "day", "--api-key", "web")
    command("budget", "set", "of another", "1", "--api-key", "other")
    budgets = {one["name"]: one for one in command("budget", "show", "--json").json["budgets"]}
    assert (budgets["key web"]["limit_usd"], budgets["key web"]["period"]) == ("5.00", "month")
    shown = command("keys", "show", "web", "--json").json["budgets"]
    assert shown == [budgets["day of web"], budgets["key web"]]
    assert re.search(r"^key web +month +5\.00 +0\.00 +0\.00 +5\.00 +hard$", command("keys", "show", "web").stdout, 8)


def test_a_name_is_free_again_after_its_key_is_revoked(command, place):
    first = command("keys", "create", "web", "--budget", "5").stdout
    again = command("keys", "create", "web", "--budget", "9")
    assert again.code == 2
    assert "there is already a key 'web'" in again.stderr
    assert not again.stdout
    assert command("budget", "show", "--json").json["budgets"][0]["limit_usd"] == "5.00"
    done = command("keys", "revoke", "web")
    assert (done.code, done.stdout) == (0, "")
    assert "key web is revoked; running gateways refuse it within two seconds" in done.stderr
    assert command("keys", "revoke", "web", "--json").json["revoked"] is not None
    assert command("keys", "list").stdout.rstrip().endswith("revoked")
    second = command("keys", "create", "web")
    assert "key web replaces a revoked one" in second.stderr
    assert second.stdout != first


@pytest.mark.parametrize(
    ("arguments", "told"),
    [
        (("create", "a b"), "'a b' is no name of a key"),
        (("create", "web", "--tenant", "a/b"), "'a/b' is no name of a tenant"),
        (("create", "web", "--period", "day"), "--period is the period of --budget"),
        (("create", "web", "--budget", "-1"), "--budget is -1"),
        (("create", "web", "--weight", "nan"), "weight must be from 0.01 to 100"),
        (("create", "web", "--models", ","), "--models names no model"),
        (("create", "web", "--models", "nope"), "no model is called 'nope'"),
        (("create", "web", "--max-priority", "10"), "--max-priority"),
        (("create", "web", "--requests-per-minute", "0"), "--requests-per-minute"),
        (("show", "nope"), "there is no key 'nope'"),
        (("revoke", "nope"), "there is no key 'nope'"),
    ],
)
def test_wrong_arguments_store_nothing(command, place, arguments, told):
    done = command("keys", *arguments)
    assert done.code in {1, 2}
    assert told in done.stderr
    assert not done.stdout
    assert command("keys", "list", "--json").json == []
    assert command("budget", "show", "--json").json["budgets"] == []


def test_keys_need_the_ledgers_store(started, place):
    for arguments in (("create", "web"), ("list",), ("show", "web"), ("revoke", "web")):
        done = started("keys", *arguments, variables={"EMBEDWAY_LEDGER__BACKEND": "none"})
        assert done.code == 2
        assert "ledger.backend is none; set it to sqlite or redis" in done.stderr


def test_a_budget_of_the_settings_is_not_replaced(started, place):
    (place / "own.toml").write_text('[budgets."key web"]\nusd = "1"\n')
    done = started("--config", "own.toml", "keys", "create", "web", "--budget", "5")
    assert done.code == 2
    assert "budget 'key web' is defined in the settings" in done.stderr
    assert not done.stdout


@pytest.mark.subprocess
def test_keys_of_a_command_are_read_by_a_shell(started, place):
    done = started("keys", "create", "web", "--quiet")
    assert done.stderr == ""
    assert parse_key(done.stdout.strip()) is not None
