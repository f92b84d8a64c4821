"""Selection and plans over HTTP: the fields of the commands, and nothing is computed."""

import httpx

from served_models import FAKE, MODEL


def post(gateway, path, **body):
    return httpx.post(gateway.url + path, json=body, timeout=60)


def test_a_plan_has_the_fields_of_the_command(gateway, library):
    texts = ["a text", "a text", "another one"]
    found = post(gateway, "/v1/plan", input=texts, model=FAKE).json()
    planned = library.plan(texts, model=FAKE)
    assert (found["texts"], found["unique_texts"], found["tokens"]) == (3, 2, planned.tokens)
    assert found["cost_usd"] == str(planned.cost_usd)
    assert found["space_id"] == planned.space.id
    assert post(gateway, "/v1/plan", input=texts, model="unknown").status_code == 404


def test_a_selection_has_the_fields_of_the_command(gateway):
    found = post(gateway, "/v1/select", input=["The cat sleeps."], preset="fast").json()
    assert found["model"] == MODEL
    assert {row["model"] for row in found["table"]} >= {MODEL}
    assert found["criteria"]["speed_weight"] > found["criteria"]["accuracy_weight"]


def test_a_selection_of_texts_only(gateway):
    unknown = post(gateway, "/v1/select", input="a", preset="quick")
    assert unknown.json()["error"]["param"] == "preset"
    assert "fast, balanced" in unknown.json()["error"]["message"]
    assert post(gateway, "/v1/select", input=[[1, 2]]).status_code == 400


def test_the_model_of_a_selection_embeds_with_auto(gateway):
    answer = post(gateway, "/v1/embeddings", input="The cat sleeps.", model="auto")
    assert answer.headers["x-embedway-model"] == answer.json()["model"] == MODEL
