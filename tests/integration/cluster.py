"""A Dask scheduler and workers as processes of their own on the loopback, and units that are cheap to compile."""

import contextlib
import os
import shutil
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from hopperforge.model.machine import Sizing
from hopperforge.model.pack import Cost, KernelPack, Unit
from hopperforge.model.request import Cluster
from hopperforge.model.toolkit import HostCompiler, Toolkit, ToolkitOrigin
from hopperforge.model.upstream import PatchedSource, UpstreamPin
from hopperforge.model.versions import ToolkitVersion
from hopperforge.report import Recorder
from hopperforge.run.workspace import Workspace
from hopperforge.stages.host_compiler import find_host_compiler
from hopperforge.stages.kernels import compile_pack, unit_keys
from hopperforge.stages.patch import kernel_tree_hash
from hopperforge.stages.toolkit import PARTS, toolkit_fingerprint
from hopperforge.store.costs import learn

PROJECT = Path(__file__).parents[2]
GB = 1_000_000_000
VERSION = ToolkitVersion.parse("13.0")

# Writes an object made of its arguments and input. The control folder says what it does besides, by unit name, and
# gets a line for each start and end.
NVCC = """#!/bin/sh
control={control}
if test "$1" = --version; then echo "Cuda compilation tools, release 13.0, V13.0.88"; exit 0; fi
unit=$(sed -n 's,.*include "hopper/\\(.*\\)[.]cu".*,\\1,p' unit.cu)
is() {{ grep -qx "$unit" $control/$1 2>/dev/null; }}
echo "start $unit $$" >> $control/calls
if is fail; then echo "error: no good"; exit 2; fi
if is killonce && mkdir $control/killed-$unit 2>/dev/null; then kill -9 $$; fi
if is hang; then echo half > unit.o; touch $control/hangs-$unit; sleep 60 & wait; exit 1; fi
sleep {nap}
{{ echo "$@" | sed 's,-ccbin [^ ]* ,,'; cat unit.cu hopper/$unit.cu csrc/header.h; }} > unit.o
echo "end $unit $$" >> $control/calls
"""


@dataclass
class Shop:
    """A machine that plans: workspace, source, toolkit and units."""

    root: Path
    reporter: Recorder = field(default_factory=Recorder)
    elsewhere: Path | None = None

    @property
    def control(self) -> Path:
        """Where nvcc's behaviour is set and its calls are noted."""
        return self.elsewhere or self.root / "control"

    @property
    def workspace(self) -> Workspace:
        """The workspace of the machine that plans."""
        return Workspace(
            project=self.root,
            cache=self.root / "cache",
            wheelhouse=self.root / "wheelhouse",
            environ={"PATH": os.environ["PATH"]},
            reporter=self.reporter,
        )

    @property
    def source(self) -> PatchedSource:
        """The patched source."""
        root = self.root / "source"
        pin = UpstreamPin(name="p", commit="c", epoch=1_700_000_000, trees={}, origins=())
        return PatchedSource(
            pin=pin, root=root, patches={}, kernel_tree=kernel_tree_hash(root), front_tree="f", origin="o"
        )

    @property
    def toolkit(self) -> Toolkit:
        """The toolkit whose nvcc is the script."""
        root = self.root / "toolkit"
        return Toolkit(
            version=VERSION,
            release="13.0.88",
            origin=ToolkitOrigin.SYSTEM,
            root=root,
            fingerprint=toolkit_fingerprint(root, self.workspace),
        )

    @property
    def compiler(self) -> HostCompiler:
        """This machine's own."""
        return find_host_compiler(self.workspace.environ, 99)

    def behave(self, what: str, *names: str) -> None:
        """Make nvcc do `what` on the units of these names; on none: behave."""
        (self.control / what).write_text("".join(f"{name}\n" for name in names), encoding="utf-8")

    def calls(self) -> list[str]:
        """What nvcc did so far, without process ids."""
        path = self.control / "calls"
        lines = path.read_text(encoding="utf-8").splitlines() if path.exists() else []
        return [line.rpartition(" ")[0] for line in lines]

    def end_orphans(self) -> None:
        """End the compilers whose worker was killed; they lead groups of their own."""
        for line in (self.control / "calls").read_text(encoding="utf-8").splitlines():
            with contextlib.suppress(ProcessLookupError):
                os.killpg(int(line.rpartition(" ")[2]), signal.SIGKILL)

    def most_at_once(self) -> int:
        """How many units were compiled side by side at the most."""
        running = most = 0
        for call in self.calls():
            running += 1 if call.startswith("start") else -1
            most = max(most, running)
        return most

    def expect(self, units: Sequence[Unit], memory: int) -> None:
        """Teach the cost table what units need."""
        for unit in units:
            cost = Cost(seconds=1, peak_rss=memory)
            learn(self.workspace.store, unit=unit, toolkit=VERSION, cost=cost, reporter=self.reporter)

    def forget(self) -> None:
        """Lose every object and pack."""
        shutil.rmtree(self.workspace.store / "objects", ignore_errors=True)
        shutil.rmtree(self.workspace.store / "packs", ignore_errors=True)

    def key(self, unit: Unit) -> str:
        """The key of a unit, after which its work folder is named."""
        return unit_keys([unit], source=self.source, toolkit=self.toolkit, compiler=self.compiler)[unit.path]

    def compile(self, units: Sequence[Unit], cluster: Cluster | None) -> KernelPack:
        """Run the kernels stage."""
        return compile_pack(
            units,
            source=self.source,
            toolkit=self.toolkit,
            compiler=self.compiler,
            sizing=Sizing(max_jobs=2, nvcc_threads=1, memory=20 * GB, reasons=()),
            workspace=self.workspace,
            cluster=cluster,
        )


def make_shop(root: Path, *, nap: float = 0.05) -> Shop:
    """Lay out a shop; every compile sleeps for `nap` seconds."""
    shop = Shop(root=root)
    for folder in (shop.control, root / "source" / "hopper", root / "source" / "csrc", root / "toolkit" / "include"):
        folder.mkdir(parents=True)
    for name in "abcdef":
        (root / "source" / "hopper" / f"{name}.cu").write_text(f"kernel {name}\n", encoding="utf-8")
    (root / "source" / "csrc" / "header.h").write_text("header\n", encoding="utf-8")
    (root / "toolkit" / "include" / "cuda_runtime.h").write_text("runtime\n", encoding="utf-8")
    for place in PARTS.values():
        path = root / "toolkit" / place
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(NVCC.format(control=shop.control, nap=nap), encoding="utf-8")
        path.chmod(0o755)
    return shop


def units(names: str) -> list[Unit]:
    """Units of one letter each."""
    return [Unit(path=f"hopper/{name}.cu", arguments=("-Ihopper", "-DX")) for name in names]


def free_port() -> int:
    """Find a port nobody uses now."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


class Farm:
    """A scheduler and its workers; every process is ended at the end."""

    def __init__(self, root: Path) -> None:
        self.root = root
        self.port = free_port()
        self.address = f"tcp://127.0.0.1:{self.port}"
        self.cluster = Cluster(scheduler=self.address)
        self._processes: dict[str, list[subprocess.Popen[bytes]]] = {"dask_scheduler": [], "dask_worker": []}

    def scheduler(self) -> "subprocess.Popen[bytes]":
        """Start a scheduler."""
        words = ("--host", "127.0.0.1", "--port", str(self.port), "--dashboard-address", "127.0.0.1:0", "--no-show")
        return self._start("dask_scheduler", words, self.root / "scheduler.log", {})

    def worker(
        self,
        name: str,
        *,
        memory: float | None = 20e9,
        threads: int = 4,
        environ: Mapping[str, str] | None = None,
        python: str = sys.executable,
    ) -> "subprocess.Popen[bytes]":
        """Start a worker without a nanny, so that the process given is the one that works."""
        words = [self.address, "--name", name, "--nthreads", str(threads), "--no-nanny", "--no-dashboard"]
        words += ["--local-directory", str(self.root / "dask"), "--memory-limit", "0"]
        if memory is not None:
            words += ["--resources", f"MEM={memory:.0f}"]
        home = {"HOPPERFORGE_CACHE": str(self.home(name)), **(environ or {})}
        return self._start("dask_worker", words, self.root / f"{name}.log", home, python)

    def home(self, name: str) -> Path:
        """The cache of a worker."""
        return self.root / f"home-{name}"

    def left_over(self, name: str) -> list[str]:
        """What lies in a worker's work folder besides locks."""
        work = self.home(name) / "worker" / "work"
        return [path.name for path in work.iterdir() if path.suffix != ".lock"] if work.is_dir() else []

    def _start(
        self, program: str, words: Sequence[str], log: Path, environ: Mapping[str, str], python: str = sys.executable
    ) -> "subprocess.Popen[bytes]":
        with log.open("ab") as stream:
            process = subprocess.Popen(
                [python, "-m", f"distributed.cli.{program}", *words],
                env={**os.environ, **environ},
                stdout=stream,
                stderr=stream,
                start_new_session=True,
            )
        self._processes[program].append(process)
        return process

    def end(self) -> None:
        """End everything, workers before their scheduler: Dask's may hang when both are told at once."""
        schedulers, workers = self._processes["dask_scheduler"], self._processes["dask_worker"]
        for processes in (workers, schedulers):
            for process in processes:
                process.send_signal(signal.SIGTERM)
            for process in processes:
                try:
                    process.wait(20)
                except subprocess.TimeoutExpired:
                    process.kill()
                    process.wait()


@contextlib.contextmanager
def farm(root: Path, *names: str) -> Iterator[Farm]:
    """Start a scheduler with workers of these names."""
    root.mkdir(parents=True, exist_ok=True)
    made = Farm(root)
    try:
        made.scheduler()
        for name in names:
            made.worker(name)
        yield made
    finally:
        made.end()


def until(condition: Path, seconds: float = 30) -> None:
    """Wait for a file."""
    deadline = time.monotonic() + seconds
    while not condition.exists():
        assert time.monotonic() < deadline, f"{condition} did not appear"
        time.sleep(0.02)
