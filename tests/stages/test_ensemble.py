"""Ensembles as artefacts: parents, staleness, self-contained folders, wrong names."""

import shutil
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from tests.stages.test_train import RUN, TINY, write_dataset, write_ids

from sidrec.artifact import open_artifact
from sidrec.data.dataset import Examples
from sidrec.errors import ArtifactError, ConfigError, DataError
from sidrec.recommenders.ensemble import Ensemble
from sidrec.stages.compare import compare, comparison_rows
from sidrec.stages.evaluate import evaluate
from sidrec.stages.layout import RunFolder
from sidrec.stages.recipe import load_recipe, protocol_for
from sidrec.stages.recommend import recommend
from sidrec.stages.run import run_recipe
from sidrec.stages.train import train
from sidrec.testing.toy import cycle_dataset

STEPS = ["training.max_steps=3", "training.batch_size=16", "training.validate_users=8"]
PAIR = ["recommender.members=[sasrec,decoder]", "recommender.candidates=5", "training.validate_users=16"]


@pytest.fixture
def folder(tmp_path: Path) -> RunFolder:
    folder = RunFolder(tmp_path / "run")
    dataset = cycle_dataset()
    write_dataset(folder, dataset)
    write_ids(folder, dataset)
    train(folder, load_recipe("sasrec", ["recommender.hidden_size=16", *STEPS]), RUN)
    train(folder, load_recipe("decoder", TINY), RUN)
    return folder


def test_an_ensemble_is_made_of_the_run_s_recommenders_and_serves_alone(folder: RunFolder) -> None:
    result = train(folder, load_recipe("ensemble", PAIR), RUN)
    members = {name: open_artifact(folder.recommender(name)) for name in ("sasrec", "decoder")}
    assert result.artifact.parents == {
        "dataset": open_artifact(folder.dataset).digest,
        **{f"member {name}": member.digest for name, member in members.items()},
    }
    summary = result.artifact.summary
    assert summary["parameters"] == 2 + sum(member.summary["parameters"] for member in members.values())
    assert summary["train_seconds"] > sum(member.summary["train_seconds"] for member in members.values())
    assert summary["report"]["best_metric"] >= summary["report"]["start_metric"]
    histories = [["item-1", "item-2"], []]
    before = recommend(result.artifact.path, histories, RUN, k=3)
    elsewhere = folder.path.parent / "served"
    shutil.move(result.artifact.path, elsewhere)
    shutil.rmtree(folder.path)
    assert recommend(elsewhere, histories, RUN, k=3) == before
    loaded = Ensemble.load(elsewhere)
    assert [member.config.kind for member in loaded.members] == ["sasrec", "decoder"]


def test_equal_content_has_an_equal_digest_whatever_the_clock_said(folder: RunFolder) -> None:
    recipe = load_recipe("ensemble", PAIR)
    first, again = (train(folder, recipe, RUN, force=True).artifact for _ in range(2))
    assert first.digest == again.digest


def test_a_member_that_was_trained_again_makes_it_stale(folder: RunFolder) -> None:
    recipe = load_recipe("ensemble", PAIR)
    assert not train(folder, recipe, RUN).skipped
    assert train(folder, recipe, RUN).skipped
    train(folder, load_recipe("sasrec", ["recommender.hidden_size=16", *STEPS]), RUN, force=True)
    assert train(folder, recipe, RUN).skipped, "the same bytes disturb nothing"
    train(folder, load_recipe("sasrec", ["recommender.hidden_size=16", *STEPS]), replace(RUN, seed=5))
    renewed = train(folder, recipe, RUN)
    assert not renewed.skipped
    assert renewed.artifact.parents["member sasrec"] == open_artifact(folder.recommender("sasrec")).digest
    assert not train(folder, load_recipe("ensemble", [*PAIR, "recommender.weights=[1,2]"]), RUN).skipped


def test_only_settings_that_it_reads_make_it_stale(folder: RunFolder) -> None:
    train(folder, load_recipe("ensemble", PAIR), RUN)
    assert train(folder, load_recipe("ensemble", [*PAIR, "training.max_epochs=3"]), RUN).skipped
    assert not train(folder, load_recipe("ensemble", [*PAIR, "training.validate_users=3"]), RUN).skipped
    assert not train(
        folder, load_recipe("ensemble", [*PAIR, "training.validate_users=3"]), replace(RUN, seed=1)
    ).skipped
    equal = [*PAIR, "recommender.weights=equal"]
    assert not train(folder, load_recipe("ensemble", equal), RUN).skipped
    assert train(folder, load_recipe("ensemble", [*equal, "training.validate_users=3"]), replace(RUN, seed=1)).skipped


def test_weights_are_not_found_by_a_loss(folder: RunFolder) -> None:
    by_loss = [*PAIR, "training.select=loss"]
    with pytest.raises(ConfigError, match=r"training.select: an ensemble has no loss[\s\S]*recommender.weights"):
        train(folder, load_recipe("ensemble", by_loss), RUN)
    assert not folder.recommender("ensemble").exists()
    train(folder, load_recipe("ensemble", [*by_loss, "recommender.weights=equal"]), RUN)


def test_it_is_evaluated_and_compared_like_any_other(folder: RunFolder) -> None:
    steps = run_recipe(folder, load_recipe("ensemble", PAIR), RUN)
    assert [step.stage for step in steps] == ["train", "evaluate"]
    assert steps[-1].result.artifact.summary["ndcg@10"] >= 0
    exact = protocol_for(folder.recommender("ensemble"), "test", ["exact=true"])
    figures = evaluate(folder.recommender("ensemble"), "test", exact, RUN).artifact
    assert "searched until lists are certified exact" in figures.summary["protocol"]
    table = comparison_rows(compare(folder, RUN, protocol=exact).artifact)
    assert {row[0] for row in table[1:]} == {"ensemble", "sasrec", "decoder"}


def test_wrong_members(folder: RunFolder) -> None:
    def members(*names: str) -> list[str]:
        return [f"recommender.members=[{','.join(names)}]"]

    with pytest.raises(
        ConfigError,
        match=r"recommender.members: the run has no recommender 'tiger'; available: decoder, sasrec[\s\S]*sidrec run",
    ):
        train(folder, load_recipe("ensemble"), RUN)
    with pytest.raises(ConfigError, match="2 problems:"):
        train(folder, load_recipe("ensemble", members("one", "two")), RUN)
    with pytest.raises(ConfigError, match=r"recommender.members: .*at least two members, got sasrec"):
        load_recipe("ensemble", members("sasrec"))
    with pytest.raises(ConfigError, match="'sasrec' cannot be a member of itself"):
        train(folder, load_recipe("ensemble", members("sasrec", "decoder")), RUN, name="sasrec")
    train(folder, load_recipe("popularity"), RUN)
    with pytest.raises(DataError, match="'popularity' cannot be a member: it gives no log-probabilities"):
        train(folder, load_recipe("ensemble", members("sasrec", "popularity")), RUN)
    assert not folder.recommender("ensemble").exists()


def test_members_of_another_dataset_are_refused(folder: RunFolder) -> None:
    write_dataset(folder, cycle_dataset(num_items=30))
    with pytest.raises(DataError, match=r"'sasrec' was made from another dataset[\s\S]*run 'sidrec train' again"):
        train(folder, load_recipe("ensemble", PAIR), RUN)


def test_a_damaged_member_is_noticed(folder: RunFolder) -> None:
    path = train(folder, load_recipe("ensemble", PAIR), RUN).artifact.path
    weights = path / "members" / "decoder" / "model.safetensors"
    weights.write_bytes(weights.read_bytes()[:-1] + b"x")
    with pytest.raises(ArtifactError, match=r"members/decoder/model.safetensors' is missing or was changed"):
        recommend(path, [["item-1"]], RUN)


def test_without_validation_users_weights_must_be_given(tmp_path: Path) -> None:
    folder, dataset = RunFolder(tmp_path / "run"), cycle_dataset()
    none = Examples(dataset.split.valid.users[:0], dataset.split.valid.cuts[:0])
    write_dataset(folder, replace(dataset, split=replace(dataset.split, valid=none)))
    for name in ("one", "two"):
        train(folder, load_recipe("sasrec", ["recommender.hidden_size=16", "training.max_steps=2"]), RUN, name=name)
    named = "recommender.members=[one,two]"
    with pytest.raises(DataError, match=r"no validation users[\s\S]*recommender.weights"):
        train(folder, load_recipe("ensemble", [named]), RUN)
    path = train(folder, load_recipe("ensemble", [named, "recommender.weights=[1,3]"]), RUN).artifact.path
    assert np.allclose(Ensemble.load(path).weights, [0.25, 0.75])
