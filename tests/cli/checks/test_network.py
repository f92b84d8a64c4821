"""Proxies, certificates and the hub."""

import ssl
import urllib.error
from pathlib import Path

import pytest

from embedway.cli.checks import network
from embedway.cli.checks.base import Setup
from embedway.config import Config
from embedway.config.certificates import BUNDLES, OPENSSL
from embedway.config.variables import OTHERS_CERTIFICATES, PROXIES

SECRET = "p4ssw0rd"  # noqa: S105  not one


@pytest.fixture(autouse=True)
def no_variables(monkeypatch):
    for name in (*PROXIES, *OPENSSL, *BUNDLES, *OTHERS_CERTIFICATES):
        monkeypatch.delenv(name, raising=False)
        monkeypatch.delenv(name.lower(), raising=False)


def by_name(findings):
    return {line.name: line for line in findings.lines}


def test_no_proxy_is_one_line():
    assert network.check_proxies(None).lines[0].detail == "no variable sets one"


@pytest.mark.parametrize(
    ("name", "value", "status", "said"),
    [
        ("HTTPS_PROXY", f"http://u:{SECRET}@h:3128", "ok", "http://***@h:3128: used for services"),
        ("https_proxy", f"u:{SECRET}@h:3128", "ok", "http://***@h:3128: used for services"),
        ("HTTP_PROXY", "http://h:3128", "ok", "used only for downloads over http"),
        ("ALL_PROXY", f"http://u:{SECRET}@h:3128", "ok", "http://***@h:3128: used for services over https, not for"),
        ("ALL_PROXY", f"socks5://{SECRET}@h", "warning", "SOCKS"),
        ("NO_PROXY", "localhost,.corp", "ok", "localhost,.corp: reached without a proxy"),
        ("HTTPS_PROXY", "https://h:3128", "warning", "https://h:3128: used for services; downloads fail"),
        ("HTTPS_PROXY", f"socks5://u:{SECRET}@h:1", "warning", "is a SOCKS proxy, which is not supported"),
        ("HTTPS_PROXY", f"http://u:{SECRET}@h:port", "warning", "must have a port from 1 to 65535, so requests"),
        ("HTTPS_PROXY", "http://", "warning", "must name a host"),
        ("HTTP_PROXY", "http://[::1", "warning", "must be a URL"),
    ],
)
def test_proxies_are_judged_and_their_credentials_hidden(monkeypatch, name, value, status, said):
    monkeypatch.setenv(name, value)
    line = by_name(network.check_proxies(None))[name]
    assert line.status == status
    assert said in line.detail
    assert SECRET not in line.detail + line.remedy
    assert (status == "warning") == bool(line.remedy)


@pytest.fixture
def certificates(tmp_path):
    """Return a file with certificates."""
    import certifi

    path = tmp_path / "ca.pem"
    path.write_bytes(Path(certifi.where()).read_bytes())
    return path


@pytest.mark.parametrize("name", ["SSL_CERT_FILE", "REQUESTS_CA_BUNDLE", "CURL_CA_BUNDLE"])
def test_files_of_certificates_are_counted(monkeypatch, certificates, name):
    monkeypatch.setenv(name, str(certificates))
    line = by_name(network.check_tls(None))[name]
    assert line.status == "ok"
    assert "certificates" in line.detail
    assert "used for services" in line.detail


def test_all_proxy_is_not_used_beside_https_proxy(monkeypatch):
    monkeypatch.setenv("HTTPS_PROXY", "http://h:3128")
    monkeypatch.setenv("ALL_PROXY", "socks5://h")
    line = by_name(network.check_proxies(None))["ALL_PROXY"]
    assert (line.status, line.detail) == ("ok", "not used: HTTPS_PROXY is set")


def test_only_the_first_certificates_are_used(monkeypatch, certificates):
    for name in ("SSL_CERT_FILE", "REQUESTS_CA_BUNDLE", "CURL_CA_BUNDLE", "PIP_CERT"):
        monkeypatch.setenv(name, str(certificates))
    lines = by_name(network.check_tls(None))
    assert "used for services and downloads" in lines["SSL_CERT_FILE"].detail
    for name in BUNDLES:
        assert lines[name].detail == f"{certificates}: not used, because SSL_CERT_FILE is set"
    assert "only pip" in lines["PIP_CERT"].detail


@pytest.mark.parametrize(
    ("content", "said"),
    [(None, "cannot be read: No such file or directory"), (b"", "contains no"), (b"\xff\x00", "contains no")],
)
def test_files_without_certificates_are_warnings(monkeypatch, tmp_path, content, said):
    path = tmp_path / "ca.pem"
    if content is not None:
        path.write_bytes(content)
    monkeypatch.setenv("SSL_CERT_FILE", str(path))
    line = by_name(network.check_tls(None))["SSL_CERT_FILE"]
    assert line.status == "warning"
    assert said in line.detail
    assert line.remedy == "correct or unset SSL_CERT_FILE"


def test_a_folder_of_certificates(monkeypatch, tmp_path):
    monkeypatch.setenv("SSL_CERT_DIR", str(tmp_path))
    assert by_name(network.check_tls(None))["SSL_CERT_DIR"].status == "ok"
    monkeypatch.setenv("SSL_CERT_DIR", f"{tmp_path}:{tmp_path / 'none'}")
    assert "none is not a folder" in by_name(network.check_tls(None))["SSL_CERT_DIR"].detail
    monkeypatch.delenv("SSL_CERT_DIR")
    monkeypatch.setenv("REQUESTS_CA_BUNDLE", str(tmp_path))
    assert by_name(network.check_tls(None))["REQUESTS_CA_BUNDLE"].status == "ok"


def test_openssl_without_any_certificate_is_a_warning(monkeypatch):
    monkeypatch.setattr(network, "_has_authorities", lambda: False)
    line = by_name(network.check_tls(None))["tls"]
    assert line.status == "warning"
    assert "SSL_CERT_FILE" in line.remedy


def hub(online=True, **overrides):
    given = {f"weights.{name}": value for name, value in overrides.items()}
    return network.check_hub(Setup(Config.load(environ={}, overrides=given), is_loaded=True, online=online)).lines[0]


def test_the_hub_is_asked_only_online():
    assert hub(online=False).status == "skipped"
    assert "offline by setting" in hub(offline=True).detail


@pytest.mark.parametrize(
    ("error", "said", "advice"),
    [
        (urllib.error.URLError(ssl.SSLCertVerificationError("certificate verify failed")), "certificate", "SSL_CERT"),
        (urllib.error.URLError(OSError(111, "Connection refused")), "refused", "check network and proxy"),
        (urllib.error.HTTPError("u", 503, "x", None, None), "HTTP 503", "check network and proxy"),
        (TimeoutError("timed out"), "timed out", "check network and proxy"),
        (ValueError(), "ValueError", "check network and proxy"),
    ],
)
def test_a_hub_that_cannot_be_reached_has_its_advice(monkeypatch, error, said, advice):
    def fail(*_, **__):
        raise error

    monkeypatch.setattr("urllib.request.urlopen", fail)
    line = hub()
    assert line.status == "warning"
    assert said in line.detail
    assert advice in line.remedy
