"""The guard inside the fa3-fwd wheel: every sentence it says, and what it must let pass.

The package is loaded from the recipe's folder with the two files a build adds, and with the few names of torch it
reads; torch itself is not installed where these tests run.
"""

import importlib.util
import sys
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from types import ModuleType, SimpleNamespace
from typing import Any

import pytest

FOLDER = Path(__file__).parents[2] / "recipes" / "fa3-fwd" / "python" / "fa3_fwd"

PEER = frozenset({"DISABLE_BACKWARD", "DISABLE_PAGEDKV", "DISABLE_LOCAL", "DISABLE_FP16"})
INFERENCE = frozenset({"DISABLE_BACKWARD", "DISABLE_SM80"})
SMALL = frozenset(
    f"DISABLE_{feature}"
    for feature in (
        *("BACKWARD", "PAGEDKV", "SPLIT", "APPENDKV", "LOCAL", "SOFTCAP", "PACKGQA", "FP16", "FP8", "SM80"),
        *("HDIM64", "HDIM96", "HDIM192", "HDIM256", "HDIMDIFF64", "HDIMDIFF192"),
    )
)
PROFILES = {"fa3-fwd": PEER, "inference": INFERENCE, "hdim128-bf16": SMALL, "full": frozenset[str]()}

Load = Callable[..., ModuleType]


def stand_in_torch(version: str, cuda: str | None, capability: tuple[int, int]) -> ModuleType:
    """The names of torch that the package reads when it loads and when it admits a tensor."""
    torch = ModuleType("torch")
    names: dict[str, object] = {
        "__version__": version,
        "version": SimpleNamespace(cuda=cuda),
        "cuda": SimpleNamespace(get_device_capability=lambda _: capability, device_count=lambda: 1),
        "float8_e4m3fn": "torch.float8_e4m3fn",
    }
    vars(torch).update(names)
    return torch


@pytest.fixture
def load(monkeypatch: pytest.MonkeyPatch) -> Iterator[Load]:
    """Load a module of the package as a profile's wheel would hold it."""

    def load_module(
        name: str = "_guard",
        *,
        profile: str = "fa3-fwd",
        torch: str | None = "2.11.0+cu130",
        torch_cuda: str | None = "13.0",
        capability: tuple[int, int] = (9, 0),
        compiled: bool = True,
        facts: Mapping[str, object] | None = None,
        cxx11_abi: bool | None = None,
    ) -> ModuleType:
        monkeypatch.setattr(sys, "dont_write_bytecode", True)  # the folder goes into wheels as it is
        for loaded in [loaded for loaded in sys.modules if loaded.startswith("fa3_fwd")]:
            del sys.modules[loaded]
        build = ModuleType("fa3_fwd._build")
        built: dict[str, object] = {
            "VERSION": "3.0.0",
            "PROFILE": profile,
            "SWITCHES": PROFILES[profile],
            "CUDA": "13.0",
            "DRIVER": "580.65.06",
            "TORCH": "2.9",
            "TORCH_ABI": "stable",
            "CXX11_ABI": True,
        }
        vars(build).update(built | dict(facts or {}))
        stand_in = None if torch is None else stand_in_torch(torch, torch_cuda, capability)
        if stand_in is not None and cxx11_abi is not None:
            vars(stand_in)["compiled_with_cxx11_abi"] = lambda: cxx11_abi
        monkeypatch.setitem(sys.modules, "torch", stand_in)
        monkeypatch.setitem(sys.modules, "fa3_fwd._build", build)
        if compiled:
            monkeypatch.setitem(sys.modules, "fa3_fwd._C", ModuleType("fa3_fwd._C"))
        spec = importlib.util.spec_from_file_location(
            "fa3_fwd", FOLDER / "__init__.py", submodule_search_locations=[str(FOLDER)]
        )
        assert spec is not None
        assert spec.loader is not None
        package = importlib.util.module_from_spec(spec)
        vars(package)["_build"] = build
        monkeypatch.setitem(sys.modules, "fa3_fwd", package)
        spec.loader.exec_module(package)
        return importlib.import_module(f"fa3_fwd.{name}") if name else package

    yield load_module
    for name in [name for name in sys.modules if name.startswith("fa3_fwd")]:
        del sys.modules[name]


@pytest.fixture
def rules(load: Load) -> ModuleType:
    """The decisions alone."""
    return load("_rules")


def build(rules: ModuleType, profile: str, cuda: str = "13.0", driver: str = "580.65.06") -> Any:
    return rules.Build(profile=profile, switches=PROFILES[profile], cuda=cuda, driver=driver)


def sentence(call: Callable[..., object], *arguments: object, **named: object) -> str:
    """What a call says when it refuses, after checking that it is one sentence of ours."""
    with pytest.raises(RuntimeError) as refusal:
        call(*arguments, **named)
    assert type(refusal.value).__name__ in {"UnsupportedGPUError", "UnsupportedFeatureError"}
    said = str(refusal.value)
    assert "\n" not in said
    assert ". " not in said
    return said


# --- the machine


NO_GPU = (
    "torch 2.13.0 (CUDA 13.0) found no GPU under a driver for CUDA 13.0: run on a node with a GPU, and check "
    "CUDA_VISIBLE_DEVICES and torch's own CUDA"
)


@pytest.mark.parametrize(
    ("torch_cuda", "driver", "devices", "said"),
    [
        (None, 13000, 1, "found torch 2.13.0, which is built without CUDA: install a CUDA build of torch"),
        ("13.0", None, 0, "found no NVIDIA driver (libcuda.so.1): install the driver"),
        ("13.0", 13000, 0, NO_GPU),
    ],
)
def test_machine_without_cuda(
    rules: ModuleType, torch_cuda: str | None, driver: int | None, devices: int, said: str
) -> None:
    machine = rules.Machine(torch="2.13.0", torch_cuda=torch_cuda, driver=driver, devices=devices)
    assert sentence(rules.require_machine, build(rules, "inference"), machine) == (
        "fa3-fwd needs a GPU of compute capability 9.0 (H100, H200) with driver 580.65.06 or newer, and " + said
    )


def test_machine_with_everything_passes(rules: ModuleType) -> None:
    rules.require_machine(
        build(rules, "fa3-fwd"), rules.Machine(torch="2.11", torch_cuda="12.8", driver=13010, devices=8)
    )


@pytest.mark.parametrize(
    ("runtime", "driver"), [("13.0", 13000), ("13.2", 13000), ("12.4", 12000), ("12.4", 13000), ("13.0", None)]
)
def test_driver_of_the_same_or_a_newer_major_passes(rules: ModuleType, runtime: str, driver: int | None) -> None:
    rules.require_driver(build(rules, "fa3-fwd", cuda=runtime), driver)


def test_cuda_12_wheel_names_the_driver_of_cuda_12(rules: ModuleType) -> None:
    assert sentence(rules.require_driver, build(rules, "fa3-fwd", cuda="12.4", driver="525.60.13"), 11080) == (
        "this fa3-fwd holds the CUDA 12.4 runtime, which needs driver 525.60.13 or newer, and the driver found serves "
        "CUDA 11.8: update the driver"
    )


@pytest.mark.parametrize(
    ("driver", "remedy"),
    [
        (12080, "serves CUDA 12.8: update the driver, or install the fa3-fwd wheel built for CUDA 12"),
        (11040, "serves CUDA 11.4: update the driver"),
    ],
)
def test_driver_of_an_older_major_is_refused(rules: ModuleType, driver: int, remedy: str) -> None:
    assert sentence(rules.require_driver, build(rules, "fa3-fwd"), driver) == (
        "this fa3-fwd holds the CUDA 13.0 runtime, which needs driver 580.65.06 or newer, and the driver found "
        + remedy
    )


@pytest.mark.parametrize(
    ("profile", "capability"), [("fa3-fwd", (9, 0)), ("fa3-fwd", (8, 0)), ("fa3-fwd", (8, 9)), ("inference", (9, 0))]
)
def test_architectures_compiled_in_pass(rules: ModuleType, profile: str, capability: tuple[int, int]) -> None:
    rules.require_architecture(build(rules, profile), capability)


@pytest.mark.parametrize(
    ("profile", "capability", "needed", "remedy"),
    [
        ("inference", (8, 0), "", ", or install the fa3-fwd wheel of profile `full`"),
        ("inference", (10, 0), "", ""),
        ("fa3-fwd", (12, 0), " or 8.x", ""),
        ("fa3-fwd", (7, 5), " or 8.x", ""),
    ],
)
def test_other_architectures_are_refused(
    rules: ModuleType, profile: str, capability: tuple[int, int], needed: str, remedy: str
) -> None:
    major, minor = capability
    assert sentence(rules.require_architecture, build(rules, profile), capability) == (
        f"this fa3-fwd of profile `{profile}` needs a GPU of compute capability 9.0 (H100, H200){needed}, and the GPU "
        f"found has compute capability {major}.{minor}: run on one of those{remedy}"
    )


# --- dtypes and head dims


@pytest.mark.parametrize(
    ("dtype", "what", "switch"),
    [("torch.float16", "float16", "DISABLE_FP16"), ("torch.float8_e4m3fn", "float8", "DISABLE_FP8")],
)
def test_trimmed_dtype(rules: ModuleType, dtype: str, what: str, switch: str) -> None:
    assert sentence(rules.require_dtype, build(rules, "hdim128-bf16"), dtype) == (
        f"this fa3-fwd is of profile `hdim128-bf16`, which holds no kernels for {what} ({switch}), "
        f"and q is {dtype}: install the fa3-fwd wheel of profile `inference`"
    )


@pytest.mark.parametrize("dtype", ["torch.float16", "torch.float8_e4m3fn", "torch.bfloat16", "torch.float32"])
def test_dtypes_kept_or_of_no_profile_pass(rules: ModuleType, dtype: str) -> None:
    rules.require_dtype(build(rules, "inference"), dtype)


@pytest.mark.parametrize(
    ("profile", "head_dims", "fp8", "kernel"),
    [
        ("inference", (64, 64), False, (64, 64)),
        ("inference", (40, 40), False, (64, 64)),
        ("inference", (64, 512), False, (64, 512)),
        ("inference", (64, 256), False, (64, 256)),
        ("inference", (64, 256), True, (64, 64)),
        ("inference", (192, 128), False, (192, 128)),
        ("inference", (192, 192), False, (192, 192)),
        ("inference", (264, 264), False, None),
        ("hdim128-bf16", (64, 64), False, (128, 128)),
        ("hdim128-bf16", (136, 136), False, None),
    ],
)
def test_kernel_of_head_dims(
    rules: ModuleType, profile: str, head_dims: tuple[int, int], fp8: bool, kernel: tuple[int, int] | None
) -> None:
    assert rules.kernel_head_dims(build(rules, profile), *head_dims, fp8=fp8) == kernel


def test_head_dim_above_the_largest_compiled(rules: ModuleType) -> None:
    assert sentence(rules.require_head_dims, build(rules, "hdim128-bf16"), 192, 192) == (
        "this fa3-fwd of profile `hdim128-bf16` holds kernels for head dims up to 128, and head dim 192 was given: "
        "install the fa3-fwd wheel of profile `inference`"
    )


def test_head_dim_of_no_profile(rules: ModuleType) -> None:
    assert sentence(rules.require_head_dims, build(rules, "full"), 512, 512) == (
        "this fa3-fwd of profile `full` holds kernels for head dims up to 256, and head dim 512 was given: "
        "no profile has it"
    )


@pytest.mark.parametrize(("head_dim", "head_dim_v"), [(64, 64), (64, 512), (32, 128), (192, 128), (256, 256)])
def test_head_dims_of_the_profile_pass(rules: ModuleType, head_dim: int, head_dim_v: int) -> None:
    rules.require_head_dims(build(rules, "inference"), head_dim, head_dim_v)


def test_wide_values_without_their_kernel(rules: ModuleType) -> None:
    assert sentence(rules.require_head_dims, build(rules, "hdim128-bf16"), 64, 256) == (
        "this fa3-fwd is of profile `hdim128-bf16`, which holds no kernels for value head dims above 64 beside head "
        "dims up to 64 (DISABLE_HDIMDIFF64), and such value heads or qv were given: "
        "install the fa3-fwd wheel of profile `inference`"
    )


def test_wide_values_where_only_head_dim_64_was_trimmed(rules: ModuleType) -> None:
    trimmed = rules.Build(profile="mine", switches=frozenset({"DISABLE_HDIM64"}), cuda="13.0", driver="580.65.06")
    assert "(DISABLE_HDIM64)" in sentence(rules.require_head_dims, trimmed, 64, 256)


def test_wide_values_in_float8_are_of_no_profile(rules: ModuleType) -> None:
    assert sentence(rules.require_head_dims, build(rules, "full"), 64, 128, fp8=True) == (
        "no profile of fa3-fwd holds float8 kernels for head dim 64 with value head dim 128: "
        "use bfloat16, or equal head dims"
    )


def test_narrow_values_beside_192(rules: ModuleType) -> None:
    trimmed = rules.Build(profile="mine", switches=frozenset({"DISABLE_HDIMDIFF192"}), cuda="13.0", driver="580.65.06")
    assert sentence(rules.require_head_dims, trimmed, 192, 128) == (
        "this fa3-fwd is of profile `mine`, which holds no kernels for value head dims up to 128 beside head dims "
        "up to 192 (DISABLE_HDIMDIFF192), and v has other head dims than q: "
        "install the fa3-fwd wheel of profile `inference`"
    )


@pytest.mark.parametrize(
    ("window", "causal", "chunk", "local"),
    [
        ((-1, -1), False, 0, False),
        ((-1, -1), True, 0, False),
        ((-1, 0), False, 0, False),  # causal by another name
        ((99, 49), False, 0, False),  # reaches past all 100 keys and 50 queries
        ((98, -1), False, 0, True),
        ((98, 0), True, 0, True),
        ((-1, 48), False, 0, True),
        ((-1, 48), True, 0, False),  # causal is the narrower limit
        ((-1, -1), False, 64, True),
    ],
)
def test_what_counts_as_local(
    rules: ModuleType, window: tuple[int, int], causal: bool, chunk: int, local: bool
) -> None:
    assert rules.is_local(window, causal=causal, chunk=chunk, seqlen_q=50, seqlen_k=100) is local


# --- whole calls


def tensor(*shape: int, device: str = "cuda", dtype: str = "torch.bfloat16") -> Any:
    """What the guard reads of a tensor."""
    return SimpleNamespace(shape=shape, device=Device(device), dtype=dtype)


class Device(str):
    """A device as torch prints it, with its type."""

    __slots__ = ()

    @property
    def type(self) -> str:
        """The name before the number."""
        return self.partition(":")[0]


def guard_of(load: Load, profile: str, **torch: Any) -> Any:
    module = load("_guard", profile=profile, **torch)
    rules = sys.modules["fa3_fwd._rules"]
    found = rules.Machine(torch="2.11.0", torch_cuda="13.0", driver=13000, devices=1)
    return module.Guard(build(rules, profile), lambda: found)


Q = tensor(2, 50, 8, 128)
K = tensor(2, 100, 8, 128)
IDS = tensor(2, 4, dtype="torch.int32")


@pytest.mark.parametrize(
    ("asked", "what", "remedy"),
    [
        ({"page_table": IDS}, "a paged KV cache (DISABLE_PAGEDKV), and page_table or page_size was given", ""),
        ({"k_new": K}, "appending to the KV cache (DISABLE_APPENDKV), and new keys (k) were given", ""),
        (
            {"window_size": (16, 16)},
            "local attention (DISABLE_LOCAL), and window_size or attention_chunk limits the keys",
            "",
        ),
        (
            {"attention_chunk": 32},
            "local attention (DISABLE_LOCAL), and window_size or attention_chunk limits the keys",
            "",
        ),
        ({"softcap": 15.0}, "softcap (DISABLE_SOFTCAP), and softcap is not 0", ""),
        (
            {"num_splits": 2},
            "split KV (DISABLE_SPLIT), and num_splits is above 1 or partial results are to be combined",
            "",
        ),
        (
            {"pack_gqa": True},
            "packed GQA (DISABLE_PACKGQA), and pack_gqa=True was given",
            "leave pack_gqa at None, or ",
        ),
    ],
)
def test_trimmed_feature_of_a_call(load: Load, asked: dict[str, object], what: str, remedy: str) -> None:
    guard = guard_of(load, "hdim128-bf16")
    assert sentence(guard.check_forward, Q, K, K, **asked) == (
        f"this fa3-fwd is of profile `hdim128-bf16`, which holds no kernels for {what}: "
        f"{remedy}install the fa3-fwd wheel of profile `inference`"
    )
    guard_of(load, "inference").check_forward(Q, K, K, **asked)


@pytest.mark.parametrize("name", ["cu_seqlens_q", "cu_seqlens_k", "seqused_q", "seqused_k", "leftpad_k"])
def test_trimmed_variable_lengths(load: Load, name: str) -> None:
    guard = guard_of(load, "full")
    trimmed = type(guard)(
        sys.modules["fa3_fwd._rules"].Build("mine", frozenset({"DISABLE_VARLEN"}), "13.0", "580.65.06"), guard._machine
    )
    guard.check_forward(Q, K, K, **{name: IDS})
    assert sentence(trimmed.check_forward, Q, K, K, **{name: IDS}) == (
        "this fa3-fwd is of profile `mine`, which holds no kernels for variable lengths (DISABLE_VARLEN), and "
        "cu_seqlens, seqused, cache_seqlens or leftpad was given: install the fa3-fwd wheel of profile `inference`"
    )


def test_qv_is_refused_where_its_kernel_is_missing(load: Load) -> None:
    guard = guard_of(load, "hdim128-bf16")
    small = tensor(2, 50, 8, 64)
    assert "(DISABLE_HDIM64), and qv or wider value heads were given" in sentence(
        guard.check_forward, small, small, small, qv=Q
    )


def test_defaults_and_heuristics_pass_in_every_profile(load: Load) -> None:
    for profile in PROFILES:
        guard = guard_of(load, profile)
        guard.check_forward(Q, K, K)
        guard.check_forward(Q, K, K, causal=True, num_splits=0, pack_gqa=None)
        guard.check_forward(Q, K, K, window_size=(99, 49), pack_gqa=False)


def test_window_is_measured_against_the_longest_sequence(load: Load) -> None:
    guard = guard_of(load, "fa3-fwd")
    flat = tensor(100, 8, 128)
    ragged = {"cu_seqlens_q": IDS, "cu_seqlens_k": IDS, "max_seqlen_q": 30, "max_seqlen_k": 60}
    guard.check_forward(flat, flat, flat, window_size=(59, 29), **ragged)
    assert "DISABLE_LOCAL" in sentence(guard.check_forward, flat, flat, flat, window_size=(58, 29), **ragged)


def test_paged_window_is_measured_against_all_pages(load: Load) -> None:
    guard = guard_of(load, "full")
    trimmed = type(guard)(
        sys.modules["fa3_fwd._rules"].Build("mine", frozenset({"DISABLE_LOCAL"}), "13.0", "580.65.06"), guard._machine
    )
    pages = tensor(9, 16, 8, 128)  # 4 pages of 16 a sequence
    trimmed.check_forward(Q, pages, pages, page_table=IDS, window_size=(63, -1))
    assert "DISABLE_LOCAL" in sentence(trimmed.check_forward, Q, pages, pages, page_table=IDS, window_size=(62, -1))


def test_pages_of_small_heads_in_a_profile_of_large_kernels(load: Load) -> None:
    guard = guard_of(load, "full")
    switches = frozenset({"DISABLE_HDIM64", "DISABLE_HDIM96", "DISABLE_HDIM128"})
    large = type(guard)(sys.modules["fa3_fwd._rules"].Build("mine", switches, "13.0", "580.65.06"), guard._machine)
    large.check_forward(Q, K, K)
    assert sentence(large.check_forward, Q, K, K, page_table=IDS) == (
        "this fa3-fwd of profile `mine` pages its KV cache only for head dims above 128, and head dim 128 was given: "
        "install the fa3-fwd wheel of profile `inference`"
    )


def test_tensor_on_the_cpu(load: Load) -> None:
    cpu = tensor(2, 50, 8, 128, device="cpu")
    assert sentence(guard_of(load, "fa3-fwd").check_forward, cpu, cpu, cpu) == (
        "fa3-fwd needs its tensors on a GPU of compute capability 9.0 (H100, H200) or 8.x, and found one on cpu: "
        'move them, for example with .to("cuda")'
    )


def test_call_asks_architecture_dtype_and_head_dims(load: Load) -> None:
    half = tensor(2, 50, 8, 128, dtype="torch.float16")
    wide = tensor(2, 50, 8, 256)
    assert "compute capability 10.0" in sentence(guard_of(load, "fa3-fwd", capability=(10, 0)).check_forward, Q, K, K)
    assert "DISABLE_FP16" in sentence(guard_of(load, "fa3-fwd").check_forward, half, half, half)
    assert "head dim 256 was given" in sentence(guard_of(load, "hdim128-bf16").check_forward, wide, wide, wide)


def test_each_device_is_asked_for_itself(load: Load) -> None:
    guard = guard_of(load, "fa3-fwd")
    guard.check_forward(Q, K, K)
    vars(sys.modules["torch"])["cuda"].get_device_capability = lambda _: (12, 0)
    guard.check_forward(Q, K, K)
    other = tensor(2, 50, 8, 128, device="cuda:1")
    assert "compute capability 12.0" in sentence(guard.check_forward, other, other, other)


def test_backward(load: Load) -> None:
    guard_of(load, "full").check_backward()
    assert sentence(guard_of(load, "inference").check_backward) == (
        "this fa3-fwd is of profile `inference`, which holds no kernels for the backward pass (DISABLE_BACKWARD), "
        "and a gradient was asked for: install the fa3-fwd wheel of profile `full`"
    )


def test_combine(load: Load) -> None:
    guard_of(load, "fa3-fwd").check_combine()
    assert "DISABLE_SPLIT" in sentence(guard_of(load, "hdim128-bf16").check_combine)


@pytest.mark.parametrize(
    ("asked", "switch"),
    [
        ({"page_size": 16}, "DISABLE_PAGEDKV"),
        ({"max_seqlen_k_new": 1}, "DISABLE_APPENDKV"),
        ({"window_size": (8, 0)}, "DISABLE_LOCAL"),
        ({"has_softcap": True}, "DISABLE_SOFTCAP"),
        ({"num_splits": 4}, "DISABLE_SPLIT"),
        ({"pack_gqa": True}, "DISABLE_PACKGQA"),
    ],
)
def test_scheduler_metadata(load: Load, asked: dict[str, object], switch: str) -> None:
    call = {"max_seqlen_q": 50, "max_seqlen_k": 100}
    arguments = (IDS, "torch.bfloat16", 128, 128)
    guard_of(load, "inference").check_scheduler_metadata(*arguments, **call, **asked)
    guard = guard_of(load, "hdim128-bf16")
    guard.check_scheduler_metadata(*arguments, **call)
    assert switch in sentence(guard.check_scheduler_metadata, *arguments, **call, **asked)


# --- importing the package


def test_import_tells_what_was_built(load: Load) -> None:
    package = load("", profile="inference", torch_cuda=None)
    assert package.__version__ == "3.0.0"
    assert package.build_info() == {
        "version": "3.0.0",
        "profile": "inference",
        "switches": ["DISABLE_BACKWARD", "DISABLE_SM80"],
        "cuda": "13.0",
        "driver": "580.65.06",
        "torch": "2.9",
        "torch_abi": "stable",
    }


@pytest.mark.parametrize("version", ["2.9.0", "2.9.0a0+git1234", "2.11.0+cu130", "2.15.0", "3.0.1"])
def test_import_takes_torch_from_the_floor_on(load: Load, version: str) -> None:
    assert load("", torch=version).__name__ == "fa3_fwd"


@pytest.mark.parametrize("version", ["2.8.0+cu128", "2.1.2", "1.13.1"])
def test_import_refuses_an_older_torch_before_the_compiled_module(load: Load, version: str) -> None:
    with pytest.raises(ImportError) as refusal:
        load("", torch=version, compiled=False)
    assert str(refusal.value) == (
        f'fa3-fwd 3.0.0 needs a CUDA build of torch 2.9 or newer and found torch {version}: pip install "torch>=2.9"'
    )


def test_import_without_torch(load: Load) -> None:
    with pytest.raises(ImportError) as refusal:
        load("", torch=None)
    assert str(refusal.value) == (
        'fa3-fwd 3.0.0 needs a CUDA build of torch 2.9 or newer and found no torch: pip install "torch>=2.9"'
    )


@pytest.mark.parametrize(("cuda", "flavour"), [(None, "which is built without CUDA"), ("13.0", "built for CUDA 13.0")])
def test_import_names_the_linker_s_words(load: Load, cuda: str | None, flavour: str) -> None:
    with pytest.raises(ImportError) as refusal:
        load("", torch_cuda=cuda, compiled=False)
    assert isinstance(refusal.value.__cause__, ImportError)
    assert str(refusal.value) == (
        "fa3-fwd 3.0.0 needs a CUDA build of torch 2.9 or newer, and its compiled module does not load with torch "
        f"2.11.0+cu130, {flavour} ({refusal.value.__cause__}): install a CUDA build of torch 2.9 or newer, then "
        "reinstall fa3-fwd"
    )


# --- a build per torch


PER_TORCH = {
    "VERSION": "3.0.0+cu124torch2.6",
    "CUDA": "12.4",
    "TORCH": "2.6",
    "TORCH_ABI": "per-torch",
    "CXX11_ABI": False,
}
INSTALL_26 = "install torch 2.6 from the Python package index"
NEEDS_26 = "fa3-fwd 3.0.0+cu124torch2.6 needs a CUDA build of torch 2.6 for CUDA 12 and found"


@pytest.mark.parametrize("version", ["2.6.0+cu124", "2.6.1", "2.6.0a0+gitabc"])
def test_a_build_per_torch_takes_its_release_line(load: Load, version: str) -> None:
    package = load("", torch=version, torch_cuda="12.4", facts=PER_TORCH, cxx11_abi=False)
    assert package.build_info()["torch_abi"] == "per-torch"


@pytest.mark.parametrize(
    ("version", "cuda", "cxx11_abi", "said"),
    [
        ("2.5.1+cu124", "12.4", False, ': pip install "torch==2.6.*"'),
        ("2.7.0+cu126", "12.6", True, ': pip install "torch==2.6.*"'),
        ("2.60.0", "12.4", False, ': pip install "torch==2.6.*"'),
        ("2.6.0+cu118", "11.8", False, ", built for CUDA 11.8: install torch 2.6 for CUDA 12"),
        (
            "2.6.0+cu126",
            "12.6",
            True,
            f", which has the C++11 ABI and not the C++ ABI from before C++11: {INSTALL_26}",
        ),
    ],
)
def test_a_build_per_torch_refuses_any_other_before_the_compiled_module(
    load: Load, version: str, cuda: str, cxx11_abi: bool, said: str
) -> None:
    with pytest.raises(ImportError) as refusal:
        load("", torch=version, torch_cuda=cuda, facts=PER_TORCH, cxx11_abi=cxx11_abi, compiled=False)
    assert str(refusal.value) == f"{NEEDS_26} torch {version}{said}"


def test_a_build_per_torch_beside_a_torch_without_cuda_says_so(load: Load) -> None:
    with pytest.raises(ImportError, match=r"torch 2\.6\.0\+cpu, which is built without CUDA \("):
        load("", torch="2.6.0+cpu", torch_cuda=None, facts=PER_TORCH, cxx11_abi=False, compiled=False)
