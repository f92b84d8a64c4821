"""The ledger and the pins in Redis or Valkey, as parts of a backup.

One script reads all keys of a part, and one replaces them. A backup stores types and values as JSON, not the server's
own dumps: dumps depend on the server's version, and a server should not load untrusted ones.
"""

from __future__ import annotations

import contextlib
import json
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from embedway import files
from embedway.errors import EmbedwayError, MissingExtraError, StateError, newer_version
from embedway.ledger.base import RESTORED, Restored
from embedway.ledger.continuity import LedgerIdentity
from embedway.ledger.redis import (
    IDENTITY,
    LEDGER_CHECK,
    LEDGER_KEYS,
    LEDGER_PREFIX,
    PINS_CHECK,
    PINS_KEYS,
    RECORDS_KEYS,
    failure,
)
from embedway.ledger.sqlite_formats import LEDGER_VERSION, PINS_VERSION
from embedway.state.parts import BadPartError, earliest
from embedway.state.redis_values import check_ledger, check_pins, check_shape, pairs_of, strict_json
from embedway.store_failures import explain_server

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from embedway.state.parts import Transaction
    from embedway.state.redis_values import Keys

#: Scripts that read and replace all keys of a part. KEYS are the keys with fixed names. ARGV: the maximum bytes, the
#: maximum keys, the prefix of the ledger's keys or nothing; for `_PUT` also the digest of the replaced content, and the
#: new content as JSON.
_READ, _TAKE, _PUT = (files.read_package_text("embedway.state", f"lua/{name}.lua") for name in ("read", "take", "put"))
#: Limits of a part. A script blocks the server, so larger parts need the server's own tools.
MOST_BYTES, MOST_KEYS = 64 * 1024 * 1024, 200_000
#: Socket timeout in seconds. A script at these limits takes several seconds.
_ANSWER_S = 120.0


@dataclass(frozen=True, slots=True)
class RedisPart:
    """Ledger or pins on a server."""

    what: str
    url: str = field(repr=False)
    cluster: bool

    @property
    def name(self) -> str:
        return f"{self.what}.redis.json"

    @property
    def place(self) -> str:
        """Name of the store, without the address, which may contain a password."""
        return f"{self.what} in Redis"

    @property
    def path(self) -> Path | None:
        return None

    @property
    def files(self) -> tuple[Path, ...]:
        return ()

    @property
    def version(self) -> int:
        """Newest supported version."""
        return LEDGER_VERSION if self.what == "ledger" else PINS_VERSION

    @property
    def keys(self) -> tuple[str, ...]:
        """Keys with fixed names, the stamp first."""
        return tuple(dict.fromkeys(LEDGER_KEYS + RECORDS_KEYS)) if self.what == "ledger" else PINS_KEYS

    def snapshot(self, to: Path) -> bool:
        with self.begin() as transaction:
            return transaction.snapshot(to)

    def check(self, source: Path) -> None:
        if source.stat().st_size > 2 * MOST_BYTES:
            raise BadPartError("is too large")
        try:
            self.read(source)
        except EmbedwayError as error:
            raise BadPartError(f"cannot be used: {error}") from None
        except (ValueError, KeyError, TypeError, AttributeError, RecursionError, OverflowError):
            raise BadPartError("contains invalid values") from None

    def read(self, source: Path) -> Keys:
        """Return the keys in a file that `snapshot` wrote. Raises BadPartError, and Python errors for wrong values."""
        facts = strict_json(source.read_bytes())
        version = facts["version"]
        if facts["format"] != _format(self.what) or type(version) is not int or version < 1:
            raise BadPartError(f"is not the {self.what} of a server")
        if version > self.version:
            raise BadPartError(newer_version(version, self.version))
        found: Keys = {key: (kind, values) for key, kind, values in facts["keys"]}
        check_shape(found, len(facts["keys"]))
        if self.what == "ledger":
            check_ledger(found)
        else:
            check_pins(found)
        return found

    @contextlib.contextmanager
    def begin(self) -> Iterator[Transaction]:
        """Begin to replace the part. Nothing is locked: `commit` replaces only the content that `snapshot` read."""
        with contextlib.closing(self._client()) as client:
            yield _RedisTransaction(self, client)

    def call(self, client: Any, script: str, *more: str) -> Any:
        """Run a script over all keys of this part. Raises LedgerError and StateError."""
        import redis.exceptions  # noqa: PLC0415  already imported by the client

        arguments = (str(MOST_BYTES), str(MOST_KEYS), LEDGER_PREFIX if self.what == "ledger" else "", *more)
        checked = (LEDGER_CHECK if self.what == "ledger" else PINS_CHECK) + script
        try:
            return client.eval(checked, len(self.keys), *self.keys, *arguments)
        except (redis.exceptions.RedisError, OSError, UnicodeDecodeError) as error:
            message = str(error)
            if "EMBEDWAYTOOMUCH" in message:
                raise StateError(
                    f"contains more than {MOST_BYTES // 2**20} MiB or {MOST_KEYS:,} keys, which would block the "
                    "server for too long: back it up with the server's own tools (`valkey-cli --rdb`, or BGSAVE)",
                    file=self.place,
                ) from None
            if "EMBEDWAYCHANGED" in message:
                raise StateError(
                    "was changed by another process, and is not replaced: try again", file=self.place
                ) from None
            why = explain_server(error, self.url, setting=f"{self.what}.url", answer_s=_ANSWER_S)
            otherwise = f"{self.place} cannot be used: {why}"
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
            why = explain_server(error, self.url, setting=f"{self.what}.url", answer_s=_ANSWER_S)
            raise StateError(f"cannot be used: {why}", file=self.place) from error


@dataclass(slots=True)
class _RedisTransaction:
    part: RedisPart
    client: Any
    digest: str | None = None
    found: Keys = field(default_factory=dict)
    wanted: Keys | None = None

    def is_empty(self) -> bool:
        self._look()
        return not any(key != self.part.keys[0] for key in self._content())

    def snapshot(self, to: Path) -> bool:
        if self.is_empty():
            return False
        keys = [[key, kind, values] for key, (kind, values) in self._content().items() if key != self.part.keys[0]]
        document = {"format": _format(self.part.what), "version": self.part.version, "keys": keys}
        files.write_private_whole(to, json.dumps(document).encode())
        return True

    def stage(self, source: Path, mark: Restored) -> None:
        self._look()
        self.wanted = self.part.read(source)
        if self.part.what == "ledger":
            restored, live = dict(self._meta(self.wanted)).get(RESTORED), dict(self._meta(self.found))
            identity = LedgerIdentity.new(LedgerIdentity(live.get("id", ""), tuple(live.get("before", "").split())))
            ends = [float(end) for _, end in pairs_of(self.wanted.get(LEDGER_PREFIX + "open", ("zset", []))[1])]
            lease_s = max(0.0, max(ends, default=0.0) - mark.restored_at)
            fields = ["id", identity.id, "before", " ".join(identity.before), "lease_s", f"{lease_s:.6f}"]
            self.wanted[LEDGER_PREFIX + "meta"] = "hash", [RESTORED, earliest(mark, restored).written(), *fields]

    def commit(self) -> None:
        if self.wanted is not None and self.digest is not None:
            written = json.dumps([[key, kind, values] for key, (kind, values) in self.wanted.items()])
            self.part.call(self.client, _READ + _PUT, self.digest, written)

    def _content(self) -> Keys:
        """Return the keys that have values, without the ledger's identity and leases."""
        meta = [one for pair in self._meta(self.found) if pair[0] not in IDENTITY for one in pair]
        found = {**self.found, LEDGER_PREFIX + "meta": ("hash", meta), LEDGER_PREFIX + "leases": ("hash", [])}
        return {key: (kind, values) for key, (kind, values) in found.items() if values}

    def _meta(self, keys: Keys) -> list[tuple[str, str]]:
        return pairs_of(keys.get(LEDGER_PREFIX + "meta", ("hash", []))[1])

    def _look(self) -> None:
        if self.digest is None:
            self.digest, *found = self.part.call(self.client, _READ + _TAKE)
            self.found = {key: (kind, values) for key, kind, values in found}


def _format(what: str) -> str:
    return f"embedway {what} of a server"
