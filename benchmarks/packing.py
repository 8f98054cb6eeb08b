"""Padding of the decoder's batches: windows of similar length in one row each, and packed; and what thinning leaves.

Counts, no times: the batches of one epoch at `max_history: 50` with four codes an item, of histories with the lengths
of review data, as `training.py` makes them (five targets a user in the middle, a long tail). They are the same on any
machine.
"""

import argparse
from collections.abc import Sequence
from pathlib import Path

import numpy as np

from harness import RESULTS, Benchmark, Row
from sidrec.data.dataset import Dataset
from sidrec.recommenders.decoder import Decoder
from sidrec.testing.toy import random_semantic_ids
from sidrec.training.batches import BatchDataset, num_targets, padding_of
from training import SIZES, make_dataset

PAGE = Path(__file__).parents[1] / "docs" / "assets" / "packing.md"
HISTORY = 50
BATCHES = {"similar lengths": False, "packed": True}
PADDING, LARGEST = "% of all tokens are padding", "tokens in the largest batch"
THINNED = {
    "history_dropout: 0.1": {"history_dropout": 0.1},
    "subsequences: true": {"subsequences": True},
    "history_dropout: 0.1, subsequences: true": {"history_dropout": 0.1, "subsequences": True},
}


def epoch(dataset: Dataset, batch_size: int, **fields: bool | float) -> tuple[float, int, int]:
    """Share of padding, tokens of the largest batch and targets of one epoch of a decoder with these settings."""
    decoder = Decoder(max_history=HISTORY, **fields)
    decoder.catalog, decoder.semantic_ids = dataset.catalog, random_semantic_ids(dataset.catalog, SIZES)
    data = BatchDataset(decoder.examples(dataset, dataset.split.train), batch_size, batch_size, seed=0)
    batches = [data.__getitems__(positions) for positions in data.batches]
    padding, cells = np.array([padding_of(batch) for batch in batches]).T
    return (
        padding.sum() / cells.sum(),
        int(cells.max()),
        sum(int(num_targets(batch)) // len(SIZES) for batch in batches),
    )


def table(rows: Sequence[Row]) -> str:
    """The table of the documentation, in Markdown."""
    lines = [
        "| an epoch, batches | padding, similar lengths | padding, packed | largest batch, similar lengths "
        "| largest batch, packed |",
        "|---|---:|---:|---:|---:|",
    ]
    for case in dict.fromkeys(row.case for row in rows if row.unit == LARGEST):
        of_case = {(row.variant, row.unit): row.value for row in rows if row.case == case}
        cells = [f"{of_case[variant, PADDING]:.0f} %" for variant in BATCHES]
        cells += [f"{of_case[variant, LARGEST]:,.0f} tokens" for variant in BATCHES]
        lines.append(f"| {case} | {' | '.join(cells)} |")
    return "\n".join(lines) + "\n"


def main() -> None:
    """Count and write the results."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--targets", type=int, nargs="+", default=[8_192, 65_536], help="of an epoch")
    parser.add_argument("--batches", type=int, nargs="+", default=[26, 256], help="windows in a batch")
    parser.add_argument("--results", type=Path, default=RESULTS, help="folder of the result file")
    arguments = parser.parse_args()
    benchmark = Benchmark("packing")
    for targets in arguments.targets:
        dataset = make_dataset(targets)
        windows = len(np.unique(dataset.split.train.users))
        for size in arguments.batches:
            case = f"{targets:,} targets of {windows:,} users, {size} windows a batch"
            for name, packed in BATCHES.items():
                share, largest, _ = epoch(dataset, size, packed=packed)
                benchmark.row(case, name, value=100 * share, unit=PADDING)
                benchmark.row(case, name, value=largest, unit=LARGEST)
    size, targets = arguments.batches[0], arguments.targets[-1]
    for name, fields in THINNED.items():
        _, _, learnt = epoch(make_dataset(targets), size, **fields)
        benchmark.row(f"{targets:,} targets, one epoch", name, value=100 * learnt / targets, unit="% of targets learnt")
    benchmark.save(arguments.results)
    if arguments.results == RESULTS:
        PAGE.write_text(table(benchmark.rows), encoding="utf-8")


if __name__ == "__main__":
    main()
