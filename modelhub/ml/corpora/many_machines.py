"""Clean a corpus, or bring one in, on many machines, by datatrove's executors (extra `scale`).

    python -m modelhub.ml.corpora.many_machines local RUN_DIR --tasks 8
    python -m modelhub.ml.corpora.many_machines ray   RUN_DIR --tasks 200
    python -m modelhub.ml.corpora.many_machines slurm RUN_DIR --tasks 200 --workers 50 \\
        --partition cpu --time 10:00:00 [--show]

RUN_DIR is what the program of one machine has: its config.json says `clean_corpus` or
`import_corpus`, and what comes of it is the same (stages.py). Every machine sees it, the inputs,
this project and its virtual environment at the same place.

`local` runs tasks in processes of this machine, `ray` on the cluster of RAY_ADDRESS (none: one of
this machine alone); both wait for the end. `slurm` submits an array of jobs for each stage, behind
the one before, and returns; `--show` prints the scripts and submits nothing. Asked again, each goes
on with the tasks that have not ended. Logs and counts of every task lie in RUN_DIR/stages.
"""

import argparse
import os
import shlex
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import multiprocess
from datatrove.executor import (
    LocalPipelineExecutor,
    RayPipelineExecutor,
    SlurmPipelineExecutor,
)
from datatrove.executor.base import PipelineExecutor

from modelhub.ml.configs import EXIT_REFUSED, RefusedError
from modelhub.ml.corpora.datatrove_step import StageStep
from modelhub.ml.corpora.stage_files import FOLDER
from modelhub.ml.corpora.stages import OF_MANY_TASKS, STAGES, program_of
from modelhub.ml.ray_cluster import cluster_join
from modelhub.ml.rundir import RESULT_NAME

ENGINES = ("local", "ray", "slurm")
_PROJECT = Path(__file__).resolve().parents[3]
_FIRST_OF_ALL = "decide"  # the stage that holds something of every document


def executors_make(
    run: Path,
    engine: str,
    *,
    tasks: int,
    workers: int = -1,
    memory_gb: int = 4,
    decide_memory_gb: int | None = None,
    **more: Any,
) -> list[PipelineExecutor]:
    """An executor for each stage of the program that RUN_DIR is of, in order.

    tasks: of each stage of many; workers: how many of them at a time (-1: all). memory_gb: of a
    task, on Ray and Slurm; of the stage `decide` another. more: of Slurm, `time` and `partition`,
    and whatever else SlurmPipelineExecutor takes. Raises CorpusError for another program's run.
    """
    run = run.resolve()
    found: list[PipelineExecutor] = []
    for number, stage in enumerate(STAGES[program_of(run)]):
        many = stage in OF_MANY_TASKS
        memory = (decide_memory_gb or memory_gb) if stage == _FIRST_OF_ALL else memory_gb
        given: dict[str, Any] = {
            "pipeline": [StageStep(str(run), stage, tasks)],
            "tasks": tasks if many else 1,
            "workers": workers if many else 1,
            # Of each number of tasks its own: what is done of one says nothing of another.
            "logging_dir": str(run / FOLDER / f"{number + 1}-{stage}{f'-of-{tasks}' * many}"),
        }
        if engine == "local":
            found.append(LocalPipelineExecutor(**given, **more))
        elif engine == "ray":
            found.append(RayPipelineExecutor(**given, mem_per_cpu_gb=memory, **more))
        elif engine == "slurm":
            options = {"job_name": f"{run.name}-{stage}", "env_command": _environment()} | more
            before = found[-1] if found else None
            found.append(
                SlurmPipelineExecutor(**given, depends=before, mem_per_cpu_gb=memory, **options)
            )
        else:
            raise RefusedError(f"there is no engine {engine!r}: {', '.join(ENGINES)}")
    return found


def executors_run(executors: Sequence[PipelineExecutor]) -> None:
    """Run one stage after the other, or submit all of them to Slurm.

    Raises RuntimeError if tasks of a stage have failed: the next ones are not begun.
    """
    if isinstance(executors[-1], SlurmPipelineExecutor):
        executors[-1].run()  # submits those it depends on first
        return
    # Processes are forked from one that has imported what a task needs: that takes a second or two.
    multiprocess.set_forkserver_preload(["datatrove.executor", StageStep.__module__])
    for executor in executors:
        executor.run()
        failed = executor.get_incomplete_ranks(skip_completed=True)
        if failed:
            logs = executor.logging_dir.path
            raise RuntimeError(
                f"{len(failed)} of {executor.world_size} tasks have failed, the first is "
                f"{failed[0]}: {logs}/logs/task_{failed[0]:05d}.log"
            )


def _environment() -> str:
    """What a job does before it starts Python: this virtual environment, this project."""
    lines = [f"export PYTHONPATH={shlex.quote(os.pathsep.join(_python_path()))}"]
    activate = Path(sys.prefix, "bin", "activate")
    if activate.exists():
        lines.insert(0, f"source {shlex.quote(str(activate))}")
    return "\n".join(lines)


def _python_path() -> list[str]:
    """This project, and where this process looks beside its own environment."""
    given = os.environ.get("PYTHONPATH", "").split(os.pathsep)
    return [str(_PROJECT), *(str(Path(one).resolve()) for one in given if one)]


def script_of(executor: SlurmPipelineExecutor) -> str:
    """What `executor` would give to sbatch."""
    pickled = executor.logging_dir.resolve_paths("executor.pik")
    return executor.get_launch_file_contents(
        executor.get_sbatch_args(min(executor.tasks, executor.max_array_size)),
        f"srun -l -n 1 launch_pickled_pipeline {pickled}",
    )


def arguments_parse(arguments: Sequence[str]) -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        prog="python -m modelhub.ml.corpora.many_machines", description=__doc__.split("\n")[0]
    )
    parser.add_argument("engine", choices=ENGINES)
    parser.add_argument("run", type=Path, metavar="RUN_DIR")
    parser.add_argument("--tasks", type=int, default=os.cpu_count(), help="of each stage of many")
    parser.add_argument("--workers", type=int, default=-1, help="tasks at a time; -1: all")
    parser.add_argument("--memory-gb", type=int, default=4, help="of a task (ray, slurm)")
    parser.add_argument("--decide-memory-gb", type=int, help="of the task that decides")
    parser.add_argument("--partition", help="slurm: where to")
    parser.add_argument("--time", default="24:00:00", help="slurm: limit of a task")
    parser.add_argument("--qos", default="", help="slurm: quality of service; none by default")
    parser.add_argument("--show", action="store_true", help="slurm: print the scripts alone")
    given = parser.parse_args(arguments)
    if given.tasks < 1:
        parser.error("--tasks: 1 or more")
    if (given.engine == "slurm") != bool(given.partition):
        parser.error("--partition: of slurm, and slurm needs one")
    if given.show and given.engine != "slurm":
        parser.error("--show: of slurm alone")
    return given


def main(arguments: Sequence[str]) -> int:
    given = arguments_parse(arguments)
    options: dict[str, Any] = {}
    if given.engine == "slurm":
        options = {"partition": given.partition, "time": given.time, "qos": given.qos}
    if (given.run / RESULT_NAME).exists():
        print("this run already has its result")
        return 0
    try:
        executors = executors_make(
            given.run,
            given.engine,
            tasks=given.tasks,
            workers=given.workers,
            memory_gb=given.memory_gb,
            decide_memory_gb=given.decide_memory_gb,
            **options,
        )
        if given.show:
            print("\n".join(map(script_of, executors)))
            return 0
        if given.engine == "ray":
            _ray_join()
        executors_run(executors)
    except RefusedError as error:
        print(f"refused: {error}", file=sys.stderr)
        return EXIT_REFUSED
    return 0


def _ray_join() -> None:
    """The workers of the cluster find this project."""
    path = os.pathsep.join(_python_path())
    cluster_join(runtime_env={"env_vars": {"PYTHONPATH": path}})


if __name__ == "__main__":
    raise SystemExit(main(sys.argv[1:]))
