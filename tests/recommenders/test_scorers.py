"""The scorers against whole forward passes: every level, every beam, any batch."""

import numpy as np
import pytest
import torch
from tests.recommenders.generative_cases import RAGGED, VARIANTS, Reference, make, random_walk
from transformers import LlamaConfig, LlamaForCausalLM

from sidrec.data.sequences import Histories
from sidrec.recommenders import attention, causal_scorer
from sidrec.recommenders.causal_scorer import CausalScorer
from sidrec.recommenders.expanded_scorer import ExpandedScorer
from sidrec.tasks.next_item import ItemTokens

NORMALIZE = ("vocabulary", "level")


def assert_equals_reference(recommender, histories: Histories, beams: int = 5, seed: int = 0):
    scorer, reference = recommender.scorer(recommender.config.search.normalize), Reference(recommender, histories)
    with torch.no_grad():
        state = scorer.start(histories)
    for level, paths, found in random_walk(scorer, state, len(histories), beams, np.random.default_rng(seed)):
        assert found.dtype == torch.float32
        for user, beams_of_user in enumerate(paths):
            for beam, path in enumerate(beams_of_user):
                expected = reference.step(histories[user].tolist(), path)
                torch.testing.assert_close(found[user, beam], expected, atol=5e-5, rtol=1e-5, msg=f"{level} {path}")


@pytest.mark.parametrize("normalize", NORMALIZE)
@pytest.mark.parametrize("kind", VARIANTS)
def test_steps_equal_whole_forward_passes(kind, normalize):
    assert_equals_reference(make(kind, normalize), RAGGED)


@pytest.mark.parametrize("kind", VARIANTS)
def test_all_histories_empty(kind):
    assert_equals_reference(make(kind), Histories.of([[], []]))


@pytest.mark.parametrize("kind", VARIANTS)
def test_wide_trees_are_scored_alike(monkeypatch, kind):
    recommender = make(kind)
    histories = RAGGED.take(slice(0, 3))
    outputs = []
    for wide, block in ((512, 64), (0, 64), (0, 4)):
        monkeypatch.setattr(attention, "WIDE_TREE", wide)
        monkeypatch.setattr(causal_scorer, "PREFIXES_PER_BLOCK", block)
        scorer = recommender.scorer(recommender.config.search.normalize)
        with torch.no_grad():
            state = scorer.start(histories)
        outputs.append([out for *_, out in random_walk(scorer, state, 3, 11, np.random.default_rng(3))])
    for other in outputs[1:]:
        for whole, cut in zip(outputs[0], other, strict=True):
            torch.testing.assert_close(whole, cut, atol=1e-5, rtol=1e-5)


@pytest.mark.parametrize("kind", VARIANTS)
def test_select_starts_afresh_for_some_users(kind):
    recommender = make(kind)
    scorer = recommender.scorer(recommender.config.search.normalize)
    with torch.no_grad():
        state = scorer.start(RAGGED)
        for _ in random_walk(scorer, state, len(RAGGED), 4, np.random.default_rng(1)):
            pass
        chosen = [3, 0]
        again = list(random_walk(scorer, state.select(torch.tensor(chosen)), 2, 4, np.random.default_rng(2)))
        alone = list(random_walk(scorer, scorer.start(RAGGED.take(np.array(chosen))), 2, 4, np.random.default_rng(2)))
    for (*_, left), (*_, right) in zip(again, alone, strict=True):
        torch.testing.assert_close(left, right, atol=1e-5, rtol=1e-5)


def scorer_of(kind: str):
    """The scorer of a backbone; "expanded" reads the decoder's prefixes one by one."""
    if kind != "expanded":
        recommender = make(kind)
        return recommender.scorer(recommender.config.search.normalize)
    recommender = make("decoder")
    return ExpandedScorer(recommender.model, recommender.level_token_ids, recommender.prompts)


@pytest.mark.parametrize("wide", [512, 4, 0])
@pytest.mark.parametrize("kind", [*VARIANTS, "expanded"])
@torch.no_grad()
def test_taken_users_go_on_alike_and_leave_the_others_alone(monkeypatch, kind, wide):
    """Taken before every level; where 4 nodes make a tree wide, it begins to read paths on the way."""
    monkeypatch.setattr(attention, "WIDE_TREE", wide)
    scorer, chosen, draw = scorer_of(kind), torch.tensor([3, 0, 3]), np.random.default_rng(4)
    state = scorer.start(RAGGED)
    scorer.step(state, 0, None, None)
    first, width = 0, 1  # node of the first prefix of the last level, and their number
    for level, size in enumerate(scorer.level_sizes[:-1], start=1):
        parents = torch.from_numpy(first + draw.integers(width, size=(len(RAGGED), 5)))
        codes = torch.from_numpy(draw.integers(size, size=(len(RAGGED), 5)))
        first, width = first + width, 5
        taken, other = state.take(chosen), state.take(chosen)
        scorer.step(other, level, parents[chosen], (codes[chosen] + 1) % size)
        expected = scorer.step(state, level, parents, codes)
        found = scorer.step(taken, level, parents[chosen], codes[chosen])
        torch.testing.assert_close(found, expected[chosen], atol=1e-5, rtol=1e-5)
        state = state.take(torch.arange(len(RAGGED)))  # all go on as copies of copies


@pytest.mark.parametrize("kind", VARIANTS)
def test_padding_never_changes_a_score(kind):
    recommender = make(kind)
    scorer = recommender.scorer(recommender.config.search.normalize)
    long_neighbour = Histories.of([[5], [9, 1, 8, 30, 41, 2]])
    with torch.no_grad():
        alone = list(random_walk(scorer, scorer.start(Histories.of([[5]])), 1, 3, np.random.default_rng(0)))
        state = scorer.start(long_neighbour).select(torch.tensor([0]))
        padded = list(random_walk(scorer, state, 1, 3, np.random.default_rng(0)))
    for (*_, left), (*_, right) in zip(alone, padded, strict=True):
        torch.testing.assert_close(left, right, atol=1e-5, rtol=1e-5)


def test_causal_scorer_with_grouped_queries_and_scattered_token_ids():
    """A language model with its own vocabulary: untied head, fewer key heads, ids in no order."""
    torch.manual_seed(0)
    model = LlamaForCausalLM(
        LlamaConfig(
            vocab_size=50, hidden_size=24, intermediate_size=32, num_hidden_layers=2, num_attention_heads=6,
            num_key_value_heads=2, tie_word_embeddings=False, pad_token_id=0,
        )
    ).eval()  # fmt: skip
    with torch.no_grad():
        for weight in model.parameters():
            weight.mul_(6.0 if weight.ndim == 2 else 1.0)
    level_ids = [torch.tensor([40, 7, 23]), torch.tensor([11, 49]), torch.tensor([30, 31, 8, 5])]
    table = np.stack([ids.numpy()[[0, 1, 0, 1]] for ids in level_ids], axis=1)
    items = ItemTokens(table, pad=0, eos=1, bos=2)
    scorer = CausalScorer(model, level_ids, lambda histories: items.prompts(histories, begin=True), "vocabulary")
    histories = Histories.of([[0, 1, 2], [3], []])
    with torch.no_grad():
        state = scorer.start(histories)
        for level, paths, found in random_walk(scorer, state, 3, 4, np.random.default_rng(5)):
            for user, beams in enumerate(paths):
                prompt = items.prompts(histories.take(np.array([user])), begin=True).tokens_BT[0].tolist()
                for beam, path in enumerate(beams):
                    tokens = prompt + [int(level_ids[place][code]) for place, code in enumerate(path)]
                    logits = model(torch.tensor([tokens])).logits[0, -1].log_softmax(-1)
                    torch.testing.assert_close(found[user, beam], logits[level_ids[level]], atol=2e-5, rtol=1e-5)
