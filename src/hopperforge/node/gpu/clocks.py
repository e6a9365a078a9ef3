"""The GPU's clock, temperature and power, and what holds its clock down: asked of the driver's management library."""

from __future__ import annotations

import ctypes
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Any, Callable

_SM = 1  # NVML_CLOCK_SM
_ROOM = 32  # for the address of a device on its bus
REASONS = {
    0x1: "idle",
    0x2: "applications clocks",
    0x4: "power cap",
    0x8: "hardware slowdown",
    0x10: "sync boost",
    0x20: "software thermal slowdown",
    0x40: "hardware thermal slowdown",
    0x80: "power brake",
    0x100: "display clocks",
}
"""The bits that nvidia-smi shows as clocks_event_reasons, clocks_throttle_reasons before."""


@dataclass(frozen=True)
class Reading:
    """One look at the GPU; None or "unknown" where the driver does not tell."""

    mhz: int | None
    celsius: int | None
    watts: float | None
    reasons: tuple[str, ...]


@dataclass(frozen=True)
class Clocks:
    """What several looks saw: the lowest and highest clock, and every reason but idleness."""

    lowest: int | None
    highest: int | None
    reasons: tuple[str, ...]

    @classmethod
    def of(cls, readings: Iterable[Reading]) -> Clocks:
        """Sum up."""
        taken = tuple(readings)
        clocks = [one.mhz for one in taken if one.mhz is not None]
        reasons = dict.fromkeys(reason for one in taken for reason in one.reasons if reason != "idle")
        return cls(min(clocks, default=None), max(clocks, default=None), tuple(reasons))


def named_reasons(bits: int) -> tuple[str, ...]:
    """Name the bits of a mask; one that has no name here is given as its number."""
    rest = bits & ~sum(REASONS)
    return (*(name for bit, name in REASONS.items() if bits & bit), *([f"reason {rest:#x}"] if rest else []))


class Meter:
    """Asks about the GPU that CUDA counts as the first; `load` opens a library by its name."""

    def __init__(self, load: Callable[[str], Any] = ctypes.CDLL) -> None:
        self._handle = ctypes.c_void_p()
        self._library = self._open(load)

    def _open(self, load: Callable[[str], Any]) -> Any:
        """Find the device by its address on the bus, for the library counts devices that CUDA was not shown, too."""
        address = ctypes.create_string_buffer(_ROOM)
        try:
            cuda, library = load("libcuda.so.1"), load("libnvidia-ml.so.1")
            good = (
                cuda.cuInit(0) == 0
                and cuda.cuDeviceGetPCIBusId(address, _ROOM, 0) == 0
                and library.nvmlInit_v2() == 0
                and library.nvmlDeviceGetHandleByPciBusId_v2(address, ctypes.byref(self._handle)) == 0
            )
        except (OSError, AttributeError):
            return None
        return library if good else None

    @property
    def works(self) -> bool:
        """Whether the library was found and knows the GPU."""
        return self._library is not None

    def read(self) -> Reading:
        """Look once."""
        if self._library is None:
            return Reading(None, None, None, ("unknown",))
        bits = self._ask("nvmlDeviceGetCurrentClocksThrottleReasons", ctypes.c_ulonglong())
        power = self._ask("nvmlDeviceGetPowerUsage", ctypes.c_uint())
        return Reading(
            mhz=self._ask("nvmlDeviceGetClockInfo", ctypes.c_uint(), _SM),
            celsius=self._ask("nvmlDeviceGetTemperature", ctypes.c_uint(), 0),
            watts=None if power is None else power / 1000,
            reasons=("unknown",) if bits is None else named_reasons(bits),
        )

    def highest(self) -> int | None:
        """Give the highest clock of the GPU, in MHz."""
        return None if self._library is None else self._ask("nvmlDeviceGetMaxClockInfo", ctypes.c_uint(), _SM)

    def _ask(self, name: str, answer: Any, *which: int) -> int | None:
        try:
            status = getattr(self._library, name)(self._handle, *which, ctypes.byref(answer))
        except AttributeError:  # a driver that does not have it
            return None
        return int(answer.value) if status == 0 else None


def reasons_text(reasons: Sequence[str]) -> str:
    """Write what holds the clock down."""
    return ", ".join(reasons) or "nothing"
