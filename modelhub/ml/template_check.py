"""Render a model's chat template once, in a child process that cannot take the machine with it.

A chat template is a program that came with the weights. transformers renders it in Jinja's sandbox,
which keeps it from reaching Python but not from looping for ever or filling the memory.

    python -m modelhub.ml.template_check FOLDER     status 0, or 2 and the reason on standard error
"""

import resource
import subprocess
import sys
from pathlib import Path

from modelhub.ml.model_directory import ModelDirectoryError

_CPU_S = 5  # for a few renders that take milliseconds
_MEMORY_BYTES = 512 << 20  # on top of what the loaded tokenizer takes
_WALL_S = 120.0  # the imports of a busy machine included

_MARK = "Zyzzyva"  # a word no template writes by itself


def template_check(folder: Path) -> None:
    """Raise ModelDirectoryError unless the folder's chat template lays out a conversation."""
    command = [sys.executable, "-m", "modelhub.ml.template_check", str(folder)]
    try:
        child = subprocess.run(command, capture_output=True, timeout=_WALL_S, check=False)
    except subprocess.TimeoutExpired as error:
        raise ModelDirectoryError("chat template", "takes too long to render") from error
    if child.returncode == 0:
        return
    if child.returncode < 0:
        raise ModelDirectoryError(
            "chat template", f"takes more than {_CPU_S} s of computing, or too much memory"
        )
    said = child.stderr.decode(errors="replace").strip().splitlines()
    raise ModelDirectoryError("chat template", said[-1][:300] if said else "cannot be rendered")


def _render(folder: Path) -> None:
    from modelhub.ml.chat import end_of_turn_id, prompt_text
    from modelhub.ml.checkpoint import tokenizer_load

    tokenizer = tokenizer_load(folder)
    _limits_set()
    turn = {"role": "user", "content": _MARK}
    for messages in ([turn], [turn, {"role": "assistant", "content": "No."}, turn]):
        text = prompt_text(tokenizer, messages)
        if text.count(_MARK) != sum(message is turn for message in messages):
            raise ModelDirectoryError("chat template", "leaves out the user's words")
    end_of_turn_id(tokenizer)


def _limits_set() -> None:
    used = resource.getrusage(resource.RUSAGE_SELF)
    seconds = int(used.ru_utime + used.ru_stime) + _CPU_S
    resource.setrlimit(resource.RLIMIT_CPU, (seconds, seconds))
    pages = int(Path("/proc/self/statm").read_text().split()[0])
    memory = pages * resource.getpagesize() + _MEMORY_BYTES
    resource.setrlimit(resource.RLIMIT_AS, (memory, memory))
    resource.setrlimit(resource.RLIMIT_FSIZE, (0, 0))
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))


if __name__ == "__main__":
    try:
        _render(Path(sys.argv[1]))
    except MemoryError:
        print("takes too much memory", file=sys.stderr)
        raise SystemExit(2) from None
    except ValueError as refused:
        print(getattr(refused, "reason", str(refused)), file=sys.stderr)
        raise SystemExit(2) from None
