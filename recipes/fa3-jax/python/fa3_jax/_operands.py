"""The arrays of a call: which shapes and dtypes belong together, decided before anything is launched."""

from __future__ import annotations

from typing import TYPE_CHECKING, Protocol

if TYPE_CHECKING:
    from collections.abc import Sequence

DTYPES = ("float16", "bfloat16", "float8_e4m3fn")


class Shaped(Protocol):
    """An array, a tracer, or a jax.ShapeDtypeStruct."""

    @property
    def shape(self) -> tuple[int, ...]:
        """Its dimensions."""
        ...

    @property
    def dtype(self) -> object:
        """What it holds."""
        ...


def require_operands(query: Shaped, key: Shaped, value: Shaped, *, packed: bool) -> None:
    """Refuse arrays that do not belong together.

    Dense: query (batch, seqlen_q, heads, head_dim), key (batch, seqlen_k, heads_k, head_dim), value (batch, seqlen_k,
    heads_k, head_dim_v). Packed: the same with (total, ...) in place of (batch, seqlen, ...). No axis is of length 0.
    """
    names = {"query": query, "key": key, "value": value}
    axes = "(tokens, heads, head_dim)" if packed else "(batch, seqlen, heads, head_dim)"
    for name, array in names.items():
        if len(array.shape) != (3 if packed else 4):
            raise ValueError(f"{name} must be {axes}, and has shape {array.shape}")
    _require_one_dtype(names)
    if any(0 in array.shape for array in names.values()):
        raise ValueError(f"no axis of query, key and value may be of length 0: {_shapes(names)}")
    if not packed and len({array.shape[0] for array in names.values()}) != 1:
        raise ValueError(f"query, key and value must be of one batch: {_shapes(names)}")
    if key.shape[:-1] != value.shape[:-1]:
        raise ValueError(f"key and value must have the same sequences and heads: {_shapes(names)}")
    if query.shape[-1] != key.shape[-1]:
        raise ValueError(f"query and key must have the same head_dim: {_shapes(names)}")
    heads, heads_k = query.shape[-2], key.shape[-2]
    if heads % heads_k:
        raise ValueError(f"the heads of key and value must divide those of query: {_shapes(names)}")


def _require_one_dtype(arrays: dict[str, Shaped]) -> None:
    found = {name: str(array.dtype) for name, array in arrays.items()}
    told = ", ".join(f"{name} {dtype}" for name, dtype in found.items())
    if len(set(found.values())) != 1:
        raise TypeError(f"query, key and value must be of one dtype: {told}")
    if found["query"] not in DTYPES:
        raise TypeError(f"query, key and value must be of {', '.join(DTYPES)}: {told}")


def require_lengths(cu_seqlens_q: Shaped, cu_seqlens_k: Shaped) -> None:
    """Refuse offsets of packed sequences that are not int32 of shape (batch + 1,), both of one batch."""
    for name, array in {"cu_seqlens_q": cu_seqlens_q, "cu_seqlens_k": cu_seqlens_k}.items():
        if len(array.shape) != 1 or array.shape[0] < 2 or str(array.dtype) != "int32":
            raise ValueError(f"{name} must be int32 of shape (batch + 1,), and is {array.dtype}{list(array.shape)}")
    if cu_seqlens_q.shape != cu_seqlens_k.shape:
        raise ValueError(
            f"cu_seqlens_q and cu_seqlens_k must be of one batch: {cu_seqlens_q.shape[0]} and "
            f"{cu_seqlens_k.shape[0]} offsets"
        )


def require_descales(descales: Sequence[Shaped], query: Shaped, *, batch: int, heads_k: int) -> None:
    """Refuse descales that are not float32 (batch, heads_k), or that are given for another dtype than float8."""
    if str(query.dtype) != "float8_e4m3fn":
        raise TypeError(f"descales are for float8_e4m3fn, and query is {query.dtype}")
    for name, array in zip(("query_descale", "key_descale", "value_descale"), descales, strict=True):
        if array.shape != (batch, heads_k) or str(array.dtype) != "float32":
            raise ValueError(
                f"{name} must be float32 of shape (batch, heads of key) = ({batch}, {heads_k}), "
                f"and is {array.dtype}{list(array.shape)}"
            )


def _shapes(arrays: dict[str, Shaped]) -> str:
    return ", ".join(f"{name} {array.shape}" for name, array in arrays.items())
