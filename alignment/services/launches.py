"""One way to start any method, and what its success registers."""

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from django.contrib.auth.models import User
from django.db import transaction
from django.utils.translation import gettext

from alignment.methods import METHODS, Input, Method
from alignment.selectors.launches import Given, input_resolve, project_resolve
from alignment.selectors.rounds import run_facts
from alignment.services.judging import judge_tasks_store
from alignment.services.project_prompts import held_out_store, learnt_check, side_store
from alignment.services.self_instruct import seeds_store
from annotation.models import Project, Split
from modelhub.config_fields import refused_setting
from modelhub.errors import ApplicationError
from modelhub.ml.configs import ConfigError, config_load
from modelhub.ml.corpora.configs import CleanCorpusConfig
from modelhub.ml.pretraining.configs import PretrainConfig
from modelhub.models import Artifact, ModelVersion, Run
from modelhub.selectors.uses import version_use_check
from modelhub.selectors.versions import version_inputs
from modelhub.services.mixtures import mixture_check
from modelhub.services.runs import run_create, run_hand_out
from modelhub.services.versions import (
    model_get_or_create,
    model_name_check,
    model_version_register,
)


@dataclass(frozen=True, kw_only=True)
class Launch:
    """What a person or a client asks for. `inputs` maps roles to references, or lists of them."""

    method: str
    settings: Mapping[str, Any]
    inputs: Mapping[str, str | Sequence[str]]
    model_name: str = ""  # the hub model whose version the result becomes
    label: str = ""
    launcher: str = "python"
    processes: int = 1
    strategy: str = "ddp"
    elsewhere: bool = False  # not by a worker: exported to a machine without a database


@transaction.atomic
def run_launch(*, launch: Launch, requested_by: User) -> Run:
    """Queue a run of a method. When it succeeds, its version is registered under `model_name`.

    Raises ApplicationError whose extra names the refused field: "method", "settings.lr",
    "inputs.base", "model_name", "launcher", "processes" or "strategy".
    """
    method = METHODS.get(launch.method)
    if method is None:
        raise ApplicationError(f"There is no method {launch.method!r}.", {"field": "method"})
    try:
        config = config_load(method.config, launch.settings)
    except ConfigError as error:
        setting, reason = refused_setting(error)
        field = f"settings.{setting}" if setting else "settings"
        raise ApplicationError(f"{setting or method.title}: {reason}", {"field": field}) from error
    start_check(method=method, roles={role for role, asked in launch.inputs.items() if asked})
    given = inputs_resolve(method, launch.inputs, requested_by)
    _version_check(method, launch.model_name)
    if isinstance(config, PretrainConfig) and config.mixture:
        read = [one.artifact for role, one in given.items() if role.startswith("tokens_")]
        mixture_check(config=config, artifacts=read)
    if launch.processes > 1 and not method.takes_processes:
        raise ApplicationError(f"{method.title} runs on one process.", {"field": "processes"})
    intent: dict[str, Any] = {}
    if method.registers:
        parent = given[method.parent].version if method.parent in given else None
        intent = {"model": launch.model_name, "parent": parent.uid if parent else ""}
    run = run_create(
        program=method.name,
        config=config,
        inputs={role: one.artifact for role, one in given.items()},
        label=launch.label or method.title,
        requested_by=requested_by,
        launcher=launch.launcher,
        processes=launch.processes,
        strategy=launch.strategy,
        intent=intent,
    )
    return run_hand_out(run=run) if launch.elsewhere else run


def start_check(*, method: Method, roles: Collection[str]) -> None:
    """Pretraining begins with a tokenizer or a model, though it requires neither by itself.

    roles: those of the inputs that were chosen. Raises ApplicationError naming the tokenizer's.
    """
    if method.config is PretrainConfig and not {"base", "tokenizer"} & set(roles):
        raise ApplicationError(
            gettext(
                "A new model needs a tokenizer, a continued one the model it goes on from: "
                "choose one."
            ),
            {"field": "inputs.tokenizer"},
        )


def launched_run_finish(*, run: Run) -> None:
    """Register what a launched run has made, inside the transaction that ends it.

    A run that a round has started has no intent: its round registers. Raises ApplicationError if
    the output is missing or its facts do not describe a version.
    """
    name = run.intent.get("model")
    if not name:
        return
    method = METHODS[run.program]
    outputs = {one.role: one.artifact for one in run.outputs.select_related("artifact")}
    is_adapter = "adapter" in outputs  # published by itself, to be read on its parent
    artifact = outputs.get("adapter" if is_adapter else method.output)
    if artifact is None:
        raise ApplicationError(f"The run has no output {method.output}.")
    parent = ModelVersion.objects.filter(uid=run.intent.get("parent", "")).first()
    model_version_register(
        model=model_get_or_create(name=name),
        role=_role(method, parent, is_adapter=is_adapter),
        artifact=artifact,
        parent=parent,
        run=run,
        facts=dict(run_facts(run)),
        card=f"{run.label}: {method.title.lower()}, run {run.uid}.",
    )


def _role(method: Method, parent: ModelVersion | None, *, is_adapter: bool) -> str:
    """The new version's role. What scores answers is a reward model, an adapter or not; what is
    merged is what its adapter was."""
    scores = method.registers == ModelVersion.Role.REWARD
    if method.parent == "adapter" and parent is not None:
        scores = parent.role == ModelVersion.Role.REWARD
    if scores:
        return ModelVersion.Role.REWARD
    return ModelVersion.Role.ADAPTER if is_adapter else method.registers


def inputs_resolve(
    method: Method, inputs: Mapping[str, str | Sequence[str]], user: User
) -> dict[str, Given]:
    """Every input by the role the program knows it by: a pool's are pool_1, pool_2, …

    An adapter brings its base along, as `<role>_base`.
    """
    titles = {one.role: one for one in method.inputs}
    for role in inputs:
        if role not in titles:
            raise ApplicationError(
                f"{method.title} has no input {role!r}.", {"field": f"inputs.{role}"}
            )
    found = {}
    for role, one in titles.items():
        asked = inputs.get(role) or ()
        references = [asked] if isinstance(asked, str) else list(asked)
        if not references and one.is_required:
            raise ApplicationError(f"{one.title}: choose one.", {"field": f"inputs.{role}"})
        if len(references) > 1 and not one.is_many:
            raise ApplicationError(f"{one.title}: choose one alone.", {"field": f"inputs.{role}"})
        for number, reference in enumerate(references, start=1):
            name = f"{role}_{number}" if one.is_many else role
            if one.of_project and reference.startswith("project/"):
                project, which = project_resolve(input=one, reference=reference, user=user)
                found[name] = Given(artifact=_rows_store(one, project, which))
                continue
            given = input_resolve(input=one, reference=reference, user=user)
            learnt_check(input=one, artifact=given.artifact)
            found[name] = given
            if given.version is not None:
                version_use_check(
                    version=given.version, program=method.name, field=f"inputs.{role}"
                )
                read = version_inputs(version=given.version, role=name)
                found |= {at: Given(artifact=own) for at, own in read.items() if at != name}
    if method.config is CleanCorpusConfig:
        _not_itself_check(method, found)
    return found


def _not_itself_check(method: Method, given: Mapping[str, Given]) -> None:
    """A corpus is not held against itself, by whichever reference it comes again."""
    corpus = given["corpus"].artifact
    for role, one in given.items():
        if role != "corpus" and one.artifact == corpus:
            asked = method.input(role)
            raise ApplicationError(
                gettext("A corpus is not held against itself: nothing would be left."),
                {"field": f"inputs.{asked.role if asked else role}"},
            )


def _rows_store(input: Input, project: Project, which: str) -> Artifact:
    if which == "prompts":
        return seeds_store(project=project)
    if which in Split.values and "prompts" in input.kinds:
        return side_store(project=project, split=which, field=f"inputs.{input.role}")
    if which == "held_out":
        return held_out_store(project=project)
    return judge_tasks_store(project=project, which=which, kinds=input.task_kinds)


def _version_check(method: Method, name: str) -> None:
    if not method.registers:
        if name:
            raise ApplicationError(
                f"{method.title} makes no model version.", {"field": "model_name"}
            )
        return
    try:
        model_name_check(name)
    except ApplicationError as error:
        raise ApplicationError(error.message, {"field": "model_name"}) from error
