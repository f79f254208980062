"""Architectures that few programs take: told on the page, refused before anything is queued."""

import pytest

from alignment.services.campaigns import campaign_create
from alignment.services.launches import Launch, run_launch
from modelhub.errors import ApplicationError
from modelhub.ml.trials import PlaygroundConfig
from modelhub.models import Artifact, ModelVersion, Run
from modelhub.selectors.playground import version_writes, versions_that_write
from modelhub.services.playground import playground_trial_request
from modelhub.services.servers import server_request
from tests import builders

pytestmark = pytest.mark.django_db

WRITERS = ["RwkvForCausalLM", "T5ForConditionalGeneration"]
UNREAD = ["BertForMaskedLM", *WRITERS]


def version_of(architecture: str) -> ModelVersion:
    version = builders.make_version("pretrained", role="base")
    ModelVersion.objects.filter(pk=version.pk).update(architecture=architecture)
    return ModelVersion.objects.get(pk=version.pk)


@pytest.mark.parametrize("architecture", UNREAD)
def test_what_it_can_be_used_for_is_on_its_page(signed_in, eve, architecture):
    page = signed_in(eve).get(f"/hub/versions/{version_of(architecture).uid}/").content.decode()
    assert f"is a {architecture}" in page and "retraining can go on from it" in page
    assert ("Try it in the playground" in page) is (architecture in WRITERS)
    assert "Quantise it" not in page
    page = signed_in(eve).get(f"/hub/versions/{version_of('BloomForCausalLM').uid}/")
    assert b"Try it in the playground" in page.content
    assert b"retraining can go on from it" not in page.content


@pytest.mark.parametrize("architecture", UNREAD)
@pytest.mark.parametrize("method", ["sft", "reward", "ppo", "quantise", "generate"])
def test_no_method_that_reads_decoders_is_queued_with_it(eve, architecture, method):
    version = version_of(architecture)
    role = "model" if method == "generate" else "base"
    asked = Launch(
        method=method,
        settings={},
        inputs={role: f"version/{version.uid}"},
        model_name="" if method == "generate" else "helper",
    )
    with pytest.raises(ApplicationError, match="retraining can go on from it") as refused:
        run_launch(launch=asked, requested_by=eve)
    assert refused.value.extra["field"] == f"inputs.{role}"
    assert not Run.objects.exists()


def test_pretraining_goes_on_from_it(eve):
    tokens = Run.objects.create(
        program="tokenise", config={}, status=Run.Status.SUCCEEDED, result={"tokens": 1}
    )
    tokens.outputs.create(role="tokens", artifact=builders.make_artifact(Artifact.Kind.TOKENS))
    version = version_of("T5ForConditionalGeneration")
    asked = Launch(
        method="pretrain",
        settings={"architecture": "t5", "size": "tiny"},
        inputs={"base": f"version/{version.uid}", "tokens": f"run/{tokens.uid}/tokens"},
        model_name="further",
    )
    assert run_launch(launch=asked, requested_by=eve).program == "pretrain"


TRIAL = PlaygroundConfig(models=("x v1",), strategies=({"kind": "greedy"},), prompt="One")


@pytest.mark.parametrize("architecture", UNREAD)
def test_nor_served_or_made_the_start_of_a_campaign(eve, architecture):
    version = version_of(architecture)
    project = builders.make_project()
    for ask in (
        lambda: server_request(version=version, context_tokens=100, requested_by=eve),
        lambda: campaign_create(project=project, name="One", base_version=version, created_by=eve),
    ):
        with pytest.raises(ApplicationError, match=f"is a {architecture}"):
            ask()


@pytest.mark.parametrize("architecture", WRITERS)
def test_what_writes_is_tried(eve, architecture):
    version = version_of(architecture)
    assert version in versions_that_write()
    assert version_writes(version)
    run = playground_trial_request(versions=[version], config=TRIAL, requested_by=eve)
    assert run.inputs.get().artifact == version.artifact


def test_what_fills_in_words_alone_is_not(eve):
    version = version_of("BertForMaskedLM")
    assert version not in versions_that_write()
    assert not version_writes(version)
    with pytest.raises(ApplicationError, match="fills in hidden words and writes no text"):
        playground_trial_request(versions=[version], config=TRIAL, requested_by=eve)
