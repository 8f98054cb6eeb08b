"""Scoring during training: the validation part only, always the same users."""

from sidrec.config import RunSettings
from sidrec.data.dataset import Dataset, Examples
from sidrec.evaluation.evaluator import draw_examples, evaluate
from sidrec.evaluation.protocol import Protocol
from sidrec.recommenders.base import Recommender, Validate
from sidrec.training.config import TrainingConfig

__all__ = ["loss_validator", "validation", "validator"]


def validation(dataset: Dataset, protocol: Protocol, training: TrainingConfig, run: RunSettings) -> Validate | None:
    """What `training.select` says states are chosen by, of `training.validate_users`; None without validation examples.

    Args:
        dataset: its `valid` part is scored.
        protocol: the rules, where the metric decides.
        training: says how, and by how many users.
        run: seed, device and progress.
    """
    if not len(dataset.examples("valid")):
        return None
    if training.select == "loss":
        return loss_validator(dataset, training.validate_users, run)
    return validator(dataset, protocol, training.validate_users, run)


def loss_validator(dataset: Dataset, max_users: int, run: RunSettings) -> Validate:
    """A function that gives a recommender's loss on the targets of validation users, the users of `validator`.

    Arguments and errors are those of `validator`.
    """
    positions, valid = draw_examples(dataset, "valid", max_users, run.seed), dataset.examples("valid")
    pairs = Examples(valid.users[positions], valid.cuts[positions])
    return lambda recommender: {"loss": recommender.mean_loss(dataset, pairs, run)}


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
