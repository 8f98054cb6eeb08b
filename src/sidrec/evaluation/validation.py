"""Scoring during training: the validation part only, always the same users."""

from sidrec.config import RunSettings
from sidrec.data.dataset import Dataset
from sidrec.evaluation.evaluator import draw_examples, evaluate
from sidrec.evaluation.protocol import Protocol
from sidrec.recommenders.base import Recommender, Validate

__all__ = ["validator"]


def validator(dataset: Dataset, protocol: Protocol, max_users: int, run: RunSettings) -> Validate:
    """A function that scores a recommender on validation users and returns means, the primary metric first.

    Args:
        dataset: the dataset; its `valid` part is scored, never its `test` part.
        protocol: the rules; its `max_users` does not apply.
        max_users: users drawn once by the run's seed; 0 means all.
        run: seed, device and progress.

    Raises:
        DataError: the dataset has no validation examples.
    """
    examples = draw_examples(dataset, "valid", max_users, run.seed)

    def validate(recommender: Recommender) -> dict[str, float]:
        return evaluate(recommender, dataset, "valid", protocol, run, examples).table.means()

    return validate
