"""What a unit sees of the source: the table of what must change its key, and what must not."""

from collections.abc import Callable, Mapping
from dataclasses import replace
from pathlib import Path

import pytest

from hopperforge.model.pack import Unit
from hopperforge.model.toolkit import HostCompiler, Toolkit, ToolkitOrigin
from hopperforge.model.upstream import PatchedSource, UpstreamPin
from hopperforge.model.versions import ToolkitVersion
from hopperforge.stages.kernels import unit_keys
from hopperforge.stages.unit_view import SourceView

PLACES = ("-Ihopper", "-Icsrc/cutlass/include")
UNIT = "hopper/instantiations/flash_fwd.cu"
TREE = {
    UNIT: '#include "launch.h"\n#ifndef FLASHATTENTION_DISABLE_HDIM64\ntemplate void run<64>();\n#endif\n',
    "hopper/launch.h": (
        '#pragma once\n#include <vector>\n#include <cute/tensor.hpp>\n#include "static_switch.h"\n'
        "// SPLIT_SWITCH is for others\n"
        "template <int Dim> void run() { LOCAL_SWITCH(local, Local, [&] { go<Dim, Local>(); }); }\n"
    ),
    "hopper/static_switch.h": (
        "#define BOOL_SWITCH(COND, NAME, ...) \\\n  f(COND, NAME)\n"
        "#ifdef FLASHATTENTION_DISABLE_LOCAL\n#define LOCAL_SWITCH(C, N, ...) g(N)\n"
        "#else\n  #define LOCAL_SWITCH BOOL_SWITCH\n#endif\n"
        "#ifdef FLASHATTENTION_DISABLE_SPLIT\n#define SPLIT_SWITCH(C, N, ...) g(N)\n"
        "#else\n#define SPLIT_SWITCH BOOL_SWITCH\n#endif\n"
    ),
    "hopper/other.h": "/* nobody includes me */\n",
    "hopper/other.cu": '#include "other.h"\n',
    "hopper/setup.py": "print()\n",
    "hopper/flash_api.cpp": "int main();\n",
    "csrc/cutlass/include/cute/tensor.hpp": '#include "cute/layout.hpp"\n#ifdef __CUDA_ARCH__\n#endif\n',
    "csrc/cutlass/include/cute/layout.hpp": "#include CUDA_STD_HEADER(tuple)\n",
}


def lay_out(root: Path, tree: Mapping[str, str]) -> Path:
    for name, text in tree.items():
        path = root / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text, encoding="utf-8")
    return root


def defines(*switches: str) -> tuple[str, ...]:
    return tuple(f"-DFLASHATTENTION_DISABLE_{switch}" for switch in switches)


def settle(root: Path, tree: Mapping[str, str], *switches: str) -> Unit:
    view = SourceView(lay_out(root, tree))
    return view.settle(Unit(path=UNIT, arguments=(*PLACES, "-DNDEBUG", *defines(*switches))))


def kept(tmp_path: Path, changes: Mapping[str, str], *switches: str) -> set[str]:
    """Which of `switches` the unit keeps once the tree is changed so."""
    unit = settle(tmp_path, {**TREE, **changes}, *switches)
    assert unit.arguments[:3] == (*PLACES, "-DNDEBUG")
    return {switch for switch in switches if defines(switch)[0] in unit.arguments}


ALL = ("LOCAL", "SPLIT", "HDIM64", "BACKWARD")


def test_a_unit_keeps_the_switches_that_change_its_text(tmp_path: Path) -> None:
    assert kept(tmp_path, {}, *ALL) == {"LOCAL", "HDIM64"}


USES: Mapping[str, tuple[str, set[str]]] = {
    "by its macro": ('#include "static_switch.h"\nSPLIT_SWITCH(a, b)', {"SPLIT"}),
    "in a branch not taken": ('#if 0\nSPLIT_SWITCH(a)\n#endif\n#include "static_switch.h"', {"SPLIT"}),
    "by a macro of a macro": ('#define MINE SPLIT_SWITCH\n#include "static_switch.h"\nint x = MINE;', {"SPLIT"}),
    "by a macro that nobody uses": ('#define MINE SPLIT_SWITCH\n#include "static_switch.h"\n', set()),
    "by a condition of text": ("#if defined(FLASHATTENTION_DISABLE_SPLIT) && X\nint x;\n#endif", {"SPLIT"}),
    "by the condition before else": ("#if X\n#elif FLASHATTENTION_DISABLE_SPLIT\n#else\nint x;\n#endif", {"SPLIT"}),
    "by the condition before elif": ("#if FLASHATTENTION_DISABLE_SPLIT\n#elif X\nint x;\n#endif", {"SPLIT"}),
    "by a condition of nothing": ("#ifdef FLASHATTENTION_DISABLE_SPLIT\n#endif", set()),
    "by a condition of an include": ('#ifdef FLASHATTENTION_DISABLE_SPLIT\n#include "other.h"\n#endif', {"SPLIT"}),
    "by a condition of an undef": ("#ifdef FLASHATTENTION_DISABLE_SPLIT\n#undef X\n#endif\nint x = X;", {"SPLIT"}),
    "by a condition of an error": ("#ifdef FLASHATTENTION_DISABLE_SPLIT\n#error no\n#endif", {"SPLIT"}),
    "over two lines": ("#\\\nifdef FLASHATTENTION_DISABLE_SPLIT\nint x;\n#endif", {"SPLIT"}),
    "by a comment": ("int x; // FLASHATTENTION_DISABLE_SPLIT", set()),
    "by a comment over two lines": ("int x; // and \\\nFLASHATTENTION_DISABLE_SPLIT", set()),
    "after what looks like a comment": ('int x = f("//", FLASHATTENTION_DISABLE_SPLIT);', {"SPLIT"}),
    "after what looks like a string": ("int x = f('\"', FLASHATTENTION_DISABLE_SPLIT, '\"'); // \"", {"SPLIT"}),
    "as a value": ("const char *x = FLASHATTENTION_DISABLE_SPLIT;", {"SPLIT"}),
    "perhaps, for names are pasted": ("#define X(a) a ## b\nint x;", {"SPLIT", "BACKWARD"}),
    "perhaps, for an include is computed": ("#include X\nint x;", {"SPLIT", "BACKWARD"}),
    "perhaps, for a condition has no end": ("#if X\nint x;", {"SPLIT", "BACKWARD"}),
    "perhaps, for an end has no condition": ("#endif\nint x;", {"SPLIT", "BACKWARD"}),
}


@pytest.mark.parametrize("how", USES)
def test_a_switch_is_used(tmp_path: Path, how: str) -> None:
    text, more = USES[how]
    used = kept(tmp_path, {"hopper/launch.h": f"{text}\nLOCAL_SWITCH(a)\n"}, *ALL)
    assert used - {"LOCAL", "HDIM64"} == more


@pytest.mark.parametrize("text", ["int x = FLASHATTENTION_DISABLE_SPLIT;", "SPLIT_SWITCH(a)"])
def test_a_switch_is_used_by_the_third_party(tmp_path: Path, text: str) -> None:
    assert kept(tmp_path, {"csrc/cutlass/include/cute/new.h": text}, *ALL) == {"LOCAL", "SPLIT", "HDIM64"}


def test_order_and_other_arguments_stay(tmp_path: Path) -> None:
    arguments = ("-DX=1", "-DFLASHATTENTION_DISABLE_SPLIT=1", *PLACES, "-O3", *defines("LOCAL", "HDIM64"))
    unit = SourceView(lay_out(tmp_path, TREE)).settle(Unit(path=UNIT, arguments=arguments))
    assert unit.arguments == ("-DX=1", *PLACES, "-O3", *defines("LOCAL", "HDIM64"))


@pytest.mark.parametrize("argument", ["-include", "-isystem=x", "-I", "--include-path=x", "--pre-include"])
def test_files_added_in_another_way_leave_everything_as_it_is(tmp_path: Path, argument: str) -> None:
    unit = Unit(path=UNIT, arguments=(*PLACES, argument, *defines("SPLIT")))
    assert SourceView(lay_out(tmp_path, TREE)).settle(unit) == unit


# The table of keys: a unit, the world it is compiled in, and one change of it.

PIN = UpstreamPin(name="p", commit="c", epoch=1_700_000_000, trees={}, origins=())
TOOLKIT = Toolkit(
    version=ToolkitVersion.parse("13.0"),
    release="13.0.88",
    origin=ToolkitOrigin.SYSTEM,
    root=Path("/opt/cuda"),
    fingerprint={"nvcc": "1", "ptxas": "1"},
)
COMPILER = HostCompiler(path=Path("/usr/bin/g++"), version="12.2", fingerprint={"driver": "1"})


def key(
    root: Path,
    tree: Mapping[str, str] = TREE,
    *,
    arguments: tuple[str, ...] = defines("LOCAL"),
    toolkit: Toolkit = TOOLKIT,
    compiler: HostCompiler = COMPILER,
    ground: str = "host",
    pin: UpstreamPin = PIN,
    patches: Mapping[str, str] | None = None,
) -> str:
    unit = SourceView(lay_out(root, tree)).settle(Unit(path=UNIT, arguments=(*PLACES, *arguments)))
    whole = str(sorted(tree.items()))  # as the hash over all sources, any change of which changes it
    source = PatchedSource(pin=pin, root=root, origin="o", patches=patches or {}, kernel_tree=whole, front_tree=whole)
    return unit_keys([unit], source=source, toolkit=toolkit, compiler=compiler, ground=ground)[UNIT]


def edited(name: str, more: str = "// a comment\n") -> dict[str, str]:
    return {**TREE, name: TREE.get(name, "") + more}


MUST_MISS: Mapping[str, Callable[[Path], str]] = {
    "its own text": lambda root: key(root, edited(UNIT)),
    "a header it includes": lambda root: key(root, edited("hopper/launch.h")),
    "a header that its header includes": lambda root: key(root, edited("hopper/static_switch.h")),
    "CUTLASS": lambda root: key(root, edited("csrc/cutlass/include/cute/layout.hpp")),
    "a new file that comes before an included one": lambda root: key(root, edited("hopper/instantiations/launch.h")),
    "a new file that comes before one of CUTLASS": lambda root: key(root, edited("hopper/cute/layout.hpp")),
    "a switch that changes it": lambda root: key(root, arguments=()),
    "another switch that changes it": lambda root: key(root, arguments=defines("LOCAL", "HDIM64")),
    "a flag": lambda root: key(root, arguments=(*defines("LOCAL"), "-O2")),
    "another architecture": lambda root: key(root, arguments=(*defines("LOCAL"), "-gencode", "arch=compute_80")),
    "compressed machine code": lambda root: key(root, arguments=(*defines("LOCAL"), "-Xfatbin", "-compress-all")),
    "ptxas alone": lambda root: key(root, toolkit=replace(TOOLKIT, fingerprint={"nvcc": "1", "ptxas": "2"})),
    "nvcc": lambda root: key(root, toolkit=replace(TOOLKIT, fingerprint={"nvcc": "2", "ptxas": "1"})),
    "the host compiler": lambda root: key(root, compiler=replace(COMPILER, fingerprint={"driver": "2"})),
    "the base image": lambda root: key(root, ground="image 1"),
    "the epoch": lambda root: key(root, pin=replace(PIN, epoch=1)),
}
MUST_NOT_MISS: Mapping[str, Callable[[Path], str]] = {
    "another checkout and cache folder": lambda root: key(root / "another" / "folder"),
    "a comment in a header of others": lambda root: key(root, edited("hopper/other.h")),
    "a comment in another unit": lambda root: key(root, edited("hopper/other.cu")),
    "a new unit": lambda root: key(root, edited("hopper/new.cu")),
    "setup.py": lambda root: key(root, edited("hopper/setup.py", "# a comment\n")),
    "the binding": lambda root: key(root, edited("hopper/flash_api.cpp")),
    "another profile with the same unit switches": lambda root: key(root, arguments=defines("BACKWARD", "LOCAL")),
    "a switch that removes other units": lambda root: key(root, arguments=defines("LOCAL", "SPLIT")),
    "the toolkit's place": lambda root: key(root, toolkit=replace(TOOLKIT, root=Path("/elsewhere"))),
    "the toolkit's origin": lambda root: key(root, toolkit=replace(TOOLKIT, origin=ToolkitOrigin.REGISTRY)),
    "the host compiler's place": lambda root: key(root, compiler=replace(COMPILER, path=Path("/elsewhere/g++"))),
    "the origin of the same source": lambda root: key(root, pin=replace(PIN, name="other", commit="d")),
    "a patch of other files": lambda root: key(root, patches={"0001.patch": "f" * 64}),
}


@pytest.mark.parametrize("change", MUST_MISS)
def test_what_changes_bytes_changes_the_key(tmp_path: Path, change: str) -> None:
    assert MUST_MISS[change](tmp_path / "a") != key(tmp_path / "b")


@pytest.mark.parametrize("change", MUST_NOT_MISS)
def test_what_changes_no_bytes_leaves_the_key(tmp_path: Path, change: str) -> None:
    assert MUST_NOT_MISS[change](tmp_path / "a") == key(tmp_path / "b")


def test_what_must_miss_misses_in_ways_of_its_own(tmp_path: Path) -> None:
    keys = [make(tmp_path / str(number)) for number, make in enumerate(MUST_MISS.values())]
    assert len(set(keys)) == len(keys)


def test_a_unit_of_which_nothing_is_known_depends_on_all_the_source(tmp_path: Path) -> None:
    computed = {**TREE, "hopper/launch.h": "#include X\n"}
    assert key(tmp_path / "a", {**computed, "hopper/other.h": "x"}) != key(tmp_path / "b", computed)
