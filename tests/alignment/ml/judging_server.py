"""A chat-completions endpoint that judges by a rule: what its labels come to is known.

It likes the answer with more words, and rates one by their number. With MODE "place" it always says
A; with "chat" it talks on the first time a question is asked and gives a verdict the second time.

Asked for a critique it finds no fault with an answer that has "please" in it, and nothing to say of
"mute". It revises by a "please" at the end; of "stuck" to the same again, and "long" is cut off.
"""

import json
import re
import threading
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

_ANSWER = r"<answer_{0}>\n(.*?)\n</answer_{0}>"


class Server(ThreadingHTTPServer):
    daemon_threads = True
    request_queue_size = 128

    def __init__(self, mode: str) -> None:
        super().__init__(("127.0.0.1", 0), Handler)
        self.mode, self.asked, self.lock = mode, Counter[str](), threading.Lock()

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.server_port}/v1"


class Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    server: Server

    def log_message(self, *args: Any) -> None:
        pass

    def do_POST(self) -> None:
        body = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
        text = body["messages"][0]["content"]
        with self.server.lock:
            self.server.asked[text] += 1
            times = self.server.asked[text]
        said, finish_reason = _said(text, self.server.mode, times)
        choice = {"message": {"role": "assistant", "content": said}, "finish_reason": finish_reason}
        data = json.dumps({"choices": [choice], "usage": {"completion_tokens": 1}}).encode()
        self.send_response(200)
        self.send_header("Content-Length", str(len(data)))
        self.end_headers()
        self.wfile.write(data)


def _said(text: str, mode: str, times: int) -> tuple[str, str]:
    if "<answer>" in text:
        answer = re.findall(r"<answer>\n(.*?)\n</answer>", text, re.DOTALL)[0]
        if mode == "chat" and times == 1 and "Rate" in text:
            return "It is a fine answer, 5 of 7 in my book", "stop"
        if "Rate" in text:
            return f"Rating: {min(7, len(answer.split()))}", "stop"
        if "Write the answer anew" in text:
            return (answer if answer == "stuck" else f"{answer}, please"), (
                "length" if answer == "long" else "stop"
            )
        if answer == "mute":
            return " ", "stop"
        return ("No fault." if "please" in answer else "It is not polite."), "stop"
    first, second = (
        len(re.findall(_ANSWER.format(side), text, re.DOTALL)[0].split()) for side in "AB"
    )
    if mode == "place":
        return "A", "stop"
    if mode == "chat" and times == 1:
        return "Answer A and answer B are both of interest.", "stop"
    return ("tie" if first == second else "A" if first > second else "B"), "stop"


@contextmanager
def judging_server(mode: str = "words") -> Iterator[Server]:
    server = Server(mode)
    thread = threading.Thread(target=server.serve_forever, daemon=True)
    thread.start()
    try:
        yield server
    finally:
        server.shutdown()
        server.server_close()
