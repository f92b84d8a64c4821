"""Settings with which a gateway cannot start: each error names the setting."""

import pytest
import trustme

from embedway.config import Config
from embedway.errors import ConfigError
from embedway.server.start_checks import check_settings


def check(**settings):
    check_settings(Config.load([], environ={}, overrides={f"server.{name}": value for name, value in settings.items()}))


@pytest.fixture
def files(tmp_path):
    """Return paths of a certificate chain, its key, another key, and a text."""
    issued, other = (trustme.CA().issue_cert("localhost") for _ in range(2))
    paths = {name: tmp_path / f"{name}.pem" for name in ("chain", "key", "other", "text")}
    issued.cert_chain_pems[0].write_to_path(paths["chain"])
    issued.private_key_pem.write_to_path(paths["key"])
    other.private_key_pem.write_to_path(paths["other"])
    paths["text"].write_text("no certificate")
    return {name: str(path) for name, path in paths.items()}


def test_the_default_settings_are_valid():
    check()


@pytest.mark.parametrize("setting", ["models", "warm"])
def test_an_unknown_model_is_an_error(setting):
    check(**{setting: ("auto", "all-MiniLM-L6-v2")})
    with pytest.raises(ConfigError, match=rf"^server\.{setting}: no model is called 'no-such-model'"):
        check(**{setting: ("all-MiniLM-L6-v2", "no-such-model")})


def test_a_certificate_with_its_key_is_accepted(files):
    check(tls_certificate=files["chain"], tls_key=files["key"])


@pytest.mark.parametrize(("chain", "key"), [("text", "key"), ("chain", "other"), ("chain", "text")])
def test_files_that_are_no_certificate_with_its_key_are_an_error(files, chain, key):
    with pytest.raises(ConfigError, match=r"^server\.tls_certificate: .* are no certificate chain and its key in PEM"):
        check(tls_certificate=files[chain], tls_key=files[key])
