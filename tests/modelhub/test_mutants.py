"""Each guard of the hub, taken away: the test that watches over it must fail."""

from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace

import pytest
from markdown_it import MarkdownIt

from modelhub import rendering, runner, storage
from modelhub.models import Run
from modelhub.services import idempotency, imports, runs
from tests.modelhub import test_rendering, test_runner, test_storage
from tests.modelhub.services import test_idempotency, test_imports, test_runs

# What a test says when its guard is gone: a wrong value, or no refusal where one was expected.
Caught = (AssertionError, pytest.fail.Exception)


def test_without_the_fence_a_lost_worker_writes(counting, monkeypatch):
    monkeypatch.setattr(runs, "_owned", lambda run_id, fence: Run.objects.filter(pk=run_id))
    with pytest.raises(Caught):
        test_runs.test_no_write_of_a_worker_that_lost_the_run_counts(counting)


def test_without_the_manifest_check_damage_goes_unseen(monkeypatch, db, tmp_path: Path):
    monkeypatch.setattr(storage, "manifest_verify", lambda folder, sha256=None: None)
    weights = test_storage.weights.__wrapped__(tmp_path)
    stored = test_storage.stored.__wrapped__(None, weights)
    with pytest.raises(Caught):
        test_storage.test_damage_is_found_and_named(
            stored, test_storage.flip_a_bit, "model-1.safetensors has changed"
        )


def test_without_the_import_roots_anything_is_read(monkeypatch, db, tmp_path: Path):
    monkeypatch.setattr(imports, "import_path", lambda location, *, wants_folder: Path(location))
    root = test_imports.root.__wrapped__(tmp_path)
    with pytest.raises(Caught):
        test_imports.test_what_lies_elsewhere_is_refused_as_if_it_were_not_there(
            None, root, "/etc", "directory"
        )


def test_without_scrubbing_a_program_has_the_secrets(counting, monkeypatch):
    monkeypatch.setattr(runner, "_SECRET_WORDS", set())
    monkeypatch.setattr(runner, "_SECRET_NAMES", set())
    with pytest.raises(Caught):
        test_runner.test_secrets_do_not_reach_the_program(counting, monkeypatch)


@pytest.mark.parametrize(
    "attack", ["<script>x</script>", "[x](javascript:x)", "<img src=//beacon.invalid>"]
)
def test_without_the_cleaner_an_attack_is_left(monkeypatch, attack: str) -> None:
    monkeypatch.setattr(rendering, "_MARKDOWN", MarkdownIt("commonmark", {"html": True}))
    monkeypatch.setattr(rendering._MARKDOWN, "validateLink", lambda link: True)
    monkeypatch.setattr(rendering, "_CLEANER", SimpleNamespace(clean=lambda html: html))
    monkeypatch.setattr(rendering, "_rendered_again", rendering._rendered)
    with pytest.raises((*Caught, KeyError)):
        test_rendering.test_nothing_of_an_attack_is_left_but_words(attack)


def test_without_the_cap_a_long_text_is_parsed(monkeypatch) -> None:
    monkeypatch.setattr(rendering, "MAX_MARKDOWN_CHARS", 10**9)
    with pytest.raises(Caught):
        test_rendering.test_a_text_past_the_cap_is_shown_as_it_was_written()


@pytest.mark.django_db(transaction=True)
def test_without_the_reserved_row_simultaneous_requests_act_twice(monkeypatch):
    def look_then_act(*, user, key: str, body: object, act: Callable[[], object]) -> object:
        """The obvious way: look whether it was done, do it, write down that it was."""
        given = idempotency._given(user, key)
        if given is not None:
            return given.response
        reply = act()
        idempotency.IdempotentRequest.objects.get_or_create(
            user=user, key=key, defaults={"request_sha256": "", "response": reply}
        )
        return reply

    monkeypatch.setattr(test_idempotency, "idempotent", look_then_act)
    with pytest.raises(Caught):
        test_idempotency.test_of_twenty_simultaneous_requests_one_acts_and_all_get_its_reply()
