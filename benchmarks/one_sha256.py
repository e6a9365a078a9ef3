"""One sha256 whoever builds: a wheel built by several witnesses, each in a clone of its own, and their table.

    python benchmarks/one_sha256.py "cuda=12.4+ptxas12.8 torch=2.9" "cuda=13.0 torch=2.11"
    python benchmarks/one_sha256.py "cuda=13.0 torch=2.11" --witness engine=host --witness engine=host,executor=dask

A witness is words joined by commas, each of which may be left out:

    engine=docker      where it builds: docker, podman or host
    executor=dask      who compiles: local, or a Dask cluster of its own, which compiles on the host
    cores=1            how many cores it may use; without, all of this machine
    user=12345         the user id it runs as; only root can choose, and without it is the caller's
    python=/venv/bin/python   the Python that runs hopperforge; it is installed there, and the clone's own code is run

Each gets a git clone of this checkout's commit, a cache with nothing compiled in it, a home, a umask, a locale and a
time zone of its own, and starts when the one before has ended. What was fetched, and is checked by hash wherever it
lies, is copied from --cache. It needs git, setpriv and taskset. The exit code is 1 if two wheels of a cell differ that
were both built in containers, or both on the host, whose compiler is another one.
"""

import argparse
import json
import os
import platform
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path

import platformdirs

from hopperforge.stages.rebuild import FETCHED

PROJECT = Path(__file__).resolve().parents[1]
WITNESSES = ("engine=docker", "engine=podman,cores=1", "engine=host", "engine=host,executor=dask,cores=1")
HABITS = (("022", "C.UTF-8", "UTC"), ("077", "C", "Pacific/Kiritimati"), ("027", "POSIX", "America/St_Johns"))
HEAD = "| cell | engine | executor | cores | user | Python | clone | started | minutes | sha256 |\n|" + "---|" * 10
KEYS = frozenset({"engine", "executor", "cores", "user", "python"})


@dataclass(frozen=True, slots=True, kw_only=True)
class Witness:
    """Who builds, and how; `cores` 0 is all of them."""

    engine: str
    executor: str
    cores: int
    user: int
    python: str

    @classmethod
    def parse(cls, text: str) -> "Witness":
        """Read words joined by commas."""
        words = dict(word.partition("=")[::2] for word in text.split(","))
        if words.keys() - KEYS:
            raise SystemExit(f"{text}: a witness has {', '.join(sorted(KEYS))}")
        return cls(
            engine=words.get("engine", "docker"),
            executor=words.get("executor", "local"),
            cores=int(words.get("cores", "0")),
            user=int(words.get("user", os.getuid())),
            python=words.get("python", sys.executable),
        )

    def command(self, cell: str, profile: str) -> list[str]:
        """Make the command line, from what it runs on to the words of the build."""
        available = sorted(os.sched_getaffinity(0))
        cores = available[: self.cores] if self.cores else available
        words = ["recipe=fa3-fwd", f"profile={profile}", *cell.split(), f"engine={self.engine}"]
        words += [f"executor={self.executor}"] if self.executor != "local" else []
        other = (
            ["setpriv", f"--reuid={self.user}", f"--regid={self.user}", *_groups()] if self.user != os.getuid() else []
        )
        return [*other, "taskset", "-c", ",".join(map(str, cores)), self.python, "-m", "hopperforge", "build", *words]


def _groups() -> list[str]:
    """Keep for another user the group that may speak to docker, as its users have it."""
    place = os.environ.get("DOCKER_HOST", "unix:///var/run/docker.sock").removeprefix("unix://")
    return [f"--groups={Path(place).stat().st_gid}"] if Path(place).exists() else ["--clear-groups"]


def _clone(folder: Path, cache: Path, witness: Witness) -> Path:
    clone = folder / "clone"
    _said("git", "clone", "--quiet", "--no-hardlinks", str(PROJECT), str(clone))
    for name in FETCHED:
        if (cache / name).is_dir():
            shutil.copytree(cache / name, folder / "cache" / name, symlinks=True)
    (folder / "home").mkdir()
    if witness.user != os.getuid():
        for path in (folder, *folder.rglob("*")):
            os.chown(path, witness.user, witness.user, follow_symlinks=False)
    return clone


def testify(
    cell: str, witness: Witness, number: int, *, profile: str, cache: Path, work: Path, keep: Path | None
) -> tuple[str, str]:
    """Build a cell as one witness; gives the sha256 of the wheel and the row of the table."""
    folder = Path(tempfile.mkdtemp(prefix="w" * (3 * number + 1) + "-", dir=work))
    try:
        clone = _clone(folder, cache, witness)
        umask, locale, zone = HABITS[number % len(HABITS)]
        environ = {
            **{name: value for name, value in os.environ.items() if not name.startswith("HOPPERFORGE_")},
            "HOME": str(folder / "home"),
            "USER": f"w{number}",
            "PYTHONPATH": str(clone / "src"),
            "HOPPERFORGE_CACHE": str(folder / "cache"),
            "LC_ALL": locale,
            "TZ": zone,
            "PYTHONHASHSEED": str(number),
        }
        started, began = datetime.now(UTC), time.monotonic()
        command = witness.command(cell, profile)
        done = subprocess.run(command, cwd=clone, env=environ, umask=int(umask, 8), stdout=sys.stderr)  # noqa: S603, PLW1510
        if done.returncode:
            raise SystemExit(f"{cell}, {witness}: the build ended with status {done.returncode}")
        (built,) = json.loads((clone / "wheelhouse" / "report.json").read_text())["builds"]
        _keep(Path(built["wheel"]), keep, number)
        minutes = f"{(time.monotonic() - began) / 60:.1f}"
    finally:
        shutil.rmtree(folder)
    facts = (
        witness.cores or len(os.sched_getaffinity(0)),
        f"id {witness.user}",
        _python(witness),
        folder.name[:8] + "...",
    )
    row = (cell, witness.engine, witness.executor, *facts, f"{started:%Y-%m-%d %H:%M}", minutes, f"`{built['sha256']}`")
    return str(built["sha256"]), f"| {' | '.join(map(str, row))} |"


def _keep(wheel: Path, keep: Path | None, number: int) -> None:
    if keep is not None:
        into = keep / str(number)
        into.mkdir(parents=True, exist_ok=True)
        for path in (wheel, wheel.with_name(f"{wheel.name}.json")):
            shutil.copyfile(path, into / path.name)


def _python(witness: Witness) -> str:
    ask = "import platform, zlib; print(platform.python_version() + ', zlib ' + zlib.ZLIB_RUNTIME_VERSION)"
    return _said(witness.python, "-c", ask)


def _said(*command: str) -> str:
    return subprocess.run(command, check=True, capture_output=True, text=True).stdout.strip()  # noqa: S603


def table(
    cells: Iterable[str], witnesses: Sequence[Witness], *, profile: str, cache: Path, work: Path, keep: Path | None
) -> bool:
    """Print the rows as they come; gives whether every cell has one sha256."""
    print(HEAD, flush=True)
    found: dict[tuple[str, bool], set[str]] = {}
    for cell in cells:
        for number, witness in enumerate(witnesses):
            digest, row = testify(cell, witness, number, profile=profile, cache=cache, work=work, keep=keep)
            print(row, flush=True)
            found.setdefault((cell, witness.engine == "host"), set()).add(digest)
    return all(len(digests) == 1 for digests in found.values())


def main() -> None:
    """Parse words and print the table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    usual = os.environ.get("HOPPERFORGE_CACHE") or platformdirs.user_cache_dir("hopperforge")
    parser.add_argument("cells", nargs="+", help="words of a build: 'cuda=13.0 torch=2.11'")
    parser.add_argument("--witness", action="append", type=Witness.parse, help=f"default: {', '.join(WITNESSES)}")
    parser.add_argument("--profile", default="hdim128-bf16")
    parser.add_argument("--cache", type=Path, default=Path(usual), help="where fetched files are copied from")
    parser.add_argument("--work", type=Path, default=Path(tempfile.gettempdir()), help="where clones are made for now")
    parser.add_argument(
        "--keep", type=Path, help="a folder for the wheels and their records, a folder for each witness"
    )
    asked = parser.parse_args()
    asked.work.mkdir(parents=True, exist_ok=True)
    witnesses = asked.witness or [Witness.parse(text) for text in WITNESSES]
    equal = table(asked.cells, witnesses, profile=asked.profile, cache=asked.cache, work=asked.work, keep=asked.keep)
    print(f"\n{platform.platform()}, commit {_commit()}: {'one sha256 a cell' if equal else 'THE BYTES DIFFER'}")
    raise SystemExit(0 if equal else 1)


def _commit() -> str:
    return _said("git", "-C", str(PROJECT), "rev-parse", "--short", "HEAD")


if __name__ == "__main__":
    main()
