"""One search for every architecture: tree = one row a prefix = transformers' `generate` with a prefix function."""

import itertools
import re
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from transformers import (
    AutoModelForCausalLM,
    BloomConfig,
    CohereConfig,
    DeepseekV2Config,
    Gemma2Config,
    GemmaConfig,
    GenerationConfig,
    GPT2Config,
    GPTNeoConfig,
    GPTNeoXConfig,
    LlamaConfig,
    MambaConfig,
    MistralConfig,
    MptConfig,
    NanoChatConfig,
    PreTrainedConfig,
    PreTrainedModel,
    Qwen2Config,
    Qwen3Config,
)

from sidrec.config import RunSettings
from sidrec.data.sequences import Histories
from sidrec.decoding.beam import beam_search
from sidrec.decoding.recommendations import BeamConfig, Recommendations, Request
from sidrec.decoding.trie import ItemTrie
from sidrec.recommenders import attention
from sidrec.recommenders import causal_scorer as causal_scorer_module
from sidrec.recommenders.causal_models import causal_scorer, why_expanded
from sidrec.recommenders.causal_scorer import CausalScorer
from sidrec.recommenders.expanded_scorer import ExpandedScorer
from sidrec.tasks.next_item import ItemTokens, Prompts
from sidrec.training.isolation import isolated_rng

SIZES = (5, 4, 6)
FIRST_CODE = 7
VOCABULARY = FIRST_CODE + sum(SIZES)
HISTORIES = Histories.of([[3, 7, 11, 2], [], [5], [9, 1, 8, 30, 41, 2, 17], [4, 4]])
SMALL: dict[str, Any] = {
    "vocab_size": VOCABULARY, "hidden_size": 24, "intermediate_size": 32, "num_hidden_layers": 2,
    "num_attention_heads": 4, "pad_token_id": 0, "bos_token_id": 2, "eos_token_id": 1,
}  # fmt: skip
GROUPED: dict[str, Any] = SMALL | {"num_key_value_heads": 2}
TREE: dict[str, PreTrainedConfig] = {
    "llama": LlamaConfig(**GROUPED),
    "llama untied": LlamaConfig(**GROUPED, tie_word_embeddings=False, attention_bias=True),
    "qwen2": Qwen2Config(**GROUPED),
    "qwen3": Qwen3Config(**GROUPED, head_dim=8),
    "gpt2": GPT2Config(
        vocab_size=VOCABULARY, n_positions=64, n_embd=24, n_layer=2, n_head=4, bos_token_id=2, eos_token_id=1
    ),
    "gpt-neox": GPTNeoXConfig(**SMALL),
    "gemma": GemmaConfig(**GROUPED, head_dim=8),
    "deepseek": DeepseekV2Config(  # values narrower than keys
        **SMALL, kv_lora_rank=8, q_lora_rank=8, qk_rope_head_dim=4, qk_nope_head_dim=8, v_head_dim=6,
        n_routed_experts=4, num_experts_per_tok=2, moe_intermediate_size=16, n_group=1, topk_group=1,
    ),
}  # fmt: skip
EXPANDED: dict[str, tuple[PreTrainedConfig, str]] = {
    "gemma2": (Gemma2Config(**GROUPED, head_dim=8, sliding_window=4), "sliding_attention"),
    "gemma2, full attention": (
        Gemma2Config(**GROUPED, head_dim=8, layer_types=["full_attention"] * 2, final_logit_softcapping=0.5),
        "logits are capped",
    ),
    "cohere": (CohereConfig(**GROUPED), "scores differ by"),  # a factor behind the head
    "mpt": (MptConfig(vocab_size=VOCABULARY, d_model=24, n_heads=4, n_layers=2, max_seq_len=64), "scores differ by"),
    "gpt-neo": (
        GPTNeoConfig(
            vocab_size=VOCABULARY,
            hidden_size=24,
            num_layers=2,
            num_heads=4,
            window_size=16,
            attention_types=[[["global", "local"], 1]],
            bos_token_id=2,
            eos_token_id=1,
        ),
        "looks back 16 tokens only",
    ),
    "mistral": (MistralConfig(**GROUPED, head_dim=8, sliding_window=3), "looks back 3 tokens"),
    "bloom": (BloomConfig(vocab_size=VOCABULARY, hidden_size=24, n_layer=2, n_head=4), "raised"),
    "mamba": (
        MambaConfig(vocab_size=VOCABULARY, hidden_size=16, state_size=4, num_hidden_layers=2),
        "linear_attention",
    ),
}


def build(config: PreTrainedConfig) -> PreTrainedModel:
    """A model with random weights, scaled up so that scores differ."""
    with isolated_rng(0):
        model = AutoModelForCausalLM.from_config(config, dtype=torch.float32).eval()
        with torch.no_grad():
            for weight in model.parameters():
                weight.mul_(6.0 if weight.ndim == 2 else 1.0)
    return model


class Search:
    """A small catalogue, histories and a search over them."""

    def __init__(self, *, left: bool = False) -> None:
        draw = np.random.default_rng(0)
        paths = np.array(list(itertools.product(*map(range, SIZES))), np.int32)
        self.codes = draw.permutation(paths)[:60]
        self.levels = [
            FIRST_CODE + sum(SIZES[:level]) + torch.randperm(size, generator=torch.Generator().manual_seed(level))
            for level, size in enumerate(SIZES)
        ]
        self.tokens = np.stack([ids.numpy()[self.codes[:, level]] for level, ids in enumerate(self.levels)], axis=1)
        self.items = ItemTokens(self.tokens, pad=0, eos=1, bos=2)
        self.trie, self.left = ItemTrie.build(self.codes, SIZES), left

    def prompts(self, histories: Histories) -> Prompts:
        """Padded on the right, or on the left."""
        prompts = self.items.prompts(histories, begin=True)
        if not self.left:
            return prompts
        gaps = (prompts.mask_BT == 0).sum(1)
        rows = [[torch.roll(row, int(gap)) for row, gap in zip(part, gaps, strict=True)]
                for part in (prompts.tokens_BT, prompts.mask_BT)]  # fmt: skip
        return Prompts(*(torch.stack(part) for part in rows))

    def run(self, scorer: Any, beams: int = 6, users: int = 5, histories: Histories = HISTORIES) -> Recommendations:
        """The lists of a search with all seen items allowed."""
        config = BeamConfig(beams=beams, normalize="vocabulary", users_per_batch=users)
        return beam_search(scorer, self.trie, histories, Request(beams, exclude_seen=False), config, RunSettings())

    def scorer(self, kind: Any, model: PreTrainedModel) -> Any:
        """A scorer over the model's vocabulary."""
        return kind(model, self.levels, self.prompts, "vocabulary")


def generated(model: PreTrainedModel, search: Search, beams: int = 6) -> tuple[np.ndarray, np.ndarray]:
    """Rows and scores of `generate`, which wants prompts padded on the left."""
    followers: dict[tuple[int, ...], set[int]] = {}
    rows = {}
    for row, path in enumerate(search.tokens.tolist()):
        rows[tuple(path)] = row
        for length in range(len(path)):
            followers.setdefault(tuple(path[:length]), set()).add(path[length])
    prompts = Search(left=True).prompts(HISTORIES)
    skip = prompts.tokens_BT.shape[1]
    config = GenerationConfig(
        num_beams=beams, num_return_sequences=beams, max_new_tokens=len(SIZES), do_sample=False, length_penalty=0.0,
        early_stopping=True, pad_token_id=0, eos_token_id=None, return_dict_in_generate=True, output_scores=True,
    )  # fmt: skip
    engine: Any = model
    out = engine.generate(
        prompts.tokens_BT,
        attention_mask=prompts.mask_BT,
        generation_config=config,
        prefix_allowed_tokens_fn=lambda _, tokens: sorted(followers[tuple(tokens[skip:].tolist())]),
    )
    lists = [rows[tuple(path)] for path in out.sequences[:, skip:].tolist()]
    return np.array(lists).reshape(-1, beams), out.sequences_scores.reshape(-1, beams).numpy()


def assert_equal(found: Recommendations, rows: np.ndarray, scores: np.ndarray) -> None:
    np.testing.assert_allclose(found.scores, scores, atol=1e-4)
    assert (found.rows == rows).all()


@pytest.mark.parametrize("name", TREE)
def test_tree_equals_expanded_equals_generate(name):
    model, search = build(TREE[name]), Search()
    assert why_expanded(model) == ""
    tree = search.run(search.scorer(causal_scorer, model))
    assert isinstance(search.scorer(causal_scorer, model), CausalScorer)
    expanded = search.run(search.scorer(ExpandedScorer, model))
    assert_equal(tree, expanded.rows, expanded.scores)
    assert_equal(tree, *generated(model, search))


@pytest.mark.parametrize("name", TREE)
def test_wide_trees_are_searched_alike(monkeypatch, name):
    model, search = build(TREE[name]), Search()
    wanted = search.run(search.scorer(CausalScorer, model))
    monkeypatch.setattr(attention, "WIDE_TREE", 0)
    monkeypatch.setattr(causal_scorer_module, "PREFIXES_PER_BLOCK", 4)
    found = search.run(search.scorer(CausalScorer, model))
    assert_equal(found, wanted.rows, wanted.scores)


@pytest.mark.parametrize("name", TREE)
def test_padding_side_batch_size_and_neighbours_change_nothing(name):
    model, search = build(TREE[name]), Search()
    wanted = search.run(search.scorer(CausalScorer, model))
    for left, users in itertools.product((False, True), (1, 2, 5)):
        other = Search(left=left)
        found = other.run(other.scorer(CausalScorer, model), users=users)
        assert_equal(found, wanted.rows, wanted.scores)
    order = np.array([4, 0, 3])
    found = search.run(search.scorer(CausalScorer, model), histories=HISTORIES.take(order))
    assert_equal(found, wanted.rows[order], wanted.scores[order])


@pytest.mark.parametrize("name", EXPANDED)
def test_models_that_cannot_score_a_tree_are_searched_all_the_same(name):
    config, reason = EXPANDED[name]
    model, search = build(config), Search()
    with pytest.warns(UserWarning, match=f"cannot score a tree .*{reason}"):
        scorer = search.scorer(causal_scorer, model)
    assert isinstance(scorer, ExpandedScorer)
    found = search.run(scorer)
    if name != "mamba":  # whose state takes the padding of a batch in
        assert_equal(found, *generated(model, search))
    alone = [search.run(scorer, histories=HISTORIES.take(np.array([user]))) for user in range(len(HISTORIES))]
    again = Recommendations.concatenate(alone)
    assert_equal(found, again.rows, again.scores)


def test_bfloat16_finds_nearly_the_same_lists():
    model, search = build(TREE["llama"]), Search()
    wanted = search.run(search.scorer(CausalScorer, model))
    half = model.to(torch.bfloat16)
    assert why_expanded(half) == ""
    found = search.run(search.scorer(CausalScorer, half))
    overlap = np.mean([len(set(a) & set(b)) / 6 for a, b in zip(found.rows, wanted.rows, strict=True)])
    assert overlap > 0.8
    np.testing.assert_allclose(found.scores, wanted.scores, atol=0.5)


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
@pytest.mark.parametrize("scale", [1.0, 6.0])
@pytest.mark.parametrize("name", ["llama", "gpt2", "mpt", "nanochat"])
def test_a_model_is_judged_alike_before_training_and_in_half_precision(name, scale, dtype):
    """Untrained, a soft cap changes scores by less than rounding does."""
    configs = {name: config for name, (config, _) in EXPANDED.items()} | TREE | {"nanochat": NanoChatConfig(**GROUPED)}
    with isolated_rng(0), torch.no_grad():
        model = AutoModelForCausalLM.from_config(configs[name], dtype=torch.float32)
        for weight in model.parameters():
            weight.mul_(scale if weight.ndim == 2 else 1.0)
    assert (why_expanded(model.to(dtype)) == "") == (name in TREE)
    assert model.training


def test_only_the_last_logits_are_computed():
    model, search, widths = build(TREE["llama"]), Search(), []
    head: Any = model.get_output_embeddings()
    head.register_forward_hook(lambda _, inputs, out: widths.append(out.shape[1]))
    search.run(search.scorer(ExpandedScorer, model))
    assert set(widths) == {1}


def test_a_setting_that_changes_later_counts():
    model = build(TREE["llama"])
    assert why_expanded(model) == ""
    model.config._attn_implementation = "flex_attention"
    assert "its attention is 'flex_attention'" in why_expanded(model)


def test_attention_without_a_4d_mask_is_named():
    model = build(TREE["llama"])
    model.config._attn_implementation = "flash_attention_2"
    assert "attn_implementation='sdpa'" in why_expanded(model)


def test_the_documented_snippet_runs():
    page = (Path(__file__).parents[2] / "docs" / "decoding.md").read_text("utf-8")
    blocks = re.findall(r"```python\n(.*?)```", page, re.DOTALL)
    (snippet,) = [block for block in blocks if "causal_scorer" in block]
    assert len(snippet.splitlines()) < 40
    names: dict[str, Any] = {}
    exec(snippet, names)  # noqa: S102
    found = names["found"]
    assert isinstance(names["scorer"], CausalScorer)
    assert found.exact.all()
    assert set(found.rows[0]) == {1, 3}  # what the first user has not seen
    assert len(set(found.rows[1])) == 2
    assert 3 not in found.rows[1]
