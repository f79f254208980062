"""Corpora in the hub's store, as the runs that made them left them."""

import json
from pathlib import Path
from typing import Any

from modelhub.ml.corpora.clean_corpus import main as clean
from modelhub.ml.corpora.import_corpus import main as bring_in
from modelhub.ml.rundir import RunDir
from modelhub.models import Artifact, Run, RunInput, RunOutput
from modelhub.services.artifacts import artifact_store
from tests.modelhub.ml.runs import run_write


def make_corpus(tmp_path: Path, texts: list[str], **config: Any) -> RunOutput:
    """The corpus that a real import made of JSON Lines of these texts."""
    place = tmp_path / f"rows{Run.objects.count()}.jsonl"
    rows = [{"id": f"d{i}", "text": text} for i, text in enumerate(texts)]
    place.write_text("\n".join(map(json.dumps, rows)), encoding="utf-8")
    settings = {"locations": [str(place)], "source": "test", "workers": 1, **config}
    return _made(tmp_path, "import_corpus", settings, {}, bring_in)


def make_cleaned(tmp_path: Path, corpus: RunOutput, **config: Any) -> RunOutput:
    """What a real cleaning made of a corpus."""
    settings = {"workers": 1, **config}
    return _made(tmp_path, "clean_corpus", settings, {"corpus": corpus.artifact}, clean)


def _made(
    tmp_path: Path, program: str, config: dict[str, Any], inputs: dict[str, Artifact], main: Any
) -> RunOutput:
    from modelhub.storage import artifact_folder

    folder = tmp_path / f"run{Run.objects.count()}"
    given = {role: artifact_folder(artifact) for role, artifact in inputs.items()}
    main(RunDir(run_write(folder, program, config, **given)))
    described = json.loads((folder / "result.json").read_text())
    run = Run.objects.create(
        program=program,
        config=config,
        label=f"{program} {config.get('source', '')}",
        status=Run.Status.SUCCEEDED,
        result=described["result"],
    )
    for role, artifact in inputs.items():
        RunInput.objects.create(run=run, role=role, artifact=artifact)
    for role, output in described["outputs"].items():
        artifact = artifact_store(folder=folder / output["path"], kind=output["kind"])
        RunOutput.objects.create(run=run, role=role, artifact=artifact)
    return run.outputs.get(role="corpus")
