"""Draws from both backbones: log-probabilities equal to whole forward passes."""

import re
import runpy
from pathlib import Path

import numpy as np
import pytest
import torch
from tests.recommenders.generative_cases import KINDS, RAGGED, RUN, Reference, make
from tests.recommenders.test_generative import naive_children

from sidrec.artifact import create
from sidrec.decoding.recommendations import BeamConfig, Request
from sidrec.decoding.samples import SamplingConfig


def draw_log_prob(reference: Reference, history: list[int], row: int, temperature: float) -> float:
    """Sum over the levels of the softmax over the children that hold an unseen item."""
    codes = reference.recommender.ids.codes
    unseen = np.setdiff1d(np.arange(len(codes)), history)
    total, path = 0.0, codes[row].tolist()
    for level, code in enumerate(path):
        below = unseen[(codes[unseen, :level] == path[:level]).all(1)]
        wanted = np.unique(codes[below, level])
        logps = reference.step(history, tuple(path[:level]))[torch.from_numpy(wanted).long()] / temperature
        total += float(logps.log_softmax(-1)[wanted.tolist().index(code)])
    return total


@pytest.mark.parametrize("normalize", ["vocabulary", "level"])
@pytest.mark.parametrize("how", ["sample", "gumbel", "diverse"])
@pytest.mark.parametrize("kind", KINDS)
def test_log_probabilities_equal_whole_forward_passes(kind, how, normalize):
    recommender = make(kind, normalize)
    temperature = 1.0 if how == "diverse" else 0.7
    config = SamplingConfig(kind=how, temperature=temperature, normalize=normalize, users_per_batch=2)
    samples = recommender.sample(RAGGED, Request(k=9), config, RUN)
    reference = Reference(recommender)
    for user in range(len(RAGGED)):
        history, drawn = RAGGED[user].tolist(), samples.rows[user] >= 0
        rows = samples.rows[user, drawn]
        assert drawn.all() if how != "diverse" else drawn.any()
        assert not np.isin(rows, history).any()
        assert (samples.codes[user, drawn] == recommender.ids.codes[rows]).all()
        expected = reference.item_scores(history)[rows]
        np.testing.assert_allclose(samples.log_probs[user, drawn], expected, atol=1e-4)
        if how != "diverse":
            expected = [draw_log_prob(reference, history, row, temperature) for row in rows]
            np.testing.assert_allclose(samples.draw_log_probs[user], expected, atol=1e-4)


@pytest.mark.parametrize("kind", KINDS)
def test_over_children_model_and_draws_agree(kind):
    recommender = make(kind, "children")
    request = Request(k=9, exclude_seen=False)
    samples = recommender.sample(RAGGED, request, SamplingConfig(normalize="children"), RUN)
    np.testing.assert_allclose(samples.log_probs, samples.draw_log_probs, atol=1e-5)
    reference = Reference(recommender)
    for user in range(len(RAGGED)):
        expected = naive_children(reference, RAGGED[user].tolist())[samples.rows[user]]
        np.testing.assert_allclose(samples.log_probs[user], expected, atol=1e-4)


@pytest.mark.parametrize("how", ["sample", "gumbel", "diverse"])
@pytest.mark.parametrize("kind", KINDS)
def test_batches_do_not_matter_and_the_models_mode_is_put_back(kind, how):
    recommender = make(kind)
    recommender.model.train()
    found = [
        recommender.sample(RAGGED, Request(k=6), SamplingConfig(kind=how, users_per_batch=size), RUN) for size in (1, 5)
    ]
    assert recommender.model.training
    assert (found[0].rows == found[1].rows).all()
    np.testing.assert_allclose(found[0].log_probs, found[1].log_probs, atol=1e-5)


@pytest.mark.parametrize("kind", KINDS)
def test_one_group_equals_rank(kind):
    recommender = make(kind)
    config = SamplingConfig(kind="diverse", groups=1)
    samples = recommender.sample(RAGGED, Request(k=6), config, RUN)
    found = recommender.rank(RAGGED, Request(k=6, search=BeamConfig(beams=6)), RUN)
    assert (samples.rows == found.rows).all()
    np.testing.assert_allclose(samples.log_probs, found.scores, atol=1e-5)


def test_the_documented_example_runs(tmp_path, monkeypatch):
    page = (Path(__file__).parents[2] / "docs" / "decoding.md").read_text(encoding="utf-8")
    (example,) = (block for block in re.findall(r"```python\n(.*?)```", page, re.DOTALL) if "SamplingConfig" in block)
    recommender = make("tiger")
    monkeypatch.chdir(tmp_path)
    with create(tmp_path / "runs/beauty/recommenders/tiger", kind="recommender", config={}) as writer:
        recommender.save(writer.path)
    for name, item in zip(("B001", "B0AX"), recommender.catalog.ids, strict=False):
        example = example.replace(name, item)
    (tmp_path / "example.py").write_text(example, encoding="utf-8")
    found = runpy.run_path("example.py")
    assert found["samples"].rows.shape == (1, 16)
    assert not np.isin(found["samples"].rows, [0, 1]).any()
