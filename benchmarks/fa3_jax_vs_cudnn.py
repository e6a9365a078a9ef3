"""Speed of fa3-jax against cuDNN and XLA's own attention from JAX, forward and with the backward pass, on one GPU.

    python benchmarks/fa3_jax_vs_cudnn.py --wheel fa3_jax-....whl

Prints a table of median TFLOP/s, and exits with 1 if the forward pass is slower than cuDNN's on a shape of 4096 keys or
more. XLA's own holds all scores at once, so it is left out ("-") where they would take more than MOST_SCORES bytes.

The candidates take turns shape by shape and round by round, so that a drift of the clocks meets all of them alike.
A sample is many calls in one queue, waited for once. Needs JAX alone.
"""

import argparse
import statistics
import sys
import tempfile
import time
import zipfile
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp

HEADS = 16
HEAD_DIM = 128
ROUNDS = 5
SECONDS_PER_SAMPLE = 2e-2
MOST_SCORES = 10e9
LONG = 4096  # keys: from here on the goal holds
BACKWARD_FACTOR = 3.5  # the forward pass once, the backward pass two and a half times as much


@dataclass(frozen=True, slots=True, kw_only=True)
class Shape:
    """A call: batch and sequence length, bfloat16, 16 heads of dimension 128."""

    batch: int
    seqlen: int
    causal: bool
    backward: bool

    def __str__(self) -> str:
        """As the table names it."""
        passes = "forward+backward" if self.backward else "forward"
        return f"{passes} {self.batch}x{self.seqlen}{' causal' if self.causal else ''}"

    @property
    def operations(self) -> float:
        """Floating point operations that count: two products; causal needs half of them."""
        once = 4 * self.batch * HEADS * self.seqlen**2 * HEAD_DIM / (2 if self.causal else 1)
        return once * (BACKWARD_FACTOR if self.backward else 1)

    @property
    def scores(self) -> float:
        """Bytes of all scores in float32, which the backward pass needs twice."""
        return 4.0 * self.batch * HEADS * self.seqlen**2 * (2 if self.backward else 1)


SHAPES = tuple(
    Shape(batch=batch, seqlen=seqlen, causal=causal, backward=backward)
    for backward in (False, True)
    for causal in (False, True)
    for batch, seqlen in ((16, 1024), (4, 4096), (1, 16384))
)

Attention = Callable[..., jax.Array]


def candidates(wheel: Path, folder: Path) -> dict[str, Attention]:
    """Import the wheel from a folder, and name what is compared; each takes q, k, v and causal=."""
    with zipfile.ZipFile(wheel) as archive:
        archive.extractall(folder)
    sys.path.insert(0, str(folder))
    import fa3_jax  # noqa: PLC0415  # unpacked there

    def theirs(q: jax.Array, k: jax.Array, v: jax.Array, *, causal: bool, implementation: Any) -> jax.Array:
        return jax.nn.dot_product_attention(q, k, v, is_causal=causal, implementation=implementation)

    return {
        "fa3-jax": fa3_jax.flash_attention,
        "cuDNN": partial(theirs, implementation="cudnn"),
        "XLA": partial(theirs, implementation="xla"),
    }


def compiled(attention: Attention, shape: Shape) -> Callable[[], Any]:
    """Compile a call of the shape on normally distributed inputs."""
    size = (shape.batch, shape.seqlen, HEADS, HEAD_DIM)
    q, k, v, weights = (jax.random.normal(jax.random.key(seed), size, jnp.bfloat16) for seed in range(4))

    def forward(q: jax.Array, k: jax.Array, v: jax.Array) -> jax.Array:
        return attention(q, k, v, causal=shape.causal)

    def both(q: jax.Array, k: jax.Array, v: jax.Array, weights: jax.Array) -> Any:
        out, derive = jax.vjp(forward, q, k, v)
        return out, derive(weights)

    arguments = (q, k, v, weights) if shape.backward else (q, k, v)
    program = jax.jit(both if shape.backward else forward).lower(*arguments).compile()
    return lambda: program(*arguments)


def seconds(call: Callable[[], Any], calls: int) -> float:
    """Time of one call, of many in one queue."""
    begin = time.perf_counter()
    result = None
    for _ in range(calls):
        result = call()
    jax.block_until_ready(result)
    return (time.perf_counter() - begin) / calls


def compare(attentions: Mapping[str, Attention], shape: Shape) -> dict[str, float]:
    """Median TFLOP/s of each candidate; 0 where it is left out."""
    served = {name: call for name, call in attentions.items() if name != "XLA" or shape.scores <= MOST_SCORES}
    calls = {name: compiled(attention, shape) for name, attention in served.items()}
    counts = {}
    for name, call in calls.items():
        seconds(call, 3)
        counts[name] = max(3, round(SECONDS_PER_SAMPLE / seconds(call, 3)))
    samples: dict[str, list[float]] = {name: [] for name in calls}
    for _ in range(ROUNDS):
        for name, call in calls.items():
            samples[name].append(seconds(call, counts[name]))
    speeds = {name: shape.operations / statistics.median(found) / 1e12 for name, found in samples.items()}
    return {name: speeds.get(name, 0.0) for name in attentions}


def main(arguments: Sequence[str]) -> int:
    """Measure, print the table, and say whether the goal was met."""
    parser = argparse.ArgumentParser(description="Compare fa3-jax with cuDNN and XLA's own attention.")
    parser.add_argument("--wheel", type=Path, required=True)
    options = parser.parse_args(arguments)
    slow = []
    with tempfile.TemporaryDirectory() as folder:
        attentions = candidates(options.wheel, Path(folder))
        print(f"bfloat16, {HEADS} heads, head dim {HEAD_DIM}, median TFLOP/s of {ROUNDS} rounds")
        print(f"{jax.devices()[0].device_kind}, jax {jax.__version__}\n")
        print(f"{'':34}" + "".join(f"{name:>10}" for name in attentions) + f"{'of cuDNN':>10}")
        for shape in SHAPES:
            found = compare(attentions, shape)
            share = found["fa3-jax"] / found["cuDNN"]
            cells = "".join(f"{speed:>10.1f}" if speed else f"{'-':>10}" for speed in found.values())
            print(f"{shape!s:34}{cells}{share:>10.3f}", flush=True)
            if share < 1 and shape.seqlen >= LONG and not shape.backward:
                slow.append(str(shape))
    if slow:
        print(f"\nslower than cuDNN: {', '.join(slow)}")
    return 1 if slow else 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
