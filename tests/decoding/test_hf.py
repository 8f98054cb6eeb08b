"""The constraint inside transformers' own `generate`, against a dictionary trie and against our search."""

import copy
import re
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from transformers import GenerationConfig, WatermarkingConfig

from sidrec.decoding.hf import TrieLogitsProcessor
from sidrec.decoding.trie import ItemTrie
from sidrec.errors import ConstraintError, DataError

from .hf_cases import END, FAMILIES, HISTORIES, PAD, VOCABULARY, make_case

ROOT = Path(__file__).parents[2]
USERS = len(HISTORIES)
FEWER_FIRST_CODES_THAN_BEAMS = 12


def listed(processor: TrieLogitsProcessor, found: Any) -> np.ndarray:
    """int[U, W], the item of every generated sequence."""
    return np.concatenate(processor.rows_of(found.sequences)).reshape(USERS, -1)


@pytest.mark.parametrize("beams", [1, 4, FEWER_FIRST_CODES_THAN_BEAMS])
@pytest.mark.parametrize("family", FAMILIES)
def test_lists_and_scores_equal_a_dictionary_trie_and_our_search(family, beams):
    case = make_case(family)
    processor = case.processor(num_beams=beams)
    found = case.generate(processor)
    expected = case.by_dictionary(processor.generation_config(case.model), end=case.end)
    ours = case.ours(beams)
    assert torch.equal(found.sequences, expected.sequences)
    assert (listed(processor, found) == ours.rows).all()
    if beams > 1:  # greedy search returns no scores of whole sequences
        torch.testing.assert_close(found.sequences_scores, expected.sequences_scores, atol=1e-5, rtol=0)
        np.testing.assert_allclose(found.sequences_scores.reshape(USERS, beams), ours.scores, atol=1e-4)


def test_an_end_token_of_a_decoder_only_model():
    case = make_case("llama")
    processor = case.processor(num_beams=6, end_token_id=END)
    found = case.generate(processor)
    expected = case.by_dictionary(processor.generation_config(case.model), end=END)
    assert (found.sequences[:, -1] == END).all()
    assert torch.equal(found.sequences, expected.sequences)
    torch.testing.assert_close(found.sequences_scores, expected.sequences_scores, atol=1e-5, rtol=0)


@pytest.mark.parametrize("family", FAMILIES)
def test_neighbours_and_padding_in_front_do_not_matter(family):
    case = make_case(family)
    processor = case.processor(num_beams=5)
    together = case.generate(processor)
    for user in range(USERS):
        alone = case.processor(num_beams=5)
        found = case.generate(alone, HISTORIES.take(np.array([user])))
        mine = slice(5 * user, 5 * user + 5)
        assert np.concatenate(alone.rows_of(found.sequences)).tolist() == listed(processor, together)[user].tolist()
        torch.testing.assert_close(found.sequences_scores, together.sequences_scores[mine], atol=1e-4, rtol=0)


@pytest.mark.parametrize("family", FAMILIES)
def test_more_beams_than_items_repeat_items_far_below(family):
    """All of a beam search's fillers are prefixes of items, so that no row is ever lost."""
    case = make_case(family, num_items=3, sizes=(1, 4, 6))
    processor = case.processor(num_beams=8)
    found = case.generate(processor)
    rows, scores = listed(processor, found), found.sequences_scores.reshape(USERS, 8)
    ours = case.ours(8)
    assert (rows[:, :3] == ours.rows[:, :3]).all()
    np.testing.assert_allclose(scores[:, :3], ours.scores[:, :3], atol=1e-5)
    assert (scores[:, 3:] <= -1e9).all()


def test_allowed_items_are_those_of_the_restricted_catalogue():
    case = make_case("llama")
    allowed = np.isin(np.arange(60), [7, 8, 20, 33, 51, 59])
    processor = case.processor(num_beams=6, allowed=allowed)
    assert (np.sort(listed(processor, case.generate(processor))) == np.flatnonzero(allowed)).all()
    with pytest.raises(ConstraintError, match="no item"):
        case.processor(allowed=np.zeros(60, np.bool_))


@pytest.mark.parametrize("family", FAMILIES)
def test_sampling_never_leaves_the_catalogue(family):
    case = make_case(family)
    torch.manual_seed(0)
    processor = case.processor()
    found = case.generate(processor, do_sample=True, num_return_sequences=50)
    rows = np.concatenate(processor.rows_of(found.sequences))
    assert rows.shape == (USERS * 50,)
    assert len(np.unique(rows)) > 20
    if case.is_t5:
        assert (found.sequences[:, -1] == END).all()


def test_samples_are_drawn_with_the_probabilities_of_the_children():
    """First codes of 4,000 draws against the softmax over the first codes, within four standard errors."""
    case = make_case("gpt2")
    torch.manual_seed(0)
    processor, one = case.processor(), HISTORIES.take(np.array([2]))
    found = case.generate(processor, one, do_sample=True, num_return_sequences=4000)
    with torch.no_grad():
        logits = case.model(**case.prompts(one)).logits[0, -1]
    expected = logits[case.level_ids[0]].softmax(0).numpy()
    codes = case.codes[np.concatenate(processor.rows_of(found.sequences)), 0]
    share = np.bincount(codes, minlength=5) / 4000
    assert (np.abs(share - expected) < 4 * np.sqrt(expected * (1 - expected) / 4000) + 1e-9).all()


@pytest.mark.parametrize("family", FAMILIES)
def test_beam_sampling_lists_items_or_nothing(family):
    """Three items and six beams: rows without any probability leave the catalogue, and never come before an item."""
    case = make_case(family, num_items=3, sizes=(2, 4, 6))
    lost = 0
    for seed in range(5):
        torch.manual_seed(seed)
        processor = case.processor(num_beams=6)
        found = case.generate(processor, do_sample=True)
        scores = found.sequences_scores.reshape(USERS, 6)
        rows = processor.rows_of(found.sequences)
        for user in range(USERS):
            assert sorted(np.concatenate(rows[6 * user : 6 * user + 3]).tolist()) == [0, 1, 2]
        assert (scores[:, :3] > -100).all()
        assert (scores[:, 3:] <= -1e9).all()
        lost += sum(not len(found) for found in rows)
    assert lost > 0
    config = processor.generation_config(case.model, do_sample=True)
    with pytest.raises(ConstraintError, match="no prefix of an item"):
        case.model.generate(**case.prompts(), generation_config=config, logits_processor=[case.processor()])


POISON: dict[str, Any] = {
    "do_sample": True,
    "temperature": 0.2,
    "top_k": 2,
    "top_p": 0.4,
    "min_p": 0.5,
    "top_h": 0.3,
    "typical_p": 0.3,
    "epsilon_cutoff": 0.2,
    "eta_cutoff": 0.2,
    "repetition_penalty": 1.9,
    "encoder_repetition_penalty": 1.9,
    "no_repeat_ngram_size": 1,
    "encoder_no_repeat_ngram_size": 1,
    "length_penalty": 3.0,
    "early_stopping": "never",
    "num_beams": 3,
    "num_return_sequences": 2,
    "min_length": 40,
    "min_new_tokens": 40,
    "max_length": 41,
    "max_time": 1e-9,
    "stop_strings": ["a"],
    "eos_token_id": list(range(3, 20)),
    "pad_token_id": 5,
    "forced_bos_token_id": 6,
    "forced_eos_token_id": 7,
    "suppress_tokens": list(range(1, 20)),
    "begin_suppress_tokens": list(range(3, 20)),
    "bad_words_ids": [[token] for token in range(3, 20)],
    "sequence_bias": {(token,): 3.0 * token for token in range(3, 20)},
    "exponential_decay_length_penalty": (0, 4.0),
    "renormalize_logits": True,
    "remove_invalid_values": True,
    "guidance_scale": 2.0,
    "token_healing": True,
    "prompt_lookup_num_tokens": 2,
    "cache_implementation": "static",
    "use_cache": False,
    "watermarking_config": WatermarkingConfig(greenlist_ratio=0.3, bias=9.0),
    "output_logits": True,
    "a_setting_of_its_own": 1,
}


def poisoned(model: Any, **settings: Any) -> Any:
    out = copy.deepcopy(model)
    for name, value in settings.items():
        setattr(out.generation_config, name, value)
    return out


@pytest.mark.parametrize("family", ["t5", "llama"])
@pytest.mark.parametrize("sample", [False, True])
def test_nothing_is_taken_over_from_the_models_own_configuration(family, sample):
    case = make_case(family)
    torch.manual_seed(0)
    expected = case.generate(case.processor(num_beams=4), do_sample=sample)
    healthy, case.model = case.model, poisoned(case.model, **POISON)
    torch.manual_seed(0)
    found = case.generate(case.processor(num_beams=4), do_sample=sample)
    assert torch.equal(found.sequences, expected.sequences)
    assert torch.equal(found.sequences_scores, expected.sequences_scores)
    config = case.processor(num_beams=4).generation_config(case.model, do_sample=sample)
    for model in (healthy, case.model):
        merged, unused = model._prepare_generation_config(config)
        assert {name: value for name, value in merged.to_dict().items() if value is not None} == {
            name: value for name, value in config.to_dict().items() if value is not None
        }
        assert unused == {}


@pytest.mark.parametrize("name", POISON)
def test_a_usual_configuration_would_take_it_over(name):
    """Each of the settings above does reach a search whose configuration is silent about it."""
    model = poisoned(make_case("t5").model, **{"num_beams": 3, name: POISON[name]})
    merged, _ = model._prepare_generation_config(GenerationConfig(max_new_tokens=4))
    assert getattr(merged, name) == POISON[name] != getattr(GenerationConfig(), name, None)


def test_a_setting_that_is_wanted_can_be_made():
    case = make_case("llama")
    config = case.processor().generation_config(case.model, do_sample=True)
    config.temperature = 0.5
    merged, unused = case.model._prepare_generation_config(config, top_p=0.9, attention_mask=1)
    assert (merged.temperature, merged.top_p, unused) == (0.5, 0.9, {"attention_mask": 1})


LEVEL_IDS = [torch.tensor([11, 4, 9]), torch.tensor([6, 12]), torch.tensor([5, 3, 8, 7])]
"""Of levels of 3, 2 and 4 codes; end 1, padding 0, 13 tokens."""


def small(codes: list[list[int]], **fields: Any) -> TrieLogitsProcessor:
    trie = ItemTrie.build(np.array(codes, np.int32), (3, 2, 4))
    return TrieLogitsProcessor(trie, LEVEL_IDS, **{"end_token_id": 1, "pad_token_id": 0, "prompt_length": 2, **fields})


def kept(processor: TrieLogitsProcessor, rows: list[list[int]], scores: torch.Tensor | None = None) -> list[list[int]]:
    """For every row the tokens that are left possible, after a prompt of two tokens."""
    scores = torch.arange(13.0).expand(len(rows), -1) if scores is None else scores
    found = processor(torch.tensor([[9, 9, *row] for row in rows], dtype=torch.long).reshape(len(rows), -1), scores)
    assert ((found == scores) | (found == -torch.inf) | (found == 0)).all()
    return [(row > -torch.inf).nonzero()[:, 0].tolist() for row in found]


def test_what_may_follow_by_hand():
    processor = small([[0, 1, 3], [0, 1, 0], [0, 0, 2], [2, 1, 1]])
    assert kept(processor, [[]]) == [[9, 11]]
    assert kept(processor, [[11], [9]]) == [[6, 12], [12]]
    assert kept(processor, [[11, 12], [11, 6], [9, 12]]) == [[5, 7], [8], [3]]
    assert kept(processor, [[11, 12, 7], [9, 12, 3]]) == [[1], [1]]
    assert kept(processor, [[11, 12, 7, 1], [9, 12, 3, 1]]) == [[0], [0]]
    assert kept(processor, [[11, 12, 7, 1, 0, 0]]) == [[0]]
    without_end = small([[0, 1, 3]], end_token_id=None)
    assert kept(without_end, [[11, 12]]) == [[7]]


@given(st.integers(0, 2**32), st.integers(1, 12), st.integers(0, 3))
@settings(max_examples=100, deadline=None)
def test_what_may_follow_equals_a_look_at_the_table(seed, num_items, length):
    draw = np.random.default_rng(seed)
    codes = np.stack([draw.integers(size, size=num_items) for size in (3, 2, 4)], axis=1)
    rows = draw.integers(num_items, size=5)
    tokens = [[int(ids[code]) for ids, code in zip(LEVEL_IDS, path, strict=True)] for path in codes.tolist()]
    expected = [{[*path, 1][length] for path in tokens if path[:length] == tokens[row][:length]} for row in rows]
    found = kept(small(codes.tolist()), [tokens[row][:length] for row in rows])
    assert [set(row) for row in found] == expected


@pytest.mark.parametrize("row", [[4], [0], [1], [40], [6], [11, 11], [9, 6], [9, 12, 8], [12, 11]])
def test_a_foreign_prefix_is_an_error(row):
    processor = small([[0, 1, 3], [0, 1, 0], [0, 0, 2], [2, 1, 1]])
    with pytest.raises(ConstraintError, match="no prefix of an item") as found:
        kept(processor, [row])
    assert f"tokens {row} after a prompt of 2" in found.value.where
    assert "prompt_length" in found.value.next


def test_a_row_that_nothing_can_follow_is_an_error():
    codes = [[0, 1, 3]]
    with pytest.raises(ConstraintError, match="nothing can follow") as found:
        kept(small(codes, end_token_id=None), [[11, 12, 7]])
    assert found.value.expected == "3 new tokens"
    assert "end_token_id" in found.value.next
    with pytest.raises(ConstraintError, match="nothing can follow"):
        kept(small(codes), [[11, 12, 7, 5]])
    for impossible in (-torch.inf, torch.nan):
        scores = torch.zeros(1, 13)
        scores[0, 12] = impossible
        with pytest.raises(ConstraintError, match="for impossible"):
            kept(small(codes), [[11]], scores)


def test_generate_stops_where_it_is_asked_for_more_than_an_item():
    case = make_case("llama")
    processor = case.processor(num_beams=3)
    config = processor.generation_config(case.model)
    config.max_new_tokens = 4
    with pytest.raises(ConstraintError, match="nothing can follow"):
        case.model.generate(**case.prompts(), generation_config=config, logits_processor=[processor])


def test_a_lost_row_is_a_filler_where_another_of_its_user_goes_on():
    processor = small([[0, 1, 3], [2, 1, 1]], num_beams=2)
    assert kept(processor, [[11], [4], [40], [9]]) == [[12], [], [], [12]]
    with pytest.raises(ConstraintError, match="row 2 of generate"):
        kept(processor, [[11], [4], [40], [4]])
    # Finished rows are no reason to raise, whatever the model thinks of padding.
    scores = torch.zeros(2, 13)
    scores[:, PAD] = -torch.inf
    assert kept(processor, [[11, 12, 7, 1], [9, 12, 3, 1]], scores) == [[0], [0]]
    assert kept(processor, [[11, 0], [11, 12]], scores) == [[0], [7]]


def test_without_a_prompt_length_a_processor_serves_one_search():
    processor = small([[0, 1, 3], [2, 1, 1]], prompt_length=None)
    assert kept(processor, [[], []]) == [[9, 11], [9, 11]]
    assert kept(processor, [[11], [9]]) == [[12], [12]]
    for rows in ([[11], [9]], [[], []], [[11, 12]], [[11, 12, 7], [9, 12, 3]]):
        with pytest.raises(DataError, match="a search of 2 rows that were 3 tokens long goes on with"):
            kept(processor, rows)
    assert kept(processor, [[11, 12], [9, 12]]) == [[7], [3]]
    assert [rows.tolist() for rows in processor.rows_of(torch.tensor([[9, 9, 9, 12, 3], [9, 9, 4, 12, 3]]))] == [
        [1],
        [],
    ]


def test_bad_input_is_refused():
    trie = ItemTrie.build(np.array([[0, 1, 3]], np.int32), (3, 2, 4))
    with pytest.raises(DataError, match=r"levels of \(3, 2\) codes, a trie of \(3, 2, 4\)"):
        TrieLogitsProcessor(trie, LEVEL_IDS[:2])
    for ids in (torch.tensor([5, 5]), torch.tensor([-1, 5]), torch.tensor([1, 5]), torch.tensor([0, 5])):
        with pytest.raises(DataError, match="token ids of level 2 are not usable"):
            TrieLogitsProcessor(trie, [LEVEL_IDS[0], ids, LEVEL_IDS[2]], end_token_id=1, pad_token_id=0)
    processor = small([[0, 1, 3]], num_beams=2)
    with pytest.raises(DataError, match="codes up to token 12"):
        kept(processor, [[], []], torch.zeros(2, 12))
    with pytest.raises(DataError, match="2 beams"):
        kept(processor, [[]])
    with pytest.raises(DataError, match="num_beams is 0"):
        small([[0, 1, 3]], num_beams=0)
    with pytest.raises(DataError, match="rows of 1 tokens"):
        processor(torch.tensor([[9], [9]]), torch.zeros(2, VOCABULARY))
    with pytest.raises(DataError, match="no prompt was seen"):
        small([[0, 1, 3]], prompt_length=None).rows_of(torch.zeros(1, 5, dtype=torch.long))
    assert [rows.tolist() for rows in processor.rows_of(torch.tensor([[9, 9, 11]]))] == [[]]


def test_the_documented_snippet_runs():
    blocks = re.findall(r"```python\n(.*?)```", (ROOT / "docs" / "decoding.md").read_text("utf-8"), re.DOTALL)
    (snippet,) = [block for block in blocks if "TrieLogitsProcessor" in block]
    names: dict[str, Any] = {}
    exec(snippet, names)  # noqa: S102
    assert sorted(np.concatenate(names["items"]).tolist()) == [0, 1, 2]
    assert (names["found"].sequences_scores.diff() <= 0).all()
