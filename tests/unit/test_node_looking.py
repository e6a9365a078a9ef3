"""What the doctor makes of what a machine says: driver and GPUs, torch's files, installed packages."""

import json
from pathlib import Path
from typing import Any

import pytest
from tests.unit.node_zoo import OURS, TORCH, distribution, known, newer, node, stable

from hopperforge.node.installed import installed_under, look_at_packages
from hopperforge.node.looking import join_driver, join_gpus, look_at_torch, read_abi
from hopperforge.node.mending import findings
from hopperforge.node.program import assume, say
from hopperforge.node.reading import credentials, read_entries, read_index
from hopperforge.node.values import Driver, Gpu, Node, Package, Report, Torch, UnreadableError, Wanted

SMI = {"rows": [["NVIDIA H100", "580.65.06", "9.0", "Disabled"]], "cuda": ["13.0"]}
CUDA = {"version": 13000, "status": 0, "devices": [["NVIDIA H100", 9, 0]]}
HEALTHY = (Gpu("NVIDIA H100", (9, 0)),)


@pytest.mark.parametrize(
    ("smi", "cuda", "gpus", "driver"),
    [
        ({}, {}, (), None),
        (SMI, CUDA, HEALTHY, Driver("580.65.06", (13, 0))),
        (SMI, {}, HEALTHY, Driver("580.65.06", (13, 0))),
        ({}, CUDA, HEALTHY, Driver(None, (13, 0))),
        ({}, {"version": 12080, "status": 0, "devices": []}, (), Driver(None, (12, 8))),
        ({"rows": [["NVIDIA H100", "470.1"]], "cuda": []}, {}, (Gpu("NVIDIA H100", None),), Driver("470.1", None)),
        ({"trouble": "NVIDIA-SMI has failed"}, {}, (), Driver(None, None, "NVIDIA-SMI has failed")),
        ({"trouble": "NVIDIA-SMI has failed"}, CUDA, HEALTHY, Driver(None, (13, 0))),
        ({}, {"trouble": "no answer within 60 s"}, (), Driver(None, None, "no answer within 60 s")),
        (SMI, {"version": 13000, "status": 5}, HEALTHY, Driver("580.65.06", (13, 0), "cuInit answers error 5")),
        (
            {"rows": [["NVIDIA H100", "580.65.06", "9.0", "Enabled"]], "cuda": []},
            {"version": 13000, "status": 0, "devices": [["NVIDIA H100 MIG 1g.10gb", 9, 0]]},
            (Gpu("NVIDIA H100 MIG 1g.10gb", (9, 0), mig=True),),
            Driver("580.65.06", (13, 0)),
        ),
    ],
)
def test_what_is_known_of_gpus_and_driver(
    smi: dict[str, Any], cuda: dict[str, Any], gpus: tuple[Gpu, ...], driver: Driver | None
) -> None:
    assert join_gpus(smi, cuda) == gpus
    assert join_driver(smi, cuda) == driver


def test_gpus_that_are_not_ready_are_explained() -> None:
    driver = join_driver(SMI, {"version": 13000, "status": 802})
    assert driver is not None
    assert driver.trouble is not None
    assert "start nvidia-fabricmanager" in driver.trouble


def packages(*sites: Path) -> tuple[Package, ...]:
    paths = [str(site) for site in sites]
    return look_at_packages(installed_under(paths), paths, ["fa3-fwd"], imports=False)


def troubles(*sites: Path) -> list[str]:
    return [trouble.what for package in packages(*sites) for trouble in package.troubles]


def test_a_sound_package_has_no_troubles(tmp_path: Path) -> None:
    distribution(tmp_path, "fa3_fwd", "3.0.0+cu124", OURS)
    distribution(tmp_path, "numpy", "2.0.0", {"numpy/__init__.py": b""})
    assert packages(tmp_path, tmp_path / ".." / tmp_path.name) == (Package("fa3-fwd", "3.0.0+cu124", str(tmp_path)),)


def test_changed_and_missing_files_are_found(tmp_path: Path) -> None:
    distribution(tmp_path, "fa3-fwd", "3.0.0", OURS)
    (tmp_path / "fa3_fwd_interface.py").write_text("patched")
    (tmp_path / "fa3_fwd" / "__init__.py").unlink()
    changed, missing = sorted(troubles(tmp_path), key=lambda text: text.endswith("is missing"))
    assert changed.endswith("fa3_fwd_interface.py is not the file of its RECORD: it was changed or overwritten")
    assert missing.endswith("fa3_fwd/__init__.py is missing")


def test_a_package_without_record_cannot_be_judged(tmp_path: Path) -> None:
    (distribution(tmp_path, "fa3-fwd", "3.0.0", OURS) / "RECORD").unlink()
    assert any("it has no RECORD of its files" in what for what in troubles(tmp_path))


def test_what_a_broken_installation_left_is_passed_over(tmp_path: Path) -> None:
    (tmp_path / "~a3_fwd-3.0.0.dist-info").mkdir()
    (tmp_path / "fa3_fwd-3.0.0.dist-info").mkdir()
    assert packages(tmp_path) == ()


def test_two_packages_of_the_same_file_are_found(tmp_path: Path) -> None:
    distribution(tmp_path, "flash-attn-3", "3.0.0b1", {"flash_attn_interface.py": b"3"})
    distribution(tmp_path, "flash-attn", "2.8.3", {"flash_attn_interface.py": b"2"})
    (trouble,) = [
        trouble
        for package in packages(tmp_path)
        for trouble in package.troubles
        if package.project == "flash-attn-3" and "was installed by" in trouble.what
    ]
    assert "was installed by flash-attn 2.8.3 too: the later overwrote the earlier" in trouble.what
    assert trouble.mend is not None
    assert trouble.mend.startswith("pip uninstall -y flash-attn-3 flash-attn ")


def test_one_package_in_two_folders_is_found(tmp_path: Path) -> None:
    distribution(tmp_path / "user", "fa3-fwd", "3.0.0+cu124", OURS)
    distribution(tmp_path / "venv", "fa3-fwd", "3.0.0+cu130", OURS)
    found = troubles(tmp_path / "user", tmp_path / "venv")
    assert any(f"one hides the other: 3.0.0+cu130 in {tmp_path}/venv" in what for what in found)
    assert any(f"import fa3_fwd finds {tmp_path}/user/fa3_fwd/__init__.py" in what for what in found)


def test_a_stray_file_that_hides_the_package_is_found(tmp_path: Path) -> None:
    distribution(tmp_path / "site", "fa3-fwd", "3.0.0+cu124", OURS)
    (tmp_path / "fa3_fwd_interface.py").write_text("")
    (found,) = troubles(tmp_path, tmp_path / "site")
    assert found.endswith(f"import fa3_fwd_interface finds {tmp_path}/fa3_fwd_interface.py in its place")


@pytest.mark.parametrize(
    ("library", "abi"),
    [
        (b"_ZN3c105ErrorC1ENS_14SourceLocationENSt7__cxx1112basic_stringIcSt11char_traitsIcESaIcEEE", True),
        (b"_ZN3c105ErrorC1ENS_14SourceLocationESs", False),
        (b"", None),
    ],
)
def test_torch_is_read_off_its_files(tmp_path: Path, library: bytes, *, abi: bool | None) -> None:
    files = {"torch/version.py": TORCH, "torch/lib/libc10.so": b"\0" + library + b"\0"}
    distribution(tmp_path, "torch", "2.6.0", files)
    found = look_at_torch(installed_under([str(tmp_path)]), {"trouble": "OSError: libcudart.so.12: not found"})
    assert found == Torch("2.6.0+cu124", (12, 4), abi, "OSError: libcudart.so.12: not found")
    assert read_abi(library) is abi


@pytest.mark.parametrize(
    ("answer", "torch"),
    [
        ({}, None),
        ({"trouble": None}, None),
        (
            {"version": "2.11.0+cu130", "cuda": "13.0", "cxx11_abi": True},
            Torch("2.11.0+cu130", (13, 0), cxx11_abi=True),
        ),
        ({"version": "2.11.0+cpu", "cuda": None, "cxx11_abi": True}, Torch("2.11.0+cpu", None, cxx11_abi=True)),
        ({"trouble": "ImportError: x"}, Torch("of unknown version", None, None, "ImportError: x")),
    ],
)
def test_torch_as_it_says_itself(answer: dict[str, Any], torch: Torch | None) -> None:
    assert look_at_torch((), answer) == torch


def said(changed: Node) -> list[str]:
    entries = known(stable(), newer(yanked="wrong"))
    return [f"{one.what} -> {one.mend}" for one in findings(changed, entries, entries[0], Wanted())]


@pytest.mark.parametrize(
    ("changes", "says"),
    [
        ({"driver": None, "gpus": ()}, "there is no NVIDIA driver"),
        ({"driver": Driver(None, None, "it is broken")}, "the NVIDIA driver does not work: it is broken"),
        ({"gpus": ()}, "no GPU is seen -> check CUDA_VISIBLE_DEVICES"),
        ({"gpus": (Gpu("A100", (8, 0)), *HEALTHY)}, "-> export CUDA_VISIBLE_DEVICES=1"),
        ({"gpus": (Gpu("H100", (9, 0), mig=True),)}, "split by MIG"),
        (
            {"torch": None},
            "torch is not installed for /usr/bin/python3 -> /usr/bin/python3 -m pip install 'torch>=2.9'",
        ),
        ({"torch": Torch("2.11.0", (13, 0), None, "ImportError: libfoo")}, "cannot be imported: ImportError: libfoo"),
        ({"torch": Torch("2.11.0+cpu", None, cxx11_abi=True)}, "torch 2.11.0+cpu is built without CUDA"),
        ({"driver": Driver("550.1", (12, 4))}, "runs on CUDA 13.0, and the driver serves 12.4 -> update the driver"),
        ({"packages": (Package("fa3-fwd", "3.0.0+cu130", "/s"),)}, "does not fit: it was withdrawn: wrong"),
        ({"packages": (Package("fa3-fwd", "0.0.3", "/s"),)}, "has no such version: it came from elsewhere"),
        ({"packages": (Package("flash-attn", "2.8", "/s"),)}, "flash-attn 2.8 is installed too"),
    ],
)
def test_what_is_wrong_is_said_with_its_mend(changes: dict[str, Any], says: str) -> None:
    (found,) = said(node(**changes))
    assert says in found


def test_a_healthy_node_has_nothing_to_mend() -> None:
    assert said(node()) == []


def test_a_node_of_elsewhere_is_assumed() -> None:
    here = node(driver=None, gpus=(), torch=None)
    there = assume(here, "12.8", "2.9.1", "9.0")
    assert (there.driver, there.torch) == (Driver(None, (12, 8)), Torch("2.9.1", (12, 8), None))
    assert [gpu.capability for gpu in there.gpus] == [(9, 0)]
    assert assume(node(), None, None, None) == node()


def test_an_answer_for_people_ends_with_the_exit_code() -> None:
    assert say(Report("index unreadable", "/index")) == "index unreadable (exit code 23)"


@pytest.mark.parametrize(
    ("text", "says"),
    [
        ("<html>", "is not JSON: is file://"),
        ("[]", "is of format None, and this doctor reads 1"),
        ('{"format": 2, "packages": []}', "is of format 2"),
        ('{"format": 1}', "is not a catalog this doctor can read: KeyError"),
        ('{"format": 1, "packages": [{}]}', "KeyError"),
        ('{"format": 1, "packages": 3}', "TypeError"),
    ],
)
def test_a_catalog_that_is_none_is_said(tmp_path: Path, text: str, says: str) -> None:
    (tmp_path / "packages.json").write_text(text)
    with pytest.raises(UnreadableError, match=says):
        read_index(str(tmp_path), {})


@pytest.mark.parametrize("change", [{"cells": []}, {"toolkit": "next"}, {"torch": "torch===2.9"}, {"driver": 3}])
def test_an_entry_that_cannot_be_judged_is_refused(change: dict[str, Any]) -> None:
    item = json.loads(json.dumps(_item(), default=str)) | change
    with pytest.raises(UnreadableError, match="is not a catalog"):
        read_entries({"format": 1, "packages": [item]}, "here")


def _item() -> dict[str, Any]:
    (one,) = known(stable())
    return {name: getattr(one, name) for name in one.__dataclass_fields__}


@pytest.mark.parametrize(
    ("index", "environ", "secret"),
    [
        ("https://wheels.example/x", {}, None),
        ("https://me:p%40ss@wheels.example/x", {"HOPPERFORGE_INDEX_TOKEN": "t"}, "me:p@ss"),
        ("https://wheels.example/x", {"HOPPERFORGE_INDEX_TOKEN": "t"}, "__token__:t"),
        ("file:///srv/x", {"HOPPERFORGE_INDEX_TOKEN": "t"}, None),
    ],
)
def test_where_credentials_come_from(tmp_path: Path, index: str, environ: dict[str, str], secret: str | None) -> None:
    assert credentials(index, {"HOME": str(tmp_path), **environ}) == secret


def test_credentials_come_from_netrc(tmp_path: Path) -> None:
    netrc = tmp_path / "netrc"
    netrc.write_text("machine wheels.example login me password secret\n")
    assert credentials("https://wheels.example/x", {"NETRC": str(netrc)}) == "me:secret"
    assert credentials("https://other.example/x", {"NETRC": str(netrc)}) is None
    netrc.write_text("gibberish")
    assert credentials("https://wheels.example/x", {"NETRC": str(netrc)}) is None
