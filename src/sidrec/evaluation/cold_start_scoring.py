"""The questions of a cold-start report, asked of a recommender before and after its catalogue grew.

Old targets show what growth costs, new targets what it brings; new targets among new items alone show
whether the recommender tells new items apart once their competition with old ones is set aside.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import polars as pl

from sidrec.config import RunSettings
from sidrec.data.dataset import Dataset
from sidrec.evaluation.cold_start import ColdStartConfig, HeldOut, chance, content_neighbours, share_of_new
from sidrec.evaluation.evaluator import draw_examples, evaluate
from sidrec.evaluation.protocol import Protocol
from sidrec.evaluation.results import per_user_table
from sidrec.evaluation.significance import bootstrap_mean, paired_bootstrap
from sidrec.evaluation.table import MetricTable
from sidrec.random import generator
from sidrec.recommenders.base import Recommender
from sidrec.types import BoolArray, FloatArray, IntArray, Json

__all__ = ["AFTER", "AMONG_NEW", "BEFORE", "NEW", "Answer", "Questions"]

BEFORE, AFTER = "old targets, before growth", "old targets, after growth"
NEW, AMONG_NEW = "new targets", "new targets, among new items"


@dataclass(frozen=True)
class Answer:
    """What a recommender answered to the examples of a question.

    Attributes:
        table: per-example metrics.
        rows: int32[E, W], its lists.
        exact: bool[E], whether each list is certified.
        per_user: one line an example, where it was asked for.
    """

    table: MetricTable
    rows: IntArray
    exact: BoolArray
    per_user: pl.DataFrame | None = None


@dataclass(frozen=True)
class Questions:
    """What is asked, and by which rules.

    Attributes:
        held: the held-out items and the examples.
        protocol: the rules of every figure.
        config: of the yardstick by content.
        run: seed, device and progress.
    """

    held: HeldOut
    protocol: Protocol
    config: ColdStartConfig
    run: RunSettings

    @property
    def old_examples(self) -> IntArray:
        """Positions of the scored examples that ask for old items: those of any evaluation of the warm dataset."""
        return draw_examples(self.held.warm, "test", self.protocol.max_users, self.run.seed)

    @property
    def new_examples(self) -> IntArray:
        """Positions of the scored examples that ask for new items, at most as many as the rules allow."""
        found, most = self.held.new_examples, self.protocol.max_users
        if not most or most >= len(found):
            return found
        return np.sort(generator(self.run.seed, "cold-start users").choice(found, size=most, replace=False))

    def report(self, recommender: Recommender, before: Answer, vectors: FloatArray | None) -> tuple[Json, pl.DataFrame]:
        """The figures, and one line an example of the grown catalogue.

        Args:
            recommender: of the grown catalogue.
            before: what it answered before growth, to `old_examples`.
            vectors: float32[N, D] of the grown catalogue; None leaves the yardstick by content out.
        """
        held, primary = self.held, self.protocol.primary
        old, new = self.old_examples, self.new_examples
        after, asked = self._ask(recommender, old), self._ask(recommender, new)
        among = self._ask(recommender, new, held.is_new)
        lines = [
            self._line(BEFORE, before, held.warm, old, vectors),
            self._line(AFTER, after, held.grown, old, vectors),
            self._line(NEW, asked, held.grown, new, vectors),
            self._line(AMONG_NEW, among, held.grown, new, vectors, held.is_new),
        ]
        costs = paired_bootstrap(
            after.table.values[primary],
            before.table.values[primary],
            self.run.seed,
            users=np.asarray(_users(held.grown, old)),
        )
        report: Json = {
            "primary": primary,
            "held_out": held.figures,
            "growth_costs": {"mean": costs.mean, "low": costs.low, "high": costs.high},
            "lines": lines,
        }
        tables = [answer.per_user for answer in (after, asked) if answer.per_user is not None]
        return report, pl.concat(tables)

    def _ask(self, recommender: Recommender, examples: IntArray, allowed: BoolArray | None = None) -> Answer:
        grown = self.held.grown
        found = evaluate(recommender, grown, "test", self.protocol, self.run, examples, allowed)
        is_new = self.held.is_new[found.targets]
        per_user = per_user_table(grown, "test", found, {"target_is": (is_new.astype(np.int64), ["old", "new"])})
        return Answer(found.table, found.recommended.rows, found.recommended.exact, per_user)

    def _line(
        self,
        name: str,
        answer: Answer,
        dataset: Dataset,
        examples: IntArray,
        vectors: FloatArray | None,
        allowed: BoolArray | None = None,
    ) -> Json:
        """One question's line, with its yardsticks."""
        pairs, num_items = dataset.split.test, len(dataset.catalog)
        histories = dataset.sequences.before(pairs.users[examples], pairs.cuts[examples])
        targets = dataset.sequences.targets(pairs.users[examples], pairs.cuts[examples])
        content = None
        if vectors is not None:
            content = content_neighbours(
                vectors[:num_items],
                histories,
                targets,
                self.protocol,
                self.run,
                newest=self.config.content_history,
                allowed=allowed,
            ).means()
        users = np.asarray(_users(dataset, examples))
        interval = bootstrap_mean(answer.table.values[self.protocol.primary], self.run.seed, users=users)
        num_old = len(self.held.warm.catalog)
        return {
            "name": name,
            "users": len(np.unique(users)),
            "examples": len(users),
            "items": num_items if allowed is None else int(allowed.sum()),
            "metrics": answer.table.means(),
            "interval": [interval.low, interval.high],
            "content": content,
            "chance": chance(histories, num_items, self.protocol, allowed),
            "share_of_new": {str(k): share_of_new(answer.rows, num_old, k) for k in self.protocol.k},
            "certified": float(answer.exact.mean()),
        }


def _users(dataset: Dataset, examples: IntArray) -> Sequence[str]:
    """Whose examples these are."""
    return [dataset.sequences.users[line] for line in dataset.split.test.users[examples]]
