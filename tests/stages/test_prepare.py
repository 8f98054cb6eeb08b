"""The prepare stage on small files: order of work, numbering, round trip, what is remembered."""

import json

import numpy as np
import polars as pl
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from sidrec.artifact import open_artifact
from sidrec.config import RunSettings, parse
from sidrec.data.columns import Columns
from sidrec.data.dataset import PARTS, Dataset
from sidrec.data.preparation import PrepareConfig, build_dataset, reader_of
from sidrec.data.raw import RawData
from sidrec.data.statistics import dataset_statistics, statistics_table
from sidrec.errors import ConfigError, DataError
from sidrec.stages.layout import RunFolder
from sidrec.stages.prepare import prepare

TABLE = {"kind": "table", "time": "timestamp", "rating": "rating"}


def config(**fields):
    return parse(PrepareConfig, {"reader": TABLE, "user_core": 0, "item_core": 0} | fields)


@pytest.fixture
def log(tmp_path):
    """Unsorted events with a tie, a repeat, a low rating and a row without item."""
    rows = [
        ("v", "b", 5, 4),
        ("u", "c", 9, 5),
        ("u", "a", 1, 5),
        ("u", "b", 1, 5),
        ("u", "a", 7, 5),
        ("v", "a", 5, 3),
        ("v", "", 1, 5),
        ("u", "d", 8, 1),
        ("v", "c", 6, 4),
    ]
    table = pl.DataFrame(rows, schema=["user_id", "item_id", "timestamp", "rating"], orient="row")
    file = tmp_path / "log.csv"
    table.write_csv(file)
    return file


def test_filters_order_ties_and_numbers(log):
    data, drops = build_dataset(reader_of(config()).read(log), config(min_rating=2), RunSettings())
    summary = dataset_statistics(data, drops)
    # Users by first appearance in the input; items by first appearance reading v (b, a, c), then u (a, b, c).
    assert data.sequences.users == ["v", "u"]
    assert data.catalog.ids == ["b", "a", "c"]
    assert data.sequences.rows.tolist() == [0, 1, 2, 1, 0, 2]
    assert data.sequences.times is not None
    assert data.sequences.times.tolist() == [5, 5, 6, 1, 1, 9]
    assert [(drop["name"], drop["rows"], drop["users"], drop["items"]) for drop in summary["drops"]] == [
        ("missing user, item or time", 1, 0, 0),
        ("rating below 2", 1, 0, 1),
        ("repeated user-item pairs (the first stays)", 1, 0, 0),
    ]
    assert summary["ties"] == {"events": 4, "last_items": 0}
    assert (summary["users"], summary["items"], summary["interactions"], summary["density"]) == (2, 3, 6, 1.0)
    assert summary["length"] == {"mean": 3.0, "median": 3.0, "max": 3}
    assert summary["examples"] == {"train": 0, "valid": 2, "test": 2}
    assert "order of the input" in summary["order"]


def test_table_for_people(tmp_path, log):
    summary = prepare(RunFolder(tmp_path), config(), log, RunSettings()).artifact.summary
    shown = dict(statistics_table(summary))
    assert shown["users"] == "2"
    assert shown["length"] == "mean 3.50, median 3.5, max 4"
    assert shown["ties in time"] == "4 events share user and time; they decide the last item of 0 users"
    assert shown["dropped: missing user, item or time"].startswith("1 interactions")
    assert shown["semantic IDs in the data"] == "no"


def test_last_item_decided_by_input_order_is_counted(tmp_path):
    file = tmp_path / "log.csv"
    file.write_text("user_id,item_id,timestamp,rating\nu,a,1,5\nu,c,2,5\nu,b,2,5\nw,a,1,5\nw,b,2,5\n")
    result = prepare(RunFolder(tmp_path), config(), file, RunSettings())
    data = Dataset.load(result.artifact.path)
    assert data.catalog.ids_of(data.targets("test")) == ["b"]
    assert result.artifact.summary["ties"] == {"events": 2, "last_items": 1}


def test_repeats_can_stay(tmp_path, log):
    result = prepare(RunFolder(tmp_path), config(duplicates="keep_all"), log, RunSettings())
    assert result.artifact.summary["interactions"] == 8


def test_round_trip_is_bit_equal(tmp_path, log):
    reader = parse(PrepareConfig, {"reader": TABLE})
    from sidrec.data.readers.table import TableReader

    built, _ = build_dataset(TableReader(reader.reader).read(log), config(), RunSettings())
    prepare(RunFolder(tmp_path), config(), log, RunSettings())
    loaded = Dataset.load(tmp_path / "dataset")
    assert loaded.catalog.items.equals(built.catalog.items)
    assert loaded.sequences.users == built.sequences.users
    for name in ("rows", "offsets", "times"):
        one, other = getattr(loaded.sequences, name), getattr(built.sequences, name)
        assert one.dtype == other.dtype
        assert one.tobytes() == other.tobytes()
    for part in PARTS:
        for name in ("users", "cuts"):
            one, other = (getattr(data.examples(part), name) for data in (loaded, built))
            assert one.dtype == other.dtype == np.int32
            assert one.tobytes() == other.tobytes()


def test_same_input_same_digest_and_second_time_is_skipped(tmp_path, log):
    first = prepare(RunFolder(tmp_path / "a"), config(), log, RunSettings())
    again = prepare(RunFolder(tmp_path / "a"), config(), log, RunSettings())
    other = prepare(RunFolder(tmp_path / "b"), config(), log, RunSettings())
    forced = prepare(RunFolder(tmp_path / "a"), config(), log, RunSettings(), force=True)
    assert (first.skipped, again.skipped, other.skipped, forced.skipped) == (False, True, False, False)
    assert first.artifact.digest == other.artifact.digest == forced.artifact.digest
    assert first.artifact.fingerprint == other.artifact.fingerprint


def test_changed_setting_or_file_runs_again(tmp_path, log):
    folder = RunFolder(tmp_path / "run")
    prepare(folder, config(), log, RunSettings())
    assert not prepare(folder, config(min_length=2), log, RunSettings()).skipped
    log.write_text(log.read_text() + "w,a,1,5\n")
    assert not prepare(folder, config(min_length=2), log, RunSettings()).skipped


def test_failure_leaves_no_artefact(tmp_path, log):
    with pytest.raises(DataError, match="leaves nothing"):
        prepare(RunFolder(tmp_path / "run"), config(user_core=99), log, RunSettings())
    assert not (tmp_path / "run" / "dataset").exists()
    assert not list((tmp_path / "run").glob(".dataset*"))


def test_data_without_a_training_example_are_refused(tmp_path):
    file = tmp_path / "log.csv"
    file.write_text("user_id,item_id,timestamp,rating\nu,a,1,5\nv,b,2,5\n")
    with pytest.raises(DataError, match=r"no training example[\s\S]*2 events of 2 users, split 'leave-one-out'"):
        prepare(RunFolder(tmp_path), config(), file, RunSettings())
    assert not (tmp_path / "dataset").exists()


def test_nothing_is_drawn_so_another_seed_changes_nothing(tmp_path, log):
    prepare(RunFolder(tmp_path), config(), log, RunSettings())
    assert prepare(RunFolder(tmp_path), config(), log, RunSettings(seed=3)).skipped


def test_the_data_themselves_are_never_overwritten(tmp_path, log):
    folder = RunFolder(tmp_path / "run")
    folder.dataset.mkdir(parents=True)
    inside = log.rename(folder.dataset / "log.csv")
    with pytest.raises(DataError, match=r"the data lie in the folder[\s\S]*log\.csv"):
        prepare(folder, config(), inside, RunSettings(), force=True)
    assert inside.is_file()


def test_core_is_five_for_raw_logs_and_off_for_prepared_formats(tmp_path, log):
    with pytest.raises(DataError, match="core of 5 events a user, 5 an item"):
        prepare(RunFolder(tmp_path), parse(PrepareConfig, {"reader": TABLE}), log, RunSettings())
    (tmp_path / "X.inter.json").write_text(json.dumps({"0": [0, 1, 2, 3]}))
    settings_ = parse(PrepareConfig, {"reader": "letter"})
    assert prepare(RunFolder(tmp_path), settings_, tmp_path, RunSettings()).artifact.summary["interactions"] == 4


def test_metadata_and_cleaning():
    items = pl.DataFrame({Columns.ITEM: ["a", "z"], "title": ["<b>A</b>", "Z"]})
    events = pl.LazyFrame({Columns.USER: ["u", "u", "v"], Columns.ITEM: ["b", "a", "a"]})
    raw = RawData("log", events, items)
    data, drops = build_dataset(raw, config(require_metadata=True, clean_text=True), RunSettings())
    assert data.catalog.items.rows() == [("a", "A.")]
    assert drops[-1].rows == 1
    kept, _ = build_dataset(raw, config(keep_unseen_items=True), RunSettings())
    assert kept.catalog.ids == ["a", "z", "b"]


def test_minimum_length_also_holds_for_the_core():
    events = pl.LazyFrame({Columns.USER: list("uuuvvvv"), Columns.ITEM: list("abcabdx")})
    # Item core 2 takes c, d and x away; users of two remain, which is fewer than three.
    with pytest.raises(DataError, match="leaves nothing"):
        build_dataset(RawData("log", events), config(item_core=2, min_length=3), RunSettings())


def test_three_mistakes_are_reported_at_once():
    with pytest.raises(ConfigError) as error:
        config(split={"kind": "time-ratio", "train": 2}, min_length=0, cor=5)
    assert len(error.value.problems) == 3


def given_raw():
    rows = [("u", ["a"], "b", "train"), ("u", ["a", "b"], "c", "test")]
    schema = {Columns.USER: pl.String, Columns.HISTORY: pl.List(pl.String), Columns.TARGET: pl.String}
    examples = pl.DataFrame(rows, schema=schema | {Columns.PART: pl.String}, orient="row")
    return RawData("files", examples=examples)


def test_given_split_is_kept_and_refuses_filters():
    data, _ = build_dataset(given_raw(), config(), RunSettings())
    assert data.split.name == "given"
    assert data.catalog.ids_of(data.targets("test")) == ["c"]
    with pytest.raises(ConfigError) as error:
        build_dataset(given_raw(), config(user_core=5, min_rating=3), RunSettings())
    assert len(error.value.problems) == 2
    with pytest.raises(ConfigError, match="ready-made examples only"):
        build_dataset(given_raw(), config(split="leave-one-out"), RunSettings())


def test_progress_adds_up(log):
    from contextlib import contextmanager

    from sidrec.data.readers.table import TableReader

    seen = []

    class Count:
        @contextmanager
        def __call__(self, task, total):
            seen.append((task, total))
            yield lambda steps=1, note="": seen.append(steps)

    raw = TableReader(config().reader).read(log)
    build_dataset(raw, config(min_rating=2, min_length=2), RunSettings(progress=Count()))
    assert seen[0] == ("prepare", sum(seen[1:]))


EVENTS = st.lists(
    st.tuples(st.sampled_from("uvwx"), st.sampled_from("abcde"), st.integers(0, 6)), min_size=1, max_size=40
)


@given(EVENTS, st.integers(0, 3), st.integers(0, 3))
@settings(max_examples=100, deadline=None)
def test_whole_preparation_equals_a_slow_one(events, user_core, item_core):
    users = list(dict.fromkeys(user for user, _, _ in events))
    ordered = {u: [e for e in sorted(events, key=lambda e: e[2]) if e[0] == u] for u in users}
    histories = {u: list(dict.fromkeys(item for _, item, _ in own)) for u, own in ordered.items()}
    while True:
        counts = {item: sum(item in own for own in histories.values()) for item in "abcde"}
        # Both thresholds in the same pass; a user without items is no user.
        kept = {
            u: [item for item in own if counts[item] >= item_core]
            for u, own in histories.items()
            if own and len(own) >= user_core
        }
        if kept == histories:
            break
        histories = kept
    schema = [Columns.USER, Columns.ITEM, Columns.TIME]
    raw = RawData("log", pl.DataFrame(events, schema=schema, orient="row").lazy())
    settings_ = config(user_core=user_core, item_core=item_core)
    if not histories:
        with pytest.raises(DataError, match="leaves nothing"):
            build_dataset(raw, settings_, RunSettings())
        return
    data, _ = build_dataset(raw, settings_, RunSettings())
    found = {
        user: data.catalog.ids_of(data.sequences.rows[start:stop])
        for user, start, stop in zip(
            data.sequences.users, data.sequences.offsets[:-1], data.sequences.offsets[1:], strict=True
        )
    }
    assert found == histories
    assert list(found) == list(histories)


def test_artefact_names_its_source(tmp_path, log):
    prepare(RunFolder(tmp_path), config(), log, RunSettings())
    artifact = open_artifact(tmp_path / "dataset", "dataset")
    assert artifact.summary["source"] == ["log.csv"]
    assert set(artifact.parents) == {"source"}
    assert artifact.config["reader"]["kind"] == "table"
