"""Several processes give one process's losses, killed and resumed too. Real processes, gloo."""

import json
import signal
from pathlib import Path

import pytest

torch = pytest.importorskip("torch", reason="the ml extra is not installed")

from safetensors.torch import load_file

from modelhub.ml.parallel import Processes
from tests.modelhub.ml import parallel_program, ranks
from tests.tiny_model import tiny_model_write

pytestmark = pytest.mark.ml


def ranks_run(folder: Path, *, world: int, strategy: str = "ddp", **config) -> list[int | None]:
    """Run the test's program on `world` processes. Returns exit statuses, by rank."""
    folder.mkdir(parents=True, exist_ok=True)
    document = {"program": "parallel", "config": config, "inputs": {}}
    (folder / "config.json").write_text(json.dumps(document))
    return ranks.ranks_run(parallel_program.main, folder, world=world, strategy=strategy)


def lines_of(folder: Path) -> dict[int, dict[str, float]]:
    lines = (folder / "metrics.jsonl").read_text().splitlines()
    return {line["step"]: line["values"] for line in map(json.loads, lines)}


def weights_of(folder: Path) -> Path:
    return folder / "outputs" / "model" / "model.safetensors"


def figures(folder: Path, name: str) -> list[float]:
    return [values[name] for values in lines_of(folder).values()]


@pytest.fixture(scope="module")
def base(tmp_path_factory):
    return str(tiny_model_write(tmp_path_factory.mktemp("base")))


@pytest.fixture(scope="module")
def alone(base, tmp_path_factory):
    """What one process makes of the same steps."""
    folder = tmp_path_factory.mktemp("alone")
    assert ranks_run(folder, world=1, base=base, steps=4) == [0]
    return folder


@pytest.mark.parametrize("strategy", ["ddp", "fsdp2"])
def test_two_processes_give_the_losses_of_one(tmp_path, base, alone, strategy):
    statuses = ranks_run(tmp_path, world=2, strategy=strategy, base=base, steps=4)
    assert statuses == [0, 0], (tmp_path / "log.txt").read_text()[-3000:]
    for name in ("loss", "grad_norm"):
        assert figures(tmp_path, name) == pytest.approx(figures(alone, name), rel=1e-6)
    # Three rows for two ranks: where passes are collective, the idle rank makes a blank one.
    assert figures(tmp_path, "passes") == [4 if strategy == "fsdp2" else 3] * 4
    one, two = (load_file(weights_of(folder)) for folder in (alone, tmp_path))
    assert one.keys() == two.keys()
    assert all(torch.allclose(one[name], two[name], atol=1e-5) for name in one)


@pytest.mark.parametrize("strategy", ["ddp", "fsdp2"])
def test_killed_and_resumed_two_processes_end_bit_for_bit_the_same(tmp_path, base, strategy):
    config = {"base": base, "steps": 4, "frozen": True}
    whole, killed = tmp_path / "whole", tmp_path / "killed"
    assert ranks_run(whole, world=2, strategy=strategy, **config) == [0, 0]
    statuses = ranks_run(killed, world=2, strategy=strategy, die_behind=2, **config)
    assert statuses[1] == -signal.SIGKILL and statuses[0] != 0
    assert not (killed / "result.json").exists()
    assert ranks_run(killed, world=2, strategy=strategy, **config) == [0, 0]
    assert lines_of(killed) == lines_of(whole)
    assert weights_of(killed).read_bytes() == weights_of(whole).read_bytes()


def test_a_sharded_run_goes_on_as_one_process(tmp_path, base, alone):
    config = {"base": base, "steps": 4}
    assert ranks_run(tmp_path, world=2, strategy="fsdp2", die_behind=2, **config) != [0, 0]
    assert ranks_run(tmp_path, world=1, **config) == [0]
    assert figures(tmp_path, "loss") == pytest.approx(figures(alone, "loss"), rel=1e-6)


def test_replicas_that_differ_are_refused(tmp_path, base):
    statuses = ranks_run(tmp_path, world=2, base=base, steps=1, drift=True)
    assert statuses == [2, 2]
    log = (tmp_path / "log.txt").read_text()
    assert "the weights of rank 1 are not those of rank 0: model." in log


def test_a_model_that_stayed_whole_under_fsdp2_is_refused(tmp_path, base):
    statuses = ranks_run(tmp_path, world=2, strategy="fsdp2", base=base, steps=1, whole=True)
    assert statuses == [2, 2]
    told = (tmp_path / "log.txt").read_text()
    assert "fsdp2 was asked for, but model.embed_tokens.weight is whole on every rank" in told


def test_a_strategy_there_is_none_of_is_refused(tmp_path, base):
    assert ranks_run(tmp_path, world=2, strategy="zero", base=base, steps=1) == [2, 2]
    assert "RONDO_STRATEGY: wanted ddp or fsdp2, got 'zero'" in (tmp_path / "log.txt").read_text()


def dealt(items, world, strategy="ddp"):
    cpu = torch.device("cpu")
    return [
        Processes(rank=rank, world=world, device=cpu, strategy=strategy).share(items, cost=float)
        for rank in range(world)
    ]


def test_every_item_is_one_ranks_and_the_ranks_are_even():
    shares = dealt([9, 1, 5, 5, 2, 8], 2)
    # 9 and 8 first, then 5 to the lighter rank and the other 5, then 2 and 1.
    assert [[item for item, _ in own] for own in shares] == [[9, 5, 1], [8, 5, 2]]
    assert all(weight == 1.0 for own in shares for _, weight in own)


def test_where_passes_are_collective_every_rank_makes_as_many():
    shares = dealt([9, 1, 5], 2, "fsdp2")
    assert shares == [[(9, 1.0), (1, 0.0)], [(5, 1.0), (1, 1.0)]]
    assert [len(own) for own in dealt([7], 4, "fsdp2")] == [1, 1, 1, 1]


def test_a_step_has_a_row_for_every_rank():
    processes = Processes(rank=0, world=4, device=torch.device("cpu"), strategy="ddp")
    assert processes.budget_tokens(4096, 400) == 110  # a tenth over an even share
    assert processes.budget_tokens(64, 400) == 64
