"""The first step: a call is checked, and refused where it cannot be answered."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, get_args

from embedway.arguments import listed, named, whole
from embedway.errors import InputError, UsageError
from embedway.types import EmbedRequest, InputType, Overflow

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from embedway.errors import EmbedwayError


@dataclass(frozen=True, slots=True)
class Call:
    """The arguments of `embed` or `plan`. The texts are not checked yet, and an iterator of them is read."""

    texts: str | Sequence[str]
    input_type: InputType
    model: str
    dimensions: int | None
    on_overflow: Overflow | None
    partial: bool = False
    priority: int = 0

    def __post_init__(self) -> None:
        object.__setattr__(self, "texts", listed(self.texts, "texts"))
        object.__setattr__(self, "dimensions", whole(self.dimensions, "dimensions"))
        named(self.model, "model")

    @property
    def has_token_ids(self) -> bool:
        """Whether a text is given as token ids."""
        return any(type(text) is not str and is_token_ids(text) for text in self.texts)


def inspect(
    texts: str | Sequence[str],
    *,
    model: str,
    input_type: InputType,
    dimensions: int | None,
    on_overflow: Overflow,
    partial: bool = False,
    priority: int = 0,
) -> EmbedRequest:
    """Check a call and freeze it.

    Raises UsageError for options and InputError, with the row, for texts; with `partial` these go into the request.
    """
    if input_type not in get_args(InputType):
        raise UsageError(f"input_type is {input_type!r}; it must be one of {', '.join(get_args(InputType))}")
    if on_overflow not in get_args(Overflow):
        raise UsageError(f"on_overflow is {on_overflow!r}; it must be one of {', '.join(get_args(Overflow))}")
    dimensions = whole(dimensions, "dimensions")
    if priority not in range(10):
        raise UsageError(f"priority is {priority!r}; it must be a whole number from 0 to 9")
    given = listed(texts, "texts")
    rows = (given,) if isinstance(given, str) else given
    refused: dict[int, EmbedwayError] = {}
    for row, text in enumerate(rows):
        if type(text) is str and text.isascii() and text[:1].isalnum():
            continue  # nearly every text, in a third of the time
        try:
            _check(row, text)
        except InputError as error:
            if not partial:
                raise
            refused[row] = error
    if refused:
        rows = tuple("" if row in refused else text for row, text in enumerate(rows))
    return EmbedRequest(rows, model, input_type, dimensions, on_overflow, partial, refused, priority)


def is_token_ids(text: object) -> bool:
    """Whether a text is given as a list of token ids."""
    return isinstance(text, (list, tuple)) and bool(text) and all(type(item) is int for item in text)


def decoded(row: int, text: Any, decode: Callable[[Sequence[int]], str | None], model: str) -> Any:
    """The text that token ids stand for; anything else as it is.

    Raises InputError where the model's tokenizer cannot tell: ids of another tokenizer would be another text.
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
            f"it is a list of token ids, and whether they are {model}'s cannot be told; send the text itself", row=row
        )
    return found


def _check(row: int, text: object) -> None:
    reason = reason_against(text)
    if reason:
        raise InputError(reason, row=row)


def reason_against(text: object) -> str:
    """Why a text cannot be embedded; empty where it can."""
    if not isinstance(text, str):
        return f"it is of type {type(text).__name__}, not a string"
    # NULs say nothing: tokenizers drop them.
    if not text or text.isspace() or ("\x00" in text and not text.replace("\x00", "").strip()):
        return "it is empty; leave it out, because a vector of nothing means nothing"
    if not text.isascii():
        try:
            text.encode("utf-8")
        except UnicodeEncodeError as error:
            return f"character {error.start} is half of a surrogate pair, which no text can hold; decode it anew"
    return ""
