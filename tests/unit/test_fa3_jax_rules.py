"""What fa3_jax refuses before it asks its library: options and arrays that make no sense, each in a sentence.

The two modules are loaded from the recipe's folder. They need no JAX; what needs it is in tests/integration.
"""

import importlib.util
import sys
from collections.abc import Callable
from pathlib import Path
from types import ModuleType, SimpleNamespace
from typing import Any

import pytest

FOLDER = Path(__file__).parents[2] / "recipes" / "fa3-jax" / "python" / "fa3_jax"

Load = Callable[[str], ModuleType]


@pytest.fixture
def load(monkeypatch: pytest.MonkeyPatch) -> Load:
    """Load a module of the package that needs nothing but Python."""

    def load_module(name: str) -> ModuleType:
        monkeypatch.setattr(sys, "dont_write_bytecode", True)  # the folder goes into wheels as it is
        spec = importlib.util.spec_from_file_location(f"fa3_jax_{name}", FOLDER / f"{name}.py")
        assert spec is not None
        assert spec.loader is not None
        module = importlib.util.module_from_spec(spec)
        monkeypatch.setitem(sys.modules, spec.name, module)  # dataclasses look their module up
        spec.loader.exec_module(module)
        return module

    return load_module


def array(*shape: int, dtype: str = "bfloat16") -> SimpleNamespace:
    return SimpleNamespace(shape=shape, dtype=dtype)


def options(module: ModuleType, **changes: Any) -> Any:
    plain = {"softmax_scale": None, "causal": False, "window": None, "softcap": 0.0}
    return module.make_options(64, **{**plain, **changes})


class Traced:
    """Like an array that is traced: neither a float nor an index."""

    def __float__(self) -> float:
        raise TypeError("traced")


def test_options_left_out_are_filled_in(load: Load) -> None:
    module = load("_options")
    found = options(module)
    assert (found.softmax_scale, found.window, found.num_splits) == (0.125, (-1, -1), 1)
    assert hash(found) == hash(options(module))
    assert options(module, softmax_scale=0.5, window=(3, -1), causal=True) == module.Options(
        softmax_scale=0.5, causal=True, window=(3, -1)
    )


@pytest.mark.parametrize(
    ("changes", "kind", "words"),
    [
        ({"softmax_scale": 0.0}, ValueError, "softmax_scale must be above 0 and finite, and is 0.0"),
        ({"softmax_scale": float("nan")}, ValueError, "softmax_scale must be above 0 and finite, and is nan"),
        ({"softmax_scale": Traced()}, TypeError, "softmax_scale must be a Python number that is known while tracing"),
        ({"softcap": -1.0}, ValueError, "softcap must be 0"),
        ({"softcap": float("inf")}, ValueError, "softcap must be 0"),
        ({"num_splits": 0}, ValueError, "num_splits must be from 1 to 256, and is 0"),
        ({"num_splits": 257}, ValueError, "num_splits must be from 1 to 256, and is 257"),
        ({"num_splits": 1.5}, TypeError, "num_splits must be a Python number .* type float"),
        ({"window": (1, 2, 3)}, ValueError, "window must be .left, right."),
        ({"window": (-2, 0)}, ValueError, "each side of window must be -1"),
        ({"window": (Traced(), 0)}, TypeError, "window must be a Python number .* type Traced"),
        ({"lengths": (0, 5)}, ValueError, "must be at least 1, and are 0 and 5"),
        ({"lengths": (5, Traced())}, TypeError, "max_seqlen_k must be a Python number"),
    ],
)
def test_options_that_make_no_sense(load: Load, changes: dict[str, Any], kind: type[Exception], words: str) -> None:
    with pytest.raises(kind, match=words):
        options(load("_options"), **changes)


def test_arrays_that_belong_together(load: Load) -> None:
    module = load("_operands")
    module.require_operands(array(2, 5, 8, 64), array(2, 9, 2, 64), array(2, 9, 2, 128), packed=False)
    module.require_operands(array(50, 8, 64), array(90, 8, 64), array(90, 8, 64), packed=True)
    module.require_lengths(array(4, dtype="int32"), array(4, dtype="int32"))
    descales = [array(2, 4, dtype="float32")] * 3
    module.require_descales(descales, array(2, 5, 8, 64, dtype="float8_e4m3fn"), batch=2, heads_k=4)


Q = (2, 5, 8, 64)


@pytest.mark.parametrize(
    ("shapes", "words"),
    [
        (((2, 5, 64), Q, Q), r"query must be \(batch, seqlen, heads, head_dim\), and has shape \(2, 5, 64\)"),
        ((Q, Q, (1, 5, 8, 64)), "must be of one batch"),
        ((Q, Q, (2, 6, 8, 64)), "key and value must have the same sequences and heads"),
        ((Q, (2, 5, 8, 32), (2, 5, 8, 32)), "query and key must have the same head_dim"),
        ((Q, (2, 5, 3, 64), (2, 5, 3, 64)), "the heads of key and value must divide those of query"),
        (
            (Q, (2, 5, 0, 64), (2, 5, 0, 64)),
            r"no axis of query, key and .* length 0: .* key \(2, 5, 0, 64\)",
        ),
        (((2, 5, 8, 0),) * 3, "no axis of query, key and value may be of length 0"),
        ((Q, Q, (2, 5, 8, 0)), "no axis of query, key and value may be of length 0"),
        (((2, 5, 0, 64), Q, Q), "no axis of query, key and value may be of length 0"),
        (((0, 5, 8, 64),) * 3, "no axis of query, key and value may be of length 0"),
        (((2, 0, 8, 64), Q, Q), "no axis of query, key and value may be of length 0"),
        ((Q, (2, 0, 8, 64), (2, 0, 8, 64)), "no axis of query, key and value may be of length 0"),
    ],
)
def test_shapes_that_do_not_fit(load: Load, shapes: tuple[tuple[int, ...], ...], words: str) -> None:
    with pytest.raises(ValueError, match=words):
        load("_operands").require_operands(*(array(*shape) for shape in shapes), packed=False)


def test_packed_arrays_have_three_dimensions(load: Load) -> None:
    with pytest.raises(ValueError, match=r"query must be \(tokens, heads, head_dim\)"):
        load("_operands").require_operands(array(*Q), array(*Q), array(*Q), packed=True)


def test_packed_arrays_have_rows(load: Load) -> None:
    with pytest.raises(ValueError, match="no axis of query, key and value may be of length 0"):
        load("_operands").require_operands(array(9, 8, 64), array(0, 8, 64), array(0, 8, 64), packed=True)


@pytest.mark.parametrize(
    ("dtypes", "words"),
    [
        (("bfloat16", "float16", "bfloat16"), "must be of one dtype: query bfloat16, key float16, value bfloat16"),
        (("float32",) * 3, "must be of float16, bfloat16, float8_e4m3fn: query float32"),
    ],
)
def test_dtypes_that_do_not_fit(load: Load, dtypes: tuple[str, ...], words: str) -> None:
    with pytest.raises(TypeError, match=words):
        load("_operands").require_operands(*(array(*Q, dtype=dtype) for dtype in dtypes), packed=False)


@pytest.mark.parametrize(
    ("first", "second", "words"),
    [
        (array(4, dtype="int64"), array(4, dtype="int32"), r"cu_seqlens_q must be int32 .* is int64\[4\]"),
        (array(4, dtype="int32"), array(1, dtype="int32"), "cu_seqlens_k must be int32"),
        (array(4, dtype="int32"), array(5, dtype="int32"), "must be of one batch: 4 and 5 offsets"),
    ],
)
def test_offsets_that_do_not_fit(load: Load, first: object, second: object, words: str) -> None:
    with pytest.raises(ValueError, match=words):
        load("_operands").require_lengths(first, second)


def test_descales_that_do_not_fit(load: Load) -> None:
    module = load("_operands")
    query = array(*Q, dtype="float8_e4m3fn")
    right, wrong = array(2, 4, dtype="float32"), array(2, 8, dtype="float32")
    with pytest.raises(ValueError, match=r"key_descale must be float32 of shape .* = \(2, 4\), and is float32\[2, 8\]"):
        module.require_descales([right, wrong, right], query, batch=2, heads_k=4)
    with pytest.raises(TypeError, match="descales are for float8_e4m3fn, and query is bfloat16"):
        module.require_descales([right] * 3, array(*Q), batch=2, heads_k=4)
