"""Which models the rows of the training benchmark speak of."""

import importlib
from pathlib import Path
from types import ModuleType

import pytest
from torch import nn

from sidrec.recommenders.decoder import Decoder
from sidrec.recommenders.tiger import Tiger
from sidrec.testing.toy import random_semantic_ids

T5 = 4 * (4 * 128 * 384 + 2 * 128 * 1024 + 2 * 128) + 4 * (8 * 128 * 384 + 2 * 128 * 1024 + 3 * 128) + 2 * 128
"""Encoder layers, decoder layers with twice the attention, and the two last norms."""
LLAMA = 4 * (4 * 128 * 128 + 3 * 128 * 512 + 2 * 128) + 128


@pytest.fixture
def training(monkeypatch: pytest.MonkeyPatch) -> ModuleType:
    monkeypatch.syspath_prepend(Path(__file__).parents[2] / "benchmarks")
    return importlib.import_module("training")


def test_tables_and_what_is_tied_to_them_do_not_count(training: ModuleType) -> None:
    model = nn.Sequential(nn.Embedding(7, 3), nn.Linear(3, 5), nn.Linear(5, 7, bias=False))
    assert training.count_weights(model) == 3 * 5 + 5 + 5 * 7
    tied = nn.Sequential(nn.Embedding(7, 3), nn.Linear(3, 7, bias=False))
    tied[1].weight = tied[0].weight
    assert training.count_weights(tied) == 0


def test_all_t5s_are_one_and_the_decoder_is_smaller(training: ModuleType) -> None:
    dataset = training.make_dataset(20)
    ids = random_semantic_ids(dataset.catalog, training.SIZES)
    variants = [training.bare_loop(dataset, ids, is_compact) for is_compact in (False, True)]
    variants += [training.trainer(dataset, ids, bf16) for bf16 in (False, True)]
    variants += [training.ours(Tiger(), dataset, ids, "fp32")]
    assert {variant.num_weights for variant in variants} == {T5}
    assert training.ours(Decoder(), dataset, ids, "fp32").num_weights == LLAMA
    assert (round(T5 / 1e6, 2), round(LLAMA / 1e6, 2)) == (4.46, 1.05), "as the table of the first page says"
