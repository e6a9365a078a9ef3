"""The command line of the doctor: facts, catalog, answer, exit code."""

from __future__ import annotations

import argparse
import json
import os
import platform
import sys
import sysconfig
from collections.abc import Iterable, Sequence
from dataclasses import asdict, replace
from datetime import datetime, timezone
from pathlib import Path

from hopperforge.node.answer import as_url, examine
from hopperforge.node.installed import installed_under, look_at_packages
from hopperforge.node.looking import (
    ask_cuda,
    ask_smi,
    ask_torch,
    find_libc,
    isolated,
    join_driver,
    join_gpus,
    look_at_torch,
)
from hopperforge.node.reading import read_index, read_signed
from hopperforge.node.signatures import TrustedKey, UntrustedError, check_signature, read_key
from hopperforge.node.values import (
    DEFAULT_PROJECT,
    EXIT_CODES,
    INSTALLED,
    UNREADABLE,
    WRONG,
    Driver,
    Entry,
    Gpu,
    Node,
    Report,
    Torch,
    UnreadableError,
    Wanted,
    gpu_text,
    problem,
)
from hopperforge.node.versions import dotted, numbers


def look(paths: Sequence[str], projects: Iterable[str], *, imports: bool = True) -> Node:
    """Gather every fact; `paths` are the folders of installed packages, `imports` whether torch is imported."""
    smi, cuda = ask_smi(), isolated(ask_cuda, 60)
    own = installed_under(paths)
    torch = look_at_torch(own, isolated(ask_torch, 300) if imports else {"trouble": None})
    works = torch is not None and torch.trouble is None
    return Node(
        python=tuple(sys.version_info[:3]),
        implementation=sys.implementation.name,
        free_threaded=bool(sysconfig.get_config_var("Py_GIL_DISABLED")),
        executable=sys.executable,
        system=platform.system(),
        machine=platform.machine(),
        libc=find_libc(),
        gpus=join_gpus(smi, cuda),
        driver=join_driver(smi, cuda),
        torch=torch,
        packages=look_at_packages(own, paths, projects, imports=imports and works),
    )


def say(report: Report) -> str:
    """Write a report for people."""
    lines = [*_node_lines(report.node), f"index     {as_url(report.index)}"] if report.node else []
    if report.chosen:
        lines += [f"  takes {report.chosen}", *(f"      {reason}" for reason in report.why)]
    for one in report.rejected:
        lines += [f"  not {one.file}", *(f"      it {reason}" for reason in one.reasons)]
    for finding in report.findings:
        lines += [f"{finding.level}: {finding.what}", *([f"  mend: {finding.mend}"] if finding.mend else [])]
    if report.nearest:
        lines += [f"nearest: {report.nearest.file}", *(f"  but it {reason}" for reason in report.nearest.reasons)]
    if report.commands and report.status != INSTALLED:
        lines += ["install it with one of:", *(f"  {report.commands[name]}" for name in ("pip", "uv"))]
    return "\n".join([*lines, f"{report.status} (exit code {EXIT_CODES[report.status]})"])


def _node_lines(node: Node) -> list[str]:
    driver, torch = node.driver, node.torch
    serves = dotted(driver.cuda) if driver and driver.cuda else "unknown"
    abi = {None: "C++ ABI unknown", True: "C++11 ABI", False: "old C++ ABI"}
    return [
        f"system    {node.system} {node.machine}, {node.libc[0]} {dotted(node.libc[1])}".rstrip(),
        f"Python    {dotted(node.python)}, {node.executable}",
        *(f"GPU {index}     {gpu_text(gpu)}" for index, gpu in enumerate(node.gpus)),
        *([] if node.gpus else ["GPU       none"]),
        f"driver    {driver.version or 'version unknown'}, serves CUDA {serves}" if driver else "driver    none",
        f"torch     {torch.version}, CUDA {dotted(torch.cuda or ()) or 'none'}, {abi[torch.cxx11_abi]}"
        if torch
        else "torch     none",
        *(f"package   {one.project} {one.version} in {one.place}" for one in node.packages),
    ]


def assume(node: Node, cuda: str | None, torch: str | None, gpu: str | None) -> Node:
    """Put what the user says of the node that the wheel is for in the place of what was found here."""
    if gpu is not None:
        node = replace(node, gpus=(Gpu("assumed GPU", numbers(gpu)),), driver=node.driver or Driver(None, None))
    if cuda is not None:
        node = replace(node, driver=Driver(None, numbers(cuda)))
        if node.torch is not None:
            node = replace(node, torch=replace(node.torch, cuda=numbers(cuda)))
    if torch is not None:
        node = replace(node, torch=Torch(torch, numbers(cuda or "") or None, None))
    return node


def main(argv: Sequence[str] | None = None) -> int:
    """Run the command line; returns the exit code."""
    parser = argparse.ArgumentParser(prog="doctor.py", description="Which FlashAttention-3 wheel fits this machine.")
    parser.add_argument("--index", required=True, help="the root of an index: a URL, or a folder")
    parser.add_argument("--json", action="store_true", help="answer in JSON")
    parser.add_argument("--project", default=DEFAULT_PROJECT, help="the package (%(default)s)")
    parser.add_argument("--profile", help="the profile; without, the default one, else the least trimmed that fits")
    parser.add_argument("--no-import", action="store_true", help="do not import torch: read its files, in a second")
    parser.add_argument("--cuda", type=_version, help="choose for a node of this CUDA, driver and torch alike")
    parser.add_argument("--torch", type=_version, help="choose for this torch")
    parser.add_argument("--gpu", type=_version, help="choose for a GPU of this compute capability: 9.0")
    parser.add_argument(
        "--require-signature", metavar="KEYS", type=_keys, help="public keys, joined by commas: take nothing else"
    )
    parser.add_argument(
        "--signatures-only", action="store_true", help="judge every wheel of the index and not this machine"
    )
    asked = parser.parse_args(argv)
    if asked.signatures_only and not asked.require_signature:
        parser.error("--signatures-only needs --require-signature")
    if asked.torch and not asked.cuda:
        parser.error("--torch needs --cuda: torch is built for one")
    try:
        entries = read_index(asked.index, os.environ)
    except UnreadableError as error:
        report = Report(UNREADABLE, as_url(asked.index), findings=(problem(str(error), "name the root of an index"),))
    else:
        if asked.signatures_only:
            return _say_signatures(entries, asked)
        node = look(sys.path, {entry.project for entry in entries}, imports=not asked.no_import)
        node = assume(node, asked.cuda, asked.torch, asked.gpu)
        report = examine(node, entries, Wanted(asked.project, asked.profile), as_url(asked.index))
        report = _held_to_signature(report, entries, asked)
    print(json.dumps({"doctor": 1, **asdict(report)}, indent=2) if asked.json else say(report))
    return EXIT_CODES[report.status]


def judged(entry: Entry, index: str, keys: Sequence[TrustedKey]) -> str | None:
    """Say why a wheel of the index is not signed as it should be, by the clock of this machine; None if it is."""
    try:
        check_signature(entry, read_signed(index, entry, os.environ), keys, datetime.now(timezone.utc))
    except (UntrustedError, UnreadableError) as error:
        return f"{entry.file} is not to be trusted: {error}"
    return None


def _held_to_signature(report: Report, entries: Iterable[Entry], asked: argparse.Namespace) -> Report:
    """Turn the answer into a refusal, without a line that installs, if the chosen wheel is not signed as asked."""
    chosen = next((entry for entry in entries if entry.file == report.chosen), None)
    if not asked.require_signature or chosen is None:
        return report
    reason = judged(chosen, asked.index, asked.require_signature)
    if reason is None:
        return replace(report, why=(*report.why, "signed by a key that is trusted here"))
    refusal = problem(reason, "fetch it again from where it came from; never install it without a signature instead")
    return replace(report, status=WRONG, commands={}, findings=(*report.findings, refusal))


def _say_signatures(entries: Sequence[Entry], asked: argparse.Namespace) -> int:
    """Judge every wheel of the index, and nothing else; an index without one has nothing that is signed."""
    reasons = [judged(entry, asked.index, asked.require_signature) for entry in entries]
    for entry, reason in zip(entries, reasons):
        print(reason or f"{entry.file}: signed by a key that is trusted here")
    good = entries and not any(reasons)
    return EXIT_CODES[INSTALLED if good else WRONG]


def _keys(text: str) -> Sequence[TrustedKey]:
    try:
        return [read_key(Path(place).read_text(encoding="utf-8"), place) for place in text.split(",")]
    except OSError as error:
        raise argparse.ArgumentTypeError(f"{error.filename} cannot be read: {error.strerror}") from error
    except ValueError as error:
        raise argparse.ArgumentTypeError(str(error)) from error


def _version(text: str) -> str:
    if "." not in text or not numbers(text):
        raise argparse.ArgumentTypeError(f"{text!r} is no version such as 12.8")
    return text


if __name__ == "__main__":
    sys.exit(main())
