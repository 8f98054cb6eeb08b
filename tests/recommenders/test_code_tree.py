"""Outputs "nodes" of the item decoder against a dictionary of prefixes, walked by hand in float64."""

import copy

import numpy as np
import polars as pl
import pytest
import torch
from tests.recommenders.generative_cases import RAGGED, RUN, make

from sidrec.artifact import create
from sidrec.decoding.recommendations import Request
from sidrec.decoding.trie import ItemTrie
from sidrec.errors import ConfigError, DataError
from sidrec.recommenders import code_tree
from sidrec.recommenders.base import Recommender
from sidrec.recommenders.code_tree import NO_CHILD, CodeTree, TreeTensors, pair_products
from sidrec.recommenders.item_decoder import ItemDecoder
from sidrec.testing.toy import cycle_dataset, random_semantic_ids
from sidrec.tokenizers.semantic_ids import SemanticIds
from sidrec.training.config import OptimizerConfig, TrainingConfig

KIND = "item-decoder, nodes"
SIZES = (5, 4, 6)
NUM = 42


def child_log_probs(recommender, state_D, path):
    """Code → log-probability float64 with gradients, over the children that a walk over all items finds."""
    model, words, codes = recommender.model, recommender.vocabulary, recommender.ids.codes
    weight, level = model.tokens.weight.double(), len(path)
    below = [row for row, other in enumerate(codes.tolist()) if tuple(other[:level]) == path]
    normed_D = model.norm(state_D).double()
    logits = {}
    for code in sorted({int(codes[row, level]) for row in below}):
        rows = [row for row in below if codes[row, level] == code and row < words.num_items]
        vector_D = weight[int(words.offsets[level]) + code]
        if rows:
            vector_D = vector_D + weight[[words.first_item + row for row in rows]].mean(0)
        bias = model.code_bias[int(words.offsets[level]) - words.NUM_SPECIAL + code].double()
        logits[code] = normed_D @ vector_D + bias
    total = torch.stack(list(logits.values())).logsumexp(0)
    return {code: logit - total for code, logit in logits.items()}


def item_scores(recommender, number):
    """float64[N], of the history with a number."""
    model, prompt = recommender.model, recommender.prompts(RAGGED.take(np.array([number])))
    found = []
    with torch.no_grad():
        hidden_D = model.read(prompt.tokens_BT)[0, -1]
        for path in recommender.ids.codes.tolist():
            states = model.spelled(hidden_D, torch.tensor(path[:-1]), model.output_vectors(recommender.tree))
            steps = [child_log_probs(recommender, state, tuple(path[:at])) for at, state in enumerate(states)]
            found.append(sum(float(step[code]) for step, code in zip(steps, path, strict=True)))
    return np.array(found)


def with_biases(recommender):
    with torch.no_grad():
        recommender.model.code_bias.normal_()
    return recommender


def grown(recommender, new_codes):
    """The recommender with items of these codes behind its own."""
    items = pl.DataFrame({"item_id": [f"new-{row}" for row in range(len(new_codes))], "title": "New"})
    catalog = recommender.catalog.extended(items)
    codes = np.concatenate([recommender.ids.codes, np.array(new_codes, np.int32)])
    return recommender.extended(catalog, SemanticIds(codes, recommender.ids.sizes, catalog.digest, 2))


@pytest.mark.parametrize("normalize", ["level", "vocabulary", "children"])
def test_searches_and_log_probs_equal_the_walk(normalize):
    recommender = with_biases(make(KIND, normalize, num_items=NUM))
    rows = np.tile(np.arange(NUM), (len(RAGGED), 1))
    found = recommender.rank(RAGGED, Request(k=NUM, exclude_seen=False, exact=True), RUN)
    logps = recommender.log_probs(RAGGED, rows).detach().numpy()
    scored = recommender.score_items(RAGGED, rows, RUN)
    for number in range(len(RAGGED)):
        expected = item_scores(recommender, number)
        np.testing.assert_allclose(found.scores[number], expected[found.rows[number]], atol=1e-4)
        np.testing.assert_allclose(logps[number], expected, atol=1e-4)
        np.testing.assert_allclose(scored[number], expected, atol=1e-4)


@pytest.mark.parametrize(("temperature", "smoothing"), [(1.0, 0.0), (0.6, 0.2)])
def test_the_loss_and_its_gradients_equal_the_walk(temperature, smoothing):
    recommender = with_biases(make(KIND, temperature=temperature, label_smoothing=smoothing))
    model, dataset = recommender.model, cycle_dataset(num_items=60)
    batch = recommender.examples(dataset, dataset.split.train).collate(np.arange(4))
    hidden_PD = model.read(batch["input_ids"]).flatten(0, 1)[batch["places"]]
    outputs, terms = model.output_vectors(recommender.tree), []
    states_PSD = model.spelled(hidden_PD, batch["codes"][:, :-1], outputs)
    for states, path in zip(states_PSD, batch["codes"].tolist(), strict=True):
        for level, code in enumerate(path):
            plain = child_log_probs(recommender, states[level], tuple(path[:level]))
            logps = dict(zip(plain, (torch.stack(list(plain.values())) / temperature).log_softmax(0), strict=True))
            even = sum(logps.values()) / len(logps)
            terms.append(-(1 - smoothing) * logps[code] - smoothing * even)
    expected, found = torch.stack(terms).mean(), recommender.loss(model, batch)
    assert found.item() == pytest.approx(expected.item(), rel=1e-5)
    weights = dict(model.named_parameters())
    wanted = torch.autograd.grad(expected, list(weights.values()), allow_unused=True)
    gradients = torch.autograd.grad(found, list(weights.values()), allow_unused=True)
    for name, one, other in zip(weights, gradients, wanted, strict=True):
        assert one.abs().max() > 0, name
        torch.testing.assert_close(one, other, rtol=1e-4, atol=1e-6, msg=lambda text, name=name: f"{name}: {text}")


def test_probabilities_of_different_codes_sum_to_1_whatever_the_search_normalises_over():
    recommender = make(KIND, "level")
    first = np.unique(recommender.ids.codes, axis=0, return_index=True)[1]
    logps = recommender.log_probs(RAGGED, np.tile(first, (len(RAGGED), 1)))
    torch.testing.assert_close(logps.exp().sum(1), torch.ones(len(RAGGED)), atol=1e-5, rtol=0)


def test_an_item_is_written_with_the_vector_that_it_is_read_with():
    """No history of the batch holds the target, so its vector can only learn as an output."""
    recommender = make(KIND)
    target = int(np.unique(recommender.ids.codes, axis=0, return_index=True)[1][7])
    assert target not in RAGGED.rows
    recommender.log_probs(RAGGED, np.full((len(RAGGED), 1), target)).sum().backward()
    gradient = recommender.model.tokens.weight.grad[recommender.vocabulary.first_item + target]
    assert gradient.abs().max() > 0
    plain = make("item-decoder")
    plain.log_probs(RAGGED, np.full((len(RAGGED), 1), target)).sum().backward()
    assert plain.model.tokens.weight.grad[plain.vocabulary.first_item + target].abs().max() == 0


@pytest.mark.parametrize("at_once", [1, 12, 2**22])
def test_products_of_pairs_and_their_gradients(monkeypatch, at_once):
    monkeypatch.setattr(code_tree, "NUMBERS_AT_ONCE", at_once)
    draw = torch.Generator().manual_seed(0)
    states, vectors = (torch.randn(size, 3, generator=draw, requires_grad=True) for size in (4, 6))
    # The second state and the last two have no pairs, or share a vector.
    rows, child = torch.tensor([0, 0, 0, 2, 2, 3]), torch.tensor([5, 0, 3, 3, 0, 0])
    starts = torch.tensor([0, 3, 3, 5])
    weights = torch.arange(1.0, 7.0)
    found = pair_products(states, vectors, rows, child, starts)
    expected = (states[rows] * vectors[child]).sum(1)
    torch.testing.assert_close(found, expected)
    ours, theirs = (torch.autograd.grad((each * weights).sum(), (states, vectors)) for each in (found, expected))
    for one, other in zip(ours, theirs, strict=True):
        torch.testing.assert_close(one, other)


def test_nodes_and_means_by_hand():
    trie = ItemTrie.build(np.array([[1, 0], [0, 2], [1, 0], [1, 2], [2, 1]], np.int32), (4, 3))
    tree = CodeTree(trie, num_items=4)
    codes = torch.tensor([[1, 2], [0, 0], [3, 1]])
    assert [nodes.tolist() for nodes in tree.prefixes(codes)] == [[0, 0, 0], [1, 0, 3]], "3 is no node"
    assert tree.child(torch.tensor([1, 0, 3, 2]), torch.tensor([2, 0, 1, 1]), 1).tolist() == [2, 4, 4, 3]
    branches = tree.branches(torch.tensor([[1.0], [20.0], [3.0], [8.0]]))
    assert branches.vectors[0].tolist() == [[20.0], [4.0], [0.0]], "nothing with a vector is below code 2"
    assert branches.vectors[1].tolist() == [[20.0], [2.0], [8.0], [0.0]]
    with pytest.raises(DataError, match="5 vectors of items for a tree of 4"):
        tree.branches(torch.zeros(5, 1))
    logits = branches.logits(torch.full((3, 3), 0.5), torch.tensor([[1.0], [2.0], [3.0]]), torch.tensor([1, 0, 3]), 1)
    assert logits.tolist() == [[2.5, NO_CHILD, 8.5], [NO_CHILD, NO_CHILD, 40.5], [NO_CHILD] * 3]


def test_a_code_that_nothing_begins_with_and_a_prefix_of_nothing():
    recommender = make(KIND, sizes=(7, 4, 6))
    codes = recommender.ids.codes % np.array([5, 4, 6])
    recommender.semantic_ids = SemanticIds(codes.astype(np.int32), (7, 4, 6), recommender.catalog.digest)
    scorer = recommender.scorer("level")
    with torch.no_grad():
        state = scorer.start(RAGGED)
        first = scorer.step(state, 0, None, None)
        assert (first[..., 5:] < NO_CHILD / 2).all()
        torch.testing.assert_close(first.exp().sum(-1), torch.ones(len(RAGGED), 1))
        root = torch.zeros(len(RAGGED), 2, dtype=torch.long)
        found = scorer.step(state, 1, root, torch.tensor([[6, 0]]).expand(len(RAGGED), -1))
        assert found.isfinite().all()
        again = scorer.step(state, 2, root + 1, root)
    assert again.isfinite().all()


def test_a_grown_catalogue_shares_probability_with_new_leaves_and_leaves_the_old_recommender_alone():
    recommender = with_biases(make(KIND, num_items=NUM, sizes=SIZES))
    taken = {tuple(path) for path in recommender.ids.codes.tolist()}
    free = [path for path in np.ndindex(*SIZES) if path not in taken]
    more = grown(recommender, [free[0], free[-1]])
    request = Request(k=NUM + 2, exclude_seen=False, exact=True)
    before = recommender.rank(RAGGED, Request(k=NUM, exclude_seen=False, exact=True), RUN)
    found = more.rank(RAGGED, request, RUN)
    for number in range(len(RAGGED)):
        expected = item_scores(more, number)
        np.testing.assert_allclose(found.scores[number], expected[found.rows[number]], atol=1e-4)
        old = expected[:NUM] - item_scores(recommender, number)
        assert (old < 1e-5).all()
        beside = (recommender.ids.codes[:, :2] == free[0][:2]).all(1)
        assert beside.any()
        assert (old[beside] < -1e-5).all()
    after = recommender.rank(RAGGED, Request(k=NUM, exclude_seen=False, exact=True), RUN)
    np.testing.assert_array_equal(after.scores, before.scores)
    assert more.model is recommender.model


def test_a_saved_recommender_gives_the_same_lists_and_so_does_a_copy(tmp_path):
    recommender = with_biases(make(KIND))
    with create(tmp_path / "model", kind="recommender", config={}) as writer:
        recommender.save(writer.path)
    request = Request(k=9)
    wanted = recommender.rank(RAGGED, request, RUN)
    for other in (Recommender.load(tmp_path / "model"), copy.deepcopy(recommender)):
        found = other.rank(RAGGED, request, RUN)
        np.testing.assert_array_equal(found.rows, wanted.rows)
        np.testing.assert_array_equal(found.scores, wanted.scores)


def test_what_does_not_fit_is_refused():
    with pytest.raises(ConfigError, match="means of the items' vectors, which item_vectors: false leaves out"):
        ItemDecoder(outputs="nodes", item_vectors=False)
    recommender = make(KIND)
    with pytest.raises(DataError, match="was given no tree of the catalogue"):
        recommender.model(torch.tensor([[[2]]]), torch.tensor([0]), torch.tensor([[0, 0, 0]]))


def test_the_tree_is_made_once(tmp_path, monkeypatch):
    made = []
    build = TreeTensors.of
    monkeypatch.setattr(TreeTensors, "of", lambda *arguments: made.append(arguments) or build(*arguments))
    make("item-decoder, nodes").save(tmp_path)
    loaded = ItemDecoder.from_directory(tmp_path)
    for _ in range(3):
        loaded.rank(RAGGED, Request(k=3), RUN)
    assert len(made) == 1


def test_a_batch_of_which_nothing_is_learnt():
    recommender = make(KIND)
    none = torch.zeros(0, 3, dtype=torch.long)
    batch = {"input_ids": torch.full((2, 1, 4), 2), "places": none[:, 0], "codes": none, "labels": none}
    loss = recommender.loss(recommender.model, batch)
    loss.backward()
    assert loss.item() == 0
    assert not recommender.model.tokens.weight.grad.any()


@pytest.mark.parametrize("precision", ["fp32", "bf16"])
def test_training_in_pieces_and_in_half_precision_takes_about_the_same_steps(precision):
    # Windows of different lengths: pieces of a step do not hold equally many targets.
    dataset, found = cycle_dataset(num_items=16, num_users=24, length=12), []
    ids = random_semantic_ids(dataset.catalog, (4, 4))
    for settings in ({}, {"accumulation": 2, "precision": precision}):
        recommender = ItemDecoder(
            d_model=16, num_heads=2, num_layers=1, dropout=0.0, depth_dropout=0.0, max_history=4, outputs="nodes"
        )
        training = TrainingConfig(max_steps=9, batch_size=24, optimizer=OptimizerConfig(lr=0.01), **settings)
        report = recommender.fit(dataset, training, RUN, semantic_ids=ids)
        found.append((torch.tensor(report.losses)[:, 1], recommender.model.tokens.weight.detach()))
    (plain, weights), (losses, others) = found
    assert plain[-1] < plain[0]
    near, nearer = (1e-5, 1e-6) if precision == "fp32" else (2e-3, 3e-4)
    torch.testing.assert_close(losses, plain, rtol=near, atol=0)
    assert (others - weights).abs().mean() < nearer
    assert weights.dtype == torch.float32
