"""Inputs of one shape, the float64 reference, and whether an implementation agrees with it."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

from hopperforge.node.gpu.backends import Backend
from hopperforge.node.gpu.timing import Task
from hopperforge.node.gpu.words import Shape

CHECKED_SEQLEN = 256  # long enough for several tiles, short enough for float64
FORWARD_BOUNDS = {"bf16": 1e-2, "fp16": 2e-3, "fp32": 1e-4, "fp8": 1e-1}
"""Bounds on |out - reference| / |reference|: some three times what rounding the weights to the dtype costs."""
BACKWARD_BOUNDS = {"bf16": 2e-2, "fp16": 4e-3, "fp32": 2e-4}
"""The same for gradients, whose products are rounded twice."""


def torch_dtype(torch: Any, dtype: str) -> Any:
    """Give torch's name of a dtype."""
    return {
        "bf16": torch.bfloat16,
        "fp16": torch.float16,
        "fp32": torch.float32,
        "fp8": getattr(torch, "float8_e4m3fn", None),
    }[dtype]


def make_inputs(torch: Any, shape: Shape, seqlen: int | None = None) -> tuple[Any, Any, Any]:
    """Draw q, k and v, (batch, seqlen, heads, head_dim), the same for the same shape; with gradients for backward."""
    random = torch.Generator(device="cuda").manual_seed(0)
    size = (shape.batch, seqlen or shape.seqlen, shape.heads, shape.head_dim)
    dtype = torch_dtype(torch, shape.dtype)
    drawn = dtype if shape.dtype != "fp8" else torch.float32
    q, k, v = (
        torch.randn(size, generator=random, device="cuda", dtype=drawn)
        .to(dtype)
        .requires_grad_(shape.direction == "backward")
        for _ in range(3)
    )
    return q, k, v


def task_of(torch: Any, backend: Backend, shape: Shape, inputs: tuple[Any, Any, Any]) -> Task:
    """Make what is timed: a forward pass, or a backward pass whose forward pass is made ready and not timed."""
    q, k, v = inputs
    if shape.direction == "forward":

        def forward(_: Any) -> Any:
            with torch.no_grad():
                return backend.call(q, k, v, shape.causal)

        return Task(forward)
    gradient = torch.randn_like(q)
    return Task(
        call=lambda out: torch.autograd.grad(out, inputs, gradient),
        prepare=lambda: backend.call(q, k, v, shape.causal),
    )


def reference(torch: Any, inputs: Iterable[Any], causal: bool) -> Any:
    """Attention in float64, from the inputs as they were rounded."""
    q, k, v = (tensor.double().transpose(1, 2) for tensor in inputs)
    scores = q @ k.transpose(-1, -2) * q.shape[-1] ** -0.5
    if causal:
        hidden = torch.ones(scores.shape[-2:], dtype=torch.bool, device=scores.device).triu(1)
        scores = scores.masked_fill(hidden, float("-inf"))
    return (torch.softmax(scores, dim=-1) @ v).transpose(1, 2)


def relative_error(found: Any, expected: Any) -> float:
    """Norm of the difference over the norm of what was expected."""
    return float((found.double() - expected).norm() / expected.norm())


def error_of(torch: Any, backend: Backend, shape: Shape) -> float:
    """Give the relative error of the output, or the largest of the gradients'; of a short sequence."""
    inputs = make_inputs(torch, shape, CHECKED_SEQLEN)
    if shape.direction == "forward":
        with torch.no_grad():
            return relative_error(backend.call(*inputs, shape.causal), reference(torch, inputs, shape.causal))
    gradient = torch.randn_like(inputs[0])
    found = torch.autograd.grad(backend.call(*inputs, shape.causal), inputs, gradient)
    exact = [tensor.detach().double().requires_grad_() for tensor in inputs]
    expected = torch.autograd.grad(reference(torch, exact, shape.causal), exact, gradient.double())
    return max(relative_error(one, other) for one, other in zip(found, expected))


def bound_of(shape: Shape) -> float:
    """Give the bound that the error must keep."""
    return (FORWARD_BOUNDS if shape.direction == "forward" else BACKWARD_BOUNDS)[shape.dtype]
