"""A small server that streams chat completions, in a thread of the test's process.

The mode is the first part of the address. "good" says back, word by word, its model's name, the
temperature and how many messages it was given; "hangs" stops in mid-answer until the test ends;
"cut" breaks off without a word; "garbage" sends what is no JSON; "broken" answers 500;
"elsewhere" redirects; "strange" sends half a surrogate pair and a NUL.
"""

import json
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

from modelhub.models import Endpoint

KEY = "sk-stream-only"


class Handler(BaseHTTPRequestHandler):
    server: "Server"

    def log_message(self, *args: Any) -> None:
        pass

    def do_POST(self) -> None:
        body = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
        mode, _, place = self.path.removeprefix("/").partition("/")
        self.server.asked.append(body)
        if self.headers.get("Authorization") not in (None, f"Bearer {KEY}"):
            return self.send_error(401)
        if place != "v1/chat/completions" or mode == "broken":
            return self.send_error(500)
        if mode == "elsewhere":
            self.send_response(307)
            self.send_header("Location", "/good/v1/chat/completions")
            self.end_headers()
            return None
        self.send_response(200)
        self.send_header("Content-Type", "text/event-stream")
        self.end_headers()
        if mode == "garbage":
            self.wfile.write(b"data: {nonsense\n\n")
            return None
        words = f"{body['model']} at {body['temperature']} heard {len(body['messages'])}.".split(
            " "
        )
        if mode == "strange":
            words = ["half \ud800", "and\x00"]
        for number, word in enumerate(words):
            self._delta(word if not number else f" {word}")
            if mode == "cut" and number == 1:
                return None
            if mode == "hangs" and number == 1:
                self.server.released.wait(30)
                return None
        self.wfile.write(b": a comment\n\ndata: " + json.dumps({"choices": []}).encode() + b"\n\n")
        self.wfile.write(b"data: [DONE]\n\n")
        return None

    def _delta(self, text: str) -> None:
        event = {"choices": [{"delta": {"content": text}}]}
        self.wfile.write(f"data: {json.dumps(event)}\n\n".encode())
        self.wfile.flush()


class Server(ThreadingHTTPServer):
    daemon_threads = True

    def __init__(self) -> None:
        super().__init__(("127.0.0.1", 0), Handler)
        self.asked: list[dict[str, Any]] = []
        self.released = threading.Event()

    def endpoint(self, name: str, mode: str = "good", *, key_variable: str = "") -> Endpoint:
        return Endpoint.objects.create(
            name=name,
            base_url=f"http://127.0.0.1:{self.server_port}/{mode}/v1",
            served_model=f"model-{name}",
            api_key_variable=key_variable,
        )


@contextmanager
def streaming_server() -> Iterator[Server]:
    server = Server()
    thread = threading.Thread(target=server.serve_forever, daemon=True)
    thread.start()
    try:
        yield server
    finally:
        server.released.set()
        server.shutdown()
        server.server_close()
        thread.join()
