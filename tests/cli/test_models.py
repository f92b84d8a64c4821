"""`embedway models`: the catalog, and which weights are on this machine."""

import datetime as dt
import json
import shutil
from pathlib import Path

import numpy as np
import pytest
from safetensors.numpy import save_file

from embedway.catalog import default_catalog

DEFAULT = "sentence-transformers/all-MiniLM-L6-v2"


@pytest.fixture
def command(own_settings):
    """Return a runner of commands that name the settings of their folder."""
    return own_settings


def test_list_shows_every_model_on_a_line_of_its_own(command):
    done = command("models", "list")
    assert (done.code, done.stderr) == (0, "")
    header, *rows = done.stdout.partition("\n\n")[0].splitlines()
    assert header.split() == ["model", "task", "dimensions", "tokens", "languages", "licence", "here"]
    names = [row.split()[0] for row in rows]
    assert [default_catalog().get(name) for name in names] == list(default_catalog())
    assert all(row.endswith("  no: weights not downloaded") for row in rows)


def test_list_as_json_is_one_document_with_all_facts(command):
    models = {model["name"]: model for model in command("models", "list", "--json").json["models"]}
    assert set(models) == {facts.name for facts in default_catalog()}
    for facts in default_catalog():
        model = models[facts.name]
        assert model["here"] is False
        assert model["prompts"] == dict(facts.prompts)
        assert [file["sha256"] for file in model["weights"]["files"]] == [file.sha256 for file in facts.weights.files]
        assert [dt.date.fromisoformat(source["date"]) for source in model["sources"]] == [
            source.date for source in facts.sources
        ]


def test_list_as_json_marks_scores_on_another_scale(command, place):
    own = {"embedding": {"model_benchmarks": {"text-embedding-3-small": {"quality_score": 88}}}}
    (place / "own.json").write_text(json.dumps(own))
    document = command("-c", "own.json", "models", "list", "--json").json
    services = {model["name"]: model for model in document["services"]}
    small, large = services["text-embedding-3-small"], services["text-embedding-3-large"]
    assert (small["quality_score"], small["quality_scale"]) == (88, "own")
    assert small["quality_source"] == "settings: own.json"
    assert large["quality_scale"] == "mteb-en"
    assert large["quality_source"].startswith("MTEB English")
    local = {model["name"]: model for model in document["models"]}
    assert local[DEFAULT]["quality_scale"] == "mteb-en"
    rerankers = [model for model in document["models"] if model["task"] == "rerank"]
    assert {model["quality_score"] for model in rerankers} == {None}


def test_select_marks_scores_on_another_scale(command, place):
    own = {"embedding": {"model_benchmarks": {"text-embedding-3-small": {"quality_score": 88}}}}
    (place / "own.json").write_text(json.dumps(own))
    done = command("-c", "own.json", "select", "--anywhere")
    assert "0.880*" in done.stdout
    assert "*: not MTEB's English average: your own score, or another scale's, which only --any-scale" in done.stdout
    gemini = next(line for line in done.stdout.splitlines() if line.startswith("gemini-embedding-001"))
    assert gemini.endswith("accuracy 0.683* is of another scale (mmteb), not compared with mteb-en")
    done = command("select", "--anywhere", "--any-scale")
    (gemini,) = [line for line in done.stdout.splitlines() if " gemini-embedding-001 " in line]
    assert " 0.683* " in gemini
    rows = command("-c", "own.json", "select", "--anywhere", "--json").json["table"]
    (row,) = [row for row in rows if row["model"] == "text-embedding-3-small"]
    assert (row["quality_scale"], row["quality_source"]) == ("own", "settings: own.json")
    assert any(other["quality_scale"] == "mteb-en" for other in rows)
    refused = command("-c", "own.json", "select", "--anywhere", "--min-accuracy", "0.9", "--json").json["table"]
    (row,) = [row for row in refused if row["model"] == "text-embedding-3-small"]
    assert "accuracy 0.880* is below 0.9" in row["out"][0]["reason"]


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


def test_show_and_list_agree_on_what_is_usable_here(command, place):
    (place / "embedway.toml").write_text(
        '[models.m]\nname = "acme-embed"\ndimensions = 8\nmax_tokens = 99\n[routes.acme]\nmodel = "acme-embed"\n'
        'provider = "openai-compatible"\nbase_url = "http://127.0.0.1:9/v1"\n[weights]\noffline = true\n'
    )
    for name, routes, here in (
        ("acme-embed", "routes.acme", "routes.acme: yes"),
        ("BAAI/bge-m3", "local", "no: weights missing, and offline"),
        ("voyage-4", "voyage:voyage-4", "voyage:voyage-4: no key: set VOYAGE_API_KEY"),
    ):
        shown = command("-c", "embedway.toml", "models", "show", name)
        rows = {fact: rest for fact, _, rest in (line.partition("  ") for line in shown.stdout.splitlines())}
        assert rows["here"].strip() == here
        assert rows["routes"].split()[0] == routes
    assert rows["licence_by_route"].strip() == "voyage:voyage-4: service"
    shown = command("-c", "embedway.toml", "models", "show", "acme-embed", "--json").json
    listed = command("-c", "embedway.toml", "models", "list", "--json").json["services"]
    (row,) = [one for one in listed if one["name"] == "acme-embed"]
    assert shown["routes_here"] == row["routes_here"] == [{"route": "routes.acme", "lacks": None}]
    assert shown["languages"] == []


def test_show_works_for_all_models(command):
    # One process for each model would take long; rerankers and Matryoshka models are the special cases.
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
    assert done.stderr.startswith(f"embedway: error: the files of {DEFAULT} are not available")
    assert "offline" in done.stderr


def test_pull_of_what_is_here_tells_where(command, with_model, weights_folder):
    done = command("models", "pull", "all-MiniLM-L6-v2", "--json")
    assert done.code == 0
    (pulled,) = done.json["pulled"]
    assert pulled["model"] == DEFAULT
    assert pulled["path"].startswith(str(weights_folder))
    assert "%" not in done.stderr


@pytest.fixture
def tiny_model(command, with_model, place):
    """Make a folder with a BERT of one layer, random weights, and the default model's tokenizer."""
    here = Path(command("models", "pull", "all-MiniLM-L6-v2", "--json").json["pulled"][0]["path"])
    folder = place / "tiny"
    shutil.copytree(here, folder, ignore=shutil.ignore_patterns("model.safetensors"))
    config = json.loads((folder / "config.json").read_text())
    wide, inner = 32, 64
    config |= {"hidden_size": wide, "intermediate_size": inner, "num_hidden_layers": 1, "num_attention_heads": 2}
    (folder / "config.json").unlink()
    (folder / "config.json").write_text(json.dumps(config))
    (folder / "1_Pooling/config.json").unlink()
    (folder / "1_Pooling/config.json").write_text(
        json.dumps({"word_embedding_dimension": wide, "pooling_mode_mean_tokens": True})
    )
    random = np.random.default_rng(7)
    layer = "encoder.layer.0"
    shapes = {
        "embeddings.word_embeddings": (config["vocab_size"], wide),
        "embeddings.position_embeddings": (config["max_position_embeddings"], wide),
        "embeddings.token_type_embeddings": (2, wide),
        f"{layer}.attention.self.query": (wide, wide),
        f"{layer}.attention.self.key": (wide, wide),
        f"{layer}.attention.self.value": (wide, wide),
        f"{layer}.attention.output.dense": (wide, wide),
        f"{layer}.intermediate.dense": (inner, wide),
        f"{layer}.output.dense": (wide, inner),
    }
    tensors = {f"{name}.weight": random.normal(size=shape) for name, shape in shapes.items()}
    biases = {name: shape[0] for name, shape in shapes.items() if name.startswith("encoder")}
    tensors |= {f"{name}.bias": random.normal(size=width) for name, width in biases.items()}
    for name in ("embeddings", f"{layer}.attention.output", f"{layer}.output"):
        tensors |= {f"{name}.LayerNorm.weight": np.ones(wide), f"{name}.LayerNorm.bias": np.zeros(wide)}
    save_file({name: tensor.astype(np.float32) for name, tensor in tensors.items()}, folder / "model.safetensors")
    return folder


def test_tune_measures_and_keeps_the_choice(command, tiny_model, tmp_path):
    variables = {"EMBEDWAY_TUNE__DIRECTORY": str(tmp_path / "tuned")}
    done = command("models", "tune", "./tiny", "--json", variables=variables)
    assert done.code == 0, done.stderr
    report = done.json
    assert any(row["passed"] for row in report["rows"])
    assert report["bulk"] in report["rows"]
    assert report["single"] in report["rows"]
    assert report["stored_at"].startswith(str(tmp_path / "tuned"))
    (tuned,) = command("doctor", "--json", variables=variables).json["tuned"]
    assert tuned["model"] == "tiny"
    assert f"{report['bulk']['backend']} {report['bulk']['precision']}" in tuned["choice"]
    shown = command("models", "tune", "./tiny", variables=variables).stdout
    assert "best for" in shown
    assert "texts/s" in shown


def test_a_collection_of_a_model_that_has_no_name_is_searched_by_naming_its_folder(command, tiny_model, place):
    (place / "a.txt").write_text("Some text.\n")
    assert command("run", "a.txt", "--to", "a.jsonl", "--model", "./tiny").code == 0
    done = command("search", "a.jsonl", "text")
    assert done.code == 2
    assert "name the model with --model" in done.stderr
    assert command("search", "a.jsonl", "text", "--model", "./tiny").code == 0


def test_a_folder_cannot_be_pulled(command, place):
    done = command("models", "pull", "./place")
    assert done.code == 2
    assert "is a folder" in done.stderr


def test_models_of_services_are_listed_with_price_and_routes(command, place):
    (place / "embedway.toml").write_text(
        '[routes.mine]\nmodel = "text-embedding-3-large"\nprovider = "openai"\napi_key = "sk-secret"\n'
    )
    done = command("models", "list", variables={"OPENAI_API_KEY": "sk-other"})
    services = done.stdout.partition("\n\n")[2]
    assert "text-embedding-3-small" in services
    usable = {tuple(line.split()[-2:]) for line in services.splitlines() if line}
    assert {("routes.mine", "yes"), ("openai:text-embedding-3-large", "yes")} <= usable
    assert "no key: set VOYAGE_API_KEY" in services
    assert "no library: pip install 'embedway[fastembed]'" in services
    assert "sk-" not in done.stdout + done.stderr
    found = command("models", "list", "--json").json["services"]
    prices = {model["name"]: model["price_usd_per_million_tokens"] for model in found}
    assert prices["text-embedding-3-small"] == "0.02"
    large = {model["name"]: model["routes_here"] for model in found}["text-embedding-3-large"]
    assert large[0] == {"route": "routes.mine", "lacks": None}
    assert large[1] == {"route": "openai:text-embedding-3-large", "lacks": "no key: set OPENAI_API_KEY"}


def test_a_model_whose_weights_or_key_cannot_be_had_says_so(command, place):
    route = '[routes.mine]\nmodel = "voyage-4"\nprovider = "voyage"\napi_key_env = "NOT_SET"\n'
    (place / "embedway.toml").write_text("[weights]\noffline = true\n" + route)
    done = command("models", "list", "--json")
    assert done.code == 0, done.stderr
    bge = next(model for model in done.json["models"] if model["name"] == "BAAI/bge-m3")
    assert bge["routes"] == [{"route": "local", "lacks": "weights missing, and offline"}]
    voyage = next(model for model in done.json["services"] if model["name"] == "voyage-4")
    assert "the variable NOT_SET is not set" in voyage["routes_here"][0]["lacks"]


def test_a_model_of_a_service_is_shown_and_cannot_be_pulled(command):
    done = command("models", "show", "openai/text-embedding-3-small")
    assert (done.code, done.stderr) == (0, "")
    assert "0.02" in done.stdout
    assert "https://developers.openai.com/" in done.stdout
    assert command("models", "show", "text-embedding-3-small", "--json").json["max_tokens"] == 8191
    done = command("models", "pull", "text-embedding-3-small")
    assert done.code == 2
    assert "runs on a service" in done.stderr
