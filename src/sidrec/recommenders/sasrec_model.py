"""The network of SASRec and its training examples. Leaves out ranking, files and settings of a run.

SASRec: Kang and McAuley, 2018, arXiv:1808.09781; with the full softmax of Klenitskiy and Vasilev, 2023,
arXiv:2309.07602, instead of sampled negatives. Positions, feed-forward, norms, table and objective are slots of the
configuration. Importing this module makes `AutoModel.from_pretrained` know the weights. There is no cache of keys and
values: a ranking reads each history once.
"""

import math
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional as F
from transformers import AutoConfig, AutoModel, PreTrainedModel
from transformers.modeling_outputs import ModelOutput

from sidrec.config import parse
from sidrec.errors import ConfigError, DataError
from sidrec.recommenders.sasrec_layers import HAS_TABLE, NORMS, Block, SASRecModelConfig, Sight, chosen, draw_weights
from sidrec.tasks.windows import Windows
from sidrec.training.item_loss import ObjectiveConfig, item_loss
from sidrec.training.log_partition import log_partition
from sidrec.training.objectives import IGNORE, item_scores
from sidrec.types import IntArray

__all__ = ["SASRecExamples", "SASRecModel", "SASRecModelConfig"]


@dataclass
class SASRecOutput(ModelOutput):
    """Loss, where labels were given, and the last layer's states float[B, T, D]."""

    loss: Tensor | None = None
    hidden: Tensor | None = None


class SASRecModel(PreTrainedModel):
    """A causal transformer over item rows; the item table is input and, unless it is untied, output.

    Row numbers from `num_items` on are special and inputs only, never recommended. With `begin`, the row
    `bos_token_id` (where the configuration names none, the first special one) stands before every history. The buffer
    `popularity` float[N] answers for an empty history; `target_counts` float[N], which only a model that learns by
    in-batch negatives has, holds how often each item is a training target.

    Raises:
        ConfigError: a slot of the configuration names nothing that there is, or the token that begins has no row.
    """

    config_class = SASRecModelConfig
    _supports_sdpa = True
    popularity: Tensor
    target_counts: Tensor | None

    def __init__(self, config: SASRecModelConfig) -> None:
        super().__init__(config)
        self.objective = parse(ObjectiveConfig, config.objective or {}, where="objective")
        self.items = nn.Embedding(config.num_items + config.special_rows, config.hidden_size)
        self.begin = config.num_items if config.bos_token_id is None else config.bos_token_id
        if config.begin and self.begin >= len(self.items.weight):
            raise ConfigError(
                f"token {self.begin} begins a history and has no row", next="set special_rows to 1 or more"
            )
        self.positions = None
        if chosen(HAS_TABLE, config, "positions"):
            self.positions = nn.Embedding(config.max_history + config.begin, config.hidden_size)
        self.blocks = nn.ModuleList(Block(config) for _ in range(config.num_layers))
        self.norm = chosen(NORMS, config, "final_norm")(config.hidden_size, eps=config.norm_eps)
        self.outputs = None if config.tied else nn.Linear(config.hidden_size, config.num_items, bias=False)
        self.dropout = nn.Dropout(config.dropout)
        self.register_buffer("popularity", torch.zeros(config.num_items))
        in_batch = self.objective.negatives == "in_batch"
        self.register_buffer("target_counts", torch.ones(config.num_items) if in_batch else None)
        self.post_init()

    def _init_weights(self, module: nn.Module) -> None:
        draw_weights(module)

    @property
    def tables(self) -> list[Tensor]:
        """The parameters with rows of items: inputs float[N + special rows, D] and, if untied, outputs float[N, D]."""
        return [self.items.weight] + ([] if self.outputs is None else [self.outputs.weight])

    @property
    def output_table(self) -> Tensor:
        """float[N, D], what the last state is multiplied with to score items."""
        if self.outputs is not None:
            return self.outputs.weight
        return self.items.weight[: self.config.num_items] if self.config.special_rows else self.items.weight

    def forward(
        self,
        input_ids: Tensor,
        attention_mask: Tensor | None = None,
        position_ids: Tensor | None = None,
        labels: Tensor | None = None,
    ) -> SASRecOutput:
        """States of all positions and, with labels, the mean loss of the objective (and of experts' balance).

        Args:
            input_ids: int64[B, T] item rows, any row where there is none; under a mask any number, such
                as the padding token of the item tokenizer, which has no row.
            attention_mask: bool or int[B, T], 0 where there is no item; may be left out where histories are filled
                up on the right, because no earlier position sees what follows. Without it the padding token is masked.
            position_ids: int64[B, T] place of each item in its history; by default items are counted from 0.
            labels: int64[B, T] the item after each position, `IGNORE` where it is no training target.

        Raises:
            DataError: an id has no row, or a history is longer than the table of positions.
        """
        input_ids, attention_mask = self._rows(input_ids, attention_mask)
        begin = self.config.begin
        if begin:
            input_ids = F.pad(input_ids, (1, 0), value=self.begin)
            attention_mask = None if attention_mask is None else F.pad(attention_mask, (1, 0), value=1)
            position_ids = None if position_ids is None else F.pad(position_ids + 1, (1, 0), value=0)
        places, sight = self._sight(input_ids, attention_mask, position_ids)
        states = self.items(input_ids)
        if self.config.scale_inputs:
            states = states * self.config.hidden_size**0.5
        if self.positions is not None:
            states = states + self.positions(places)
        states = self.dropout(states)
        balances: list[Tensor] = []
        for block in self.blocks:
            states, balance = block(states, sight)
            balances += [] if balance is None else [balance]
        states = self.norm(states[:, 1:] if begin else states)
        if labels is None:
            return SASRecOutput(hidden=states)
        loss = item_loss(self.objective, states, self.output_table, labels, self.popularity, self.target_counts)
        if balances:
            loss = loss + self.config.balance_weight * torch.stack(balances).mean()
        return SASRecOutput(loss=loss, hidden=states)

    def _rows(self, input_ids: Tensor, mask: Tensor | None) -> tuple[Tensor, Tensor | None]:
        """Ids that all have a row, and the mask of those that are items."""
        if mask is None and (padding := self.config.pad_token_id) is not None:
            is_padding = input_ids == padding
            mask = ~is_padding if bool(is_padding.any()) else None
        rows = input_ids if mask is None else input_ids.masked_fill(mask == 0, 0)
        if not rows.numel():
            return rows, mask
        lowest, highest = (int(end) for end in rows.aminmax())
        num_rows, num_items = len(self.items.weight), self.config.num_items
        if lowest < 0 or highest >= num_rows:
            raise DataError(
                f"there is no row for the id {lowest if lowest < 0 else highest}",
                where=f"input_ids of a model with {num_items} items and {num_rows - num_items} special rows",
                expected="rows of items, or a mask of 0 where there is none",
                next="leave out items that are unknown, or train with special_rows: 4 to give every token a row",
            )
        return rows, mask

    def _sight(self, input_ids: Tensor, mask: Tensor | None, places: Tensor | None) -> tuple[Tensor, Sight]:
        """The places int64[T] or [B, T] of a batch in its histories, and what its layers must know."""
        length, device = input_ids.shape[1], input_ids.device
        real_BT = None if mask is None else mask.bool()
        sees, given = None, places
        if real_BT is not None and (_has_gaps(real_BT) or length > self._longest):
            itself = torch.eye(length, dtype=torch.bool, device=device)
            causal = torch.ones(length, length, dtype=torch.bool, device=device).tril()
            # Padding sees itself: a row that sees nothing would be no number.
            sees = (causal & real_BT[:, None, :] | itself)[:, None]
            places = (real_BT.long().cumsum(dim=1) - 1).clamp(min=0) if places is None else places
        if places is None:
            places = torch.arange(length, device=device)
        if given is not None or length > self._longest:
            self._check_places(places, given is not None)
        return places, Sight(sees, self._turn(places), real_BT, self.config.begin)

    def _check_places(self, places: Tensor, given: bool) -> None:
        """Refuse places that the table of positions does not have; the token that begins is no item."""
        begin = int(self.config.begin)
        of_items = places[..., begin:] - begin
        if self.positions is None or not of_items.numel():
            return
        (first, last), number = (int(end) for end in of_items.aminmax()), self.positions.num_embeddings - begin
        if first < 0 or last >= number:
            found = f"position_ids run from {first} to {last}" if given else f"a history has {last + 1} items"
            raise DataError(
                f"{found} and there are {number} learned positions",
                next="cut histories to their latest items, or use rotary positions",
            )

    @property
    def _longest(self) -> float:
        """Positions that there are; rotary ones have no end."""
        return math.inf if self.positions is None else self.positions.num_embeddings

    def _turn(self, places: Tensor) -> tuple[Tensor, Tensor] | None:
        """Cosines and sines of rotary positions (Su et al., 2021, arXiv:2104.09864, section 3.2), in float32."""
        config = self.config
        if self.positions is not None:
            return None
        half = (config.head_width or config.hidden_size // config.num_heads) // 2
        speeds = config.rope_theta ** (-torch.arange(half, dtype=torch.float32, device=places.device) / half)
        angles = places.float().reshape(-1, 1, places.shape[-1], 1) * speeds
        return angles.cos(), angles.sin()

    def scores(self, input_ids: Tensor, lengths_B: Tensor) -> Tensor:
        """float32[B, N]: logits of the next item after histories of the given lengths (0 allowed)."""
        if input_ids.shape[1] == 0:
            return self.popularity.repeat(len(input_ids), 1)
        logits = (self._last(input_ids, lengths_B) @ self.output_table.T).float()
        return torch.where(lengths_B[:, None] > 0, logits, self.popularity)

    def log_probs(self, input_ids: Tensor, lengths_B: Tensor, rows_BM: Tensor, max_logits: int) -> Tensor:
        """float32[B, M]: log-softmax of `scores` over all items, at some of them; `max_logits` are held at once."""
        popular_BM = self.popularity.log_softmax(-1)[rows_BM]
        if input_ids.shape[1] == 0:
            return popular_BM
        last_BD, table_ND = self._last(input_ids, lengths_B), self.output_table
        total_B = log_partition(last_BD, table_ND, slice_size=max(1, max_logits // len(last_BD)))
        logp_BM = item_scores(last_BD, table_ND, rows_BM) - total_B[:, None]
        return torch.where(lengths_B[:, None] > 0, logp_BM, popular_BM)

    def _last(self, input_ids: Tensor, lengths_B: Tensor) -> Tensor:
        """float[B, D], the states after the last items; without meaning where there are none."""
        hidden: Tensor = self(input_ids).hidden
        return hidden[torch.arange(len(hidden), device=hidden.device), (lengths_B - 1).clamp(min=0)]


AutoConfig.register(SASRecModelConfig.model_type, SASRecModelConfig, exist_ok=True)
AutoModel.register(SASRecModelConfig, SASRecModel, exist_ok=True)


def _has_gaps(real_BT: Tensor) -> bool:
    """Whether an item stands behind padding, where causality alone would let it see the padding."""
    return bool((real_BT[:, 1:] & ~real_BT[:, :-1]).any())


@dataclass(frozen=True)
class SASRecExamples:
    """One example a window: every event but the last is an input, labelled with the event after it.

    Attributes:
        windows: which events, and which of them are learnt.
    """

    windows: Windows

    def __len__(self) -> int:
        return len(self.windows)

    @property
    def lengths(self) -> IntArray:
        """int64[P], inputs of each example."""
        return self.windows.sizes - 1

    def collate(self, positions: IntArray) -> dict[str, Tensor]:
        """Inputs, labels and mask of some windows, filled up on the right."""
        batch = self.windows.batch(positions)
        present_BT = batch.inside_BT[:, 1:]
        rows_BT = batch.rows_BT.astype(np.int64)
        return {
            "input_ids": torch.from_numpy(np.where(present_BT, rows_BT[:, :-1], 0)),
            "attention_mask": torch.from_numpy(present_BT),
            "labels": torch.from_numpy(np.where(batch.learnt_BT[:, 1:], rows_BT[:, 1:], IGNORE)),
        }
