"""Which backend takes a call: facts about each in one table, and pure functions over it. Needs no torch.

A backend that lacks a feature is excluded, with a sentence that says why; none is ever given a call it would answer
wrongly. Of those left the first in the order of speed is taken. What is on the machine comes in as `Found`, what is
asked as `Call`; both are plain values, so that every combination can be tested without a GPU.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, field, replace

Capability = tuple[int, int]

# What a call may need, in words that go behind "it has no ...".
CAUSAL = "causal mask"
UNALIGNED = "causal mask aligned with the last key"
WINDOW = "sliding window"
SOFTCAP = "softcap"
DROPOUT = "dropout"
DROPOUT_OF_ALL = "dropout of every weight"
MASK = "mask"
BIAS = "bias"
WIDE_BIAS = "bias of a dtype that q's cannot hold"
BIAS_GRADIENT = "gradient of the bias"
GRADIENTS = "backward pass"
LSE = "log-sum-exp"
LSE_GRADIENT = "gradient of the log-sum-exp"
MERGE_GRADIENT = "gradient of the log-sum-exp of parts that are merged"
DETERMINISTIC = "backward pass that is the same every run"
VALUE_HEAD_DIM = "value head dim beside another of q and k"
ONE_POSITION = "answer for a single query or key"
EMPTY = "answer to tensors without elements"

FEATURES = (
    CAUSAL,
    UNALIGNED,
    WINDOW,
    SOFTCAP,
    DROPOUT,
    DROPOUT_OF_ALL,
    MASK,
    BIAS,
    WIDE_BIAS,
    BIAS_GRADIENT,
    GRADIENTS,
    LSE,
    LSE_GRADIENT,
    MERGE_GRADIENT,
    DETERMINISTIC,
    VALUE_HEAD_DIM,
    ONE_POSITION,
    EMPTY,
)
EVERYTHING = frozenset(FEATURES)

FLOAT8, FLOAT16, BFLOAT16 = "float8_e4m3fn", "float16", "bfloat16"
FLOAT32, FLOAT64 = "float32", "float64"
PYTORCH = "torch"
"""The package of backends that torch brings itself."""

_ANY: Capability = (0, 0)
_VOLTA, _AMPERE, _HOPPER = (7, 0), (8, 0), (9, 0)
_LARGE_SHARED: frozenset[Capability] = frozenset({(8, 0), (9, 0), (10, 0), (10, 3)})
_WIDE = 192
_FP32_FASTEST = 64


@dataclass(frozen=True, slots=True, kw_only=True)
class Backend:
    """What an implementation can do.

    `package` is the distribution it comes in. `dtypes` maps each dtype it takes to the oldest compute capability for
    it. `newest` is the newest capability it runs on, None where there is no bound; `anywhere` says whether it also
    takes tensors that are on no NVIDIA GPU. `multiple` and `largest` bound head dims, `deterministic` those whose
    gradients can be the same every run; without `wide_backward`, gradients of those above 192 need a GPU with the
    shared memory of a data centre's. `apart` are pairs of features that it has, but not together.
    """

    name: str
    title: str
    package: str
    dtypes: Mapping[str, Capability]
    features: frozenset[str]
    newest: Capability | None = None
    anywhere: bool = False
    multiple: int = 1
    largest: int | None = None
    wide_backward: bool = True
    deterministic: int | None = None
    apart: tuple[tuple[str, str], ...] = ()


@dataclass(frozen=True, slots=True, kw_only=True)
class Call:
    """What a call asks: where its tensors are, what they are, and the features it needs.

    `capability` is that of the GPU, None on other devices. `dtype` is written like "bfloat16".
    """

    device: str
    capability: Capability | None
    dtype: str
    head_dim: int
    needs: frozenset[str] = frozenset()


@dataclass(frozen=True, slots=True, kw_only=True)
class Found:
    """What the machine has of a backend: its version, or the `problem` that keeps it from being used.

    `switches` are those an FA3 package was trimmed by, such as DISABLE_BACKWARD.
    """

    version: str | None = None
    problem: str | None = None
    switches: frozenset[str] = frozenset()


@dataclass(frozen=True, slots=True, kw_only=True)
class Verdict:
    """Whether a backend takes a call; `reason` says why not, None if it does."""

    backend: str
    version: str | None
    reason: str | None

    @property
    def usable(self) -> bool:
        """Whether nothing speaks against it."""
        return self.reason is None


@dataclass(frozen=True, slots=True, kw_only=True)
class Decision:
    """The backend chosen, None where there is none, and every verdict in the order they were asked in."""

    chosen: str | None
    verdicts: tuple[Verdict, ...] = field(default=())

    def __str__(self) -> str:
        lines = [
            f"{_mark(self, verdict)} {_named(verdict):28} {verdict.reason or 'usable'}" for verdict in self.verdicts
        ]
        return "\n".join([f"chosen: {self.chosen or 'none'}", *lines])


def _mark(decision: Decision, verdict: Verdict) -> str:
    return "*" if verdict.backend == decision.chosen else " "


def _named(verdict: Verdict) -> str:
    return f"{verdict.backend} {verdict.version}" if verdict.version else verdict.backend


# The kernels of FA2, FA3 and SDPA read 16 bytes at once. Left out is what no GPU has shown: cuDNN with dropout, SDPA
# under deterministic algorithms, wider value heads in FA3, and the backward passes of FA2 and FA3 for parts that are
# merged. Those of SDPA are in, though no GPU has shown them yet: their formula is shown by the CPU's kernel in float64.
_FA3_FEATURES = frozenset({CAUSAL, UNALIGNED, WINDOW, SOFTCAP, GRADIENTS, LSE, DETERMINISTIC, ONE_POSITION})
_FA3_DTYPES = {BFLOAT16: _HOPPER, FLOAT16: _HOPPER, FLOAT8: _HOPPER}
_HALVES = {BFLOAT16: _AMPERE, FLOAT16: _AMPERE}

BACKENDS: Mapping[str, Backend] = {
    backend.name: backend
    for backend in (
        Backend(
            name="fa3_fwd",
            title="FlashAttention-3 of hopperforge",
            package="fa3-fwd",
            dtypes=_FA3_DTYPES,
            newest=_HOPPER,
            multiple=8,
            largest=256,
            deterministic=192,
            features=_FA3_FEATURES,
        ),
        Backend(
            name="flash_attn_3",
            title="FlashAttention-3 of upstream",
            package="flash-attn-3",
            dtypes=_FA3_DTYPES,
            newest=_HOPPER,
            multiple=8,
            largest=256,
            deterministic=192,
            features=_FA3_FEATURES,
        ),
        Backend(
            name="flash_attn",
            title="FlashAttention-2",
            package="flash-attn",
            dtypes=_HALVES,
            multiple=8,
            largest=256,
            wide_backward=False,
            features=frozenset(
                {CAUSAL, UNALIGNED, WINDOW, SOFTCAP, DROPOUT, GRADIENTS, LSE, DETERMINISTIC, ONE_POSITION}
            ),
            apart=((SOFTCAP, DROPOUT), (LSE, DROPOUT)),
        ),
        Backend(
            name="flash_attention",
            title="FlashAttention in float32 of hopperforge",
            package="flash-attn-fp32",
            dtypes={FLOAT32: _VOLTA},
            largest=128,
            features=EVERYTHING - {WINDOW, SOFTCAP, WIDE_BIAS, BIAS_GRADIENT, EMPTY},
        ),
        Backend(
            name="sdpa_cudnn",
            title="torch SDPA by cuDNN",
            package=PYTORCH,
            dtypes=_HALVES,
            multiple=8,
            largest=128,
            features=frozenset({CAUSAL, GRADIENTS, LSE, MERGE_GRADIENT}),  # torch refuses it a single key, or query
        ),
        Backend(
            name="sdpa_flash",
            title="torch SDPA by FlashAttention-2",
            package=PYTORCH,
            dtypes=_HALVES,
            multiple=8,
            largest=256,
            wide_backward=False,
            features=frozenset({CAUSAL, DROPOUT, GRADIENTS, LSE, MERGE_GRADIENT, ONE_POSITION}),
            apart=((LSE, DROPOUT),),
        ),
        Backend(
            name="sdpa_efficient",
            title="torch SDPA, memory-efficient",
            package=PYTORCH,
            dtypes={BFLOAT16: _AMPERE, FLOAT16: _VOLTA, FLOAT32: _VOLTA},
            multiple=8,
            features=frozenset({CAUSAL, UNALIGNED, WINDOW, MASK, BIAS, DROPOUT, GRADIENTS, ONE_POSITION}),
        ),
        Backend(
            name="sdpa_math",
            title="torch SDPA in plain operations",
            package=PYTORCH,
            dtypes=dict.fromkeys((BFLOAT16, FLOAT16, FLOAT32, FLOAT64), _ANY),
            anywhere=True,
            features=EVERYTHING - {SOFTCAP, WIDE_BIAS, LSE, LSE_GRADIENT, MERGE_GRADIENT, EMPTY},
        ),
        Backend(
            name="eager",
            title="plain torch, with every feature",
            package=PYTORCH,
            dtypes=dict.fromkeys((BFLOAT16, FLOAT16, FLOAT32, FLOAT64, FLOAT8), _ANY),
            anywhere=True,
            features=EVERYTHING,
        ),
    )
}

# Measured on an H200 with torch 2.11 (benchmarks/attention_choice.py), forward at head dim 128: FA3 is up to 1.2 times
# as fast as cuDNN from 2048 tokens on, and equal at 512; cuDNN is 1.3 to 2 times as fast as torch's FA2, both passes
# too. On A100 and its kin torch itself prefers FA2 to cuDNN; nothing was measured there, nor FA3's own kernels of head
# dims other than 128, nor again since these orders were set. Order never decides whether an answer is right.
_PLAIN = ("flash_attention", "sdpa_efficient", "sdpa_math", "eager")
_ORDERS: tuple[tuple[Capability, tuple[str, ...]], ...] = (
    (_HOPPER, ("fa3_fwd", "flash_attn_3", "sdpa_cudnn", "flash_attn", "sdpa_flash", *_PLAIN)),
    (_ANY, ("fa3_fwd", "flash_attn_3", "flash_attn", "sdpa_flash", "sdpa_cudnn", *_PLAIN)),
)

_SWITCHED: Mapping[str, frozenset[str]] = {
    "DISABLE_BACKWARD": frozenset({GRADIENTS, DETERMINISTIC}),
    "DISABLE_LOCAL": frozenset({WINDOW}),
    "DISABLE_SOFTCAP": frozenset({SOFTCAP}),
}
_SWITCHED_DTYPES = {"DISABLE_FP16": FLOAT16, "DISABLE_FP8": FLOAT8}
_FA3_HEAD_DIMS = (64, 96, 128, 192, 256)


def trim(backend: Backend, switches: Collection[str]) -> Backend:
    """What is left of an FA3 backend that was compiled with `switches` on.

    A head dim runs in the next compiled one up, so that only the largest matters.
    """
    lost = frozenset().union(*(_SWITCHED.get(switch, frozenset()) for switch in switches))
    gone = {_SWITCHED_DTYPES.get(switch) for switch in switches}
    compiled = [dim for dim in _FA3_HEAD_DIMS if f"DISABLE_HDIM{dim}" not in switches]
    return replace(
        backend,
        features=backend.features - lost,
        dtypes={dtype: oldest for dtype, oldest in backend.dtypes.items() if dtype not in gone},
        largest=max(compiled, default=0),
    )


def reason_against(backend: Backend, found: Found, call: Call) -> str | None:
    """Say in one sentence why a backend cannot take a call; None if it can."""
    if found.problem is not None:
        return found.problem
    able = trim(backend, found.switches) if found.switches else backend
    on_device = device_reason(able, call.device, call.capability)
    return on_device or _tensor_reason(able, call) or _feature_reason(able, call)


def device_reason(backend: Backend, device: str, capability: Capability | None) -> str | None:
    """Say why a backend runs on no call at all on a device; None if there is a dtype that it takes there."""
    oldest = min(backend.dtypes.values(), default=_ANY)
    runs = f"it runs on NVIDIA GPUs of compute capability {_range(oldest, backend.newest)}"
    if capability is not None:
        within = oldest <= capability and (backend.newest is None or capability <= backend.newest)
        return None if within else f"{runs}, and this is {_dot(capability)}"
    return None if backend.anywhere else f"{runs}, and this is {device}"


def _tensor_reason(backend: Backend, call: Call) -> str | None:
    oldest = backend.dtypes.get(call.dtype)
    if oldest is None:
        return f"it takes {', '.join(backend.dtypes) or 'no dtype'}, not {call.dtype}"
    if call.capability is not None and call.capability < oldest:
        return f"it takes {call.dtype} from compute capability {_dot(oldest)} on, and this is {_dot(call.capability)}"
    if backend.largest is not None and call.head_dim > backend.largest:
        return f"its head dims go up to {backend.largest}, and this is {call.head_dim}"
    # FP8 has one byte an element
    multiple = 2 * backend.multiple if call.dtype == FLOAT8 else backend.multiple
    if call.head_dim % multiple:
        return f"its head dims are multiples of {multiple}, and this is {call.head_dim}"
    return None


def _feature_reason(backend: Backend, call: Call) -> str | None:
    lacking = [feature for feature in FEATURES if feature in call.needs - backend.features]
    if lacking:
        return f"it has no {' and no '.join(lacking)}"
    if call.dtype == FLOAT8 and GRADIENTS in call.needs:
        return "it has no backward pass of float8"
    if DETERMINISTIC in call.needs and backend.deterministic is not None and call.head_dim > backend.deterministic:
        return f"it has no {DETERMINISTIC} of head dims above {backend.deterministic}"
    wide = call.head_dim > _WIDE and GRADIENTS in call.needs and call.capability not in _LARGE_SHARED
    if wide and call.capability is not None and not backend.wide_backward:
        return (
            f"its backward pass of head dims above {_WIDE} does not run on compute capability {_dot(call.capability)}"
        )
    for first, second in backend.apart:
        if {first, second} <= call.needs:
            return f"it has no {first} together with {second}"
    return None


def _range(oldest: Capability, newest: Capability | None) -> str:
    if newest is None:
        return f"{_dot(oldest)} and newer"
    return _dot(oldest) if oldest == newest else f"{_dot(oldest)} to {_dot(newest)}"


def _dot(capability: Capability) -> str:
    return f"{capability[0]}.{capability[1]}"


def speed_order(found: Mapping[str, Found], call: Call) -> tuple[str, ...]:
    """Every backend, the fastest first, for a call on a GPU; without one the order is that of the oldest.

    Measured on an H200, as above, with flash-attn-fp32 before it multiplied on tensor cores:

    | call                                                    | is taken later                                      |
    |---------------------------------------------------------|-----------------------------------------------------|
    | a head dim for which an FA3 package has only a kernel   | FA3 than cuDNN: at 64 in a kernel of 128 it took    |
    | of a larger one                                         | 1.3 to 1.8 times as long                            |
    | float32, head dims above 64                             | flash-attn-fp32 than SDPA's memory-efficient, 1.1   |
    |                                                         | to 1.2 times as long; at 64 it is the faster by up  |
    |                                                         | to 1.15                                             |
    """
    order = next(names for since, names in _ORDERS if (call.capability or _ANY) >= since)
    for name, rival in (("fa3_fwd", "sdpa_cudnn"), ("flash_attn_3", "sdpa_cudnn")):
        if rounds_up(found[name].switches, call.head_dim):
            order = _later(order, name, rival)
    if call.dtype == FLOAT32 and call.head_dim > _FP32_FASTEST:
        order = _later(order, "flash_attention", "sdpa_efficient")
    return order


def rounds_up(switches: Collection[str], head_dim: int) -> bool:
    """Whether FA3 trimmed by `switches` takes a head dim by a kernel of a larger one than upstream would."""
    own = next((dim for dim in _FA3_HEAD_DIMS if dim >= head_dim), None)
    return own is not None and f"DISABLE_HDIM{own}" in switches


def _later(order: Sequence[str], name: str, rival: str) -> tuple[str, ...]:
    """The order with `name` right behind `rival`, if it is before it."""
    if order.index(name) > order.index(rival):
        return tuple(order)
    kept = [one for one in order if one != name]
    kept.insert(kept.index(rival) + 1, name)
    return tuple(kept)


def decide(found: Mapping[str, Found], call: Call, wanted: Sequence[str] = ()) -> Decision:
    """Choose the backend for a call.

    `wanted`, where given, are the only ones allowed, the most wanted first; nothing else is taken instead. Verdicts
    are given on all others too. `found` must tell of every backend; ValueError for a wanted name that there is none of.
    """
    unknown = [name for name in wanted if name not in BACKENDS]
    if unknown:
        raise ValueError(f"there is no attention backend {unknown[0]}; there are {', '.join(BACKENDS)}")
    order = speed_order(found, call)
    asked = (*wanted, *(name for name in order if name not in wanted))
    verdicts = tuple(_judge(name, found[name], call) for name in asked)
    allowed = wanted or order
    chosen = next((verdict.backend for verdict in verdicts if verdict.usable and verdict.backend in allowed), None)
    return Decision(chosen=chosen, verdicts=verdicts)


def _judge(name: str, found: Found, call: Call) -> Verdict:
    reason = reason_against(BACKENDS[name], found, call)
    return Verdict(backend=name, version=found.version, reason=reason)
