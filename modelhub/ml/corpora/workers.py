"""The same function over many chunks, by several processes, in order."""

import collections
import functools
import multiprocessing
import os
import signal
import sys
import threading
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import Future, ProcessPoolExecutor
from concurrent.futures.process import BrokenProcessPool
from multiprocessing import connection
from typing import TypeVar

ChunkT = TypeVar("ChunkT")
DoneT = TypeVar("DoneT")

_OURS = __name__.partition(".")[0]
_AHEAD = 2  # chunks a process has waiting: what memory is bounded by


def workers_given(asked: int) -> int:
    """`asked`, or one a core that this process may use."""
    return asked or len(os.sched_getaffinity(0))


def chunks_map(
    function: Callable[[ChunkT], DoneT], chunks: Iterable[ChunkT], *, workers: int
) -> Iterator[DoneT]:
    """`map(function, chunks)`, in order, by `workers` processes; here, with one.

    At most a few chunks a process are taken ahead, whatever `chunks` is long. The processes die
    with this one. They are forked from one that has imported what they need and done nothing else:
    what takes a third of a second is done once. Raises RuntimeError if one of them is killed, as
    the kernel does for memory.
    """
    if workers == 1:
        yield from map(function, chunks)
        return
    context = multiprocessing.get_context("forkserver")
    context.set_forkserver_preload(_preloaded(function))
    pool = ProcessPoolExecutor(workers, context, initializer=_begin)
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


class _NoPandas:
    """What says, before any other finder, that there is no pandas."""

    @staticmethod
    def find_spec(name: str, _path: object = None, _target: object = None) -> None:
        if name == "pandas":
            raise ModuleNotFoundError("Arrow does without pandas here", name=name)


def pandas_leave_out() -> None:
    """Have Arrow do without pandas in this process.

    It imports it, where it is installed, as soon as it is given a list, to ask whether that is one
    of pandas' columns: more than a second of the processor, in every process. Asked once while
    there is none, it does not ask again; whoever else imports pandas has it.
    """
    import pyarrow as pa

    sys.meta_path.insert(0, _NoPandas)
    try:
        pa.array([])
    finally:
        sys.meta_path.remove(_NoPandas)


def _preloaded(function: Callable[[ChunkT], DoneT]) -> list[str]:
    """What a worker would import: all of ours that this program has, or the function's module."""
    main = sys.modules["__main__"].__spec__
    if main is not None and main.name.startswith(f"{_OURS}."):
        return sorted(one for one in sys.modules if one.startswith(_OURS) and one != main.name)
    while isinstance(function, functools.partial):
        function = function.func
    return [function.__module__]


def _begin() -> None:
    pandas_leave_out()
    threading.Thread(target=_parent_follow, daemon=True).start()


def _parent_follow() -> None:
    """Die when the process that asked for this one dies: its own parent is the one it is forked
    from, which stays as long as a worker does."""
    parent = multiprocessing.parent_process()
    if parent is not None:
        connection.wait([parent.sentinel])
        os.kill(os.getpid(), signal.SIGKILL)
