"""The keyword options that several public methods share."""

from __future__ import annotations

from typing import TYPE_CHECKING, TypedDict

if TYPE_CHECKING:
    from collections.abc import Sequence

    from embedway.money import Amount
    from embedway.selection.criteria import ModelSelectionCriteria
    from embedway.types import Overflow


class EmbedOptions(TypedDict, total=False):
    """Options of `embed_query` and `embed_documents`: those of `embed`, without `input_type`."""

    model: str | None
    dimensions: int | None
    on_overflow: Overflow | None
    partial: bool
    priority: int
    deadline_s: float | None
    criteria: ModelSelectionCriteria | str | None
    collection: str
    max_cost: Amount | None
    api_key_name: str
    backup: Sequence[str] | None
    normalize: bool | None
