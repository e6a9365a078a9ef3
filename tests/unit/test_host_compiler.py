"""The host compiler: which one is taken, which are refused, and what its key depends on."""

import shutil
from pathlib import Path

import pytest

from hopperforge.errors import ToolError
from hopperforge.stages.host_compiler import ThisMachine, find_archivers, find_host_compiler

GNU = "Copyright (C) 2022 Free Software Foundation, Inc."


def _compiler(
    folder: Path, name: str = "g++", *, version: str = "12.2.0", banner: str = GNU, headers: str = "36"
) -> Path:
    """Make a program that answers what a compiler is asked, and the parts it names."""
    folder.mkdir(parents=True, exist_ok=True)
    for part in ("cc1plus", "as", "ld"):
        (folder / part).write_text(f"{part} {version}")
        (folder / part).chmod(0o755)
    path = folder / name
    path.write_text(
        "#!/bin/sh\n"
        'case "$*" in\n'
        f'  --version) echo "{name} {version}"; echo "{banner}";;\n'
        f"  *-dumpfullversion*) echo {version};;\n"
        f"  -print-prog-name=cc1plus) echo {folder}/cc1plus;;\n"
        '  -print-prog-name=*) echo "${1#*=}";;\n'
        f'  -v) echo "Using built-in specs."; echo "COLLECT_GCC=$0"; echo "gcc version {version} (Some)";;\n'
        f'  -E*) echo "#define __GLIBC_MINOR__ {headers}";;\n'
        "  *) exit 1;;\n"
        "esac\n"
    )
    path.chmod(0o755)
    return path


def test_the_first_gxx_on_path_is_taken(tmp_path: Path) -> None:
    path = _compiler(tmp_path / "first", version="12.2.0")
    _compiler(tmp_path / "second", version="11.1.0")
    found = find_host_compiler({"PATH": f"{tmp_path}/first:{tmp_path}/second"}, gcc_max=15)
    assert (found.path, found.version) == (path, "12.2.0")
    assert sorted(found.fingerprint) == ["as", "cc1plus", "configuration", "driver", "headers", "ld"]
    assert {len(digest) for digest in found.fingerprint.values()} == {64}


@pytest.mark.parametrize("absolute", [True, False])
def test_cxx_is_taken_before_gxx(absolute: bool, tmp_path: Path) -> None:
    _compiler(tmp_path)
    chosen = _compiler(tmp_path, "g++-11", version="11.4.0")
    found = find_host_compiler({"PATH": str(tmp_path), "CXX": str(chosen) if absolute else "g++-11"}, gcc_max=15)
    assert (found.path, found.version) == (chosen, "11.4.0")


def test_an_equal_compiler_elsewhere_has_an_equal_key(tmp_path: Path) -> None:
    # one driver that finds its parts on PATH, so that its own bytes name no folder
    first = _compiler(tmp_path / "first")
    first.write_text(first.read_text().replace(f"{tmp_path}/first/", ""))
    shutil.copytree(tmp_path / "first", tmp_path / "second")
    keys = {find_host_compiler({"PATH": str(tmp_path / name)}, gcc_max=15).key for name in ("first", "second")}
    assert len(keys) == 1


def test_the_headers_change_the_key(tmp_path: Path) -> None:
    _compiler(tmp_path, headers="36")
    before = find_host_compiler({"PATH": str(tmp_path)}, gcc_max=15)
    _compiler(tmp_path, headers="41")
    after = find_host_compiler({"PATH": str(tmp_path)}, gcc_max=15)
    assert before.fingerprint["headers"] != after.fingerprint["headers"]
    assert before.key != after.key


def test_the_assembler_changes_the_key(tmp_path: Path) -> None:
    _compiler(tmp_path)
    before = find_host_compiler({"PATH": str(tmp_path)}, gcc_max=15)
    (tmp_path / "as").write_text("as of another binutils")
    assert find_host_compiler({"PATH": str(tmp_path)}, gcc_max=15).key != before.key


def test_what_makes_static_libraries_is_known_by_version(tmp_path: Path) -> None:
    for name, version in (("ar", "2.35.2"), ("objcopy", "2.40")):
        (tmp_path / name).write_text(f"#!/bin/sh\necho 'GNU {name} (GNU Binutils for Debian) {version}'\necho more\n")
        (tmp_path / name).chmod(0o755)
    machine = ThisMachine({"PATH": str(tmp_path)})
    assert find_archivers(machine) == {"ar": "2.35.2", "objcopy": "2.40"}
    (tmp_path / "objcopy").unlink()
    with pytest.raises(ToolError, match="there is no objcopy on PATH") as caught:
        find_archivers(machine)
    assert caught.value.hint == "apt-get install binutils"


def test_no_compiler_says_what_to_install(tmp_path: Path) -> None:
    with pytest.raises(ToolError, match=r"g\+\+ is not on PATH") as caught:
        find_host_compiler({"PATH": str(tmp_path)}, gcc_max=15)
    assert caught.value.hint == "apt-get install g++"


def test_a_cxx_that_is_not_there_is_named(tmp_path: Path) -> None:
    _compiler(tmp_path)
    with pytest.raises(ToolError, match=r"CXX is 'g\+\+-99', which is not there"):
        find_host_compiler({"PATH": str(tmp_path), "CXX": "g++-99"}, gcc_max=15)


def test_a_cxx_with_arguments_is_refused(tmp_path: Path) -> None:
    _compiler(tmp_path)
    with pytest.raises(ToolError, match=r"CXX is 'ccache g\+\+', but it has to be one program"):
        find_host_compiler({"PATH": str(tmp_path), "CXX": "ccache g++"}, gcc_max=15)


def test_a_compiler_too_new_for_nvcc_names_both_versions(tmp_path: Path) -> None:
    path = _compiler(tmp_path, version="15.1.0")
    assert find_host_compiler({"PATH": str(tmp_path)}, gcc_max=15).version == "15.1.0"
    with pytest.raises(ToolError) as caught:
        find_host_compiler({"PATH": str(tmp_path)}, gcc_max=13)
    assert caught.value.sentence == f"{path} is g++ 15.1.0, but the CUDA toolkit accepts g++ up to 13"
    assert caught.value.hint == "apt-get install g++-13 && export CXX=g++-13"


def test_clang_is_refused_also_under_the_name_of_gxx(tmp_path: Path) -> None:
    _compiler(tmp_path, banner="Apple clang version 16.0.0")
    with pytest.raises(ToolError, match=r"is not g\+\+") as caught:
        find_host_compiler({"PATH": str(tmp_path)}, gcc_max=15)
    assert caught.value.detail == ("it says: g++ 12.2.0",)


def test_a_missing_part_is_named(tmp_path: Path) -> None:
    _compiler(tmp_path)
    (tmp_path / "ld").unlink()
    with pytest.raises(ToolError, match="its part ld is missing"):
        find_host_compiler({"PATH": str(tmp_path)}, gcc_max=15)


def test_a_compiler_that_fails_is_not_used(tmp_path: Path) -> None:
    path = tmp_path / "g++"
    path.write_text("#!/bin/sh\necho broken >&2\nexit 3\n")
    path.chmod(0o755)
    with pytest.raises(ToolError, match="--version ended with status 3") as caught:
        find_host_compiler({"PATH": str(tmp_path)}, gcc_max=15)
    assert caught.value.detail == ("broken",)
