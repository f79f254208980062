"""Asking an endpoint for one answer as it is written."""

from collections.abc import Iterator

import pytest

from modelhub.endpoints import EndpointFailedError, answer_stream
from modelhub.models import Endpoint
from tests.modelhub.streaming_server import KEY, Server, streaming_server

pytestmark = pytest.mark.django_db


@pytest.fixture
def server() -> Iterator[Server]:
    with streaming_server() as running:
        yield running


def parts(endpoint: Endpoint) -> Iterator[str]:
    return answer_stream(
        endpoint=endpoint,
        messages=[{"role": "user", "content": "Hi"}],
        temperature=0.5,
        max_tokens=9,
    )


def test_an_answer_comes_in_parts(server: Server) -> None:
    assert list(parts(server.endpoint("a"))) == ["model-a", " at", " 0.5", " heard", " 1."]
    assert server.asked == [
        {
            "model": "model-a",
            "messages": [{"role": "user", "content": "Hi"}],
            "temperature": 0.5,
            "max_tokens": 9,
            "stream": True,
        }
    ]


def test_the_key_is_that_of_the_environment(
    server: Server, monkeypatch: pytest.MonkeyPatch
) -> None:
    endpoint = server.endpoint("a", key_variable="STREAM_KEY")
    with pytest.raises(EndpointFailedError, match="STREAM_KEY is not set"):
        next(parts(endpoint))
    monkeypatch.setenv("STREAM_KEY", "wrong")
    with pytest.raises(EndpointFailedError, match="401") as failed:
        next(parts(endpoint))
    assert "wrong" not in str(failed.value)
    monkeypatch.setenv("STREAM_KEY", KEY)
    assert next(parts(endpoint)) == "model-a"


def test_what_no_database_holds_is_replaced(server: Server) -> None:
    assert "".join(parts(server.endpoint("a", "strange"))) == "half \ufffd and\ufffd"


@pytest.mark.parametrize(
    ("mode", "said"),
    [("broken", "500"), ("elsewhere", "307"), ("garbage", "does not read"), ("cut", "broke off")],
)
def test_an_endpoint_that_fails_is_named(server: Server, mode: str, said: str) -> None:
    with pytest.raises(EndpointFailedError, match=said) as failed:
        list(parts(server.endpoint("a", mode)))
    assert str(failed.value).startswith("a ")


def test_an_endpoint_that_is_not_there_is_named(db: None) -> None:
    endpoint = Endpoint(name="gone", base_url="http://127.0.0.1:9/v1", served_model="m")
    with pytest.raises(EndpointFailedError, match="gone did not answer"):
        list(parts(endpoint))
