"""Section `[models.NAME]`: a model that routes serve, with its sizes, limit, tokenizer, price and prompts."""

from __future__ import annotations

from typing import Literal, Self

from pydantic import Field, ValidationInfo, field_validator, model_validator

from embedway.config.problems import ContradictionError
from embedway.config.types import Flag, Positive, PriceText, Section
from embedway.sizes import min_dimensions_fault


class ModelSettings(Section):
    """`[models.NAME]`: a model that routes serve and the catalog does not contain."""

    #: Name of the model in calls; must not be a catalog name.
    name: str = Field(min_length=1)
    #: Task of the model; a reranker has no dimensions and no prompts.
    task: Literal["embed", "rerank"] = "embed"
    #: Full size of a vector.
    dimensions: Positive | None = None
    #: Sizes below `dimensions` to which the model is trained to truncate its vectors.
    matryoshka: tuple[Positive, ...] = ()
    #: Smallest size if vectors may be truncated to every size; unset for the sizes in `matryoshka` only.
    min_dimensions: Positive | None = None
    #: Maximum tokens of a text.
    max_tokens: Positive
    #: `tiktoken:ENCODING`, `hub:OWNER/NAME` for a repository's tokenizer.json, `library` for a route to a library, or
    #: `estimate`: one token per digit or per three other bytes, marked as estimated in plans and receipts.
    tokenizer: str = Field(default="estimate", pattern=r"^(tiktoken:[a-z0-9_]+|hub:[\w.-]+/[\w.-]+|library|estimate)$")
    #: Whether its vectors have length 1.
    normalized: Flag = True
    #: Dollars, as a number or a text such as "0.02"; 0 if it is free, unset if unknown.
    price_usd_per_million_tokens: PriceText | None = None
    #: Prompt before a query.
    query_prompt: str = ""
    #: Prompt before a document.
    document_prompt: str = ""
    #: Part of the vector space's identity; change it when your server's weights change.
    revision: str = ""

    @field_validator("matryoshka")
    @classmethod
    def _check_matryoshka(cls, sizes: tuple[int, ...], info: ValidationInfo) -> tuple[int, ...]:
        full = info.data.get("dimensions")
        if full is not None and (
            list(sizes) != sorted(set(sizes), reverse=True) or any(size >= full for size in sizes)
        ):
            raise ValueError(f"must be in descending order and below dimensions, which is {full}")
        return sizes

    @field_validator("min_dimensions")
    @classmethod
    def _check_min_dimensions(cls, least: int | None, info: ValidationInfo) -> int | None:
        full = info.data.get("dimensions")
        if least is not None and full is not None:
            fault = min_dimensions_fault(least, full, info.data.get("matryoshka", ()))
            if fault:
                raise ValueError(fault)
        return least

    @model_validator(mode="after")
    def _check_dimensions(self) -> Self:
        if (self.task == "embed") != (self.dimensions is not None):
            raise ContradictionError(
                "dimensions must be set for an embedding model, and unset for a reranker", "task", "dimensions"
            )
        if self.dimensions is None and (self.matryoshka or self.min_dimensions):
            raise ContradictionError(
                "matryoshka and min_dimensions must be unset for a reranker, which has no vectors",
                "task",
                "matryoshka",
                "min_dimensions",
            )
        return self
