"""Python literals in data files, read without evaluating anything.

Research data often holds lists as Python prints them (`['a', "it's"]`), and the Amazon 2014 files hold whole
records so. This parser knows strings, numbers, None, True, False, lists, tuples and dicts; nothing else exists for
it: no names, calls, arithmetic, bytes or f-strings. Its work is bounded by the text's length and a nesting depth.

`ast.literal_eval` will not do: by its own documentation, short hostile text can exhaust memory or the C stack and end
the process, and it refuses the `nan` and `null` that such files hold.
"""

import json
import re
from typing import Any

from sidrec.errors import DataError

__all__ = ["parse_list", "parse_literal"]

MAX_DEPTH = 32

_TOKEN = re.compile(
    r"""\s*(?:
        (?P<string>'(?:[^'\\\n]|\\.)*'|"(?:[^"\\\n]|\\.)*")
      | (?P<number>[-+]?(?:\d+\.\d*|\.\d+|\d+)(?:[eE][-+]?\d+)?)
      | (?P<name>None|True|False|null|true|false|nan|NaN)\b
      | (?P<mark>[][(){},:])
    )""",
    re.VERBOSE | re.DOTALL,
)
_ESCAPE = re.compile(r"\\(x[0-9a-fA-F]{2}|u[0-9a-fA-F]{4}|U[0-9a-fA-F]{8}|[0-7]{1,3}|.)", re.DOTALL)
_SIMPLE = {"n": "\n", "t": "\t", "r": "\r", "b": "\b", "f": "\f", "v": "\v", "a": "\a", "\n": ""}
_NAMES: dict[str, Any] = {"None": None, "null": None, "True": True, "true": True, "False": False, "false": False}
_CLOSING = {"[": "]", "(": ")", "{": "}"}


def parse_literal(text: str) -> Any:
    r"""The value of a Python literal; tuples come back as lists, `nan` as None.

    >>> parse_literal("['it\\'s', \"a, b\", 3]")
    ["it's", 'a, b', 3]

    Raises:
        DataError: the text is something else; the position is named.
    """
    if text[:1] in "[{" and ("'" not in text or ('"' not in text and "\\" not in text)):
        # Lists of numbers, and of text without a quote or backslash, are as good as JSON: its C parser is much faster.
        try:
            return json.loads(text.replace("'", '"'), parse_constant=_constant)
        except (ValueError, RecursionError):
            pass
    return _Parser(text).whole()


def _constant(name: str) -> None:
    """JSON's parser would make numbers of these."""
    if name != "NaN":
        raise ValueError(name)


def parse_list(cell: str | None, where: str) -> list[str]:
    """The entries of a printed list as text; an empty cell is an empty list.

    >>> parse_list("[3, 'a', None]", "here"), parse_list(None, "here")
    (['3', 'a', ''], [])

    Raises:
        DataError: the cell holds something else; the message says `where` it stands.
    """
    if cell is None or not cell.strip():
        return []
    try:
        value: Any = parse_literal(cell)
    except DataError as error:
        raise DataError(error.what, where=f"{where}, {error.where}", expected="a list such as [1, 2]") from error
    if not isinstance(value, list) or any(isinstance(entry, list | dict) for entry in value):
        raise DataError(f"the cell holds {cell[:60]!r}", where=where, expected="a list such as [1, 2]")
    return ["" if entry is None else str(entry) for entry in value]


class _Parser:
    """Recursive descent over one text."""

    def __init__(self, text: str) -> None:
        self.text, self.position = text, 0

    def whole(self) -> Any:
        value = self.value(*self.next(), depth=0)
        if self.text[self.position :].strip():
            raise self.wrong("text follows the value")
        return value

    def next(self) -> tuple[str, str]:
        match = _TOKEN.match(self.text, self.position)
        if match is None:
            raise self.wrong("this is no literal")
        self.position = match.end()
        kind = str(match.lastgroup)
        return kind, match.group(kind)

    def value(self, kind: str, token: str, depth: int) -> Any:
        if kind == "string":
            return _unescape(token[1:-1]) if "\\" in token else token[1:-1]
        if kind == "number":
            return int(token) if token.lstrip("+-").isdigit() and len(token) < 40 else float(token)
        if kind == "name":
            return _NAMES.get(token)
        if token not in _CLOSING:
            raise self.wrong(f"'{token}' stands where a value belongs")
        if depth >= MAX_DEPTH:
            raise self.wrong(f"nested deeper than {MAX_DEPTH}")
        return self.mapping(depth) if token == "{" else self.sequence(_CLOSING[token], depth)

    def sequence(self, closing: str, depth: int) -> list[Any]:
        out: list[Any] = []
        kind, token = self.next()
        while token != closing or kind != "mark":
            out.append(self.value(kind, token, depth + 1))
            if not self.comma(closing):
                break
            kind, token = self.next()
        return out

    def mapping(self, depth: int) -> dict[Any, Any]:
        out: dict[Any, Any] = {}
        kind, token = self.next()
        while token != "}" or kind != "mark":
            if kind not in ("string", "number"):
                raise self.wrong("a key must be text or a number")
            key = self.value(kind, token, depth + 1)
            if self.next() != ("mark", ":"):
                raise self.wrong("':' is missing after a key")
            out[key] = self.value(*self.next(), depth=depth + 1)
            if not self.comma("}"):
                break
            kind, token = self.next()
        return out

    def comma(self, closing: str) -> bool:
        """Whether a comma follows (and not the end of the collection)."""
        mark = self.next()
        if mark not in (("mark", ","), ("mark", closing)):
            raise self.wrong(f"',' or '{closing}' is missing")
        return mark[1] == ","

    def wrong(self, problem: str) -> DataError:
        around = self.text[max(0, self.position - 10) : self.position + 20]
        return DataError(
            f"not a Python literal: {problem}",
            where=f"character {self.position + 1}, near {around!r}",
            expected="lists, dicts, quoted text, numbers, None, True or False",
        )


def _unescape(text: str) -> str:
    def value(match: re.Match[str]) -> str:
        code = match.group(1)
        if code[0] in "xuU" and len(code) > 1:
            number = int(code[1:], 16)
            return chr(number) if number <= 0x10FFFF else match.group(0)
        if code[0] in "01234567":
            return chr(int(code, 8))
        # Like Python, an unknown escape keeps its backslash.
        return _SIMPLE.get(code, code if code in "\\'\"" else "\\" + code)

    return _ESCAPE.sub(value, text)
