"""Choice of session options for a model on this CPU: tuned, or by a rule."""

from __future__ import annotations

import json
import logging
from dataclasses import asdict, dataclass
from typing import TYPE_CHECKING, Any

from embedway.files import write_private_whole
from embedway.forks import is_unusable
from embedway.local import cpu
from embedway.local.backend import BACKENDS, BackendName, Precision, SessionOptions, available

if TYPE_CHECKING:
    from pathlib import Path

    from embedway.config import Config

_log = logging.getLogger(__name__)

#: Default padded tokens of a batch. Large enough to fill two cores' caches; small enough that a batch of the widest
#: common models stays within 100 MB (benchmarks/RESULTS.md).
DEFAULT_TOKEN_BUDGET = 2048
#: Larger models have one session for all work: a second session would store the packed weights twice. In bytes.
_ONE_SESSION_BYTES = 400_000_000
_FORMAT = 1


@dataclass(frozen=True, slots=True)
class RuntimeChoice:
    """Session options for bulk work and for single queries, and the token budget of a batch, padding included."""

    bulk: SessionOptions
    single: SessionOptions
    token_budget: int


def choose_runtime(config: Config, *, weights_sha256: str, weights_bytes: int) -> RuntimeChoice:
    """Choose a model's session options: from settings, else as tuned for this CPU and these weights, else by a rule.

    The rule: ONNX Runtime in a process whose parent used OpenVINO before the fork. Else OpenVINO in bfloat16 if the CPU
    multiplies it in hardware, OpenVINO in float32 if the CPU only has AVX-512, else ONNX Runtime. Bulk work uses one
    stream per thread, up to four; queries use one stream over all threads.
    """
    local = config.local
    threads = local.threads or cpu.facts().cores
    free = local.backend == "auto" and local.precision == "auto" and local.streams is None
    tuned = read_choice(config.tune.directory, weights_sha256) if free and local.threads is None else None
    if tuned is not None:
        return RuntimeChoice(tuned.bulk, tuned.single, local.token_budget or tuned.token_budget)
    if local.backend == "auto" and is_unusable("openvino"):
        _log.info("a parent process used OpenVINO before the fork, so ONNX Runtime is used here, which may be slower")
    worth = available("openvino") and _prefers_openvino(local.precision)
    suited: BackendName = "openvino" if worth else "onnxruntime"
    backend = suited if local.backend == "auto" else local.backend
    fastest: Precision = "bf16" if backend == "openvino" and cpu.facts().bf16 else "f32"
    precision = fastest if local.precision == "auto" else local.precision
    large = weights_bytes > _ONE_SESSION_BYTES
    streams = min(threads, local.streams or (1 if large else min(threads, 4)))
    bulk = SessionOptions(backend, precision, streams, threads)
    single = bulk if large or local.streams is not None else SessionOptions(backend, precision, 1, threads)
    return RuntimeChoice(bulk, single, local.token_budget or DEFAULT_TOKEN_BUDGET)


def _prefers_openvino(precision: str) -> bool:
    return precision == "bf16" or (precision == "auto" and cpu.facts().bf16) or "avx512f" in cpu.facts().flags


def choice_path(directory: Path, weights_sha256: str) -> Path:
    """Return the path of a model's tuned choice on this CPU."""
    return directory / cpu.facts().key / f"{weights_sha256[:16]}.json"


def read_choice(directory: Path, weights_sha256: str) -> RuntimeChoice | None:
    """Read the tuned choice; None if it is missing, unreadable or in another format."""
    try:
        stored = json.loads(choice_path(directory, weights_sha256).read_text(encoding="utf-8"))
        if stored["format"] != _FORMAT or stored["weights"] != weights_sha256:
            return None
        bulk, single = (SessionOptions(**stored[key]) for key in ("bulk", "single"))
        choice = RuntimeChoice(bulk, single, stored["token_budget"])
    except (OSError, ValueError, KeyError, TypeError, RecursionError):
        return None
    return choice if _is_usable(choice) else None


def _is_usable(choice: RuntimeChoice) -> bool:
    """Return whether a stored choice works here: the file may be edited, or a backend removed."""
    numbers = [choice.token_budget]
    for options in (choice.bulk, choice.single):
        numbers += [options.streams, options.threads]
        if options.backend not in BACKENDS or options.precision not in {"f32", "bf16"}:
            return False
        if not available(options.backend) or (options.precision == "bf16" and not cpu.facts().bf16):
            return False
    return all(type(number) is int and number > 0 for number in numbers)


def write_choice(
    directory: Path, weights_sha256: str, choice: RuntimeChoice, *, model: str, measured: dict[str, Any]
) -> Path:
    """Write a choice atomically and return its path."""
    path = choice_path(directory, weights_sha256)
    path.parent.mkdir(parents=True, exist_ok=True)
    stored = {
        "format": _FORMAT,
        "model": model,
        "cpu": cpu.facts().name,
        "weights": weights_sha256,
        "bulk": asdict(choice.bulk),
        "single": asdict(choice.single),
        "token_budget": choice.token_budget,
        "measured": measured,
    }
    write_private_whole(path, json.dumps(stored, indent=2).encode())
    return path
