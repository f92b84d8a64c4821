"""The error tree: as documented, each error with an exit code, each message with cause, location and remedy."""

import ast
import concurrent.futures
import copy
import inspect
import multiprocessing
import pickle
import re
from pathlib import Path

import pytest

from embedway import errors
from failing_worker import fail

CLASSES = {
    name: value
    for name, value in vars(errors).items()
    if inspect.isclass(value) and issubclass(value, errors.EmbedwayError)
}

SPLIT_OR_TRUNCATE = "Split it, or truncate it with on_overflow='truncate', for a selected model also require_fit=False"


def drawn_tree():
    """Return (name, parent) of each line of the tree in the module's docstring."""
    parents, pairs = {}, []
    for line in errors.__doc__.splitlines():
        found = re.match(r"    ([│ ├└─]*)(\w+Error)\b", line)
        if found:
            depth = len(found[1]) // 4
            parents[depth] = found[2]
            pairs.append((found[2], parents.get(depth - 1, "Exception")))
    return pairs


def test_the_tree_is_as_drawn():
    actual = {(name, value.__bases__[0].__name__) for name, value in CLASSES.items()}
    assert actual == set(drawn_tree())
    assert len(drawn_tree()) == len(CLASSES)


def test_every_error_is_described_and_has_an_exit_code():
    for value in CLASSES.values():
        assert value.__doc__
        assert value.exit_code in {1, 2, 3, 4}


@pytest.mark.parametrize("name", ["ConfigError", "UsageError", "DimensionsError"])
def test_wrong_usage_exits_2(name):
    assert CLASSES[name].exit_code == 2


@pytest.mark.parametrize(
    ("error", "text"),
    [
        (
            errors.ConfigError("is wrong", where="a.toml", key="local.threads"),
            "a.toml: local.threads: is wrong",
        ),
        (errors.ConfigError("is wrong", where="a.toml"), "a.toml: is wrong"),
        (errors.ConfigError("is wrong"), "is wrong"),
        (
            errors.MissingExtraError("a LanceDB table", extra="lancedb", package="lancedb"),
            "a LanceDB table needs lancedb, which is not installed: pip install 'embedway[lancedb]'",
        ),
        (errors.InputError("is empty", row=3), "text 3: is empty"),
        (errors.InputError("is empty"), "is empty"),
        (
            errors.TextTooLongError(row=1, max_tokens=256, tokens=300),
            "text 1: has 300 tokens; the model accepts 256. " + SPLIT_OR_TRUNCATE,
        ),
        (
            errors.TextTooLongError(row=1, max_tokens=256, tokens=None),
            "text 1: has far more tokens; the model accepts 256. " + SPLIT_OR_TRUNCATE,
        ),
        (
            errors.SourceError("is missing", path=Path("d/a.jsonl"), line=7, field="text"),
            f"{Path('d/a.jsonl')}:7: field 'text': is missing",
        ),
        (errors.SourceError("is not there", path="a.jsonl"), "a.jsonl: is not there"),
        (
            errors.SinkError("is there; pass --overwrite", destination="a.parquet"),
            "a.parquet: is there; pass --overwrite",
        ),
        (errors.BatchError("out of memory", route="local"), "local: out of memory"),
        (errors.BadVectorsError("NaN", route="local", rows=[2, 5]), "local: NaN (rows 2, 5)"),
        (errors.BadVectorsError("wrong count", route="local"), "local: wrong count"),
        (
            errors.WeightsCorruptError("w/model", expected="aa", found="bb", advice="Pull it again."),
            "w/model: sha256 is bb, expected aa. Pull it again.",
        ),
    ],
    ids=lambda value: type(value).__name__ if isinstance(value, Exception) else "",
)
def test_sentences(error, text):
    assert str(error) == text


def test_unknown_model_names_the_nearest_and_what_else_works():
    error = errors.UnknownModelError("minilm", nearest=["all-MiniLM-L6-v2"])
    assert error.nearest == ("all-MiniLM-L6-v2",)
    for part in ("'minilm'", "all-MiniLM-L6-v2", "embedway models list", "hf:OWNER/NAME"):
        assert part in str(error)
    assert "nearest" not in str(errors.UnknownModelError("zzz", nearest=[]))


def test_weights_unavailable_lists_every_place_with_its_reason():
    error = errors.WeightsUnavailableError("m", tried=[("hub", "offline"), ("wheel", "no pip")], advice="Go online.")
    assert str(error).splitlines() == [
        "the files of m are not available. Tried:",
        "  - hub: offline",
        "  - wheel: no pip",
        "Go online.",
    ]
    assert "no source is known" in str(errors.WeightsUnavailableError("m", tried=[]))


def test_dimensions_and_spaces_name_both_sides():
    error = errors.DimensionsError("m", asked=100, sizes=[384, 256])
    assert "384, 256" in str(error)
    assert "100" in str(error)
    mismatch = errors.SpaceMismatchError(collection="a.parquet", collection_space="m@1/384", asked_space="n@2/384")
    for part in ("a.parquet", "m@1/384", "n@2/384"):
        assert part in str(mismatch)


def test_a_newer_version_is_reported_in_one_form():
    assert errors.newer_version(3, 2) == (
        "has version 3, and this embedway supports versions up to 2: use the newer embedway that wrote it"
    )
    told = errors.newer_version("3", 2, of="spaces", otherwise="go away")
    assert told == (
        "has version 3 of spaces, and this embedway supports versions up to 2: use the newer embedway that wrote it, "
        "or go away"
    )
    package = Path(errors.__file__).parent
    worded = [path.name for path in package.rglob("*.py") if "supports versions up to" in path.read_text("utf-8")]
    assert worded == ["errors.py"]


# ------------------------------------------------------- errors that are also Python's own


def test_wrong_arguments_and_deadlines_are_pythons_errors_too():
    assert issubclass(errors.UsageError, ValueError)
    assert issubclass(errors.DeadlineError, TimeoutError)
    late = errors.DeadlineError("too late", attempts=3)
    assert (str(late), late.attempts, late.errno, late.filename) == ("too late", 3, None, None)


#: Timeout handlers around third-party code and events only, which never raise DeadlineError.
THIRD_PARTY_ONLY = {
    "conformance/client.py",
    "conformance/judge.py",
    "cache/redis_server.py",
    "cache/write_behind.py",
    "ledger/redis.py",
    "ledger/redis_pins.py",
    "ledger/redis_records.py",
    "providers/connections.py",
    "providers/entra.py",
    "providers/http.py",
    "providers/http_body.py",
    "server/batches/redis.py",
    "server/batches/runner.py",
    "server/bulk.py",
    "server/inference/residency.py",
    "server/inference/service.py",
    "server/readiness.py",
    "telemetry/push_gateway.py",
}


def caught_by(handler):
    kinds = handler.type.elts if isinstance(handler.type, ast.Tuple) else [handler.type]
    return {ast.unparse(kind).removeprefix("asyncio.") for kind in kinds if kind is not None}


def test_no_handler_of_timeouts_catches_a_deadline_and_loses_its_attempts():
    package = Path(errors.__file__).parent
    seen = set()
    for path in package.rglob("*.py"):
        name = path.relative_to(package).as_posix()
        for node in ast.walk(ast.parse(path.read_text("utf-8"))):
            is_suppress = isinstance(node, ast.Call) and ast.unparse(node.func).endswith("suppress")
            suppressed = {ast.unparse(one) for one in node.args} if is_suppress else set()
            if "TimeoutError" in suppressed and not {"DeadlineError", "EmbedwayError"} & suppressed:
                seen.add(name)
            if not isinstance(node, ast.Try):
                continue
            for place, handler in enumerate(node.handlers):
                if "TimeoutError" not in caught_by(handler):
                    continue
                before = [caught_by(earlier) for earlier in node.handlers[: place + 1]]
                if not any({"DeadlineError", "EmbedwayError"} & kinds for kinds in before):
                    seen.add(name)
    assert seen == THIRD_PARTY_ONLY


# ---- pickle and copies: pools and executors return errors of their workers so


#: Arguments of the errors that need more than a message.
ARGUMENTS = {
    "ConfigError": (("is wrong",), {"where": "a.toml", "key": "local.threads"}),
    "MissingExtraError": (("a table",), {"extra": "lancedb", "package": "lancedb"}),
    "InputError": (("is empty",), {"row": 3}),
    "TextTooLongError": ((), {"row": 1, "max_tokens": 2, "tokens": 3}),
    "SourceError": (("is missing",), {"path": Path("a.jsonl"), "line": 7, "field": "text"}),
    "UnknownModelError": (("minilm",), {"nearest": ["all-MiniLM-L6-v2"]}),
    "NoModelError": ((["raise max_cost"],), {"table": ["a row"]}),
    "WeightsUnavailableError": (("m",), {"tried": [("hub", "offline")], "advice": "Go online."}),
    "WeightsCorruptError": (("w",), {"expected": "a", "found": "b"}),
    "DimensionsError": (("m",), {"asked": 1, "sizes": [2, 4]}),
    "SpaceMismatchError": ((), {"collection": "c", "collection_space": "s", "asked_space": "t"}),
    "KeyLimitError": (("is reached",), {"retry_after_s": 2.5}),
    "OverloadedError": (("is full",), {"retry_after_s": 2.5}),
    "BadVectorsError": (("NaN",), {"route": "r", "rows": [2]}),
    "BatchError": (("out of memory",), {"route": "r"}),
    "NoRouteError": (("m",), {"failed": [("r", "is down")], "elsewhere": ["n"]}),
    "DeadlineError": (("late",), {"attempts": 2}),
    "BudgetExceededError": (("too much",), {"budget": "b", "needed": 2, "left": 1}),
    "StateError": (("is damaged",), {"file": Path("a.zip")}),
    "SinkError": (("is full",), {"destination": "d"}),
    "CollectionLockedError": ((), {"destination": "d"}),
}


def example(name):
    """Return an error of a class, with a note and an attribute as the code may add them."""
    cls = CLASSES[name]
    default = (("failed",), {"route": "r", "status": 500} if issubclass(cls, errors.UpstreamError) else {})
    args, options = ARGUMENTS.get(name, default)
    error = cls(*args, **options)
    error.add_note("seen in a test")
    if isinstance(error, errors.UpstreamError):
        error.rates, error.elsewhere = {"left": 1}, ("another",)
    return error


def assert_same(one, other):
    assert type(one) is type(other)
    assert one is not other
    assert str(one) == str(other)
    assert repr(one) == repr(other)
    assert one.args == other.args
    assert vars(one) == vars(other)


@pytest.mark.parametrize("protocol", range(pickle.HIGHEST_PROTOCOL + 1))
@pytest.mark.parametrize("name", CLASSES)
def test_errors_come_back_from_pickle_unchanged(name, protocol):
    error = example(name)
    assert_same(pickle.loads(pickle.dumps(error, protocol)), error)  # noqa: S301  own data


@pytest.mark.parametrize("change", [copy.copy, copy.deepcopy])
@pytest.mark.parametrize("name", CLASSES)
def test_errors_are_copied_unchanged(name, change):
    error = example(name)
    assert_same(change(error), error)


def test_pools_and_executors_return_the_errors_of_their_workers():
    context = multiprocessing.get_context("spawn")
    with concurrent.futures.ProcessPoolExecutor(1, mp_context=context) as executor:
        futures = {name: executor.submit(fail, example(name)) for name in CLASSES}
        for name, future in futures.items():
            assert_same(future.exception(120), example(name))
    with context.Pool(1) as pool:
        for name, cls in CLASSES.items():
            with pytest.raises(cls) as caught:
                pool.apply_async(fail, [example(name)]).get(120)
            assert_same(caught.value, example(name))


@pytest.mark.parametrize("min_dimensions", [None, 8])
def test_a_size_above_the_full_one_is_not_a_truncation(min_dimensions):
    error = errors.DimensionsError("m", asked=512, sizes=[384], min_dimensions=min_dimensions)
    assert str(error).endswith("dimensions, not 512: its longest vectors have 384")
