"""How each backend is called. Which one may be called, and for what, is decided before: see `_rules`.

All take q, k, v in (batch, seqlen, heads, head_dim) and return the output, and the log-sum-exp (batch, heads,
seqlen_q) where it is asked for, else None.
"""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch.nn.attention import SDPBackend, sdpa_kernel
from torch.nn.functional import scaled_dot_product_attention

from ._eager import by_heads, eager
from ._machine import FUNCTIONS
from ._parts import part
from ._words import UNLIMITED, Words, visible

Answer = tuple[torch.Tensor, torch.Tensor | None]
Runner = Callable[[torch.Tensor, torch.Tensor, torch.Tensor, Words], Answer]


def run_backend(backend: str, q: torch.Tensor, k: torch.Tensor, v: torch.Tensor, words: Words) -> Answer:
    """Attend by one backend."""
    return _RUNNERS[backend](q, k, v, words)


def _run_eager(q: torch.Tensor, k: torch.Tensor, v: torch.Tensor, words: Words) -> Answer:
    out, lse = eager(q, k, v, words)
    return out, lse if words.lse else None


def _run_fa3(backend: str) -> Runner:
    def run(q: torch.Tensor, k: torch.Tensor, v: torch.Tensor, words: Words) -> Answer:
        answer = FUNCTIONS[backend](
            *_rows_whole(q, k, v),
            softmax_scale=words.scale,
            causal=words.causal,
            window_size=words.window or UNLIMITED,
            softcap=words.softcap,
            deterministic=words.deterministic,
            return_attn_probs=words.lse,
        )
        return _answer(answer, words)

    return run


def _run_fa2(q: torch.Tensor, k: torch.Tensor, v: torch.Tensor, words: Words) -> Answer:
    answer = FUNCTIONS["flash_attn"](
        *_rows_whole(q, k, v),
        dropout_p=words.dropout,
        softmax_scale=words.scale,
        causal=words.causal,
        window_size=words.window or UNLIMITED,
        softcap=words.softcap,
        deterministic=words.deterministic,
        return_attn_probs=words.lse,
    )
    return _answer(answer, words)


def _run_fp32(q: torch.Tensor, k: torch.Tensor, v: torch.Tensor, words: Words) -> Answer:
    answer = FUNCTIONS["flash_attention"](
        q,
        k,
        v,
        causal=words.causal,
        softmax_scale=words.scale,
        bias=None if words.bias is None else words.bias.to(q.dtype),
        mask=words.mask,
        dropout=words.dropout,
        return_lse=words.lse,
    )
    return _answer(answer, words)


def _rows_whole(*tensors: torch.Tensor) -> tuple[torch.Tensor, ...]:
    """The kernels want the elements of a head side by side."""
    return tuple(tensor if tensor.stride(-1) == 1 else tensor.contiguous() for tensor in tensors)


def _answer(answer: torch.Tensor | tuple[torch.Tensor, ...], words: Words) -> Answer:
    """Tell output from log-sum-exp; FA2 says +inf, and not -inf, of a query that sees no key."""
    if isinstance(answer, torch.Tensor):
        return answer, None
    out, lse = answer[0], answer[1]
    return out, lse.masked_fill(lse == float("inf"), float("-inf")) if words.lse else None


# torch's own: heads before rows, causal aligned with the first key, and unsure of queries that see no key.


def _with_lse(backend: str, q: torch.Tensor, k: torch.Tensor, v: torch.Tensor, words: Words) -> Answer:
    """Ask the kernel itself; it is asked of lengths that are aligned, and no words but causal and scale."""
    heads = q.shape[2]
    inputs = (q.transpose(1, 2), by_heads(k, heads), by_heads(v, heads))
    out, lse = part(backend, *inputs, causal=words.causal, scale=words.scale)
    return out.transpose(1, 2), lse


def _run_sdpa(backend: str, kernel: SDPBackend) -> Runner:
    def run(q: torch.Tensor, k: torch.Tensor, v: torch.Tensor, words: Words) -> Answer:
        heads = q.shape[2]
        if words.lse:
            return _with_lse(backend, q, k, v, words)
        added, answered = _added(q, k, words)
        with sdpa_kernel([kernel]):
            out = scaled_dot_product_attention(
                q.transpose(1, 2),
                by_heads(k, heads),
                by_heads(v, heads),
                attn_mask=added,
                dropout_p=words.dropout,
                is_causal=words.causal and added is None,
                scale=words.scale,
            )
        if answered is not None:
            out = out.masked_fill(~answered, 0.0)
        return out.transpose(1, 2), None

    return run


def _added(q: torch.Tensor, k: torch.Tensor, words: Words) -> tuple[torch.Tensor | None, torch.Tensor | None]:
    """The mask for SDPA that says what all words together do, and which queries see a key; None for both if not needed.

    A query that sees none is shown every key and its output cleared afterwards, so that no kernel has to divide by
    zero, forward or backward.
    """
    aligned = words.window is None and q.shape[1] == k.shape[1]
    if words.mask is None and words.bias is None and aligned:
        return None, None
    seen = visible(words, q.shape[1], k.shape[1], q.device)
    if words.bias is None:
        mask = _both(words.mask, seen)
        if mask is None:
            return None, None
        answered = mask.any(-1, keepdim=True)
        return mask | ~answered, answered
    bias = words.bias if seen is None else words.bias.masked_fill(~seen, float("-inf"))
    answered = (bias > float("-inf")).any(-1, keepdim=True)
    return bias.masked_fill(~answered, 0.0).to(q.dtype), answered


def _both(mask: torch.Tensor | None, seen: torch.Tensor | None) -> torch.Tensor | None:
    if mask is None or seen is None:
        return mask if seen is None else seen
    return mask & seen


_RUNNERS: dict[str, Runner] = {
    "fa3_fwd": _run_fa3("fa3_fwd"),
    "flash_attn_3": _run_fa3("flash_attn_3"),
    "flash_attn": _run_fa2,
    "flash_attention": _run_fp32,
    "sdpa_cudnn": _run_sdpa("sdpa_cudnn", SDPBackend.CUDNN_ATTENTION),
    "sdpa_flash": _run_sdpa("sdpa_flash", SDPBackend.FLASH_ATTENTION),
    "sdpa_efficient": _run_sdpa("sdpa_efficient", SDPBackend.EFFICIENT_ATTENTION),
    "sdpa_math": _run_sdpa("sdpa_math", SDPBackend.MATH),
    "eager": _run_eager,
}
