"""The words of bench, memory and verify-install: `key=value[,value]`. Pure."""

from __future__ import annotations

import difflib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

CHOOSER = "hopper_attention"
"""Takes one of the others for each call, and so competes with none of them."""
BACKENDS = (
    CHOOSER,
    "fa3_fwd",
    "flash_attn_3",
    "flash_attn_2",
    "fp32",
    "sdpa_cudnn",
    "sdpa_flash",
    "sdpa_efficient",
    "sdpa_math",
    "eager",
)
DTYPES = ("bf16", "fp16", "fp32", "fp8")
DIRECTIONS = ("forward", "backward")
LARGEST = 1 << 24
_BENCH_HINT = "hopperforge bench seqlen=1024,4096 headdim=128 dtype=bf16 causal=both direction=forward out=bench"
_MEMORY_HINT = "hopperforge memory seqlen=1024,4096,16384 headdim=128 causal=on direction=both out=memory"
_VERIFY_HINT = "hopperforge verify-install wheelhouse/WHEEL key=PUBLIC.pem   # or the name of an installed package"


class WordsError(Exception):
    """Words are wrong; `detail` lists every one of several, `hint` is a line that is right."""

    def __init__(self, problems: Sequence[str], hint: str) -> None:
        self.sentence = problems[0] if len(problems) == 1 else f"{len(problems)} words are wrong"
        self.detail = () if len(problems) == 1 else tuple(problems)
        self.hint = hint
        super().__init__(self.sentence)


@dataclass(frozen=True)
class Shape:
    """Self-attention of one shape; `direction` is "forward" or "backward", the gradients of q, k and v alone."""

    batch: int
    seqlen: int
    heads: int
    head_dim: int
    dtype: str
    causal: bool
    direction: str

    @property
    def operations(self) -> float:
        """Floating-point operations that count: two products forward, five backward; causal needs half of them."""
        products = 2 if self.direction == "forward" else 5
        return 2 * products * self.batch * self.heads * self.seqlen**2 * self.head_dim / (2 if self.causal else 1)

    @property
    def panel(self) -> str:
        """What all lengths of a panel of the chart have in common."""
        mask = "causal" if self.causal else "no mask"
        return f"{self.direction}, {self.dtype}, head dim {self.head_dim}, {mask}"


@dataclass(frozen=True)
class BenchWords:
    """What bench is asked for; a sequence is as often in a batch as `tokens` allow, once at least."""

    seqlens: tuple[int, ...] = (1024, 4096, 16384)
    head_dims: tuple[int, ...] = (128,)
    dtypes: tuple[str, ...] = ("bf16",)
    causals: tuple[bool, ...] = (False, True)
    directions: tuple[str, ...] = ("forward",)
    backends: tuple[str, ...] = BACKENDS
    heads: int = 16
    tokens: int = 16384
    rounds: int = 5
    samples: int = 7
    out: str | None = None

    def shapes(self) -> tuple[Shape, ...]:
        """Give the grid, in the order of the panels and of the lengths in them."""
        return tuple(
            Shape(max(1, self.tokens // seqlen), seqlen, self.heads, head_dim, dtype, causal, direction)
            for direction in self.directions
            for dtype in self.dtypes
            for head_dim in self.head_dims
            for causal in self.causals
            for seqlen in self.seqlens
        )


@dataclass(frozen=True)
class MemoryWords:
    """What memory is asked for."""

    seqlens: tuple[int, ...] = (1024, 2048, 4096, 8192, 16384)
    head_dim: int = 128
    dtype: str = "bf16"
    causal: bool = True
    directions: tuple[str, ...] = DIRECTIONS
    backends: tuple[str, ...] = BACKENDS
    heads: int = 16
    batch: int = 1
    out: str | None = None

    def shapes(self) -> tuple[Shape, ...]:
        """Give the shapes, by direction and length."""
        return tuple(
            Shape(self.batch, seqlen, self.heads, self.head_dim, self.dtype, self.causal, direction)
            for direction in self.directions
            for seqlen in self.seqlens
        )


@dataclass(frozen=True)
class VerifyWords:
    """What verify-install is asked for: a wheel's file or a project's name, public keys, and a record's file."""

    subject: str = "fa3-fwd"
    keys: tuple[str, ...] = ()
    record: str | None = None


def parse_bench(words: Sequence[str]) -> BenchWords:
    """Read the words of bench; WordsError lists every wrong one."""
    known = BenchWords()
    reader = _Reader(words, _BENCH_HINT)
    found = BenchWords(
        seqlens=reader.numbers("seqlen", known.seqlens),
        head_dims=reader.numbers("headdim", known.head_dims),
        dtypes=reader.choices("dtype", DTYPES, known.dtypes),
        causals=reader.causals(known.causals),
        directions=reader.directions(known.directions),
        backends=reader.choices("backends", BACKENDS, known.backends),
        heads=reader.number("heads", known.heads),
        tokens=reader.number("tokens", known.tokens),
        rounds=reader.number("rounds", known.rounds),
        samples=reader.number("samples", known.samples),
        out=reader.text("out"),
    )
    reader.finish()
    return found


def parse_memory(words: Sequence[str]) -> MemoryWords:
    """Read the words of memory; WordsError lists every wrong one."""
    known = MemoryWords()
    reader = _Reader(words, _MEMORY_HINT)
    causal = reader.causals((known.causal,))
    found = MemoryWords(
        seqlens=tuple(sorted(reader.numbers("seqlen", known.seqlens))),
        head_dim=reader.number("headdim", known.head_dim),
        dtype=reader.choice("dtype", DTYPES, known.dtype),
        causal=causal[-1],
        directions=reader.directions(known.directions),
        backends=reader.choices("backends", BACKENDS, known.backends),
        heads=reader.number("heads", known.heads),
        batch=reader.number("batch", known.batch),
        out=reader.text("out"),
    )
    if len(causal) > 1:
        reader.problems.append("causal=both: memory measures one of the two, on or off")
    reader.finish()
    return found


def parse_verify(words: Sequence[str]) -> VerifyWords:
    """Read the words of verify-install; WordsError lists every wrong one."""
    named = [word for word in words if "=" not in word or word.endswith(".whl")]
    reader = _Reader([word for word in words if word not in named], _VERIFY_HINT)
    keys = reader.text("key")
    found = VerifyWords(
        subject=named[0] if named else VerifyWords().subject,
        keys=() if keys is None else tuple(keys.split(",")),
        record=reader.text("record"),
    )
    if len(named) > 1:
        reader.problems.append(f"one wheel or name at a time, and these are {len(named)}: {', '.join(named)}")
    reader.finish()
    return found


class _Reader:
    """Takes the words one by one and keeps every problem until the end."""

    def __init__(self, words: Sequence[str], hint: str) -> None:
        self.problems: list[str] = []
        self._hint = hint
        self._left = self._split(words)
        self._asked: list[str] = []

    def _split(self, words: Sequence[str]) -> dict[str, str]:
        found: dict[str, str] = {}
        for word in words:
            key, equals, value = word.partition("=")
            if not equals or not value:
                self.problems.append(f'"{word}" is no word of the form key=value')
            elif key in found:
                self.problems.append(f"{key}= is given twice")
            else:
                found[key] = value
        return found

    def text(self, key: str) -> str | None:
        """Take a word as it is, None where it is not given."""
        self._asked.append(key)
        return self._left.pop(key, None)

    def numbers(self, key: str, default: tuple[int, ...]) -> tuple[int, ...]:
        """Take whole numbers, each once."""
        text = self.text(key)
        if text is None:
            return default
        parts = tuple(dict.fromkeys(text.split(",")))
        wrong = [part for part in parts if not (part.isascii() and part.isdigit() and 0 < int(part) <= LARGEST)]
        self.problems += [f'{key}={part}: "{part}" is no whole number from 1 to {LARGEST}' for part in wrong]
        return default if wrong else tuple(int(part) for part in parts)

    def number(self, key: str, default: int) -> int:
        """Take one whole number."""
        found = self.numbers(key, (default,))
        if len(found) > 1:
            self.problems.append(f"{key}= takes one number here")
        return found[0]

    def choices(self, key: str, known: Sequence[str], default: tuple[str, ...]) -> tuple[str, ...]:
        """Take some of what is known, each once, or "all"."""
        text = self.text(key)
        if text is None:
            return default
        if text == "all":
            return tuple(known)
        parts = tuple(dict.fromkeys(text.split(",")))
        wrong = [part for part in parts if part not in known]
        self.problems += [f'{key}={part}: there is no "{part}"; {_nearest(part, known)}' for part in wrong]
        return default if wrong else parts

    def choice(self, key: str, known: Sequence[str], default: str) -> str:
        """Take one of what is known."""
        found = self.choices(key, known, (default,))
        if len(found) > 1:
            self.problems.append(f"{key}= takes one of {', '.join(known)} here")
        return found[0]

    def causals(self, default: tuple[bool, ...]) -> tuple[bool, ...]:
        """Take causal=on, off or both."""
        meanings: Mapping[str, tuple[bool, ...]] = {"on": (True,), "off": (False,), "both": (False, True)}
        found = self.choice("causal", tuple(meanings), "")
        return meanings.get(found, default)

    def directions(self, default: tuple[str, ...]) -> tuple[str, ...]:
        """Take direction=forward, backward or both."""
        found = self.choice("direction", (*DIRECTIONS, "both"), "")
        return DIRECTIONS if found == "both" else (found,) if found else default

    def finish(self) -> None:
        """Refuse the words that nobody asked for, and everything else that was wrong."""
        self.problems += [f"there is no word {key}=; {_nearest(key, self._asked)}" for key in self._left]
        if self.problems:
            raise WordsError(self.problems, self._hint)


def _nearest(word: str, known: Sequence[str]) -> str:
    close = difflib.get_close_matches(word, known, n=1)
    return f"perhaps you meant {close[0]}" if close else f"there are {', '.join(known)}"
