"""Flat indexes: reading labels, for which machines a file is, and which files may not lie beside each other."""

from dataclasses import replace

import pytest
from tests.unit import index_zoo as zoo

from hopperforge.index.flat import Label, Machines, misfits
from hopperforge.index.pages import shelves_of
from hopperforge.model.versions import CudaVersion, TorchVersion

STABLE_124, STABLE_130 = zoo.entry("3.0.0+cu124").file, zoo.entry("3.0.0+cu130").file
BOUND, TRIMMED = zoo.entry("3.0.0+cu124torch2.6").file, zoo.entry("3.0.0+cu124.hdim128.bf16").file
FOREIGN = "fa3_fwd-99.0-cp39-abi3-manylinux_2_28_x86_64.whl"


def machines(cuda: str, torch: str | None = None, profile: str | None = None) -> Machines:
    return Machines(cuda=CudaVersion.parse(cuda), torch=TorchVersion.parse(torch) if torch else None, profile=profile)


@pytest.mark.parametrize("text", ["cu124", "cu124torch2.6", "cu135torch2.11.hdim128.bf16", "cu124.full"])
def test_labels_are_read_and_written(text: str) -> None:
    assert str(Label.of_file(zoo.entry(f"3.0.0+{text}").file)) == text


@pytest.mark.parametrize("name", [FOREIGN, "fa3_fwd-3.0.0.tar.gz", zoo.entry("3.0.0+cpu").file, "fa3_fwd-x.whl"])
def test_other_files_have_no_label(name: str) -> None:
    assert Label.of_file(name) is None


@pytest.mark.parametrize(
    ("asked", "wrong"),
    [
        (machines("12.4"), {STABLE_130, BOUND, TRIMMED, FOREIGN}),
        (machines("12.8"), {STABLE_130, BOUND, TRIMMED, FOREIGN}),
        (machines("13.0"), {BOUND, TRIMMED, FOREIGN}),
        (machines("12.8", "2.6"), {STABLE_130, TRIMMED, FOREIGN}),
        (machines("13.0", "2.6"), {BOUND, TRIMMED, FOREIGN}),
        (machines("12.8", "2.7"), {STABLE_130, BOUND, TRIMMED, FOREIGN}),
        (machines("13.0", None, "hdim128-bf16"), {STABLE_124, STABLE_130, BOUND, FOREIGN}),
    ],
)
def test_an_index_for_machines_takes_what_is_theirs(asked: Machines, wrong: set[str]) -> None:
    assert set(misfits([STABLE_124, STABLE_130, BOUND, TRIMMED, FOREIGN], asked)) == wrong


def test_without_machines_every_label_must_be_the_same() -> None:
    assert misfits([STABLE_124, STABLE_124.replace("3.0.0", "3.1.0")], None) == ()
    assert misfits([STABLE_130, STABLE_124], None) == (STABLE_124, STABLE_130)
    assert misfits([STABLE_124, FOREIGN], None) == (STABLE_124, FOREIGN)


def test_a_file_of_python_alone_is_for_all_where_every_file_of_its_project_is() -> None:
    python, newer = "fa3_fwd-99.0-py3-none-any.whl", "fa3_fwd-99.1-py3-none-any.whl"
    assert misfits([python, newer], None) == misfits([python, newer], Machines(cuda=CudaVersion(12, 8))) == ()
    assert misfits([STABLE_124, python], None) == (STABLE_124, python)
    assert misfits([STABLE_124, python], Machines(cuda=CudaVersion(12, 8))) == (python,)


@pytest.mark.parametrize("version", ["3.0.0+cu124", "3.0.0+cu130", "3.0.0+cu124torch2.6", "3.0.0+cu124.hdim128.bf16"])
@pytest.mark.parametrize("cuda", ["12.4", "12.8", "13.0", "13.2"])
@pytest.mark.parametrize("profile", [None, "hdim128-bf16"])
def test_a_flat_index_takes_what_the_page_for_the_same_machines_lists(
    version: str, cuda: str, profile: str | None
) -> None:
    of_profile = "hdim128" in version
    entry = replace(zoo.entry(version, cells=zoo.cells("2.6")), default=not of_profile, profile="hdim128-bf16")
    label = Label.of_file(entry.file)
    assert label is not None
    folder = "/".join([CudaVersion.parse(cuda).label, "torch2.6", *([profile] if profile else [])])
    listed = folder in shelves_of(entry, [CudaVersion.parse(cuda)])
    assert machines(cuda, "2.6", profile).take(label) == listed
