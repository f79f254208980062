"""A small server that speaks the chat-completions protocol and really generates.

    python -m tests.modelhub.ml.completion_server MODEL_FOLDER

Prints its port. The base URL ends in /MODE/v1. MODE: "good"; "flaky": about thirty of a hundred
requests get 500, 429, garbage or no reply; "no_logprobs": refuses the option; "nan": tells NaN as
log-probability; "elsewhere": redirects; "broken": always 500. A request for the model "counts" is
answered with how many answers were given so far.
"""

import json
import random
import sys
import threading
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

from modelhub.ml.chat import prompt_render
from modelhub.ml.checkpoint import tokenizer_load
from modelhub.ml.configs import GenerateConfig
from modelhub.ml.engines import Sample
from modelhub.ml.engines.transformers import TransformersEngine

KEY = "sk-test-only"


class Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    server: "Server"

    def log_message(self, *args: Any) -> None:
        pass

    def do_POST(self) -> None:
        body = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
        mode, _, place = self.path.removeprefix("/").partition("/")
        if self.headers.get("Authorization") != f"Bearer {KEY}":
            return self._reply(401, {"error": "no such key"})
        if place != "v1/chat/completions":
            return self._reply(404, {"error": "no such place"})
        if mode == "elsewhere":
            return self._reply(307, {}, {"Location": "http://127.0.0.1:9/v1/chat/completions"})
        if mode == "broken":
            return self._reply(500, {"error": "out of order"})
        if mode == "no_logprobs" and body.get("logprobs"):
            return self._reply(400, {"error": "logprobs are not supported"})
        if mode == "flaky":
            with self.server.lock:
                fate = self.server.dice.random()
            if fate < 0.1:
                return self._reply(500, {"error": "try later"})
            if fate < 0.2:
                return self._reply(429, {"error": "too many"}, {"Retry-After": "0.2"})
            if fate < 0.25:
                self.close_connection = True
                return None
            if fate < 0.3:
                return self._reply(200, {"choices": []})
        reply = self.server.complete(body)
        if mode == "nan":
            reply["choices"][0]["logprobs"]["content"][0]["logprob"] = float("nan")
        return self._reply(200, reply)

    def _reply(self, status: int, value: Any, headers: dict[str, str] | None = None) -> None:
        data = json.dumps(value).encode()
        self.send_response(status)
        for name, text in (headers or {}).items():
            self.send_header(name, text)
        self.send_header("Content-Length", str(len(data)))
        self.end_headers()
        self.wfile.write(data)


class Server(ThreadingHTTPServer):
    daemon_threads = True
    request_queue_size = 128

    def __init__(self, folder: Path) -> None:
        super().__init__(("127.0.0.1", 0), Handler)
        self.lock = threading.Lock()
        self.dice = random.Random(5)
        self.given = 0
        self.tokenizer = tokenizer_load(folder)
        self.engine = TransformersEngine(
            folder,
            GenerateConfig(dtype="float32", max_tokens=12),
            tokenizer=self.tokenizer,
            stop_ids=(2,),
            context_tokens=500,
        )

    def complete(self, body: dict[str, Any]) -> dict[str, Any]:
        if body["model"] == "counts":
            return {"given": self.given}
        assert body["max_tokens"] == 12 and body["n"] == 1
        sample = Sample(
            prompt_id="",
            index=0,
            messages=tuple(body["messages"]),
            prompt_tokens=tuple(prompt_render(self.tokenizer, body["messages"])),
            seed=body["seed"],
            temperature=body["temperature"],
        )
        with self.lock:
            (answer,) = self.engine.generate([sample], lambda count: None)
            self.given += 1
        choice: dict[str, Any] = {
            "message": {"role": "assistant", "content": answer.text},
            "finish_reason": answer.finish_reason,
        }
        if body.get("logprobs"):
            told = [{"logprob": answer.mean_logprob}] * answer.token_count
            choice["logprobs"] = {"content": told}
        return {"choices": [choice], "usage": {"completion_tokens": answer.token_count}}


if __name__ == "__main__":
    server = Server(Path(sys.argv[1]))
    print(server.server_port, flush=True)
    server.serve_forever()
