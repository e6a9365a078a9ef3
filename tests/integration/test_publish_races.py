"""Publishers that come between: at each single step of one, another does the whole of its work.

Buckets keep nobody out; a folder whose lock is not taken is one in every way that counts here.
"""

import contextlib
import threading
from collections.abc import Callable
from contextlib import AbstractContextManager
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from tests.unit.publish_zoo import BOUND, assert_current, assert_sound, catalog_of, fetched, parcels, record_of, shelve
from tests.unit.record_zoo import GATES

from hopperforge.config.project import Project, load_project
from hopperforge.model.record import Record
from hopperforge.stages.publish import Parcel, publish, read_catalog, set_yanked
from hopperforge.store.targets import FolderTarget, Held, Mark, Target

pytestmark = [pytest.mark.integration, pytest.mark.timeout(300)]

OTHER = "3.0.1+cu124torch2.6"
STEPS = 200


class Open(FolderTarget):
    """A folder that lets everybody in."""

    def exclusive(self) -> AbstractContextManager[None]:
        """Keep nobody out."""
        return contextlib.nullcontext()


class Interrupted:
    """A target at which other things happen just before steps of its publisher, by the number of the step.

    After each step `watch` may look.
    """

    def __init__(
        self, target: Target, happen: dict[int, Callable[[], object]], watch: Callable[[], object] = lambda: None
    ) -> None:
        self._target = target
        self._happen = happen
        self._watch = watch
        self._lock = threading.Lock()
        self.steps = 0
        self.place = target.place

    def _step(self, work: Callable[[], Any]) -> Any:
        with self._lock:  # a publisher takes steps side by side; what happens between is to be between two of them
            happens = self._happen.get(self.steps)
            self.steps += 1
            if happens is not None:
                happens()
            answer = work()
            self._watch()
            return answer

    def exclusive(self) -> AbstractContextManager[None]:
        """As the target does."""
        return self._target.exclusive()

    def mark(self, name: str) -> Mark | None:
        """As the target does, a step."""
        found: Mark | None = self._step(lambda: self._target.mark(name))
        return found

    def fetch(self, name: str) -> Held | None:
        """As the target does, a step."""
        found: Held | None = self._step(lambda: self._target.fetch(name))
        return found

    def holds(self, name: str, mark: Mark | None, data: bytes) -> bool:
        """As the target does, a step."""
        return bool(self._step(lambda: self._target.holds(name, mark, data)))

    def create(self, name: str, data: bytes) -> bool:
        """As the target does, a step."""
        return bool(self._step(lambda: self._target.create(name, data)))

    def replace(self, name: str, data: bytes, seen: Mark | None) -> bool:
        """As the target does, a step."""
        return bool(self._step(lambda: self._target.replace(name, data, seen)))


@pytest.fixture(scope="module")
def pair(tmp_path_factory: pytest.TempPathFactory, project_root: Path) -> tuple[Parcel, Parcel]:
    """Two packages of one page, the first not proven yet."""
    house = tmp_path_factory.mktemp("wheelhouse")
    facts: Project = load_project(project_root)
    shelve(house, BOUND, gpu=None)
    shelve(house, OTHER)
    first, second = parcels(house, facts)
    return first, second


def at_each_step(
    folder: Path,
    prepare: Callable[[Target], object],
    work: Callable[[Target], object],
    happen: Callable[[Target], object],
) -> list[Target]:
    """Let something happen before each step of some work, in a folder of its own each time."""
    targets: list[Target] = []
    for number in range(STEPS):
        target = Open(folder / str(number))
        prepare(target)
        interrupted = Interrupted(target, {number: lambda target=target: happen(target)})  # type: ignore[misc]
        work(interrupted)
        if interrupted.steps <= number:
            return targets
        targets.append(target)
    pytest.fail(f"more than {STEPS} steps")


def test_another_publisher_at_any_step_loses_nothing_and_what_it_lists_stays_listed(
    pair: tuple[Parcel, Parcel], tmp_path: Path
) -> None:
    first, second = pair
    for number in range(STEPS):
        target = Open(tmp_path / str(number))
        listed: list[bytes] = []

        def other(target: Target = target, listed: list[bytes] = listed) -> None:
            publish(target, [second])
            listed.append(second.file.encode())

        def watch(target: Target = target, listed: list[bytes] = listed) -> None:
            assert all(name in fetched(target, "all/simple/fa3-fwd/index.html") for name in listed)

        interrupted = Interrupted(target, {number: other}, watch)
        publish(interrupted, [first])
        if interrupted.steps <= number:
            assert number > 30
            return
        assert [entry.file for entry in catalog_of(target).packages] == [first.file, second.file]
        assert_sound(target)
        assert_current(target)
    pytest.fail(f"more than {STEPS} steps")


def test_proofs_that_are_added_at_any_step_are_not_lost(pair: tuple[Parcel, Parcel], tmp_path: Path) -> None:
    first, _ = pair
    path = shelve(tmp_path / "house", BOUND)
    assert path.read_bytes() == first.load()
    bare, imported, tried = (
        replace(first, record=record_of(path, BOUND, **changes))
        for changes in ({"gates": GATES, "gpu": None}, {"gpu": None}, {"gates": GATES})
    )
    targets = at_each_step(
        tmp_path / "index",
        lambda target: publish(target, [bare]),
        lambda target: publish(target, [imported]),
        lambda target: publish(target, [tried]),
    )
    for target in targets:
        (entry,) = catalog_of(target).packages
        assert not entry.unproven
        record = Record.from_json(fetched(target, f"{entry.path}.json"), entry.path)
        assert record == record_of(path, BOUND)
        assert_current(target)


class Death(Exception):  # noqa: N818 - it is no error of the program
    """The end of a publisher."""


def test_what_a_publisher_that_died_began_is_ended_by_the_one_it_met(
    pair: tuple[Parcel, Parcel], tmp_path: Path
) -> None:
    first, second = pair

    def die(target: Target) -> None:
        left = iter(range(5))  # three files of the pool, the catalog, one page

        class Mortal(Open):
            def replace(self, name: str, data: bytes, seen: Mark | None) -> bool:
                if next(left, None) is None:
                    raise Death
                return super().replace(name, data, seen)

        with pytest.raises(Death):
            publish(Mortal(Path(target.place)), [second])

    targets = at_each_step(tmp_path, read_catalog, lambda target: publish(target, [first]), die)
    for target in targets[:-1]:  # before the last step its publisher had seen to everything
        assert [entry.file for entry in catalog_of(target).packages] == [first.file, second.file]
        assert_current(target)


def test_a_file_that_is_yanked_and_stands_again_is_never_left_between(
    pair: tuple[Parcel, Parcel], tmp_path: Path
) -> None:
    first, second = pair
    targets = at_each_step(
        tmp_path,
        lambda target: publish(target, [first, second]),
        lambda target: set_yanked(target, first.file, "slow"),
        lambda target: set_yanked(target, first.file, None),
    )
    for target in targets:
        assert_current(target)
