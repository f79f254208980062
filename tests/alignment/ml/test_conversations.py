"""Which tokens of a conversation are learnt, worked by hand on a tokenizer of one token a byte."""

import json

import pytest

torch = pytest.importorskip("torch", reason="the ml extra is not installed")

from alignment.ml.conversations import (
    Conversation,
    Lesson,
    conversations_read,
    lessons_make,
    taught_places,
)
from alignment.ml.shared_prefix import pack
from annotation.splits import group_hash, split_of
from modelhub.ml.chat import ChatTemplateError, end_of_turn_id
from modelhub.ml.configs import RefusedError
from modelhub.ml.records import RecordError
from tests.tiny_model import tiny_tokenizer

pytestmark = pytest.mark.ml

END = "<|im_end|>"


def said(*turns):
    """Messages of "role: words" texts: u for the user, a for the assistant, s for the system."""
    roles = {"u": "user", "a": "assistant", "s": "system"}
    return [{"role": roles[turn[0]], "content": turn[3:]} for turn in turns]


def talk(*turns, written_from=None, **fields):
    messages = said(*turns)
    first = next(i for i, one in enumerate(messages) if one["role"] == "assistant")
    fields = {"id": "t", **fields}
    return Conversation(
        messages=messages, written_from=first if written_from is None else written_from, **fields
    )


def lessons(*talks, max_tokens=500, tokenizer=None, **settings):
    return lessons_make(talks, tokenizer or tiny_tokenizer(), max_tokens=max_tokens, **settings)


def shown(lesson: Lesson, number=0):
    """(what is behind the beginning, its learnt stretches) as text."""
    tokenizer = tiny_tokenizer()
    answer_T, taught_T = lesson.group.answers[number], lesson.taught[number]
    stretches, own = [], []
    for token, taught in [*zip(answer_T, taught_T, strict=True), (0, False)]:
        if taught:
            own.append(token)
        elif own:
            stretches.append(tokenizer.decode(own))
            own = []
    return tokenizer.decode(answer_T), stretches


# ── the loss mask (RELIABILITY.md T24) ───────────────────────────────────────────────────────────


def test_of_one_answer_its_words_and_the_end_of_its_turn_are_learnt():
    (lesson,) = lessons(talk("u: Hi", "a: Yo")).lessons
    text, stretches = shown(lesson)
    assert tiny_tokenizer().decode(lesson.group.prompt_T) == (
        f"<|im_start|>user\nHi{END}\n<|im_start|>assistant\n"
    )
    assert (text, stretches) == (f"Yo{END}", [f"Yo{END}"])
    assert lesson.taught == [[True, True, True]]


def test_of_many_turns_what_the_assistant_says_is_learnt_and_nothing_it_is_told():
    (lesson,) = lessons(talk("s: Be brief", "u: Hi", "a: Yo", "u: Why", "a: So")).lessons
    text, stretches = shown(lesson)
    assert text == (f"Yo{END}\n<|im_start|>user\nWhy{END}\n<|im_start|>assistant\nSo{END}")
    assert stretches == [f"Yo{END}", f"So{END}"]
    # By hand: Y o end | \n start "user\n" W h y end \n start "assistant\n" | S o end
    assert lesson.taught == [[True] * 3 + [False] * (1 + 1 + 5 + 3 + 1 + 1 + 1 + 10) + [True] * 3]
    assert lesson.taught_tokens == 6


@pytest.mark.parametrize(
    ("loss_turns", "learnt"),
    [
        ("written", [f"two{END}", f"three{END}"]),
        ("every", [f"one{END}", f"two{END}", f"three{END}"]),
        ("last", [f"three{END}"]),
    ],
)
def test_a_setting_says_which_of_the_assistants_turns_are_learnt(loss_turns, learnt):
    one = talk("u: 1", "a: one", "u: 2", "a: two", "u: 3", "a: three", written_from=3)
    (lesson,) = lessons(one, loss_turns=loss_turns).lessons
    assert shown(lesson)[1] == learnt


def test_a_packed_row_reads_each_learnt_token_at_the_place_before_it():
    made = lessons(
        talk("u: Hi", "a: Yo", "u: Why", "a: So", id="a"), talk("u: Ho", "a: No", id="b")
    ).lessons
    (row,) = pack([lesson.group for lesson in made], 500)
    own = [made[index] for index in row.indices]
    taught = torch.tensor(taught_places(own))
    source_S, target_S = (place[taught] for place in row.answer_places())
    ids = row.input_ids()[0]
    assert torch.equal(ids[source_S + 1], target_S)  # one answer a prompt: the next token
    assert tiny_tokenizer().decode(target_S.tolist()) == f"Yo{END}So{END}No{END}"


def test_an_answer_that_was_cut_off_is_not_taught_to_end():
    end = end_of_turn_id(tiny_tokenizer())
    whole, cut = lessons(
        talk("u: Hi", "a: yes", id="a"), talk("u: Hi", "a: yes and", id="b", finish_reason="length")
    ).lessons
    assert whole.group.answers[0][-1] == end
    assert end not in cut.group.answers[0]
    assert (len(whole.group.answers[0]), len(cut.group.answers[0])) == (4, 7)


def test_the_end_of_a_session_is_learnt_behind_a_talk_that_ended():
    whole, cut = lessons(
        talk("u: Hi", "a: Yo", id="a"),
        talk("u: Hi", "a: Yo", id="b", finish_reason="length"),
        end_of_session="<|endoftext|>",
    ).lessons
    assert shown(whole) == (f"Yo{END}<|endoftext|>", [f"Yo{END}<|endoftext|>"])
    assert shown(cut) == ("Yo", ["Yo"])


@pytest.mark.parametrize(
    ("token", "reason"),
    [("<|bye|>", "is not a token of the model's vocabulary"), (END, "ends a turn already")],
)
def test_a_token_that_cannot_end_a_session_is_refused(token, reason):
    with pytest.raises(RefusedError, match=reason):
        lessons(talk("u: Hi", "a: Yo"), end_of_session=token)


def test_answers_to_one_prompt_share_it():
    made = lessons(
        talk("u: Hi", "a: one", id="b"),
        talk("u: Ho", "a: two", id="a"),
        talk("u: Hi", "a: three", id="b"),
    )
    assert [len(lesson.group.answers) for lesson in made.lessons] == [1, 2]  # a, then b
    assert made.conversations == 3


def test_talks_that_part_later_share_only_what_they_have_in_common():
    made = lessons(
        talk("u: Hi", "a: one", "u: A", "a: x"),
        talk("u: Hi", "a: two", "u: B", "a: y"),
        loss_turns="last",
    )
    assert [len(lesson.group.answers) for lesson in made.lessons] == [1, 1]


def test_one_prompt_id_for_two_contexts_is_refused():
    with pytest.raises(RefusedError, match="prompt t stands for different conversations"):
        lessons(talk("u: Hi", "a: x"), talk("u: Ho", "a: y"))


def test_long_and_empty_talks_are_left_out_and_named_never_cut():
    prompt = len(lessons(talk("u: Hi", "a: x")).lessons[0].group.prompt_T)
    made = lessons(
        talk("u: Hi", "a: " + "x" * 9, id="a"),
        talk("u: Hi", "a: " + "x" * 10, id="a"),
        talk("u: Hi", "a: ", id="b", finish_reason="length"),
        talk("u: Hi", "a: ", id="c"),
        Conversation(id="d", messages=[], written_from=0),
        max_tokens=prompt + 10,
    )
    # An empty answer that ended would be one token to learn: to end without a word.
    assert (made.too_long, made.empty, made.unanswered) == (["a"], ["b", "c"], ["d"])
    assert [len(answer) for one in made.lessons for answer in one.group.answers] == [10]


# ── templates ────────────────────────────────────────────────────────────────────────────────────

LLAMA_2 = (
    "{% for m in messages %}{% if m['role'] == 'user' %}"
    "<|im_start|>[INST] {{ m['content'] }} [/INST]"
    "{% else %} {{ m['content'] | trim }} <|im_end|>{% endif %}{% endfor %}"
)


def with_template(template):
    tokenizer = tiny_tokenizer()
    tokenizer.chat_template = template
    return tokenizer


def test_a_template_of_another_kind_is_laid_as_well():
    """Llama 2's: no marker in front of an answer, spaces around it, white space trimmed."""
    tokenizer = with_template(LLAMA_2)
    (lesson,) = lessons(talk("u: Hi", "a:  Yo ", "u: Why", "a: So"), tokenizer=tokenizer).lessons
    assert shown(lesson) == (
        f" Yo {END}<|im_start|>[INST] Why [/INST]So{END}",
        [f" Yo {END}", f"So{END}"],
    )


@pytest.mark.parametrize(
    ("template", "reason"),
    [
        (
            # Thinking is taken out of what was said before, as some models' templates do.
            "{% for m in messages %}<|im_start|>{{ m['role'] }}\n"
            "{{ m['content'].split('</think>')[-1] if not loop.last else m['content'] }}"
            "<|im_end|>\n"
            "{% endfor %}{% if add_generation_prompt %}<|im_start|>assistant\n{% endif %}",
            "conversation t, turn 4: once the talk goes on, the chat template lays what was said",
        ),
        (
            "{% for m in messages %}{{ m['role'] }}: {{ m['content'] }}<|im_end|>{% endfor %}"
            "{% if add_generation_prompt %}bot: {% endif %}",
            "conversation t, turn 2: the chat template lays it otherwise than it asks for it",
        ),
        (
            "{% for m in messages %}{{ m['role'] }}: {{ m['content'] | upper }}<|im_end|>"
            "{% endfor %}{% if add_generation_prompt %}assistant: {% endif %}",
            "leaves out the assistant's words|does not lay its words as they are",
        ),
        (
            "{% for m in messages %}{{ m['role'] }}: {{ m['content'] }}\n{% endfor %}"
            "{% if add_generation_prompt %}assistant: {% endif %}",
            "conversation t, turn 2: the chat template writes no '<.im_end.>' behind its words",
        ),
    ],
    ids=["drops thinking", "asks otherwise", "changes words", "no ending"],
)
def test_a_template_whose_turns_cannot_be_told_is_refused_and_the_turn_named(template, reason):
    one = talk("u: Hi", "a: <think>hm</think>Yo", "u: Why", "a: So")
    with pytest.raises(ChatTemplateError, match=reason):
        lessons(one, tokenizer=with_template(template))


# ── files ────────────────────────────────────────────────────────────────────────────────────────


def read(tmp_path, *rows, name="demonstrations.jsonl"):
    (tmp_path / name).write_text("".join(json.dumps(row) + "\n" for row in rows))
    return list(conversations_read(tmp_path))


COMMON = {
    "tags": [],
    "batch": None,
    "annotator": "ann",
    "is_simulated": False,
    "active_s": 3.0,
    "rationale": "",
    "guideline": None,
}


def candidate(uid, text, finish_reason="stop"):
    return {
        "id": uid,
        "text": text,
        "finish_reason": finish_reason,
        "token_count": None,
        "model_version": None,
    }


def test_what_annotators_wrote_is_read_with_its_later_turns(tmp_path):
    (one,) = read(
        tmp_path,
        {
            **COMMON,
            "id": "s1",
            "prompt_id": "p1",
            "messages": said("u: Hi"),
            "split": "validation",
            "candidate": candidate("c", "Yo"),
            "started_from": None,
            "turns": [{"user": "Why", "text": "So"}],
            "source": "person",
            "weight": 0.5,
        },
    )
    assert one.messages == said("u: Hi", "a: Yo", "u: Why", "a: So")
    assert (one.id, one.written_from, one.split, one.weight) == ("p1", 1, "validation", 0.5)


def test_what_rejection_sampling_kept_is_read(tmp_path):
    (one,) = read(
        tmp_path,
        {
            "prompt_id": "p1",
            "messages": said("u: 1", "a: one", "u: 2"),
            "text": "two",
            "finish_reason": "length",
            "score": 1.0,
            "batch": "b",
        },
    )
    assert one.messages == said("u: 1", "a: one", "u: 2", "a: two")
    assert (one.written_from, one.finish_reason, one.split) == (3, "length", "train")


def test_sharegpt_rows_are_split_as_the_sites_prompts_are(tmp_path):
    def row(question):
        return {
            "conversations": [
                {"from": "system", "value": "Be brief"},
                {"from": "human", "value": question},
                {"from": "gpt", "value": "Yo"},
                {"from": "human", "value": "Never answered"},
            ]
        }

    found = read(tmp_path, *(row(f"question {i}") for i in range(40)))
    assert found[0].messages == said("s: Be brief", "u: question 0", "a: Yo")
    assert found[0].written_from == 2
    assert [one.split for one in found] == [split_of(group_hash(one.messages)) for one in found]
    assert {one.split for one in found} == {"train", "validation", "held_out"}
    others = conversations_read(tmp_path, (0.0, 1.0, 0.0))
    assert {one.split for one in others} == {"validation"}
    assert len({one.id for one in found}) == 40


def test_a_chat_without_an_answer_to_a_question_is_counted_by_whoever_reads_it(tmp_path):
    rows = [
        {"conversations": [{"from": "human", "value": "Hi"}]},
        {"messages": said("a: Welcome", "u: Hi", "a: Yo")},
    ]
    assert [one.messages for one in read(tmp_path, *rows)] == [[], []]


def test_a_dialogue_is_the_talk_as_it_went_on_with_the_chosen_answers(tmp_path):
    def turn(number, messages, chosen, other):
        return {
            **COMMON,
            "id": f"s1-{number:02d}",
            "prompt_id": f"p{number}",
            "messages": messages,
            "split": "train",
            "candidates": [candidate(chosen, chosen), candidate(other, other)],
            "tiers": [[chosen], [other]],
            "unacceptable": [],
            "shown_order": [other, chosen],
            "kind": "dialogue",
            "degree": 2,
        }

    (one,) = read(
        tmp_path,
        turn(1, said("u: 1", "a: good", "u: 2"), "better", "worse"),
        turn(0, said("u: 1"), "good", "bad"),
        name="rankings.jsonl",
    )
    assert one.messages == said("u: 1", "a: good", "u: 2", "a: better")
    assert (one.id, one.written_from) == ("s1", 1)


@pytest.mark.parametrize(
    ("row", "reason"),
    [
        ([1], "expected an object"),
        ({"words": 1}, "wanted text, candidate, messages or conversations"),
        ({"conversations": [{"from": "cat", "value": "x"}]}, "unknown role 'cat'"),
        ({"messages": [{"role": "user"}]}, r"messages\[0\].*wanted role and content"),
        ({"messages": said("u: 1", "a: 2"), "split": "dev"}, "got 'dev'"),
    ],
)
def test_a_row_that_does_not_fit_is_refused_by_line_and_field(tmp_path, row, reason):
    with pytest.raises(RecordError, match=reason):
        read(tmp_path, row)


def test_rankings_that_are_no_dialogues_are_not_imitated(tmp_path):
    row = {
        **COMMON,
        "id": "s1",
        "prompt_id": "p",
        "messages": said("u: 1"),
        "split": "train",
        "candidates": [],
        "tiers": [],
        "unacceptable": [],
        "shown_order": [],
    }
    with pytest.raises(RecordError, match="a ranking compares answers; dialogues are imitated"):
        read(tmp_path, row, name="rankings.jsonl")


def test_a_folder_of_something_else_is_refused(tmp_path):
    with pytest.raises(RefusedError, match="holds neither"):
        list(conversations_read(tmp_path))
