"""What the profile trimmed is refused in words that name the profile, never computed wrongly."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
import torch
from smoke_common.wheel import FA3_HEAD_DIMS
from smoke_kit import FP8, Subject, make_inputs, reference, require_close

# Switches that change speed or nothing: a plain call works all the same.
SILENT = frozenset({"DISABLE_CLUSTER", "ENABLE_VCOLMAJOR", "none"})


def plain(**asked: Any) -> Callable[[Subject], object]:
    """A call of the plain function with a feature asked for."""

    def call(subject: Subject) -> object:
        return subject.attend(make_inputs(head_dim=subject.head_dim), **asked)

    return call


def cached(**asked: Any) -> Callable[[Subject], object]:
    """A call of the cache function with a feature asked for."""

    def call(subject: Subject) -> object:
        inputs = make_inputs(seqlen_q=5, head_dim=subject.head_dim)
        return subject.interface.flash_attn_with_kvcache(inputs.q, inputs.k, inputs.v, **asked)

    return call


def of_dtype(dtype: torch.dtype) -> Callable[[Subject], object]:
    return lambda subject: subject.attend(make_inputs(head_dim=subject.head_dim, dtype=dtype))


def appended(subject: Subject) -> object:
    new = make_inputs(seqlen_q=5, seqlen_k=5, head_dim=subject.head_dim)
    return cached(k=new.k, v=new.v, cache_seqlens=100)(subject)


def paged(subject: Subject) -> object:
    table = torch.zeros(2, 3, dtype=torch.int32, device="cuda")
    return cached(page_table=table)(subject)


def backward(subject: Subject) -> object:
    inputs = make_inputs(head_dim=subject.head_dim)
    inputs.q.requires_grad_()
    out, _ = subject.attend(inputs)
    return out.sum().backward()


REFUSED: dict[str, Callable[[Subject], object]] = {
    "DISABLE_APPENDKV": appended,
    "DISABLE_BACKWARD": backward,
    "DISABLE_FP16": of_dtype(torch.float16),
    "DISABLE_FP8": of_dtype(FP8),
    "DISABLE_LOCAL": plain(window_size=(16, 16)),
    "DISABLE_PACKGQA": plain(pack_gqa=True),
    "DISABLE_PAGEDKV": paged,
    "DISABLE_SOFTCAP": plain(softcap=15.0),
    "DISABLE_SPLIT": plain(num_splits=2),
    "DISABLE_VARLEN": cached(cache_seqlens=100),
}
HEAD_DIM_PAIRS = {
    **{f"DISABLE_HDIM{dim}": (dim, dim) for dim in FA3_HEAD_DIMS},
    "DISABLE_HDIMDIFF64": (64, 256),
    "DISABLE_HDIMDIFF192": (192, 128),
}


def test_trimmed(subject: Subject, switch: str) -> None:
    """Every switch of the profile, refused, or served by a larger kernel where that is right."""
    if switch in HEAD_DIM_PAIRS:
        require_refused_or_right(subject, *HEAD_DIM_PAIRS[switch])
    elif switch in SILENT:
        inputs = make_inputs(head_dim=subject.head_dim)
        require_close(subject.attend(inputs), reference(inputs), torch.bfloat16)
    elif switch == "DISABLE_SM80":
        with pytest.raises(subject.guard.UnsupportedGPUError, match=f"profile `{subject.build.profile}`"):
            subject.rules.require_architecture(subject.guard._GUARD.build, (8, 0))  # noqa: SLF001  # no such GPU here
    else:
        with pytest.raises(subject.guard.UnsupportedFeatureError) as refusal:
            REFUSED[switch](subject)
        assert f"profile `{subject.build.profile}`" in str(refusal.value)
        assert f"({switch})" in str(refusal.value)


def require_refused_or_right(subject: Subject, head_dim: int, head_dim_v: int) -> None:
    """Head dims without a kernel of their own: right if they go up to a larger one, refused if there is none."""
    inputs = make_inputs(head_dim=head_dim, head_dim_v=head_dim_v)
    larger = [dim for dim in subject.head_dims if dim >= max(head_dim, head_dim_v)]
    # A larger kernel serves equal head dims; different ones only where it replaces one that was trimmed itself.
    if larger and (head_dim == head_dim_v or not subject.has(f"HDIM{head_dim}")):
        try:
            found = subject.attend(inputs)
        except subject.guard.UnsupportedFeatureError:
            assert head_dim != head_dim_v
        else:
            require_close(found, reference(inputs), torch.bfloat16)
        return
    with pytest.raises(subject.guard.UnsupportedFeatureError, match=f"profile `{subject.build.profile}`"):
        subject.attend(inputs)


def test_refusal_in_a_compiled_graph(subject: Subject) -> None:
    """The first run of the graph says the same as an eager call."""
    inputs = make_inputs(head_dim=512)
    torch.compiler.reset()
    compiled = torch.compile(subject.interface.flash_attn_func, fullgraph=True, backend="aot_eager")
    with pytest.raises(RuntimeError, match="head dim 512 was given: no profile has it"):
        compiled(inputs.q, inputs.k, inputs.v)


def test_tensor_on_the_cpu(subject: Subject) -> None:
    inputs = make_inputs(head_dim=subject.head_dim)
    with pytest.raises(subject.guard.UnsupportedGPUError, match="found one on cpu"):
        subject.interface.flash_attn_func(inputs.q.cpu(), inputs.k.cpu(), inputs.v.cpu())


def test_head_dim_of_no_profile(subject: Subject) -> None:
    with pytest.raises(subject.guard.UnsupportedFeatureError, match="head dim 512 was given: no profile has it"):
        subject.attend(make_inputs(head_dim=512))
