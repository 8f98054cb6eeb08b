"""Files of users to files of lists: the same as asked one by one, resumed, never mixed up."""

import csv
import json
import os
from collections.abc import Generator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path

import polars as pl
import pytest
from tests.stages.batch_users import HISTORIES, NUM_USERS, SETTINGS, SIZE, parts_of, prepare
from tests.stages.fake_recommender import Cycle

from sidrec.config import RunSettings
from sidrec.data.catalog import Catalog
from sidrec.data.literals import parse_list
from sidrec.errors import ArtifactError, DataError
from sidrec.recommenders.base import Recommender
from sidrec.stages.parts import Parts, record_of
from sidrec.stages.recommend_users import BatchConfig, _device, are_integers, recommend_users
from sidrec.team import Team


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Path]:
    return prepare(tmp_path_factory.mktemp("batch"))


@pytest.fixture
def batch(made: tuple[Path, Path], tmp_path: Path):
    """Makes `tmp_path / name` of the fifty users."""
    recommender, users = made

    def make(name: str = "top.parquet", source: Path = users, settings: BatchConfig = SETTINGS, **more):
        return recommend_users(recommender, source, tmp_path / name, settings, **more)

    return make


def expected(made: tuple[Path, Path], k: int = 3) -> list[list[str]]:
    found = Recommender.load(made[0]).recommend(HISTORIES, k)
    return [[item.item for item in answer] for answer in found]


class StopError(Exception):
    """Ends a run in the middle."""


def stop_after(parts: int, patch: pytest.MonkeyPatch) -> None:
    """Let a run end before it commits one more part than these."""
    left, add = parts, Parts.add

    def add_or_stop(self, number, table):
        nonlocal left
        if not left:
            raise StopError
        left -= 1
        add(self, number, table)

    patch.setattr(Parts, "add", add_or_stop)


def test_one_row_a_user_in_order(made, batch, tmp_path: Path) -> None:
    report = batch()
    table = pl.read_parquet(report.path)
    assert table.schema == {
        "user_id": pl.Int64,
        "items": pl.List(pl.String),
        "scores": pl.List(pl.Float32),
        "exact": pl.Boolean,
    }
    assert table["user_id"].to_list() == list(range(NUM_USERS))
    assert table["items"].to_list() == expected(made)
    assert table["scores"].to_list() == [[0.0, -1.0, -2.0]] * NUM_USERS
    assert report.summary["users"] == NUM_USERS
    assert report.summary["certified"] == 1
    assert sorted(path.name for path in tmp_path.iterdir()) == ["top.parquet", "top.parquet.json"]
    assert json.loads(record_of(report.path).read_text())["request"]["k"] == 3


def test_all_formats_hold_the_same(made, batch) -> None:
    lines = [json.loads(line) for line in batch("top.jsonl").path.read_text().splitlines()]
    assert lines[4] == {"user_id": 4, "items": expected(made)[4], "scores": [0.0, -1.0, -2.0], "exact": True}
    rows = list(csv.reader(batch("top.csv").path.open()))
    assert rows[0] == ["user_id", "item_id"]
    assert [row[0] for row in rows[1:]] == [str(user) for user in range(NUM_USERS)]
    assert [parse_list(row[1], "") for row in rows[1:]] == expected(made)
    assert [line["items"] for line in lines] == expected(made)


def test_an_output_can_be_an_input(made, batch, tmp_path: Path) -> None:
    batch("top.csv")
    settings = SETTINGS.model_copy(update={"items_column": "item_id"})
    again = pl.read_parquet(batch("next.parquet", source=tmp_path / "top.csv", settings=settings).path)
    assert again["items"][0].to_list() == ["item-4", "item-5", "item-6"], "behind item-3, the last of the first list"


def test_missing_places_are_left_out(made, batch, monkeypatch) -> None:
    rank = Cycle.rank

    def short(self, histories, request, run):
        found = rank(self, histories, request, run)
        found.rows[::2, 1:], found.scores[::2, 1:] = -1, -float("inf")
        found.rows[1::4], found.scores[1::4] = -1, -float("inf")
        return replace(found, exact=found.rows[:, 0] >= 0)

    monkeypatch.setattr(Cycle, "rank", short)
    report = batch()
    table = pl.read_parquet(report.path)
    assert table["items"][0].to_list() == expected(made, 1)[0]
    assert table["scores"][0].to_list() == [0.0]
    assert table["items"][1].to_list() == []
    assert not table["exact"][1]
    assert report.summary["empty_lists"] == table.filter(~pl.col("exact")).height > 0


@pytest.mark.parametrize("parts", [0, 1, 4, 6])
def test_a_stopped_run_goes_on_and_gives_the_same_bytes(batch, tmp_path: Path, monkeypatch, parts: int) -> None:
    whole = batch("whole.parquet").path.read_bytes()
    with monkeypatch.context() as patch:
        stop_after(parts, patch)
        with pytest.raises(StopError):
            batch()
    assert parts_of(tmp_path / "top.parquet").done() == set(range(parts))
    assert parts_of(tmp_path / "top.parquet").folder.exists() is bool(parts)
    made_parts = []
    with monkeypatch.context() as patch:
        add = Parts.add
        patch.setattr(Parts, "add", lambda self, number, table: (made_parts.append(number), add(self, number, table)))
        report = batch()
    assert made_parts == list(range(parts, 7)), "finished parts are not made again"
    assert report.resumed == parts * SIZE
    assert report.path.read_bytes() == whole


def test_a_run_stopped_while_it_joins_goes_on(batch, tmp_path: Path, monkeypatch) -> None:
    whole = batch("whole.parquet").path.read_bytes()
    with monkeypatch.context() as patch:
        patch.setattr(Parts, "remove", lambda self: (_ for _ in ()).throw(StopError))
        with pytest.raises(StopError):
            batch()
    assert batch().up_to_date
    (tmp_path / "top.parquet").unlink()  # as if it had stopped between the record and the file
    report = batch()
    assert (report.up_to_date, report.resumed) == (False, NUM_USERS)
    assert report.path.read_bytes() == whole


CHANGES = {
    "k": {"k": 2},
    "exclude_seen": {"exclude_seen": False},
    "exact": {"exact": True},
    "on_unknown": {"on_unknown": "skip"},
    "part_size": {"part_size": 5},
}


@pytest.mark.parametrize("change", CHANGES)
def test_other_settings_start_anew_and_say_so(batch, monkeypatch, change: str) -> None:
    with monkeypatch.context() as patch:
        stop_after(2, patch)
        with pytest.raises(StopError):
            batch()
    said: list[str] = []
    report = batch(settings=SETTINGS.model_copy(update=CHANGES[change]), tell=said.append)
    assert report.resumed == 0
    assert len(said) == 1
    assert "2 finished parts of top.parquet" in said[0]
    assert f"changed: {change}" in said[0]


def test_another_input_or_list_starts_anew_too(batch, tmp_path: Path, monkeypatch) -> None:
    other, deny = tmp_path / "other.parquet", tmp_path / "deny.txt"
    pl.DataFrame({"user_id": range(NUM_USERS), "history": HISTORIES[::-1]}).write_parquet(other)
    deny.write_text("item-0\n")
    cases = {"input": {"source": other}, "denied": {"settings": SETTINGS.model_copy(update={"denied": deny})}}
    for changed, more in cases.items():
        name = f"{changed}.parquet"
        with monkeypatch.context() as patch:
            stop_after(2, patch)
            with pytest.raises(StopError):
                batch(name)
        with pytest.warns(UserWarning, match=f"changed: {changed}"):
            assert batch(name, **more).resumed == 0


def test_another_kind_of_device_starts_anew_and_another_number_does_not(batch, monkeypatch) -> None:
    kind = "cuda:0"
    monkeypatch.setattr(RunSettings, "torch_device", lambda _: kind)
    with monkeypatch.context() as patch:
        stop_after(2, patch)
        with pytest.raises(StopError):
            batch()
    with monkeypatch.context() as patch:
        kind = "cuda:1"
        stop_after(1, patch)
        with pytest.raises(StopError):
            batch()
    kind = "cpu"
    with pytest.warns(UserWarning, match="3 finished parts .*changed: device"):
        assert batch().resumed == 0


@pytest.mark.parametrize(
    ("asked", "size", "expected"),
    [("auto", 4, "cuda:1"), ("cuda", 4, "cuda:1"), ("cuda:0", 4, "cuda:0"), ("cpu", 4, "cpu"), ("cuda", 1, "cuda")],
)
def test_processes_take_turns_with_the_gpus_of_their_machine(monkeypatch, asked: str, size: int, expected: str) -> None:
    monkeypatch.setattr("torch.cuda.is_available", lambda: True)
    monkeypatch.setattr("torch.cuda.device_count", lambda: 2)
    monkeypatch.setenv("LOCAL_RANK", "3")
    assert _device(RunSettings(device=asked), Team(3 % size, size)) == expected


def test_a_finished_file_is_left_alone(batch, tmp_path: Path, monkeypatch) -> None:
    target = batch().path
    with monkeypatch.context() as patch:
        patch.setattr(Cycle, "rank", None)
        assert batch().up_to_date
    other = SETTINGS.model_copy(update={"k": 2})
    with pytest.raises(ArtifactError, match="is there already"):
        batch(settings=other)
    assert len(pl.read_parquet(target)["items"][0]) == 3
    assert batch(settings=other, force=True).path == target
    assert len(pl.read_parquet(target)["items"][0]) == 2
    target.write_text("changed by hand")
    with pytest.raises(ArtifactError, match="is there already"):
        batch(settings=other)
    assert sorted(path.name for path in tmp_path.iterdir()) == ["top.parquet", "top.parquet.json"]


def test_places_that_are_refused(made, batch, tmp_path: Path) -> None:
    with pytest.raises(ArtifactError, match="ending"):
        batch("top.xlsx")
    (tmp_path / "d.csv").mkdir()
    with pytest.raises(ArtifactError, match="a folder stands"):
        batch("d.csv")
    with pytest.raises(ArtifactError, match="the input stands"):
        recommend_users(made[0], made[1], made[1], SETTINGS, force=True)


def test_two_runs_do_not_write_one_file(batch, tmp_path: Path) -> None:
    with parts_of(tmp_path / "top.parquet").locked(), pytest.raises(ArtifactError, match="another process"):
        batch()


def test_a_process_that_outlives_its_run_adds_nothing_to_the_file_of_another(
    batch, tmp_path: Path, monkeypatch
) -> None:
    with monkeypatch.context() as patch:
        stop_after(2, patch)
        with pytest.raises(StopError):
            batch()
    survivor, add = parts_of(tmp_path / "top.parquet"), Parts.add
    table = pl.read_parquet(survivor.path(1))

    def add_and_outlive(self, number, found):
        add(self, number, found)
        add(survivor, number, table)

    monkeypatch.setattr(Parts, "add", add_and_outlive)
    with pytest.warns(UserWarning, match="changed: k"):
        report = batch(settings=SETTINGS.model_copy(update={"k": 2}))
    assert pl.read_parquet(report.path)["items"].list.len().unique().to_list() == [2]
    assert pl.read_parquet(report.path)["user_id"].to_list() == list(range(NUM_USERS))
    with pytest.raises(ArtifactError, match=r"has gone[\s\S]*another run finished the file"):
        add(survivor, 6, table)
    assert sorted(path.name for path in tmp_path.iterdir()) == ["top.parquet", "top.parquet.json"]


def test_damaged_parts_are_not_joined(batch, tmp_path: Path, monkeypatch) -> None:
    damages = (
        (lambda path: path.write_bytes(b"PAR1"), "damaged", "delete that file"),
        (lambda path: path.unlink(), "damaged", "delete that file"),
        (lambda path: pl.read_parquet(path).cast({"user_id": pl.UInt64}).write_parquet(path), "types", "that file"),
        (lambda path: pl.read_parquet(path)[:4].write_parquet(path), "instead of 50", "delete that folder"),
    )
    for damage, words, advice in damages:
        with monkeypatch.context() as patch:
            patch.setattr(Parts, "join", lambda *_, **__: (_ for _ in ()).throw(StopError))
            with pytest.raises(StopError):
                batch()
        parts = parts_of(tmp_path / "top.parquet")
        damage(parts.path(3))
        with monkeypatch.context() as patch:
            patch.setattr(Parts, "done", lambda self: set(range(7)))
            with pytest.raises(ArtifactError, match=words) as error:
                batch()
        assert advice in str(error.value)
        assert not (tmp_path / "top.parquet").exists()
        parts.remove()


@contextmanager
def full_disk(free: int) -> Generator[None]:
    """No file may grow larger than this."""
    import resource
    import signal

    kind, (soft, hard) = resource.RLIMIT_FSIZE, resource.getrlimit(resource.RLIMIT_FSIZE)
    before = signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
    resource.setrlimit(kind, (free, hard))
    try:
        yield
    finally:
        resource.setrlimit(kind, (soft, hard))
        signal.signal(signal.SIGXFSZ, before)


@pytest.mark.skipif(os.name != "posix", reason="a limit of the size of files stands for a full disk")
@pytest.mark.parametrize("name", ["top.parquet", "top.csv", "top.jsonl"])
@pytest.mark.parametrize("method", ["join", "add"])
def test_a_full_disk_is_no_damage(batch, tmp_path: Path, monkeypatch, name: str, method: str) -> None:
    whole = batch(f"whole-{name}").path.read_bytes()
    work = getattr(Parts, method)

    def on_a_full_disk(*given, **more):
        with full_disk(64):
            return work(*given, **more)

    with monkeypatch.context() as patch:
        patch.setattr(Parts, method, on_a_full_disk)
        with pytest.raises(ArtifactError, match=r"cannot be written: .*[\s\S]*free disk space") as error:
            batch(name)
    assert "damaged" not in str(error.value)
    assert parts_of(tmp_path / name).done() == (set(range(7)) if method == "join" else set())
    report = batch(name)
    assert report.resumed == (NUM_USERS if method == "join" else 0)
    assert report.path.read_bytes() == whole


def test_unknown_items_are_named_or_left_out(batch, tmp_path: Path) -> None:
    source = tmp_path / "users.jsonl"
    lists = [["item-1"], ["item-2", "nope"], ["item-3", "item-4", "no", "never"]]
    source.write_text("".join(json.dumps({"user_id": f"u{n}", "history": x}) + "\n" for n, x in enumerate(lists)))
    with pytest.raises(DataError) as error:
        batch(source=source)
    assert "'nope'" in str(error.value)
    assert "users.jsonl, line 2" in str(error.value)
    assert not list(tmp_path.glob(".top*")), "nothing is left where nothing was made"
    report = batch(source=source, settings=SETTINGS.model_copy(update={"on_unknown": "skip"}))
    assert pl.read_parquet(report.path)["items"].list.first().to_list() == ["item-2", "item-3", "item-5"]
    assert report.summary["skipped_items"] == 3
    assert report.summary["users_with_skipped_items"] == 2


def test_a_file_without_users(batch, tmp_path: Path) -> None:
    (tmp_path / "users.csv").write_text("user_id,history\n")
    with pytest.raises(DataError, match="holds no user"):
        batch(source=tmp_path / "users.csv")


def test_progress_counts_what_this_run_does(batch, monkeypatch) -> None:
    told: list[tuple[str, float | None, float]] = []

    @contextmanager
    def progress(task, total):
        done = 0.0

        def advance(steps=1.0, note=""):
            nonlocal done
            done += steps

        yield advance
        told.append((task, total, done))

    rank = Cycle.rank

    def in_steps(self, histories, request, run):
        with run.progress("rank", 4) as advance:
            for _ in range(3):
                advance()
            with run.progress("inner", 100) as deep:
                deep(100)
        return rank(self, histories, request, run)

    with monkeypatch.context() as patch:
        stop_after(2, patch)
        with pytest.raises(StopError):
            batch()
    monkeypatch.setattr(Cycle, "rank", in_steps)
    batch(run=RunSettings(progress=progress))
    assert [entry for entry in told if entry[0] == "recommend"] == [("recommend", 34, pytest.approx(34.0))]


def test_integer_ids_stand_bare_in_a_literal() -> None:
    def holding(*ids: str) -> Catalog:
        return Catalog(pl.DataFrame({"item_id": ids}))

    assert are_integers(holding("12", "5", "0"))
    for item in ("05", "-1", "²", "1" * 25, "a"):
        assert not are_integers(holding("1", item))


def test_files_are_as_others_may_read_them(batch) -> None:
    os.umask(mask := os.umask(0))
    assert batch().path.stat().st_mode & 0o777 == 0o666 & ~mask
