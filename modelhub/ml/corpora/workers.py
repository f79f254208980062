"""The same function over many chunks, by several processes, in order."""

import collections
import multiprocessing
import os
from collections.abc import Callable, Iterable, Iterator
from typing import TypeVar

from modelhub.ml.rundir import parent_follow

ChunkT = TypeVar("ChunkT")
DoneT = TypeVar("DoneT")

_AHEAD = 2  # chunks a process has waiting: what memory is bounded by


def workers_given(asked: int) -> int:
    """`asked`, or one a core that this process may use."""
    return asked or len(os.sched_getaffinity(0))


def chunks_map(
    function: Callable[[ChunkT], DoneT], chunks: Iterable[ChunkT], *, workers: int
) -> Iterator[DoneT]:
    """`map(function, chunks)`, in order, by `workers` processes; here, with one.

    At most a few chunks a process are taken ahead, whatever `chunks` is long. The processes die
    with this one.
    """
    if workers == 1:
        yield from map(function, chunks)
        return
    context = multiprocessing.get_context("spawn")
    with context.Pool(workers, initializer=_begin, initargs=(os.getpid(),)) as pool:
        waiting: collections.deque[multiprocessing.pool.AsyncResult[DoneT]] = collections.deque()
        for chunk in chunks:
            waiting.append(pool.apply_async(function, (chunk,)))
            if len(waiting) >= workers * _AHEAD:
                yield waiting.popleft().get()
        while waiting:
            yield waiting.popleft().get()


def _begin(parent_pid: int) -> None:
    os.environ["RONDO_PARENT_PID"] = str(parent_pid)
    parent_follow()
