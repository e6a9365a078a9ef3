"""The custom calls with everything JAX does to them: vmap folds its axis into the batch, partitioners split them.

Each combination of options and layout is put together once. Only `forward` and `backward` are used elsewhere.
"""

from __future__ import annotations

from functools import lru_cache, partial
from typing import TYPE_CHECKING, Any

import jax
import jax.numpy as jnp
from jax.custom_batching import custom_vmap

from . import _calls
from ._manual import varying
from ._sharding import layouts, spread

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from ._options import Options

Arrays = tuple[jax.Array, ...]


def forward(options: Options, *operands: jax.Array) -> Arrays:
    """Attention's output and LSE; see _calls.forward."""
    return _call(options, operands, backward=False)


def backward(options: Options, *operands: jax.Array) -> Arrays:
    """Gradients of query, key and value; see _calls.backward."""
    return _call(options, operands, backward=True)


def _call(options: Options, operands: Arrays, *, backward: bool) -> Arrays:
    heads, heads_k = operands[0].shape[-2], operands[1].shape[-2]
    return tuple(_whole(options, heads, heads_k, backward=backward)(*operands))


@lru_cache(maxsize=1024)
def _whole(options: Options, heads: int, heads_k: int, *, backward: bool) -> Callable[..., Any]:
    """The call that can be batched and split."""
    packed = options.lengths is not None
    call = partial(_calls.backward if backward else _calls.forward, options)
    operands, results = layouts(packed=packed, descaled=options.descaled, backward=backward)
    whole = spread(call, operands, results, heads_k=heads_k, group=heads // heads_k)

    def batchable(*arrays: jax.Array) -> Arrays:
        if any(map(varying, arrays)):
            return call(*arrays)  # inside shard_map each device has its part already
        return tuple(whole(*arrays))

    made = custom_vmap(batchable)
    made.def_vmap(partial(_sequential if packed else _folded, made, len(results)))
    return made


def _folded(
    call: Callable[..., Any], count: int, size: int, batched: Sequence[bool], *arrays: jax.Array
) -> tuple[Arrays, tuple[bool, ...]]:
    """Dense: one call of `size` times the batch, its first axis being the two of them; none where `size` is 0."""
    if size == 0:
        return _nothing(call, batched, *arrays), (True,) * count
    whole = [
        array if is_batched else jnp.broadcast_to(array, (size, *array.shape))
        for array, is_batched in zip(arrays, batched, strict=True)
    ]
    results = call(*(array.reshape(-1, *array.shape[2:]) for array in whole))
    return tuple(result.reshape(size, -1, *result.shape[1:]) for result in results), (True,) * count


def _nothing(call: Callable[..., Any], batched: Sequence[bool], *arrays: jax.Array) -> Arrays:
    """The results of no call at all, of the shapes that each call would give."""
    one = [
        jax.ShapeDtypeStruct(array.shape[1:] if is_batched else array.shape, array.dtype)
        for array, is_batched in zip(arrays, batched, strict=True)
    ]
    return tuple(jnp.zeros((0, *result.shape), result.dtype) for result in jax.eval_shape(call, *one))


def _sequential(
    call: Callable[..., Any], count: int, size: int, batched: Sequence[bool], *arrays: jax.Array
) -> tuple[Arrays, tuple[bool, ...]]:
    """Packed: one call after the other, for offsets cannot leave gaps between sequences."""
    del size
    mapped = [array for array, is_batched in zip(arrays, batched, strict=True) if is_batched]

    def one(parts: Sequence[jax.Array]) -> Arrays:
        left = iter(parts)
        chosen = [next(left) if is_batched else array for array, is_batched in zip(arrays, batched, strict=True)]
        return tuple(call(*chosen))

    return tuple(jax.lax.map(one, mapped)), (True,) * count
