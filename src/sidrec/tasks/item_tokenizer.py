"""Items as tokens of a Hugging Face fast tokenizer: one token an item, keyed by its id.

Token ids of items are catalogue rows; special tokens stand behind them, the one that begins a sequence first. No
number is written down: ask the tokenizer for `pad_token_id`, and for its length. Titles are no keys, because
items share them. A history is written as the tokens of its items, one directly after the other: `<B001><B0AX>`.
Leaves out semantic IDs, whose tokens are codes (`sidrec.tokenizers.vocabulary`).
"""

import re
from collections.abc import Iterable

from transformers import PreTrainedTokenizerFast

from sidrec.data.catalog import Catalog
from sidrec.errors import DataError
from tokenizers import Regex, Tokenizer, decoders, models, pre_tokenizers

__all__ = ["history_text", "item_tokenizer", "items_of_text", "special_ids"]

SPECIAL = {"bos_token": "[BOS]", "eos_token": "[EOS]", "pad_token": "[PAD]", "unk_token": "[UNK]"}
"""In the order in which they stand behind the items."""
ESCAPED = re.compile(r"[%<>\[\]]")
"""What limits tokens, makes up special tokens, or escapes: it never stands inside the token of an item."""
TOKEN = re.compile(r"<([^<>]*)>")


def item_tokenizer(catalog: Catalog, max_items: int = 0) -> PreTrainedTokenizerFast:
    """A tokenizer that writes item r of the catalogue as token r.

    Encoding adds no special token; histories are filled up on the right and cut on the left, where the oldest
    items stand. What is no item of the catalogue is the unknown token. Save it with `save_pretrained`;
    `AutoTokenizer.from_pretrained` reads it back.

    Args:
        catalog: the items.
        max_items: items of a history that are read; 0 means no limit.

    >>> import polars as pl
    >>> tokens = item_tokenizer(Catalog(pl.DataFrame({"item_id": ["B001", "a <b>"]})))
    >>> tokens("<a %3Cb%3E><B001><B007>").input_ids, tokens.unk_token_id, len(tokens)
    ([1, 0, 5], 5, 6)
    """
    words = [*(_token(item) for item in catalog.ids), *SPECIAL.values()]
    numbers = {word: number for number, word in enumerate(words)}
    backend = Tokenizer(models.WordLevel(numbers, unk_token=SPECIAL["unk_token"]))
    backend.pre_tokenizer = pre_tokenizers.Split(Regex(TOKEN.pattern), behavior="isolated")
    # Without it, tokens would be joined by blanks.
    backend.decoder = decoders.Fuse()
    return PreTrainedTokenizerFast(
        tokenizer_object=backend,
        **SPECIAL,
        padding_side="right",
        truncation_side="left",
        clean_up_tokenization_spaces=False,
        **({"model_max_length": max_items} if max_items > 0 else {}),
    )


def special_ids(num_items: int) -> dict[str, int]:
    """The special tokens of a catalogue's tokenizer that a model's configuration names, and their ids.

    >>> special_ids(12)
    {'bos_token_id': 12, 'eos_token_id': 13, 'pad_token_id': 14}
    """
    ids = {f"{name}_id": number for number, name in enumerate(SPECIAL, start=num_items)}
    return {name: ids[name] for name in ("bos_token_id", "eos_token_id", "pad_token_id")}


def history_text(items: Iterable[str]) -> str:
    """Item ids, oldest first, as the tokenizer reads them; the inverse of `items_of_text`.

    >>> history_text(["B001", "50% <off>"])
    '<B001><50%25 %3Coff%3E>'
    """
    return "".join(_token(item) for item in items)


def items_of_text(text: str) -> list[str]:
    """Item ids that a text of item tokens names; the inverse of `history_text`.

    >>> items_of_text("<B001><50%25 %3Coff%3E>")
    ['B001', '50% <off>']

    Raises:
        DataError: something else than item tokens stands in the text.
    """
    rest = TOKEN.sub("", text)
    if rest:
        raise DataError(
            f"'{rest[:40]}' is no token of an item", expected="tokens such as <B001>, one directly after the other"
        )
    return [re.sub(r"%([0-9A-F]{2})", lambda code: chr(int(code[1], 16)), word) for word in TOKEN.findall(text)]


def _token(item: str) -> str:
    return f"<{ESCAPED.sub(lambda sign: f'%{ord(sign[0]):02X}', item)}>"
