"""Runs in a Python that has JAX and fa3_jax, without a GPU: traces, lowers, splits and exports, and prints what it saw.

    python jax_lowering.py FOLDER_OF_THE_PACKAGE
    {"jax": "0.10.2", "refused": "...", ...}

Four devices of the CPU stand for four GPUs where a partitioner is asked: it splits for any platform alike.
"""

import json
import os
import re
import sys
from collections.abc import Callable
from functools import partial
from typing import Any

os.environ["XLA_FLAGS"] = "--xla_force_host_platform_device_count=4"
sys.path.insert(0, sys.argv[1])

import fa3_jax
import jax
import jax.numpy as jnp
import numpy as np
from jax import export
from jax.sharding import Mesh, NamedSharding
from jax.sharding import PartitionSpec as P

HALF = jnp.bfloat16
COLLECTIVES = re.compile(r"all-gather|all-reduce|all-to-all|collective-permute")


def shape(*sizes: int, dtype: Any = HALF, sharding: Any = None) -> Any:
    """An array to trace with."""
    return jax.ShapeDtypeStruct(sizes, dtype, sharding=sharding)


QUERY, KEY = shape(4, 256, 8, 128), shape(4, 256, 2, 128)
PACKED_QUERY, PACKED_KEY, OFFSETS = shape(1000, 8, 128), shape(1000, 2, 128), shape(5, dtype=jnp.int32)


def loss(q: Any, k: Any, v: Any, **named: Any) -> Any:
    """A scalar of dense attention."""
    return fa3_jax.flash_attention(q, k, v, causal=True, **named).astype(jnp.float32).sum()


def packed_loss(q: Any, k: Any, v: Any, offsets: Any) -> Any:
    """A scalar of packed attention."""
    out = fa3_jax.flash_attention_varlen(q, k, v, offsets, offsets, max_seqlen_q=400, max_seqlen_k=400, causal=True)
    return out.astype(jnp.float32).sum()


def lowered(call: Callable[..., Any], *arguments: Any) -> str:
    """The program for CUDA."""
    return str(jax.jit(call).trace(*arguments).lower(lowering_platforms=("cuda",)).as_text())


def calls(program: str) -> list[str]:
    """The names of our calls in a program, in order."""
    return [name.partition("fa3_")[2] for name in re.findall(r"@(hopperforge_fa3_\w+)", program)]


def gradient(function: Callable[..., Any]) -> Callable[..., Any]:
    """Gradients of query, key and value."""
    return jax.grad(function, argnums=(0, 1, 2))  # type: ignore[no-any-return]


def told(call: Callable[[], Any]) -> str:
    """What is raised, as `Kind: message`."""
    try:
        jax.block_until_ready(call())
    except Exception as error:  # noqa: BLE001 - whatever it is, the test reads it
        return f"{type(error).__name__}: {error}"
    return "nothing"


def on_one_device() -> dict[str, Any]:
    """Running is refused; transformations lower to the calls they should."""
    zeros = jnp.zeros((1, 128, 2, 128), HALF)
    forward = partial(fa3_jax.flash_attention, causal=True)
    program = lowered(forward, QUERY, KEY, KEY)
    exported = export.export(jax.jit(forward), platforms=["cuda"], disabled_checks=fa3_jax.export_checks())
    artifact = export.deserialize(exported(QUERY, KEY, KEY).serialize())
    folded = jax.vmap(forward, in_axes=(0, None, None))
    return {
        "refused": told(lambda: forward(zeros, zeros, zeros)),
        "forward": calls(program),
        "attributes": sorted(re.findall(r"(\w+) = (?:true|false|[-\d.e+]+)", program)),
        "exported": [str(aval) for aval in artifact.out_avals],
        "vmap": calls(lowered(folded, shape(3, 4, 256, 8, 128), KEY, KEY)),
        "vmap of nothing": list(jax.vmap(forward, in_axes=(0, None, None))(zeros[:0, None], zeros, zeros).shape),
        "vmap shape": list(jax.eval_shape(folded, shape(3, 4, 256, 8, 128), KEY, KEY).shape),
        "shapes": told(lambda: forward(zeros, zeros[..., :64], zeros)),
        "dtypes": told(lambda: forward(zeros, zeros.astype(jnp.float32), zeros)),
        "traced scale": told(lambda: jax.jit(lambda s: forward(zeros, zeros, zeros, softmax_scale=s))(1.0)),
        "no head dim": told(lambda: forward(*[zeros[..., :0]] * 3)),
        "head dim": told(lambda: forward(*[jnp.zeros((1, 128, 2, 264), HALF)] * 3)),
    }


def with_gradients() -> dict[str, Any]:
    """What needs a profile with more than the forward pass of bfloat16."""
    kept = jax.checkpoint_policies.save_only_these_names(fa3_jax.OUT_NAME, fa3_jax.LSE_NAME)

    def layer(q: Any, k: Any, v: Any) -> Any:
        return loss(jnp.sin(q), k, v)

    eight = shape(4, 256, 8, 128, dtype=jnp.float8_e4m3fn)
    descales = shape(4, 8, dtype=jnp.float32)
    named = ("query_descale", "key_descale", "value_descale")

    def descaled(q: Any, scale: Any) -> Any:
        return fa3_jax.flash_attention_hopper_fwd(q, q, q, num_splits=3, **dict.fromkeys(named, scale))

    zeros = jnp.zeros((1, 128, 2, 128), HALF)
    forward_only = jax.grad(lambda q: fa3_jax.flash_attention_hopper_fwd(q, q, q).astype(jnp.float32).sum())
    return {
        "gradient": calls(lowered(gradient(partial(loss, window=(100, 0), softcap=20.0)), QUERY, KEY, KEY)),
        "recomputed": calls(lowered(jax.value_and_grad(jax.checkpoint(layer)), QUERY, KEY, KEY)),
        "kept": calls(lowered(jax.value_and_grad(jax.checkpoint(layer, policy=kept)), QUERY, KEY, KEY)),
        "packed": calls(lowered(gradient(packed_loss), PACKED_QUERY, PACKED_KEY, PACKED_KEY, OFFSETS)),
        "float8": told(lambda: jax.eval_shape(descaled, eight, descales)),
        "vmap of gradient": [
            list(found.shape)
            for found in jax.eval_shape(
                jax.vmap(gradient(loss), in_axes=(0, None, None)), shape(3, 4, 256, 8, 128), KEY, KEY
            )
        ],
        "gradient of nothing": [
            list(found.shape)
            for found in jax.vmap(gradient(loss), in_axes=(0, None, None))(zeros[:0, None], zeros, zeros)
        ],
        "forward only": told(lambda: forward_only(zeros)),
    }


def split(call: Callable[..., Any], *arguments: Any) -> dict[str, Any]:
    """The shapes that each device's calls give, and what is sent between devices."""
    text = jax.jit(call).lower(*arguments).compile().as_text()
    results = re.findall(r"= \((\w+\[[\d,]+\])[^=]*custom-call\([^\n]*hopperforge_fa3", text)
    return {"results": results, "collectives": sorted(set(COLLECTIVES.findall(text)))}


def on_four_devices() -> dict[str, Any]:
    """Both partitioners, and shard_map, over two by two devices."""
    mesh = Mesh(np.array(jax.devices()).reshape(2, 2), ("data", "model"))
    dense, packed = P("data", None, "model"), P(None, "model")

    def on(array: Any, spec: Any) -> Any:
        return shape(*array.shape, dtype=array.dtype, sharding=NamedSharding(mesh, spec))

    arrays = [on(array, dense) for array in (QUERY, KEY, KEY)]
    rows = [on(array, packed) for array in (PACKED_QUERY, PACKED_KEY, PACKED_KEY)]
    found: dict[str, Any] = {}
    for name in ("gspmd", *(("shardy",) if hasattr(jax, "typeof") and hasattr(jax, "shard_map") else ())):
        jax.config.update("jax_use_shardy_partitioner", name == "shardy")
        found[f"{name} gradient"] = split(gradient(loss), *arrays)
        found[f"{name} packed"] = split(gradient(packed_loss), *rows, on(OFFSETS, P()))
    if hasattr(jax, "shard_map"):
        specs = (dense,) * 3
        found["shard_map"] = split(jax.shard_map(gradient(loss), mesh=mesh, in_specs=specs, out_specs=specs), *arrays)
    return found


def main() -> None:
    """Print all of it as one line of JSON."""
    found = {"jax": jax.__version__, "build": fa3_jax.build_info(), **on_one_device()}
    if "DISABLE_BACKWARD" in found["build"]["switches"]:
        zeros = jnp.zeros((1, 128, 2, 128), HALF)
        found["gradient"] = told(lambda: gradient(loss)(zeros, zeros, zeros))
        found["window"] = told(lambda: loss(zeros, zeros, zeros, window=(8, 8)))
    else:
        found |= {**with_gradients(), **on_four_devices()}
    print(json.dumps(found))  # noqa: T201


if __name__ == "__main__":
    main()
