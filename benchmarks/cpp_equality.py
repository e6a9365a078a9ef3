"""Whether the library without torch gives the bits that the torch front gives, feature by feature, on one GPU.

    python benchmarks/cpp_equality.py --library LIB/libhopperforge_fa3.so.1 --torch-front fa3_fwd/_C.abi3.so

Both must be of one profile. Prints a table of (dtype, head dim, feature) and how many calls of it were equal, output
and softmax_lse, and gradients where the profile has them; exits with 1 if one differs. Needs torch alone.
"""

import argparse
import importlib
import itertools
import sys
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).parent.parent / "recipes" / "fa3-cpp" / "smoke"))

capi = importlib.import_module("capi")

BATCH = 3
HEAD_DIMS = (64, 96, 128, 192, 256)
FEATURES = (
    "plain",
    "strided",
    "packed",
    "used",
    "margin",
    "paged",
    "paged_tma",
    "append",
    "rotary",
    "split",
    "splits_chosen",
    "softcap",
    "window",
    "chunk",
    "leftpad",
    "batch_index",
    "pack",
    "backward",
    "backward_packed",
    "deterministic",
)
NEEDS = {
    "packed": {"VARLEN"},
    "used": {"VARLEN"},
    "paged": {"PAGEDKV", "VARLEN"},
    "paged_tma": {"PAGEDKV", "VARLEN"},
    "append": {"APPENDKV", "VARLEN"},
    "rotary": {"APPENDKV", "VARLEN"},
    "split": {"SPLIT"},
    "splits_chosen": {"SPLIT"},
    "softcap": {"SOFTCAP"},
    "window": {"LOCAL"},
    "chunk": {"LOCAL"},
    "leftpad": {"VARLEN"},
    "pack": {"PACKGQA"},
    "backward": {"BACKWARD"},
    "backward_packed": {"BACKWARD", "VARLEN"},
    "deterministic": {"BACKWARD"},
}


@dataclass(frozen=True, slots=True, kw_only=True)
class Case:
    """One call: dtype by torch's name, head dim, mask, key heads of 8 query heads, and what it shows."""

    dtype: str
    head_dim: int
    causal: bool
    heads_k: int
    feature: str


@dataclass(slots=True, kw_only=True)
class Call:
    """The arguments of a case, by the torch operator's names; `sizes` are those of the C interface."""

    tensors: dict[str, Any]
    sizes: dict[str, int] = field(default_factory=dict)
    numbers: dict[str, Any] = field(default_factory=dict)


def served(switches: frozenset[str], feature: str) -> bool:
    """Whether a profile has what a feature needs."""
    return not any(f"DISABLE_{need}" in switches for need in NEEDS.get(feature, ()))


def cases(switches: frozenset[str]) -> Iterator[Case]:
    """Every case that the profile serves."""
    dtypes = [("bfloat16", ""), ("float16", "FP16"), ("float8_e4m3fn", "FP8")]
    for (dtype, need), head_dim, causal, heads_k, feature in itertools.product(
        dtypes, HEAD_DIMS, (False, True), (8, 2), FEATURES
    ):
        if need and f"DISABLE_{need}" in switches:
            continue
        if f"DISABLE_HDIM{head_dim}" in switches or not served(switches, feature):
            continue
        if dtype == "float8_e4m3fn" and feature in {"backward", "backward_packed", "deterministic", "rotary"}:
            continue
        if feature == "deterministic" and head_dim == 256:
            continue
        if causal and feature == "chunk":
            continue
        yield Case(dtype=dtype, head_dim=head_dim, causal=causal, heads_k=heads_k, feature=feature)


class Maker:
    """Makes the inputs of a case, the same every time; what a feature changes stands in the method of its name."""

    def __init__(self, torch: Any, case: Case) -> None:
        self.torch, self.case = torch, case
        self.random = torch.Generator(device="cuda").manual_seed(case.head_dim + case.heads_k)
        few = case.feature in {"split", "splits_chosen", "append", "rotary", "paged"}
        self.queries, self.keys = (16, 1100) if few else (230, 700)

    def normal(self, *shape: int) -> Any:
        """Normally distributed elements of the case's dtype."""
        return self.torch.randn(*shape, generator=self.random, device="cuda").to(getattr(self.torch, self.case.dtype))

    def ints(self, *numbers: int) -> Any:
        """Lengths."""
        return self.torch.tensor(numbers, dtype=self.torch.int32, device="cuda")

    def make(self) -> Call:
        """The whole call."""
        dim, heads_k = self.case.head_dim, self.case.heads_k
        call = Call(
            tensors={
                "q": self.normal(BATCH, self.queries, 8, dim),
                "k": self.normal(BATCH, self.keys, heads_k, dim),
                "v": self.normal(BATCH, self.keys, heads_k, dim),
            },
            sizes={"batch": BATCH, "seqlen_q": self.queries, "seqlen_k": self.keys},
            numbers={"num_splits": 1},
        )
        if self.case.dtype == "float8_e4m3fn":
            for name in ("q_descale", "k_descale", "v_descale"):
                call.tensors[name] = self.torch.rand(BATCH, heads_k, generator=self.random, device="cuda") + 0.5
        getattr(self, self.case.feature)(call)
        return call

    def plain(self, call: Call) -> None:
        """Nothing more."""

    backward = deterministic = plain

    def strided(self, call: Call) -> None:
        """Heads before rows, and gaps."""
        dim = self.case.head_dim
        call.tensors["q"] = self.normal(BATCH, 8, self.queries, 2 * dim)[..., :dim].transpose(1, 2)
        call.tensors["k"] = self.normal(BATCH, self.case.heads_k, self.keys, dim).transpose(1, 2)

    def packed(self, call: Call) -> None:
        """Sequences of different lengths, one after the other."""
        dim, heads_k = self.case.head_dim, self.case.heads_k
        call.tensors |= {"q": self.normal(207, 8, dim), "k": self.normal(700, heads_k, dim)}
        call.tensors |= {"v": self.normal(700, heads_k, dim), "cu_seqlens_q": self.ints(0, 1, 77, 207)}
        call.tensors["cu_seqlens_k"] = self.ints(0, 300, 301, 700)
        call.sizes |= {"seqlen_q": 130, "seqlen_k": 399, "total_q": 207, "total_k": 700}

    backward_packed = packed

    def used(self, call: Call) -> None:
        """Fewer keys than there are."""
        call.tensors["seqused_k"] = self.ints(self.keys, 1, 333)

    def margin(self, call: Call) -> None:
        """Multiprocessors left to others."""
        call.numbers["sm_margin"] = 20

    def paged(self, call: Call, size: int = 20) -> None:
        """Pages in any order."""
        each = -(-self.keys // size)
        for name in ("k", "v"):
            call.tensors[name] = self.normal(BATCH * each, size, self.case.heads_k, self.case.head_dim)
        order = self.torch.randperm(BATCH * each, generator=self.random, device="cuda").to(self.torch.int32)
        call.tensors |= {"page_table": order.view(BATCH, each), "seqused_k": self.ints(self.keys, 1, 333)}
        call.sizes |= {"seqlen_k": each * size, "page_size": size, "pages": BATCH * each, "page_table_stride": each}

    def paged_tma(self, call: Call) -> None:
        """Pages of whole tiles of most kernels, so that TMA fetches them."""
        self.keys = 2500
        self.paged(call, 1280)

    def append(self, call: Call) -> None:
        """New keys for the cache."""
        for name in ("k_new", "v_new"):
            call.tensors[name] = self.normal(BATCH, 16, self.case.heads_k, self.case.head_dim)
        call.tensors["seqused_k"] = self.ints(self.keys - 16, 1, 333)
        call.sizes["seqlen_k_new"] = 16

    def rotary(self, call: Call) -> None:
        """New keys, rotated."""
        self.append(call)
        dim = self.case.head_dim // 4
        call.tensors |= {"rotary_cos": self.normal(self.keys, dim), "rotary_sin": self.normal(self.keys, dim)}
        call.sizes |= {"rotary_seqlen": self.keys, "rotary_dim": 2 * dim}

    def split(self, call: Call) -> None:
        """Keys in five parts."""
        call.numbers["num_splits"] = 5

    def splits_chosen(self, call: Call) -> None:
        """Keys in as many parts as each side chooses."""
        call.numbers["num_splits"] = 0

    def softcap(self, call: Call) -> None:
        """Capped scores."""
        call.numbers["softcap"] = 15.0

    def window(self, call: Call) -> None:
        """A window on both sides."""
        call.numbers |= {"window_size_left": 100, "window_size_right": 30}

    def chunk(self, call: Call) -> None:
        """Chunks."""
        call.numbers["attention_chunk"] = 128

    def leftpad(self, call: Call) -> None:
        """Keys left out at the beginning."""
        call.tensors |= {"leftpad_k": self.ints(0, 5, 200), "seqused_k": self.ints(self.keys, 300, 333)}

    def batch_index(self, call: Call) -> None:
        """Sequences of a larger cache."""
        for name in ("k", "v"):
            call.tensors[name] = self.normal(BATCH + 2, self.keys, self.case.heads_k, self.case.head_dim)
        call.tensors["kv_batch_idx"] = self.ints(4, 0, 3)
        call.sizes["batch_k"] = BATCH + 2

    def pack(self, call: Call) -> None:
        """Query heads of one key head in one tile."""
        call.numbers["pack_gqa"] = True


def by_torch(torch: Any, case: Case, call: Call) -> tuple[Any, Any]:
    """Output and softmax_lse of the torch front."""
    tensors = {name: tensor.clone() if name in {"k", "v"} else tensor for name, tensor in call.tensors.items()}
    packed = "cu_seqlens_q" in tensors
    longest = {"max_seqlen_q": call.sizes["seqlen_q"], "max_seqlen_k": call.sizes["seqlen_k"]} if packed else {}
    out, lse, *_ = torch.ops.fa3_fwd.fwd(**tensors, **longest, **call.numbers, is_causal=case.causal)
    return out, lse


def tensor_of(tensor: Any) -> Any:
    """A torch tensor of three or four dimensions as the C interface has it."""
    batch = tensor.stride(0) if tensor.dim() == 4 else 0
    return capi.Tensor(tensor.data_ptr(), batch, tensor.stride(-3), tensor.stride(-2))


# The torch operator's names of what the C interface calls otherwise.
OTHERWISE = {"kv_batch_idx": "batch_index_k", "window_size_left": "window_left", "window_size_right": "window_right"}


def fill(target: Any, case: Case, call: Call, tensors: Mapping[str, Any]) -> None:
    """Write a call into parameters of the C interface."""
    problem = target.problem
    dtypes = {"bfloat16": capi.BFLOAT16, "float16": capi.FLOAT16, "float8_e4m3fn": capi.FLOAT8_E4M3}
    problem.dtype, problem.causal = dtypes[case.dtype], case.causal
    problem.heads, problem.heads_k = 8, case.heads_k
    problem.head_dim = problem.head_dim_v = case.head_dim
    in_problem = {str(name) for name, _ in capi.Problem._fields_}
    kinds = {str(name): kind for name, kind in target._fields_}
    for name, value in (call.sizes | call.numbers).items():
        known = OTHERWISE.get(name, name)
        if known in in_problem or known in kinds:
            setattr(problem if known in in_problem else target, str(known), value)
    for name, tensor in tensors.items():
        known = OTHERWISE.get(name, name)
        if known in in_problem:
            setattr(problem, known, tensor.data_ptr())
        elif kinds[known] is capi.Tensor:
            setattr(target, known, tensor_of(tensor))
        elif kinds[known] is capi.Scale:
            setattr(target, known, capi.Scale(tensor.data_ptr(), tensor.stride(0), tensor.stride(1)))
        else:
            setattr(target, known, tensor.data_ptr())


def launch(torch: Any, library: Any, params: Any) -> None:
    """Run a call with a workspace of its own."""
    status, bytes_ = library.workspace(params)
    workspace = torch.full((bytes_ + 1,), 255, dtype=torch.uint8, device="cuda")
    stream = torch.cuda.current_stream().cuda_stream
    status = status or library.launch(params, workspace.data_ptr(), bytes_, stream)
    if status:
        raise SystemExit(f"error: {library.name(status)}: {library.message}")
    if workspace[bytes_:].min() != 255:
        raise SystemExit("error: the byte after the workspace was written")


def by_library(torch: Any, library: Any, case: Case, call: Call, like: tuple[Any, Any]) -> tuple[Any, Any]:
    """Output and softmax_lse of the library, in fresh tensors of the shapes of `like`."""
    out, lse = (torch.full_like(tensor, float("nan")) for tensor in like)
    params = library.defaults()
    tensors = {name: tensor.clone() if name in {"k", "v"} else tensor for name, tensor in call.tensors.items()}
    fill(params, case, call, tensors | {"out": out})
    params.softmax_lse = lse.data_ptr()
    launch(torch, library, params)
    return out, lse


def gradients(torch: Any, library: Any, case: Case, call: Call, forward: tuple[Any, Any]) -> Iterator[tuple[Any, Any]]:
    """Yield dq, dk and dv of both, the torch front's first."""
    out, lse = forward
    random = torch.Generator(device="cuda").manual_seed(1)
    dout = torch.randn(out.shape, generator=random, device="cuda").to(out.dtype)
    deterministic = case.feature == "deterministic"
    packed = "cu_seqlens_q" in call.tensors
    longest = {"max_seqlen_q": call.sizes["seqlen_q"], "max_seqlen_k": call.sizes["seqlen_k"]} if packed else {}
    theirs = {name: torch.empty_like(call.tensors[name[1:]]) for name in ("dq", "dk", "dv")}
    torch.ops.fa3_fwd.bwd(
        dout=dout, out=out, softmax_lse=lse, **call.tensors, **theirs, **longest,
        is_causal=case.causal, deterministic=deterministic,
    )  # fmt: skip
    ours = {name: torch.full_like(tensor, float("nan")) for name, tensor in theirs.items()}
    params = library.backward_defaults()
    fill(params, case, Call(tensors={}, sizes=call.sizes), {**call.tensors, "out": out, "dout": dout, **ours})
    params.softmax_lse, params.deterministic = lse.data_ptr(), deterministic
    launch(torch, library, params)
    yield from ((theirs[name], ours[name]) for name in theirs)


def equal(torch: Any, first: Any, second: Any) -> bool:
    """Whether two tensors hold the same bits."""
    kinds = {1: torch.uint8, 2: torch.int16, 4: torch.int32}
    kind = kinds[first.element_size()]
    return bool(torch.equal(first.contiguous().view(kind), second.contiguous().view(kind)))


def run(torch: Any, library: Any, case: Case) -> str:
    """Run a case in both; what it came to."""
    call = Maker(torch, case).make()
    theirs = by_torch(torch, case, call)
    ours = by_library(torch, library, case, call, theirs)
    pairs = list(zip(theirs, ours, strict=True))
    order_decides = case.feature in {"backward", "backward_packed"}  # sums of any order: their own two runs differ
    same = all(equal(torch, *pair) for pair in pairs)
    if case.feature == "deterministic" or order_decides:
        for first, second in gradients(torch, library, case, call, theirs):
            close = float((first.double() - second.double()).norm() / first.double().norm()) < 5e-3
            same = same and (close if order_decides else equal(torch, first, second))
    torch.cuda.synchronize()
    return "equal" if same else "DIFFERENT"


def table(results: Mapping[Case, str]) -> list[str]:
    """The lines of the table: features down, dtypes and head dims across, equal calls of all."""
    columns = sorted({(case.dtype, case.head_dim) for case in results})
    lines = [f"{'':18}" + "".join(f"{f'{dtype[:7]} {dim}':>14}" for dtype, dim in columns)]
    for feature in FEATURES:
        cells = []
        for column in columns:
            found = [
                text
                for case, text in results.items()
                if (case.dtype, case.head_dim, case.feature) == (*column, feature)
            ]
            cells.append(f"{found.count('equal')}/{len(found)}" if found else "-")
        lines.append(f"{feature:18}" + "".join(f"{cell:>14}" for cell in cells))
    return lines


def main(arguments: Sequence[str]) -> int:
    """Compare, print the table."""
    parser = argparse.ArgumentParser(description="Compare the library's bits with the torch front's.")
    parser.add_argument("--library", type=Path, required=True)
    parser.add_argument("--torch-front", type=Path, required=True)
    options = parser.parse_args(arguments)
    torch = importlib.import_module("torch")
    torch.ops.load_library(str(options.torch_front.resolve()))
    library = capi.Library(options.library.resolve())
    switches = frozenset(library.build.switches.decode().split())
    results = {case: run(torch, library, case) for case in cases(switches)}
    print(f"{torch.cuda.get_device_name()}, torch {torch.__version__}, profile {library.build.profile.decode()}")
    print("calls with equal bits (backward, and packed: equal within 5e-3, for their sums have no order)\n")
    print("\n".join(table(results)))
    different = [case for case, text in results.items() if text != "equal"]
    for case in different:
        print(f"DIFFERENT: {case}")
    return 1 if different else 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
