"""What a call of the library costs beside its kernels, on one GPU.

    python benchmarks/cpp_overhead.py --executable PREFIX/bin/flash_attention_exec

Prints a table, microseconds a call: the processor's time to make a call; calls in a row; the same kernels replayed as
one CUDA graph, which leaves the library out; and the difference of the last two, which is what waiting for the library
adds. Exits with 1 if a difference is 5 microseconds or more.
"""

import argparse
import re
import subprocess
import sys
from collections.abc import Sequence

SHAPES = {
    "1x1024": ("--batch", "1", "--seqlen", "1024"),
    "1x1024 causal": ("--batch", "1", "--seqlen", "1024", "--causal"),
    "2x2048": ("--batch", "2", "--seqlen", "2048"),
    "4x4096 causal": ("--batch", "4", "--seqlen", "4096", "--causal"),
    "4x1024 packed": ("--batch", "4", "--seqlen", "1024", "--varlen"),
}
GOAL = 5.0
LINE = re.compile(r"overhead (\S+) us .*, (\S+) us a call in a row, (\S+) us in a graph: (\S+) us more")


def measure(executable: str, words: Sequence[str]) -> tuple[float, ...]:
    """Processor's time, calls in a row, calls in a graph, and the difference."""
    command = [executable, "--heads", "16", "--rows", "0", "--overhead", *words]
    done = subprocess.run(command, check=True, capture_output=True, text=True)  # noqa: S603 - argv list
    found = LINE.search(done.stdout)
    if found is None:
        raise SystemExit(f"error: no overhead in {done.stdout!r}")
    return tuple(map(float, found.groups()))


def main(arguments: Sequence[str]) -> int:
    """Measure, print the table, and say whether the goal was met."""
    parser = argparse.ArgumentParser(description="Measure what a call costs beside its kernels.")
    parser.add_argument("--executable", required=True)
    options = parser.parse_args(arguments)
    print(f"{'bf16, 16 heads of 128, us a call':34}{'processor':>11}{'in a row':>11}{'in a graph':>12}{'more':>8}")
    slow = False
    for name, words in SHAPES.items():
        processor, row, graph, more = measure(options.executable, words)
        print(f"{name:34}{processor:>11.2f}{row:>11.2f}{graph:>12.2f}{more:>8.2f}", flush=True)
        slow = slow or more >= GOAL
    return 1 if slow else 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
