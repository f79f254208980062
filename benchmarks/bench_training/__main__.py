"""Rondo's training beside TRL's, method by method, on the same data and model in one run.

    python -m benchmarks.bench_training              every method
    python -m benchmarks.bench_training scoring sft  some

Each method is a module here, run in a process of its own: JSON lines on standard output, each with
the measured `ratio` and what was `aimed_at`; what it does on standard error. Each also runs by
itself. Ends with status 1 if a method failed, not if a ratio is lower than was aimed at.
"""

from benchmarks.parts import parts_run

if __name__ == "__main__":
    parts_run(__file__, __package__, about=__doc__.partition("\n")[0], part="method")
