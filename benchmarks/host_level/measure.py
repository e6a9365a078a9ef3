"""What gcc's level does to the host code of a unit: its size, deflated too, its compile time, and ns a launch.

    cd FOLDER && nvcc -ccbin g++ ARGUMENTS --keep -objtemp -c unit.cu -o unit.o
    python benchmarks/host_level/measure.py FOLDER --include TOOLKIT/include

FOLDER holds `unit.cu`, which includes hopper/instantiations/flash_fwd_hdim128_bf16_sm90.cu, and links to hopper/ and
csrc/ of the patched source; `nox -s patch -- profile=fa3-fwd --json` prints the tree and the unit's ARGUMENTS. No GPU
is needed: launch.cpp has stubs for the CUDA runtime. Rounds are taken in turn, and the best of all counts.
"""

import argparse
import os
import subprocess
import sys
import tempfile
import zlib
from collections.abc import Sequence
from pathlib import Path

from elftools.elf.elffile import ELFFile

LEVELS = ("-O3", "-O2", "-O1", "-Os")
HERE = Path(__file__).resolve().parent
# The words of nvcc's own last call of gcc, as `nvcc --dryrun` prints it.
WORDS = ("-D__CUDA_ARCH__=900", "-D__CUDA_ARCH_FEAT_SM90_ALL", "-D__CUDA_ARCH_LIST__=900", "-D__NV_LEGACY_LAUNCH")
MORE = ("-DCUDA_DOUBLE_MATH_FUNCTIONS", "-Wno-psabi", "-fPIC", "-std=c++17", "-m64")
ROUNDS = 3


def gxx(*words: str | Path) -> float:
    """Run g++; returns its CPU seconds."""
    process = subprocess.Popen(["g++", *map(str, words)])  # noqa: S603, S607 - argv list, the machine's own
    _, status, usage = os.wait4(process.pid, 0)
    process.returncode = os.waitstatus_to_exitcode(status)
    if process.returncode != 0:
        raise SystemExit(f"error: g++ ended with status {process.returncode}")
    return usage.ru_utime + usage.ru_stime


def text_of(library: Path) -> bytes:
    """Give the linked code."""
    with library.open("rb") as stream:
        section = ELFFile(stream).get_section_by_name(".text")
        return b"" if section is None else bytes(section.data())


def main(arguments: Sequence[str]) -> int:
    """Do as asked."""
    parser = argparse.ArgumentParser(description="Measure levels of host code.")
    parser.add_argument("folder", type=Path)
    parser.add_argument("--include", type=Path, required=True)
    options = parser.parse_args(arguments)
    print(f"{'level':8}{'text KB':>9}{'deflated':>10}{'compile s':>11}{'ns':>6}{'ns causal':>11}", flush=True)
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        include = f"-I{options.include.resolve()}"
        gxx("-O2", "-std=c++17", include, f"-I{options.folder}", "-c", HERE / "launch.cpp", "-o", folder / "launch.o")
        figures: dict[str, tuple[int, int, float]] = {}
        for level in LEVELS:
            made = folder / f"host{level}.o"
            source = options.folder / "unit.o.cudafe1.cpp"
            seconds = gxx(*WORDS, *MORE, include, level, "-c", "-x", "c++", source, "-o", made)
            gxx("-shared", "-Wl,--gc-sections", "-Wl,--strip-all", made, "-o", folder / "text.so")
            gxx("-Wl,--gc-sections", folder / "launch.o", made, "-o", folder / f"launch{level}")
            text = text_of(folder / "text.so")
            figures[level] = (len(text), len(zlib.compress(text, 9)), seconds)
        best: dict[str, tuple[float, float]] = dict.fromkeys(LEVELS, (1e9, 1e9))
        for level in LEVELS * ROUNDS:
            done = subprocess.run([folder / f"launch{level}"], check=True, capture_output=True, text=True)  # noqa: S603 - argv list
            plain, causal = map(float, done.stdout.split())
            best[level] = (min(best[level][0], plain), min(best[level][1], causal))
        for level, (size, deflated, seconds) in figures.items():
            plain, causal = best[level]
            sizes = f"{size / 1e3:>9.1f}{deflated / 1e3:>10.1f}{seconds:>11.1f}"
            print(f"{level:8}{sizes}{plain:>6.0f}{causal:>11.0f}")
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
