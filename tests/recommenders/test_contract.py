"""Every recommender of tests/cases.py keeps the contract, and learns the cycle."""

import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from sidrec.config import RunSettings, parse
from sidrec.decoding.recommendations import Request
from sidrec.registry import REGISTRY, load_class
from sidrec.testing.recommender_contract import check_recommender
from sidrec.testing.toy import cycle_dataset, grid_semantic_ids

sys.path.insert(0, str(Path(__file__).parents[1]))
from cases import CASES, Case

DATASET = cycle_dataset()
IDS = grid_semantic_ids(DATASET.catalog)


def make(case: Case):
    cls = load_class("recommender", case.kind)
    return cls(parse(cls.Config, {"kind": case.kind, **case.fields}))


def members(case: Case, how: str) -> dict[str, Any]:
    """What a case's `fit` is given besides data: the members, trained as the case itself."""
    made = {name: make(member) for name, member in case.members.items()}
    for name, member in case.members.items():
        made[name].fit(DATASET, getattr(member, how), RunSettings(seed=1, device="cpu"), semantic_ids=IDS)
    return {"members": made} if made else {}


def name(case: Case) -> str:
    return f"{case.kind}, {case.note}" if case.note else case.kind


def test_every_recommender_has_a_case():
    assert {case.kind for case in CASES} == set(REGISTRY["recommender"])


@pytest.mark.parametrize("case", CASES, ids=name)
def test_contract(case):
    check_recommender(lambda: make(case), DATASET, IDS, case.quick, **members(case, "quick"))


@pytest.mark.parametrize("case", [case for case in CASES if case.learns], ids=name)
def test_learns_the_cycle(case):
    recommender = make(case)
    run = RunSettings(seed=1, device="cpu")
    report = recommender.fit(DATASET, case.learns, run, semantic_ids=IDS, **members(case, "learns"))
    assert not report.losses or report.losses[-1][1] < report.losses[0][1]
    found = recommender.rank(DATASET.histories("test"), Request(k=1), run)
    assert np.array_equal(found.rows[:, 0], DATASET.targets("test"))


@pytest.mark.parametrize("case", [case for case in CASES if not case.learns], ids=name)
def test_those_that_cannot_learn_the_cycle_do_not(case):
    recommender = make(case)
    recommender.fit(DATASET, case.quick, RunSettings(device="cpu"), semantic_ids=IDS)
    found = recommender.rank(DATASET.histories("test"), Request(k=1), RunSettings(device="cpu"))
    assert case.why_not
    assert (found.rows[:, 0] == DATASET.targets("test")).mean() < 0.5
