"""Models that a gateway serves, and the reason why it does not serve another one."""

import asyncio
import json

import aiohttp
import pytest

from embedway.config import Config
from embedway.selection.selector import ModelSelector
from embedway.server.caller import ANYONE, Caller
from embedway.server.problems import NotServedError
from embedway.server.served import ServedModels
from gateways import gateway_at
from tiny_models import tiny_encoder, tiny_reranker

LIST = "; GET /v1/models lists the models"
KEY = "; the gateway has no key: set OPENAI_API_KEY, and restart it"
BGE = "BAAI/bge-small-en-v1.5"


def refusal(name, folder, caller=ANYONE, environ=None, **settings):
    """Return the message for a model that is not served."""
    overrides = {"weights.directory": str(folder), "weights.offline": True, "ledger.backend": "none", **settings}
    config = Config.load([], environ=environ or {}, overrides=overrides)

    async def find():
        await ServedModels(config, ModelSelector(config)).find(name, caller)

    with pytest.raises(NotServedError) as caught:
        asyncio.run(find())
    message = str(caught.value)
    assert str(folder) not in message
    return message


def test_a_missing_key_and_missing_weights_are_named(tmp_path):
    openai = "text-embedding-3-small"
    assert refusal(openai, tmp_path) == f"model '{openai}' is not served here{KEY}{LIST}"
    pull = f"; its weights are missing: run `embedway models pull {BGE}` on the gateway's machine"
    assert refusal("bge-small-en-v1.5", tmp_path) == f"model 'bge-small-en-v1.5' is not served here{pull}{LIST}"


def test_a_choice_of_the_operator_is_named(tmp_path):
    found = refusal(BGE, tmp_path, **{"server.models": ["all-MiniLM-L6-v2"]})
    assert found == f"model '{BGE}' is not served here; server.models of the gateway does not name it{LIST}"


@pytest.mark.parametrize("name", ["no-such-model", "auto", "/etc", "./folder", "acme/repository"])
def test_other_names_have_no_reason(tmp_path, name):
    assert refusal(name, tmp_path) == f"model '{name}' is not served here{LIST}"


def test_a_key_is_told_only_of_its_own_models(tmp_path):
    """Whether another model is served, and why not, is none of its business."""
    name = "text-embedding-3-small"
    assert refusal(name, tmp_path, Caller(models=("voyage-3",))) == f"model '{name}' is not served here{LIST}"
    assert KEY in refusal(name, tmp_path, Caller(models=(name.upper(),)))


def test_an_error_of_the_settings_is_not_told(tmp_path):
    """Its message would name the URL."""
    environ = {"OPENAI_BASE_URL": "https://internal.example/v1?x=1", "OPENAI_API_KEY": "sk-secret"}
    name = "text-embedding-3-small"
    assert refusal(name, tmp_path, environ=environ) == f"model '{name}' is not served here{LIST}"


def everything(folder, settings, requests):
    """Return status, headers and text of the answers to (path, body); the body of GET is None."""

    async def main():
        found = []
        async with gateway_at(**settings) as (url, _), aiohttp.ClientSession() as session:
            for path, body in requests:
                async with session.request("GET" if body is None else "POST", url + path, json=body) as answer:
                    text = await answer.text()
                    assert str(folder) not in f"{answer.headers}{text}", path
                    found.append((answer.status, answer.headers, text))
        return found

    return asyncio.run(main())


@pytest.fixture
def folders(default_model_directory, tokenizer, tmp_path):
    """Return settings of a gateway that serves two folders beside the default model."""
    encoder = tiny_encoder(tmp_path / "own-model", tokenizer)
    return {
        "weights.directory": str(default_model_directory),
        "weights.offline": True,
        "server.models": [str(encoder), "all-MiniLM-L6-v2"],
        "tune.directory": str(tmp_path / "tune"),
        "embedding.default_model": str(encoder),
        "rerank.default_model": str(tiny_reranker(tmp_path / "scorer", tokenizer)),
    }


def test_a_folder_is_served_under_its_name_and_its_path_is_told_nowhere(folders, tmp_path):
    folders["server.models"].append(folders["rerank.default_model"])
    text, pair = {"model": "own-model", "input": ["a"]}, {"query": "a", "documents": ["b"]}
    status, headers, answers = zip(
        *everything(
            tmp_path,
            folders,
            [
                ("/v1/models", None),
                ("/v1/models/own-model", None),
                ("/v1/models/scorer", None),
                ("/api/tags", None),
                ("/info", None),
                ("/v1/embeddings", text),
                ("/embed", {"inputs": "a"}),
                ("/v1/rerank", pair),
                ("/v1/rerank", {**pair, "model": "scorer"}),
                ("/v1/plan", text),
                ("/v1/select", {"input": ["a"]}),
                ("/api/ps", None),
                ("/overview.json", None),
            ],
        ),
        strict=True,
    )
    assert status == (200,) * len(status), answers
    listed = {one["id"]: one["task"] for one in json.loads(answers[0])["data"]}
    full = "sentence-transformers/all-MiniLM-L6-v2"
    assert listed == {"own-model": "embed", "scorer": "rerank", full: "embed"}
    assert headers[5]["x-embedway-model"] == json.loads(answers[5])["model"] == "own-model"
    overview = json.loads(answers[-1])
    assert [(one["model"], one["default"]) for one in overview["served"]] == [
        ("own-model", True), ("scorer", False), (full, False)
    ]  # fmt: skip
    assert {one["model"] for one in overview["models"]} == {"own-model", "scorer"}
    assert [one["name"] for one in json.loads(answers[-2])["models"]] == ["own-model:latest"]


def test_folders_with_one_name_and_with_that_of_the_catalog_are_told_apart(folders, tokenizer, tmp_path):
    other = tiny_encoder(tmp_path / "other" / "own-model", tokenizer, seed=2)
    taken = tiny_encoder(tmp_path / "bge-m3", tokenizer, seed=3)
    models = [folders["embedding.default_model"], str(other), str(taken)]
    answers = everything(
        tmp_path, {**folders, "server.models": models}, [
            ("/v1/models", None),
            *(("/v1/embeddings", {"model": name, "input": "a"}) for name in ("own-model", "own-model-2", "bge-m3-2")),
            ("/v1/embeddings", {"model": "bge-m3", "input": "a"}),
        ]
    )  # fmt: skip
    assert [one["id"] for one in json.loads(answers[0][2])["data"]] == ["bge-m3-2", "own-model", "own-model-2"]
    assert [status for status, _, _ in answers] == [200, 200, 200, 200, 404]
    vectors = [tuple(json.loads(text)["data"][0]["embedding"]) for _, _, text in answers[1:4]]
    assert len(set(vectors)) == 3


def test_a_selection_leaves_out_models_that_cannot_be_compared(folders, tmp_path):
    automatic = {"model": "auto", "input": ["a"]}
    (_, _, selected), (status, headers, _) = everything(
        tmp_path, folders, [("/v1/select", {"input": ["a"]}), ("/v1/embeddings", automatic)]
    )
    assert "own-model" not in selected
    assert (status, headers["x-embedway-model"]) == (200, "sentence-transformers/all-MiniLM-L6-v2")


def test_without_a_model_that_can_be_compared_a_selection_is_refused(folders, tmp_path):
    """No restriction must not become the selection of every model."""
    folders["server.models"] = folders["server.models"][:1]
    answers = everything(
        tmp_path,
        folders,
        [("/v1/select", {"input": ["a"]}), ("/v1/embeddings", {"model": "auto", "input": ["a"]})],
    )
    assert [(status, json.loads(text)["error"]["param"]) for status, _, text in answers] == [(404, "model")] * 2
