"""Tuning as a stage: what it depends on, its lineage, the gate, and that the start stays."""

import json
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file
from tests.stages.test_train import write_dataset, write_ids

from sidrec.artifact import open_artifact
from sidrec.config import RunSettings
from sidrec.data.dataset import Examples
from sidrec.errors import ArtifactError, ConfigError, DataError
from sidrec.recommenders.base import Recommender
from sidrec.stages.embed import embed
from sidrec.stages.evaluate import evaluate
from sidrec.stages.layout import RunFolder
from sidrec.stages.recipe import load_recipe, part_config
from sidrec.stages.run import run_recipe
from sidrec.stages.train import train
from sidrec.stages.tune import tune
from sidrec.testing.toy import cycle_dataset

RUN = RunSettings(device="cpu")
SMALL = [
    "recommender.hidden_size=16",
    "recommender.num_layers=1",
    "recommender.dropout=0",
    "training.max_epochs=2",
    "training.batch_size=32",
]
TUNING = [
    "algorithm.kind=dpo",
    "algorithm.training.batch_size=32",
    "algorithm.training.max_epochs=1",
    "algorithm.training.optimizer.lr=0.003",
    "algorithm.pairs.kind=neighbours",
    "algorithm.pairs.ranks=8",
    "algorithm.pairs.hard=2",
]


def recipe(*settings: str, name: str = "sasrec"):
    return load_recipe(name, [*SMALL, *TUNING, *settings])


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> RunFolder:
    """A run with a SASRec and a decoder that were trained for a moment; no test changes what stands in it."""
    folder = RunFolder(tmp_path_factory.mktemp("tune") / "run")
    write_dataset(folder, cycle_dataset())
    write_ids(folder, cycle_dataset())
    train(folder, recipe(), RUN)
    tiny = ["d_model=16", "num_heads=2", "d_ff=16", "num_layers=1"]
    train(folder, load_recipe("decoder", [*(f"recommender.{text}" for text in tiny), "training.max_steps=3"]), RUN)
    embed(folder, part_config("embedder", "tfidf", ["dims=8"]), RUN)
    return folder


def test_the_tuned_recommender_names_its_start_and_serves_by_itself(made: RunFolder) -> None:
    start = open_artifact(made.recommender("sasrec"))
    result = tune(made, recipe(), RUN, start="sasrec")
    assert result.artifact.path == made.recommender("sasrec-dpo")
    assert result.artifact.parents == {
        "dataset": open_artifact(made.dataset).digest,
        "start": start.digest,
    }
    assert result.artifact.config["recommender"] == start.config["recommender"]
    assert result.artifact.config["algorithm"]["beta"] == 0.1
    summary = result.artifact.summary
    assert summary["pairs"] == 96
    assert summary["gate"]["metric"] == "ndcg@10"
    assert summary["train_seconds"] == pytest.approx(start.summary["train_seconds"] + summary["tune_seconds"])
    assert len(Recommender.load(result.artifact.path).recommend([["item-1"]], k=3, run=RUN)[0]) == 3
    assert open_artifact(made.recommender("sasrec")).digest == start.digest
    assert not list(made.scratch("").glob("tune-*"))


def test_the_gate_is_the_evaluation_on_validation_users(made: RunFolder) -> None:
    result = tune(made, recipe(), RUN, start="sasrec", name="gated")
    gate = result.artifact.summary["gate"]
    checked = recipe()
    scores = [
        evaluate(made.recommender(name), "valid", checked.evaluation, RUN).artifact.summary["ndcg@10"]
        for name in ("sasrec", "gated")
    ]
    assert gate["start"] == pytest.approx(scores[0])
    assert scores[1] == pytest.approx(max(gate["start"], gate["tuned"]))
    assert gate["difference"] == pytest.approx(gate["tuned"] - gate["start"])
    assert gate["kept"] == ("tuned" if gate["tuned"] > gate["start"] else "start")


def test_the_start_is_kept_weights_and_all_where_tuning_does_harm(made: RunFolder) -> None:
    harmful = recipe("algorithm.training.optimizer.lr=5", "algorithm.training.optimizer.warmup_ratio=0")
    result = tune(made, harmful, RUN, start="sasrec", name="harmed")
    gate = result.artifact.summary["gate"]
    assert gate["kept"] == "start"
    assert gate["tuned"] < gate["start"]
    one, two = (load_file(made.recommender(name) / "model.safetensors") for name in ("sasrec", "harmed"))
    assert one.keys() == two.keys()
    assert all(torch.equal(one[name], two[name]) for name in one)


def test_up_to_date_until_a_setting_the_start_or_the_pairs_change(made: RunFolder, tmp_path: Path) -> None:
    def skipped(*settings: str, run: RunSettings = RUN, start: str = "sasrec") -> bool:
        return tune(made, recipe(*settings), run, start=start, name="repeated").skipped

    assert not skipped()
    assert skipped()
    assert skipped("recommender.hidden_size=98", "training.max_epochs=7"), "these are the start's affair"
    assert not skipped("algorithm.beta=0.2")
    assert not skipped("algorithm.beta=0.2", run=replace(RUN, seed=1))
    path = tmp_path / "pairs.jsonl"
    pair = {"history": ["item-1"], "chosen": "item-2", "rejected": "item-9"}
    for chosen in ("item-2", "item-3"):
        path.write_text(json.dumps({**pair, "chosen": chosen}) + "\n")
        settings = [*SMALL, *TUNING[:4], "algorithm.pairs.kind=file", f"algorithm.pairs.path={path}"]
        checked = load_recipe("sasrec", settings)
        result = tune(made, checked, RUN, start="sasrec", name="repeated")
        assert not result.skipped
        assert set(result.artifact.parents) == {"dataset", "start", "pairs"}
        assert tune(made, checked, RUN, start="sasrec", name="repeated").skipped


def test_a_recipe_tunes_a_recommender_of_another_kind(made: RunFolder) -> None:
    settings = [*SMALL, *TUNING[:4], "algorithm.pairs={kind: beams, negatives: 2}", "algorithm.loss=softmax"]
    result = tune(made, load_recipe("sasrec", settings), RUN, start="decoder")
    assert result.artifact.path.name == "decoder-dpo"
    assert Recommender.load(result.artifact.path).config.kind == "decoder"
    assert result.artifact.summary["rejected"] == 2 * result.artifact.summary["pairs"]


def test_vectors_of_the_run_are_a_parent(made: RunFolder) -> None:
    result = tune(made, recipe("algorithm.pairs.vectors=embeddings"), RUN, start="decoder", name="near")
    assert set(result.artifact.parents) == {"dataset", "start", "embeddings"}
    with pytest.raises(ArtifactError, match="sidrec embed"):
        tune(made, recipe("algorithm.pairs.vectors=embeddings"), RUN, start="decoder", embeddings="none")
    with pytest.raises(DataError, match="'decoder' has no vectors of items"):
        tune(made, recipe(), RUN, start="decoder")


def test_bad_requests(made: RunFolder) -> None:
    with pytest.raises(ConfigError, match=r"algorithm: the recipe names none[\s\S]*algorithm.kind=dpo"):
        tune(made, load_recipe("sasrec"), RUN, start="sasrec")
    with pytest.raises(ConfigError, match="--name: 'sasrec' is the recommender that is tuned"):
        tune(made, recipe(), RUN, start="sasrec", name="sasrec")
    with pytest.raises(ArtifactError, match=r"artefacts in .*: decoder"):
        tune(made, recipe(), RUN, start="nobody")


def test_without_validation_users_there_is_nothing_to_decide_by(tmp_path: Path) -> None:
    folder, dataset = RunFolder(tmp_path / "run"), cycle_dataset()
    none = Examples(dataset.split.valid.users[:0], dataset.split.valid.cuts[:0])
    write_dataset(folder, replace(dataset, split=replace(dataset.split, valid=none)))
    train(folder, recipe("training.max_steps=1"), RUN)
    with pytest.raises(DataError, match="no validation users"):
        tune(folder, recipe(), RUN, start="sasrec")
    write_dataset(folder, cycle_dataset(num_users=10))
    with pytest.raises(DataError, match="made from another dataset"):
        tune(folder, recipe(), RUN, start="sasrec")


def test_run_trains_tunes_and_scores_and_knows_a_start_that_stands(tmp_path: Path) -> None:
    folder = RunFolder(tmp_path / "run")
    write_dataset(folder, cycle_dataset())
    checked = recipe(name="sasrec-dpo")
    steps = run_recipe(folder, checked, RUN, name="both")
    assert [(step.stage, step.result.artifact.path.name) for step in steps] == [
        ("train", "both-start"),
        ("tune", "both"),
        ("evaluate", "both-test"),
    ]
    assert all(step.result.skipped for step in run_recipe(folder, checked, RUN, name="both"))
    other = load_recipe("sasrec", ["training.max_steps=2", *SMALL])
    train(folder, other, RUN, name="mine")
    steps = run_recipe(folder, recipe("training.max_steps=2", name="sasrec-dpo"), RUN, name="second")
    assert [step.result.artifact.path.name for step in steps] == ["mine", "second", "second-test"]
    assert steps[0].result.skipped
    with_vectors = recipe("algorithm.pairs.vectors=embeddings", "embeddings.dims=8", name="sasrec-dpo")
    steps = run_recipe(folder, with_vectors, RUN, name="third")
    assert [step.stage for step in steps] == ["train", "embed", "tune", "evaluate"]
