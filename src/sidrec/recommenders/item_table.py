"""An item table that starts from vectors of the items instead of at random; optionally held while the rest learns.

Vectors of any embedder are fitted to the table's width, every row gets the length that rows of the random start
have, and items without a vector of their own are filled up with the mean of the items beside which they occur.

Legend: U users · N items · M items without vectors · E width of the vectors · D width of the table.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from math import ceil
from typing import Literal, Self

import numpy as np
import torch
from pydantic import Field, model_validator
from scipy import sparse
from torch import Tensor

from sidrec.config import Config, RunSettings, refuse_unread
from sidrec.data.dataset import Dataset
from sidrec.data.sequences import Histories
from sidrec.embeddings.base import ItemEmbeddings, unit_length
from sidrec.errors import DataError
from sidrec.random import generator
from sidrec.training.config import OptimizerConfig, TrainingConfig
from sidrec.training.freezing import FrozenRows
from sidrec.types import BoolArray, FloatArray, IntArray

__all__ = ["FrozenStage", "ItemTable", "ItemTableConfig", "start_tables"]

ROUNDING = 1e-6
"""What is left of a vector of length 1 that the fit leaves nothing of; length 1 would make a direction of it."""
PIECE = 8192
"""Rows that are multiplied at once."""


class FrozenStage(Config):
    """A first stage of training in which given rows stay as they are; all else is as in the recipe's `training`."""

    max_epochs: float = Field(default=4, gt=0)
    """Passes over the training examples."""
    max_steps: int = Field(default=0, ge=0)
    """Optimizer steps; 0 means that `max_epochs` decides, up to the `max_steps` of the stage after it."""
    patience: int = Field(default=5, ge=0)
    """Validations without a better primary metric before the stage ends; 0 never ends it early."""
    optimizer: OptimizerConfig = OptimizerConfig(schedule="constant")
    """Optimizer and schedule."""

    def over(self, training: TrainingConfig, num_examples: int) -> TrainingConfig:
        """The settings of this stage, where `training` are those of the stage after it.

        Args:
            training: of the stage after it.
            num_examples: how many there are to train on.
        """
        own = {name: getattr(self, name) for name in type(self).model_fields}
        if training.max_steps and not self.max_steps:
            steps = ceil(self.max_epochs * ceil(num_examples / training.batch_size))
            own["max_steps"] = min(steps, training.max_steps)
        return training.model_copy(update=own)


class ItemTableConfig(Config):
    """How vectors of the items become the rows of a table."""

    fit: Literal["project", "truncate"] = "project"
    """`project` keeps the directions in which the vectors differ most, `truncate` the first dimensions, as suits
    encoders that were trained for it."""
    center: bool = False
    """project: whether the mean of all vectors is taken off first. Cosines are then those about the mean."""
    scale: float = Field(default=1.0, gt=0)
    """Length of the rows in lengths of rows of the random start."""
    frozen_first: FrozenStage | None = None
    """A first stage in which the rows of items that have a vector stay as they are; None trains all from the start."""

    @model_validator(mode="after")
    def _fits_together(self) -> Self:
        refuse_unread(self, "fit", {"project": ["center"], "truncate": []})
        return self


@dataclass(frozen=True)
class ItemTable:
    """Rows for a table of items.

    Attributes:
        rows_ND: float32[N, D], each of length 1.
        given_N: bool[N], whether a row comes from a vector of the item itself.
    """

    rows_ND: FloatArray
    given_N: BoolArray

    @classmethod
    def of(
        cls, embeddings: ItemEmbeddings, events: Histories, width: int, config: ItemTableConfig, seed: int = 0
    ) -> "ItemTable":
        """Vectors as rows of a table.

        An item without vector (the encoder was told nothing about it, or its vector is zero) gets the mean of the
        rows of all items with vectors beside which it occurs: every pair of events of one user counts. Where there
        is none, its direction is drawn.

        Args:
            embeddings: vectors of the N items.
            events: what users did in training.
            width: D.
            config: how they are fitted.
            seed: of the run.

        Raises:
            DataError: no item has a vector.
        """
        draw = generator(seed, "item table")
        vectors_NE = unit_length(embeddings.vectors.astype(np.float32))
        vectors_NE[embeddings.missing] = 0
        fitted_ND = _fitted(vectors_NE, width, config, draw)
        fitted_ND[np.linalg.norm(fitted_ND, axis=1) < ROUNDING] = 0
        fitted_ND = unit_length(fitted_ND)
        given_N: BoolArray = np.any(fitted_ND, axis=1)
        if not given_N.any():
            raise DataError(
                "no item has a vector to start from",
                where=embeddings.encoder,
                expected="a vector that is not zero of at least one item",
                next="choose other embeddings, or leave recommender.table out",
            )
        missing = np.flatnonzero(~given_N)
        rows_MD = _mean_of_neighbours(missing, fitted_ND, events)
        is_alone = ~rows_MD.any(axis=1)
        rows_MD[is_alone] = draw.standard_normal((int(is_alone.sum()), width))
        fitted_ND[missing] = unit_length(rows_MD)
        return cls(fitted_ND.astype(np.float32), given_N)


def start_tables(
    weights: Sequence[Tensor], config: ItemTableConfig, embeddings: ItemEmbeddings, dataset: Dataset, run: RunSettings
) -> list[FrozenRows]:
    """Write vectors of the items into tables that were drawn at random, and say which rows were given.

    Args:
        weights: float[N or more, D] each; rows behind the items stay. The rows of all items get the root-mean-square
            length that they have now in that table, times `config.scale`.
        config: how the vectors are fitted.
        embeddings: of the dataset's items.
        dataset: of whose training events items without vectors are filled up.
        run: whose seed is used.

    Returns:
        For each table the rows of items with a vector of their own.

    Raises:
        DataError: the vectors are of other items, or no item has one.
    """
    embeddings.check_fits(dataset.catalog)
    table = ItemTable.of(embeddings, dataset.training_events(), weights[0].shape[1], config, run.seed)
    with torch.no_grad():
        for weight in weights:
            items_ND = weight[: len(dataset.catalog)]
            length = items_ND.square().sum(dim=1).mean().sqrt() * config.scale
            items_ND.copy_(torch.from_numpy(table.rows_ND) * length)
    num = len(table.given_N)
    return [FrozenRows(weight, torch.from_numpy(np.pad(table.given_N, (0, len(weight) - num)))) for weight in weights]


def _fitted(vectors_NE: FloatArray, width: int, config: ItemTableConfig, draw: np.random.Generator) -> FloatArray:
    """float32[N, D]: the vectors in D dimensions; zero rows, which stand for no vector, stay zero.

    Projected are the directions with the largest sum of squares about the origin (or, with `center`, about the
    mean), which of all choices of D directions keep inner products best (Eckart and Young, 1936); up to E ≤ D none
    is lost. What is left is turned at random, which changes no cosine, so that all columns spread alike as in a
    random start: principal directions as columns would put most of an item into the first few of them.
    """
    count, own = vectors_NE.shape
    out_ND = np.zeros((count, width), np.float32)
    if config.fit == "truncate":
        kept = min(own, width)
        out_ND[:, :kept] = vectors_NE[:, :kept]
        return out_ND
    present = np.flatnonzero(vectors_NE.any(axis=1))
    if config.center and len(present):
        vectors_NE[present] -= vectors_NE[present].mean(axis=0, dtype=np.float64).astype(np.float32)
    basis_ED = _principal_directions(vectors_NE, width)
    turn_DD = np.linalg.qr(draw.standard_normal((width, width)))[0][: basis_ED.shape[1]]
    return vectors_NE @ (basis_ED @ turn_DD).astype(np.float32)


def _principal_directions(vectors_NE: FloatArray, width: int) -> FloatArray:
    """float64[E, min(D, E)], orthonormal directions along which the rows are longest, the longest first.

    >>> np.abs(_principal_directions(np.array([[0.0, 2.0], [0.0, -1.0], [0.5, 0.0]]), 1)).tolist()
    [[0.0], [1.0]]
    """
    products_EE = np.zeros((vectors_NE.shape[1],) * 2)
    for start in range(0, len(vectors_NE), PIECE):
        piece = vectors_NE[start : start + PIECE].astype(np.float64)
        products_EE += piece.T @ piece
    directions = np.linalg.eigh(products_EE)[1][:, ::-1][:, :width]
    # The sign of a direction is anybody's choice; make it the same on every machine.
    signs = np.sign(directions[np.abs(directions).argmax(axis=0), np.arange(directions.shape[1])])
    return directions * signs


def _mean_of_neighbours(missing: IntArray, vectors_ND: FloatArray, events: Histories) -> FloatArray:
    """float32[M, D]: mean vector of the events beside which each item occurs; 0 where no such event has a vector."""
    events_UN = sparse.csr_matrix(
        (np.ones(len(events.rows), np.float32), (events.owners, events.rows)), shape=(len(events), len(vectors_ND))
    )
    present_N1 = vectors_ND.any(axis=1, keepdims=True).astype(np.float32)
    # By user first: the matrix of all pairs of items would be far larger than either factor.
    users_MU = events_UN[:, missing].T
    sums_MD, counts_M1 = users_MU @ (events_UN @ vectors_ND), users_MU @ (events_UN @ present_N1)
    return (sums_MD / np.maximum(counts_M1, 1)).astype(np.float32)
