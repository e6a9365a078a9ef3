"""fp32 attention on one GPU: our wheel against torch's memory-efficient and math SDPA, and the naive formula.

    python benchmarks/fp32_attention.py --wheel flash_attn_fp32-....whl [--seqlen 2048,8192] [--causal off]

One table: forward, backward and both in ms, the peak memory of both beyond the inputs, the TFLOP/s of both, its part of
the GPU's fp32 peak (multiprocessors x 128 lanes x 2 x the highest clock), and how many times as fast as
memory-efficient SDPA it is. Exits with 1 if ours is slower at a length of 2048 or more. Needs torch alone.

Torch's memory-efficient kernels compute float32 on tensor cores from compute capability 8.0 on, each product as three
of TF32, whatever `torch.backends.cuda.matmul.allow_tf32` says, and so do ours on 8.0 and from 9.0 on: the fp32 peak is
no roof for either. That switch is off here, so math and naive are plain float32.
"""

import argparse
import importlib
import statistics
import sys
import tempfile
import zipfile
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, nullcontext
from dataclasses import dataclass
from pathlib import Path
from typing import Any

SEQLENS = (512, 1024, 2048, 4096, 8192, 16384)
HEAD_DIMS = (64, 128)
HEADS = 16
TOKENS = 8192  # batch x seqlen; a longer sequence is alone
SAMPLES = 5
GOAL_FROM = 2048
GOAL = 1.0
LANES = 128  # fp32 lanes of a multiprocessor, from compute capability 8.6 on and on 9.0


@dataclass(frozen=True, slots=True, kw_only=True)
class Shape:
    """A call: as many tokens for every length."""

    seqlen: int
    head_dim: int
    causal: bool

    @property
    def batch(self) -> int:
        """Sequences."""
        return max(1, TOKENS // self.seqlen)

    @property
    def operations(self) -> float:
        """Floating point operations of forward and backward: two products and five; causal needs half of them."""
        return 14 * self.batch * HEADS * self.seqlen**2 * self.head_dim / (2 if self.causal else 1)


@dataclass(frozen=True, slots=True, kw_only=True)
class Measured:
    """Milliseconds, and the peak in MiB."""

    forward: float
    backward: float
    peak: float

    @property
    def both(self) -> float:
        """A training step's attention."""
        return self.forward + self.backward


@contextmanager
def unpacked(wheel: Path) -> Iterator[Callable[..., Any]]:
    """The wheel's function."""
    with tempfile.TemporaryDirectory(prefix="fp32-attention-") as folder:
        with zipfile.ZipFile(wheel) as archive:
            archive.extractall(folder)
        sys.path.insert(0, folder)
        package = importlib.import_module("flash_attention")
        if not str(package.__file__).startswith(folder):
            raise ImportError(f"flash_attention comes from {package.__file__}, not from the wheel")
        yield package.flash_attention


def naive(q: Any, k: Any, v: Any, causal: bool) -> Any:
    """The formula as it is written, with the whole matrix of weights."""
    torch = importlib.import_module("torch")

    scores = torch.einsum("bqhd,bkhd->bhqk", q, k) * q.shape[-1] ** -0.5
    if causal:
        hidden = torch.ones(scores.shape[-2:], dtype=torch.bool, device=q.device).triu(1)
        scores = scores.masked_fill(hidden, float("-inf"))
    return torch.einsum("bhqk,bkhd->bqhd", scores.softmax(-1), v)


def contenders(ours: Callable[..., Any]) -> dict[str, tuple[Callable[..., Any], Any]]:
    """What is compared: a function of (q, k, v, causal), and the context it runs in."""
    torch, choice = importlib.import_module("torch"), importlib.import_module("torch.nn.attention")

    def sdpa(q: Any, k: Any, v: Any, causal: bool) -> Any:
        heads_first = [tensor.transpose(1, 2) for tensor in (q, k, v)]
        return torch.nn.functional.scaled_dot_product_attention(*heads_first, is_causal=causal).transpose(1, 2)

    return {
        "ours": (lambda q, k, v, causal: ours(q, k, v, causal=causal), nullcontext),
        "efficient": (sdpa, lambda: choice.sdpa_kernel(choice.SDPBackend.EFFICIENT_ATTENTION)),
        "math": (sdpa, lambda: choice.sdpa_kernel(choice.SDPBackend.MATH)),
        "naive": (naive, nullcontext),
    }


def median_ms(call: Callable[[], Any]) -> float:
    """Median of some calls, after two that warm up."""
    torch = importlib.import_module("torch")

    sys.path.append(str(Path(__file__).parent.parent / "src"))  # this Python may have torch alone
    timing = importlib.import_module("hopperforge.node.gpu.timing")
    return statistics.median([float(timing.bundle_ms(torch, call)) for _ in range(SAMPLES + 2)][2:])


def measure(function: Callable[..., Any], context: Any, shape: Shape) -> Measured | None:
    """Time one contender; None if the GPU has too little memory for it."""
    torch = importlib.import_module("torch")

    size = (shape.batch, shape.seqlen, HEADS, shape.head_dim)
    random = torch.Generator(device="cuda").manual_seed(0)
    *leaves, dout = [torch.randn(size, generator=random, device="cuda") for _ in range(4)]
    for leaf in leaves:
        leaf.requires_grad_()
    torch.cuda.synchronize()
    before = torch.cuda.memory_allocated()
    torch.cuda.reset_peak_memory_stats()
    try:
        with context():
            torch.autograd.grad(function(*leaves, shape.causal), leaves, dout)
            peak = (torch.cuda.max_memory_allocated() - before) / 2**20
            with torch.no_grad():
                forward = median_ms(lambda: function(*leaves, shape.causal))
            out = function(*leaves, shape.causal)
            backward = median_ms(lambda: torch.autograd.grad(out, leaves, dout, retain_graph=True))
    except torch.OutOfMemoryError:
        return None
    finally:
        torch.cuda.empty_cache()
    return Measured(forward=forward, backward=backward, peak=peak)


def fp32_peak() -> float:
    """TFLOP/s of the GPU's fp32 lanes at its highest clock."""
    torch = importlib.import_module("torch")

    properties = torch.cuda.get_device_properties(0)
    clock = getattr(properties, "clock_rate", 1_980_000)  # kHz
    return float(properties.multi_processor_count * LANES * 2 * clock * 1e3 / 1e12)


def row(shape: Shape, name: str, found: Measured | None, efficient: Measured | None, peak: float) -> str:
    """One line of the table."""
    what = f"{shape.head_dim:>4} {shape.seqlen:>6} {'yes' if shape.causal else 'no':>6} {name:<10}"
    if found is None:
        return f"{what} {'needs more memory than there is':>40}"
    speed = shape.operations / found.both / 1e9
    ratio = f"{efficient.both / found.both:>8.2f}" if efficient is not None else f"{'':>8}"
    times = f"{found.forward:>9.2f} {found.backward:>9.2f} {found.both:>9.2f}"
    return f"{what} {times} {found.peak:>9.0f} {speed:>8.1f} {speed / peak:>6.2f} {ratio}"


def parse(arguments: Sequence[str]) -> argparse.Namespace:
    """Read the command line."""
    parser = argparse.ArgumentParser(description="Compare fp32 attention with torch's.")
    parser.add_argument("--wheel", type=Path, required=True, help="our wheel")
    parser.add_argument("--seqlen", default=",".join(map(str, SEQLENS)), help="lengths, with commas")
    parser.add_argument("--causal", default="off,on", help="off, on or off,on")
    options = parser.parse_args(arguments)
    options.seqlens = [int(text) for text in options.seqlen.split(",")]
    options.causals = [text == "on" for text in options.causal.split(",")]
    return options


def main(arguments: Sequence[str]) -> int:
    """Measure, print the table, and say whether the goal was met."""
    options = parse(arguments)
    torch = importlib.import_module("torch")

    torch.backends.cuda.matmul.allow_tf32 = False
    peak, slow = fp32_peak(), []
    print(f"{torch.cuda.get_device_name()}, torch {torch.__version__}, fp32 peak {peak:.1f} TFLOP/s, {HEADS} heads")
    print(f"{TOKENS} tokens, or one sequence if it is longer")
    print("allow_tf32 is off: ours and efficient are 3xTF32 on tensor cores (Hopper), the others plain fp32\n")
    print(
        f"{'hdim':>4} {'seqlen':>6} {'causal':>6} {'':<10} {'fwd ms':>9} {'bwd ms':>9} {'both ms':>9} {'peak MiB':>9} "
        f"{'TFLOP/s':>8} {'of peak':>6} {'x eff.':>8}"
    )
    with unpacked(options.wheel) as ours:
        for causal in options.causals:
            for head_dim in HEAD_DIMS:
                for seqlen in options.seqlens:
                    shape = Shape(seqlen=seqlen, head_dim=head_dim, causal=causal)
                    found = {name: measure(*what, shape) for name, what in contenders(ours).items()}
                    for name, result in found.items():
                        print(row(shape, name, result, found["efficient"], peak), flush=True)
                    mine, efficient = found["ours"], found["efficient"]
                    if mine is None or (efficient is not None and efficient.both < GOAL * mine.both):
                        slow.append(shape)
    missed = [shape for shape in slow if shape.seqlen >= GOAL_FROM]
    for shape in missed:
        print(f"below {GOAL} x memory-efficient SDPA: {shape}")
    return 1 if missed else 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
