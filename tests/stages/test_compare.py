import json
import re
import xml.etree.ElementTree as ElementTree
from html.parser import HTMLParser

import polars as pl
import pytest
from tests.stages.fake_recommender import Cycle, GenerativeCycle, save_dataset, save_recommender

from sidrec.artifact import create, open_artifact
from sidrec.config import RunSettings
from sidrec.errors import ArtifactError, ConfigError, DataError
from sidrec.evaluation.protocol import Protocol
from sidrec.evaluation.significance import paired_bootstrap
from sidrec.stages.compare import compare, comparison_rows, examples_of
from sidrec.stages.evaluate import evaluate
from sidrec.stages.layout import RunFolder
from sidrec.testing.toy import cycle_dataset, grid_semantic_ids

RUN = RunSettings()
VOID = {"meta", "img", "br"}


@pytest.fixture
def folder(tmp_path):
    folder, dataset = RunFolder(tmp_path / "run"), cycle_dataset()
    save_dataset(folder, dataset)
    ids = grid_semantic_ids(dataset.catalog)
    save_recommender(folder, "cycle-ids", GenerativeCycle(), dataset, ids)
    save_recommender(folder, "late", Cycle(skip=22), dataset)  # the target comes second
    save_recommender(folder, "never", Cycle(skip=1), dataset)
    return folder


class Tags(HTMLParser):
    """Checks that tags close in order and gathers what they point to."""

    def __init__(self):
        super().__init__()
        self.open, self.links = [], []

    def handle_starttag(self, tag, attrs):
        self.links += [value for name, value in attrs if name in ("src", "href")]
        if tag not in VOID:
            self.open.append(tag)

    def handle_startendtag(self, tag, attrs):
        self.handle_starttag(tag, attrs)
        assert tag in VOID

    def handle_endtag(self, tag):
        assert self.open.pop() == tag


def test_all_recommenders_are_scored_and_ordered(folder):
    result = compare(folder, RUN)
    columns, *rows = comparison_rows(result.artifact)
    table = {row[0]: dict(zip(columns, row, strict=True)) for row in rows}
    assert [row[0] for row in rows] == ["cycle-ids", "late", "never"]
    assert table["cycle-ids"]["ndcg@10"] == "1.0000"
    assert table["cycle-ids"]["train (s)"] == "12.5"
    assert table["cycle-ids"]["parameters"] == "1,234"
    assert table["cycle-ids"]["certified (%)"] == "100.0"
    assert float(table["late"]["users/s"].replace(",", "")) > 0
    assert result.artifact.summary["best"] == "cycle-ids"
    assert all(open_artifact(folder.evaluation(name, "test")) for name in table)


def test_reference_is_the_best_baseline(folder):
    result = compare(folder, RUN)
    found = json.loads((result.artifact.path / "comparison.json").read_text())
    assert found["reference"] == "late"
    differences = {row["name"]: row["difference"] for row in found["rows"]}
    assert differences["late"] is None
    tables = {
        name: pl.read_parquet(folder.evaluation(name, "test") / "per_user.parquet")["ndcg@10"].to_numpy()
        for name in differences
    }
    assert differences["never"] == vars(paired_bootstrap(tables["never"], tables["late"], 0))
    assert differences["cycle-ids"]["low"] > 0


def test_nothing_is_done_twice_and_a_new_recommender_is_noticed(folder):
    assert not compare(folder, RUN).skipped
    assert compare(folder, RUN).skipped
    made = (folder.evaluation("late", "test") / "artifact.json").stat().st_mtime_ns
    save_recommender(folder, "third", Cycle(skip=3), cycle_dataset())
    assert not compare(folder, RUN).skipped
    assert (folder.evaluation("late", "test") / "artifact.json").stat().st_mtime_ns == made


def test_page_is_whole_and_loads_nothing(folder):
    path = compare(folder, RUN).artifact.path
    page = (path / "comparison.html").read_text()
    tags = Tags()
    tags.feed(page)
    tags.close()
    assert tags.open == []
    assert len(tags.links) == 3
    assert all(link.startswith("data:image/svg+xml;base64,") for link in tags.links)
    assert not re.search(r"https?://|@import|url\(|<script", page)
    ElementTree.fromstring(page.split("\n", 1)[1])  # also well-formed XML
    for name in ("metrics.svg", "cost.svg", "slices.svg"):
        ElementTree.parse(path / name)
    assert "leave-one-out" in page
    assert "These are test figures" in page


def test_markdown_has_a_row_for_each_and_names_the_part(folder):
    text = (compare(folder, RUN, part="valid").artifact.path / "comparison.md").read_text()
    lines = [line for line in text.splitlines() if line.startswith("| ")]
    assert len({line.count("|") for line in lines[:5]}) == 1
    assert sum(line.startswith(("| cycle-ids", "| late", "| never")) for line in lines) == 3
    assert "These are validation figures" in text
    assert "part: valid" in text


def test_examples_are_readable_and_mark_the_target(folder):
    result = compare(folder, RUN, examples=3)
    texts = examples_of(result.artifact)
    assert len(texts) == 3
    for text in texts:
        user = int(re.search(r"User user-(\d+)", text).group(1))
        target = int(cycle_dataset().targets("test")[user])
        codes = f"<a_{target // 16}><b_{target // 4 % 4}><c_{target % 4}>"
        assert re.search(rf"→  1\. Part {target} of the cycle.*{re.escape(codes)}", text)
        assert f"held out: Part {target} of the cycle" in text
        assert "(place 1)" in text
        assert f"· Part {(target - 1) % 24} of" in text
    assert examples_of(compare(folder, RUN, examples=3, force=True).artifact) == texts


def test_examples_say_when_the_target_is_not_in_the_list(folder):
    protocol = Protocol(k=(1, 3), primary="hit@3")
    save_recommender(
        folder, "cycle-ids", GenerativeCycle(skip=3), cycle_dataset(), grid_semantic_ids(cycle_dataset().catalog)
    )
    texts = examples_of(compare(folder, RUN, protocol=protocol).artifact)
    assert len(texts) == 5
    assert all("(not among the first 3)" in text and "→" not in text for text in texts)


def test_no_examples_when_none_are_asked_for(folder):
    assert examples_of(compare(folder, RUN, examples=0).artifact) == []


def test_a_recommender_of_another_dataset_is_refused(folder):
    with create(folder.path / "elsewhere", kind="dataset", config={}) as writer:
        cycle_dataset(seed=5).save(writer.path)
    parent = open_artifact(folder.path / "elsewhere")
    save_recommender(folder, "stranger", Cycle(), cycle_dataset(seed=5), parent=parent)
    with pytest.raises(DataError, match="another dataset than this run's: stranger"):
        compare(folder, RUN)


def test_different_rules_are_refused_unless_one_is_given(folder):
    evaluate(folder.recommender("late"), "test", Protocol(exclude_seen=False), RUN)
    evaluate(folder.recommender("never"), "test", Protocol(), RUN)
    with pytest.raises(ConfigError, match="different rules"):
        compare(folder, RUN)
    result = compare(folder, RUN, protocol=Protocol(max_users=10))
    assert "10 drawn" in result.artifact.summary["protocol"]


def test_recommenders_that_were_not_scored_follow_the_rules_of_the_others(folder):
    evaluate(folder.recommender("late"), "test", Protocol(exclude_seen=False), RUN)
    assert "seen items allowed" in compare(folder, RUN).artifact.summary["protocol"]
    assert "seen items excluded" in compare(folder, RUN, part="valid").artifact.summary["protocol"]


def test_an_empty_run_says_what_to_do(tmp_path):
    folder = RunFolder(tmp_path / "run")
    save_dataset(folder, cycle_dataset())
    with pytest.raises(ArtifactError, match="sidrec run"):
        compare(folder, RUN)


def test_names_from_outside_are_escaped(folder):
    save_recommender(folder, "a|b&<i>", Cycle(skip=4), cycle_dataset())
    path = compare(folder, RUN).artifact.path
    assert "<i>" not in (path / "comparison.html").read_text()
    assert "a\\|b" in (path / "comparison.md").read_text()
