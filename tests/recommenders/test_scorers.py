"""The scorers against whole forward passes: every level, every beam, any batch."""

import numpy as np
import pytest
import torch
from tests.recommenders.generative_cases import KINDS, RAGGED, Reference, make
from transformers import LlamaConfig, LlamaForCausalLM

from sidrec.data.sequences import Histories
from sidrec.recommenders import attention, causal_scorer
from sidrec.recommenders.causal_scorer import CausalScorer
from sidrec.recommenders.expanded_scorer import ExpandedScorer
from sidrec.tasks.next_item import ItemTokens

NORMALIZE = ("vocabulary", "level")


def random_walk(scorer, state, users: int, beams: int, draw: np.random.Generator):
    """Steps with random parents and codes: yields (level, beam paths [U][W], log-probabilities)."""
    levels = len(scorer.level_sizes)
    first = 0  # node of the first path
    paths = [[()] for _ in range(users)]
    with torch.no_grad():
        yield 0, paths, scorer.step(state, 0, None, None)
        for level in range(1, levels + int(scorer.has_end)):
            parents = draw.integers(len(paths[0]), size=(users, beams))
            nodes, first = first + parents, first + len(paths[0])
            codes = draw.integers(scorer.level_sizes[level - 1], size=(users, beams))
            paths = [
                [(*paths[user][parents[user, beam]], int(codes[user, beam])) for beam in range(beams)]
                for user in range(users)
            ]
            yield level, paths, scorer.step(state, level, torch.from_numpy(nodes), torch.from_numpy(codes))


def assert_equals_reference(recommender, histories: Histories, beams: int = 5, seed: int = 0):
    scorer, reference = recommender.scorer(recommender.config.search.normalize), Reference(recommender)
    with torch.no_grad():
        state = scorer.start(histories)
    for level, paths, found in random_walk(scorer, state, len(histories), beams, np.random.default_rng(seed)):
        assert found.dtype == torch.float32
        for user, beams_of_user in enumerate(paths):
            for beam, path in enumerate(beams_of_user):
                expected = reference.step(histories[user].tolist(), path)
                torch.testing.assert_close(found[user, beam], expected, atol=2e-5, rtol=1e-5, msg=f"{level} {path}")


@pytest.mark.parametrize("normalize", NORMALIZE)
@pytest.mark.parametrize("kind", KINDS)
def test_steps_equal_whole_forward_passes(kind, normalize):
    assert_equals_reference(make(kind, normalize), RAGGED)


@pytest.mark.parametrize("kind", KINDS)
def test_all_histories_empty(kind):
    assert_equals_reference(make(kind), Histories.of([[], []]))


@pytest.mark.parametrize("kind", KINDS)
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


@pytest.mark.parametrize("kind", KINDS)
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


@pytest.mark.parametrize("wide", [512, 0])
@pytest.mark.parametrize("kind", [*KINDS, "expanded"])
def test_taken_states_go_on_where_they_were_and_write_into_no_other(monkeypatch, kind, wide):
    monkeypatch.setattr(attention, "WIDE_TREE", wide)
    recommender = make("tiger" if kind == "tiger" else "decoder")
    scorer = recommender.scorer("level")
    if kind == "expanded":
        scorer = ExpandedScorer(recommender.model, recommender.level_token_ids, recommender.prompts)
    draw = np.random.default_rng(4)
    parents, codes = (torch.from_numpy(draw.integers(low, 5, size=(2, 5, 4))) for low in (1, 0))
    chosen = torch.tensor([3, 0])

    def begun():
        state = scorer.start(RAGGED)
        scorer.step(state, 0, None, None)
        scorer.step(state, 1, torch.zeros_like(parents[0]), codes[0])
        scorer.step(state, 2, parents[0], codes[0] % 4)  # leaves room in the memory for later nodes
        return state

    with torch.no_grad():
        expected = [scorer.step(begun(), 2, parents[turn], codes[turn] % 4) for turn in range(2)]
        state = begun()
        taken, again = state.take(chosen), state.take(chosen)
        steps = ((again, 1), (state, 0), (taken, 0), (taken, 1), (again, 0))
        for one, turn in steps:
            part = slice(None) if one is state else chosen
            found = scorer.step(one, 2, parents[turn][part], codes[turn][part] % 4)
            torch.testing.assert_close(found, expected[turn][part], atol=1e-5, rtol=1e-5)


@pytest.mark.parametrize("kind", KINDS)
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
