"""Lineage and figures of artefacts, printed and as JSON."""

import shutil
from pathlib import Path


def test_a_recommender_shows_settings_figures_metrics_and_lineage(sidrec, trained: Path) -> None:
    done = sidrec("inspect", trained / "recommenders" / "tiger")
    assert done.code == 0
    assert done.err == ""
    for words in ("recommender.d_model: 16", "parameters: ", "evaluation tiger-test", "ndcg@10", "lineage:"):
        assert words in done.out
    tree = [line for line in done.out.partition("lineage:")[2].splitlines() if line]
    depths = {line.split(":")[0].strip(): len(line) - len(line.lstrip()) for line in tree}
    assert depths["recommender"] < depths["tokenizer"] < depths["embeddings"] < depths["source"]


def test_json_follows_the_parents_to_the_source(sidrec, trained: Path) -> None:
    (found,) = sidrec("inspect", trained / "recommenders" / "tiger", "--json").json
    node = found["lineage"]
    assert node["role"] == "recommender"
    assert node["digest"] == found["digest"]
    roles = []
    while node["parents"]:
        node = node["parents"][-1]
        roles.append((node["role"], node["state"]))
    assert roles == [("tokenizer", "present"), ("embeddings", "present"), ("dataset", "present"), ("source", "source")]
    assert set(found["evaluations"]) == {"tiger-test"}


def test_a_run_folder_shows_everything_in_it(sidrec, trained: Path) -> None:
    found = sidrec("inspect", trained, "--json").json
    assert [item["kind"] for item in found] == ["dataset", "embeddings", "evaluation", "recommender", "tokenizer"]


def test_parents_that_changed_or_went_are_named(sidrec, trained: Path, tmp_path: Path) -> None:
    run = tmp_path / "run"
    shutil.copytree(trained, run)
    assert sidrec("tokenize", "--run", run, "--kind", "rqkmeans", "codebook_size=3").code == 0
    assert " - changed" not in sidrec("inspect", run / "recommenders" / "tiger").out, "IDs of a recommender stay"
    assert len(list((run / "tokenizers").iterdir())) == 2
    assert sidrec("tokenize", "--run", run, "--kind", "rqkmeans", "codebook_size=3", "--name", "rqkmeans").code == 0
    assert " - changed" in sidrec("inspect", run / "recommenders" / "tiger").out
    shutil.rmtree(run / "tokenizers")
    done = sidrec("inspect", run / "recommenders" / "tiger")
    assert done.code == 0
    assert " - gone" in done.out
