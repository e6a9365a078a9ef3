"""Words of nvcc that we choose in place of upstream's: they make objects small and leave every kernel as it is."""

from collections.abc import Sequence
from dataclasses import replace
from typing import Final

from hopperforge.model.pack import Unit

UPSTREAM_LEVEL: Final = "-O3"
# nvcc's -O is of host code alone: cicc and ptxas get the same words whatever it is. Host code here launches kernels: at
# level 1 it packs by 13 % better, for at most 0.1 us a launch (docs/explanation/size.md).
HOST_LEVEL: Final = "-O1"


def small(unit: Unit, compress: Sequence[str]) -> Unit:
    """Have a unit compiled small; `compress` are the toolkit's words for compressed machine code."""
    arguments = (HOST_LEVEL if word == UPSTREAM_LEVEL else word for word in unit.arguments)
    return replace(unit, arguments=(*arguments, *compress))
