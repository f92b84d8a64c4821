"""Proxies of the environment: their order, their credentials, and the hosts that have none."""

import base64

import pytest

from embedway.config.proxies import bypasses, parse_proxy, proxy_for

SERVICE = "https://api.example.com/v1"


@pytest.mark.parametrize(
    ("environ", "variable", "url"),
    [
        ({"HTTPS_PROXY": "http://a:1"}, "HTTPS_PROXY", "http://a:1"),
        ({"HTTPS_PROXY": "http://a:1", "https_proxy": "http://b:1"}, "https_proxy", "http://b:1"),
        ({"ALL_PROXY": "http://a:1"}, "ALL_PROXY", "http://a:1"),
        ({"ALL_PROXY": "socks5://a:1", "HTTPS_PROXY": "b:1"}, "HTTPS_PROXY", "http://b:1"),
        ({"HTTPS_PROXY": "", "all_proxy": "https://a"}, "all_proxy", "https://a"),
        ({"HTTPS_PROXY": "http://[::1]:3128/"}, "HTTPS_PROXY", "http://[::1]:3128"),
    ],
)
def test_the_order_of_the_variables(environ, variable, url):
    found = proxy_for(SERVICE, environ)
    assert (found.variable, found.url) == (variable, url)


@pytest.mark.parametrize("url", ["http://api.example.com/v1", "https://", ""])
def test_services_without_https_have_no_proxy(url):
    environ = dict.fromkeys(("HTTPS_PROXY", "HTTP_PROXY", "ALL_PROXY"), "http://a:1")
    assert proxy_for(url, environ) is None
    assert proxy_for(SERVICE, {"HTTP_PROXY": "http://a:1"}) is None


@pytest.mark.parametrize(
    ("user", "both"),
    [("u:p", "u:p"), ("u", "u:"), ("u:p%40%2F%23%3A", "u:p@/#:"), ("d%5Cu:%C3%BC", "d\\u:ü"), ("u:a:b", "u:a:b")],
)
def test_user_and_password_are_decoded_and_in_no_url_and_no_repr(user, both):
    found = parse_proxy("HTTPS_PROXY", f"http://{user}@proxy.example.com:3128")
    assert found.headers == {"Proxy-Authorization": f"Basic {base64.b64encode(both.encode()).decode()}"}
    assert found.url == "http://proxy.example.com:3128"
    assert f"{user}@" not in repr(found)
    assert base64.b64encode(both.encode()).decode() not in repr(found)


@pytest.mark.parametrize(
    "value",
    [
        "socks5://u:sEcr3t@h:1",
        "SOCKS5H://u:sEcr3t@h:1",
        "ftp://u:sEcr3t@h:1",
        "http://u:sEcr3t#@h:1",
        "http://u:sEcr3t/@h:1",
        "http://u:sEcr3t@h:port",
        "http://u:%zzsEcr3t@h:1",
        "http://u:sEcr3t@",
    ],
)
def test_an_unusable_url_is_named_without_any_part_of_it(value):
    with pytest.raises(ValueError, match=r"^HTTPS_PROXY ") as caught:
        parse_proxy("HTTPS_PROXY", value)
    assert "http://proxy.example.com:3128" in str(caught.value)
    assert "sEcr3t" not in str(caught.value)


@pytest.mark.parametrize(
    ("listed", "host", "port", "expected"),
    [
        ("*", "a.b", 443, True),
        ("example.com", "example.com", 443, True),
        ("example.com", "api.example.com", 443, True),
        ("example.com", "notexample.com", 443, False),
        (".example.com", "api.example.com", 443, True),
        (".example.com", "example.com", 443, True),
        ("*.example.com", "api.example.com", 443, True),
        ("Example.COM.", "api.EXAMPLE.com", 443, True),
        ("a, example.com ;b", "example.com", 443, True),
        ("a example.com", "example.com", 443, True),
        ("example.com:8443", "example.com", 8443, True),
        ("example.com:8443", "example.com", 443, False),
        ("10.0.0.0/8", "10.1.2.3", 443, True),
        ("10.0.0.0/8", "11.1.2.3", 443, False),
        ("10.0.0.0/8:8443", "10.1.2.3", 8443, True),
        ("10.1.2.3/8", "10.9.9.9", 443, True),
        ("10.1.2.3", "10.1.2.3", 443, True),
        ("10.1.2.3:443", "10.1.2.3", 443, True),
        ("10.1.2", "10.1.2.3", 443, False),
        ("2.3", "10.1.2.3", 443, False),
        ("::1", "::1", 443, True),
        ("[::1]", "::1", 443, True),
        ("[::1]:443", "::1", 443, True),
        ("[::1]:8443", "::1", 443, False),
        ("fd00::/8", "fd00::5", 443, True),
        ("10.0.0.0/8", "ten.example.com", 443, False),
        ("10.0.0.0/99", "10.1.2.3", 443, False),
        ("", "a.b", 443, False),
        (",;", "a.b", 443, False),
        (".", "a.b", 443, False),
    ],
)
def test_hosts_without_a_proxy(listed, host, port, expected):
    assert bypasses(host, port, {"NO_PROXY": listed}) is expected
    assert bypasses(host, port, {"no_proxy": listed, "NO_PROXY": "" if listed else " "}) is expected


def test_a_service_in_no_proxy_has_none():
    environ = {"HTTPS_PROXY": "http://a:1", "NO_PROXY": "10.0.0.0/8,.example.com:8443"}
    assert proxy_for("https://api.example.com:8443/v1", environ) is None
    assert proxy_for("https://10.3.2.1/v1", environ) is None
    assert proxy_for(SERVICE, environ) is not None
