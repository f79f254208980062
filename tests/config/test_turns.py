"""How many requests compute at once."""

import threading
from concurrent.futures import ThreadPoolExecutor

from django.http import HttpResponse, StreamingHttpResponse
from django.test import RequestFactory

from config.turns import AT_ONCE, TurnsMiddleware


def test_no_more_compute_at_once_than_there_are_turns():
    inside, most, lock = 0, 0, threading.Lock()
    all_in = threading.Barrier(AT_ONCE)

    def view(request):
        nonlocal inside, most
        with lock:
            inside += 1
            most = max(most, inside)
        all_in.wait(timeout=10)  # so that as many as may are seen together
        with lock:
            inside -= 1
        return HttpResponse("done")

    middleware = TurnsMiddleware(view)
    request = RequestFactory().get("/")
    with ThreadPoolExecutor(3 * AT_ONCE) as people:
        answers = list(people.map(lambda _: middleware(request), range(3 * AT_ONCE)))
    assert [answer.content for answer in answers] == [b"done"] * 3 * AT_ONCE
    assert most == AT_ONCE


def test_an_answer_that_streams_has_given_its_turn_back():
    middleware = TurnsMiddleware(lambda request: StreamingHttpResponse(iter([b"a", b"b"])))
    streams = [middleware(RequestFactory().get("/")) for _ in range(3 * AT_ONCE)]
    assert [b"".join(stream) for stream in streams] == [b"ab"] * 3 * AT_ONCE


def test_a_view_that_fails_gives_its_turn_back():
    def view(request):
        raise ValueError("no")

    middleware = TurnsMiddleware(view)
    for _ in range(3 * AT_ONCE):
        try:
            middleware(RequestFactory().get("/"))
        except ValueError:
            continue
    assert (
        TurnsMiddleware(lambda request: HttpResponse("on"))(RequestFactory().get("/")).content
        == b"on"
    )
