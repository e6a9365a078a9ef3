"""What arrays vary over inside shard_map, in the words of each JAX.

JAX tracks over which axes of the mesh the devices hold different values, and wants to be told so of a custom call's
results: by `vma` from JAX 0.7 on, by `manual_axis_type` from 0.10 on. Before that, and with the tracking turned off
(`check_vma=False`), nothing varies.
"""

from __future__ import annotations

import inspect
from typing import Any

import jax
from jax.sharding import NamedSharding, PartitionSpec

Axes = frozenset[str]
CAN_BE_TOLD = bool({"vma", "manual_axis_type"} & set(inspect.signature(jax.ShapeDtypeStruct).parameters))


def varying(array: Any) -> Axes:
    """The axes of the mesh that an array varies over."""
    if not CAN_BE_TOLD:
        return frozenset()
    kind = jax.typeof(array)
    if hasattr(kind, "manual_axis_type"):
        return frozenset(kind.manual_axis_type.varying)
    return frozenset(kind.vma)


def vary(array: jax.Array, axes: Axes) -> jax.Array:
    """The array as one that varies over these axes as well."""
    missing = tuple(sorted(axes - varying(array)))
    if not missing:
        return array
    if hasattr(jax.lax, "pcast"):
        return jax.lax.pcast(array, missing, to="varying")
    return jax.lax.pvary(array, missing)


def shape_that_varies(shape: Any, axes: Axes, like: jax.Array) -> jax.ShapeDtypeStruct:
    """The shape of a result that varies over these axes, of the mesh that `like` is on."""
    sharding = NamedSharding(jax.typeof(like).sharding.mesh, PartitionSpec())
    if hasattr(jax.sharding, "ManualAxisType"):
        told = {"manual_axis_type": jax.sharding.ManualAxisType(varying=axes)}
    else:
        told = {"vma": axes}
    return jax.ShapeDtypeStruct(shape.shape, shape.dtype, sharding=sharding, **told)
