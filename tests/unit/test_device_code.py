"""How machine code is compressed, read off real images, and the gate that knows which drivers read it."""

from pathlib import Path

import pytest
from tests.unit import wheel_zoo as zoo

from hopperforge.model.wheel import GateResult
from hopperforge.stages.device_code import compression_gate, read_images

CUDA_12, CUDA_124, CUDA_13 = "525.60.13", "550.54.14", "580.65.06"


def _judge(folder: Path, device_code: str, driver: str) -> GateResult:
    library = zoo.library(device_code=device_code)
    return compression_gate(zoo.opened(folder, {zoo.LIBRARY: library}), driver=driver)


@pytest.mark.parametrize(
    ("device_code", "images"),
    [
        ("", []),
        ("sm_90a.fatbin", [("90a", 3432, 0)]),
        ("sm_80_sm_90a.fatbin", [("90a", 3432, 0), ("80", 2984, 0)]),
        ("sm_90a_lz4.fatbin", [("90a", 1112, 0x2000)]),
        ("sm_90a_zstd.fatbin", [("90a", 792, 0x8000)]),
    ],
)
def test_images_are_read_with_their_compression(device_code: str, images: list[tuple[str, int, int]]) -> None:
    found = read_images(zoo.library(device_code=device_code))
    assert [(image.target, image.size, image.algorithm) for image in found] == images


def test_an_image_is_where_it_is_said_to_be() -> None:
    library = zoo.library(device_code="sm_80_sm_90a.fatbin")
    for image in read_images(library):
        assert library[image.start : image.start + 4] == b"\x7fELF"


@pytest.mark.parametrize(
    ("device_code", "driver", "kind"),
    [
        ("sm_80_sm_90a.fatbin", CUDA_12, "2 as it is"),
        ("sm_90a_lz4.fatbin", CUDA_12, "1 LZ4"),
        ("sm_90a_zstd.fatbin", CUDA_124, "1 zstd"),
        ("sm_90a_zstd.fatbin", CUDA_13, "1 zstd"),
        ("", CUDA_12, "none"),
    ],
)
def test_code_that_the_driver_reads_passes(tmp_path: Path, device_code: str, driver: str, kind: str) -> None:
    result = _judge(tmp_path, device_code, driver)
    detail = f"machine code: {kind}; driver {driver} reads it"
    assert result == GateResult(name="compression", passed=True, detail=detail)


@pytest.mark.parametrize(
    ("device_code", "driver", "says"),
    [
        ("sm_90a_zstd.fatbin", CUDA_12, "1 images are zstd, which 550.54.14 and newer read and driver 525.60.13"),
        ("sm_90a_zstd.fatbin", "550.54.2", "driver 550.54.2 does not"),
        ("sm_90a_unknown.fatbin", CUDA_13, "compressed in a way (0x4000) of which no driver is known"),
    ],
)
def test_code_that_the_driver_does_not_read_is_refused(
    tmp_path: Path, device_code: str, driver: str, says: str
) -> None:
    result = _judge(tmp_path, device_code, driver)
    assert not result.passed
    assert says in result.detail


def test_device_code_of_unknown_form_is_refused(tmp_path: Path) -> None:
    library = zoo.library(device_code="sm_90a.fatbin").replace(bytes.fromhex("50ed55ba"), b"none")
    result = compression_gate(zoo.opened(tmp_path, {zoo.LIBRARY: library}), driver=CUDA_13)
    assert not result.passed
    assert "no container of device code at byte 0 of .nv_fatbin" in result.detail
