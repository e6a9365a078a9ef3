"""What becomes of the record of a published package when its bytes are published again: proofs are added to it."""

import dataclasses

from hopperforge.model.record import Record
from hopperforge.model.wheel import GateResult


def join_records(published: Record, ours: Record) -> Record:
    """Add what `ours` proves and `published` does not; both are of the same bytes, and no time is compared.

    | part     | what stands                                                                                       |
    |----------|---------------------------------------------------------------------------------------------------|
    | gates    | the published ones; ours in their place where one passed and the other did not; then ours alone   |
    | cells    | those of both                                                                                     |
    | gpu      | ours if there is one, else the published one                                                      |
    | rebuilds | those of both                                                                                     |
    | rest     | the published one: how the bytes were made does not change with who publishes them                |

    Joining a second time changes nothing.
    """
    gates = {gate.name: gate for gate in published.gates}
    gates |= {gate.name: gate for gate in ours.gates if not _same_outcome(gates.get(gate.name), gate)}
    joined = dataclasses.replace(published, gates=tuple(gates.values()), gpu=ours.gpu or published.gpu)
    for reproduction in ours.reproduced:
        joined = joined.with_reproduction(reproduction)
    return joined if set(ours.cells) <= set(published.cells) else joined.with_cells(ours.cells)


def _same_outcome(published: GateResult | None, ours: GateResult) -> bool:
    return published is not None and published.passed == ours.passed


def what_was_joined(published: Record, joined: Record) -> tuple[str, ...]:
    """Name what joining changed."""
    before = {gate.name: gate.passed for gate in published.gates}
    cells = len(joined.cells) - len(published.cells)
    rebuilds = len(joined.reproduced) - len(published.reproduced)
    return (
        *(f"gate {gate.name}" for gate in joined.gates if before.get(gate.name) != gate.passed),
        *([f"{cells} cells"] if cells else []),
        *([f"{rebuilds} rebuilds"] if rebuilds else []),
        *(["the smoke tests on a GPU"] if joined.gpu != published.gpu else []),
    )
