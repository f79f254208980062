"""Render a model's chat template once, in a child process that cannot take the machine with it.

A chat template is a program that came with the weights. transformers renders it in Jinja's sandbox,
which keeps it from reaching Python but not from looping for ever or filling the memory. Standard
library only: the child, modelhub.ml.template_render, loads what renders.
"""

import subprocess
import sys
from pathlib import Path

from modelhub.ml.safetensors_file import ModelDirectoryError

CPU_S = 5  # for a few renders that take milliseconds
_WALL_S = 120.0  # the imports of a busy machine included


def template_check(folder: Path) -> None:
    """Raise ModelDirectoryError unless the folder's chat template lays out a conversation."""
    command = [sys.executable, "-m", "modelhub.ml.template_render", str(folder)]
    try:
        child = subprocess.run(command, capture_output=True, timeout=_WALL_S, check=False)
    except subprocess.TimeoutExpired as error:
        raise ModelDirectoryError("chat template", "takes too long to render") from error
    if child.returncode == 0:
        return
    if child.returncode < 0:
        raise ModelDirectoryError(
            "chat template", f"takes more than {CPU_S} s of computing, or too much memory"
        )
    said = child.stderr.decode(errors="replace").strip().splitlines()
    raise ModelDirectoryError("chat template", said[-1][:300] if said else "cannot be rendered")
