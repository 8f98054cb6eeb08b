"""The whole path by the commands a user types; what is up to date is skipped."""

import json
from pathlib import Path

import pytest

from sidrec.artifact import open_artifact


def stages(done) -> dict[str, bool]:
    """Stage → whether it was skipped."""
    return {stage["stage"]: stage["skipped"] for stage in done.json["stages"]}


def test_prepare_prints_statistics_and_json_alone(sidrec, toy: Path, tmp_path: Path) -> None:
    command = ("prepare", "--reader", "letter", "--path", toy, "--run", tmp_path / "run")
    done = sidrec(*command)
    assert done.code == 0
    assert "24" in done.out
    assert "test examples" in done.out
    again = sidrec(*command, "--json")
    assert again.json["skipped"] is True
    assert again.json["summary"]["examples"] == {"train": 24 * 4, "valid": 24, "test": 24}
    changed = sidrec(*command, "--json", "min_length=3")
    assert changed.json["skipped"] is False


def test_prepare_names_what_another_dataset_leaves_behind(sidrec, prepared: Path, toy: Path, tmp_path: Path) -> None:
    fewer = tmp_path / "Fewer"
    fewer.mkdir()
    (fewer / "Fewer.item.json").write_text((toy / "Toy.item.json").read_text())
    events = json.loads((toy / "Toy.inter.json").read_text())
    (fewer / "Fewer.inter.json").write_text(json.dumps(dict(list(events.items())[:20])))
    assert sidrec("train", "popularity", "--run", prepared).code == 0
    words = ("prepare", "--reader", "letter", "--run", prepared, "--path")
    assert "of no use" not in sidrec(*words, toy).err
    done = sidrec(*words, fewer)
    assert done.code == 0, done.err
    assert "of no use with this one: recommenders/popularity" in done.err


def test_stage_by_stage(sidrec, prepared: Path, tiny_tiger: list[str]) -> None:
    assert sidrec("embed", "--run", prepared).code == 0
    assert sidrec("tokenize", "--run", prepared, "--kind", "rqkmeans", "codebook_size=4").code == 0
    settings = [text for text in tiny_tiger if not text.startswith("tokenizer.")]
    assert sidrec("train", "tiger", "--run", prepared, *settings).code == 0
    assert sidrec("train", "popularity", "--run", prepared).code == 0
    done = sidrec("evaluate", prepared / "recommenders" / "tiger", "--split", "test")
    assert done.code == 0
    assert "ndcg@10" in done.out
    assert "leave-one-out" in done.err
    done = sidrec(
        "evaluate", prepared / "recommenders" / "tiger", "--split", "valid", "--json", "k=[1,3]", "primary=hit@3"
    )
    assert {"hit@1", "hit@3"} <= set(done.json["summary"])
    done = sidrec("compare", prepared)
    assert done.code == 0
    assert "tiger" in done.out
    assert "popularity" in done.out
    assert "Part " in done.out
    assert (prepared / "comparison" / "comparison.html").is_file()
    rows = sidrec("compare", prepared, "--json").json["rows"]
    assert len(rows) == 2


def test_run_makes_what_is_needed_and_skips_what_stands(sidrec, prepared: Path, tiny_tiger: list[str]) -> None:
    command = ("run", "tiger", "--run", prepared, *tiny_tiger, "--json")
    first = sidrec(*command)
    assert first.code == 0, first.err
    assert stages(first) == dict.fromkeys(("embed", "tokenize", "train", "evaluate"), False)
    assert stages(sidrec(*command)) == dict.fromkeys(("embed", "tokenize", "train", "evaluate"), True)
    assert not list((prepared / ".scratch").glob("*")), "what a killed run needs is removed after success"


@pytest.mark.parametrize(
    ("setting", "redone"),
    [
        ("training.optimizer.lr=0.01", {"train", "evaluate"}),
        ("tokenizer.levels=2", {"tokenize", "train", "evaluate"}),
        ("embeddings.dims=1", {"embed", "tokenize", "train", "evaluate"}),
        ("evaluation.k=[1,10]", {"evaluate"}),
        ("evaluation.slices.head_share=0.3", {"evaluate"}),
        ("description=other", set()),
    ],
)
def test_a_changed_setting_redoes_exactly_what_depends_on_it(
    sidrec, trained: Path, tiny_tiger: list[str], toy: Path, tmp_path: Path, setting: str, redone: set[str]
) -> None:
    import shutil

    run = tmp_path / "run"
    shutil.copytree(trained, run)
    done = sidrec("run", "tiger", "--run", run, "--reader", "letter", "--path", toy, *tiny_tiger, setting, "--json")
    assert done.code == 0, done.err
    assert {stage for stage, skipped in stages(done).items() if not skipped} == redone


def test_another_seed_redoes_the_stages_and_force_does_too(sidrec, prepared: Path, small: list[str]) -> None:
    command = ("run", "popularity", "--run", prepared, "--json")
    assert stages(sidrec(*command)) == {"train": False, "evaluate": False}
    assert stages(sidrec(*command, "--force")) == {"train": False, "evaluate": False}
    assert stages(sidrec(*command)) == {"train": True, "evaluate": True}
    assert stages(sidrec(*command, "--seed", 1)) == {"train": True, "evaluate": False}, "counting draws nothing"
    learnt = ("run", "sasrec", "--run", prepared, *small, "--json")
    assert stages(sidrec(*learnt)) == {"train": False, "evaluate": False}
    assert stages(sidrec(*learnt, "--seed", 1)) == {"train": False, "evaluate": False}


def test_baselines_need_no_semantic_ids(sidrec, prepared: Path, small: list[str]) -> None:
    for recipe in ("popularity", "item-knn", "sasrec"):
        assert list(stages(sidrec("run", recipe, "--run", prepared, *small, "--json"))) == ["train", "evaluate"]
    assert not (prepared / "tokenizers").exists()


def test_same_seed_same_bytes(sidrec, trained: Path, toy: Path, tiny_tiger: list[str], tmp_path: Path) -> None:
    again = tmp_path / "again"
    source = ("--reader", "letter", "--path", toy)
    assert sidrec("run", "tiger", "--run", again, *source, *tiny_tiger).code == 0
    for part in ("dataset", "embeddings/tfidf", "tokenizers/rqkmeans", "recommenders/tiger", "evaluations/tiger-test"):
        assert open_artifact(again / part).digest == open_artifact(trained / part).digest, part
    other = tmp_path / "other"
    assert sidrec("run", "tiger", "--run", other, *source, *tiny_tiger, "--seed", 7).code == 0
    ours, theirs = (open_artifact(run / "recommenders" / "tiger").digest for run in (other, trained))
    assert ours != theirs


def test_own_recipe_and_name(sidrec, prepared: Path, tmp_path: Path) -> None:
    mine = tmp_path / "mine.yaml"
    assert sidrec("recipes", "copy", "item-knn", mine).code == 0
    assert sidrec("recipes", "copy", "item-knn", mine).code == 2, "a file is not replaced unasked"
    assert sidrec("run", mine, "--run", prepared, "--name", "near", "recommender.neighbours=5").code == 0
    artifact = open_artifact(prepared / "recommenders" / "near")
    assert artifact.config["recommender"]["neighbours"] == 5
    assert artifact.summary["parameters"] > 0


def test_sasrec_starts_from_the_vectors_of_the_recipe(sidrec, prepared: Path, small: list[str]) -> None:
    tiny = [*small, "recommender.hidden_size=16", "embeddings.dims=8"]
    command = ("run", "sasrec-text", "--run", prepared, "--json", *tiny)
    done = sidrec(*command)
    assert done.code == 0, done.err
    assert stages(done) == dict.fromkeys(("embed", "train", "evaluate"), False)
    assert stages(sidrec(*command)) == dict.fromkeys(("embed", "train", "evaluate"), True)
    assert set(open_artifact(prepared / "recommenders" / "sasrec-text").parents) == {"dataset", "embeddings"}
    fit = sidrec(*command, "recommender.table.fit=truncate")
    assert stages(fit) == {"embed": True, "train": False, "evaluate": False}
    assert stages(sidrec(*command, "recommender.table=null")) == {"train": False, "evaluate": False}


def test_sasrec_with_held_rows_reports_both_stages(sidrec, prepared: Path, small: list[str]) -> None:
    tiny = [*small, "recommender.hidden_size=16", "recommender.table.frozen_first.max_steps=2"]
    done = sidrec("run", "sasrec-text-frozen-first", "--run", prepared, "--json", *tiny)
    assert done.code == 0, done.err
    report = open_artifact(prepared / "recommenders" / "sasrec-text-frozen-first").summary["report"]
    assert [stage["steps"] for stage in (*report["earlier"], report)] == [2, 3]
    assert all(stage["best_metric"] is not None for stage in (*report["earlier"], report))


def test_which_vectors_a_recommender_starts_from(sidrec, prepared: Path, small: list[str]) -> None:
    train = ("train", "sasrec-text", "--run", prepared, *small)
    assert "sidrec embed" in sidrec(*train).err
    for name in ("one", "two"):
        assert sidrec("embed", "--run", prepared, "--name", name, "dims=4").code == 0
    assert "one, two" in sidrec(*train).err
    assert sidrec(*train, "--embeddings", "two").code == 0
    found = open_artifact(prepared / "recommenders" / "sasrec-text")
    assert found.parents["embeddings"] == open_artifact(prepared / "embeddings" / "two").digest


def test_run_says_whether_a_result_lies_in_the_band_of_its_recipe(sidrec, prepared: Path, tmp_path: Path) -> None:
    counts = open_artifact(prepared / "dataset", "dataset").summary
    known = "".join(f"    {name}: {counts[name]}\n" for name in ("users", "items", "interactions"))
    recipe = tmp_path / "mine.yaml"
    recipe.write_text(
        "recommender: popularity\nexpected:\n"
        f"  - dataset: the toy\n{known}    source: arithmetic\n    metrics: {{hit@10: [0, 1], ndcg@10: [1.1, 1.2]}}\n"
    )
    done = sidrec("run", recipe, "--run", prepared)
    assert done.code == 0, done.err
    assert "inside the band, 0.0000 to 1.0000 expected on the toy (arithmetic)" in done.err
    assert "BELOW the band" in done.err
    places = [verdict["place"] for verdict in sidrec("run", recipe, "--run", prepared, "--json").json["expected"]]
    assert places == ["inside", "below"]
    assert "bands: none" not in done.err
    done = sidrec("run", recipe, "--run", prepared, "evaluation.max_users=5")
    assert "bands: none with settings laid over the recipe" in done.err
    recipe.write_text(recipe.read_text().replace("users: ", "users: 9"))
    done = sidrec("run", recipe, "--run", prepared)
    assert "bands: none of this dataset and these rules" in done.err
