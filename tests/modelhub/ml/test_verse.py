"""The form of verse, counted by hand, and kept by a model that has read a few poems."""

import random

import pytest

from modelhub.ml.verse import verse_form, verse_lines

QUATRAIN = "春眠不觉晓，处处闻啼鸟。\n夜来风雨声，花落知多少。"
# Tang quatrains of five characters a line, all in the public domain; QUATRAIN is not among them.
POEMS = (
    "床前明月光，疑是地上霜。\n举头望明月，低头思故乡。",
    "白日依山尽，黄河入海流。\n欲穷千里目，更上一层楼。",
    "千山鸟飞绝，万径人踪灭。\n孤舟蓑笠翁，独钓寒江雪。",
    "空山不见人，但闻人语响。\n返景入深林，复照青苔上。",
    "红豆生南国，春来发几枝。\n愿君多采撷，此物最相思。",
    "松下问童子，言师采药去。\n只在此山中，云深不知处。",
    "锄禾日当午，汗滴禾下土。\n谁知盘中餐，粒粒皆辛苦。",
    "春种一粒粟，秋收万颗子。\n四海无闲田，农夫犹饿死。",
    "向晚意不适，驱车登古原。\n夕阳无限好，只是近黄昏。",
    "独坐幽篁里，弹琴复长啸。\n深林人不知，明月来相照。",
    "人闲桂花落，夜静春山空。\n月出惊山鸟，时鸣春涧中。",
    "移舟泊烟渚，日暮客愁新。\n野旷天低树，江清月近人。",
)


def test_lines_end_with_a_mark_and_one_that_was_cut_off_is_left_out():
    assert verse_lines("春眠不觉晓，处处闻啼鸟。\n夜来风") == ["春眠不觉晓", "处处闻啼鸟"]
    assert verse_lines("处处闻啼鸟。\n\n夜来风雨声，") == ["处处闻啼鸟", "夜来风雨声"]
    assert verse_lines("一个没有标点的句子") == []


def test_a_quatrain_of_five_characters_a_line_has_that_metre_throughout():
    form = verse_form(QUATRAIN)
    assert (form.lines, form.metre, form.share, form.in_either) == (4, 5, 1.0, 1.0)


def test_a_text_has_the_metre_of_most_of_its_lines():
    # Lines of 7, 7, 5 and 3 characters.
    form = verse_form("两个黄鹂鸣翠柳，一行白鹭上青天。窗含西岭雪，万里船。")
    assert (form.lines, form.metre, form.share, form.in_either) == (4, 7, 0.5, 0.75)


def test_prose_and_lines_with_letters_have_no_metre():
    assert verse_form("话说天下大势，分久必合，合久必分。").in_either == 0.0
    assert verse_form("abcde, fghij.").metre == 0
    assert verse_form("") == verse_form("没有完")


@pytest.mark.ml
def test_a_model_that_has_read_a_few_poems_goes_on_in_their_form(tmp_path):
    torch = pytest.importorskip("torch", reason="the ml extra is not installed")
    pytest.importorskip("transformers", reason="the ml extra is not installed")
    import numpy as np

    from modelhub.ml.checkpoint import model_load, tokenizer_load
    from modelhub.ml.pretraining.__main__ import main
    from modelhub.ml.rundir import RunDir
    from modelhub.ml.tokenising.configs import TrainTokenizerConfig
    from modelhub.ml.tokenising.tokenizers import tokenizer_train
    from modelhub.ml.tokenising.writer import TokenFileWriter
    from tests.modelhub.ml.pretraining.pretrain_runs import pretrain_run

    torch.set_num_threads(1)
    # Of so few texts the unigram's pieces are characters.
    config = TrainTokenizerConfig(algorithm="unigram", vocabulary=230, chat=False)
    tokenizer = tokenizer_train(iter([*POEMS, QUATRAIN]), config)
    tokenizer.save_pretrained(tmp_path / "tokenizer")
    (tmp_path / "tokens").mkdir()
    # Their lines in ever other company: the form is learnt sooner than the poems by heart.
    lines = [line for poem in POEMS for line in verse_lines(poem)]
    drawn = random.Random(0)
    poems = ["{}，{}。\n{}，{}。".format(*drawn.sample(lines, 4)) for _ in range(200)]
    rows = [[*tokenizer.encode(poem), tokenizer.eos_token_id] for poem in poems]
    writer = TokenFileWriter(tmp_path / "tokens" / "0.ds", dtype=np.uint16, tokenizer="poems")
    lengths = np.array([len(row) for row in rows])
    names = [(f"poem {number}", "poems") for number in range(len(rows))]
    writer.add(np.concatenate([np.array(row, dtype=np.uint32) for row in rows]), lengths, names)
    writer.close()

    def continued(steps: int) -> str:
        run = pretrain_run(
            tmp_path / f"run-{steps}",
            tmp_path / "tokenizer",
            {"tokens": tmp_path / "tokens"},
            block_tokens=64,
            steps=steps,
            lr=5e-3,
            checkpoint_every_steps=250,
            evaluate_every_steps=250,
        )
        main(RunDir(run))
        folder = run / "outputs" / "model"
        model, read = model_load(folder, dtype="float32"), tokenizer_load(folder)
        texts = []
        for line in verse_lines(QUATRAIN):
            prompt = torch.tensor([read.encode(f"{line}，")])
            written = model.generate(
                prompt,
                attention_mask=torch.ones_like(prompt),
                max_new_tokens=50,
                do_sample=False,
                pad_token_id=read.pad_token_id,
            )
            texts.append(read.decode(written[0], skip_special_tokens=True)[len(line) + 1 :])
        return "\n".join(texts)

    # Behind each of four lines that it has not read. The unigram trainer's ids differ from run to
    # run, and so does what is learnt: a line may go wrong, most keep the form.
    before, after = verse_form(continued(1)), verse_form(continued(250))
    assert before.in_either < 0.5
    assert after.lines >= 6 and after.metre == 5 and after.share >= 0.6
