"""Reading what this process may use of the machine: cores and memory, every limit with the place it was read at.

Only reads, nothing decided: `sizing` turns a Machine into compile settings. The cgroup part goes through
proclimits, which walks the whole chain of nested groups of either cgroup version; it is used in one function.
"""

import os
import platform
import re
import resource
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Final

import proclimits

from hopperforge.errors import InputError, ToolError
from hopperforge.model.machine import Limit, Machine

_PROC: Final = Path("/proc")
_MEBIBYTE: Final = 2**20
_WHOLE_MACHINE: Final = "whole machine"
_WHOLE_NUMBER: Final = re.compile(r"[0-9]{1,12}")

_TELLING_NOTICES: Final = frozenset(
    {
        proclimits.NoticeCode.MEMORY_LIMIT_UNREADABLE,
        proclimits.NoticeCode.MEMORY_USAGE_UNREADABLE,
        proclimits.NoticeCode.MEMORY_ANCESTORS_HIDDEN,
        proclimits.NoticeCode.CPU_LIMIT_UNREADABLE,
        proclimits.NoticeCode.CPU_ANCESTORS_HIDDEN,
    }
)


@dataclass(frozen=True, slots=True, kw_only=True)
class _Limits:
    """What one source of limits says: cores, bytes, bytes not in use yet, and what it could not read."""

    cores: tuple[Limit, ...] = ()
    memory: tuple[Limit, ...] = ()
    free: tuple[Limit, ...] = ()
    notices: tuple[str, ...] = ()


def read_machine(environ: Mapping[str, str], *, proc: Path = _PROC) -> Machine:
    """Read every limit on this process: the machine, CPU affinity, cgroups, Slurm's allocation, RLIMIT_AS.

    The whole machine comes first in each list. Raises InputError naming every SLURM_* variable that is not a
    number, ToolError if `proc` does not say how much memory there is.
    """
    whole = _whole_machine(proc)
    cgroups = _cgroup_limits()
    slurm = _slurm_limits(environ, cores=min(limit.value for limit in (*whole.cores, *cgroups.cores)))
    return Machine(
        cores=(*whole.cores, *cgroups.cores, *slurm.cores),
        memory=(*whole.memory, *cgroups.memory, *slurm.memory),
        free=(*whole.free, *cgroups.free),
        process_memory=_address_space_limit(),
        notices=cgroups.notices,
        architecture=platform.machine(),
    )


def _whole_machine(proc: Path) -> _Limits:
    meminfo = _read_meminfo(proc / "meminfo")
    return _Limits(
        cores=(
            Limit(value=os.cpu_count() or 1, source=_WHOLE_MACHINE),
            Limit(value=len(os.sched_getaffinity(0)), source="affinity"),
        ),
        memory=(Limit(value=meminfo["MemTotal"], source=_WHOLE_MACHINE),),
        free=(Limit(value=meminfo["MemAvailable"], source="MemAvailable"),),
    )


def _read_meminfo(path: Path) -> dict[str, int]:
    """Bytes by field; MemTotal and MemAvailable are always there."""
    try:
        text = path.read_text(encoding="ascii", errors="replace")
    except OSError as error:
        raise ToolError(f"{path} cannot be read ({error.strerror}), so the size of the memory is unknown") from error
    fields = {
        match[1]: int(match[2]) * 1024 for match in re.finditer(r"^(\w+):\s+([0-9]+) kB$", text, flags=re.MULTILINE)
    }
    if missing := {"MemTotal", "MemAvailable"} - fields.keys():
        raise ToolError(f"{path} has no line {' and no line '.join(sorted(missing))}, so the memory is unknown")
    return fields


def _cgroup_limits() -> _Limits:
    """Read the tightest limits of the chain of cgroups above this process; the only use of proclimits."""
    proclimits.clear_cache()
    found = proclimits.describe()
    memory_level = _level(found.memory_limit_level, found.memory_source)
    cores: tuple[Limit, ...] = ()
    memory: tuple[Limit, ...] = ()
    free: tuple[Limit, ...] = ()
    if found.cpu_limit is not None:
        exact = f" ({found.cpu_limit:g} cores)" if found.cpu_limit % 1 else ""
        name = _level(found.cpu_limit_level, found.cpu_quota_source, found.cpu_set_source)
        cores = (Limit(value=max(1, int(found.cpu_limit)), source=f"{name}{exact}"),)
    usage_unreadable = any(notice.code is proclimits.NoticeCode.MEMORY_USAGE_UNREADABLE for notice in found.notices)
    if found.memory_budget is not None:
        memory = (Limit(value=found.memory_budget.limit, source=memory_level),)
        free = (Limit(value=found.memory_budget.available, source=f"room left in {memory_level}"),)
    elif usage_unreadable and found.raw_memory_limit is not None:
        memory = (Limit(value=found.raw_memory_limit, source=memory_level),)
    notices = tuple(notice.message for notice in found.notices if notice.code in _TELLING_NOTICES)
    return _Limits(cores=cores, memory=memory, free=free, notices=notices)


def _level(level: str | None, *sources: proclimits.Source | None) -> str:
    """Name a group with the version of its hierarchy: cgroup-v2 /sys/fs/cgroup/job."""
    versions = [source.interface.value for source in sources if source is not None and level in source.levels]
    return f"{versions[0] if versions else 'cgroup'} {level}"


def _slurm_limits(environ: Mapping[str, str], *, cores: int) -> _Limits:
    """Slurm's allocation on this node; `cores` stands in where memory is given per CPU and no CPUs are named."""
    numbers = _slurm_numbers(environ)
    cpus = [
        Limit(value=numbers[name], source=name)
        for name in ("SLURM_CPUS_PER_TASK", "SLURM_CPUS_ON_NODE")
        if name in numbers
    ]
    memory = []
    # A job that may use all of a node's memory has SLURM_MEM_PER_NODE=0.
    if per_node := numbers.get("SLURM_MEM_PER_NODE"):
        memory.append(Limit(value=per_node * _MEBIBYTE, source="SLURM_MEM_PER_NODE"))
    if per_cpu := numbers.get("SLURM_MEM_PER_CPU"):
        count = numbers.get("SLURM_CPUS_ON_NODE") or numbers.get("SLURM_CPUS_PER_TASK") or cores
        source = f"SLURM_MEM_PER_CPU x {count} CPUs"
        memory.append(Limit(value=per_cpu * count * _MEBIBYTE, source=source))
    return _Limits(cores=tuple(cpus), memory=tuple(memory))


def _slurm_numbers(environ: Mapping[str, str]) -> dict[str, int]:
    """Read the variables that are set and not empty; memory is in MiB, as Slurm counts megabytes."""
    smallest = {"SLURM_CPUS_PER_TASK": 1, "SLURM_CPUS_ON_NODE": 1, "SLURM_MEM_PER_NODE": 0, "SLURM_MEM_PER_CPU": 0}
    numbers: dict[str, int] = {}
    problems: dict[str, str] = {}
    for name, least in smallest.items():
        if not (text := environ.get(name, "")):
            continue
        if _WHOLE_NUMBER.fullmatch(text) is None or int(text) < least:
            unit = "a number of megabytes" if "MEM" in name else "a number of CPUs from 1"
            problems[name] = f"{name}={text!r} is not {unit}"
        else:
            numbers[name] = int(text)
    if problems:
        raise InputError(
            f"the environment does not say what Slurm granted: {', '.join(problems)} cannot be read",
            detail=tuple(problems.values()),
            hint=f"unset {' '.join(problems)}",
        )
    return numbers


def _address_space_limit() -> Limit | None:
    """RLIMIT_AS bounds each process by itself, never their sum."""
    soft, _ = resource.getrlimit(resource.RLIMIT_AS)
    if soft == resource.RLIM_INFINITY:
        return None
    return Limit(value=soft, source="RLIMIT_AS of each process")


@dataclass(frozen=True, slots=True, kw_only=True)
class MemoryMeter:
    """Measures what a run has taken of the memory that was free when it began.

    A container's processes are children of a daemon or of init, and in no cgroup of ours, so counting processes misses
    them. What is measured is by how much MemAvailable and the room in our cgroup have shrunk, whichever more, and never
    less than what our processes hold. So it counts what anyone else takes meanwhile as well: that is gone too.
    """

    before: Mapping[str, int]
    proc: Path

    @classmethod
    def start(cls, proc: Path = _PROC) -> "MemoryMeter":
        """Remember what is free now."""
        return cls(before=_free_memory(proc), proc=proc)

    def __call__(self) -> int:
        """Bytes taken since the start."""
        now = _free_memory(self.proc)
        shrunk = (free - now.get(source, free) for source, free in self.before.items())
        return max(memory_in_use(self.proc), *shrunk)


def _free_memory(proc: Path) -> Mapping[str, int]:
    limits = (*_whole_machine(proc).free, *_cgroup_limits().free)
    return {limit.source: limit.value for limit in limits}


def memory_in_use(proc: Path = _PROC) -> int:
    """Sum the resident bytes of the processes we started and of those they started; shared pages count in each."""
    parents: dict[int, int] = {}
    resident: dict[int, int] = {}
    # A list and not an iterator: an interrupt between two steps would leave an open folder behind.
    for folder in [proc / name for name in os.listdir(proc) if name.isdigit()]:  # noqa: PTH208
        try:
            after_name = (folder / "stat").read_text(encoding="utf-8", errors="replace").rpartition(")")[2].split()
        except (FileNotFoundError, ProcessLookupError):  # it ended while we looked
            continue
        parents[int(folder.name)] = int(after_name[1])
        resident[int(folder.name)] = int(after_name[21]) * os.sysconf("SC_PAGE_SIZE")
    return sum(size for pid, size in resident.items() if _descends(pid, os.getpid(), parents))


def _descends(pid: int, ancestor: int, parents: Mapping[int, int]) -> bool:
    while pid in parents:
        pid = parents[pid]
        if pid == ancestor:
            return True
    return False
