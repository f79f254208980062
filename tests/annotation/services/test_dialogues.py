"""A talk with two live models: answers as they come, kept, chosen, gone on with."""

import json
from collections.abc import Iterator
from typing import Any

import pytest

from annotation.models import (
    Assignment,
    Candidate,
    DialogueTurn,
    Membership,
    Project,
    Prompt,
    Submission,
    Task,
    TaskForm,
)
from annotation.selectors import judgement_of
from annotation.services.assignments import assignment_next
from annotation.services.dialogues import Delta, dialogue_answers, dialogue_submit
from annotation.services.submissions import submission_undo
from annotation.splits import group_hash
from modelhub.endpoints import EndpointFailedError
from modelhub.errors import ApplicationError, ConflictError
from tests.builders import make_member, make_prompt, make_task, make_version
from tests.modelhub.streaming_server import Server, streaming_server

pytestmark = pytest.mark.django_db


@pytest.fixture
def server() -> Iterator[Server]:
    with streaming_server() as running:
        yield running


@pytest.fixture
def ann(project: Project) -> Membership:
    return make_member(project, "ann")


def handed(project: Project, ann: Membership, **settings: Any) -> Assignment:
    sides = [{"endpoint": "small", "temperature": 0.5}, {"endpoint": "large"}]
    TaskForm.objects.create(project=project, kind="dialogue", settings={"sides": sides, **settings})
    make_task(project, "dialogue", ())
    assignment = assignment_next(membership=ann)
    assert assignment is not None
    return assignment


@pytest.fixture
def given(project: Project, ann: Membership, server: Server) -> Assignment:
    server.endpoint("small")
    server.endpoint("large")
    return handed(project, ann, max_turns=2)


def asked(
    assignment: Assignment, user: str, after: Candidate | None = None, turn: int = 0
) -> tuple[list[str], DialogueTurn]:
    """The two texts as they were streamed, and the turn that was kept."""
    events = list(
        dialogue_answers(assignment=assignment, user=user, after=after and after.uid, turn=turn)
    )
    texts = ["", ""]
    for event in events[:-1]:
        assert isinstance(event, Delta)
        texts[event.candidate] += event.text
    assert isinstance(events[-1], DialogueTurn)
    return texts, events[-1]


def as_judged(turn: DialogueTurn, chosen: Candidate, degree: int = 2) -> dict[str, Any]:
    return {
        "user": turn.prompt.messages[-1]["content"],
        "candidates": [turn.first.uid, turn.second.uid],
        "chosen": chosen.uid,
        "degree": degree,
    }


def test_two_models_answer_and_both_answers_are_candidates(given: Assignment) -> None:
    texts, turn = asked(given, "Hello.")
    assert [turn.first.text, turn.second.text] == texts
    assert set(texts) == {"model-small at 0.5 heard 1.", "model-large at 1.0 heard 1."}
    assert turn.prompt.messages == [{"role": "user", "content": "Hello."}]
    assert turn.prompt.source == Prompt.OF_DIALOGUE
    by_text = {one.text: one.decoding for one in (turn.first, turn.second)}
    small = by_text["model-small at 0.5 heard 1."]
    assert (small["endpoint"], small["temperature"]) == ("small", 0.5)


def test_the_version_behind_an_endpoint_is_known(
    project: Project, ann: Membership, server: Server
) -> None:
    server.endpoint("small")
    version = make_version()
    side = {"endpoint": "small", "version": version.uid}
    assignment = handed(project, ann, sides=[side, {"endpoint": "small", "temperature": 0}])
    _, turn = asked(assignment, "Hello.")
    assert {turn.first.version, turn.second.version} == {version, None}


def test_a_talk_goes_on_from_the_answer_that_was_chosen(given: Assignment, server: Server) -> None:
    _, first = asked(given, "Hello.")
    _, second = asked(given, "Why?", first.second, turn=1)
    assert second.prompt.messages == [
        {"role": "user", "content": "Hello."},
        {"role": "assistant", "content": first.second.text},
        {"role": "user", "content": "Why?"},
    ]
    assert server.asked[-1]["messages"] == second.prompt.messages
    # The whole talk is on one side of the split.
    assert second.prompt.group_hash == first.prompt.group_hash
    assert second.prompt.split == first.prompt.split
    submission = dialogue_submit(
        assignment=given,
        turns=[as_judged(first, first.second, 4), as_judged(second, second.first)],
    )
    assert submission.status == Submission.Status.ACCEPTED
    assert judgement_of(submission)["turns"][1]["chosen"] == second.first.uid


def test_what_it_opens_with_decides_its_side(project: Project, given: Assignment) -> None:
    """Whatever its spaces and capitals are: it shares the side of the prompt that is there."""
    known = make_prompt(project, "known", split="held_out")
    known.group_hash = group_hash([{"role": "user", "content": "hello."}])
    known.save()
    for text in ("Hello.", " HELLO. "):
        assert asked(given, text)[1].prompt.split == "held_out"


def test_the_models_hear_the_systems_message_and_not_the_topic(
    project: Project, ann: Membership, server: Server
) -> None:
    server.endpoint("small")
    server.endpoint("large")
    prompt = make_prompt(project)
    prompt.messages = [{"role": "system", "content": "Be brief."}, *prompt.messages]
    prompt.save()
    TaskForm.objects.create(
        project=project,
        kind="dialogue",
        settings={"sides": [{"endpoint": "small"}, {"endpoint": "large"}]},
    )
    make_task(project, "dialogue", (), prompt=prompt)
    assignment = assignment_next(membership=ann)
    assert assignment is not None
    asked(assignment, "Hello.")
    assert server.asked[0]["messages"] == [
        {"role": "system", "content": "Be brief."},
        {"role": "user", "content": "Hello."},
    ]


def test_the_same_message_again_is_answered_alike_and_at_once(
    given: Assignment, server: Server
) -> None:
    _, first = asked(given, "Hello.")
    texts, again = asked(given, "Hello.")
    assert (texts, again) == (["", ""], first)
    assert len(server.asked) == 2


def test_which_model_stands_first_changes(
    project: Project, given: Assignment, server: Server
) -> None:
    given.shuffle_seed = 1  # a drawn seed puts one side first six times of six in every 32nd run
    given.save()
    first = set()
    for number in range(6):
        _, turn = asked(given, f"Hello {number}.")
        first.add(turn.first.decoding["endpoint"])
    assert first == {"small", "large"}


def test_there_is_an_end_to_putting_it_otherwise(given: Assignment) -> None:
    for number in range(8):  # four for each of the two turns
        asked(given, f"Hello {number}.")
    with pytest.raises(ApplicationError, match="no more answers"):
        asked(given, "Hello 8.")
    asked(given, "Hello 7.")


@pytest.mark.parametrize("mode", ["broken", "cut", "garbage"])
def test_when_one_side_fails_nothing_is_kept(
    project: Project, ann: Membership, server: Server, mode: str
) -> None:
    server.endpoint("small")
    server.endpoint("large", mode)
    assignment = handed(project, ann)
    with pytest.raises(EndpointFailedError, match="large"):
        asked(assignment, "Hello.")
    assert not DialogueTurn.objects.exists() and not Candidate.objects.exists()


def test_when_the_page_is_closed_nothing_is_kept(
    project: Project, ann: Membership, server: Server
) -> None:
    server.endpoint("small", "hangs")
    server.endpoint("large", "hangs")
    events = dialogue_answers(assignment=handed(project, ann), user="Hello.", after=None, turn=0)
    assert isinstance(next(events), Delta)
    events.close()  # type: ignore[attr-defined]
    assert not DialogueTurn.objects.exists()


def test_who_answers_is_the_managers_choice(project: Project, ann: Membership) -> None:
    make_task(project, "dialogue", ())
    assignment = assignment_next(membership=ann)
    assert assignment is not None
    with pytest.raises(ApplicationError, match="manager"):
        asked(assignment, "Hello.")
    TaskForm.objects.create(
        project=project, kind="dialogue", settings={"sides": [{"endpoint": "gone"}] * 2}
    )
    with pytest.raises(ApplicationError, match="is gone"):
        asked(assignment, "Hello.")


def test_of_a_message_is_refused(project: Project, given: Assignment, ann: Membership) -> None:
    _, first = asked(given, "Hello.")
    cases: list[tuple[dict[str, Any], str]] = [
        ({"user": " ", "after": None, "turn": 0}, "user"),
        ({"user": "Why?", "after": None, "turn": 1}, "after"),
        ({"user": "Why?", "after": first.first.uid, "turn": 0}, "after"),
        ({"user": "Why?", "after": "f" * 32, "turn": 1}, "after"),
        ({"user": "Why?", "after": first.first.uid, "turn": 2}, "turns"),
    ]
    for arguments, field in cases:
        with pytest.raises(ApplicationError) as refused:
            dialogue_answers(assignment=given, **arguments)
        assert refused.value.extra == {"field": field}, arguments
    dialogue_submit(assignment=given, turns=[as_judged(first, first.first)])
    given.refresh_from_db()
    with pytest.raises(ConflictError, match="submitted"):
        dialogue_answers(assignment=given, user="Why?", after=first.first.uid, turn=1)


def test_of_a_dialogue_is_refused(project: Project, given: Assignment) -> None:
    _, first = asked(given, "Hello.")
    _, second = asked(given, "Why?", first.first, turn=1)
    stranger = Candidate.objects.create(prompt=first.prompt, text="x")
    one, two = as_judged(first, first.first), as_judged(second, second.first)
    cases: list[tuple[list[dict[str, Any]], str]] = [
        ([], "turns"),
        ([one, two, two], "turns"),
        ([two], "turns[0].candidates"),
        ([one | {"user": "Hullo."}], "turns[0].candidates"),
        ([one | {"candidates": [first.first.uid, stranger.uid]}], "turns[0].candidates"),
        ([one | {"candidates": [first.first.uid] * 2}], "turns[0].candidates"),
        ([one | {"chosen": stranger.uid}], "turns[0].chosen"),
        ([one | {"chosen": first.second.uid}, two], "turns[1].candidates"),
        ([one | {"degree": 0}], "turns[0].degree"),
    ]
    for turns, field in cases:
        with pytest.raises(ApplicationError) as refused:
            dialogue_submit(assignment=given, turns=turns)
        assert refused.value.extra == {"field": field}, turns


def test_undone_a_dialogue_goes_on_with_its_answers(given: Assignment, server: Server) -> None:
    _, first = asked(given, "Hello.")
    dialogue_submit(assignment=given, turns=[as_judged(first, first.first)])
    back = submission_undo(assignment=given)
    assert back.draft == {"turns": [as_judged(first, first.first)], "rationale": ""}
    _, second = asked(back, "Why?", first.first, turn=1)
    submission = dialogue_submit(
        assignment=back,
        turns=[as_judged(first, first.first), as_judged(second, second.second)],
    )
    assert len(submission.dialogue.turns) == 2
    assert Task.objects.get().slots_free == 0


def events_of(response: Any) -> list[tuple[str, Any]]:
    found = []
    for block in b"".join(response.streaming_content).decode().strip().split("\n\n"):
        name, data = block.split("\n")
        found.append((name.removeprefix("event: "), json.loads(data.removeprefix("data: "))))
    return found


def test_the_page_gets_events_and_then_the_turn(
    given: Assignment, ann: Membership, signed_in: Any
) -> None:
    client = signed_in(ann.user)
    path = f"/api/v1/assignments/{given.uid}/"

    def ask(body: dict[str, Any]) -> Any:
        return client.post(
            f"{path}answers/",
            data=json.dumps(body),
            content_type="application/json",
            HTTP_ACCEPT="text/event-stream",
        )

    response = ask({"user": "Hello.", "turns": 0})
    assert response["Content-Type"] == "text/event-stream"
    events = events_of(response)
    assert {name for name, _ in events[:-1]} == {"delta"}
    name, turn = events[-1]
    assert name == "turn" and turn["user"] == "Hello."
    assert [len(one["uid"]) for one in turn["candidates"]] == [32, 32]
    assert "endpoint" not in json.dumps(turn)
    chosen = turn["candidates"][1]["uid"]
    # The answer that was chosen is the draft's, if the page does not name it.
    drafted = {**turn, "candidates": [one["uid"] for one in turn["candidates"]], "chosen": chosen}
    draft = {"draft": {"turns": [drafted]}, "sequence": 1}
    saved = client.post(f"{path}draft/", data=json.dumps(draft), content_type="application/json")
    assert saved.status_code == 200
    _, second = events_of(ask({"user": "Why?", "turns": 1}))[-1]
    assert events_of(ask({"user": "Why?", "turns": 1, "after": chosen}))[-1][1] == second
    page = client.post(f"/api/v1/projects/{ann.project.uid}/next/", content_type="application/json")
    assert [one["user"] for one in page.json()["answers"]] == ["Hello.", "Why?"]
    assert "sides" not in page.json()["form"]
    assert ask({"user": "", "turns": 0}).status_code == 400
    assert ask({"user": "Why?", "turns": 7}).json()["extra"] == {"field": "turns"}


def test_the_page_is_told_of_a_failure(
    project: Project, ann: Membership, server: Server, signed_in: Any
) -> None:
    server.endpoint("small")
    server.endpoint("large", "broken")
    assignment = handed(project, ann)
    response = signed_in(ann.user).post(
        f"/api/v1/assignments/{assignment.uid}/answers/",
        data=json.dumps({"user": "Hello.", "turns": 0}),
        content_type="application/json",
    )
    name, said = events_of(response)[-1]
    assert name == "failed" and "500" in said["message"]
