"""Protocol of a backend session, and the available backends."""

from __future__ import annotations

import importlib.util
from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal, Protocol, TypeAlias

from embedway._public import public
from embedway.errors import RuntimeUnavailableError
from embedway.forks import is_unusable
from embedway.local import cpu

if TYPE_CHECKING:
    import numpy as np
    import numpy.typing as npt

    from embedway.local.recipe import Recipe
    from embedway.types import Vectors

    Int32s: TypeAlias = npt.NDArray[np.int32]

BackendName: TypeAlias = Literal["openvino", "onnxruntime"]
Precision: TypeAlias = Literal["f32", "bf16"]
BACKENDS: tuple[BackendName, ...] = ("openvino", "onnxruntime")


@public
@dataclass(frozen=True, slots=True)
class SessionOptions:
    """CPU use of a session: `streams` concurrent batches, `threads` in total."""

    backend: BackendName
    precision: Precision
    streams: int
    threads: int

    def __str__(self) -> str:
        each = max(1, self.threads // self.streams)
        streams = f"{self.streams} stream{'s' if self.streams > 1 else ''}"
        return f"{self.backend} {self.precision}, {streams} x {each} thread{'s' if each > 1 else ''}"


class Session(Protocol):
    """A loaded model."""

    @property
    def options(self) -> SessionOptions:
        """Options that the model was loaded with."""

    def run(self, ids: Int32s, mask: Int32s, types: Int32s | None = None) -> Vectors:
        """Compute one batch of (b, s) arrays and return float32 (b, d). Blocking.

        The caller owns the result. Thread-safe for `options.streams` concurrent calls.
        """

    def close(self) -> None:
        """Free the memory."""


def available(backend: BackendName) -> bool:
    """Return whether the library of a backend is installed and usable in this process."""
    return importlib.util.find_spec(backend) is not None and not is_unusable(backend)


def open_session(recipe: Recipe, options: SessionOptions) -> Session:
    """Load a model. Raises RuntimeUnavailableError if the backend or its precision is not available."""
    if is_unusable("openvino") and (options.backend == "openvino" or options.precision == "bf16"):
        raise RuntimeUnavailableError(
            "OpenVINO cannot be used in this process, because its parent used OpenVINO before the fork: load "
            "models only in the child, start processes with the method spawn, or set local.backend and "
            "local.precision to 'auto'"
        )
    if not available(options.backend):
        raise RuntimeUnavailableError(
            f"the backend {options.backend} is not installed: set local.backend = 'onnxruntime'"
        )
    if options.backend == "openvino":
        if options.precision == "bf16" and not cpu.facts().bf16:
            raise RuntimeUnavailableError("this CPU does not support bfloat16 (AMX or AVX512-BF16): use precision f32")
        from embedway.local.openvino_backend import OpenVinoSession  # noqa: PLC0415  imported only when used

        return OpenVinoSession(recipe, options)
    if options.precision != "f32":
        raise RuntimeUnavailableError(f"onnxruntime supports only f32 here, not {options.precision}: use precision f32")
    from embedway.local.onnx_backend import OnnxSession  # noqa: PLC0415

    return OnnxSession(recipe, options)
