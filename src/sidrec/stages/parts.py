"""The parts of a file that is written over hours: each is whole or not there, and a later run takes them over.

They stand in a hidden folder beside the file to come. Each is named after the request that it answers, so that what
is still written for another one, by a process that outlived its run, is never mixed in. A run with another request
throws the old parts away. When all are there they are joined, the file is renamed into place and the folder goes.

Parts are Parquet whatever the file will be, so that a part knows more of its users than the file may hold.
"""

import csv
import json
import shutil
from collections.abc import Callable, Generator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import polars as pl

from sidrec.artifact import digest_of, file_digest
from sidrec.atomic import commit
from sidrec.data.columns import Columns
from sidrec.errors import ArtifactError
from sidrec.types import Json

__all__ = ["FORMATS", "SKIPPED", "Parts", "check_free", "check_place", "finished", "key_of", "record_of"]

REQUEST = "request.json"
LOCK = "lock"
SKIPPED = "skipped"
"""Column of a part: items of the user's history that were left out as unknown. The joined file lacks it."""
FORMATS = (".parquet", ".csv", ".jsonl", ".ndjson")
KEY_DIGITS = 15
"""Of a request's digest, in the name of a part."""
ROW_GROUP = 65_536
"""Users in a row group of a joined Parquet file."""


def key_of(request: Json) -> int:
    """A number, less than 2⁶³, that no two requests share."""
    return int(digest_of(request)[:KEY_DIGITS], 16)


@dataclass(frozen=True)
class Parts:
    """The folder of a file's parts.

    Attributes:
        target: the file to come.
        key: of the request that the parts answer; others in the folder are not seen.
    """

    target: Path
    key: int

    @property
    def folder(self) -> Path:
        """Where the parts stand."""
        return self.target.with_name(f".{self.target.name}.parts")

    def path(self, number: int) -> Path:
        """The file of a part."""
        return self.folder / f"{self._prefix}{number:06d}.parquet"

    def done(self) -> set[int]:
        """Numbers of the parts that are there."""
        return {int(path.stem.removeprefix(self._prefix)) for path in self.folder.glob(f"{self._prefix}*.parquet")}

    @property
    def _prefix(self) -> str:
        return f"part-{self.key:0{KEY_DIGITS}x}-"

    def _all(self) -> list[Path]:
        """Parts that answer whatever request."""
        return list(self.folder.glob("part-*.parquet"))

    @contextmanager
    def locked(self) -> Generator[None]:
        """Make the folder, and keep other runs out of it as long as the block lasts or the process lives.

        A block that fails before there is a part leaves no folder.

        Raises:
            ArtifactError: another run is writing the same file.
        """
        # Not on every system; those without it go without the lock.
        try:
            import fcntl
        except ImportError:
            fcntl = None
        self.folder.mkdir(parents=True, exist_ok=True)
        with (self.folder / LOCK).open("a", encoding="utf-8") as file:
            try:
                if fcntl is not None:
                    fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError as error:
                raise ArtifactError(
                    "another process is writing this file", where=str(self.target), next="wait for it, or end it"
                ) from error
            try:
                yield
            except BaseException:
                if not self._all():
                    self.remove()
                raise

    def answer(self, request: Json, tell: Callable[[str], None]) -> None:
        """Take over the parts that answer a request, and throw away those that answer another one.

        Args:
            request: all that decides what is in the parts.
            tell: is told what was thrown away, and why.
        """
        found = _read(self.folder / REQUEST)
        if found != request:
            parts = [path for path in self._all() if not path.name.startswith(self._prefix)]
            if parts:
                changed = sorted(name for name in request if found.get(name) != request[name])
                tell(
                    f"{len(parts)} finished parts of {self.target.name} answer another request and are thrown away; "
                    f"changed: {', '.join(changed) if found else 'nobody knows what'}"
                )
            for part in parts:
                part.unlink(missing_ok=True)
            commit(self.folder / REQUEST, _write_json(request))

    def add(self, number: int, table: pl.DataFrame) -> None:
        """Write a part.

        Raises:
            ArtifactError: it cannot be written, or the folder has gone.
        """
        with self._writing():
            commit(self.path(number), table.write_parquet)

    def join(self, num_parts: int, request: Json, *, bare_ids: bool) -> Json:
        """Put all parts together at the target and remove them; returns the figures, which a record beside it holds.

        Args:
            num_parts: how many there must be.
            request: what they answer.
            bare_ids: whether a list literal holds item ids without quotes: all are integers.

        Raises:
            ArtifactError: a part is damaged, users are missing, or the file cannot be written.
        """
        paths = [self.path(number) for number in range(num_parts)]
        joined, ending = self.folder / "joined", self.target.suffix.lower()
        with self._writing():
            try:
                figures = _figures(paths)
                if figures["users"] == request["users"]:
                    commit(joined, lambda place: _join(paths, place, ending, bare_ids=bare_ids))
            except (OSError, pl.exceptions.PolarsError) as error:
                # What polars raises does not say whether it read or wrote.
                self._check(paths, error)
                raise
            if figures["users"] != request["users"]:
                raise self._damaged(f"they hold {figures['users']} users instead of {request['users']}", self.folder)
            digests = {"digest": digest_of(request), "sha256": file_digest(joined)}
            commit(self.folder / "record", _write_json({"request": request, **digests, "summary": figures}))
            # First the record: a file without its record would be somebody else's.
            (self.folder / "record").replace(record_of(self.target))
            joined.replace(self.target)
        self.remove()
        return figures

    def remove(self) -> None:
        """Remove the folder."""
        shutil.rmtree(self.folder, ignore_errors=True)

    @contextmanager
    def _writing(self) -> Generator[None]:
        """Turn what can go wrong in writing into an error that says that nothing is lost."""
        try:
            yield
        except (OSError, pl.exceptions.PolarsError) as error:
            if not self.folder.is_dir():
                raise ArtifactError(
                    "the folder of the finished parts has gone: somebody removed it, or another run finished the file",
                    where=str(self.folder),
                ) from error
            raise ArtifactError(
                f"the lists cannot be written: {_line(error)}",
                where=str(self.folder),
                next="free disk space and run the same command again; the finished parts are kept",
            ) from error

    def _check(self, paths: list[Path], error: Exception) -> None:
        """Raise that a part is damaged if one of them, which did not join, cannot be read or is unlike the first."""
        schema = None
        for path in paths:
            try:
                found = pl.read_parquet(path).schema
            except (OSError, pl.exceptions.PolarsError) as damage:
                raise self._damaged(_line(damage), path) from damage
            schema = schema or found
            if found != schema:
                raise self._damaged("it holds other columns or types than the first one", path) from error

    def _damaged(self, problem: str, place: Path) -> ArtifactError:
        return ArtifactError(
            f"the finished parts are damaged: {problem}",
            where=str(place),
            next=f"delete that {'folder' if place == self.folder else 'file'} and run the same command again",
        )


def _line(error: Exception) -> str:
    return str(error).partition("\n")[0]


def record_of(target: Path) -> Path:
    """The file beside a finished one that says from what it was made."""
    return target.with_name(f"{target.name}.json")


def finished(target: Path, request: Json) -> Json | None:
    """The figures of a file that answers the request, whole and unchanged; None if there is no such file."""
    record = _read(record_of(target))
    same = record.get("digest") == digest_of(request) and target.is_file()
    return record["summary"] if same and record.get("sha256") == file_digest(target) else None


def check_place(target: Path, source: Path) -> None:
    """Refuse a place that cannot be that of a file of lists.

    Raises:
        ArtifactError: the ending is unknown, or a folder or the input stands there.
    """
    if target.suffix.lower() not in FORMATS:
        raise ArtifactError(
            f"'{target.name}' has an ending that says nothing of its format",
            where=str(target),
            expected=", ".join(FORMATS),
            next="rename the output",
        )
    if target.is_dir() or (target.exists() and target.samefile(source)):
        what = "a folder" if target.is_dir() else "the input"
        raise ArtifactError(f"{what} stands where the output is to be written", where=str(target))


def check_free(target: Path) -> None:
    """Refuse to replace a file.

    Raises:
        ArtifactError: there is one.
    """
    if target.exists():
        raise ArtifactError(
            "the output is there already, and is not what this command would write",
            where=str(target),
            expected="an empty place, or the finished output of the same command",
            next="choose another output, or overwrite this one with --force",
        )


def _read(path: Path) -> Json:
    """The JSON object in a file, if it can be read; else an empty one."""
    try:
        found: Any = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return {}
    return found if isinstance(found, dict) else {}


def _write_json(value: Json) -> Callable[[Path], object]:
    return lambda path: path.write_text(json.dumps(value, indent=1, ensure_ascii=False) + "\n", encoding="utf-8")


def _figures(paths: list[Path]) -> Json:
    """How many users there are, how many lists are certified, and what was skipped."""
    skipped = pl.col(SKIPPED)
    figures = {
        "users": pl.len(),
        "certified": pl.col(Columns.EXACT).mean(),
        "empty_lists": (pl.col(Columns.ITEMS).list.len() == 0).sum(),
        "skipped_items": skipped.sum(),
        "users_with_skipped_items": (skipped > 0).sum(),
    }
    found = pl.scan_parquet(paths).select(**figures).collect(engine="streaming")
    return found.row(0, named=True)


def _join(paths: list[Path], target: Path, ending: str, *, bare_ids: bool) -> None:
    """All parts as one file of the format that the ending says; in no format more than a few parts are held."""
    if ending == ".parquet":
        # Everything that decides the bytes is fixed.
        table = pl.scan_parquet(paths).drop(SKIPPED)
        table.sink_parquet(target, compression="zstd", row_group_size=ROW_GROUP, maintain_order=True)
        return
    if ending == ".csv":
        with target.open("w", encoding="utf-8", newline="") as file:
            rows = csv.writer(file, lineterminator="\n")
            rows.writerow((Columns.USER, Columns.ITEM))
            for path in paths:
                part = pl.read_parquet(path, columns=[Columns.USER, Columns.ITEMS])
                rows.writerows((user, _literal(items, bare_ids)) for user, items in part.iter_rows())
        return
    with target.open("wb") as file:
        for path in paths:
            pl.read_parquet(path).drop(SKIPPED).write_ndjson(file)


def _literal(items: Sequence[str], bare: bool) -> str:
    r"""A list as Python prints it; ids that are integers may stand without quotes.

    >>> _literal(["12", "5"], bare=True), _literal(["a", "it's"], bare=False)
    ('[12, 5]', '[\'a\', "it\'s"]')
    """
    return f"[{', '.join(items)}]" if bare else str(list(items))
