"""Limits of real, nested cgroups, as a process inside them reads them."""

import contextlib
import json
import os
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

pytestmark = pytest.mark.integration

GIBIBYTE = 2**30
GROUPS = Path("/sys/fs/cgroup")
READ = """
import json, os, sys
from dataclasses import asdict
from pathlib import Path
for group in sys.argv[1:]:
    Path(group, "cgroup.procs").write_text(str(os.getpid()))
from hopperforge.run.machine import read_machine
print(json.dumps(asdict(read_machine({}))))
"""


def own_groups() -> dict[str, str]:
    """The path of this process's group by controller; the unified hierarchy is the empty name."""
    lines = Path("/proc/self/cgroup").read_text().splitlines()
    return {name: path for line in lines for names, path in [line.split(":", 2)[1:]] for name in names.split(",")}


def outer_groups(name: str) -> dict[str, Path]:
    """New groups for memory and cpu, not made yet; one and the same under cgroup v2."""
    if (GROUPS / "cgroup.controllers").exists():
        return dict.fromkeys(("memory", "cpu"), GROUPS / name)
    own = own_groups()
    return {controller: GROUPS / controller / own[controller].lstrip("/") / name for controller in ("memory", "cpu")}


@contextlib.contextmanager
def made(folder: Path) -> Iterator[Path]:
    """A group, removed when the kernel lets go of it."""
    folder.mkdir()
    try:
        yield folder
    finally:
        for _ in range(50):
            with contextlib.suppress(OSError):
                folder.rmdir()
                break
            time.sleep(0.1)


def limit_group(group: Path, controller: str) -> None:
    """3 GiB of memory, half a core."""
    v2 = (group / "cgroup.controllers").exists()
    files = {
        ("memory", False): {"memory.limit_in_bytes": str(3 * GIBIBYTE)},
        ("memory", True): {"memory.max": str(3 * GIBIBYTE)},
        ("cpu", False): {"cpu.cfs_period_us": "100000", "cpu.cfs_quota_us": "50000"},
        ("cpu", True): {"cpu.max": "50000 100000"},
    }
    for name, text in files[controller, v2].items():
        (group / name).write_text(text)


def test_limits_of_an_outer_group_hold_in_an_inner_one() -> None:
    with contextlib.ExitStack() as stack:
        outer = outer_groups(f"hopperforge-test-{os.getpid()}")
        for folder in dict.fromkeys(outer.values()):
            stack.enter_context(made(folder))
        for controller, folder in outer.items():
            limit_group(folder, controller)
        inner = [stack.enter_context(made(folder / "inner")) for folder in dict.fromkeys(outer.values())]
        done = subprocess.run(
            [sys.executable, "-c", READ, *map(str, inner)], check=True, capture_output=True, text=True, timeout=50
        )

    found = json.loads(done.stdout)

    assert [limit["value"] for limit in found["memory"][1:]] == [3 * GIBIBYTE]
    assert found["memory"][1]["source"].endswith(f" {outer['memory']}")
    assert 0 < found["free"][1]["value"] < 3 * GIBIBYTE
    assert [limit["value"] for limit in found["cores"][2:]] == [1]
    assert found["cores"][2]["source"].endswith(f" {outer['cpu']} (0.5 cores)")
    assert found["notices"] == []
