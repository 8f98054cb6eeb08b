"""Imported vectors and given codes are held out with their items; killed reports go on."""

import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from tests.stages.test_embed_tokenize import RUN, run_with

from sidrec.config import parse
from sidrec.data.dataset import Dataset
from sidrec.embeddings.imported import ImportedVectors
from sidrec.errors import DataError
from sidrec.evaluation.cold_start import ColdStartConfig
from sidrec.evaluation.protocol import Protocol
from sidrec.stages import cold_start as stage
from sidrec.stages.cold_start import cold_start, cold_start_report
from sidrec.stages.extend import grown_vectors
from sidrec.stages.layout import RunFolder
from sidrec.stages.recipe import Recipe
from sidrec.testing.toy import cycle_dataset
from sidrec.tokenizers.semantic_ids import SemanticIds

SHARE = ColdStartConfig(share=0.2)


def recipe(**changes: object) -> Recipe:
    fields = {
        "recommender": {"kind": "decoder", "d_model": 16, "num_heads": 2, "d_ff": 16, "num_layers": 1},
        "tokenizer": {"kind": "rqkmeans", "levels": 2, "codebook_size": 4},
        "training": {"max_steps": 2, "batch_size": 16, "validate_users": 8},
    }
    return parse(Recipe, fields | changes)


def work_of(folder: RunFolder) -> RunFolder:
    return RunFolder(folder.path / "cold-start-decoder")


def test_imported_vectors_are_held_out_with_their_items(tmp_path: Path) -> None:
    folder = run_with(tmp_path / "run", cycle_dataset())
    matrix = np.random.default_rng(0).normal(size=(25, 5)).astype(np.float32)
    np.save(tmp_path / "all.npy", matrix)
    vectors = ImportedVectors.Config(path=str(tmp_path / "all.npy"), rows="catalogue order", skip_first_row=True)
    rules = Protocol(max_users=7, k=(1, 3), primary="hit@3", exclude_seen=False)
    made = cold_start(folder, recipe(embeddings=vectors, evaluation=rules), RUN, config=SHARE)
    work, catalog = work_of(folder), Dataset.load(folder.dataset).catalog
    warm = Dataset.load(work.dataset).catalog
    old, appended = np.load(work.path / "old_vectors.npy"), np.load(work.path / "new_vectors.npy")
    assert np.array_equal(old, matrix[1:][catalog.rows(warm.ids)])
    assert len(appended) == 5
    grown = grown_vectors(stage.open_artifact(work.tokenizer("rqkmeans-v2")))
    assert np.array_equal(grown, np.concatenate([old, appended]))
    report = cold_start_report(made.artifact)
    assert [line["examples"] for line in report["lines"]] == [7, 7, 7, 7], "the rules allow seven"
    assert report["primary"] == "hit@3"
    assert "seen items allowed" in report["protocol"]
    assert report["lines"][3]["chance"]["hit@3"] == pytest.approx(3 / 5)
    assert report["lines"][0]["content"] is not None


def test_given_codes_are_held_out_with_their_items(tmp_path: Path) -> None:
    codes = np.stack([np.arange(24) // 4, np.arange(24) % 4], axis=1).astype(np.int32)
    folder = run_with(tmp_path / "run", replace(cycle_dataset(), given_codes=codes))
    made = cold_start(folder, recipe(tokenizer="auto"), RUN, config=SHARE)
    work, catalog = work_of(folder), Dataset.load(folder.dataset).catalog
    ids = SemanticIds.load(work.tokenizer("given-v2"))
    new = list(json.loads((work.path / "new_items.index.json").read_text()))
    order = catalog.rows([*Dataset.load(work.dataset).catalog.ids, *new])
    assert np.array_equal(ids.codes, codes[order])
    assert cold_start_report(made.artifact)["lines"][2]["content"] is None, "there are no vectors to compare"
    assert not work.home("embeddings").exists()
    bare = run_with(tmp_path / "bare", cycle_dataset())
    with pytest.raises(DataError, match="no semantic IDs came with this dataset"):
        cold_start(bare, recipe(tokenizer="given"), RUN, config=SHARE)


def test_what_was_done_before_a_failure_stays(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    folder = run_with(tmp_path / "run", cycle_dataset())

    def killed(*args: object, **settings: object) -> None:
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr(stage, "extend", killed)
        with pytest.raises(KeyboardInterrupt):
            cold_start(folder, recipe(), RUN, config=SHARE)
    done: dict[str, bool] = {}

    def announce(step: str, result: object) -> None:
        if result is not None:
            done[step] = result.skipped

    cold_start(folder, recipe(), RUN, config=SHARE, announce=announce)
    assert done == {
        "hold out": True,
        "embed": True,
        "tokenize": True,
        "train": True,
        "evaluate": True,
        "extend": False,
        "cold-start": False,
    }


def test_vectors_of_behaviour_are_refused_before_training(tmp_path: Path) -> None:
    folder = run_with(tmp_path / "run", cycle_dataset())
    for vectors in ("collaborative", {"kind": "combine", "parts": ["tfidf", "collaborative"]}):
        with pytest.raises(DataError, match="cannot be made for new items"):
            cold_start(folder, recipe(embeddings=vectors), RUN)
    assert not work_of(folder).path.exists()


def test_a_tokenizer_that_learns_from_behaviour_too_encodes_new_items_by_content(tmp_path: Path) -> None:
    folder = run_with(tmp_path / "run", cycle_dataset())
    letter = {"kind": "letter", "levels": 2, "codebook_size": 4, "epochs": 1, "layers": [8], "latent_dim": 32}
    quick = {"kind": "collaborative", "training": {"max_epochs": 1}}
    made = cold_start(folder, recipe(tokenizer=letter, collaborative=quick), RUN, config=SHARE)
    assert [line["items"] for line in cold_start_report(made.artifact)["lines"]] == [19, 24, 24, 5]
