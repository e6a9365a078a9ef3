"""The machine as it presents itself to one process, and the compile settings made of it."""

from dataclasses import dataclass


@dataclass(frozen=True, slots=True, kw_only=True)
class Limit:
    """A number and where it was read: 12 from "cgroup v2 /sys/fs/cgroup/job/cpu.max"."""

    value: int
    source: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Machine:
    """What the process may use: every limit found, cores and bytes, the whole machine always among them."""

    cores: tuple[Limit, ...]
    memory: tuple[Limit, ...]
    architecture: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Sizing:
    """The settings of a compile and one line of reasoning for each; `memory` is the budget in bytes."""

    max_jobs: int
    nvcc_threads: int
    memory: int
    reasons: tuple[str, ...]
