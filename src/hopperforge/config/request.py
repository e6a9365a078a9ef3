"""The words of a command, `key=value[,value]` and the bare word `all`, read all at once.

`--flags` are not words: `cli` takes them out first. What a missing word means is decided in planning, not here.
"""

import re
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from decimal import Decimal
from typing import Final, TypeVar

from hopperforge.config.problems import nearest, perhaps
from hopperforge.config.project import Project
from hopperforge.errors import InputError
from hopperforge.model.recipe import Recipe
from hopperforge.model.request import DASK, Kernels, Merge, Request, ToolkitChoice
from hopperforge.model.versions import PythonVersion, ToolkitVersion, TorchVersion

ENGINES: Final = ("docker", "podman", "host")
EXECUTORS: Final = ("local", DASK)
WORDS: Final = (
    "recipe",
    "profile",
    "cuda",
    "torch",
    "python",
    "engine",
    "base",
    "executor",
    "scheduler",
    "jobs",
    "memory",
    "kernels",
    "merge",
    "toolkit",
)

# The one word without a value: every cuda, torch and python of the matrix, as far as the other words leave open.
ALL: Final = "all"

_MANY: Final = frozenset({"profile", "cuda", "torch", "python"})
_COMPILING: Final = ("cuda", "base", "executor", "scheduler", "toolkit")
_COUNT: Final = re.compile(r"[1-9][0-9]{0,5}")
_SIZE: Final = re.compile(r"([0-9]{1,9}(?:\.[0-9]{1,9})?)(K|M|G|T)(B|iB)?")
_SCHEDULER: Final = re.compile(r"(tcp|tls)://[^/\s]+:[0-9]{1,5}")
_POWER: Final = {"K": 1, "M": 2, "G": 3, "T": 4}

Value = TypeVar("Value")


def parse_words(words: Sequence[str], project: Project) -> Request:
    """Read the words of a build or a plan; InputError lists every one that is wrong, with what it may have meant."""
    reader = _Reader(project, _split([word for word in words if word != ALL], WORDS, many=_MANY))
    recipe = reader.named("recipe", project.recipes)
    matrix = project.matrix
    every = (matrix.toolkits, matrix.torches, matrix.pythons) if ALL in words else ((), (), ())
    request = Request(
        recipe=recipe,
        profiles=reader.profiles(recipe),
        cuda=reader.versions("cuda", ToolkitVersion.parse, matrix.toolkits) or tuple(every[0]),
        torch=reader.versions("torch", TorchVersion.parse, matrix.torches) or tuple(every[1]),
        python=reader.versions("python", PythonVersion.parse, matrix.pythons) or tuple(every[2]),
        engine=reader.named("engine", ENGINES),
        base=reader.named("base", project.images.bases if project.images else ()),
        executor=reader.named("executor", EXECUTORS),
        scheduler=reader.one("scheduler", parse_scheduler),
        jobs=reader.one("jobs", parse_count),
        memory=reader.one("memory", parse_memory),
        kernels=Kernels(reader.named("kernels", tuple(Kernels)) or Kernels.PACK),
        merge=Merge(reader.named("merge", tuple(Merge)) or Merge.ON),
        toolkit=ToolkitChoice(reader.named("toolkit", tuple(ToolkitChoice)) or ToolkitChoice.AUTO),
        everything=ALL in words,
    )
    unbound = [] if recipe is None else _unbound(reader.split.values, project.recipes[recipe])
    _refuse([*reader.split.problems, *_contradictions(request), *unbound])
    return request


def _unbound(given: Mapping[str, Sequence[str]], recipe: Recipe) -> list[str]:
    """Say which words mean nothing to a recipe, for its front binds to no framework or is its own."""
    found = []
    if not recipe.front.kind.compiled:
        found += [
            f"{word}={','.join(given[word])}: recipe {recipe.name} is of Python alone, and nothing of it is compiled; "
            f"leave {word}= out"
            for word in _COMPILING
            if word in given
        ]
    if not recipe.front.kind.binds_torch:
        found += [
            f"{word}={','.join(given[word])}: recipe {recipe.name} binds to no torch and no Python, so one package "
            f"serves them all; leave {word}= out"
            for word in ("torch", "python")
            if word in given
        ]
    if recipe.front.kind.own and given.get("kernels") == [Kernels.INLINE]:
        found.append(f"kernels=inline is upstream's own build, which recipe {recipe.name} is not of")
    return found


def _contradictions(request: Request) -> list[str]:
    """Say which words do not go together."""
    found = []
    if request.scheduler is not None and request.executor != DASK:
        found.append(f"scheduler={request.scheduler} is for executor={DASK}; write both, or neither")
    if request.executor == DASK and request.engine not in (None, "host"):
        found.append(
            f"executor={DASK} compiles on the workers' hosts, and containers on workers are not there yet: "
            f"write engine=host, or leave engine={request.engine} with executor=local"
        )
    if request.executor == DASK and request.kernels is Kernels.INLINE:
        found.append(f"kernels=inline is upstream's own build, on this machine: it has no executor={DASK}")
    return found


def parse_keyed(words: Sequence[str], allowed: frozenset[str]) -> dict[str, str]:
    """Read `key=value` words of a verb that takes `allowed`, each once; InputError lists every wrong one."""
    split = _split(words, sorted(allowed), many=frozenset())
    _refuse(split.problems)
    return {key: values[0] for key, values in split.values.items()}


def parse_count(text: str) -> int:
    """Read a whole number of at least 1; ValueError otherwise."""
    if _COUNT.fullmatch(text) is None:
        message = f'"{text}" is not a whole number of at least 1'
        raise ValueError(message)
    return int(text)


def parse_scheduler(text: str) -> str:
    """Read the address of a Dask scheduler; ValueError otherwise."""
    if _SCHEDULER.fullmatch(text) is None:
        message = f'"{text}" is not the address of a scheduler; write it as tcp://HOST:8786'
        raise ValueError(message)
    return text


def parse_memory(text: str) -> int:
    """Read bytes: 12GB is 12 * 10^9; 12GiB and 12G, as Slurm and container engines take it, are 12 * 2^30."""
    size = parse_size(text)
    if size == 0:
        message = f'"{text}" is no memory at all'
        raise ValueError(message)
    return size


def parse_size(text: str) -> int:
    """Read bytes as `parse_memory` does, none at all included."""
    match = _SIZE.fullmatch(text)
    if match is None:
        message = f'"{text}" is not a size; write it as 12GB or 12GiB'
        raise ValueError(message)
    base = 1000 if match[3] == "B" else 1024
    return int(Decimal(match[1]) * base ** _POWER[match[2]])


def _refuse(problems: Sequence[str]) -> None:
    """Raise if there are problems: a single one is the sentence, several are listed under a count."""
    if len(problems) == 1:
        raise InputError(problems[0])
    if problems:
        raise InputError(f"{len(problems)} of the words are wrong", detail=problems)


@dataclass(slots=True)
class _Split:
    """The values of each word, in the order given, and what was wrong on the way."""

    values: dict[str, list[str]] = field(default_factory=dict)
    problems: list[str] = field(default_factory=list)


def _split(words: Iterable[str], known: Sequence[str], *, many: frozenset[str]) -> _Split:
    split = _Split()
    for word in words:
        key, equals, value = word.partition("=")
        if not equals:
            split.problems.append(_no_word(word, known))
        elif key not in known:
            split.problems.append(_unknown_word(word, key, value, known))
        elif key in split.values:
            split.problems.append(_given_twice(key, [*split.values[key], value], many))
        else:
            split.values[key] = value.split(",") if key in many else [value]
            split.problems += _bad_values(key, split.values[key])
    return split


def _no_word(word: str, known: Sequence[str]) -> str:
    bare = word.lstrip("-")
    near = nearest(re.split(r"[^A-Za-z]", bare)[0], known)
    meant = f"; perhaps you meant {near}=..." if near else ""
    return f'"{word}" is not a word of the form key=value{meant}'


def _unknown_word(word: str, key: str, value: str, known: Sequence[str]) -> str:
    near = nearest(key.lstrip("-"), known)
    if near is not None:
        return f"unknown word {word}; perhaps you meant {near}={value}"
    return f"unknown word {word}; the words here are: {', '.join(known) or 'none'}"


def _given_twice(key: str, values: Sequence[str], many: frozenset[str]) -> str:
    remedy = f"write {key}={','.join(values)}" if key in many else "give it once"
    return f"{key} is given twice; {remedy}"


def _bad_values(key: str, values: Sequence[str]) -> list[str]:
    if "" in values:
        return [f"{key}={','.join(values)} lacks a value"]
    twice = sorted({value for value in values if values.count(value) > 1})
    return [f"{key} names {value} twice" for value in twice]


@dataclass(slots=True)
class _Reader:
    """Turns split words into values; a wrong one is reported and read as not given."""

    project: Project
    split: _Split

    def named(self, key: str, known: Iterable[str]) -> str | None:
        """One of a few names."""
        names = tuple(str(name) for name in known)
        return next(iter(self._each(key, lambda text: _one_of(text, names))), None)

    def one(self, key: str, parse: Callable[[str], Value]) -> Value | None:
        """A value of its own form."""
        return next(iter(self._each(key, parse)), None)

    def profiles(self, recipe: str | None) -> tuple[str, ...]:
        """Profiles of the recipe, or of any recipe if none was named."""
        recipes = self.project.recipes
        chosen = [recipes[recipe]] if recipe is not None else list(recipes.values())
        known = {name for one in chosen for name in one.profiles}
        owner = f"recipe {chosen[0].name} has" if len(chosen) == 1 else "the recipes have"
        return self._each("profile", lambda text: _profile(text, known, owner))

    def versions(self, key: str, parse: Callable[[str], Value], known: Iterable[Value]) -> tuple[Value, ...]:
        """Versions the matrix has."""
        listed = tuple(known)
        return self._each(key, lambda text: _version(text, parse, listed))

    def _each(self, key: str, parse: Callable[[str], Value]) -> tuple[Value, ...]:
        parsed = []
        for text in filter(None, self.split.values.get(key, ())):
            try:
                parsed.append(parse(text))
            except ValueError as error:
                self.split.problems.append(f"{key}={text}: {error}")
        return tuple(parsed)


def _one_of(text: str, known: Sequence[str]) -> str:
    if text not in known:
        message = f"there {'is only' if len(known) == 1 else 'are'} {', '.join(known)}{perhaps(text, known)}"
        raise ValueError(message)
    return text


def _profile(text: str, known: Iterable[str], owner: str) -> str:
    names = sorted(known)
    if text not in names:
        message = f"{owner} {', '.join(names)}{perhaps(text, names)}"
        raise ValueError(message)
    return text


def _version(text: str, parse: Callable[[str], Value], known: Sequence[Value]) -> Value:
    version = parse(text)
    if version not in known:
        message = f"not in the matrix, which has {', '.join(str(one) for one in known)}"
        raise ValueError(message)
    return version
