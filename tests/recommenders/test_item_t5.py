"""The T5 that reads items: its input by hand, what it equals, and its files."""

import json

import numpy as np
import pytest
import torch
from tests.recommenders.generative_cases import RAGGED, RUN, make
from transformers import AutoModelForSeq2SeqLM, T5Config, T5ForConditionalGeneration

from sidrec.artifact import create
from sidrec.decoding.recommendations import Request
from sidrec.recommenders.base import Recommender
from sidrec.recommenders.item_t5 import ItemEncoder, ItemT5, ItemT5Config
from sidrec.recommenders.tiger import Tiger
from sidrec.testing.toy import cycle_dataset, grid_semantic_ids
from sidrec.tokenizers.vocabulary import CodeVocabulary
from sidrec.training import watch
from sidrec.training.config import TrainingConfig
from sidrec.training.isolation import isolated_rng

# Two levels of 2 and 3 codes: tokens 3-4 and 5-7.
TINY = {"vocab_size": 8, "d_model": 8, "d_kv": 4, "num_heads": 2, "d_ff": 16, "num_layers": 1, "pad_token_id": 0}
CODES = {"first_code": 3, "first_level_size": 2, "num_codes": 5}
OPTIONS = {
    "sums": {"item_inputs": "sum"},
    "positions": {"item_positions": True},
    "both": {"item_inputs": "sum", "item_positions": True},
}


def item_t5(**fields) -> ItemT5:
    with isolated_rng(0):
        return ItemT5(ItemT5Config(decoder_start_token_id=0, **TINY, **CODES, **fields)).eval()


def test_without_options_a_tiger_is_a_plain_t5_of_the_same_weights(tmp_path):
    sizes = {"d_model": 16, "d_kv": 8, "num_heads": 2, "d_ff": 32, "num_layers": 2}
    vocabulary = CodeVocabulary((5, 4))
    with isolated_rng(3):
        model = Tiger(**sizes).new_model(vocabulary)
    with isolated_rng(3):
        config = T5Config(vocab_size=12, num_decoder_layers=2, dropout_rate=0.1, decoder_start_token_id=0, **sizes)
        plain = T5ForConditionalGeneration(config)
    assert type(model) is T5ForConditionalGeneration
    assert model.state_dict().keys() == plain.state_dict().keys()
    assert all(torch.equal(weight, plain.state_dict()[name]) for name, weight in model.state_dict().items())
    model.save_pretrained(tmp_path)
    assert json.loads((tmp_path / "config.json").read_text())["model_type"] == "t5"


def test_all_weights_are_drawn_as_those_of_a_plain_t5():
    sizes = {"vocab_size": 60, "d_model": 64, "d_kv": 32, "num_heads": 4, "d_ff": 128, "num_layers": 2}
    with isolated_rng(0):
        plain = dict(T5ForConditionalGeneration(T5Config(decoder_start_token_id=0, **sizes)).named_parameters())
        ours = dict(ItemT5(ItemT5Config(decoder_start_token_id=0, item_positions=9, **sizes)).named_parameters())
    assert ours.keys() - plain.keys() == {"encoder.item_positions.weight"}
    for name, weight in plain.items():
        assert ours[name].std().item() == pytest.approx(weight.std().item(), rel=0.25), name
        assert ours[name].mean().item() == pytest.approx(weight.mean().item(), abs=0.25), name


def test_an_item_is_the_sum_of_its_codes():
    model = item_t5()
    rows = model.shared.weight
    read = model.encoder.embed(torch.tensor([[[4, 6], [3, 7], [1, 0]], [[4, 5], [1, 0], [0, 0]]]))
    expected = torch.stack(
        [
            torch.stack([rows[4] + rows[6], rows[3] + rows[7], rows[1]]),
            torch.stack([rows[4] + rows[5], rows[1], torch.zeros(8)]),
        ]
    )
    torch.testing.assert_close(read, expected)


@pytest.mark.parametrize("left", [False, True])
def test_positions_count_items_from_the_newest(left):
    """Items 4 6, 3 7 and 3 5 with a table of two rows: the oldest shares the last one, the end has none."""
    model = item_t5(item_positions=2)
    rows, places = model.shared.weight, model.encoder.item_positions.weight
    tokens = torch.tensor([[0, 4, 6, 3, 7, 3, 5, 1] if left else [4, 6, 3, 7, 3, 5, 1, 0]])
    added = model.encoder.embed(tokens) - rows[tokens]
    shared = [places[1]] * 4 + [places[0]] * 2 + [torch.zeros(8)]
    expected = torch.stack([torch.zeros(8), *shared] if left else [*shared, torch.zeros(8)])
    torch.testing.assert_close(added[0], expected, atol=1e-6, rtol=0)
    whole = torch.tensor([[[4, 6], [3, 7], [3, 5], [1, 0]]])
    summed = model.encoder.embed(whole) - item_t5().encoder.embed(whole)
    torch.testing.assert_close(summed[0], torch.stack([places[1], places[1], places[0], torch.zeros(8)]))


def test_positions_begin_small_beside_tokens():
    with isolated_rng(0):
        model = ItemT5(ItemT5Config(vocab_size=100, d_model=64, num_layers=1, item_positions=50))
    assert model.encoder.item_positions.weight.std().item() == pytest.approx(64**-0.5, rel=0.1)
    assert model.shared.weight.std().item() == pytest.approx(1, rel=0.1)


def test_a_whole_pass_is_a_plain_t5_of_the_same_vectors():
    model = item_t5(item_positions=3)
    plain = T5ForConditionalGeneration(T5Config(decoder_start_token_id=0, **TINY)).eval()
    weights = {name: weight for name, weight in model.state_dict().items() if "item_positions" not in name}
    plain.load_state_dict(weights)
    tokens, labels = torch.tensor([[[4, 6], [3, 7], [1, 0]]]), torch.tensor([[3, 5, 1]])
    mask = torch.ones(1, 3, dtype=torch.long)
    found = model(input_ids=tokens, attention_mask=mask, labels=labels)
    expected = plain(inputs_embeds=model.encoder.embed(tokens), attention_mask=mask, labels=labels)
    assert torch.equal(found.logits, expected.logits)
    assert torch.equal(model(inputs_embeds=model.encoder.embed(tokens), labels=labels).logits, found.logits)


def test_positions_of_zero_change_nothing():
    """Vectors of places that are all zero leave a TIGER what it is without them, to the bit."""
    plain, placed = make("tiger"), make("tiger, positions")
    weights = plain.model.state_dict() | {"encoder.item_positions.weight": torch.zeros(6, 16)}
    placed.model.load_state_dict(weights)
    one, two = (recommender.rank(RAGGED, Request(k=9), RUN) for recommender in (plain, placed))
    np.testing.assert_array_equal(one.rows, two.rows)
    np.testing.assert_array_equal(one.scores, two.scores)


def test_sums_of_one_code_are_codes():
    """With a single level both inputs are the same; lists are equal to the bit, gradients but for rounding."""
    plain, summed = (make(kind, sizes=(60,)) for kind in ("tiger", "tiger, sums"))
    summed.model.load_state_dict(plain.model.state_dict())
    one, two = (recommender.rank(RAGGED, Request(k=9), RUN) for recommender in (plain, summed))
    np.testing.assert_array_equal(one.rows, two.rows)
    np.testing.assert_array_equal(one.scores, two.scores)
    gradients = []
    for recommender in (plain, summed):
        recommender.log_probs(RAGGED, one.rows).sum().backward()
        gradients.append([weight.grad for weight in recommender.model.parameters()])
    for left, right in zip(*gradients, strict=True):
        torch.testing.assert_close(left, right, atol=1e-5, rtol=1e-5)


def test_sums_make_the_input_shorter():
    dataset = cycle_dataset(num_items=16)
    lengths = []
    for fields in ({}, OPTIONS["sums"]):
        tiger = Tiger(**fields)
        tiger.semantic_ids = grid_semantic_ids(dataset.catalog, size=4, levels=2)
        lengths.append(tiger.examples(dataset, dataset.split.train).lengths)
    assert np.array_equal(lengths[0] - 1, 2 * (lengths[1] - 1))


@pytest.mark.parametrize("name", OPTIONS)
def test_the_directory_is_one_of_transformers(tmp_path, name):
    recommender = make(f"tiger, {name}" if name != "both" else "tiger, sums, positions")
    with create(tmp_path / "saved", kind="recommender", config={}) as writer:
        recommender.save(writer.path)
    assert [path.name for path in (tmp_path / "saved").glob("*.safetensors")] == ["model.safetensors"]
    model = AutoModelForSeq2SeqLM.from_pretrained(tmp_path / "saved").eval()
    assert isinstance(model.encoder, ItemEncoder)
    assert model.encoder.embed_tokens.weight is model.shared.weight
    for key, weight in recommender.model.state_dict().items():
        assert torch.equal(model.state_dict()[key], weight)
    loaded = Recommender.load(tmp_path / "saved")
    before, after = (each.rank(RAGGED, Request(k=6), RUN) for each in (recommender, loaded))
    np.testing.assert_array_equal(before.rows, after.rows)
    np.testing.assert_array_equal(before.scores, after.scores)


@pytest.mark.parametrize("name", OPTIONS)
def test_killed_and_resumed_equals_uninterrupted(tmp_path, monkeypatch, name):
    monkeypatch.setattr(watch, "CHECKPOINT_SECONDS", 0.0)
    dataset = cycle_dataset(num_items=16, num_users=12)
    ids = grid_semantic_ids(dataset.catalog, size=4, levels=2)
    training = TrainingConfig(max_epochs=2, batch_size=16, validate_every=1, patience=0)

    def fitted(folder, kill_at=None):
        small = {"d_model": 16, "d_kv": 8, "num_heads": 2, "d_ff": 32, "num_layers": 1}
        tiger, calls = Tiger(**small, **OPTIONS[name]), []

        def validate(_):
            calls.append(1)
            if len(calls) == kill_at:
                raise KeyboardInterrupt
            return {"metric": float(len(calls))}

        run = RUN if folder is None else type(RUN)(device="cpu", scratch=folder)
        tiger.fit(dataset, training, run, semantic_ids=ids, validate=validate)
        return torch.cat([weight.flatten() for weight in tiger.model.parameters()])

    whole = fitted(None)
    with pytest.raises(KeyboardInterrupt):
        fitted(tmp_path, kill_at=5)
    assert [path.name for path in (tmp_path / "checkpoints").glob("checkpoint-*")] == ["checkpoint-4"]
    assert torch.equal(fitted(tmp_path), whole)
