"""Prints a digest of attention's results, called again and again, and how many of its calls are in CUDA graphs.

    XLA_FLAGS=--xla_dump_to=DUMPS python in_graphs.py FOLDER_OF_THE_PACKAGE HEAD_DIM BACKWARD DUMPS

Run by test_transforms.py in processes of different XLA_FLAGS. XLA puts calls into graphs after the last HLO that it
shows, so they are counted in its dump of what it runs: lines of kCustomCall below one of kCommandBuffer.
"""

from __future__ import annotations

import hashlib
import sys
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np

REPLAYS = 5


def graphed(dump: str) -> int:
    """The custom calls below a command buffer, by the dump's indentation."""
    count, inside = 0, None
    for line in dump.splitlines():
        place = len(line) - len(line.lstrip())
        if "kCommandBuffer" in line:
            inside = place
        elif inside is not None and line.strip() and place <= inside:
            inside = None
        count += inside is not None and "kCustomCall" in line
    return count


def main(folder: str, head_dim: int, dumps: str, *, backward: bool) -> None:
    """Compute, replay, and print."""
    sys.path.insert(0, folder)
    import fa3_jax  # noqa: PLC0415  # unpacked there

    random = np.random.default_rng(0)
    shape = (2, 256, 4, head_dim)
    q, k, v = (jnp.asarray(random.standard_normal(shape, dtype=np.float32)).astype(jnp.bfloat16) for _ in range(3))

    def step(q: jax.Array, k: jax.Array, v: jax.Array) -> tuple[jax.Array, ...]:
        def loss(*inputs: jax.Array) -> jax.Array:
            out = fa3_jax.flash_attention(*inputs, causal=True, deterministic=True)
            return jnp.sum(out.astype(jnp.float32) ** 2)

        if not backward:
            return (fa3_jax.flash_attention(q * 2, k, v, causal=True), k * 2)
        return jax.grad(loss, argnums=(0, 1, 2))(q * 2, k, v)

    compiled = jax.jit(step).lower(q, k, v).compile()
    digest = hashlib.sha256()
    for index in range(REPLAYS):
        for array in compiled(q + index, k, v):
            digest.update(np.asarray(array).tobytes())
    found = Path(dumps).glob("*jit_step*thunk_sequence_after_thunk_passes*.txt")
    print(digest.hexdigest(), sum(graphed(path.read_text(encoding="utf-8")) for path in found))  # noqa: T201


if __name__ == "__main__":
    main(sys.argv[1], int(sys.argv[2]), sys.argv[4], backward=sys.argv[3] == "1")
