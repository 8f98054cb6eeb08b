"""Every tokenizer of tests/cases.py keeps the promises of its interface."""

import sys
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from sidrec.config import parse
from sidrec.errors import DataError
from sidrec.registry import REGISTRY, load_class
from sidrec.testing.tokenizer_contract import blobs, check_importing_tokenizer, check_tokenizer
from sidrec.testing.toy import cycle_dataset
from sidrec.tokenizers.base import ImportingTokenizer, Tokenizer, VectorTokenizer
from sidrec.tokenizers.given import Given
from sidrec.tokenizers.rqkmeans import RQKMeans
from sidrec.tokenizers.rqvae import RQVAE

sys.path.insert(0, str(Path(__file__).parents[1]))
from cases import TOKENIZERS, TokenizerCase

CODES = np.stack([np.arange(24) // 4, np.arange(24) % 3], axis=1).astype(np.int32)
DATASET = replace(cycle_dataset(24), given_codes=CODES)


def make(case: TokenizerCase) -> Tokenizer:
    cls = load_class("tokenizer", case.kind)
    return cls(parse(cls.Config, {"kind": case.kind, **case.fields}))


def name(case: TokenizerCase) -> str:
    return f"{case.kind}, {case.note}" if case.note else case.kind


def test_every_tokenizer_has_a_case() -> None:
    assert {case.kind for case in TOKENIZERS} == set(REGISTRY["tokenizer"])


@pytest.mark.parametrize("case", TOKENIZERS, ids=name)
def test_contract(case: TokenizerCase) -> None:
    tokenizer = make(case)
    if isinstance(tokenizer, VectorTokenizer):
        check_tokenizer(lambda: make(case))
    elif isinstance(tokenizer, ImportingTokenizer):
        check_importing_tokenizer(lambda: make(case), DATASET)
    else:
        assert case.why_not, f"{case.kind} neither learns nor imports"


class Restless(RQKMeans):
    """Breaks a promise: its codes depend on the batch."""

    def quantize(self, vectors: np.ndarray) -> np.ndarray:
        return np.roll(super().quantize(vectors), 1, axis=0)


def test_the_contract_notices_a_broken_promise() -> None:
    with pytest.raises(AssertionError, match="neighbours"):
        check_tokenizer(lambda: Restless(levels=2, codebook_size=8))


def test_unfitted_tokenizer_says_so() -> None:
    for tokenizer in (RQKMeans(), RQVAE()):
        with pytest.raises(DataError, match=r"has no (codebooks|network) yet"):
            tokenizer.quantize(blobs(4))


class Undecided(Given):
    """Breaks a promise: its codes are not those of the dataset's items."""

    def codes(self, dataset: object, run: object = None) -> tuple[np.ndarray, tuple[int, ...]]:
        return CODES[:20], (6, 3)


def test_the_contract_notices_codes_of_other_items() -> None:
    with pytest.raises(AssertionError, match="one code an item"):
        check_importing_tokenizer(Undecided, DATASET)
