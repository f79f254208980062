"""Self-Instruct: what is written goes through the filters, each drop counted under one reason."""

import json
import threading
from collections import Counter
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

import pytest

torch = pytest.importorskip("torch", reason="the ml extra is not installed")
pytest.importorskip("transformers", reason="the ml extra is not installed")

from alignment.ml import self_instruct
from alignment.ml.configs import SelfInstructConfig
from alignment.ml.replies import Asker
from alignment.ml.rouge import Pool, rouge_l, subsequence_length, words_of
from alignment.ml.self_instruct import reason_against, reply_read, seeds_of
from modelhub.ml.configs import ConfigError, RefusedError
from modelhub.ml.records import PromptRecord, records_write
from modelhub.ml.rundir import RunDir
from tests.alignment.ml.programs import lines_of, result_of, run_make

pytestmark = pytest.mark.ml
SEEDS = [
    "Explain tides to a small child.",
    "Name three rivers of Asia.",
    "Fix this sentence: he go.",
]


class Writer(BaseHTTPRequestHandler):
    """Writes four tasks to a question: a new one, an example, a short one, a cut-off one."""

    protocol_version = "HTTP/1.1"

    def log_message(self, *args):
        pass

    def do_POST(self):
        body = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
        with self.server.lock:
            self.server.asked[body["messages"][0]["content"]] += 1
        seed = body["seed"]
        words = " ".join(f"w{(seed >> shift) & 1023}" for shift in range(0, 24, 4))
        text = (
            f"Sure.\nTask 9: Tell about {words}\n10. {SEEDS[0]}\nTask 11: Go on\n12) Cut off in the"
        )
        choice = {"message": {"role": "assistant", "content": text}, "finish_reason": "length"}
        data = json.dumps({"choices": [choice], "usage": {"completion_tokens": 9}}).encode()
        self.send_response(200)
        self.send_header("Content-Length", str(len(data)))
        self.end_headers()
        self.wfile.write(data)


@contextmanager
def writer():
    server = ThreadingHTTPServer(("127.0.0.1", 0), Writer)
    server.asked, server.lock = Counter(), threading.Lock()
    threading.Thread(target=server.serve_forever, daemon=True).start()
    try:
        yield server
    finally:
        server.shutdown()
        server.server_close()


def run_of(folder, server, **config):
    seeds = folder / "seeds"
    seeds.mkdir(parents=True)
    records_write(
        seeds / "prompts.jsonl",
        (
            PromptRecord(prompt_id=f"p{n}", messages=[{"role": "user", "content": text}])
            for n, text in enumerate(SEEDS)
        ),
    )
    url = f"http://127.0.0.1:{server.server_port}/v1"
    endpoint = {"engine": "openai", "endpoint_url": url, "endpoint_model": "writer"}
    settings = {**endpoint, "wanted": 5, "questions": 2, "rounds": 9, **config}
    return run_make(folder / "run", "self_instruct", {"seeds": seeds}, settings)


def proposals_of(run):
    return [one["text"] for one in lines_of(run / "outputs" / "proposals" / "proposals.jsonl")]


def test_words_are_counted_in_any_script():
    assert words_of("Write a poem, 写一首诗!") == ["write", "a", "poem", "写", "一", "首", "诗"]
    assert words_of("ＡＢＣ É") == ["abc", "é"]


def longest_common(a, b):
    """The textbook's table."""
    row = [0] * (len(b) + 1)
    for x in a:
        before = 0
        for j, y in enumerate(b, 1):
            before, row[j] = row[j], before + 1 if x == y else max(row[j], row[j - 1])
    return row[-1]


def test_rouge_l_is_the_textbooks():
    import random

    draw = random.Random(3)
    for _ in range(200):
        a, b = ([draw.choice("abcd") for _ in range(draw.randint(0, 70))] for _ in "ab")
        assert subsequence_length(a, b) == longest_common(a, b)
    assert rouge_l(["a", "b", "c", "d"], ["a", "x", "c", "y"]) == 0.5
    assert rouge_l([], ["a"]) == 0


def test_the_pools_bounds_leave_out_nothing_that_is_alike():
    import random

    draw = random.Random(4)
    texts = [" ".join(draw.choices("abcdef", k=draw.randint(3, 9))) for _ in range(120)]
    pool = Pool(texts[:60])
    for text in texts[60:]:
        plain = max(rouge_l(words_of(text), words_of(one)) for one in texts[:60]) >= 0.7
        assert pool.holds_like(text, 0.7) == plain


def test_a_reply_is_cut_at_its_numbers():
    reply = "Here:\n**Task 9:** One\nmore line\n10. Two\n11、三"
    assert reply_read(reply, is_whole=True) == [
        ("One more line", True),
        ("Two", True),
        ("三", True),
    ]
    assert reply_read(reply, is_whole=False)[-1] == ("三", False)
    assert reply_read("No number at all", is_whole=True) == []


@pytest.mark.parametrize(
    ("text", "reason"),
    [
        ("Tell me about the moon.", ""),
        ("请写一首关于春天的诗。", ""),
        ("Éclairs: how does one bake them?", ""),
        ("Too short text", "too_short"),
        ("word " * 151, "too_long"),
        ("Describe the picture shown here now", "refused_word"),
        ("Describe what is picturesque in Rome", ""),
        ("请根据这张图片写一个故事", "refused_word"),
        ("- a list that goes on here", "bad_start"),
        ("Explain the tides to a small child", "alike"),
    ],
)
def test_each_filter_has_its_reason(text, reason):
    config = SelfInstructConfig()
    found = reason_against(text.strip(), is_whole=True, pool=Pool(SEEDS), config=config)
    assert found == reason


def test_what_is_kept_is_proposed_and_what_is_not_is_counted(tmp_path):
    with writer() as server:
        run = run_of(tmp_path, server)
        self_instruct.main(RunDir(run))
    told, texts = result_of(run), proposals_of(run)
    assert told["kept"] == len(texts) == len(set(texts)) == 5
    assert all(text.startswith("Tell about w") for text in texts)
    questions = told["rounds"] * 2
    dropped = {one: told["dropped"][one] for one in ("too_short", "cut_off")}
    assert dropped == {"too_short": questions, "cut_off": questions}
    assert told["dropped"]["alike"] >= questions
    assert told["written"] == 4 * questions


def test_killed_between_rounds_it_goes_on_to_the_same_proposals(tmp_path, monkeypatch):
    with writer() as server:
        whole = run_of(tmp_path / "whole", server)
        self_instruct.main(RunDir(whole))
        server.asked.clear()
        run = run_of(tmp_path / "killed", server)
        ask = Asker.ask

        def ask_once(self, part, questions):
            if part == "round-1":
                raise KeyboardInterrupt
            return ask(self, part, questions)

        with monkeypatch.context() as patch:
            patch.setattr(Asker, "ask", ask_once)
            first = RunDir(run)
            with pytest.raises(KeyboardInterrupt):
                self_instruct.main(first)
            first._lock.close()
        self_instruct.main(RunDir(run))
        assert sum(server.asked.values()) == result_of(run)["rounds"] * 2
    assert proposals_of(run) == proposals_of(whole)


def test_conversations_are_no_seeds_and_settings_are_checked(tmp_path):
    user = {"role": "user", "content": "One?"}
    talk = [user, {"role": "assistant", "content": "Two."}, user]
    prompts = [
        PromptRecord(prompt_id="a", messages=[user]),
        PromptRecord(prompt_id="b", messages=talk),
    ]
    assert seeds_of(prompts) == ["One?"]
    with pytest.raises(ConfigError, match="alike"):
        SelfInstructConfig(alike=0.0)
    with writer() as server, pytest.raises(RefusedError, match="nobody to ask"):
        run = run_of(tmp_path, server, engine="transformers")
        self_instruct.main(RunDir(run))
