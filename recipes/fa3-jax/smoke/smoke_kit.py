"""What the smoke tests share: the wheel under test, inputs, the float64 reference, and how errors are measured.

Needs JAX and numpy alone. The wheel is unpacked, never installed, so that the node stays as it was and nothing else of
the same name can be imported in its place.
"""

from __future__ import annotations

import platform
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import jax
import jax.numpy as jnp
import numpy as np
from smoke_common.machine import driver_version
from smoke_common.wheel import Fa3UnderTest, import_from, read_build, unpack

if TYPE_CHECKING:
    from collections.abc import Sequence
    from pathlib import Path
    from types import ModuleType

    import pytest

FP8 = "float8_e4m3fn"
# Bounds on |out - reference| / |reference|, as in the torch front's kit, which says why.
TOLERANCE = {"bfloat16": 3e-3, "float16": 5e-4, FP8: 5e-2}
LSE_TOLERANCE = {"bfloat16": 1e-3, "float16": 1e-3, FP8: 2e-2}
# The same for gradients: P and dP are rounded to the inputs' type before they are multiplied.
GRADIENT_TOLERANCE = {"bfloat16": 1e-2, "float16": 2e-3}

Arrays = tuple[jax.Array, ...]
Exact = np.ndarray[Any, np.dtype[np.float64]]


@dataclass(frozen=True)
class Subject(Fa3UnderTest):
    """The wheel under test, and its package."""

    package: ModuleType

    @property
    def dtypes(self) -> tuple[str, ...]:
        """Dtypes of query, key and value."""
        return self.served("bfloat16", {"FP16": "float16", "FP8": FP8})

    def spread(self) -> dict[str, list[Any]]:
        """What tests are spread over, by the names of their arguments; `trained` are dtypes that have gradients."""
        return {**self.parameters(self.dtypes), "trained": [dtype for dtype in self.dtypes if dtype != FP8]}

    def attend(self, inputs: Inputs, **named: Any) -> Arrays:
        """Output and LSE of the wheel's forward pass."""
        descales = dict(zip(("query_descale", "key_descale", "value_descale"), inputs.descales, strict=False))
        found: Arrays = self.package.flash_attention_hopper_fwd(
            inputs.q, inputs.k, inputs.v, **descales, **named, return_lse=True
        )
        return found


def load_subject(wheel: Path, folder: Path) -> Subject:
    """Unpack the wheel into a folder and import it from there."""
    unpacked = unpack(wheel, folder)
    return Subject(
        wheel=unpacked,
        package=import_from(unpacked, "fa3_jax"),
        build=read_build(import_from(unpacked, "fa3_jax._build")),
    )


def missing_gpu(_: Subject) -> str | None:
    """Why the kernels cannot run here; None where they can."""
    try:
        device = jax.devices()[0]
    except RuntimeError as error:  # where JAX_PLATFORMS asks for a GPU
        return f"JAX {jax.__version__} found no device: {error}"
    if device.platform != "gpu":
        return f"JAX {jax.__version__} found no GPU, only {device.platform}"
    capability = str(getattr(device, "compute_capability", "unknown"))
    if capability != "9.0":
        return f"the kernels need a GPU of compute capability 9.0 (H100, H200), and this one has {capability}"
    return None


def has_devices_for(item: pytest.Item) -> bool:
    """Whether JAX has as many GPUs as a test wants."""
    return all(jax.device_count() >= marker.args[0] for marker in item.iter_markers("devices"))


def machine_facts(_: Subject) -> dict[str, str]:
    """The machine as gpu.json names it."""
    return {
        "gpu": jax.devices()[0].device_kind,
        "driver": driver_version(),
        "jax": jax.__version__,
        "python": platform.python_version(),
    }


@dataclass(frozen=True)
class Inputs:
    """Query, key and value of the functions under test; descales, (batch, heads_k) each, where they are float8."""

    q: jax.Array
    k: jax.Array
    v: jax.Array
    descales: Arrays = ()

    @property
    def arrays(self) -> Arrays:
        """Query, key and value."""
        return self.q, self.k, self.v

    @property
    def exact(self) -> tuple[Exact, ...]:
        """Query, key and value in float64, descaled: the reference's input."""
        found = [to_exact(array) for array in self.arrays]
        for index, descale in enumerate(map(to_exact, self.descales)):
            group = found[index].shape[2] // descale.shape[1]
            found[index] *= np.repeat(descale, group, axis=1)[:, None, :, None]
        return tuple(found)


def to_exact(array: jax.Array) -> Exact:
    """An array of JAX's in float64 on the host."""
    return np.asarray(array).astype(np.float64)


def make_inputs(
    *,
    batch: int = 2,
    seqlen_q: int = 200,
    seqlen_k: int = 200,
    heads: int = 4,
    heads_k: int = 4,
    head_dim: int,
    head_dim_v: int | None = None,
    dtype: str = "bfloat16",
    seed: int = 0,
) -> Inputs:
    """Normally distributed inputs, the same for the same arguments; float8 comes with a descale of its own per head."""
    random = np.random.default_rng(seed)

    def normal(*shape: int) -> jax.Array:
        return jnp.asarray(random.standard_normal(shape, dtype=np.float32)).astype(dtype)

    q = normal(batch, seqlen_q, heads, head_dim)
    k = normal(batch, seqlen_k, heads_k, head_dim)
    v = normal(batch, seqlen_k, heads_k, head_dim_v or head_dim)
    count = 3 if dtype == FP8 else 0
    descales = (jnp.asarray(random.random((batch, heads_k), dtype=np.float32)) + np.float32(0.5) for _ in range(count))
    return Inputs(q, k, v, tuple(descales))


def allowed_keys(seqlen_q: int, seqlen_k: int, *, causal: bool, window: tuple[int, int]) -> np.ndarray[Any, Any]:
    """Which keys each query sees, (seqlen_q, seqlen_k); the last query is aligned with the last key."""
    place = np.arange(seqlen_q)[:, None] + seqlen_k - seqlen_q
    key = np.arange(seqlen_k)[None, :]
    left, right = window
    if causal:
        right = 0 if right < 0 else min(right, 0)
    allowed = np.ones((seqlen_q, seqlen_k), dtype=bool)
    if left >= 0:
        allowed &= key >= place - left
    if right >= 0:
        allowed &= key <= place + right
    return allowed


@dataclass(frozen=True)
class Attention:
    """Attention in float64: heads before rows, and every key head repeated for its group of query heads.

    `slope` is the derivative of softcap at each score, 1 without it.
    """

    q: Exact
    k: Exact
    v: Exact
    probabilities: Exact
    lse: Exact
    slope: Exact
    scale: float
    group: int

    @property
    def out(self) -> Exact:
        """The output, (batch, seqlen_q, heads, head_dim_v)."""
        return (self.probabilities @ self.v).swapaxes(1, 2)

    def gradients(self, dout: Exact) -> tuple[Exact, Exact, Exact]:
        """Gradients of query, key and value for one of the output."""
        dout = dout.swapaxes(1, 2)
        weighted = self.probabilities * (dout @ self.v.swapaxes(2, 3))
        scores = (weighted - self.probabilities * weighted.sum(axis=-1, keepdims=True)) * self.slope * self.scale
        dk, dv = scores.swapaxes(2, 3) @ self.q, self.probabilities.swapaxes(2, 3) @ dout
        return (scores @ self.k).swapaxes(1, 2), self._of_key_heads(dk), self._of_key_heads(dv)

    def _of_key_heads(self, array: Exact) -> Exact:
        batch, heads, *rest = array.shape
        return array.reshape(batch, heads // self.group, self.group, *rest).sum(axis=2).swapaxes(1, 2)


def attention(
    q: Exact,
    k: Exact,
    v: Exact,
    *,
    causal: bool = False,
    window: tuple[int, int] = (-1, -1),
    softcap: float = 0.0,
    scale: float | None = None,
) -> Attention:
    """Attention in float64; a query that sees no key has probabilities of 0 and an LSE of -inf."""
    group = q.shape[2] // k.shape[2]
    q, k, v = (array.swapaxes(1, 2) for array in (q, np.repeat(k, group, axis=2), np.repeat(v, group, axis=2)))
    factor = q.shape[-1] ** -0.5 if scale is None else scale
    scores = q @ k.swapaxes(2, 3) * factor
    bent = np.tanh(scores / softcap) if softcap > 0 else np.zeros_like(scores)
    scores = np.where(
        allowed_keys(q.shape[2], k.shape[2], causal=causal, window=window),
        softcap * bent if softcap > 0 else scores,
        -np.inf,
    )
    highest = scores.max(axis=-1, keepdims=True, initial=-1e30)  # finite where all are -inf
    weights = np.exp(scores - highest)
    total = weights.sum(axis=-1, keepdims=True)
    with np.errstate(divide="ignore"):
        lse = (highest + np.log(total))[..., 0]
    return Attention(q, k, v, weights / np.where(total > 0, total, 1), lse, 1 - bent**2, factor, group)


def reference(q: Exact, k: Exact, v: Exact, **named: Any) -> tuple[Exact, Exact]:
    """The output, (batch, seqlen_q, heads, head_dim_v), and the LSE, (batch, heads, seqlen_q), in float64."""
    found = attention(q, k, v, **named)
    return found.out, found.lse


def relative_error(found: jax.Array, expected: Exact) -> float:
    """|found - expected| / |expected|, norms over all elements; |found| where nothing is expected."""
    difference = to_exact(found) - expected
    norm = np.linalg.norm(expected)
    return float(np.linalg.norm(difference) / norm) if norm > 0 else float(np.linalg.norm(difference))


def require_close(found: Sequence[jax.Array], expected: Sequence[Exact], dtype: str) -> None:
    """Output and LSE have the shapes and dtypes promised, and are within the bounds of the dtype."""
    assert str(found[0].dtype) == ("bfloat16" if dtype == FP8 else dtype)
    assert str(found[1].dtype) == "float32"
    assert [array.shape for array in found] == [array.shape for array in expected]
    error = relative_error(found[0], expected[0])
    assert error <= TOLERANCE[dtype], f"output is off by {error:.2e}"
    lse, exact = to_exact(found[1]), expected[1]
    blind = ~np.isfinite(exact)
    assert not np.isfinite(lse[blind]).any(), "a query that sees no key has a finite LSE"
    largest = float(np.abs(lse[~blind] - exact[~blind]).max(initial=0.0))
    assert largest <= LSE_TOLERANCE[dtype], f"LSE is off by {largest:.2e}"


def require_close_gradients(found: Sequence[jax.Array], expected: Sequence[Exact], dtype: str) -> None:
    """The gradients of query, key and value are within the bound of the dtype."""
    for name, got, exact in zip(("query", "key", "value"), found, expected, strict=True):
        error = relative_error(got, exact)
        assert error <= GRADIENT_TOLERANCE[dtype], f"the gradient of {name} is off by {error:.2e}"


def require_equal_bits(found: jax.Array, expected: jax.Array) -> None:
    """Two arrays hold the same bits."""
    assert found.shape == expected.shape
    assert found.dtype == expected.dtype
    assert np.asarray(found).tobytes() == np.asarray(expected).tobytes(), "bits differ"
