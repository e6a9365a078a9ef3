"""Forward speed of our fa3-fwd wheels against the published one and torch's own attention, on one GPU.

    python benchmarks/fa3_fwd_vs_peer.py --wheel 13.0=OURS.whl --wheel 12.4=OURS.whl --peer fa3_fwd-0.0.3-....whl

A wheel of ours is one of fa3-fwd, or of hopperforge_fa3, the library without torch, which is called through ctypes.

Prints two tables (median TFLOP/s; each wheel's share of the peer's) and exits with 1 if a share is below 0.98.

All wheels hold modules of the same names, so each runs in a process of its own. The processes take turns shape by
shape, and the order turns round every round, so that a drift of the clocks meets all of them alike; the share is the
median of the rounds' shares. Needs torch alone.
"""

import argparse
import importlib
import json
import statistics
import subprocess
import sys
import tempfile
import zipfile
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

HEADS = 16
HEAD_DIM = 128
ROUNDS = 7
SAMPLES = 11
WARM_UP = 5
SECONDS_PER_SAMPLE = 5e-3  # calls are timed in bundles of about this length, so that launches do not count
GOAL = 0.98


@dataclass(frozen=True, slots=True, kw_only=True)
class Shape:
    """A call: batch and sequence length, bfloat16, 16 heads of dimension 128."""

    batch: int
    seqlen: int
    causal: bool

    def __str__(self) -> str:
        """As the table names it."""
        return f"{self.batch}x{self.seqlen}{' causal' if self.causal else ''}"

    @property
    def operations(self) -> float:
        """Floating point operations that count: two products; causal needs half of them."""
        return 4 * self.batch * HEADS * self.seqlen**2 * HEAD_DIM / (2 if self.causal else 1)


SHAPES = tuple(
    Shape(batch=batch, seqlen=seqlen, causal=causal)
    for causal in (False, True)
    for batch, seqlen in ((16, 1024), (4, 4096), (1, 16384))
)


class Worker:
    """A process that measures one implementation, a line of JSON at a time."""

    def __init__(self, name: str, process: "subprocess.Popen[str]") -> None:
        self.name = name
        self._process = process

    def ask(self, **order: Any) -> Any:
        """Send an order and wait for its answer; SystemExit with the worker's last words if it died."""
        orders, answers = self._process.stdin, self._process.stdout
        if orders is None or answers is None:
            raise SystemExit(f"error: the process of {self.name} was started without pipes")
        try:
            orders.write(json.dumps(order) + "\n")
            orders.flush()
            answer = answers.readline()
        except BrokenPipeError:
            answer = ""
        if not answer:
            raise SystemExit(f"error: the process of {self.name} ended with status {self._process.wait()}; see above")
        return json.loads(answer)


@contextmanager
def start(name: str, kind: str, wheel: Path | None) -> Iterator[Worker]:
    """Start a worker on a wheel unpacked for it alone (SDPA has none); both are gone at the end."""
    with tempfile.TemporaryDirectory(prefix="fa3-fwd-benchmark-") as folder:
        if wheel is not None:
            with zipfile.ZipFile(wheel) as archive:
                archive.extractall(folder)
        command = [sys.executable, __file__, "--serve", kind, folder]
        process = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)  # noqa: S603  # ourselves
        with process:
            try:
                yield Worker(name, process)
            finally:
                process.kill()


def compare(workers: Sequence[Worker]) -> dict[Shape, list[dict[str, float]]]:
    """TFLOP/s of each worker in each round, by shape."""
    rounds: dict[Shape, list[dict[str, float]]] = {shape: [] for shape in SHAPES}
    for number in range(ROUNDS):
        order = workers if number % 2 == 0 else tuple(reversed(workers))
        for shape in SHAPES:
            rounds[shape].append({worker.name: float(worker.ask(**asdict(shape))) for worker in order})
        print(f"round {number + 1} of {ROUNDS} done", file=sys.stderr)
    return rounds


def speeds(rounds: dict[Shape, list[dict[str, float]]]) -> dict[Shape, dict[str, float]]:
    """Median TFLOP/s by shape and worker."""
    return {
        shape: {name: statistics.median(result[name] for result in results) for name in results[0]}
        for shape, results in rounds.items()
    }


def shares(rounds: dict[Shape, list[dict[str, float]]], ours: Sequence[str]) -> dict[Shape, dict[str, float]]:
    """Each of our wheels' share of the peer's speed, the median of the rounds' shares, by shape and wheel."""
    return {
        shape: {name: statistics.median(result[name] / result["peer"] for result in results) for name in ours}
        for shape, results in rounds.items()
    }


def table(numbers: dict[Shape, dict[str, float]], title: str, digits: int) -> list[str]:
    """The lines of a table with one row a shape."""
    names = list(next(iter(numbers.values())))
    width = max(map(len, names)) + 2
    return [
        f"{title:<18}" + "".join(f"{name:>{width}}" for name in names),
        *(
            f"{shape!s:<18}" + "".join(f"{row[name]:>{width}.{digits}f}" for name in names)
            for shape, row in numbers.items()
        ),
    ]


# --- inside a worker


def attention(kind: str, folder: str) -> tuple[Callable[..., Any], str]:
    """The function to measure, of (q, k, v, causal), and what it is."""
    library = Path(folder, "hopperforge_fa3", "lib", "libhopperforge_fa3.so.1")
    if kind == "wheel" and library.is_file():
        return without_torch(library), "library"
    if kind == "wheel":
        sys.path.insert(0, folder)
        interface = importlib.import_module("fa3_fwd_interface")
        if not str(interface.__file__).startswith(folder):
            raise ImportError(f"fa3_fwd_interface comes from {interface.__file__}, not from the wheel")
        return lambda q, k, v, causal: interface.flash_attn_func(q, k, v, causal=causal), "wheel"
    return sdpa()


def fill_sizes(problem: Any, q: Sequence[int], k: Sequence[int], v: Sequence[int]) -> None:
    """Write the sizes of a call on arrays of these shapes; keys may have other lengths and heads than queries."""
    problem.batch, problem.seqlen_q, problem.heads, problem.head_dim = q
    _, problem.seqlen_k, problem.heads_k, _ = k
    problem.head_dim_v = v[-1]


def without_torch(path: Path) -> Callable[..., Any]:
    """Attention of the C library, over torch's memory and stream."""
    torch = importlib.import_module("torch")
    sys.path.insert(0, str(Path(__file__).parent.parent / "recipes" / "fa3-cpp" / "smoke"))
    capi = importlib.import_module("capi")
    library = capi.Library(path)

    def call(q: Any, k: Any, v: Any, causal: bool) -> Any:
        out = q.new_empty(*q.shape[:-1], v.shape[-1])
        params = library.defaults()
        fill_sizes(params.problem, q.shape, k.shape, v.shape)
        params.problem.causal = causal
        for name, tensor in (("q", q), ("k", k), ("v", v), ("out", out)):
            setattr(params, name, capi.contiguous(tensor.data_ptr(), *tensor.shape[1:]))
        status, bytes_ = library.workspace(params)
        workspace = torch.empty(bytes_, dtype=torch.uint8, device="cuda")
        stream = torch.cuda.current_stream().cuda_stream
        status = status or library.launch(params, workspace.data_ptr(), bytes_, stream)
        if status:
            raise RuntimeError(library.message)
        return out

    return call


def sdpa() -> tuple[Callable[..., Any], str]:
    """Torch's attention on cuDNN where this torch has it, else on its own FlashAttention-2."""
    torch = importlib.import_module("torch")
    choice = importlib.import_module("torch.nn.attention")

    def call(q: Any, k: Any, v: Any, causal: bool) -> Any:
        heads_first = [tensor.transpose(1, 2) for tensor in (q, k, v)]
        return torch.nn.functional.scaled_dot_product_attention(*heads_first, is_causal=causal)

    for name in ("CUDNN_ATTENTION", "FLASH_ATTENTION"):
        selected = choice.sdpa_kernel(getattr(choice.SDPBackend, name))
        probe = torch.zeros(1, 128, 1, HEAD_DIM, device="cuda", dtype=torch.bfloat16)
        selected.__enter__()  # for the life of this process
        try:
            call(probe, probe, probe, causal=False)
        except RuntimeError:
            selected.__exit__(None, None, None)
        else:
            return call, f"SDPA {name.partition('_')[0].lower()}"
    raise SystemExit("error: torch's attention runs neither on cuDNN nor on FlashAttention-2 here")


def timing() -> Any:
    """The timer of `hopperforge bench`, out of the checkout: this Python may have torch alone."""
    sys.path.append(str(Path(__file__).parent.parent / "src"))
    return importlib.import_module("hopperforge.node.gpu.timing")


def measure(function: Callable[..., Any], shape: Shape) -> float:
    """Median TFLOP/s of one shape."""
    torch = importlib.import_module("torch")
    random = torch.Generator(device="cuda").manual_seed(0)
    size = (shape.batch, shape.seqlen, HEADS, HEAD_DIM)
    q, k, v = (torch.randn(size, generator=random, device="cuda", dtype=torch.bfloat16) for _ in range(3))

    def bundle(calls: int) -> float:
        return float(timing().bundle_ms(torch, lambda: function(q, k, v, shape.causal), calls)) / 1000

    bundle(WARM_UP)
    calls = max(1, round(SECONDS_PER_SAMPLE / bundle(WARM_UP)))
    seconds = statistics.median(bundle(calls) for _ in range(SAMPLES))
    return shape.operations / seconds / 1e12


def serve(kind: str, folder: str) -> None:
    """Answer orders on standard input until it closes; only answers go to standard output."""
    torch = importlib.import_module("torch")
    function, name = attention(kind, folder)
    for line in sys.stdin:
        order = json.loads(line)
        if order:
            answer: Any = measure(function, Shape(**order))
        else:
            answer = {"name": name, "gpu": torch.cuda.get_device_name(), "torch": torch.__version__}
        print(json.dumps(answer), flush=True)


# --- the command


def parse(arguments: Sequence[str]) -> argparse.Namespace:
    """Read the command line."""
    parser = argparse.ArgumentParser(description="Compare forward speed with the published fa3-fwd.")
    parser.add_argument(
        "--wheel",
        action="append",
        required=True,
        metavar="[NAME=]FILE",
        help="a wheel of ours, of fa3-fwd or of hopperforge_fa3",
    )
    parser.add_argument("--peer", type=Path, required=True, help="the published wheel")
    options = parser.parse_args(arguments)
    named = [text.rpartition("=") for text in options.wheel]
    options.ours = {name or "ours": Path(file) for name, _, file in named}
    if len(options.ours) < len(named) or {"peer", "sdpa"} & set(options.ours):
        parser.error("every wheel needs a name of its own, and neither peer nor sdpa: --wheel NAME=FILE")
    for wheel in (*options.ours.values(), options.peer):
        if not wheel.is_file():
            parser.error(f"{wheel} is not a file")
    return options


def main(arguments: Sequence[str]) -> int:
    """Measure, print the table, and say whether the goal was met."""
    if arguments[:1] == ["--serve"]:
        serve(*arguments[1:])
        return 0
    options = parse(arguments)
    with ExitStack() as stack:
        workers = [
            *(stack.enter_context(start(name, "wheel", wheel)) for name, wheel in options.ours.items()),
            stack.enter_context(start("peer", "wheel", options.peer)),
            stack.enter_context(start("sdpa", "sdpa", None)),
        ]
        facts = [worker.ask() for worker in workers][-1]
        rounds = compare(workers)
    print(
        f"forward, bfloat16, {HEADS} heads, head dim {HEAD_DIM}, median TFLOP/s of {ROUNDS} rounds of {SAMPLES} samples"
    )
    print(f"{facts['gpu']}, torch {facts['torch']}; sdpa is {facts['name']}")
    print(f"peer {options.peer.name}\n")
    of_the_peer = shares(rounds, list(options.ours))
    print("\n".join([*table(speeds(rounds), "TFLOP/s", 1), "", *table(of_the_peer, "share of the peer", 3)]))
    slow = [f"{name} {shape}" for shape, row in of_the_peer.items() for name, share in row.items() if share < GOAL]
    if slow:
        print(f"\nbelow {GOAL} of the peer: {', '.join(slow)}")
    return 1 if slow else 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
