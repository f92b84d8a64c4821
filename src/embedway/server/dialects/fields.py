"""Fields and steps that the dialects share: types of fields, and places in messages."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated, Any, Literal

from pydantic import AfterValidator, BeforeValidator, Field, WithJsonSchema

from embedway.server.bodies import Body
from embedway.server.caller import HIGHEST_PRIORITY
from embedway.server.problems import BodyError

if TYPE_CHECKING:
    from embedway.server.problems import Problem
    from embedway.types import Receipt


def _whole(value: Any) -> Any:
    """Return an integer for a number such as 8.0: in JSON, it is the same number."""
    return int(value) if type(value) is float and value.is_integer() else value


def _check_false(value: bool) -> bool:
    if value:
        raise ValueError("must be false")
    return value


def _all_whole(values: Any) -> Any:
    return [_whole(one) for one in values] if type(values) is list and float in set(map(type, values)) else values


#: A text of spaces and NULs has no vector; `pipeline.request` refuses it and names its row, so that the pattern is for
#: the OpenAPI document only.
Text = Annotated[str, Field(json_schema_extra={"minLength": 1, "pattern": r"[^\s\u0000\u001c-\u001f\u0085]"})]
Texts = Annotated[list[Text], Field(json_schema_extra={"minItems": 1})]
TokenIds = Annotated[
    list[Annotated[int, Field(ge=0, lt=2**31)]],
    BeforeValidator(_all_whole),
    Field(json_schema_extra={"minItems": 1}),
]
Model = Annotated[str, Field(min_length=1, max_length=512)]
#: `@` begins the names of the collections of tenants.
Collection = Annotated[str, Field(max_length=512, json_schema_extra={"pattern": r"^([^@\u0000][^\u0000]*)?$"})]
Dimensions = Annotated[int, Field(ge=1, le=1_000_000), BeforeValidator(_whole)]
Count = Annotated[int, Field(ge=1, le=1_000_000_000), BeforeValidator(_whole)]
Priority = Annotated[int, Field(ge=0, le=HIGHEST_PRIORITY), BeforeValidator(_whole)]
CoherePriority = Annotated[int, Field(ge=0, le=999), BeforeValidator(_whole)]
#: A field of a service that must be false here. A literal would accept 0.
False_ = Annotated[bool, AfterValidator(_check_false), WithJsonSchema({"const": False})]


class TextItem(Body):
    """A text as an object."""

    text: Text


def first_given(*fields: tuple[str, Any]) -> Any:
    """Return the value of the fields that are set, which mean the same. Raises BodyError if two of them differ."""
    given = [(name, value) for name, value in fields if value is not None]
    for name, value in given[1:]:
        if value != given[0][1]:
            raise BodyError(f"{given[0][0]} and {name} differ, and mean the same; send one of them", param=name)
    return given[0][1] if given else None


def texts_of(given: Any) -> Any:
    """Return the texts of an input: strings, or lists of token ids."""
    if isinstance(given, str) or (given and isinstance(given[0], int)):
        return [given]
    return [one.text for one in given] if given and isinstance(given[0], TextItem) else given


def overflow_of(truncate: bool | None) -> Literal["truncate", "error"] | None:
    """Return the handling of long texts for a field that says whether to truncate them."""
    if truncate is None:
        return None
    return "truncate" if truncate else "error"


def placed(problem: Problem, texts: str) -> str:
    """Return the message of a problem with the place of the text at fault; `texts` is the API's field of texts."""
    param = problem.param or ""
    if not param.startswith("input."):
        return problem.message
    return f"{texts}[{param.removeprefix('input.')}]: {problem.message}"


def warnings_of(receipt: Receipt) -> list[str]:
    """Return a sentence for each kind of change to the texts, and the notes of a receipt."""
    found = [
        f"text {cut.row} was truncated to its first {cut.kept_tokens} tokens, {cut.kept_characters} characters"
        for cut in receipt.truncations[:_MOST_WARNINGS]
    ]
    rest = len(receipt.truncations) - len(found)
    if rest:
        found.append(f"{rest} more texts were truncated")
    return [*found, *receipt.notes]


#: Maximum number of truncated texts that an answer lists.
_MOST_WARNINGS = 50
