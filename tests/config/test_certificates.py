"""Trusted certificates: the order of their sources, and files that cannot be used."""

import os
import ssl
from pathlib import Path

import pytest
import trustme

from embedway import Config
from embedway.config.certificates import BUNDLES, OPENSSL, Authorities, authorities, tls_context
from embedway.errors import ConfigError


@pytest.fixture
def bundle(tmp_path):
    path = tmp_path / "ca.pem"
    trustme.CA().cert_pem.write_to_path(str(path))
    return path


def test_the_first_source_that_is_set_is_used(bundle, tmp_path):
    environ = {
        "SSL_CERT_FILE": "/a",
        "SSL_CERT_DIR": "/b:/c",
        "REQUESTS_CA_BUNDLE": str(tmp_path),
        "CURL_CA_BUNDLE": "/e",
    }
    assert authorities(bundle, environ) == Authorities("ca_file", str(bundle))
    assert authorities(None, environ) == Authorities("SSL_CERT_FILE and SSL_CERT_DIR", "/a", ("/b", "/c"))
    del environ["SSL_CERT_FILE"], environ["SSL_CERT_DIR"]
    assert authorities(None, environ) == Authorities("REQUESTS_CA_BUNDLE", "", (str(tmp_path),))
    environ["REQUESTS_CA_BUNDLE"] = " "
    assert authorities(None, environ) == Authorities("CURL_CA_BUNDLE", "/e")
    assert authorities(None, {}) == Authorities()


@pytest.mark.parametrize("name", [*OPENSSL, *BUNDLES])
def test_a_file_that_cannot_be_used_is_named_with_its_variable(tmp_path, name):
    with pytest.raises(ConfigError, match=f"^{name}: .*missing") as caught:
        tls_context(authorities(None, {name: str(tmp_path / "missing")}))
    assert caught.value.where == name


@pytest.mark.parametrize("content", [b"", b"no certificate", b"\xff\x00", b"-----BEGIN CERTIFICATE-----\nAAAA\n"])
@pytest.mark.parametrize("name", ["SSL_CERT_FILE", "REQUESTS_CA_BUNDLE"])
def test_a_file_without_certificates_is_an_error(tmp_path, name, content):
    (tmp_path / "ca.pem").write_bytes(content)
    with pytest.raises(ConfigError, match=f"^{name}: .*contains no certificates"):
        tls_context(authorities(None, {name: str(tmp_path / "ca.pem")}))


@pytest.mark.parametrize("kind", ["pipe", "device", "folder"])
def test_a_file_that_never_ends_is_an_error(tmp_path, kind):
    path = {"pipe": tmp_path / "pipe", "device": Path("/dev/zero"), "folder": tmp_path}[kind]
    if kind == "pipe":
        os.mkfifo(path)
    for trusted in (authorities(path, {}), authorities(None, {"SSL_CERT_FILE": str(path)})):
        with pytest.raises(ConfigError, match="cannot be read: it is not a regular file"):
            tls_context(trusted)


def test_a_route_names_its_file(tmp_path):
    with pytest.raises(ConfigError, match=r"^routes\.r: ca_file: .*none.pem cannot be read: No such file"):
        tls_context(authorities(tmp_path / "none.pem"), where="routes.r")
    (tmp_path / "a.toml").write_text('[routes.r]\nmodel = "m"\nprovider = "openai"\nca_file = "ca/own.pem"\n')
    config = Config.load([tmp_path / "a.toml"], environ={"OPENAI_API_KEY": "k"})
    assert config.access("openai", "r").ca_file == tmp_path / "ca/own.pem"


def test_only_the_named_certificates_are_trusted_and_a_changed_file_is_read_again(bundle):
    environ = {"REQUESTS_CA_BUNDLE": str(bundle)}
    first = tls_context(authorities(None, environ))
    assert tls_context(authorities(None, environ)) is first
    assert first.cert_store_stats()["x509"] == 1
    assert first.verify_mode is ssl.CERT_REQUIRED
    assert first.check_hostname
    bundle.write_bytes(bundle.read_bytes() + trustme.CA().cert_pem.bytes())
    assert tls_context(authorities(None, environ)).cert_store_stats()["x509"] == 2


def test_openssl_keeps_the_default_of_the_other_variable(bundle, monkeypatch):
    monkeypatch.delenv("SSL_CERT_DIR", raising=False)
    context = tls_context(authorities(None, {"SSL_CERT_FILE": str(bundle)}))
    assert context.cert_store_stats()["x509"] == 1  # those of a folder are read when they are needed
