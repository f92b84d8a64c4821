"""Proofs that two routes answer in one space, and vectors to compare routes with, in the store of records.

A proof is valid for `VALID_DAYS`, and only for the same routes: their provider, model, address, options and prompts are
in its name. A store that fails or holds something unreadable has no proofs: a route is then not used without another
reason to use it.
"""

from __future__ import annotations

import datetime as dt
import hashlib
import json
import logging
import time
from dataclasses import asdict, dataclass, field
from typing import TYPE_CHECKING, Any

from embedway._public import public
from embedway._version import __version__
from embedway.errors import LedgerError
from embedway.ledger.records import Record
from embedway.quality.equivalence import VERDICTS
from embedway.quality.vector_json import vectors_from_json, vectors_to_json

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    from embedway.ledger.records import Records
    from embedway.quality.equivalence import EquivalenceVerdict
    from embedway.types import Vectors

_log = logging.getLogger(__name__)

#: Days for which a proof and a reference are valid: services replace models within months, servers within releases.
VALID_DAYS = 90
_VERSION = 1
#: The year 5138, for times that can be shown as dates.
_LATEST = 1e11


@public
@dataclass(frozen=True, slots=True)
class RouteIdentity:
    """Facts of a route that decide on its vectors. They contain no key and no text.

    `model` is the service's own name. `address` is the base URL without user, password and query, or the name of this
    machine; it is empty for the provider's own address. `facts` is a digest of the options of the route and of the
    model's revision, prompts and dimensions.
    """

    #: Name of the route, for people.
    name: str
    provider: str
    model: str
    address: str = ""
    facts: str = ""

    @property
    def digest(self) -> str:
        """Digest of all facts but the name, as 12 hex digits."""
        return digest_of_facts([self.provider, self.model, self.address, self.facts])


def digest_of_facts(facts: object) -> str:
    """Return the digest of facts of JSON types, as 12 hex digits."""
    return hashlib.sha256(json.dumps(facts, sort_keys=True).encode()).hexdigest()[:12]


def proof_name(a: RouteIdentity, b: RouteIdentity) -> str:
    """Return the name of the proof of two routes, in any order."""
    return digest_of_facts(sorted((a.digest, b.digest)))


def reference_name(route: RouteIdentity) -> str:
    """Return the name of the reference of a route."""
    return f"reference-{route.digest}"


class _Dated:
    """Something that was made at a time, and is valid for `VALID_DAYS`."""

    __slots__ = ()
    made: float

    @property
    def date(self) -> str:
        """Day on which it was made (UTC)."""
        return dt.datetime.fromtimestamp(self.made, dt.UTC).date().isoformat()

    def is_valid(self, now: float) -> bool:
        """Return whether it is not too old. A date in the future is invalid too."""
        return -86_400 <= now - self.made <= VALID_DAYS * 86_400


@public
@dataclass(frozen=True, slots=True)
class SpaceProof(_Dated):
    """A stored comparison of two routes.

    `texts` is the number of compared texts. `is_measured` is true for a result of `models.verify`, which has `figures`;
    others are from a comparison before a route was used.
    """

    name: str
    a: RouteIdentity
    b: RouteIdentity
    verdict: EquivalenceVerdict
    reasons: tuple[str, ...]
    texts: int
    #: Digest of the probe texts.
    probes: str
    #: Time of the comparison, in seconds since 1970.
    made: float
    #: Version of embedway that compared them.
    version: str = __version__
    is_measured: bool = False
    figures: Mapping[str, Any] = field(default_factory=dict)

    def to_json(self) -> dict[str, Any]:
        """Return the fields as JSON types."""
        return {"type": "proof", **asdict(self), "date": self.date}


@public
@dataclass(frozen=True, slots=True)
class StoredVectors(_Dated):
    """Facts of the stored vectors of a route, which were compared with nothing yet: others are compared with them."""

    name: str
    route: RouteIdentity
    texts: int
    #: Digest of the probe texts.
    probes: str
    #: Time of the answers, in seconds since 1970.
    made: float
    #: Version of embedway that stored them.
    version: str = __version__

    def to_json(self) -> dict[str, Any]:
        """Return the fields as JSON types."""
        return {"type": "vectors", **asdict(self), "date": self.date}


@dataclass(frozen=True, slots=True)
class Reference:
    """Vectors of a route for the probe texts, by kind. In answers without `index`, the order of rows is not known."""

    results: Mapping[str, Vectors]
    is_unordered: bool = False


class SpaceProofs:
    """Proofs in a store of records; without one, there are none."""

    def __init__(self, records: Records | None, *, clock: Callable[[], float] = time.time) -> None:
        self._records = records
        self.clock = clock
        self._is_failing = False

    async def between(self, a: RouteIdentity, b: RouteIdentity) -> SpaceProof | None:
        """Return the valid proof of two routes; None if there is none, or it cannot be read."""
        found = _parsed(proof_name(a, b), await self._read(proof_name(a, b)))
        if not isinstance(found, SpaceProof) or not found.is_valid(self.clock()):
            return None
        return found if sorted((found.a.digest, found.b.digest)) == sorted((a.digest, b.digest)) else None

    async def reference(self, route: RouteIdentity, probes: str) -> tuple[Reference, str] | None:
        """Return a route's valid vectors for a set of probe texts, with their date; None if there are none."""
        document = await self._read(reference_name(route))
        found = _parsed(reference_name(route), document)
        if document is None or not isinstance(found, StoredVectors) or found.probes != probes:
            return None
        if not found.is_valid(self.clock()):
            return None
        try:
            results = {str(kind): vectors_from_json(one) for kind, one in document["results"].items()}
        except (KeyError, TypeError, ValueError, AttributeError):
            return None
        is_whole = all(vectors.ndim == 2 and len(vectors) for vectors in results.values()) and bool(results)
        return (Reference(results, document.get("unordered") is True), found.date) if is_whole else None

    async def keep(self, proof: SpaceProof) -> None:
        """Store a proof. Raises LedgerError."""
        if self._records is not None:
            await self._records.put(Record("equivalence", proof.name, json.dumps(_document(proof))))

    async def keep_reference(self, route: RouteIdentity, reference: Reference, probes: str) -> None:
        """Store a route's vectors. Raises LedgerError."""
        if self._records is None:
            return
        texts = max(len(vectors) for vectors in reference.results.values())
        facts = StoredVectors(reference_name(route), route, texts, probes, self.clock())
        document = _document(facts)
        document["unordered"] = reference.is_unordered
        document["results"] = {kind: vectors_to_json(vectors) for kind, vectors in reference.results.items()}
        await self._records.put(Record("equivalence", facts.name, json.dumps(document)))

    async def try_to_keep(self, work: Any) -> None:
        """Await the storing of a proof or a reference; a failure is logged, because the process has the result."""
        try:
            await work
        except LedgerError as error:
            self._note_failure(error)

    async def all(self) -> list[SpaceProof | StoredVectors]:
        """Return all readable proofs and stored vectors, also those that are too old. Raises LedgerError."""
        if self._records is None:
            return []
        found: list[SpaceProof | StoredVectors] = []
        for record in await self._records.all("equivalence"):
            one = _parsed(record.name, _loaded(record.document))
            found += [] if one is None else [one]
        return found

    async def remove(self, name: str) -> bool:
        """Remove a proof or a reference. Return False if there is none. Raises LedgerError."""
        return self._records is not None and await self._records.remove("equivalence", name)

    async def _read(self, name: str) -> dict[str, Any] | None:
        if self._records is None:
            return None
        try:
            record = await self._records.get("equivalence", name)
        except LedgerError as error:
            self._note_failure(error)
            return None
        self._is_failing = False
        return None if record is None else _loaded(record.document)

    def _note_failure(self, error: LedgerError) -> None:
        if not self._is_failing:
            self._is_failing = True
            _log.warning("proofs of vector spaces cannot be read or stored: %s", error)


def _parsed(name: str, document: dict[str, Any] | None) -> SpaceProof | StoredVectors | None:
    """Return the facts of a document; None for one of a newer version or another shape."""
    if document is None or document.get("version") != _VERSION:
        return None
    try:
        made = float(document["made"])
        if not 0 <= made < _LATEST:
            return None
        of_all = (int(document["texts"]), str(document["probes"]), made, str(document["embedway"]))
        if document["type"] == "vectors":
            return StoredVectors(name, RouteIdentity(**document["route"]), *of_all)
        if document["type"] != "proof" or document["verdict"] not in VERDICTS:
            return None
        return SpaceProof(
            name,
            RouteIdentity(**document["a"]),
            RouteIdentity(**document["b"]),
            document["verdict"],
            tuple(map(str, document["reasons"])),
            *of_all,
            document.get("is_measured") is True,
            document.get("figures") or {},
        )
    except (KeyError, TypeError, ValueError):
        return None


def _document(found: SpaceProof | StoredVectors) -> dict[str, Any]:
    facts = found.to_json()
    facts["embedway"] = facts.pop("version")
    del facts["name"]
    return {"version": _VERSION, **facts}


def _loaded(document: str) -> dict[str, Any] | None:
    try:
        loaded = json.loads(document)
    except ValueError:
        return None
    return loaded if isinstance(loaded, dict) else None
