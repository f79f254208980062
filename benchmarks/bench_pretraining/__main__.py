"""Pretraining beside others' tools, part by part, on the same data in one run.

    python -m benchmarks.bench_pretraining              every part
    python -m benchmarks.bench_pretraining training     some

Each part is a module here, run in a process of its own: JSON lines on standard output with the
measured `ratio` and what was `aimed_at`. Each also runs by itself. Ends with status 1 if a part
failed, not if a ratio is lower than was aimed at.
"""

from benchmarks.parts import parts_run

if __name__ == "__main__":
    parts_run(__file__, __package__, about=__doc__.partition("\n")[0], part="part")
