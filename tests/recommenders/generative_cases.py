"""Small random models of both backbones, and slow references for what the scorers compute."""

from dataclasses import dataclass, field
from typing import Any

import numpy as np
import torch

from sidrec.config import RunSettings
from sidrec.data.sequences import Histories
from sidrec.recommenders.decoder import Decoder
from sidrec.recommenders.generative import GenerativeRecommender
from sidrec.recommenders.item_decoder import ItemDecoder
from sidrec.recommenders.tiger import Tiger
from sidrec.testing.toy import cycle_dataset, random_semantic_ids
from sidrec.training.isolation import isolated_rng

KINDS = ("tiger", "decoder")
OPTIONS: dict[str, dict[str, Any]] = {
    "tiger": {},
    "decoder": {},
    "item-decoder": {},
    "item-decoder, nodes": {"outputs": "nodes"},
    "item-decoder, codes alone, users": {"user_tokens": 9, "item_vectors": False},
    "tiger, sums": {"item_inputs": "sum"},
    "tiger, positions": {"item_positions": True},
    "tiger, sums, positions": {"item_inputs": "sum", "item_positions": True},
    "tiger, users": {"user_tokens": 9},
    "tiger, users, sums, positions": {"user_tokens": 9, "item_inputs": "sum", "item_positions": True},
    "decoder, users": {"user_tokens": 9},
}
VARIANTS = tuple(OPTIONS)
"""Kinds, and kinds with options that change what is read; `make` knows them all."""
TOKEN_VARIANTS = tuple(kind for kind in OPTIONS if not kind.startswith("item-decoder"))
"""Those that write tokens of one vocabulary, which transformers' `generate` can do too."""
USERS = ("Ann", "Bob", None, "Ann", "Eve")
"""Whose histories are read where users have tokens; one is not known."""
RAGGED = Histories.of([[3, 7, 11, 2], [], [5], [9, 1, 8, 30, 41, 2, 17], [8, 8]], USERS)
RUN = RunSettings(device="cpu")


def make(kind: str, normalize: str = "level", num_items: int = 60, sizes=(5, 4, 6), seed: int = 0, **fields: Any):
    """A recommender with random weights, scaled up so that scores differ."""
    fields = OPTIONS[kind] | fields
    kind = kind.partition(",")[0]
    dataset = cycle_dataset(num_items=num_items)
    search = {"beams": 7, "normalize": normalize, "users_per_batch": 3}
    small = {
        "tiger": {"d_model": 16, "d_kv": 8, "num_heads": 2, "d_ff": 32, "num_layers": 2, "max_history": 6},
        "decoder": {"d_model": 16, "num_heads": 4, "d_ff": 32, "num_layers": 2, "max_history": 6},
        "item-decoder": {"d_model": 16, "num_heads": 4, "d_ff": 32, "num_layers": 2, "max_history": 6},
    }[kind]
    kinds = {"tiger": Tiger, "decoder": Decoder, "item-decoder": ItemDecoder}
    cls: type[GenerativeRecommender] = kinds[kind]
    recommender = cls(**small, search=search, **fields)
    recommender.catalog = dataset.catalog
    recommender.semantic_ids = random_semantic_ids(dataset.catalog, sizes, seed)
    with isolated_rng(seed):
        recommender.model = recommender.new_model(recommender.vocabulary).eval()
        with torch.no_grad():
            for name, weight in recommender.model.named_parameters():
                if weight.ndim == 2:
                    weight.mul_(2.0 if kind == "tiger" else 12.0)
                    if "relative_attention_bias" in name:
                        weight.normal_()
    return recommender


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


@dataclass
class Reference:
    """Log-probabilities by whole forward passes of the transformers model, one history and one path at a time."""

    recommender: GenerativeRecommender
    histories: Histories = RAGGED
    """Among them those that are asked for, with their users."""
    memo: dict[tuple[int, ...], torch.Tensor] = field(default_factory=dict)

    def step(self, history: list[int], path: tuple[int, ...]) -> torch.Tensor:
        """float32[K]: log-probabilities after `path`; of the end token alone after L codes."""
        key = (*history, -1, *path)
        if key not in self.memo:
            self.memo[key] = self._step(history, path)
        return self.memo[key]

    def _step(self, history: list[int], path: tuple[int, ...]) -> torch.Tensor:
        rec = self.recommender
        level = len(path)
        words, normalize = rec.vocabulary, rec.config.search.normalize
        prefix = [int(words.offsets[place]) + code for place, code in enumerate(path)]
        number = next(n for n in range(len(self.histories)) if self.histories[n].tolist() == history)
        prompt = rec.prompts(self.histories.take(np.array([number]))).tokens_BT
        with torch.no_grad():
            if isinstance(rec, ItemDecoder):
                # Behind the last position of the prompt, the codes after the path are anything.
                codes = torch.tensor([[*path, *[0] * (len(words.sizes) - level)]])
                place = torch.tensor([prompt.shape[1] - 1])
                logits = rec.model(prompt, place, codes, tree=rec.tree).logits[level][0]
                return logits.log_softmax(-1)
            if rec.config.kind == "tiger":
                decoder = torch.tensor([[words.PAD, *prefix]])
                logits = rec.model(input_ids=prompt, decoder_input_ids=decoder).logits[0, -1]
            else:
                tokens = torch.cat([prompt, torch.tensor([prefix], dtype=torch.long)], dim=1)
                logits = rec.model(input_ids=tokens).logits[0, -1]
        ids = torch.arange(*words.level_range(level)) if level < len(words.sizes) else torch.tensor([words.EOS])
        return logits.log_softmax(-1)[ids] if normalize == "vocabulary" else logits[ids].log_softmax(-1)

    def item_scores(self, history: list[int]) -> np.ndarray:
        """float64[N]: the sum of log-probabilities along every item's codes (and the end step)."""
        codes = self.recommender.ids.codes
        has_end = self.recommender.scorer(self.recommender.config.search.normalize).has_end
        out = np.zeros(len(codes))
        for row, path in enumerate(codes.tolist()):
            for level in range(len(path) + int(has_end)):
                scores = self.step(history, tuple(path[:level]))
                out[row] += float(scores[path[level] if level < len(path) else 0])
        return out
