"""The table of methods is whole: every program, every preset, every page."""

import dataclasses
import importlib.util
import inspect
import re
from pathlib import Path

import pytest
from django.conf import settings

from alignment.methods import METHODS
from modelhub.config_fields import config_schema
from modelhub.ml.configs import config_load
from modelhub.ml.pretraining.presets import SIZES
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


def test_pretraining_has_a_preset_of_every_architecture():
    offered = {preset.settings["architecture"] for preset in METHODS["pretrain"].presets}
    assert offered == set(SIZES)


def roles_told(method):
    """The roles a configuration's docstring says its program reads; an adapter's base aside."""
    told = inspect.getdoc(method.config) or ""
    read = re.search(r"\b[Rr]eads\b.*[;.]\s[Ww]rites\b", told, re.DOTALL)
    assert read, told
    found = {re.sub(r"_\d+$", "", name) for name in re.findall(r"`([a-z_0-9]+)`", read[0])}
    settings_of = {field.name for field in dataclasses.fields(method.config)}
    of_an_earlier_run = {"generate", "pre_prompt"}
    roles = found - settings_of - of_an_earlier_run
    return {name for name in roles if not name.endswith("_base")}


def roles_in_program(method):
    """The roles that the files of a program ask for by name."""
    module = importlib.util.find_spec(settings.RUN_PROGRAMS[method.name])
    file = Path(module.origin)
    files = file.parent.glob("*.py") if file.name == "__init__.py" else [file]
    asked = r"""(?:has_input|\.input|model_input)\((?:run, )?"([a-z_]+)"\)"""
    found = {role for one in files for role in re.findall(asked, one.read_text(encoding="utf-8"))}
    return {role for role in found if not role.endswith("_base")}


# Roles that a program reads and no person gives.
GIVEN_ELSEWHERE = {
    "reward_ensemble": {"tasks"},  # of a whole queue: manage.py score_queue
}


@pytest.mark.parametrize("method", METHODS.values(), ids=METHODS)
def test_a_launch_offers_every_input_that_the_program_reads(method):
    offered = {one.role for one in method.inputs}
    told = roles_told(method)
    assert told == offered | GIVEN_ELSEWHERE.get(method.name, set())
    assert roles_in_program(method) <= told


def test_a_pools_roles_are_numbered():
    rejection = METHODS["rejection"]
    assert rejection.input("pool_2") is rejection.input("pool_1") is not None
    assert rejection.input("pool") is rejection.input("pool_x") is None
    assert rejection.input("reward") is not None


def programs_told():
    """The table of docs/runs.md: program → (module, the roles of its row)."""
    rows = {}
    for line in (ROOT / "docs" / "runs.md").read_text(encoding="utf-8").splitlines():
        cells = [cell.strip() for cell in line.strip("|").split("|")]
        if len(cells) == 4 and re.fullmatch(r"`\w+`", cells[0]):
            names = set(re.findall(r"`([a-z_]+?)(?:_\d+)?`", cells[2]))
            rows[cells[0].strip("`")] = (cells[1].strip("`"), names)
    # "as `ppo`": what another row has.
    return {
        program: (module, names.union(*(rows[name][1] for name in names & rows.keys())))
        for program, (module, names) in rows.items()
    }


def test_the_documents_table_has_every_program_and_its_inputs():
    told = programs_told()
    assert {name: module for name, (module, _) in told.items()} == settings.RUN_PROGRAMS
    for method in METHODS.values():
        roles = {one.role for one in method.inputs}
        assert roles <= told[method.name][1], method.name
