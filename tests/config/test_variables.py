"""Variables that are no settings: which are set, and which may contain secrets."""

import pytest

from embedway.config.variables import PROXIES, all_variables, may_be_secret, set_variables


def test_only_variables_with_a_value_are_set(monkeypatch):
    environ = {"HTTP_PROXY": "http://h:1", "NO_PROXY": " ", "OTHER": "x"}
    assert set_variables(PROXIES, environ) == {"HTTP_PROXY": "http://h:1"}
    monkeypatch.setenv("ALL_PROXY", "x")
    assert set_variables(["ALL_PROXY"]) == {"ALL_PROXY": "x"}
    assert all_variables()["ALL_PROXY"] == "x"


@pytest.mark.parametrize("name", ["OPENAI_API_KEY", "HF_TOKEN", "password", "authorization", "Cookie", "x-webhook"])
def test_names_of_secrets_are_recognized(name):
    assert may_be_secret(name)


@pytest.mark.parametrize("name", ["PWD", "OLDPWD", "max_tokens", "api_key_env", "GIT_AUTHOR_NAME", "tokenizer", "PATH"])
def test_other_names_are_not_secret(name):
    assert not may_be_secret(name)
