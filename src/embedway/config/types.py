"""Types of settings: the base class of sections, and annotated types that check and convert values."""

from __future__ import annotations

import datetime as dt
import decimal
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, NoReturn, Self, TypeAlias, TypeVar

from pydantic import (
    AfterValidator,
    BaseModel,
    BeforeValidator,
    ConfigDict,
    Field,
    PlainSerializer,
    ValidationError,
    model_validator,
)
from typing_extensions import override

from embedway.config.frozen import read_only, refuse_change
from embedway.config.paths import absolute
from embedway.config.plain_values import plain_table
from embedway.config.problems import KnownKeys, combine_errors, validation_problems
from embedway.errors import UsageError
from embedway.money import to_nanousd, usd

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    from pydantic._internal._model_construction import ModelMetaclass
else:
    ModelMetaclass = type(BaseModel)  # pydantic has no public name for it

S = TypeVar("S", bound="Section")
_UNKNOWN = "unknown"
#: Range of valid prices, in dollars. Prices outside it are mistakes, and overflow in comparisons.
_LEAST_PRICE, _MOST_PRICE = decimal.Decimal("0.000000001"), decimal.Decimal(10**9)


class _SectionMeta(ModelMetaclass):
    """Metaclass of sections. A call of a section raises ConfigError.

    `model_validate`, and the validation of sections within it, raise ValidationError, which `Config.load` needs.
    """

    def __call__(cls, *arguments: Any, **values: Any) -> Any:  # noqa: N805  a metaclass
        made = _checked(cls, lambda: super(_SectionMeta, cls).__call__(*arguments, **values))
        made._report()  # noqa: SLF001  of this package
        return made


def _checked(cls: Any, make: Callable[[], Any]) -> Any:
    """Return what `make` returns. Raises ConfigError instead of ValidationError."""
    try:
        return make()
    except ValidationError as error:
        found = validation_problems(error, {}, KnownKeys.of(cls))
    # Outside of `except`: the chained error would contain the input, which may contain a secret.
    raise combine_errors([replace(problem, where=cls.__name__) for problem in found])


class Section(BaseModel, metaclass=_SectionMeta):
    """Table of settings: frozen, without unknown keys, and without the input in errors.

    The constructor raises ConfigError, which lists every problem with its key and rule. So does `model_copy` with
    changed fields. Assignment raises UsageError, which names the call to use instead.
    """

    model_config = ConfigDict(frozen=True, extra="forbid", hide_input_in_errors=True)

    @model_validator(mode="after")
    def _protect_tables(self) -> Self:
        read_only(self)
        return self

    def _report(self) -> None:
        """Log warnings about a section that was created by its constructor."""

    if not TYPE_CHECKING:  # with them, type checkers would allow assignments, and any argument

        def __init__(self, /, **values: Any) -> None:
            """Validate the fields. Raises UsageError for a section that exists already."""
            if self.__dict__:
                new = type(self).__name__
                raise UsageError(f"settings cannot be changed; write model_copy(update={{…}}), or a new {new}(…)")
            super().__init__(**values)

        # Without it, validation would call this method for each section of a configuration.
        __init__.__pydantic_base_init__ = True

        def __setattr__(self, name: str, value: Any) -> None:
            """Set a private attribute. Raises UsageError for any other."""
            if name not in self.__private_attributes__:
                refuse_change(self, name, value)
            super().__setattr__(name, value)

        def __delattr__(self, name: str) -> None:
            """Raise UsageError."""
            refuse_change(self, name, None)

    @override
    def model_copy(self, *, update: Mapping[str, Any] | None = None, deep: bool = False) -> Self:
        """Return a copy with changed fields, which are checked. Raises ConfigError."""
        copied = super().model_copy(deep=deep)
        if update:
            values = {**dict(self), **plain_table(update, "must be a mapping of fields to values")}
            checked = _checked(type(self), lambda: type(self).model_validate(values))
            copied.__dict__.update(checked.__dict__)
            copied.model_fields_set.update(update)
        return copied

    @override
    @classmethod
    def model_construct(cls, _fields_set: set[str] | None = None, **values: Any) -> NoReturn:
        """Raise UsageError, because it would skip the checks."""
        raise UsageError(f"settings are always checked; write {cls.__name__}(…)")

    @override
    def copy(self, **options: Any) -> NoReturn:  # of pydantic 1, which checks nothing
        """Raise UsageError."""
        raise UsageError("write model_copy(update={…}), which checks the fields")


def replace_unchecked(section: S, **fields: Any) -> S:
    """Return a copy of a section with other fields, without checks: they may contradict the rest."""
    copied = section.model_copy()
    copied.__dict__.update(fields)
    return copied


def _parse_price(value: Any) -> Any:
    """Parse a price from JSON, TOML or Python; a float is converted through its decimal text."""
    if value is None or value == _UNKNOWN:
        return None
    if isinstance(value, bool) or not isinstance(value, (int, float, str, decimal.Decimal)):
        raise ValueError("must be a number of dollars, or unknown")  # noqa: TRY004  pydantic wraps it
    try:
        price = decimal.Decimal(str(value))
    except decimal.InvalidOperation:
        raise ValueError("must be a number of dollars, or unknown") from None
    if not price.is_finite():
        raise ValueError("must be a finite number of dollars")
    if price < 0:
        raise ValueError("must be greater than or equal to 0")
    if price and not _LEAST_PRICE <= price <= _MOST_PRICE:
        raise ValueError(f"must be 0, or from {_LEAST_PRICE:f} to {_MOST_PRICE:,} dollars")
    return price


def _to_price_text(value: Any) -> Any:
    """Convert a number of dollars to its decimal text."""
    number = None if isinstance(value, bool) else value
    return f"{decimal.Decimal(str(number)):f}" if isinstance(number, (int, float, decimal.Decimal)) else value


def _to_tuple(value: Any) -> Any:
    return tuple(value) if isinstance(value, list) else value


def _parse_date(value: Any) -> Any:
    if not isinstance(value, str):
        return value
    try:
        return dt.date.fromisoformat(value)
    except ValueError:
        raise ValueError("must be a date, such as 2026-11-23") from None


Price: TypeAlias = Annotated[
    decimal.Decimal | None,
    BeforeValidator(_parse_price, json_schema_input_type=Annotated[float, Field(ge=0)] | str | None),
    PlainSerializer(lambda price: None if price is None else str(price), when_used="json"),
]
PriceText: TypeAlias = Annotated[
    str,
    BeforeValidator(_to_price_text, json_schema_input_type=Annotated[float, Field(ge=0)] | str),
    Field(pattern=r"^\d{1,6}(\.\d{1,6})?$"),
]

#: Maximum characters of a word, such as a scale, and of the description of a source.
_LONGEST_WORD, LONGEST_SOURCE = 64, 2000


def _check_line(text: str, most: int) -> str:
    if len(text) > most or not text.isprintable():
        raise ValueError(f"must be one line of at most {most:,} printable characters")
    return text


def _check_namespace(namespace: str) -> str:
    if namespace.startswith("@"):
        raise ValueError("must not begin with @, which begins the namespaces of the gateway's tenants")
    return namespace


Namespace: TypeAlias = Annotated[str, AfterValidator(_check_namespace)]
Word: TypeAlias = Annotated[str, AfterValidator(lambda text: _check_line(text, _LONGEST_WORD))]
SourceText: TypeAlias = Annotated[str, AfterValidator(lambda text: _check_line(text, LONGEST_SOURCE))]
Name: TypeAlias = Annotated[str, Field(strict=True, min_length=1)]
Number: TypeAlias = Annotated[float, Field(strict=True, gt=0, allow_inf_nan=False)]
Words: TypeAlias = Annotated[tuple[Name, ...], BeforeValidator(_to_tuple, json_schema_input_type=list[str])]
Day: TypeAlias = Annotated[dt.date | None, BeforeValidator(_parse_date)]


def _to_absolute(value: Any) -> Any:
    """Make a path absolute at load time, so that a later change of the working directory has no effect."""
    return absolute(value) if isinstance(value, (str, Path)) else value


Folder: TypeAlias = Annotated[Path, BeforeValidator(_to_absolute)]
File: TypeAlias = Folder
#: Maximum integer, and maximum duration in seconds (30 years). Larger ones are mistakes, and calculations overflow.
_MOST_INTEGER, _MOST_SECONDS = 10**12, 10**9
Positive: TypeAlias = Annotated[int, Field(strict=True, gt=0, le=_MOST_INTEGER)]
NotNegative: TypeAlias = Annotated[int, Field(strict=True, ge=0, le=_MOST_INTEGER)]
Seconds: TypeAlias = Annotated[float, Field(strict=True, gt=0, le=_MOST_SECONDS, allow_inf_nan=False)]
NotNegativeFloat: TypeAlias = Annotated[float, Field(strict=True, ge=0, allow_inf_nan=False)]
Flag: TypeAlias = Annotated[bool, Field(strict=True)]
#: Texts of an option that mean true and false, as in variables.
TRUE, FALSE = frozenset({"true", "1", "yes", "on"}), frozenset({"false", "0", "no", "off"})


def _parse_dollars(value: Any) -> Any:
    try:
        return usd(to_nanousd(value, name="it"))
    except UsageError as error:
        raise ValueError(str(error).split("; ")[-1].removeprefix("it ")) from None


Dollars: TypeAlias = Annotated[str, BeforeValidator(_parse_dollars)]

#: Minimum length of a secret. Anyone who can read entries could guess shorter ones.
_SECRET_CHARACTERS = 16
SECRET_RULE = f"must be at least {_SECRET_CHARACTERS} printable ASCII characters, without spaces"


def is_secret(text: str) -> bool:
    """Return whether a text is valid as a secret of the cache."""
    return len(text) >= _SECRET_CHARACTERS and text.isascii() and text.isprintable() and " " not in text
