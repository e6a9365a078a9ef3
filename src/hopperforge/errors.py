"""Every error hopperforge raises on purpose.

An error says what happened in one sentence, may add indented detail, and may name the next command to type.
Each class owns one exit code; `cli` is the only place that prints an error or exits.
Codes 1 (a bug of ours) and 130 (interrupted) have no class: they belong to no stage.
"""

from collections.abc import Sequence
from typing import ClassVar

BUG_EXIT_CODE = 1
INTERRUPTED_EXIT_CODE = 130


class HopperforgeError(Exception):
    """Base of all deliberate errors: a sentence, detail lines, and a hint the user can type."""

    exit_code: ClassVar[int]
    meaning: ClassVar[str]

    def __init__(self, sentence: str, *, detail: Sequence[str] = (), hint: str | None = None) -> None:
        super().__init__(sentence)
        self.sentence = sentence
        self.detail = tuple(detail)
        self.hint = hint

    def __str__(self) -> str:
        """The printed form: the sentence, the detail indented by two blanks, the hint last."""
        lines = [self.sentence, *(f"  {line}" for line in self.detail)]
        if self.hint is not None:
            lines.append(f"hint: {self.hint}")
        return "\n".join(lines)


class InputError(HopperforgeError):
    """Words, matrix.yaml, a recipe or upstream.yaml are wrong; `detail` lists every problem found."""

    exit_code = 2
    meaning = "the words typed or a configuration file are wrong"


class NothingToBuildError(HopperforgeError):
    """No candidate cell was accepted; `detail` gives the reasons and the nearest cell."""

    exit_code = 3
    meaning = "no cell of the matrix fits what was asked"


class SourceError(HopperforgeError):
    """The source could not be fetched, does not match its hash, or a patch does not apply."""

    exit_code = 4
    meaning = "source, hash or patch"


class ToolError(HopperforgeError):
    """An engine, a toolkit or a host compiler is missing or not what it should be."""

    exit_code = 5
    meaning = "engine, toolkit or host compiler"


class CompileError(HopperforgeError):
    """A compiler failed; `detail` holds the last lines of its output and the path of the log."""

    exit_code = 6
    meaning = "compilation"


class RepairError(HopperforgeError):
    """auditwheel could not give the wheel a platform tag."""

    exit_code = 7
    meaning = "wheel repair"


class GateError(HopperforgeError):
    """A gate failed; the package stays outside the wheelhouse."""

    exit_code = 8
    meaning = "a gate failed"


class PublishError(HopperforgeError):
    """A package is unproven, not what its record says, its name is taken, or a server did not take it."""

    exit_code = 9
    meaning = "publishing was refused"


class SmokeError(HopperforgeError):
    """The smoke tests or another check failed on the GPU, or no GPU answered."""

    exit_code = 10
    meaning = "the GPU smoke tests, verify-install or bench failed on the GPU, or there is no GPU"


class NotInstalledError(HopperforgeError):
    """The doctor found a wheel that fits the machine and is not installed; verify-install found no package."""

    exit_code = 20
    meaning = "doctor: a wheel of the index fits and is not installed; verify-install: the package is not installed"


class NodeTroubleError(HopperforgeError):
    """The doctor or verify-install found something on the machine to be mended."""

    exit_code = 21
    meaning = "doctor, verify-install: something is wrong on this machine"


class NothingFitsError(HopperforgeError):
    """The doctor found no wheel that fits the machine."""

    exit_code = 22
    meaning = "doctor: no wheel of the index fits this machine"


class UnreadableIndexError(HopperforgeError):
    """The doctor could not read the index."""

    exit_code = 23
    meaning = "doctor: the index cannot be read"


class StorageError(HopperforgeError):
    """A folder of hopperforge cannot be written (disk full, read-only, someone else's), or a store does not answer."""

    exit_code = 11
    meaning = "a folder of hopperforge cannot be written, or an object store does not answer"


class TrustError(HopperforgeError):
    """A signature is missing, not of a trusted key that holds, or not over the package and record at hand."""

    exit_code = 12
    meaning = "a signature is missing, or does not prove the package"
