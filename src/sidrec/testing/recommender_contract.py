"""What every recommender must hold, ours and a plug-in's: one function that checks it all.

Leaves out quality: an untrained recommender passes. Failures are `AssertionError` and say what broke.
"""

import json
import tempfile
from collections.abc import Callable, Mapping
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
from safetensors import safe_open

from sidrec.artifact import create
from sidrec.config import RunSettings, parse
from sidrec.data.dataset import Dataset
from sidrec.data.sequences import Histories
from sidrec.decoding.filters import Filters
from sidrec.decoding.recommendations import Recommendations, Request
from sidrec.embeddings.base import ItemEmbeddings
from sidrec.errors import ConstraintError, DataError
from sidrec.recommenders.base import Recommender
from sidrec.tokenizers.semantic_ids import SemanticIds
from sidrec.training.config import TrainingConfig, TrainReport

__all__ = ["check_recommender"]

RUN = RunSettings(seed=7, device="cpu")


def check_recommender(
    make: Callable[[], Recommender],
    dataset: Dataset,
    semantic_ids: SemanticIds | None = None,
    training: TrainingConfig | None = None,
    item_embeddings: ItemEmbeddings | None = None,
    members: Mapping[str, Recommender] | None = None,
) -> None:
    """Fit, rank, save and load a recommender and check every promise of the interface.

    Args:
        make: a new, unfitted recommender.
        dataset: a small one; `sidrec.testing.toy.cycle_dataset()` will do.
        semantic_ids: of its catalogue; a recommender that needs none must pass them over.
        training: short; the contract asks for no quality.
        item_embeddings: vectors of its catalogue, for a recommender that starts from them.
        members: fitted recommenders of the dataset by name, for one that is made of others.

    Raises:
        AssertionError: a promise is broken.
    """
    training = training or TrainingConfig(max_epochs=1)
    given: dict[str, Any] = {"semantic_ids": semantic_ids}
    if item_embeddings is not None:
        given["item_embeddings"] = item_embeddings
    if members is not None:
        given["members"] = members
    recommender = make()
    _check_unfitted(recommender)
    report = recommender.fit(dataset, training, RUN, **given)
    _check_report(recommender, report)
    histories = _histories(dataset)
    _check_lists(recommender, histories)
    _check_exclusion(recommender, histories)
    _check_allowed(recommender, histories)
    _check_short_lists(recommender, histories)
    _check_batches(recommender, histories)
    _check_log_probs(recommender, histories)
    _check_ids(recommender, histories)
    _check_unknown_item(recommender)
    _check_config(recommender)
    again = make()
    again.fit(dataset, training, RUN, **given)
    _same(_rank(recommender, histories), _rank(again, histories), "two fits with one seed")
    _check_files(recommender, histories)


def _histories(dataset: Dataset) -> Histories:
    """Some test histories, an empty one, one of a single item and one with repeats, longer than any limit."""
    some = dataset.histories("test").take(slice(0, 5))
    return Histories.of([*(some[index] for index in range(len(some))), [], [0], [0, 1] * 60])


def _rank(recommender: Recommender, histories: Histories, **fields: object) -> Recommendations:
    return recommender.rank(histories, Request(**{"k": 5, **fields}), RUN)  # type: ignore[arg-type] - fields of Request


def _same(one: Recommendations, two: Recommendations, what: str) -> None:
    assert np.array_equal(one.rows, two.rows), f"{what}: different items"
    assert np.array_equal(one.scores, two.scores), f"{what}: different scores"
    assert np.array_equal(one.exact, two.exact), f"{what}: different certificates"


def _check_unfitted(recommender: Recommender) -> None:
    message = ""
    try:
        recommender.recommend([["item-0"]], run=RUN)
    except DataError as error:
        message = str(error)
    assert "never fitted" in message, "a recommender that was never fitted does not say so"


def _check_report(recommender: Recommender, report: TrainReport) -> None:
    assert report.steps >= 0, "steps are counted"
    assert report.seconds > 0, "seconds are measured"
    assert 0 <= report.padding_share < 1, "padding is a share"
    assert report.best_metric is None, "no validation, no metric"
    assert recommender.num_parameters > 0, "parameters are counted"
    has_ids = recommender.semantic_ids is not None
    assert has_ids == recommender.needs_semantic_ids, "semantic IDs are kept by those that need them, and only those"


def _check_lists(recommender: Recommender, histories: Histories) -> None:
    out = _rank(recommender, histories)
    num_items = len(recommender.catalog)
    assert out.rows.shape == out.scores.shape == (len(histories), 5), f"lists have shape {out.rows.shape}"
    assert out.exact.shape == (len(histories),), f"certificates have shape {out.exact.shape}"
    assert np.issubdtype(out.rows.dtype, np.integer), f"rows are {out.rows.dtype}"
    for rows, scores in zip(out.rows, out.scores, strict=True):
        found = rows >= 0
        assert (rows < num_items).all(), "a row is outside the catalogue"
        assert len(set(rows[found])) == found.sum(), "an item is listed twice"
        assert np.isfinite(scores[found]).all(), "a score is not finite"
        assert np.isneginf(scores[~found]).all(), "an empty place has a score"
        assert all(one >= two for one, two in pairwise(scores)), "scores do not fall"
        assert all(one or not two for one, two in pairwise(found)), "an item stands after an empty place"
    _same(out, _rank(recommender, histories), "ranking twice")


def _check_log_probs(recommender: Recommender, histories: Histories) -> None:
    try:
        recommender.log_probs(histories, np.zeros((len(histories), 1), np.int64))
    except DataError:
        return  # not every kind has some
    out = _rank(recommender, histories, exclude_seen=False, exact=True)
    logps = recommender.log_probs(histories, out.rows)
    assert logps.requires_grad, "log-probabilities have no gradient"
    found = logps.detach().cpu().numpy()
    assert found.shape == out.rows.shape, f"log-probabilities have shape {found.shape}"
    assert (found <= 1e-6).all(), "a log-probability is above 0"
    # A score may be a log-probability up to a constant of the user.
    differences = (found - found[:, :1]) - (out.scores - out.scores[:, :1])
    assert np.abs(differences).max() < 1e-3, "log-probabilities do not order items as the scores do"
    again = recommender.score_items(histories, out.rows, RUN)
    assert again.dtype == np.float32, f"scores of items are {again.dtype}"
    assert np.allclose(again, found, rtol=1e-4, atol=1e-4), "score_items and log_probs give different values"


def _check_exclusion(recommender: Recommender, histories: Histories) -> None:
    without = _rank(recommender, histories, k=len(recommender.catalog))
    everything = _rank(recommender, histories, k=len(recommender.catalog), exclude_seen=False)
    for user in range(len(histories)):
        seen = set(histories[user].tolist())
        listed = [row for row in without.rows[user].tolist() if row >= 0]
        assert not seen & set(listed), f"user {user} is shown an item of the own history"
        whole = everything.rows[user]
        if everything.exact[user] and without.exact[user]:
            assert (whole >= 0).all(), "a certified list of the whole catalogue lacks items"
            assert set(listed) == set(whole.tolist()) - seen, "excluding seen items loses others"


def _check_allowed(recommender: Recommender, histories: Histories) -> None:
    allowed = np.zeros(len(recommender.catalog), dtype=np.bool_)
    allowed[2::3] = True
    out = _rank(recommender, histories, allowed=allowed)
    listed = out.rows[out.rows >= 0]
    assert len(listed), "an allow-list leaves nothing"
    assert allowed[listed].all(), "an item outside the allow-list is listed"
    _same(out, _rank(recommender, histories, denied=~allowed), "an allow-list, and a deny-list of all other items")
    masks = np.stack([allowed, np.roll(allowed, 1)])
    of_user = np.arange(len(histories)) % 2
    mixed = _rank(recommender, histories, allowed=Filters(masks, of_user))
    for user, mask in enumerate(of_user):
        alone = _rank(recommender, histories, allowed=masks[mask])
        assert np.array_equal(mixed.rows[user], alone.rows[user]), f"user {user} does not get the items of the own list"
    for lists in ({"denied": np.ones_like(allowed)}, {"allowed": allowed, "denied": allowed}):
        assert _refuses(recommender, histories, **lists), "lists that leave no item are accepted"


def _refuses(recommender: Recommender, histories: Histories, **fields: object) -> bool:
    try:
        _rank(recommender, histories, **fields)
    except ConstraintError:
        return True
    return False


def _check_short_lists(recommender: Recommender, histories: Histories) -> None:
    allowed = np.zeros(len(recommender.catalog), dtype=np.bool_)
    allowed[:2] = True
    out = _rank(recommender, histories, allowed=allowed, exclude_seen=False)
    assert (out.rows[:, 2:] == -1).all(), "more items than the allow-list holds"
    assert (np.sort(out.rows[:, :2], axis=1) == [0, 1]).all(), "an allowed item is missing from a short list"


def _check_batches(recommender: Recommender, histories: Histories) -> None:
    """Users must not see each other: alone or together, the same lists (scores up to rounding)."""
    together = _rank(recommender, histories)
    for user in range(len(histories)):
        alone = _rank(recommender, histories.take(slice(user, user + 1)))
        assert np.array_equal(alone.rows[0], together.rows[user]), f"user {user} alone gets other items"
        found = alone.rows[0] >= 0
        close = np.allclose(alone.scores[0][found], together.scores[user][found], rtol=1e-4, atol=1e-5)
        assert close, f"user {user} alone gets other scores"
    assert _rank(recommender, histories.take(slice(0, 0))).rows.shape == (0, 5), "no users, no lists"


def _check_unknown_item(recommender: Recommender) -> None:
    known = str(recommender.catalog.ids[0])
    message = ""
    try:
        recommender.recommend([[known], [known, "no such item"]], k=2, run=RUN)
    except DataError as error:
        message = str(error)
    assert "'no such item'" in message, "an unknown item is accepted, or not named"
    assert "history 2" in message, "the history of an unknown item is not named"
    skipped = recommender.recommend([[known, "no such item"]], k=2, on_unknown="skip", run=RUN)
    assert skipped == recommender.recommend([[known]], k=2, run=RUN), "a skipped item changes the list"


def _check_ids(recommender: Recommender, histories: Histories) -> None:
    """Lists by item id say what `rank` says in rows, its certificates included."""
    catalog = recommender.catalog
    ids = [catalog.ids_of(histories[user]) for user in range(len(histories))]
    ranked = _rank(recommender, histories)
    for user, found in enumerate(recommender.recommend(ids, k=5, run=RUN)):
        assert catalog.rows(item.item for item in found).tolist() == [row for row in ranked.rows[user] if row >= 0]
        assert [item.score for item in found] == ranked.scores[user][: len(found)].tolist(), "scores differ"
        assert found.exact == ranked.exact[user], "the certificate got lost"


def _check_config(recommender: Recommender) -> None:
    config = recommender.config
    plain = config.model_dump(mode="json")
    assert parse(type(recommender).Config, plain) == config, "the configuration does not survive JSON"
    assert type(recommender)(config).config == config, "a recommender is not made from its configuration"


def _check_files(recommender: Recommender, histories: Histories) -> None:
    """Saved and loaded, by the artefact and by `transformers`, it gives bit-equal lists."""
    before = _rank(recommender, histories)
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "recommender"
        with create(path, kind="recommender", config={}, seed=RUN.seed, parents={}) as writer:
            recommender.save(writer.path)
        loaded = Recommender.load(path)
        assert type(loaded) is type(recommender), f"loaded as {type(loaded).__name__}"
        _same(before, _rank(loaded, histories), "after saving and loading")
        assert loaded.num_parameters == recommender.num_parameters, "parameters got lost"
        _check_hugging_face(path)


def _check_hugging_face(path: Path) -> None:
    """The directory is one that `from_pretrained` understands."""
    config = json.loads((path / "config.json").read_text(encoding="utf-8"))
    assert config.get("model_type"), "config.json names no model type"
    assert config.get("architectures"), "config.json names no architecture"
    with safe_open(path / "model.safetensors", framework="numpy") as file:
        assert list(file.keys()), "the weights are empty"
