"""Fuzzes the readers of outside data, with atheris.

    python -m tests.fuzz record 600 /tmp/corpus              # one target for ten minutes
    python -m tests.fuzz all 600 /tmp/corpus jobs=48 each=2  # every target in two processes, 48 at a time

What is found is written to tests/data/fuzz/<target>/, where tests/unit/test_fuzz_cases.py replays it from then on; the
word found= names another folder. With `all` the logs lie beside the corpus, a table is printed, and the exit code is 1
if anything was found. Processes of one target share its corpus and read what the others add.
"""

import os
import re
import subprocess
import sys
from collections.abc import Iterable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path

_LARGEST = 20_000
_PROJECT = Path(__file__).parents[2]
_FOUND = _PROJECT / "tests" / "data" / "fuzz"
_HOW = "python -m tests.fuzz TARGET|all SECONDS CORPUS [found=FOLDER] [jobs=48] [each=2]"
_ROW = "{:<22}{:>10}{:>12}{:>10}{:>10}{:>8}"
_ENDS = 120
"""Seconds a process may take beyond its time, to begin and to end."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Run:
    """One process on one target, when it has ended; `found` are the files that make the target fail."""

    target: str
    status: int
    executions: int
    edges: int
    found: tuple[Path, ...]


def fuzz(name: str, seconds: str, corpus: Path, found: Path) -> None:
    """Run libFuzzer on a target in this process; it does not return."""
    import atheris  # noqa: PLC0415 - before everything it instruments, and not at all in the process that starts others

    with atheris.instrument_imports(include=["hopperforge"]):
        from tests.fuzz.targets import TARGETS, seeds, try_out  # noqa: PLC0415

    if name not in TARGETS:
        raise SystemExit(f"{_HOW}; the targets are {', '.join(TARGETS)}")
    corpus.mkdir(parents=True, exist_ok=True)
    for index, seed in enumerate(seeds(name)):
        (corpus / f"seed-{index}").write_bytes(seed)
        try_out(name, seed)  # what a target loads once is no part of the time one input may take
    found.mkdir(parents=True, exist_ok=True)
    flags = [f"-max_total_time={seconds}", f"-artifact_prefix={found}/", f"-max_len={_LARGEST}", "-timeout=20"]
    flags += ["-rss_limit_mb=2000", "-print_final_stats=1", "-reload=1", str(corpus)]
    atheris.Setup([sys.argv[0], *flags], lambda data: try_out(name, data))
    atheris.Fuzz()


def fuzz_all(seconds: str, corpus: Path, found: Path, *, jobs: int, each: int) -> int:
    """Run every target in `each` processes, `jobs` at a time, and print a table; gives the exit code."""
    from tests.fuzz.targets import TARGETS  # noqa: PLC0415

    for name in TARGETS:  # so that an empty folder says that nothing was found
        (found / name).mkdir(parents=True, exist_ok=True)
    tasks = [(name, number) for number in range(each) for name in TARGETS]
    with ThreadPoolExecutor(max_workers=jobs) as pool:
        runs = list(pool.map(lambda task: _one(*task, seconds=seconds, corpus=corpus, found=found), tasks))
    print(_ROW.format("target", "processes", "executions", "edges", "corpus", "found"))  # noqa: T201
    for name in TARGETS:
        print(_row(name, [run for run in runs if run.target == name], corpus))  # noqa: T201
    bad = [f"{run.target}: status {run.status}, {', '.join(map(str, run.found))}" for run in runs if run.status]
    print("\n".join([*bad, f"{len(TARGETS)} targets, {each} x {seconds} s each, {len(bad)} processes found something"]))  # noqa: T201
    for folder in found.iterdir():
        if not any(folder.iterdir()):
            folder.rmdir()
    return 1 if bad else 0


def _one(name: str, number: int, *, seconds: str, corpus: Path, found: Path) -> Run:
    """Run one process to its end; its output is a log beside the corpus."""
    log = corpus / "logs" / f"{name}-{number}.log"
    log.parent.mkdir(parents=True, exist_ok=True)
    words = [sys.executable, "-m", "tests.fuzz", name, seconds, str(corpus), f"found={found}"]
    before = set(_files(found / name))
    with log.open("w", encoding="utf-8") as stream:
        try:
            status = subprocess.run(
                words, cwd=_PROJECT, stdout=stream, stderr=stream, timeout=int(seconds) + _ENDS, check=False
            ).returncode
        except subprocess.TimeoutExpired:
            status = -9
    text = log.read_text(encoding="utf-8", errors="replace")
    made = tuple(sorted(set(_files(found / name)) - before)) if status else ()
    return Run(
        target=name,
        status=status,
        executions=_last(r"stat::number_of_executed_units: +(\d+)", text),
        edges=_last(r"\bcov: (\d+)", text),
        found=made,
    )


def _files(folder: Path) -> list[Path]:
    return [path for path in folder.iterdir() if path.is_file()] if folder.is_dir() else []


def _last(pattern: str, text: str) -> int:
    """Give the last number of a log that stands as `pattern` says; 0 where it never does."""
    return int(([0, *re.findall(pattern, text)])[-1])


def _row(name: str, runs: Sequence[Run], corpus: Path) -> str:
    executions, found = sum(run.executions for run in runs), sum(run.status != 0 for run in runs)
    edges, size = max((run.edges for run in runs), default=0), len(_files(corpus / name))
    return _ROW.format(name, len(runs), executions, edges, size, found)


def main(words: Sequence[str]) -> int:
    """Read the words and fuzz."""
    plain, keyed = [word for word in words if "=" not in word], _keyed(word for word in words if "=" in word)
    if len(plain) != 3 or not plain[1].isdigit():
        raise SystemExit(_HOW)
    name, seconds, corpus = plain[0], plain[1], Path(plain[2]).absolute()
    found = Path(keyed.get("found", _FOUND)).absolute()
    if name == "all":
        jobs = int(keyed.get("jobs", os.cpu_count() or 1))
        return fuzz_all(seconds, corpus, found, jobs=jobs, each=int(keyed.get("each", 1)))
    fuzz(name, seconds, corpus / name, found / name)
    return 0


def _keyed(words: Iterable[str]) -> Mapping[str, str]:
    keyed = dict(word.split("=", 1) for word in words)
    if keyed.keys() - {"found", "jobs", "each"}:
        raise SystemExit(_HOW)
    return keyed


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
