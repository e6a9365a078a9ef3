"""What is chosen, how that is overridden, and that a graph of torch.compile has the same choice."""

from __future__ import annotations

import hopper_attention
import pytest
import torch
from hopper_attention import NoBackendError, attention, available, explain
from hopper_attention._rules import BACKENDS


def qkv(device: torch.device, dtype: torch.dtype = torch.float32, *, grad: bool = False) -> list[torch.Tensor]:
    """q, k and v of one shape."""
    return [torch.randn(2, 16, 4, 64, device=device, dtype=dtype, requires_grad=grad) for _ in range(3)]


def test_every_backend_is_told_of_with_a_version_or_a_reason() -> None:
    rows = available()
    assert [row.name for row in rows] == list(BACKENDS)
    assert all(row.usable == (row.reason is None) and (row.version or row.reason) for row in rows)
    assert {"sdpa_math", "eager"} <= {row.name for row in rows if row.usable}


def test_the_version_is_that_of_a_usable_package() -> None:
    usable = {row.name: row.version for row in available() if row.usable}
    third = [usable[name] for name in ("fa3_fwd", "flash_attn_3") if name in usable]
    assert hopper_attention.is_flash_attention_3_available() == bool(third)
    assert hopper_attention.get_flash_attention_version() == (third[0] if third else usable.get("flash_attn"))


def test_tensors_on_the_cpu_are_attended_by_torch_itself() -> None:
    decision = explain(*qkv(torch.device("cpu")), causal=True)
    assert decision.chosen == "sdpa_math"
    assert "* sdpa_math" in str(decision)
    assert "and this is cpu" in str(decision)


def test_a_named_backend_is_taken_and_nothing_else(device: torch.device) -> None:
    q, k, v = qkv(device)
    assert explain(q, k, v, backend="eager").chosen == "eager"
    assert explain(q, k, v, backend=["eager", "sdpa_math"]).chosen == "eager"
    with pytest.raises(NoBackendError, match=r"(?s)takes this call:.*sdpa_math .*it has no softcap"):
        attention(q, k, v, softcap=1.0, backend="sdpa_math")
    with pytest.raises(ValueError, match=r"there is no attention backend fa4; there are fa3_fwd, "):
        attention(q, k, v, backend="fa4")


def test_the_environment_names_backends_too(device: torch.device, monkeypatch: pytest.MonkeyPatch) -> None:
    q, k, v = qkv(device)
    monkeypatch.setenv("HOPPER_ATTENTION_BACKEND", "sdpa_math, eager")
    assert explain(q, k, v).chosen == "sdpa_math"
    assert explain(q, k, v, softcap=1.0).chosen == "eager"
    assert explain(q, k, v, backend="eager").chosen == "eager"
    monkeypatch.setenv("HOPPER_ATTENTION_BACKEND", "sdpa_math")
    with pytest.raises(NoBackendError, match="it has no softcap"):
        attention(q, k, v, softcap=1.0)


def test_a_choice_is_made_once(device: torch.device) -> None:
    q, k, v = qkv(device)
    first = explain(q, k, v, window=(3, 3))
    assert explain(k, v, q, window=(5, 1)) is first
    assert explain(q, k, v, window=(3, 3), softcap=1.0) is not first
    assert explain(q, k, v.double().float().requires_grad_(), window=(3, 3)) is not first


def test_gradients_are_needed_only_where_they_are_recorded(device: torch.device) -> None:
    """What a backend without a backward pass is excluded by; seen on any machine by a feature that needs one."""
    q, k, v = qkv(device, grad=True)
    with_gradients = explain(q, k, v, backend="sdpa_math")
    with torch.no_grad():
        assert explain(q, k, v, backend="sdpa_math") is not with_gradients
    assert explain(q.detach(), k.detach(), v, backend="sdpa_math") is with_gradients


def test_masks_that_hide_nothing_exclude_nothing(device: torch.device) -> None:
    q, k, v = qkv(device)
    plain, causal = explain(q, k, v), explain(q, k, v, causal=True)
    assert explain(q, k, v, window=(-1, -1)) is plain
    assert explain(q, k, v, causal=True, window=(-1, 4)) is causal
    last = explain(q[:, -1:], k, v)
    assert explain(q[:, -1:], k, v, causal=True) is last
    assert explain(q[:, -1:], k, v, causal=True, window=(4, 0)) is not last


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16], ids=str)
@pytest.mark.parametrize(("seqlen_q", "seqlen_k"), [(1, 1), (1, 16), (16, 1)])
def test_a_single_query_or_key_is_asked_for_and_answered(
    seqlen_q: int, seqlen_k: int, dtype: torch.dtype, device: torch.device
) -> None:
    """As in the first step of decoding, by every backend that says so: over one key the answer is its value."""
    q, k, v = qkv(device, dtype)
    q, k, v = q[:, :seqlen_q], k[:, :seqlen_k], v[:, :seqlen_k]
    verdicts = {verdict.backend: verdict for verdict in explain(q, k, v).verdicts}
    assert not verdicts["sdpa_cudnn"].usable
    for name in (name for name, verdict in verdicts.items() if verdict.usable):
        out = attention(q, k, v, backend=name)
        assert out.shape == q.shape
        if seqlen_k == 1:
            torch.testing.assert_close(out, v.expand_as(q))


@pytest.mark.parametrize(
    ("words", "grad"),
    [({}, False), ({"causal": True}, True), ({"window": (3, 0), "softcap": 2.0}, False), ({"return_lse": True}, True)],
    ids=str,
)
def test_a_compiled_graph_is_whole_and_gives_the_same(
    words: dict[str, object], grad: bool, device: torch.device
) -> None:
    def step(q: torch.Tensor, k: torch.Tensor, v: torch.Tensor) -> torch.Tensor:
        answer = attention(q, k, v, **words)
        return answer if isinstance(answer, torch.Tensor) else answer[0] + answer[1].transpose(1, 2).unsqueeze(-1)

    compiled = torch.compile(step, backend="aot_eager", fullgraph=True)
    inputs = qkv(device, grad=grad)
    out, same = compiled(*inputs), step(*inputs)
    torch.testing.assert_close(out, same)
    if grad:
        for found, right in zip(
            torch.autograd.grad(out.sum(), inputs), torch.autograd.grad(same.sum(), inputs), strict=True
        ):
            torch.testing.assert_close(found, right)


def test_a_compiled_graph_takes_any_length(device: torch.device) -> None:
    compiled = torch.compile(
        lambda q, k, v: attention(q, k, v, causal=True), backend="aot_eager", fullgraph=True, dynamic=True
    )
    for seqlen in (5, 9, 16):
        q, k, v = (tensor[:, :seqlen] for tensor in qkv(device))
        torch.testing.assert_close(compiled(q, k, v), attention(q, k, v, causal=True))


def test_a_call_that_no_backend_takes_is_refused_while_compiling(device: torch.device) -> None:
    compiled = torch.compile(
        lambda q, k, v: attention(q, k, v, softcap=1.0, backend="sdpa_math"), backend="aot_eager", fullgraph=True
    )
    with pytest.raises(Exception, match="it has no softcap"):
        compiled(*qkv(device))


def test_autocast_casts_as_torch_does(device: torch.device) -> None:
    q, k, v = qkv(device)
    with torch.autocast(device.type, dtype=torch.bfloat16):
        assert attention(q, k, v).dtype == torch.bfloat16
        assert attention(q, k.bfloat16(), v).dtype == torch.bfloat16
        assert attention(q.double(), k.double(), v.double()).dtype == torch.float64


@pytest.mark.parametrize(
    ("change", "said"),
    [
        (lambda q, k, v: (q[0], k, v), "q has 3 dimensions"),
        (lambda q, k, v: (q, k.double(), v), "q is torch.float32 and k torch.float64"),
        (lambda q, k, v: (q, k, v[:1]), "q has batch size 2 and v 1"),
        (lambda q, k, v: (q, k, v[:, :3]), "they may differ in their last dimension alone"),
        (lambda q, k, v: (q, k[..., :8], v), "q has head_dim 64 and k 8"),
        (lambda q, k, v: (q, k[:, :, :3], v[:, :, :3]), "q has 4 heads, which is no multiple of the 3 of k and v"),
        (lambda q, k, v: (q[..., :0], k[..., :0], v), "head_dim 0"),
        (lambda q, k, v: (q.int(), k.int(), v.int()), "should be of a floating point dtype"),
        (lambda q, k, v: (q, k.to_sparse(), v), "k is torch.sparse_coo"),
        (lambda q, k, v: (q, k.to("meta"), v), "they should be on one device"),
    ],
)
def test_tensors_that_do_not_go_together_are_refused(change, said: str, device: torch.device) -> None:  # noqa: ANN001
    with pytest.raises((TypeError, ValueError), match=said):
        attention(*change(*qkv(device)))


@pytest.mark.parametrize(
    ("words", "said"),
    [
        ({"dropout": 1.5}, "dropout is 1.5"),
        ({"softcap": -1.0}, "softcap is -1.0"),
        ({"softcap": float("nan")}, "softcap is nan"),
        ({"softcap": float("inf")}, "softcap is inf"),
        ({"window": (-2, 0)}, "window is"),
        ({"mask": torch.ones(16, 16)}, "did you mean bias"),
        ({"bias": torch.ones(16, 16, dtype=torch.bool)}, "did you mean mask"),
        ({"bias": torch.ones(3, 16, 16)}, "does not broadcast"),
        ({"mask": torch.ones(1, 1, 1, 1, 16, dtype=torch.bool)}, "does not broadcast"),
        ({"mask": torch.ones(16, dtype=torch.bool, device="meta")}, "they should be on one device"),
    ],
)
def test_words_that_cannot_be_are_refused(words: dict[str, object], said: str, device: torch.device) -> None:
    on_device = {
        name: value.to(device) if isinstance(value, torch.Tensor) and value.device.type != "meta" else value
        for name, value in words.items()
    }
    with pytest.raises((TypeError, ValueError), match=said):
        attention(*qkv(device), **on_device)
