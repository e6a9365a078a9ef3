"""The units of the profile fa3-fwd, by upstream's names, and the rules of the recipe that merges them."""

import functools
from pathlib import Path
from typing import Final

from hopperforge.config.project import load_project
from hopperforge.model.pack import Unit
from hopperforge.model.recipe import MergeRule

ROOT: Final = Path(__file__).resolve().parents[2]
FEATURES: Final = ("", "_packgqa", "_softcap", "_softcap_packgqa", "_split", "_split_softcap")
_OF_EVERY_TYPE: Final = ("64", "96", "128", "192", "192_128", "256")
_OF_BF16: Final = ("64_256", "64_512")
_SM80: Final = ("64", "96", "128", "192", "256")


def forward_units() -> list[Unit]:
    """All 96, sorted; tests/integration/test_units.py compares them with upstream's own list."""
    kinds = [f"{dim}_{kind}" for dim in _OF_EVERY_TYPE for kind in ("bf16", "e4m3")]
    kinds += [f"{dim}_bf16" for dim in _OF_BF16]
    names = [f"{kind}{feature}_sm90" for kind in kinds for feature in FEATURES]
    names += [f"{dim}_bf16{split}_softcapall_sm80" for dim in _SM80 for split in ("", "_split")]
    paths = [f"hopper/instantiations/flash_fwd_hdim{name}.cu" for name in names]
    paths += ["hopper/flash_fwd_combine.cu", "hopper/flash_prepare_scheduler.cu"]
    return [Unit(path=path, arguments=()) for path in sorted(paths)]


@functools.cache
def recipe_rules() -> tuple[MergeRule, ...]:
    """How recipes/fa3-fwd merges."""
    return load_project(ROOT).recipes["fa3-fwd"].merge
