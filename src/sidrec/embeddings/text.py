"""Sentence encoders: item texts → vectors by any sentence-transformers model, resumable.

Equal texts are encoded once, in chunks of similar length. Each finished chunk is a file in the run's
scratch folder, under a name that depends on model, settings and texts; a killed run finds them and
ends with the same vectors. Not here: fine-tuning and encoders of images.
"""

from collections.abc import Sequence
from pathlib import Path
from typing import Any, Literal

import numpy as np
from pydantic import Field

from sidrec.artifact import Artifact, digest_of, file_digest
from sidrec.config import Config, RunSettings
from sidrec.data.catalog import Catalog
from sidrec.embeddings.base import ContentEmbedder, ItemEmbeddings, unit_length
from sidrec.embeddings.enrich.facts import described, facts_digest
from sidrec.embeddings.fields import field_texts, joined_texts, rows_without_text, text_facts
from sidrec.errors import DataError, MissingExtraError
from sidrec.types import FloatArray, Json

__all__ = ["SentenceEmbedder"]

CHUNK_BATCHES = 16
"""Batches in one resumable chunk."""


class SentenceEmbedder(ContentEmbedder):
    """Encodes item texts by a sentence-transformers model."""

    class Config(Config):
        """A sentence encoder."""

        kind: Literal["text"] = "text"
        model: str = "sentence-transformers/all-MiniLM-L6-v2"
        """Name on the Hugging Face hub, or a local directory."""
        fields: tuple[str, ...] = ()  # type: ignore[assignment]  # Hides a deprecated attribute of pydantic.
        """Text fields to use, in this order; empty means all of the catalogue."""
        facts: str = ""
        """Folder of facts from `sidrec enrich`, which become one more text field, `facts`; empty means none."""
        combine: Literal["join", "mean"] = "join"
        """`join`: one text of all fields. `mean`: plain mean of the vectors of non-empty fields (LETTER)."""
        max_tokens: int = Field(default=0, ge=0)
        """Tokens at which a text is cut; 0 leaves the model's own limit."""
        prompt: str = ""
        """Text put before every item, for models that want an instruction."""
        batch_size: int = Field(default=64, ge=1)
        """Texts encoded at once."""
        precision: Literal["fp32", "fp16", "bf16"] = "fp32"
        """Arithmetic of the model; half precision is meant for GPUs."""
        normalize: bool = False
        """Scale vectors to length 1."""

    def sources(self) -> dict[str, str]:
        """Digests of a local model directory, where a hub name stands for itself, and of the facts."""
        return {**self._model_digest(), **facts_digest(self.config.facts)}

    def _model_digest(self) -> dict[str, str]:
        directory = Path(self.config.model)
        if not directory.is_dir():
            return {}
        files = sorted(path for path in directory.rglob("*") if path.is_file() and not _is_hidden(path, directory))
        return {"model": digest_of([[str(path.relative_to(directory)), file_digest(path)] for path in files])}

    def embed(self, catalog: Catalog, run: RunSettings) -> ItemEmbeddings:
        """Vectors of all items, in catalogue order.

        Raises:
            MissingExtraError: sentence-transformers is not installed.
            DataError: there is no text, or the model cannot be loaded.
        """
        config: SentenceEmbedder.Config = self.config
        catalog = described(catalog, config.facts)
        if config.combine == "join":
            vectors = self._encode(joined_texts(catalog, config.fields), run)
        else:
            columns = field_texts(catalog, config.fields)
            texts = [text for column in columns.values() for text in column]
            encoded_FND = self._encode(texts, run).reshape(len(columns), len(catalog), -1)
            vectors = _mean_of_present(encoded_FND, np.array(texts, dtype=object).reshape(len(columns), -1) != "")
        if config.normalize:
            vectors = unit_length(vectors)
        missing = rows_without_text(catalog, config.fields)
        return ItemEmbeddings(vectors, f"{Path(config.model).name}, {config.combine}", catalog.digest, missing)

    def extend(
        self, new: Catalog, old: Catalog, earlier: Artifact, run: RunSettings, vectors: Path | None = None
    ) -> FloatArray:
        """Vectors float32[M, D] of new items by the same model.

        Raises:
            MissingExtraError: sentence-transformers is not installed.
            DataError: there is no text, or the model's directory holds another model than it did.
        """
        self._refuse_file(vectors)
        recorded, now = earlier.parents.get("model"), self._model_digest().get("model")
        if recorded != now:
            raise DataError(
                "the sentence encoder is not the one that made the old vectors",
                where=f"{self.config.model}: {(now or 'no directory')[:12]}, then {(recorded or 'no directory')[:12]}",
                expected="the same files, so that old and new items can be compared",
                next="put the model back, or embed and tokenize anew",
            )
        return self.embed(new, run).vectors

    def facts(self, catalog: Catalog) -> Json:
        """Fields used and items without text, which get the encoding of an empty text."""
        return text_facts(described(catalog, self.config.facts), self.config.fields)

    def _encode(self, texts: Sequence[str], run: RunSettings) -> FloatArray:
        """float32[len(texts), D]; equal texts are encoded once, texts of similar length together."""
        unique = sorted(set(texts), key=lambda text: (-len(text), text))
        size = self.config.batch_size * CHUNK_BATCHES
        chunks = [unique[start : start + size] for start in range(0, len(unique), size)]
        store = self._store(unique, run)
        model: Any = None
        encoded: list[FloatArray] = []
        with run.progress("embed items", len(unique)) as advance:
            for number, chunk in enumerate(chunks):
                vectors = _stored(store, number, len(chunk))
                if vectors is None:
                    model = model or self._load(run)
                    vectors = self._encode_chunk(model, chunk)
                    _store_chunk(store, number, vectors)
                encoded.append(vectors)
                advance(len(chunk))
        position = {text: row for row, text in enumerate(unique)}
        return np.concatenate(encoded)[[position[text] for text in texts]]

    def _encode_chunk(self, model: Any, texts: list[str]) -> FloatArray:
        config: SentenceEmbedder.Config = self.config
        vectors = model.encode(
            texts,
            batch_size=config.batch_size,
            prompt=config.prompt or None,
            show_progress_bar=False,
            convert_to_numpy=True,
        )
        return np.asarray(vectors, np.float32)

    def _store(self, texts: list[str], run: RunSettings) -> Path | None:
        """Folder of finished chunks; everything that decides them is in its name."""
        if run.scratch is None:
            return None
        settings = self.config.model_dump(mode="json", exclude={"fields", "facts", "combine", "normalize"})
        folder = run.scratch / digest_of([settings, self._model_digest(), CHUNK_BATCHES, texts])[:32]
        folder.mkdir(parents=True, exist_ok=True)
        return folder

    def _load(self, run: RunSettings) -> Any:
        try:
            from sentence_transformers import SentenceTransformer
        except ImportError as error:
            raise MissingExtraError("the embedder of kind 'text'", "text") from error
        import torch

        config: SentenceEmbedder.Config = self.config
        dtype = {"fp32": torch.float32, "fp16": torch.float16, "bf16": torch.bfloat16}[config.precision]
        try:
            # safetensors only: other weight files are pickles.
            arguments = {"dtype": dtype, "use_safetensors": True}
            model = SentenceTransformer(config.model, device=run.torch_device(), model_kwargs=arguments)
        except (OSError, ValueError) as error:
            raise DataError(
                f"the sentence encoder cannot be loaded: {str(error).splitlines()[0]}",
                where=config.model,
                expected="a hub name or a local directory of a sentence-transformers model with safetensors weights",
                next="download the model where there is a network and name its directory",
            ) from error
        if config.max_tokens:
            model.max_seq_length = config.max_tokens
        return model


def _is_hidden(path: Path, root: Path) -> bool:
    return any(part.startswith(".") for part in path.relative_to(root).parts)


def _mean_of_present(encoded_FND: FloatArray, present_FN: np.ndarray) -> FloatArray:
    """Mean over the fields an item has; without any, the encoding of the empty text.

    >>> _mean_of_present(np.array([[[1.0]], [[5.0]]]), np.array([[True], [False]])).tolist()
    [[1.0]]
    """
    weights_FN = np.where(present_FN.any(axis=0), present_FN, 1).astype(encoded_FND.dtype)
    return (encoded_FND * weights_FN[:, :, None]).sum(axis=0) / weights_FN.sum(axis=0)[:, None]


def _stored(store: Path | None, number: int, length: int) -> FloatArray | None:
    """A chunk that an earlier, killed run finished."""
    path = None if store is None else store / f"{number:06d}.npy"
    if path is None or not path.is_file():
        return None
    vectors = np.load(path, allow_pickle=False)
    return vectors if len(vectors) == length else None


def _store_chunk(store: Path | None, number: int, vectors: FloatArray) -> None:
    if store is None:
        return
    partial = store / f"{number:06d}.partial.npy"
    np.save(partial, vectors)
    partial.replace(store / f"{number:06d}.npy")
