"""Two GPUs give the result of one: shard_map, and jit over arrays sharded by batch and by heads."""

from __future__ import annotations

from functools import partial
from typing import TYPE_CHECKING

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax.sharding import Mesh, NamedSharding, PartitionSpec
from smoke_kit import Arrays, Subject, make_inputs, require_equal_bits

if TYPE_CHECKING:
    from collections.abc import Callable

pytestmark = pytest.mark.devices(2)

SPLITS = {"batch": PartitionSpec("x"), "heads": PartitionSpec(None, None, "x")}
COLLECTIVES = ("all-gather", "all-reduce", "all-to-all", "collective-permute")


def program(subject: Subject) -> Callable[..., Arrays]:
    """The output, and gradients where the profile has them, of the same bits in every run."""
    attend = partial(subject.package.flash_attention, causal=True, deterministic=True)
    if not subject.has("BACKWARD"):
        return lambda q, k, v: (attend(q, k, v),)

    def both(q: jax.Array, k: jax.Array, v: jax.Array) -> Arrays:
        out, derive = jax.vjp(attend, q, k, v)
        return (out, *derive(jnp.ones_like(out)))

    return both


def split_inputs(subject: Subject, spec: PartitionSpec) -> tuple[Arrays, Arrays, Mesh]:
    """Inputs on one GPU, the same over two, and the mesh of the two."""
    mesh = Mesh(np.array(jax.devices()[:2]), ("x",))
    arrays = make_inputs(
        batch=4, heads=8, heads_k=4, seqlen_q=333, seqlen_k=333, head_dim=min(subject.head_dim, 192)
    ).arrays
    sharding = NamedSharding(mesh, spec)
    return arrays, tuple(jax.device_put(array, sharding) for array in arrays), mesh


@pytest.mark.parametrize("split", SPLITS)
def test_jit(subject: Subject, split: str) -> None:
    """XLA splits the call itself, and moves nothing between the GPUs."""
    alone, parted, _ = split_inputs(subject, SPLITS[split])
    call = jax.jit(program(subject))
    compiled = call.lower(*parted).compile()
    assert not [name for name in COLLECTIVES if name in compiled.as_text()]
    for found, expected in zip(compiled(*parted), call(*alone), strict=True):
        require_equal_bits(found, expected)


@pytest.mark.parametrize("split", SPLITS)
def test_shard_map(subject: Subject, split: str) -> None:
    alone, parted, mesh = split_inputs(subject, SPLITS[split])
    call = program(subject)
    spec = SPLITS[split]
    results = (spec,) * (4 if subject.has("BACKWARD") else 1)
    mapped = jax.jit(jax.shard_map(call, mesh=mesh, in_specs=(spec,) * 3, out_specs=results))
    for found, expected in zip(mapped(*parted), jax.jit(call)(*alone), strict=True):
        require_equal_bits(found, expected)
