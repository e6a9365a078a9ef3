"""The machine as it presents itself to one process, and the compile settings made of it."""

from dataclasses import dataclass


@dataclass(frozen=True, slots=True, kw_only=True)
class Limit:
    """A number and where it was read: 12 from "cgroup v2 /sys/fs/cgroup/job/cpu.max"."""

    value: int
    source: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Machine:
    """What the process may use: every limit found, cores and bytes, the whole machine always among them.

    `free` is what is not in use now, in bytes, of the machine and of the groups the process is in;
    `process_memory` bounds the address space of each process by itself; `notices` say what could not be read.
    """

    cores: tuple[Limit, ...]
    memory: tuple[Limit, ...]
    architecture: str
    free: tuple[Limit, ...] = ()
    process_memory: Limit | None = None
    notices: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True, kw_only=True)
class Need:
    """Bytes to set aside for a unit: at its peak, and `later` when that is over; equal where it may come any time."""

    peak: int
    later: int


@dataclass(frozen=True, slots=True, kw_only=True)
class Sizing:
    """The settings of a compile and one line of reasoning for each; `memory` is the budget in bytes."""

    max_jobs: int
    nvcc_threads: int
    memory: int
    reasons: tuple[str, ...]
