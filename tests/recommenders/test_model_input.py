"""What all scorers refuse: tokens that the model does not have, prompts of nothing, dropout."""

from typing import Any

import pytest
import torch
from transformers import LlamaConfig, LlamaForCausalLM, T5Config, T5ForConditionalGeneration

from sidrec.data.sequences import Histories
from sidrec.errors import DataError
from sidrec.recommenders.causal_scorer import CausalScorer
from sidrec.recommenders.encoder_decoder_scorer import EncoderDecoderScorer
from sidrec.recommenders.expanded_scorer import ExpandedScorer
from sidrec.tasks.next_item import Prompts

VOCABULARY = 20
LEVELS = [torch.tensor([7, 3]), torch.tensor([19, 4, 0])]
TWO_USERS = Histories.of([[], []])
SCORERS: list[Any] = [CausalScorer, ExpandedScorer, EncoderDecoderScorer]


def model_for(kind: Any) -> Any:
    if kind is EncoderDecoderScorer:
        small = {"d_model": 8, "d_kv": 4, "d_ff": 8, "num_layers": 1, "num_heads": 2, "decoder_start_token_id": 0}
        return T5ForConditionalGeneration(T5Config(vocab_size=VOCABULARY, **small)).eval()
    small = {"hidden_size": 8, "intermediate_size": 8, "num_hidden_layers": 1, "num_attention_heads": 2}
    return LlamaForCausalLM(LlamaConfig(vocab_size=VOCABULARY, **small)).eval()


def prompts(tokens: list[list[int]], mask: list[list[int]]) -> Any:
    return lambda _: Prompts(torch.tensor(tokens), torch.tensor(mask))


GOOD = prompts([[5, 6], [0, 7]], [[1, 1], [0, 1]])


@pytest.mark.parametrize("kind", SCORERS)
def test_tokens_that_the_model_does_not_have(kind):
    model = model_for(kind)
    with pytest.raises(DataError, match="the tokens of level 2 run from 3 to 20") as found:
        kind(model, [LEVELS[0], torch.tensor([3, 20])], GOOD)
    assert "resize_token_embeddings" in found.value.next
    with pytest.raises(DataError, match="run from -1"):
        kind(model, [torch.tensor([-1, 2])], GOOD)
    with pytest.raises(DataError, match="codes of level 1 share a token"):
        kind(model, [torch.tensor([4, 5, 4])], GOOD)


@pytest.mark.parametrize("kind", SCORERS)
@pytest.mark.parametrize(
    ("build_prompt", "message"),
    [
        (prompts([[5, 6], [0, 0]], [[1, 1], [0, 0]]), "the prompt of history 2 is empty"),
        (prompts([[5, 6], [0, 20]], [[1, 1], [0, 1]]), "tokens of prompts run from 0 to 20"),
        (prompts([[5, 6], [-100, 7]], [[1, 1], [0, 1]]), "tokens of prompts run from -100 to 7"),
        (prompts([[5, 6]], [[1, 1]]), r"prompts of shape \(1, 2\)"),
        (prompts([[5, 6], [0, 7]], [[1, 1, 1], [0, 1, 1]]), r"with a mask of shape \(2, 3\)"),
    ],
)
def test_prompts_that_cannot_be_read(kind, build_prompt, message):
    scorer = kind(model_for(kind), LEVELS, build_prompt)
    with pytest.raises(DataError, match=message):
        scorer.start(TWO_USERS)


@pytest.mark.parametrize("kind", SCORERS)
def test_a_model_in_training_mode(kind):
    model = model_for(kind)
    scorer = kind(model, LEVELS, GOOD)
    scorer.start(TWO_USERS)
    model.train()
    with pytest.raises(DataError, match="training mode"):
        scorer.start(TWO_USERS)
