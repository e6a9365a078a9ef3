"""The verbs that measure on this machine's GPU: verify-install, bench, memory.

They run in the Python that has torch and the package, which is not ours, as one file (`node/gpu`) that needs nothing of
ours; `program=FILE` writes that file for a node that has no hopperforge.
"""

from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Final

from hopperforge.config.request import parse_keyed
from hopperforge.errors import (
    HopperforgeError,
    InputError,
    NodeTroubleError,
    NotInstalledError,
    SmokeError,
    StorageError,
    TrustError,
)
from hopperforge.node.gpu.single_program import node_program
from hopperforge.node.gpu.words import WordsError, parse_bench, parse_memory, parse_verify
from hopperforge.run.files import write_atomic
from hopperforge.verbs import Call
from hopperforge.verbs_node import run_program

_OWN: Final = ("interpreter", "program")
_PATHS: Final = ("out", "key", "record")
_ENDS: Final[Mapping[type[HopperforgeError], str]] = {
    InputError: "that Python refused the words, or a file that they name; see above",
    SmokeError: "a check on the GPU failed, or could not be made; see above",
    StorageError: "the results cannot be written; see above",
    TrustError: "the package is not proven by a signature; see above",
    NotInstalledError: "the package is not installed in that Python; see above",
    NodeTroubleError: "something is wrong on this machine; what, and how to mend it, is above",
}


def bench(call: Call) -> None:
    """Time implementations of attention over a grid of shapes, in turns; JSON, CSV and a chart with out=."""
    _measure(call, "bench", parse_bench)


def memory(call: Call) -> None:
    """Measure the peak memory of implementations of attention over the sequence length."""
    _measure(call, "memory", parse_memory)


def verify_install(call: Call) -> None:
    """Look at the whole chain from the GPU to the kernels of an installed package."""
    _measure(call, "verify-install", parse_verify)


def _measure(call: Call, verb: str, parse: Callable[[Sequence[str]], object]) -> None:
    """Read the words here, so that wrong ones are said at once, and run the verb there."""
    ours = [word for word in call.words if word.startswith(tuple(f"{key}=" for key in _OWN))]
    own = parse_keyed(ours, frozenset(_OWN))
    words = [word for word in call.words if word not in ours]
    try:
        parse(words)
    except WordsError as error:
        raise InputError(error.sentence, detail=error.detail, hint=error.hint) from error
    if "program" in own:
        _write_program(call, Path(own["program"]), (verb, *words))
        return
    there = (verb, *map(_absolute, words))
    run_program(call, verb, node_program(), there, interpreter=own.get("interpreter", "python3"), ends=_ENDS)


def _absolute(word: str) -> str:
    """Name files from the root, for the program is run elsewhere than we are."""
    key, equals, value = word.partition("=")
    if equals and key in _PATHS:
        return f"{key}=" + ",".join(str(Path(part).absolute()) for part in value.split(","))
    return str(Path(word).absolute()) if word.endswith(".whl") else word


def _write_program(call: Call, place: Path, words: Sequence[str]) -> None:
    write_atomic(place, node_program())
    call.answer(f"written: {place}; on the node: python3 {place.name} {' '.join(words)}")
