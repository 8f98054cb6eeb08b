"""The distribution of draws, by plain loops over a small tree."""

import math

import numpy as np
import torch

from sidrec.data.sequences import Histories
from sidrec.decoding.recommendations import BeamConfig, Request
from sidrec.decoding.samples import SamplingConfig
from sidrec.testing.scorers import TableScorer

from .oracle import Problem

Path = tuple[int, ...]


def small_problem(users: int = 1, **request: object) -> Problem:
    """13 leaves over 3 levels, one of them with two items; every user has seen row 3."""
    paths = ["000", "001", "010", "102", "110", "111", "112", "200", "201", "210", "220", "221", "222", "200"]
    codes = np.array([list(map(int, path)) for path in paths], np.int32)
    asked = Request(**{"k": 5, **request})
    return Problem(
        codes, TableScorer((3, 3, 3), has_end=True, sharpness=0.4), Histories.of([[3]] * users), asked, BeamConfig()
    )


def children(problem: Problem, user: int, prefix: Path, normalize: str = "level") -> dict[int, float]:
    """Log-probabilities of the codes after a prefix that lead to an item the user may get."""
    level = len(prefix)
    paths = [tuple(problem.codes[row].tolist()) for row in problem.wanted(user)]
    wanted = sorted({path[level] for path in paths if path[:level] == prefix})
    state = problem.scorer.start(problem.histories.take(np.array([user])))
    logps = problem.scorer.step(state, 0, None, None)[0, 0].tolist()
    for place, code in enumerate(prefix):
        logps = problem.scorer.step(state, place + 1, torch.tensor([[place]]), torch.tensor([[code]]))[0, 0].tolist()
    found = {code: logps[code] for code in wanted}
    if normalize == "children" and any(logp > -math.inf for logp in found.values()):
        total = math.log(sum(math.exp(logp) for logp in found.values()))
        found = {code: logp - total for code, logp in found.items()}
    return found


def distribution(logps: dict[int, float], config: SamplingConfig) -> dict[int, float]:
    """Probabilities of the children of one node: temperature, then the best `top_k`, then `top_p` of what is left."""
    weights = {code: math.exp(logp / config.temperature) for code, logp in logps.items()}
    best = sorted(weights, key=lambda code: (-logps[code], code))[: config.top_k]
    total, before, kept = sum(weights[code] for code in best), 0.0, {}
    for code in best:
        if before < config.top_p * total:
            kept[code] = weights[code]
        before += weights[code]
    return {code: weight / sum(kept.values()) for code, weight in kept.items()}


def leaf_probabilities(problem: Problem, user: int, config: SamplingConfig, prefix: Path = ()) -> dict[Path, float]:
    """Probability of every leaf that the user can draw."""
    if len(prefix) == problem.codes.shape[1]:
        return {prefix: 1.0}
    return {
        path: here * below
        for code, here in distribution(children(problem, user, prefix), config).items()
        for path, below in leaf_probabilities(problem, user, config, (*prefix, code)).items()
    }
