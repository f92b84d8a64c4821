"""URLs of Redis and Valkey servers: what the client uses, and errors that never contain a password."""

import asyncio
import contextlib
import json
import logging
import pickle
import traceback

import pytest
import redis
import redis.asyncio

from embedway.config import Config
from embedway.config.redis_urls import _OPTIONS
from embedway.errors import ConfigError
from embedway.ledger.redis import redis_client
from valkey_server import start_valkey

PASSWORD = "TOPSECRETpw"  # noqa: S105  a fake
SECTIONS = ("cache", "ledger", "pins")
INVALID = {
    f"redis://:{PASSWORD}#1@h:6379/0": "# as %23",
    f"redis://:{PASSWORD}/1@h:6379/0": "/ as %2F",
    f"redis://:{PASSWORD}?1@h:6379/0": "? as %3F",
    f"redis://:a@{PASSWORD}@h:6379/0": "write it as %40",
    f"redis://:{PASSWORD} 1@h:6379/0": "a space as %20",
    f"redis://:{PASSWORD}\n@h:6379/0": "line breaks",
    f"redis://:{PASSWORD}\t@h:6379/0": "control characters",
    f"redis://:{PASSWORD}[@h:6379/0": "write it as %5B",
    f"redis://:{PASSWORD}]@h:6379/0": "write it as %5D",
    f"redis://:{PASSWORD}\\@h:6379/0": "write it as %5C",
    f"redis://:{PASSWORD}%@h:6379/0": "write it as %25",
    f"redis://:{PASSWORD}%ff@h:6379/0": "not UTF-8",
    f"redis://:{PASSWORD}℀@h:6379/0": "must be percent-encoded",
    f"unix://:{PASSWORD}℀@/run/s": "must be percent-encoded",
    f"redis://:{PASSWORD}": "must name a host",
    f"redis://:{PASSWORD}@": "must name a host",
    f"redis://:{PASSWORD}@/0": "must name a host",
    f"redis://:{PASSWORD}@:6379/0": "must name a host",
    f"redis://:{PASSWORD}@a..b/0": "valid host",
    f"redis://:{PASSWORD}@{'a' * 64}/0": "valid host",
    f"redis://:{PASSWORD}@h%20/0": "valid host",
    f"redis://:{PASSWORD}@::1:6379/0": "in brackets",
    f"redis://:{PASSWORD}@[::1/0": "in brackets",
    f"redis://:{PASSWORD}@[h]:6379/0": "IPv6",
    f"redis://:{PASSWORD}@h:0/0": "a port from 1 to 65535",
    f"redis://:{PASSWORD}@h:65536/0": "a port from 1 to 65535",
    f"redis://:{PASSWORD}@h:x/0": "a port from 1 to 65535",
    f"redis://:{PASSWORD}@h:/0": "a port from 1 to 65535",
    f"redis://:{PASSWORD}@h:{'9' * 5000}/0": "a port from 1 to 65535",
    f"redis://:{PASSWORD}@h/cache": "number of the database",
    f"redis://:{PASSWORD}@h/-1": "number of the database",
    f"redis://:{PASSWORD}@h/1/2": "number of the database",
    f"redis://:{PASSWORD}@h/{'9' * 5000}": "number of the database",
    f"redis://:{PASSWORD}@h/1?db=2": "one database",
    f"redis://:{PASSWORD}@h?db=1&db=1": "the option db twice",
    f"redis://:{PASSWORD}@h?db=x": "invalid value of the option db",
    f"redis://:{PASSWORD}@h?db=": "invalid value of the option db",
    f"redis://:{PASSWORD}@h?db": "invalid value of the option db",
    f"redis://:{PASSWORD}@h?{PASSWORD}=1": "unsupported option",
    f"redis://:{PASSWORD}@h?foo={PASSWORD}": "unsupported option",
    f"redis://:{PASSWORD}@h?decode_responses=no": "unsupported option",
    f"redis://:{PASSWORD}@h?socket_timeout=nan": "invalid value of the option socket_timeout",
    f"redis://:{PASSWORD}@h?socket_timeout=0": "invalid value of the option socket_timeout",
    f"redis://:{PASSWORD}@h?password=b": "not both",
    f"redis://:{PASSWORD}@h?ssl_cert_reqs=none": "rediss://",
    f"redis://h?password={PASSWORD}+1": "write it as %2B",
    f"rediss://:{PASSWORD}@h?ssl_cert_reqs={PASSWORD}": "invalid value of the option ssl_cert_reqs",
    f"http://:{PASSWORD}@h:6379/0": "must start with one of redis://",
    f"redis:/:{PASSWORD}@h:6379/0": "must start with one of redis://",
    f"{PASSWORD}@h:6379": "must start with one of redis://",
    f"unix://run/{PASSWORD}": "absolute path",
    f"unix://{PASSWORD}": "absolute path",
    f"unix:///run/{PASSWORD}#1": "write it as %23",
    f"unix:///run/{PASSWORD}?foo=1": "unsupported option",
    f"unix://:{PASSWORD}@/": "path of a socket",
    "127.0.0.1:6379": "must start with one of redis://",
    "localhost": "must start with one of redis://",
    "": "must start with one of redis://",
}


def layers(tmp_path, section, url):
    """Return the ways to set a URL: a file, the environment, and overrides of two forms."""
    path = tmp_path / "a.toml"
    path.write_text(f"[{section}]\nurl = {json.dumps(url)}\n")
    yield {"files": [path], "environ": {}}
    if url:
        yield {"environ": {f"EMBEDWAY_{section.upper()}__URL": url}}
    yield {"environ": {}, "overrides": {f"{section}.url": url}}
    yield {"environ": {}, "overrides": {section: {"url": url}}}


def everything_of(error):
    """Return the text of an error with its chain, frames, arguments and pickle."""
    parts = [str(error), repr(error), error.key, error.where, str(vars(error)), repr(pickle.dumps(error))]
    chain = error
    while chain is not None:
        parts += [str(chain), repr(chain), repr(getattr(chain, "errors", list)())]
        chain = chain.__cause__ or chain.__context__
    return "".join([*parts, *traceback.format_exception(error)])


@pytest.mark.parametrize("url", INVALID)
def test_an_invalid_url_is_refused_without_its_password(tmp_path, url, caplog):
    caplog.set_level(logging.DEBUG)
    for section in SECTIONS:
        for given in layers(tmp_path, section, url):
            with pytest.raises(ConfigError) as caught:
                Config.load(**given)
            assert (caught.value.key, INVALID[url] in str(caught.value)) == (f"{section}.url", True), str(caught.value)
            assert PASSWORD not in everything_of(caught.value)
    assert PASSWORD not in caplog.text


@pytest.mark.parametrize(
    ("url", "options"),
    [
        ("redis://h", {"host": "h"}),
        ("redis://h/", {"host": "h"}),
        ("REDIS://H:6380/3", {"host": "h", "port": 6380, "db": 3}),
        ("redis://u:p%23%40%2F%3F%25%20%5B@h/1", {"host": "h", "username": "u", "password": "p#@/?% [", "db": 1}),
        ("redis://:p:q!$&'()*+,;=é@h", {"host": "h", "password": "p:q!$&'()*+,;=é"}),
        ("redis://[::1]:6380/0", {"host": "::1", "port": 6380, "db": 0}),
        ("redis://h?db=2&password=a%2Bb", {"host": "h", "db": 2, "password": "a+b"}),
        ("redis://my_redis.internal.:6379", {"host": "my_redis.internal.", "port": 6379}),
        ("valkey://:p@h:1/2", {"host": "h", "port": 1, "password": "p", "db": 2}),
        ("unix://u:p@/run/valkey.sock?db=4", {"path": "/run/valkey.sock", "username": "u", "password": "p", "db": 4}),
        ("unix:///run/a%20b.sock", {"path": "/run/a b.sock"}),
    ],
)
def test_a_valid_url_reaches_the_client(url, options):
    for section in SECTIONS:
        config = Config.load(environ={}, overrides={f"{section}.url": url})
        held = getattr(config, section).url.get_secret_value()
        found = redis.asyncio.Redis.from_url(held).connection_pool.connection_kwargs
        assert {name: found[name] for name in options} == options


@pytest.mark.parametrize("scheme", ["rediss", "valkeys"])
def test_schemes_with_tls(scheme):
    held = Config.load(environ={}, overrides={"cache.url": f"{scheme}://h"}).cache.url.get_secret_value()
    assert redis.asyncio.Redis.from_url(held).connection_pool.connection_class is redis.asyncio.SSLConnection


def test_clients_accept_every_option():
    values = {
        "client_name": "me",
        "protocol": "3",
        "ssl_cert_reqs": "none",
        "ssl_check_hostname": "no",
        "socket_keepalive": "yes",
    }
    query = "&".join(f"{name}={values.get(name, '0' if name == 'db' else '7')}" for name in _OPTIONS)
    url = Config.load(environ={}, overrides={"ledger.url": f"rediss://h?{query}"}).ledger.url.get_secret_value()
    for cluster in (False, True):
        client = redis_client(url, cluster=cluster, what="a test")
        if not cluster:
            client.connection_pool.make_connection()


@pytest.mark.parametrize("section", SECTIONS)
@pytest.mark.parametrize("url", ["redis://h/1", "redis://h?db=1", "unix:///run/s"])
def test_a_cluster_has_one_database_and_no_socket(section, url):
    with pytest.raises(ConfigError, match=f"{section}.cluster: is True; must be false if url names"):
        Config.load(environ={}, overrides={f"{section}.url": url, f"{section}.cluster": True})
    Config.load(environ={}, overrides={f"{section}.url": "redis://h/0", f"{section}.cluster": True})


def test_a_password_with_reserved_characters_works(tmp_path):
    password = "p#/?@ [1"  # noqa: S105  a fake
    server = start_valkey(tmp_path)
    try:
        with contextlib.closing(redis.Redis(port=server.port)) as client:
            client.config_set("requirepass", password)
        escaped = password.translate({ord(one): f"%{ord(one):02X}" for one in "#/?@ ["})
        url = f"valkey://:{escaped}@127.0.0.1:{server.port}/0?protocol=3&client_name=me"
        held = Config.load(environ={}, overrides={"ledger.url": url}).ledger.url.get_secret_value()
        assert asyncio.run(ping(held))
    finally:
        server.stop()


async def ping(url):
    client = redis_client(url, cluster=False, what="a test")
    try:
        return await client.ping()
    finally:
        await client.aclose()
