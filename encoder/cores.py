"""The CPU cores that an encoder owns, each with a thread whose operations never leave it.

Torch would split every operation over all cores, which then wait for one another thousands of times in a forward pass.
Here whole batches run side by side, and a single long document goes through the layers as through an assembly line.
"""

from __future__ import annotations

import os
import sys
import threading
from collections import deque
from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from typing import Any, TypeVar

import torch

_Item = TypeVar("_Item")
_Result = TypeVar("_Result")


class Cores:
    """Runs tasks of torch on ``count`` cores; with 0, for a GPU, in the caller's thread."""

    def __init__(self, count: int, *, niceness: int = 0) -> None:
        """Give way to whatever else wants the cores as much as ``niceness`` says (of Unix: 0 not at all, 19 most)."""
        self._threads = [
            ThreadPoolExecutor(1, thread_name_prefix="core", initializer=_begin_thread, initargs=(niceness,))
            for _ in range(count)
        ]
        self.count = max(count, 1)
        self._niceness = niceness

    def run(self, tasks: Sequence[Callable[[], _Result]]) -> list[_Result]:
        """Run tasks that do not depend on one another; give their results in order.

        One alone runs in the caller's thread, unless it is to give way: handing a query over and back takes as long as
        two of its layers.
        """
        if not self._threads:
            return [task() for task in tasks]
        if len(tasks) == 1 and not self._niceness:
            return [_on_one_core(tasks[0])]
        futures = [self._threads[number % self.count].submit(task) for number, task in enumerate(tasks)]
        return _results(futures)

    def run_stages(self, items: Iterable[_Item], stages: Sequence[Callable[[Any], Any]]) -> Iterator[Any]:
        """Pass each item through all stages (at most ``count``), each on a core of its own; yield what comes out.

        A stage takes the items one after the other, in their order. As many are under way as there are stages.
        """
        if not self._threads:
            for item in items:
                result: Any = item
                for stage in stages:
                    result = stage(result)
                yield result
            return
        under_way: deque[Future[Any]] = deque()
        try:
            for item in items:
                future = self._threads[0].submit(stages[0], item)
                for thread, stage in zip(self._threads[1:], stages[1:], strict=False):
                    future = thread.submit(_after, future, stage)
                under_way.append(future)
                if len(under_way) > len(stages):
                    yield under_way.popleft().result()
            while under_way:
                yield under_way.popleft().result()
        finally:
            _results(list(under_way))


def _on_one_core(task: Callable[[], _Result]) -> _Result:
    before = torch.get_num_threads()
    if before == 1:
        return task()
    torch.set_num_threads(1)
    try:
        return task()
    finally:
        torch.set_num_threads(before)


def _begin_thread(niceness: int) -> None:
    # How many cores an operation is split over is a setting of the thread that asks for it.
    torch.set_num_threads(1)
    if niceness and sys.platform == "linux":
        # Linux has a niceness for each thread; elsewhere it is the whole process's, and queries would be slowed, too.
        os.setpriority(os.PRIO_PROCESS, threading.get_native_id(), niceness)


def _after(earlier: Future[Any], stage: Callable[[Any], Any]) -> Any:  # noqa: ANN401 - whatever the stages hand on
    return stage(earlier.result())


def _results(futures: list[Future[_Result]]) -> list[_Result]:
    """Wait for all, that nothing goes on behind the caller's back; then give the results or raise the first failure."""
    for future in futures:
        future.exception()
    return [future.result() for future in futures]
