"""A torch whose GPU is a clock that we set: every call has the time, the memory and the error that it is given."""

import contextlib
from collections.abc import Callable
from dataclasses import dataclass, field
from types import SimpleNamespace
from typing import Any

from hopperforge.node.gpu.backends import Backend

FLOOD_MS, FORWARD_MS, MATMUL_MS = 1000.0, 500.0, 2.0


class OutOfMemoryError(RuntimeError):
    """As torch raises it."""


class Tensor:
    """Gives itself for whatever is done with it; as a number it is its error."""

    shape = (1, 256, 16, 128)
    device = "cuda"

    def __init__(
        self, error: float = 0.0, backward_ms: float = 0.0, on_zero: Callable[[], None] = lambda: None
    ) -> None:
        self.error = error
        self.backward_ms = backward_ms
        self.on_zero = on_zero

    def zero_(self) -> None:
        """Write the whole of it."""
        self.on_zero()

    def _self(self, *_: object, **__: object) -> "Tensor":
        return self

    to = double = transpose = requires_grad_ = detach = norm = masked_fill = triu = _self
    __matmul__ = __mul__ = __sub__ = __truediv__ = _self

    def __float__(self) -> float:
        return self.error


@dataclass
class Gpu:
    """What torch is, as far as bench and memory ask it; `now` is the GPU's clock in ms, `turns` who was timed."""

    now: float = 0.0
    peak: int = 0
    turns: list[str] = field(default_factory=list)
    float16: str = "float16"
    bfloat16: str = "bfloat16"
    float32: str = "float32"
    float64: str = "float64"
    uint8: str = "uint8"
    bool: str = "bool"
    no_grad: Any = contextlib.nullcontext

    @property
    def cuda(self) -> Any:
        """The part of torch that is the GPU's."""
        gpu = self

        class Event:
            def __init__(self, *, enable_timing: bool) -> None:
                self.at = 0.0 if enable_timing else float("nan")

            def record(self) -> None:
                self.at = gpu.now

            def synchronize(self) -> None:
                gpu.now += 0

            def elapsed_time(self, other: "Event") -> float:
                return other.at - self.at

        return SimpleNamespace(
            Event=Event,
            OutOfMemoryError=OutOfMemoryError,
            _sleep=self._sleep,
            synchronize=lambda: None,
            empty_cache=lambda: None,
            get_device_properties=lambda _: SimpleNamespace(L2_cache_size=50 << 20),
            memory_allocated=lambda: 7,
            reset_peak_memory_stats=self._forget,
            max_memory_allocated=lambda: 7 + self.peak,
        )

    def _sleep(self, cycles: int) -> None:
        self.now += cycles / 1e6

    def _forget(self) -> None:
        self.peak = 0

    def Generator(self, device: str) -> Any:  # noqa: N802 - torch's name
        """Draw nothing."""
        return SimpleNamespace(manual_seed=lambda _: device)

    def randn(self, *_: object, **__: object) -> Tensor:
        """Make inputs."""
        return Tensor()

    ones = randn_like = softmax = randn

    def empty(self, size: int, **_: object) -> Tensor:
        """Make what floods the L2 cache."""
        assert size == 100 << 20
        return Tensor(on_zero=lambda: self.spend(FLOOD_MS))

    def matmul(self, *_: object) -> Tensor:
        """Multiply."""
        self.spend(MATMUL_MS)
        return Tensor()

    @property
    def autograd(self) -> Any:
        """Gradients."""

        def grad(out: Tensor, inputs: tuple[Tensor, ...], _: object) -> list[Tensor]:
            self.spend(out.backward_ms)
            return [Tensor(out.error) for _ in inputs]

        return SimpleNamespace(grad=grad)

    def spend(self, ms: float) -> None:
        """Let time go by."""
        self.now += ms

    def backend(
        self,
        name: str,
        ms: float,
        *,
        error: float = 1e-3,
        backward_ms: float = 0.0,
        fails: Exception | None = None,
        after: int = 0,
        size: Callable[[int], int] = lambda _: 0,
    ) -> Backend:
        """Make an implementation; it `fails` from the call on that follows `after` others."""
        calls = [0]

        def call(q: Tensor, _: Tensor, __: Tensor, ___: bool) -> Tensor:
            calls[0] += 1
            if fails is not None and calls[0] > after:
                raise fails
            self.turns.append(name)
            self.peak = max(self.peak, size(q.shape[1]))
            self.spend(ms)
            return Tensor(error, backward_ms)

        return Backend(name, "1.0", ("bf16",), backward=backward_ms > 0, call=call)
