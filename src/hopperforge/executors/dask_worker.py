"""What runs inside a worker of a Dask cluster, whatever the work is: doing it, and ending it when nobody wants it.

Dask forgets a task that is cancelled, but lets its thread run on. A plugin hears of it and sets the task's stop event;
it hears as well when the worker itself ends, for instance because its scheduler died.
"""

import asyncio
import contextlib
import threading
from collections.abc import Callable, Iterator
from typing import Any, Final, TypeVar

from distributed import Worker, WorkerPlugin, get_worker

ArgumentT = TypeVar("ArgumentT")
ResultT = TypeVar("ResultT")

_NAME: Final = "hopperforge-stops"
_UNWANTED: Final = frozenset({"cancelled", "released", "forgotten"})
_QUIET_SECONDS: Final = 15.0  # ending a compiler takes up to twice run.process.GRACE_SECONDS


class WorkerLost(Exception):  # noqa: N818 - a state the executor acts on, not the failure itself
    """The worker went away, or was started anew, before its work was done."""


class Stops(WorkerPlugin):
    """The stop events of what runs on one worker, by task key."""

    def __init__(self) -> None:
        self._events: dict[str, threading.Event] = {}
        self._changed = threading.Condition()

    @contextlib.contextmanager
    def watching(self, key: str) -> Iterator[threading.Event]:
        """Give a task its stop event for as long as it runs."""
        stop = self._events[key] = threading.Event()
        try:
            yield stop
        finally:
            with self._changed:
                del self._events[key]
                self._changed.notify_all()

    def transition(self, key: Any, start: str, finish: str, **_: Any) -> None:
        """Hear of a task's change of state."""
        event = self._events.get(str(key))
        if event is not None and start != finish and finish in _UNWANTED:
            event.set()

    def teardown(self, worker: Worker) -> None:
        """Stop everything, for the worker ends; Dask then waits for its threads."""
        del worker
        for event in tuple(self._events.values()):
            event.set()

    async def quiet(self, word: str) -> None:
        """Wait, not for ever, until nothing runs whose key has `word` in it."""
        await asyncio.to_thread(self._wait, word)

    def _wait(self, word: str) -> None:
        with self._changed:
            self._changed.wait_for(lambda: not any(word in key for key in tuple(self._events)), _QUIET_SECONDS)


async def install(dask_worker: Worker) -> None:
    """Make a worker hear when work is no longer wanted."""
    if _NAME not in dask_worker.plugins:
        await dask_worker.plugin_add(Stops(), name=_NAME, catch_errors=False)


async def quiet(word: str, dask_worker: Worker) -> None:
    """Wait, not for ever, until a worker does nothing any more whose key has `word` in it."""
    stops = dask_worker.plugins.get(_NAME)
    if isinstance(stops, Stops):
        await stops.quiet(word)


def perform(
    function: Callable[[ArgumentT, int, threading.Event], ResultT], argument: ArgumentT, memory: int
) -> ResultT:
    """Do the work of the present task; `memory` is what the worker has for everything, in bytes."""
    worker = get_worker()
    stops = worker.plugins.get(_NAME)
    if not isinstance(stops, Stops):  # another process has taken the worker's place
        raise WorkerLost
    with stops.watching(str(worker.get_current_task())) as stop:
        return function(argument, memory, stop)
