"""Items as tokens: ids with any characters come back, rows are token ids, nothing collides."""

from pathlib import Path

import polars as pl
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from transformers import AutoTokenizer

from sidrec.data.catalog import Catalog
from sidrec.errors import DataError
from sidrec.tasks.item_tokenizer import history_text, item_tokenizer, items_of_text

AWKWARD = ["<", ">", "%", "%3C", "[PAD]", "[UNK]", "PAD", "<pad>", " ", "a b", "a  b", "\n"]
AWKWARD += ["\u00e9", "e\u0301", "\u2028", "\U0001f642", "\x00"]
IDS = st.lists(st.text(min_size=1) | st.sampled_from(AWKWARD), min_size=1, max_size=12, unique=True)


def catalog(ids: list[str], **columns: list[str]) -> Catalog:
    return Catalog(pl.DataFrame({"item_id": ids, **columns}))


@settings(max_examples=150, deadline=None)
@given(IDS, st.data())
def test_histories_of_any_ids_come_back(ids: list[str], data: st.DataObject) -> None:
    items = catalog(ids)
    tokens = item_tokenizer(items)
    history = data.draw(st.lists(st.sampled_from(ids), max_size=8))
    text = history_text(history)
    rows = items.rows(history).tolist()
    assert tokens(text).input_ids == rows
    assert tokens.decode(rows) == text
    assert items_of_text(text) == history


@settings(max_examples=25, deadline=None)
@given(ids=IDS)
def test_it_comes_back_from_its_files(tmp_path_factory: pytest.TempPathFactory, ids: list[str]) -> None:
    folder = tmp_path_factory.mktemp("tokenizer")
    item_tokenizer(catalog(ids), max_items=20).save_pretrained(folder)
    loaded = AutoTokenizer.from_pretrained(folder)
    assert loaded(history_text(ids)).input_ids == list(range(len(ids)))
    assert items_of_text(loaded.decode(range(len(ids)))) == ids
    specials = [loaded.bos_token_id, loaded.eos_token_id, loaded.pad_token_id, loaded.unk_token_id]
    assert specials == list(range(len(ids), len(loaded)))
    assert loaded.model_max_length == 20


def test_items_that_share_a_title_are_two_tokens() -> None:
    items = catalog(["a", "b"], title=["Spider-Man", "Spider-Man"])
    assert item_tokenizer(items)("<b><a><Spider-Man>").input_ids[:2] == [1, 0]


def test_what_is_no_item_is_unknown() -> None:
    tokens = item_tokenizer(catalog(["a", "[PAD]"]))
    unknown = tokens.unk_token_id
    assert tokens("<b><a>rest<a").input_ids == [unknown, 0, unknown]
    assert tokens("<[PAD]>").input_ids != tokens("<%5BPAD%5D>").input_ids == [1]
    with pytest.raises(DataError, match=r"'rest' is no token of an item[\s\S]*<B001>"):
        items_of_text("<a>rest")


def test_long_histories_lose_their_oldest_items_and_short_ones_are_filled_up_on_the_right() -> None:
    tokens = item_tokenizer(catalog(["a", "b", "c"]), max_items=2)
    batch = tokens([history_text("abc"), history_text("c")], padding=True, truncation=True, return_tensors="pt")
    assert torch.equal(batch.input_ids, torch.tensor([[1, 2], [2, tokens.pad_token_id]]))
    assert batch.attention_mask.tolist() == [[1, 1], [1, 0]]


def test_the_same_catalogue_gives_the_same_bytes(tmp_path: Path) -> None:
    for name in ("one", "two"):
        item_tokenizer(catalog(["b", "a", "é"])).save_pretrained(tmp_path / name)
    files = sorted(path.name for path in (tmp_path / "one").iterdir())
    assert files == ["tokenizer.json", "tokenizer_config.json"]
    for name in files:
        assert (tmp_path / "one" / name).read_bytes() == (tmp_path / "two" / name).read_bytes()
