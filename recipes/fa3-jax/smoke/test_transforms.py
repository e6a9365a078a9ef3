"""What JAX does to a function: jit, vmap, scan, checkpoint, AOT, export, and CUDA graphs."""

from __future__ import annotations

import os
import subprocess
import sys
from functools import partial
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from smoke_kit import Subject, make_inputs, require_equal_bits

GRAPHS = Path(__file__).parent / "in_graphs.py"


def test_jit(subject: Subject, dtype: str) -> None:
    inputs = make_inputs(head_dim=subject.head_dim, dtype=dtype)
    jitted = jax.jit(lambda q, k, v: subject.package.flash_attention_hopper_fwd(q, k, v, causal=True))
    require_equal_bits(jitted(*inputs.arrays), subject.package.flash_attention_hopper_fwd(*inputs.arrays, causal=True))


def test_vmap(subject: Subject) -> None:
    """One call of the folded batch gives the bits of one call for each."""
    inputs = make_inputs(batch=6, head_dim=subject.head_dim)
    q, k, v = (array.reshape(3, 2, *array.shape[1:]) for array in inputs.arrays)
    call = partial(subject.package.flash_attention, causal=True)
    found = jax.jit(jax.vmap(call))(q, k, v)
    require_equal_bits(found, jnp.stack([call(q[index], k[index], v[index]) for index in range(3)]))
    shared = jax.vmap(call, in_axes=(0, None, None))(q, k[0], v[0])
    require_equal_bits(shared, jnp.stack([call(q[index], k[0], v[0]) for index in range(3)]))


def test_scan(subject: Subject) -> None:
    inputs = make_inputs(head_dim=subject.head_dim)

    def layer(carry: jax.Array, _: None) -> tuple[jax.Array, None]:
        return subject.package.flash_attention(carry, inputs.k, inputs.v, causal=True), None

    found, _ = jax.jit(lambda q: jax.lax.scan(layer, q, None, length=3))(inputs.q)
    expected = inputs.q
    for _ in range(3):
        expected, _ = layer(expected, None)
    require_equal_bits(found, expected)


@pytest.mark.needs("BACKWARD")
def test_checkpoint(subject: Subject) -> None:
    """Recomputed or kept by name, the gradients have the same bits."""
    inputs = make_inputs(head_dim=subject.head_dim)
    names = jax.checkpoint_policies.save_only_these_names(subject.package.OUT_NAME, subject.package.LSE_NAME)

    def loss(q: jax.Array, k: jax.Array, v: jax.Array) -> jax.Array:
        out = subject.package.flash_attention(q, k, v, causal=True, deterministic=True)
        return jnp.sum(out.astype(jnp.float32) ** 2)

    plain = jax.jit(jax.grad(loss, argnums=(0, 1, 2)))(*inputs.arrays)
    for policy in (None, names):
        again = jax.jit(jax.grad(jax.checkpoint(loss, policy=policy), argnums=(0, 1, 2)))(*inputs.arrays)
        for found, expected in zip(again, plain, strict=True):
            require_equal_bits(found, expected)


def test_ahead_of_time(subject: Subject) -> None:
    inputs = make_inputs(head_dim=subject.head_dim)
    call = jax.jit(lambda q, k, v: subject.package.flash_attention(q, k, v, causal=True))
    require_equal_bits(call.lower(*inputs.arrays).compile()(*inputs.arrays), call(*inputs.arrays))


def test_export(subject: Subject) -> None:
    from jax import export  # noqa: PLC0415  # JAX 0.5's needs absl-py

    inputs = make_inputs(head_dim=subject.head_dim)
    call = jax.jit(lambda q, k, v: subject.package.flash_attention(q, k, v, causal=True))
    exported = export.export(call, platforms=["cuda"], disabled_checks=subject.package.export_checks())(*inputs.arrays)
    require_equal_bits(jax.jit(exported.call)(*inputs.arrays), call(*inputs.arrays))


def test_x64(subject: Subject) -> None:
    """JAX with 64-bit numbers, which few use, computes the same bits."""
    inputs = make_inputs(head_dim=subject.head_dim)
    plain = subject.package.flash_attention(*inputs.arrays, causal=True)
    jax.config.update("jax_enable_x64", True)  # noqa: FBT003
    try:
        found = subject.package.flash_attention(*inputs.arrays, causal=True)
    finally:
        jax.config.update("jax_enable_x64", False)  # noqa: FBT003
    require_equal_bits(found, plain)


def test_cuda_graphs(subject: Subject, tmp_path: Path) -> None:
    """In a process where XLA puts every run of calls into a CUDA graph, replays give the bits of the plain calls."""
    folder = Path(subject.package.__file__).parents[1]
    base = os.environ.get("XLA_FLAGS", "")
    results = []
    for name, flags in {
        "plain": "--xla_gpu_enable_command_buffer=",
        "graphs": "--xla_gpu_graph_min_graph_size=1",
    }.items():
        dumps = tmp_path / name
        done = subprocess.run(  # noqa: S603  # this Python, our file
            [sys.executable, GRAPHS, folder, str(subject.head_dim), str(int(subject.has("BACKWARD"))), dumps],
            env={
                **os.environ,
                "XLA_FLAGS": f"{base} {flags} --xla_dump_to={dumps}",
                "XLA_PYTHON_CLIENT_MEM_FRACTION": ".2",
            },
            capture_output=True,
            text=True,
            check=False,
        )
        assert done.returncode == 0, done.stderr[-2000:]
        results.append(done.stdout.strip().splitlines()[-1].split())
    (plain, plain_graphs), (graphed, graphs) = results
    assert plain == graphed
    assert int(plain_graphs) == 0
    assert int(graphs) > 0, "XLA put no call into a graph"
    assert np.all([len(digest) == 64 for digest in (plain, graphed)])
