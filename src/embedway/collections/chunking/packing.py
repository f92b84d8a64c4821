"""Pack atoms into chunks of the least cost.

The cost prefers few and full chunks that begin with a heading and do not mix sections. The best borders of a group
are found by dynamic programming, in time linear in the number of atoms, because a chunk has a bounded size.
"""

from __future__ import annotations

import itertools
from dataclasses import dataclass
from typing import TYPE_CHECKING

from embedway.collections.chunking.atoms import CONTINUES
from embedway.collections.chunking.borders import sentences
from embedway.collections.chunking.pieces import Piece
from embedway.collections.chunking.sizes import BORDER_TOKENS

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from embedway.collections.chunking.atoms import Atom

#: Lowest level of a definition; see `Block.level`.
_DEFINITION = 7
#: Maximum characters of an overlap for each token.
_OVERLAP_CHARACTERS = 8


@dataclass(frozen=True, slots=True)
class Costs:
    """Costs of a chunk, relative to one more chunk.

    In `benchmarks/retrieval.py`, costs of a heading of 0.1 and 1.0 find 0.713 and 0.733 of the questions in a user's
    words with vectors alone, but 0.782 and 0.752 in hybrid search. So the smaller one stays, which fills chunks more.
    With 2.0, chunks of Markdown with short sections would fill less than half of their budget. The other costs are
    chosen by reading chunks.
    """

    #: Of a chunk that is empty, decreasing with the square of its fill.
    unfilled: float = 1.0
    #: Of a beginning inside a section, of one after a colon, and of one inside a block.
    inside_section: float = 0.25
    introduced: float = 0.4
    inside_block: float = 0.4
    #: Of a heading or definition within a chunk: of the same or a lower section, and of a higher one.
    heading: float = 0.1
    definition: float = 0.05
    higher: float = 0.5
    #: Of headings or signatures without text, which are possible only if they are nearly as large as a chunk.
    alone: float = 2.0


COSTS = Costs()


def pack(
    atoms: Sequence[Atom],
    room: int,
    contexts: Sequence[int],
    overlaps: Sequence[tuple[int, int]],
    costs: Costs = COSTS,
) -> list[Piece]:
    """Return the pieces of the least total cost; none has more than `room` tokens, its repeated text included.

    `contexts` has for each atom the number of tokens of the context of a chunk that it begins; `overlaps` has the start
    and the number of tokens of the text before it that a chunk may repeat.
    """
    # An overlap must leave room for the atom after it; else the exact count cuts the overlap into a chunk of its own.
    overlaps = [
        (start, tokens if used + tokens + atom.last - atom.first <= room - BORDER_TOKENS else 0)
        for atom, used, (start, tokens) in zip(atoms, contexts, overlaps, strict=True)
    ]
    repeated = [
        context + (atom.header_tokens or overlap)
        for atom, context, (_, overlap) in zip(atoms, contexts, overlaps, strict=True)
    ]
    borders = _best_borders(atoms, room, repeated, costs)
    pieces: list[Piece] = []
    for start, end in itertools.pairwise(borders):
        first = atoms[start]
        begin = first.start
        if not first.header and pieces and overlaps[start][1] and overlaps[start][0] > pieces[-1].start:
            begin = overlaps[start][0]
        tokens = atoms[end - 1].last - first.first + repeated[start]
        pieces.append(Piece(begin, atoms[end - 1].end, first.path, first.heading, first.header, tokens))
    return pieces


def _best_borders(atoms: Sequence[Atom], room: int, repeated: Sequence[int], costs: Costs) -> list[int]:
    """Return the borders of the chunks of the least total cost, from 0 to the number of atoms.

    `repeated` has the tokens of context and repeated text of a chunk that begins with each atom.
    """
    count = len(atoms)
    best = [float("inf")] * (count + 1)
    best[0] = 0.0
    origin = [0] * (count + 1)
    for start, first in enumerate(atoms):
        base = best[start] + 1.0 + (_start_cost(first, costs) if start else 0.0)
        top = first.level or first.section_level + 1
        mixed, is_alone = 0.0, True
        for end in range(start, count):
            atom = atoms[end]
            if end > start and atom.level != CONTINUES:
                mixed += _mixing_cost(atom.level, top, costs)
            tokens = atom.last - first.first + repeated[start]
            if tokens > room and end > start:
                break
            is_alone = is_alone and atom.body >= atom.end
            unfilled = 1.0 - min(tokens / room, 1.0)
            cost = base + mixed + costs.unfilled * unfilled * unfilled + (costs.alone if is_alone else 0.0)
            if cost < best[end + 1]:
                best[end + 1], origin[end + 1] = cost, start
    borders = [count]
    while borders[-1]:
        borders.append(origin[borders[-1]])
    borders.reverse()
    return borders


def find_overlaps(
    text: str, atoms: Sequence[Atom], most: int, tokens: Callable[[int, int], int]
) -> list[tuple[int, int]]:
    """Return for each atom that continues prose the whole sentences before it, of at most `most` tokens.

    An overlap is (start, tokens); (atom.start, 0) if nothing is repeated.
    """
    overlaps = [(atom.start, 0) for atom in atoms]
    if not most:
        return overlaps
    for number in range(1, len(atoms)):
        before, atom = atoms[number - 1], atoms[number]
        if atom.level != CONTINUES or not (atom.is_prose and before.is_prose):
            continue
        for earlier in reversed(atoms[max(number - most, 0) : number]):
            if not earlier.is_prose or overlaps[number][1] >= most:
                break
            least = max(earlier.start, before.end - most * _OVERLAP_CHARACTERS)
            starts = [start for start, _ in sentences(text, least, earlier.end)]
            is_whole = least == earlier.start and earlier.level == CONTINUES
            shared = [(start, tokens(start, before.end)) for start in (starts if is_whole else starts[1:])]
            fitting = [one for one in shared if one[1] <= most]
            if fitting:
                overlaps[number] = fitting[0]
            if len(fitting) < len(shared) or not is_whole:
                break
    return overlaps


def _start_cost(first: Atom, costs: Costs) -> float:
    if first.level != CONTINUES:
        return 0.0
    if first.is_inner:
        return costs.inside_block
    return costs.introduced if first.is_introduced else costs.inside_section


def _mixing_cost(level: int, top: int, costs: Costs) -> float:
    """Return the cost of a heading within a chunk."""
    usual = costs.definition if level >= _DEFINITION else costs.heading
    return usual + (costs.higher if level < top else 0.0)
