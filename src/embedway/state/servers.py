"""The ledger and the pins in Redis or Valkey, as parts of a backup.

One script reads all keys of a part, and one replaces them, so that each is a single step for everyone. What is kept are
types and values as JSON, not the server's own dumps: those depend on the server's version, and a server should not be
given foreign ones.
"""

from __future__ import annotations

import contextlib
import json
import re
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from embedway import files
from embedway.errors import EmbedwayError, MissingExtraError, StateError, newer_version
from embedway.ledger.base import RESTORED, Restored
from embedway.ledger.pins import read_pin
from embedway.ledger.redis import read_limit, write_limit
from embedway.ledger.redis_scripts import (
    LEDGER_CHECK,
    LEDGER_KEYS,
    LEDGER_PREFIX,
    PINS_CHECK,
    PINS_KEYS,
    failure,
)
from embedway.ledger.sqlite_formats import LEDGER_VERSION, PINS_VERSION
from embedway.state.books import LATEST, check_limit, earliest
from embedway.state.parts import BadPartError

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping
    from pathlib import Path

    from embedway.state.parts import Held

#: A server does nothing else while a script runs: more than this is for its own tools.
MOST_BYTES, MOST_KEYS = 64 * 1024 * 1024, 200_000
#: A script over so much takes some seconds.
_ANSWER_S = 120.0

_READ, _TAKE, _PUT = (files.read_package_text("embedway.state", f"lua/{name}.lua") for name in ("read", "take", "put"))

#: What Redis reads as numbers. Python reads more, such as `1_000` and digits of other scripts. No number is negative:
#: what is held or under way is never less than nothing.
_WHOLE = re.compile(r"[0-9]{1,18}")
_TIME = re.compile(r"[0-9]{1,20}(\.[0-9]{1,30})?(e[+-]?[0-9]{1,3})?")
_ID = re.compile(r"[0-9a-f]{32}")
_ACCOUNT = re.compile(r".+\|(total|[0-9]{4}-[0-9]{2}(-[0-9]{2})?)\|(spent|held|saved)", re.DOTALL)
_NUMBERS = ("texts", "hits", "tokens", "reserved", "sent", "spent", "estimated", "unsure", "saved")
_TEXTS = ("model", "route", "collection", "api_key")
_NEEDED = {"id", "opened", "state", "model", "collection", "api_key"}

#: The keys of a part: type and values, pairs flattened for hashes and sorted sets.
Keys = dict[str, tuple[str, list[str]]]


@dataclass(frozen=True, slots=True)
class ServerPart:
    """The ledger or the pins on a server."""

    what: str
    url: str = field(repr=False)
    cluster: bool

    @property
    def name(self) -> str:
        """See `Part.name`."""
        return f"{self.what}.redis.json"

    @property
    def place(self) -> str:
        """See `Part.place`; the address may hold a password."""
        return f"{self.what} in Redis"

    @property
    def path(self) -> Path | None:
        """See `Part.path`."""
        return None

    @property
    def files(self) -> tuple[Path, ...]:
        """See `Part.files`."""
        return ()

    @property
    def version(self) -> int:
        """The newest version that is known."""
        return LEDGER_VERSION if self.what == "ledger" else PINS_VERSION

    @property
    def keys(self) -> tuple[str, ...]:
        """The keys that there always are, the stamp first."""
        return LEDGER_KEYS if self.what == "ledger" else PINS_KEYS

    def take(self, to: Path) -> bool:
        """See `Part.take`."""
        with self.held() as held:
            return held.take(to)

    def check(self, source: Path) -> None:
        """See `Part.check`."""
        if source.stat().st_size > 2 * MOST_BYTES:
            raise BadPartError("is too large")
        try:
            self.read(source)
        except EmbedwayError as error:
            raise BadPartError(f"cannot be used: {error}") from None
        except (ValueError, KeyError, TypeError, AttributeError, RecursionError, OverflowError):
            raise BadPartError("holds values that cannot be right") from None

    def read(self, source: Path) -> Keys:
        """The keys in a file that `take` wrote. Raises BadPartError, and errors of Python for wrong values."""
        facts = _strict_json(source.read_bytes())
        version = facts["version"]
        if facts["format"] != _format(self.what) or type(version) is not int or version < 1:
            raise BadPartError(f"is not the {self.what} of a server")
        if version > self.version:
            raise BadPartError(newer_version(version, self.version))
        found: Keys = {key: (kind, values) for key, kind, values in facts["keys"]}
        _check_shape(found, len(facts["keys"]))
        if self.what == "ledger":
            _check_ledger(found)
        else:
            _check_pins(found)
        return found

    @contextlib.contextmanager
    def held(self) -> Iterator[Held]:
        """See `Part.held`. Nothing is locked: `commit` replaces only what `take` has seen."""
        with contextlib.closing(self._client()) as client:
            yield _HeldServer(self, client)

    def call(self, client: Any, script: str, *more: str) -> Any:
        """Run a script over all keys of this part. Raises LedgerError and StateError."""
        import redis.exceptions  # noqa: PLC0415  the client has it loaded

        arguments = (str(MOST_BYTES), str(MOST_KEYS), LEDGER_PREFIX if self.what == "ledger" else "", *more)
        checked = (LEDGER_CHECK if self.what == "ledger" else PINS_CHECK) + _READ + script
        try:
            return client.eval(checked, len(self.keys), *self.keys, *arguments)
        except (redis.exceptions.RedisError, OSError, UnicodeDecodeError) as error:
            told = str(error)
            if "EMBEDWAYTOOMUCH" in told:
                raise StateError(
                    f"holds more than {MOST_BYTES // 2**20} MiB or {MOST_KEYS:,} keys, for which the server would "
                    "stand still too long: back it up with the server's own tools (`valkey-cli --rdb`, or BGSAVE)",
                    file=self.place,
                ) from None
            if "EMBEDWAYCHANGED" in told:
                raise StateError("was changed meanwhile, and stays as it is; try again", file=self.place) from None
            otherwise = f"{self.place} cannot be used: {type(error).__name__}"
            raise failure(error, f"the store of the {self.what}", self.version, otherwise) from error

    def _client(self) -> Any:
        try:
            import redis  # noqa: PLC0415  an extra
        except ImportError:
            raise MissingExtraError(f"{self.what}.backend = 'redis'", extra="redis", package="redis") from None
        kind = redis.RedisCluster if self.cluster else redis.Redis
        try:
            return kind.from_url(self.url, decode_responses=True, socket_connect_timeout=2.0, socket_timeout=_ANSWER_S)
        except (redis.exceptions.RedisError, OSError) as error:
            raise StateError(f"cannot be reached: {type(error).__name__}", file=self.place) from error


@dataclass(slots=True)
class _HeldServer:
    part: ServerPart
    client: Any
    digest: str | None = None
    found: Keys = field(default_factory=dict)
    wanted: Keys | None = None

    def is_empty(self) -> bool:
        self._look()
        return not any(key != self.part.keys[0] and values for key, (_, values) in self.found.items())

    def take(self, to: Path) -> bool:
        if self.is_empty():
            return False
        keys = [[key, kind, values] for key, (kind, values) in self.found.items() if key != self.part.keys[0]]
        document = {"format": _format(self.part.what), "version": self.part.version, "keys": keys}
        files.write_private_whole(to, json.dumps(document).encode())
        return True

    def put(self, source: Path, mark: Restored) -> None:
        self._look()
        self.wanted = self.part.read(source)
        if self.part.what == "ledger":
            meta = LEDGER_PREFIX + "meta"
            before = dict(_pairs(self.wanted.get(meta, ("hash", []))[1])).get(RESTORED)
            self.wanted[meta] = "hash", [RESTORED, earliest(mark, before).written()]

    def commit(self) -> None:
        if self.wanted is not None and self.digest is not None:
            written = json.dumps([[key, kind, values] for key, (kind, values) in self.wanted.items()])
            self.part.call(self.client, _PUT, self.digest, written)

    def _look(self) -> None:
        if self.digest is None:
            self.digest, *found = self.part.call(self.client, _TAKE)
            self.found = {key: (kind, values) for key, kind, values in found}


def _format(what: str) -> str:
    return f"embedway {what} of a server"


def _pairs(values: list[str]) -> list[tuple[str, str]]:
    return list(zip(values[::2], values[1::2], strict=True))


def _check_shape(found: Keys, count: int) -> None:
    if len(found) != count:
        raise BadPartError("holds a key twice")
    for kind, values in found.values():
        _demand(kind in {"hash", "zset"} and isinstance(values, list) and len(values) % 2 == 0)
        _demand(all(isinstance(value, str) for value in values))


def _demand(right: object) -> None:
    if not right:
        raise BadPartError("holds values that cannot be right")


def _check_ledger(found: Keys) -> None:
    fixed: Mapping[str, tuple[str, Callable[[str, str], object]]] = {
        "open": ("zset", lambda member, score: _ID.fullmatch(member) and _is_time(score)),
        "all": ("zset", lambda member, score: _ID.fullmatch(member) and _is_time(score)),
        "accounts": ("hash", lambda name, value: _ACCOUNT.fullmatch(name) and _WHOLE.fullmatch(value)),
        "limits": ("hash", _is_limit),
        "warned": ("hash", lambda _, value: _WHOLE.fullmatch(value)),
        "meta": ("hash", lambda name, value: name == RESTORED and Restored.read(value)),
    }
    ids = {member for member, _ in _pairs(found.get(LEDGER_PREFIX + "all", ("zset", []))[1])}
    entries = set()
    for key, (kind, values) in found.items():
        _demand(key.startswith(LEDGER_PREFIX))
        name = key.removeprefix(LEDGER_PREFIX)
        if name.startswith("entry:"):
            entries.add(name.removeprefix("entry:"))
            _demand(kind == "hash" and _is_entry(name.removeprefix("entry:"), dict(_pairs(values))))
            continue
        _demand(name in fixed and kind == fixed[name][0])
        _demand(all(fixed[name][1](*pair) for pair in _pairs(values)))
    _demand(entries == ids)


def _is_entry(name: str, fields: dict[str, str]) -> bool:
    known = {"id", "opened", "closed", "state", "unpriced", *_NUMBERS, *_TEXTS}
    return bool(
        fields.keys() >= _NEEDED
        and fields.keys() <= known
        and fields["id"] == name
        and fields["state"] in {"open", "done", "expired"}
        and all(_is_time(fields[at]) for at in ("opened", "closed") if at in fields)
        and all(_WHOLE.fullmatch(fields[number]) for number in _NUMBERS if number in fields)
        and fields.get("unpriced", "0") in {"0", "1"}
    )


def _is_limit(name: str, written: str) -> bool:
    fields = _strict_json(written)
    limit = read_limit(written, name)
    check_limit(limit)
    # As it is written, and no other way to write the same: every script on the server reads it.
    return bool(fields["name"] == name and type(limit.hard) is bool and written == write_limit(limit))


def _check_pins(found: Keys) -> None:
    kinds = dict(zip(PINS_KEYS[1:], ("hash", "zset"), strict=True))
    for key, (kind, values) in found.items():
        _demand(kinds.get(key) == kind)
        for name, value in _pairs(values):
            _demand(_is_pin(name, value) if kind == "hash" else _is_time(value))


def _is_pin(collection: str, written: str) -> bool:
    _strict_json(written)
    return read_pin(collection, written) is not None


def _strict_json(written: str | bytes) -> Any:
    """JSON that the server reads too: no NaN, and no half of a surrogate pair. Raises ValueError."""
    document = json.loads(written, parse_constant=_refuse_constant)
    json.dumps(document, ensure_ascii=False).encode()
    return document


def _refuse_constant(name: str) -> None:
    raise ValueError(f"{name} is no JSON")


def _is_time(text: str) -> bool:
    return _TIME.fullmatch(text) is not None and 0 <= float(text) <= LATEST
