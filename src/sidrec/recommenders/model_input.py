"""What every scorer is given, checked: the tokens of the codes, and prompts.

A token that a model does not have kills a process on a GPU, a prompt of padding alone gives scores of nothing,
and dropout gives other scores at every call. All three are errors here, in words.
"""

from collections.abc import Callable, Sequence
from typing import Any

from torch import Tensor
from transformers import PreTrainedModel

from sidrec.data.sequences import Histories
from sidrec.errors import DataError
from sidrec.tasks.next_item import Prompts

__all__ = ["level_tokens", "read_prompts"]

RESIZE = "add the tokens to the tokenizer, then call model.resize_token_embeddings(len(tokenizer))"


def level_tokens(model: PreTrainedModel, level_token_ids: Sequence[Tensor]) -> list[Tensor]:
    """For each level int64[K], the tokens of its codes, on the model's device.

    Raises:
        DataError: the codes of a level are not distinct tokens of the model.
    """
    size = _num_tokens(model)
    for level, ids in enumerate(level_token_ids, start=1):
        if int(ids.min()) < 0 or int(ids.max()) >= size:
            raise DataError(
                f"the tokens of level {level} run from {int(ids.min())} to {int(ids.max())}",
                expected=f"tokens of the model, 0 to {size - 1}",
                next=RESIZE,
            )
        if len(ids.unique()) < len(ids):
            raise DataError(f"codes of level {level} share a token", expected="a token for every code")
    return [ids.to(model.device) for ids in level_token_ids]


def read_prompts(
    model: PreTrainedModel, build_prompt: Callable[[Histories], Prompts], histories: Histories
) -> tuple[Tensor, Tensor]:
    """Tokens int64[U, S] or [U, S, L] of the prompts, and which positions are real, bool[U, S], on the model's device.

    Raises:
        DataError: the model is in training mode, or the prompts are not what it can read.
    """
    if model.training:
        raise DataError(
            "the model is in training mode: dropout would change its scores", expected="a model after model.eval()"
        )
    prompts = build_prompt(histories)
    tokens_US, mask_US = prompts.tokens_BT, prompts.mask_BT > 0
    if tokens_US.shape[:2] != mask_US.shape or len(tokens_US) != len(histories):
        raise DataError(
            f"prompts of shape {tuple(tokens_US.shape)} with a mask of shape {tuple(mask_US.shape)}",
            expected=f"both of one shape, with a row for each of {len(histories)} histories",
        )
    has_token_U = mask_US.any(1)
    if not bool(has_token_U.all()):
        raise DataError(
            f"the prompt of history {int(has_token_U.int().argmin()) + 1} is empty",
            expected="at least one token, such as the begin token",
        )
    if int(tokens_US.min()) < 0 or int(tokens_US.max()) >= _num_tokens(model):
        raise DataError(
            f"tokens of prompts run from {int(tokens_US.min())} to {int(tokens_US.max())}",
            expected=f"tokens of the model, 0 to {_num_tokens(model) - 1}; padding too",
            next=RESIZE,
        )
    return tokens_US.to(model.device), mask_US.to(model.device)


def _num_tokens(model: PreTrainedModel) -> int:
    embeddings: Any = model.get_input_embeddings()
    return len(embeddings.weight)
