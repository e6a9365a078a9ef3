"""What the profile trimmed is refused while tracing, in words that name the profile, and so is what no profile has."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import jax
import jax.numpy as jnp
import pytest
from smoke_common.wheel import FA3_HEAD_DIMS
from smoke_kit import FP8, Subject, make_inputs, reference, require_close

if TYPE_CHECKING:
    from collections.abc import Callable

# Switches that change speed or nothing, that JAX's front does not ask for, or that a GPU here cannot show.
SILENT = frozenset({"APPENDKV", "CLUSTER", "PACKGQA", "PAGEDKV", "SM80"})


def plain(**asked: Any) -> Callable[[Subject], object]:
    """A call with a feature asked for."""
    return lambda subject: subject.attend(make_inputs(head_dim=subject.head_dim), **asked)


def of_dtype(dtype: str) -> Callable[[Subject], object]:
    return lambda subject: subject.attend(make_inputs(head_dim=subject.head_dim, dtype=dtype))


def backward(subject: Subject) -> object:
    def loss(q: jax.Array) -> jax.Array:
        return jnp.sum(subject.package.flash_attention(q, q, q).astype(jnp.float32))

    return jax.grad(loss)(make_inputs(head_dim=subject.head_dim).q)


def packed(subject: Subject) -> object:
    inputs = make_inputs(batch=1, head_dim=subject.head_dim)
    offsets = jnp.asarray((0, 200), dtype=jnp.int32)
    arrays = (array[0] for array in inputs.arrays)
    return subject.package.flash_attention_varlen(*arrays, offsets, offsets, max_seqlen_q=200, max_seqlen_k=200)


REFUSED: dict[str, Callable[[Subject], object]] = {
    "BACKWARD": backward,
    "FP16": of_dtype("float16"),
    "FP8": of_dtype(FP8),
    "LOCAL": plain(window=(16, 16)),
    "SOFTCAP": plain(softcap=15.0),
    "SPLIT": plain(num_splits=2),
    "VARLEN": packed,
}
HEAD_DIM_PAIRS = {
    **{f"HDIM{dim}": (dim, dim) for dim in FA3_HEAD_DIMS},
    "HDIMDIFF64": (64, 256),
    "HDIMDIFF192": (192, 128),
}


def test_trimmed(subject: Subject, switch: str) -> None:
    """Every switch of the profile, refused, or served by a larger kernel where that is right."""
    feature = switch.removeprefix("DISABLE_")
    if feature in REFUSED:
        with pytest.raises(subject.package.UnsupportedFeatureError, match=f"profile `{subject.build.profile}`"):
            REFUSED[feature](subject)
    elif feature in HEAD_DIM_PAIRS:
        require_refused_or_right(subject, *HEAD_DIM_PAIRS[feature])
    else:
        assert feature in SILENT or switch in ("none", "ENABLE_VCOLMAJOR")
        inputs = make_inputs(heads=4, heads_k=2, head_dim=subject.head_dim)
        require_close(subject.attend(inputs), reference(*inputs.exact), "bfloat16")


def require_refused_or_right(subject: Subject, head_dim: int, head_dim_v: int) -> None:
    """Head dims without a kernel of their own: right if they go up to a larger one, refused if there is none."""
    inputs = make_inputs(head_dim=head_dim, head_dim_v=head_dim_v)
    held = any(dim >= head_dim for dim in subject.head_dims)
    try:
        found = subject.attend(inputs)
    except subject.package.UnsupportedFeatureError as refusal:
        assert f"profile `{subject.build.profile}`" in str(refusal)  # noqa: PT017  # see below
        assert not held or head_dim != head_dim_v  # where they differ, either is right
    else:
        assert held
        require_close(found, reference(*inputs.exact), "bfloat16")


def test_head_dim_of_no_profile(subject: Subject) -> None:
    with pytest.raises(subject.package.UnsupportedFeatureError, match="head_dim is 264, and no profile has"):
        subject.attend(make_inputs(head_dim=264))


def test_cpu(subject: Subject) -> None:
    """Arrays on the CPU are refused when run, in words that say where they must be."""
    inputs = make_inputs(head_dim=subject.head_dim)
    on_cpu = [jax.device_put(array, jax.devices("cpu")[0]) for array in inputs.arrays]
    with pytest.raises(RuntimeError, match="needs a GPU of compute capability"):
        jax.block_until_ready(subject.package.flash_attention(*on_cpu))
