"""Growth by the commands a user types: new items get codes, are served, and are held out for a report."""

import json
import shutil
from pathlib import Path

import polars as pl
import pytest

from sidrec.artifact import open_artifact

TINY_DECODER = [
    "recommender.d_model=16",
    "recommender.num_heads=2",
    "recommender.d_ff=16",
    "recommender.num_layers=1",
    "tokenizer.kind=rqkmeans",
    "tokenizer.levels=2",
    "tokenizer.codebook_size=4",
    "training.max_steps=3",
    "training.batch_size=16",
    "training.validate_users=8",
]
QUESTIONS = [
    "old targets, before growth",
    "old targets, after growth",
    "new targets",
    "new targets, among new items",
]


@pytest.fixture
def run(trained: Path, tmp_path: Path) -> Path:
    """A run with semantic IDs and a TIGER of our own, since these tests add to it."""
    shutil.copytree(trained, tmp_path / "run")
    return tmp_path / "run"


@pytest.fixture
def new(tmp_path: Path) -> Path:
    path = tmp_path / "new.jsonl"
    lines = [{"item_id": f"new-{k}", "title": f"Part {k}", "description": "red piece number 4"} for k in range(3)]
    path.write_text("\n".join(json.dumps(line) for line in lines))
    return path


def test_new_items_get_codes_and_are_served(sidrec, run: Path, new: Path) -> None:
    command = ("tokenize", "--run", run, "--extend", new, "--tokenizer", "rqkmeans")
    done = sidrec(*command)
    assert done.code == 0, done.err
    assert "version 2: 3 new items; the others keep their codes" in done.err
    again = sidrec(*command, "--json").json
    assert again["skipped"] is True
    grown = run / "tokenizers" / "rqkmeans-v2"
    assert again["path"] == str(grown)
    tiger = run / "recommenders" / "tiger"
    ask = ("recommend", tiger, "--history", "1,2,new-1", "-k", "14", "--exact", "--json")
    (answer,) = sidrec(*ask, "--items", grown).json
    items = {item["item"] for item in answer["items"]}
    assert {"new-0", "new-2", "0", "11"} <= items
    assert "new-1" not in items, "it was seen"
    done = sidrec(*ask)
    assert done.code == 1
    assert "'new-1'" in done.err
    users = run.parent / "users.jsonl"
    users.write_text('{"history": ["1", "2", "new-1"]}\n')
    done = sidrec("recommend", tiger, "--histories", users, "-k", "14", "--exact", "--items", grown)
    assert json.loads(done.out)["items"] == answer["items"]
    done = sidrec("recommend", tiger, "--history", "1", "--items", run / "tokenizers" / "rqkmeans")
    assert done.code == 1
    assert "were not extended" in done.err


def test_others_cannot_take_new_items(sidrec, run: Path, new: Path) -> None:
    assert sidrec("tokenize", "--run", run, "--extend", new, "--tokenizer", "rqkmeans").code == 0
    assert sidrec("train", "item-knn", "--run", run).code == 0
    grown = run / "tokenizers" / "rqkmeans-v2"
    done = sidrec("recommend", run / "recommenders" / "item-knn", "--history", "1", "--items", grown)
    assert done.code == 1
    assert "'item-knn' cannot recommend items that it was not trained on" in done.err


@pytest.mark.parametrize(
    ("options", "words"),
    [
        (["--kind", "rqvae"], "uses the tokenizer"),
        (["--embeddings", "tfidf"], "uses the tokenizer"),
        (["levels=3"], "an extension uses the tokenizer as it is"),
    ],
)
def test_an_extension_changes_nothing_else(sidrec, run: Path, new: Path, options: list[str], words: str) -> None:
    done = sidrec("tokenize", "--run", run, "--extend", new, "--tokenizer", "rqkmeans", *options)
    assert done.code == 2
    assert words in " ".join(done.err.split())


def test_options_of_extensions_alone_are_refused(sidrec, prepared: Path) -> None:
    assert sidrec("tokenize", "--run", prepared, "--tokenizer", "rqkmeans").code == 2
    assert sidrec("tokenize", "--run", prepared, "--vectors", "x.npy").code == 2


def test_a_cold_start_report_from_beginning_to_end(sidrec, prepared: Path) -> None:
    command = ("cold-start", "decoder", "--run", prepared, "--share", "0.2", *TINY_DECODER)
    done = sidrec(*command)
    assert done.code == 0, done.err
    assert all(name in done.out for name in QUESTIONS)
    assert "Held out: 2 of 12 items" in done.err
    assert "unseen in the training of the recommender and in all histories" in done.err
    folder = prepared / "evaluations" / "decoder-cold-start"
    report = json.loads((folder / "metrics.json").read_text())
    before, after, new, among = report["lines"]
    assert [line["name"] for line in report["lines"]] == QUESTIONS
    assert [line["items"] for line in report["lines"]] == [10, 12, 12, 2]
    assert before["examples"] + new["examples"] == 24
    assert (before["examples"], new["examples"]) == (after["examples"], among["examples"])
    assert before["share_of_new"]["10"] == 0
    assert among["share_of_new"]["10"] == 1
    assert among["metrics"]["hit@20"] == among["chance"]["hit@20"] == 1, "two items alone are both listed"
    users = pl.read_parquet(folder / "per_user.parquet")
    assert users.height == 24
    assert users.group_by("target_is").len().sort("target_is")["len"].to_list() == [new["examples"], before["examples"]]
    assert users.filter(pl.col("target_is") == "new")["ndcg@10"].mean() == pytest.approx(new["metrics"]["ndcg@10"])
    assert "| new targets |" in (folder / "report.md").read_text()

    again = sidrec(*command, "--json")
    assert again.json["skipped"] is True
    assert again.json["report"] == report
    assert again.err.count("up to date") == 7, "every step"
    digest = open_artifact(folder).digest
    forced = sidrec(*command, "--force", "--json")
    assert forced.json["digest"] == digest, "the same again"

    assert sidrec("train", "item-knn", "--run", prepared).code == 0
    assert len(sidrec("compare", prepared, "--json").json["rows"]) == 1, "the comparison does not meet it"
    found = sidrec("inspect", folder, "--json").json[0]
    assert found["summary"]["examples"] == new["examples"]


def test_what_cannot_be_held_out_is_said_before_training(sidrec, prepared: Path) -> None:
    for arguments, words in (
        (["sasrec"], "'sasrec' cannot recommend items that it was not trained on"),
        (["decoder", "tokenizer.kind=given", "tokenizer.path=x.json"], "items cannot be held out of an index file"),
        (["decoder", "--share", "0.9"], "share"),
    ):
        done = sidrec("cold-start", *arguments, "--run", prepared)
        assert done.code == 2, done.err
        assert words in done.err
    assert not list(prepared.glob("cold-start-*"))
