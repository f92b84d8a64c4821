"""The gateway over TLS."""

import ssl
import urllib.request

import pytest
import trustme

from gateways import gateway_process


@pytest.fixture
def authority():
    return trustme.CA()


@pytest.fixture
def environment(default_model_directory, authority, tmp_path):
    issued = authority.issue_cert("localhost", "127.0.0.1")
    issued.private_key_pem.write_to_path(tmp_path / "key.pem")
    for number, part in enumerate(issued.cert_chain_pems):
        part.write_to_path(tmp_path / "chain.pem", append=number > 0)
    return {
        "EMBEDWAY_WEIGHTS__DIRECTORY": str(default_model_directory),
        "EMBEDWAY_WEIGHTS__OFFLINE": "true",
        "EMBEDWAY_SERVER__TLS_CERTIFICATE": str(tmp_path / "chain.pem"),
        "EMBEDWAY_SERVER__TLS_KEY": str(tmp_path / "key.pem"),
    }


def test_clients_connect_over_tls_only(environment, authority):
    trusted = ssl.create_default_context()
    authority.configure_trust(trusted)
    with gateway_process(environment=environment) as gateway:
        assert gateway.url.startswith("https://")
        with urllib.request.urlopen(f"{gateway.url}/health/live", timeout=60, context=trusted) as answer:  # noqa: S310
            assert answer.status == 200
        with pytest.raises(OSError):
            urllib.request.urlopen(gateway.url.replace("https", "http"), timeout=60)  # noqa: S310
