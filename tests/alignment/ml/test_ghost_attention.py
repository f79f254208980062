"""Ghost attention: told at every turn while sampling, at the first alone in what is learnt."""

import shutil

import pytest

torch = pytest.importorskip("torch", reason="the ml extra is not installed")

from alignment.ml import ghost_attention, sft
from alignment.ml.configs import GhostAttentionConfig
from alignment.ml.conversations import conversations_read, lessons_make
from alignment.ml.ghost_attention import Talk, demonstration_of, talks_make
from modelhub.ml.configs import ConfigError, RefusedError
from modelhub.ml.records import PromptRecord, records_write
from modelhub.ml.rundir import RunDir
from tests.alignment.ml.programs import lines_of, result_of, run_make
from tests.alignment.ml.test_sft import demonstration, sft_run
from tests.tiny_model import tiny_model_write, tiny_tokenizer

pytestmark = pytest.mark.ml

FRENCH = "In French."


def user(text):
    return {"role": "user", "content": text}


def assistant(text):
    return {"role": "assistant", "content": text}


def dialogue(name, *questions):
    messages = [user(questions[0])]
    for question in questions[1:]:
        messages += [assistant("as it was said once"), user(question)]
    return PromptRecord(prompt_id=name, messages=messages)


def test_the_instruction_is_told_at_every_turn_and_learnt_in_the_first_alone():
    talk = Talk("t", FRENCH, [], ["A?", "B?", "C?"], ["a", "b"])
    assert talk.asked() == [
        user("In French.\n\nA?"),
        assistant("a"),
        user("In French.\n\nB?"),
        assistant("b"),
        user("In French.\n\nC?"),
    ]
    talk.answers.append("c")
    one = demonstration_of(talk, "batch")
    assert one.messages == [
        user("In French.\n\nA?"),
        assistant("a"),
        user("B?"),
        assistant("b"),
        user("C?"),
    ]
    assert (one.text, one.finish_reason, one.score) == ("c", "stop", None)


def test_nothing_but_the_last_answer_has_a_loss(tmp_path):
    talk = Talk("t", FRENCH, [], ["A?", "B?"], ["aaa", "bb"])
    records_write(tmp_path / "demonstrations.jsonl", [demonstration_of(talk, "batch")])
    (lesson,) = lessons_make(conversations_read(tmp_path), tiny_tokenizer(), max_tokens=500).lessons
    assert lesson.taught == [[True] * 3]  # b b and the end of the turn
    assert "aaa" in tiny_tokenizer().decode(lesson.group.prompt_T)


def test_dialogues_of_one_question_have_no_later_turn_and_are_not_taken():
    config = GhostAttentionConfig(instructions=(FRENCH, "In Latin."))
    talks = talks_make([dialogue("a", "A?"), dialogue("b", "A?", "B?")], config)
    assert [(talk.id, talk.questions, talk.answers) for talk in talks] == [("b", ["A?", "B?"], [])]
    with pytest.raises(RefusedError, match="none of 1 dialogues has 2 questions or more"):
        talks_make([dialogue("a", "A?")], config)


def test_each_dialogue_keeps_its_instruction_and_all_are_given_out():
    config = GhostAttentionConfig(instructions=(FRENCH, "In Latin."))
    prompts = [dialogue(f"d{i}", "A?", "B?") for i in range(20)]
    told = [talk.instruction for talk in talks_make(prompts, config)]
    assert told == [talk.instruction for talk in talks_make(prompts, config)]
    assert set(told) == {FRENCH, "In Latin."}


def test_instructions_are_asked_for():
    with pytest.raises(ConfigError, match=r"ghost_attention.instructions: wanted one or more"):
        GhostAttentionConfig(instructions=())


@pytest.fixture(scope="module")
def obliging(tmp_path_factory):
    """A tiny model that has learnt to answer whatever it is asked with "ok"."""
    base = tiny_model_write(tmp_path_factory.mktemp("base"))
    questions = ["A?", "B?", f"{FRENCH}\n\nA?", f"{FRENCH}\n\nB?", "C", "xyz"]
    records = [demonstration(f"p{i}", "ok", question=one) for i, one in enumerate(questions)]
    run = sft_run(tmp_path_factory.mktemp("sft"), base, records, epochs=30, lr=5e-3)
    sft.main(RunDir(run))
    return run / "outputs" / "model"


def ghost_run(folder, model, **config):
    prompts = folder / "prompts"
    prompts.mkdir(parents=True)
    records_write(
        prompts / "prompts.jsonl",
        [dialogue("a", "A?", "B?", "A?"), dialogue("b", "B?", "A?"), dialogue("c", "x" * 400, "y")],
    )
    settings = {
        "instructions": [FRENCH],
        "engine": "transformers",
        "temperature": 0.0,
        "max_tokens": 8,
        "dtype": "float32",
        **config,
    }
    return run_make(
        folder / "run", "ghost_attention", {"model": model, "prompts": prompts}, settings
    )


def test_dialogues_are_written_turn_by_turn_and_a_resumed_run_writes_the_same(
    tmp_path, obliging, monkeypatch
):
    whole = ghost_run(tmp_path / "whole", obliging, max_context_tokens=300)
    ghost_attention.main(RunDir(whole))
    found = lines_of(whole / "outputs" / "demonstrations" / "demonstrations.jsonl")
    assert [(one["prompt_id"], one["text"]) for one in found] == [("a", "ok"), ("b", "ok")]
    assert [one["content"] for one in found[0]["messages"]] == [
        f"{FRENCH}\n\nA?",
        "ok",
        "B?",
        "ok",
        "A?",
    ]
    result = result_of(whole)
    assert (result["dialogues"], result["kept"], result["too_long"]) == (3, 2, 1)

    killed = ghost_run(tmp_path / "killed", obliging, max_context_tokens=300)
    real = ghost_attention.turn_draw

    def once(talks, turn, *rest, **named):
        if turn == 1:
            raise KeyboardInterrupt
        real(talks, turn, *rest, **named)

    monkeypatch.setattr(ghost_attention, "turn_draw", once)
    run = RunDir(killed)
    with pytest.raises(KeyboardInterrupt):
        ghost_attention.main(run)
    run._lock.close()
    turns = []
    monkeypatch.setattr(
        ghost_attention,
        "turn_draw",
        lambda talks, turn, *rest, **named: (turns.append(turn), real(talks, turn, *rest, **named)),
    )
    ghost_attention.main(RunDir(killed))
    assert turns == [1, 2]
    name = "outputs/demonstrations/demonstrations.jsonl"
    assert (killed / name).read_bytes() == (whole / name).read_bytes()
    shutil.rmtree(killed)


def test_dialogues_that_never_end_are_refused_with_the_counts(tmp_path, obliging):
    run = ghost_run(tmp_path, obliging, max_tokens=1, max_context_tokens=300)
    with pytest.raises(RefusedError, match="none of 3 dialogues came to its end: 1 too_long"):
        ghost_attention.main(RunDir(run))
