"""What is wrong with a machine, and how to mend it. Pure."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import replace

from hopperforge.node.fitting import fitting_gpus, why_not
from hopperforge.node.values import Entry, Finding, Node, Package, Wanted, gpu_text, problem
from hopperforge.node.versions import dotted, normal

_NO_DRIVER = (
    "run on a node with a GPU, with docker --gpus all or podman --device nvidia.com/gpu=all; "
    "to choose here for such a node: --cuda 12.8 --gpu 9.0"
)


def findings(node: Node, entries: Sequence[Entry], chosen: Entry | None, wanted: Wanted) -> tuple[Finding, ...]:
    """Say everything there is to mend or to know, the machine first, then torch, then what is installed."""
    return (
        *gpu_findings(node, chosen),
        *(() if _free(entries, chosen, wanted) else torch_findings(node, chosen)),
        *(finding for package in node.packages for finding in _package_findings(package, node, entries, wanted)),
        *_upgrade(node, entries, chosen, wanted),
    )


def gpu_findings(node: Node, chosen: Entry | None) -> Iterable[Finding]:
    """Say what is wrong with driver and GPUs, one problem at most, and what to know of them."""
    if node.driver is None:
        yield problem("there is no NVIDIA driver: no nvidia-smi answers, and there is no libcuda.so.1", _NO_DRIVER)
    elif node.driver.trouble is not None:
        yield problem(f"the NVIDIA driver does not work: {node.driver.trouble}", "nvidia-smi   # what does it say?")
    elif not node.gpus:
        yield problem(
            "the driver answers and no GPU is seen", "check CUDA_VISIBLE_DEVICES, and that the job was given a GPU"
        )
    elif chosen is None and not any(gpu.capability in (None, (9, 0)) for gpu in node.gpus):
        yield problem(
            f"{gpu_text(node.gpus[0])} is not a Hopper GPU",
            "run on an H100 or H200; on other GPUs use torch's own scaled_dot_product_attention",
        )
    if chosen is not None:
        fits = fitting_gpus(chosen, node.gpus)
        bad = [f"{index}: {gpu_text(gpu)}" for index, gpu in enumerate(node.gpus) if not fits[index]]
        good = ",".join(str(index) for index, right in enumerate(fits) if right)
        if bad:
            yield Finding("note", f"these GPUs cannot run it: {'; '.join(bad)}", f"export CUDA_VISIBLE_DEVICES={good}")
    if any(gpu.mig for gpu in node.gpus):
        yield Finding("note", "a GPU is split by MIG: a process sees one slice, and speed is that of the slice")


def _free(entries: Sequence[Entry], chosen: Entry | None, wanted: Wanted) -> bool:
    """Whether no torch is needed: by the wheel that was chosen, or by any of the project that was asked for."""
    asked = (
        [entry for entry in entries if normal(entry.project) == normal(wanted.project)] if chosen is None else [chosen]
    )
    return bool(asked) and all(entry.torch is None for entry in asked)


def torch_findings(node: Node, chosen: Entry | None) -> Iterable[Finding]:
    """Say what is wrong with torch, by itself and beside the driver."""
    torch, driver = node.torch, node.driver
    if torch is None:
        wanted = "torch" if chosen is None or chosen.torch is None else f"'{chosen.torch}'"
        yield problem(f"torch is not installed for {node.executable}", f"{node.executable} -m pip install {wanted}")
        return
    if torch.trouble is not None:
        yield problem(
            f"torch {torch.version} cannot be imported: {torch.trouble}",
            f"{node.executable} -c 'import torch'   # then reinstall torch, or what it lacks",
        )
    if torch.cuda is None:
        yield problem(f"torch {torch.version} is built without CUDA", "install a CUDA build of torch")
    elif driver is not None and driver.cuda is not None and driver.cuda[0] < torch.cuda[0]:
        yield problem(
            f"torch {torch.version} runs on CUDA {dotted(torch.cuda)}, and the driver serves {dotted(driver.cuda)}",
            f"update the driver, or install a torch built for CUDA {driver.cuda[0]}",
        )


def _package_findings(package: Package, node: Node, entries: Sequence[Entry], wanted: Wanted) -> Iterable[Finding]:
    name = f"{package.project} {package.version}"
    again = f"{node.executable} -m pip uninstall -y {package.project}   # then install as shown below"
    yield from package.troubles
    projects = {normal(entry.project) for entry in entries}
    if package.project not in projects:
        yield Finding("note", f"{name} is installed too; this index has no such project")
        return
    found = [
        entry for entry in entries if normal(entry.project) == package.project and entry.version == package.version
    ]
    if not found:
        yield problem(f"{name} is installed and this index has no such version: it came from elsewhere", again)
        return
    least = min((why_not(entry, node, replace(wanted, profile=None)) for entry in found), key=len)
    for reason in least:
        yield problem(f"{name} is installed and does not fit: it {reason}", again)


def _upgrade(node: Node, entries: Sequence[Entry], chosen: Entry | None, wanted: Wanted) -> Iterable[Finding]:
    if chosen is None:
        return
    have = installed_entry(node, entries, wanted)
    if have is not None and have.version != chosen.version:
        yield Finding("note", f"{have.version} is installed and fits; {chosen.version} would be chosen now")
    if not chosen.default:
        yield Finding("note", f"no wheel of the default profile fits; profile {chosen.profile} leaves features out")


def installed_entry(node: Node, entries: Sequence[Entry], wanted: Wanted) -> Entry | None:
    """Find the wheel that is installed of the project asked for, if the index has it and it fits."""
    versions = {package.version for package in node.packages if package.project == normal(wanted.project)}
    fitting = (entry for entry in entries if normal(entry.project) == normal(wanted.project))
    return next((one for one in fitting if one.version in versions and not why_not(one, node, wanted)), None)
