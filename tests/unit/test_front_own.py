"""A front of a recipe's own, built for real: what is in the wheel, what it does, and what each gate refuses of it."""

import dataclasses
import subprocess
import tarfile
from collections.abc import Iterator
from contextlib import contextmanager
from functools import partial
from pathlib import Path
from typing import Any

import pytest
import zstandard
from tests.unit import front_zoo as zoo

from hopperforge.errors import CompileError, InputError
from hopperforge.model.front import Front
from hopperforge.model.machine import Sizing
from hopperforge.model.wheel import GateResult, RepairedWheel, Tarball
from hopperforge.preparing import Prepared, package_key, require_unchanged
from hopperforge.stages import gates_tools
from hopperforge.stages.elf import read_library
from hopperforge.stages.front_inputs import FrontInputs
from hopperforge.stages.front_layout import fill
from hopperforge.stages.front_own import bind_own, own_build_key, switch_macros
from hopperforge.stages.front_sources import matching
from hopperforge.stages.gates import bundled_gate, exports_gate, metadata_gate
from hopperforge.stages.gates_front import archive_gate, programs_gate, python_free_gate, soname_gate
from hopperforge.stages.tarball import make_tarball, tarball_gate
from hopperforge.stages.wheel_archive import WheelArchive, read_wheel, write_wheel

LIBRARY, PROGRAM, ARCHIVE = "tiny/lib/libtiny.so.1", "tiny/bin/tiny_exec", "tiny/lib/libtiny.a"
NAME = "tiny_lib-1.2+cu130-py3-none-linux_x86_64.whl"
TAGS = ("linux_x86_64",)


@pytest.fixture(scope="module")
def inputs(tmp_path_factory: pytest.TempPathFactory) -> FrontInputs:
    return zoo.inputs(tmp_path_factory.mktemp("tiny"))


def make(inputs: FrontInputs, folder: Path) -> Path:
    out = folder / "out"
    out.mkdir(parents=True)
    return bind_own(inputs, zoo.pack(folder), None, jobs=2, out=out, workspace=zoo.workspace(folder)).path


@pytest.fixture(scope="module")
def wheel(inputs: FrontInputs, tmp_path_factory: pytest.TempPathFactory) -> WheelArchive:
    return dataclasses.replace(read_wheel(make(inputs, tmp_path_factory.mktemp("made"))), library=LIBRARY)


def test_the_wheel_has_what_the_recipe_says(wheel: WheelArchive) -> None:
    assert wheel.path.name == NAME
    info = "tiny_lib-1.2+cu130.dist-info"
    assert sorted(wheel.files) == sorted(
        [
            *("tiny/__init__.py", "tiny/_build.py", "tiny/include/tiny/api.h", "tiny/lib/cmake/tiny/tiny-config.cmake"),
            *(LIBRARY, PROGRAM, ARCHIVE, "tiny/lib/libtiny.so"),
            *(f"{info}/{name}" for name in ("METADATA", "WHEEL", "RECORD", "licenses/LICENSE")),
        ]
    )
    assert wheel.runnable == {PROGRAM}
    assert wheel.files["tiny/lib/cmake/tiny/tiny-config.cmake"] == (
        b"set(version 1.2)\nset(full 1.2+cu130)\nset(name libtiny.so.1)\n"
    )
    assert b"SWITCHES = frozenset(['DISABLE_FP8', 'DISABLE_SM80'])" in wheel.files["tiny/_build.py"]
    assert metadata_gate(wheel, distribution="tiny-lib", version="1.2+cu130", requires=()).passed


def test_program_library_and_archive_work_where_they_are_unpacked(wheel: WheelArchive, tmp_path: Path) -> None:
    with unpacked(wheel, tmp_path) as root:
        assert run(root / "bin/tiny_exec") == "42 1.2+cu130"
        include = ("-I", str(root / "include"), str(Path(__file__).with_name("front_zoo_main.cpp")))
        shared = ("-L", str(root / "lib"), "-ltiny", f"-Wl,-rpath,{root / 'lib'}")
        for links in (shared, (str(root / "lib/libtiny.a"),)):
            subprocess.run(["g++", *include, "-o", tmp_path / "main", *links], check=True)
            assert run(tmp_path / "main") == "42"


def test_the_archive_shows_what_the_library_shows(wheel: WheelArchive, tmp_path: Path) -> None:
    (tmp_path / "libtiny.a").write_bytes(wheel.files[ARCHIVE])
    shown = subprocess.run(
        ["nm", "--defined-only", "--extern-only", "libtiny.a"], cwd=tmp_path, check=True, capture_output=True, text=True
    ).stdout
    names = {line.split()[-1] for line in shown.splitlines() if len(line.split()) == 3}
    assert names == {"tiny_answer", "tiny_version"}


def test_the_archive_goes_with_objects_that_have_the_same_inline_variables(wheel: WheelArchive, tmp_path: Path) -> None:
    (tmp_path / "more.cpp").write_text("inline int once = 0;\nint *more() { return &once; }\n")
    with unpacked(wheel, tmp_path) as root:
        sources = (tmp_path / "more.cpp", Path(__file__).with_name("front_zoo_main.cpp"))
        words = ("g++", "-I", root / "include", "-o", tmp_path / "main", *sources, root / "lib/libtiny.a")
        subprocess.run(words, check=True)
        assert run(tmp_path / "main") == "42"


def test_the_same_bytes_whatever_the_place(inputs: FrontInputs, wheel: WheelArchive, tmp_path: Path) -> None:
    assert make(inputs, tmp_path / "a longer place").read_bytes() == wheel.path.read_bytes()


def test_a_source_that_does_not_compile_is_an_error_with_its_log(tmp_path: Path) -> None:
    broken = zoo.inputs(tmp_path / "tiny")
    (broken.build.recipe.folder / "src/api.cpp").write_text("int x = ;\n")
    with pytest.raises(CompileError, match=r"the cpp front of tiny/small cu130 did not build: src/api.cpp") as caught:
        make(broken, tmp_path / "made")
    assert any("expected primary-expression" in line for line in caught.value.detail)
    assert Path(caught.value.detail[-1].removeprefix("log: ")).is_file()


# Keys.


CHANGES: dict[str, dict[str, object]] = {
    "library": {"library": "lib/libtiny.so.2"},
    "sources": {"sources": ("src/api.cpp",)},
    "symbols": {"symbols": ("tiny_answer",)},
    "archive": {"archive": None},
    "program": {"programs": {}},
    "files": {"files": {}},
    "requirement": {"requires": ("jax>=0.5",)},
    "python": {"requires_python": ">=3.10"},
    "wrapped": {"wrap": ()},
    "tarball": {"tarball": False},
}


@pytest.mark.parametrize("changes", CHANGES.values(), ids=CHANGES)
def test_what_a_recipe_says_of_its_front_is_in_the_key(changes: dict[str, object], tmp_path: Path) -> None:
    plain = zoo.inputs(tmp_path / "a")
    fields = {field.name: getattr(zoo.FRONT, field.name) for field in dataclasses.fields(Front)}
    other = zoo.inputs(tmp_path / "b", Front(**{**fields, **changes}))
    assert own_build_key(plain, None, "k", "s") != own_build_key(other, None, "k", "s")


@pytest.mark.parametrize("name", sorted(zoo.TEXTS))
def test_every_file_of_a_front_is_in_the_key(name: str, tmp_path: Path) -> None:
    made = zoo.inputs(tmp_path)
    before = own_build_key(made, None, "k", "s")
    assert before == own_build_key(made, None, "k", "s")
    (made.build.recipe.folder / name).write_text(zoo.TEXTS[name] + "\n")
    assert own_build_key(made, None, "k", "s") != before


def test_files_that_changed_during_a_build_are_noticed(tmp_path: Path) -> None:
    made = zoo.inputs(tmp_path)
    prepared = Prepared(
        inputs=made,
        units=(),
        kernels_key="k",
        objects=frozenset(),
        key=package_key(made, "k"),
        cached=0,
        sizing=Sizing(max_jobs=1, nvcc_threads=1, memory=1, reasons=()),
        expected_seconds=0.0,
    )
    require_unchanged(prepared)
    (made.build.recipe.folder / "src/api.cpp").write_text("int other;\n")
    with pytest.raises(InputError, match="files of recipe tiny changed while it was built"):
        require_unchanged(prepared)


def test_the_place_of_a_recipe_is_not_in_the_key(tmp_path: Path) -> None:
    keys = {own_build_key(zoo.inputs(tmp_path / name), None, "k", "s") for name in "ab"}
    assert len(keys) == 1


def test_switches_are_defined_as_upstream_does() -> None:
    assert switch_macros(zoo.PROFILE) == ("-DFLASHATTENTION_DISABLE_FP8", "-DFLASHATTENTION_DISABLE_SM8x")


# What a recipe may say wrong.


def test_a_pattern_of_nothing_is_refused(tmp_path: Path) -> None:
    with pytest.raises(InputError, match=r"no file matches src/\*.cc"):
        matching(tmp_path, "src/*.cc")


@pytest.mark.parametrize("name", ["README.md", "src/exports.map"])
def test_a_file_that_every_front_takes_is_missed_before_anything_is_compiled(name: str, tmp_path: Path) -> None:
    made = zoo.inputs(tmp_path)
    (made.build.recipe.folder / name).unlink()
    with pytest.raises(InputError, match=f"recipe recipe has no file {name}"):
        own_build_key(made, None, "k", "s")


@pytest.mark.parametrize(
    "changes",
    [{"sources": ("src/*.cc",)}, {"programs": {"bin/tiny_exec": ("src/*.cc",)}}, {"files": {"src/*.cc": "a"}}],
)
def test_a_pattern_of_nothing_is_refused_before_anything_is_compiled(changes: Any, tmp_path: Path) -> None:
    made = zoo.inputs(tmp_path, dataclasses.replace(zoo.FRONT, **changes))
    with pytest.raises(InputError, match=r"recipe recipe: no file matches src/\*.cc"):
        own_build_key(made, None, "k", "s")


def test_sources_where_no_compile_sees_them_are_refused(tmp_path: Path) -> None:
    made = zoo.inputs(tmp_path, dataclasses.replace(zoo.FRONT, sources=("python/*.cpp",)))
    (made.build.recipe.folder / "python/a.cpp").touch()
    with pytest.raises(InputError, match=r"recipe recipe: python/a.cpp .* include, src, exec, kernels"):
        own_build_key(made, None, "k", "s")


def test_shared_sources_of_nothing_are_refused(tmp_path: Path) -> None:
    (tmp_path / "other").mkdir()
    made = zoo.inputs(tmp_path, dataclasses.replace(zoo.FRONT, shares=tmp_path / "other"))
    with pytest.raises(InputError, match=r"recipe other: no file matches src/\*.cpp"):
        own_build_key(made, None, "k", "s")


def test_a_recipe_shares_sources_without_headers_of_their_own(tmp_path: Path) -> None:
    (tmp_path / "other/src").mkdir(parents=True)
    (tmp_path / "other/src/more.cpp").write_text("int more() { return 1; }\n")
    made = zoo.inputs(tmp_path, dataclasses.replace(zoo.FRONT, shares=tmp_path / "other"))
    assert make(made, tmp_path / "made").is_file()


def test_a_placeholder_of_nothing_is_refused() -> None:
    with pytest.raises(InputError, match=r"a.in has placeholders that stand for nothing: NOTHING"):
        fill("@VERSION@ @NOTHING@", {"VERSION": "1"}, Path("a.in"))


def test_two_files_for_one_place_are_refused(tmp_path: Path) -> None:
    twice = dataclasses.replace(zoo.FRONT, files={**zoo.FRONT.files, "src/*.map": "include/tiny", "exec/*": "include"})
    made = zoo.inputs(
        tmp_path, dataclasses.replace(twice, files={"include/**/*.h": "include", "include/tiny/*": "include/tiny"})
    )
    with pytest.raises(InputError, match=r"recipe tiny ships tiny/include/tiny/api.h twice"):
        make(made, tmp_path / "made")


# Gates.


def changed(
    wheel: WheelArchive, folder: Path, *, runnable: frozenset[str] | None = None, **files: bytes
) -> WheelArchive:
    """The wheel with other bytes at the places LIBRARY and PROGRAM, and other executable bits."""
    places = {"library": LIBRARY, "program": PROGRAM}
    members = {**wheel.files, **{places.get(name, name): data for name, data in files.items()}}
    bits = wheel.runnable if runnable is None else runnable
    path = folder / wheel.path.name
    write_wheel(path, dataclasses.replace(wheel, files=members, runnable=bits), epoch=zoo.EPOCH)
    return dataclasses.replace(read_wheel(path), library=LIBRARY)


def compiled(folder: Path, source: str, *flags: str) -> bytes:
    (folder / "source.cpp").write_text(source)
    subprocess.run(["g++", "source.cpp", "-o", "made", *flags], cwd=folder, check=True)
    return (folder / "made").read_bytes()


def test_a_good_wheel_passes_the_gates_of_its_front(wheel: WheelArchive) -> None:
    assert python_free_gate(wheel) == passed("python-free", f"{LIBRARY} wants no symbol of Python")
    assert soname_gate(wheel, soname="libtiny.so.1") == passed("soname", "libtiny.so.1")
    assert programs_gate(wheel, front=zoo.FRONT, package="tiny") == passed("programs", "bin/tiny_exec")
    assert exports_gate(wheel, symbols=("tiny_*",)) == passed("exports", "tiny_answer, tiny_version")
    assert bundled_gate(wheel, programs=frozenset({PROGRAM})).passed


def passed(name: str, detail: str) -> GateResult:
    return GateResult(name=name, passed=True, detail=detail)


def test_an_archive_is_refused_for_what_it_shows_and_for_other_machine_code(
    wheel: WheelArchive, tmp_path: Path
) -> None:
    gate = partial(archive_gate, place=ARCHIVE, symbols=("tiny_*",))
    assert gate(wheel) == passed("archive", "one object shows 2 symbols, and has the library's machine code")
    (tmp_path / "libtiny.a").write_bytes(wheel.files[ARCHIVE])
    subprocess.run(["ar", "x", "libtiny.a"], cwd=tmp_path, check=True)
    (tmp_path / "libtiny.o").rename(tmp_path / "an_object_of_a_long_name.o")
    subprocess.run(["ar", "rcsD", "long.a", "an_object_of_a_long_name.o"], cwd=tmp_path, check=True)
    assert gate(replaced(wheel, (tmp_path / "long.a").read_bytes())).passed
    assert gate(replaced(wheel, b"")).detail == f"{ARCHIVE}: it is no archive of one object"
    assert gate(replaced(wheel, b"!<arch>\n" + b" " * 70)).detail == f"{ARCHIVE}: it is no archive of one object"
    once = archived(tmp_path, "inline int once = 0;\nint *tiny_kernel() { return &once; }\n")
    assert gate(replaced(wheel, once)).detail == "_Z11tiny_kernelv is shown; once is shown; no tiny_* is shown"
    code = (
        'extern "C" int tiny_answer() { return 1; }\n__attribute__((section(".nv_fatbin"))) extern const int a = 1;\n'
    )
    other = gate(replaced(wheel, archived(tmp_path, code)))
    assert other.detail == "a is shown; its machine code is not the library's"


def replaced(wheel: WheelArchive, archive: bytes) -> WheelArchive:
    return dataclasses.replace(wheel, files={**wheel.files, ARCHIVE: archive})


def archived(folder: Path, source: str) -> bytes:
    compiled(folder, source, "-c")
    subprocess.run(["ar", "rcsD", "made.a", "made"], cwd=folder, check=True)
    data = (folder / "made.a").read_bytes()
    (folder / "made.a").unlink()
    return data


def test_symbols_beyond_the_recipes_are_refused(wheel: WheelArchive) -> None:
    result = exports_gate(wheel, symbols=("tiny_answer", "tiny_more_*"))
    assert not result.passed
    assert result.detail == "tiny_version is exported; no tiny_more_* is exported"


def test_a_library_that_wants_python_is_not_for_every_python(wheel: WheelArchive, tmp_path: Path) -> None:
    library = compiled(
        tmp_path, 'extern "C" int PyLong_AsLong(); int x() { return PyLong_AsLong(); }', "-shared", "-fPIC"
    )
    result = python_free_gate(changed(wheel, tmp_path, library=library))
    assert not result.passed
    assert result.detail == f"{LIBRARY} wants PyLong_AsLong of Python"


def test_a_wheel_for_one_python_is_refused(wheel: WheelArchive) -> None:
    tagged = dataclasses.replace(wheel, path=Path("tiny_lib-1.2+cu130-cp39-abi3-linux_x86_64.whl"))
    assert python_free_gate(tagged).detail == "the wheel is tagged cp39-abi3, not py3-none"


@pytest.mark.parametrize("flags", [(), ("-Wl,-soname,libtiny.so",)])
def test_a_library_without_its_version_is_refused(flags: tuple[str, ...], wheel: WheelArchive, tmp_path: Path) -> None:
    library = compiled(tmp_path, "int x;", "-shared", "-fPIC", *flags)
    result = soname_gate(changed(wheel, tmp_path, library=library), soname="libtiny.so.1")
    assert not result.passed
    assert result.detail.endswith(", expected libtiny.so.1")


def test_a_program_that_finds_no_library_is_refused(wheel: WheelArchive, tmp_path: Path) -> None:
    program = compiled(tmp_path, "int main() {}", "-Wl,-rpath,/opt/tiny")
    result = programs_gate(
        changed(wheel, tmp_path, program=program, runnable=frozenset()), front=zoo.FRONT, package="tiny"
    )
    assert not result.passed
    assert result.detail == (
        f"{PROGRAM} has no executable bit; {PROGRAM} does not need libtiny.so.1; "
        f"{PROGRAM} looks for libraries in /opt/tiny"
    )


def test_a_program_that_is_none_is_refused(wheel: WheelArchive, tmp_path: Path) -> None:
    result = programs_gate(changed(wheel, tmp_path, program=b"#!/bin/sh\n"), front=zoo.FRONT, package="tiny")
    assert not result.passed
    assert "it is no readable shared library" in result.detail


def test_a_binary_that_is_no_program_is_packed_in(wheel: WheelArchive) -> None:
    assert bundled_gate(wheel).detail == f"{PROGRAM} is packed in"


def test_the_library_names_its_version_and_nothing_of_others(wheel: WheelArchive) -> None:
    library = read_library(wheel.files[LIBRARY])
    assert library.soname == "libtiny.so.1"
    assert library.search_paths == ()
    assert read_library(wheel.files[PROGRAM]).search_paths == ("$ORIGIN/../lib",)


# The tarball.


@pytest.fixture(scope="module")
def tarball(wheel: WheelArchive, inputs: FrontInputs, tmp_path_factory: pytest.TempPathFactory) -> Tarball:
    folder = tmp_path_factory.mktemp("tarball")
    made = make_tarball(RepairedWheel(path=wheel.path, platform_tags=TAGS), inputs, folder, zoo.workspace(folder))
    assert made is not None
    return made


def test_the_tarball_is_the_package_that_works_unpacked(tarball: Tarball, tmp_path: Path) -> None:
    assert tarball.path.name == "tiny_lib-1.2+cu130-linux_x86_64.tar.zst"
    plain = zstandard.ZstdDecompressor().decompress(tarball.path.read_bytes())
    (tmp_path / "a.tar").write_bytes(plain)
    with tarfile.open(tmp_path / "a.tar") as tar:
        assert {(member.mtime, member.uid, member.uname) for member in tar} == {(zoo.EPOCH, 0, "")}
        tar.extractall(tmp_path, filter="data")
    root = tmp_path / "tiny_lib-1.2+cu130-linux_x86_64"
    assert (root / "lib/libtiny.so").readlink() == Path("libtiny.so.1")
    assert (root / "share/licenses/LICENSE").read_text() == "yes\n"
    assert run(root / "bin/tiny_exec") == "42 1.2+cu130"
    assert not list(root.rglob("*.py"))


def test_the_tarball_is_the_same_bytes_again(
    wheel: WheelArchive, inputs: FrontInputs, tarball: Tarball, tmp_path: Path
) -> None:
    again = make_tarball(RepairedWheel(path=wheel.path, platform_tags=TAGS), inputs, tmp_path, zoo.workspace(tmp_path))
    assert again is not None
    assert again.sha256 == tarball.sha256


def test_the_gate_compares_the_tarball_with_the_wheel(wheel: WheelArchive, tarball: Tarball, tmp_path: Path) -> None:
    assert tarball_gate(wheel, tarball, package="tiny", front=zoo.FRONT).passed
    other = changed(wheel, tmp_path, program=b"other")
    top = "tiny_lib-1.2+cu130-linux_x86_64"
    assert tarball_gate(other, tarball, package="tiny", front=zoo.FRONT).detail == (
        f"{top}/bin/tiny_exec of the tarball is not what the wheel has"
    )
    still = dataclasses.replace(wheel, runnable=frozenset())
    assert tarball_gate(still, tarball, package="tiny", front=zoo.FRONT).detail == (
        f"{top}/bin/tiny_exec of the tarball is not what the wheel has"
    )
    more = dataclasses.replace(wheel, files={**wheel.files, "tiny/lib/more": b""})
    assert tarball_gate(more, tarball, package="tiny", front=zoo.FRONT).detail == (
        f"{top}/lib/more is not in the tarball"
    )


def test_a_recipe_may_have_no_tarball(wheel: WheelArchive, tmp_path: Path) -> None:
    plain = zoo.inputs(tmp_path / "a", dataclasses.replace(zoo.FRONT, tarball=False))
    repaired = RepairedWheel(path=wheel.path, platform_tags=TAGS)
    assert make_tarball(repaired, plain, tmp_path, zoo.workspace(tmp_path)) is None


@contextmanager
def unpacked(wheel: WheelArchive, folder: Path) -> Iterator[Path]:
    """The package's folder as pip leaves it."""
    for name, data in wheel.files.items():
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_bytes(data)
    (folder / PROGRAM).chmod(0o755)
    yield folder / "tiny"


def run(program: Path) -> str:
    return subprocess.run([program], check=True, capture_output=True, text=True).stdout.strip()


def test_what_each_program_asks_of_the_system_is_said_too(wheel: WheelArchive) -> None:
    said = gates_tools._newest(wheel).split("; ")
    assert [line.partition(" asks for ")[0] for line in said] == [PROGRAM, LIBRARY]
    assert "GLIBC_2." in said[0]
    alone = dataclasses.replace(wheel, files={LIBRARY: wheel.files[LIBRARY]})
    assert " asks for " not in gates_tools._newest(alone)
