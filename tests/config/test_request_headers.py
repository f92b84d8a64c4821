"""Names and values of headers, and keys."""

import pytest

from embedway.config.request_headers import check_header_name, check_header_value, check_key


@pytest.mark.parametrize("name", ["X-Team", "api-key", "Ocp-Apim-Subscription-Key", "authorization", "Cookie", "x_a"])
def test_names_of_headers(name):
    assert check_header_name(f" {name} ") == name


@pytest.mark.parametrize("name", ["", "a b", "a:", "a\nb", "é", "a.b", "a(", None, 3, "Host", "TE", "Proxy-Connection"])
def test_names_that_a_route_must_not_set(name):
    with pytest.raises(ValueError, match="must"):
        check_header_name(name)


@pytest.mark.parametrize("value", ["", " ", "a\nb", "a\rb", "a\x00", "a\tb", "ü", "a" * 16_385])
def test_values_that_no_header_has(value):
    with pytest.raises(ValueError, match="must"):
        check_header_value(value)
    assert check_header_value(" a b \n") == "a b"


def test_keys():
    assert check_key(" sk-1\r\n") == "sk-1"
    assert check_key('"') == '"'
    for key in ('"sk-1"', "'sk-1'", "bearer sk-1", "sk-1\nsk-2", "sk\u20131"):
        with pytest.raises(ValueError, match=r"quotation|Bearer|character"):
            check_key(key)
