"""What no single value of a recipe shows: whether its parts fit each other, upstream.yaml and the other recipes."""

import re
from collections.abc import Collection, Iterable, Iterator, Mapping
from dataclasses import replace
from typing import Final

from packaging.requirements import InvalidRequirement, Requirement
from packaging.utils import canonicalize_name

from hopperforge.config.checks import Found, refers, repeated
from hopperforge.config.problems import Problem
from hopperforge.config.tree import Tree
from hopperforge.model.front import FrontKind

_REQUIRED: Final = ("switches", "architectures")
_LIBRARY: Final = re.compile(r".+\.so(\.[0-9]+)?")
_UNITS: Final = re.compile(r"kernels/.+\.cu")
_COMPILED: Final = (*_REQUIRED, "ptx")
_LINKED: Final = ("cudart", "needed")
_PURE: Final = "is for what is compiled, and this recipe is of Python alone"


def check_recipe(file: str, tree: Tree, *, pins: Collection[str], switches: Collection[str]) -> list[Problem]:
    """Problems of a recipe beyond its shape; `pins` and `switches` are what upstream.yaml declares, empty if unread."""
    found = [*repeated(tree), *_names(file, tree, pins)]
    if _pure(tree):
        return _problems(file, [*found, *_python(tree)])
    found += [*_kernels(tree), *_front(tree), *_unlinked(tree)]
    own, lent = tree.get("kernels", "own") is not None, tree.get("kernels", "of") is not None
    for _, profile in tree.items("profiles"):
        found += () if lent else _missing(profile)
        found += _no_ptx(profile) if tree.get("kernels") is None else ()
        if not own:
            found += [*_switches(profile, switches), *_sm80(profile)]
    return _problems(file, found)


def _problems(file: str, found: Iterable[tuple[Tree, str]]) -> list[Problem]:
    return [Problem(file, place.line, place.column, message) for place, message in found]


def _pure(tree: Tree) -> bool:
    """Whether the package is of Python alone."""
    return tree.string("front", "kind") == FrontKind.PYTHON


def _python(tree: Tree) -> Found:
    """Of Python alone there is nothing that kernels have, and nothing that is linked."""
    keys = ("pin", "kernels", "merge", "promise", *_LINKED, "needed_per_torch")
    yield from _none_of(tree, keys, _PURE)
    yield from _requires(tree.get("front") or tree, FrontKind.PYTHON)
    for _, profile in tree.items("profiles"):
        yield from _none_of(profile, _COMPILED, _PURE)
        yield from _none_of(profile.get("budget") or profile, ("library",), _PURE)


def _unlinked(tree: Tree) -> Found:
    """What is compiled is linked, and has a library whose size is bounded."""
    if not _broken(tree):
        yield from ((_at_key(tree), f'missing key "{key}"') for key in _LINKED if tree.get(key) is None)
    for _, profile in tree.items("profiles"):
        budget = profile.get("budget")
        if budget is not None and not _broken(budget) and budget.get("library") is None:
            yield _at_key(budget), 'missing key "library"'


def check_lenders(trees: Mapping[str, Tree]) -> list[Problem]:
    """Problems of recipes that take kernels or sources of another; `trees` are all that could be read, by file."""
    by_name = {file.split("/")[-2]: tree for file, tree in trees.items()}
    return [
        Problem(file, place.line, place.column, message)
        for file, tree in trees.items()
        for place, message in (*_lender(tree, by_name), *_sharer(tree, by_name))
    ]


def _sharer(tree: Tree, by_name: Mapping[str, Tree]) -> Found:
    """A front shares the sources of another that lists some, for kernels of the same pin."""
    place = tree.get("front", "shares")
    name = None if place is None else place.string()
    yield from refers(place, by_name, "recipe", "the recipes are")
    if place is None or name is None or name not in by_name:
        return
    other = by_name[name]
    if not any(other.elements("front", "sources")) or other.get("front", "shares") is not None:
        yield place, f"{name} has no sources of its own front to share"
    if tree.string("pin") != other.string("pin"):
        yield place, f"{name} is of the pin {other.string('pin')}, and this recipe of {tree.string('pin')}"


def _lender(tree: Tree, by_name: Mapping[str, Tree]) -> Found:
    place = tree.get("kernels", "of")
    name = None if place is None else place.string()
    if place is None or name is None:
        return
    yield from refers(place, by_name, "recipe", "the recipes are")
    lender = by_name.get(name)
    if lender is None:
        return
    if lender.get("kernels") is not None:
        yield place, f"{name} takes its kernels from elsewhere itself; name a recipe that compiles those of a pin"
    if tree.string("pin") != lender.string("pin"):
        yield tree.get("pin") or tree, f"{name}, whose kernels this binds, is of the pin {lender.string('pin')}"
    lent = dict(lender.items("profiles"))
    for key, profile in tree.items("profiles"):
        if key in lent:
            yield from _none_of(profile, _COMPILED, f"is that of the profile {key} of {name}: leave it out")
        else:
            yield from (*_missing(profile), *_no_ptx(profile))


def _names(file: str, tree: Tree, pins: Collection[str]) -> Found:
    name, folder = tree.get("name"), file.split("/")[-2]
    if name is not None and isinstance(name.value, str) and name.value != folder:
        yield name, f'a recipe is named like its folder, "{folder}"'
    yield from refers(tree.get("pin"), pins, "pin", "the pins are")
    profiles = [key for key, _ in tree.items("profiles")]
    yield from refers(tree.get("default_profile"), profiles, "profile", "the profiles are")


def _kernels(tree: Tree) -> Found:
    """Kernels are the pin's, lent by another recipe, or the recipe's own: one of these, and all that it takes."""
    kernels, pin = tree.get("kernels"), tree.get("pin")
    own = tree.get("kernels", "own")
    if own is None and pin is None and not _broken(tree):
        yield _at_key(tree), 'missing key "pin"'
    if kernels is None:
        return
    of = tree.get("kernels", "of")
    if (own is None) == (of is None):
        yield kernels, "kernels are `own:`, or those `of:` another recipe: write one of these"
    elif of is not None:
        yield from _none_of(kernels, ("flags", "epoch"), "is for kernels of our own")
        yield from _none_of(tree, ("merge",), f'is for the recipe "{of.text}", whose kernels these are')
    else:
        yield from _none_of(tree, ("pin",), "is for upstream's kernels, and this recipe brings its own")
        if own is not None and (text := own.string()) is not None and _UNITS.fullmatch(text) is None:
            yield own, f"{text} means no units: those are .cu files in the folder kernels"
        if tree.get("kernels", "epoch") is None:
            yield _at_key(kernels), 'missing key "epoch"'
        if tree.get("front") is None:
            yield _at_key(tree), "missing key \"front\": upstream's own binds upstream's kernels alone"


def _front(tree: Tree) -> Found:
    """A front that binds to no torch promises no operators, needs none of its libraries, and no one torch's."""
    front, kind = tree.get("front"), tree.string("front", "kind")
    if (front is None or kind == "torch") and tree.get("promise") is None and not _broken(tree):
        yield _at_key(tree), 'missing key "promise"'
    if front is None:
        return
    yield from (*_made(front), *_requires(front, kind))
    yield from _none_of(tree, ("needed_per_torch",), "is for upstream's front: this one binds by the stable ABI")
    runtime = tree.get("cudart")
    if runtime is not None and runtime.value == "shared":
        yield runtime, "a front of the recipe's own has the CUDA runtime inside: static"
    if kind in ("cpp", "jax"):
        yield from _none_of(tree, ("promise",), f"is for fronts of torch, and this is of {kind}")
        for text, place in tree.strings("needed"):
            if text.startswith(("libtorch", "libc10")):
                yield place, f"{text} is torch's, to which a front of {kind} does not bind"


def _made(front: Tree) -> Found:
    """What is made has names of its own, for it is made side by side; programs find a library that has a version."""
    library, programs = front.get("library"), list(front.items("programs"))
    text = None if library is None else library.string()
    if library is not None and text is not None and _LIBRARY.fullmatch(text) is None:
        yield library, f"{text} is no place of a shared library, such as lib/libx.so.1"
    elif programs and text is not None and text.endswith(".so"):
        yield _at_key(programs[0][1]), f"programs look for a library by its version: {text} has none, lib/libx.so.1 has"
    archive, seen = front.get("archive"), {(text or "").rpartition("/")[2]}
    made = [] if archive is None else [(archive.string() or "", archive)]
    for name, tree in ((name.rpartition("/")[2], tree) for name, tree in (*made, *_keys(programs))):
        if name in seen:
            yield tree, f"two files that are made have the name {name}"
        seen.add(name)


def _keys(items: Iterable[tuple[str, Tree]]) -> list[tuple[str, Tree]]:
    return [(key, _at_key(value)) for key, value in items]


def _requires(front: Tree, kind: str | None) -> Found:
    for text, place in front.strings("requires"):
        try:
            name = canonicalize_name(Requirement(text).name)
        except InvalidRequirement:
            yield place, f"{text} is not a requirement, such as jax>=0.6"
            continue
        if name == "torch" and kind == "torch":
            yield place, "which torch is required is for matrix.yaml to say"


def _none_of(holder: Tree, keys: Collection[str], why: str) -> Iterator[tuple[Tree, str]]:
    for key, place in holder.items():
        if key in keys:
            yield _at_key(place), f"{key} {why}"


def _at_key(tree: Tree) -> Tree:
    """The tree with the place of its key, where a key is what is wrong."""
    return replace(tree, line=tree.key_line, column=tree.key_column)


def _broken(tree: Tree) -> bool:
    """Whether the whole is no mapping, which `shape` reports."""
    return not any(True for _ in tree.items())


def _missing(profile: Tree) -> Found:
    if not _broken(profile):
        yield from ((_at_key(profile), f'missing key "{key}"') for key in _REQUIRED if profile.get(key) is None)


def _no_ptx(profile: Tree) -> Found:
    return _none_of(profile, ("ptx",), "is for kernels of our own: upstream's have none")


def _switches(profile: Tree, switches: Collection[str]) -> Found:
    for _, place in profile.strings("switches"):
        yield from refers(place, switches, "switch", "the switches are")


def _sm80(profile: Tree) -> Found:
    """sm_80 code is there exactly if the switch that removes it is off."""
    place = profile.get("architectures")
    if place is None or profile.get("switches") is None:
        return
    off = any(text == "DISABLE_SM80" for text, _ in profile.strings("switches"))
    listed = any(text == "sm_80" for text, _ in profile.strings("architectures"))
    if off and listed:
        yield place, "sm_80 is listed, but the switch DISABLE_SM80 leaves no code for it"
    elif not off and not listed:
        yield place, "sm_80 is not listed, but its code is compiled unless the switch DISABLE_SM80 is on"
