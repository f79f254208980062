"""A program without torch, for what a launcher does about the end of one: it waits, or refuses."""

import json
import os
import time

from modelhub.ml.configs import RefusedError
from modelhub.ml.rundir import RunDir, program_run


def main(run: RunDir) -> None:
    settings = json.loads((run.path / "config.json").read_text())["config"]
    (run.path / f"begun-{os.environ['RANK']}").touch()
    if settings.get("refuse"):
        raise RefusedError("nothing will do")
    time.sleep(600)


if __name__ == "__main__":
    program_run(main)
