"""Hooks of schemathesis: they replace values that depend on the served models, or on two fields that mean the same.

No schema can express such rules. Values that break the schema stay as they are.
"""

import os

import schemathesis

#: A served model of embeddings, whose vectors have any size up to 16, and a reranker.
FAKE, RERANKER = "tests/fake", os.environ["RERANKER"]
#: Fields that mean the same: the second is left out if the first is set.
ALIASES = (
    ("top_n", "top_k"),
    ("input_type", "task"),
    ("normalize", "normalized"),
    ("on_overflow", "truncation"),
    ("on_overflow", "truncate"),
    ("truncation", "truncate"),
)


@schemathesis.hook
def before_call(context, case, kwargs):
    """Let valid names be those of served models; sizes are theirs, and deadlines can be met."""
    del context, kwargs
    body = case.body
    if not isinstance(body, dict):
        return
    model = RERANKER if "documents" in body or {"texts", "query"} <= set(body) else FAKE
    for name, value in body.items():
        body[name] = _fit(name, value, model)
    for first, second in ALIASES:
        if body.get(first) is not None and isinstance(body.get(second), (bool, str, int)):
            body[second] = None


def _fit(name, value, model):
    if name == "model" and isinstance(value, str) and 0 < len(value) <= 512 and (len(value) % 4 or "MiniLM" in value):
        return model
    if name in _NUMBERS and type(value) in {int, float}:
        least, most, fitting = _NUMBERS[name]
        return fitting if least <= value <= most else value
    if name in {"input", "inputs"} and isinstance(value, list) and _are_ids(value):
        return "a text in place of token ids, which only models with a known tokenizer read"
    return True if name == "normalize" and value is False else value


#: Valid values of fields, and one that a request with the models can meet.
_NUMBERS = {
    "dimensions": (1, 1_000_000, 8),
    "output_dimension": (1, 1_000_000, 8),
    "max_tokens_per_doc": (1, 10**9, 512),
    "deadline": (5e-324, 600, 60),
}


def _are_ids(value):
    """Return whether a list contains valid token ids, or lists of them, and nothing else."""
    if value and all(isinstance(one, list) for one in value):
        return all(_are_ids(one) for one in value)
    return bool(value) and all(type(one) in {int, float} and 0 <= one < 2**31 and one == int(one) for one in value)
