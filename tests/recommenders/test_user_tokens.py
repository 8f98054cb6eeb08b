"""Users with tokens: learnt where only they tell the target, known wherever an id is at hand, left out where not."""

import io
import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import polars as pl
import pytest
from tests.recommenders.generative_cases import RAGGED, RUN, USERS, make

from sidrec.artifact import create
from sidrec.data.dataset import Dataset, Examples, Split
from sidrec.data.sequences import Histories, Sequences, user_keys
from sidrec.decoding.recommendations import Request
from sidrec.errors import DataError
from sidrec.evaluation.evaluator import evaluate
from sidrec.evaluation.protocol import Protocol
from sidrec.recommenders.decoder import Decoder
from sidrec.recommenders.tiger import Tiger
from sidrec.stages.recommend import recommend, recommend_file
from sidrec.stages.recommend_users import recommend_users
from sidrec.testing.toy import cycle_dataset, grid_semantic_ids
from sidrec.training.config import OptimizerConfig, TrainingConfig

KINDS = ("tiger, users", "decoder, users", "item-decoder, codes alone, users")
SMALL = {
    Tiger: {"d_model": 32, "d_kv": 16, "num_heads": 2, "d_ff": 64, "num_layers": 1, "dropout": 0.0},
    Decoder: {"d_model": 32, "num_heads": 2, "d_ff": 64, "num_layers": 1, "dropout": 0.0},
}
NAMES = [f"user-{number}" for number in range(8)]


def tastes() -> Dataset:
    """All users begin with the items 0 and 1; each goes on with an item of the own, in a line for each part."""
    catalog = cycle_dataset(num_items=16).catalog
    rows = np.array([[0, 1, 8 + number] for number in range(8)] * 3, np.int32).reshape(-1)
    lines = np.arange(24, dtype=np.int32).reshape(3, 8)
    parts = [Examples(users, np.full(8, 2, np.int32)) for users in lines]
    return Dataset(catalog, Sequences(rows, np.arange(25) * 3, NAMES * 3), Split("by line", *parts))


@pytest.mark.parametrize("kind", SMALL)
def test_what_only_users_tell_is_learnt_and_evaluated(kind):
    dataset, protocol = tastes(), Protocol(k=(1,), primary="hit@1")
    assert len(set((user_keys(NAMES) % 64).tolist())) == 8, "every user has a token alone"
    training = TrainingConfig(max_steps=80, batch_size=8, optimizer=OptimizerConfig(lr=1e-2))
    hits = []
    for num_tokens in (0, 64):
        recommender = kind(**SMALL[kind], user_tokens=num_tokens)
        ids = grid_semantic_ids(dataset.catalog, size=4, levels=2)
        recommender.fit(dataset, training, RUN, semantic_ids=ids)
        hits.append((evaluate(recommender, dataset, "test", protocol, RUN).ranks == 1).mean())
    assert hits == [1 / 8, 1.0]


@pytest.mark.parametrize("kind", KINDS)
def test_lists_depend_on_the_user_and_nothing_stands_for_an_unknown_one(kind):
    recommender, request = make(kind), Request(k=5, exclude_seen=False)
    known = recommender.rank(RAGGED, request, RUN)
    unknown = recommender.rank(replace(RAGGED, users=None), request, RUN)
    differs = np.abs(known.scores - unknown.scores).max(axis=1) > 1e-4
    assert differs.tolist() == [True, True, False, True, True], "the third is not known"
    same_token = replace(RAGGED, users=np.where(RAGGED.users < 0, -1, RAGGED.users + 9 * 10**6))
    again = recommender.rank(same_token, request, RUN)
    np.testing.assert_array_equal(again.scores, known.scores)


@pytest.mark.parametrize("kind", KINDS)
def test_users_are_known_by_their_ids_in_python_and_in_files(kind, tmp_path: Path):
    recommender = make(kind)
    ids = [recommender.catalog.ids_of(RAGGED[user]) for user in range(len(RAGGED))]
    expected = recommender.rank(RAGGED, Request(k=3), RUN)
    found = recommender.recommend(ids, k=3, users=USERS, run=RUN)
    assert [[item.score for item in answer] for answer in found] == expected.scores.tolist()
    assert recommend(recommender, ids, RUN, k=3, users=USERS) == found
    with pytest.raises(DataError, match="1 users for 5 histories"):
        recommender.recommend(ids, k=3, users=["Ann"], run=RUN)
    lines = [json.dumps({"user_id": user, "history": items}) for user, items in zip(USERS, ids, strict=True)]
    (tmp_path / "users.jsonl").write_text("\n".join(lines), encoding="utf-8")
    out = io.StringIO()
    recommend_file(recommender, tmp_path / "users.jsonl", out, RUN, k=3)
    answers = [json.loads(line)["items"] for line in out.getvalue().splitlines()]
    assert [[item["item"] for item in answer] for answer in answers] == [[item.item for item in a] for a in found]


@pytest.mark.parametrize("kind", KINDS)
def test_a_table_of_users_gives_their_own_lists(kind, tmp_path: Path):
    recommender, numbers = make(kind), [7, 11, 7]
    histories = [[3, 7], [5], [4]]
    with create(tmp_path / "model", kind="recommender", config={}) as writer:
        recommender.save(writer.path)
    items = [[f"item-{row}" for row in rows] for rows in histories]
    pl.DataFrame({"user_id": numbers, "history": items}).write_parquet(tmp_path / "users.parquet")
    recommend_users(tmp_path / "model", tmp_path / "users.parquet", tmp_path / "top.parquet", run=RUN)
    found = pl.read_parquet(tmp_path / "top.parquet")
    expected = recommender.rank(Histories.of(histories, map(str, numbers)), Request(k=10), RUN)
    np.testing.assert_allclose(np.array(found["scores"].to_list()), expected.scores, atol=1e-6)
    nobody = recommender.rank(Histories.of(histories), Request(k=10), RUN)
    assert not np.allclose(nobody.scores, expected.scores, atol=1e-3)
