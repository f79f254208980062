"""Fine-tuning: what is learnt from, in which order, and that a kill changes nothing."""

import json

import pytest

torch = pytest.importorskip("torch", reason="the ml extra is not installed")
transformers = pytest.importorskip("transformers", reason="the ml extra is not installed")

from alignment.ml import sft
from alignment.ml.configs import SftConfig
from alignment.ml.conversations import Conversation, lessons_make
from alignment.ml.data import DemonstrationRecord
from alignment.ml.dropout import residual_dropout_set
from alignment.ml.shared_prefix import answer_logprobs, attach, pack
from alignment.ml.vocabulary import session_end_add
from modelhub.ml.adapter import ModelInput
from modelhub.ml.chat import answer_encode, prompt_render
from modelhub.ml.checkpoint import model_load, tokenizer_load
from modelhub.ml.configs import ConfigError, RefusedError, config_load
from modelhub.ml.divergence import Diverged
from modelhub.ml.records import records_write
from modelhub.ml.rundir import NotFinite, RunDir
from tests.alignment.ml.programs import (
    checkpoints_of,
    messages,
    metrics_of,
    program_kill,
    result_of,
    run_make,
    tiny_gpt2_write,
)
from tests.alignment.ml.shared_prefix.models import gradients_of
from tests.alignment.ml.test_sft_watch import chat_rows, chats_run
from tests.modelhub.ml.ranks import ranks_run
from tests.tiny_model import tiny_model_write, tiny_tokenizer

pytestmark = [pytest.mark.ml, pytest.mark.usefixtures("one_thread")]


@pytest.fixture(scope="module")
def base(tmp_path_factory):
    return tiny_model_write(tmp_path_factory.mktemp("base"))


def demonstration(prompt_id, text, finish_reason="stop", question=None):
    return DemonstrationRecord(
        prompt_id=prompt_id,
        messages=messages(question or f"Say {prompt_id}"),
        text=text,
        finish_reason=finish_reason,
        score=1.0,
        batch="first",
    )


def demonstrations(prompts):
    """Two answers to every third prompt, one to the others."""
    made = []
    for number in range(prompts):
        made += [
            demonstration(f"p{number:02}", f"{number} is {'odd' if number % 2 else 'even'} {i}")
            for i in range(2 if number % 3 == 0 else 1)
        ]
    return made


def sft_run(folder, base, records, **config):
    (folder / "inputs").mkdir(parents=True)
    records_write(folder / "inputs" / "demonstrations.jsonl", records)
    inputs = {"base": base, "demonstrations": folder / "inputs"}
    return run_make(folder / "run", "sft", inputs, config)


# ── what is learnt from ──────────────────────────────────────────────────────────────────────────


def talks(prompts):
    """Conversations of one to three turns, some of them with the same beginning."""
    found = []
    for number in range(prompts):
        for version in range(1 + number % 2):
            turns = []
            for turn in range(1 + number % 3):
                turns += [
                    {"role": "user", "content": f"Question {number}.{turn}"},
                    {"role": "assistant", "content": f"{version} says {number * turn}"},
                ]
            found.append(Conversation(id=f"t{number:02}", messages=turns, written_from=1))
    return found


def small_of(name):
    """A random model of an architecture, over the tiny tokenizer's vocabulary."""
    vocabulary = len(tiny_tokenizer())
    small = {
        "vocab_size": vocabulary,
        "hidden_size": 24,
        "intermediate_size": 40,
        "num_hidden_layers": 2,
        "num_attention_heads": 4,
        "max_position_embeddings": 512,
    }
    config = {
        "llama": lambda: transformers.LlamaConfig(**small, num_key_value_heads=2),
        "qwen": lambda: transformers.Qwen2Config(**small, num_key_value_heads=2),
        "gpt2": lambda: transformers.GPT2Config(
            vocab_size=vocabulary,
            n_embd=24,
            n_layer=2,
            n_head=4,
            attn_pdrop=0.0,
            resid_pdrop=0.0,
            embd_pdrop=0.0,
        ),
    }[name]()
    torch.manual_seed(0)
    model = transformers.AutoModelForCausalLM.from_config(config)
    with torch.no_grad():
        for parameter in model.parameters():  # large enough for attention to matter
            parameter.add_(torch.randn_like(parameter) * 0.1)
    return model


@pytest.mark.parametrize(
    ("name", "ending"),
    [("llama", ""), ("gpt2", ""), ("qwen", ""), ("llama", "<|endoftext|>")],
    ids=["llama", "gpt2", "qwen", "with an end of session"],
)
def test_packed_conversations_have_the_loss_and_gradients_of_each_alone(name, ending):
    """Against transformers' own loss, one conversation at a time, what is told masked by -100."""
    tokenizer = tiny_tokenizer()
    lessons = lessons_make(talks(7), tokenizer, max_tokens=512, end_of_session=ending).lessons
    plain, packed = small_of(name), small_of(name)
    expected, tokens = 0.0, 0
    for lesson in lessons:
        for answer, taught in zip(lesson.group.answers, lesson.taught, strict=True):
            ids = torch.tensor([lesson.group.prompt_T + answer])
            masked = [one if t else -100 for one, t in zip(answer, taught, strict=True)]
            labels = torch.tensor([[-100] * len(lesson.group.prompt_T) + masked])
            loss = plain(ids, labels=labels, use_cache=False).loss * sum(taught)
            loss.backward()
            expected += loss.item()
            tokens += sum(taught)
    attach(packed)
    found = right = 0
    rows = pack([lesson.group for lesson in lessons], 300)
    assert 1 < len(rows) < len(lessons)
    for row in rows:
        loss, own = sft.row_loss(packed, row, [lessons[index] for index in row.indices])
        loss.backward()
        found, right = found + loss.item(), right + int(own)
    assert found == pytest.approx(expected, rel=1e-5)
    assert 0 <= right < tokens
    error = (gradients_of(packed) - gradients_of(plain)).norm() / gradients_of(plain).norm()
    assert error < 1e-5


@pytest.mark.parametrize("side", ["left", "right"])
def test_every_learnt_token_of_a_packed_row_has_the_loss_it_has_in_a_padded_batch(side):
    """Token by token: one batch in transformers, padded on either side, what is told left out."""
    lessons = lessons_make(talks(7), tiny_tokenizer(), max_tokens=512).lessons
    plain, packed = small_of("llama"), small_of("llama")
    attach(packed)
    talked = [(one, place) for one in lessons for place in range(len(one.taught))]
    sequences = [one.group.prompt_T + one.group.answers[place] for one, place in talked]
    longest = max(map(len, sequences))

    def padded(own, filler):
        fill = [filler] * (longest - len(own))
        return [*fill, *own] if side == "left" else [*own, *fill]

    mask_BT = torch.tensor([padded([1] * len(own), 0) for own in sequences])
    ids_BT = torch.tensor([padded(own, 0) for own in sequences])
    learnt_BT = torch.tensor(
        [
            padded([False] * len(one.group.prompt_T) + one.taught[place], False)
            for one, place in talked
        ]
    )
    logits_BTV = plain(
        ids_BT,
        attention_mask=mask_BT,
        position_ids=(mask_BT.cumsum(1) - 1).clamp(min=0),
        use_cache=False,
    ).logits
    logs_BT = logits_BTV[:, :-1].log_softmax(-1).gather(-1, ids_BT[:, 1:, None])[..., 0]
    expected = logs_BT[learnt_BT[:, 1:]]

    found = {}
    for row in pack([one.group for one in lessons], 300):
        for index, answers in zip(row.indices, answer_logprobs(packed, row), strict=True):
            taught = lessons[index].taught
            kept = [own[torch.tensor(of)] for own, of in zip(answers, taught, strict=True)]
            found[index] = torch.cat(kept)
    ours = torch.cat([found[index] for index in range(len(lessons))])
    assert len(ours) == len(expected) == sum(one.taught_tokens for one in lessons)
    assert torch.allclose(ours, expected, rtol=1e-4, atol=1e-5)
    (-ours.sum()).backward()
    (-expected.sum()).backward()
    error = (gradients_of(packed) - gradients_of(plain)).norm() / gradients_of(plain).norm()
    assert error < 1e-5


@pytest.mark.parametrize(
    ("records", "reason"),
    [
        ([], "there are no demonstrations"),
        (
            [demonstration("a", "x" * 500)],
            "none of 1 demonstrations can be learnt from: 1 longer than 100 tokens",
        ),
        (
            [demonstration("a", "x"), demonstration("a", "y", question="Another")],
            "prompt a stands for different conversations",
        ),
    ],
)
def test_what_teaches_nothing_is_refused_before_a_model_is_loaded(
    tmp_path, base, monkeypatch, records, reason
):
    monkeypatch.setattr(sft, "policy_load", None)
    run = sft_run(tmp_path, base, records, max_tokens=100)
    with pytest.raises(RefusedError, match=reason):
        sft.main(RunDir(run))


# ── in which order ───────────────────────────────────────────────────────────────────────────────


def test_every_epoch_takes_every_prompt_once_in_an_order_of_its_own():
    plan = sft.steps_plan([1] * 20, epochs=3, examples_per_step=8, seed=1)
    orders = [
        [place for step in plan if step.epoch == epoch for place in step.lessons]
        for epoch in range(3)
    ]
    assert all(sorted(order) == list(range(20)) for order in orders)
    assert orders[0] != orders[1] != orders[2]
    assert plan == sft.steps_plan([1] * 20, epochs=3, examples_per_step=8, seed=1)
    assert plan != sft.steps_plan([1] * 20, epochs=3, examples_per_step=8, seed=2)


def test_steps_are_even_rather_than_the_last_one_short():
    # 50 examples at 8 a step are 7 steps of 7 or 8, not 6 of 8 and one of 2.
    plan = sft.steps_plan([1] * 50, epochs=1, examples_per_step=8, seed=0)
    assert sorted(len(step.lessons) for step in plan) == [7, 7, 7, 7, 7, 7, 8]


def test_a_prompt_with_more_answers_than_a_step_takes_is_not_split():
    plan = sft.steps_plan([1, 9, 1, 1], epochs=1, examples_per_step=2, seed=0)
    assert sorted(place for step in plan for place in step.lessons) == [0, 1, 2, 3]


def test_learning_rate_rises_in_a_line_and_falls_in_a_cosine():
    config = SftConfig(lr=1.0, warmup_share=0.2, lr_final_share=0.1)
    rates = [sft.learning_rate(step, steps=10, config=config) for step in range(10)]
    assert rates[:3] == [0.5, 1.0, 1.0]
    # Behind the warm-up of 2 steps, halfway between steps 2 and 9: (1 + 0.1) / 2.
    assert (rates[5] + rates[6]) / 2 == pytest.approx(0.55)
    assert rates[9] == pytest.approx(0.1)


def test_a_single_step_trains_at_the_full_rate():
    assert sft.learning_rate(0, steps=1, config=SftConfig(lr=3e-5)) == 3e-5


# ── the run ──────────────────────────────────────────────────────────────────────────────────────


@pytest.mark.parametrize(
    "config", [{}, {"adapter": "lora", "lora_rank": 4}], ids=["every weight", "adapter"]
)
def test_it_learns_the_demonstrations_and_publishes_a_plain_model(tmp_path, base, config):
    records = [*demonstrations(6), demonstration("long", "x" * 400)]
    run = sft_run(tmp_path, base, records, epochs=25, lr=5e-3, max_tokens=200, **config)
    sft.main(RunDir(run))
    result = result_of(run)
    assert result["epochs"][-1]["loss"] < 0.3 * result["epochs"][0]["loss"]
    assert result["epochs"][-1]["token_accuracy"] > 0.8
    assert (result["prompts"], result["examples"], result["too_long"]) == (6, 8, 1)
    assert result["dtype"] == "bfloat16" and result["chat_template"]
    assert result["architecture"] == "LlamaForCausalLM"
    # What other tools load has learnt it too, and carries no trace of how it was trained.
    folder = run / "outputs" / "model"
    assert "shared_prefix" not in (folder / "config.json").read_text()
    model, tokenizer = model_load(folder, dtype="float32"), tokenizer_load(folder)
    prompt = torch.tensor([prompt_render(tokenizer, messages("Say p01"))])
    written = model.generate(prompt, max_new_tokens=30, do_sample=False)
    assert tokenizer.decode(written[0, prompt.shape[1] :]).startswith("1 is odd 0")


def test_a_new_end_of_session_is_added_and_learnt_and_packing_changes_nothing(tmp_path, base):
    token, found = "<|end_of_session|>", []
    for budget in (60, 4096):
        run = sft_run(
            tmp_path / str(budget),
            base,
            demonstrations(6),
            epochs=50,
            lr=5e-3,
            budget_tokens=budget,
            end_of_session=token,
        )
        sft.main(RunDir(run))
        found.append([(v["loss"], v["grad_norm"]) for v in metrics_of(run).values()])
    assert torch.tensor(found[0][:3]).allclose(torch.tensor(found[1][:3]), rtol=1e-3)
    folder = run / "outputs" / "model"
    model, tokenizer = model_load(folder, dtype="float32"), tokenizer_load(folder)
    ending = tokenizer.get_vocab()[token]
    assert ending == len(tokenizer_load(base)) and len(tokenizer) == ending + 1
    assert model.config.vocab_size == model.get_input_embeddings().weight.shape[0] == ending + 1
    prompt_T = prompt_render(tokenizer, messages("Say p01"))
    said_T = [*prompt_T, *answer_encode(tokenizer, "1 is odd 0", "stop")]
    with torch.no_grad():
        assert int(model(torch.tensor([said_T])).logits[0, -1].argmax()) == ending


def test_a_new_token_starts_as_the_mean_of_the_others(base):
    tokenizer = tokenizer_load(base)
    known = len(tokenizer)
    config = SftConfig(end_of_session="<|end_of_session|>")
    session_end_add(tokenizer, config)
    model = sft.policy_load(ModelInput(base), config, tokenizer)
    weight = model.get_input_embeddings().weight
    assert torch.allclose(weight[known], weight[:known].mean(0))
    whole = sft.policy_load(ModelInput(base), config)
    assert torch.equal(weight[:known], whole.get_input_embeddings().weight)


@pytest.mark.parametrize(
    ("config", "reason"),
    [
        ({"end_of_session": "bye"}, "looks like <|end_of_session|>"),
        ({"end_of_session": "<|bye|>", "adapter": "lora"}, "does not learn its row"),
    ],
)
def test_an_end_of_session_that_cannot_be_learnt_is_refused(base, config, reason):
    with pytest.raises(RefusedError, match=reason.replace("|", r"\|")):
        session_end_add(tokenizer_load(base), SftConfig(**config))


def test_an_adapter_starts_from_the_policy_itself(tmp_path, base):
    losses = []
    for config in ({}, {"adapter": "lora", "lora_rank": 4}):
        run = sft_run(tmp_path / str(len(losses)), base, demonstrations(4), epochs=1, **config)
        sft.main(RunDir(run))
        losses.append(metrics_of(run)[1]["loss"])
    assert losses[0] == pytest.approx(losses[1], rel=1e-5)


def test_merging_marks_what_the_adapter_changed_and_nothing_else(base):
    model = sft.policy_load(ModelInput(base), SftConfig(adapter="lora", lora_rank=4))
    merged = sft.trained_merge(model)
    changed = {name for name, weight in merged.named_parameters() if weight.requires_grad}
    assert "model.layers.0.self_attn.q_proj.weight" in changed
    assert not any("embed" in name or "norm" in name or "lm_head" in name for name in changed)
    whole = sft.trained_merge(sft.policy_load(ModelInput(base), SftConfig()))
    assert all(weight.requires_grad for weight in whole.parameters())


def test_packing_changes_nothing_but_the_memory(tmp_path, base):
    found = []
    for budget in (60, 4096):
        run = sft_run(
            tmp_path / str(budget), base, demonstrations(6), epochs=2, budget_tokens=budget
        )
        sft.main(RunDir(run))
        found.append([(v["loss"], v["grad_norm"]) for v in metrics_of(run).values()])
    assert torch.tensor(found[0]).allclose(torch.tensor(found[1]), rtol=1e-4)


def test_gradient_checkpointing_and_bfloat16_give_nearly_the_same_loss(tmp_path, base):
    losses = []
    for config in ({}, {"gradient_checkpointing": True}, {"dtype": "bfloat16"}):
        run = sft_run(tmp_path / str(len(losses)), base, demonstrations(4), epochs=1, **config)
        sft.main(RunDir(run))
        losses.append(metrics_of(run)[1]["loss"])
    assert losses[1] == pytest.approx(losses[0], rel=1e-6)
    assert losses[2] == pytest.approx(losses[0], rel=2e-2)


def test_nan_stops_the_run_and_nothing_is_published(tmp_path, base):
    run = sft_run(tmp_path, base, demonstrations(4), epochs=3, lr=1e30, max_grad_norm=1e30)
    with pytest.raises(NotFinite):
        sft.main(RunDir(run))
    assert not (run / "result.json").exists()
    assert list((run / "outputs").iterdir()) == []


def test_a_weight_lost_in_the_last_step_is_found_before_publishing(tmp_path, base):
    run = sft_run(tmp_path, base, demonstrations(2), epochs=1, lr=1e39, warmup_share=0.0)
    with pytest.raises(NotFinite, match="is not finite after training"):
        sft.main(RunDir(run))
    assert list((run / "outputs").iterdir()) == []


@pytest.mark.slow
@pytest.mark.parametrize("kind", ["every weight", "adapter", "dropout"])
def test_killed_and_started_again_it_ends_with_the_same_losses_and_weights(tmp_path, base, kind):
    config = {"epochs": 40, "lr": 1e-3, "checkpoint_every_steps": 7}
    if kind == "adapter":
        config |= {"adapter": "lora", "lora_rank": 4}
    if kind == "dropout":
        base = tiny_gpt2_write(tmp_path / "gpt2", dropout=0.1)
    whole = sft_run(tmp_path / "whole", base, demonstrations(12), **config)
    sft.main(RunDir(whole))

    killed = sft_run(tmp_path / "killed", base, demonstrations(12), **config)
    program_kill(sft.main, killed, lambda: len(checkpoints_of(killed)) == 2)
    step = json.loads((killed / "progress.json").read_text())["done"]
    assert 0 < step < len(metrics_of(whole))
    sft.main(RunDir(killed))

    assert metrics_of(killed) == metrics_of(whole)
    assert result_of(killed)["epochs"] == result_of(whole)["epochs"]
    weights = "outputs/model/model.safetensors"
    assert (killed / weights).read_bytes() == (whole / weights).read_bytes()


# ── settings ─────────────────────────────────────────────────────────────────────────────────────


def test_published_recipes_have_names():
    llama = config_load(SftConfig, {"preset": "llama-2", "epochs": 3})
    assert (llama.epochs, llama.lr, llama.weight_decay, llama.examples_per_step) == (
        3,
        2e-5,
        0.1,
        64,
    )
    assert (llama.loss_turns, llama.end_of_session) == ("every", "<|end_of_session|>")
    instruct = config_load(SftConfig, {"preset": "instructgpt"})
    assert (instruct.epochs, instruct.dropout, instruct.lr_final_share) == (16, 0.2, 0.1)
    assert (instruct.lr, instruct.warmup_share) == (9.65e-6, 0.0)
    assert llama.sample_every_steps > 0
    assert instruct.sample_every_steps > 0
    with pytest.raises(ConfigError, match="there is no preset 'llama'; there are llama-2, instr"):
        config_load(SftConfig, {"preset": "llama"})


@pytest.mark.parametrize("name", ["llama", "gpt2", "qwen"])
def test_residual_dropout_acts_in_training_alone(name):
    model = small_of(name)
    ids = torch.arange(5, 25)[None]
    plain = model.eval()(ids).logits
    residual_dropout_set(model, 0.2)
    assert torch.equal(model(ids).logits, plain)
    model.train()
    assert not torch.allclose(model(ids).logits, model(ids).logits)
    # Of what a sublayer adds, a fifth is dropped and the rest is scaled up.
    seen = []
    stack = next(m for m in model.modules() if isinstance(m, torch.nn.ModuleList))
    stack[0].mlp.register_forward_hook(lambda _module, _args, out: seen.append(out))
    model(ids)
    assert (seen[0] == 0).float().mean().item() == pytest.approx(0.2, abs=0.06)


def test_a_run_whose_loss_runs_away_is_stopped_and_nothing_is_published(tmp_path, base):
    run = sft_run(
        tmp_path,
        base,
        demonstrations(12),
        epochs=40,
        lr=3.0,
        warmup_share=0.5,
        max_grad_norm=1e9,
        loss_rise_limit=3.0,
        grad_norm_rise_limit=0.0,
    )
    with pytest.raises(Diverged, match=r"the loss was .* times its level.*nothing is published"):
        sft.main(RunDir(run))
    assert list((run / "outputs").iterdir()) == []


def test_a_split_is_never_learnt_from_but_train_needs_something(tmp_path, base):
    run = chats_run(tmp_path, base)
    path = tmp_path / "inputs" / "demonstrations.jsonl"
    rows = [row for row in chat_rows(15) if row["split"] != "train"]
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    inputs = {"base": base, "demonstrations": tmp_path / "inputs"}
    run = run_make(tmp_path / "again", "sft", inputs, {})
    with pytest.raises(RefusedError, match="there are no demonstrations"):
        sft.main(RunDir(run))


# ── several processes ────────────────────────────────────────────────────────────────────────────


@pytest.mark.slow
@pytest.mark.parametrize(
    ("strategy", "config"),
    [("ddp", {}), ("fsdp2", {}), ("ddp", {"adapter": "lora"})],
    ids=["ddp", "fsdp2", "ddp, lora"],
)
def test_two_processes_have_the_losses_of_one(tmp_path, base, strategy, config):
    settings = {"epochs": 2, "evaluate_every_steps": 3, "sample_every_steps": 3, **config}
    settings |= {"sample_tokens": 4, "sample_prompts": 1, "examples_per_step": 4}
    one = chats_run(tmp_path / "one", base, **settings)
    sft.main(RunDir(one))
    two = chats_run(tmp_path / "two", base, **settings)
    assert ranks_run(sft.main, two, world=2, strategy=strategy) == [0, 0], (
        two / "log.txt"
    ).read_text()[-3000:]
    expected, found = metrics_of(one), metrics_of(two)
    assert found.keys() == expected.keys()
    for step, values in expected.items():
        assert found[step] == pytest.approx(values, rel=1e-4, abs=1e-6)
    assert result_of(two)["held_out"]["loss_after"] == pytest.approx(
        result_of(one)["held_out"]["loss_after"], rel=1e-4
    )
    assert (two / "outputs/model/model.safetensors").exists()
