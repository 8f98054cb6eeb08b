"""Every policy on the index files that were published with LETTER, which collide as real ones do.

The vectors behind them were not published. Where a policy needs some, they are made so that residual
quantization gives exactly the published codes: codebooks shrink from level to level, so that what
follows never reaches halfway to another code.
"""

import json
import os
from functools import cache
from pathlib import Path

import numpy as np
import pytest
import torch

from sidrec.tokenizers.collisions import CollisionPolicy, as_semantic_ids, settle_codes
from sidrec.tokenizers.counting import AppendLevel, HashedRoundRobin, Keep
from sidrec.tokenizers.placement import Quantized
from sidrec.tokenizers.reassignment import NearestFree, SinkhornReassign
from sidrec.tokenizers.residual import residual_codes

DATA = os.environ.get("SIDREC_DATA", "")
pytestmark = pytest.mark.skipif(not DATA, reason="SIDREC_DATA is not set: the published index files are not settled")

COLLIDING = {"Beauty": 24, "Instruments": 48, "Yelp": 1247}
DISTINCT = {"Beauty": 12088, "Instruments": 9897, "Yelp": 19201}
SPREAD = SinkhornReassign(rounds=2)
"""The published twenty rounds take half a minute on Yelp."""
POLICIES = [AppendLevel(), HashedRoundRobin(), HashedRoundRobin(suffix=True), NearestFree(), SPREAD]


@cache
def published(name: str) -> Quantized:
    """The codes with latents behind them: half of the items that collide are copies, the others near copies."""
    index = json.loads((Path(DATA) / "letter" / name / f"{name}.index.json").read_text())
    codes = np.array(
        [[int(token.strip("<>").split("_")[1]) for token in tokens] for tokens in index.values()], np.int32
    )
    draw = np.random.default_rng(0)
    books = [draw.normal(size=(256, 32)).astype(np.float32) / 8**level for level in range(4)]
    latents = sum(book[codes[:, level]] for level, book in enumerate(books))
    noise = draw.normal(size=latents.shape) / 8**5 * (np.arange(len(codes)) % 2)[:, None]
    return Quantized(codes, (256,) * 4, (latents + noise).astype(np.float32), books)


@pytest.mark.parametrize("name", COLLIDING)
def test_the_latents_have_the_published_codes(name: str) -> None:
    quantized = published(name)
    books = [torch.from_numpy(book) for book in quantized.codebooks]
    assert np.array_equal(residual_codes(torch.from_numpy(quantized.latents), books)[0], quantized.codes)
    counts = np.unique(quantized.codes, axis=0, return_counts=True)[1]
    assert (len(counts), counts[counts > 1].sum()) == (DISTINCT[name], COLLIDING[name])


@pytest.mark.parametrize("name", COLLIDING)
@pytest.mark.parametrize("policy", POLICIES, ids=lambda policy: repr(policy.config))
def test_codes_are_unique(name: str, policy: CollisionPolicy) -> None:
    quantized = published(name)
    settled = settle_codes(policy.config, quantized)
    assert len({tuple(code) for code in settled.codes.tolist()}) == len(quantized.codes)
    assert np.array_equal(settle_codes(policy.config, quantized).codes, settled.codes)
    if not policy.needs_vectors:
        alone = Quantized(quantized.codes, quantized.sizes)
        assert np.array_equal(settle_codes(policy.config, alone).codes, settled.codes)
    if isinstance(policy, NearestFree):
        assert settled.num_moved == len(quantized.codes) - DISTINCT[name], "no more items move than must"
        assert settled.num_far == 0


@pytest.mark.parametrize("name", COLLIDING)
def test_half_of_the_catalogue_extended_by_the_other(name: str) -> None:
    quantized = published(name)
    half = len(quantized.codes) // 2
    first = Quantized(quantized.codes[:half], quantized.sizes, quantized.latents[:half], quantized.codebooks)
    for policy in POLICIES:
        before = as_semantic_ids(settle_codes(policy.config, first), "digest")
        after = as_semantic_ids(settle_codes(policy.config, quantized, before), "digest", before)
        assert np.array_equal(after.codes[:half], before.codes)
        assert after.num_collided == 0


@pytest.mark.parametrize("name", COLLIDING)
def test_what_is_left_of_collisions_is_as_published(name: str) -> None:
    quantized = published(name)
    assert np.array_equal(settle_codes(Keep.Config(), quantized).codes, quantized.codes)
    faithful = settle_codes(SinkhornReassign.Config(faithful=True, rounds=2), quantized)
    shared = np.unique(faithful.codes, axis=0, return_counts=True)[1]
    assert 0 < shared[shared > 1].sum() < COLLIDING[name], "copies stay together"
