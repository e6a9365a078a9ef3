"""The links of verify-install, each held and each broken, the page and the exit code. No GPU, no torch."""

import json
import shutil
import zipfile
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest
from tests.unit.node_zoo import A100, OURS, distribution, node
from tests.unit.signed_zoo import NOW, SPOILED, SignedIndex, signed_index

from hopperforge import errors
from hopperforge.node.gpu.chain import (
    EXIT_CODES,
    FAILED,
    FREE,
    OK,
    SPEED_BOUND,
    UNCHECKED,
    Link,
    Speed,
    exit_code,
    machine_links,
    number_link,
    page,
    recorded_shapes,
    speed_link,
)
from hopperforge.node.gpu.proof import WheelFile, installed_link, record_link, signature_link, wheel_files
from hopperforge.node.gpu.verify import verify
from hopperforge.node.gpu.words import Shape, VerifyWords, WordsError
from hopperforge.node.installed import installed_under
from hopperforge.node.signatures import read_key
from hopperforge.node.values import Driver, Torch

SHAPE = Shape(4, 4096, 16, 128, "bf16", causal=False, direction="forward")
FIGURE = {"batch": 4, "seqlen": 4096, "heads": 16, "head_dim": 128, "causal": False, "dtype": "bfloat16", "tflops": 619}
RECORD: dict[str, Any] = {"gpu": {"gpu": "NVIDIA H200", "tflops": [FIGURE]}}


def states(**changes: Any) -> dict[str, str]:
    return {link.name: link.state for link in machine_links(node(**changes), "fa3-fwd")}


def test_a_healthy_machine_holds() -> None:
    assert states() == dict.fromkeys(("GPU", "driver", "CUDA", "torch"), OK)


@pytest.mark.parametrize(
    ("changes", "broken", "code"),
    [
        ({"gpus": (), "driver": None}, {"GPU": UNCHECKED, "driver": UNCHECKED, "CUDA": UNCHECKED}, 10),
        ({"gpus": ()}, {"GPU": UNCHECKED}, 10),
        ({"gpus": (A100,)}, {"GPU": FAILED}, 21),
        ({"driver": Driver("580", (13, 0), "the GPUs are not ready")}, {"driver": FAILED}, 21),
        ({"driver": Driver("535", (12, 2))}, {"CUDA": FAILED}, 21),
        ({"torch": Torch("2.11.0+cpu", None, cxx11_abi=True)}, {"CUDA": FAILED}, 21),
        ({"torch": None}, {"CUDA": UNCHECKED, "torch": FAILED}, 21),
        ({"torch": Torch("2.11.0", (13, 0), None, "ImportError: libcudart")}, {"CUDA": UNCHECKED, "torch": FAILED}, 21),
    ],
)
def test_what_a_machine_lacks_is_the_link_that_breaks(changes: Any, broken: dict[str, str], code: int) -> None:
    assert states(**changes) == {**dict.fromkeys(("GPU", "driver", "CUDA", "torch"), OK), **broken}
    assert exit_code(machine_links(node(**changes), "fa3-fwd")) == code


def test_another_gpu_breaks_no_package_that_is_for_it() -> None:
    assert machine_links(node(gpus=(A100,)), "flash-attn-fp32")[0].state == OK


# --- the package


@pytest.fixture
def site(tmp_path: Path) -> Path:
    distribution(tmp_path / "site", "fa3-fwd", "3.0.0", OURS)
    return tmp_path / "site"


def wheel_of(site: Path, place: Path) -> WheelFile:
    """A wheel with the files that are installed in a folder."""
    place.mkdir(exist_ok=True)
    wheel = place / "fa3_fwd-3.0.0-cp39-abi3-manylinux_2_28_x86_64.whl"
    with zipfile.ZipFile(wheel, "w") as archive:
        for path in sorted(site.rglob("*")):
            if path.is_file():
                archive.write(path, path.relative_to(site))
    return WheelFile.of(wheel)


def found(site: Path, wheel: WheelFile | None = None) -> Link:
    paths = [str(site)]
    return installed_link("fa3-fwd", installed_under(paths), paths, wheel)[0]


def test_the_installed_files_are_those_of_the_wheel(site: Path, tmp_path: Path) -> None:
    wheel = wheel_of(site, tmp_path / "wheels")
    assert wheel.project == "fa3-fwd"
    assert set(OURS) <= set(wheel_files(wheel.path))
    assert found(site, wheel).state == found(site).state == OK


def test_a_package_that_is_missing_changed_or_of_another_wheel_breaks_the_link(site: Path, tmp_path: Path) -> None:
    wheel = wheel_of(site, tmp_path / "wheels")
    missing = found(tmp_path / "nowhere", wheel)
    assert (missing.state, missing.code) == (FAILED, 20)
    assert missing.mend == f"pip install --no-deps {wheel.path}"
    shutil.rmtree(site)
    distribution(site, "fa3-fwd", "3.0.0", {**OURS, "fa3_fwd_interface.py": b"import fa3_fwd\nEVIL = True\n"})
    other = found(site, wheel)
    assert (other.state, other.code) == (FAILED, 21)
    assert "was not installed from" in other.what
    (site / "fa3_fwd_interface.py").write_bytes(b"changed later\n")
    assert "is not the file of its RECORD" in found(site, wheel).what
    wheel.path.write_bytes(b"half a wheel")
    shutil.rmtree(site)
    distribution(site, "fa3-fwd", "3.0.0", OURS)
    assert "is no whole wheel" in found(site, wheel).what
    with zipfile.ZipFile(wheel.path, "w") as archive:
        archive.writestr("fa3_fwd-3.0.0.dist-info/RECORD", "fa3_fwd-3.0.0.dist-info/RECORD,,\n")
    assert "is no whole wheel: its RECORD proves no file" in found(site, wheel).what


@pytest.fixture
def index(tmp_path: Path) -> SignedIndex:
    return signed_index(tmp_path)


def test_the_record_is_read_and_held_to_the_wheel(index: SignedIndex, tmp_path: Path) -> None:
    wheel = WheelFile.of(index.wheel)
    link, record = record_link(index.place, None, wheel)
    assert link.state == OK
    assert "gates passed; never smoke-tested" in link.what
    assert record is not None
    assert record_link(None, None, wheel)[0].state == FREE
    (site,) = installed_under([str(distribution(tmp_path / "site", "fa3-fwd", "9.9", {}).parent)])
    assert "and installed is fa3-fwd 9.9" in record_link(index.place, site, wheel)[0].what
    assert "it is of a wheel with the sha256" in record_link(index.place, None, replace(wheel, sha256="0"))[0].what


@pytest.mark.parametrize(
    ("spoilt", "said"),
    [
        ({"gates": []}, "none was run"),
        ({"gates": [{"name": "size", "passed": False, "detail": ""}]}, "gates that failed: size"),
        ({"gpu": "yes"}, "is no record"),
        ({"wheel": None}, "is no record"),
    ],
)
def test_a_record_that_proves_nothing_breaks_the_link(index: SignedIndex, spoilt: dict[str, Any], said: str) -> None:
    index.place.write_text(json.dumps({**json.loads(index.place.read_bytes()), **spoilt}))
    link, record = record_link(index.place, None, WheelFile.of(index.wheel))
    assert (link.state, link.code, record) == (FAILED, 21, None)
    assert said in link.what


def signed(index: SignedIndex, now: datetime = NOW) -> Link:
    key = read_key(index.public.read_text(), "key")
    return signature_link(WheelFile.of(index.wheel), [key], now)


def test_a_signature_is_judged_where_a_key_was_named(index: SignedIndex) -> None:
    assert signed(index).state == OK
    assert signature_link(WheelFile.of(index.wheel), [], NOW).state == FREE
    without_file = signature_link(None, [read_key(index.public.read_text(), "key")], NOW)
    assert (without_file.state, without_file.code) == (UNCHECKED, 12)
    assert signed(index, NOW + timedelta(days=31)).state == FAILED


@pytest.mark.parametrize("what", sorted(SPOILED))
def test_what_was_passed_off_is_refused(index: SignedIndex, what: str) -> None:
    SPOILED[what][0](index)
    link = signed(index)
    # the catalog is not asked here: what only differs from it is the installed package's link
    assert (link.state, link.code) == (FAILED, 12), link


def test_a_record_that_is_gone_is_no_signature(index: SignedIndex) -> None:
    index.place.unlink()
    assert (signed(index).state, signed(index).code) == (FAILED, 12)


# --- the kernels


def test_numbers_hold_within_their_bounds() -> None:
    good = {"what": "forward, bf16", "error": 2.2e-3, "bound": 1e-2}
    assert number_link([good]).what == "against float64: forward, bf16: relative error 2.2e-03"
    for error in (2e-2, float("nan")):
        link = number_link([good, {**good, "what": "causal", "error": error}])
        assert (link.state, link.code) == (FAILED, 10)
        assert "causal" in link.what
        assert "forward, bf16" not in link.what


@pytest.mark.parametrize(
    ("tflops", "gpu", "record", "state", "said"),
    [
        (620.0, "NVIDIA H200", RECORD, OK, "100% of the record's figures in the median of 1 shapes"),
        (SPEED_BOUND * 619 + 1, "NVIDIA H200", RECORD, OK, "85% of the record's"),
        (SPEED_BOUND * 619 - 9, "NVIDIA H200", RECORD, FAILED, "84% of the record's"),
        (300.0, "NVIDIA H100", RECORD, FREE, "The record's figures are of NVIDIA H200"),
        (300.0, "NVIDIA H200", {"gpu": None}, FREE, "its smoke tests were not joined to it"),
        (300.0, "NVIDIA H200", None, FREE, "name the wheel's file, or record=FILE"),
    ],
)
def test_speed_is_held_to_the_record_where_it_has_one(
    tflops: float, gpu: str, record: Any, state: str, said: str
) -> None:
    figures = dict(recorded_shapes(record, "bf16"))
    link = speed_link([Speed(SHAPE, tflops, figures.get(SHAPE))], gpu, record)
    assert (link.state, link.code) == (state, 10 if state == FAILED else 0)
    assert said in link.what
    assert f"4x4096 forward {tflops:.0f}" in link.what


def test_figures_of_a_record_are_taken_by_dtype_and_direction() -> None:
    rows = [FIGURE, {**FIGURE, "dtype": "float8_e4m3fn"}, {**FIGURE, "dtype": "float32 backward", "causal": True}]
    record = {"gpu": {"gpu": "NVIDIA H200", "tflops": rows}}
    assert recorded_shapes(record, "bf16") == [(SHAPE, 619.0)]
    assert recorded_shapes(record, "fp32") == [(replace(SHAPE, dtype="fp32", causal=True, direction="backward"), 619.0)]
    assert recorded_shapes({"gpu": None}, "bf16") == recorded_shapes(None, "bf16") == []


# --- the page


def test_the_page_has_a_line_for_each_link_and_says_how_to_mend() -> None:
    links = (Link("GPU", OK, "NVIDIA H200"), Link("wheel", FAILED, "it is not installed", "pip install it", 20))
    assert page("verify-install", links).splitlines() == [
        "verify-install",
        "GPU        ok            NVIDIA H200",
        "wheel      FAILED        it is not installed",
        "           mend: pip install it",
        "NOT verified: 1 ok, 1 FAILED (exit code 20)",
    ]
    assert page("", links[:1]).endswith("\nverified: 1 ok (exit code 0)")


def test_of_several_broken_links_trust_counts_first_and_the_gpu_last() -> None:
    broken = {code: Link("", FAILED, "", None, code) for code in (10, 21, 20, 12)}
    assert EXIT_CODES == (12, 20, 21, 10)
    for index, code in enumerate(EXIT_CODES):
        assert exit_code(broken[other] for other in EXIT_CODES[index:]) == code
    assert exit_code([]) == 0
    ours = {error.exit_code for error in errors.HopperforgeError.__subclasses__()}
    assert set(EXIT_CODES) < ours


def test_files_that_are_not_there_are_wrong_words(tmp_path: Path) -> None:
    now = datetime.now(UTC)
    with pytest.raises(WordsError, match=r"w\.whl cannot be read: No such file"):
        verify(VerifyWords(str(tmp_path / "w.whl")), [], now)
    with pytest.raises(WordsError, match=r"key=.*none\.pem cannot be read"):
        verify(VerifyWords(keys=(str(tmp_path / "none.pem"),)), [], now)
    (tmp_path / "no.pem").write_text("no key")
    with pytest.raises(WordsError, match="is no public key"):
        verify(VerifyWords(keys=(str(tmp_path / "no.pem"),)), [], now)
