"""What the smoke tests share: the wheel under test, inputs, the float64 reference, and how errors are measured.

Needs torch alone. The wheel is unpacked, never installed, so that the node stays as it was and nothing else of the same
name can be imported in its place.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import torch
from smoke_common.machine import torch_facts
from smoke_common.wheel import WheelUnderTest, import_from, read_build, unpack

if TYPE_CHECKING:
    from pathlib import Path
    from types import ModuleType

HEAD_DIMS = (32, 64, 96, 128)
# Bounds on |found - reference| / |reference| in float64: what issue 9 promises.
FORWARD_TOLERANCE = 1e-6
BACKWARD_TOLERANCE = 1e-5
# Where the reference is near zero, as gradients of a single key are, nothing but rounding is left to compare: that of
# products of head_dim numbers.
SMALLEST_NORM = 4.0


@dataclass(frozen=True)
class Subject(WheelUnderTest):
    """The wheel under test, and its package."""

    package: ModuleType

    @property
    def attend(self) -> Any:
        """The function under test."""
        return self.package.flash_attention


def load_subject(wheel: Path, folder: Path) -> Subject:
    """Unpack the wheel into a folder and import it from there."""
    unpacked = unpack(wheel, folder)
    return Subject(
        wheel=unpacked,
        package=import_from(unpacked, "flash_attention"),
        build=read_build(import_from(unpacked, "flash_attention._build")),
    )


def missing_gpu(_: Subject) -> str | None:
    """Why the kernels cannot run here; None where they can."""
    if not torch.cuda.is_available():
        return "torch finds no GPU"
    return None


def machine_facts(_: Subject) -> dict[str, str]:
    """The machine as gpu.json names it."""
    return torch_facts(torch)


@dataclass(frozen=True)
class Inputs:
    """q, k, v and the gradient of the output, (batch, seqlen, heads, head_dim), leaves that require grad."""

    q: torch.Tensor
    k: torch.Tensor
    v: torch.Tensor
    dout: torch.Tensor

    @property
    def leaves(self) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
        """What is differentiated."""
        return self.q, self.k, self.v


def make_inputs(
    *,
    batch: int = 2,
    seqlen_q: int = 128,
    seqlen_k: int = 128,
    heads: int = 4,
    heads_k: int = 2,
    head_dim: int = 64,
    head_dim_v: int | None = None,
    seed: int = 0,
) -> Inputs:
    """Normal numbers, the same for the same seed."""
    random = torch.Generator(device="cuda").manual_seed(seed)

    def normal(*shape: int) -> torch.Tensor:
        return torch.randn(shape, generator=random, device="cuda")

    width = head_dim_v or head_dim
    return Inputs(
        q=normal(batch, seqlen_q, heads, head_dim).requires_grad_(),
        k=normal(batch, seqlen_k, heads_k, head_dim).requires_grad_(),
        v=normal(batch, seqlen_k, heads_k, width).requires_grad_(),
        dout=normal(batch, seqlen_q, heads, width),
    )


def causal_mask(seqlen_q: int, seqlen_k: int) -> torch.Tensor:
    """Which keys each query sees, (seqlen_q, seqlen_k); the last query is aligned with the last key."""
    query = torch.arange(seqlen_q, device="cuda")[:, None] + seqlen_k - seqlen_q
    return torch.arange(seqlen_k, device="cuda")[None, :] <= query


def reference(
    q: torch.Tensor,
    k: torch.Tensor,
    v: torch.Tensor,
    *,
    causal: bool = False,
    scale: float | None = None,
    bias: torch.Tensor | None = None,
    mask: torch.Tensor | None = None,
    keep: torch.Tensor | None = None,
) -> tuple[torch.Tensor, torch.Tensor]:
    """Attention in the dtype of q: out (batch, seqlen_q, heads, head_dim_v), lse (batch, heads, seqlen_q).

    keep, (batch, heads, seqlen_q, seqlen_k), multiplies the weights. A query that sees no key gets zeros and -inf.
    """
    group = q.shape[2] // k.shape[2]
    k, v = k.repeat_interleave(group, dim=2), v.repeat_interleave(group, dim=2)
    scores = torch.einsum("bqhd,bkhd->bhqk", q, k) * (q.shape[-1] ** -0.5 if scale is None else scale)
    if bias is not None:
        scores = scores + bias.to(q.dtype)
    if causal:
        scores = scores.masked_fill(~causal_mask(q.shape[1], k.shape[1]), float("-inf"))
    if mask is not None:
        scores = scores.masked_fill(~mask, float("-inf"))
    seen = (scores > float("-inf")).any(dim=-1)
    safe = scores.masked_fill(~seen[..., None], 0.0)
    weights = torch.softmax(safe, dim=-1).masked_fill(~seen[..., None], 0.0)
    lse = torch.logsumexp(safe, dim=-1).masked_fill(~seen, float("-inf"))
    if keep is not None:
        weights = weights * keep
    return torch.einsum("bhqk,bkhd->bqhd", weights, v), lse


def exact(inputs: Inputs, **named: Any) -> tuple[torch.Tensor, torch.Tensor, tuple[torch.Tensor, ...]]:
    """The reference in float64: out, lse and the gradients of q, k and v."""
    leaves = [tensor.detach().double().requires_grad_() for tensor in inputs.leaves]
    out, lse = reference(*leaves, **named)
    return out.detach(), lse.detach(), torch.autograd.grad(out, leaves, inputs.dout.double())


def relative_error(found: torch.Tensor, expected: torch.Tensor) -> float:
    """Norm of the difference over the norm of what was expected."""
    norm = expected.double().norm().clamp_min(SMALLEST_NORM)
    return float((found.detach().double() - expected.double()).norm() / norm)


def require_close(subject: Subject, inputs: Inputs, *, named: dict[str, Any], expected: dict[str, Any]) -> None:
    """Fail unless output, lse and gradients are within the bounds; `expected` are the reference's words."""
    out, lse = subject.attend(*inputs.leaves, **named, return_lse=True)
    gradients = torch.autograd.grad(out, inputs.leaves, inputs.dout)
    exact_out, exact_lse, exact_gradients = exact(inputs, **expected)
    assert out.dtype == lse.dtype == torch.float32
    assert out.shape == exact_out.shape
    error = relative_error(out, exact_out)
    assert error <= FORWARD_TOLERANCE, f"out: relative error {error:.2e}"
    seen = exact_lse.isfinite()
    assert torch.equal(lse.isfinite(), seen)
    assert seen.logical_not().all() or float((lse.detach().double() - exact_lse)[seen].abs().max()) <= 1e-5
    for name, found, wanted in zip(("dq", "dk", "dv"), gradients, exact_gradients, strict=True):
        error = relative_error(found, wanted)
        assert error <= BACKWARD_TOLERANCE, f"{name}: relative error {error:.2e}"
