import json
from dataclasses import replace
from typing import Literal

import numpy as np
import polars as pl
import pytest
from tests.stages.fake_recommender import Cycle, GenerativeCycle, save_dataset, save_recommender

from sidrec.artifact import open_artifact
from sidrec.config import RunSettings
from sidrec.data.dataset import Dataset, Examples
from sidrec.errors import ArtifactError, DataError
from sidrec.evaluation.protocol import Protocol
from sidrec.evaluation.significance import bootstrap_mean
from sidrec.stages.evaluate import evaluate
from sidrec.stages.layout import RunFolder
from sidrec.testing.toy import cycle_dataset, grid_semantic_ids

RUN = RunSettings()
PROTOCOL = Protocol(k=(1, 5), primary="ndcg@5")


class WrongAfterHalf(Cycle):
    """Right for users whose last item is in the first half of the catalogue."""

    class Config(Cycle.Config):
        kind: Literal["tests.stages.test_evaluate:WrongAfterHalf"] = "tests.stages.test_evaluate:WrongAfterHalf"

    def rank(self, histories, request, run):
        found = super().rank(histories, request, run)
        wrong = histories.rows[histories.offsets[1:] - 1] >= len(self.catalog) // 2
        return replace(found, rows=np.where(wrong[:, None], found.rows[:, ::-1], found.rows))


@pytest.fixture
def folder(tmp_path):
    folder, dataset = RunFolder(tmp_path / "run"), cycle_dataset()
    save_dataset(folder, dataset)
    save_recommender(folder, "second", Cycle(skip=0), dataset)
    save_recommender(folder, "ids", GenerativeCycle(skip=2), dataset, grid_semantic_ids(dataset.catalog))
    return folder


def test_writes_per_user_values_and_means(folder):
    result = evaluate(folder.recommender("second"), "test", PROTOCOL, RUN)
    assert result.artifact.path == folder.evaluation("second", "test")
    users = pl.read_parquet(result.artifact.path / "per_user.parquet")
    assert users.height == 96
    assert users["user_id"][3] == "user-3"
    assert users["hit@1"].mean() == 1
    assert users["rank"].to_list() == [1.0] * 96
    assert users["certified"].all()
    assert set(users["history_length"]) == {8}
    assert set(users["history_slice"]) == {"history 8"}
    dataset = cycle_dataset()
    assert users["target"].to_list() == dataset.catalog.ids_of(dataset.targets("test"))

    found = json.loads((result.artifact.path / "metrics.json").read_text())
    assert found["metrics"]["ndcg@5"] == 1
    assert found["intervals"]["hit@1"] == [1, 1]
    assert found["slices"]["history 8"]["users"] == 96
    assert sum(s["users"] for name, s in found["slices"].items() if name.startswith("target")) == 96
    assert found["generative"] is False
    assert "leave-one-out" in found["protocol"]
    summary = result.artifact.summary
    assert next(iter(summary)) == "ndcg@5"
    assert summary["certified"] == 1
    assert summary["invalid@5"] == summary["duplicate@5"] == 0
    assert "coverage@1" not in summary
    assert "recall@5" not in summary
    assert summary["users_per_second"] > 0


def test_users_with_several_targets_are_counted_once_and_drawn_whole(tmp_path):
    """Two test targets a user, as under a temporal split: 48 users, 96 examples."""
    folder, whole = RunFolder(tmp_path / "run"), cycle_dataset(num_users=48)
    users = np.repeat(np.arange(48, dtype=np.int32), 2)
    test, none = Examples(users, np.tile(np.array([7, 8], np.int32), 48)), Examples(users[:0], users[:0])
    dataset = Dataset(whole.catalog, whole.sequences, replace(whole.split, valid=none, test=test))
    save_dataset(folder, dataset)
    save_recommender(folder, "some", WrongAfterHalf(), dataset)
    result = evaluate(folder.recommender("some"), "test", PROTOCOL, RUN)
    assert (result.artifact.summary["users"], result.artifact.summary["examples"]) == (48, 96)
    found = json.loads((result.artifact.path / "metrics.json").read_text())
    assert (found["users"], found["examples"]) == (48, 96)
    assert found["slices"]["history 7"]["users"] == 48
    table = pl.read_parquet(result.artifact.path / "per_user.parquet")
    hits, names = table["hit@1"].to_numpy(), table["user_id"].to_numpy()
    interval = bootstrap_mean(hits, 0, users=names)
    assert found["intervals"]["hit@1"] == [interval.low, interval.high] != [hits.mean(), hits.mean()]


def test_misses_have_no_rank_and_ids_bring_sid_figures(folder):
    result = evaluate(folder.recommender("ids"), "test", PROTOCOL, RUN)
    users = pl.read_parquet(result.artifact.path / "per_user.parquet")
    assert users["rank"].null_count() == 96
    assert users["sid_hit@5"].sum() == 0
    assert result.artifact.summary["sid_hit@5"] == 0


def test_up_to_date_evaluations_are_skipped_and_equal_ones_have_equal_digests(folder):
    first = evaluate(folder.recommender("second"), "test", PROTOCOL, RUN)
    again = evaluate(folder.recommender("second"), "test", PROTOCOL, RUN)
    forced = evaluate(folder.recommender("second"), "test", PROTOCOL, RUN, force=True)
    other = evaluate(folder.recommender("second"), "test", Protocol(k=(2,), primary="hit@2"), RUN)
    assert (first.skipped, again.skipped, forced.skipped, other.skipped) == (False, True, False, False)
    assert forced.artifact.digest == first.artifact.digest
    assert other.artifact.digest != first.artifact.digest


def test_parts_stand_side_by_side(folder):
    evaluate(folder.recommender("second"), "test", PROTOCOL, RUN)
    evaluate(folder.recommender("second"), "valid", PROTOCOL, RUN)
    assert open_artifact(folder.evaluation("second", "valid")).config["part"] == "valid"
    assert open_artifact(folder.evaluation("second", "test")).config["part"] == "test"


def test_short_paths_work(folder, monkeypatch):
    monkeypatch.chdir(folder.path / "recommenders")
    from pathlib import Path

    result = evaluate(Path("second"), "test", PROTOCOL, RUN)
    assert result.artifact.path.resolve() == folder.evaluation("second", "test").resolve()


def test_another_catalogue_is_refused_naming_both(folder):
    other = cycle_dataset(num_items=30)
    parent = open_artifact(folder.dataset)
    save_recommender(folder, "stranger", Cycle(), other, parent=parent)
    with pytest.raises(DataError) as caught:
        evaluate(folder.recommender("stranger"), "test", PROTOCOL, RUN)
    assert "30 items" in str(caught.value)
    assert "24 items" in str(caught.value)
    assert other.catalog.digest[:12] in str(caught.value)
    assert not folder.evaluation("stranger", "test").exists()


def test_a_recommender_of_the_dataset_before_it_was_prepared_again_is_refused(folder):
    """Its training targets may be the test targets of the new split."""
    before = open_artifact(folder.dataset).digest
    save_dataset(folder, cycle_dataset(seed=5))
    now = open_artifact(folder.dataset).digest
    with pytest.raises(DataError, match="another dataset than this run's: second") as caught:
        evaluate(folder.recommender("second"), "test", PROTOCOL, RUN)
    assert before[:12] in str(caught.value)
    assert now[:12] in str(caught.value)
    assert not folder.evaluation("second", "test").exists()


def test_a_missing_recommender_is_named_with_what_there_is(folder):
    with pytest.raises(ArtifactError, match="ids, second"):
        evaluate(folder.recommender("tiger"), "test", PROTOCOL, RUN)
