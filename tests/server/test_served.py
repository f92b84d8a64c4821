"""Models that a gateway serves, and the reason why it does not serve another one."""

import asyncio

import pytest

from embedway.config import Config
from embedway.selection.selector import ModelSelector
from embedway.server.caller import ANYONE, Caller
from embedway.server.problems import NotServedError
from embedway.server.served import ServedModels

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
