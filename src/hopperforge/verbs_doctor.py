"""The verb doctor: what this machine lacks, for building (engine) or for using what was built (node)."""

from collections.abc import Mapping
from pathlib import Path
from typing import Final

from hopperforge.config.request import parse_keyed
from hopperforge.errors import (
    HopperforgeError,
    InputError,
    NodeTroubleError,
    NothingFitsError,
    NotInstalledError,
    UnreadableIndexError,
)
from hopperforge.model.request import Request
from hopperforge.node.single_file import doctor_source
from hopperforge.run.engines import diagnose
from hopperforge.verbs import Call
from hopperforge.verbs_node import run_program

_HINT: Final = "nox -s doctor -- node index=https://wheels.example/fa3   # or: nox -s doctor -- engine"
_OPTIONS: Final = ("index", "project", "profile", "cuda", "torch", "gpu")
_ENDS: Final[Mapping[type[HopperforgeError], str]] = {
    NotInstalledError: "a wheel of the index fits this machine, and it is not installed",
    NodeTroubleError: "the doctor found something wrong; what, and how to mend it, is above",
    NothingFitsError: "no wheel of the index fits this machine; the reasons are above",
    UnreadableIndexError: "the index cannot be read; the reason is above",
}


def doctor(call: Call) -> None:
    """Say what is missing on this machine and how to install it; starts and changes nothing."""
    match call.words:
        case () | ("engine",):
            _engine(call)
        case ("node", *words):
            _node(call, parse_keyed(words, frozenset({*_OPTIONS, "interpreter"})))
        case _:
            what = " ".join(call.words)
            raise InputError(f"doctor looks at the engine or at the node, not at {what}", hint=_HINT)


def _engine(call: Call) -> None:
    if call.as_json:
        raise InputError("doctor engine has no --json; doctor node has", hint=_HINT)
    images = call.project().images
    lack = None if images is None else call.lack(images, Request())
    call.answer("\n".join(diagnose(call.engines(), root=call.root, lack=lack)))


def _node(call: Call, words: Mapping[str, str]) -> None:
    """Run the doctor in the Python that is to use the package: ours has no torch."""
    if "index" not in words:
        raise InputError("which index? the word index= is missing", hint=_HINT)
    # the program runs elsewhere than we do
    index = words["index"] if "://" in words["index"] else str(Path(words["index"]).absolute())
    options = [f"--{name}={value}" for name, value in {**words, "index": index}.items() if name in _OPTIONS]
    interpreter = words.get("interpreter", "python3")
    run_program(call, "the doctor", doctor_source(), options, interpreter=interpreter, ends=_ENDS)
