"""Recipes with fronts and kernels of their own, and recipes that take from each other: what is read and refused."""

import shutil
from pathlib import Path

import pytest

from hopperforge.config.project import Project, load_project
from hopperforge.errors import InputError
from hopperforge.model.front import FrontKind, OwnKernels
from hopperforge.model.recipe import Promise

GOOD = Path(__file__).parents[2] / "data" / "config" / "good"
PACKAGE = """\
package: {distribution: o, package: o, module: o, version: "1.0", summary: an example}
cudart: static
"""
BUDGET = 'budget: {wheel: "1 MB", library: "2 MB"}'
TINY = f"default_profile: tiny\nprofiles:\n  tiny: {{summary: one, {BUDGET}}}\n"
OWN_PROFILE = f"""\
default_profile: fat
profiles:
  fat: {{summary: one, switches: [], architectures: [sm_70, sm_90], ptx: [compute_90], {BUDGET}}}
"""
FRONT = "front: {kind: cpp, sources: [src/*.cpp], library: lib/libo.so.1, exports: src/e.map, symbols: [o_*]%s}\n"
LENT = f"name: other\npin: v1\n{PACKAGE}needed: []\nkernels: {{of: small}}\n"
OWN = "kernels: {own: kernels/*.cu, epoch: 1764201600, flags: [-lineinfo]}\n"


def read(root: Path, text: str) -> Project:
    for name, place in (
        ("bases", "image"),
        ("matrix", "."),
        ("recipe", "recipes/small"),
        ("upstream", "flash-attention"),
    ):
        (root / place).mkdir(parents=True, exist_ok=True)
        shutil.copy(GOOD / f"{name}.yaml", root / place)
    (root / "recipes/other").mkdir()
    (root / "recipes/other/recipe.yaml").write_text(text)
    return load_project(root)


def refusals(root: Path, text: str) -> tuple[str, ...]:
    with pytest.raises(InputError) as caught:
        read(root, text)
    return tuple(line.removeprefix("recipes/other/recipe.yaml:") for line in caught.value.detail)


def test_kernels_of_another_recipe_are_those_of_its_profile(tmp_path: Path) -> None:
    project = read(tmp_path, LENT + FRONT % "" + TINY)
    small, other = project.recipes["small"], project.recipes["other"]
    assert other.profiles["tiny"].switches == small.profiles["tiny"].switches
    assert other.profiles["tiny"].architectures == small.profiles["tiny"].architectures
    assert other.profiles["tiny"].budget != small.profiles["tiny"].budget
    assert other.merge == small.merge
    assert (other.front.kind, other.front.soname, other.front.linker_name) == (FrontKind.CPP, "libo.so.1", "libo.so")
    assert other.promise is None
    assert project.pin_of(other) == project.pins["v1"]


def test_kernels_of_our_own_have_no_pin_and_a_time(tmp_path: Path) -> None:
    project = read(tmp_path, f"name: other\n{PACKAGE}needed: []\n{OWN}{FRONT % ''}{OWN_PROFILE}")
    other = project.recipes["other"]
    assert other.kernels == OwnKernels(units="kernels/*.cu", flags=("-lineinfo",), epoch=1_764_201_600)
    assert other.profiles["fat"].ptx == {"compute_90"}
    pin = project.pin_of(other)
    assert (pin.name, pin.commit, pin.epoch, pin.origins) == ("recipes-other", "", 1_764_201_600, ())


def test_a_package_of_python_alone_has_a_time_and_nothing_that_is_linked(tmp_path: Path) -> None:
    project = read(tmp_path, f"name: other\n{PURE_PACKAGE}{PURE}{PURE_PROFILE}")
    other = project.recipes["other"]
    assert (other.front.kind, other.front.requires, other.front.symbols) == (FrontKind.PYTHON, ("torch>=2.9",), ())
    assert (other.front.kind.compiled, other.front.kind.binds_torch, other.front.kind.tag) == (False, False, "py3-none")
    assert (other.profiles["pure"].budget.library, other.promised) == (0, Promise(module="o"))
    pin = project.pin_of(other)
    assert (pin.name, pin.commit, pin.epoch, pin.origins) == ("recipes-other", "", 1_764_201_600, ())


def test_a_recipe_without_a_front_has_upstreams(tmp_path: Path) -> None:
    front = read(tmp_path, LENT + FRONT % "" + TINY).recipes["small"].front
    assert (front.kind, front.kind.own, front.kind.tag, front.soname) == (
        FrontKind.TORCH_UPSTREAM,
        False,
        "cp39-abi3",
        None,
    )


PROMISE = "promise: {operators: [a], function: f, guard: g}\n"
PURE = "front: {kind: python, epoch: 1764201600, requires: [torch>=2.9]}\n"
PURE_PACKAGE = PACKAGE.replace("cudart: static\n", "")
PURE_PROFILE = 'default_profile: pure\nprofiles:\n  pure: {summary: one, budget: {wheel: "1 MB"}}\n'
ALONE = "is for what is compiled, and this recipe is of Python alone"
SHARED_RUNTIME = PACKAGE.replace("static", "shared")
CASES = {
    "of a recipe that is not there": (
        LENT.replace("of: small", "of: smal") + FRONT % "" + TINY,
        ('6:15: unknown recipe "smal"; perhaps you meant "small"',),
    ),
    "of another pin": (
        LENT.replace("pin: v1\n", "") + FRONT % "" + TINY,
        ('1:1: missing key "pin"', "1:1: small, whose kernels this binds, is of the pin v1"),
    ),
    "what is lent is said again": (
        LENT + FRONT % "" + TINY.replace("summary: one,", "summary: one, switches: [],"),
        ("10:24: switches is that of the profile tiny of small: leave it out",),
    ),
    "a profile that is not lent": (
        LENT + FRONT % "" + TINY.replace("tiny", "huge"),
        ('10:3: missing key "architectures"', '10:3: missing key "switches"'),
    ),
    "rules of its own for lent kernels": (
        LENT + FRONT % "" + TINY + "merge: {all: {units: flash_*, vary: [split], largest: 2}}\n",
        ('11:1: merge is for the recipe "small", whose kernels these are',),
    ),
    "kernels of nowhere": (
        LENT.replace("{of: small}", "{flags: [-O3]}") + FRONT % "" + OWN_PROFILE,
        (
            "6:10: kernels are `own:`, or those `of:` another recipe: write one of these",
            "10:52: sm_80 is not listed, but its code is compiled unless the switch DISABLE_SM80 is on",
        ),
    ),
    "own kernels and a pin": (
        f"name: other\npin: v1\n{PACKAGE}needed: []\n{OWN}{FRONT % ''}{OWN_PROFILE}",
        ("2:1: pin is for upstream's kernels, and this recipe brings its own",),
    ),
    "own kernels, no time, no front": (
        f"name: other\n{PACKAGE}needed: []\nkernels: {{own: kernels/*.cu}}\n{PROMISE}{OWN_PROFILE}",
        (
            "1:1: missing key \"front\": upstream's own binds upstream's kernels alone",
            '5:1: missing key "epoch"',
        ),
    ),
    "torch's libraries without torch": (
        LENT.replace("needed: []", "needed: [libtorch_cpu.so]") + FRONT % "" + TINY,
        ("5:10: libtorch_cpu.so is torch's, to which a front of cpp does not bind",),
    ),
    "a promise that nothing imports": (
        LENT + FRONT % "" + TINY + PROMISE,
        ("11:1: promise is for fronts of torch, and this is of cpp",),
    ),
    "a torch front without a promise": (
        LENT + FRONT.replace("cpp,", "torch,") % "" + TINY,
        ('1:1: missing key "promise"',),
    ),
    "builds for one torch": (
        LENT + "needed_per_torch: []\n" + FRONT % "" + TINY,
        ("7:1: needed_per_torch is for upstream's front: this one binds by the stable ABI",),
    ),
    "a runtime outside": (
        LENT.replace(PACKAGE, SHARED_RUNTIME) + FRONT % "" + TINY,
        ("4:9: a front of the recipe's own has the CUDA runtime inside: static",),
    ),
    "sources of a recipe that has none": (
        LENT + FRONT % ", shares: small" + TINY,
        ("7:110: small has no sources of its own front to share",),
    ),
    "units outside the folder of kernels": (
        f"name: other\n{PACKAGE}needed: []\n{OWN.replace('kernels/*.cu', 'src/*.cu')}{FRONT % ''}{OWN_PROFILE}",
        ("5:16: src/*.cu means no units: those are .cu files in the folder kernels",),
    ),
    "PTX of kernels that have none": (
        LENT + FRONT % "" + OWN_PROFILE.replace("switches: []", "switches: [DISABLE_SM80]"),
        ("10:80: ptx is for kernels of our own: upstream's have none",),
    ),
    "a library that is none": (
        LENT + FRONT.replace("lib/libo.so.1", "lib/o.txt") % "" + TINY,
        ("7:51: lib/o.txt is no place of a shared library, such as lib/libx.so.1",),
    ),
    "two files of one name": (
        LENT + FRONT % ", archive: a/libo.so.1, programs: {bin/x: [exec/*.cpp], sbin/x: [more/*.cpp]}" + TINY,
        (
            "7:111: two files that are made have the name libo.so.1",
            "7:156: two files that are made have the name x",
        ),
    ),
    "programs of a library that they cannot look for": (
        LENT + FRONT.replace("libo.so.1", "libo.so") % ", programs: {bin/x: [exec/*.cpp]}" + TINY,
        ("7:111: programs look for a library by its version: lib/libo.so has none, lib/libx.so.1 has",),
    ),
    "what is no requirement": (
        LENT + FRONT % ", requires: [jax=0.6]" + TINY,
        ("7:113: jax=0.6 is not a requirement, such as jax>=0.6",),
    ),
    "a requirement of torch": (
        LENT + FRONT.replace("cpp,", "torch,") % ", requires: [torch>=2.5]" + TINY + PROMISE,
        ("7:115: which torch is required is for matrix.yaml to say",),
    ),
    "an unknown kind": (
        LENT + FRONT.replace("cpp,", "rust,") % "" + TINY,
        ('7:15: kind: "rust" is none of torch, cpp, jax, python',),
    ),
    "what is compiled, and is not linked": (
        "name: other\npin: v1\nkernels: {of: small}\n"
        + (PACKAGE.replace("cudart: static\n", "") + FRONT % "" + TINY).replace(', library: "2 MB"', ""),
        ('1:1: missing key "cudart"', '1:1: missing key "needed"', '8:24: missing key "library"'),
    ),
    "Python alone with what is for kernels": (
        (
            f"name: other\npin: v1\n{PACKAGE}needed: []\n{OWN}{PURE}{OWN_PROFILE}{PROMISE}"
            "merge: {all: {units: flash_*, vary: [split], largest: 2}}\n"
        ),
        tuple(
            f"{place}: {key} {ALONE}"
            for place, key in (
                ("2:1", "pin"),
                ("4:1", "cudart"),
                ("5:1", "needed"),
                ("6:1", "kernels"),
                ("10:23", "switches"),
                ("10:37", "architectures"),
                ("10:68", "ptx"),
                ("10:111", "library"),
                ("11:1", "promise"),
                ("12:1", "merge"),
            )
        ),
    ),
    "Python alone with a library, and no time": (
        f"name: other\n{PURE_PACKAGE}front: {{kind: python, library: libx.so}}\n{PURE_PROFILE}",
        (
            '3:1: missing key "epoch"',
            '3:23: unknown key "library"; the keys here are epoch, kind, requires, requires_python',
        ),
    ),
}


@pytest.mark.parametrize(("text", "said"), CASES.values(), ids=CASES)
def test_what_does_not_fit_is_refused_at_its_place(text: str, said: tuple[str, ...], tmp_path: Path) -> None:
    assert refusals(tmp_path, text) == said
