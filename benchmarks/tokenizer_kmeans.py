"""Tokenizers made of k-means: balanced initialisation, RQ-k-means against its peers, and the memory that it takes.

Balanced: 10,000 x 32 points into 256 clusters and four codebooks of 256 x 32 into 10, at the bounds of LETTER,
against one start of `k-means-constrained`. RQ-k-means: 3 x 256 codes of 10,000, 100,000 and 1,000,000 x 384 points
around 1,000 centres, learned and encoded, on one thread. `semantic-id` is cut to one start and five
iterations (its default is ten starts of a hundred); `rectokens` runs without torch.compile, in batches of
8,192. Packages that are missing are left out, and said so. The error is the squared reconstruction error as
a share of the variance. With SIDREC_EMBEDDINGS=FOLDER (an embeddings artefact) the balanced part is also
measured on real vectors, on their 32 first principal components. `--million` measures the largest case alone,
with semantic-id in it, which takes a quarter of an hour, and saves it as `tokenizer_kmeans_million`.
"""

import argparse
import os
import subprocess
import sys
import tempfile
from collections.abc import Callable
from functools import partial
from importlib.util import find_spec
from pathlib import Path

import numpy as np
import torch
from sklearn.cluster import KMeans
from threadpoolctl import threadpool_limits

from harness import Benchmark, compare, peak_memory
from sidrec.artifact import create
from sidrec.embeddings.base import ItemEmbeddings
from sidrec.tokenizers.balanced import balanced_kmeans, size_bounds
from sidrec.tokenizers.quality import code_quality
from sidrec.tokenizers.residual import sum_of_codes
from sidrec.tokenizers.rqkmeans import RQKMeans

DIMS, CENTRES, LEVELS, SIZE, CHUNK = 384, 1_000, 3, 256, 8_192
OURS, CONSTRAINED, FAISS = "sidrec", "k-means-constrained, 1 start", "faiss.Kmeans, 25 iterations"
MEGABYTE = 2**20

Codes = tuple[np.ndarray, list[np.ndarray]]


def points(items: int) -> np.ndarray:
    """Clusters of unequal size and width in a space of 64 true dimensions, made chunk by chunk."""
    draw = np.random.default_rng(0)
    shares = draw.dirichlet(np.full(CENTRES, 0.5))
    centres, outwards = draw.normal(size=(CENTRES, 64)), draw.normal(size=(64, DIMS)) / 8
    out = np.empty((items, DIMS), np.float32)
    for chunk in np.array_split(out, max(1, items // CHUNK)):
        inside = centres[draw.choice(CENTRES, len(chunk), p=shares)] + 0.4 * draw.normal(size=(len(chunk), 64))
        chunk[:] = inside @ outwards + 0.05 * draw.normal(size=chunk.shape)
    return out


def sidrec(vectors: np.ndarray) -> Codes:
    """Ours with its defaults."""
    tokenizer = RQKMeans(levels=LEVELS, codebook_size=SIZE).fit(ItemEmbeddings(vectors, "blobs", "benchmark"))
    return tokenizer.quantize(vectors), tokenizer.codebooks


def scikit_learn(vectors: np.ndarray) -> Codes:
    """One start of scikit-learn's KMeans a level."""
    rest, codes, books = vectors.copy(), [], []
    for level in range(LEVELS):
        model = KMeans(SIZE, n_init=1, random_state=level).fit(rest)
        rest -= model.cluster_centers_[model.labels_]
        codes.append(model.labels_)
        books.append(model.cluster_centers_)
    return np.stack(codes, axis=1), books


def faiss_kmeans(vectors: np.ndarray) -> Codes:
    """One faiss.Kmeans a level on at most 65,536 points."""
    import faiss

    faiss.omp_set_num_threads(1)
    rest, codes, books = vectors.copy(), [], []
    for level in range(LEVELS):
        model = faiss.Kmeans(DIMS, SIZE, niter=25, seed=level, max_points_per_centroid=256, min_points_per_centroid=1)
        model.train(rest)
        codes.append(model.index.search(rest, 1)[1][:, 0])
        books.append(model.centroids)
        rest -= model.centroids[codes[-1]]
    return np.stack(codes, axis=1), books


def semantic_id(vectors: np.ndarray) -> Codes:
    """One start and five iterations of semantic-id."""
    from semantic_id.algorithms.rq_kmeans import RQKMeans as Theirs

    model = Theirs(n_levels=LEVELS, n_clusters=SIZE, n_init=1, max_iter=5, random_state=0).fit(vectors)
    return np.asarray(model.encode(vectors)), list(model.codebooks_)


def rectokens(vectors: np.ndarray) -> Codes:
    """One pass of rectokens in batches."""
    from rectokens.tokenizers.rq_kmeans import RQKMeansTokenizer

    torch.set_float32_matmul_precision("highest")  # Importing it lowers the precision for everybody.
    model, batches = RQKMeansTokenizer(LEVELS, SIZE, DIMS), torch.from_numpy(vectors).split(CHUNK)
    with torch.compiler.set_stance("force_eager"), torch.no_grad():
        for batch in batches:
            model.fit_step(batch)
        codes = torch.cat([model.encode(batch).codes for batch in batches]).numpy()
    return codes, [level.codebook.embeddings.detach().numpy() for level in model._rq.levels]


def error_of(vectors: np.ndarray, found: Codes) -> float:
    """Squared error as a share of the variance, chunk by chunk."""
    mean, error, spread = vectors.mean(axis=0, dtype=np.float64).astype(np.float32), 0.0, 0.0
    for start in range(0, len(vectors), CHUNK):
        chunk = vectors[start : start + CHUNK]
        error += float(np.square(chunk - sum_of_codes(found[0][start : start + CHUNK], found[1])).sum())
        spread += float(np.square(chunk - mean).sum())
    return error / spread


def rq_kmeans(benchmark: Benchmark, items: int, peers: dict[str, Callable[[np.ndarray], Codes]], repeats: int) -> None:
    """Time and error of ours and of those peers that are installed; the first peer is the baseline."""
    vectors, case = points(items), f"RQ-k-means, {items:,} x {DIMS}, {LEVELS} x {SIZE}"
    found: dict[str, Codes] = {}

    def run(name: str, work: Callable[[np.ndarray], Codes]) -> None:
        found[name] = work(vectors)

    variants = {name: partial(run, name, work) for name, work in ({OURS: sidrec} | peers).items()}
    baseline = next(iter(peers), OURS)
    benchmark.timings(case, compare(variants, baseline, repeats, warmup=min(1, repeats - 1)), baseline)
    errors = {name: error_of(vectors, codes) for name, codes in found.items()}
    for name, codes in found.items():
        benchmark.row(case, name, baseline, errors[name], "relative error", errors[baseline] / errors[name])
        rate = code_quality(codes[0], (SIZE,) * LEVELS)["collision_rate"]
        benchmark.row(case, name, baseline, 100 * rate, "% collisions")


def installed(peers: dict[str, tuple[str, Callable[[np.ndarray], Codes]]]) -> dict[str, Callable[[np.ndarray], Codes]]:
    """Those whose package is there; says loudly which are not."""
    for name, (package, _) in peers.items():
        if find_spec(package) is None:
            print(f"LEFT OUT: {name}; install it with 'pip install {package.replace('_', '-')}'", file=sys.stderr)
    return {name: work for name, (package, work) in peers.items() if find_spec(package)}


def balanced(benchmark: Benchmark, case: str, sets: list[np.ndarray], size: int, bounds: tuple[int, int]) -> None:
    """Time and inertia of balanced k-means, all sets of points one after the other."""
    inertia: dict[str, float] = {}
    smallest, largest = bounds

    def ours() -> None:
        inertia[OURS] = 0.0
        for points_ND in map(torch.from_numpy, sets):
            centres_KD, codes_N = balanced_kmeans(points_ND, size, min_size=smallest, max_size=largest)
            inertia[OURS] += float((points_ND - centres_KD[codes_N]).square().sum())

    def theirs() -> None:
        from k_means_constrained import KMeansConstrained

        settings = {"n_init": 1, "max_iter": 10, "n_jobs": 1, "random_state": 0}
        models = [KMeansConstrained(size, smallest, largest, **settings).fit(each) for each in sets]
        inertia[CONSTRAINED] = float(sum(model.inertia_ for model in models))

    case = f"{case}, {smallest} to {largest} points a cluster"
    benchmark.timings(case, compare({OURS: ours, CONSTRAINED: theirs}, CONSTRAINED, repeats=1, warmup=0), CONSTRAINED)
    for name, value in inertia.items():
        benchmark.row(case, name, CONSTRAINED, value, "inertia", inertia[CONSTRAINED] / value)


def all_balanced(benchmark: Benchmark) -> None:
    """Initialisation and clusters of codes, on blobs and on real vectors if there are any."""
    if find_spec("k_means_constrained") is None:
        print("LEFT OUT: balanced k-means; install 'k-means-constrained'", file=sys.stderr)
        return
    draw = np.random.default_rng(1)
    codebooks = [draw.normal(size=(256, 32)).astype(np.float32) for _ in range(LEVELS + 1)]
    balanced_kmeans(torch.from_numpy(codebooks[0]), 10, min_size=10, max_size=60)  # Warms up.
    balanced(
        benchmark, "balanced, 4 codebooks of 256 x 32 into 10", codebooks, 10, size_bounds(256, 10, most=10, ratio=6)
    )
    mixture = draw.normal(size=(CENTRES, 32))[draw.choice(CENTRES, 10_000, p=draw.dirichlet(np.full(CENTRES, 0.5)))]
    blobs = (mixture + 0.4 * draw.normal(size=mixture.shape)).astype(np.float32)
    balanced(benchmark, "balanced, 10,000 x 32 into 256", [blobs], 256, size_bounds(10_000, 256))
    if os.environ.get("SIDREC_EMBEDDINGS"):
        vectors = ItemEmbeddings.load(os.environ["SIDREC_EMBEDDINGS"]).vectors[:10_000]
        axes = np.linalg.svd(vectors - vectors.mean(axis=0), full_matrices=False)[2][:32]
        real, bounds = np.ascontiguousarray(vectors @ axes.T, np.float32), size_bounds(len(vectors), 256)
        balanced(benchmark, f"balanced, {len(real):,} real x 32 into 256", [real], 256, bounds)


def memory(benchmark: Benchmark, items: int) -> None:
    """Peak memory of a process that maps the vectors, learns and encodes."""
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "vectors"
        with create(path, kind="embeddings", config={}) as writer:
            ItemEmbeddings(points(items), "blobs", "benchmark").save(writer.path)
        asked = [sys.executable, __file__, "--peak-of", str(path)]
        peak, loaded = map(float, subprocess.run(asked, capture_output=True, text=True, check=True).stdout.split())
    case, size = f"memory, {items:,} x {DIMS}, {LEVELS} x {SIZE}", items * DIMS * 4 / MEGABYTE
    benchmark.row(case, "the vectors", "the vectors", size, "MB", 1.0)
    benchmark.row(case, "peak, vectors and libraries included", "the vectors", peak, "MB", size / peak)
    benchmark.row(case, "of it before anything is learned", "the vectors", loaded, "MB", size / loaded)


def peak_of(path: str) -> None:
    """Load, learn, encode; print peak memory at the end and after loading in MB."""
    torch.set_num_threads(1)
    embeddings = ItemEmbeddings.load(path)
    loaded = peak_memory()
    RQKMeans(levels=LEVELS, codebook_size=SIZE).fit(embeddings).quantize(embeddings.vectors)
    print(peak_memory(), loaded)


def main() -> None:
    """Measure, print, save."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--million", action="store_true")
    only_million = parser.parse_args().million
    torch.set_num_threads(1)
    benchmark = Benchmark("tokenizer_kmeans_million" if only_million else "tokenizer_kmeans")
    with threadpool_limits(1):
        fast = installed({FAISS: ("faiss", faiss_kmeans), "rectokens, 1 pass": ("rectokens", rectokens)})
        slow = installed({"semantic-id, 1 start, 5 iterations": ("semantic_id", semantic_id)})
        if only_million:
            rq_kmeans(benchmark, 1_000_000, fast | slow, repeats=1)
            benchmark.save()
            return
        all_balanced(benchmark)
        rq_kmeans(benchmark, 10_000, {"scikit-learn KMeans, 1 start": scikit_learn}, repeats=3)
        rq_kmeans(benchmark, 100_000, fast | slow, repeats=1)
        rq_kmeans(benchmark, 1_000_000, fast, repeats=1)
    memory(benchmark, 1_000_000)
    benchmark.save()


if __name__ == "__main__":
    if sys.argv[1:2] == ["--peak-of"]:
        peak_of(sys.argv[2])
    else:
        main()
