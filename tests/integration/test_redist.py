"""NVIDIA's redistributable archives and Debian mirrors, from a server on this machine that serves the same formats."""

import hashlib
import io
import json
import shutil
import tarfile
import threading
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from functools import partial
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import pytest
from tests.unit.deb_zoo import deb

from hopperforge.errors import SourceError, ToolError
from hopperforge.model.request import ToolkitChoice
from hopperforge.model.toolkit import DebianPackage, Redist, ToolkitFact, ToolkitOrigin
from hopperforge.model.versions import ToolkitVersion
from hopperforge.report import Recorder
from hopperforge.run.debian import fetch_debian
from hopperforge.run.workspace import Workspace
from hopperforge.stages.toolkit import obtain_toolkit

pytestmark = pytest.mark.integration

MANIFEST = "redistrib_12.8.1.json"
NVCC = """#!/bin/sh
echo "Cuda compilation tools, release 12.8, V12.8.93"
"""
# What the archives of CUDA 12.8 hold, by component, as far as a toolkit is checked for it.
COMPONENTS = {
    "cuda_nvcc": {
        "LICENSE": "licence",
        "bin/nvcc": NVCC,
        "bin/nvcc.profile": "profile",
        "bin/cudafe++": "front end",
        "bin/ptxas": "assembler",
        "bin/fatbinary": "fat",
        "bin/nvlink": "link",
        "nvvm/bin/cicc": "compiler",
        "nvvm/libdevice/libdevice.10.bc": "bitcode",
        "include/crt/host_config.h": "header",
    },
    "cuda_cudart": {
        "LICENSE": "licence",
        "include/cuda_runtime.h": "header",
        "lib/libcudart_static.a": "runtime",
        "lib/libcudart.so.12.8.90": "shared runtime",
        "pkg-config/cudart-12.8.pc": "text",
    },
    "cuda_cccl": {"LICENSE": "licence", "include/cuda/std/cstdint": "cccl"},
}
LINKS = {"cuda_cudart": {"lib/libcudart.so.12": "libcudart.so.12.8.90", "lib/libcudart.so": "libcudart.so.12"}}


def archive(path: Path, component: str, files: Mapping[str, str]) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    top = path.name.removesuffix(".tar.xz")
    with tarfile.open(path, "w:xz") as tar:
        for name, text in files.items():
            info = tarfile.TarInfo(f"{top}/{name}")
            info.size, info.mode = len(text), 0o755 if "bin/" in name else 0o644
            tar.addfile(info, io.BytesIO(text.encode()))
        for name, target in LINKS.get(component, {}).items():
            info = tarfile.TarInfo(f"{top}/{name}")
            info.type, info.linkname = tarfile.SYMTYPE, target
            tar.addfile(info)
    return path


def publish(folder: Path) -> Redist:
    """Lay out a release as NVIDIA does; the address is left to the server's."""
    manifest: dict[str, object] = {"release_date": "2025-03-04", "release_label": "12.8.1", "release_product": "cuda"}
    for component, files in COMPONENTS.items():
        relative = f"{component}/linux-x86_64/{component}-linux-x86_64-12.8.93-archive.tar.xz"
        content = archive(folder / relative, component, files).read_bytes()
        manifest[component] = {
            "name": component,
            "license": "CUDA Toolkit",
            "version": "12.8.93",
            "linux-x86_64": {
                "relative_path": relative,
                "sha256": hashlib.sha256(content).hexdigest(),
                "md5": hashlib.md5(content, usedforsecurity=False).hexdigest(),
                "size": str(len(content)),
            },
            "windows-x86_64": {"relative_path": "x.zip", "sha256": "0" * 64, "md5": "0" * 32, "size": "1"},
        }
    return pin(folder, manifest)


def pin(folder: Path, manifest: Mapping[str, object]) -> Redist:
    text = json.dumps(manifest, indent=4).encode()
    (folder / MANIFEST).write_bytes(text)
    return Redist(manifest=MANIFEST, sha256=hashlib.sha256(text).hexdigest(), components=tuple(COMPONENTS))


class Quiet(SimpleHTTPRequestHandler):
    """Serves a folder."""

    def log_message(self, *_: object) -> None:
        """Say nothing."""


@contextmanager
def serving(folder: Path) -> Iterator[str]:
    with ThreadingHTTPServer(("127.0.0.1", 0), partial(Quiet, directory=str(folder))) as server:
        thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.05})
        thread.start()
        yield f"http://127.0.0.1:{server.server_address[1]}"
        server.shutdown()
        thread.join()


def fact(redist: Redist, host: str) -> ToolkitFact:
    return ToolkitFact(
        version=ToolkitVersion.parse("12.8"),
        release="12.8.93",
        driver="525.60.13",
        gcc_max=14,
        origins=(ToolkitOrigin.SYSTEM, ToolkitOrigin.REDIST),
        wheels=(),
        redist=Redist(manifest=f"{host}/{redist.manifest}", sha256=redist.sha256, components=redist.components),
    )


def workspace_in(tmp_path: Path, **environ: str) -> tuple[Workspace, Recorder]:
    recorder = Recorder()
    place = Workspace(
        project=tmp_path,
        cache=tmp_path / "cache",
        wheelhouse=tmp_path / "wheelhouse",
        environ={"PIP_CONFIG_FILE": "/dev/null", "PATH": str(tmp_path / "empty"), **environ},
        reporter=recorder,
    )
    return place, recorder


def test_a_toolkit_is_put_together_from_archives_and_again_without_the_server(tmp_path: Path) -> None:
    redist = publish(tmp_path / "served")
    workspace, recorder = workspace_in(tmp_path)
    with serving(tmp_path / "served") as host:
        wanted = fact(redist, host)
        found = obtain_toolkit(wanted, ToolkitChoice.AUTO, workspace)
    assert (found.origin, found.release, str(found.version)) == (ToolkitOrigin.REDIST, "12.8.93", "12.8")
    assert (found.root / "lib64" / "libcudart.so").resolve().name == "libcudart.so.12.8.90"
    assert (found.root / "bin" / "nvcc.profile").read_text() == "profile"
    assert not (found.root / "LICENSE").exists()
    assert not (found.root / "pkg-config").exists()
    assert recorder.notes[-1] == f"unpacked cuda_nvcc, cuda_cudart, cuda_cccl of {MANIFEST}"
    assert obtain_toolkit(wanted, ToolkitChoice.REDIST, workspace) == found
    shutil.rmtree(found.root)
    assert obtain_toolkit(wanted, ToolkitChoice.REDIST, workspace) == found  # the archives are cached as well


@pytest.mark.parametrize("changed", [MANIFEST, "cuda_nvcc/linux-x86_64/cuda_nvcc-linux-x86_64-12.8.93-archive.tar.xz"])
def test_a_file_that_is_not_the_pinned_one_is_refused_and_not_kept(changed: str, tmp_path: Path) -> None:
    redist = publish(tmp_path / "served")
    with (tmp_path / "served" / changed).open("ab") as stream:
        stream.write(b" ")
    workspace, _ = workspace_in(tmp_path)
    with serving(tmp_path / "served") as host, pytest.raises(SourceError, match="is not the file that is pinned"):
        obtain_toolkit(fact(redist, host), ToolkitChoice.AUTO, workspace)
    assert not list(workspace.cache.rglob(Path(changed).name))


def test_an_archive_that_is_not_there_is_a_reason_with_its_address(tmp_path: Path) -> None:
    redist = publish(tmp_path / "served")
    shutil.rmtree(tmp_path / "served" / "cuda_cccl")
    workspace, _ = workspace_in(tmp_path)
    with serving(tmp_path / "served") as host, pytest.raises(ToolError) as caught:
        obtain_toolkit(fact(redist, host), ToolkitChoice.REDIST, workspace)
    assert caught.value.sentence == "there is no CUDA 12.8 toolkit to compile with"
    assert caught.value.detail == (
        (
            "redist: cuda_cccl-linux-x86_64-12.8.93-archive.tar.xz cannot be fetched from "
            f"{host}/cuda_cccl/linux-x86_64: the server answers 404 File not found"
        ),
    )


def test_a_machine_that_does_not_reach_nvidia_is_told_what_is_missing_and_where_it_is(tmp_path: Path) -> None:
    redist = publish(tmp_path / "served")
    with serving(tmp_path / "served") as host:
        gone = fact(redist, host)
    with pytest.raises(ToolError) as caught:
        obtain_toolkit(gone, ToolkitChoice.AUTO, workspace_in(tmp_path)[0])
    assert caught.value.detail == (
        "system: CUDA_HOME and CUDA_PATH are not set, and nvcc is not on PATH",
        f"redist: {MANIFEST} cannot be fetched from {host}: [Errno 111] Connection refused",
    )


@pytest.mark.parametrize(
    "wrong",
    [
        {"cuda_nvcc": {"linux-sbsa": {"relative_path": "x", "sha256": "0" * 64}}},
        {"cuda_nvcc": {"linux-x86_64": {"relative_path": "../x", "sha256": "0" * 64}}},
        {"cuda_nvcc": {"linux-x86_64": {"relative_path": "x"}}},
        {"release_label": "12.8.1"},
    ],
)
def test_a_manifest_without_what_is_wanted_is_refused(wrong: Mapping[str, object], tmp_path: Path) -> None:
    (tmp_path / "served").mkdir()
    redist = pin(tmp_path / "served", wrong)
    with serving(tmp_path / "served") as host, pytest.raises(SourceError, match=f"{MANIFEST} is no manifest") as caught:
        obtain_toolkit(fact(redist, host), ToolkitChoice.REDIST, workspace_in(tmp_path)[0])
    assert caught.value.detail[0] == "wanted: cuda_nvcc, cuda_cudart, cuda_cccl for linux-x86_64"


def test_a_debian_mirror_can_be_named_where_there_is_no_apt(tmp_path: Path) -> None:
    pool = "pool/main/n/nvcc/nvcc_12.4~12.4.1-2_amd64.deb"
    there = deb(tmp_path / "served" / "debian" / pool, {"usr/bin/nvcc": "nvcc"})
    package = DebianPackage(pool=pool, sha256=hashlib.sha256(there.read_bytes()).hexdigest(), members={})
    with serving(tmp_path / "served") as host:
        workspace, _ = workspace_in(tmp_path, HOPPERFORGE_DEBIAN_MIRROR=f"{host}/debian/")
        assert fetch_debian(package, tmp_path / "into", workspace).read_bytes() == there.read_bytes()
        there.write_bytes(b"other")
        with pytest.raises(SourceError, match="is not the file that is pinned"):
            fetch_debian(package, tmp_path / "again", workspace)
