"""Preference tuning as a whole: it learns what it is told, keeps what is better, and can be interrupted."""

import copy
import json
import multiprocessing
from dataclasses import replace
from functools import cache, partial

import numpy as np
import pytest
import torch
from tests.algorithms.pair_cases import with_other_future

from sidrec.algorithms.base import TuningConfig, TuningOptimizer
from sidrec.algorithms.beams import BeamPairs
from sidrec.algorithms.dpo import DPO, _load, _save
from sidrec.algorithms.pairs import Pairs
from sidrec.algorithms.preference import PreferenceExamples, PreferenceModel, reference_log_probs
from sidrec.config import RunSettings, parse
from sidrec.data.sequences import Histories
from sidrec.errors import ConfigError, DataError
from sidrec.recommenders.decoder import Decoder
from sidrec.recommenders.popularity import Popularity
from sidrec.recommenders.sasrec import SASRec
from sidrec.recommenders.tiger import Tiger
from sidrec.stages.recipe import load_recipe
from sidrec.testing.toy import cycle_dataset, grid_semantic_ids
from sidrec.training import watch
from sidrec.training.config import TrainingConfig
from sidrec.training.preference_objectives import sigmoid_dpo

RUN = RunSettings(device="cpu")
DATASET = cycle_dataset()
IDS = grid_semantic_ids(DATASET.catalog)
TINY = {
    "sasrec": partial(SASRec, hidden_size=16, num_layers=1, dropout=0.2, max_history=4),
    "tiger": partial(Tiger, d_model=16, d_kv=8, num_heads=2, d_ff=16, num_layers=1, max_history=3),
    "decoder": partial(Decoder, d_model=16, num_heads=2, d_ff=16, num_layers=1, max_history=3),
}
FAST = TuningConfig(max_epochs=4, batch_size=32, optimizer=TuningOptimizer(lr=3e-3), patience=0)


@cache
def trained(kind):
    recommender = TINY[kind]()
    recommender.fit(DATASET, TrainingConfig(max_epochs=2, batch_size=32), RUN, semantic_ids=IDS)
    return recommender


def fitted(kind):
    """A recommender of one's own, trained once."""
    return copy.deepcopy(trained(kind))


def weights(recommender):
    return torch.cat([value.flatten().float() for value in recommender.model.state_dict().values()])


def pair_file(tmp_path):
    """Users prefer, against what usually follows, the item of the opposite side of the cycle."""
    path = tmp_path / "pairs.jsonl"
    lines = [
        {
            "history": [f"item-{(last - 1) % 24}", f"item-{last}"],
            "chosen": f"item-{(last + 12) % 24}",
            "rejected": [f"item-{(last + 1) % 24}"],
        }
        for last in range(24)
    ]
    path.write_text("".join(json.dumps(line) + "\n" for line in lines))
    return path


def margins(recommender):
    histories = Histories.of([[(last - 1) % 24, last] for last in range(24)])
    rows = np.array([[(last + 12) % 24, (last + 1) % 24] for last in range(24)])
    with torch.no_grad():
        logps = recommender.log_probs(histories, rows)
    return (logps[:, 0] - logps[:, 1]).numpy()


@pytest.mark.parametrize("kind", TINY)
@pytest.mark.parametrize("loss", ["sigmoid", "ipo", "softmax"])
def test_pairs_of_a_file_raise_the_margin_of_the_chosen_items(tmp_path, kind, loss):
    recommender = fitted(kind)
    before = margins(recommender)
    pairs = {"kind": "file", "path": str(pair_file(tmp_path))}
    config = FAST.model_copy(update={"max_epochs": 20})
    report = DPO(loss=loss, pairs=pairs, training=config).tune(recommender, DATASET, RUN)
    assert margins(recommender).mean() > before.mean() + 0.3
    assert report.figures["pairs"] == report.figures["rejected"] == 24
    assert report.figures["reference_accuracy"] == pytest.approx((before > 0).mean())
    assert not report.kept_start
    assert report.training.start_metric is None
    assert not recommender.model.training


# In bf16 the sums of a T5 depend on how far a batch is padded.
@pytest.mark.parametrize(
    ("kind", "precision"), [*((kind, "fp32") for kind in TINY), ("sasrec", "bf16"), ("decoder", "bf16")]
)
def test_the_first_loss_is_that_of_a_policy_that_equals_its_reference(kind, precision):
    """Dropout of the recommender and the precision of the training leave no margin before the first step."""
    for loss, beta, expected in (("sigmoid", 10, np.log(2)), ("softmax", 10, np.log(4)), ("ipo", 0.5, 1)):
        pairs = {"kind": "beams", "negatives": 3}
        config = FAST.model_copy(update={"max_steps": 1, "precision": precision})
        report = DPO(loss=loss, beta=beta, pairs=pairs, training=config).tune(fitted(kind), DATASET, RUN)
        assert report.training.losses[0][1] == pytest.approx(expected, rel=1e-5)


def test_reference_is_the_start_without_dropout_and_knows_absent_items():
    recommender = fitted("sasrec")
    recommender.model.train()
    pairs = Pairs(np.array([1, 2, 3, 7, 8]), np.array([0, 3]), np.array([2, 1]), np.array([[5, 6], [4, -1]]))
    reference = reference_log_probs(recommender, pairs, RUN)
    assert recommender.model.training
    recommender.model.eval()
    expected = recommender.log_probs(Histories.of([[1, 2], [7]]), np.array([[3, 5, 6], [8, 4, 0]])).detach().numpy()
    expected[1, 2] = 0
    assert np.allclose(reference, expected, atol=1e-5)
    examples = PreferenceExamples(pairs, reference)
    wins = [expected[0, 0] > expected[0, 1], expected[0, 0] > expected[0, 2], expected[1, 0] > expected[1, 1]]
    assert examples.reference_accuracy == pytest.approx(np.mean(wins))


@pytest.mark.parametrize("kind", TINY)
def test_state_of_the_model_holds_tied_weights_once_and_loads_through_any_name(kind):
    recommender = fitted(kind)
    model = PreferenceModel(recommender, lambda *_: torch.zeros(1))
    state = {name: value.clone() for name, value in model.state_dict().items()}
    pointers = [value.data_ptr() for value in model.state_dict().values()]
    assert len(set(pointers)) == len(pointers)
    assert bool(model.tied()) == (kind != "sasrec")
    before = weights(recommender).clone()
    with torch.no_grad():
        for weight in model.parameters():
            weight.add_(1)
    model.load_state_dict(state)
    assert torch.equal(weights(recommender), before)


def test_dropout_can_be_left_out():
    recommender = fitted("sasrec")
    loss = partial(sigmoid_dpo, beta=0.1)
    assert PreferenceModel(recommender, loss, dropout=True).train().policy.training
    quiet = PreferenceModel(recommender, loss, dropout=False).train()
    assert quiet.training
    assert not quiet.policy.training


@pytest.mark.parametrize("values", [[0.5, 0.4, 0.3], [0.5, 0.5, 0.5]])
def test_the_start_is_kept_where_validation_does_not_improve(values):
    recommender = fitted("sasrec")
    before, scores = weights(recommender).clone(), iter(values)
    config = FAST.model_copy(update={"max_epochs": 2})
    report = DPO(pairs="beams", training=config).tune(
        recommender, DATASET, RUN, validate=lambda _: {"ndcg@10": next(scores)}
    )
    assert report.kept_start
    assert torch.equal(weights(recommender), before)
    assert report.training.steps == 6
    assert (report.training.start_metric, report.training.trained_metric) == (0.5, max(values[1:]))
    assert (report.training.best_metric, report.training.best_step) == (0.5, 0)


def test_the_best_tuned_state_is_kept_where_it_is_better():
    recommender, seen = fitted("sasrec"), []
    scores = iter([0.5, 0.7, 0.6])

    def validate(tuned):
        assert not tuned.model.training
        seen.append(weights(tuned).clone())
        return {"ndcg@10": next(scores)}

    config = FAST.model_copy(update={"max_epochs": 2})
    report = DPO(pairs="beams", training=config).tune(recommender, DATASET, RUN, validate=validate)
    assert not report.kept_start
    assert torch.equal(weights(recommender), seen[1])
    assert not torch.equal(seen[0], seen[1])
    assert (report.training.start_metric, report.training.trained_metric) == (0.5, 0.7)


class InterruptError(Exception):
    pass


@pytest.mark.parametrize("kind", TINY)
@pytest.mark.parametrize("killed_at", [1, 4])
def test_killed_and_resumed_equals_uninterrupted(tmp_path, monkeypatch, kind, killed_at):
    monkeypatch.setattr(watch, "CHECKPOINT_SECONDS", 0.0)
    algorithm = DPO(pairs={"kind": "beams", "negatives": 2}, training=FAST, loss="softmax")
    start = fitted(kind)
    first = {name: value.clone() for name, value in start.model.state_dict().items()}
    mined = []
    monkeypatch.setattr(
        "sidrec.algorithms.dpo.reference_log_probs", lambda *given: mined.append(1) or reference_log_probs(*given)
    )

    def tune(scratch, kill_at=None):
        start.model.load_state_dict(first)
        start.model.eval()
        calls = []

        def validate(recommender):
            calls.append(1)
            if len(calls) == kill_at:
                raise InterruptError
            return {"metric": float(weights(recommender).sum().sin())}

        report = algorithm.tune(start, DATASET, RunSettings(device="cpu", scratch=scratch), validate=validate)
        return weights(start).clone(), report

    whole, expected = tune(tmp_path / "one")
    with pytest.raises(InterruptError):
        tune(tmp_path / "two", kill_at=killed_at)
    resumed, report = tune(tmp_path / "two")
    assert torch.equal(whole, resumed)
    assert report.training.losses == expected.training.losses
    assert report.kept_start == expected.kept_start
    assert (report.training.start_metric, report.training.trained_metric) == (
        expected.training.start_metric,
        expected.training.trained_metric,
    )
    assert len(mined) == 2, "the resumed run asked the reference again"


def test_other_settings_do_not_go_on_with_a_checkpoint_of_these(tmp_path):
    first, run = fitted("sasrec"), RunSettings(device="cpu", scratch=tmp_path)
    state = {name: value.clone() for name, value in first.model.state_dict().items()}
    found = []
    for beta, settings in ((0.1, run), (0.9, run), (0.9, RUN)):
        first.model.load_state_dict(state)
        DPO(pairs="beams", beta=beta, training=FAST).tune(first, DATASET, settings)
        found.append(weights(first).clone())
    assert torch.equal(found[1], found[2])
    assert not torch.equal(found[0], found[1])


def test_another_normalisation_or_other_codes_do_not_take_over_the_reference_of_these(tmp_path):
    def start(normalize="vocabulary", codes=IDS.codes):
        recommender = fitted("tiger")
        search = recommender.config.search.model_copy(update={"normalize": normalize})
        other = Tiger(recommender.config.model_copy(update={"search": search}))
        other.catalog, other.model = recommender.catalog, recommender.model
        other.semantic_ids = replace(IDS, codes=codes)
        return other

    algorithm = DPO(pairs={"kind": "beams", "negatives": 2}, training=FAST.model_copy(update={"max_epochs": 1}))
    scratch = RunSettings(device="cpu", scratch=tmp_path)
    algorithm.tune(start(), DATASET, scratch)
    for change in ({"normalize": "children"}, {"codes": IDS.codes[::-1].copy()}):
        one, two = start(**change), start(**change)
        reports = [algorithm.tune(one, DATASET, scratch), algorithm.tune(two, DATASET, RUN)]
        assert reports[0].training.losses == reports[1].training.losses
        assert torch.equal(weights(one), weights(two))


def test_several_processes_may_keep_the_pairs_at_once(tmp_path):
    pairs = Pairs(*(np.zeros(200_000, np.int64) for _ in range(3)), np.zeros((200_000, 4), np.int32), 3, 4)
    examples = PreferenceExamples(pairs, np.zeros((200_000, 5), np.float32))
    context, path = multiprocessing.get_context("fork"), tmp_path / "new" / "pairs.npz"
    both = [context.Process(target=_save, args=(path, examples)) for _ in range(2)]
    for process in both:
        process.start()
    for process in both:
        process.join()
        assert process.exitcode == 0
    assert len(_load(path)) == len(pairs)
    assert (_load(path).pairs.num_dropped, _load(path).pairs.num_same_codes) == (3, 4)
    assert [path] == list(path.parent.iterdir())


@pytest.mark.parametrize("kind", ["neighbours", "beams"])
def test_what_is_held_out_decides_nothing_unless_it_is_asked_for_and_told(kind):
    other = with_other_future(DATASET, 1)
    sizes = {"ranks": 8, "hard": 2} if kind == "neighbours" else {"negatives": 3}
    found = {}
    for spared in (False, True):
        pairs = {"kind": kind, **sizes} | ({"spare_held_out": True} if spared else {})
        one, two = fitted("sasrec"), fitted("sasrec")
        reports = [DPO(pairs=pairs, training=FAST).tune(*given, RUN) for given in ((one, DATASET), (two, other))]
        assert [report.figures["spares_held_out"] for report in reports] == [spared, spared]
        found[spared] = torch.equal(weights(one), weights(two))
    assert found == {False: True, True: False}


def test_same_seed_same_weights():
    found = []
    for seed in (1, 1, 2):
        recommender = fitted("sasrec")
        pairs = {"kind": "neighbours", "ranks": 8, "hard": 2}
        DPO(pairs=pairs, training=FAST).tune(recommender, DATASET, RunSettings(seed=seed, device="cpu"))
        found.append(weights(recommender))
    assert torch.equal(found[0], found[1])
    assert not torch.equal(found[0], found[2])


def test_a_setting_of_the_training_leaves_the_other_defaults_as_they_are():
    config = parse(DPO.Config, {"kind": "dpo", "training": {"optimizer": {"lr": 0.5}}}).training
    assert (config.max_epochs, config.batch_size, config.validate_users) == (2, 1024, 0)
    assert (config.optimizer.lr, config.optimizer.warmup_ratio, config.optimizer.weight_decay) == (0.5, 0.1, 1e-4)


@pytest.mark.parametrize(("kind", "fall", "sizes"), [("sasrec", 0.001, {"ranks": 8, "hard": 2}), ("tiger", 0.02, {})])
def test_recipes_learn_in_as_many_steps_as_eight_thousand_users_give(kind, fall, sizes):
    """Small models barely change at a rate of 2e-6 in 16 steps: the losses then fall by less than 0.0003."""
    algorithm, recommender = load_recipe(f"{kind}-dpo", []).algorithm, fitted(kind)
    steps = int(algorithm.training.max_epochs) * 8192 // algorithm.training.batch_size
    training = algorithm.training.model_copy(update={"batch_size": 8, "max_steps": steps})
    pairs = algorithm.pairs.model_copy(update=sizes)
    losses = DPO(loss=algorithm.loss, pairs=pairs, training=training).tune(recommender, DATASET, RUN).training.losses
    assert losses[-1][1] < losses[0][1] - fall


def test_bad_requests(monkeypatch):
    with pytest.raises(ConfigError, match=r"label_smoothing 0.1 has no effect on the loss 'ipo'"):
        DPO(loss="ipo", label_smoothing=0.1)
    with pytest.raises(ConfigError, match=r"no pairs of kind 'neighbors'; .*did you mean 'neighbours'"):
        DPO(pairs="neighbors")
    popularity = Popularity()
    popularity.fit(DATASET, TrainingConfig(), RUN)
    monkeypatch.setattr(BeamPairs, "pairs", None)  # asked before pairs are mined
    with pytest.raises(DataError, match="gives no log-probabilities"):
        DPO(pairs="beams", training=FAST).tune(popularity, DATASET, RUN)
