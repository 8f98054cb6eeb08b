"""Log-probabilities of given code paths, with gradients: what a search scores, in one forward pass.

The searches' scorers walk a tree of prefixes without gradients; here the codes are known beforehand
(teacher forcing). Values equal those of a beam search with the same normalisation. Left out: sharing a
prompt among several paths of one history in causal models, which read it once a path.

Legend: B histories · M paths a history · L levels · S steps (L, and one more where a model writes an end token).
"""

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
import torch
from torch import Tensor
from transformers import PreTrainedModel

from sidrec.decoding.paths import child_mask
from sidrec.decoding.recommendations import Normalize
from sidrec.decoding.trie import ItemTrie
from sidrec.recommenders.code_head import CodeHead
from sidrec.tasks.next_item import Prompts
from sidrec.types import IntArray

__all__ = ["path_log_probs", "summed_log_probs"]


def path_log_probs(
    model: PreTrainedModel,
    level_token_ids: Sequence[Tensor],
    prompts: Prompts,
    codes_BML: IntArray,
    normalize: Normalize,
    trie: ItemTrie,
) -> Tensor:
    """Sums float32[B, M] of the log-probabilities of paths of codes.

    Args:
        model: a T5, or a causal language model that writes one token a level after its prompt.
        level_token_ids: for each level int64[K], the token ids of its codes.
        prompts: of B histories, padded on either side.
        codes_BML: int[B, M, L], the paths; each is one of an item.
        normalize: as in `BeamConfig`; over the "vocabulary", a T5 writes the end token too.
        trie: the paths of all items, whose children "children" is about.
    """
    config: Any = model.config
    has_end = bool(config.is_encoder_decoder) and normalize == "vocabulary"
    levels = [ids.to(model.device) for ids in level_token_ids]
    paths_BML = torch.from_numpy(codes_BML.astype(np.int64)).to(model.device)
    tokens_BML = torch.stack([ids[paths_BML[..., level]] for level, ids in enumerate(levels)], dim=-1)
    states = _decoder_states if config.is_encoder_decoder else _causal_states
    hidden_BMSD = states(model, prompts, tokens_BML if has_end else tokens_BML[..., :-1])
    end = [torch.tensor([config.eos_token_id], device=model.device)] if has_end else []
    output: Any = model.get_output_embeddings()
    scale = config.d_model**-0.5 if getattr(config, "scale_decoder_outputs", False) else 1.0
    head = CodeHead(output.weight * scale, output.bias, [*levels, *end], over_vocabulary=normalize == "vocabulary")
    total_BM = summed_log_probs(head, hidden_BMSD, codes_BML, normalize, trie)
    return total_BM + head(hidden_BMSD[:, :, -1], len(levels))[..., 0] if has_end else total_BM


def summed_log_probs(
    head: Callable[[Tensor, int], Tensor],
    states_BMSD: Tensor,
    codes_BML: IntArray,
    normalize: Normalize,
    trie: ItemTrie,
) -> Tensor:
    """Sums float32[B, M] of the log-probabilities of paths of codes by the states before each of their codes.

    Args:
        head: states float[B, M, D] before the codes of a level, and the level → log-probabilities [B, M, K].
        states_BMSD: S is L or more.
        codes_BML: int[B, M, L], the paths; each is one of an item.
        normalize: as in `BeamConfig`; what the head does not do is only "children".
        trie: the paths of all items.
    """
    paths_BML = torch.from_numpy(codes_BML.astype(np.int64)).to(states_BMSD.device)
    total_BM = torch.zeros(paths_BML.shape[:2], device=states_BMSD.device)
    for level in range(paths_BML.shape[2]):
        logp_BMK = head(states_BMSD[:, :, level], level)
        taken_BM = logp_BMK.gather(-1, paths_BML[..., level : level + 1])[..., 0]
        if normalize == "children":
            is_child_BMK = torch.from_numpy(child_mask(trie, codes_BML, level)).to(logp_BMK.device)
            taken_BM = taken_BM - logp_BMK.masked_fill(~is_child_BMK, -torch.inf).logsumexp(-1)
        total_BM = total_BM + taken_BM
    return total_BM


def _decoder_states(model: Any, prompts: Prompts, written_BMT: Tensor) -> Tensor:
    """Hidden states [B, M, T + 1, D] of a decoder that has written nothing, one token, …; the encoder runs once."""
    mask_BS = prompts.mask_BT.to(model.device)
    read_BSD = model.get_encoder()(input_ids=prompts.tokens_BT.to(model.device), attention_mask=mask_BS)[0]
    num_paths = written_BMT.shape[1]
    start_BM1 = written_BMT.new_full((*written_BMT.shape[:2], 1), model.config.decoder_start_token_id)
    tokens_BMT = torch.cat([start_BM1, written_BMT], dim=-1)
    states = model.get_decoder()(
        input_ids=tokens_BMT.flatten(0, 1),
        encoder_hidden_states=read_BSD.repeat_interleave(num_paths, dim=0),
        encoder_attention_mask=mask_BS.repeat_interleave(num_paths, dim=0),
        use_cache=False,
    )[0]
    return states.unflatten(0, written_BMT.shape[:2])


def _causal_states(model: Any, prompts: Prompts, written_BMT: Tensor) -> Tensor:
    """Hidden states [B, M, T + 1, D] of the last prompt token and of each written one.

    What is written stands behind the prompt's padding, which no token sees and no position counts.
    """
    num_paths, num_written = written_BMT.shape[1:]
    prompt_XS, mask_XS = (
        part.to(model.device).repeat_interleave(num_paths, dim=0) for part in (prompts.tokens_BT, prompts.mask_BT)
    )
    mask = torch.cat([mask_XS, mask_XS.new_ones(len(mask_XS), num_written)], dim=1)
    states = model.base_model(
        input_ids=torch.cat([prompt_XS, written_BMT.flatten(0, 1)], dim=1),
        attention_mask=mask,
        position_ids=(mask.cumsum(1) - 1).clamp(min=0),
        use_cache=False,
    )[0]
    width = mask_XS.shape[1]
    last_X = (mask_XS * torch.arange(1, width + 1, device=model.device)).argmax(1)
    first = states[torch.arange(len(last_X), device=model.device), last_X][:, None]
    return torch.cat([first, states[:, width:]], dim=1).unflatten(0, written_BMT.shape[:2])
