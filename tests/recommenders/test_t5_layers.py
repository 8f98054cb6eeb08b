"""Every kind of T5 against whole forward passes of transformers."""

from typing import Any

import numpy as np
import pytest
import torch
from tests.recommenders.generative_cases import random_walk
from transformers import (
    MT5Config,
    MT5ForConditionalGeneration,
    T5Config,
    T5ForConditionalGeneration,
    UMT5Config,
    UMT5ForConditionalGeneration,
)

from sidrec.data.sequences import Histories
from sidrec.errors import DataError
from sidrec.recommenders import attention
from sidrec.recommenders.encoder_decoder_scorer import EncoderDecoderScorer
from sidrec.tasks.next_item import Prompts
from sidrec.training.isolation import isolated_rng

VOCABULARY, START, END = 40, 0, 1
LEVELS = [torch.tensor([9, 30, 4]), torch.tensor([31, 5]), torch.tensor([8, 7, 39, 12])]
LENGTHS = (14, 3, 9)
USERS = Histories.of([[], [], []])
SMALL: dict[str, Any] = {
    "vocab_size": VOCABULARY, "d_model": 16, "d_kv": 6, "d_ff": 32, "num_heads": 4, "num_layers": 2,
    "decoder_start_token_id": START, "eos_token_id": END,
}  # fmt: skip
V11: dict[str, Any] = {"feed_forward_proj": "gated-gelu", "tie_word_embeddings": False}
VARIANTS: dict[str, tuple[Any, dict[str, Any]]] = {
    "original": (T5ForConditionalGeneration, {}),
    "v1.1": (T5ForConditionalGeneration, V11),
    "gated silu": (T5ForConditionalGeneration, {"feed_forward_proj": "gated-silu"}),
    "plain gelu": (T5ForConditionalGeneration, {"feed_forward_proj": "gelu"}),
    "more decoder layers": (T5ForConditionalGeneration, {"num_decoder_layers": 4}),
    "fewer decoder layers": (T5ForConditionalGeneration, {"num_decoder_layers": 1, **V11}),
    "few buckets": (
        T5ForConditionalGeneration,
        {"relative_attention_num_buckets": 6, "relative_attention_max_distance": 8},
    ),
    "mT5": (MT5ForConditionalGeneration, {}),
}


def build(kind: Any, settings: dict[str, Any], *, own_head: bool = False) -> Any:
    """A model with random weights, all norms and positions among them, that make scores differ."""
    configs = {T5ForConditionalGeneration: T5Config, MT5ForConditionalGeneration: MT5Config}
    with isolated_rng(0), torch.no_grad():
        model = kind(configs.get(kind, UMT5Config)(**SMALL | settings)).eval()
        if own_head:
            model.lm_head.weight = torch.nn.Parameter(torch.randn(VOCABULARY, 16))
        for name, weight in model.named_parameters():
            if weight.ndim == 1:
                weight.normal_(1.0, 0.3)
            elif "relative_attention_bias" in name:
                weight.normal_()
            else:
                weight.mul_(2.0)
    return model


def prompts(*, left: bool = False) -> Prompts:
    tokens = torch.randint(2, VOCABULARY, (3, 14), generator=torch.Generator().manual_seed(3))
    mask = (torch.arange(14) < torch.tensor(LENGTHS)[:, None]).long()
    tokens = tokens * mask
    return Prompts(tokens.flip(1), mask.flip(1)) if left else Prompts(tokens, mask)


def whole_passes(model: Any, read: Prompts, user: int, paths: list[tuple[int, ...]]) -> torch.Tensor:
    """Logits float32[W, V] after each path of a user, whose prompt is read without padding."""
    prompt = read.tokens_BT[user][read.mask_BT[user] > 0].expand(len(paths), -1)
    written = [[START, *(int(LEVELS[place][code]) for place, code in enumerate(path))] for path in paths]
    return model(input_ids=prompt, decoder_input_ids=torch.tensor(written)).logits[:, -1].float()


def assert_equals_whole_passes(model: Any, read: Prompts, normalize: Any) -> None:
    scorer = EncoderDecoderScorer(model, LEVELS, lambda _: read, normalize)
    with torch.no_grad():
        state = scorer.start(USERS)
        for level, paths, found in random_walk(scorer, state, 3, 4, np.random.default_rng(5)):
            ids = [*LEVELS, torch.tensor([END])][level]
            for user, beams in enumerate(paths):
                logits = whole_passes(model, read, user, beams)
                if normalize == "vocabulary":
                    expected = logits.log_softmax(-1)[:, ids]
                else:
                    expected = logits[:, ids].log_softmax(-1)
                torch.testing.assert_close(found[user], expected, atol=1e-4, rtol=1e-5)


@pytest.mark.parametrize("wide", [512, 0])
@pytest.mark.parametrize("left", [False, True])
@pytest.mark.parametrize("name", VARIANTS)
def test_variants_equal_whole_forward_passes(monkeypatch, name, left, wide):
    monkeypatch.setattr(attention, "WIDE_TREE", wide)
    model = build(*VARIANTS[name])
    for normalize in ("vocabulary", "level"):
        assert_equals_whole_passes(model, prompts(left=left), normalize)


def test_the_variants_differ_in_what_they_test():
    assert build(*VARIANTS["original"]).config.scale_decoder_outputs
    assert not build(*VARIANTS["v1.1"]).config.scale_decoder_outputs
    assert len(build(*VARIANTS["more decoder layers"]).decoder.block) == 4
    assert len(build(*VARIANTS["fewer decoder layers"]).decoder.block) == 1


@pytest.mark.parametrize("name", ["original", "v1.1"])
def test_a_head_of_its_own(name):
    model = build(*VARIANTS[name], own_head=True)
    assert model.lm_head.weight is not model.shared.weight
    assert_equals_whole_passes(model, prompts(), "vocabulary")


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
@pytest.mark.parametrize("name", ["original", "v1.1"])
def test_half_precision_is_about_as_near_to_float32_as_transformers(tmp_path, name, dtype):
    model, read = build(*VARIANTS[name]), prompts()
    model.save_pretrained(tmp_path)
    half = T5ForConditionalGeneration.from_pretrained(tmp_path, dtype=dtype).eval()
    # In float16 transformers leaves the feed-forward's last matrix in float32.
    assert (torch.float32 in {weight.dtype for weight in half.parameters()}) == (dtype == torch.float16)
    scorer = EncoderDecoderScorer(half, LEVELS, lambda _: read, "vocabulary")
    ours, theirs, wanted = [], [], []
    with torch.no_grad():
        for level, paths, found in random_walk(scorer, scorer.start(USERS), 3, 4, np.random.default_rng(5)):
            ids = [*LEVELS, torch.tensor([END])][level]
            for user, beams in enumerate(paths):
                ours.append(found[user].flatten())
                for searched, scores in ((half, theirs), (model, wanted)):
                    logits = whole_passes(searched, read, user, beams)
                    scores.append(logits.log_softmax(-1)[:, ids].flatten())
    errors = [float((torch.cat(scores) - torch.cat(wanted)).square().mean().sqrt()) for scores in (ours, theirs)]
    assert 0 < errors[0] < 3 * errors[1]
    assert errors[1] < 0.1 * float(torch.cat(wanted).std())


def test_layers_with_positions_of_their_own_are_refused():
    with pytest.raises(DataError, match="relative positions of its own"):
        EncoderDecoderScorer(build(UMT5ForConditionalGeneration, {}), LEVELS, lambda _: prompts())
