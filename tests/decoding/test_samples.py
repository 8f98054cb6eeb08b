"""Settings that contradict each other are refused; importance weights by hand."""

import math

import numpy as np
import pytest

from sidrec.config import parse
from sidrec.decoding.samples import Samples, SamplingConfig
from sidrec.errors import ConfigError, DataError


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        ({"temperature": 0}, "temperature: input should be greater than 0, got 0"),
        ({"temperature": math.inf}, "temperature: input should be a finite number"),
        ({"top_k": 0}, "top_k: input should be greater than or equal to 1, got 0"),
        ({"top_p": 0.0}, "top_p: input should be greater than 0"),
        ({"top_p": 1.1}, "top_p: input should be less than or equal to 1"),
        ({"kind": "diverse", "diversity": -1}, "diversity: input should be greater than or equal to 0"),
        ({"kind": "beam"}, "kind: input should be 'sample', 'gumbel' or 'diverse'"),
        ({"kind": "diverse", "temperature": 2}, "'temperature' has no effect on 'diverse'; only on sample and gumbel"),
        ({"kind": "gumbel", "groups": 2}, "'groups' has no effect on 'gumbel'; only on diverse"),
    ],
)
def test_settings_that_mean_nothing_are_refused(fields, message):
    with pytest.raises(ConfigError, match=message):
        parse(SamplingConfig, fields)


@pytest.mark.parametrize("kind", ["sample", "gumbel", "diverse"])
def test_written_settings_are_read_again(kind):
    config = SamplingConfig(kind=kind)
    assert parse(SamplingConfig, config.model_dump(mode="json")) == config


def test_importance_weights_by_hand():
    # Leaves of 0.5 and 0.2, threshold log 0.5: inclusion 1 - exp(-0.5 / 0.5) and 1 - exp(-0.2 / 0.5).
    logs = np.log(np.array([[0.5, 0.2, 1.0]], np.float32))
    logs[0, 2] = -np.inf
    rows, codes = np.array([[7, 3, -1]], np.int32), np.zeros((1, 3, 1), np.int32)
    samples = Samples(rows, codes, logs, logs, logs, np.log(np.array([0.5], np.float32)))
    expected = [[0.5 / (1 - math.exp(-1)), 0.2 / (1 - math.exp(-0.4)), 0]]
    np.testing.assert_allclose(samples.weights(), expected, rtol=1e-6)
    # Far below the threshold the inclusion probability is p / exp(threshold), which naive arithmetic makes 0.
    rare = Samples(rows[:, :1], codes[:, :1], logs[:, :1], np.array([[-40.0]]), None, np.array([1.0]))
    np.testing.assert_allclose(rare.weights(), [[math.e]], rtol=1e-6)
    with pytest.raises(DataError, match="not drawn without replacement"):
        Samples(rows, codes, logs, logs).weights()
