"""The chooser of the page for people: its questions, and which answers lead to which package.

The page's script picks the first package that has every answer; which those are, and in which order, is decided here.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Final

from hopperforge.index.served import GPUS, Choices
from hopperforge.index.site_rows import Row, best_first
from hopperforge.model.cell import ANY_PLATFORM
from hopperforge.model.keys import JsonValue


@dataclass(frozen=True, slots=True, kw_only=True)
class Question:
    """A question: its key, what is asked, what shows the answer; one that is not `usual` is asked if it matters."""

    key: str
    label: str
    command: str = ""
    note: str = ""
    usual: bool = True


QUESTIONS: Final = (
    Question(key="project", label="Package", usual=False),
    Question(
        key="cuda", label="CUDA", command="torch.version.cuda", note="if yours is not here, take the next older one"
    ),
    Question(key="torch", label="torch", command="torch.__version__"),
    Question(key="python", label="Python", command="python3 --version"),
    Question(key="gpu", label="GPU", command="nvidia-smi -L"),
    Question(key="machine", label="Machine", command="uname -m", usual=False),
    Question(key="profile", label="Profile", note="what is compiled in: compared below"),
)


@dataclass(frozen=True, slots=True, kw_only=True)
class Field:
    """A question with the answers that there are; `start` is the one marked at first."""

    question: Question
    options: tuple[str, ...]
    start: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Chooser:
    """What is asked, and `packages`: for the script, each with its row, its version and the answers that lead to it."""

    fields: tuple[Field, ...]
    packages: tuple[Mapping[str, JsonValue], ...]


def make_chooser(rows: Sequence[Row], choices: Choices) -> Chooser:
    """Ask what tells the packages apart, among those that may be offered."""
    offered = _without_hidden(best_first(rows))
    start = next((answers for row, answers in offered if row.entry.default), offered[0][1] if offered else {})
    fields = (
        Field(question=question, options=options, start=_start(question.key, start))
        for question in QUESTIONS
        if (options := _options(question.key, offered, choices))
        if question.usual or len(options) > 1
    )
    packages = tuple(
        {"row": row.anchor, "version": row.entry.version, "unproven": row.entry.unproven, "answers": _json(answers)}
        for row, answers in offered
    )
    return Chooser(fields=tuple(fields), packages=packages)


Answers = Mapping[str, tuple[str, ...]]


def _without_hidden(rows: Sequence[Row]) -> list[tuple[Row, Answers]]:
    """Leave out what can never be picked: a package that has the same answers as a better one."""
    best: dict[tuple[tuple[str, ...], ...], tuple[Row, Answers]] = {}
    machines = tuple(sorted({machine for row in rows for machine in row.machines} - {ANY_PLATFORM}))
    for row in rows:
        answers = _answers(row, machines)
        best.setdefault(tuple(answers.values()), (row, answers))
    return list(best.values())


def _answers(row: Row, machines: tuple[str, ...]) -> Answers:
    """List what leads to a package; one for any machine is for each of `machines`, those that the others are for."""
    return {
        "project": (row.entry.project,),
        "cuda": row.served.cudas,
        "torch": row.served.torches,
        "python": row.served.pythons,
        "gpu": row.served.gpus,
        "machine": machines if row.machines == (ANY_PLATFORM,) else row.machines,
        "profile": (row.entry.profile,),
    }


def _options(key: str, offered: Sequence[tuple[Row, Answers]], choices: Choices) -> tuple[str, ...]:
    """List the answers to one question that lead somewhere, in the order people expect."""
    given = {value for _, answers in offered for value in answers[key]}
    defaults = [row.entry.profile for row, _ in offered if row.entry.default]
    first: Mapping[str, Sequence[str]] = {
        "cuda": [str(cuda) for cuda in choices.cudas],
        "torch": choices.torches,
        "python": choices.pythons,
        "gpu": list(GPUS.values())[::-1],
        "profile": defaults,
    }
    return tuple(one for one in dict.fromkeys([*first.get(key, ()), *sorted(given)]) if one in given)


def _start(key: str, answers: Answers) -> str:
    """Begin with the newest of what the best package serves; of GPUs with the first, which is the newest too."""
    values = answers.get(key, ())
    return (values[0] if key == "gpu" else values[-1]) if values else ""


def _json(answers: Answers) -> JsonValue:
    return {key: list(values) for key, values in answers.items()}
