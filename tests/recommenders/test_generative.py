"""Recommendations of both backbones: equal to exhaustive scoring, to `generate`, and learnt."""

import numpy as np
import pytest
import torch
from tests.recommenders.generative_cases import KINDS, RAGGED, RUN, TOKEN_VARIANTS, VARIANTS, Reference, make
from transformers import LlamaForCausalLM, T5ForConditionalGeneration
from transformers.generation.configuration_utils import GenerationConfig

from sidrec.artifact import create
from sidrec.data.sequences import Histories
from sidrec.decoding.recommendations import Request
from sidrec.errors import ConfigError, DataError
from sidrec.recommenders.base import Recommender
from sidrec.recommenders.decoder import Decoder
from sidrec.recommenders.precision import has_bf16
from sidrec.recommenders.tiger import Tiger
from sidrec.testing.toy import cycle_dataset, grid_semantic_ids
from sidrec.training.config import TrainingConfig

TINY = {
    "tiger": {"d_model": 32, "d_kv": 16, "num_heads": 2, "d_ff": 64, "num_layers": 1, "dropout": 0.0},
    "decoder": {"d_model": 32, "num_heads": 2, "d_ff": 64, "num_layers": 2, "dropout": 0.0, "max_history": 4},
}
CLASSES = {"tiger": Tiger, "decoder": Decoder}


def naive_children(reference: Reference, history: list[int]) -> np.ndarray:
    """float64[N]: log-probabilities renormalised over the children that the catalogue has."""
    codes = reference.recommender.ids.codes
    out = np.zeros(len(codes))
    for row, path in enumerate(codes.tolist()):
        for level in range(len(path)):
            below = (codes[:, :level] == path[:level]).all(1)
            children = np.unique(codes[below, level])
            scores = reference.step(history, tuple(path[:level]))
            out[row] += float(scores[path[level]] - scores[torch.from_numpy(children).long()].logsumexp(-1))
    return out


@pytest.mark.parametrize("normalize", ["vocabulary", "level", "children"])
@pytest.mark.parametrize("kind", VARIANTS)
def test_exact_search_equals_scoring_every_item(kind, normalize):
    recommender = make(kind, normalize)
    found = recommender.rank(RAGGED, Request(k=12, exclude_seen=False, exact=True), RUN)
    assert found.exact.all()
    reference = Reference(recommender)
    for user in range(len(RAGGED)):
        history = RAGGED[user].tolist()
        scores = naive_children(reference, history) if normalize == "children" else reference.item_scores(history)
        best = np.sort(scores)[::-1][:12]
        np.testing.assert_allclose(found.scores[user], best, atol=1e-4)
        np.testing.assert_allclose(scores[found.rows[user]], best, atol=1e-4)
        assert len(set(found.rows[user].tolist())) == 12


@pytest.mark.parametrize("kind", TOKEN_VARIANTS)
def test_a_request_may_search_otherwise_than_the_recommender_does(kind):
    narrow, wide = make(kind, "level"), make(kind, "vocabulary")
    wide_search = wide.config.search.model_copy(update={"beams": 30})
    asked = narrow.rank(RAGGED, Request(k=5, search=wide_search), RUN)
    wide.config = wide.config.model_copy(update={"search": wide_search})
    own = wide.rank(RAGGED, Request(k=5), RUN)
    assert np.array_equal(asked.rows, own.rows)
    assert np.array_equal(asked.scores, own.scores)
    assert not np.array_equal(asked.scores, narrow.rank(RAGGED, Request(k=5), RUN).scores)
    assert narrow.search_for(Request(k=50)).beams == 50, "never fewer beams than items"


@pytest.mark.parametrize("kind", VARIANTS)
def test_exact_search_without_seen_items(kind):
    recommender = make(kind)
    found = recommender.rank(RAGGED, Request(k=5, exact=True), RUN)
    for user in range(len(RAGGED)):
        scores = Reference(recommender).item_scores(RAGGED[user].tolist())
        scores[RAGGED[user]] = -np.inf
        np.testing.assert_allclose(found.scores[user], np.sort(scores)[::-1][:5], atol=1e-4)


def generate(recommender, histories: Histories, beams: int) -> tuple[list[list[tuple[int, ...]]], np.ndarray]:
    """Code paths and scores of transformers' beam search under a dictionary trie, one history at a time."""
    words, levels = recommender.vocabulary, recommender.ids.num_levels
    is_t5 = recommender.config.kind == "tiger"
    allowed: dict[tuple[int, ...], set[int]] = {}
    for tokens in words.tokens(recommender.ids.codes).tolist():
        for place, token in enumerate(tokens):
            allowed.setdefault(tuple(tokens[:place]), set()).add(token)
        allowed[tuple(tokens)] = {words.EOS}
    paths, scores = [], []
    for user in range(len(histories)):
        prompt = recommender.prompts(histories.take(np.array([user])))
        skip = 1 if is_t5 else prompt.tokens_BT.shape[1]
        config = GenerationConfig(
            num_beams=beams, num_return_sequences=beams, max_new_tokens=levels + int(is_t5), do_sample=False,
            length_penalty=0.0, early_stopping=True, pad_token_id=words.PAD,
            eos_token_id=words.EOS if is_t5 else None, decoder_start_token_id=words.PAD,
            output_scores=True, return_dict_in_generate=True,
        )  # fmt: skip
        out = recommender.model.generate(
            input_ids=prompt.tokens_BT,
            attention_mask=prompt.mask_BT,
            generation_config=config,
            prefix_allowed_tokens_fn=lambda _, tokens, skip=skip: sorted(
                allowed.get(tuple(tokens[skip:].tolist()), {words.PAD})
            ),
        )
        codes = words.codes(out.sequences[:, skip : skip + levels].numpy())
        paths.append([tuple(path) for path in codes.tolist()])
        scores.append(out.sequences_scores.numpy())
    return paths, np.stack(scores)


@pytest.mark.parametrize("kind", TOKEN_VARIANTS)
def test_lists_and_scores_equal_generate(kind):
    recommender = make(kind, "vocabulary", num_items=60, sizes=(6, 6, 6))
    recommender.semantic_ids = grid_semantic_ids(recommender.catalog, size=4, levels=3)
    # A new random model that fits these semantic IDs.
    recommender.model = make(kind, "vocabulary", sizes=recommender.ids.sizes).model
    beams = recommender.config.search.beams
    found = recommender.rank(RAGGED, Request(k=beams, exclude_seen=False), RUN)
    paths, scores = generate(recommender, RAGGED, beams)
    np.testing.assert_allclose(found.scores, scores, atol=1e-4)
    for user in range(len(RAGGED)):
        ours = [tuple(path) for path in recommender.ids.codes[found.rows[user]].tolist()]
        assert ours == paths[user]
    assert np.diff(found.scores, axis=1).min() < -1e-3


@pytest.mark.parametrize("kind", VARIANTS)
def test_a_batch_equals_its_users_alone(kind):
    recommender = make(kind)
    request = Request(k=8)
    together = recommender.rank(RAGGED, request, RUN)
    for user in range(len(RAGGED)):
        alone = recommender.rank(RAGGED.take(np.array([user])), request, RUN)
        np.testing.assert_array_equal(alone.rows[0], together.rows[user])
        np.testing.assert_allclose(alone.scores[0], together.scores[user], atol=5e-5)


@pytest.mark.parametrize("kind", KINDS)
def test_saved_directory_serves_alone_and_loads_in_transformers(kind, tmp_path):
    recommender = make(kind)
    with create(tmp_path / kind, kind="recommender", config={}) as writer:
        recommender.save(writer.path)
    loaded = Recommender.load(tmp_path / kind)
    request = Request(k=6)
    before, after = (rec.rank(RAGGED, request, RUN) for rec in (recommender, loaded))
    np.testing.assert_array_equal(before.rows, after.rows)
    np.testing.assert_array_equal(before.scores, after.scores)
    cls = {"tiger": T5ForConditionalGeneration, "decoder": LlamaForCausalLM}[kind]
    model = cls.from_pretrained(tmp_path / kind)
    for name, weight in recommender.model.state_dict().items():
        torch.testing.assert_close(model.state_dict()[name], weight)
    assert loaded.num_parameters == recommender.num_parameters == sum(w.numel() for w in model.parameters())


@pytest.mark.parametrize("kind", KINDS)
def test_same_seed_same_weights(kind):
    dataset = cycle_dataset(num_items=16, num_users=16)
    ids = grid_semantic_ids(dataset.catalog, size=4, levels=2)
    weights = []
    for _ in range(2):
        recommender = CLASSES[kind](**{**TINY[kind], "dropout": 0.1})
        recommender.fit(dataset, TrainingConfig(max_steps=3, batch_size=16), RUN, semantic_ids=ids)
        weights.append([weight.detach().clone() for weight in recommender.model.parameters()])
    assert all(torch.equal(left, right) for left, right in zip(*weights, strict=True))


@pytest.mark.parametrize("kind", KINDS)
def test_fit_needs_semantic_ids_of_the_same_catalogue(kind):
    dataset, other = cycle_dataset(num_items=16), cycle_dataset(num_items=12)
    recommender = CLASSES[kind](**TINY[kind])
    with pytest.raises(DataError, match="needs semantic IDs"):
        recommender.fit(dataset, TrainingConfig(max_steps=1), RUN)
    wrong = grid_semantic_ids(other.catalog, size=4, levels=2)
    with pytest.raises(DataError, match="disagree"):
        recommender.fit(dataset, TrainingConfig(max_steps=1), RUN, semantic_ids=wrong)
    with pytest.raises(DataError, match="never fitted"):
        _ = CLASSES[kind]().ids


def test_decoder_width_must_fit_its_heads():
    with pytest.raises(ConfigError, match="d_model 20 is not a multiple of 2 · num_heads = 8"):
        Decoder(d_model=20, num_heads=4)


@pytest.mark.parametrize("kind", VARIANTS)
def test_bf16_searches_a_rounded_copy(kind):
    recommender = make(kind)
    wanted = recommender.rank(RAGGED, Request(k=5), RUN)
    search = recommender.config.search.model_copy(update={"precision": "bf16"})
    found = recommender.rank(RAGGED, Request(k=5, search=search), RUN)
    assert recommender.model.dtype == torch.float32
    assert (found.scores != wanted.scores).any()
    np.testing.assert_allclose(found.scores, wanted.scores, atol=0.5)
    assert (recommender.rank(RAGGED, Request(k=5), RUN).scores == wanted.scores).all()
    auto = recommender.config.search.model_copy(update={"precision": "auto"})
    same = found if has_bf16(torch.device("cpu")) else wanted
    assert (recommender.rank(RAGGED, Request(k=5, search=auto), RUN).scores == same.scores).all()
