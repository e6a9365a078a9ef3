"""The two custom calls, on arrays that lie on one device.

The workspace is a result of the call that is thrown away, not memory of XLA's scratch allocator: results are placed by
XLA when it compiles, so their addresses hold for every replay of a CUDA graph ("command buffer"). What a handler takes
from the scratch allocator goes back when the handler returns, long before a graph that it was captured into runs.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import jax
import jax.numpy as jnp
import numpy as np

from ._library import BACKWARD, FORWARD, Shapes, workspace_bytes
from ._manual import shape_that_varies, vary, varying

if TYPE_CHECKING:
    from collections.abc import Sequence

    from ._options import Options

Arrays = tuple[jax.Array, ...]


def batch_of(options: Options, query: Any, others: Sequence[Any]) -> int:
    """The number of sequences: from the query's shape, or from the offsets of packed ones, the first of `others`."""
    return int(query.shape[0]) if options.lengths is None else int(others[0].shape[0]) - 1


def forward_shapes(options: Options, query: Any, key: Any, value: Any, others: Sequence[Any]) -> tuple[Any, ...]:
    """Shapes of the output, the LSE and the workspace; raises what the library would say of the call."""
    shapes = Shapes(str(query.dtype), query.shape, key.shape, value.shape[-1], batch_of(options, query, others))
    size = workspace_bytes(options, shapes, backward=False)
    out = jnp.bfloat16 if shapes.dtype == "float8_e4m3fn" else query.dtype
    rows = (query.shape[0], query.shape[2], query.shape[1]) if options.lengths is None else query.shape[1::-1]
    return (
        jax.ShapeDtypeStruct((*query.shape[:-1], value.shape[-1]), out),
        jax.ShapeDtypeStruct(rows, jnp.float32),
        jax.ShapeDtypeStruct((size,), jnp.uint8),
    )


def backward_shapes(options: Options, query: Any, key: Any, value: Any, others: Sequence[Any]) -> tuple[Any, ...]:
    """Shapes of the gradients and the workspace; raises what the library would say of the call."""
    shapes = Shapes(str(query.dtype), query.shape, key.shape, value.shape[-1], batch_of(options, query, others))
    size = workspace_bytes(options, shapes, backward=True)
    gradients = (jax.ShapeDtypeStruct(array.shape, array.dtype) for array in (query, key, value))
    return (*gradients, jax.ShapeDtypeStruct((size,), jnp.uint8))


def forward(options: Options, query: jax.Array, key: jax.Array, value: jax.Array, *others: jax.Array) -> Arrays:
    """Attention's output and LSE. `others` are the offsets of packed sequences, then the descales."""
    shapes = forward_shapes(options, query, key, value, others)
    attributes = _attributes(options, num_splits=np.int64(options.num_splits), descaled=options.descaled)
    return _call(FORWARD, shapes, (query, key, value, *others), attributes)[:-1]


def backward(options: Options, *operands: jax.Array) -> Arrays:
    """Gradients of query, key and value.

    Operands are query, key, value, the output, the LSE, the output's gradient, then the offsets of packed sequences.
    """
    query, key, value = operands[:3]
    shapes = backward_shapes(options, query, key, value, operands[6:])
    attributes = _attributes(options, deterministic=options.deterministic)
    return _call(BACKWARD, shapes, operands, attributes)[:-1]


def _attributes(options: Options, **more: object) -> dict[str, object]:
    """The attributes both handlers read; the longest sequences are 0 where none are packed."""
    queries, keys = options.lengths or (0, 0)
    return {
        "softmax_scale": np.float64(options.softmax_scale),
        "softcap": np.float64(options.softcap),
        "causal": options.causal,
        "window_left": np.int64(options.window[0]),
        "window_right": np.int64(options.window[1]),
        "packed": options.lengths is not None,
        "max_seqlen_q": np.int64(queries),
        "max_seqlen_k": np.int64(keys),
        **more,
    }


def _call(target: str, shapes: tuple[Any, ...], operands: Arrays, attributes: dict[str, object]) -> Arrays:
    """Make the custom call; inside shard_map its results vary over what any operand varies over."""
    axes: frozenset[str] = frozenset().union(*map(varying, operands))
    if axes:
        operands = tuple(vary(array, axes) for array in operands)
        shapes = tuple(shape_that_varies(shape, axes, operands[0]) for shape in shapes)
    call = jax.ffi.ffi_call(target, shapes, vmap_method="sequential")
    return tuple(call(*operands, **attributes))
