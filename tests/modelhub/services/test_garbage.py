"""What the hub removes, what keeps a version, and kills in the middle of removing."""

import json
import os
import signal
import subprocess
import sys
import time
from datetime import timedelta
from pathlib import Path

import pytest
from django.conf import settings
from django.contrib.admin.models import LogEntry
from django.core.management import call_command
from django.db import connection
from django.utils import timezone

from alignment.models import Campaign
from modelhub import storage
from modelhub.errors import ConflictError
from modelhub.models import Alias, Artifact, ModelVersion, Run, RunInput, RunOutput
from modelhub.selectors.garbage import garbage_plan
from modelhub.services.artifacts import artifact_register, artifact_store
from modelhub.services.garbage import garbage_collect
from modelhub.services.versions import alias_move
from tests import builders

DAY = timedelta(days=1)


def collect() -> list[str]:
    return [name for name, _ in garbage_collect(older_than=DAY, actor=None)]


def age(*rows: ModelVersion | Artifact) -> None:
    for row in rows:
        type(row).objects.filter(pk=row.pk).update(created_at=timezone.now() - 2 * DAY)


def make_stored(folder: Path, name: str = "smol", *, text: str = "") -> ModelVersion:
    """An old version whose artifact has a real folder."""
    folder.mkdir(parents=True)
    (folder / "model.safetensors").write_text(text or folder.name)
    artifact = artifact_store(folder=folder, kind="model")
    os.utime(storage.artifact_folder(artifact), (0, 0))
    version = builders.make_version(name)
    ModelVersion.objects.filter(pk=version.pk).update(artifact=artifact)
    Artifact.objects.filter(pk=version.artifact_id).delete()
    version.refresh_from_db()
    age(version, artifact)
    return version


def stored() -> set[str]:
    return {path.name for path in Path(settings.ARTIFACTS_DIR).glob("*")} - {".lock"}


@pytest.fixture
def three(db, tmp_path) -> list[ModelVersion]:
    return [make_stored(tmp_path / f"files-{number}") for number in range(3)]


def test_an_unused_old_version_goes_with_its_files_and_the_newest_stays(three) -> None:
    plan = garbage_plan(older_than=DAY)
    assert [version.number for version in plan.versions] == [1, 2]
    assert plan.freed_bytes == sum(one.artifact.size_bytes for one in three[:2])
    assert len(stored()) == 3  # a plan changes nothing
    assert collect() == ["smol v1", "smol v2"]
    assert stored() == {three[2].artifact.sha256}
    assert list(ModelVersion.objects.all()) == [three[2]]
    assert list(Artifact.objects.all()) == [three[2].artifact]
    assert collect() == []


def test_a_young_version_stays(three) -> None:
    ModelVersion.objects.filter(pk=three[0].pk).update(created_at=timezone.now())
    assert [one.number for one in garbage_plan(older_than=DAY).versions] == [2]


def keep_by_alias(version: ModelVersion) -> None:
    alias_move(model=version.model, name="champion", version=version, actor=None, reason="")


def keep_by_an_aliass_past(version: ModelVersion) -> None:
    keep_by_alias(version)
    newest = version.model.versions.order_by("-number").first()
    alias_move(model=version.model, name="champion", version=newest, actor=None, reason="")
    assert Alias.objects.get().version == newest


def keep_by_child(version: ModelVersion) -> None:
    child = builders.make_version("child")
    ModelVersion.objects.filter(pk=child.pk).update(parent=version)


def keep_by_reader(version: ModelVersion) -> None:
    run = Run.objects.create(program="sft", config={})
    RunInput.objects.create(run=run, role="base", artifact=version.artifact)


def keep_by_batch(version: ModelVersion) -> None:
    builders.make_batch(builders.make_project(), version=version)


def keep_by_campaign(version: ModelVersion) -> None:
    Campaign.objects.create(
        project=builders.make_project(),
        name="Kept",
        base_version=version,
        policy_model=version.model,
        reward_model=version.model,
    )


@pytest.mark.parametrize(
    "keep",
    [
        keep_by_alias,
        keep_by_an_aliass_past,
        keep_by_child,
        keep_by_reader,
        keep_by_batch,
        keep_by_campaign,
    ],
)
def test_what_something_refers_to_stays(three, keep) -> None:
    keep(three[0])
    assert collect() == ["smol v2"]
    assert three[0].artifact.sha256 in stored()


def test_weights_of_two_versions_go_with_the_last_of_them(db, tmp_path) -> None:
    one = make_stored(tmp_path / "a", "one", text="same")
    two = make_stored(tmp_path / "b", "two", text="same")
    assert one.artifact == two.artifact
    make_stored(tmp_path / "c", "one")
    assert collect() == ["one v1"]
    assert two.artifact.sha256 in stored()
    make_stored(tmp_path / "d", "two")
    assert collect() == ["two v1"]
    assert two.artifact.sha256 not in stored()


def test_the_run_that_made_it_stays_and_other_kinds_do(three) -> None:
    run = Run.objects.create(program="sft", config={})
    RunOutput.objects.create(run=run, role="model", artifact=three[0].artifact)
    dataset = builders.make_artifact(kind="rankings")
    unregistered = builders.make_artifact()
    RunOutput.objects.create(run=run, role="critic", artifact=unregistered)
    age(dataset, unregistered)
    assert collect() == ["smol v1", "smol v2"]
    assert Run.objects.get() == run
    assert set(Artifact.objects.all()) == {three[2].artifact, dataset, unregistered}


def test_what_is_referred_to_after_the_plan_stays(three) -> None:
    removing = garbage_collect(older_than=DAY, actor=None)
    assert next(removing)[0] == "smol v1"
    keep_by_alias(three[1])
    assert list(removing) == []
    assert three[1].artifact.sha256 in stored()


def test_the_command_names_and_only_removes_when_told(three, capsys) -> None:
    call_command("hub_gc", days=1)
    said = capsys.readouterr().out
    assert "smol v1" in said and "would be free" in said
    assert ModelVersion.objects.count() == 3
    call_command("hub_gc", "--delete", days=1)
    assert "removed smol v2" in capsys.readouterr().out
    assert ModelVersion.objects.count() == 1


def test_the_page_names_what_would_go_and_removes_it(three, signed_in, eve, alice) -> None:
    ModelVersion.objects.update(created_at=timezone.now() - 30 * DAY)
    client = signed_in(eve)
    page = client.get("/hub/garbage/").content.decode()
    assert "smol v1" in page and "smol v2" in page and "smol v3" not in page
    assert signed_in(alice).post("/hub/garbage/").status_code == 404
    assert ModelVersion.objects.count() == 3
    client.post("/hub/garbage/")
    assert list(ModelVersion.objects.all()) == [three[2]]
    assert LogEntry.objects.filter(user=eve, change_message__contains="removed").count() == 2
    assert "Nothing is unused" in client.get("/hub/garbage/").content.decode()


def test_files_taken_between_storing_and_registering_are_heard_of(db, tmp_path) -> None:
    (tmp_path / "files").mkdir()
    (tmp_path / "files/a.txt").write_text("a")
    content = storage.content_put(folder=tmp_path / "files")
    assert storage.content_remove(content.sha256, older_than_s=-1)
    with pytest.raises(ConflictError, match="Store them again"):
        artifact_register(content=content, kind="model")
    assert not Artifact.objects.exists()


def test_files_that_were_just_found_stored_stay_for_whoever_registers_them(db, tmp_path) -> None:
    """A collection has the files on its list, and somebody stores the same: they are not its."""
    (tmp_path / "files").mkdir()
    (tmp_path / "files/a.txt").write_text("a")
    first = storage.content_put(folder=tmp_path / "files")
    os.utime(settings.ARTIFACTS_DIR / first.sha256, (0, 0))
    assert [name for name, _ in storage.contents_unnamed()] == [first.sha256]
    again = storage.content_put(folder=tmp_path / "files")
    assert again.sha256 == first.sha256
    assert not storage.content_remove(first.sha256)
    storage.artifact_verify(artifact_register(content=again, kind="model"))


REMOVER = """
import sys, time
from pathlib import Path
import django; django.setup()
from django.conf import settings
from modelhub import storage
settings.ARTIFACTS_DIR = Path(sys.argv[1])

class Asked:
    def exists(self):
        Path(sys.argv[3]).touch()
        time.sleep(1.0)
        return False

storage.Artifact.objects.filter = lambda **_: Asked()
print(storage.content_remove(sys.argv[2]))
"""


def test_files_are_not_found_between_a_collections_question_and_its_removal(db, tmp_path) -> None:
    """Another process is past its question when the same files are stored: they must be there."""
    (tmp_path / "files").mkdir()
    (tmp_path / "files/a.txt").write_text("a")
    content = storage.content_put(folder=tmp_path / "files")
    os.utime(settings.ARTIFACTS_DIR / content.sha256, (0, 0))
    asking = tmp_path / "asking"
    remover = subprocess.Popen(
        [sys.executable, "-c", REMOVER, settings.ARTIFACTS_DIR, content.sha256, asking],
        cwd=settings.BASE_DIR,
        env={**os.environ, "DJANGO_SETTINGS_MODULE": "tests.settings"},
        stdout=subprocess.PIPE,
        text=True,
    )
    deadline = time.monotonic() + 60
    while not asking.exists():
        assert remover.poll() is None and time.monotonic() < deadline
        time.sleep(0.01)
    storage.content_put(folder=tmp_path / "files")
    assert remover.communicate(timeout=60)[0] == "True\n"  # what lay there before is gone
    storage.artifact_verify(artifact_register(content=content, kind="model"))


@pytest.mark.django_db(transaction=True)
def test_what_the_database_alone_knows_to_be_referred_to_stays(tmp_path, caplog) -> None:
    """A reference that came after Django had looked: the database refuses at the commit."""
    three = [make_stored(tmp_path / f"files-{number}") for number in range(3)]
    reference = "integer REFERENCES modelhub_modelversion (id) DEFERRABLE INITIALLY DEFERRED"
    with connection.cursor() as cursor:
        cursor.execute(f"CREATE TABLE newcomer (version_id {reference})")
        cursor.execute(f"INSERT INTO newcomer VALUES ({three[0].pk})")
    try:
        with caplog.at_level("INFO"):
            assert collect() == ["smol v2"]
    finally:
        with connection.cursor() as cursor:
            cursor.execute("DROP TABLE newcomer")
    assert "smol v1 stays" in caplog.text
    storage.artifact_verify(three[0].artifact)


KILLER = """
import json, os, shutil, signal, sys
from django.conf import settings
given = json.loads(sys.argv[1])
os.environ.setdefault("DJANGO_SETTINGS_MODULE", "tests.settings")
settings.DATABASES["default"]["NAME"] = given["database"]
settings.ARTIFACTS_DIR = given["artifacts"]
import django
django.setup()
from datetime import timedelta
from modelhub import storage
from modelhub.services import garbage

def die(*_, **__):
    os.kill(os.getpid(), signal.SIGKILL)

if given["at"] == "in the transaction":
    garbage.RunOutput.objects.filter = die
elif given["at"] == "before the files":
    storage.content_remove = die
else:
    def remove(folder, **_):
        next(folder.glob("*")).unlink()
        die()
    shutil.rmtree = remove
list(garbage.garbage_collect(older_than=timedelta(days=1), actor=None))
"""


@pytest.mark.django_db(transaction=True)
@pytest.mark.parametrize("at", ["in the transaction", "before the files", "among the files"])
def test_a_collection_killed_anywhere_leaves_whole_things_and_the_next_ends_it(
    tmp_path, at
) -> None:
    three = [make_stored(tmp_path / f"files-{number}") for number in range(3)]
    given = {"database": connection.settings_dict["NAME"], "at": at}
    given["artifacts"] = str(settings.ARTIFACTS_DIR)
    killed = subprocess.run(
        [sys.executable, "-c", KILLER, json.dumps(given)],
        cwd=settings.BASE_DIR,
        env={**os.environ},
        check=False,
    )
    assert killed.returncode == -signal.SIGKILL
    # Every row that is there has all its files.
    for artifact in Artifact.objects.all():
        storage.artifact_verify(artifact)
    assert ModelVersion.objects.count() == (3 if at == "in the transaction" else 2)
    for folder in Path(settings.ARTIFACTS_DIR).glob("*"):
        os.utime(folder, (0, 0))
    aside = {name for name in stored() if name.startswith(".tmp-")}
    assert bool(aside) == (at == "among the files")
    settings_age = storage.contents_unnamed(older_than_s=-1)
    assert len(settings_age) == (1 if at == "before the files" else 0)
    for name, _ in settings_age:
        storage.content_remove(name)
    collect()
    storage.orphans_sweep(older_than_s=-1)
    assert stored() == {three[2].artifact.sha256}
    assert list(Artifact.objects.all()) == [three[2].artifact]
