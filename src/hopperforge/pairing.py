"""Which versions go together on any machine: toolkit, torch and Python, and how a build is tied to its torch.

Pure functions over matrix.yaml and a recipe. Which of them are at hand here is planning's.
"""

from collections.abc import Iterable
from typing import assert_never

from hopperforge.model.cell import AbiClass, Accepted, Cell
from hopperforge.model.matrix import Exclusion, Matrix, TorchFact
from hopperforge.model.recipe import Cudart, Recipe
from hopperforge.model.versions import CudaVersion, PythonVersion, ToolkitVersion, TorchVersion


def abi_class(matrix: Matrix, torch: TorchVersion) -> AbiClass:
    """Say how a build for `torch` is tied to it: the one wheel from the stable floor on, a wheel of its own below."""
    return AbiClass.STABLE if torch >= matrix.stable_floor else AbiClass.PER_TORCH


def pair(cell: Cell, matrix: Matrix, recipe: Recipe) -> Accepted | None:
    """Pair a cell with a runtime of its torch, whatever else may stand against it; None if there is none.

    A cell without a torch brings its own runtime and needs no other.
    """
    if cell.torch is None or cell.cuda is None:
        return Accepted(cell=cell, runtime=None, abi=AbiClass.NONE)
    abi = abi_class(matrix, cell.torch)
    runtime = pair_runtime(cell.cuda.cuda, matrix.torches[cell.torch], recipe.cudart, abi)
    return None if runtime is None else Accepted(cell=cell, runtime=runtime, abi=abi)


def pair_runtime(toolkit: CudaVersion, torch: TorchFact, cudart: Cudart, abi: AbiClass) -> CudaVersion | None:
    """Choose the CUDA runtime of torch that code of `toolkit` runs beside; None if there is none.

    | cudart | ABI       | a runtime of torch qualifies when                                                         |
    |--------|-----------|-------------------------------------------------------------------------------------------|
    | static | stable    | its major >= the toolkit's: the code brings its own runtime, so the minor does not matter |
    | static | per-torch | its major is the toolkit's: torch hands the code structures of its own CUDA's headers     |
    | shared | either    | its major is the toolkit's and its minor >= the toolkit's                                 |

    Of those that qualify, the one of the package index's build is taken, else the lowest.
    """
    same_major = [runtime for runtime in _runtimes(torch) if runtime.major == toolkit.major]
    match cudart:
        case Cudart.STATIC if abi is AbiClass.PER_TORCH:
            fitting = same_major
        case Cudart.STATIC:
            fitting = [runtime for runtime in _runtimes(torch) if runtime.major >= toolkit.major]
        case Cudart.SHARED:
            fitting = [runtime for runtime in same_major if runtime >= toolkit]
        case _:
            assert_never(cudart)
    if torch.index_cuda in fitting:
        return torch.index_cuda
    return fitting[0] if fitting else None


def reason_of_facts(
    cuda: ToolkitVersion | None,
    torch: TorchVersion | None,
    python: PythonVersion | None,
    matrix: Matrix,
    recipe: Recipe,
) -> str | None:
    """Say why these versions do not go together on any machine, or None; each is None where there is none."""
    if cuda is None or torch is None or python is None:
        return _exclusion_reason((cuda, torch, python), matrix.exclusions)
    fact = matrix.torches[torch]
    if (per_torch := _per_torch_reason(torch, matrix, recipe)) is not None:
        return per_torch
    if python not in fact.pythons:
        return f"torch {torch} was not published for Python {python}, only for {join(fact.pythons)}"
    if (excluded := _exclusion_reason((cuda, torch, python), matrix.exclusions)) is not None:
        return excluded
    if pair_runtime(cuda.cuda, fact, recipe.cudart, abi_class(matrix, torch)) is None:
        return pair_reason(cuda.cuda, torch, matrix, recipe.cudart)
    return None


def _per_torch_reason(torch: TorchVersion, matrix: Matrix, recipe: Recipe) -> str | None:
    if abi_class(matrix, torch) is AbiClass.STABLE:
        return None
    older = f"torch {torch} is older than {matrix.stable_floor}, the first with the stable ABI, and needs its own build"
    if recipe.needed_per_torch is None:
        return f"{older}, which recipe {recipe.name} does not make (needed_per_torch)"
    if matrix.torches[torch].wheel is None:
        return f"{older}, but matrix.yaml pins no wheel of it to bind against"
    return None


def _exclusion_reason(
    versions: tuple[ToolkitVersion | None, TorchVersion | None, PythonVersion | None], exclusions: Iterable[Exclusion]
) -> str | None:
    for exclusion in exclusions:
        wanted = (exclusion.cuda, exclusion.torch, exclusion.python)
        if all(want in (None, have) for want, have in zip(wanted, versions, strict=True)):
            return exclusion.reason
    return None


def pair_reason(cuda: CudaVersion, torch: TorchVersion, matrix: Matrix, cudart: Cudart) -> str:
    """Say why no runtime of `torch` goes with code of the toolkit `cuda`."""
    match cudart:
        case Cudart.STATIC if abi_class(matrix, torch) is AbiClass.PER_TORCH:
            need = f"CUDA {cuda.major}.x (torch's own structures change with the major)"
        case Cudart.STATIC:
            need = f"CUDA {cuda.major}.0 or newer"
        case Cudart.SHARED:
            need = f"CUDA {cuda} to {cuda.major}.x (the runtime is shared)"
        case _:
            assert_never(cudart)
    runtimes = join(_runtimes(matrix.torches[torch]))
    return f"code of the CUDA {cuda} toolkit needs {need}, and torch {torch} runs on {runtimes}"


def _runtimes(torch: TorchFact) -> tuple[CudaVersion, ...]:
    return tuple(sorted({torch.index_cuda, *torch.cuda}))


def join(versions: Iterable[CudaVersion | ToolkitVersion | PythonVersion]) -> str:
    """List versions in a sentence; "none" where there are none."""
    return ", ".join(str(version) for version in versions) or "none"
