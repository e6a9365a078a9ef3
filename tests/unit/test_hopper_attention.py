"""Which backend hopper_attention takes, over every GPU, dtype and feature there is: its rules need no torch.

What needs torch, numbers above all, is in recipes/hopper-attention/smoke, which an integration test runs.
"""

import ast
import importlib.util
import itertools
import sys
from collections.abc import Iterator
from pathlib import Path
from types import ModuleType

import pytest

RECIPES = Path(__file__).parents[2] / "recipes"
RULES = RECIPES / "hopper-attention" / "python" / "hopper_attention" / "_rules.py"
CAPABILITIES = [None, (7, 0), (7, 5), (8, 0), (8, 6), (8, 9), (9, 0), (10, 0), (12, 0)]
DTYPES = ["bfloat16", "float16", "float32", "float64", "float8_e4m3fn"]
HEAD_DIMS = [40, 60, 64, 128, 192, 256, 512]
PUBLISHED = frozenset({"DISABLE_BACKWARD", "DISABLE_PAGEDKV", "DISABLE_LOCAL", "DISABLE_FP16"})


@pytest.fixture(scope="module")
def rules() -> Iterator[ModuleType]:
    spec = importlib.util.spec_from_file_location("hopper_attention_rules", RULES)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    with pytest.MonkeyPatch.context() as patched:
        patched.setattr(sys, "dont_write_bytecode", True)  # the folder goes into wheels as it is
        patched.setitem(sys.modules, spec.name, module)  # dataclasses look their module up
        spec.loader.exec_module(module)
        yield module


def everywhere(rules: ModuleType, **switches: frozenset[str]) -> dict[str, object]:
    """A machine that has every backend, trimmed by the switches given."""
    return {name: rules.Found(version="1", switches=switches.get(name, frozenset())) for name in rules.BACKENDS}


def call(rules: ModuleType, *needs: str, capability: tuple[int, int] | None, dtype: str, head_dim: int) -> object:
    device = "cpu" if capability is None else "cuda"
    return rules.Call(
        device=device, capability=capability, dtype=dtype, head_dim=head_dim, needs=frozenset(needs) - {""}
    )


def test_every_call_there_is_gets_the_fastest_backend_that_can_do_all_of_it(rules: ModuleType) -> None:
    """Every GPU, dtype, head dim and pair of features: 53 865 calls, each judged again here, by other means."""
    found = everywhere(rules, fa3_fwd=PUBLISHED)
    pairs = list(itertools.combinations(["", *rules.FEATURES], 2))
    for capability, dtype, head_dim, needs in itertools.product(CAPABILITIES, DTYPES, HEAD_DIMS, pairs):
        asked = call(rules, *needs, capability=capability, dtype=dtype, head_dim=head_dim)
        decision = rules.decide(found, asked)
        able = [verdict.backend for verdict in decision.verdicts if verdict.usable]
        assert decision.chosen == (able[0] if able else None)
        assert [verdict.backend for verdict in decision.verdicts] == list(rules.speed_order(found, asked))
        assert able or (dtype == "float8_e4m3fn" and rules.GRADIENTS in needs)
        for name in able:
            backend = rules.BACKENDS[name]
            assert set(needs) - {""} <= backend.features
            assert dtype in backend.dtypes
            assert capability is not None or name in {"sdpa_math", "eager"}
            assert name not in {"fa3_fwd", "flash_attn_3"} or capability == (9, 0)
            lacking = {rules.GRADIENTS, rules.DETERMINISTIC, rules.WINDOW}
            assert name != "fa3_fwd" or (not lacking & set(needs) and dtype != "float16")


def test_every_combination_of_features_is_taken_by_a_backend_that_has_them_all(rules: ModuleType) -> None:
    """All 98 304 that can be asked of longer tensors, on one GPU: a log-sum-exp has one kind of gradient."""
    found = everywhere(rules)
    features = [feature for feature in rules.FEATURES if feature != rules.ONE_POSITION]  # cuDNN alone lacks it
    for bits in range(2 ** len(features)):
        needs = {feature for place, feature in enumerate(features) if bits >> place & 1}
        if {rules.LSE_GRADIENT, rules.MERGE_GRADIENT} <= needs:
            continue
        asked = call(rules, *needs, capability=(9, 0), dtype="bfloat16", head_dim=128)
        chosen = rules.decide(found, asked).chosen
        assert needs <= rules.BACKENDS[chosen].features
        assert not {rules.SOFTCAP, rules.DROPOUT} <= needs or chosen != "flash_attn"


CHOICES = [
    # capability, dtype, head dim, needs, chosen
    ((9, 0), "bfloat16", 128, [], "fa3_fwd"),
    ((9, 0), "bfloat16", 128, ["CAUSAL", "UNALIGNED", "LSE"], "fa3_fwd"),
    ((9, 0), "bfloat16", 128, ["CAUSAL", "GRADIENTS"], "flash_attn_3"),
    ((9, 0), "bfloat16", 128, ["WINDOW"], "flash_attn_3"),
    ((9, 0), "float16", 64, [], "flash_attn_3"),
    ((9, 0), "bfloat16", 128, ["DROPOUT"], "flash_attn"),
    ((9, 0), "bfloat16", 128, ["MASK"], "sdpa_efficient"),
    ((9, 0), "bfloat16", 128, ["BIAS", "BIAS_GRADIENT", "GRADIENTS"], "sdpa_math"),
    ((9, 0), "bfloat16", 100, [], "sdpa_math"),
    ((9, 0), "float8_e4m3fn", 128, [], "fa3_fwd"),
    ((9, 0), "float8_e4m3fn", 72, [], "eager"),
    ((9, 0), "float8_e4m3fn", 128, ["GRADIENTS"], None),
    ((10, 0), "bfloat16", 128, ["CAUSAL", "GRADIENTS"], "sdpa_cudnn"),
    ((10, 0), "bfloat16", 256, ["CAUSAL"], "flash_attn"),
    ((10, 0), "bfloat16", 128, ["ONE_POSITION"], "flash_attn"),
    ((8, 0), "bfloat16", 128, ["CAUSAL", "GRADIENTS"], "flash_attn"),
    ((8, 6), "bfloat16", 256, ["GRADIENTS"], "sdpa_efficient"),
    ((7, 5), "float16", 64, [], "sdpa_efficient"),
    ((7, 5), "bfloat16", 64, [], "sdpa_math"),
    ((9, 0), "float32", 128, ["CAUSAL", "GRADIENTS", "LSE", "LSE_GRADIENT"], "flash_attention"),
    ((9, 0), "float32", 128, ["WINDOW"], "sdpa_efficient"),
    ((9, 0), "float64", 128, [], "sdpa_math"),
    ((9, 0), "bfloat16", 128, ["SOFTCAP", "DROPOUT"], "eager"),
    (None, "float32", 64, ["CAUSAL", "GRADIENTS"], "sdpa_math"),
    (None, "bfloat16", 64, ["LSE"], "eager"),
]


@pytest.mark.parametrize(("capability", "dtype", "head_dim", "needs", "chosen"), CHOICES)
def test_choices_where_every_package_is_installed(
    *,
    rules: ModuleType,
    capability: tuple[int, int] | None,
    dtype: str,
    head_dim: int,
    needs: list[str],
    chosen: str | None,
) -> None:
    asked = call(
        rules, *(getattr(rules, name) for name in needs), capability=capability, dtype=dtype, head_dim=head_dim
    )
    assert rules.decide(everywhere(rules, fa3_fwd=PUBLISHED), asked).chosen == chosen


def test_forward_only_kernels_are_never_given_a_call_with_gradients(rules: ModuleType) -> None:
    """Nor where the environment or the caller wants them and nothing else."""
    asked = call(rules, rules.GRADIENTS, capability=(9, 0), dtype="bfloat16", head_dim=128)
    found = everywhere(rules, fa3_fwd=frozenset({"DISABLE_BACKWARD"}))
    decision = rules.decide(found, asked, ["fa3_fwd"])
    assert decision.chosen is None
    assert decision.verdicts[0].reason == "it has no backward pass"
    assert rules.decide(everywhere(rules), asked, ["fa3_fwd"]).chosen == "fa3_fwd"


@pytest.mark.parametrize(
    ("backend", "needs", "capability", "dtype", "head_dim", "reason"),
    [
        ("fa3_fwd", [], (8, 0), "bfloat16", 64, "capability 9.0, and this is 8.0"),
        ("fa3_fwd", [], (10, 0), "bfloat16", 64, "capability 9.0, and this is 10.0"),
        ("fa3_fwd", [], None, "bfloat16", 64, "capability 9.0, and this is cpu"),
        ("fa3_fwd", [], (9, 0), "float32", 64, "it takes bfloat16, float16, float8_e4m3fn, not float32"),
        ("flash_attn", [], (9, 0), "bfloat16", 512, "its head dims go up to 256, and this is 512"),
        ("flash_attn", [], (9, 0), "bfloat16", 60, "its head dims are multiples of 8, and this is 60"),
        ("flash_attn", ["MASK", "BIAS"], (9, 0), "float16", 64, "it has no mask and no bias"),
        ("flash_attn", ["SOFTCAP", "DROPOUT"], (9, 0), "float16", 64, "it has no softcap together with dropout"),
        ("fa3_fwd", ["GRADIENTS", "DETERMINISTIC"], (9, 0), "bfloat16", 256, "every run of head dims above 192"),
        ("flash_attn", ["DROPOUT", "DROPOUT_OF_ALL"], (9, 0), "bfloat16", 64, "it has no dropout of every weight"),
        ("flash_attn", ["GRADIENTS"], (8, 9), "float16", 256, "its backward pass of head dims above 192"),
        ("sdpa_efficient", [], (7, 5), "bfloat16", 64, "it takes bfloat16 from compute capability 8.0 on, and this is"),
        ("sdpa_cudnn", ["ONE_POSITION"], (9, 0), "bfloat16", 64, "it has no answer for a single query or key"),
        ("sdpa_cudnn", ["UNALIGNED"], (9, 0), "bfloat16", 64, "it has no causal mask aligned with the last key"),
    ],
)
def test_a_reason_says_what_it_has_and_what_it_was_asked(
    *,
    rules: ModuleType,
    backend: str,
    needs: list[str],
    capability: tuple[int, int] | None,
    dtype: str,
    head_dim: int,
    reason: str,
) -> None:
    asked = call(
        rules, *(getattr(rules, name) for name in needs), capability=capability, dtype=dtype, head_dim=head_dim
    )
    verdicts = {verdict.backend: verdict for verdict in rules.decide(everywhere(rules), asked).verdicts}
    assert reason in verdicts[backend].reason
    assert not verdicts[backend].usable


def test_what_is_not_installed_is_said_before_anything_else(rules: ModuleType) -> None:
    found = everywhere(rules) | {"fa3_fwd": rules.Found(problem="fa3-fwd is not installed")}
    asked = call(rules, capability=(9, 0), dtype="bfloat16", head_dim=128)
    decision = rules.decide(found, asked)
    assert decision.chosen == "flash_attn_3"
    assert str(decision).splitlines()[:3] == [
        "chosen: flash_attn_3",
        f"  {'fa3_fwd':28} fa3-fwd is not installed",
        f"* {'flash_attn_3 1':28} usable",
    ]


def test_wanted_backends_come_first_and_are_the_only_ones(rules: ModuleType) -> None:
    asked = call(rules, rules.DROPOUT, capability=(9, 0), dtype="bfloat16", head_dim=128)
    decision = rules.decide(everywhere(rules), asked, ["fa3_fwd", "eager"])
    assert decision.chosen == "eager"
    assert [verdict.backend for verdict in decision.verdicts][:2] == ["fa3_fwd", "eager"]
    assert rules.decide(everywhere(rules), asked, ["fa3_fwd"]).chosen is None
    with pytest.raises(ValueError, match="there is no attention backend fa4"):
        rules.decide(everywhere(rules), asked, ["fa4"])


def test_a_trimmed_package_has_less(rules: ModuleType) -> None:
    whole = rules.BACKENDS["fa3_fwd"]
    assert rules.trim(whole, ["DISABLE_HDIM256", "DISABLE_HDIM192"]).largest == 128
    assert rules.trim(whole, ["DISABLE_HDIM64"]).largest == 256
    assert "float8_e4m3fn" not in rules.trim(whole, ["DISABLE_FP8"]).dtypes
    assert rules.SOFTCAP not in rules.trim(whole, ["DISABLE_SOFTCAP"]).features
    assert rules.trim(whole, ["DISABLE_PAGEDKV", "DISABLE_SPLIT"]) == whole


def test_every_order_has_every_backend_once(rules: ModuleType) -> None:
    for capability, dtype, head_dim in itertools.product(CAPABILITIES, DTYPES, HEAD_DIMS):
        asked = call(rules, capability=capability, dtype=dtype, head_dim=head_dim)
        for found in (everywhere(rules), everywhere(rules, fa3_fwd=frozenset({"DISABLE_HDIM64"}))):
            assert sorted(rules.speed_order(found, asked)) == sorted(rules.BACKENDS)


@pytest.mark.parametrize(
    ("switches", "head_dim", "chosen"),
    [
        ((), 64, "fa3_fwd"),
        (("DISABLE_HDIM64", "DISABLE_HDIM96"), 64, "sdpa_cudnn"),
        (("DISABLE_HDIM64", "DISABLE_HDIM96"), 96, "sdpa_cudnn"),
        (("DISABLE_HDIM64", "DISABLE_HDIM96"), 128, "fa3_fwd"),
        (("DISABLE_HDIM96",), 72, "sdpa_cudnn"),
        (("DISABLE_HDIM192",), 160, "fa3_fwd"),  # cuDNN does not go so far
    ],
)
def test_fa3_in_a_kernel_of_a_larger_head_dim_comes_after_cudnn(
    switches: tuple[str, ...], head_dim: int, chosen: str, rules: ModuleType
) -> None:
    found = {**everywhere(rules, fa3_fwd=frozenset(switches)), "flash_attn_3": rules.Found(problem="it is not here")}
    asked = call(rules, capability=(9, 0), dtype="bfloat16", head_dim=head_dim)
    assert rules.decide(found, asked).chosen == chosen


@pytest.mark.parametrize(("head_dim", "chosen"), [(64, "flash_attention"), (128, "sdpa_efficient")])
def test_float32_is_of_the_kernels_that_were_measured_faster(head_dim: int, chosen: str, rules: ModuleType) -> None:
    asked = call(rules, capability=(9, 0), dtype="float32", head_dim=head_dim)
    assert rules.decide(everywhere(rules), asked).chosen == chosen


def test_training_of_merged_parts_needs_a_backend_of_its_own_kind(rules: ModuleType) -> None:
    """FA3 is not seen to give that gradient and says so; the gradient of any log-sum-exp is more, and not cuDNN's."""
    merged = {rules.LSE, rules.GRADIENTS, rules.MERGE_GRADIENT}
    decision = rules.decide(everywhere(rules), call(rules, *merged, capability=(9, 0), dtype="bfloat16", head_dim=128))
    assert decision.chosen == "sdpa_cudnn"
    said = {verdict.backend: verdict.reason for verdict in decision.verdicts}
    assert said["fa3_fwd"] == "it has no gradient of the log-sum-exp of parts that are merged"
    wide = {rules.LSE, rules.GRADIENTS, rules.LSE_GRADIENT}
    asked = call(rules, *wide, capability=(9, 0), dtype="bfloat16", head_dim=128)
    assert rules.decide(everywhere(rules), asked).chosen == "eager"
    dropped = call(rules, *merged, rules.DROPOUT, capability=(9, 0), dtype="bfloat16", head_dim=128)
    assert rules.decide(everywhere(rules), dropped).chosen == "eager"


def test_the_smallest_fallback_has_every_feature(rules: ModuleType) -> None:
    assert rules.BACKENDS["eager"].features == set(rules.FEATURES)
    asked = call(rules, capability=(9, 0), dtype="float32", head_dim=64)
    assert rules.speed_order(everywhere(rules), asked)[-1] == "eager"


def test_our_own_packages_are_called_by_words_they_have() -> None:
    """The call of flash_attention against its definition in the recipe that ships it."""
    calls = ast.walk(ast.parse(RULES.with_name("_backends.py").read_text(encoding="utf-8")))
    (words,) = (
        {keyword.arg for keyword in node.keywords}
        for node in calls
        if isinstance(node, ast.Call) and ast.unparse(node.func) == "FUNCTIONS['flash_attention']"
    )
    source = RECIPES / "flash-attn-fp32" / "python" / "flash_attention" / "_attention.py"
    (function,) = (
        node
        for node in ast.parse(source.read_text(encoding="utf-8")).body
        if isinstance(node, ast.FunctionDef) and node.name == "flash_attention"
    )
    assert words <= {argument.arg for argument in function.args.kwonlyargs}
    assert {"causal", "softmax_scale", "return_lse"} <= words
