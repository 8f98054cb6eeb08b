"""The arrays of a trie as one file that is mapped, not read: 10⁷ items are there in a moment.

The layout is that of safetensors: the length of a header, the header in JSON, the arrays as they lie in
memory. Reading checks all that can be known without looking at the arrays' content: kind and format
number, types, lengths, the size of the file, and that the arrays fit together.
"""

import json
import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from safetensors import SafetensorError
from safetensors.numpy import save_file

from sidrec.data.files import reading
from sidrec.errors import DataError
from sidrec.types import IntArray

__all__ = ["TrieArrays", "read_trie", "write_trie"]

KIND, FORMAT = "sidrec.ItemTrie", "1"
TYPES = {"I32": np.dtype("<i4"), "U16": np.dtype("<u2")}
LENGTH_BYTES = 8


class TrieArrays(NamedTuple):
    """What makes a trie; the attributes of `ItemTrie` of the same names."""

    sizes: tuple[int, ...]
    child_ptr: tuple[IntArray, ...]
    codes: tuple[IntArray, ...]
    item_ptr: IntArray
    rows: IntArray


def write_trie(path: Path, trie: TrieArrays) -> None:
    """Write a file; one that stands there is replaced only when the new one is whole.

    Raises:
        DataError: it cannot be written.
    """
    arrays = {"item_ptr": trie.item_ptr, "rows": trie.rows}
    for depth, (ptr, codes) in enumerate(zip(trie.child_ptr, trie.codes, strict=True)):
        arrays |= {f"child_ptr.{depth}": ptr, f"codes.{depth}": codes}
    facts = {"kind": KIND, "format": FORMAT, "sizes": json.dumps(trie.sizes)}
    part = path.with_name(f"{path.name}.{os.getpid()}.part")
    try:
        save_file({name: np.ascontiguousarray(array) for name, array in arrays.items()}, part, facts)
        part.replace(path)
    except (OSError, SafetensorError) as error:
        raise DataError(f"the trie cannot be written: {error}", where=str(path), next="check the folder") from error
    finally:
        part.unlink(missing_ok=True)


def read_trie(path: Path) -> TrieArrays:
    """The arrays of a file, read-only and mapped: pages come from the disk when they are used.

    Raises:
        DataError: there is no such file, it is another kind of file or of another format, or it is damaged.
    """
    with reading(path):
        if not path.stat().st_size:
            raise _damaged(path, "it is empty")
        content = np.memmap(path, np.uint8, mode="r")
    header, first = _header(path, content)
    sizes = _sizes(path, header.pop("__metadata__", None))
    arrays = _arrays(path, header, content[first:])
    try:
        levels = range(len(sizes))
        child_ptr, codes = ([arrays.pop(f"{name}.{depth}") for depth in levels] for name in ("child_ptr", "codes"))
        trie = TrieArrays(sizes, tuple(child_ptr), tuple(codes), arrays.pop("item_ptr"), arrays.pop("rows"))
    except KeyError as error:
        raise _damaged(path, f"it has no array {error}") from error
    _check_fit(path, trie)
    return trie


def _header(path: Path, content: IntArray) -> tuple[dict[str, Any], int]:
    """The header, and where the arrays begin."""
    length = int.from_bytes(content[:LENGTH_BYTES].tobytes(), "little")
    try:
        if LENGTH_BYTES + length > len(content):
            raise ValueError(f"a header of {length} bytes in a file of {len(content)}")
        header = json.loads(content[LENGTH_BYTES : LENGTH_BYTES + length].tobytes())
        if not isinstance(header, dict):
            raise TypeError("a header that is no object")
    except (ValueError, TypeError) as error:
        raise _foreign(path) from error
    return header, LENGTH_BYTES + length


def _sizes(path: Path, facts: Any) -> tuple[int, ...]:
    """(K1, …, KL) of a file of this kind and format."""
    if not isinstance(facts, dict) or facts.get("kind") != KIND:
        raise _foreign(path)
    if facts.get("format") != FORMAT:
        raise DataError(
            f"the trie has format {facts.get('format')}",
            where=str(path),
            expected=f"format {FORMAT}",
            next="write it again with ItemTrie.save of this version",
        )
    try:
        return tuple(int(size) for size in json.loads(facts["sizes"]))
    except (KeyError, TypeError, ValueError) as error:
        raise _damaged(path, "its levels cannot be read") from error


def _arrays(path: Path, header: Mapping[str, Any], content: IntArray) -> dict[str, IntArray]:
    """The arrays by name; together they are all of the content."""
    arrays: dict[str, IntArray] = {}
    total = 0
    try:
        for name, entry in header.items():
            dtype, (length,), (first, last) = TYPES[entry["dtype"]], entry["shape"], entry["data_offsets"]
            if not 0 <= first <= last <= len(content) or last - first != length * dtype.itemsize:
                raise ValueError(f"array {name} of {length} numbers at bytes {first} to {last} of {len(content)}")
            arrays[name] = np.frombuffer(content, dtype, length, first)
            total += last - first
    except (KeyError, TypeError, ValueError) as error:
        raise _damaged(path, f"its header does not fit: {error}") from error
    if total != len(content):
        raise _damaged(path, f"{len(content) - total} bytes belong to no array")
    return arrays


def _check_fit(path: Path, trie: TrieArrays) -> None:
    """Raise `DataError` unless every array is as long as the one above it says."""
    ends = [len(codes) for codes in trie.codes] + [len(trie.rows)]
    nodes = 1
    for ptr, end in zip([*trie.child_ptr, trie.item_ptr], ends, strict=True):
        if len(ptr) != nodes + 1 or ptr[0] != 0 or ptr[-1] != end or not end:
            raise _damaged(path, f"{len(ptr)} pointers for {nodes} nodes and {end} entries below them")
        nodes = end


def _foreign(path: Path) -> DataError:
    return DataError(
        "the file holds no trie", where=str(path), expected="a file of ItemTrie.save", next="check the path"
    )


def _damaged(path: Path, what: str) -> DataError:
    return DataError(
        f"the file ends too early or is damaged: {what}",
        where=str(path),
        expected="a whole file of ItemTrie.save",
        next="copy it again, or write it anew from the semantic IDs",
    )
