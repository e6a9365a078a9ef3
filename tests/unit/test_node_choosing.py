"""What the doctor decides: which wheel fits a node, which is taken, from which page, and with which lines."""

from typing import Any

import pytest
from hypothesis import example, given
from hypothesis import strategies as st
from packaging.specifiers import SpecifierSet
from tests.unit.node_zoo import A100, B200, H100, known, newer, node, per_torch, stable, trimmed

from hopperforge.config.project import load_project
from hopperforge.index.catalog import Catalog, Entry, EntryCell
from hopperforge.index.commands import installation
from hopperforge.index.pages import cudas_of, shelves_of
from hopperforge.index.whole import index_files
from hopperforge.model.cell import AbiClass
from hopperforge.model.versions import CudaVersion, TorchVersion
from hopperforge.node.answer import as_url, commands, examine
from hopperforge.node.choosing import choose, page_of
from hopperforge.node.fitting import OLD_ABI_UNTIL, runs_on, why_not
from hopperforge.node.values import (
    EXIT_CODES,
    FITS,
    INSTALLED,
    NOTHING,
    UNREADABLE,
    WRONG,
    Driver,
    Gpu,
    Package,
    Torch,
    Wanted,
)
from hopperforge.node.versions import numbers, satisfies

CU128 = Torch("2.9.1+cu128", (12, 8), cxx11_abi=True)
CU124 = Torch("2.6.0+cu124", (12, 4), cxx11_abi=False)
OLD_DRIVER = Driver("550.54.15", (12, 4))


@pytest.mark.parametrize(
    ("entry", "changes", "reason"),
    [
        (stable(), {}, None),
        (newer(), {}, None),
        (stable(), {"torch": None}, None),
        (stable(), {"driver": None, "gpus": ()}, None),
        (stable(), {"torch": CU128, "driver": OLD_DRIVER}, None),
        (newer(), {"driver": OLD_DRIVER}, "holds the CUDA 13.0 runtime, which needs driver 580.65.06, and the driver"),
        (newer(), {"driver": Driver("570.10", None)}, "needs driver 580.65.06, and the driver here is 570.10"),
        (newer(), {"driver": Driver("580.65.06", None)}, None),
        (newer(), {"torch": CU128}, "was compiled for CUDA 13.0, torch 2.9.1+cu128 runs on 12.8"),
        (stable("13.2"), {}, "was compiled for CUDA 13.2, torch 2.11.0+cu130 runs on 13.0"),
        (stable(), {"torch": CU124}, "needs torch>=2.9, installed is 2.6.0+cu124"),
        (stable(), {"torch": Torch("2.9.0a0+git1", (12, 8), cxx11_abi=None)}, None),
        (per_torch(), {"torch": CU124}, None),
        (per_torch(), {"torch": CU128}, "needs torch==2.6.*, installed is 2.9.1+cu128"),
        (per_torch(), {"torch": Torch("2.6.0+cu126", (12, 6), cxx11_abi=True)}, "is bound to torch's old C++ ABI"),
        (per_torch("2.8"), {"torch": Torch("2.8.0", (12, 8), cxx11_abi=False)}, "is bound to torch's C++11 C++ ABI"),
        (per_torch("2.8"), {"torch": Torch("2.8.0", (12, 8), cxx11_abi=True)}, None),
        (per_torch(), {"torch": Torch("2.6.0", (13, 0), cxx11_abi=False)}, "was compiled for CUDA 12.4"),
        (per_torch(), {"torch": Torch("2.6.0+cu118", (11, 8), cxx11_abi=False)}, "was compiled for CUDA 12.4"),
        (stable(), {"gpus": (A100,)}, "holds code for sm_90a, and the GPU here is NVIDIA A100-SXM4-80GB"),
        (stable(), {"gpus": (B200,)}, "compute capability 10.0"),
        (stable(), {"gpus": (A100, H100)}, None),
        (stable(), {"gpus": (Gpu("NVIDIA H100", None),)}, None),
        (stable(architectures=("sm_80", "sm_90a")), {"gpus": (A100,)}, None),
        (stable(), {"libc": ("glibc", (2, 28))}, None),
        (stable(), {"libc": ("glibc", (2, 27))}, "needs glibc 2.28, this system has 2.27"),
        (stable(), {"libc": ("musl", ())}, "is for glibc, this system has musl"),
        (stable(platform_tags=("manylinux2014_x86_64",)), {"libc": ("glibc", (2, 17))}, None),
        (stable(platform_tags=("manylinux2014_x86_64",)), {"libc": ("glibc", (2, 12))}, "needs glibc 2.17"),
        (stable(platform_tags=("linux_x86_64",)), {}, None),
        (stable(), {"machine": "aarch64"}, "is for manylinux_2_28_x86_64, this is Linux on aarch64"),
        (stable(), {"system": "Darwin"}, "this is Darwin on x86_64"),
        (stable(), {"python": (3, 8, 10)}, "needs Python >=3.9, this is 3.8.10"),
        (stable(), {"implementation": "pypy"}, "is for CPython, this is pypy"),
        (stable(), {"free_threaded": True}, "is of the stable ABI, which a free-threaded Python does not load"),
        (stable(yanked="wrong rope"), {}, "was withdrawn: wrong rope"),
    ],
)
def test_whether_a_wheel_fits(entry: Entry, changes: dict[str, Any], reason: str | None) -> None:
    (one,) = known(entry)
    reasons = why_not(one, node(**changes), Wanted())
    assert len(reasons) == (reason is not None)
    assert reason is None or reason in reasons[0]


def test_every_reason_is_given() -> None:
    (one,) = known(newer())
    worst = node(python=(3, 8), gpus=(A100,), driver=OLD_DRIVER, torch=CU124, libc=("glibc", (2, 17)))
    assert len(why_not(one, worst, Wanted(profile="full"))) == 7


@pytest.mark.parametrize(
    ("architecture", "capability", "runs"),
    [
        ("sm_90a", (9, 0), True),
        ("sm_90a", (10, 0), False),
        ("sm_90a", (8, 9), False),
        ("sm_80", (8, 6), True),
        ("sm_86", (8, 0), False),
        ("sm_80", (9, 0), False),
        ("sm_100a", (10, 0), True),
        ("gibberish", (9, 0), False),
    ],
)
def test_which_code_runs_on_which_gpu(architecture: str, capability: tuple[int, int], *, runs: bool) -> None:
    assert runs_on(architecture, capability) is runs


@pytest.mark.parametrize(
    ("entries", "changes", "chosen"),
    [
        ((stable(), newer()), {}, newer()),
        ((stable(), newer()), {"torch": CU128}, stable()),
        ((stable(), newer()), {"driver": OLD_DRIVER}, stable()),
        ((stable(), newer()), {"driver": None, "torch": None, "gpus": ()}, stable()),
        ((stable(), per_torch()), {"torch": CU124}, per_torch()),
        ((stable(), per_torch()), {"torch": None}, stable()),
        ((per_torch("2.6"), per_torch("2.8")), {"torch": CU124}, per_torch("2.6")),
        ((stable(), trimmed()), {}, stable()),
        ((stable(yanked="broken"), trimmed()), {}, trimmed()),
        ((stable(unproven=True), stable(version="2.9.0+cu124", file="older.whl")), {}, "older.whl"),
        ((stable(), stable(version="3.0.1+cu124", file="newer.whl")), {}, "newer.whl"),
        ((stable(project="other"),), {}, None),
        ((), {}, None),
    ],
)
def test_which_wheel_is_taken(entries: tuple[Entry, ...], changes: dict[str, Any], chosen: Entry | str | None) -> None:
    found, rejected = choose(known(*entries), node(**changes), Wanted())
    assert (found and found.file) == (chosen.file if isinstance(chosen, Entry) else chosen)
    assert len(rejected) + (found is not None) == len([one for one in entries if one.project == "fa3-fwd"])
    assert all(one.reasons for one in rejected)


def test_a_profile_is_taken_when_asked_for() -> None:
    found, rejected = choose(known(stable(), trimmed()), node(), Wanted(profile="hdim128-bf16"))
    assert found is not None
    assert found.profile == "hdim128-bf16"
    assert [one.reasons for one in rejected] == [("is of profile fa3-fwd",)]


@pytest.mark.parametrize(
    ("entry", "cuda", "page"),
    [
        (stable(), (13, 0), "cu130/simple"),
        (stable(), (12, 8), "cu128/simple"),
        (stable(), (12, 9), "cu128/simple"),
        (stable(), (14, 0), "cu130/simple"),
        (stable(), (12, 4), "cu124/simple"),
        (stable(), None, "cu130/simple"),
        (newer(), (13, 0), "cu130/simple"),
        (per_torch(), (12, 6), "cu124/torch2.6/simple"),
        (per_torch(), (13, 0), "cu128/torch2.6/simple"),
        (trimmed(), (12, 8), "cu128/hdim128-bf16/simple"),
        (per_torch(default=False, profile="full"), (12, 8), "cu128/torch2.6/full/simple"),
    ],
)
def test_which_page_lists_it(entry: Entry, cuda: tuple[int, int] | None, page: str) -> None:
    cells = (EntryCell(torch="2.9", python="3.12", platform="linux_x86_64", runtime="12.8"),)
    (one,) = known(entry)
    assert page_of(one, known(stable(cells=cells), newer(), per_torch(), entry), cuda) == page


@pytest.mark.parametrize("index", ["https://wheels.example/fa3/", "https://wheels.example/a b'c", "file:///srv/index"])
@pytest.mark.parametrize("entry", [stable(), per_torch(), trimmed(), per_torch(default=False, profile="full")])
def test_the_lines_are_those_of_the_index(entry: Entry, index: str) -> None:
    told = installation(entry, index, CudaVersion.parse("12.4"), TorchVersion.parse(str(entry.cells[0].torch)))
    (one,) = known(entry)
    lines = commands(one, page_of(one, known(entry), (12, 4)), index)
    assert lines == {name: getattr(told, name) for name in ("pip", "uv", "pip_by_page", "uv_by_page")}


def test_an_index_is_named_without_its_credentials() -> None:
    assert as_url("https://me:secret@wheels.example/fa3/") == "https://wheels.example/fa3"
    assert as_url("/srv/index") == "file:///srv/index"


def test_the_abi_of_every_torch_of_the_matrix_is_known(project_root: Any) -> None:
    matrix = load_project(project_root).matrix
    below = {line: fact.cxx11_abi for line, fact in matrix.torches.items() if line < matrix.stable_floor}
    assert below
    assert below == {line: (line.major, line.minor) > OLD_ABI_UNTIL for line in below}
    assert {str(abi) for abi in AbiClass} == {"stable", "per-torch", "none"}


OURS = Package("fa3-fwd", "3.0.0+cu130", "/site")


@pytest.mark.parametrize(
    ("changes", "status"),
    [
        ({}, FITS),
        ({"packages": (OURS,)}, INSTALLED),
        ({"packages": (Package("fa3-fwd", "3.0.0+cu124", "/site"),)}, INSTALLED),
        ({"packages": (Package("fa3-fwd", "0.0.3", "/site"),)}, WRONG),
        ({"packages": (Package("flash-attn", "2.8.3", "/site"),)}, FITS),
        ({"packages": (OURS,), "torch": CU128}, WRONG),
        ({"packages": (OURS,), "torch": None}, WRONG),
        ({"packages": (OURS,), "gpus": (A100,)}, NOTHING),
        ({"libc": ("glibc", (2, 17))}, NOTHING),
        ({"driver": None, "gpus": ()}, WRONG),
    ],
)
def test_the_answer_in_one_word(changes: dict[str, Any], status: str) -> None:
    report = examine(node(**changes), known(stable(), newer()), Wanted(), "/index")
    assert report.status == status
    assert (report.chosen is None) == (status == NOTHING) == (report.nearest is not None) == (not report.commands)


def test_statuses_have_exit_codes_of_their_own() -> None:
    assert sorted(EXIT_CODES) == sorted({INSTALLED, FITS, WRONG, NOTHING, UNREADABLE})
    assert len(set(EXIT_CODES.values()) - {1, 2}) == 5


def test_the_nearest_is_what_needs_the_least_change() -> None:
    report = examine(
        node(torch=Torch("2.8.0", (12, 8), cxx11_abi=True), driver=OLD_DRIVER),
        known(newer(), stable(), per_torch("2.8", yanked="broken")),
        Wanted(),
        "/index",
    )
    assert report.nearest is not None
    assert (report.nearest.file, report.nearest.reasons) == (stable().file, ("needs torch>=2.9, installed is 2.8.0",))


_PARTS = st.lists(st.integers(0, 12), min_size=1, max_size=3).map(lambda parts: ".".join(map(str, parts)))
_CLAUSES = st.one_of(
    st.tuples(st.sampled_from(["==", "!=", ">=", "<=", ">", "<"]), _PARTS).map("".join),
    st.tuples(st.sampled_from(["==", "!="]), _PARTS).map(lambda pair: "".join(pair) + ".*"),
    _PARTS.filter(lambda text: "." in text).map(lambda text: "~=" + text),
)


@given(version=_PARTS, clauses=st.lists(_CLAUSES, max_size=3))
@example(version="0", clauses=["==0.0.*"])
@example(version="3", clauses=["~=3.0.0"])
def test_specifiers_mean_what_packaging_says(version: str, clauses: list[str]) -> None:
    assert satisfies(numbers(version), ",".join(clauses)) == SpecifierSet(",".join(clauses)).contains(version)


def test_a_specifier_of_another_kind_is_refused() -> None:
    with pytest.raises(ValueError, match="no version specifier"):
        satisfies((2, 6), "===2.6")


@pytest.mark.parametrize("cuda", [None, (11, 8), (12, 4), (12, 6), (12, 9), (13, 0), (14, 1)])
@pytest.mark.parametrize("entry", [stable(), newer(), per_torch(), trimmed(), per_torch(default=False, profile="full")])
def test_the_page_is_one_that_the_index_has_and_lists_the_wheel(entry: Entry, cuda: tuple[int, int] | None) -> None:
    catalog = Catalog.of([stable(), newer(), per_torch(), trimmed(), per_torch(default=False, profile="full")])
    (one,) = known(entry)
    page = page_of(one, known(*catalog.packages), cuda)
    assert page.removesuffix("/simple") in shelves_of(entry, cudas_of(catalog))
    assert f"{page}/index.html" in index_files(catalog)
