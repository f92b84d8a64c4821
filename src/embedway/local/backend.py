"""The contract of a backend, and the backends."""

from __future__ import annotations

import importlib.util
from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal, Protocol, TypeAlias

from embedway._public import public
from embedway.errors import RuntimeUnavailableError
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
    """Use of the CPU by a session: `streams` batches at once, `threads` in all."""

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
        """The options it was loaded with."""

    def run(self, ids: Int32s, mask: Int32s, types: Int32s | None = None) -> Vectors:
        """Compute one batch, (b, s) each, blocking; float32 (b, d), the caller's own.

        Safe to call from `options.streams` threads at once.
        """

    def close(self) -> None:
        """Free the memory."""


def available(backend: BackendName) -> bool:
    """Tell whether the library of a backend is installed."""
    return importlib.util.find_spec(backend) is not None


def open_session(recipe: Recipe, options: SessionOptions) -> Session:
    """Load a model. Raises RuntimeUnavailableError where the backend or its precision is not available."""
    if not available(options.backend):
        raise RuntimeUnavailableError(
            f"the backend {options.backend} is not installed here; use local.backend = 'onnxruntime'"
        )
    if options.backend == "openvino":
        if options.precision == "bf16" and not cpu.facts().bf16:
            raise RuntimeUnavailableError("this CPU computes no bfloat16 (AMX or AVX512-BF16); use precision f32")
        from embedway.local.openvino_backend import OpenVinoSession  # noqa: PLC0415  only where it is asked for

        return OpenVinoSession(recipe, options)
    if options.precision != "f32":
        raise RuntimeUnavailableError(f"onnxruntime runs f32 here, not {options.precision}; use precision f32")
    from embedway.local.onnx_backend import OnnxSession  # noqa: PLC0415

    return OnnxSession(recipe, options)
