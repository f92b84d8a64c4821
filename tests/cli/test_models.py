"""`embedway models`: the catalog as it is, and which weights are here."""

import datetime as dt

import pytest

from embedway.catalog import default_catalog

DEFAULT = "sentence-transformers/all-MiniLM-L6-v2"


def test_list_shows_every_model_on_a_line_of_its_own(command):
    done = command("models", "list")
    assert (done.code, done.stderr) == (0, "")
    header, *rows = done.stdout.splitlines()
    assert header.split() == ["model", "task", "dimensions", "tokens", "languages", "licence", "here"]
    names = [row.split()[0] for row in rows]
    assert [default_catalog().get(name) for name in names] == list(default_catalog())
    assert all(row.endswith("  no") for row in rows)


def test_list_as_json_is_one_document_with_all_facts(command):
    models = {model["name"]: model for model in command("models", "list", "--json").json["models"]}
    assert set(models) == set(default_catalog().names())
    for facts in default_catalog():
        model = models[facts.name]
        assert model["here"] is False
        assert model["prompts"] == dict(facts.prompts)
        assert [file["sha256"] for file in model["weights"]["files"]] == [
            file.sha256 for file in facts.weights.files
        ]
        assert [dt.date.fromisoformat(source["date"]) for source in model["sources"]] == [
            source.date for source in facts.sources
        ]


def test_list_knows_what_is_here(command, with_model):
    models = command("models", "list", "--json").json["models"]
    assert [model["name"] for model in models if model["name"] == DEFAULT and model["here"]] == [DEFAULT]


@pytest.mark.parametrize("name", ["all-MiniLM-L6-v2", DEFAULT])
def test_show_gives_every_fact_with_source_and_date(command, name):
    done = command("models", "show", name)
    assert (done.code, done.stderr) == (0, "")
    facts = default_catalog().get(name)
    for source in facts.sources:
        assert source.url in done.stdout
        assert source.date.isoformat() in done.stdout
    for file in facts.weights.files:
        assert file.path in done.stdout
        assert file.sha256 is None or file.sha256 in done.stdout
    document = command("models", "show", name, "--json").json
    assert document["name"] == DEFAULT
    assert document["dimensions"] == 384
    named = {fact for source in document["sources"] for fact in source["facts"]}
    assert named <= set(document)


def test_show_works_for_all_models(command):
    # One process each would take long; rerankers and Matryoshka models are the odd ones.
    for name in ("bge-reranker-base", "mxbai-embed-large-v1", "multilingual-e5-small"):
        done = command("models", "show", name)
        assert (done.code, done.stderr) == (0, "")


def test_pull_offline_says_what_was_tried(command, tmp_path):
    done = command(
        "models",
        "pull",
        "all-MiniLM-L6-v2",
        "--json",
        variables={
            "EMBEDWAY_WEIGHTS__OFFLINE": "1",
            "EMBEDWAY_WEIGHTS__DIRECTORY": str(tmp_path / "weights"),
        },
    )
    assert (done.code, done.stdout) == (1, "")
    assert done.stderr.startswith(f"embedway: error: the files of {DEFAULT} could not be had")
    assert "offline" in done.stderr


def test_pull_of_what_is_here_tells_where(command, with_model, weights_folder):
    done = command("models", "pull", "all-MiniLM-L6-v2", "--json")
    assert done.code == 0
    (pulled,) = done.json["pulled"]
    assert pulled["model"] == DEFAULT
    assert pulled["path"].startswith(str(weights_folder))
    assert "%" not in done.stderr


def test_tune_measures_and_keeps_the_choice(command, with_model, tmp_path):
    tuned = tmp_path / "tuned"
    done = command(
        "models", "tune", "all-MiniLM-L6-v2", "--json", variables={"EMBEDWAY_TUNE__DIRECTORY": str(tuned)}
    )
    assert done.code == 0, done.stderr
    report = done.json
    assert report["rows"]
    assert any(row["passed"] for row in report["rows"])
    assert report["stored_at"].startswith(str(tuned))
    doctor = command("doctor", "--json", variables={"EMBEDWAY_TUNE__DIRECTORY": str(tuned)}).json
    assert [item["model"] for item in doctor["tuned"]] == [DEFAULT]
