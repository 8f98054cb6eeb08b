"""Training of learned tokenizers against the way they are written elsewhere, in one run on one thread.

    python benchmarks/tokenizer_training.py [--device cuda]

1. RQ-VAE training (2048-1024-512-256-128-64 → 32, 4 x 256, batch 1024, 10,000 x 768, the last level balanced by
   Sinkhorn, as the published scripts set it): a DataLoader over rows, four workers forked every epoch, and a loop with
   published habits (a host transfer a step, plain AdamW, Sinkhorn on the whole matrix) against ours in fp32 and bf16,
   and against the bare matrix products of the same step, which no loop can go below.
2. LETTER's diversity loss: the published form draws and masks sample by sample in Python.

Balanced clusters and RQ-k-means are measured in `tokenizer_kmeans`, index generation in `tokenizer_index`.
"""

import argparse
import random
from collections.abc import Callable
from itertools import pairwise

import numpy as np
import torch
from threadpoolctl import threadpool_limits
from torch import Tensor, nn
from torch.nn import functional as F
from torch.utils.data import DataLoader, Dataset

from harness import Benchmark, compare
from sidrec.config import RunSettings
from sidrec.embeddings.base import ItemEmbeddings
from sidrec.tokenizers.letter import diversity_loss, positive_codes
from sidrec.tokenizers.rqvae import RQVAE

ITEMS, DIMS, BATCH = 10_000, 768, 1024
LAYERS, LATENT, LEVELS, SIZE, EPSILON = (2048, 1024, 512, 256, 128, 64), 32, 4, 256, 0.003
LOOP, OURS, OURS_BF16, FLOOR = "DataLoader loop", "sidrec fp32", "sidrec bf16", "matrix products alone"


class Rows(Dataset[Tensor]):
    """One row at a time, made a tensor when it is asked for."""

    def __init__(self, vectors: np.ndarray) -> None:
        self.vectors = vectors

    def __len__(self) -> int:
        return len(self.vectors)

    def __getitem__(self, row: int) -> Tensor:
        return torch.FloatTensor(self.vectors[row])


@torch.no_grad()
def sinkhorn_on_the_matrix(distance: Tensor) -> Tensor:
    """Balanced codes by normalising rows and columns of the whole matrix fifty times, in double precision."""
    middle = (distance.max() + distance.min()) / 2
    scaled = ((distance - middle) / (distance.max() - middle + 1e-5)).double()
    plan = torch.exp(-scaled / EPSILON)
    plan /= plan.sum()
    for _ in range(50):
        plan /= plan.sum(dim=1, keepdim=True)
        plan /= plan.shape[0]
        plan /= plan.sum(dim=0, keepdim=True)
        plan /= plan.shape[1]
    return (plan * plan.shape[0]).argmax(dim=-1)


class PlainRQVAE(nn.Module):
    """The network as published: one module a level, losses level by level."""

    def __init__(self) -> None:
        super().__init__()
        self.encoder, self.decoder = (self._stack(widths) for widths in (WIDTHS, WIDTHS[::-1]))
        self.books = nn.ModuleList(nn.Embedding(SIZE, LATENT) for _ in range(LEVELS))
        for book in self.books:
            nn.init.uniform_(book.weight, -1 / SIZE, 1 / SIZE)

    def _stack(self, widths: list[int]) -> nn.Sequential:
        layers: list[nn.Module] = []
        for before, after in pairwise(widths):
            layers += [nn.Dropout(0.0), nn.Linear(before, after), nn.ReLU()]
            nn.init.xavier_normal_(layers[-2].weight)
        return nn.Sequential(*layers[:-1])

    def forward(self, vectors: Tensor) -> Tensor:
        residual = self.encoder(vectors)
        total, losses = torch.zeros_like(residual), []
        for level, book in enumerate(self.books):
            weight = book.weight
            distance = residual.square().sum(1, keepdim=True) + weight.square().sum(1) - 2 * residual @ weight.T
            codes = sinkhorn_on_the_matrix(distance) if level == LEVELS - 1 else distance.argmin(dim=-1)
            quantized = book(codes)
            losses.append(F.mse_loss(quantized, residual.detach()) + 0.25 * F.mse_loss(quantized.detach(), residual))
            through = residual + (quantized - residual).detach()
            residual, total = residual - through, total + through
        return F.mse_loss(self.decoder(total), vectors) + torch.stack(losses).mean()


WIDTHS = [DIMS, *LAYERS, LATENT]


def loop_epoch(vectors: np.ndarray, device: str) -> Callable[[], None]:
    """One epoch the published way; model and optimizer live on between calls."""
    model = PlainRQVAE().to(device).train()
    optimizer = torch.optim.AdamW(model.parameters(), lr=1e-3, weight_decay=1e-4)
    loader = DataLoader(Rows(vectors), batch_size=BATCH, shuffle=True, num_workers=4)

    def epoch() -> None:
        total = 0.0
        for batch in loader:
            optimizer.zero_grad()
            loss = model(batch.to(device))
            loss.backward()
            torch.nn.utils.clip_grad_norm_(model.parameters(), 1)
            optimizer.step()
            total += loss.item()

    return epoch


def our_epoch(vectors: np.ndarray, device: str, precision: str) -> Callable[[], None]:
    """One epoch of ours, with the published sizes."""
    settings = {"layers": LAYERS, "latent_dim": LATENT, "levels": LEVELS, "codebook_size": SIZE, "batch_size": BATCH}
    settings |= {
        "sinkhorn": (0.0,) * (LEVELS - 1) + (EPSILON,),
        "epochs": 1,
        "init": "uniform",
        "commit": "first",
        "revive_every": 0,
        "validate_every": 0,
        "lr": 1e-3,
    }
    tokenizer = RQVAE(**settings, schedule="constant", warmup_ratio=0.0, precision=precision)
    training = tokenizer.training(ItemEmbeddings(vectors, "blobs", "benchmark"), RunSettings(device=device))

    def epoch() -> None:
        training.step = 0
        training.run(lambda *_: None)
        if device != "cpu":
            torch.cuda.synchronize()

    return epoch


def products(device: str, dtype: torch.dtype) -> Callable[[], None]:
    """The matrix products of the steps of an epoch: forward, weight and input gradients of all linear layers."""
    sizes = [*pairwise(WIDTHS)]
    sizes += [(after, before) for before, after in reversed(sizes)]
    inputs = [torch.randn(BATCH, before, device=device, dtype=dtype) for before, _ in sizes]
    weights = [torch.randn(after, before, device=device, dtype=dtype) for before, after in sizes]
    outputs = [torch.randn(BATCH, after, device=device, dtype=dtype) for _, after in sizes]

    def epoch() -> None:
        for _ in range(-(-ITEMS // BATCH)):
            for number, (x, w, y) in enumerate(zip(inputs, weights, outputs, strict=True)):
                torch.mm(x, w.T)
                torch.mm(y.T, x)
                if number:
                    torch.mm(y, w)
        if device != "cpu":
            torch.cuda.synchronize()

    return epoch


def rqvae(benchmark: Benchmark, device: str) -> None:
    """Training speed."""
    vectors = np.random.default_rng(0).normal(size=(ITEMS, DIMS)).astype(np.float32)
    case = f"RQ-VAE training, epoch of {ITEMS} x {DIMS}, {device}"
    variants = {
        LOOP: loop_epoch(vectors, device),
        OURS: our_epoch(vectors, device, "fp32"),
        OURS_BF16: our_epoch(vectors, device, "bf16"),
        FLOOR: products(device, torch.float32),
        f"{FLOOR}, bf16": products(device, torch.bfloat16),
    }
    found = compare(variants, LOOP)
    benchmark.timings(case, found, LOOP)
    # 9,216 + 784 rows: the floor runs ten full batches, an epoch nine and a short one.
    for name, floor in ((OURS, FLOOR), (OURS_BF16, f"{FLOOR}, bf16")):
        benchmark.row(case, name, LOOP, ITEMS / found[name].cpu_s, "samples per CPU s")
        share = found[floor].cpu_s * ITEMS / (-(-ITEMS // BATCH) * BATCH) / found[name].cpu_s
        benchmark.row(case, f"{name}: share of its CPU time that matrix products take", value=100 * share, unit="%")
    benchmark.row(case, LOOP, value=ITEMS / found[LOOP].cpu_s, unit="samples per CPU s")


def loop_diversity(book: Tensor, codes: Tensor, labels: list[int]) -> Tensor:
    """The published form: positives drawn and own codes masked one sample after another."""
    members = {label: [code for code in range(SIZE) if labels[code] == label] for label in set(labels)}
    positives = []
    for code in codes:
        own = code.item()
        chosen = own
        while chosen == own:
            chosen = random.choice(members[labels[own]])
        positives.append(chosen)
    similar = book[codes] @ book.T
    mask = torch.zeros_like(similar)
    for row, code in enumerate(codes):
        mask[row, code.item()] = 1e12
    return F.cross_entropy(similar - mask, torch.tensor(positives, device=book.device))


def diversity(benchmark: Benchmark, device: str) -> None:
    """LETTER's diversity loss of a batch and four levels, forward and backward."""
    generator = torch.Generator().manual_seed(0)
    books = torch.randn(LEVELS, SIZE, LATENT, generator=generator).to(device).requires_grad_()
    codes = torch.randint(0, SIZE, (LEVELS, BATCH), generator=generator).to(device)
    cluster = (torch.arange(SIZE) % 10).to(device)
    labels = cluster.tolist()

    def theirs() -> None:
        losses = [loop_diversity(book, own, labels) for book, own in zip(books, codes, strict=True)]
        torch.stack(losses).mean().backward()

    def ours() -> None:
        draws = torch.rand(LEVELS, BATCH, generator=generator, dtype=torch.float64).to(device)
        losses = [
            diversity_loss(book, own, positive_codes(own, cluster, draw))
            for book, own, draw in zip(books, codes, draws, strict=True)
        ]
        torch.stack(losses).mean().backward()

    case = f"diversity loss, batch {BATCH}, {LEVELS} x {SIZE}, {device}"
    loop = "Python loops over samples"
    benchmark.timings(case, compare({loop: theirs, "sidrec": ours}, loop, repeats=7, warmup=2), loop)


def main() -> None:
    """Measure, print, save."""
    arguments = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    arguments.add_argument("--device", default="cpu")
    device = arguments.parse_args().device
    torch.set_num_threads(1)
    benchmark = Benchmark("tokenizer_training" if device == "cpu" else f"tokenizer_training-{device}")
    with threadpool_limits(1):
        rqvae(benchmark, device)
        diversity(benchmark, device)
    benchmark.save()


if __name__ == "__main__":
    main()
