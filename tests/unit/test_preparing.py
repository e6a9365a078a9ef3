"""Whose memory is held by an executor, and whose by nobody."""

from pathlib import Path

from tests.unit.unit_zoo import forward_units, recipe_rules

from hopperforge.merging import merge_units
from hopperforge.model.machine import Need
from hopperforge.model.request import Kernels
from hopperforge.model.versions import ToolkitVersion
from hopperforge.preparing import needs_of
from hopperforge.report import Recorder
from hopperforge.store.costs import load_costs

CUDA = ToolkitVersion.parse("13.0")


def test_upstream_ninja_is_not_trusted_to_wait_for_room() -> None:
    """It starts MAX_JOBS at once, so those have to fit at their peaks, all of them."""
    costs = load_costs(Path("/nonexistent"), Recorder())
    units = merge_units(forward_units(), recipe_rules())
    needs = needs_of(units, costs, CUDA, Kernels.PACK)
    assert needs is not None
    assert sum(need.later < need.peak for need in needs) == sum(bool(unit.merged) for unit in units) == 14
    assert max(needs, key=lambda need: need.peak) == Need(peak=8_643_621_683, later=5_791_226_528)
    assert needs_of(units, costs, CUDA, Kernels.INLINE) is None
