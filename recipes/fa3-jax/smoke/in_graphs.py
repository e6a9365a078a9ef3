"""Prints a digest of attention's results, called again and again, and how many of its calls are in CUDA graphs.

    python in_graphs.py FOLDER_OF_THE_PACKAGE HEAD_DIM BACKWARD

Run by test_transforms.py in processes of different XLA_FLAGS.
"""

from __future__ import annotations

import hashlib
import re
import sys

import jax
import jax.numpy as jnp
import numpy as np

REPLAYS = 5


def main(folder: str, head_dim: int, *, backward: bool) -> None:
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
    bodies = re.findall(r"^%?command_buffer[^\n]*\{\n.*?^\}", compiled.as_text(), flags=re.MULTILINE | re.DOTALL)
    print(digest.hexdigest(), sum(body.count('custom_call_target="hopperforge_fa3') for body in bodies))  # noqa: T201


if __name__ == "__main__":
    main(sys.argv[1], int(sys.argv[2]), backward=sys.argv[3] == "1")
