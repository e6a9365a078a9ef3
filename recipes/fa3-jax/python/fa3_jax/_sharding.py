"""How the custom calls are spread over devices: by batch and by heads, each device computing its own part.

Sequences and head dimensions are never split. Heads are split as far as the heads of keys and values can be, so that
each device holds whole groups of query heads with their key head. Both of XLA's partitioners are told: Shardy by a
rule of factors, GSPMD by callbacks.
"""

from __future__ import annotations

import inspect
import math
from functools import partial
from typing import TYPE_CHECKING, Any

from jax.experimental.custom_partitioning import custom_partitioning
from jax.sharding import NamedSharding, PartitionSpec

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

# One letter for each axis of an array: b batch, h heads, . neither.
Axes = str
HAS_RULES = "need_replication_factors" in inspect.signature(custom_partitioning.def_partition).parameters


def layouts(*, packed: bool, descaled: bool, backward: bool) -> tuple[tuple[Axes, ...], tuple[Axes, ...]]:
    """The axes of operands and of results.

    The operands are query, key, value, for backward also output, LSE and the output's gradient, then offsets or
    descales; the results are output and LSE, or the three gradients.
    """
    array, lse = (".h.", "h.") if packed else ("b.h.", "bh.")
    others: tuple[Axes, ...] = (".", ".") if packed else ()
    if descaled:
        others = (*others, *((".h" if packed else "bh"),) * 3)
    if backward:
        return (array, array, array, array, lse, array, *others), (array, array, array)
    return (array, array, array, *others), (array, lse)


def spread(
    call: Callable[..., Any], operands: tuple[Axes, ...], results: tuple[Axes, ...], *, heads_k: int, group: int
) -> Callable[..., Any]:
    """Make a call that XLA may split over the devices of a mesh; `group` is the number of query heads per key head."""

    def shardings(mesh: Any, arguments: Sequence[Any]) -> tuple[list[NamedSharding], tuple[NamedSharding, ...]]:
        split = _split(mesh, arguments[0], operands[0], heads_k)
        made = partial(_sharding, mesh, split)
        return [made(axes) for axes in operands], tuple(made(axes) for axes in results)

    def partition(mesh: Any, arguments: Sequence[Any], _: Any) -> tuple[Any, ...]:
        given, made = shardings(mesh, arguments)
        return mesh, call, made, tuple(given)

    def infer(mesh: Any, arguments: Sequence[Any], _: Any) -> tuple[NamedSharding, ...]:
        return shardings(mesh, arguments)[1]

    def fixed(*arrays: Any) -> Any:  # how many arguments there are is asked of the signature
        return call(*arrays)

    spread_call = custom_partitioning(fixed)
    rule = factor_rule(operands, results, heads_k=heads_k, group=group) if HAS_RULES else {}
    spread_call.def_partition(infer_sharding_from_operands=infer, partition=partition, **rule)
    return spread_call


def _split(mesh: Any, query: Any, axes: Axes, heads_k: int) -> dict[str, Any]:
    """The mesh axes that batch and heads are split over, as the query's sharding has it and as far as it goes."""
    spec = getattr(query.sharding, "spec", None)
    if spec is None:
        raise ValueError(
            "fa3_jax can split attention over devices only along the axes of a mesh: "
            "give its arrays a NamedSharding, or call it inside jax.shard_map"
        )
    padded = (*spec, *(None for _ in range(len(axes) - len(spec))))
    sizes = {"b": query.shape[0], "h": heads_k}
    return {
        axis: names
        for axis, names in zip(axes, padded, strict=True)
        if axis in sizes and names is not None and sizes[axis] % _devices(mesh, names) == 0
    }


def _devices(mesh: Any, names: str | tuple[str, ...]) -> int:
    return math.prod(mesh.shape[name] for name in ((names,) if isinstance(names, str) else names))


def _sharding(mesh: Any, split: dict[str, Any], axes: Axes) -> NamedSharding:
    return NamedSharding(mesh, PartitionSpec(*(split.get(axis) for axis in axes)))


def factor_rule(operands: tuple[Axes, ...], results: tuple[Axes, ...], *, heads_k: int, group: int) -> dict[str, Any]:
    """Shardy's rule: which dimensions are one and the same; all but batch and key heads must not be split.

    Query heads are key heads times their group. Every dimension that is neither batch nor heads gets a factor of its
    own: that some are equal (a sequence, a head dimension) needs no saying, for none of them may be split.
    """
    replicated: list[str] = []  # in order of appearance, as Shardy wants it

    def factor(axis: str, *, of_query: bool) -> str:
        if axis == "b":
            return "b"
        if axis == ".":
            replicated.append(f"x{len(replicated)}")
            return replicated[-1]
        if group == 1 or not of_query:
            return "g"
        if "r" not in replicated:
            replicated.append("r")
        return "r" if heads_k == 1 else "(g r)"  # Shardy takes no factor of 1 beside another

    def side(arrays: tuple[Axes, ...], keys: set[int]) -> str:
        return ", ".join(
            " ".join(factor(axis, of_query=index not in keys) for axis in axes) for index, axes in enumerate(arrays)
        )

    descales = {index for index, axes in enumerate(operands) if axes in ("bh", ".h")}
    left = side(operands, {1, 2, *descales})
    right = side(results, {1, 2} if len(results) == 3 else set())
    sizes = {"r": group} if group > 1 and heads_k > 1 else {}
    return {"sharding_rule": f"{left} -> {right}", "need_replication_factors": tuple(replicated), **sizes}
