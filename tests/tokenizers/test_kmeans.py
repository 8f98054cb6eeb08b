import numpy as np
import pytest
import torch
from sklearn.cluster import KMeans

from sidrec.testing.tokenizer_contract import blobs
from sidrec.tokenizers.kmeans import distinct_rows, kmeans
from sidrec.tokenizers.residual import nearest_codes, residual_codes, squared_distances


def inertia(points: torch.Tensor, centres: torch.Tensor) -> float:
    return float(nearest_codes(points, centres)[1].sum())


@pytest.mark.parametrize("size", [20, 48])
def test_inertia_is_that_of_scikit_learn(size: int) -> None:
    points = blobs(2000, 8, clusters=20, seed=3)
    ours = inertia(torch.from_numpy(points), kmeans(torch.from_numpy(points), size, iterations=50))
    theirs = KMeans(size, n_init=1, random_state=0).fit(points).inertia_
    assert ours < 1.03 * theirs


def test_same_seed_same_bits_other_seed_other_centres() -> None:
    points = torch.from_numpy(blobs(500, 8))
    first = kmeans(points, 40, seed=1)
    assert torch.equal(first, kmeans(points, 40, seed=1))
    assert not torch.equal(first, kmeans(points, 40, seed=2))


def test_few_distinct_points_are_the_centres() -> None:
    points = torch.tensor([[1.0, 2.0], [3.0, 4.0], [1.0, 2.0]])
    assert kmeans(points, 5).tolist() == [[1.0, 2.0], [3.0, 4.0]]


def test_negative_zero_is_zero() -> None:
    assert len(distinct_rows(torch.tensor([[0.0], [-0.0], [1.0]]), 5)) == 2


def test_sampling_still_finds_the_clusters() -> None:
    points = torch.from_numpy(blobs(5000, 8, clusters=10))
    sampled = inertia(points, kmeans(points, 10, sample=600))
    assert sampled < 1.1 * inertia(points, kmeans(points, 10))


def test_no_cluster_stays_empty() -> None:
    # Most points are equal, so that draws repeat and clusters start empty.
    draw = np.random.default_rng(0)
    points = np.concatenate([np.zeros((400, 2)), draw.normal(size=(40, 2))]).astype(np.float32)
    centres = kmeans(torch.from_numpy(points), 30, iterations=30)
    used = nearest_codes(torch.from_numpy(points), centres)[0].unique()
    assert len(used) == 30


def test_distances_equal_the_definition() -> None:
    draw = np.random.default_rng(1)
    points, book = draw.normal(size=(7, 3)).astype(np.float32), draw.normal(size=(5, 3)).astype(np.float32)
    expected = np.square(points[:, None] - book).sum(2)
    found = squared_distances(torch.from_numpy(points), torch.from_numpy(book)).numpy()
    np.testing.assert_allclose(found, expected, rtol=1e-5, atol=1e-5)


def test_residual_codes_equal_a_loop() -> None:
    draw = np.random.default_rng(2)
    points = draw.normal(size=(30, 4)).astype(np.float32)
    books = [draw.normal(size=(6, 4)).astype(np.float32) for _ in range(3)]
    expected = []
    for point in points:
        codes, rest = [], point
        for book in books:
            codes.append(int(np.argmin([np.sum((rest - code) ** 2) for code in book])))
            rest = rest - book[codes[-1]]
        expected.append(codes)
    found, _ = residual_codes(torch.from_numpy(points), [torch.from_numpy(book) for book in books])
    assert found.tolist() == expected
