"""`embedway select`, `plan` and `budget`, as a user runs them."""

import csv
import io
import json
import re

import pytest

ENGLISH = (
    "A vector store keeps the embeddings of all passages, and answers a question with those that lie nearest to it. "
    "Which of them is best depends on how many passages there are, and how often they change."
)
CODE = '''def nearest(query, vectors, count=10):
    """Return the positions of the nearest vectors."""
    scores = vectors @ query
    order = np.argsort(-scores)[:count]
    return [(int(row), float(scores[row])) for row in order]
'''
GERMAN = (
    "Ein Vektor gehört in genau einen Raum, und Abstände zwischen zwei Räumen bedeuten nichts. Deshalb wird geprüft."
)
CHINESE = "向量属于一个空间。两个空间之间的距离没有意义。每次写入之前都会检查模型和维度。"


@pytest.fixture
def command(own_settings):
    """Return a runner of commands that name the settings of their folder."""
    return own_settings


@pytest.fixture
def offline(with_model, environment):
    """Use the default model on this machine without downloads, and no keys of services."""
    for name in list(environment):
        if name.endswith("_API_KEY"):
            del environment[name]


def models_of(document):
    return {row["model"]: row for row in document["table"]}


# ---------------------------------------------------------------- select


def test_the_table_has_every_model_or_why_it_is_out(command, place, offline):
    (place / "prose.txt").write_text(ENGLISH)
    done = command("select", "prose.txt")
    assert done.code == 0, done.stderr
    first, second, *rest = done.stdout.splitlines()
    assert first.startswith("1 text, ")
    assert "en 100%; no code" in first
    assert second == "selected: sentence-transformers/all-MiniLM-L6-v2"
    table = "\n".join(rest)
    counts = {kind: int(number) for number, kind in re.findall(r"^ +(\d+)  (\S.*)$", table, re.MULTILINE)}
    assert counts["no key: set OPENAI_API_KEY"] == 3
    # A model counts under each of its reasons, alone.
    assert counts["weights missing: embedway models pull NAME"] > 20
    assert counts["its quality is unknown"] > 10
    assert not any(";" in kind for kind in counts)
    assert "51 models are excluded, each counted under all its reasons; --all lists them" in table
    assert max(map(len, rest)) <= 120
    listed = command("select", "prose.txt", "--all").stdout
    assert "weights missing: embedway models pull BAAI/bge-m3" in listed
    assert len(listed.splitlines()) > 50
    assert command("select", "prose.txt", "-v").code == 0  # --verbose of embedway
    (place / "long.txt").write_text(ENGLISH * 20)
    keyed = command("select", "long.txt", variables={"OPENAI_API_KEY": "unused"}).stdout
    assert re.search(r"text-embedding-3-small .* ~0\.00\d+", keyed)
    assert "~ estimated: from a sample (--max-total-cost counts all texts)" in keyed
    counted = command("select", "long.txt", "--max-total-cost", "1", variables={"OPENAI_API_KEY": "unused"}).stdout
    assert "text-embedding-3-small" in counted
    assert "~" not in counted
    asked = command("select", "prose.txt", "--json").json
    assert asked["model"] == "sentence-transformers/all-MiniLM-L6-v2"
    assert len(asked["table"]) > 50
    assert all((row["rank"] is None) == bool(row["out"]) for row in asked["table"])
    assert asked["analysis"]["primary_language"] == "en"


def test_what_the_texts_are_counts(command, place, offline):
    (place / "code.py").write_text(CODE)
    (place / "mix").mkdir()
    (place / "mix" / "a.txt").write_text(GERMAN)
    (place / "mix" / "b.txt").write_text(CHINESE)
    code = command("select", "code.py", "--anywhere", "--json").json
    assert code["analysis"]["contains_code"]
    strong = [row for row in code["table"] if row["parts"]["code_bonus"] > 1]
    assert strong
    assert all(row["parts"]["code_bonus"] in {1.0, 1.1} for row in code["table"])
    mix = command("select", "mix", "--anywhere", "--multilingual", "--json").json
    assert mix["analysis"]["multilingual"]
    assert mix["analysis"]["languages"] == {"de": 0.5, "zh": 0.5}
    chosen = models_of(mix)[mix["model"]]
    assert chosen["parts"]["multilingual_bonus"] == 1.2
    assert "require_multilingual" in {one["requirement"] for one in models_of(mix)["BAAI/bge-base-en-v1.5"]["out"]}
    printed = command("select", "mix", "--anywhere").stdout
    assert "multilingual" in printed.splitlines()[0]


def test_criteria_alone_decide_without_texts(command, offline):
    best = command("select", "--anywhere", "--preset", "best", "--json").json
    cheap = command("select", "--anywhere", "--preset", "cheap", "--local", "--json").json
    assert best["table"][0]["quality_score"] == max(row["quality_score"] or 0 for row in best["table"] if row["rank"])
    assert cheap["table"][0]["cost_per_million_tokens"] == "0"
    capped = command("select", "--anywhere", "--max-cost-per-million", "0.02", "--min-accuracy", "0.6", "--json").json
    for row in capped["table"]:
        if row["rank"]:
            assert float(row["cost_per_million_tokens"]) <= 0.02
            assert row["quality_score"] >= 60


def test_where_none_is_left_it_says_what_to_relax(command, offline):
    done = command("select", "--min-accuracy", "0.99", "--all")
    assert done.code == 1
    assert "no model meets every requirement" in done.stderr
    assert "  - --min-accuracy 0.5609: sentence-transformers/all-MiniLM-L6-v2" in done.stderr
    assert re.search(r"accuracy 0\.56\d+ is below 0\.99", done.stdout)
    asked = command("select", "--min-accuracy", "0.99", "--json")
    assert asked.code == 1
    assert asked.json["model"] is None
    assert asked.json["advice"]
    wrong = command("select", "--max-total-cost", "a lot")
    assert wrong.code == 2
    assert "max_total_cost is 'a lot'" in wrong.stderr


def test_benchmarks_of_a_file_count(command, place, offline):
    changes = {"embedding": {"model_benchmarks": {"BAAI/bge-m3": {"quality_score": 99, "avg_latency_ms": 1}}}}
    (place / "mine.json").write_text(json.dumps(changes))
    done = command("-c", "mine.json", "select", "--anywhere", "--json")
    assert done.json["model"] == "BAAI/bge-m3"
    (place / "mine.json").write_text(
        json.dumps({"embedding": {"model_benchmarks": {"BAAI/bge-m3": {"quality_score": 990}}}})
    )
    wrong = command("-c", "mine.json", "select")
    assert wrong.code != 0
    assert "mine.json" in wrong.stderr
    assert "quality_score" in wrong.stderr
    assert "990" in wrong.stderr


# ------------------------------------------------------------------ plan


def test_a_plan_lists_what_runs_here(command, place, offline):
    (place / "a.txt").write_text(ENGLISH)
    done = command("plan", "a.txt", variables={"OPENAI_API_KEY": "unused"})
    assert done.code == 0, done.stderr
    rows = {line.split()[0]: line for line in done.stdout.splitlines()[2:]}
    assert "$0.00 " in rows["sentence-transformers/all-MiniLM-L6-v2"]
    planned = command("plan", "a.txt", "--json", variables={"OPENAI_API_KEY": "unused"}).json
    by_model = {one["model"]: one for one in planned["models"]}
    small, large = by_model["text-embedding-3-small"], by_model["text-embedding-3-large"]
    assert small["tokens"] == large["tokens"] > 20
    assert float(small["cost_usd"]) == pytest.approx(small["tokens"] * 2e-8, abs=1e-15)
    assert float(large["cost_usd"]) == pytest.approx(large["tokens"] * 13e-8, abs=1e-15)
    assert float(small["batch_cost_usd"]) == float(small["cost_usd"]) / 2
    one = command("plan", "-", "--model", "all-MiniLM-L6-v2", "--json", stdin="first\nsecond\nfirst\n").json
    assert [(row["texts"], row["unique_texts"]) for row in one["models"]] == [(3, 2)]
    assert command("budget", "ledger").stdout == "the ledger is empty\n"


@pytest.mark.parametrize("model", ["BAAI/bge-m3", "bge-small-en-v1.5", "hf:BAAI/bge-m3", "fastembed-bge-base-en-v1.5"])
def test_a_plan_needs_no_weights(command, place, environment, model):
    (place / "a.txt").write_text(ENGLISH)
    offline = {"EMBEDWAY_WEIGHTS__OFFLINE": "1"}
    done = command("plan", "--model", model, "a.txt", "--json", variables=offline)
    assert done.code == 0, done.stderr
    (planned,) = done.json["models"]
    assert (planned["texts"], planned["tokens_estimated"], float(planned["cost_usd"])) == (1, True, 0)
    assert command("models", "show", "BAAI/bge-m3", variables=offline).code == 0


def test_a_reranker_is_not_planned(command, place, environment):
    (place / "a.txt").write_text(ENGLISH)
    for arguments in (("plan", "a.txt"), ("embed", "a text"), ("run", "a.txt", "--to", "a.jsonl")):
        done = command(*arguments, "--model", "hf:BAAI/bge-reranker-base")
        assert done.code != 0
        assert "is a reranker: it scores pairs of texts" in done.stderr
        assert "Tried" not in done.stderr


def test_texts_that_are_not_split_must_fit(command, place, offline):
    (place / "long.txt").write_text("word " * 2952)
    reason = "the longest text has 2,954 tokens; it accepts 256"
    table = command("select", "long.txt", "--preset", "fast", "--all")
    assert table.code == 1
    assert reason in table.stdout
    first, *_ = table.stderr.splitlines()
    assert first.endswith(
        "1 model cannot read the longest text completely; `run` splits texts: use --no-fit to select for chunks"
    )
    # Also if it misses another requirement, and whether it runs here or not.
    other = command("select", "long.txt", "--dimensions", "77", "--no-match-languages").stderr.splitlines()
    assert other[0] == first
    assert "use --no-fit" not in command("select", "long.txt", "--models", "bge-small-en-v1.5").stderr.splitlines()[0]
    mini = "sentence-transformers/all-MiniLM-L6-v2"
    assert command("select", "long.txt", "--preset", "fast", "--no-fit", "--json").json["model"] == mini
    assert "--no-fit" not in command("select", "long.txt", "--preset", "fast", "--no-fit").stderr
    whole = ("long.txt", "--preset", "fast", "--no-chunk")
    assert "  - --no-fit: " in command("run", *whole, "--to", "a.jsonl").stderr
    assert "  - --no-fit: " in command("plan", *whole).stderr
    assert "  - --on-overflow truncate --no-fit: " in command("plan", *whole, "--on-overflow", "error").stderr
    assert command("plan", *whole, "--no-fit", "--json").json["models"][0]["truncated"] == 1
    assert command("plan", "long.txt", "--preset", "fast", "--json").json["models"][0]["model"] == mini
    text = "word " * 2952
    assert "  - --no-fit: " in command("embed", text, "--preset", "fast").stderr
    done = command("embed", text, "--preset", "fast", "--no-fit")
    assert done.code == 0, done.stderr
    (place / "embedway.toml").write_text("[selection]\nrequire_fit = false\n")
    assert command("-c", "embedway.toml", "select", "long.txt", "--preset", "fast", "--json").json["model"] == mini


def test_a_plan_of_nothing_and_of_no_model(command, place, offline):
    (place / "a.txt").write_text("text")
    assert "no-such-model" in command("plan", "a.txt", "-m", "no-such-model").stderr
    none = command("plan", "a.txt", "--dimensions", "7")
    assert none.code == 2
    assert "no model that is usable here returns vectors of 7 dimensions" in none.stderr
    missing = command("plan", "missing.txt")
    assert missing.code != 0
    assert "missing.txt" in missing.stderr


def test_a_plan_of_a_service_needs_no_key(command, place, offline):
    (place / "a.txt").write_text(ENGLISH)
    planned = command("plan", "a.txt", "-m", "text-embedding-3-small", "--json")
    assert planned.code == 0, planned.stderr
    assert float(planned.json["models"][0]["cost_usd"]) > 0
    refused = command("run", "a.txt", "--to", "o.jsonl", "-m", "text-embedding-3-small")
    assert refused.code != 0
    assert "OPENAI_API_KEY" in refused.stderr


def test_a_plan_of_what_run_would_select(command, place, offline):
    (place / "a.txt").write_text(ENGLISH)
    key = {"OPENAI_API_KEY": "unused"}
    best = command("plan", "a.txt", "--preset", "best", "--json", variables=key)
    assert [one["model"] for one in best.json["models"]] == ["text-embedding-3-large"]
    assert "selected text-embedding-3-large" in best.stderr
    assert command("embed", "a passage", "--collection", "docs").code == 0
    pinned = command("plan", "a.txt", "--preset", "best", "--collection", "docs", "--json", variables=key)
    assert [one["model"] for one in pinned.json["models"]] == ["sentence-transformers/all-MiniLM-L6-v2"]
    other = command("plan", "a.txt", "-m", "text-embedding-3-small", "--collection", "docs", variables=key)
    assert other.code != 0
    assert "collection 'docs'" in other.stderr
    both = command("plan", "a.txt", "-m", "text-embedding-3-small", "--preset", "best")
    assert both.code == 2


def test_a_default_model_that_is_named_is_kept(command, place, offline):
    spend(place)
    settings = (place / "embedway.toml").read_text()
    (place / "embedway.toml").write_text(f'embedding.default_model = "acme/m"\n{settings}')
    (place / "a.txt").write_text("one two three")
    for extra in (("--max-cost", "0.00001"), ("--collection", "docs")):
        embedded = command("embed", "one two three", "--json", *extra)
        assert embedded.json["receipt"]["model"] == "acme/m"
        run = command("run", "a.txt", "--to", "o.jsonl", "--overwrite", "--json", *extra)
        assert run.json["model"] == "m", run.stderr
    selected = command("embed", "one two three", "--json", "--preset", "private")
    assert selected.json["receipt"]["model"] == "sentence-transformers/all-MiniLM-L6-v2"


@pytest.mark.parametrize("form", [(), ("--json",)])
def test_what_texts_may_cost_is_for_all_of_them(command, place, offline, form):
    spend(place)
    texts = [f"word number {n}" for n in range(1100)]
    settings = (place / "embedway.toml").read_text().replace('usd = "0.00005"', "usd = 1")
    (place / "embedway.toml").write_text(settings)
    whole = command("embed", "-m", "acme/m", "--max-cost", "0", *texts).stderr
    needed = round(float(re.search(r"may cost \$(0\.\d+)", whole)[1]) * 1_000_000)
    refused = command("embed", "-m", "acme/m", "--max-cost", f"0.{needed - 1:06d}", *form, *texts)
    assert (refused.code, refused.stdout) == (3, "")
    assert command("budget", "ledger").stdout == "the ledger is empty\n"
    done = command("embed", "-m", "acme/m", "--max-cost", f"0.{needed:06d}", *form, *texts)
    assert done.code == 0, done.stderr


# ---------------------------------------------------------------- budget


def spend(place):
    """Write settings with a model that costs a dollar per million tokens and runs inside the test."""
    settings = """
[models.m]
name = "acme/m"
dimensions = 16
max_tokens = 50
price_usd_per_million_tokens = "1"
[routes.r]
model = "acme/m"
provider = "fake"
[budgets.mine]
usd = "0.00005"
model = "acme/m"
"""
    (place / "embedway.toml").write_text(settings)


def test_a_budget_is_set_spent_shown_and_enforced(command, place, offline):
    spend(place)
    assert command("budget", "set", "all", "0.00002", "--per", "day").code == 0
    first = command("embed", "--model", "acme/m", "one two three")
    assert first.code == 0, first.stderr
    refused = command("embed", "--model", "acme/m", *[f"word number {n}" for n in range(9)])
    assert refused.code == 3
    assert "budget 'all' allows $0.00002 in " in refused.stderr
    assert "twice its estimate, because acme/m has no tokenizer here" in refused.stderr
    assert "the request was not sent" in refused.stderr
    shown = command("budget", "show", "--json").json
    by_name = {one["name"]: one for one in shown["budgets"]}
    assert by_name["all"]["spent_usd"] == by_name["mine"]["spent_usd"] == "0.000003"
    assert (by_name["all"]["left_usd"], by_name["mine"]["left_usd"]) == ("0.000017", "0.000047")
    table = command("budget", "show").stdout
    assert "model acme/m" in table
    assert "everything" in table
    (entry,) = command("budget", "ledger", "--json").json
    assert (entry["model"], entry["spent_usd"], entry["tokens"], entry["state"]) == ("acme/m", "0.000003", 3, "done")
    rows = list(csv.DictReader(io.StringIO(command("budget", "ledger", "--csv").stdout)))
    assert [row["spent_usd"] for row in rows] == ["0.000003"]
    assert [row["name"] for row in csv.DictReader(io.StringIO(command("budget", "show", "--csv").stdout))]
    assert "acme/m" in command("budget", "ledger").stdout
    assert command("budget", "ledger", "--since", "2999-01-01").stdout == "the ledger is empty\n"
    assert command("budget", "remove", "all").code == 0
    assert command("embed", "--model", "acme/m", "one two three four").code == 0


def test_mistakes_with_budgets(command, place, offline):
    spend(place)
    for arguments, told in [
        (("set", "x", "much"), "USD is 'much'"),
        (
            ("set", "x", "1", "--model", "acme/m", "--collection", "c"),
            "applies to one of --model, --collection and --api-key",
        ),
        (("set", "x", "1", "--model", "nobody/nothing"), "nobody/nothing"),
        (("set", "mine", "1"), "budget 'mine' is defined in the settings"),
        (("remove", "mine"), "remove [budgets.mine] there"),
        (("remove", "nothing"), "there is no budget 'nothing'"),
        (("ledger", "--since", "yesterday"), "--since is 'yesterday'; it must be a day such as 2026-11-01"),
    ]:
        done = command("budget", *arguments)
        assert done.code != 0
        assert told in done.stderr
    without = command("budget", "show", variables={"EMBEDWAY_LEDGER__BACKEND": "none"})
    assert without.code == 2
    assert "there is no ledger: ledger.backend is none" in without.stderr
    aliased = command("budget", "set", "small", "1", "--model", "openai/text-embedding-3-small")
    assert aliased.code == 0
    assert "model text-embedding-3-small" in command("budget", "show").stdout


# ------------------------------------------------- run and embed by criteria


def test_a_job_takes_the_model_that_its_criteria_select(command, place, offline):
    (place / "a.txt").write_text(ENGLISH)
    done = command("run", "a.txt", "--to", "a.jsonl", "--preset", "private", "--max-cost", "0", "--collection", "docs")
    assert done.code == 0, done.stderr
    assert "selected sentence-transformers/all-MiniLM-L6-v2" in done.stderr
    again = command("embed", ENGLISH, "--collection", "docs", "--preset", "best", "--json")
    assert again.json["receipt"]["collection"] == "docs"
    assert again.json["receipt"]["selected"] is None
    chosen = command("embed", ENGLISH, "--preset", "private", "--json").json["receipt"]["selected"]
    assert chosen["model"] == "sentence-transformers/all-MiniLM-L6-v2"


def test_a_job_of_another_space_does_not_get_into_a_collection(command, place, offline):
    spend(place)
    (place / "a.txt").write_text("one two three")
    assert command("run", "a.txt", "--to", "a.jsonl", "--model", "acme/m", "--collection", "docs").code == 0
    done = command("run", "a.txt", "--to", "b.jsonl", "--model", "all-MiniLM-L6-v2", "--collection", "docs")
    assert done.code == 1
    assert "collection 'docs' contains vectors of the space m@" in done.stderr
    assert not (place / "b.jsonl").exists()
    kept = command("run", "a.txt", "--to", "b.jsonl", "--collection", "docs", "--json")
    assert kept.json["model"] == "m"
    assert (kept.json["billed_tokens"], kept.json["cached"]) == (0, 1)


def test_a_job_costs_no_more_than_it_may(command, place, offline):
    spend(place)
    (place / "a.txt").write_text("one two three")
    dear = command("run", "a.txt", "--to", "a.jsonl", "--model", "acme/m", "--max-cost", "0.000001")
    assert dear.code == 3
    assert "max_cost is $0.000001" in dear.stderr
    assert not (place / "a.jsonl").exists()
    done = command("run", "a.txt", "--to", "a.jsonl", "--model", "acme/m", "--max-cost", "0.00002")
    assert done.code == 0, done.stderr
    assert "$0.000003 for 3 tokens" in done.stdout


def test_criteria_that_contradict_each_other(command, place, offline):
    (place / "a.txt").write_text("text")
    for arguments, told in [
        (("run", "a.txt", "--to", "a.jsonl", "--model", "m", "--preset", "best"), "--model names a model and --preset"),
        (("embed", "text", "--model", "m", "--preset", "best"), "--model names a model and --preset"),
        (("embed", "-", "--preset", "best"), "--preset, --models, --max-cost and --backup need --json"),
        (("run", "-", "--to", "a.jsonl", "--preset", "best"), "standard input can be read only once"),
        (("run", "a.txt", "--to", "a.jsonl", "--max-cost", "some"), "--max-cost is 'some'"),
    ]:
        done = command(*arguments, stdin="line\n")
        assert done.code == 2
        assert told in done.stderr
    assert not (place / "a.jsonl").exists()


# ---------------------------------------------------------------- which models


class TestModels:
    MINI, SMALL = "sentence-transformers/all-MiniLM-L6-v2", "text-embedding-3-small"

    @pytest.mark.parametrize(
        "flags",
        [
            ("--models", "all-minilm-l6-v2, TEXT-embedding-3-small"),
            ("--models", "hf:sentence-transformers/all-MiniLM-L6-v2", "--models", "text-embedding-3-small,"),
        ],
    )
    def test_select_from_named_models(self, command, place, offline, flags):
        found = command("select", *flags, "--json").json
        assert set(models_of(found)) == {self.MINI, self.SMALL}
        assert found["model"] == self.MINI
        assert len(found["warnings"]) == 1
        printed = command("select", *flags)
        assert printed.stderr.count(found["warnings"][0]) == len(printed.stderr.splitlines()) == 1
        assert printed.stdout.rstrip().endswith("cannot run here now: no key: set OPENAI_API_KEY")

    def test_unknown_names(self, command, place, offline):
        (place / "a.txt").write_text("text")
        for arguments in (
            ("select", "--models", "bge_m3"),
            ("run", "a.txt", "--to", "a.jsonl", "--models", "bge_m3"),
            ("plan", "a.txt", "--models", f"{self.MINI},bge_m3"),
            ("embed", "text", "--models", "bge_m3"),
        ):
            done = command(*arguments)
            assert done.code == 1
            assert "no model is called 'bge_m3'; nearest: " in done.stderr
            assert "bge-m3" in done.stderr
        assert "--models names no model" in command("select", "--models", ",").stderr

    def test_run_plan_and_embed_select_from_named_models(self, command, place, offline):
        (place / "a.txt").write_text(ENGLISH)
        (place / "embedway.toml").write_text('embedding.default_model = "BAAI/bge-m3"\n')
        named = ("--models", f"{self.MINI},text-embedding-3-small")
        ran = command("run", "a.txt", "--to", "a.jsonl", "--json", *named)
        assert ran.code == 0, ran.stderr
        assert self.MINI.endswith(ran.json["model"])
        (warning,) = ran.json["notes"]
        assert ran.stderr.count(warning) == 1
        planned = command("plan", "a.txt", "--json", *named)
        assert [one["model"] for one in planned.json["models"]] == [self.MINI]
        assert planned.stderr.count(warning) == 1
        embedded = command("embed", "text", "--json", *named)
        assert embedded.json["receipt"]["selected"]["model"] == self.MINI
        assert embedded.json["receipt"]["notes"] == [warning]
        assert embedded.stderr.count(warning) == 1
        for arguments in (("run", "a.txt", "--to", "b.jsonl"), ("plan", "a.txt"), ("embed", "text")):
            both = command(*arguments, *named, "--model", self.MINI)
            assert both.code == 2
            assert "--model names a model and --models selects one" in both.stderr

    def test_a_pinned_collection_of_another_model_is_refused(self, command, place, offline):
        (place / "a.txt").write_text(ENGLISH)
        assert command("embed", "text", "--collection", "docs").code == 0
        for arguments in (("run", "a.txt", "--to", "a.jsonl"), ("plan", "a.txt"), ("embed", "text")):
            assert command(*arguments, "--collection", "docs", "--models", "all-minilm-l6-v2").code == 0
            done = command(*arguments, "--collection", "docs", "--models", "bge-m3")
            assert done.code == 2
            assert f"collection 'docs' has vectors of {self.MINI}, and models allows only bge-m3" in done.stderr

    def test_a_preset_keeps_the_other_criteria_of_the_settings(self, command, place, offline):
        (place / "embedway.toml").write_text('selection.models = ["all-minilm-l6-v2"]\n')
        embedded = command("embed", "text", "--json", "--preset", "best", variables={"OPENAI_API_KEY": "unused"})
        assert embedded.json["receipt"]["model"] == self.MINI
        assert embedded.json["receipt"]["selected"]["criteria"]["accuracy_weight"] == 1.0


def test_every_flag_of_a_setting_has_its_opposite(command, place, offline):
    (place / "mix").mkdir()
    (place / "mix" / "a.txt").write_text(GERMAN)
    (place / "mix" / "b.txt").write_text(CHINESE)
    (place / "embedway.toml").write_text(
        "[selection]\nrequire_multilingual = true\nrequire_local = true\nmatch_languages = true\n"
    )
    on = command("select", "mix", "--anywhere", "--json").json["criteria"]
    assert on["require_multilingual"] is on["require_local"] is on["match_languages"] is True
    flags = ("--no-multilingual", "--no-local", "--no-match-languages")
    off = command("select", "mix", "--anywhere", "--json", *flags).json
    criteria = off["criteria"]
    assert criteria["require_multilingual"] is criteria["require_local"] is criteria["match_languages"] is False
    assert models_of(off)["BAAI/bge-base-en-v1.5"]["rank"]


def test_licences(command, offline):
    by_default = models_of(command("select", "--anywhere", "--json").json)
    nvidia, jina = by_default["nvidia/NV-Embed-v2"], by_default["jina-embeddings-v3"]
    assert (nvidia["licence"], nvidia["non_commercial"]) == ("CC-BY-NC-4.0", True)
    (out,) = nvidia["out"]
    assert out == {"requirement": "licences", "reason": "its licence, CC-BY-NC-4.0, forbids commercial use"}
    # The weights' licence forbids commercial use, and the terms of Jina's API allow it.
    assert (jina["licence"], jina["non_commercial"]) == ("service", False)
    assert jina["rank"]
    printed = command("select", "--anywhere", "--licence", "any").stdout
    assert re.search(r"nvidia/NV-Embed-v2 .* CC-BY-NC-4\.0!", printed)
    assert "! the licence forbids commercial use" in printed
    assert "forbids commercial use" in command("select", "--models", "nv-embed-v2", "--anywhere").stdout
    advice = command("select", "--models", "nv-embed-v2", "--anywhere").stderr
    assert "  - --licence any: nvidia/NV-Embed-v2" in advice


@pytest.mark.parametrize(
    ("route", "licence"),
    [
        ('provider = "jina"', "service"),
        ('provider = "jina"\nbase_url = "https://api.jina.ai/v1"', "service"),
        ('provider = "jina"\nbase_url = "http://127.0.0.1:9/v1"', "CC-BY-NC-4.0"),
        ('provider = "openai-compatible"\nbase_url = "http://127.0.0.1:9/v1"', "CC-BY-NC-4.0"),
    ],
)
def test_a_licence_is_that_of_the_route(command, place, offline, route, licence):
    (place / "embedway.toml").write_text(f'[routes.r]\nmodel = "jina-embeddings-v3"\napi_key = "k"\n{route}\n')
    row = models_of(command("select", "--anywhere", "--json").json)["jina-embeddings-v3"]
    assert (row["licence"], row["non_commercial"]) == (licence, licence != "service")
    confirmed = 'embedding.model_benchmarks."jina-embeddings-v3".licence = "our contract"\n'
    (place / "embedway.toml").write_text(f"{confirmed}{(place / 'embedway.toml').read_text()}")
    row = models_of(command("select", "--anywhere", "--json").json)["jina-embeddings-v3"]
    assert (row["licence"], row["rank"] is None) == ("our contract", False)


def test_advice_of_commands_that_select_is_given_as_settings_and_flags(command, place, offline):
    (place / "a.txt").write_text(ENGLISH)
    settings = "selection.min_accuracy = 0.9\nselection.dimensions = 384\n"
    for arguments in (
        ("run", "a.txt", "--to", "a.jsonl", "--preset", "best"),
        ("plan", "a.txt", "--preset", "best"),
        ("embed", "text", "--preset", "best"),
        ("embed", "text", "--collection", "new"),
    ):
        (place / "embedway.toml").write_text(settings)
        done = command(*arguments)
        assert done.code == 1
        assert "no model meets every requirement; one of these changes helps:" in done.stderr
        (advice,) = re.findall(r"  - (selection\.min_accuracy = 0\.\d+): ", done.stderr)
        (place / "embedway.toml").write_text(f"{advice}\nselection.dimensions = 384\n")
        assert command(*arguments).code == 0
        (place / "a.jsonl").unlink(missing_ok=True)
    (place / "embedway.toml").write_text("selection.min_accuracy = 0\n")
    done = command("embed", "text", "--preset", "best", "--dimensions", "77")
    assert "  - without --dimensions: sentence-transformers/all-MiniLM-L6-v2" in done.stderr
    (place / "embedway.toml").write_text("selection.min_accuracy = 0\nselection.dimensions = 77\n")
    done = command("select", "--local")
    assert "  - without the setting selection.dimensions: sentence-transformers/all-MiniLM-L6-v2" in done.stderr


@pytest.mark.parametrize(
    ("text", "options", "advice"),
    [
        ("word " * 2952, (), "--no-fit"),
        (GERMAN, (), "--no-match-languages"),
        (GERMAN * 40, (), "--no-match-languages --no-fit"),
        (GERMAN, ("--preset", "best", "--min-accuracy", "0.7"), "--min-accuracy 0.5609 --no-match-languages"),
        (ENGLISH, ("--dimensions", "77", "--licence", "MIT"), "--licence any and without --dimensions"),
        (ENGLISH, ("--multilingual", "--max-latency-ms", "1"), r"--no-multilingual --max-latency-ms [0-9.]+"),
    ],
)
def test_the_first_advice_is_for_the_model_that_runs_here(command, place, offline, text, options, advice):
    (place / "a.txt").write_text(text)
    done = command("select", "a.txt", *options)
    assert done.code == 1
    found = re.search(rf"helps:\n  - ({advice}): sentence-transformers/all-MiniLM-L6-v2$", done.stderr, re.MULTILINE)
    assert found, done.stderr
    if "without" not in advice:
        assert command("select", "a.txt", *options, *found[1].split()).code == 0


def test_the_table_says_what_runs_here_and_what_its_marks_mean(command, offline):
    here = command("select", "--any-scale", variables={"OPENAI_API_KEY": "unused"}).stdout
    assert "  here  " not in here
    printed = command("select", "--any-scale", "--anywhere", variables={"OPENAI_API_KEY": "unused"}).stdout
    assert re.search(r"text-embedding-3-small +yes ", printed)
    assert re.search(r"BAAI/bge-small-en-v1.5 +no ", printed)
    assert "here: whether it runs here now" in printed
    assert "another scale's; see --json" in printed
    assert "which only --any-scale compares" in command("select", "--anywhere").stdout
    assert max(map(len, printed.splitlines())) <= 120


def test_counts_of_one_are_singular(command, place, offline):
    (place / "a.txt").write_text(ENGLISH)
    assert command("plan", "a.txt").stdout.startswith("1 document, ")
