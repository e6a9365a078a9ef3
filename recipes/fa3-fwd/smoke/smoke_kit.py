"""What the smoke tests share: the wheel under test, inputs, the float64 reference, and how errors are measured.

Needs torch alone. The wheel is unpacked, never installed, so that the node stays as it was and nothing else of the same
name can be imported in its place.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import torch
from smoke_common.machine import torch_facts
from smoke_common.wheel import Fa3UnderTest, import_from, read_build, unpack

if TYPE_CHECKING:
    from pathlib import Path
    from types import ModuleType

FP8 = torch.float8_e4m3fn
# Bounds on |out - reference| / |reference|. Rounding P and the output to bfloat16 (8 significant bits) costs 2.2e-3 as
# measured on an H200; float16 has 3 bits more, so an eighth of it, and the bound leaves the same room. float8 rounds P
# to 4 significant bits: 16 times bfloat16's 2.2e-3 would be 3.5e-2.
TOLERANCE = {torch.bfloat16: 3e-3, torch.float16: 5e-4, FP8: 5e-2}
# Bounds on the largest difference of softmax_lse; it is summed in float32, of products that float8 adds less exactly.
LSE_TOLERANCE = {torch.bfloat16: 1e-3, torch.float16: 1e-3, FP8: 2e-2}


@dataclass(frozen=True)
class Subject(Fa3UnderTest):
    """The wheel under test, and its modules."""

    interface: ModuleType
    rules: ModuleType
    guard: ModuleType

    @property
    def dtypes(self) -> tuple[torch.dtype, ...]:
        """Dtypes of q, k and v."""
        return self.served(torch.bfloat16, {"FP16": torch.float16, "FP8": FP8})

    def spread(self) -> dict[str, list[Any]]:
        """What tests are spread over, by the names of their arguments."""
        return self.parameters(self.dtypes)

    def attend(self, inputs: Inputs, **named: Any) -> tuple[torch.Tensor, torch.Tensor]:
        """Output and softmax_lse of the wheel."""
        out, lse = self.interface.flash_attn_func(
            inputs.q, inputs.k, inputs.v, **inputs.descales, **named, return_attn_probs=True
        )
        return out, lse


def load_subject(wheel: Path, folder: Path) -> Subject:
    """Unpack the wheel into a folder and import it from there."""
    unpacked = unpack(wheel, folder)
    import_from(unpacked, "fa3_fwd")
    return Subject(
        wheel=unpacked,
        build=read_build(import_from(unpacked, "fa3_fwd._build")),
        interface=import_from(unpacked, "fa3_fwd_interface"),
        rules=import_from(unpacked, "fa3_fwd._rules"),
        guard=import_from(unpacked, "fa3_fwd._guard"),
    )


def missing_gpu(subject: Subject) -> str | None:
    """Why the kernels cannot run here, in the wheel's own words; None where they can."""
    build = subject.guard._GUARD.build  # noqa: SLF001  # the kit looks behind the public names on purpose
    try:
        subject.rules.require_machine(build, subject.guard.read_machine())
        subject.rules.require_architecture(build, torch.cuda.get_device_capability())
    except subject.rules.UnsupportedGPUError as error:
        return str(error)
    return None


def machine_facts(_: Subject) -> dict[str, str]:
    """The machine as gpu.json names it."""
    return torch_facts(torch)


@dataclass(frozen=True)
class Inputs:
    """q (batch, seqlen_q, heads, head_dim), k and v (batch, seqlen_k, heads_k, ...), descales where they are float8."""

    q: torch.Tensor
    k: torch.Tensor
    v: torch.Tensor
    descales: dict[str, torch.Tensor] = field(default_factory=dict)

    def exact(self, name: str) -> torch.Tensor:
        """q, k or v in float64, descaled; the reference's input."""
        tensor: torch.Tensor = getattr(self, name)
        exact = tensor.double()
        if not self.descales:
            return exact
        descale = self.descales[f"{name}_descale"].double()  # (batch, heads_k), for q too
        return exact * descale.repeat_interleave(tensor.shape[-2] // descale.shape[1], dim=1)[:, None, :, None]


def make_inputs(
    *,
    batch: int = 2,
    seqlen_q: int = 200,
    seqlen_k: int = 200,
    heads: int = 4,
    heads_k: int = 4,
    head_dim: int,
    head_dim_v: int | None = None,
    dtype: torch.dtype = torch.bfloat16,
    seed: int = 0,
) -> Inputs:
    """Normally distributed inputs, the same for the same arguments; float8 comes with a descale of its own per head."""
    random = torch.Generator(device="cuda").manual_seed(seed)

    def normal(*shape: int) -> torch.Tensor:
        return torch.randn(*shape, generator=random, device="cuda", dtype=torch.float32)

    q = normal(batch, seqlen_q, heads, head_dim)
    k = normal(batch, seqlen_k, heads_k, head_dim)
    v = normal(batch, seqlen_k, heads_k, head_dim_v or head_dim)
    names = ("q_descale", "k_descale", "v_descale") if dtype == FP8 else ()
    descales = {name: torch.rand(batch, heads_k, generator=random, device="cuda") + 0.5 for name in names}
    return Inputs(q.to(dtype), k.to(dtype), v.to(dtype), descales)


def allowed_keys(seqlen_q: int, seqlen_k: int, *, causal: bool, window: tuple[int, int], chunk: int) -> torch.Tensor:
    """Which keys each query sees, (seqlen_q, seqlen_k); the last query is aligned with the last key."""
    query = torch.arange(seqlen_q, device="cuda")[:, None] + seqlen_k - seqlen_q
    key = torch.arange(seqlen_k, device="cuda")[None, :]
    allowed = torch.ones(seqlen_q, seqlen_k, dtype=torch.bool, device="cuda")
    left, right = window
    if causal:
        right = 0 if right < 0 else min(right, 0)
    if left >= 0:
        allowed &= key >= query - left
    if right >= 0:
        allowed &= key <= query + right
    if chunk > 0:
        allowed &= query.div(chunk, rounding_mode="floor") == key.div(chunk, rounding_mode="floor")
    return allowed


def reference(
    inputs: Inputs,
    *,
    causal: bool = False,
    window: tuple[int, int] = (-1, -1),
    chunk: int = 0,
    softcap: float = 0.0,
    qv: torch.Tensor | None = None,
    scale: float | None = None,
) -> tuple[torch.Tensor, torch.Tensor]:
    """Attention in float64: out (batch, seqlen_q, heads, head_dim_v), softmax_lse (batch, heads, seqlen_q).

    A query that sees no key gets zeros and -inf. qv, (batch, seqlen_q, heads, head_dim_v), adds its product with v to
    the scores.
    """
    q, k, v = inputs.exact("q"), inputs.exact("k"), inputs.exact("v")
    group = q.shape[2] // k.shape[2]
    k, v = k.repeat_interleave(group, dim=2), v.repeat_interleave(group, dim=2)
    scores = torch.einsum("bqhd,bkhd->bhqk", q, k)
    width = q.shape[-1]
    if qv is not None:
        scores += torch.einsum("bqhd,bkhd->bhqk", qv.double(), v)
        width += qv.shape[-1]
    scores *= width**-0.5 if scale is None else scale
    if softcap > 0:
        scores = softcap * torch.tanh(scores / softcap)
    allowed = allowed_keys(q.shape[1], k.shape[1], causal=causal, window=window, chunk=chunk)
    scores = scores.masked_fill(~allowed, float("-inf"))
    lse = torch.logsumexp(scores, dim=-1)
    weights = torch.exp(scores - lse[..., None]).nan_to_num(nan=0.0)
    return torch.einsum("bhqk,bkhd->bqhd", weights, v), lse


def relative_error(found: torch.Tensor, expected: torch.Tensor) -> float:
    """Norm of the difference over the norm of what was expected."""
    return float((found.double() - expected).norm() / expected.norm())


def require_close(
    found: tuple[torch.Tensor, torch.Tensor],
    expected: tuple[torch.Tensor, torch.Tensor],
    dtype: torch.dtype,
    *,
    room: float = 1.0,
) -> None:
    """Fail unless output and softmax_lse are within `room` times the dtype's bounds."""
    out, lse = found
    assert out.dtype == (torch.bfloat16 if dtype == FP8 else dtype)
    assert out.shape == expected[0].shape
    assert lse.dtype == torch.float32
    assert lse.shape == expected[1].shape
    error = relative_error(out, expected[0])
    assert error <= room * TOLERANCE[dtype], f"relative error {error:.2e}"
    seen = expected[1].isfinite()
    assert torch.equal(lse.isfinite(), seen)
    difference = float((lse.double() - expected[1])[seen].abs().max())
    assert difference <= room * LSE_TOLERANCE[dtype], f"softmax_lse differs by {difference:.2e}"


def bits(tensor: torch.Tensor) -> torch.Tensor:
    """The tensor as integers of the same width, with its strides: float8 lacks much of what tensors can do."""
    return tensor.view({1: torch.uint8, 2: torch.int16, 4: torch.int32}[tensor.element_size()])


def require_equal_bits(found: torch.Tensor, expected: torch.Tensor) -> None:
    """Fail unless two tensors hold the same bits."""
    assert found.dtype == expected.dtype
    assert torch.equal(bits(found), bits(expected))


def require_equal_results(
    found: tuple[torch.Tensor, torch.Tensor], expected: tuple[torch.Tensor, torch.Tensor]
) -> None:
    """Fail unless two outputs, and two softmax_lse, hold the same bits."""
    for index in range(2):
        require_equal_bits(found[index], expected[index])


def slice_keys(inputs: Inputs, sequence: int, length: int) -> Inputs:
    """One sequence of a batch with its first `length` keys, as a batch of one."""
    one = slice(sequence, sequence + 1)
    return Inputs(
        inputs.q[one],
        inputs.k[one, :length],
        inputs.v[one, :length],
        {name: descale[one] for name, descale in inputs.descales.items()},
    )


def ragged_reference(inputs: Inputs, lengths: list[int], **named: Any) -> tuple[torch.Tensor, torch.Tensor]:
    """The reference where each sequence of the batch sees only its own number of keys."""
    parts = [reference(slice_keys(inputs, index, length), **named) for index, length in enumerate(lengths)]
    return torch.cat([out for out, _ in parts]), torch.cat([lse for _, lse in parts])
