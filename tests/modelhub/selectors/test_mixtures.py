"""What a mixture would read: worked by hand, and against what a run says of the same files."""

from dataclasses import replace
from pathlib import Path

import pytest

np = pytest.importorskip("numpy", reason="NumPy is not installed")

from modelhub.errors import ApplicationError
from modelhub.ml.configs import config_load
from modelhub.ml.pretraining.configs import PretrainConfig
from modelhub.selectors.mixtures import (
    BlendAsk,
    MixtureAsk,
    MixturePlan,
    mixture_plan,
    mixture_settings,
    rates_list,
    token_sets_list,
)
from modelhub.services.mixtures import mixture_save
from tests.modelhub.mixtures import make_rate, make_tokens

pytestmark = pytest.mark.django_db


def planned(ask: MixtureAsk) -> MixturePlan:
    return mixture_plan(ask=ask, sets=token_sets_list(uids=ask.sets), rates=rates_list())


def test_epochs_tokens_and_repeats_are_told_for_each_set() -> None:
    # Blocks of 8 tokens, 4 a step: 1,024 steps are 32,768 samples, 16 whole periods.
    large, small = make_tokens("large", 400_080), make_tokens("small", 4_080)
    ask = MixtureAsk(
        sets=(large.run.uid, small.run.uid),
        blends=(BlendAsk(by="hand", weights={large.run.uid: 3.0, small.run.uid: 1.0}),),
        tokens=262_144,
        block_tokens=8,
        blocks_per_step=4,
    )
    plan = planned(ask)
    assert (plan.steps, plan.tokens) == (8192, 262_144)
    first, second = plan.sources
    assert (first.read_tokens, second.read_tokens) == (196_608, 65_536)
    assert (first.share, second.share) == (0.75, 0.25)
    # 16 blocks of each are kept for validation: 494 of the small set's 510 are read.
    assert second.epochs == pytest.approx(8192 / 494)
    assert (first.is_repeated, second.is_repeated, second.is_worn) == (False, True, True)
    assert plan.worn == [second]


def test_a_cap_holds_and_what_it_leaves_goes_to_the_others() -> None:
    large, small = make_tokens("large", 4_000_000), make_tokens("small", 40_000)
    uids = (large.run.uid, small.run.uid)
    ask = MixtureAsk(
        sets=uids,
        blends=(BlendAsk(by="hand", weights=dict.fromkeys(uids, 1.0)),),
        tokens=2_000_000,
        block_tokens=8,
        blocks_per_step=4,
    )
    assert planned(ask).sources[1].epochs > 20
    capped = planned(replace(ask, caps={small.run.uid: 4.0}))
    assert 3.8 < capped.sources[1].epochs <= 4.0
    assert sum(one.read_tokens for one in capped.sources) == capped.tokens


def test_shares_go_by_size_by_temperature_and_by_llamas_table() -> None:
    # Sets of 8,000 and 2,000 blocks, 16 of each kept for validation.
    large, small = make_tokens("large", 64_000), make_tokens("small", 16_000)
    ask = MixtureAsk(
        sets=(large.run.uid, small.run.uid), tokens=32_768, block_tokens=8, blocks_per_step=4
    )

    def asked(blend: BlendAsk) -> tuple[float, ...]:
        return planned(replace(ask, blends=(blend,))).blends[0].asked

    assert asked(BlendAsk(by="size")) == pytest.approx((7984 / 9968, 1984 / 9968), abs=1e-6)
    even = asked(BlendAsk(by="temperature", temperature=2.0))
    assert even[0] / even[1] == pytest.approx((7984 / 1984) ** 0.5, rel=1e-5)
    books = replace(ask, kinds={large.run.uid: "Books", small.run.uid: "CommonCrawl"})
    shares = planned(replace(books, blends=(BlendAsk(by="llama"),))).blends[0].asked
    assert shares == pytest.approx((0.045 / 0.715, 0.67 / 0.715), abs=1e-6)
    with pytest.raises(ApplicationError, match="stands for"):
        asked(BlendAsk(by="llama"))


def test_time_and_tokens_to_a_weight_are_those_of_a_measured_run() -> None:
    tokens = make_tokens("t", 100_000)
    run = make_rate(tokens_per_s=2048.0, parameters=16_384)
    ask = MixtureAsk(
        sets=(tokens.run.uid,),
        tokens=32_768,
        block_tokens=8,
        blocks_per_step=4,
        rate_of=run.uid,
    )
    plan = planned(ask)
    assert (plan.seconds, plan.tokens_per_parameter) == (16.0, 2.0)
    assert planned(replace(ask, rate_of="")).seconds is None


@pytest.mark.parametrize(
    ("change", "said"),
    [
        ({"sets": ()}, "Choose a token set"),
        ({"tokens": 16}, "less than one step"),
        ({"blends": (BlendAsk(), BlendAsk(first_step=5000))}, "1 to 1023"),
        ({"blends": (BlendAsk(), BlendAsk(first_step=9), BlendAsk(first_step=9))}, "own"),
        ({"caps": "tight"}, "raise a cap"),
        ({"block_tokens": 4}, "block_tokens"),
    ],
)
def test_what_the_run_would_refuse_is_refused_here(change: dict, said: str) -> None:
    tokens = make_tokens("t", 100_000)
    ask = MixtureAsk(sets=(tokens.run.uid,), tokens=32_768, block_tokens=8, blocks_per_step=4)
    if change.get("caps") == "tight":
        change = {"caps": {tokens.run.uid: 0.1}}
    with pytest.raises(ApplicationError, match=said):
        planned(replace(ask, **change))


def test_sets_of_different_tokenizers_do_not_mix() -> None:
    ours, theirs = make_tokens("ours", 10_000), make_tokens("theirs", 10_000, tokenizer="other")
    ask = MixtureAsk(sets=(ours.run.uid, theirs.run.uid), tokens=32_768, block_tokens=8)
    with pytest.raises(ApplicationError, match="different tokenizers"):
        planned(ask)


def test_the_plan_is_what_a_run_with_its_settings_says_it_reads(tmp_path: Path) -> None:
    from modelhub.ml.pretraining.data import accounts, mixture_make, source_make
    from modelhub.ml.pretraining.shards import MappedShards

    def written(name: str, tokens: int) -> MappedShards:
        folder = tmp_path / name
        folder.mkdir()
        np.zeros(tokens, dtype=np.uint16).tofile(folder / "0.ds")
        np.array([tokens // 2, tokens], dtype=np.uint64).tofile(folder / "0.ds.index")
        return MappedShards(folder)

    sizes = {"novels": 50_000, "poems": 9_000}
    outputs = [make_tokens(name, tokens) for name, tokens in sizes.items()]
    uids = [one.run.uid for one in outputs]
    ask = MixtureAsk(
        sets=tuple(uids),
        caps={uids[1]: 6.0},
        blends=(
            BlendAsk(by="temperature", temperature=3.0),
            BlendAsk(first_step=700, by="hand", weights={uids[0]: 1.0, uids[1]: 0.3}),
        ),
        tokens=100_000,
        block_tokens=16,
        blocks_per_step=4,
    )
    plan = planned(ask)
    saved = mixture_save(name="both", plan=plan, author=None)
    config = config_load(PretrainConfig, mixture_settings(mixture=saved))
    sources = [
        source_make(name, written(name, tokens), config, is_replay=False)
        for name, tokens in sizes.items()
    ]
    told = accounts(mixture_make(sources, config), sources, config)
    assert [one["tokens"] for one in told] == [one.read_tokens for one in plan.sources]
    assert [one["epochs"] for one in told] == [one.epochs for one in plan.sources]
    assert config.later_shares == {"700": [0.769231, 0.230769]}
