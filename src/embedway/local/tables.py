"""Check that every token id and position has a row in the model's embedding tables.

ONNX Runtime rejects an index outside a table. OpenVINO reads another row and reports no error.
"""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any

from embedway.errors import WeightsError
from embedway.local.graph import encoder_prefix
from embedway.local.tensors import Tensors

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

    from embedway.local.recipe import Recipe
    from embedway.local.tokenize import TextTokenizer

#: Table of each model input, by the input's name.
_TABLES = {"input_ids": "word", "token_type_ids": "token type"}


def check_tables(recipe: Recipe, tokenizer: TextTokenizer, onnx_rows: Mapping[str, int]) -> None:
    """Raise WeightsError if a token id, a token type or a position has no row. Blocking.

    `onnx_rows` is the number of rows of an ONNX file's tables, by the input that indexes them. Tables that were not
    found there and the positions of that file are not checked.
    """
    rows = dict(onnx_rows) if recipe.onnx is not None else _own_rows(recipe)
    words, types = largest_indexes(tokenizer)
    if not recipe.token_types:
        types = 0
    for name, most in (("input_ids", words), ("token_type_ids", types)):
        if name in rows and most >= rows[name]:
            raise WeightsError(
                f"{recipe.tokenizer} produces indexes of the {_TABLES[name]} table up to {most}, but that table "
                f"has {rows[name]} rows in the weights: the files belong to different models"
            )
    pad = recipe.pad_token_id
    # Backends accept int32 indexes.
    if not 0 <= pad < rows.get("input_ids", 2**31):
        raise WeightsError(
            f"{recipe.folder / 'config.json'}: pad_token_id is {pad}, not a row of the word table in the weights"
        )
    needed = recipe.max_tokens + recipe.first_position
    if needed > rows.get("positions", needed):
        raise WeightsError(
            f"{recipe.folder / 'config.json'}: {recipe.max_tokens} tokens need {needed} positions, but the "
            f"position table has {rows['positions']} rows in the weights"
        )


def _own_rows(recipe: Recipe) -> dict[str, int]:
    tensors = Tensors(recipe.weights)
    prefix = encoder_prefix(tensors) + "embeddings."
    names = {"input_ids": "word", "positions": "position", "token_type_ids": "token_type"}
    rows = {}
    for input_name, table in names.items():
        name = f"{prefix}{table}_embeddings.weight"
        if table == "token_type" and name not in tensors:
            continue
        shape = tensors.shape(name)
        if len(shape) != 2:
            raise WeightsError(f"{recipe.folder}: the tensor {name} has {len(shape)} axes; a table must have 2")
        if shape[1] != recipe.graph.hidden:
            raise WeightsError(
                f"{recipe.folder / 'config.json'}: the hidden size is {recipe.graph.hidden}, but the tensor "
                f"{name} is {shape[1]} wide"
            )
        rows[input_name] = shape[0]
    return rows


def largest_indexes(tokenizer: TextTokenizer) -> tuple[int, int]:
    """Return the largest token id and the largest token type that the tokenizer can return. Takes some 10 ms."""
    ids = set(tokenizer.plain.get_vocab(with_added_tokens=True).values())
    # Without a post-processor, the second text of a pair has type 1.
    types = {1}
    processor = tokenizer.plain.post_processor
    if processor is not None:
        for key, number in _iterate_ids(json.loads(processor.__getstate__())):
            (types if key == "type_id" else ids).add(number)
    return max(ids, default=0), max(types)


def _iterate_ids(state: Any) -> Iterator[tuple[str, int]]:
    """Iterate over special token ids and token types in a tokenizer.json post-processor, each with its key.

    Templates store special tokens as lists `ids`. The processors of BERT and RoBERTa store them as pairs of a token and
    its id, `sep` and `cls`.
    """
    if isinstance(state, list):
        for value in state:
            yield from _iterate_ids(value)
    elif isinstance(state, dict):
        for key, value in state.items():
            found = value if isinstance(value, list) else [value]
            if key in {"ids", "sep", "cls", "type_id"}:
                yield from ((key, number) for number in found if type(number) is int)
            else:
                yield from _iterate_ids(value)
