import pytest

from sidrec.config import parse
from sidrec.errors import ConfigError
from sidrec.tokenizers.rqkmeans import RQKMeans
from sidrec.tokenizers.sizes import SizedConfig


@pytest.mark.parametrize(
    ("fields", "sizes"),
    [
        ({}, (256, 256, 256)),
        ({"levels": 2, "codebook_size": 8}, (8, 8)),
        ({"codebook_sizes": (64, 16, 4, 4)}, (64, 16, 4, 4)),
        ({"codebook_sizes": (8, 8), "levels": 2, "codebook_size": 8}, (8, 8)),
    ],
)
def test_sizes(fields: dict[str, object], sizes: tuple[int, ...]) -> None:
    config = parse(SizedConfig, fields)
    assert config.sizes == sizes
    assert parse(SizedConfig, config.model_dump(mode="json", exclude={"collisions"})).sizes == sizes


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        ({"codebook_sizes": (8, 8), "levels": 4}, "names 2 levels, levels says 4"),
        ({"codebook_sizes": (8, 4), "codebook_size": 8}, "contradict each other"),
        ({"codebook_sizes": (8, 0)}, "every level needs at least one code"),
    ],
)
def test_contradictions_are_refused(fields: dict[str, object], message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        parse(RQKMeans.Config, fields)
