"""Pushing, pulling and smaller forms from a version's page: forms, refusals, and what is kept."""

import json
import os
from pathlib import Path

import pytest
from django.conf import settings
from django.contrib.admin.models import LogEntry
from django.contrib.auth.models import User
from django.test import Client
from django.urls import reverse

from modelhub.models import ModelVersion, Run, RunInput, RunOutput
from modelhub.services import sharing
from modelhub.services.artifacts import artifact_store
from tests import builders

pytestmark = pytest.mark.django_db


@pytest.fixture
def staff(settings, tmp_path) -> Client:
    settings.EXPORT_DIR = tmp_path / "export"
    client = Client()
    client.force_login(User.objects.create_user("eve", is_staff=True))
    return client


@pytest.fixture
def version(tmp_path) -> ModelVersion:
    """A version whose one file is no model: it is pushed as it is."""
    folder = tmp_path / "files"
    folder.mkdir()
    (folder / "weights.txt").write_text("weights")
    version = builders.make_version("smol")
    version.artifact = artifact_store(folder=folder, kind="model")
    version.save()
    return version


def push(client: Client, version: ModelVersion, **given: str) -> str:
    body = {"place": "folder", "target": "smol-v1", **given}
    url = reverse("version_push", args=[version.uid])
    return client.post(url, body, follow=True).content.decode()


def acts() -> list[str]:
    return list(LogEntry.objects.values_list("change_message", flat=True))


def test_a_version_is_pushed_to_a_folder_below_the_export_folder(staff, version) -> None:
    page = push(staff, version)
    folder = Path(settings.EXPORT_DIR) / "smol-v1"
    assert f"smol v1 is at {folder}." in page
    assert (folder / "weights.txt").read_text() == "weights"
    assert "README.md" in {path.name for path in folder.iterdir()}
    assert acts() == [f"pushed to {folder}"]
    again = push(staff, version)
    assert "is there already." in again
    assert len(acts()) == 1


def test_what_a_killed_push_left_is_swept_by_the_next(staff, version) -> None:
    root = Path(settings.EXPORT_DIR)
    old, young = root / ".smol.tmp-01234567", root / ".smol.tmp-89abcdef"
    for folder in (old, young):
        folder.mkdir(parents=True)
    os.utime(old, (0, 0))
    push(staff, version)
    assert not old.exists() and young.exists()


@pytest.mark.parametrize("target", ["../out", "/etc/x", "a/b", "..", ".hidden", "a b", "x" * 101])
def test_a_folder_elsewhere_is_refused_with_what_was_typed_kept(staff, version, target) -> None:
    page = push(staff, version, target=target)
    assert "cannot name a folder" in page
    assert f'value="{target}"' in page
    assert not Path(settings.EXPORT_DIR).exists() and acts() == []


@pytest.mark.parametrize("target", ["smol", "a/b/c", "a/..", "https://x/y", "a b/c"])
def test_what_is_no_hub_id_is_refused(staff, version, target) -> None:
    assert "is no hub id" in push(staff, version, place="hub", target=target)
    assert acts() == []


def test_a_hub_that_does_not_answer_is_said_to_be_so(staff, version, settings, monkeypatch) -> None:
    settings.MODEL_HUB_ENDPOINT = "http://127.0.0.1:9"  # nothing listens on discard
    monkeypatch.setenv("HF_HUB_OFFLINE", "0")
    page = push(staff, version, place="hub", target="org/smol")
    assert "http://127.0.0.1:9 did not take it" in page
    assert acts() == []


def test_a_damaged_version_is_not_pushed(staff, version) -> None:
    file = Path(settings.ARTIFACTS_DIR) / version.artifact.sha256 / "weights.txt"
    file.write_text("weightz")
    assert "smol v1 cannot be pushed" in push(staff, version)
    assert not (Path(settings.EXPORT_DIR) / "smol-v1").exists() and acts() == []


def test_one_too_large_to_wait_for_names_the_command(staff, version, monkeypatch) -> None:
    monkeypatch.setattr(sharing, "PAGE_BYTES", 3)
    assert "manage.py hub_push smol@1" in push(staff, version)
    assert not Path(settings.EXPORT_DIR).exists()


def pull_form(client: Client, **given: str) -> dict[str, str]:
    page = client.get(reverse("model_pull"))
    key = page.context["form"]["key"].value()
    return {"key": key, "location": "pushed", "model": "back", "role": "", **given}


@pytest.fixture
def pushed(tmp_path, settings, staff) -> Path:
    """A tiny model, pushed into an import folder."""
    from tests.tiny_model import tiny_model_write

    version = builders.make_version("tiny")
    version.artifact = artifact_store(folder=tiny_model_write(tmp_path / "tiny"), kind="model")
    version.save()
    root = settings.IMPORT_ROOTS[0]
    root.mkdir()
    sharing.version_push_folder(version=version, target=root / "pushed")
    return root / "pushed"


@pytest.mark.ml
def test_a_pushed_folder_is_pulled_once_however_often_it_is_sent(staff, pushed) -> None:
    body = pull_form(staff)
    for _ in range(2):
        page = staff.post(reverse("model_pull"), body, follow=True).content.decode()
        assert "back v1 is artifact" in page
    pulled = ModelVersion.objects.get(model__name="back")
    assert pulled.artifact == ModelVersion.objects.get(model__name="tiny").artifact
    assert acts() == [f"pulled from {pushed}"]


@pytest.mark.ml
def test_a_changed_file_is_named_and_nothing_is_registered(staff, pushed) -> None:
    settings_file = pushed / "config.json"
    settings_file.write_text(settings_file.read_text().replace("64", "65", 1))
    reply = staff.post(reverse("model_pull"), pull_form(staff))
    assert reply.status_code == 422
    assert "config.json" in reply.content.decode()
    assert not ModelVersion.objects.filter(model__name="back").exists()


@pytest.mark.parametrize("location", ["/etc", "../elsewhere", "nowhere", "file:///etc", "~"])
def test_a_folder_outside_the_import_folders_is_refused(staff, tmp_path, location) -> None:
    (tmp_path / "elsewhere").mkdir()
    reply = staff.post(reverse("model_pull"), pull_form(staff, location=location))
    assert reply.status_code == 422
    assert reply.context["form"].errors["location"]
    assert acts() == []


def make_gguf(version: ModelVersion, folder: Path, *, beside: str = "") -> Run:
    folder.mkdir()
    if beside:
        (folder / beside).write_text("beside it")
    (folder / "model-Q8_0.gguf").write_bytes(b"GGUF and more")
    result = {
        "file": "model-Q8_0.gguf",
        "file_bytes": 13,
        "parent_weights_bytes": 26,
        "token_ids_equal": True,
        "max_logit_difference": 0.125,
        "parent_perplexity": 10.0,
        "perplexity": 10.25,
        "divergence": 0.0012,
    }
    run = Run.objects.create(
        program="export_gguf", config={"weight_type": "q8_0"}, status="succeeded", result=result
    )
    RunInput.objects.create(run=run, role="base", artifact=version.artifact)
    artifact = artifact_store(folder=folder, kind="gguf")
    RunOutput.objects.create(run=run, role="gguf", artifact=artifact)
    return run


def make_quantised(version: ModelVersion) -> ModelVersion:
    result = {
        "quantisation": "w4a16 in groups of 32",
        "weights_bytes": 1,
        "parent_weights_bytes": 4,
        "divergence": 0.5,
        "beside_parent": [{"figure": "perplexity", "parent": 10.0, "own": 12.5}],
    }
    run = Run.objects.create(
        program="quantise", config={"scheme": "w4a16"}, status="succeeded", result=result
    )
    RunInput.objects.create(run=run, role="base", artifact=version.artifact)
    made = builders.make_version("smol", role=ModelVersion.Role.QUANTISED)
    made.run, made.parent = run, version
    made.save()
    RunOutput.objects.create(run=run, role="model", artifact=made.artifact)
    return made


def test_smaller_forms_stand_beside_what_they_cost(staff, version, tmp_path) -> None:
    gguf = make_gguf(version, tmp_path / "gguf")
    quantised = make_quantised(version)
    making = Run.objects.create(program="export_gguf", config={"weight_type": "f16"})
    RunInput.objects.create(run=making, role="base", artifact=version.artifact)
    page = staff.get(reverse("version_detail", args=[version.uid])).content.decode()
    for shown in ("GGUF q8_0", "50 %", "10.250", "from 10.000", "0.0012", "token ids equal"):
        assert shown in page, shown
    for shown in ("w4a16 in groups of 32", "25 %", "12.500", str(quantised), "GGUF f16"):
        assert shown in page, shown
    assert reverse("gguf_download", args=[gguf.uid]) in page
    assert reverse("gguf_download", args=[making.uid]) not in page


def test_a_gguf_file_is_taken_away_whole_and_by_staff_alone(staff, version, tmp_path) -> None:
    run = make_gguf(version, tmp_path / "gguf")
    url = reverse("gguf_download", args=[run.uid])
    reply = staff.get(url)
    assert b"".join(reply.streaming_content) == b"GGUF and more"
    assert reply["Content-Disposition"].endswith('-model-Q8_0.gguf"')
    stranger = Client()
    stranger.force_login(User.objects.create_user("mallory"))
    assert stranger.get(url).status_code == 404
    other = Run.objects.create(program="sft", config={})
    assert staff.get(reverse("gguf_download", args=[other.uid])).status_code == 404


def test_a_gguf_file_among_others_is_the_one_the_run_names(staff, version, tmp_path) -> None:
    run = make_gguf(version, tmp_path / "gguf", beside="notes.txt")
    url = reverse("gguf_download", args=[run.uid])
    assert b"".join(staff.get(url).streaming_content) == b"GGUF and more"
    artifact = RunOutput.objects.get(run=run).artifact
    artifact.damage = "model-Q8_0.gguf has changed"
    artifact.save()
    assert staff.get(url).status_code == 404
    artifact.damage = ""
    artifact.save()
    Run.objects.filter(pk=run.pk).update(result={})
    assert staff.get(url).status_code == 404


def test_the_buttons_open_launch_pages_that_are_filled_in(staff, version) -> None:
    page = staff.get(reverse("version_detail", args=[version.uid]))
    assert "Make a GGUF file" in page.content.decode()
    for method in ("export_gguf", "quantise"):
        link = f"{reverse('method_launch', args=[method])}?input-base=version/{version.uid}"
        assert link in page.content.decode()
        form = staff.get(link + "&setting-name=smol&model_name=smol").context["form"]
        assert form["input-base"].value() == f"version/{version.uid}"
    assert form["model_name"].value() == "smol"


def test_what_cannot_be_made_smaller_has_no_such_part(staff, version) -> None:
    quantised = make_quantised(version)
    page = staff.get(reverse("version_detail", args=[quantised.uid])).content.decode()
    assert "Make a GGUF file" not in page
    assert json.dumps(quantised.facts) == "{}"
