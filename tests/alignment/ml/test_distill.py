"""Distillation: a student comes to say what its teacher says, and a kill changes nothing."""

import json

import pytest

torch = pytest.importorskip("torch", reason="the ml extra is not installed")
transformers = pytest.importorskip("transformers", reason="the ml extra is not installed")

from alignment.ml import distill, sft, teacher
from alignment.ml.configs import DistillConfig
from alignment.ml.conversations import lessons_make
from alignment.ml.shared_prefix import attach, pack
from alignment.ml.student import row_losses
from annotation.splits import group_hash, split_of
from modelhub.ml.adapter import ModelInput
from modelhub.ml.checkpoint import model_load, model_save, tokenizer_load
from modelhub.ml.configs import ConfigError, RefusedError
from modelhub.ml.records import PromptRecord, records_write
from modelhub.ml.rundir import RunDir
from tests.alignment.ml.programs import (
    candidate,
    candidates_write,
    messages,
    metrics_of,
    result_of,
    run_make,
    tiny_reward_write,
)
from tests.alignment.ml.test_sft import small_of, talks
from tests.alignment.ml.test_sft_watch import chat_rows
from tests.modelhub.ml.ranks import ranks_run
from tests.tiny_model import tiny_model_write, tiny_tokenizer

pytestmark = [pytest.mark.ml, pytest.mark.usefixtures("one_thread")]


@pytest.fixture(scope="module")
def student(tmp_path_factory):
    return tiny_model_write(tmp_path_factory.mktemp("student"))


@pytest.fixture(scope="module")
def master(tmp_path_factory):
    return tiny_model_write(tmp_path_factory.mktemp("teacher"), seed=1)


def distill_run(folder, student, master, count=15, **config):
    (folder / "inputs").mkdir(parents=True)
    text = "".join(json.dumps(row) + "\n" for row in chat_rows(count))
    (folder / "inputs" / "demonstrations.jsonl").write_text(text)
    inputs = {"base": student, "demonstrations": folder / "inputs"}
    if master is not None:
        inputs["teacher"] = master
    settings = {"epochs": 4, "lr": 5e-3, "examples_per_step": 3, "bootstrap_samples": 200}
    return run_make(folder / "run", "distill", inputs, {**settings, **config})


# ── the loss ─────────────────────────────────────────────────────────────────────────────────────


@pytest.mark.parametrize("kept", [0, 128])
def test_packed_conversations_have_the_divergence_of_each_alone(tmp_path, master, kept):
    """Against both models one conversation at a time, every logit there, and TRL's own loss."""
    gkd = pytest.importorskip("trl.experimental.gkd", reason="the ml extra is not installed")
    lessons = lessons_make(talks(7), tiny_tokenizer(), max_tokens=512).lessons
    config = DistillConfig(
        divergence="jensen_shannon", beta=0.3, temperature=2.0, teacher_top_k=kept
    )
    own, other = small_of("qwen"), model_load(master, dtype="float32")
    vocabulary = len(tiny_tokenizer())
    expected, labels = 0.0, 0.0
    for lesson in lessons:
        for answer, taught in zip(lesson.group.answers, lesson.taught, strict=True):
            ids = torch.tensor([lesson.group.prompt_T + answer])
            start = len(lesson.group.prompt_T)
            masked = torch.tensor([[1 if one else -100 for one in taught]])
            with torch.no_grad():
                student_SV, teacher_SV = (m(ids).logits[:, start - 1 : -1] for m in (own, other))
                loss = gkd.GKDTrainer.generalized_jsd_loss(
                    student_SV, teacher_SV, masked, beta=0.3, temperature=2.0
                )
                gold = torch.tensor(
                    [[o if t else -100 for o, t in zip(answer, taught, strict=True)]]
                )
                labels += torch.nn.functional.cross_entropy(
                    student_SV[0], gold[0], reduction="sum"
                ).item()
            expected += loss.item() * sum(taught)
    attach(own)
    asked = teacher.Teacher(ModelInput(master), config, vocabulary)
    if kept:
        run = RunDir(distill_run(tmp_path, master, master))
        asked = teacher.teacher_keep(run, asked, lessons, config, vocabulary)
    found = found_labels = 0.0
    rows = pack([lesson.group for lesson in lessons], 300)
    assert 1 < len(rows) < len(lessons)
    for row in rows:
        of_row = [lessons[index] for index in row.indices]
        said = asked.row_said(row, of_row)
        divergence_S, label_S, _ = row_losses(own, row, of_row, said, config.mixture)
        found += divergence_S.sum().item()
        found_labels += label_S.sum().item()
    assert found_labels == pytest.approx(labels, rel=1e-5)
    if kept:  # half of the 259 tokens, and the rest as one: most of it, never more
        assert 0.6 * expected < found < expected
    else:
        assert found == pytest.approx(expected, rel=1e-5)


def test_all_tokens_kept_is_the_teacher_asked(tmp_path, student, master):
    found = []
    for kept in (0, len(tiny_tokenizer())):
        run = distill_run(tmp_path / str(kept), student, master, epochs=2, teacher_top_k=kept)
        distill.main(RunDir(run))
        found.append([one["loss"] for one in metrics_of(run).values() if "loss" in one])
    assert found[0] == pytest.approx(found[1], rel=1e-3)


def test_samples_alone_are_fine_tuning(tmp_path, student):
    settings = {"epochs": 2, "lr": 5e-3, "examples_per_step": 3, "bootstrap_samples": 200}
    run = distill_run(tmp_path / "distill", student, None, **settings, logits_share=0.0)
    distill.main(RunDir(run))
    inputs = {"base": student, "demonstrations": tmp_path / "distill" / "inputs"}
    tuned = run_make(tmp_path / "sft", "sft", inputs, settings)
    sft.main(RunDir(tuned))
    weights = "outputs/model/model.safetensors"
    assert (run / weights).read_bytes() == (tuned / weights).read_bytes()
    assert "divergence" not in metrics_of(run)[1]


# ── the run ──────────────────────────────────────────────────────────────────────────────────────


@pytest.mark.parametrize(
    "config",
    [
        {},
        {"divergence": "reverse_kl", "teacher_top_k": 16},
        {"divergence": "jensen_shannon", "temperature": 2.0, "logits_share": 0.9},
        {"adapter": "lora", "lora_rank": 8, "lr": 2e-2},
    ],
    ids=["forward", "reverse of what was kept", "between", "adapter"],
)
def test_the_student_comes_to_say_what_the_teacher_says(tmp_path, student, master, config):
    run = distill_run(tmp_path, student, master, **{"epochs": 12, **config})
    distill.main(RunDir(run))
    result = result_of(run)
    assert result["epochs"][-1]["divergence"] < 0.5 * result["epochs"][0]["divergence"]
    # On conversations that were not learnt too: of one kind, but with words of their own.
    held_out = result["held_out"]
    assert held_out["divergence_after"] < 0.6 * held_out["divergence_before"]
    assert held_out["divergence_difference"]["high"] < 0
    curve = [v for v in metrics_of(run).values() if "validation_divergence" in v]
    assert len(curve) == 2
    assert model_load(run / "outputs" / "model", dtype="float32")
    assert not (run / "checkpoints").exists()


def test_the_teachers_answers_are_learnt_but_for_prompts_to_test_on(tmp_path, student, master):
    ids = [f"p{number}" for number in range(12)]
    (tmp_path / "prompts").mkdir()
    asked = [PromptRecord(prompt_id=one, messages=messages(f"Say {one}")) for one in ids]
    records_write(tmp_path / "prompts" / "prompts.jsonl", asked)
    answers = [candidate(one, index, f"{one} {index}") for one in ids for index in range(2)]
    answers[0] = candidate("p0", 0, "cut off he", finish_reason="length")
    candidates_write(tmp_path / "candidates", answers)
    inputs = {"base": student, "teacher": master, "prompts": tmp_path / "prompts"}
    inputs["candidates"] = tmp_path / "candidates"
    run = run_make(tmp_path / "run", "distill", inputs, {"epochs": 1, "bootstrap_samples": 50})
    distill.main(RunDir(run))
    sides = [split_of(group_hash(one.messages)) for one in asked]
    assert sides.count("train") < len(ids)
    result = result_of(run)
    assert result["prompts"] == sides.count("train")
    assert result["examples"] == 2 * sides.count("train")
    assert result["held_out"]["conversations"] == 2 * sides.count("held_out")

    read = distill.answers_read(RunDir(run), DistillConfig())
    cut = next(one for one in read if one.finish_reason == "length")
    assert cut.messages[-1] == {"role": "assistant", "content": "cut off he"}
    apart = DistillConfig(split_shares=(0.0, 0.0, 1.0))
    assert {one.split for one in distill.answers_read(RunDir(run), apart)} == {"held_out"}
    del inputs["prompts"]
    run = run_make(tmp_path / "without", "distill", inputs, {})
    with pytest.raises(RefusedError, match="give the prompts they answer too"):
        distill.main(RunDir(run))


@pytest.mark.parametrize("kept", [0, 8])
def test_a_resumed_run_ends_with_the_same_figures_and_weights(
    tmp_path, student, master, monkeypatch, kept
):
    settings = {"evaluate_every_steps": 4, "checkpoint_every_steps": 5, "teacher_top_k": kept}
    whole = distill_run(tmp_path / "whole", student, master, **settings)
    distill.main(RunDir(whole))
    killed = distill_run(tmp_path / "killed", student, master, **settings)
    real = distill.learning_rate

    def dies(step, **named):
        if step == 8:
            raise KeyboardInterrupt
        return real(step, **named)

    monkeypatch.setattr(distill, "learning_rate", dies)
    run = RunDir(killed)
    with pytest.raises(KeyboardInterrupt):
        distill.main(run)
    run._lock.close()
    monkeypatch.setattr(distill, "learning_rate", real)
    if kept:  # a teacher that has been asked is not asked again
        monkeypatch.setattr(teacher, "_teacher_ask", None)
    distill.main(RunDir(killed))
    assert metrics_of(killed) == metrics_of(whole)
    for name in ("validation", "held_out", "epochs"):
        assert result_of(killed)[name] == result_of(whole)[name]
    weights = "outputs/model/model.safetensors"
    assert (killed / weights).read_bytes() == (whole / weights).read_bytes()


def test_what_was_kept_is_asked_for_again_if_a_byte_has_changed(tmp_path, student, master):
    run = RunDir(distill_run(tmp_path, student, master))
    config = DistillConfig(teacher_top_k=4)
    lessons = lessons_make(talks(3), tiny_tokenizer(), max_tokens=512).lessons
    asked = teacher.Teacher(ModelInput(master), config, len(tiny_tokenizer()))
    kept = teacher.teacher_keep(run, asked, lessons, config, len(tiny_tokenizer()))
    path = run.path / "checkpoints" / "teacher" / "kept.safetensors"
    written = path.read_bytes()
    path.write_bytes(written[:-1] + bytes([written[-1] ^ 1]))
    again = teacher.teacher_keep(run, asked, lessons, config, len(tiny_tokenizer()))
    assert path.read_bytes() == written
    row = pack([lesson.group for lesson in lessons], 4096)[0]
    first, second = (one.row_said(row, lessons).logprobs_SK for one in (kept, again))
    assert torch.equal(first, second)


# ── what is refused ──────────────────────────────────────────────────────────────────────────────


def test_another_vocabulary_is_refused_and_the_first_difference_named(tmp_path, student, master):
    tokenizer = tokenizer_load(master)
    described = json.loads(tokenizer.backend_tokenizer.to_str())
    vocabulary = described["model"]["vocab"]
    (third, fourth) = (token for token in vocabulary if vocabulary[token] in (100, 101))
    vocabulary[third], vocabulary[fourth] = vocabulary[fourth], vocabulary[third]
    folder = tmp_path / "other"
    model_save(model_load(master, dtype="float32"), tokenizer, folder, dtype="float32")
    (folder / "tokenizer.json").write_text(json.dumps(described))
    run = distill_run(tmp_path, student, folder)
    with pytest.raises(RefusedError, match=r"id 100 is .* to the student and .* to the teacher"):
        distill.main(RunDir(run))


def test_a_teacher_that_is_missing_or_scores_is_refused(tmp_path, student, master):
    with pytest.raises(RefusedError, match="there is no teacher: give one, or learn its samples"):
        distill.main(RunDir(distill_run(tmp_path / "none", student, None)))
    reward = tiny_reward_write(tmp_path / "reward", master)
    with pytest.raises(RefusedError, match="it scores answers"):
        distill.main(RunDir(distill_run(tmp_path / "reward-run", student, reward)))
    run = distill_run(tmp_path / "many", student, master, teacher_top_k=1000)
    with pytest.raises(RefusedError, match="the vocabulary has 259 tokens"):
        distill.main(RunDir(run))


@pytest.mark.parametrize(
    "setting", [{"teacher_top_k": 8}, {"temperature": 2.0}, {"divergence": "reverse_kl"}]
)
def test_a_teachers_settings_without_a_teacher_are_refused(tmp_path, student, setting):
    run = distill_run(tmp_path, student, None, logits_share=0.0, **setting)
    with pytest.raises(RefusedError, match=f"no teacher, and {next(iter(setting))} is about"):
        distill.main(RunDir(run))


@pytest.mark.parametrize(
    ("values", "reason"),
    [
        ({"divergence": "kl"}, "divergence: wanted forward_kl, reverse_kl or jensen_shannon"),
        ({"beta": 0.2}, "beta: wanted 0.5: it does nothing to forward_kl"),
        ({"divergence": "jensen_shannon", "beta": 1.0}, "beta: wanted more than 0, less than 1"),
        ({"temperature": 0.0}, "temperature"),
        ({"logits_share": 1.5}, "logits_share: wanted 0 to 1"),
        ({"epochs": 0}, "distill.epochs: wanted more than 0"),
    ],
)
def test_settings_that_do_not_fit_are_refused(values, reason):
    with pytest.raises(ConfigError, match=reason):
        DistillConfig(**values)


# ── several processes ────────────────────────────────────────────────────────────────────────────


@pytest.mark.slow
@pytest.mark.parametrize("strategy", ["ddp", "fsdp2"])
def test_two_processes_have_the_losses_of_one(tmp_path, student, master, strategy):
    settings = {"epochs": 2, "examples_per_step": 4, "evaluate_every_steps": 3}
    one = distill_run(tmp_path / "one", student, master, **settings)
    distill.main(RunDir(one))
    two = distill_run(tmp_path / "two", student, master, **settings)
    assert ranks_run(distill.main, two, world=2, strategy=strategy) == [0, 0], (
        two / "log.txt"
    ).read_text()[-3000:]
    expected, found = metrics_of(one), metrics_of(two)
    assert found.keys() == expected.keys()
    for step, values in expected.items():
        assert found[step] == pytest.approx(values, rel=1e-4, abs=1e-6)
    assert (two / "outputs/model/model.safetensors").exists()
