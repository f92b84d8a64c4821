"""Sets of pairs of a baseline: the built-in one, and the user's own."""

from __future__ import annotations

from typing import TYPE_CHECKING

from embedway.quality.baseline import PairSet
from embedway.quality.pairs import BUILT_IN_DIGEST, BUILT_IN_VERSION, built_in_pairs, digest_of
from embedway.quality_commands import command

if TYPE_CHECKING:
    from collections.abc import Sequence

    from embedway.quality.baseline import Baseline
    from embedway.quality.pairs import Pair


def sets_with(pairs: Sequence[Pair] | None) -> tuple[PairSet, ...]:
    """Return the built-in pairs, and the user's own ones."""
    built_in = PairSet("built-in", BUILT_IN_VERSION, BUILT_IN_DIGEST, built_in_pairs())
    return (built_in,) if pairs is None else (built_in, PairSet("own", 1, digest_of(pairs), tuple(pairs)))


def new_sets(pairs: Sequence[Pair] | None, old: Baseline | None) -> tuple[PairSet, ...]:
    """Return the sets of a new baseline: without own pairs, those of the baseline that it replaces."""
    own = () if old is None or pairs is not None else tuple(one for one in old.sets if one.name == "own")
    return (*sets_with(pairs), *own)


def usable_sets(baseline: Baseline) -> tuple[tuple[PairSet, ...], tuple[str, ...]]:
    """Return the sets of a baseline with their texts, and notes on sets that this version does not have."""
    built_in = sets_with(None)[0]
    usable, notes = [], []
    for one in baseline.sets:
        if one.name == "own":
            usable.append(one)
        elif one.digest == built_in.digest:
            usable.append(built_in)
        else:
            notes.append(
                f"the baseline has version {one.version} of the built-in pairs, this embedway {built_in.version}: they "
                f"are not compared. {command('baseline', baseline.model, '--replace')} creates one of the new version"
            )
    return tuple(usable), tuple(notes)
