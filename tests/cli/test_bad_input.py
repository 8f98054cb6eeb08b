"""What a user can get wrong, as the command answers it."""

import errno
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from sidrec.artifact import open_artifact


def assert_clear(done, code: int, *words: str) -> None:
    """One message on stderr, nothing on stdout, no traceback."""
    assert done.code == code, done.err
    assert done.out == ""
    assert "Traceback" not in done.err
    for word in words:
        assert word in done.err


def test_three_mistakes_in_a_recipe_are_reported_at_once(sidrec, tmp_path: Path) -> None:
    recipe = tmp_path / "mine.yaml"
    recipe.write_text("recommender: {kind: tiger, d_modell: 64}\ntraining: {optimizer: {lr: -1}}\nsed: 3\n")
    for command in (("recipes", "check", recipe), ("run", recipe, "--run", tmp_path / "run")):
        done = sidrec(*command)
        assert_clear(done, 2, "3 problems", str(recipe))
        lines = [line.strip() for line in done.err.splitlines()]
        assert any(line.startswith("recommender.d_modell: unknown key") and "'d_model'" in line for line in lines)
        assert any(line.startswith("training.optimizer.lr: input should be greater than 0, got -1") for line in lines)
        assert any(line.startswith("sed: unknown key") for line in lines)
    assert not (tmp_path / "run").exists()


def test_mistakes_in_settings_are_reported_with_those_of_the_recipe(sidrec, tmp_path: Path) -> None:
    recipe = tmp_path / "mine.yaml"
    recipe.write_text("recommender: tiger\nsed: 3\n")
    done = sidrec("recipes", "check", recipe, "training.max_stepss=3", "recommender.d_model=wide")
    assert_clear(done, 2, "3 problems", "training.max_stepss: unknown key", "'max_steps'", "recommender.d_model: ")


@pytest.mark.parametrize(
    ("recipe", "words"),
    [
        ("tigre", ["no recipe 'tigre'; did you mean 'tiger'? available: ", "sidrec recipes ls"]),
        ("gone.yaml", ["gone.yaml", "cannot be read"]),
    ],
)
def test_unknown_recipes(sidrec, tmp_path: Path, recipe: str, words: list[str]) -> None:
    assert_clear(sidrec("run", recipe, "--run", tmp_path), 2, *words)


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("- a\n- b\n", ["a recipe is a mapping"]),
        ("a: [1\n", ["not valid YAML"]),
        ("extends: tigre\n", ["no recipe 'tigre'"]),
        ("recommender: tigre\n", ["recommender: ", "no recommender of kind 'tigre'", "did you mean 'tiger'?"]),
        ("training: {max_steps: 1}\n", ["recommender: "]),
        ("recommender: popularity\ntokenizer: {levels: 3, kind: rqvea}\n", ["did you mean 'rqvae'?"]),
    ],
)
def test_broken_recipes(sidrec, tmp_path: Path, text: str, words: list[str]) -> None:
    recipe = tmp_path / "mine.yaml"
    recipe.write_text(text)
    assert_clear(sidrec("recipes", "check", recipe), 2, *words)


def test_recipes_extend_one_level(sidrec, tmp_path: Path) -> None:
    first, second = tmp_path / "first.yaml", tmp_path / "second.yaml"
    first.write_text("extends: tiger\n")
    second.write_text(f"extends: {first}\n")
    assert_clear(sidrec("recipes", "check", second), 2, "one level is allowed")


def test_settings_of_the_wrong_form(sidrec, tmp_path: Path) -> None:
    assert_clear(
        sidrec("recipes", "check", "tiger", "lr", "=3"), 2, "'lr' is not of the form", "'=3' is not of the form"
    )


def test_missing_things_say_how_to_make_them(sidrec, prepared: Path, tmp_path: Path) -> None:
    nowhere = tmp_path / "nowhere"
    assert_clear(sidrec("run", "popularity", "--run", nowhere), 1, "no artefact", "sidrec prepare")
    assert_clear(sidrec("train", "tiger", "--run", prepared), 1, "no semantic IDs", "sidrec tokenize")
    assert_clear(sidrec("recommend", prepared / "recommenders" / "x", "--history", "1"), 1, "no artefact")
    assert_clear(sidrec("evaluate", prepared / "dataset"), 1, "this is a dataset", "expected: a recommender")
    assert_clear(sidrec("compare", prepared), 1, "no recommender", "sidrec run")
    assert_clear(sidrec("inspect", nowhere), 1, "no artefact")


def test_paths_without_a_reader(sidrec, toy: Path, tmp_path: Path) -> None:
    assert_clear(sidrec("run", "popularity", "--run", tmp_path, "--path", toy), 2, "--reader")


def test_a_dataset_prepared_otherwise_is_not_taken_silently(sidrec, prepared: Path) -> None:
    assert sidrec("run", "popularity", "--run", prepared, "--reader", "letter").code == 0
    done = sidrec("run", "popularity", "--run", prepared, "--reader", "letter", "data.min_length=4")
    assert_clear(done, 2, "prepared with other settings", "--path")


def test_unknown_settings_of_the_data_are_named(sidrec) -> None:
    done = sidrec("recipes", "check", "tiger", "data.reader=letter", "data.min_lenght=4")
    assert_clear(done, 2, "data.min_lenght: unknown key", "did you mean 'min_length'?")


@pytest.mark.parametrize("device", ["nosuch", "cuda:99"])
def test_a_device_that_is_not_there(sidrec, prepared: Path, small: list[str], device: str) -> None:
    done = sidrec("train", "sasrec", "--run", prepared, *small, "--device", device)
    assert_clear(done, 2, f"device: '{device}' cannot be used")
    assert not (prepared / "recommenders").exists() or not list((prepared / "recommenders").iterdir())


def test_missing_data_and_unknown_readers(sidrec, toy: Path, tmp_path: Path) -> None:
    run = ("--run", tmp_path / "run")
    assert_clear(sidrec("prepare", "--reader", "letter", "--path", tmp_path / "gone", *run), 1, "gone")
    assert_clear(sidrec("prepare", "--reader", "lettter", "--path", toy, *run), 2, "did you mean 'letter'?")
    assert not (tmp_path / "run" / "dataset").exists()


def test_several_tokenizers_must_be_told_apart(sidrec, prepared: Path, small: list[str]) -> None:
    assert sidrec("embed", "--run", prepared).code == 0
    for name in ("one", "two"):
        assert sidrec("tokenize", "--run", prepared, "--kind", "rqkmeans", "--name", name, "codebook_size=4").code == 0
    assert_clear(sidrec("train", "tiger", "--run", prepared, *small), 1, "one, two", "--tokenizer NAME")


@pytest.mark.parametrize("name", ["../../victim", ".hidden", "a/b"])
def test_names_stay_inside_the_run(sidrec, prepared: Path, name: str) -> None:
    assert_clear(sidrec("train", "popularity", "--run", prepared, "--name", name), 2, f"'{name}' cannot be a name")


def test_a_folder_that_is_no_artefact_is_never_replaced(sidrec, prepared: Path, toy: Path, tmp_path: Path) -> None:
    data = tmp_path / "project" / "dataset"
    data.mkdir(parents=True)
    (data / "thesis.tex").write_text("mine")
    done = sidrec("prepare", "--reader", "letter", "--path", toy, "--run", data.parent, "--force")
    assert_clear(done, 1, "no artefact stands where a dataset is to be written", "--run")
    assert (data / "thesis.tex").read_text() == "mine"


def test_data_without_a_training_example(sidrec, tmp_path: Path) -> None:
    file = tmp_path / "log.csv"
    file.write_text("user_id,item_id,timestamp\nu,a,1\nv,b,2\n")
    settings = ("user_core=0", "item_core=0")
    done = sidrec("prepare", "--reader", "table", "--path", file, "--run", tmp_path / "run", *settings)
    assert_clear(done, 1, "no training example", "next:")


def test_a_full_disk_loses_nothing(sidrec, prepared: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    assert sidrec("run", "popularity", "--run", prepared).code == 0
    digest = open_artifact(prepared / "recommenders" / "popularity").digest

    def full(*_: object) -> None:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    monkeypatch.setattr("sidrec.artifact._write_synced", full)
    done = sidrec("run", "popularity", "--run", prepared, "--force")
    assert done.code == 1
    assert "the disk is full" in done.err
    assert "next: free space" in done.err
    assert "Traceback" not in done.err
    assert open_artifact(prepared / "recommenders" / "popularity").digest == digest
    assert [path.name for path in (prepared / "recommenders").iterdir()] == ["popularity"]


def test_a_changed_file_is_noticed(sidrec, prepared: Path) -> None:
    file = prepared / "dataset" / "catalog.parquet"
    file.write_bytes(file.read_bytes() + b" ")
    assert_clear(sidrec("inspect", prepared / "dataset"), 1, "catalog.parquet", "changed after it was written")


def test_ctrl_c_keeps_finished_stages_and_leaves_no_half(sidrec, prepared: Path, tiny_tiger: list[str]) -> None:
    assert sidrec("run", "popularity", "--run", prepared).code == 0
    command = ["run", "tiger", "--run", str(prepared), *tiny_tiger, "training.max_steps=1000000", "training.patience=0"]
    code = f"import sys; from sidrec.cli.main import main; sys.exit(main({command!r}))"
    child = subprocess.Popen([sys.executable, "-c", code], stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
    deadline = time.monotonic() + 120
    while not list((prepared / ".scratch").glob("tiger-*")) and child.poll() is None and time.monotonic() < deadline:
        time.sleep(0.1)
    time.sleep(0.5)
    child.send_signal(signal.SIGINT)
    out, err = child.communicate(timeout=60)
    assert child.returncode == 1, err
    assert out == ""
    assert "interrupted; finished stages are kept" in err
    assert "Traceback" not in err
    assert sorted(path.name for path in (prepared / "recommenders").iterdir()) == ["popularity"]
    for part in ("dataset", "embeddings/tfidf", "tokenizers/rqkmeans", "recommenders/popularity"):
        open_artifact(prepared / part)
    done = sidrec("run", "tiger", "--run", prepared, *tiny_tiger, "--json")
    skipped = {stage["stage"]: stage["skipped"] for stage in done.json["stages"]}
    assert skipped == {"embed": True, "tokenize": True, "train": False, "evaluate": False}
