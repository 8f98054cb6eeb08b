"""Item tables from vectors: the fit by hand, the fill against a slow loop, the scale, what is refused."""

import numpy as np
import polars as pl
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from tests.recommenders.test_scored import dataset

from sidrec.config import RunSettings, parse
from sidrec.data.catalog import Catalog
from sidrec.data.sequences import Histories
from sidrec.embeddings.base import ItemEmbeddings, unit_length
from sidrec.errors import ConfigError, DataError
from sidrec.recommenders.item_table import FrozenStage, ItemTable, ItemTableConfig, start_tables
from sidrec.training.config import OptimizerConfig, TrainingConfig

NOBODY = Histories.of([])
TRUNCATE, PROJECT = ItemTableConfig(fit="truncate"), ItemTableConfig(fit="project")


def embeddings(vectors, missing=()):
    return ItemEmbeddings(np.asarray(vectors, np.float32), "by hand", "digest", np.asarray(missing, np.int64))


def table(vectors, width, config=PROJECT, events=NOBODY, missing=(), seed=0):
    return ItemTable.of(embeddings(vectors, missing), events, width, config, seed)


def cosines(rows):
    unit = unit_length(np.asarray(rows, np.float64))
    return unit @ unit.T


def test_truncated_rows_are_normalised_after_the_cut():
    # (3, 4, 12) / 13 cut to two dimensions is (3, 4) / 13, of length 5 / 13.
    found = table([[3, 4, 12], [0, 2, 0]], 2, TRUNCATE)
    np.testing.assert_allclose(found.rows_ND, [[0.6, 0.8], [0, 1]], rtol=1e-6)
    np.testing.assert_allclose(table([[3, 4]], 4, TRUNCATE).rows_ND, [[0.6, 0.8, 0, 0]], rtol=1e-6)


def test_a_projection_keeps_the_directions_in_which_the_rows_are_longest():
    # Unit rows along axes 0 (three times), 1 (twice) and, a little, 2: axes 0 and 1 are kept.
    vectors = [[1, 0, 0], [1, 0, 0], [2, 0, 0], [0, 1, 0], [0, 3, 0], [0.6, 0, 0.8]]
    found = table(vectors, 2)
    expected = cosines(found.rows_ND)
    # The last row loses what it has of axis 2 and is given back length 1. Axes 0 and 2 mix a little, because of it.
    second_moments = np.zeros((3, 3))
    for vector in unit_length(np.asarray(vectors, float)):
        second_moments += np.outer(vector, vector)
    kept = np.linalg.eigh(second_moments)[1][:, 1:]
    np.testing.assert_allclose(expected, cosines(unit_length(np.asarray(vectors, float)) @ kept), atol=1e-6)
    assert expected[0, 3] == pytest.approx(0, abs=1e-6)
    assert expected[0, 5] > 0.9
    np.testing.assert_allclose(np.linalg.norm(found.rows_ND, axis=1), 1, rtol=1e-6)


@pytest.mark.parametrize("width", [5, 6, 9])
def test_without_fewer_dimensions_no_cosine_changes(width):
    vectors = np.random.default_rng(0).normal(size=(20, 5)) + 2
    np.testing.assert_allclose(cosines(table(vectors, width).rows_ND), cosines(vectors), atol=1e-5)


def test_centred_cosines_are_those_about_the_mean_of_directions():
    vectors = np.random.default_rng(0).normal(size=(20, 5)) + 2
    directions = unit_length(vectors)
    found = table(vectors, 8, ItemTableConfig(center=True))
    np.testing.assert_allclose(cosines(found.rows_ND), cosines(directions - directions.mean(axis=0)), atol=1e-4)


def test_items_without_vectors_have_no_say_in_the_projection():
    vectors = np.random.default_rng(0).normal(size=(9, 5))
    with_noise = np.concatenate([vectors, 100 * np.ones((1, 5))])
    for config in (PROJECT, ItemTableConfig(center=True), TRUNCATE):
        plain, noisy = table(vectors, 3, config), table(with_noise, 3, config, missing=[9])
        np.testing.assert_allclose(plain.rows_ND, noisy.rows_ND[:9], atol=1e-5)


def test_the_columns_spread_alike():
    """As in a random start: principal directions as columns would put most into the first."""
    vectors = np.random.default_rng(0).normal(size=(500, 16)) * 0.8 ** np.arange(16)
    turned, plain = table(vectors, 16).rows_ND.std(axis=0), unit_length(vectors).std(axis=0)
    assert plain.max() / plain.min() > 20
    assert turned.max() / turned.min() < 4


def slow_fill(rows, given, histories):
    """Mean row of the other events of the same user, over all pairs, written out."""
    filled = {}
    for item in np.flatnonzero(~given):
        found = []
        for history in histories:
            for place, one in enumerate(history):
                others = [other for at, other in enumerate(history) if at != place and given[other]]
                found += [rows[other] for other in others if one == item]
        filled[int(item)] = unit_length(np.mean(found, axis=0, keepdims=True))[0] if found else None
    return filled


@settings(max_examples=40, deadline=None)
@given(st.data())
def test_the_fill_is_the_mean_of_all_co_occurring_rows(data):
    num_items = data.draw(st.integers(3, 8))
    given_items = data.draw(st.lists(st.booleans(), min_size=num_items, max_size=num_items).filter(any))
    given_N = np.array(given_items)
    histories = data.draw(st.lists(st.lists(st.integers(0, num_items - 1), max_size=6), max_size=6))
    vectors = np.random.default_rng(num_items).normal(size=(num_items, 6))
    found = table(vectors, 4, events=Histories.of(histories), missing=np.flatnonzero(~given_N))
    assert found.given_N.tolist() == given_items
    np.testing.assert_allclose(np.linalg.norm(found.rows_ND, axis=1), 1, rtol=1e-5)
    for item, expected in slow_fill(found.rows_ND, given_N, histories).items():
        if expected is not None:
            np.testing.assert_allclose(found.rows_ND[item], expected, atol=1e-5)


def test_the_fill_by_hand():
    # Item 2 stands beside item 0 twice (once for each of its two events) and beside item 1 once.
    found = table([[1, 0], [0, 1], [9, 9]], 2, TRUNCATE, Histories.of([[2, 0, 2], [2, 1]]), missing=[2])
    np.testing.assert_allclose(found.rows_ND[2], np.array([2, 1]) / 5**0.5, rtol=1e-6)


def test_items_that_occur_beside_none_get_a_drawn_direction_and_zero_vectors_are_none():
    vectors = [[1, 0], [0, 0], [0, 1], [0, 0]]
    one, again, other = (table(vectors, 2, events=Histories.of([[1, 3]]), seed=seed) for seed in (0, 0, 1))
    assert one.given_N.tolist() == [True, False, True, False]
    np.testing.assert_array_equal(one.rows_ND, again.rows_ND)
    assert not np.allclose(one.rows_ND, other.rows_ND)
    assert not np.allclose(one.rows_ND[1], one.rows_ND[3])
    np.testing.assert_allclose(np.linalg.norm(one.rows_ND, axis=1), 1, rtol=1e-6)


def test_rounding_errors_are_no_vectors():
    # All are the mean: nothing but rounding errors is left about it.
    vectors = np.repeat([[0.1, 0.7, 0.3]], 3, axis=0)
    with pytest.raises(DataError, match="no item has a vector"):
        table(vectors, 2, ItemTableConfig(center=True))
    assert table([[1, 0, 0], [0, 1, 0], [0, 0, 1]], 2, TRUNCATE).given_N.tolist() == [True, True, False]


def test_without_any_vector_it_is_an_error():
    with pytest.raises(DataError, match=r"no item has a vector[\s\S]*recommender.table"):
        table([[1, 0], [0, 0]], 2, missing=[0])


def test_rows_are_as_long_as_those_of_the_random_start():
    data = dataset([[0, 1, 2]], ["a"], [(0, 1), (0, 2)])
    num_items = len(data.catalog)
    vectors = np.random.default_rng(0).normal(size=(num_items, 3)).astype(np.float32)
    found = ItemEmbeddings(vectors, "by hand", data.catalog.digest, np.array([1]))
    weight = torch.nn.Parameter(torch.full((num_items + 2, 4), 0.5))
    with torch.no_grad():
        weight[:num_items, 0] = torch.tensor(0.1)
    length = (0.01 + 3 * 0.25) ** 0.5
    other = torch.nn.Parameter(torch.full((num_items, 4), 0.25))
    config, run = ItemTableConfig(scale=2.0), RunSettings(device="cpu")
    held, of_outputs = start_tables([weight, other], config, found, data, run)
    lengths = weight.detach().norm(dim=1)
    np.testing.assert_allclose(lengths[:num_items], 2 * length, rtol=1e-5)
    assert torch.equal(weight.detach()[num_items:], torch.full((2, 4), 0.5)), "rows behind the items stay"
    assert held.weight is weight
    assert held.rows_N.tolist() == [row != 1 and row < num_items for row in range(num_items + 2)]
    # A second table gets the same directions, at its own length.
    assert of_outputs.rows_N.tolist() == [row != 1 for row in range(num_items)]
    torch.testing.assert_close(other.detach() / other.norm(dim=1)[0], (weight / lengths[0]).detach()[:num_items])
    np.testing.assert_allclose(other.detach().norm(dim=1), 2 * 0.5, rtol=1e-5)


def test_vectors_of_other_items_are_refused():
    data = dataset([[0, 1, 2]], ["a"], [(0, 1), (0, 2)])
    other = Catalog(pl.DataFrame({"item_id": [f"x{row}" for row in range(len(data.catalog))]}))
    found = ItemEmbeddings(np.ones((len(other), 2), np.float32), "by hand", other.digest)
    with pytest.raises(DataError, match="catalogue and embeddings disagree"):
        start_tables([torch.zeros(len(other), 2)], PROJECT, found, data, RunSettings(device="cpu"))


def test_held_out_events_have_no_say_in_the_fill():
    """Item 2 stands beside item 0 in training and beside item 1 in what is held out."""
    sequences, cuts = [[2, 0, 1], [0, 1, 2]], [(0, 1), (1, 1)]
    data = dataset(sequences, ["a", "b"], cuts)
    found = ItemEmbeddings(np.eye(len(data.catalog), dtype=np.float32), "by hand", data.catalog.digest, np.array([2]))
    weight = torch.randn(len(data.catalog), 4)
    start_tables([weight], ItemTableConfig(fit="truncate"), found, data, RunSettings(device="cpu"))
    torch.testing.assert_close(weight[2], weight[0])


def test_a_center_that_nothing_reads_is_refused():
    with pytest.raises(ConfigError, match="center is for fit project, not for truncate"):
        parse(ItemTableConfig, {"fit": "truncate", "center": True})
    saved = ItemTableConfig(fit="truncate").model_dump()
    assert parse(ItemTableConfig, saved) == ItemTableConfig(fit="truncate")


def test_the_first_stage_has_its_own_length_and_optimizer_and_all_else_of_the_recipe():
    training = TrainingConfig(max_epochs=9, batch_size=7, precision="bf16", validate_users=3, patience=2)
    first = FrozenStage(max_epochs=3, patience=1, optimizer=OptimizerConfig(lr=0.5)).over(training, 50)
    assert first == TrainingConfig(
        max_epochs=3,
        batch_size=7,
        precision="bf16",
        validate_users=3,
        patience=1,
        optimizer=OptimizerConfig(lr=0.5),
    )


@pytest.mark.parametrize(
    ("own", "after", "expected"),
    [(0, 0, 0), (0, 20, 20), (0, 10**6, 24), (5, 20, 5), (30, 20, 30)],
)
def test_fewer_steps_of_the_second_stage_shorten_the_first(own: int, after: int, expected: int):
    """3 epochs of 8 steps, unless the first stage has steps of its own."""
    training = TrainingConfig(batch_size=7, max_steps=after)
    first = FrozenStage(max_epochs=3, max_steps=own).over(training, 50)
    assert (first.max_steps, first.max_epochs) == (expected, 3)
