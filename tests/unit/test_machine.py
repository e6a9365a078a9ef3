"""Reading limits: /proc, affinity, cgroups of both versions laid out in a folder, Slurm's variables, RLIMIT_AS."""

import os
import platform
import resource
import subprocess
import sys
from collections.abc import Iterator, Mapping
from pathlib import Path

import proclimits._cgroup
import pytest

from hopperforge.errors import InputError, ToolError
from hopperforge.model.machine import Limit
from hopperforge.run.machine import MemoryMeter, memory_in_use, read_machine

GIBIBYTE = 2**30
MEMINFO = "MemTotal:       67108864 kB\nMemFree:        10 kB\nMemAvailable:   50331648 kB\nHugePages_Total:       0\n"


class Tree:
    """A /proc and a cgroup filesystem in a folder, with 64 GiB, 48 GiB of it available, and 32 cores."""

    def __init__(self, root: Path) -> None:
        self.proc = root / "proc"
        self.groups = root / "cgroup"
        self.put(self.proc / "meminfo", MEMINFO)
        self.put(self.proc / "self/cgroup", "")
        self.put(self.proc / "self/mountinfo", "")
        self.put(root / "online", "0-31\n")

    def put(self, path: Path, text: str) -> None:
        """Write a file and the folders above it."""
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text)

    def join(self, line: str, mount: Path, filesystem: str, options: str) -> None:
        """Mount a hierarchy and put the process in a group of it; `line` is one of /proc/self/cgroup."""
        with (self.proc / "self/cgroup").open("a") as file:
            print(line, file=file)
        with (self.proc / "self/mountinfo").open("a") as file:
            print(f"30 20 0:26 / {mount} rw - {filesystem} {filesystem} {options}", file=file)

    def group(self, path: str, files: Mapping[str, str]) -> Path:
        """Write the control files of the group at `path` and return its folder."""
        for name, text in files.items():
            self.put(self.groups / path / name, f"{text}\n")
        return self.groups / path


@pytest.fixture
def tree(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Tree]:
    """A tree that proclimits reads in place of the machine; it has no public way to be pointed elsewhere."""
    made = Tree(tmp_path)
    monkeypatch.setattr(proclimits._cgroup, "_PROC_SELF_CGROUP", made.proc / "self/cgroup")
    monkeypatch.setattr(proclimits._cgroup, "_PROC_SELF_MOUNTINFO", made.proc / "self/mountinfo")
    monkeypatch.setattr(proclimits._cgroup, "_PROC_MEMINFO", made.proc / "meminfo")
    monkeypatch.setattr(proclimits._cgroup, "_SYS_CPU_ONLINE", tmp_path / "online")
    yield made
    proclimits.clear_cache()


def without_machine(limits: tuple[Limit, ...]) -> list[tuple[int, str]]:
    """What was found beyond the whole machine and affinity."""
    return [(limit.value, limit.source) for limit in limits if limit.source not in ("whole machine", "affinity")]


def test_the_whole_machine_comes_first(tree: Tree) -> None:
    machine = read_machine({}, proc=tree.proc)

    assert machine.cores[0] == Limit(value=os.cpu_count() or 1, source="whole machine")
    assert machine.memory == (Limit(value=64 * GIBIBYTE, source="whole machine"),)
    assert machine.free == (Limit(value=48 * GIBIBYTE, source="MemAvailable"),)
    assert machine.architecture == platform.machine()
    assert machine.notices == ()


def test_this_machine_can_be_read() -> None:
    machine = read_machine({})

    assert machine.memory[0].value > machine.free[0].value > 0
    assert machine.cores[0].value >= machine.cores[1].value >= 1


def test_affinity_is_a_limit(tree: Tree) -> None:
    before = os.sched_getaffinity(0)
    os.sched_setaffinity(0, {min(before)})
    try:
        machine = read_machine({}, proc=tree.proc)
    finally:
        os.sched_setaffinity(0, before)

    assert machine.cores[1] == Limit(value=1, source="affinity")


def test_a_limit_on_the_address_space_is_kept_apart(tree: Tree) -> None:
    before = resource.getrlimit(resource.RLIMIT_AS)
    resource.setrlimit(resource.RLIMIT_AS, (2**46, before[1]))
    try:
        machine = read_machine({}, proc=tree.proc)
    finally:
        resource.setrlimit(resource.RLIMIT_AS, before)

    assert machine.process_memory == Limit(value=2**46, source="RLIMIT_AS of each process")
    assert machine.memory == (Limit(value=64 * GIBIBYTE, source="whole machine"),)


def test_the_tightest_level_of_nested_groups_of_version_2_is_found(tree: Tree) -> None:
    tree.join("0::/slice/pod/task", tree.groups, "cgroup2", "rw")
    tree.group("", {"cgroup.controllers": "cpu memory cpuset"})
    usage = {"memory.current": str(2 * GIBIBYTE), "memory.stat": "inactive_file 0\nfile_dirty 0\nfile_writeback 0"}
    sl = tree.group("slice", {"memory.max": str(40 * GIBIBYTE), "cpu.max": "250000 100000", **usage})
    pod = tree.group("slice/pod", {"memory.max": str(16 * GIBIBYTE), "cpu.max": "max 100000", **usage})
    tree.group("slice/pod/task", {"memory.max": "max", "cpu.max": "max 100000", **usage})

    machine = read_machine({}, proc=tree.proc)

    assert without_machine(machine.cores) == [(2, f"cgroup-v2 {sl} (2.5 cores)")]
    assert without_machine(machine.memory) == [(16 * GIBIBYTE, f"cgroup-v2 {pod}")]
    assert without_machine(machine.free) == [
        (48 * GIBIBYTE, "MemAvailable"),
        (14 * GIBIBYTE, f"room left in cgroup-v2 {pod}"),
    ]


def test_the_tightest_level_of_nested_groups_of_version_1_is_found(tree: Tree) -> None:
    tree.join("4:memory:/job/step", tree.groups / "memory", "cgroup", "rw,memory")
    tree.join("3:cpuset:/job", tree.groups / "cpuset", "cgroup", "rw,cpuset")
    unlimited = {"memory.limit_in_bytes": "9223372036854771712", "memory.usage_in_bytes": str(GIBIBYTE)}
    stat = {"memory.stat": "total_inactive_file 0\ntotal_dirty 0\ntotal_writeback 0"}
    tree.group("memory", {**unlimited, **stat})
    job = tree.group("memory/job", {**unlimited, **stat, "memory.limit_in_bytes": str(8 * GIBIBYTE)})
    tree.group("memory/job/step", {**unlimited, **stat})
    cpus = tree.group("cpuset/job", {"cpuset.cpus": "0-3,8", "cpuset.effective_cpus": "0-3,8"})

    machine = read_machine({}, proc=tree.proc)

    assert without_machine(machine.cores) == [(5, f"cgroup-v1 {cpus}")]
    assert without_machine(machine.memory) == [(8 * GIBIBYTE, f"cgroup-v1 {job}")]
    assert machine.free[1] == Limit(value=7 * GIBIBYTE, source=f"room left in cgroup-v1 {job}")


def test_a_limit_whose_use_cannot_be_read_still_limits_and_is_told(tree: Tree) -> None:
    tree.join("0::/job", tree.groups, "cgroup2", "rw")
    tree.group("", {"cgroup.controllers": "memory"})
    job = tree.group("job", {"memory.max": str(8 * GIBIBYTE), "memory.current": "no number"})

    machine = read_machine({}, proc=tree.proc)

    assert without_machine(machine.memory) == [(8 * GIBIBYTE, f"cgroup-v2 {job}")]
    assert len(machine.free) == 1
    assert [str(job) in notice for notice in machine.notices] == [True]


def test_a_fraction_of_a_core_is_one_core(tree: Tree) -> None:
    tree.join("0::/job", tree.groups, "cgroup2", "rw")
    tree.group("", {"cgroup.controllers": "cpu"})
    job = tree.group("job", {"cpu.max": "50000 100000"})

    assert without_machine(read_machine({}, proc=tree.proc).cores) == [(1, f"cgroup-v2 {job} (0.5 cores)")]


@pytest.mark.parametrize(
    ("environ", "cores", "memory"),
    [
        ({}, [], []),
        ({"SLURM_CPUS_PER_TASK": "6"}, [(6, "SLURM_CPUS_PER_TASK")], []),
        (
            {"SLURM_CPUS_PER_TASK": "6", "SLURM_CPUS_ON_NODE": "12", "SLURM_MEM_PER_NODE": "16384"},
            [(6, "SLURM_CPUS_PER_TASK"), (12, "SLURM_CPUS_ON_NODE")],
            [(16 * GIBIBYTE, "SLURM_MEM_PER_NODE")],
        ),
        (
            {"SLURM_CPUS_PER_TASK": "2", "SLURM_CPUS_ON_NODE": "4", "SLURM_MEM_PER_CPU": "2048"},
            [(2, "SLURM_CPUS_PER_TASK"), (4, "SLURM_CPUS_ON_NODE")],
            [(8 * GIBIBYTE, "SLURM_MEM_PER_CPU x 4 CPUs")],
        ),
        (
            {"SLURM_CPUS_PER_TASK": "2", "SLURM_MEM_PER_CPU": "2048"},
            [(2, "SLURM_CPUS_PER_TASK")],
            [(4 * GIBIBYTE, "SLURM_MEM_PER_CPU x 2 CPUs")],
        ),
        ({"SLURM_MEM_PER_NODE": "0"}, [], []),  # Slurm's way to say: all of the node
        ({"SLURM_CPUS_PER_TASK": ""}, [], []),
    ],
)
def test_what_slurm_granted_is_a_limit(
    tree: Tree, environ: dict[str, str], cores: list[tuple[int, str]], memory: list[tuple[int, str]]
) -> None:
    machine = read_machine(environ, proc=tree.proc)

    assert without_machine(machine.cores) == cores
    assert without_machine(machine.memory) == memory


def test_memory_per_cpu_without_a_number_of_cpus_takes_the_cores_found(tree: Tree) -> None:
    cores = len(os.sched_getaffinity(0))

    machine = read_machine({"SLURM_MEM_PER_CPU": "1024"}, proc=tree.proc)

    assert without_machine(machine.memory) == [(cores * GIBIBYTE, f"SLURM_MEM_PER_CPU x {cores} CPUs")]


def test_every_malformed_slurm_variable_is_named_at_once(tree: Tree) -> None:
    environ = {
        "SLURM_CPUS_PER_TASK": "0",
        "SLURM_CPUS_ON_NODE": "12(x2)",
        "SLURM_MEM_PER_NODE": "16G",
        "SLURM_MEM_PER_CPU": "2048",
    }

    with pytest.raises(InputError) as caught:
        read_machine(environ, proc=tree.proc)

    assert caught.value.sentence == (
        "the environment does not say what Slurm granted: "
        "SLURM_CPUS_PER_TASK, SLURM_CPUS_ON_NODE, SLURM_MEM_PER_NODE cannot be read"
    )
    assert caught.value.detail == (
        "SLURM_CPUS_PER_TASK='0' is not a number of CPUs from 1",
        "SLURM_CPUS_ON_NODE='12(x2)' is not a number of CPUs from 1",
        "SLURM_MEM_PER_NODE='16G' is not a number of megabytes",
    )
    assert caught.value.hint == "unset SLURM_CPUS_PER_TASK SLURM_CPUS_ON_NODE SLURM_MEM_PER_NODE"


def test_a_proc_without_memory_is_an_error(tree: Tree) -> None:
    tree.put(tree.proc / "meminfo", "MemTotal: 10 kB\n")
    with pytest.raises(ToolError, match="meminfo has no line MemAvailable"):
        read_machine({}, proc=tree.proc)

    (tree.proc / "meminfo").unlink()
    with pytest.raises(ToolError, match=r"meminfo cannot be read \(No such file or directory\)"):
        read_machine({}, proc=tree.proc)


def test_memory_in_use_counts_what_we_started_and_what_that_started() -> None:
    code = "import subprocess, sys; b = bytearray(50_000_000); subprocess.run([sys.executable, '-c', sys.argv[1]])"
    inner = "b = bytearray(50_000_000); print('ready', flush=True); input()"
    before = memory_in_use()
    with subprocess.Popen(
        [sys.executable, "-c", code, inner], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    ) as child:
        assert child.stdout is not None
        assert child.stdin is not None
        child.stdout.readline()
        assert memory_in_use() - before > 100_000_000
        child.stdin.write("\n")
    assert memory_in_use() <= before + 1_000_000


def test_the_meter_sees_memory_that_is_taken_by_processes_of_others(tree: Tree) -> None:
    """A container's processes are no children of ours."""
    tree.put(tree.proc / "meminfo", "MemTotal: 100 kB\nMemAvailable: 90 kB\n")
    meter = MemoryMeter.start(tree.proc)
    assert meter() == 0
    tree.put(tree.proc / "meminfo", "MemTotal: 100 kB\nMemAvailable: 60 kB\n")
    assert meter() == 30 * 1024
    tree.put(tree.proc / "meminfo", "MemTotal: 100 kB\nMemAvailable: 95 kB\n")
    assert meter() == 0


def test_the_meter_counts_our_processes_at_least() -> None:
    meter = MemoryMeter.start()
    code = "b = bytearray(80_000_000); print('ready', flush=True); input()"
    with subprocess.Popen(
        [sys.executable, "-c", code], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    ) as child:
        assert child.stdout is not None
        assert child.stdin is not None
        child.stdout.readline()
        assert meter() >= 80_000_000
        child.stdin.write("\n")
