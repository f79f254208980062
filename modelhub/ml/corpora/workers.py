"""The same function over many chunks, by several processes, in order."""

import collections
import multiprocessing
import os
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import Future, ProcessPoolExecutor
from concurrent.futures.process import BrokenProcessPool
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
    with this one. Raises RuntimeError if one of them is killed, as the kernel does for memory.
    """
    if workers == 1:
        yield from map(function, chunks)
        return
    context = multiprocessing.get_context("spawn")
    pool = ProcessPoolExecutor(workers, context, initializer=_begin, initargs=(os.getpid(),))
    try:
        waiting: collections.deque[Future[DoneT]] = collections.deque()
        for chunk in chunks:
            waiting.append(pool.submit(function, chunk))
            if len(waiting) >= workers * _AHEAD:
                yield waiting.popleft().result()
        while waiting:
            yield waiting.popleft().result()
    except BrokenProcessPool as error:
        raise RuntimeError(
            f"one of {workers} processes was killed, perhaps for its memory: ask for fewer workers"
        ) from error
    finally:
        pool.shutdown(cancel_futures=True)


def _begin(parent_pid: int) -> None:
    os.environ["RONDO_PARENT_PID"] = str(parent_pid)
    parent_follow()
