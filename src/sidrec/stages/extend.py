"""Stage `tokenize --extend`: new items get codes behind those of the old ones, of which none moves.

What was learnt stays as it is: the embedder's state, the tokenizer's codebooks, the collision policy. Vectors
of new items stand in the new artefact, so that it can be extended again. Left out: learning from the new
items, and taking items away.
"""

import json
import re
import shutil
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
from safetensors.numpy import load_file, save_file

from sidrec.artifact import Artifact, ArtifactWriter, file_digest, open_artifact
from sidrec.config import Config, RunSettings, build, parse, part_class, with_overrides
from sidrec.data.catalog import Catalog
from sidrec.data.dataset import Dataset, Examples, Split
from sidrec.data.items import read_item_table
from sidrec.data.sequences import Sequences
from sidrec.data.text import clean_items
from sidrec.embeddings.base import Embedder, ItemEmbeddings
from sidrec.errors import ConfigError, DataError
from sidrec.stages.layout import Request, RunFolder, StageResult, check_dataset, make_artifact, name_for, own_name
from sidrec.stages.tokenize import assessed, write_codes
from sidrec.tokenizers.base import ImportingTokenizer, Tokenizer, VectorTokenizer, load_tokenizer
from sidrec.tokenizers.placement import Quantized
from sidrec.tokenizers.semantic_ids import SemanticIds
from sidrec.types import FloatArray, Json

__all__ = ["extend", "grown_catalog", "grown_vectors"]

GROWTH, APPENDED = "growth.json", "appended.safetensors"
VERSION = re.compile(r"-v\d+(-[0-9a-f]{8})?$")
"""The end of the name of semantic IDs that were extended before."""


@dataclass(frozen=True)
class _Growth:
    """What is extended by what.

    Attributes:
        earlier: the tokenizer artefact that is extended.
        ids: its semantic IDs.
        dataset: the run's dataset.
        catalog: the old items and the new ones behind them.
        source: the table of the new items.
        vectors: a file of their vectors, where vectors are imported.
        embeddings: the artefact of the vectors that the tokenizer learnt from; None where it learnt from none.
    """

    earlier: Artifact
    ids: SemanticIds
    dataset: Dataset
    catalog: Catalog
    source: Path
    vectors: Path | None
    embeddings: Artifact | None


def extend(
    folder: RunFolder,
    items: Path,
    run: RunSettings,
    *,
    tokenizer: str | None = None,
    vectors: Path | None = None,
    overrides: Sequence[str] = (),
    name: str | None = None,
    force: bool = False,
) -> StageResult:
    """Make a tokenizer artefact that holds the semantic IDs of old and new items; the old artefact stays.

    Args:
        folder: the run.
        items: the new items, a table with the columns of the catalogue (CSV, TSV, Parquet, JSON Lines, or the
            JSON of LETTER).
        run: device and progress; its seed is not used, that of the extended artefact is.
        tokenizer: name of the semantic IDs to extend; None takes the only ones there are.
        vectors: a `.npy` of the new items' vectors in the order of their table, where vectors are imported.
        overrides: `path=FILE` names the index of the new items' codes, where codes are imported, and `item_map=FILE`
            their numbers, if the index names items by number.
        name: of the new artefact; without it that of the old one and the version, such as `rqkmeans-v2`.
        force: make it even if it is up to date.

    Raises:
        ArtifactError: semantic IDs or vectors are missing, or there are several semantic IDs and none was named.
        DataError: the new items or their vectors do not fit the old ones, or there is no room for them.
        ConfigError: a setting that would change the tokenizer, or the name of the extended semantic IDs.
    """
    dataset = Dataset.load(folder.dataset)
    assert dataset.artifact is not None, "a loaded dataset knows its artefact"
    earlier = folder.only("tokenizer", tokenizer)
    check_dataset(earlier, dataset.artifact)
    part = _part(earlier, overrides)
    old = grown_catalog(earlier, dataset)
    found = read_item_table(items)
    if dataset.artifact.config.get("clean_text"):
        found = clean_items(found)
    growth = _Growth(
        earlier,
        SemanticIds.load(earlier.path),
        dataset,
        old.extended(found, str(items)),
        items,
        vectors,
        _embeddings_of(earlier) if isinstance(part, VectorTokenizer) else None,
    )
    growth.ids.check_fits(old)
    request = _request(growth, part)
    path = folder.tokenizer(name_for("", name) if name else _next_name(growth))
    if name is None:
        path = path.with_name(own_name(path, request))
    elif path == earlier.path:
        raise ConfigError(
            f"--name: '{name}' is the name of the semantic IDs that are extended, on which recommenders may rest",
            next="choose another name, or leave --name out",
        )
    scratch = run.scratch or folder.scratch(f"extend-{path.name}")
    settings = replace(run, scratch=scratch, seed=earlier.manifest["seed"])
    result = make_artifact(path, **request, write=lambda writer: _write(writer, part, growth, settings), force=force)
    if run.scratch is None:
        shutil.rmtree(scratch, ignore_errors=True)
    return result


def grown_catalog(tokenizer: Artifact, dataset: Dataset) -> Catalog:
    """The items of a tokenizer artefact: those of the dataset, and behind them those it was extended by."""
    return Catalog.load(tokenizer.path) if (tokenizer.path / GROWTH).is_file() else dataset.catalog


def grown_vectors(tokenizer: Artifact) -> FloatArray | None:
    """float32[N, D] of the items of a tokenizer artefact, extended or not; None where it learnt from no vectors.

    Raises:
        ArtifactError: the vectors that it learnt from are gone.
        DataError: they were made again since.
    """
    if "embeddings" not in tokenizer.parents:
        return None
    vectors = ItemEmbeddings.of_artifact(_embeddings_of(tokenizer)).vectors
    appended = tokenizer.path / APPENDED
    return np.concatenate([vectors, load_file(appended)["vectors"]]) if appended.is_file() else vectors


def _part(earlier: Artifact, overrides: Sequence[str]) -> Tokenizer:
    """The fitted tokenizer of an artefact; of one that imports codes, with the index of the new items."""
    cls: Any = part_class("tokenizer", str(earlier.config["kind"]))
    is_file = "path" in cls.Config.model_fields and issubclass(cls, ImportingTokenizer)
    wrong = [text for text in overrides if not (is_file and text.startswith(("path=", "item_map=")))]
    if wrong:
        raise ConfigError(
            [f"{text}: an extension uses the tokenizer as it is" for text in wrong],
            where=str(earlier.path),
            next="leave the settings out, or tokenize anew under another --name",
        )
    if issubclass(cls, VectorTokenizer):
        return load_tokenizer(earlier.path)
    if is_file and not overrides:
        raise ConfigError(
            "path: these codes were imported, so those of new items must be imported too",
            where=str(earlier.path),
            next="add path=FILE, an index file of the new items",
        )
    fields = with_overrides(earlier.config, overrides)
    config: Config = parse(cls.Config, fields, where=str(earlier.path))
    return build("tokenizer", config)


def _embeddings_of(tokenizer: Artifact) -> Artifact:
    """The vectors that a tokenizer learnt from, proven to be the same."""
    recorded: Json = tokenizer.manifest["parents"]["embeddings"]
    found = open_artifact((tokenizer.path.parent / recorded["path"]).resolve(), "embeddings")
    if found.digest != recorded["digest"]:
        raise DataError(
            "the vectors were made again since the tokenizer learnt from them",
            where=f"{tokenizer.path} learnt from {recorded['digest'][:12]}, {found.path} is {found.digest[:12]}",
            next="tokenize anew, then extend",
        )
    return found


def _request(growth: _Growth, part: Tokenizer) -> Request:
    assert growth.dataset.artifact is not None, "a loaded dataset knows its artefact"
    parents: dict[str, Artifact | str] = {
        "dataset": growth.dataset.artifact,
        "extends": growth.earlier,
        "items": file_digest(growth.source),
        # Of a fitted tokenizer the artefact holds all; what it was made from need not stand any longer.
        **(part.sources() if isinstance(part, ImportingTokenizer) else {}),
    }
    if growth.embeddings is not None:
        parents["embeddings"] = growth.embeddings
    if growth.vectors is not None:
        parents["vectors"] = _digest(growth.vectors)
    seed: int = growth.earlier.manifest["seed"]
    return {"kind": "tokenizer", "config": part.describe(), "seed": seed, "parents": parents}


def _digest(path: Path) -> str:
    if not path.is_file():
        raise DataError("there is no such file", where=str(path), next="check --vectors")
    return file_digest(path)


def _next_name(growth: _Growth) -> str:
    return f"{VERSION.sub('', growth.earlier.path.name)}-v{growth.ids.version + 1}"


def _write(writer: ArtifactWriter, part: Tokenizer, growth: _Growth, run: RunSettings) -> None:
    first = len(growth.ids)
    new = growth.catalog.tail(first)
    facts: Json = {}
    if isinstance(part, VectorTokenizer):
        vectors = _vectors(growth, new, run, writer)
        quantized, facts = assessed(part, vectors, growth.catalog, run)
        save_file({"vectors": vectors[len(growth.dataset.catalog) :]}, writer.path / APPENDED)
    else:
        assert isinstance(part, ImportingTokenizer), f"{type(part).__name__} neither learns nor imports"
        quantized = _imported(part, growth.ids, new, run)
    write_codes(writer, part, replace(growth.dataset, catalog=growth.catalog), quantized, facts, extends=growth.ids)
    growth.catalog.save(writer.path)
    record = {
        "version": growth.ids.version + 1,
        "first_row": first,
        "items": len(new),
        "source": growth.source.name,
        "digest": file_digest(growth.source),
    }
    earlier = growth.earlier.path / GROWTH
    before: list[Json] = json.loads(earlier.read_text(encoding="utf-8")) if earlier.is_file() else []
    (writer.path / GROWTH).write_text(json.dumps([*before, record], indent=1, ensure_ascii=False), encoding="utf-8")
    writer.summary.update(version=record["version"], new_items=len(new))


def _vectors(growth: _Growth, new: Catalog, run: RunSettings, writer: ArtifactWriter) -> FloatArray:
    """float32[N, D] of old and new items; the old ones' are those that stand on disk."""
    old = grown_vectors(growth.earlier)
    assert old is not None, "a tokenizer that learns has vectors"
    assert growth.embeddings is not None, "a tokenizer that learns has vectors"
    config = growth.embeddings.config
    cls = part_class("embedder", str(config["kind"]))
    embedder: Embedder = build("embedder", parse(cls.Config, config, where=str(growth.embeddings.path)))
    made = embedder.extend(new, growth.dataset.catalog, growth.embeddings, run, growth.vectors)
    if made.shape[1] != old.shape[1]:
        raise DataError(
            f"the vectors of the new items have {made.shape[1]} dimensions, those of the old ones {old.shape[1]}",
            where=str(growth.vectors or growth.embeddings.path),
            expected="vectors of the same model",
        )
    if growth.vectors is None:
        writer.summary.update({f"new_{name}": value for name, value in embedder.facts(new).items() if name != "fields"})
    return ItemEmbeddings(np.concatenate([old, made]), "old and new items", growth.catalog.digest).vectors


def _imported(part: ImportingTokenizer, ids: SemanticIds, new: Catalog, run: RunSettings) -> Quantized:
    """The codes of old and new items; what a policy added to the old ones is left to it."""
    none = Examples(np.empty(0, np.int32), np.empty(0, np.int32))
    nobody = Sequences(np.empty(0, np.int32), np.zeros(1, np.int64), [])
    codes, _ = part.codes(Dataset(new, nobody, Split("none", none, none, none)), run)
    levels = ids.num_levels - build("collision", part.config.collisions).extra_levels
    sizes = ids.sizes[:levels]
    if codes.shape[1] != levels or (codes >= np.asarray(sizes)).any():
        highest = [int(code) for code in codes.max(axis=0)]
        raise DataError(
            f"the highest codes of the new items are {highest}",
            where=part.config.path if "path" in type(part.config).model_fields else "",
            expected=f"{levels} levels of {', '.join(map(str, sizes))} codes, as the old items have",
            next="give the new items codes of the same tokenizer",
        )
    return Quantized(np.concatenate([ids.codes[:, :levels], codes]), sizes)
