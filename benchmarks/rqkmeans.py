"""RQ-k-means, 3 x 256 codes on 10,000 x 384 points around 1,000 centres, against scikit-learn level by level.

Both sides learn the codebooks and assign all points, on one thread, in turns; the error is the squared
reconstruction error as a share of the variance.
"""

import numpy as np
import torch
from sklearn.cluster import KMeans
from threadpoolctl import threadpool_limits

from harness import Benchmark, compare
from sidrec.embeddings.base import ItemEmbeddings
from sidrec.tokenizers.quality import code_quality, relative_error
from sidrec.tokenizers.rqkmeans import RQKMeans

ITEMS, DIMS, CENTRES, LEVELS, SIZE = 10_000, 384, 1_000, 3, 256
CASE = f"{ITEMS} x {DIMS}, {LEVELS} x {SIZE}"
OURS, THEIRS = "sidrec, 20 iterations", "scikit-learn KMeans, 1 start"


def points() -> np.ndarray:
    """Clusters of unequal size and width in a space of 64 true dimensions."""
    draw = np.random.default_rng(0)
    shares = draw.dirichlet(np.full(CENTRES, 0.5))
    labels = draw.choice(CENTRES, ITEMS, p=shares)
    inside = draw.normal(size=(CENTRES, 64))[labels] + 0.4 * draw.normal(size=(ITEMS, 64))
    return (inside @ draw.normal(size=(64, DIMS)) / 8 + 0.05 * draw.normal(size=(ITEMS, DIMS))).astype(np.float32)


def main() -> None:
    """Measure, print, save."""
    torch.set_num_threads(1)
    vectors = points()
    embeddings = ItemEmbeddings(vectors, "blobs", "benchmark")
    rebuilt: dict[str, np.ndarray] = {}
    codes: dict[str, np.ndarray] = {}

    def ours() -> None:
        tokenizer = RQKMeans(levels=LEVELS, codebook_size=SIZE).fit(embeddings)
        codes[OURS] = tokenizer.quantize(vectors)
        rebuilt[OURS] = tokenizer.reconstruct(codes[OURS])

    def theirs() -> None:
        rest, chosen = vectors.copy(), []
        for level in range(LEVELS):
            model = KMeans(SIZE, n_init=1, random_state=level).fit(rest)
            rest -= model.cluster_centers_[model.labels_]
            chosen.append(model.labels_)
        codes[THEIRS], rebuilt[THEIRS] = np.stack(chosen, axis=1), vectors - rest

    benchmark = Benchmark("rqkmeans")
    with threadpool_limits(1):
        benchmark.timings(CASE, compare({OURS: ours, THEIRS: theirs}, THEIRS), THEIRS)
    base = relative_error(vectors, rebuilt[THEIRS])
    for variant in (OURS, THEIRS):
        error = relative_error(vectors, rebuilt[variant])
        benchmark.row(CASE, variant, THEIRS, error, "relative error", base / error)
        rate = code_quality(codes[variant], (SIZE,) * LEVELS)["collision_rate"]
        benchmark.row(CASE, variant, THEIRS, 100 * rate, "% collisions")
    benchmark.save()


if __name__ == "__main__":
    main()
