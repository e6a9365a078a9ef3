"""What upstream's feature switches leave in a package, in words: the rows of the page's table of profiles."""

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Final


@dataclass(frozen=True, slots=True, kw_only=True)
class Feature:
    """Something a package can or cannot do; `name` is what users call it, `argument` how they ask for it in a call."""

    switch: str
    name: str
    argument: str = ""

    def within(self, switches: Iterable[str]) -> bool:
        """Whether a package compiled with these switches has it."""
        asked = self.switch in set(switches)
        return asked if self.switch.startswith("ENABLE_") else not asked


FEATURES: Final = (
    Feature(switch="DISABLE_BACKWARD", name="Backward pass, for training"),
    Feature(switch="DISABLE_FP16", name="float16 (bfloat16 is always there)"),
    Feature(switch="DISABLE_FP8", name="float8", argument="float8_e4m3fn"),
    Feature(switch="ENABLE_VCOLMAJOR", name="float8 values in column-major order"),
    Feature(switch="DISABLE_HDIM64", name="Own size for head dimension 64"),
    Feature(switch="DISABLE_HDIM96", name="Own size for head dimension 96"),
    Feature(switch="DISABLE_HDIM128", name="Own size for head dimension 128"),
    Feature(switch="DISABLE_HDIM192", name="Own size for head dimension 192"),
    Feature(switch="DISABLE_HDIM256", name="Own size for head dimension 256"),
    Feature(switch="DISABLE_HDIMDIFF64", name="Keys up to 64 with values of 256 or 512"),
    Feature(switch="DISABLE_HDIMDIFF192", name="Keys up to 192 with values up to 128"),
    Feature(switch="DISABLE_VARLEN", name="Sequences of different lengths", argument="cu_seqlens"),
    Feature(switch="DISABLE_PAGEDKV", name="Paged KV cache", argument="page_table"),
    Feature(switch="DISABLE_APPENDKV", name="Appending to the KV cache in the call", argument="k, v"),
    Feature(switch="DISABLE_SPLIT", name="Keys split over thread blocks", argument="num_splits"),
    Feature(switch="DISABLE_LOCAL", name="Sliding window", argument="window_size"),
    Feature(switch="DISABLE_SOFTCAP", name="Soft cap on the scores", argument="softcap"),
    Feature(switch="DISABLE_PACKGQA", name="Query heads of one key head packed together", argument="pack_gqa"),
    Feature(switch="DISABLE_CLUSTER", name="Thread block clusters"),
    Feature(switch="DISABLE_SM80", name="Code for A100 (sm_80) too"),
)


def features_of(switches: Iterable[str]) -> tuple[Feature, ...]:
    """List every feature known, and after these one for each of `switches` that is not, by its bare name."""
    known = {feature.switch for feature in FEATURES}
    return (*FEATURES, *(Feature(switch=switch, name=switch) for switch in sorted(set(switches) - known)))
