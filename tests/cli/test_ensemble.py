"""The whole way of an ensemble by the commands a user types: SASRec, and two decoders over different codes."""

import json
from pathlib import Path

import polars as pl
import pytest

from sidrec.artifact import open_artifact

DECODER = [f"recommender.{text}" for text in ("d_model=16", "num_heads=2", "d_ff=16", "num_layers=1")]


@pytest.fixture
def run(sidrec, prepared: Path, small: list[str]) -> Path:
    """A run with a SASRec and two decoders."""
    assert sidrec("train", "sasrec", "--run", prepared, "recommender.hidden_size=16", *small).code == 0
    codes = {"coarse": "tokenizer.codebook_size=3", "fine": "tokenizer.codebook_size=4"}
    for name, setting in codes.items():
        done = sidrec("run", "decoder", "--run", prepared, "--name", name, *DECODER, *small, setting)
        assert done.code == 0, done.err
    return prepared


def test_the_whole_way(sidrec, run: Path, tmp_path: Path) -> None:
    settings = ["recommender.members=[sasrec,coarse,fine]", "recommender.candidates=4"]
    done = sidrec("train", "ensemble", "--run", run, *settings)
    assert done.code == 0, done.err
    path = run / "recommenders" / "ensemble"
    assert {member.name for member in (path / "members").iterdir()} == {"sasrec", "coarse", "fine"}
    shares = open_artifact(path).summary["report"]["member_weights"]
    assert sum(shares) == pytest.approx(1)
    assert f"weights: sasrec {shares[0]:.3g}, coarse {shares[1]:.3g}, fine {shares[2]:.3g}" in done.err
    assert sidrec("train", "ensemble", "--run", run, "--json", *settings).json["skipped"]
    done = sidrec("evaluate", path, "--split", "test")
    assert done.code == 0, done.err
    assert "ndcg@10" in done.out
    done = sidrec("compare", run, "--json")
    assert done.code == 0, done.err
    assert "ensemble" in json.dumps(done.json["rows"])
    done = sidrec("recommend", path, "--history", "3", "--history", "4", "-k", "3", "--json")
    assert done.code == 0, done.err
    assert [len(answer["items"]) for answer in done.json] == [3, 3]
    users = tmp_path / "users.parquet"
    pl.DataFrame({"user_id": ["a", "b"], "history": [["1", "2"], ["5"]]}).write_parquet(users)
    done = sidrec("recommend", path, "--input", users, "--output", tmp_path / "top.parquet", "-k", "5")
    assert done.code == 0, done.err
    lists = pl.read_parquet(tmp_path / "top.parquet")["items"].to_list()
    assert [len(items) for items in lists] == [5, 5]
    assert not {"1", "2"} & set(lists[0])
    shown = sidrec("inspect", path)
    assert "member sasrec" in shown.out


def test_wrong_use(sidrec, run: Path) -> None:
    done = sidrec("train", "ensemble", "--run", run)
    assert done.code == 2
    assert "the run has no recommender 'tiger'; available: coarse, fine, sasrec" in done.err
    done = sidrec("train", "ensemble", "--run", run, "recommender.members=[fine]")
    assert done.code == 2
    assert "at least two members" in done.err
