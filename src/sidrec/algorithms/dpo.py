"""Direct preference optimisation of any recommender that gives log-probabilities of items.

Rafailov et al., 2023, arXiv:2305.18290; Azar et al., 2023, arXiv:2310.12036; Chen et al., 2024,
arXiv:2406.09215. The policy is the recommender's own model; the reference is its first state, of which only the
log-probabilities of the pairs are kept. Histories are cut, begun and padded, and items are scored, by the very
functions that training and ranking use. Left out: length normalisation (all paths of codes are equally
long), a reference that moves, and the other losses of language models.
"""

from dataclasses import replace
from pathlib import Path
from typing import Annotated, Literal, Self

import numpy as np
from pydantic import Field, SerializeAsAny, model_validator
from torch import Tensor

from sidrec.algorithms.base import Algorithm, AlgorithmConfig, TuneReport
from sidrec.algorithms.pairs import Pairs, PairSource
from sidrec.algorithms.preference import PreferenceExamples, PreferenceModel, reference_log_probs
from sidrec.atomic import commit
from sidrec.config import Config, RunSettings, build, slot
from sidrec.data.dataset import Dataset
from sidrec.data.sequences import Histories
from sidrec.embeddings.base import ItemEmbeddings
from sidrec.recommenders.base import Recommender, Validate
from sidrec.registry import kinds_text
from sidrec.training.checkpoints import start_digest
from sidrec.training.preference_objectives import PREFERENCE_LOSSES, PreferenceLoss
from sidrec.training.trainer import train_model

__all__ = ["DPO"]

FILE = "pairs.npz"


class DPO(Algorithm):
    """Raises chosen items above rejected ones, held near the recommender that it starts from."""

    class Config(AlgorithmConfig):
        """Objective, pairs and training. Pairs, β and training are by default those of a published SASRec with DPO."""

        kind: Literal["dpo"] = "dpo"  # type: ignore[assignment]  # narrows the family's field
        loss: PreferenceLoss = "sigmoid"
        """`sigmoid` (DPO), `ipo`, which stops at a margin, or `softmax` (S-DPO): one chosen item against all its
        rejected ones at once, where the others take each of them as a pair."""
        beta: float = Field(default=0.1, gt=0)
        """How strongly the policy is held near its start; for `ipo`, half the inverse of the margin."""
        label_smoothing: float = Field(default=0.0, ge=0, lt=0.5)
        """Share of pairs taken to be the wrong way round; for `sigmoid` only."""
        pairs: Annotated[
            SerializeAsAny[Config],
            slot("pairs"),
            Field(description=f"Where chosen and rejected items come from: {kinds_text('pairs')}."),
        ] = "neighbours"  # type: ignore[assignment]  # The slot makes a Config of the name.
        dropout: bool = False
        """Whether the model keeps its dropout while it is tuned. The reference never has any: with it the two differ
        before anything is learnt."""

        @model_validator(mode="after")
        def _smoothing_is_used(self) -> Self:
            if self.label_smoothing and self.loss != "sigmoid":
                raise ValueError(f"label_smoothing {self.label_smoothing:g} has no effect on the loss '{self.loss}'")
            return self

    @property
    def needs_embeddings(self) -> bool:
        """Whether the pairs need item vectors from outside the recommender."""
        return self._source.needs_embeddings

    def sources(self) -> dict[str, str]:
        """The digest of the file of pairs, if they come from one."""
        return self._source.sources()

    def tune(
        self,
        recommender: Recommender,
        dataset: Dataset,
        run: RunSettings,
        *,
        validate: Validate | None = None,
        embeddings: ItemEmbeddings | None = None,
    ) -> TuneReport:
        """Find pairs, ask the reference about them, train; arguments are those of `Algorithm.tune`.

        Pairs and the reference's answers are kept beside the checkpoints, so that a resumed run has the same.

        Raises:
            DataError: the recommender gives no log-probabilities, or there are no pairs.
        """
        config: DPO.Config = self.config
        # Asked once, before hours of mining, for those that give no log-probabilities.
        with recommender.evaluating(run):
            recommender.log_probs(Histories.of([[0]]), np.zeros((1, 1), np.int64))
        vectors = None if embeddings is None else embeddings.vectors
        if run.scratch is not None:
            train, sequences = dataset.split.train, dataset.sequences
            ids = None if recommender.semantic_ids is None else recommender.semantic_ids.digest
            start = [recommender.config.model_dump(mode="json"), ids]
            data = [sequences.rows, sequences.offsets, train.users, train.cuts, vectors, self.sources(), start]
            run = replace(run, scratch=run.scratch / start_digest(recommender.model, data, config, run)[:12])
        examples = self._examples(recommender, dataset, run, embeddings)
        smoothing = {"label_smoothing": config.label_smoothing} if config.loss == "sigmoid" else {}

        def loss(chosen_B: Tensor, rejected_BM: Tensor, present_BM: Tensor) -> Tensor:
            return PREFERENCE_LOSSES[config.loss](chosen_B, rejected_BM, config.beta, present_BM, **smoothing)

        model = PreferenceModel(recommender, loss, config.dropout)
        check = None if validate is None else lambda: validate(recommender)
        report = train_model(model, examples, config.training, run, validate=check, keep_start=True)
        pairs = examples.pairs
        figures = {
            "pairs": len(pairs),
            "rejected": int((pairs.rejected_PM >= 0).sum()),
            "without_rejected": pairs.num_dropped,
            "barred_for_same_codes": pairs.num_same_codes,
            "spares_held_out": self._source.spares_held_out,
            "reference_accuracy": examples.reference_accuracy,
        }
        return TuneReport(report, report.kept_start, figures)

    @property
    def _source(self) -> PairSource:
        return build("pairs", self.config.pairs)

    def _examples(
        self, recommender: Recommender, dataset: Dataset, run: RunSettings, embeddings: ItemEmbeddings | None
    ) -> PreferenceExamples:
        """The pairs with the reference's answers, read back where a killed run left them."""
        path = None if run.scratch is None else run.scratch / FILE
        if path is not None and path.is_file():
            return _load(path)
        pairs = self._source.pairs(recommender, dataset, run, embeddings)
        reference_PC = reference_log_probs(recommender, pairs, run, self.config.training.precision)
        examples = PreferenceExamples(pairs, reference_PC)
        if path is not None:
            _save(path, examples)
        return examples


def _save(path: Path, examples: PreferenceExamples) -> None:
    def write(place: Path) -> None:
        # Opened here, because numpy gives a name another ending.
        with place.open("wb") as file:
            np.savez(file, allow_pickle=False, reference_PC=examples.reference_PC, **vars(examples.pairs))

    path.parent.mkdir(parents=True, exist_ok=True)
    commit(path, write)


def _load(path: Path) -> PreferenceExamples:
    with np.load(path, allow_pickle=False) as file:
        arrays = (file[name] for name in ("rows", "starts", "lengths", "rejected_PM"))
        pairs = Pairs(*arrays, num_dropped=int(file["num_dropped"]), num_same_codes=int(file["num_same_codes"]))
        return PreferenceExamples(pairs, file["reference_PC"])
