"""A trial of a model that a server answers for: the tokens it sends are the page's tokens."""

import json
import math
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import pytest

pytestmark = pytest.mark.ml

from modelhub.ml.adapter import ModelInput
from modelhub.ml.configs import ConfigError, RefusedError
from modelhub.ml.playground import main, prompt_lay
from modelhub.ml.rundir import RunDir
from modelhub.ml.served_writer import served_tokens
from modelhub.ml.trials import PlaygroundConfig
from modelhub.ml.writer import Token, Writer
from modelhub.ml.writing_models import Read
from tests.modelhub.ml.runs import run_write
from tests.tiny_model import tiny_model_write, tiny_tokenizer

GREEDY = {"kind": "greedy"}


def config_of(*strategies: dict[str, Any], **settings: Any) -> PlaygroundConfig:
    given = {"prompt": "One two", "layout": "plain", "models": ("tiny v1",), "max_tokens": 8}
    return PlaygroundConfig(**given | settings, strategies=strategies)


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tiny_model_write(tmp_path_factory.mktemp("tiny"))


@pytest.fixture(scope="module")
def written(folder: Path) -> list[Token]:
    """What the model itself writes greedily."""
    config = config_of(GREEDY)
    tokenizer = tiny_tokenizer()
    writer = Writer(ModelInput(folder), tokenizer, config)
    read: Read = writer.prompt_read(prompt_lay(tokenizer, config)[1])
    *_, last = writer.write(read, config.decodings[0])
    return list(last)


class Server(ThreadingHTTPServer):
    """Streams given tokens as vLLM's completions do, one an event."""

    def __init__(self, tokens: list[Token], status: int = 200) -> None:
        super().__init__(("127.0.0.1", 0), Handler)
        self.tokens, self.status, self.asked = tokens, status, list[dict[str, Any]]()


class Handler(BaseHTTPRequestHandler):
    server: Server

    def log_message(self, *args: Any) -> None:
        pass

    def do_POST(self) -> None:
        body = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
        self.server.asked.append({"path": self.path, **body})
        self.send_response(self.server.status)
        self.end_headers()
        if self.server.status != 200:
            self.wfile.write(b"the model is asleep")
            return
        for token in self.server.tokens:
            top = {f"token_id:{one}": math.log(p) for one, p, _ in token.others}
            told = {
                "tokens": [f"token_id:{token.id}"],
                "token_logprobs": [math.log(token.p)],
                "top_logprobs": [top],
            }
            event = {"choices": [{"text": "?", "logprobs": told}]}
            self.wfile.write(f"data: {json.dumps(event)}\n\n".encode())
        self.wfile.write(b'data: {"choices": []}\n\ndata: [DONE]\n\n')


@pytest.fixture
def server(written: list[Token]) -> Iterator[Server]:
    server = Server(written)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    yield server
    server.shutdown()
    server.server_close()


def tried(tmp_path: Path, folder: Path, server: Server, *strategies: dict[str, Any]) -> Any:
    config = {
        "prompt": "One two",
        "layout": "plain",
        "models": ["tiny v1"],
        "strategies": list(strategies),
        "max_tokens": 8,
        "servers": [f"http://127.0.0.1:{server.server_port}/v1"],
        "served_names": ["tiny@1"],
    }
    run = run_write(tmp_path / "run", "playground", config, model_0=folder)
    main(RunDir(run))
    return json.loads((run / "result.json").read_text())["result"]


def test_a_served_answer_is_kept_token_by_token(tmp_path, folder, server, written) -> None:
    (cell,) = tried(tmp_path, folder, server, GREEDY)["cells"]
    assert [one["p"] for one in cell["tokens"]] == [one.p for one in written]
    text = tiny_tokenizer().decode([one.id for one in written if one.id != 2])
    assert cell["text"] == text
    assert cell["finish_reason"] in ("stop", "length")
    assert all(one["q"] == 0 for one in cell["tokens"])  # a server does not tell
    assert [len(one["others"]) for one in cell["tokens"]] == [5] * len(written)
    (asked,) = server.asked
    assert asked["path"] == "/v1/completions" and asked["model"] == "tiny@1"
    assert asked["prompt"] == tiny_tokenizer()("One two")["input_ids"]
    assert asked["temperature"] == 0.0 and asked["return_tokens_as_token_ids"] is True


def test_a_drawn_answers_knobs_and_seed_reach_the_server(tmp_path, folder, server) -> None:
    drawn = {"kind": "sample", "temperature": 0.7, "top_k": 9, "top_p": 0.8, "min_p": 0.1}
    tried(tmp_path, folder, server, drawn)
    (asked,) = server.asked
    assert {name: asked[name] for name in ("temperature", "top_k", "top_p", "min_p", "seed")} == {
        "temperature": 0.7,
        "top_k": 9,
        "top_p": 0.8,
        "min_p": 0.1,
        "seed": 0,
    }


def test_a_server_that_refuses_or_breaks_off_is_heard_of(tmp_path, folder, server) -> None:
    server.status = 503
    with pytest.raises(RefusedError, match="tiny@1: its server says 503: the model is asleep"):
        tried(tmp_path / "a", folder, server, GREEDY)
    server.status, server.tokens = 200, server.tokens[:2]
    with pytest.raises(RuntimeError, match="its server broke off"):
        tried(tmp_path / "b", folder, server, GREEDY)


def test_a_server_that_is_not_there_any_more_is_refused(tmp_path, folder) -> None:
    gone = Server([])
    gone.server_close()
    with pytest.raises(RefusedError, match="tiny@1 does not answer: serve it again, or take"):
        tried(tmp_path, folder, gone, GREEDY)


def test_a_server_searches_in_no_other_way() -> None:
    served = {"servers": ("http://127.0.0.1:1/v1",), "served_names": ("tiny@1",)}
    config_of(GREEDY, **served)
    for kind in ({"kind": "beam"}, {"kind": "contrastive", "top_k": 4}):
        config_of(kind)
        with pytest.raises(ConfigError, match="strategies: wanted greedy or sample"):
            config_of(GREEDY, kind, **served)
    with pytest.raises(ConfigError, match="servers: wanted one for each model"):
        config_of(GREEDY, servers=("a", "b"))
    with pytest.raises(ConfigError, match="served_names: wanted the model's name at each server"):
        config_of(GREEDY, servers=("http://127.0.0.1:1/v1",))


def test_an_event_without_log_probabilities_holds_no_token() -> None:
    assert served_tokens({"choices": [{"text": "x", "logprobs": None}]}) == []
    assert served_tokens({"usage": {}}) == []
