"""Ensembles: sums of log-probabilities by hand and by brute force, certificates, weights, files, errors."""

import shutil
from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from tests.recommenders.generative_cases import RAGGED, RUN, make
from tests.recommenders.table_recommender import table

from sidrec.artifact import create
from sidrec.data.dataset import Examples
from sidrec.data.sequences import Histories
from sidrec.decoding.filters import Filters
from sidrec.decoding.recommendations import BeamConfig, Request
from sidrec.errors import ConfigError, DataError
from sidrec.evaluation.protocol import Protocol
from sidrec.evaluation.validation import validator
from sidrec.recommenders import ensemble as module
from sidrec.recommenders.base import Recommender
from sidrec.recommenders.ensemble import Ensemble
from sidrec.recommenders.popularity import Popularity
from sidrec.recommenders.sasrec import SASRec
from sidrec.testing.toy import cycle_dataset
from sidrec.training.config import TrainingConfig

FOUR, TWELVE, SIXTY = (cycle_dataset(num_items=size) for size in (4, 12, 60))
ONE_USER = Histories.of([[]])


def together(dataset, members, validate=None, **fields):
    """A fitted ensemble of some members, called m0, m1, …."""
    named = {f"m{number}": member for number, member in enumerate(members)}
    out = Ensemble(members=list(named), **fields)
    out.fit(dataset, TrainingConfig(), RUN, validate=validate, members=named)
    return out


def brute_force(ensemble, histories, request):
    """Scores float64[U, N] by `log_probs` of every item; -inf for those that must not be listed."""
    num_items = len(ensemble.catalog)
    rows = np.tile(np.arange(num_items), (len(histories), 1))
    scores = np.zeros(rows.shape)
    for weight, member in zip(ensemble.weights, ensemble.members, strict=True):
        scores += weight * member.log_probs(histories, rows).detach().numpy()
    filters = request.filters(len(histories), num_items)
    for user in range(len(histories)):
        if request.exclude_seen:
            scores[user, histories[user]] = -np.inf
        if filters is not None:
            scores[user, ~filters.masks[filters.of_user[user]]] = -np.inf
    return scores


def assert_best(found, scores, users=None, atol=1e-4):
    """Lists hold the k best of all items, up to ties within rounding."""
    k = found.rows.shape[1]
    for user in range(len(scores)) if users is None else users:
        best = np.sort(scores[user])[::-1][:k]
        listed = found.rows[user] >= 0
        assert listed.sum() == np.isfinite(best).sum()
        assert np.allclose(found.scores[user][listed], best[np.isfinite(best)], atol=atol)
        assert np.allclose(scores[user][found.rows[user][listed]], found.scores[user][listed], atol=atol)
        assert len(set(found.rows[user][listed])) == listed.sum()


def test_sums_of_log_probabilities_by_hand():
    one, two = table(FOUR, [[0.5, 0.3, 0.1, 0.1]]), table(FOUR, [[0.1, 0.2, 0.3, 0.4]])
    found = together(FOUR, [one, two]).rank(ONE_USER, Request(k=4), RUN)
    # Products 0.05, 0.06, 0.03, 0.04; half their logarithms.
    assert found.rows.tolist() == [[1, 0, 3, 2]]
    assert np.allclose(np.exp(2 * found.scores), [[0.06, 0.05, 0.04, 0.03]])
    weighted = together(FOUR, [one, two], weights=[3, 1]).rank(ONE_USER, Request(k=4), RUN)
    # 0.5³·0.1 = 0.0125, 0.3³·0.2 = 0.0054, 0.1³·0.3, 0.1³·0.4.
    assert weighted.rows.tolist() == [[0, 1, 3, 2]]
    assert np.allclose(np.exp(4 * weighted.scores), [[0.0125, 0.0054, 0.0004, 0.0003]])
    assert weighted.exact.all()


def test_ties_stand_in_row_order():
    one, two = table(FOUR, [[0.4, 0.1, 0.4, 0.1]]), table(FOUR, [[0.1, 0.4, 0.1, 0.4]])
    for candidates in (1, 4, "all"):
        found = together(FOUR, [one, two], candidates=candidates).rank(ONE_USER, Request(k=4), RUN)
        assert found.rows.tolist() == [[0, 1, 2, 3]]


def test_a_list_of_few_candidates_is_certified_only_by_the_threshold():
    one = table(FOUR, [[0.4, 0.3, 0.2, 0.1]], searches=True)
    two = table(FOUR, [[0.4, 0.1, 0.3, 0.2]], searches=True)
    # Each puts forward item 0 alone, 0.16; what they did not scores at most 0.4 · 0.4, so nothing is proved.
    assert together(FOUR, [one, two], candidates=1).rank(ONE_USER, Request(k=1), RUN).exact.tolist() == [False]
    # With two each, others score at most 0.3 · 0.3 = 0.09 < 0.16.
    two_each = together(FOUR, [one, two], candidates=2)
    assert two_each.rank(ONE_USER, Request(k=1), RUN).exact.tolist() == [True]
    # The second best is item 2 with 0.06, and item 3 could have had 0.09.
    found = two_each.rank(ONE_USER, Request(k=2), RUN)
    assert found.rows.tolist() == [[0, 2]]
    assert found.exact.tolist() == [False]
    assert two_each.rank(ONE_USER, Request(k=2, exact=True), RUN).exact.tolist() == [True]


@pytest.mark.parametrize(
    "fields",
    [{"certified": False}, {"search": BeamConfig(precision="bf16")}, {"search": BeamConfig(normalize="children")}],
)
def test_certificates_that_do_not_speak_of_what_is_summed_do_not_count(fields):
    one, two = table(FOUR, [[0.7, 0.1, 0.1, 0.1]]), table(FOUR, [[0.7, 0.1, 0.1, 0.1]], searches=True, **fields)
    found = together(FOUR, [one, two], candidates=2).rank(ONE_USER, Request(k=1), RUN)
    # Known is only that the other member gives at most 1: 0.1 · 1 < 0.49.
    assert found.exact.tolist() == [True]
    three = table(FOUR, [[0.3, 0.3, 0.2, 0.2]])
    found = together(FOUR, [three, two], candidates=2).rank(ONE_USER, Request(k=1), RUN)
    assert found.exact.tolist() == [False]
    own = replace(Request(k=1), search=BeamConfig(normalize="vocabulary"))
    plain = table(FOUR, [[0.7, 0.1, 0.1, 0.1]], searches=True)
    assert together(FOUR, [three, plain], candidates=2).rank(ONE_USER, Request(k=1), RUN).exact.tolist() == [True]
    assert together(FOUR, [three, plain], candidates=2).rank(ONE_USER, own, RUN).exact.tolist() == [False]


HISTORIES = Histories.of([[3, 7, 11, 2], [], [5], [9, 1, 8, 10, 4, 2, 7], [4, 4]])


@given(
    seed=st.integers(0, 999),
    k=st.integers(1, 13),
    candidates=st.integers(1, 12),
    members=st.integers(2, 3),
    certified=st.booleans(),
    exclude_seen=st.booleans(),
    listed=st.sampled_from(["none", "all users", "own"]),
)
@settings(max_examples=60, deadline=None)
def test_what_is_certified_is_the_best_of_all_items(seed, k, candidates, members, certified, exclude_seen, listed):
    draw = np.random.default_rng(seed)
    parts = [
        table(TWELVE, draw.dirichlet(np.full(12, 0.3), size=13) + 1e-9, searches=True, certified=certified)
        for _ in range(members)
    ]
    ensemble = together(TWELVE, parts, candidates=candidates, weights=draw.uniform(0.1, 1, members).tolist())
    masks = draw.random((3, 12)) < 0.4
    masks[:, :2] = True
    allowed = {"none": None, "all users": masks[0], "own": Filters(masks, draw.integers(3, size=5))}[listed]
    request = Request(k=k, exclude_seen=exclude_seen, allowed=allowed)
    scores = brute_force(ensemble, HISTORIES, request)
    found = ensemble.rank(HISTORIES, request, RUN)
    assert_best(found, scores, np.flatnonzero(found.exact))
    inside = np.where(found.rows >= 0, np.take_along_axis(scores, np.maximum(found.rows, 0), axis=1), 0)
    assert np.isfinite(inside).all(), "an item is listed that must not be"
    exact = ensemble.rank(HISTORIES, replace(request, exact=True), RUN)
    assert exact.exact.all()
    assert_best(exact, scores)


@pytest.fixture(scope="module")
def sasrec():
    recommender = SASRec(hidden_size=16, num_layers=1, dropout=0.3, max_history=4)
    recommender.fit(SIXTY, TrainingConfig(max_epochs=2, batch_size=32), RUN)
    return recommender


@pytest.fixture(scope="module")
def models(sasrec):
    """SASRec, and a T5 and a Llama over different codes."""
    return [sasrec, make("tiger", sizes=(5, 4, 6)), make("decoder", sizes=(8, 9), seed=3)]


@pytest.mark.parametrize("candidates", ["all", 60])
def test_equals_brute_force_over_the_catalogue(models, candidates):
    ensemble, request = together(SIXTY, models, candidates=candidates, weights=[1, 2, 1.5]), Request(k=60)
    found = ensemble.rank(RAGGED, request, RUN)
    assert found.exact.all()
    assert ensemble.search_for(request) is None
    assert_best(found, brute_force(ensemble, RAGGED, request), atol=2e-4)


@pytest.mark.parametrize("member", range(3))
def test_one_member_twice_ranks_as_that_member(models, member):
    one = models[member]
    ensemble = together(SIXTY, [one, one], candidates="all")
    alone = one.rank(RAGGED, Request(k=8, exact=True), RUN)
    found = ensemble.rank(RAGGED, Request(k=8), RUN)
    # Items of equal codes tie in both; all others stand in the same places.
    assert np.array_equal(found.rows, alone.rows)
    few = together(SIXTY, [one, one], candidates=8).rank(RAGGED, Request(k=8, exact=True), RUN)
    assert np.array_equal(few.rows, alone.rows)


def test_few_candidates_of_real_models(models):
    ensemble, request = together(SIXTY, models, candidates=12), Request(k=5)
    scores = brute_force(ensemble, RAGGED, request)
    found = ensemble.rank(RAGGED, request, RUN)
    assert_best(found, scores, np.flatnonzero(found.exact), atol=2e-4)
    exact = ensemble.rank(RAGGED, replace(request, exact=True), RUN)
    assert exact.exact.all()
    assert_best(exact, scores, atol=2e-4)
    search = ensemble.search_for(request)
    assert search is not None
    assert search.beams == 12


def test_batches_neighbours_and_padding_change_nothing(models, monkeypatch):
    ensemble = together(SIXTY, models, candidates=9)
    filters = Filters(np.random.default_rng(0).random((2, 60)) < 0.5, np.array([0, 1, 1, 0, 1]))
    for request in (Request(k=6), Request(k=6, exact=True, allowed=filters)):
        whole = ensemble.rank(RAGGED, request, RUN)
        monkeypatch.setattr(module, "USERS_AT_ONCE", 2)
        monkeypatch.setattr(module, "CANDIDATES_AT_ONCE", 90)
        small = ensemble.rank(RAGGED, request, RUN)
        monkeypatch.undo()
        assert np.array_equal(small.rows, whole.rows)
        assert np.array_equal(small.exact, whole.exact)
        assert np.allclose(small.scores, whole.scores, atol=1e-4)
    for user in range(len(RAGGED)):
        alone = ensemble.rank(RAGGED.take(slice(user, user + 1)), Request(k=6), RUN)
        assert np.array_equal(alone.rows[0], ensemble.rank(RAGGED, Request(k=6), RUN).rows[user])


def next_item(sharpness):
    """Probabilities float[13, 12] that favour the item after the last one, or the one before it if negative."""
    logits = np.zeros((13, 12))
    for last in range(12):
        logits[last + 1, (last + np.sign(sharpness)) % 12] = abs(sharpness)
    return np.exp(logits) / np.exp(logits).sum(axis=1, keepdims=True)


def check(dataset):
    return validator(dataset, Protocol(k=(1,), primary="hit@1", exclude_seen=False), 0, RUN)


def test_weights_are_found_on_validation_users_and_members_are_asked_once():
    # The second, louder member is always wrong: equal weights score 0.
    right, wrong = table(TWELVE, next_item(2), searches=True), table(TWELVE, next_item(-4), searches=True)
    named = {"right": right, "wrong": wrong}
    ensemble = Ensemble(members=list(named), weights="validation", candidates=3)
    report = ensemble.fit(TWELVE, TrainingConfig(), RUN, validate=check(TWELVE), members=named)
    assert (report.start_metric, report.best_metric) == (0.0, 1.0)
    # Shares 0, 0.1 … : 2 a > 4 (1 - a) begins with 0.7.
    assert np.allclose(ensemble.weights, [0.7, 0.3])
    assert right.calls == wrong.calls <= 2
    again = Ensemble(members=list(named), weights="validation", candidates=3)
    again.fit(TWELVE, TrainingConfig(), RUN, validate=check(TWELVE), members=named)
    assert np.array_equal(again.weights, ensemble.weights)


@pytest.mark.parametrize("by_user", [False, True])
def test_weights_are_the_same_whoever_is_ranked_together(monkeypatch, by_user):
    draw = np.random.default_rng(0)
    parts = [table(TWELVE, draw.dirichlet(np.full(12, 0.4), size=13), by_user=by_user) for _ in range(2)]
    # Users are told apart by one thing alone: by who they are, or by what they had.
    if by_user:
        histories = replace(Histories.of([[]] * 12), users=np.arange(12))
    else:
        histories = Histories.of([[item] for item in range(12)])
    # A target for each user that a mixture of 8 : 2 has first.
    targets = together(TWELVE, parts, weights=[8, 2]).rank(histories, Request(k=1), RUN).rows

    def validate(ensemble):
        return {"hit@1": float((ensemble.rank(histories, Request(k=1), RUN).rows == targets).mean())}

    found = []
    for users_at_once in (12, 2):
        monkeypatch.setattr(module, "USERS_AT_ONCE", users_at_once)
        ensemble = Ensemble(members=["m0", "m1"], weights="validation", candidates=3)
        report = ensemble.fit(
            TWELVE, TrainingConfig(), RUN, validate=validate, members=dict(zip(["m0", "m1"], parts, strict=True))
        )
        assert report.best_metric == 1.0 > report.start_metric
        found.append(ensemble.weights)
    assert np.array_equal(*found)


def test_finding_weights_never_looks_at_test():
    nothing = Examples(TWELVE.split.test.users[:0], TWELVE.split.test.cuts[:0])
    without = replace(TWELVE, split=replace(TWELVE.split, test=nothing))
    right, wrong = table(TWELVE, next_item(2)), table(TWELVE, next_item(-4))
    found = [together(data, [right, wrong], check(data), weights="validation") for data in (TWELVE, without)]
    assert np.array_equal(found[0].weights, found[1].weights)
    assert found[0].weights[0] > 0.6


def test_equal_weights_stay_where_nothing_is_better():
    member = table(TWELVE, next_item(2))
    ensemble = together(TWELVE, [member, member, member], check(TWELVE), weights="validation")
    assert np.allclose(ensemble.weights, 1 / 3)


def test_files_hold_all_members_and_can_be_moved(models, tmp_path):
    ensemble = together(SIXTY, models, candidates=9, weights=[1, 2, 3])
    before = ensemble.rank(RAGGED, Request(k=6), RUN)
    with create(tmp_path / "ensemble", kind="recommender", config={}) as writer:
        ensemble.save(writer.path)
    assert {path.name for path in (tmp_path / "ensemble" / "members").iterdir()} == {"m0", "m1", "m2"}
    shutil.move(tmp_path / "ensemble", tmp_path / "elsewhere")
    loaded = Recommender.load(tmp_path / "elsewhere")
    after = loaded.rank(RAGGED, Request(k=6), RUN)
    assert isinstance(loaded, Ensemble)
    assert np.array_equal(before.rows, after.rows)
    assert np.array_equal(before.scores, after.scores)
    assert np.array_equal(before.exact, after.exact)
    assert loaded.num_parameters == 3 + sum(model.num_parameters for model in models)
    assert loaded.max_ties == 1


def test_lists_by_item_id_pass_over_codes(models):
    ensemble = together(SIXTY, models)
    (found,) = ensemble.recommend([["item-3", "item-7"]], k=3, denied=["item-8"], run=RUN)
    assert "item-8" not in [item.item for item in found]
    assert found[0].semantic_id == ""


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        ({"members": []}, "at least two members, got none"),
        ({"members": ["sasrec"]}, "at least two members, got sasrec"),
        ({"members": ["tiger", "tiger"]}, "a member stands twice in tiger, tiger"),
        ({"members": ["a", "b"], "weights": [1.0]}, "1 weights for 2 members"),
        ({"members": ["a", "b"], "weights": [1.0, 0.0]}, "greater than 0"),
        ({"members": ["a", "../b"]}, "pattern"),
        ({"members": ["a", "b"], "candidates": 0}, "greater than or equal to 1"),
        ({}, "members: Field required"),
    ],
)
def test_wrong_settings(fields, message):
    with pytest.raises(ConfigError, match=message):
        Ensemble(**fields)


def test_wrong_members():
    good = table(TWELVE, next_item(2))
    with pytest.raises(
        DataError, match=r"no recommender 'tigre'[\s\S]*did you mean 'tiger'\? available: sasrec, tiger"
    ):
        Ensemble(members=["sasrec", "tigre"]).fit(
            TWELVE, TrainingConfig(), RUN, members={"sasrec": good, "tiger": good}
        )
    with pytest.raises(DataError, match=r"no recommender 'a'[\s\S]*available: none"):
        Ensemble(members=["a", "b"]).fit(TWELVE, TrainingConfig(), RUN)
    with pytest.raises(DataError, match=r"'m1' is of another catalogue[\s\S]*4 items"):
        together(TWELVE, [good, table(FOUR, np.full((1, 4), 0.25))])
    counting = Popularity()
    counting.fit(TWELVE, TrainingConfig(), RUN)
    with pytest.raises(DataError, match=r"'m1' cannot be a member: it gives no log-probabilities[\s\S]*popularity"):
        together(TWELVE, [good, counting])
    with pytest.raises(DataError, match="'m1' cannot be a member"):
        together(TWELVE, [good, together(TWELVE, [good, good])])
    with pytest.raises(DataError, match="no validation users"):
        together(TWELVE, [good, good], weights="validation")


def test_what_an_ensemble_cannot_do_is_said(models):
    ensemble = together(SIXTY, models)
    with pytest.raises(DataError, match="'ensemble' gives no log-probabilities"):
        ensemble.log_probs(RAGGED, np.zeros((5, 1), int))
    with pytest.raises(DataError, match="'ensemble' cannot recommend items that it was not trained on"):
        ensemble.extended(SIXTY.catalog, models[1].semantic_ids)
    with pytest.raises(DataError, match="never fitted"):
        Ensemble(members=["a", "b"]).rank(RAGGED, Request(), RUN)


def test_a_member_that_gives_no_numbers_is_refused():
    broken = table(FOUR, [[np.nan, 0.5, 0.2, 0.3]])
    with pytest.raises(DataError, match="not numbers"):
        together(FOUR, [broken, broken]).rank(ONE_USER, Request(k=2), RUN)
