"""Training as a stage: what it depends on, what it leaves behind, that it serves by itself."""

import json
import shutil
from dataclasses import replace
from pathlib import Path

import pytest

from sidrec.artifact import open_artifact
from sidrec.config import RunSettings
from sidrec.data.dataset import Dataset, Examples
from sidrec.errors import ArtifactError, ConfigError, DataError
from sidrec.recommenders.base import Recommender
from sidrec.stages.layout import RunFolder, make_artifact
from sidrec.stages.recipe import load_recipe
from sidrec.stages.recommend import recommend
from sidrec.stages.run import run_recipe
from sidrec.stages.train import train
from sidrec.testing.toy import cycle_dataset, grid_semantic_ids
from sidrec.training import watch

RUN = RunSettings(device="cpu")
TINY = [
    "recommender.d_model=16",
    "recommender.num_heads=2",
    "recommender.d_ff=16",
    "recommender.num_layers=1",
    "training.max_steps=3",
    "training.batch_size=16",
    "training.validate_users=8",
]


def write_dataset(folder: RunFolder, dataset: Dataset) -> None:
    make_artifact(
        folder.dataset,
        kind="dataset",
        config={},
        seed=0,
        parents={},
        write=lambda writer: dataset.save(writer.path),
        force=True,
    )


def write_ids(folder: RunFolder, dataset: Dataset, name: str = "grid", size: int = 4) -> None:
    ids = grid_semantic_ids(dataset.catalog, size=size)
    make_artifact(
        folder.tokenizer(name),
        kind="tokenizer",
        config={"size": size},
        seed=0,
        parents={"dataset": open_artifact(folder.dataset)},
        write=lambda writer: ids.save(writer.path, dataset.catalog),
    )


@pytest.fixture
def folder(tmp_path: Path) -> RunFolder:
    folder = RunFolder(tmp_path / "run")
    dataset = cycle_dataset()
    write_dataset(folder, dataset)
    write_ids(folder, dataset)
    return folder


def test_a_recommender_alone_is_enough_to_serve(folder: RunFolder) -> None:
    result = train(folder, load_recipe("decoder", TINY), RUN, name="mine")
    assert result.artifact.path == folder.recommender("mine")
    assert set(result.artifact.parents) == {"dataset", "tokenizer"}
    summary = result.artifact.summary
    assert summary["train_seconds"] > 0
    assert summary["report"]["steps"] == 3
    elsewhere = folder.path.parent / "served"
    shutil.move(folder.recommender("mine"), elsewhere)
    shutil.rmtree(folder.path)
    (answer,) = recommend(elsewhere, [["item-1", "item-2"]], RUN, k=3)
    assert len(answer.items) == 3
    assert all(item.semantic_id.startswith("<a_") for item in answer.items)
    assert answer.items[0].title.startswith("Part ")
    assert summary["parameters"] == Recommender.load(elsewhere).num_parameters


def test_lists_of_the_stage_are_those_of_the_object(folder: RunFolder) -> None:
    path = train(folder, load_recipe("item-knn"), RUN).artifact.path
    histories = [["item-3", "item-4"], []]
    answers = recommend(path, histories, RUN, k=4)
    plain = Recommender.load(path).recommend(histories, k=4, run=RUN)
    assert [[(s.item, s.score) for s in answer.items] for answer in answers] == [
        [(found.item, found.score) for found in items] for items in plain
    ]
    assert all(answer.exact for answer in answers)


def test_up_to_date_until_a_setting_or_a_parent_changes(folder: RunFolder) -> None:
    recipe = load_recipe("decoder", TINY)
    assert not train(folder, recipe, RUN).skipped
    assert train(folder, recipe, RUN).skipped
    assert not train(folder, recipe, RUN, force=True).skipped
    assert not train(folder, load_recipe("decoder", [*TINY, "training.max_steps=4"]), RUN).skipped
    assert not train(folder, recipe, replace(RUN, seed=1)).skipped
    write_ids(folder, cycle_dataset(), size=5)
    assert not train(folder, recipe, replace(RUN, seed=1)).skipped


def test_reports_may_change_without_training_again_but_the_choice_of_checkpoints_may_not(folder: RunFolder) -> None:
    train(folder, load_recipe("decoder", TINY), RUN)
    assert train(folder, load_recipe("decoder", [*TINY, "evaluation.k=[1,10,50]"]), RUN).skipped
    assert not train(folder, load_recipe("decoder", [*TINY, "evaluation.primary=hit@5"]), RUN).skipped


def test_scratch_goes_after_success_and_stays_after_failure(folder: RunFolder, monkeypatch: pytest.MonkeyPatch) -> None:
    def broken(self: Recommender, directory: Path) -> None:
        raise DataError("broken")

    with monkeypatch.context() as patch:
        patch.setattr("sidrec.recommenders.decoder.Decoder.save_weights", broken)
        with pytest.raises(DataError, match="broken"):
            train(folder, load_recipe("decoder", TINY), RUN)
    assert not folder.recommender("decoder").exists()
    assert [path.name.rpartition("-")[0] for path in folder.scratch("").iterdir()] == ["decoder"]
    train(folder, load_recipe("decoder", TINY), RUN)
    assert not list(folder.scratch("").iterdir())


def test_without_validation_examples_the_last_state_is_kept(tmp_path: Path) -> None:
    folder, dataset = RunFolder(tmp_path / "run"), cycle_dataset()
    none = Examples(dataset.split.valid.users[:0], dataset.split.valid.cuts[:0])
    dataset = replace(dataset, split=replace(dataset.split, valid=none))
    write_dataset(folder, dataset)
    result = train(folder, load_recipe("sasrec", ["training.max_steps=2"]), RUN)
    assert result.artifact.summary["report"]["best_metric"] is None


def test_states_chosen_by_loss(folder: RunFolder) -> None:
    settings = [*TINY, "training.select=loss", "training.validate_every=1", "training.average=2"]
    report = train(folder, load_recipe("letter-tiger", settings), RUN).artifact.summary["report"]
    assert 0 < report["best_metric"] < 10
    assert report["average_metric"] > 0
    plain = train(folder, load_recipe("letter-tiger", TINY), RUN).artifact.summary["report"]
    assert plain["best_metric"] != report["best_metric"]
    assert plain["average_metric"] is None


def test_which_semantic_ids(folder: RunFolder) -> None:
    recipe = load_recipe("decoder", TINY)
    write_ids(folder, cycle_dataset(), "other", size=5)
    with pytest.raises(ArtifactError, match=r"several semantic IDs: grid, other[\s\S]*--tokenizer NAME"):
        train(folder, recipe, RUN)
    result = train(folder, recipe, RUN, tokenizer="other")
    ids = Recommender.load(result.artifact.path).semantic_ids
    assert ids is not None
    assert ids.sizes == (5, 5, 5)
    with pytest.raises(ArtifactError, match="sidrec tokenize"):
        train(folder, recipe, RUN, tokenizer="third")


def test_run_announces_each_stage_before_and_after(folder: RunFolder) -> None:
    heard: list[tuple[str, bool]] = []
    steps = run_recipe(
        folder,
        load_recipe("popularity"),
        RUN,
        announce=lambda stage, result: heard.append((stage, result is not None)),
    )
    assert heard == [("train", False), ("train", True), ("evaluate", False), ("evaluate", True)]
    assert [step.stage for step in steps] == ["train", "evaluate"]
    assert steps[-1].result.artifact.path == folder.evaluation("popularity", "test")


def test_semantic_ids_of_another_dataset_are_refused(folder: RunFolder) -> None:
    write_dataset(folder, cycle_dataset(num_users=10))
    with pytest.raises(
        DataError, match=r"'grid' was made from another dataset[\s\S]*next: run 'sidrec tokenize' again"
    ):
        train(folder, load_recipe("decoder", TINY), RUN)


def test_counting_methods_do_not_depend_on_training_settings_and_seed(folder: RunFolder) -> None:
    train(folder, load_recipe("item-knn"), RUN)
    other = load_recipe("item-knn", ["training.max_steps=9", "evaluation.primary=hit@5"])
    assert train(folder, other, replace(RUN, seed=5)).skipped
    assert not train(folder, load_recipe("item-knn", ["recommender.neighbours=3"]), RUN).skipped


def test_scratch_of_given_up_trainings_goes_and_that_of_others_stays(folder: RunFolder) -> None:
    abandoned, other = folder.scratch("decoder-0123456789ab"), folder.scratch("decoder-big-0123456789ab")
    for path in (abandoned, other):
        path.mkdir(parents=True)
    train(folder, load_recipe("decoder", TINY), RUN)
    assert list(folder.scratch("").iterdir()) == [other]


def test_a_scratch_folder_of_the_caller_is_used_and_kept(folder: RunFolder, tmp_path: Path) -> None:
    scratch = tmp_path / "mine"
    train(folder, load_recipe("decoder", TINY), replace(RUN, scratch=scratch))
    assert list(scratch.iterdir())
    assert not folder.scratch("").exists()


@pytest.mark.parametrize("name", ["../../victim", ".hidden", "", "a/b", "-x"])
def test_names_that_are_no_folder_names(folder: RunFolder, name: str) -> None:
    with pytest.raises(ConfigError, match="cannot be a name"):
        train(folder, load_recipe("popularity"), RUN, name=name)


def test_recipes_of_one_run_keep_their_own_vectors_and_semantic_ids(tmp_path: Path) -> None:
    folder = RunFolder(tmp_path / "run")
    write_dataset(folder, cycle_dataset())
    one, two = (
        load_recipe("decoder", [*TINY, f"tokenizer.codebook_size={size}", "embeddings.dims=8"]) for size in (4, 5)
    )
    three = load_recipe("decoder", [*TINY, "tokenizer.codebook_size=4", "embeddings.dims=6"])
    for number, recipe in enumerate((one, two, three)):
        run_recipe(folder, recipe, RUN, name=f"r{number}")
    assert [len(folder.names(kind)) for kind in ("embeddings", "tokenizer")] == [2, 3]
    for number, recipe in enumerate((one, two, three)):
        assert all(step.result.skipped for step in run_recipe(folder, recipe, RUN, name=f"r{number}"))
    write_dataset(folder, cycle_dataset(num_users=10))
    run_recipe(folder, two, RUN)
    assert len(folder.names("tokenizer")) == 3, "semantic IDs of the older dataset are replaced"


def test_what_a_killed_process_did_is_part_of_the_cost(folder: RunFolder, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(watch, "CHECKPOINT_SECONDS", 0.0)
    recipe = load_recipe("decoder", TINY)

    def out_of_time(checkpoint: Path) -> None:
        record = checkpoint / "record.json"
        record.write_text(json.dumps(json.loads(record.read_text()) | {"seconds": 3600.0}))
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr("sidrec.training.trainer.keep_only", out_of_time)
        with pytest.raises(KeyboardInterrupt):
            train(folder, recipe, RUN)
    summary = train(folder, recipe, RUN).artifact.summary
    assert 3600 < summary["report"]["seconds"] < summary["train_seconds"] < 3600 + 300
