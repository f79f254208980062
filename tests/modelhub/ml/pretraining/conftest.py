"""The small world of the runs: a tokenizer, and two sources of sentences."""

import pytest

from tests.modelhub.ml.pretraining.pretrain_runs import (
    cities,
    shards_write,
    sums,
    tokenizer_write,
)


@pytest.fixture(scope="module")
def tokenizer(tmp_path_factory):
    return tokenizer_write(tmp_path_factory.mktemp("tokenizer"))


@pytest.fixture(scope="module")
def tokens(tmp_path_factory):
    return shards_write(tmp_path_factory.mktemp("tokens") / "sums", sums(0, 120))


@pytest.fixture(scope="module")
def other_tokens(tmp_path_factory):
    return shards_write(tmp_path_factory.mktemp("tokens") / "cities", cities(0, 120))
