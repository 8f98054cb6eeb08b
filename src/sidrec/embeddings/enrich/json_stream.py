"""The entries of a JSON object too large to be held at once, one after the other."""

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any, TextIO

from sidrec.data.files import open_text
from sidrec.errors import DataError

__all__ = ["object_entries"]

CHUNK = 2**20
"""Characters read at once."""
LARGEST = 2**24
"""Characters of the longest entry; one that does not end by then is broken."""
MARGIN = 3
"""Characters behind a number that settle where it ends."""
SPACES = " \t\r\n"


def object_entries(path: Path, chunk: int = CHUNK) -> Iterator[tuple[str, Any]]:
    """Key and value of every entry of the JSON object in a file, gzip'd or not, in file order.

    Args:
        path: the file.
        chunk: characters read at once; memory is a few times that.

    Raises:
        DataError: no such file, or it is not one JSON object; the place is named.
    """
    with open_text(path) as file:
        yield from _Reader(file, str(path), chunk).entries()


class _Reader:
    """A window that moves over the text of a file."""

    def __init__(self, file: TextIO, where: str, chunk: int) -> None:
        self._file, self._where, self._chunk = file, where, chunk
        self._text, self._at, self._before, self._is_end = "", 0, 0, False
        self._decode = json.JSONDecoder().raw_decode

    def entries(self) -> Iterator[tuple[str, Any]]:
        self._expect("{")
        if self._peek() == "}":
            self._at += 1
        else:
            while True:
                key = self._value()
                if not isinstance(key, str):
                    raise self._broken("a key is no text")
                self._expect(":")
                yield key, self._value()
                if self._expect(",}") == "}":
                    break
        if self._peek():
            raise self._broken("text follows the object")

    def _value(self) -> Any:
        """The JSON value that begins here; more is read until it is whole."""
        self._peek()
        while True:
            try:
                value, end = self._decode(self._text, self._at)
            except json.JSONDecodeError as error:
                if self._is_end or len(self._text) - self._at > LARGEST:
                    raise self._broken(error.msg, error.pos) from error
            else:
                # A number near the end of the window may go on behind it: "1" may be "1e+5".
                if end + MARGIN <= len(self._text) or self._is_end:
                    self._at = end
                    return value
            self._more()

    def _peek(self) -> str:
        """The next character that is no space, `""` at the end."""
        while True:
            while self._at < len(self._text) and self._text[self._at] in SPACES:
                self._at += 1
            if self._at < len(self._text) or self._is_end:
                return self._text[self._at : self._at + 1]
            self._more()

    def _expect(self, characters: str) -> str:
        found = self._peek()
        if not found or found not in characters:
            raise self._broken(f"expected {' or '.join(repr(character) for character in characters)}")
        self._at += 1
        return found

    def _more(self) -> None:
        # A long entry is tried anew each time, so what is read grows with it.
        piece = self._file.read(max(self._chunk, len(self._text) - self._at))
        self._is_end = not piece
        self._before += self._at
        self._text, self._at = self._text[self._at :] + piece, 0

    def _broken(self, problem: str, at: int | None = None) -> DataError:
        place = self._before + (self._at if at is None else at)
        return DataError(
            f"not valid JSON: {problem}",
            where=f"{self._where}, character {place}",
            expected='one object: {"id": {…}, "id": {…}, …}',
            next="download or copy the file again",
        )
