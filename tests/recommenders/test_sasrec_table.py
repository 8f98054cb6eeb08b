"""SASRec that starts from vectors of its items: in one stage, or with the given rows held first."""

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from transformers import AutoTokenizer

from sidrec.config import RunSettings
from sidrec.data.sequences import Histories
from sidrec.decoding.recommendations import Request
from sidrec.embeddings.base import ItemEmbeddings
from sidrec.errors import DataError
from sidrec.evaluation.protocol import Protocol
from sidrec.evaluation.validation import validator
from sidrec.recommenders.sasrec import SASRec
from sidrec.stages.recipe import load_recipe
from sidrec.tasks.item_tokenizer import history_text
from sidrec.testing.recommender_contract import check_recommender
from sidrec.testing.toy import cycle_dataset
from sidrec.training import watch
from sidrec.training.config import OptimizerConfig, TrainingConfig

RUN = RunSettings(device="cpu")
DATASET = cycle_dataset()
NUM_ITEMS = len(DATASET.catalog)
SMALL = {"hidden_size": 16, "num_layers": 1, "dropout": 0.0, "max_history": 8}
QUICK = TrainingConfig(max_steps=6, batch_size=32, optimizer=OptimizerConfig(lr=1e-2, weight_decay=0.3))
FIRST = {"max_steps": 5, "optimizer": {"lr": 1e-2, "weight_decay": 0.3, "schedule": "constant"}}


def ring(missing=()) -> ItemEmbeddings:
    """Items of the cycle as places on a circle and its three overtones: neighbours are near each other."""
    angles = 2 * np.pi * np.arange(NUM_ITEMS)[:, None] / NUM_ITEMS * np.arange(1, 5)
    vectors = np.concatenate([np.cos(angles), np.sin(angles)], axis=1).astype(np.float32)
    return ItemEmbeddings(vectors, "places on a circle", DATASET.catalog.digest, np.asarray(missing, np.int64))


def sasrec(table, **fields) -> SASRec:
    return SASRec(**{**SMALL, **fields}, table=table)


def hits(recommender: SASRec) -> float:
    validate = validator(DATASET, Protocol(k=(1,), primary="hit@1"), 0, RUN)
    return validate(recommender)["hit@1"]


def test_the_contract_holds():
    make = lambda: sasrec({"frozen_first": FIRST})  # noqa: E731 - a factory of one line
    check_recommender(make, DATASET, training=QUICK, item_embeddings=ring(missing=[3]))


def test_one_stage_starts_from_the_vectors():
    """After one step with a tiny learning rate the table still is what it started as."""
    still = TrainingConfig(max_steps=1, batch_size=32, optimizer=OptimizerConfig(lr=1e-12))
    model = sasrec({})
    model.fit(DATASET, still, RUN, item_embeddings=ring())
    vectors, rows = ring().vectors, model.item_vectors()
    unit = rows / np.linalg.norm(rows, axis=1, keepdims=True)
    np.testing.assert_allclose(unit @ unit.T, vectors @ vectors.T / 4, atol=1e-5)
    np.testing.assert_allclose(np.linalg.norm(rows, axis=1), 0.02 * 16**0.5, rtol=0.15)


@pytest.mark.parametrize("missing", [(), (0, 7)])
@pytest.mark.parametrize("fields", [{}, {"tied": False}, {"special_rows": 4, "begin": True}], ids=str)
def test_given_rows_are_held_in_the_first_stage_and_learn_in_the_second(fields, missing):
    """Validation sees the tables after each step of each stage; an untied model has two."""
    seen: list[list[torch.Tensor]] = []

    def validate(recommender):
        seen.append([table.detach().clone() for table in recommender.model.tables])
        return {"metric": float(len(seen))}

    given = np.setdiff1d(np.arange(NUM_ITEMS), missing)
    training = QUICK.model_copy(update={"validate_every": 1, "patience": 0})
    model = sasrec({"frozen_first": FIRST}, **fields)
    report = model.fit(DATASET, training, RUN, item_embeddings=ring(missing), validate=validate)
    start = sasrec({}, **fields)
    start.fit(
        DATASET,
        TrainingConfig(max_steps=1, batch_size=32, optimizer=OptimizerConfig(lr=1e-30, weight_decay=0)),
        RUN,
        item_embeddings=ring(missing),
    )
    assert len(seen) == 5 + 6
    assert len(seen[0]) == 2 - fields.get("tied", True)
    for number, table in enumerate(start.model.tables):
        begun, first, second = table.detach(), [step[number] for step in seen[:5]], [step[number] for step in seen[5:]]
        cosines = torch.nn.functional.normalize(begun[given], dim=1)
        vectors = torch.from_numpy(ring().vectors[given] / 2)
        torch.testing.assert_close(cosines @ cosines.T, vectors @ vectors.T, rtol=1e-4, atol=1e-5)
        for step in first:
            assert torch.equal(step[given], begun[given])
        for row in (*missing, *range(NUM_ITEMS, len(begun))):
            assert not torch.equal(first[-1][row], begun[row]), "filled and special rows learn at once"
        assert (second[-1] != first[-1]).all()
    (held,) = report.earlier
    assert (held.steps, report.steps) == (5, 6)
    assert (held.best_metric, report.best_metric) == (5.0, 11.0), "each stage has its own choice"


def test_the_second_stage_goes_on_from_the_best_of_the_first():
    """With a learning rate of nearly 0 the second stage keeps what the first has chosen, not its last state."""
    seen: list[torch.Tensor] = []

    def validate(recommender):
        seen.append(recommender.model.norm.weight.detach().clone())
        return {"metric": -float(abs(len(seen) - 2))}

    still = QUICK.model_copy(
        update={"validate_every": 1, "max_steps": 2, "optimizer": OptimizerConfig(lr=1e-30, weight_decay=0)}
    )
    model = sasrec({"frozen_first": FIRST})
    report = model.fit(DATASET, still, RUN, item_embeddings=ring(), validate=validate)
    assert report.earlier[0].best_step == 2
    assert torch.equal(model.model.norm.weight, seen[1])
    assert not torch.equal(seen[4], seen[1])


class StopError(Exception):
    pass


@pytest.mark.parametrize("kill_at", [3, 8])
def test_killed_in_either_stage_and_resumed_equals_uninterrupted(tmp_path: Path, monkeypatch, kill_at: int):
    monkeypatch.setattr(watch, "CHECKPOINT_SECONDS", 0.0)
    training = QUICK.model_copy(update={"validate_every": 1})

    def fitted(run, stop=0):
        checks = [0]

        def validate(recommender):
            checks[0] += 1
            if checks[0] == stop:
                raise StopError
            return {"metric": float(recommender.model.norm.weight.sum())}

        model = sasrec({"frozen_first": FIRST}, dropout=0.3)
        return model, model.fit(DATASET, training, run, item_embeddings=ring([2]), validate=validate)

    whole, expected = fitted(RUN)
    with pytest.raises(StopError):
        fitted(replace(RUN, scratch=tmp_path), stop=kill_at)
    resumed, report = fitted(replace(RUN, scratch=tmp_path))
    for name, value in whole.model.state_dict().items():
        assert torch.equal(value, resumed.model.state_dict()[name]), name
    for one, other in zip((*report.earlier, report), (*expected.earlier, expected), strict=True):
        assert (one.best_metric, one.best_step, one.losses) == (other.best_metric, other.best_step, other.losses)


def test_helpful_vectors_are_learnt_faster_than_random_ones():
    training = TrainingConfig(max_epochs=4, batch_size=32, optimizer=OptimizerConfig(lr=5e-3))
    at_random, from_vectors = SASRec(**SMALL), sasrec({})
    plain = at_random.fit(DATASET, training, RUN)
    helped = from_vectors.fit(DATASET, training, RUN, item_embeddings=ring())
    assert helped.losses[-1][1] < plain.losses[-1][1] - 0.1
    assert hits(from_vectors) == 1.0 > hits(at_random)


def test_held_first_the_cycle_is_learnt_too():
    training = TrainingConfig(max_epochs=5, batch_size=32, optimizer=OptimizerConfig(lr=5e-3))
    first = {"max_epochs": 5, "optimizer": {"lr": 5e-3, "schedule": "constant"}}
    model = sasrec({"frozen_first": first})
    model.fit(DATASET, training, RUN, item_embeddings=ring())
    assert hits(model) == 1.0


@pytest.mark.parametrize("recipe", ["sasrec-report", "sasrec-text-rope"])
def test_recipes_start_from_vectors_and_hold_them_first(recipe):
    """At a small size; the second stage does nothing, so that what the first one left is seen."""
    small = ["hidden_size=16", "num_heads=2", "num_layers=1", "inner_width=16", "dropout=0.0"]
    found = load_recipe(recipe, [f"recommender.{setting}" for setting in small])
    still = QUICK.model_copy(update={"max_steps": 1, "optimizer": OptimizerConfig(lr=1e-30, weight_decay=0)})
    model = SASRec(found.recommender)
    report = model.fit(DATASET, still, RUN, item_embeddings=ring())
    assert (found.recommender.positions, report.earlier[0].steps) == ("rope", 1)
    rows = torch.nn.functional.normalize(torch.from_numpy(model.item_vectors()), dim=1)
    vectors = torch.from_numpy(ring().vectors) / 2
    torch.testing.assert_close(rows @ rows.T, vectors @ vectors.T, rtol=1e-4, atol=1e-5)


def test_without_vectors_it_says_what_is_missing():
    with pytest.raises(DataError, match=r"starts from vectors[\s\S]*sidrec embed"):
        sasrec({}).fit(DATASET, QUICK, RUN)
    other = replace(ring(), catalog_digest="of other items")
    with pytest.raises(DataError, match="catalogue and embeddings disagree"):
        sasrec({}).fit(DATASET, QUICK, RUN, item_embeddings=other)


def test_the_saved_tokenizer_feeds_the_model(tmp_path: Path):
    """A directory for Hugging Face: texts of items, tokenized and padded, give the scores of the recommender."""
    model = sasrec({})
    model.fit(DATASET, QUICK, RUN, item_embeddings=ring())
    model.save(tmp_path)
    tokens = AutoTokenizer.from_pretrained(tmp_path)
    assert [tokens.decode([row]) for row in range(NUM_ITEMS)] == [history_text([item]) for item in DATASET.catalog.ids]
    histories = [["item-3", "item-4"], [f"item-{row}" for row in range(12)], ["item-9"]]
    batch = tokens([history_text(each) for each in histories], padding=True, truncation=True, return_tensors="pt")
    assert batch.input_ids.shape == (3, 8)
    with torch.no_grad():
        hidden = model.model(batch.input_ids, attention_mask=batch.attention_mask).hidden
    last = hidden[torch.arange(3), batch.attention_mask.sum(dim=1) - 1]
    best = (last @ model.model.items.weight.detach().T).topk(4).indices
    rows = Histories.of([DATASET.catalog.rows(each) for each in histories])
    assert best.tolist() == model.rank(rows, Request(k=4, exclude_seen=False), RUN).rows.tolist()
