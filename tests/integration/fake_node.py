"""What a GPU node has and this machine has not: a driver that answers, and a torch that imports."""

from pathlib import Path

from tests.unit.node_zoo import TORCH, distribution

H100 = "NVIDIA H100 80GB HBM3, 580.65.06, 9.0, Disabled"
SMI = """#!/bin/sh
case "$1" in
*mig.mode.current*) {full} ;;
--query-gpu=*) {short} ;;
*) echo "| NVIDIA-SMI 580.65.06   Driver Version: 580.65.06   CUDA Version: {cuda} |" ;;
esac
"""


def smi(folder: Path, *rows: str, cuda: str = "13.0", full: str | None = None) -> Path:
    """A program that answers as the driver's does."""
    (folder / "bin").mkdir(exist_ok=True)
    program = folder / "bin" / "nvidia-smi"
    short = "; ".join(f"echo '{row.rsplit(', ', 2)[0]}'" for row in rows)
    answer = "; ".join(f"echo '{row}'" for row in rows) if full is None else full
    program.write_text(SMI.format(full=answer, short=short or "exit 9", cuda=cuda))
    program.chmod(0o755)
    return program


def torch(folder: Path, body: str = "", version: bytes = TORCH) -> None:
    """A torch that imports as `body` says."""
    head = "from torch import version\n__version__ = version.__version__\ndef compiled_with_cxx11_abi(): return False\n"
    whole = head + body
    distribution(folder / "site", "torch", "2.6.0", {"torch/__init__.py": whole.encode(), "torch/version.py": version})
