"""The kernels stage with a small program in nvcc's place: real processes, a real store, real kills."""

import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path

import pytest

from hopperforge.errors import CompileError, StorageError
from hopperforge.model.machine import Sizing
from hopperforge.model.pack import KernelPack, Unit
from hopperforge.model.toolkit import HostCompiler, Toolkit, ToolkitOrigin
from hopperforge.model.upstream import PatchedSource, UpstreamPin
from hopperforge.model.versions import ToolkitVersion
from hopperforge.report import Recorder
from hopperforge.run.engine import ON_HOST, Command, Engine, Mount
from hopperforge.run.process import Completed
from hopperforge.run.workspace import Workspace
from hopperforge.stages.kernels import cached_units, compile_pack, expected_seconds, unit_keys, wrapper_text
from hopperforge.store.packs import read_pack

# Writes an object made of its arguments, its environment and its input; what it does besides is said by the control
# folder: `fail`, `kill`, `hang`, `full`, `noobject` hold unit names; `calls` gets a line for each start and end.
NVCC = """#!/bin/sh
control={control}
unit=$(sed -n 's,.*include "hopper/\\(.*\\)[.]cu".*,\\1,p' unit.cu)
echo "start $unit" >> $control/calls
is() {{ grep -qx "$unit" $control/$1 2>/dev/null; }}
echo "compiling $unit"
echo "$@" > $control/argv-$unit
if is fail; then seq 1 60; echo "error: no good"; exit 2; fi
if is childkill; then echo "nvcc error   : 'cicc' died due to signal 9 (Kill signal)"; exit 9; fi
if is full; then echo "fatal error: error writing to unit.o: No space left on device"; exit 1; fi
if is noobject; then exit 0; fi
if is kill; then touch $control/killed-$unit; kill -9 $$; fi
if is killonce && ! test -e $control/killed-$unit; then touch $control/killed-$unit; sleep 0.2; kill -9 $$; fi
if is hang; then echo half > unit.o; echo $$ > $control/pid-$unit; sleep 30 & wait; fi
if is slow; then sleep 0.4; fi
if is ignores; then echo "ptxas info    : (C7508) Potential Performance Loss: 'setmaxnreg' ignored"; fi
{{ echo "$@" | sed 's,--threads [0-9]* ,,; s,-ccbin [^ ]* ,,'
   cat unit.cu hopper/$unit.cu csrc/header.h
   env | sort; }} \\
  | grep -v -e ^TMPDIR= -e ^PWD= -e ^OLDPWD= -e ^SHLVL= -e ^_= > unit.o
echo "end $unit" >> $control/calls
"""

GB = 1_000_000_000
WORDS = ("-Ihopper", "-DX", "-objtemp", "-Xcudafe", "--orig_src_path_name=/hopperforge/hopper/a.cu")


@dataclass
class Bench:
    """A workspace, a source, a toolkit that is a script, and the units to compile."""

    root: Path
    reporter: Recorder
    jobs: int = 2
    threads: int = 1
    engine: Engine = ON_HOST

    @property
    def control(self) -> Path:
        """Where nvcc's behaviour is set."""
        return self.root / "control"

    @property
    def workspace(self) -> Workspace:
        """The workspace of this bench."""
        return Workspace(
            project=self.root,
            cache=self.root / "cache",
            wheelhouse=self.root / "wheelhouse",
            environ={"PATH": os.defpath, "CPATH": "/evil", "NVCC_APPEND_FLAGS": "-evil", "LANG": "fr_FR"},
            reporter=self.reporter,
        )

    @property
    def source(self) -> PatchedSource:
        """The patched source."""
        pin = UpstreamPin(name="p", commit="c", epoch=1_700_000_000, trees={}, origins=())
        root = self.root / "source"
        return PatchedSource(pin=pin, root=root, patches={}, kernel_tree="k", front_tree="f", origin="o")

    @property
    def toolkit(self) -> Toolkit:
        """The toolkit whose nvcc is the script."""
        return Toolkit(
            version=ToolkitVersion.parse("13.0"),
            release="13.0.88",
            origin=ToolkitOrigin.SYSTEM,
            root=self.root / "toolkit",
            fingerprint={"nvcc": "1"},
        )

    @property
    def compiler(self) -> HostCompiler:
        """The host compiler."""
        return HostCompiler(path=Path("/usr/bin/g++"), version="12.2", fingerprint={"driver": "1"})

    @property
    def sizing(self) -> Sizing:
        """Room for every job."""
        return Sizing(max_jobs=self.jobs, nvcc_threads=self.threads, memory=100 * GB, reasons=())

    def behave(self, what: str, *names: str) -> None:
        """Make nvcc do `what` on the units of these names; on none: behave."""
        (self.control / what).write_text("".join(f"{name}\n" for name in names), encoding="utf-8")

    def calls(self) -> list[str]:
        """What nvcc did so far."""
        path = self.control / "calls"
        return path.read_text(encoding="utf-8").splitlines() if path.exists() else []

    def compile(self, units: Sequence[Unit]) -> KernelPack:
        """Run the stage."""
        return compile_pack(
            units,
            source=self.source,
            toolkit=self.toolkit,
            compiler=self.compiler,
            sizing=self.sizing,
            workspace=self.workspace,
            engine=self.engine,
        )

    def cached(self, units: Sequence[Unit]) -> list[bool]:
        """Ask the stage what is cached, in order of units."""
        keys = unit_keys(units, source=self.source, toolkit=self.toolkit, compiler=self.compiler)
        found = cached_units(keys, self.workspace)
        return [found[unit.path] for unit in units]

    def keys(self, units: Sequence[Unit]) -> list[str]:
        """The keys in order of units."""
        found = unit_keys(units, source=self.source, toolkit=self.toolkit, compiler=self.compiler)
        return [found[unit.path] for unit in units]

    def left_over(self) -> list[str]:
        """What lies in the work folder besides locks."""
        work = self.workspace.work
        return [path.name for path in work.iterdir() if path.suffix != ".lock"] if work.is_dir() else []


def make_bench(root: Path) -> Bench:
    bench = Bench(root=root, reporter=Recorder())
    for folder in (bench.control, root / "source" / "hopper", root / "source" / "csrc", root / "toolkit" / "bin"):
        folder.mkdir(parents=True, exist_ok=True)
    for name in "abc":
        (root / "source" / "hopper" / f"{name}.cu").write_text(f"kernel {name}\n", encoding="utf-8")
    (root / "source" / "csrc" / "header.h").write_text("header\n", encoding="utf-8")
    nvcc = root / "toolkit" / "bin" / "nvcc"
    nvcc.write_text(NVCC.format(control=bench.control), encoding="utf-8")
    nvcc.chmod(0o755)
    return bench


@pytest.fixture
def bench(tmp_path: Path) -> Bench:
    return make_bench(tmp_path)


def units(names: str = "abc", *arguments: str) -> list[Unit]:
    return [Unit(path=f"hopper/{name}.cu", arguments=("-Ihopper", "-DX", *arguments)) for name in names]


def until(condition: Path) -> None:
    deadline = time.monotonic() + 10
    while not condition.exists():
        assert time.monotonic() < deadline, f"{condition} did not appear"
        time.sleep(0.01)


def test_units_become_a_pack_of_what_nvcc_made(bench: Bench, tmp_path: Path) -> None:
    pack = bench.compile(units())
    assert pack.compiled == 3
    assert [unit.path for unit in pack.units] == ["hopper/a.cu", "hopper/b.cu", "hopper/c.cu"]
    assert [unit.key for unit in pack.units] == bench.keys(units())
    objects = read_pack(pack.archive, tmp_path / "out")
    assert [path.name for path in objects] == ["a.o", "b.o", "c.o"]
    text = objects[0].read_text(encoding="utf-8")
    assert text.splitlines() == [
        f"{' '.join(WORDS)} -Xcompiler -frandom-seed=a -c unit.cu -o unit.o",
        "// made by hopperforge",
        'extern "C" __attribute__((visibility("hidden"))) const int hopperforge_unit_a = 1;',
        '#include "hopper/a.cu"',
        "kernel a",
        "header",
        "LC_ALL=C",
        f"PATH={os.defpath}",
        "SOURCE_DATE_EPOCH=1700000000",
    ]
    assert bench.left_over() == []
    assert bench.reporter.warnings == []


def test_costs_are_measured_kept_and_expected_next_time(bench: Bench) -> None:
    assert expected_seconds(units("a"), toolkit=bench.toolkit, sizing=bench.sizing, workspace=bench.workspace) > 60
    bench.behave("slow", "a")
    (packed,) = bench.compile(units("a")).units
    assert packed.cost is not None
    assert 0.4 <= packed.cost.seconds < 5
    assert packed.cost.peak_rss > 100_000
    learned = expected_seconds(units("a"), toolkit=bench.toolkit, sizing=bench.sizing, workspace=bench.workspace)
    assert learned == pytest.approx(packed.cost.seconds, abs=0.001)


def test_a_second_run_compiles_nothing_and_returns_the_same(bench: Bench) -> None:
    first = bench.compile(units())
    calls = bench.calls()
    assert bench.compile(units()) == replace(first, compiled=0)
    assert bench.calls() == calls


def test_what_two_packs_share_is_compiled_once(bench: Bench) -> None:
    bench.compile(units("ab"))
    assert bench.cached(units("abc")) == [True, True, False]
    assert bench.compile(units("abc")).compiled == 1
    assert bench.calls().count("start a") == 1


def test_asking_what_is_cached_writes_nothing(bench: Bench) -> None:
    assert bench.cached(units()) == [False, False, False]
    assert not bench.workspace.cache.exists()


def test_a_changed_argument_compiles_again(bench: Bench) -> None:
    bench.compile(units("a"))
    assert bench.cached(units("a", "-DY")) == [False]
    assert bench.compile(units("a", "-DY")).compiled == 1


def test_threads_and_compiler_places_are_not_in_the_key(bench: Bench) -> None:
    first = bench.compile(units("a"))
    assert "--threads" not in (bench.control / "argv-a").read_text(encoding="utf-8")
    bench.threads = 4
    assert bench.compile(units("a")).compiled == 0
    (bench.workspace.store / "packs").rename(bench.root / "away-packs")
    (bench.workspace.store / "objects").rename(bench.root / "away-objects")
    again = bench.compile(units("a"))
    assert (again.compiled, again.sha256) == (1, first.sha256)
    words = (bench.control / "argv-a").read_text(encoding="utf-8")
    assert words.startswith("--threads 4 -ccbin /usr/bin/g++ -Ihopper -DX ")


def test_every_part_of_the_key_counts(bench: Bench) -> None:
    (unit,) = units("a")

    def key(**changes: object) -> str:
        parts = {"source": bench.source, "toolkit": bench.toolkit, "compiler": bench.compiler, **changes}
        return unit_keys([unit], **parts)[unit.path]  # type: ignore[arg-type] # built by name

    late = replace(bench.source.pin, epoch=1)
    changed = [
        key(),
        key(source=replace(bench.source, kernel_tree="other")),
        key(source=replace(bench.source, pin=late)),
        key(toolkit=replace(bench.toolkit, fingerprint={"nvcc": "2"})),
        key(compiler=replace(bench.compiler, fingerprint={"driver": "2"})),
        *bench.keys(units("b")),
        *bench.keys(units("a", "-DY")),
    ]
    assert len(set(changed)) == len(changed)
    same = [
        key(source=replace(bench.source, root=Path("/elsewhere"), front_tree="other", patches={"x": "y"})),
        key(toolkit=replace(bench.toolkit, root=Path("/elsewhere"))),
        key(compiler=replace(bench.compiler, path=Path("/elsewhere"))),
    ]
    assert set(same) == {changed[0]}


def test_the_same_object_in_any_folder(bench: Bench, tmp_path: Path) -> None:
    other = make_bench(tmp_path / "deep" / "er")
    assert other.compile(units()).sha256 == bench.compile(units()).sha256


def test_a_marker_is_a_c_name() -> None:
    text = wrapper_text(Unit(path="hopper/x-1.2.cu", arguments=()))
    assert "const int hopperforge_unit_x_1_2 = 1;" in text
    assert '#include "hopper/x-1.2.cu"' in text


def test_a_failing_unit_is_named_with_its_last_lines_and_the_rest_is_kept(bench: Bench) -> None:
    bench.jobs = 1
    bench.behave("fail", "b")
    with pytest.raises(CompileError, match=r"nvcc ended with status 2 on hopper/b\.cu") as caught:
        bench.compile(units())
    *tail, log, kept = caught.value.detail
    assert tail == [*(str(number) for number in range(22, 61)), "error: no good"]
    path = Path(log.removeprefix("log: "))
    assert path == bench.workspace.logs / "kernels" / f"b-{bench.keys(units('b'))[0][:12]}.log"
    assert path.read_text(encoding="utf-8").startswith("compiling b\n1\n")
    assert kept == "kept: 1 of 3 units are in the cache; the next run goes on there"
    assert caught.value.hint == f"less {path}"
    assert bench.calls() == ["start a", "end a", "start b"]
    assert bench.left_over() == []
    bench.behave("fail")
    assert bench.compile(units()).compiled == 2


def test_success_without_an_object_is_a_failure(bench: Bench) -> None:
    bench.behave("noobject", "a")
    with pytest.raises(CompileError, match="without an object"):
        bench.compile(units("a"))


def test_an_object_whose_kernels_would_be_slow_is_refused(bench: Bench) -> None:
    bench.behave("ignores", "a")
    with pytest.raises(CompileError, match="left out setmaxnreg") as caught:
        bench.compile(units("a"))
    assert caught.value.detail[0].startswith("ptxas info    : (C7508)")
    assert bench.left_over() == []
    assert bench.cached(units("a")) == [False]


@pytest.mark.parametrize(("how", "status"), [("kill", 137), ("childkill", 9)])
def test_a_killed_unit_says_memory_and_what_to_lower(bench: Bench, how: str, status: int) -> None:
    bench.behave(how, "a")
    with pytest.raises(CompileError, match=rf"a was killed while compiling \(status {status}\)") as caught:
        bench.compile(units("a"))
    assert "out of memory" in caught.value.sentence
    assert caught.value.detail[0] == "6.8 GB were set aside for it, of 100.0 GB for all units"
    assert caught.value.hint is not None
    assert "jobs=1" in caught.value.hint
    assert "memory=" in caught.value.hint
    assert bench.left_over() == []
    assert bench.cached(units("a")) == [False]


@dataclass
class Box:
    """An engine that is none of this machine's own, and keeps how much memory each command may take."""

    limits: list[int | None] = field(default_factory=list)
    name: str = "box"
    ground: str = "box"
    keep: bool = False

    def place(self, mount: Mount) -> Path:
        """Find the folder where it lies."""
        return mount.outside

    def run(
        self,
        command: Command,
        *,
        log: Path | None = None,
        on_line: Callable[[str], None] | None = None,
        on_heartbeat: Callable[[float], None] | None = None,
        stop: threading.Event | None = None,
        keep_open: Sequence[int] = (),
    ) -> Completed:
        """Run the command here."""
        self.limits.append(command.memory)
        return ON_HOST.run(command, log=log, on_line=on_line, on_heartbeat=on_heartbeat, stop=stop, keep_open=keep_open)


def test_a_container_may_take_half_as_much_again_and_all_memory_when_tried_again(bench: Bench) -> None:
    bench.behave("killonce", "a")
    bench.engine = box = Box()
    assert bench.compile(units("a")).compiled == 1
    assert box.limits == [6_764_573_491 + 6_764_573_491 // 2, 100 * GB]
    assert len(bench.reporter.warnings) == 1


def test_several_sources_become_one_object_and_a_killed_one_says_how_to_part_them(bench: Bench) -> None:
    merged = Unit(path="merged/ab-x2-01234567.cu", arguments=("-DX",), merged=("hopper/a.cu", "hopper/b.cu"))
    pack = bench.compile([merged, *units("c")])
    assert [(unit.path, unit.sources) for unit in pack.units] == [
        ("hopper/c.cu", ("hopper/c.cu",)),
        ("merged/ab-x2-01234567.cu", ("hopper/a.cu", "hopper/b.cu")),
    ]
    assert bench.compile([merged, *units("c")]).units == pack.units
    other = replace(merged, merged=("hopper/b.cu", "hopper/a.cu"))
    assert bench.keys([merged]) != bench.keys([other])
    (bench.root / "toolkit" / "bin" / "nvcc").write_text("#!/bin/sh\nkill -9 $$\n", encoding="utf-8")
    with pytest.raises(CompileError, match="ab-x2-01234567 was killed") as caught:
        bench.compile([other])
    assert caught.value.hint is not None
    assert "merge=off" in caught.value.hint


def test_a_unit_killed_beside_others_is_compiled_alone(bench: Bench) -> None:
    bench.behave("killonce", "a")
    bench.behave("slow", "b")
    assert bench.compile(units("ab")).compiled == 2
    assert bench.calls()[2:] == ["end b", "start a", "end a"]
    (warning,) = bench.reporter.warnings
    assert "tried once more, alone" in warning


def test_a_disk_that_fills_under_nvcc_is_a_storage_error(bench: Bench) -> None:
    bench.behave("full", "a")
    with pytest.raises(StorageError, match="is full"):
        bench.compile(units("a"))


def test_two_units_of_one_name_are_refused_before_any_work(bench: Bench) -> None:
    with pytest.raises(CompileError, match=r"objects/a\.o"):
        bench.compile([*units("a"), Unit(path="hopper/deep/a.cu", arguments=())])
    assert bench.calls() == []


def test_progress_counts_cached_units_too(bench: Bench) -> None:
    bench.compile(units("a"))
    bench.reporter.moments.clear()
    bench.compile(units("abc"))
    first, last = bench.reporter.moments[0], bench.reporter.moments[-1]
    assert (first.done, first.total, first.running) == (1, 3, ("b", "c"))
    assert first.memory == 2 * 6_764_573_491
    assert (last.done, last.total, last.running, last.seconds_left) == (3, 3, (), 0)


def test_merged_units_overlap_where_their_peaks_do_not(bench: Bench) -> None:
    """Both peaks do not fit; the second unit begins when the first's is over, after 0.9 of its time."""
    merged = [
        Unit(path=f"merged/{name}.cu", arguments=(), merged=(f"hopper/{name}1.cu", f"hopper/{name}2.cu"))
        for name in "ab"
    ]
    sizing = replace(bench.sizing, memory=13 * GB)
    one, two = (
        expected_seconds(some, toolkit=bench.toolkit, sizing=sizing, workspace=bench.workspace)
        for some in (merged[:1], merged)
    )
    assert two == pytest.approx(1.9 * one)


def test_nvcc_threads_count_in_the_memory_set_aside(bench: Bench) -> None:
    bench.threads = 2
    targets = ("-gencode", "arch=compute_90a,code=sm_90a", "-gencode", "arch=compute_80,code=sm_80")
    bench.compile(units("a", *targets))
    assert bench.reporter.moments[0].memory == 2 * 6_764_573_491


def test_a_damaged_object_and_pack_are_made_again(bench: Bench) -> None:
    first = bench.compile(units("a"))
    first.archive.write_bytes(b"rotten")
    (thing,) = (bench.workspace.store / "objects").rglob("*.o")
    thing.write_bytes(b"rotten")
    assert bench.compile(units("a")) == replace(first, compiled=1, units=bench.compile(units("a")).units)
    assert len(bench.reporter.warnings) == 2


def test_a_damaged_pack_is_put_together_from_objects(bench: Bench) -> None:
    first = bench.compile(units("ab"))
    first.archive.write_bytes(b"rotten")
    assert bench.compile(units("ab")) == replace(first, compiled=0)
    assert bench.calls().count("start a") == 1


def test_leftovers_of_a_killed_run_are_not_seen(bench: Bench) -> None:
    (key,) = bench.keys(units("a"))
    left = bench.workspace.work / key
    (left / "hopper").mkdir(parents=True)
    (left / "hopper" / "a.cu").write_text("evil", encoding="utf-8")
    (left / "unit.o").write_text("half", encoding="utf-8")
    (packed,) = bench.compile(units("a")).units
    assert packed.size > 100
    assert bench.left_over() == []


def test_two_runs_at_once_do_the_work_once(bench: Bench) -> None:
    bench.behave("slow", "a", "b")
    packs: list[KernelPack] = []
    threads = [threading.Thread(target=lambda: packs.append(bench.compile(units("ab")))) for _ in range(2)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert sorted(bench.calls()) == ["end a", "end b", "start a", "start b"]
    assert sum(pack.compiled for pack in packs) == 2
    assert packs[0].sha256 == packs[1].sha256
    assert any("is being compiled by another run" in note for note in bench.reporter.notes)


@pytest.fixture
def interruptible() -> Iterator[None]:
    """Let SIGINT raise KeyboardInterrupt: a shell that starts us in the background has it ignored."""
    before = signal.signal(signal.SIGINT, signal.default_int_handler)
    yield
    signal.signal(signal.SIGINT, before)


def alive(pid: int) -> bool:
    try:
        state = Path(f"/proc/{pid}/stat").read_text(encoding="utf-8").rsplit(")", 1)[1].split()[0]
    except FileNotFoundError:
        return False
    return state != "Z"


@pytest.mark.usefixtures("interruptible")
def test_an_interrupt_in_the_middle_of_a_unit_leaves_no_process_and_no_half_file(bench: Bench) -> None:
    bench.jobs = 1
    bench.behave("hang", "b")

    def interrupt() -> None:
        until(bench.control / "pid-b")
        signal.pthread_kill(threading.main_thread().ident or 0, signal.SIGINT)

    thread = threading.Thread(target=interrupt)
    thread.start()
    with pytest.raises(KeyboardInterrupt):
        bench.compile(units())
    thread.join()
    assert not alive(int((bench.control / "pid-b").read_text(encoding="utf-8")))
    assert bench.left_over() == []
    assert bench.cached(units()) == [True, False, False]
    bench.behave("hang")
    assert bench.compile(units()).compiled == 2
    assert bench.calls().count("start a") == 1


@pytest.mark.usefixtures("interruptible")
def test_an_interrupt_while_waiting_for_another_run_is_heard(bench: Bench, tmp_path: Path) -> None:
    bench.behave("hang", "a")
    child = start_child(tmp_path)
    until(bench.control / "pid-a")

    def interrupt() -> None:
        while not bench.reporter.notes:
            time.sleep(0.01)
        signal.pthread_kill(threading.main_thread().ident or 0, signal.SIGINT)

    thread = threading.Thread(target=interrupt)
    thread.start()
    begin = time.monotonic()
    with pytest.raises(KeyboardInterrupt):
        bench.compile(units("a"))
    thread.join()
    assert time.monotonic() - begin < 3
    child.send_signal(signal.SIGINT)
    child.wait()
    assert not alive(int((bench.control / "pid-a").read_text(encoding="utf-8")))


def start_child(root: Path) -> "subprocess.Popen[str]":
    """Compile unit a in a process of its own."""
    program = (
        "import importlib.util, pathlib, signal, sys\n"
        "signal.signal(signal.SIGINT, signal.default_int_handler)\n"
        "spec = importlib.util.spec_from_file_location('kernels_child', sys.argv[1])\n"
        "module = importlib.util.module_from_spec(spec); sys.modules['kernels_child'] = module\n"
        "spec.loader.exec_module(module)\n"
        "bench = module.make_bench(pathlib.Path(sys.argv[2]))\n"
        "bench.compile(module.units('a'))\n"
    )
    return subprocess.Popen([sys.executable, "-c", program, __file__, str(root)], stderr=subprocess.DEVNULL, text=True)


def test_after_kill_9_the_next_run_waits_for_the_orphan_and_is_right(bench: Bench, tmp_path: Path) -> None:
    bench.behave("hang", "a")
    child = start_child(tmp_path)
    until(bench.control / "pid-a")
    child.kill()
    child.wait()
    orphan = int((bench.control / "pid-a").read_text(encoding="utf-8"))
    assert alive(orphan)
    bench.behave("hang")

    def end_orphan() -> None:
        while not bench.reporter.notes:
            time.sleep(0.01)
        assert bench.calls() == ["start a"]
        os.killpg(orphan, signal.SIGKILL)

    thread = threading.Thread(target=end_orphan)
    thread.start()
    (packed,) = bench.compile(units("a")).units
    thread.join()
    assert bench.calls() == ["start a", "start a", "end a"]
    assert packed.size > 100
    assert bench.left_over() == []
