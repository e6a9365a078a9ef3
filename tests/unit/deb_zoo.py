"""Debian packages of a few bytes, and an apt that fetches them from a folder."""

import io
import os
import tarfile
from collections.abc import Mapping
from pathlib import Path

APT_GET = """#!/bin/sh
[ "$*" = "--print-uris update" ] || exit 9
echo "Reading package lists..."
while read -r base; do echo "'$base/dists/stable/InRelease' some_InRelease 0 "; done < {list}
"""

# As apt-helper says it: progress on standard output, the failure on standard error with a code of its own.
APT_HELPER = """#!/bin/sh
[ "$1" = download-file ] || exit 9
echo "$2" >> {asked}
from=${{2#copy:}}
if [ -f "$from" ]; then cp "$from" "$3"; else
  echo "Err:1 $2"
  echo "E: Failed to fetch $2  404  Not Found"
  echo "E: Download Failed"
  exit 100
fi
"""


def deb(path: Path, files: Mapping[str, str], *extra: tarfile.TarInfo, content: str = "data.tar.xz") -> Path:
    """Write a Debian package with these files, and members of other kinds before them."""
    inner = io.BytesIO()
    with tarfile.open(fileobj=inner, mode="w:xz") as tar:
        for info in extra:
            tar.addfile(info)
        for name, text in files.items():
            info = tarfile.TarInfo(f"./{name}")
            info.size, info.mode = len(text), 0o755 if "/bin/" in f"/{name}" else 0o644
            tar.addfile(info, io.BytesIO(text.encode()))
    path.parent.mkdir(parents=True, exist_ok=True)
    members = {"debian-binary": b"2.0\n", "control.tar.xz": b"odd", content: inner.getvalue()}
    path.write_bytes(b"!<arch>\n" + b"".join(_ar_member(name, data) for name, data in members.items()))
    return path


def _ar_member(name: str, data: bytes) -> bytes:
    header = f"{name:<16}{0:<12}{0:<6}{0:<6}{100644:<8}{len(data):<10}`\n".encode()
    return header + data + b"\n" * (len(data) % 2)


def apt(folder: Path, *mirrors: str) -> Path:
    """Install an apt whose sources are `mirrors`; `folder / "asked"` will list the addresses it was asked for."""
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "list").write_text("".join(f"{mirror}\n" for mirror in mirrors))
    for name, text in (("apt-get", APT_GET), ("apt-helper", APT_HELPER)):
        program = folder / name
        program.write_text(text.format(list=folder / "list", asked=folder / "asked"))
        program.chmod(0o755)
    return folder


def path_with(folder: Path) -> str:
    """PATH with an apt in front of the machine's programs."""
    return f"{folder}{os.pathsep}{os.defpath}"
