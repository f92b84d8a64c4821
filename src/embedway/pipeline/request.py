"""First step of a call: validation of its arguments and texts."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, cast, get_args

import numpy as np

from embedway.arguments import as_texts, check_choice, check_count, check_flag, check_integer, check_name, is_a
from embedway.errors import InputError
from embedway.space import INPUT_TYPES
from embedway.types import EmbedRequest, InputType, Overflow, Texts

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence

    import numpy.typing as npt

    from embedway.errors import EmbedwayError

#: Missing values of pandas and numpy, by type name.
_MISSING = {"NAType", "NaTType", "MaskedConstant"}
_OVERFLOWS = get_args(Overflow)


@dataclass(frozen=True, slots=True)
class Call:
    """The arguments of a call. Its texts are read into a tuple, and not validated yet."""

    texts: Texts
    input_type: InputType = "document"
    model: str = "auto"
    dimensions: int | None = None
    on_overflow: Overflow | None = None
    partial: bool = False
    priority: int = 0
    #: Whether vectors have length 1; None for those that the model returns.
    normalize: bool | None = None
    #: Whether the caller is assumed to wait; None for queries. Not an option of public calls.
    is_interactive: bool | None = None

    def __post_init__(self) -> None:
        """Validate all arguments except the texts. Raises UsageError."""
        object.__setattr__(self, "texts", as_texts(self.texts, "texts"))
        checked = {
            "model": check_name(self.model, "model"),
            "dimensions": check_count(self.dimensions, "dimensions"),
            "input_type": check_choice(self.input_type, INPUT_TYPES, "input_type"),
            "on_overflow": check_overflow(self.on_overflow),
            "partial": check_flag(self.partial, "partial"),
            "priority": check_integer(self.priority, "priority", 0, 9),
            "normalize": None if self.normalize is None else check_flag(self.normalize, "normalize"),
        }
        for name, value in checked.items():  # plain values in place of those of subclasses and numpy
            if value is not getattr(self, name):
                object.__setattr__(self, name, value)

    @property
    def has_token_ids(self) -> bool:
        """Whether any text is a list of token ids."""
        return any(type(text) is not str and is_token_ids(text) for text in self.rows)

    @property
    def rows(self) -> tuple[Any, ...]:
        """The texts as a tuple, one row each."""
        return cast("tuple[Any, ...]", self.texts)  # `__post_init__` has converted it


def check_overflow(choice: Any) -> Any:
    """Return `on_overflow` as a plain string, or None. Raises UsageError."""
    return None if choice is None else check_choice(choice, _OVERFLOWS, "on_overflow")


def inspect(call: Call, on_overflow: Overflow) -> EmbedRequest:
    """Validate the texts of a call; `on_overflow` is the default for the call.

    Raises InputError with the row; with `partial`, these errors are in the request.
    """
    rows = call.rows
    refused: dict[int, EmbedwayError] = {}
    replaced: dict[int, str] = {}
    for row, text in enumerate(rows):
        if type(text) is str and text.isascii() and text[:1].isalnum():
            continue  # a fast path for nearly every text, in a third of the time
        try:
            _check(row, text)
            if type(text) is not str:  # numpy's strings and other subclasses
                replaced[row] = str.__str__(text)
        except InputError as error:
            if not call.partial:
                raise
            refused[row] = error
            replaced[row] = ""
    if replaced:
        rows = tuple(replaced.get(row, text) for row, text in enumerate(rows))
    return EmbedRequest(
        rows,
        call.model,
        call.input_type,
        call.dimensions,
        call.on_overflow or on_overflow,
        call.partial,
        refused,
        call.priority,
        call.is_interactive,
    )


def unique_texts(
    texts: Sequence[str], refused: Mapping[int, EmbedwayError]
) -> tuple[tuple[str, ...], npt.NDArray[np.int64]]:
    """Return unique texts in order, and each row's position among them (-1 if the row is refused)."""
    if not refused and len(once := dict.fromkeys(texts)) == len(texts):  # fast path: no duplicates
        return tuple(once), np.arange(len(texts), dtype=np.int64)
    first: dict[str, int] = {}
    places = (-1 if row in refused else first.setdefault(text, len(first)) for row, text in enumerate(texts))
    positions = np.fromiter(places, np.int64, len(texts))
    return tuple(first), positions


def is_token_ids(text: object) -> bool:
    """Return whether a text is a list of token ids."""
    return type(text) in {list, tuple} and bool(text) and all(type(item) is int for item in cast("list[object]", text))


def decode_ids(row: int, text: Any, decode: Callable[[Sequence[int]], str | None], model: str) -> Any:
    """Return the text of token ids; return anything else unchanged.

    Raises InputError if the model's tokenizer cannot verify the ids: ids of another tokenizer would be another text.
    """
    if not is_token_ids(text):
        return text
    try:
        found = decode(text)
    except ValueError:
        raise InputError(
            f"its token ids are not a text in the encoding of {model}; send the text itself", row=row
        ) from None
    if found is None:
        raise InputError(
            f"it is a list of token ids, which cannot be verified for {model}; send the text itself", row=row
        )
    return found


def _check(row: int, text: object) -> None:
    reason = reason_against(text)
    if reason:
        raise InputError(reason, row=row)


def reason_against(text: object) -> str:
    """Return the reason why a text cannot be embedded; empty if it can."""
    if not is_a(text, str):
        return f"it is of type {type(text).__name__}, not a string{_advice(text)}"
    text = str.__str__(text)  # methods of a subclass may return anything
    # A text of NULs is empty too, because tokenizers drop them.
    if not text or text.isspace() or ("\x00" in text and not text.replace("\x00", "").strip()):
        return "it is empty; leave it out, because the vector of an empty text is meaningless"
    if not text.isascii():
        try:
            text.encode("utf-8")
        except UnicodeEncodeError as error:
            return f"character {error.start} is half of a surrogate pair, which is invalid in a text; decode it again"
    return ""


def _advice(value: object) -> str:
    if is_a(value, (bytes, bytearray)):
        return "; decode it first"
    missing = value is None or (is_a(value, float) and math.isnan(cast("float", value)))
    missing = missing or type(value).__name__ in _MISSING
    return "; drop or fill missing values first" if missing else ""
