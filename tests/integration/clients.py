"""Real installers, each under the name that a documented line calls it by, and machines with a stand-in torch.

Every setting an installer knows points to an index that is not ours: what arrives from ours arrives in spite of them.
"""

import os
import shutil
import subprocess
import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from tests.integration.package_servers import PASSWORD, USER
from tests.integration.shelves import MODULE, stand_in_torch
from uv import find_uv_bin

# The last pip that reads HTML alone is 22.1, and none of those runs in Python 3.12 and newer.
HTML_ONLY = ("20.3.4",) if sys.version_info < (3, 12) else ()
PIPS = (*HTML_ONLY, "23.3.2", "newest")
CLIENTS = (*(f"pip-{version}" for version in PIPS), "uv")


@dataclass(frozen=True)
class Client:
    """An installer: `programs` is a folder with `pip` or `uv` in it; `kind` is that name."""

    name: str
    kind: str
    programs: Path


def make_client(name: str, folder: Path) -> Client:
    """Get an installer through the machine's pip; `pip` is a script that runs that pip in the venv of the shell."""
    programs = folder / name
    programs.mkdir(parents=True)
    kind, _, version = name.partition("-")
    if kind == "uv":
        (programs / "uv").symlink_to(find_uv_bin())
        return Client(name, kind, programs)
    wanted = "pip" if version == "newest" else f"pip=={version}"
    fetch = [sys.executable, "-m", "pip", "download", "--quiet", "--no-deps", "--dest", str(programs), wanted]
    subprocess.run(fetch, check=True)
    (wheel,) = programs.glob("*.whl")
    shutil.unpack_archive(wheel, programs / "unpacked", "zip")
    script = programs / "pip"
    script.write_text(
        f'#!/bin/sh\nPYTHONPATH={programs}/unpacked exec "$VIRTUAL_ENV/bin/python" -W ignore -m pip "$@"\n'
    )
    script.chmod(0o755)
    return Client(name, kind, programs)


class Machine:
    """A virtual environment with a torch that is nothing but its version."""

    def __init__(self, folder: Path, torch: str) -> None:
        self._folder = folder
        self._venv = folder / "venv"
        self.torch = f"{torch}.0"
        subprocess.run([sys.executable, "-m", "venv", "--without-pip", str(self._venv)], check=True)
        (self._packages,) = self._venv.glob("lib/python3*/site-packages")
        shutil.unpack_archive(stand_in_torch(folder / "torch", self.torch), self._packages, "zip")

    def run(self, line: str, client: Client, settings: Mapping[str, str]) -> subprocess.CompletedProcess[str]:
        """Type a line into a shell."""
        env = {
            "PATH": f"{client.programs}:{os.environ['PATH']}",
            "HOME": str(self._folder),
            "VIRTUAL_ENV": str(self._venv),
            "PIP_DISABLE_PIP_VERSION_CHECK": "1",
            "PIP_CONFIG_FILE": os.devnull,
            "UV_NO_CONFIG": "1",
            **settings,
        }
        return subprocess.run(["sh", "-c", line], env=env, capture_output=True, text=True, timeout=60, check=False)

    def installed(self) -> str | None:
        """Import what was installed and say which it is; None if nothing is. The torch must be what it was."""
        if not (self._packages / f"{MODULE}.py").exists():
            return None
        code = f"import torch, {MODULE}; print(torch.__version__, {MODULE}.which)"
        argv: Sequence[str] = (str(self._venv / "bin" / "python"), "-c", code)
        torch, which = subprocess.run(argv, check=True, capture_output=True, text=True).stdout.split()
        assert torch == self.torch
        return which

    def forget(self) -> None:
        """Remove what was installed."""
        for path in (*self._packages.glob("fa3_fwd-*.dist-info"), *self._packages.glob("__pycache__")):
            shutil.rmtree(path)
        (self._packages / f"{MODULE}.py").unlink(missing_ok=True)


def login(folder: Path) -> dict[str, str]:
    """Settings with which pip and uv log in as USER to servers that ask."""
    path = folder / "netrc"
    path.write_text(f"machine 127.0.0.1 login {USER} password {PASSWORD}\n")
    path.chmod(0o600)
    return {"NETRC": str(path)}


def hostile(index: str) -> dict[str, str]:
    """Settings that name a foreign index wherever pip and uv have a setting for one."""
    pages = f"{index}fa3-fwd/index.html"
    pip = {"PIP_INDEX_URL": index, "PIP_EXTRA_INDEX_URL": index, "PIP_FIND_LINKS": pages}
    return pip | {"UV_DEFAULT_INDEX": index, "UV_INDEX": index, "UV_FIND_LINKS": pages}
