"""Which of the wheels that fit is taken, and which page of the index lists it. Pure."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Any

from hopperforge.node.fitting import why_not
from hopperforge.node.values import Entry, Node, Rejected, Wanted, gpu_text
from hopperforge.node.versions import Numbers, compare, dotted, normal, numbers


def user_cuda(node: Node) -> Numbers | None:
    """Give the CUDA whose page of the index is right: torch's, else the driver's, None where neither is known."""
    if node.torch is not None and node.torch.cuda is not None:
        return node.torch.cuda
    return None if node.driver is None else node.driver.cuda


def choose(entries: Sequence[Entry], node: Node, wanted: Wanted) -> tuple[Entry | None, tuple[Rejected, ...]]:
    """Choose the best wheel that fits, and say of the others of the project why they are not it."""
    ours = [entry for entry in entries if normal(entry.project) == normal(wanted.project)]
    reasons = {entry.file: why_not(entry, node, wanted) for entry in ours}
    fitting = sorted(
        (entry for entry in ours if not reasons[entry.file]), key=lambda entry: _rank(entry, node), reverse=True
    )
    chosen = fitting[0] if fitting else None
    rejected = [Rejected(entry.file, reasons[entry.file]) for entry in ours if reasons[entry.file]]
    rejected += [Rejected(entry.file, (_second(entry, fitting[0]),)) for entry in fitting[1:]]
    return chosen, tuple(rejected)


def _rank(entry: Entry, node: Node) -> tuple[Any, ...]:
    """Order wheels that fit, the best last.

    The default profile, then the least trimmed; proven; of the stable ABI, which only matters where torch is not known;
    the newest; and of the newest CUDA, or of the oldest where nothing says what the node has, as that serves most.
    """
    known = user_cuda(node) is not None
    return (
        entry.default,
        -len(entry.switches),
        not entry.unproven,
        entry.abi == "stable",
        numbers(entry.version),
        entry.cuda if known else tuple(-part for part in entry.cuda),
        entry.gpu is not None,
        entry.file,
    )


def _second(entry: Entry, best: Entry) -> str:
    if entry.profile != best.profile:
        return f"fits too; it is of profile {entry.profile}: --profile {entry.profile} takes it"
    if entry.unproven and not best.unproven:
        return "fits too, but was published without every proof"
    if numbers(entry.version) < numbers(best.version):
        return "fits too, but is older"
    return f"fits too, but {best.file} comes first: {_what_differs(entry, best)}"


def _what_differs(entry: Entry, best: Entry) -> str:
    if entry.abi != best.abi:
        return "it serves every torch from 2.9 on" if best.abi == "stable" else "it is of this torch"
    if entry.cuda != best.cuda:
        return "of the newer CUDA" if best.cuda > entry.cuda else "it serves more drivers"
    return "their names are all that differs"


def nearest(entries: Iterable[Entry], rejected: Iterable[Rejected]) -> Rejected | None:
    """Choose the wheel with the fewest reasons against it, of those that were not withdrawn where there are any."""
    withdrawn = {entry.file for entry in entries if entry.yanked is not None}
    return min(rejected, key=lambda one: (one.file in withdrawn, len(one.reasons), one.file), default=None)


def page_of(entry: Entry, entries: Iterable[Entry], cuda: Numbers | None) -> str:
    """Give the folder of the index, below its root, whose page lists a wheel for a user of this CUDA.

    Pages are of the CUDAs that the catalog names; taken is the newest that is not newer than the user's, so that a
    page of CUDA 12.8 serves a torch of 12.9. What nothing compiled is on the page of everything.
    """
    if not entry.cuda:
        return "all/simple"
    known = {entry.cuda for entry in entries if entry.cuda}
    known |= {numbers(cell["runtime"]) for entry in entries for cell in entry.cells if cell["runtime"] is not None}
    listing = [one for one in known if one >= entry.cuda and (entry.abi != "per-torch" or one[0] == entry.cuda[0])]
    within = [one for one in listing if cuda is None or compare(one, cuda) <= 0] or [entry.cuda]
    parts = [f"cu{''.join(map(str, max(within)))}"]
    parts += [f"torch{entry.torch_line}"] if entry.abi == "per-torch" else []
    parts += [] if entry.default else [entry.profile]
    return "/".join((*parts, "simple"))


def reasons_for(entry: Entry, node: Node) -> tuple[str, ...]:
    """Say why a wheel that fits does."""
    torch = node.torch.version if node.torch else "yet to be installed"
    trimmed = "the default" if entry.default else f"which leaves out {len(entry.switches)} features"
    driver = "not known" if node.driver is None or node.driver.cuda is None else f"CUDA {dotted(node.driver.cuda)}"
    gpu = gpu_text(node.gpus[0]) if node.gpus else "none"
    return (
        f"compiled for CUDA {dotted(entry.cuda)}; the driver serves: {driver}"
        if entry.cuda
        else f"nothing in it is compiled; the driver serves: {driver}",
        f"{_tie(entry)}; torch here: {torch}" if entry.torch else "binds to no torch",
        f"code for {', '.join(entry.architectures) or 'no GPU'}; GPU here: {gpu}",
        f"profile {entry.profile}, {trimmed}",
        f"proven on {entry.gpu['gpu']}" if entry.gpu else "not yet run on a GPU: its record holds no such proof",
        *(("published without every proof",) if entry.unproven else ()),
    )


def _tie(entry: Entry) -> str:
    if entry.free:
        return f"needs {entry.torch}, and binds to none"
    tie = "any torch of the stable ABI" if entry.abi == "stable" else f"torch {entry.torch_line} alone"
    return f"needs {entry.torch}, for it is bound to {tie}"
