"""Importing prompts: strict, all or nothing, the same twice as once."""

import io
import json

import pytest

from annotation.models import Candidate, Project, Prompt
from annotation.services.prompts import MAX_LINE_BYTES, prompts_import
from annotation.splits import group_hash
from modelhub.errors import ApplicationError
from tests.builders import make_project

pytestmark = pytest.mark.django_db


def lines(*values: object) -> bytes:
    return b"".join(json.dumps(value).encode() + b"\n" for value in values)


def imported(project: Project, data: bytes):
    return prompts_import(project=project, lines=io.BytesIO(data), name="p.jsonl")


def test_messages_and_plain_prompts_come_in_with_their_tags(project: Project) -> None:
    talk = [
        {"role": "system", "content": "Be kind."},
        {"role": "user", "content": "Hello"},
        {"role": "assistant", "content": "Hi"},
        {"role": "user", "content": "Bye"},
    ]
    counts = imported(
        project,
        lines({"prompt": "Why?", "tags": ["b", "a", "a"], "source": "me"}, {"messages": talk}),
    )
    assert (counts.new, counts.existing, counts.total) == (2, 0, 2)
    first, second = Prompt.objects.order_by("id")
    assert first.messages == [{"role": "user", "content": "Why?"}]
    assert (first.tags, first.source) == (["a", "b"], "me")
    assert second.messages == talk
    assert second.group_hash == group_hash([{"role": "user", "content": "Hello"}])


def test_the_same_file_twice_adds_nothing(project: Project) -> None:
    data = lines(*({"prompt": f"Question {n}?"} for n in range(1200)))
    assert imported(project, data).new == 1200
    again = imported(project, data)
    assert (again.new, again.existing) == (0, 1200)
    assert Prompt.objects.count() == 1200


def test_a_prompt_twice_in_a_file_is_one(project: Project) -> None:
    counts = imported(project, lines({"prompt": "Why?"}, {"prompt": "Why?"}))
    assert (counts.new, counts.existing) == (1, 1)


def test_the_same_prompt_in_two_projects_is_two(project: Project) -> None:
    assert imported(project, lines({"prompt": "Why?"})).new == 1
    assert imported(make_project("Other"), lines({"prompt": "Why?"})).new == 1


def test_one_bad_line_of_many_changes_nothing(project: Project) -> None:
    data = lines(*({"prompt": f"Question {n}?"} for n in range(1000)))
    data += b'{"prompt": 7}\n' + lines({"prompt": "after"})
    with pytest.raises(ApplicationError) as refused:
        imported(project, data)
    assert refused.value.extra == {"file": "p.jsonl", "line": 1001, "field": "prompt"}
    assert "p.jsonl, line 1001, field prompt" in refused.value.message
    assert not Prompt.objects.exists()


def answers(prompt: str = "Why?") -> list[tuple[int, str, dict[str, str]]]:
    rows = Candidate.objects.filter(prompt__messages__0__content=prompt).order_by("index")
    return [(one.index, one.text, one.decoding) for one in rows]


def test_answers_come_in_with_who_wrote_them(project: Project) -> None:
    counts = imported(
        project,
        lines(
            {"prompt": "Why?", "answers": ["Because.", {"text": "No.", "model": "ours-7b"}]},
            {"messages": [user("How?")], "answers": [{"text": "So."}]},
        ),
    )
    assert (counts.new, counts.answers) == (2, 3)
    told = {"engine": "import"}
    assert answers() == [(0, "Because.", told), (1, "No.", told | {"model": "ours-7b"})]
    assert answers("How?") == [(0, "So.", told)]


def test_an_answer_is_not_doubled_and_more_are_added_to_the_same_prompt(project: Project) -> None:
    data = lines(
        {"prompt": "Why?", "answers": ["a", "b", " a "]}, {"prompt": "Why?", "answers": ["b", "c"]}
    )
    counts = imported(project, data)
    assert (counts.new, counts.existing, counts.answers) == (1, 1, 3)
    assert imported(project, data).answers == 0
    assert imported(project, lines({"prompt": "Why?", "answers": ["d", "a"]})).answers == 1
    assert [(index, text) for index, text, _ in answers()] == list(enumerate("abcd"))
    assert imported(make_project("Other"), data).answers == 3


def test_a_prompt_imported_without_answers_takes_them_later(project: Project) -> None:
    imported(project, lines({"prompt": "Why?"}))
    counts = imported(project, lines({"prompt": "Why?", "answers": ["a"]}))
    assert (counts.new, counts.existing, counts.answers) == (0, 1, 1)


def test_one_bad_answer_of_many_changes_nothing(project: Project) -> None:
    data = lines(*({"prompt": f"{n}?", "answers": ["a", "b"]} for n in range(600)))
    with pytest.raises(ApplicationError) as refused:
        imported(project, data + lines({"prompt": "Why?", "answers": ["a", ""]}))
    assert refused.value.extra == {"file": "p.jsonl", "line": 601, "field": "answers[1]"}
    assert not Prompt.objects.exists() and not Candidate.objects.exists()


def said(text: str) -> list[dict[str, object]]:
    return [{"role": "assistant", "content": text}]


@pytest.mark.parametrize(
    "row",
    [
        {"prompt": "Why?", "chosen": "a", "rejected": "b"},
        {"prompt": [{"role": "user", "content": "Why?"}], "chosen": said("a"), "rejected": "b"},
        {
            "chosen": [{"role": "user", "content": "Why?"}, *said("a")],
            "rejected": [{"role": "user", "content": "Why?"}, *said("b")],
        },
    ],
)
def test_a_pair_in_trls_layouts_is_two_answers(project: Project, row: dict[str, object]) -> None:
    assert imported(project, lines(row)).answers == 2
    assert [text for _, text, _ in answers()] == ["a", "b"]


@pytest.mark.parametrize(
    ("content", "said"),
    [
        (
            b'{"prompt": "a"}\n\n{"prompt": "b", "source": "s"\n',
            "p.jsonl, line 3: not JSON at column 30: Expecting ',' delimiter",
        ),
        (
            b"prompt,source\nWhy?,s\n",
            "p.jsonl, line 1: not JSON at column 1: Expecting value. "
            "This is no JSON Lines file, which has an object in every line",
        ),
    ],
)
def test_what_is_no_json_is_told_with_the_files_line_and_its_column_once(
    project: Project, content: bytes, said: str
) -> None:
    with pytest.raises(ApplicationError) as refused:
        imported(project, content)
    assert refused.value.message == said


def user(content: object = "x") -> dict[str, object]:
    return {"role": "user", "content": content}


@pytest.mark.parametrize(
    ("line", "field", "words"),
    [
        (b"nonsense", "", "not JSON"),
        (b"[1]", "", "expected an object"),
        (b'{"prompt": "a", "prompt": "b"}', "", "same key twice"),
        (b'{"prompt": NaN}', "", "NaN"),
        (b'{"prompt": "\\ud800"}', "", "Unicode"),
        (b'{"prompt": "caf\xe9"}', "", "not UTF-8"),
        ('\ufeff{"prompt": "a"}'.encode(), "", "BOM"),
        ('{"prompt": "a"}'.encode("utf-16"), "", "not UTF-8"),
        (b"[" * 100_000, "", "not JSON"),
        (b'{"prompt": ' + b"9" * 5000 + b"}", "", "not JSON"),
        (b"{}", "messages", "one of messages and prompt"),
        (json.dumps({"prompt": "a", "messages": [user()]}).encode(), "messages", "one of"),
        (b'{"prompt": "a", "split": "train"}', "split", "unknown field"),
        (b'{"prompt": ""}', "prompt", "empty"),
        (b'{"prompt": " \\u200b\\ufe0f "}', "prompt", "nothing that can be seen"),
        (b'{"prompt": "a\\u0000b"}', "prompt", "NUL"),
        (json.dumps({"prompt": "a" * 100_001}).encode(), "prompt", "longer than 100000"),
        (b'{"messages": []}', "messages", "1 to 100"),
        (json.dumps({"messages": [user()] * 101}).encode(), "messages", "1 to 100"),
        (b'{"messages": ["a"]}', "messages[0]", '"role" and "content"'),
        (json.dumps({"messages": [user() | {"x": 1}]}).encode(), "messages[0]", '"role" and'),
        (b'{"messages": [{"role": "bot", "content": "a"}]}', "messages[0].role", "one of"),
        (json.dumps({"messages": [user(5)]}).encode(), "messages[0].content", "a text, got int"),
        (json.dumps({"messages": [user(), user()]}).encode(), "messages", "alternate"),
        (b'{"messages": [{"role": "system", "content": "a"}]}', "messages", "alternate"),
        (b'{"messages": [{"role": "assistant", "content": "a"}]}', "messages", "alternate"),
        (b'{"prompt": "a", "tags": "x"}', "tags", "a list"),
        (b'{"prompt": "a", "tags": [1]}', "tags", "a text"),
        (json.dumps({"prompt": "a", "tags": ["x" * 61]}).encode(), "tags", "longer than 60"),
        (b'{"prompt": "a", "source": null}', "source", "a text"),
        (b'{"prompt": "a", "answers": "b"}', "answers", "1 to 9"),
        (b'{"prompt": "a", "answers": []}', "answers", "1 to 9"),
        (json.dumps({"prompt": "a", "answers": ["b"] * 10}).encode(), "answers", "1 to 9"),
        (b'{"prompt": "a", "answers": ["b", 7]}', "answers[1]", "a text, got int"),
        (b'{"prompt": "a", "answers": [{"model": "m"}]}', "answers[0]", '"text"'),
        (b'{"prompt": "a", "answers": [{"text": "b", "x": 1}]}', "answers[0]", '"text"'),
        (b'{"prompt": "a", "answers": [{"text": " "}]}', "answers[0].text", "empty"),
        (b'{"prompt": "a", "answers": [{"text": "b", "model": 1}]}', "answers[0].model", "a text"),
        (b'{"prompt": "a", "chosen": "b"}', "rejected", "missing"),
        (b'{"prompt": "a", "chosen": "b", "rejected": ""}', "rejected", "empty"),
        (b'{"prompt": "a", "chosen": [], "rejected": "b"}', "chosen", "assistant"),
        (b'{"chosen": "a", "rejected": "b"}', "rejected", "without a prompt"),
        (
            b'{"prompt": "a", "answers": ["b"], "chosen": "b", "rejected": "c"}',
            "answers",
            "wanted either",
        ),
        (
            json.dumps(
                {"prompt": "a", "chosen": [user(), *said("b")], "rejected": said("c")}
            ).encode(),
            "chosen",
            "beside a prompt",
        ),
    ],
)
def test_a_refusal_names_line_and_field(
    project: Project, line: bytes, field: str, words: str
) -> None:
    with pytest.raises(ApplicationError) as refused:
        imported(project, lines({"prompt": "fine"}) + b"\n" + line + b"\n")
    assert refused.value.extra["field"] == field
    assert refused.value.extra["line"] == 3 or line.startswith(b"\xff\xfe")
    assert words in refused.value.message
    assert not Prompt.objects.exists()


def test_the_file_may_begin_with_a_bom_end_lines_as_windows_does_and_break_off(
    project: Project,
) -> None:
    counts = imported(project, b'\xef\xbb\xbf{"prompt": "a"}\r\n\r\n{"prompt": "b"}')
    assert counts.new == 2


def test_line_separators_of_unicode_are_text(project: Project) -> None:
    text = "a\u2028b\u0085c\u2029d"
    imported(project, json.dumps({"prompt": text}, ensure_ascii=False).encode())
    assert Prompt.objects.get().messages[0]["content"] == text


def test_an_empty_file_is_refused(project: Project) -> None:
    with pytest.raises(ApplicationError, match=r"p\.jsonl holds no prompts"):
        imported(project, b"\n  \n")


def test_an_endless_line_is_not_read_whole(project: Project) -> None:
    class Endless:
        read = 0

        def readline(self, size: int) -> bytes:
            self.read += size
            assert self.read < 3 * MAX_LINE_BYTES
            return b"x" * size

    with pytest.raises(ApplicationError, match="longer than") as refused:
        prompts_import(project=project, lines=Endless(), name="p.jsonl")
    assert refused.value.extra["line"] == 1


def test_any_iterable_of_lines_will_do(project: Project) -> None:
    counts = prompts_import(
        project=project, lines=[b'{"prompt": "a"}', b'{"prompt": "b"}\n'], name="x", source="api"
    )
    assert counts.new == 2
    assert set(Prompt.objects.values_list("source", flat=True)) == {"api"}


def test_rewrites_come_to_one_side_even_after_the_shares_have_changed(
    project: Project, settings
) -> None:
    settings.PROMPT_SPLIT_SHARES = (1.0, 0.0, 0.0)
    imported(project, lines({"prompt": "Why is the sky blue?"}))
    settings.PROMPT_SPLIT_SHARES = (0.0, 0.0, 1.0)
    imported(project, lines({"prompt": "WHY is the  sky blue?"}, {"prompt": "Something new"}))
    sides = list(Prompt.objects.order_by("id").values_list("split", flat=True))
    assert sides == ["train", "train", "held_out"]


def test_ten_thousand_more_prompts_move_none(project: Project) -> None:
    imported(project, lines(*({"prompt": f"Old {n}?"} for n in range(300))))
    before = dict(Prompt.objects.values_list("uid", "split"))
    imported(project, lines(*({"prompt": f"New {n}?"} for n in range(10_000))))
    after = dict(Prompt.objects.filter(uid__in=before).values_list("uid", "split"))
    assert before == after
    assert len(set(before.values())) == 3
