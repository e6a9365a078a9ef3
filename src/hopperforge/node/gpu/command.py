"""The command line of the node: VERB words [--json]."""

from __future__ import annotations

import importlib
import json
import platform
import sys
from collections.abc import Mapping, Sequence
from dataclasses import asdict
from datetime import datetime, timezone
from pathlib import Path
from typing import Any, Callable

from hopperforge.node.gpu.backends import FOREIGN, NothingMeasuredError, first_line
from hopperforge.node.gpu.bench import Bench, Row, run_bench
from hopperforge.node.gpu.chain import GPU, exit_code, page
from hopperforge.node.gpu.chart import chart
from hopperforge.node.gpu.clocks import Meter
from hopperforge.node.gpu.memory import run_memory
from hopperforge.node.gpu.results import (
    Machine,
    bench_csv,
    bench_json,
    bench_lines,
    memory_json,
    memory_lines,
    panel_lines,
)
from hopperforge.node.gpu.verify import verify
from hopperforge.node.gpu.words import WordsError, parse_bench, parse_memory, parse_verify
from hopperforge.node.looking import ask_cuda, ask_smi, isolated, join_driver
from hopperforge.node.versions import dotted

WRONG_WORDS, UNWRITABLE = 2, 11
_ON_A_NODE = "run it on a node with a GPU, with the Python that has torch: interpreter=/path/to/python3"
Verb = Callable[[Sequence[str], bool, datetime], int]


def main(argv: Sequence[str]) -> int:
    """Run one verb; returns the exit code."""
    now = datetime.now(timezone.utc)
    try:
        return _verb(argv)([word for word in argv[1:] if word != "--json"], "--json" in argv, now)
    except WordsError as error:
        lines = [f"error: {error.sentence}", *(f"  {line}" for line in error.detail), f"hint: {error.hint}"]
        print("\n".join(lines), file=sys.stderr)
        return WRONG_WORDS
    except NothingMeasuredError as error:
        print(f"error: {error}; nothing was measured\nhint: {error.hint}", file=sys.stderr)
        return GPU
    except OSError as error:
        print(f"error: {error.filename} cannot be written: {error.strerror}\nhint: out=FOLDER", file=sys.stderr)
        return UNWRITABLE


def _verb(argv: Sequence[str]) -> Verb:
    found = VERBS.get(argv[0] if argv else "")
    if found is None:
        raise WordsError([f"which verb? there are {', '.join(VERBS)}"], "bench seqlen=1024,4096 out=bench")
    return found


def _bench(words: Sequence[str], as_json: bool, now: datetime) -> int:
    asked = parse_bench(words)
    folder = _folder(asked.out)
    torch = working_torch()
    machine = machine_of(torch, now)
    tell = _silent if as_json else print

    def on_rows(rows: Sequence[Row]) -> None:
        if rows:
            tell("\n".join(panel_lines(rows)), flush=True)

    tell(machine)
    found = run_bench(torch, asked, Meter(), on_rows)
    tell("\n".join(bench_lines(found)))
    values = bench_json(machine, found)
    if folder is not None:
        files = {"bench.json": _text(values), "bench.csv": bench_csv(found), "bench.svg": bench_chart(machine, found)}
        _write(folder, files)
        tell(f"written: {', '.join(str(folder / name) for name in files)}")
    if as_json:
        print(_text(values), end="")
    return 0 if found.sound else GPU


def bench_chart(machine: Machine, found: Bench) -> str:
    """Draw what was measured, in the name of the machine."""
    directions = dict.fromkeys(row.shape.direction for row in found.rows)
    shape = found.rows[0].shape
    title = f"Attention on {machine.gpu}: {' and '.join(directions)}, {shape.heads} heads"
    subtitle = (
        f"driver {machine.driver}, torch {machine.torch}, {machine.created[:10]}. "
        "Median TFLOP/s, bars: quartiles, L2 cache emptied"
    )
    return chart(title, subtitle, found.rows, found.peak)


def _memory(words: Sequence[str], as_json: bool, now: datetime) -> int:
    asked = parse_memory(words)
    folder = _folder(asked.out)
    torch = working_torch()
    machine = machine_of(torch, now)
    found = run_memory(torch, asked)
    values = memory_json(machine, found)
    if folder is not None:
        _write(folder, {"memory.json": _text(values)})
    print(_text(values) if as_json else "\n".join([str(machine), *memory_lines(found)]))
    return 0


def _verify(words: Sequence[str], as_json: bool, now: datetime) -> int:
    asked = parse_verify(words)
    links = verify(asked, sys.path, now)
    code = exit_code(links)
    if as_json:
        values = {"verify_install": 1, "exit_code": code, "links": [asdict(link) for link in links]}
        print(_text(values), end="")
    else:
        print(page(f"verify-install {asked.subject}, {now.isoformat(timespec='seconds')}", links))
    return code


VERBS: Mapping[str, Verb] = {
    "bench": _bench,
    "memory": _memory,
    "verify-install": _verify,
}


def working_torch() -> Any:
    """Import torch; NothingMeasuredError says why it can run nothing here."""
    try:
        torch = importlib.import_module("torch")
    except FOREIGN as error:
        why = f"torch cannot be imported by {sys.executable}: {first_line(error)}"
        raise NothingMeasuredError(why, _ON_A_NODE) from error
    if torch.version.cuda is None:
        raise NothingMeasuredError(f"torch {torch.__version__} is built without CUDA", _ON_A_NODE)
    if not torch.cuda.is_available():
        raise NothingMeasuredError(f"torch {torch.__version__} finds no GPU", _ON_A_NODE)
    return torch


def machine_of(torch: Any, now: datetime) -> Machine:
    """Say what is measured on; the driver as the doctor finds it."""
    driver = join_driver(ask_smi(), isolated(ask_cuda, 60))
    serves = "unknown" if driver is None or driver.cuda is None else f"of CUDA {dotted(driver.cuda)}"
    return Machine(
        gpu=torch.cuda.get_device_name(),
        driver=serves if driver is None or driver.version is None else driver.version,
        cuda=str(torch.version.cuda),
        torch=torch.__version__,
        python=platform.python_version(),
        created=now.isoformat(timespec="seconds"),
    )


def _folder(out: str | None) -> Path | None:
    """Make the folder before minutes of measuring, not after."""
    if out is None:
        return None
    Path(out).mkdir(parents=True, exist_ok=True)
    return Path(out)


def _write(folder: Path, files: Mapping[str, str]) -> None:
    for name, text in files.items():
        (folder / name).write_text(text, encoding="utf-8")


def _text(values: Any) -> str:
    return json.dumps(values, indent=2) + "\n"


def _silent(*_: object, **__: object) -> None:
    """Say nothing: the answer is JSON."""
