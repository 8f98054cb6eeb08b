"""The catalogue's constraint inside somebody else's `generate` loop.

`TrieLogitsProcessor` gives transformers' own searches the children in the same trie that ours walks, so
whoever owns a loop keeps it, and our search has a slow reference. All rows are looked up at once; nothing is
remembered between steps, because beams change places. Left out: exclusions of single users, the certificate.

What a processor cannot see is the score of a beam. In transformers 5.23 a beam search never has to go on with
a row off the catalogue: a node with fewer children than beams fills them with repeats at -1e9, which are
prefixes of items too. Rows off the catalogue come in where fewer candidates than beams have any probability:
in beam *sampling* the repeats have none, and a model may rule out codes. Their score is -inf, and they stay
there because all that follows them is -inf here. So with `num_beams` told, a user's rows are an error only
when all of them are lost; otherwise every lost row is.
"""

from collections.abc import Sequence
from typing import Any

import numpy as np
import torch
from torch import Tensor
from transformers import GenerationConfig, LogitsProcessor, PreTrainedModel

from sidrec.data.sequences import positions_within
from sidrec.decoding.filters import TrieMasks, combined
from sidrec.decoding.trie import ItemTrie
from sidrec.errors import ConstraintError, DataError
from sidrec.types import BoolArray, IntArray

__all__ = ["TrieLogitsProcessor"]


class TrieLogitsProcessor(LogitsProcessor):
    """Leaves of a model's scores only those of tokens that go on spelling an item; all others become -inf.

    After the L codes it allows the end token alone, after that padding alone. Works for decoder-only models
    (prompts padded on the left) and encoder-decoders, for greedy and beam search and for sampling.

    Args:
        trie: the items that can be generated.
        level_token_ids: for each level int64[K], the token ids of its codes (any ids, in any order).
        end_token_id: what the model writes after the L codes; None where it writes nothing.
        pad_token_id: what `generate` writes behind a finished row; the end token where it is None.
        prompt_length: tokens in front of the codes (1 for an encoder-decoder); None takes it from the first
            call, and the processor then serves one search.
        num_beams: rows of a user, of which some may be fillers; 1 where every row stands for itself.
        allowed: bool[N], items that may be generated; None means all.

    Raises:
        DataError: token ids do not fit the trie or are not distinct, or there is no beam.
        ConstraintError: the allow-list holds no item of the trie.
    """

    supports_continuous_batching = False

    def __init__(
        self,
        trie: ItemTrie,
        level_token_ids: Sequence[Tensor],
        *,
        end_token_id: int | None = None,
        pad_token_id: int | None = None,
        prompt_length: int | None = None,
        num_beams: int = 1,
        allowed: BoolArray | None = None,
    ) -> None:
        lists = combined(allowed, None, num_users=1, num_items=trie.num_rows)
        self.trie, self._allowed = trie, None if lists is None else lists.masks[0]
        self._held = None if lists is None else TrieMasks.of(trie, lists.masks).held
        self.end_token_id = end_token_id
        self.pad_token_id = end_token_id if pad_token_id is None else pad_token_id
        if num_beams < 1:
            raise DataError(f"num_beams is {num_beams}", expected="at least 1")
        self.prompt_length, self.num_beams = prompt_length, num_beams
        self._tokens = [ids.cpu().numpy().astype(np.int64) for ids in level_token_ids]
        special = [token for token in (end_token_id, pad_token_id) if token is not None]
        self._codes_LV = _codes_of_tokens(self._tokens, trie.sizes, special)
        self._is_one_search = prompt_length is None
        self._last_shape: torch.Size | None = None

    @property
    def num_tokens(self) -> int:
        """Tokens of an item: L, and the end token."""
        return self.trie.num_levels + int(self.end_token_id is not None)

    def generation_config(
        self, model: PreTrainedModel, *, do_sample: bool = False, num_return_sequences: int | None = None
    ) -> GenerationConfig:
        """Settings under which `generate` searches with this constraint, and nothing else.

        Scores are plain sums of log-probabilities. Unlike any other configuration this one takes over nothing
        from `model.generation_config` but the tokens with which a decoder begins: no temperature, penalty,
        forced or suppressed token. Change what it returns for a setting that you do want.

        Args:
            model: whose `generate` will be called.
            do_sample: sample instead of taking the best.
            num_return_sequences: lists of tokens a user; all beams where it is None.
        """
        own = model.generation_config or GenerationConfig()
        searched: dict[str, Any] = {"early_stopping": True, "length_penalty": 0.0} if self.num_beams > 1 else {}
        return _UnmergedConfig(
            max_new_tokens=self.num_tokens,
            num_beams=self.num_beams,
            num_return_sequences=num_return_sequences or self.num_beams,
            do_sample=do_sample,
            use_cache=True,
            output_scores=True,
            return_dict_in_generate=True,
            pad_token_id=self.pad_token_id,
            eos_token_id=self.end_token_id,
            bos_token_id=own.bos_token_id,
            decoder_start_token_id=own.decoder_start_token_id,
            **searched,
        )

    def rows_of(self, sequences: Tensor) -> list[IntArray]:
        """For each of R generated sequences the catalogue rows that it spells, in row order.

        Items that share their codes come together. Where there are fewer items than beams, `generate` fills up
        with rows that score -1e9 or less: repeats of items, and in beam sampling rows that spell none.

        Args:
            sequences: int64[R, T] with the prompt in front, as `generate` returns them.
        """
        if self.prompt_length is None:
            raise DataError("no prompt was seen yet", next="give prompt_length, or call this after generate")
        trie = self.trie
        written = sequences[:, self.prompt_length :][:, : trie.num_levels].cpu().numpy()
        if written.shape[1] < trie.num_levels:
            return [trie.rows[:0]] * len(written)
        leaves = self._nodes_of(written)
        found = [
            trie.rows[trie.item_ptr[leaf] : trie.item_ptr[leaf + 1]] if leaf >= 0 else trie.rows[:0] for leaf in leaves
        ]
        return found if self._allowed is None else [rows[self._allowed[rows]] for rows in found]

    def __call__(self, input_ids: Tensor, scores: Tensor) -> Tensor:
        """The scores float[R, V] with -inf at every token that may not follow.

        Args:
            input_ids: int64[R, T], prompts and what was written behind them.
            scores: float[R, V] of the next token.

        Raises:
            ConstraintError: a row (with `num_beams`, all rows of a user) is no prefix of an item, nothing can
                follow it, or the model holds everything that can for impossible.
            DataError: shapes that do not fit, or a second search by a processor without `prompt_length`.
        """
        written_RT = input_ids[:, self._prompt_end(input_ids) :].cpu().numpy()
        if scores.shape[1] < self._codes_LV.shape[1] or len(scores) % self.num_beams:
            raise DataError(
                f"scores of shape {tuple(scores.shape)} for codes up to token {self._codes_LV.shape[1] - 1} "
                f"and {self.num_beams} beams",
                expected="a column for every token and num_beams rows for every user",
            )
        finished_R = self._is_finished(written_RT)
        nodes_R = np.where(finished_R, -1, self._nodes_of(written_RT[:, : self.trie.num_levels]))
        rows, tokens = self._following(nodes_R, written_RT.shape[1])
        index = torch.from_numpy(rows).to(scores.device), torch.from_numpy(tokens).to(scores.device)
        out = torch.full_like(scores, -torch.inf)
        out[index] = scores[index]
        if finished_R.any():
            out[torch.from_numpy(finished_R).to(scores.device), self.pad_token_id] = 0
        is_open_UW = (out > -torch.inf).any(1).view(-1, self.num_beams)
        if not is_open_UW.any(1).all():
            lost = int((~is_open_UW.any(1)).nonzero()[0, 0]) * self.num_beams
            raise self._lost(lost, written_RT[lost], is_prefix=bool(nodes_R[lost] >= 0))
        return out

    def _prompt_end(self, input_ids: Tensor) -> int:
        """Where the codes begin; without `prompt_length` this holds for one search, told by its first call."""
        rows, width = input_ids.shape
        if self._is_one_search:
            if self._last_shape is None:
                self.prompt_length = width
            elif (rows, width - 1) != self._last_shape:
                raise DataError(
                    f"a search of {self._last_shape[0]} rows that were {self._last_shape[1]} tokens long goes on "
                    f"with {rows} rows of {width}",
                    expected="one token more in the same rows, since prompt_length was not given",
                    next="make a new processor for every search, or give prompt_length",
                )
            self._last_shape = input_ids.shape
        assert self.prompt_length is not None
        if width < self.prompt_length:
            raise DataError(f"rows of {width} tokens", expected=f"a prompt of {self.prompt_length} in front")
        return self.prompt_length

    def _nodes_of(self, written_RT: IntArray) -> IntArray:
        """int64[R], nodes that the tokens of the first T levels lead to; -1 where no allowed item begins so."""
        nodes_R = self.trie.nodes_of(self._codes(written_RT))
        if self._held is None:
            return nodes_R
        return np.where(self._held[written_RT.shape[1]][0, nodes_R], nodes_R, -1)

    def _codes(self, written_RT: IntArray) -> IntArray:
        """int64[R, T], the codes of the tokens of the first T levels; -1 where a token is none of its level's."""
        clipped_RT = written_RT.clip(0, self._codes_LV.shape[1] - 1)
        codes_RT = self._codes_LV[np.arange(written_RT.shape[1]), clipped_RT]
        return np.where(clipped_RT == written_RT, codes_RT, -1)

    def _is_finished(self, written_RT: IntArray) -> BoolArray:
        """bool[R], rows that the loop only keeps: ended behind the last code, or padded by the loop before."""
        num_written, levels = written_RT.shape[1], self.trie.num_levels
        out = np.zeros(len(written_RT), np.bool_)
        if num_written > 1:
            out |= written_RT[:, -1] == self.pad_token_id
        if num_written > levels:
            out |= written_RT[:, levels] == self.end_token_id
        return out

    def _following(self, nodes_R: IntArray, num_written: int) -> tuple[IntArray, IntArray]:
        """Pairs (row, token), both int64[M], of what may follow rows at these nodes; nothing follows node -1."""
        levels = self.trie.num_levels
        rows = np.flatnonzero(nodes_R >= 0)
        if num_written < levels:
            ptr = self.trie.child_ptr[num_written]
            first, counts = ptr[nodes_R[rows]], np.diff(ptr)[nodes_R[rows]]
            rows, children = np.repeat(rows, counts), np.repeat(first, counts) + positions_within(counts)
            if self._held is not None:
                wanted = self._held[num_written + 1][0, children]
                rows, children = rows[wanted], children[wanted]
            return rows, self._tokens[num_written][self.trie.codes[num_written][children]]
        if num_written > levels or self.end_token_id is None:
            rows = rows[:0]
        return rows, np.full(len(rows), self.end_token_id or 0)

    def _lost(self, row: int, written: IntArray, *, is_prefix: bool) -> ConstraintError:
        """Why a row cannot go on."""
        where = f"row {row} of generate, tokens {written.tolist()} after a prompt of {self.prompt_length}"
        if not is_prefix:
            return ConstraintError(
                "a row is no prefix of an item",
                where=where,
                expected="tokens that this processor allowed",
                next="check prompt_length and level_token_ids; beam sampling needs num_beams, see sidrec.decoding.hf",
            )
        if len(written) >= self.num_tokens:
            return ConstraintError(
                "nothing can follow a whole item",
                where=where,
                expected=f"{self.num_tokens} new tokens",
                next="give the end_token_id that the model was trained with" if self.end_token_id is None else "",
            )
        return ConstraintError(
            "the model holds everything that can follow for impossible",
            where=where,
            expected="a finite log-probability of one child at least",
            next="look for NaN or -inf in the logits, and for processors in front of this one",
        )


class _UnmergedConfig(GenerationConfig):
    """A configuration whose unset values stay unset.

    `generate` (5.23, `_prepare_generation_config`) fills every None from `model.generation_config`. For half
    of the settings None is the only neutral value there is (forced tokens, bad words, length decay, watermark).
    """

    def update(self, defaults_only: bool = False, allow_custom_entries: bool = False, **kwargs: Any) -> dict[str, Any]:
        """Take over what a caller sets; ignore what would only fill gaps. Returns what was not used."""
        return kwargs if defaults_only else super().update(allow_custom_entries=allow_custom_entries, **kwargs)


def _codes_of_tokens(level_tokens: Sequence[IntArray], sizes: tuple[int, ...], special: list[int]) -> IntArray:
    """int32[L, V], the code of each token at each level, -1 where it is none; V is one past the highest of them."""
    found = tuple(len(tokens) for tokens in level_tokens)
    if found != sizes:
        raise DataError(f"token ids for levels of {found} codes, a trie of {sizes}", expected="an id for every code")
    out = np.full((len(sizes), 1 + max(int(tokens.max()) for tokens in level_tokens)), -1, np.int32)
    for level, tokens in enumerate(level_tokens):
        if tokens.min() < 0 or len(np.unique(tokens)) < len(tokens) or np.isin(tokens, special).any():
            raise DataError(
                f"token ids of level {level + 1} are not usable",
                expected="distinct ids, at least 0, of which none is the end or padding token",
            )
        out[level, tokens] = np.arange(len(tokens))
    return out
