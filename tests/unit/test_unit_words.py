"""The words of nvcc that we choose: host code at another level, machine code compressed, and nothing else."""

from hopperforge.model.pack import Unit
from hopperforge.unit_words import small

ARGUMENTS = ("-Ihopper", "-O3", "-std=c++17", "--use_fast_math", "-gencode", "arch=compute_90a,code=sm_90a")


def test_only_the_host_level_and_the_compression_are_ours() -> None:
    unit = Unit(path="hopper/a.cu", arguments=ARGUMENTS, sees="abc")
    words = small(unit, ("-Xfatbin", "-compress-all")).arguments
    assert words == ("-Ihopper", "-O1", *ARGUMENTS[2:], "-Xfatbin", "-compress-all")
    assert small(unit, ()).sees == "abc"
