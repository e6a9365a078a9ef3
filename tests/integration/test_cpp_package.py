"""The C++ package as people use it, on a machine without a GPU: linked by CMake, pkg-config and g++, and refused calls.

The package is the one that test_build made; alone, this module makes its own (two minutes). About 25 s.
"""

import ctypes
import os
import re
import subprocess
import sys
import zipfile
from collections.abc import Mapping
from pathlib import Path

import pytest
from tests.integration.command import PROJECT, MakeHome, hopperforge

RECIPE = PROJECT / "recipes" / "fa3-cpp"
sys.path.insert(0, str(RECIPE / "smoke"))  # the kit is standard library alone, and knows the C interface

import capi  # noqa: E402
import refusals  # noqa: E402

pytestmark = [pytest.mark.integration, pytest.mark.timeout(900)]

WORDS = ("recipe=fa3-cpp", "profile=hdim128-bf16", "cuda=13.0", "toolkit=registry", "engine=host")
NO_GPU = {**os.environ, "CUDA_VISIBLE_DEVICES": "-1"}
MAIN = """
#include "hopperforge/flash_attention_c.h"
#include <stdio.h>
int main(void) {
  printf("%zu %zu %zu %zu\\n", sizeof(hopperforge_fa3_problem), sizeof(hopperforge_fa3_forward_params),
         sizeof(hopperforge_fa3_backward_params), sizeof(hopperforge_fa3_build));
  return 0;
}
"""


def found_package(base: Path) -> Path | None:
    """The package that test_build left in its wheelhouse, if it ran."""
    return next(iter(sorted(base.glob("*/wheelhouse/hopperforge_fa3-*.whl"))), None)


@pytest.fixture(scope="module")
def wheel(make_home: MakeHome, tmp_path_factory: pytest.TempPathFactory) -> Path:
    found = found_package(tmp_path_factory.getbasetemp())
    if found is None:
        home = make_home("cpp")
        ended = hopperforge("build", *WORDS, home=home)
        assert ended.status == 0, ended.err
        (found,) = (home / "wheelhouse").glob("hopperforge_fa3-*.whl")
    return found


@pytest.fixture(scope="module")
def prefix(wheel: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The unpacked tarball."""
    (tarball,) = wheel.parent.glob("hopperforge_fa3-*.tar.zst")
    folder = tmp_path_factory.mktemp("unpacked")
    subprocess.run(["tar", "--zstd", "-xf", tarball, "-C", folder], check=True)
    (top,) = folder.iterdir()
    return top.rename(folder / "moved about")  # a blank in the path: nothing may depend on a place


@pytest.fixture(scope="module")
def library(prefix: Path) -> capi.Library:
    return capi.Library(prefix / "lib" / "libhopperforge_fa3.so.1")


def shown_by_header() -> set[str]:
    """The functions that the header declares."""
    text = (RECIPE / "include" / "hopperforge" / "flash_attention_c.h").read_text()
    return set(re.findall(r"HOPPERFORGE_FA3_API[^;(]*?(hopperforge_fa3_\w+)\(", text))


def run(*words: str | Path, env: Mapping[str, str] = NO_GPU, cwd: Path | None = None) -> str:
    done = subprocess.run(words, env=env, cwd=cwd, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


def says_no_device(program: Path, **env: str) -> None:
    """The example runs as far as it can without a GPU, and says so in the library's words."""
    said = run(program, env={**NO_GPU, **env})
    assert "profile hdim128-bf16" in said
    assert "NO_DEVICE: this library needs a GPU of compute capability 9.0" in said


def test_the_library_shows_what_the_header_declares_and_needs_the_system_alone(prefix: Path) -> None:
    shared = prefix / "lib" / "libhopperforge_fa3.so.1"
    shown = {line.split()[-1].partition("@")[0] for line in run("nm", "-D", "--defined-only", shared).splitlines()}
    assert shown - {"HOPPERFORGE_FA3_1"} == shown_by_header()
    needed = set(re.findall(r"NEEDED.*\[(.*)\]", run("readelf", "-d", shared)))
    assert needed <= {"libstdc++.so.6", "libm.so.6", "libgcc_s.so.1", "libc.so.6", "libdl.so.2", "librt.so.1"} | {
        "libpthread.so.0",
        "ld-linux-x86-64.so.2",
    }


def test_the_archive_keeps_its_names_and_the_runtime_to_itself(prefix: Path) -> None:
    lines = run("nm", "--defined-only", "--extern-only", prefix / "lib" / "libhopperforge_fa3.a").splitlines()
    shown = {words[2] for words in map(str.split, lines) if len(words) == 3}
    assert shown == shown_by_header()


def test_the_header_is_c11_and_ctypes_agrees_with_it(prefix: Path, tmp_path: Path) -> None:
    (tmp_path / "main.c").write_text(MAIN)
    words = ("-std=c11", "-pedantic", "-Wall", "-Wextra", "-Werror", f"-I{prefix}/include")
    run("gcc", *words, "main.c", "-o", "main", cwd=tmp_path)
    sizes = [capi.Problem, capi.ForwardParams, capi.BackwardParams, capi.Build]
    assert run(tmp_path / "main").split() == [str(ctypes.sizeof(size)) for size in sizes]


def test_a_cmake_project_links_both_libraries(prefix: Path, tmp_path: Path) -> None:
    found = f"-Dhopperforge_fa3_DIR={prefix}/lib/cmake/hopperforge_fa3"
    run("cmake", "-S", RECIPE / "example", "-B", tmp_path, found, "-DCMAKE_CXX_FLAGS=-Wall -Wextra -Werror")
    run("cmake", "--build", tmp_path)
    says_no_device(tmp_path / "attention")
    says_no_device(tmp_path / "attention_static")


@pytest.mark.parametrize(("asked", "status"), [("3.0", 0), ("3", 0), ("4.0", 1), ("3.99", 1), ("2.0", 1)])
def test_cmake_is_told_which_versions_the_package_serves(prefix: Path, tmp_path: Path, asked: str, status: int) -> None:
    text = f"cmake_minimum_required(VERSION 3.13)\nproject(p NONE)\nfind_package(hopperforge_fa3 {asked} REQUIRED)\n"
    (tmp_path / "CMakeLists.txt").write_text(text)
    found = f"-Dhopperforge_fa3_DIR={prefix}/lib/cmake/hopperforge_fa3"
    done = subprocess.run(["cmake", "-S", tmp_path, "-B", tmp_path / "b", found], capture_output=True, check=False)
    assert (done.returncode != 0) == bool(status), done.stderr


def test_a_package_with_a_file_missing_is_not_found(prefix: Path, tmp_path: Path) -> None:
    run("cp", "-r", prefix, tmp_path / "prefix")
    (tmp_path / "prefix" / "lib" / "libhopperforge_fa3.a").unlink()
    found = f"-Dhopperforge_fa3_DIR={tmp_path}/prefix/lib/cmake/hopperforge_fa3"
    words = ["cmake", "-S", str(RECIPE / "example"), "-B", str(tmp_path / "build"), found]
    done = subprocess.run(words, capture_output=True, text=True, check=False)
    assert done.returncode != 0
    assert "libhopperforge_fa3.a is missing" in " ".join(done.stderr.split())


def test_pkg_config_links_it(wheel: Path, tmp_path: Path) -> None:
    """From the unpacked wheel: pkg-config's words are split at blanks, and its folder has none."""
    with zipfile.ZipFile(wheel) as archive:
        archive.extractall(tmp_path)
    prefix = tmp_path / "hopperforge_fa3"
    env = {**NO_GPU, "PKG_CONFIG_PATH": str(prefix / "lib" / "pkgconfig")}
    flags = run("pkg-config", "--cflags", "--libs", "hopperforge_fa3", env=env).split()
    assert run("pkg-config", "--modversion", "hopperforge_fa3", env=env) == "3.0.0\n"
    run("g++", "-std=c++17", RECIPE / "example" / "attention.cpp", *flags, "-ldl", "-o", tmp_path / "main")
    says_no_device(tmp_path / "main", LD_LIBRARY_PATH=str(prefix / "lib"))


def test_plain_compilers_link_it(prefix: Path, tmp_path: Path) -> None:
    example, include, place = RECIPE / "example" / "attention.cpp", f"-I{prefix}/include", prefix / "lib"
    shared = (f"-L{place}", "-lhopperforge_fa3", f"-Wl,-rpath,{place}", "-ldl")
    run("g++", "-std=c++17", example, include, *shared, "-o", tmp_path / "shared")
    says_no_device(tmp_path / "shared")
    static = (place / "libhopperforge_fa3.a", "-ldl", "-lrt", "-lpthread")
    run("g++", "-std=c++17", example, include, *static, "-o", tmp_path / "static")
    says_no_device(tmp_path / "static")


def test_the_python_package_says_where_things_lie(wheel: Path, tmp_path: Path) -> None:
    with zipfile.ZipFile(wheel) as archive:
        archive.extractall(tmp_path)
    for option in ("--include-dir", "--library-dir", "--cmake-dir", "--pkgconfig-dir", "--executable"):
        said = run(sys.executable, "-m", "hopperforge_fa3", option, cwd=tmp_path)
        place = Path(said.strip())
        assert place.is_relative_to(tmp_path)
        assert place.exists()


def test_the_executable_says_that_there_is_no_gpu(prefix: Path) -> None:
    done = subprocess.run([prefix / "bin" / "flash_attention_exec"], env=NO_GPU, capture_output=True, check=False)
    assert done.returncode == 4
    assert b"cudaMalloc" in done.stderr


@pytest.mark.parametrize(
    "words", [("--bogus",), ("--dtype", "fp32"), ("--batch",), ("--batch", "two"), ("--batch", "1.5")]
)
def test_the_executable_refuses_what_it_does_not_know(prefix: Path, words: tuple[str, ...]) -> None:
    done = subprocess.run([prefix / "bin" / "flash_attention_exec", *words], capture_output=True, check=False)
    assert done.returncode == 2
    assert b"hint: flash_attention_exec --help" in done.stderr


@pytest.mark.parametrize("refusal", refusals.REFUSALS, ids=lambda refusal: refusal.name)
def test_every_wrong_call_gets_its_status_and_a_sentence(library: capi.Library, refusal: refusals.Refusal) -> None:
    params = refusals.good_forward(library)
    assert library.check(params) == capi.OK
    refusal.change(params)
    status, words = refusals.expected(refusal, frozenset(library.build.switches.decode().split()))
    assert library.name(library.check(params)) == library.name(status), library.message
    assert words in library.message
    assert library.launch(params, 0, 0) == status


def test_trimmed_features_name_the_profile(library: capi.Library) -> None:
    trimmed = set()
    for feature, change in refusals.NEEDING.items():
        params = refusals.good_forward(library)
        change(params)
        if library.check(params) == capi.TRIMMED:
            assert "`hdim128-bf16`" in library.message
            trimmed.add(feature)
    assert trimmed == set(refusals.NEEDING) - {"VARLEN"}
    assert library.check(refusals.good_backward(library)) == capi.TRIMMED
    assert "use one of profile `standalone`" in library.message


def test_null_parameters_are_refused(library: capi.Library) -> None:
    for name in ("forward_check", "backward_check"):
        assert getattr(library.c, f"hopperforge_fa3_{name}")(None) == capi.INVALID_ARGUMENT
        assert library.message == "params is null"
    assert library.c.hopperforge_fa3_forward_workspace(None, None) == capi.INVALID_ARGUMENT
    assert library.c.hopperforge_fa3_forward_defaults(None) is not None  # does nothing, and does not crash
    assert library.name(99) == "UNKNOWN"


def test_without_a_gpu_a_good_call_says_so(prefix: Path, tmp_path: Path) -> None:
    """In a process of its own: the runtime remembers what it saw first."""
    lines = (
        f"import sys; sys.path.insert(0, {str(RECIPE / 'smoke')!r})",
        "import capi, refusals; from pathlib import Path",
        f"library = capi.Library(Path({str(prefix)!r}) / 'lib' / 'libhopperforge_fa3.so.1')",
        "status, _ = library.workspace(refusals.good_forward(library))",
        "print(library.name(status), library.message)",
    )
    (tmp_path / "main.py").write_text("\n".join(lines))
    assert run(sys.executable, tmp_path / "main.py").startswith("NO_DEVICE this library needs a GPU of compute")
