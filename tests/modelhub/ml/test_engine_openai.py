"""Sampling from an endpoint: a real server process, well behaved and ill."""

import json
import os
import subprocess
import sys
import urllib.request
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

pytest.importorskip("torch", reason="the ml extra is not installed")

from modelhub.ml.configs import GenerateConfig, RefusedError
from modelhub.ml.engines import Sample
from modelhub.ml.engines import openai as engine_module
from modelhub.ml.engines.openai import EndpointError, OpenAIEngine
from tests.modelhub.ml.completion_server import KEY
from tests.modelhub.ml.runs import ROOT
from tests.tiny_model import tiny_model_write

pytestmark = pytest.mark.ml


@pytest.fixture(scope="module")
def tiny(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tiny_model_write(tmp_path_factory.mktemp("tiny"))


@pytest.fixture(scope="module")
def serve(tiny: Path) -> Iterator[Callable[[str], str]]:
    """`serve(mode)` → base URL of a server process that behaves in that mode."""
    process = subprocess.Popen(
        [sys.executable, "-m", "tests.modelhub.ml.completion_server", str(tiny)],
        cwd=ROOT,
        stdout=subprocess.PIPE,
        env={**os.environ, "OMP_NUM_THREADS": "1"},
    )
    assert process.stdout is not None
    port = int(process.stdout.readline())
    yield lambda mode: f"http://127.0.0.1:{port}/{mode}/v1"
    process.kill()
    process.wait()
    process.stdout.close()


def _answers_given(url: str) -> int:
    request = urllib.request.Request(
        f"{url}/chat/completions",
        data=json.dumps({"model": "counts"}).encode(),
        headers={"Authorization": f"Bearer {KEY}"},
    )
    with urllib.request.urlopen(request) as reply:
        return json.load(reply)["given"]


def _samples(count: int) -> list[Sample]:
    return [
        Sample(
            prompt_id=f"p{number}",
            index=0,
            messages=({"role": "user", "content": f"word {number}"},),
            prompt_tokens=(),
            seed=number,
            temperature=1.0,
        )
        for number in range(count)
    ]


@pytest.fixture
def engine(tmp_path, monkeypatch) -> Callable[..., OpenAIEngine]:
    monkeypatch.setenv("TEST_ENDPOINT_KEY", KEY)

    def make(url: str, **settings) -> OpenAIEngine:
        config = GenerateConfig(
            engine="openai",
            endpoint_url=url,
            endpoint_model="tiny",
            endpoint_key_variable="TEST_ENDPOINT_KEY",
            max_tokens=12,
            **settings,
        )
        return OpenAIEngine(config, journal=tmp_path / "answers.jsonl")

    return make


def test_answers_come_with_count_reason_and_log_probability(serve, engine):
    answers = engine(serve("good")).generate(_samples(20), lambda count: None)
    assert len({answer.text for answer in answers}) == 20
    for answer in answers:
        assert answer.finish_reason in ("stop", "length")
        assert 1 <= answer.token_count <= 12
        assert answer.finish_reason == "stop" or answer.token_count == 12
        assert answer.mean_logprob is not None and answer.mean_logprob < 0


def test_every_prompt_is_settled_though_a_third_of_the_requests_fail(serve, engine, monkeypatch):
    monkeypatch.setattr(engine_module, "_FIRST_WAIT_S", 0.05)
    good = engine(serve("good")).generate(_samples(60), lambda count: None)
    (engine(serve("good"))._journal).unlink()
    before = _answers_given(serve("good"))
    flaky = engine(serve("flaky")).generate(_samples(60), lambda count: None)
    assert flaky == good
    assert _answers_given(serve("good")) - before == 60


def test_answers_that_came_are_not_asked_for_again(serve, engine):
    before = _answers_given(serve("good"))
    first = engine(serve("good"))
    part = first.generate(_samples(8), lambda count: None)
    # Killed inside a line: the last answer of the journal is lost, the others are not.
    whole = first._journal.read_bytes()
    first._journal.write_bytes(whole[:-20])
    resumed = engine(serve("good")).generate(_samples(10), lambda count: None)
    assert resumed[:8] == part
    assert _answers_given(serve("good")) - before == 8 + 3
    again = engine(serve("good")).generate(_samples(10), lambda count: None)
    assert again == resumed
    assert _answers_given(serve("good")) - before == 8 + 3


def test_an_endpoint_without_log_probabilities_is_asked_without(serve, engine, capsys):
    answers = engine(serve("no_logprobs")).generate(_samples(6), lambda count: None)
    assert [answer.mean_logprob for answer in answers] == [None] * 6
    assert capsys.readouterr().out.count("gives no log-probabilities") == 1


def test_a_log_probability_that_is_no_number_counts_as_not_told(serve, engine):
    answers = engine(serve("nan")).generate(_samples(2), lambda count: None)
    assert [answer.mean_logprob for answer in answers] == [None, None]
    assert all(answer.text and answer.token_count for answer in answers)


def test_a_redirect_is_refused_and_the_key_goes_nowhere_else(serve, engine):
    with pytest.raises(RefusedError, match="redirects"):
        engine(serve("elsewhere")).generate(_samples(1), lambda count: None)


def test_an_endpoint_that_stays_broken_fails_the_run_for_now(serve, engine, monkeypatch):
    monkeypatch.setattr(engine_module, "_FIRST_WAIT_S", 0.01)
    monkeypatch.setattr(engine_module, "_LONGEST_WAIT_S", 0.02)
    with pytest.raises(
        EndpointError, match=r"p0, sample 0: no answer in 10 attempts.*out of order"
    ):
        engine(serve("broken")).generate(_samples(2), lambda count: None)


def test_a_wrong_key_is_refused_and_not_shown(serve, engine, monkeypatch):
    monkeypatch.setenv("TEST_ENDPOINT_KEY", "sk-secret-canary")
    with pytest.raises(RefusedError, match="says 401") as refused:
        engine(serve("good")).generate(_samples(1), lambda count: None)
    assert "canary" not in str(refused.value)


def test_a_missing_key_is_named(serve, engine, monkeypatch):
    monkeypatch.delenv("TEST_ENDPOINT_KEY", raising=False)
    with pytest.raises(RefusedError, match="TEST_ENDPOINT_KEY"):
        engine("http://127.0.0.1:9/v1")


def test_proxies_of_the_environment_are_not_used(serve, engine, monkeypatch):
    monkeypatch.setenv("HTTP_PROXY", "http://127.0.0.1:9")
    monkeypatch.setenv("ALL_PROXY", "http://127.0.0.1:9")
    assert engine(serve("good")).generate(_samples(1), lambda count: None)


def test_half_a_surrogate_pair_becomes_a_replacement_character():
    reply = {
        "choices": [{"message": {"content": "a\ud800b\0c😀"}, "finish_reason": "stop"}],
        "usage": {"completion_tokens": 3},
    }
    answer = engine_module._answer(json.dumps(reply).encode())
    assert answer.text == "a\ufffdb\ufffdc😀"
