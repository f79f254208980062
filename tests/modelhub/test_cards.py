"""Cards: measured facts, words rendered safely, and README.md that a hub can read."""

import pytest
import yaml

from modelhub.models import Artifact, ModelVersion, Run, RunInput, RunOutput
from tests import builders

pytestmark = pytest.mark.django_db


def make_taught() -> ModelVersion:
    """A policy made from a base and demonstrations, tried by an evaluation."""
    base, policy = builders.make_version("base", role="base"), builders.make_version("policy")
    data = builders.make_artifact(kind=Artifact.Kind.DEMONSTRATIONS)
    made = {"status": Run.Status.SUCCEEDED, "result": {"loss": 1.0}}
    run = Run.objects.create(program="sft", config={}, **made)
    RunInput.objects.create(run=run, role="base", artifact=base.artifact)
    RunInput.objects.create(run=run, role="demonstrations", artifact=data)
    RunOutput.objects.create(run=run, role="model", artifact=policy.artifact)
    tried = {"status": Run.Status.SUCCEEDED, "result": {"win_rate": 0.625, "perplexity": 12.5}}
    evaluation = Run.objects.create(program="evaluate", config={}, **tried)
    RunInput.objects.create(run=evaluation, role="policy", artifact=policy.artifact)
    facts = {"held_out": {"loss": 1.25}, "license": "apache-2.0", "note": "a | b"}
    files = {"files": {"model.safetensors": {"sha256": "0" * 64, "bytes": 12345}}}
    Artifact.objects.filter(pk=policy.artifact_id).update(manifest=files)
    ModelVersion.objects.filter(pk=policy.pk).update(parent=base, run=run, facts=facts)
    return ModelVersion.objects.get(pk=policy.pk)


def test_readme_has_metadata_and_everything_measured(signed_in, eve) -> None:
    version = make_taught()
    ModelVersion.objects.filter(pk=version.pk).update(card="Made of *letters*.")
    reply = signed_in(eve).get(f"/hub/versions/{version.uid}/README.md")
    assert reply["Content-Disposition"] == 'attachment; filename="README.md"'
    _, metadata, body = reply.content.decode().split("---\n", 2)
    found = yaml.safe_load(metadata)
    assert found["license"] == "apache-2.0"
    assert found["base_model"] == "base v1"
    assert found["tags"] == ["rondo", "policy"]
    assert found["library_name"] == "transformers"
    data = Artifact.objects.get(kind="demonstrations")
    assert found["datasets"] == [data.sha256[:12]]
    assert "Made of *letters*." in body
    assert "| parameters | 1,000 |" in body
    assert "| held_out.loss | 1.25 |" in body
    assert "| win_rate | 0.625 |" in body
    assert r"| note | a \| b |" in body
    assert f"`{data.sha256}`" in body
    assert "| model.safetensors | `" + "0" * 64 + "` | 12,345 |" in body


def test_what_is_written_is_kept_with_its_licence_and_what_was_measured_stays(
    signed_in, eve
) -> None:
    version = make_taught()
    client = signed_in(eve)
    url = f"/hub/versions/{version.uid}/"
    client.post(f"{url}card/", {"text": "# Use\n\nFor **tests**.", "license": "mit"})
    version.refresh_from_db()
    assert version.facts == {"held_out": {"loss": 1.25}, "license": "mit", "note": "a | b"}
    page = client.get(url).content.decode()
    assert "<strong>tests</strong>" in page
    client.post(f"{url}card/", {"text": "", "license": ""})
    version.refresh_from_db()
    assert version.card == "" and "license" not in version.facts


def test_a_card_cannot_run_or_fetch_anything(signed_in, eve) -> None:
    version = builders.make_version()
    client = signed_in(eve)
    text = "<script>alert(1)</script> ![x](http://a.example/x.png) [y](javascript:alert(1))"
    client.post(f"/hub/versions/{version.uid}/card/", {"text": text, "license": ""})
    page = client.get(f"/hub/versions/{version.uid}/").content.decode()
    prose = page.partition('<div class="prose">')[2].partition("</div>")[0]
    assert "&lt;script&gt;" in prose
    assert not any(bad in prose for bad in ("<script", "<img", 'href="javascript'))


def test_a_card_that_is_too_long_is_refused_with_its_form(signed_in, eve) -> None:
    version = builders.make_version()
    reply = signed_in(eve).post(f"/hub/versions/{version.uid}/card/", {"text": "x" * 20_001})
    assert reply.status_code == 422
    version.refresh_from_db()
    assert version.card == ""


def test_only_staff_write_and_take_cards(signed_in, alice) -> None:
    version = builders.make_version()
    client = signed_in(alice)
    assert client.get(f"/hub/versions/{version.uid}/README.md").status_code == 404
    assert client.post(f"/hub/versions/{version.uid}/card/", {"text": "x"}).status_code == 404
