"""Purity and code similarity: by hand, against slow loops, and blind to everything but training."""

import json
import os
from collections import Counter
from dataclasses import replace
from itertools import pairwise
from pathlib import Path

import numpy as np
import polars as pl
import pytest
from hypothesis import given
from hypothesis import strategies as st

from sidrec.data.catalog import Catalog
from sidrec.data.index import read_index
from sidrec.data.items import read_items
from sidrec.data.sequences import Histories
from sidrec.testing.toy import cycle_dataset
from sidrec.tokenizers.purity import Labels, category_labels, neighbour_similarity, prefix_purity


def catalog(**columns: list[str]) -> Catalog:
    number = len(next(iter(columns.values())))
    return Catalog(pl.DataFrame({"item_id": [str(row) for row in range(number)], **columns}))


def named(labels: Labels | None) -> list[str]:
    assert labels is not None
    return [labels.names[label] if label >= 0 else "" for label in labels.of_item]


def test_purity_by_hand() -> None:
    codes = np.array([[0, 0], [0, 0], [0, 1], [1, 0], [1, 1], [1, 1]], np.int32)
    labels = Labels("kind", ["x", "y"], np.array([0, 0, 1, 1, 1, -1]))
    report = prefix_purity(codes, labels)
    assert (report["labels"], report["labelled"]) == (2, 5)
    # Prefix 0 holds x, x, y, prefix 1 holds y, y: four of five carry the most frequent label.
    first, second = report["depths"]
    assert (first["prefixes"], first["purity"]) == (2, 4 / 5)
    assert (second["prefixes"], second["purity"]) == (4, 1)


@given(st.lists(st.tuples(st.integers(0, 3), st.integers(0, 2), st.integers(-1, 4)), min_size=2, max_size=40))
def test_purity_against_a_slow_loop(rows: list[tuple[int, int, int]]) -> None:
    table = np.array(rows)
    labelled = [row for row in rows if row[2] >= 0]
    if not labelled:
        return
    report = prefix_purity(table[:, :2], Labels("kind", list("vwxyz"), table[:, 2]))
    for depth in (1, 2):
        by_prefix: dict[tuple[int, ...], Counter[int]] = {}
        for row in labelled:
            by_prefix.setdefault(row[:depth], Counter())[row[2]] += 1
        expected = sum(found.most_common(1)[0][1] for found in by_prefix.values()) / len(labelled)
        assert report["depths"][depth - 1]["purity"] == pytest.approx(expected)


def test_information_by_hand() -> None:
    codes = np.array([[0], [0], [1], [1]], np.int32)
    same = prefix_purity(codes, Labels("kind", ["x", "y"], np.array([1, 1, 0, 0])))["depths"][0]
    assert same["nmi"] == pytest.approx(1)
    apart = prefix_purity(codes, Labels("kind", ["x", "y"], np.array([1, 0, 1, 0])))["depths"][0]
    assert apart["nmi"] == pytest.approx(0)
    one = prefix_purity(codes * 0, Labels("kind", ["x"], np.zeros(4, np.int64)))["depths"][0]
    assert (one["purity"], one["random"], one["nmi"]) == (1, 1, 0)


def test_chance_is_what_codes_without_meaning_reach() -> None:
    draw = np.random.default_rng(0)
    labels = Labels("kind", list("abcd"), draw.integers(4, size=4000))
    blind = prefix_purity(draw.integers(16, size=(4000, 2)), labels)["depths"]
    for at in blind:
        assert at["purity"] == pytest.approx(at["random"], abs=0.02)
    telling = prefix_purity(labels.of_item[:, None], labels)["depths"][0]
    assert telling["purity"] == 1
    assert telling["random"] < 0.3


def test_labels_prefer_a_field_called_categories() -> None:
    items = catalog(brand=["b", "c", "b"], categories=["A, B", "A", "C"], title=["t", "t", "u"])
    labels = category_labels(items)
    assert labels is not None
    assert labels.field == "categories"
    # A is in two of three items, more than half, so an item with another category gets that.
    assert named(labels) == ["B", "A", "C"]


def test_empty_texts_have_no_label() -> None:
    assert named(category_labels(catalog(brand=["x", "", "y"]))) == ["x", "", "y"]


def test_other_fields_count_only_if_their_entries_repeat() -> None:
    texts = [f"Food, {('Pizza', 'Sushi')[row % 2]}" for row in range(20)]
    assert category_labels(catalog(description=[f"text {row}, of its own" for row in range(20)])) is None
    assert named(category_labels(catalog(description=texts)))[:2] == ["Pizza", "Sushi"]
    assert category_labels(catalog(title=texts)) is None
    assert category_labels(catalog(categories=["", ""], brand=["x", "x"])) is None


def slow_similarity(codes: np.ndarray, lists: list[list[int]]) -> float:
    neighbours: dict[int, Counter[int]] = {}
    for items in lists:
        for before, after in pairwise(items):
            if before != after:
                neighbours.setdefault(before, Counter())[after] += 1
                neighbours.setdefault(after, Counter())[before] += 1
    means = []
    for item, found in neighbours.items():
        shares = [(codes[item] == codes[other]).mean() for other in found.elements()]
        means.append(np.mean(shares))
    return float(np.mean(means))


def test_code_similarity_against_a_slow_loop() -> None:
    draw = np.random.default_rng(1)
    codes = draw.integers(3, size=(12, 4))
    lists = [draw.integers(12, size=length).tolist() for length in (5, 1, 9, 0, 7, 7)]
    found = neighbour_similarity(codes, Histories.of(lists))
    assert found is not None
    assert found["code_similarity"] == pytest.approx(slow_similarity(codes, lists))
    assert len(found["same_prefix"]) == 4
    assert found["same_prefix"] == sorted(found["same_prefix"], reverse=True)


def test_neighbours_by_hand() -> None:
    codes = np.array([[0, 0], [0, 1], [1, 1]])
    found = neighbour_similarity(codes, Histories.of([[0, 1, 1, 2]]))
    assert found is not None
    # 0-1 agree on half, 1-2 on half; 1-1 is no pair.
    assert (found["pairs"], found["items"], found["code_similarity"]) == (2, 3, 0.5)
    assert found["same_prefix"] == [0.5, 0.0]
    assert neighbour_similarity(codes, Histories.of([[1], [2, 2]])) is None


def test_items_that_users_take_one_after_the_other_are_seen() -> None:
    dataset = cycle_dataset()
    codes = (np.arange(24)[:, None] // np.array([6, 1])) % np.array([4, 6])
    found = neighbour_similarity(codes, dataset.training_events())
    assert found is not None
    assert found["same_prefix"][0] > 0.7 > 2 * found["random"]["same_prefix"][0]


def test_validation_and_test_are_not_looked_at() -> None:
    dataset = cycle_dataset()
    rows = dataset.sequences.rows.reshape(-1, 9).copy()
    rows[:, -2:] = 0
    other = replace(dataset, sequences=replace(dataset.sequences, rows=rows.reshape(-1)))
    codes = np.arange(24)[:, None] // 3
    assert neighbour_similarity(codes, dataset.training_events()) == neighbour_similarity(
        codes, other.training_events()
    )


DATA = os.environ.get("SIDREC_DATA", "")


@pytest.mark.skipif(not DATA, reason="SIDREC_DATA is not set: published semantic IDs are not compared")
def test_letter_brings_neighbours_together() -> None:
    # Without the last two items of every user, which are validation and test.
    inter = json.loads((Path(DATA) / "letter/Instruments/Instruments.inter.json").read_text())
    training = Histories.of([items[:-2] for items in inter.values()])
    found = {}
    for name in ("letter", "lcrec"):
        index = read_index(Path(DATA) / name / "Instruments/Instruments.index.json")
        assert index["item_id"].to_list() == [str(row) for row in range(9922)]
        similarity = neighbour_similarity(np.array(index["codes"].to_list()), training)
        assert similarity is not None
        found[name] = round(similarity["code_similarity"], 3)
        assert similarity["random"]["code_similarity"] < 0.01
    assert found == {"letter": 0.049, "lcrec": 0.024}


@pytest.mark.skipif(not DATA, reason="SIDREC_DATA is not set: published item texts are not looked at")
def test_fields_of_published_item_texts() -> None:
    files = ("letter/Yelp/Yelp.item.json", "collisiongenrec/Scientific/Scientific.item.json")
    fields = [category_labels(Catalog(read_items(Path(DATA) / file))) for file in files]
    assert [(labels.field, len(labels.names)) for labels in fields if labels] == [
        ("description", 110),
        ("categories", 25),
    ]
