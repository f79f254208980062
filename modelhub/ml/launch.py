"""Start a program on several processes, and end as it ended.

    python -m modelhub.ml.launch LAUNCHER PROCESSES STRATEGY MODULE RUN_DIR

What the runner puts between a worker and a program that is to run on several processes; it works by
hand the same way. Each launcher gives every process torchrun's environment (RANK, WORLD_SIZE, …),
from which modelhub/ml/parallel.py joins them:

    torchrun     torch's elastic agent, on this machine
    accelerate   `accelerate launch` with a preset of deploy/launch/, on this machine
    ray          one actor a process, wherever the cluster has room (the extra `ray`)

If a process dies, the others are ended and all are started again from the newest checkpoint, at
most RONDO_RESTARTS times (1 unless set); what another attempt would not change, a refusal, want of
memory or a full disk, is not tried again. The exit status, or the signal, is that of the process
that failed first. Everything started here dies with this process. Linux.
"""

import os
import signal
import subprocess
import sys
from collections.abc import Callable, Sequence
from pathlib import Path
from types import FrameType
from typing import Any

from modelhub.ml.configs import EXIT_DISK_FULL, EXIT_OUT_OF_MEMORY, EXIT_REFUSED, RefusedError
from modelhub.ml.ray_cluster import cluster_join
from modelhub.ml.rundir import parent_follow

PRESETS = Path(__file__).resolve().parents[2] / "deploy" / "launch"
STRATEGIES = ("ddp", "fsdp2")
_FINAL = (EXIT_REFUSED, EXIT_OUT_OF_MEMORY, EXIT_DISK_FULL)
_RAY_POLL_S = 0.5


def torchrun_launch(processes: int, strategy: str, module: str, folder: str) -> int:
    from torch.distributed.run import parse_args, run

    arguments = ["--standalone", f"--nproc-per-node={processes}", "--monitor-interval=0.2"]
    arguments += ["--module", module, folder]
    return _agent_run(lambda: run(parse_args(arguments)))


def accelerate_launch(processes: int, strategy: str, module: str, folder: str) -> int:
    from accelerate.commands.launch import launch_command, launch_command_parser

    preset = PRESETS / f"accelerate_{strategy}.yaml"
    arguments = [f"--config_file={preset}", f"--num_processes={processes}"]
    arguments += ["--main_process_port=0", "--module", module, folder]
    return _agent_run(lambda: launch_command(launch_command_parser().parse_args(arguments)))


def _agent_run(work: Callable[[], Any]) -> int:
    """Run torch's elastic agent in this process. Returns the first failure's status, or 0."""
    from torch.distributed.elastic.multiprocessing.api import SignalException
    from torch.distributed.elastic.multiprocessing.errors import ChildFailedError

    try:
        work()
    except ChildFailedError as error:
        rank, failure = error.get_first_failure()
        print(f"rank {rank} ended with {failure.exitcode}", file=sys.stderr, flush=True)
        return failure.exitcode
    except SignalException:  # the others were ended on the way here
        return 143
    except subprocess.CalledProcessError as error:  # one process alone, under accelerate
        return error.returncode
    return 0


def ray_launch(processes: int, strategy: str, module: str, folder: str) -> int:
    """RUN_DIR must be the same folder on every node of the cluster (RAY_ADDRESS; none: local)."""
    try:
        import ray
    except ModuleNotFoundError as error:
        raise RefusedError("the launcher ray needs the extra: pip install 'rondo[ray]'") from error

    cluster_join(configure_logging=False)
    gpus = 1 if ray.cluster_resources().get("GPU", 0) >= processes else 0
    group = ray.util.placement_group([{"CPU": 1, "GPU": gpus}] * processes)
    actors: list[Any] = []
    try:
        ray.get(group.ready(), timeout=60)
        actor = ray.remote(num_cpus=1, num_gpus=gpus)(_RayProcess)
        where = ray.util.scheduling_strategies.PlacementGroupSchedulingStrategy(group)
        actors = [
            actor.options(scheduling_strategy=where).remote(module, folder)
            for _ in range(processes)
        ]
        address, port = ray.get(actors[0].address.remote())
        shared = {
            "MASTER_ADDR": address,
            "MASTER_PORT": str(port),
            "WORLD_SIZE": str(processes),
            "RONDO_STRATEGY": strategy,
        }
        ray.get(
            [
                one.start.remote({**shared, "RANK": str(rank), "LOCAL_RANK": "0"})
                for rank, one in enumerate(actors)
            ]
        )
        while True:
            statuses = ray.get([one.status.remote(_RAY_POLL_S) for one in actors])
            failed = [status for status in statuses if status]
            if failed or all(status == 0 for status in statuses):
                return failed[0] if failed else 0
    finally:
        for one in actors:
            ray.kill(one)  # its program dies with it: RONDO_PARENT_PID is the actor's process
        ray.util.remove_placement_group(group)
        ray.shutdown()


class _RayProcess:
    """One rank, inside an actor: the same program, as a child of the actor's process."""

    def __init__(self, module: str, folder: str) -> None:
        self.module, self.folder = module, folder
        self.process: subprocess.Popen[bytes] | None = None

    def address(self) -> tuple[str, int]:
        """This node's address and a port that is free on it."""
        import socket

        import ray

        with socket.socket() as probe:
            probe.bind(("", 0))
            return ray.util.get_node_ip_address(), probe.getsockname()[1]

    def start(self, environment: dict[str, str]) -> None:
        with (Path(self.folder) / "log.txt").open("ab") as log:
            self.process = subprocess.Popen(
                [sys.executable, "-m", self.module, self.folder],
                cwd=PRESETS.parents[1],
                env={**os.environ, **environment, "RONDO_PARENT_PID": str(os.getpid())},
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=subprocess.STDOUT,
            )

    def status(self, wait_s: float) -> int | None:
        """Its exit status, once it has ended; None if it has not in `wait_s`."""
        if self.process is None:
            return None
        try:
            return self.process.wait(wait_s)
        except subprocess.TimeoutExpired:
            return None


LAUNCHERS: dict[str, Callable[[int, str, str, str], int]] = {
    "torchrun": torchrun_launch,
    "accelerate": accelerate_launch,
    "ray": ray_launch,
}


def arguments_read(given: Sequence[str]) -> tuple[str, int, str, str, str]:
    """(launcher, processes, strategy, module, folder). Raises SystemExit, telling the usage."""
    is_whole = len(given) == 5 and given[0] in LAUNCHERS and given[2] in STRATEGIES
    if not is_whole or not given[1].isdecimal() or int(given[1]) < 1:
        raise SystemExit(
            f"usage: {'|'.join(LAUNCHERS)} PROCESSES {'|'.join(STRATEGIES)} MODULE RUN_DIR"
        )
    launcher, processes, strategy, module, folder = given
    return launcher, int(processes), strategy, module, folder


def main() -> None:
    launcher, processes, strategy, module, folder = arguments_read(sys.argv[1:])

    def terminated(_signal: int, _frame: FrameType | None) -> None:
        raise SystemExit(143)

    signal.signal(signal.SIGTERM, terminated)  # until a launcher has its own
    parent_follow()
    # The ranks are children of this process, and die with it.
    os.environ |= {"RONDO_PARENT_PID": str(os.getpid()), "RONDO_STRATEGY": strategy}
    os.environ.setdefault("OMP_NUM_THREADS", str(max(1, (os.cpu_count() or 1) // processes)))
    restarts = int(os.environ.get("RONDO_RESTARTS", "1"))
    for restart in range(restarts + 1):
        try:
            status = LAUNCHERS[launcher](processes, strategy, module, folder)
        except RefusedError as error:
            print(f"refused: {error}", file=sys.stderr, flush=True)
            raise SystemExit(EXIT_REFUSED) from error
        if status == 0 or status in _FINAL or status == 143 or restart == restarts:
            break
        print(f"starting again, {restarts - restart} left", file=sys.stderr, flush=True)
    if status < 0:  # end as the rank did, so that whoever reads the status sees the signal
        signal.signal(-status, signal.SIG_DFL) if -status != signal.SIGKILL else None
        os.kill(os.getpid(), -status)
    raise SystemExit(status)


if __name__ == "__main__":
    main()
