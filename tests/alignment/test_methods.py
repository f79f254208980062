"""The table of methods is whole: every program, every preset, every page."""

from pathlib import Path

import pytest
from django.conf import settings

from alignment.methods import METHODS
from modelhub.config_fields import config_schema
from modelhub.ml.configs import config_load
from modelhub.models import Artifact, ModelVersion

ROOT = Path(__file__).resolve().parents[2]


def test_every_program_is_launched_the_same_way():
    # Models, trials, corpora and questions come in by forms and commands of their own.
    others = {"import_model", "import_corpus", "import_questions", "playground"}
    assert set(METHODS) | others == set(settings.RUN_PROGRAMS)


@pytest.mark.parametrize("method", METHODS.values(), ids=METHODS)
def test_a_method_says_what_there_is(method):
    for one in method.inputs:
        assert set(one.versions) <= set(ModelVersion.Role.values)
        assert set(one.kinds) <= set(Artifact.Kind.values)
        assert one.versions or one.kinds or one.of_project
    if method.registers:
        assert method.registers in ModelVersion.Role.values
        assert method.input(method.parent) is not None
    assert (ROOT / "docs" / method.docs).is_file()
    assert config_schema(method.config)["properties"]
    for preset in method.presets:
        config_load(method.config, preset.settings)


def test_a_pools_roles_are_numbered():
    rejection = METHODS["rejection"]
    assert rejection.input("pool_2") is rejection.input("pool_1") is not None
    assert rejection.input("pool") is rejection.input("pool_x") is None
    assert rejection.input("reward") is not None
