r"""What compressing machine code makes of a library and its wheel: every way a fatbinary program has, on one wheel.

    python benchmarks/code_size.py fa3_fwd-0.0.3-cp39-abi3-manylinux_2_24_x86_64.whl \
        --fatbinary 12.4=TOOLKIT/bin/fatbinary --fatbinary 13.0=TOOLKIT/bin/fatbinary

The machine code in the wheel's library has to be as it is. Each image goes through fatbinary by itself, as nvcc does
it, and the library's bytes with the new images in place of the old are deflated as wheels are. Toolkits stand below
`toolkits/` of hopperforge's cache.
"""

import argparse
import os
import subprocess
import sys
import tempfile
from collections.abc import Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path

from deflate import deflate_compress

from hopperforge.stages.device_code import read_images
from hopperforge.stages.wheel_archive import read_wheel
from hopperforge.stages.zip_writer import DEFLATE_LEVEL

WAYS: Mapping[str, Mapping[str, tuple[str, ...]]] = {
    "12": {"-compress-all (LZ4)": ("-compress-all",), "hidden zstd": ("-compress-all", "-compress-algo=5")},
    "13": {
        "LZ4": ("-compress-all", "-compress-algo=2"),
        "-compress-all (zstd)": ("-compress-all",),
        "-compress-mode=size": ("-compress-mode=size",),
    },
}


@dataclass(frozen=True, slots=True, kw_only=True)
class Way:
    """A way to compress: its name, the program and its words."""

    name: str
    program: str
    words: tuple[str, ...]


def ways(programs: Sequence[str]) -> Iterator[Way]:
    """Yield what each program can do."""
    for text in programs:
        release, _, program = text.partition("=")
        for name, words in WAYS[release.split(".")[0]].items():
            yield Way(name=f"{release} {name}", program=program, words=words)


def pack(way: Way, sm: str, code: bytes) -> bytes:
    """Have fatbinary write one image."""
    with tempfile.TemporaryDirectory() as name:
        source, made = Path(name, "code.cubin"), Path(name, "code.fatbin")
        source.write_bytes(code)
        image = f"--image3=kind=elf,sm={sm},file={source}"
        subprocess.run([way.program, *way.words, "-64", image, f"--create={made}"], check=True)  # noqa: S603 - argv list
        return made.read_bytes()


def main(arguments: Sequence[str]) -> int:
    """Do as asked."""
    parser = argparse.ArgumentParser(description="Measure what compressing machine code saves.")
    parser.add_argument("wheel", type=Path)
    parser.add_argument("--fatbinary", action="append", required=True, help="RELEASE=PATH; again for more")
    options = parser.parse_args(arguments)
    archive = read_wheel(options.wheel)
    library = archive.files[archive.binaries[0]]
    images = read_images(library)
    if any(image.algorithm for image in images):
        raise SystemExit("error: the machine code is compressed already")
    codes = [(image.target, library[image.start : image.start + image.size]) for image in images]
    host = library
    for _, code in codes:
        host = host.replace(code, b"", 1)
    whole = options.wheel.stat().st_size
    before = len(deflate_compress(library, DEFLATE_LEVEL))
    print(f"{len(images)} images, {(len(library) - len(host)) / 1e6:.1f} MB of {len(library) / 1e6:.1f} MB")
    print(f"{'':32}{'library MB':>12}{'ratio':>7}{'wheel MB':>10}{'ratio':>7}", flush=True)
    for way in ways(options.fatbinary):
        with ThreadPoolExecutor(len(os.sched_getaffinity(0))) as pool:
            packed = b"".join(pool.map(lambda code, way=way: pack(way, *code), codes))
        size = len(host) + len(packed)
        wheel = whole - before + len(deflate_compress(host + packed, DEFLATE_LEVEL))
        figures = f"{size / 1e6:>12.1f}{size / len(library):>7.2f}{wheel / 1e6:>10.2f}{wheel / whole:>7.2f}"
        print(f"{way.name:32}{figures}", flush=True)
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
