"""Units on real Dask clusters on the loopback: the same packs as here, and what happens when parts of one die."""

import importlib
import os
import re
import shutil
import signal
import site
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
from distributed import Client
from tests.integration.cluster import GB, PROJECT, Farm, Shop, farm, free_port, make_shop, units, until

from hopperforge.errors import CompileError, HopperforgeError, ToolError
from hopperforge.executors.dask_cluster import Worker, ask, connected, is_there, present
from hopperforge.model.pack import KernelPack
from hopperforge.model.request import Cluster

pytestmark = [pytest.mark.integration, pytest.mark.timeout(120)]


@pytest.fixture
def shop(tmp_path: Path) -> Shop:
    return make_shop(tmp_path / "shop")


@pytest.fixture(scope="module")
def two(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Farm]:
    """Two workers for tests that leave them alive; each has 20 GB and four threads."""
    with farm(tmp_path_factory.mktemp("two"), "one", "two") as made:
        yield made


def test_the_same_pack_from_here_and_from_one_two_and_three_workers(shop: Shop, tmp_path: Path) -> None:
    here = shop.compile(units("abcdef"), None)
    packs = []
    with farm(tmp_path / "farm") as made:
        for name in ("one", "two", "three"):
            made.worker(name)
            shop.forget()
            packs.append(shop.compile(units("abcdef"), made.cluster))
    assert [(pack.key, pack.sha256, pack.compiled) for pack in packs] == 3 * [(here.key, here.sha256, 6)]
    assert shop.reporter.warnings == []
    assert shop.reporter.moments[-1].done == 6
    assert all(unit.cost is not None and unit.cost.peak_rss > 100_000 for unit in packs[0].units)
    links = [note for note in shop.reporter.notes if "dashboard http://" in note]
    assert len(links) == 3


def test_a_worker_that_sees_nothing_of_ours_is_sent_it_once(
    shop: Shop, two: Farm, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The planned paths begin with /proc/self/cwd, which is another folder for the workers."""
    monkeypatch.chdir(shop.root)
    away = Shop(root=Path("/proc/self/cwd"), elsewhere=shop.control)
    pack = away.compile(units("abcd"), two.cluster)
    sent = [note for note in away.reporter.notes if note.startswith("sending")]
    assert len([note for note in sent if "source" in note]) in (1, 2)  # two if both workers were ready in time
    away.forget()
    assert away.compile(units("abcd"), two.cluster).sha256 == pack.sha256
    again = [note for note in away.reporter.notes if note.startswith("sending")]
    assert len(again) == len(set(again)) <= 4
    places = [two.home(name) / "worker" / "toolkits" / away.toolkit.key for name in ("one", "two")]
    assert any((place / "bin" / "nvcc").is_file() for place in places)
    shop.forget()
    assert shop.compile(units("abcd"), None).sha256 == pack.sha256


def test_a_worker_holds_no_more_than_its_memory_whoever_asks(tmp_path: Path) -> None:
    shop, other = make_shop(tmp_path / "shop", nap=0.2), make_shop(tmp_path / "other", nap=0.2)
    for one in (shop, other):
        one.expect(units("abcdef"), 4 * GB)
    (other.root / "source" / "csrc" / "header.h").write_text("another\n", encoding="utf-8")
    shutil.rmtree(other.control)
    other.control.symlink_to(shop.control)
    with farm(tmp_path / "farm") as made:
        made.worker("one", memory=10e9, threads=8)
        packs: list[KernelPack] = []
        thread = threading.Thread(target=lambda: packs.append(other.compile(units("abcdef"), made.cluster)))
        thread.start()
        packs.append(shop.compile(units("abcdef"), made.cluster))
        thread.join()
        assert [pack.compiled for pack in packs] == [6, 6]
        assert len(shop.calls()) == 24
        assert shop.most_at_once() == 2
        shop.expect(units("a"), 12 * GB)
        shop.forget()
        with pytest.raises(ToolError, match=r"a needs 12\.0 GB, and no worker has as much") as caught:
            shop.compile(units("ab"), made.cluster)
    assert any(re.fullmatch(r"worker one at tcp://\S+: 10\.0 GB", line) for line in caught.value.detail)
    assert '--resources "MEM=' in (caught.value.hint or "")


def test_a_killed_worker_costs_one_unit_which_is_done_elsewhere(shop: Shop, tmp_path: Path) -> None:
    here = shop.compile(units("abc"), None)
    shop.forget()
    shop.behave("hang", "a")
    (key,) = (shop.key(unit) for unit in units("a"))
    with farm(tmp_path / "farm") as made:
        workers = {name: made.worker(name, threads=1) for name in ("one", "two")}

        def kill() -> None:
            until(shop.control / "hangs-a")
            shop.behave("hang")
            (busy,) = [name for name in workers if key in made.left_over(name)]
            workers[busy].kill()

        thread = threading.Thread(target=kill)
        thread.start()
        pack = shop.compile(units("abc"), made.cluster)
        thread.join()
        shop.end_orphans()
    assert (pack.sha256, pack.compiled) == (here.sha256, 3)
    (warning,) = shop.reporter.warnings
    assert "was lost while it compiled a, which is done elsewhere" in warning


def test_a_worker_that_joins_late_gets_units(shop: Shop, tmp_path: Path) -> None:
    """The first worker is stuck in its only thread, so all else is done by the one that came after the start."""
    here = shop.compile(units("abcdef"), None)
    shop.forget()
    before = len(shop.calls())
    shop.behave("hang", "a")
    with farm(tmp_path / "farm") as made:
        early = made.worker("early", threads=1)

        def join() -> None:
            until(shop.control / "hangs-a")
            made.worker("late", threads=2)
            until_stored(shop, 5)
            shop.behave("hang")
            early.kill()

        thread = threading.Thread(target=join)
        thread.start()
        pack = shop.compile(units("abcdef"), made.cluster)
        thread.join()
        shop.end_orphans()
    assert (pack.sha256, pack.compiled) == (here.sha256, 6)
    assert sorted(call for call in shop.calls()[before:] if call.startswith("end")) == [
        f"end {name}" for name in "abcdef"
    ]
    (warning,) = shop.reporter.warnings
    assert "worker early at" in warning
    assert "was lost while it compiled a, which is done elsewhere" in warning


# Loaded before the C library, it makes a process's clock wrong by SKEW seconds; what counts from the start is right.
SKEWED = """
#define _GNU_SOURCE
#include <dlfcn.h>
#include <stdlib.h>
#include <sys/time.h>
#include <time.h>
static long skew(void) { const char* text = getenv("SKEW"); return text ? atol(text) : 0; }
int clock_gettime(clockid_t id, struct timespec* now) {
  int (*real)(clockid_t, struct timespec*) = dlsym(RTLD_NEXT, "clock_gettime");
  int status = real(id, now);
  if (id == CLOCK_REALTIME || id == CLOCK_REALTIME_COARSE) now->tv_sec += skew();
  return status;
}
time_t time(time_t* out) {
  struct timespec now;
  clock_gettime(CLOCK_REALTIME, &now);
  if (out) *out = now.tv_sec;
  return now.tv_sec;
}
int gettimeofday(struct timeval* now, void* zone) {
  struct timespec exact;
  clock_gettime(CLOCK_REALTIME, &exact);
  now->tv_sec = exact.tv_sec;
  now->tv_usec = exact.tv_nsec / 1000;
  return 0;
}
"""


def test_workers_whose_clocks_are_a_day_off_make_the_same_pack(shop: Shop, tmp_path: Path) -> None:
    (tmp_path / "skew.c").write_text(SKEWED, encoding="utf-8")
    library = str(tmp_path / "skew.so")
    subprocess.run(["gcc", "-shared", "-fPIC", "-o", library, tmp_path / "skew.c", "-ldl"], check=True)
    skews = {name: {"LD_PRELOAD": library, "SKEW": skew} for name, skew in (("ahead", "86400"), ("behind", "-86400"))}
    for environ in skews.values():
        ask_time = [sys.executable, "-c", "import time; print(time.time())"]
        said = subprocess.run(ask_time, env={**os.environ, **environ}, check=True, capture_output=True, text=True)
        assert abs(float(said.stdout) - time.time() - float(environ["SKEW"])) < 600
    here = shop.compile(units("abcdef"), None)
    shop.forget()
    with farm(tmp_path / "farm") as made:
        for name, environ in skews.items():
            made.worker(name, threads=1, environ=environ)
        pack = shop.compile(units("abcdef"), made.cluster)
        shop.forget()
        again = shop.compile(units("abcdef"), made.cluster)  # with what the workers kept of the first time
    assert [(one.sha256, one.compiled) for one in (pack, again)] == 2 * [(here.sha256, 6)]
    assert shop.reporter.warnings == []


def test_a_killed_scheduler_costs_what_ran_and_a_rerun_goes_on(shop: Shop, tmp_path: Path) -> None:
    shop.behave("hang", "b")
    made = Farm(tmp_path)
    try:
        scheduler = made.scheduler()
        made.worker("one", threads=1)

        def kill() -> None:
            until(shop.control / "hangs-b")
            scheduler.kill()

        thread = threading.Thread(target=kill)
        thread.start()
        with pytest.raises(ToolError, match="the Dask scheduler went away while units were compiled") as caught:
            shop.compile(units("abc"), made.cluster)
        thread.join()
        assert caught.value.detail[-1] == "kept: 1 of 3 units are in the cache; the next run goes on there"
        until_nothing_is_left(made, "one")
        shop.behave("hang")
        made.scheduler()
        made.worker("one", threads=1)
        assert shop.compile(units("abc"), made.cluster).compiled == 2
    finally:
        made.end()
    assert shop.calls().count("start a") == 1


def until_nothing_is_left(made: Farm, name: str) -> None:
    deadline = time.monotonic() + 15
    while made.left_over(name):
        assert time.monotonic() < deadline
        time.sleep(0.05)


@pytest.fixture
def interruptible() -> Iterator[None]:
    """Let SIGINT raise KeyboardInterrupt: a shell that starts us in the background has it ignored."""
    before = signal.signal(signal.SIGINT, signal.default_int_handler)
    yield
    signal.signal(signal.SIGINT, before)


@pytest.mark.usefixtures("interruptible")
@pytest.mark.parametrize("own", [True, False], ids=["own cluster", "given cluster"])
def test_an_interrupt_leaves_nothing_half_made_on_workers(shop: Shop, two: Farm, own: bool) -> None:
    cluster = Cluster(scheduler=None) if own else two.cluster
    shop.behave("hang", "b")

    def interrupt() -> None:
        until(shop.control / "hangs-b")
        until_stored(shop, 1)
        signal.pthread_kill(threading.main_thread().ident or 0, signal.SIGINT)

    thread = threading.Thread(target=interrupt)
    thread.start()
    with pytest.raises(KeyboardInterrupt):
        shop.compile(units("ab"), cluster)
    thread.join()
    works = [shop.workspace.cache / "worker" / "work", *(two.home(name) / "worker" / "work" for name in ("one", "two"))]
    assert [path for work in works for path in work.glob("*") if path.suffix != ".lock"] == []
    shop.behave("hang")
    assert shop.compile(units("ab"), None if own else cluster).compiled == 1
    assert shop.calls().count("start a") == 1


def until_stored(shop: Shop, count: int) -> None:
    deadline = time.monotonic() + 30
    while not shop.reporter.moments or shop.reporter.moments[-1].done < count:
        assert time.monotonic() < deadline
        time.sleep(0.02)


def test_who_is_there_is_asked_anew_whatever_other_threads_ask(two: Farm) -> None:
    """Dask keeps one answer of its scheduler for all threads, with or without workers in it."""
    over = threading.Event()
    with connected(two.address) as client:
        workers = wait_for_workers(client, 2)

        def ask_for_less() -> None:
            while not over.is_set():
                client.scheduler_info(n_workers=0)

        thread = threading.Thread(target=ask_for_less)
        thread.start()
        answers = [is_there(client, worker) for _ in range(50) for worker in workers]
        over.set()
        thread.join()
    assert answers == 100 * [True]


def wait_for_workers(client: Client, count: int) -> set[Worker]:
    client.wait_for_workers(count, timeout=30)
    return present(client)


def test_a_worker_with_other_code_of_the_same_version_says_so(
    two: Farm, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "only_here.py").write_text("def answer():\n    return 42\n", encoding="utf-8")
    monkeypatch.syspath_prepend(str(tmp_path))
    with connected(two.address) as client:
        worker = min(wait_for_workers(client, 2), key=str)
        with pytest.raises(ToolError, match=r"its hopperforge is not this one, .*No module named 'only_here'"):
            ask(client, worker, importlib.import_module("only_here").answer)


def test_a_unit_killed_beside_others_is_compiled_alone(shop: Shop, two: Farm) -> None:
    shop.behave("killonce", "a")
    assert shop.compile(units("ab"), two.cluster).compiled == 2
    (warning,) = shop.reporter.warnings
    assert "a was killed while compiling (status 137)" in warning
    assert "it is tried once more, alone" in warning


def test_a_unit_that_fails_says_on_which_machine(shop: Shop, two: Farm) -> None:
    shop.behave("fail", "b")
    with pytest.raises(CompileError, match=r"nvcc ended with status 2 on hopper/b\.cu") as caught:
        shop.compile(units("b"), two.cluster)
    assert caught.value.detail[0] == "error: no good"
    assert any(line.startswith("on the worker machine ") for line in caught.value.detail)
    assert re.match(r"ssh \S+ less /", caught.value.hint or "")


def test_workers_that_differ_are_refused_each_with_its_difference(shop: Shop, tmp_path: Path) -> None:
    wrapper = tmp_path / "other" / "g++"
    wrapper.parent.mkdir()
    wrapper.write_text('#!/bin/sh\nexec /usr/bin/g++ "$@"\n', encoding="utf-8")
    wrapper.chmod(0o755)
    late = tmp_path / "late" / "hopperforge-9.9.dist-info"
    late.mkdir(parents=True)
    (late / "METADATA").write_text("Metadata-Version: 2.1\nName: hopperforge\nVersion: 9.9\n", encoding="utf-8")
    with farm(tmp_path / "farm") as made:
        made.worker("compiler", environ={"CXX": str(wrapper)})
        made.worker("version", environ={"PYTHONPATH": str(late.parent)})
        made.worker("memory", memory=None)
        made.worker(
            "bare",
            environ={"PYTHONPATH": str(without("hopperforge", tmp_path))},
            python=str(Path(sys.base_prefix) / "bin" / "python3"),
        )
        refusals = refused(shop, made)
        assert refusals.keys() == {"compiler", "version", "memory", "bare"}
        assert f"its host compiler {wrapper} (g++ " in refusals["compiler"]
        assert refusals["compiler"].endswith("other driver")
        assert refusals["version"].startswith("it has hopperforge 9.9 where this machine has ")
        assert refusals["memory"] == 'it declares no memory; start it with --resources "MEM=64e9", in bytes'
        assert refusals["bare"].startswith("it has hopperforge missing where this machine has ")
        made.worker("fit")
        assert shop.compile(units("a"), made.cluster).compiled == 1


def refused(shop: Shop, made: Farm) -> dict[str, str]:
    """Compile where no worker fits; gives the reasons by name."""
    with pytest.raises(ToolError, match=r"none of the \d workers of tcp://\S+ can compile this") as caught:
        shop.compile(units("a"), made.cluster)
    lines = [re.fullmatch(r"worker (\w+) at tcp://\S+: (.+)", line) for line in caught.value.detail]
    return {match[1]: match[2] for match in lines if match}


def without(left_out: str, folder: Path) -> Path:
    """Make a folder with every package of this Python but one."""
    bare = folder / "bare"
    bare.mkdir()
    for packages in filter(Path.is_dir, map(Path, site.getsitepackages())):  # Debian's Python names some that are not
        for path in packages.iterdir():
            if left_out not in path.name and not (bare / path.name).exists():
                (bare / path.name).symlink_to(path)
    return bare


def test_a_build_that_is_killed_leaves_nothing_half_made_on_workers(shop: Shop, two: Farm) -> None:
    shop.behave("hang", "a")
    words = ["build", "executor=dask", f"scheduler={two.address}", str(shop.root)]
    client = subprocess.Popen([sys.executable, "-m", "tests.integration.build_cheaply", *words], cwd=PROJECT)
    until(shop.control / "hangs-a")
    client.kill()
    client.wait()
    for name in ("one", "two"):
        until_nothing_is_left(two, name)


def test_what_to_install_is_said_where_dask_is_missing(shop: Shop, tmp_path: Path) -> None:
    words = ["build", "executor=dask", "scheduler=tcp://127.0.0.1:1", str(shop.root)]
    done = subprocess.run(
        [Path(sys.base_prefix) / "bin" / "python3", "-m", "tests.integration.build_cheaply", *words],
        cwd=PROJECT,
        env={**os.environ, "PYTHONPATH": f"{PROJECT / 'src'}:{without('distributed', tmp_path)}"},
        capture_output=True,
        text=True,
        check=False,
    )
    assert "executor=dask needs dask.distributed, which is not installed\nhint: pip install 'hopperforge[dask]'" in (
        done.stderr
    )


def test_no_scheduler_is_said_at_once(shop: Shop) -> None:
    address = f"tcp://127.0.0.1:{free_port()}"
    with pytest.raises(HopperforgeError, match=f"no Dask scheduler answers at {address}") as caught:
        shop.compile(units("a"), Cluster(scheduler=address))
    assert caught.value.exit_code == 5
