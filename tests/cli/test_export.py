"""`sidrec export`, and what `tokenize` and `inspect` say about semantic IDs."""

import json
from pathlib import Path


def test_files_are_named(sidrec, trained: Path, tmp_path: Path) -> None:
    target = tmp_path / "Toy.index.json"
    done = sidrec("export", next((trained / "tokenizers").iterdir()), target, "--numbers", "--upper")
    assert done.code == 0
    assert done.out.split() == [str(target), str(tmp_path / "Toy.item2id")]
    assert json.loads(target.read_text())["0"][0].startswith("<A_")
    again = sidrec("export", next((trained / "tokenizers").iterdir()), target)
    assert again.code == 1
    assert "--force" in again.err


def test_figures_and_advice_of_semantic_ids(sidrec, prepared: Path) -> None:
    assert sidrec("embed", "--run", prepared).code == 0
    done = sidrec("tokenize", "--run", prepared, "--kind", "rqkmeans", "levels=2", "codebook_size=1")
    assert done.code == 0
    assert done.out == ""
    assert "advice: all items have the same code on level 1, 2" in done.err
    path = prepared / "tokenizers" / "rqkmeans"
    (found,) = sidrec("inspect", path, "--json").json
    figures = found["summary"]
    assert (figures["items"], figures["levels"]) == (12, len(figures["codebook_sizes"]))
    assert len(figures["perplexity"]) == figures["levels"]
    assert figures["collision_rate"] == 0 <= figures["collision_rate_before"]
    assert 0 <= figures["num_duplicates"] < 12
    assert figures["advice"]
    shown = sidrec("inspect", path).out
    assert all(f"advice: {text}" in shown for text in figures["advice"])
