"""Canaries: fixed texts whose vectors are stored in a baseline and compared in each check."""

from __future__ import annotations

import random
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Sequence

#: Version of the texts. A baseline is of one version.
CANARY_VERSION = 1
#: Short and long texts of several kinds, because a change may show only in one of them: prose, a question, code, a
#: table, numbers, other scripts, and words that most tokenizers split.
CANARIES: tuple[str, ...] = (
    "harbour",
    "Which valve must be closed before the pump is opened?",
    "The ferry was cancelled because of fog, so the mail arrived one day late.",
    "def area(width, height):\n    return width * height",
    "SELECT name, count(*) FROM orders WHERE paid = 1 GROUP BY name ORDER BY 2 DESC;",
    "Invoice 2041-77: 3 x 19.95 = 59.85, due on 14 March",
    "Das Fenster im Treppenhaus lässt sich seit dem Sturm nicht mehr schließen.",
    "La bibliothèque sera fermée pendant les travaux de la toiture.",
    "El tren de las siete sale hoy del andén cuatro.",
    "图书馆每天早上九点开门。",
    "雨が降ったので、試合は来週に延期された。",
    "Поезд прибывает на второй путь через десять минут.",
    "| port | service |\n| --- | --- |\n| 22 | ssh |\n| 443 | https |",
    "Electroencephalographically speaking, the hippopotamus was unimpressed.",
    (
        "Glaciers move slowly. Under their own weight the lower layers of ice deform and slide over wet rock, and they "
        "carry stones that scratch the valley floor. When the climate becomes warmer, the front of a glacier melts "
        "faster than new ice arrives, and the stones remain in long ridges. Geologists read these ridges like the "
        "rings of a tree."
    ),
    (
        "To renew a permit, bring the old card, a photo that is not older than six months, and a proof of address. The "
        "office accepts cards and cash. A lost card must be reported to the police first, and the report must be "
        "attached to the form. Renewed permits are sent by registered mail within three weeks."
    ),
)
#: Texts beside the canaries in one request of a baseline. They are long and unusual, because a quantization whose
#: scale is shared by a whole batch depends on its largest values.
NEIGHBOURS: tuple[str, ...] = (
    "!!! ??? *** ### @@@ $$$ %%% &&&",
    "0000 1111 2222 3333 4444 5555 6666 7777 8888 9999",
    "zxqv wkjp " * 12,
    "A long list of unrelated words: " + "anvil, comet, ledger, marmot, quartz, sonnet, turbine, walnut; " * 6,
)
#: Texts of a small batch in a baseline.
SMALL_BATCH = 4


def orders(count: int, seed: int) -> tuple[tuple[int, ...], tuple[int, ...]]:
    """Return two orders of the canaries for a check: a random one, and its reverse.

    In two opposite orders, an answer whose rows are permuted or sorted has each canary in a wrong row at least once.
    """
    shuffled = list(range(count))
    random.Random(seed).shuffle(shuffled)  # noqa: S311  no secret
    return tuple(shuffled), tuple(reversed(shuffled))


def batches(order: Sequence[int], size: int) -> list[tuple[int, ...]]:
    """Divide an order into batches of at most `size` texts."""
    return [tuple(order[start : start + size]) for start in range(0, len(order), size)]
