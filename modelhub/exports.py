"""A run on a machine without a database: carried there in a folder, and taken back.

It was launched for another machine (services.runs.run_hand_out), so that no worker takes it.
"""

import json
import shutil
from pathlib import Path

from modelhub import storage
from modelhub.errors import ApplicationError, ConflictError
from modelhub.metrics_file import metric_lines
from modelhub.ml.manifest import IntegrityError
from modelhub.ml.records import chunked, json_canonical
from modelhub.models import Artifact, Run
from modelhub.services.artifacts import artifact_register
from modelhub.services.runs import ELSEWHERE, ROLE_NAME, run_finish, run_metrics_add

NAME = "export.json"  # what takes the folder back to its run
_LINES = 2000


def run_export(*, run: Run, folder: Path) -> Path:
    """Write a run that is handed out as a run directory with its inputs. Returns the folder.

    Raises ApplicationError for a run that a worker has, or a folder that holds something.
    """
    if run.owner != ELSEWHERE or run.status != Run.Status.RUNNING:
        raise ApplicationError(
            f"The run is {run.status} on {run.owner or 'no machine'}; launch it for another"
            " machine to export it."
        )
    if folder.exists() and any(folder.iterdir()):
        raise ApplicationError(f"{folder} is not empty.")
    inputs = folder / "inputs"
    inputs.mkdir(parents=True, mode=0o700)
    described = {}
    for given in run.inputs.select_related("artifact"):
        shutil.copytree(storage.artifact_folder(given.artifact), inputs / given.role)
        described[given.role] = {"path": f"inputs/{given.role}", "sha256": given.artifact.sha256}
    value = {"program": run.program, "config": run.config, "inputs": described}
    (folder / "config.json").write_text(json_canonical(value))
    (folder / NAME).write_text(json_canonical({"run": run.uid, "fence": run.fence}))
    return folder


def run_import(*, folder: Path) -> Run:
    """Take a finished run directory back: outputs, curves, result, and the version they make.

    Every byte of the outputs is hashed against what the program wrote. Taken back twice it is once.
    Raises ApplicationError for a folder of no run, without a result, changed, or given up.
    """
    for name, reason in (
        (NAME, "run_export wrote no such folder"),
        ("result.json", "the program has not finished there, or its folder is not back whole"),
    ):
        if not (folder / name).is_file():
            raise ApplicationError(f"{folder} has no {name}: {reason}.")
    try:
        named = json.loads((folder / NAME).read_text())
        run = Run.objects.filter(uid=str(named["run"])).first()
        fence = int(named["fence"])
        payload = json.loads((folder / "result.json").read_text())
        described = {str(role): dict(one) for role, one in payload["outputs"].items()}
        result = dict(payload["result"])
    except (OSError, ValueError, KeyError, TypeError, AttributeError) as error:
        raise ApplicationError(f"{folder} is no finished run: {error}.") from error
    if run is None:
        raise ApplicationError(f"There is no run {named['run']} here.")
    if run.status == Run.Status.SUCCEEDED and run.fence == fence:
        return run
    outputs = {role: _output_take(folder, role, one) for role, one in described.items()}
    _metrics_take(folder, run, fence)
    if not run_finish(run_id=run.pk, fence=fence, outputs=outputs, result=result):
        raise ConflictError(
            "The run was given up meanwhile, and belongs to another attempt.",
            {"status": run.status},
        )
    run.refresh_from_db()
    return run


def _output_take(folder: Path, role: str, described: dict[str, str]) -> Artifact:
    path = folder / "outputs" / role
    if not ROLE_NAME.fullmatch(role) or not path.is_dir():
        raise ApplicationError(f"The folder has no output {role!r}.")
    try:
        content = storage.content_put(folder=path)
    except IntegrityError as error:
        raise ApplicationError(f"output {role}: {error}.") from error
    if content.sha256 != described.get("sha256"):
        raise ApplicationError(f"Output {role} is not what the program wrote.")
    return artifact_register(content=content, kind=str(described.get("kind")))


def _metrics_take(folder: Path, run: Run, fence: int) -> None:
    path = folder / "metrics.jsonl"
    if not path.exists():
        return
    with path.open("rb") as file:
        for lines in chunked(file, _LINES):
            points, rewound_to = metric_lines(lines)
            run_metrics_add(
                run_id=run.pk, fence=fence, points=points, offset=0, rewound_to=rewound_to
            )
    run_metrics_add(run_id=run.pk, fence=fence, points=[], offset=path.stat().st_size)
