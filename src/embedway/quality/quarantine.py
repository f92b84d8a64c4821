"""State of routes after checks, and quarantine: routes that are not used until they agree with the baseline again.

States are records in the ledger's store, so that all processes that share it stop using a route, whatever their own
setting is. A process reads them at its first call that computes, and then in the background at most every `REFRESH_S`
seconds. If nothing changed, that is one read of names and times.
"""

from __future__ import annotations

import asyncio
import contextvars
import json
import logging
import time
from dataclasses import asdict, dataclass, fields
from typing import TYPE_CHECKING, Any

from embedway.errors import EmbedwayError
from embedway.ledger.records import Record, UnreadableRecordError
from embedway.quality_commands import command
from embedway.third_party import must_pass, place_of

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    from embedway.ledger.records import Records

_log = logging.getLogger("embedway.quality")
#: Age of the states from which they are read again, and maximum wait of the first call, in seconds.
REFRESH_S, FIRST_WAIT_S = 10.0, 1.0

_VERSION = 1
#: The year 5138, for times that can be shown as dates.
_LATEST = 1e11


@dataclass(frozen=True, slots=True)
class RouteState:
    """Result of a route's last check. Times are seconds since 1970."""

    model: str
    space_id: str
    route: str
    drifted: bool
    quarantined: bool
    checked: float
    #: Last check that the route passed, or the time of its baseline.
    last_passed: float
    #: First check of the drift; None if it passed.
    drifted_since: float | None = None
    reasons: tuple[str, ...] = ()

    @property
    def name(self) -> str:
        """Name of the record."""
        return name_of(self.space_id, self.route)

    @property
    def why(self) -> str:
        """Why the route is not used, and what to do."""
        reason = f": {self.reasons[0]}" if self.reasons else ""
        return (
            f"is in quarantine, because it differs from the baseline of {self.space_id}{reason}. "
            f"{command('check', self.model)} compares it again; {command('baseline', self.model, '--replace')} "
            f"accepts the change; {command('release', self.model, route=self.route)} ends the quarantine"
        )

    def to_record(self) -> Record:
        """Return the record."""
        return Record("quarantine", self.name, json.dumps({"version": _VERSION, **asdict(self)}))

    @classmethod
    def from_record(cls, record: Record) -> RouteState | None:
        """Read a record; unknown fields are ignored. None if it is damaged, of a newer version, or under another name.

        The route of such a record counts as in quarantine: a state that cannot be read must not allow a route.
        """
        try:
            found = json.loads(record.document)
        except (ValueError, RecursionError):
            return None
        if not isinstance(found, dict) or found.get("version") != _VERSION or type(found["version"]) is not int:
            return None
        known: dict[str, Any] = {field.name: found.get(field.name) for field in fields(cls)}
        reasons = known["reasons"]
        is_valid = (
            all(isinstance(known[name], str) for name in ("model", "space_id", "route"))
            and all(isinstance(known[name], bool) for name in ("drifted", "quarantined"))
            and all(_is_time(known[name]) for name in ("checked", "last_passed"))
            and (known["drifted_since"] is None or _is_time(known["drifted_since"]))
            and isinstance(reasons, list)
            and all(isinstance(one, str) for one in reasons)
        )
        if not is_valid:
            return None
        state = cls(**{**known, "reasons": tuple(reasons)})
        return state if state.name == record.name else None


def _is_time(value: Any) -> bool:
    return type(value) in (int, float) and 0 <= value < _LATEST


def name_of(space_id: str, route: str) -> str:
    """Return the name of a route's record."""
    return f"{space_id}|{route}"


def routes_in(name: str) -> list[tuple[str, str]]:
    """Return the space and route of a record's name; several if they contain the separator, and none for no route."""
    parts = name.split("|")
    return [("|".join(parts[:place]), "|".join(parts[place:])) for place in range(1, len(parts))]


def unreadable(space_id: str) -> str:
    """Return why a route with an unreadable record is not used, and what to do."""
    return (
        f"counts as in quarantine, because the record of its last check in {space_id} is damaged or of a newer "
        "version. `embedway quality check` replaces the record; `embedway quality release` removes it"
    )


def _reasons_of(states: Mapping[str, tuple[float, RouteState | None]]) -> dict[str, dict[str, str]]:
    """Return the reasons of all routes in quarantine, by space and route."""
    found: dict[str, dict[str, str]] = {}
    for name, (_, state) in states.items():
        if state is None:
            for space_id, route in routes_in(name):
                found.setdefault(space_id, {})[route] = unreadable(space_id)
        elif state.quarantined:
            found.setdefault(state.space_id, {})[state.route] = state.why
    return found


class Quarantines:
    """The routes in quarantine, as last read. If the store fails, the last known ones stay."""

    def __init__(self, records: Records, *, clock: Callable[[], float] = time.monotonic) -> None:
        self._records = records
        self._clock = clock
        #: States by the record's name, with the time of the record's change; None for an unreadable one.
        self._states: dict[str, tuple[float, RouteState | None]] = {}
        #: Names of unreadable records. They are logged once.
        self._damaged: set[str] = set()
        #: Reasons by space and route.
        self._found: dict[str, dict[str, str]] = {}
        self._read_at: float | None = None
        self._reading: asyncio.Task[None] | None = None
        self._is_logged = False
        #: A read that began earlier must not end later.
        self._in_turn = asyncio.Lock()

    async def refresh(self) -> None:
        """Read the states if they are due: at the first call before it goes on, later in the background."""
        if self._read_at is not None and self._clock() - self._read_at < REFRESH_S:
            return
        if self._reading is None or self._reading.done():
            # In an own context: it belongs to no call.
            self._reading = asyncio.create_task(self.read(), context=contextvars.Context())
        if self._read_at is None:
            await asyncio.wait([self._reading], timeout=FIRST_WAIT_S)
            if self._read_at is None:  # the store is slow: calls go on without it
                self._read_at = self._clock()

    async def read(self) -> None:
        """Read the states now. A failure of the store is logged once, and changes nothing."""
        try:
            async with self._in_turn:
                await self._read_changes()
        except BaseException as error:
            if must_pass(error):
                raise
            if not self._is_logged:
                self._is_logged = True
                reason = str(error) if isinstance(error, EmbedwayError) else place_of(error)
                _log.warning("quarantines of routes cannot be read, the last known ones apply: %s", reason)
        else:
            self._is_logged = False
        finally:
            self._read_at = self._clock()

    async def _read_changes(self) -> None:
        """Read the records that changed since the last time."""
        states: dict[str, tuple[float, RouteState | None]] = {}
        for name, changed in await self._records.names("quarantine"):
            known = self._states.get(name)
            if known is not None and known[0] == changed:
                states[name] = known
                continue
            try:
                record = await self._records.get("quarantine", name)
            except UnreadableRecordError:
                states[name] = changed, None
            else:
                if record is not None:
                    states[name] = record.changed, RouteState.from_record(record)
        self._log_damaged({name for name, (_, state) in states.items() if state is None})
        self._states, self._found = states, _reasons_of(states)

    def _log_damaged(self, names: set[str]) -> None:
        """Log each unreadable record once."""
        for name in sorted(names - self._damaged):
            for space_id, route in routes_in(name)[-1:]:
                _log.warning("%s %s", route, unreadable(space_id))
        self._damaged = names

    def of_space(self, space_id: str) -> Mapping[str, str]:
        """Return the reasons of a space's routes in quarantine, by route."""
        return self._found.get(space_id, _NONE)

    async def aclose(self) -> None:
        """Stop reading."""
        if self._reading is not None:
            self._reading.cancel()
            await asyncio.gather(self._reading, return_exceptions=True)


_NONE: Mapping[str, str] = {}
