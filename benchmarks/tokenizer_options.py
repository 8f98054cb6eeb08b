"""What the switches of RQ-VAE and the losses of LETTER change on real vectors, with the learning curves.

    python benchmarks/tokenizer_options.py RUN [--seeds 0 1 2] [--epochs 20]

RUN is a run folder with vectors called `text` and `collaborative`, as `tokenizer_quality.py scientific --run RUN`
leaves behind. 3 x 256 codes, defaults of RQ-VAE but for what the row names; figures over all items, before collisions
are settled, of the state that is kept.
"""

import argparse
import statistics
from pathlib import Path

import torch

from harness import Benchmark
from sidrec.config import RunSettings
from sidrec.embeddings.base import ItemEmbeddings
from sidrec.tokenizers.letter import Letter
from sidrec.tokenizers.quality import code_quality
from sidrec.tokenizers.rqvae import RQVAE
from sidrec.tokenizers.vector_quality import reconstruction_error

BALANCED = {"sinkhorn": (0.0, 0.0, 0.003), "init": "balanced"}
VARIANTS: dict[str, RQVAE] = {
    "defaults": RQVAE(),
    "`commit: first`, as published": RQVAE(commit="first"),
    "`gradient: rotation`": RQVAE(gradient="rotation"),
    "`ema_decay: 0.99`": RQVAE(ema_decay=0.99),
    "`revive_every: 0`": RQVAE(revive_every=0),
    "LETTER, `alpha: 0, beta: 0`": Letter(**BALANCED, alpha=0.0, beta=0.0),
    "LETTER, `alpha: 0.1, beta: 1e-4`": Letter(**BALANCED, alpha=0.1, beta=1e-4),
}
FIGURES = ("relative error", "collisions (%)", "mean perplexity")


def one(settings: RQVAE, text: ItemEmbeddings, behaviour: ItemEmbeddings, epochs: int, seed: int) -> dict[str, object]:
    """Figures of one training, and its curve."""
    curve: list[tuple[int, dict[str, float]]] = []
    fields = settings.config.model_dump() | {"epochs": epochs}
    tokenizer = type(settings)(type(settings).Config(**fields))
    tokenizer.look = lambda epoch, figures: curve.append((epoch, figures))
    tokenizer.fit(text, RunSettings(seed=seed), behaviour)
    codes = tokenizer.quantize(text.vectors)
    quality = code_quality(codes, tokenizer.sizes)
    perplexity = statistics.mean(level["perplexity"] for level in quality["levels"])
    error = reconstruction_error(text.vectors, codes, tokenizer.reconstruct)
    return dict(zip(FIGURES, (error, 100 * quality["collision_rate"], perplexity), strict=True)) | {"curve": curve}


def main() -> None:
    """Run, print, write the results and the table of the documentation."""
    arguments = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    arguments.add_argument("run", type=Path, nargs="?")
    arguments.add_argument("--seeds", type=int, nargs="+", default=[0, 1, 2])
    arguments.add_argument("--epochs", type=int, default=20)
    wanted = arguments.parse_args()
    if wanted.run is None:
        print("SKIPPED: name a run folder with vectors called text and collaborative")
        return
    torch.set_num_threads(1)
    text, behaviour = (ItemEmbeddings.load(wanted.run / "embeddings" / name) for name in ("text", "collaborative"))
    benchmark = Benchmark("tokenizer_options")
    case = f"{len(text.vectors)} real vectors, {wanted.epochs} epochs"
    lines = ["| RQ-VAE with | " + " | ".join(FIGURES) + " |", "|---|" + "---:|" * len(FIGURES)]
    for name, settings in VARIANTS.items():
        found = [one(settings, text, behaviour, wanted.epochs, seed) for seed in wanted.seeds]
        cells = []
        for figure in FIGURES:
            values = [float(str(each[figure])) for each in found]
            for seed, value in zip(wanted.seeds, values, strict=True):
                benchmark.row(f"{case}, seed {seed}", name, value=value, unit=figure)
            digits = 3 if figure == FIGURES[0] else 1
            spread = f" ± {statistics.stdev(values):.{digits}f}" if len(values) > 1 else ""
            cells.append(f"{statistics.mean(values):.{digits}f}{spread}")
        lines.append(f"| {name} | " + " | ".join(cells) + " |")
        print(lines[-1], flush=True)
        for epoch, figures in found[0]["curve"]:  # type: ignore[attr-defined]  # A list of pairs.
            for figure, value in figures.items():
                benchmark.row(f"learning curve, seed {wanted.seeds[0]}, epoch {epoch}", name, value=value, unit=figure)
    benchmark.save()
    page = Path(__file__).parents[1] / "docs" / "assets" / "tokenizer-options.md"
    page.write_text("\n".join(lines) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
