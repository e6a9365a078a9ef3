"""Packages of Python alone: what is planned, what decides their bytes, and every gate that can refuse them."""

import dataclasses
import json
import zipfile
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest
from tests.unit import wheel_zoo as zoo
from tests.unit.index_zoo import PROOF, catalog, entry
from tests.unit.node_zoo import A100, known, node
from tests.unit.record_zoo import record
from tests.unit.test_planning import PROJECT, TOOLKIT_130, profile, recipe, situation

from hopperforge.config.project import Project
from hopperforge.config.request import parse_words
from hopperforge.errors import GateError, InputError
from hopperforge.index.catalog import EntryCell
from hopperforge.index.commands import installation
from hopperforge.index.entries import Publication, make_entry
from hopperforge.index.flat import Machines, misfits
from hopperforge.index.pages import cudas_of, shelves_of, simple_pages
from hopperforge.index.proof import PYTHON_GATES, unproven_reasons
from hopperforge.index.served import Choices, served_by
from hopperforge.index.site import site_pages
from hopperforge.index.site_chooser import make_chooser
from hopperforge.index.site_rows import make_rows
from hopperforge.model.cell import AbiClass, Build
from hopperforge.model.front import Front, FrontKind
from hopperforge.model.profile import Budget
from hopperforge.model.recipe import Cudart, Recipe
from hopperforge.model.record import Record, ServedCell
from hopperforge.model.request import Request
from hopperforge.model.upstream import UpstreamPin
from hopperforge.model.versions import CudaVersion, ToolkitVersion, TorchVersion
from hopperforge.model.wheel import GateResult, RepairedWheel
from hopperforge.node.choosing import choose, page_of, reasons_for
from hopperforge.node.values import Wanted
from hopperforge.plan_report import front_text, pair_texts
from hopperforge.planning import make_plan, select, why_host
from hopperforge.provenance.comparison import compare_records, rebuild_words
from hopperforge.provenance.sbom import make_sbom, sbom_problems
from hopperforge.provenance.statement import make_statement
from hopperforge.stages.front_python import PythonInputs, make_python_wheel
from hopperforge.stages.gates_python import modules_gate, pure_gate
from hopperforge.stages.import_gate import probe_order
from hopperforge.stages.import_probe import problems
from hopperforge.stages.verify import verify_python
from hopperforge.stages.wheel_archive import WheelArchive, read_wheel
from hopperforge.support import make_support, text_rows

SOURCES = {
    "python/plain/__init__.py": "import importlib\n\nimport torch\n\nfrom . import _rules\n",
    "python/plain/_rules.py": "def rule() -> int:\n    return 1\n",
    "python/plain/py.typed": "",
    "README.md": "# plain\n",
}
SITUATION = situation({TOOLKIT_130: "registry"})


def pure(folder: Path = Path("plain"), **front: Any) -> Recipe:
    base = recipe("plain", Cudart.STATIC)
    told = {"kind": FrontKind.PYTHON, "symbols": (), "requires": ("torch>=2.9",), "epoch": zoo.EPOCH, **front}
    return dataclasses.replace(
        base,
        folder=folder,
        pin=None,
        promise=None,
        package=dataclasses.replace(
            base.package, distribution="plain", package="plain", module="plain", version="1.0.0"
        ),
        needed=frozenset(),
        default_profile="pure",
        profiles={"pure": dataclasses.replace(profile("pure"), budget=Budget(wheel=100_000, library=0))},
        front=Front(**told),
    )


def project(one: Recipe) -> Project:
    return dataclasses.replace(PROJECT, recipes={**PROJECT.recipes, one.name: one})


def build(one: Recipe) -> Build:
    return make_plan(project(one), Request(recipe="plain"), SITUATION).builds[0]


def inputs(folder: Path, changes: Mapping[str, str | None] | None = None, **front: Any) -> PythonInputs:
    """A recipe in `folder`, with `changes` made to its files and its front."""
    for name, text in {**SOURCES, **(changes or {})}.items():
        if text is not None:
            (folder / "recipe" / name).parent.mkdir(parents=True, exist_ok=True)
            (folder / "recipe" / name).write_text(text)
    workspace = zoo.workspace(folder)
    workspace.project.mkdir(exist_ok=True)
    (workspace.project / "LICENSE").write_text("Do as you like.\n")
    one = pure(folder / "recipe", **front)
    return PythonInputs.read(build(one), pinned(one), workspace)


def pinned(one: Recipe) -> UpstreamPin:
    return project(one).pin_of(one)


def made(folder: Path, changes: Mapping[str, str | None] | None = None, **front: Any) -> RepairedWheel:
    (folder / "out").mkdir(parents=True)
    return make_python_wheel(inputs(folder, changes, **front), folder / "out")


def opened(folder: Path, changes: Mapping[str, str | None] | None = None) -> WheelArchive:
    return read_wheel(made(folder, changes).path)


# Planning.


def test_a_cell_is_every_machine() -> None:
    accepted, rejected = select(project(pure()), Request(recipe="plain"), situation({}))  # no toolkit is asked for
    assert rejected == ()
    (found,) = accepted
    assert (found.cell.cuda, found.cell.torch, found.cell.python, found.abi) == (None, None, None, AbiClass.NONE)
    assert str(found.cell) == "plain/pure any"


def test_the_version_has_no_label_and_the_plan_names_no_toolkit() -> None:
    plan = make_plan(project(pure()), Request(recipe="plain"), SITUATION)
    (one,) = plan.builds
    assert (str(one), one.version, one.cuda, one.platform) == ("plain/pure", "1.0.0", None, "any")
    assert plan.defaults.keys() == {"profile", "engine"}
    assert pair_texts(one) == ["every machine: nothing is compiled"]
    assert front_text(one).startswith("no framework: it is Python alone")


def test_another_profile_is_named_in_the_version() -> None:
    one = pure()
    small = dataclasses.replace(one, profiles={**one.profiles, "small-one": profile("small-one")})
    plan = make_plan(project(small), Request(recipe="plain", profiles=("small-one",)), SITUATION)
    assert plan.builds[0].version == "1.0.0+small.one"


@pytest.mark.parametrize("word", ["cuda=13.0", "torch=2.9", "python=3.11", "toolkit=registry", "executor=dask"])
def test_words_of_what_is_compiled_are_refused(word: str) -> None:
    with pytest.raises(InputError, match=f"leave {word.partition('=')[0]}= out"):
        parse_words(["recipe=plain", word], project(pure()))


def test_it_is_written_on_this_machine() -> None:
    assert why_host(Request(recipe="plain"), pure()) == "nothing of recipe plain is compiled"


def test_the_table_of_support_has_one_row_for_all_machines() -> None:
    every = Request(recipe="plain", cuda=(TOOLKIT_130,), torch=(TorchVersion(2, 9),), everything=True)
    support = make_support(project(pure()), every, SITUATION, [])
    assert text_rows(support) == [("pure", "any", "any", "any", "any", "1.0.0", "buildable here")]
    assert (support.gaps, support.declared) == ((), {})


# The bytes.


def test_equal_files_give_equal_bytes_wherever_they_lie(tmp_path: Path) -> None:
    one, other = made(tmp_path / "one"), made(tmp_path / "a longer place")
    assert one.path.name == "plain-1.0.0-py3-none-any.whl"
    assert one.platform_tags == ("any",)
    assert one.path.read_bytes() == other.path.read_bytes()


@pytest.mark.parametrize(
    ("changes", "front"),
    [
        ({"python/plain/_rules.py": "rule = 2\n"}, {}),
        ({"python/plain/more.py": ""}, {}),
        ({"README.md": "# other\n"}, {}),
        ({}, {"requires": ("torch>=2.10",)}),
        ({}, {"requires_python": ">=3.10"}),
        ({}, {"epoch": zoo.EPOCH + 2}),
    ],
    ids=str,
)
def test_what_changes_the_bytes_changes_the_key(
    changes: Mapping[str, str], front: Mapping[str, Any], tmp_path: Path
) -> None:
    before, after = inputs(tmp_path / "one"), inputs(tmp_path / "two", changes, **front)
    assert before.key != after.key
    (tmp_path / "out").mkdir()
    wheel = make_python_wheel(before, tmp_path / "out").path.read_bytes()
    assert make_python_wheel(after, tmp_path / "out").path.read_bytes() != wheel


def test_a_recipe_without_a_package_is_refused(tmp_path: Path) -> None:
    without = {"python/plain/__init__.py": None, "python/plain/_rules.py": None, "python/plain/py.typed": None}
    with pytest.raises(InputError, match="no file matches python/"):
        inputs(tmp_path, without)


# The gates: each refuses something.


@pytest.mark.parametrize(
    ("name", "data", "said"),
    [
        ("plain/_C.so", b"\x7fELF\2", "machine code of Linux"),
        ("plain/helper", b"\xcf\xfa\xed\xfe1", "machine code of macOS"),
        ("plain/helper.bin", b"MZ\x90", "machine code of Windows"),
        ("plain/lib.a", b"!<arch>\n", "a static library"),
        ("plain/inner.zip", b"PK\x03\x04", "an archive"),
        ("plain/old.pyc", b"\xa7\r\r\n", "plain/old.pyc is no source"),
        ("start.pth", b"import os\n", "start.pth is no source"),
        ("other/__init__.py", b"", "other/__init__.py is outside plain"),
    ],
)
def test_gate_pure_refuses(name: str, data: bytes, said: str, tmp_path: Path) -> None:
    wheel = opened(tmp_path)
    assert pure_gate(wheel, package="plain").passed
    result = pure_gate(dataclasses.replace(wheel, files={**wheel.files, name: data}), package="plain")
    assert (result.passed, said in result.detail) == (False, True), result.detail


def test_gate_pure_refuses_a_tag_of_one_platform_a_program_and_no_package(tmp_path: Path) -> None:
    wheel = opened(tmp_path)
    tagged = dataclasses.replace(wheel, path=Path("plain-1.0.0-py3-none-linux_x86_64.whl"))
    assert "tagged py3-none-linux_x86_64" in pure_gate(tagged, package="plain").detail
    runnable = dataclasses.replace(wheel, runnable=frozenset({"plain/_rules.py"}))
    assert "plain/_rules.py has an executable bit" in pure_gate(runnable, package="plain").detail
    assert "other/__init__.py is missing" in pure_gate(wheel, package="other").detail


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("import numpy\n", "imports numpy, which the package does not require"),
        ("def f():\n    from scipy.linalg import lu\n", "imports scipy.linalg"),
        ("match 1:\n    case _:\n        pass\n", "is not of Python 3.9"),
        ("def (:\n", "is not of Python 3.9"),
    ],
)
def test_gate_modules_refuses(text: str, said: str, tmp_path: Path) -> None:
    words: dict[str, Any] = {"package": "plain", "requires": ("torch>=2.9",), "requires_python": ">=3.9"}
    assert modules_gate(opened(tmp_path / "good"), **words).passed
    result = modules_gate(opened(tmp_path / "bad", {"python/plain/_rules.py": text}), **words)
    assert (result.passed, said in result.detail) == (False, True), result.detail


def judge(folder: Path, wheel: RepairedWheel, given: PythonInputs) -> tuple[GateResult, ...]:
    verified = verify_python(
        wheel, build=given.build, contents=given.contents, workspace=zoo.workspace(folder), host="a-host"
    )
    return verified.gates


def test_every_gate_of_a_proof_is_run_and_passes(tmp_path: Path) -> None:
    given = inputs(tmp_path)
    (tmp_path / "out").mkdir()
    gates = judge(tmp_path, make_python_wheel(given, tmp_path / "out"), given)
    assert {gate.name for gate in gates} == PYTHON_GATES
    assert all(gate.passed for gate in gates)


def test_gates_paths_and_sbom_and_size_refuse(tmp_path: Path) -> None:
    """A file that names the machine, a bill of other contents, and more than the budget allows."""
    given = inputs(tmp_path, {"python/plain/_rules.py": "HOST = 'a-host'\n" + "# much\n" * 40_000})
    (tmp_path / "out").mkdir()
    small = dataclasses.replace(given.build.profile, budget=Budget(wheel=500, library=0))
    given = dataclasses.replace(given, build=dataclasses.replace(given.build, profile=small))
    wheel = make_python_wheel(given, tmp_path / "out")
    other = dataclasses.replace(given, sources={**given.sources, "python/plain/_rules.py": "00" * 32})
    with pytest.raises(GateError) as caught:
        judge(tmp_path, wheel, other)
    assert "failed 3 of 9 gates: sbom, paths, size" in str(caught.value)


def test_gate_install_refuses_what_pip_refuses(tmp_path: Path) -> None:
    """A wheel whose Python pip does not have."""
    given = inputs(tmp_path, requires_python=">=3.99")
    (tmp_path / "out").mkdir()
    with pytest.raises(GateError) as caught:
        judge(tmp_path, make_python_wheel(given, tmp_path / "out"), given)
    assert any("install: pip refuses the wheel" in line for line in caught.value.detail)


def test_gate_import_refuses_a_package_that_does_not_import() -> None:
    """What `verify` asks of Python alone is the import; the probe runs beside a torch, and comes no further here."""
    promise = pure().promised
    assert promise is not None
    order = json.loads(probe_order(dataclasses.replace(promise, module="no_such_package")))
    (said,) = problems(order)
    assert said.startswith("import no_such_package fails: ModuleNotFoundError")


@pytest.mark.parametrize(
    ("member", "true", "lie", "said"),
    [
        ("WHEEL", b"Purelib: true", b"Purelib: false", "WHEEL does not say Root-Is-Purelib: true"),
        ("METADATA", b"Requires-Python: >=3.9", b"Requires-Python: >=3.8", "Requires-Python is >=3.8, expected >=3.9"),
    ],
)
def test_metadata_must_say_that_it_is_for_all(member: str, true: bytes, lie: bytes, said: str, tmp_path: Path) -> None:
    given = inputs(tmp_path)
    (tmp_path / "out").mkdir()
    wheel = make_python_wheel(given, tmp_path / "out")
    with zipfile.ZipFile(wheel.path) as archive:
        members = {name: archive.read(name) for name in archive.namelist()}
    place = f"plain-1.0.0.dist-info/{member}"
    assert true in members[place]
    zoo.write(wheel.path.parent, {**members, place: members[place].replace(true, lie)}, name=wheel.path.name)
    with pytest.raises(GateError) as caught:
        judge(tmp_path, wheel, given)
    assert f"metadata: {said}" in caught.value.detail


# The record, the bill, the signature's statement.


def record_of(given: PythonInputs, **changes: Any) -> Record:
    contents = given.contents
    cell = ServedCell(cuda=None, torch=None, python=None, platform="any", runtime=None)
    facts: dict[str, Any] = {
        "name": "plain",
        "version": "1.0.0",
        "recipe": "plain",
        "profile": "pure",
        "wheel": dataclasses.replace(
            record().wheel, file="plain-1.0.0-py3-none-any.whl", library_size=0, platform_tags=("any",)
        ),
        "switches": (),
        "architectures": (),
        "cells": (cell,),
        "source": contents.source,
        "toolkit": None,
        "host_compiler": None,
        "engine": "host",
        "image": None,
        "pack": None,
        "front": contents.front,
        "licences": contents.licences,
        "gates": tuple(GateResult(name=name, passed=True, detail="") for name in sorted(PYTHON_GATES)),
    }
    return record(**(facts | changes))


def test_a_record_without_a_toolkit_comes_back(tmp_path: Path) -> None:
    written = record_of(inputs(tmp_path))
    assert Record.from_json(written.to_json(), "here") == written
    assert rebuild_words(written) == (
        "recipe=plain",
        "profile=pure",
        "kernels=pack",
        "merge=off",
        "engine=host",
    )


def test_another_source_is_the_first_difference(tmp_path: Path) -> None:
    one = record_of(inputs(tmp_path / "one"))
    other = record_of(inputs(tmp_path / "two", {"python/plain/_rules.py": "rule = 2\n"}))
    assert compare_records(one, one) == ()
    assert "python/plain/_rules.py" in [found.what for found in compare_records(one, other)]


def test_the_bill_names_the_sources_and_no_compiler(tmp_path: Path) -> None:
    contents = inputs(tmp_path).contents
    bill = make_sbom(contents)
    assert sbom_problems(bill, contents) == []
    assert b"python/plain/_rules.py" in bill
    assert not [word for word in (b"g++", b"cuda-toolkit", b"NVIDIA", b"bound to the kernels") if word in bill]
    assert b"front/python/plain/_rules.py" in make_statement(record_of(inputs(tmp_path)), b"{}", key_id="k")


def test_it_is_proven_by_its_gates_an_import_and_a_gpu(tmp_path: Path) -> None:
    lacking = record_of(inputs(tmp_path))
    assert unproven_reasons(lacking) == (
        "no gate shows an import beside a torch it serves (nox -s verify)",
        "no smoke tests on a GPU (nox -s smoke)",
    )
    imported = GateResult(name="import with torch 2.11 in python 3.12", passed=True, detail="")
    gpu = {"gpu": "H200", "driver": "580", "passed": 3, "failed": 0, "complete": True}
    assert unproven_reasons(dataclasses.replace(lacking, gpu=gpu, gates=(*lacking.gates, imported))) == ()
    (missing,) = unproven_reasons(dataclasses.replace(lacking, gpu=gpu, gates=(*lacking.gates[1:], imported)))
    assert missing == f"gate {lacking.gates[0].name} is missing"


# The index, and the doctor.


def listed(**changes: Any) -> Any:
    facts = {
        "project": "plain",
        "file": "plain-1.0.0-py3-none-any.whl",
        "platform_tags": ("any",),
        "recipe": "plain",
        "profile": "pure",
        "switches": (),
        "architectures": (),
        "toolkit": "",
        "driver": "",
        "library_size": 0,
        "abi": AbiClass.NONE,
        "torch": "torch>=2.9",
        "requires_python": ">=3.10",
        "cells": (EntryCell(torch=None, python=None, platform="any", runtime=None),),
    }
    return entry("1.0.0", **(facts | changes))


def test_an_entry_of_it_names_no_toolkit(tmp_path: Path) -> None:
    metadata = b"Metadata-Version: 2.4\nName: plain\nVersion: 1.0.0\nRequires-Dist: torch>=2.9\n"
    publication = Publication(driver="", default=True, uploaded="2026-11-22T08:30:15+00:00")
    found = make_entry(record_of(inputs(tmp_path)), metadata, publication)
    assert (found.toolkit, found.cuda, found.abi, found.torch) == ("", None, AbiClass.NONE, "torch>=2.9")


def test_every_cuda_has_it_and_its_own_page_is_that_of_everything() -> None:
    both = catalog(listed(), entry("3.0.0+cu128"), entry("3.0.0+cu130"))
    assert cudas_of(both) == (CudaVersion(12, 8), CudaVersion(13, 0))
    assert list(shelves_of(listed(), cudas_of(both))) == ["all", "cu128", "cu130"]
    pages = simple_pages(both)
    assert b"plain-1.0.0-py3-none-any.whl" in pages["cu128/simple/plain/index.html"]
    assert "all/simple/plain/index.html" in simple_pages(catalog(listed()))
    lines = installation(listed(), "https://index", CudaVersion(12, 8), TorchVersion(2, 9))
    assert lines.page == "https://index/all/simple/plain/index.html"


def test_the_page_says_whom_it_serves() -> None:
    both = catalog(listed(), entry("3.0.0+cu130"))
    choices = Choices.of(both)
    served = served_by(listed(), choices)
    assert (served.cudas, served.torches[0], served.pythons[0]) == (("13.0",), "2.9", "3.10")
    assert {"H100, H200", "V100"} <= set(served.gpus)
    rows = make_rows(both, choices)
    row = next(row for row in rows if row.entry.project == "plain")
    (chosen,) = (one for one in make_chooser(rows, choices).packages if one["row"] == row.anchor)
    assert chosen["answers"]["machine"] == ["x86_64"]  # type: ignore[index,call-overload]
    page = site_pages(both)["index.html"].decode()
    assert "none: nothing is compiled" in page
    assert "any machine" in page
    assert (row.machines, row.glibc, row.library_size) == (("any",), "", "none")
    assert row.cells == "torch>=2.9, any Python and any CUDA"


def test_a_flat_index_of_any_machines_takes_it() -> None:
    names = ["plain-1.0.0-py3-none-any.whl", "plain-1.1.0-py3-none-any.whl"]
    assert misfits(names, Machines(cuda=CudaVersion(13, 0))) == ()
    assert misfits(names, None) == ()
    assert misfits([*names, "plain-1.2.0-py3-none-linux_x86_64.whl"], Machines(cuda=CudaVersion(13, 0))) != ()


@pytest.mark.parametrize(
    "changes", [{}, {"gpus": (A100,)}, {"gpus": (), "driver": None}, {"machine": "aarch64", "libc": ("musl", ())}]
)
def test_the_doctor_gives_it_to_every_node(changes: Mapping[str, Any]) -> None:
    entries = known(listed(gpu=PROOF), entry("3.0.0+cu130"))
    chosen, _ = choose(entries, node(**changes), Wanted(project="plain"))
    assert chosen is not None
    assert page_of(chosen, entries, (13, 0)) == "all/simple"
    said = reasons_for(chosen, node(**changes))
    assert said[0].startswith("nothing in it is compiled")
    assert said[1].startswith("needs torch>=2.9, and binds to none")


def test_the_doctor_refuses_it_beside_an_older_torch_or_python() -> None:
    old = dataclasses.replace(node(), python=(3, 9, 1))
    chosen, (rejected,) = choose(known(listed()), old, Wanted(project="plain"))
    assert (chosen, rejected.reasons) == (None, ("needs Python >=3.10, this is 3.9.1",))


def test_toolkits_are_still_read_where_there_is_one() -> None:
    assert entry("3.0.0+cu130").cuda == ToolkitVersion.parse("13.0").cuda
