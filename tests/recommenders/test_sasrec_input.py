"""What the network reads: padding, positions, the token that begins a history, and ids that have no row."""

import math

import pytest
import torch
from torch.nn import functional as F
from transformers import AutoTokenizer

from sidrec.errors import ConfigError, DataError
from sidrec.recommenders.sasrec import SASRec
from sidrec.recommenders.sasrec_model import SASRecModel, SASRecModelConfig
from sidrec.tasks.item_tokenizer import item_tokenizer, special_ids
from sidrec.training.config import TrainingConfig
from sidrec.training.objectives import IGNORE

from .test_sasrec_model import DATASET, RUN, VARIANTS, name, small


@pytest.mark.parametrize("fields", VARIANTS, ids=name)
def test_the_side_of_padding_does_not_matter(fields):
    """A history alone, filled up on the right, on the left, and with a gap in it."""
    model = small(**fields)
    items = torch.tensor([[3, 1, 4, 5]])
    right, left, gap = [3, 1, 4, 5, 9, 9, 9], [9, 9, 9, 3, 1, 4, 5], [9, 3, 1, 9, 4, 9, 5]
    mask = torch.tensor([[1, 1, 1, 1, 0, 0, 0], [0, 0, 0, 1, 1, 1, 1], [0, 1, 1, 0, 1, 0, 1]])
    with torch.no_grad():
        alone = model(items).hidden[0]
        together = model(torch.tensor([right, left, gap]), mask).hidden
        only_right = model(torch.tensor([right]), mask[:1]).hidden
    assert together.isfinite().all()
    for row in range(3):
        torch.testing.assert_close(together[row][mask[row].bool()], alone)
    torch.testing.assert_close(only_right[0, :4], alone)


@pytest.mark.parametrize("fields", VARIANTS, ids=name)
def test_the_loss_is_the_same_on_both_sides(fields):
    model = small(**fields)
    items, labels = torch.tensor([[3, 1, 4], [2, 7, 7]]), torch.tensor([[1, 4, 2], [7, IGNORE, 0]])
    pad, ignored = torch.full((2, 2), 9), torch.full((2, 2), IGNORE)
    mask = torch.tensor([[0, 0, 1, 1, 1]] * 2)
    left = model(torch.cat([pad, items], 1), mask, labels=torch.cat([ignored, labels], 1)).loss
    right = model(torch.cat([items, pad], 1), mask.flip(1), labels=torch.cat([labels, ignored], 1)).loss
    torch.testing.assert_close(left, model(items, labels=labels).loss)
    torch.testing.assert_close(right, left)


@pytest.mark.parametrize("fields", VARIANTS, ids=name)
def test_a_prefix_alone_has_the_state_that_it_has_inside(fields):
    """What a cache of keys and values would have to give: states do not depend on what comes later."""
    model = small(**fields)
    items = torch.tensor([[3, 1, 4, 5, 2]])
    with torch.no_grad():
        whole = model(items).hidden
        for length in range(1, 6):
            torch.testing.assert_close(model(items[:, :length]).hidden, whole[:, :length])


def test_there_is_no_cache_to_go_wrong():
    model = small()
    assert not model.can_generate()
    with pytest.raises(TypeError, match="past_key_values"):
        model(torch.tensor([[1]]), past_key_values=None)


def test_given_positions_are_used():
    model = small(max_history=9)
    items, places = torch.tensor([[3, 1]]), torch.tensor([[4, 6]])
    with torch.no_grad():
        found = model(items, position_ids=places).hidden
        table = model.positions.weight.clone()
        model.positions.weight[:2] = table[[4, 6]]
        expected = model(items).hidden
    torch.testing.assert_close(found, expected)


def test_rotary_attention_sees_distances_only():
    """States do not change when a whole history moves, and change when a distance does."""
    model = small(positions="rope")
    items = torch.tensor([[3, 1, 4]])
    with torch.no_grad():
        first, moved, apart = (
            model(items, position_ids=torch.tensor([places])).hidden for places in ([0, 1, 2], [40, 41, 42], [0, 1, 5])
        )
    torch.testing.assert_close(first, moved, rtol=1e-3, atol=1e-4)
    assert not torch.allclose(first, apart, atol=1e-2)


def test_rotary_angles_by_hand():
    """Width 4, base 100: dimensions (0, 2) turn by the place, (1, 3) by a tenth of it; float32 whatever the weights."""
    model = small(positions="rope", rope_theta=100.0, num_heads=2).to(torch.bfloat16)
    cosines, sines = model._turn(torch.tensor([[0, 3]]))
    assert cosines.dtype == torch.float32
    torch.testing.assert_close(cosines[0, 0], torch.tensor([[1.0, 1.0], [math.cos(3), math.cos(0.3)]]))
    torch.testing.assert_close(sines[0, 0], torch.tensor([[0.0, 0.0], [math.sin(3), math.sin(0.3)]]))


@pytest.mark.parametrize("positions", ["learned", "rope"])
def test_histories_beyond_the_table_of_positions(positions):
    """A table has an end, which padding does not reach; rotary positions have none."""
    model = small(positions=positions, max_history=3)
    items = torch.tensor([[1, 2, 3, 4]])
    with torch.no_grad():
        padded = model(items, torch.tensor([[1, 1, 1, 0]])).hidden[:, :3]
        torch.testing.assert_close(padded, model(items[:, :3]).hidden)
        if positions == "rope":
            assert model(items).hidden.isfinite().all()
            return
        with pytest.raises(DataError, match="a history has 4 items and there are 3 learned positions"):
            model(items)


@pytest.mark.parametrize("begin", [False, True])
def test_given_positions_beyond_the_table_are_refused(begin):
    """Also where the history is short; the token that begins is no item of it."""
    model = small(max_history=5, special_rows=1, begin=begin)
    items = torch.tensor([[3, 1]])
    with torch.no_grad():
        model(items, position_ids=torch.tensor([[0, 4]]))
        with pytest.raises(DataError, match="position_ids run from 0 to 5 and there are 5 learned positions"):
            model(items, position_ids=torch.tensor([[0, 5]]))
        with pytest.raises(DataError, match="position_ids run from -1 to 2"):
            model(items, position_ids=torch.tensor([[-1, 2]]))


# --- the token that begins ---------------------------------------------------------------------------------


def test_begin_is_an_item_before_the_history():
    """The same as a model without it whose histories start with the special row."""
    model, plain = small(special_rows=3, begin=True, max_history=4), small(num_items=15, max_history=5)
    state = model.state_dict()
    plain.load_state_dict(state | {"popularity": torch.zeros(15)})
    items = torch.tensor([[3, 1, 4]])
    with torch.no_grad():
        expected = plain(F.pad(items, (1, 0), value=12)).hidden[:, 1:]
        torch.testing.assert_close(model(items).hidden, expected)


def test_a_history_that_is_too_long_is_counted_without_begin():
    model = small(special_rows=1, begin=True, max_history=3)
    with torch.no_grad():
        assert model(torch.tensor([[1, 2, 3]])).hidden.shape == (1, 3, 8)
        with pytest.raises(DataError, match="a history has 4 items and there are 3 learned positions"):
            model(torch.tensor([[1, 2, 3, 4]]))


def test_given_positions_are_those_of_items_behind_begin():
    """Counted from 0 they change nothing; begin keeps the first place of the table."""
    model = small(special_rows=1, begin=True)
    items = torch.tensor([[3, 1, 4]])
    with torch.no_grad():
        expected = model(items).hidden
        torch.testing.assert_close(model(items, position_ids=torch.tensor([[0, 1, 2]])).hidden, expected)
        apart = model(items, position_ids=torch.tensor([[0, 4, 6]])).hidden
        model.positions.weight[2:4] = model.positions.weight[[5, 7]]
        torch.testing.assert_close(apart, model(items).hidden)
    assert not torch.allclose(apart, expected, atol=1e-2)


def test_begin_is_the_row_that_the_configuration_names():
    first, second = (small(special_rows=2, begin=True, bos_token_id=row) for row in (12, 13))
    with torch.no_grad():
        items = torch.tensor([[3, 1]])
        assert not torch.allclose(first(items).hidden, second(items).hidden, atol=1e-2)
        first.items.weight[12] = second.items.weight[13]
        torch.testing.assert_close(first(items).hidden, second(items).hidden)
    with pytest.raises(ConfigError, match="token 12 begins a history and has no row"):
        SASRecModel(SASRecModelConfig(num_items=12, hidden_size=8, begin=True))


# --- tokens ------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("special_rows", [0, 1, 4])
def test_the_saved_tokenizer_and_network_agree_on_special_tokens(tmp_path, special_rows):
    sasrec = SASRec(hidden_size=8, special_rows=special_rows, begin=special_rows > 0)
    sasrec.fit(DATASET, TrainingConfig(max_steps=1), RUN)
    sasrec.save(tmp_path)
    tokens, model = AutoTokenizer.from_pretrained(tmp_path), SASRecModel.from_pretrained(tmp_path).eval()
    for token in ("bos", "eos", "pad"):
        assert getattr(model.config, f"{token}_token_id") == getattr(tokens, f"{token}_token_id")
    if special_rows:
        assert model.begin == tokens.bos_token_id < len(model.items.weight)


def test_an_item_that_is_unknown_needs_a_row():
    """It is a token as any other, and no padding."""
    tokens = item_tokenizer(DATASET.catalog)
    batch = tokens(["<item-1><nope><item-2>"], return_tensors="pt")
    for special_rows in (0, 1, 3):
        model = small(special_rows=special_rows)
        with pytest.raises(DataError, match=r"no row for the id 15[\s\S]*12 items and .* special rows"):
            model(batch.input_ids, batch.attention_mask)
        masked = model(batch.input_ids, torch.tensor([[1, 0, 1]])).hidden
        torch.testing.assert_close(masked[:, [0, 2]], model(torch.tensor([[1, 2]])).hidden)
    assert small(special_rows=4)(batch.input_ids, batch.attention_mask).hidden.isfinite().all()
    with pytest.raises(DataError, match="no row for the id -1"):
        small()(torch.tensor([[1, -1]]))


@pytest.mark.parametrize("special_rows", [0, 4])
@pytest.mark.parametrize("side", ["left", "right"])
def test_padding_tokens_are_masked_where_no_mask_is_given(special_rows, side):
    model = small(special_rows=special_rows, **special_ids(12))
    tokens = item_tokenizer(DATASET.catalog)
    batch = tokens(["<item-1><item-5>", "<item-3>"], padding=True, padding_side=side, return_tensors="pt")
    assert tokens.pad_token_id in batch.input_ids
    with torch.no_grad():
        expected = model(batch.input_ids, batch.attention_mask).hidden
        torch.testing.assert_close(model(batch.input_ids).hidden, expected)
