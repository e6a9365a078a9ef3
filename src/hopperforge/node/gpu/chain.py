"""The links of the chain from the GPU to the kernels, the page that shows them, and the exit code. Pure."""

from __future__ import annotations

import statistics
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from hopperforge.node.gpu.words import Shape
from hopperforge.node.mending import gpu_findings, torch_findings
from hopperforge.node.values import Finding, Node, gpu_text
from hopperforge.node.versions import dotted

OK, FAILED, UNCHECKED, FREE = "ok", "FAILED", "not checked", "not required"
UNTRUSTED, MISSING, TROUBLE, GPU = 12, 20, 21, 10
EXIT_CODES = (UNTRUSTED, MISSING, TROUBLE, GPU)
"""In the order in which they count where several links fail."""
ANY_GPU = frozenset({"flash-attn-fp32", "flash-attn", "hopper-attention"})
"""Packages that run on other GPUs than Hopper's as well."""
SPEED_BOUND = 0.85  # of the record's figures, the median of the shapes: GPUs of one name differ by some percent
_NO_RECORD = "the record beside a wheel holds the figures: name the wheel's file, or record=FILE"
_DTYPES = {"bfloat16": "bf16", "float16": "fp16", "float32": "fp32", "float8_e4m3fn": "fp8"}


@dataclass(frozen=True)
class Link:
    """One link: what was found, and where it does not hold how to mend it, and the exit code it asks for."""

    name: str
    state: str
    what: str
    mend: str | None = None
    code: int = 0


@dataclass(frozen=True)
class Speed:
    """A shape that was timed, and the record's figure for it if it has one; TFLOP/s."""

    shape: Shape
    tflops: float
    recorded: float | None

    def __str__(self) -> str:
        """As the page names it."""
        mask = " causal" if self.shape.causal else ""
        return f"{self.shape.batch}x{self.shape.seqlen}{mask} {self.shape.direction}"


def machine_links(node: Node, project: str) -> tuple[Link, ...]:
    """Judge GPU, driver, CUDA and torch."""
    problems = [one for one in gpu_findings(node, None) if one.level == "problem"]
    return (_gpu(node, problems, project), _driver(node, problems), *_torch(node))


def _gpu(node: Node, problems: Sequence[Finding], project: str) -> Link:
    if not node.gpus:
        return Link("GPU", UNCHECKED, "this machine shows no GPU", _mend(problems), GPU)
    if problems and node.driver is not None and node.driver.trouble is None and project not in ANY_GPU:
        return Link("GPU", FAILED, problems[0].what, problems[0].mend, TROUBLE)
    more = f"; {len(node.gpus)} of them" if len(node.gpus) > 1 else ""
    return Link("GPU", OK, gpu_text(node.gpus[0]) + more)


def _mend(problems: Sequence[Finding]) -> str | None:
    return problems[0].mend if problems else None


def _driver(node: Node, problems: Sequence[Finding]) -> Link:
    if node.driver is None:
        return Link("driver", UNCHECKED, problems[0].what, None, GPU)
    if node.driver.trouble is not None:
        return Link("driver", FAILED, node.driver.trouble, _mend(problems), TROUBLE)
    return Link("driver", OK, node.driver.version or "version unknown")


def _torch(node: Node) -> tuple[Link, Link]:
    """Judge what torch was built for, and torch itself."""
    problems = tuple(torch_findings(node, None))
    torch, driver = node.torch, node.driver
    serves = "unknown" if driver is None or driver.cuda is None else dotted(driver.cuda)
    if torch is None or torch.trouble is not None:
        broken = Link("torch", FAILED, problems[0].what, problems[0].mend, TROUBLE)
        return Link("CUDA", UNCHECKED, f"the driver serves {serves}; torch does not say what it was built for"), broken
    abi = {None: "C++ ABI unknown", True: "C++11 ABI", False: "old C++ ABI"}[torch.cxx11_abi]
    found = Link("torch", OK, f"{torch.version}, {abi}, in {node.executable}")
    if problems:
        return Link("CUDA", FAILED, problems[0].what, problems[0].mend, TROUBLE), found
    what = f"torch was built for {dotted(torch.cuda or ())}, the driver serves {serves}"
    return Link("CUDA", UNCHECKED if serves == "unknown" else OK, what), found


def number_link(checks: Sequence[Mapping[str, Any]]) -> Link:
    """Judge the errors against the float64 reference: dicts of what, error and bound."""
    wrong = [one for one in checks if not one["error"] <= one["bound"]]
    what = "; ".join(f"{one['what']}: relative error {one['error']:.1e}" for one in wrong or checks)
    if wrong:
        return Link("numbers", FAILED, f"{what} (bound {wrong[0]['bound']:.0e})", "do not use it; report it", GPU)
    return Link("numbers", OK, f"against float64: {what}")


def speed_link(speeds: Sequence[Speed], gpu: str, record: Mapping[str, Any] | None) -> Link:
    """Judge the speed against that of the record, where that was measured on such a GPU."""
    here = ", ".join(f"{one} {one.tflops:.0f}" for one in speeds)
    proof = None if record is None else record.get("gpu")
    if not proof or not any(one.recorded for one in speeds):
        missing = _NO_RECORD if record is None else "its record holds no figure: its smoke tests were not joined to it"
        return Link("speed", FREE, f"TFLOP/s here: {here}. Nothing to compare with: {missing}")
    shares = {str(one): one.tflops / one.recorded for one in speeds if one.recorded}
    share, worst = statistics.median(shares.values()), min(shares, key=lambda name: shares[name])
    told = f"{share:.0%} of the record's figures in the median of {len(shares)} shapes, {shares[worst]:.0%} at {worst}"
    if proof.get("gpu") != gpu:
        return Link("speed", FREE, f"TFLOP/s here: {here}. The record's figures are of {proof.get('gpu')}")
    if share < SPEED_BOUND:
        mend = "is somebody else on this GPU? hopperforge bench shows clocks and what holds them down"
        return Link("speed", FAILED, f"{told}; TFLOP/s here: {here}", mend, GPU)
    return Link("speed", OK, f"{told}; TFLOP/s here: {here}")


def recorded_shapes(record: Mapping[str, Any] | None, dtype: str) -> list[tuple[Shape, float]]:
    """Take the shapes of one dtype that the smoke tests timed, with their TFLOP/s, off a record."""
    found = []
    for row in ((record or {}).get("gpu") or {}).get("tflops", []):
        name, _, direction = row["dtype"].partition(" ")
        if _DTYPES.get(name) == dtype:
            shape = (row["batch"], row["seqlen"], row["heads"], row["head_dim"], dtype, row["causal"])
            found.append((Shape(*shape, direction or "forward"), float(row["tflops"])))
    return found


def exit_code(links: Iterable[Link]) -> int:
    """Give the first of EXIT_CODES that a link asks for, 0 where all hold."""
    asked = {link.code for link in links}
    return next((code for code in EXIT_CODES if code in asked), 0)


def page(title: str, links: Sequence[Link]) -> str:
    """Write the page."""
    lines = [title]
    for link in links:
        lines.append(f"{link.name:<10} {link.state:<12}  {link.what}")
        lines += [f"{'':<10} mend: {link.mend}"] if link.mend else []
    counts = {state: sum(link.state == state for link in links) for state in (OK, FREE, FAILED, UNCHECKED)}
    code = exit_code(links)
    told = ", ".join(f"{count} {state}" for state, count in counts.items() if count)
    lines.append(f"{'verified' if code == 0 else 'NOT verified'}: {told} (exit code {code})")
    return "\n".join(lines)
