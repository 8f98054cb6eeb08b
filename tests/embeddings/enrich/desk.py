"""A desk for sources under test."""

from functools import cache
from pathlib import Path
from typing import Any

from sidrec.config import RunSettings
from sidrec.embeddings.enrich.answers import Question
from sidrec.embeddings.enrich.cache import AnswerCache
from sidrec.embeddings.enrich.matching import MatchConfig, Matcher
from sidrec.embeddings.enrich.source import Desk

QUICK: dict[str, Any] = {"per_second": 1000, "first_wait": 0.01, "timeout": 0.5, "attempts": 3}


def desk(tmp_path: Path, dry: bool = False, **match: Any) -> Desk:
    config = MatchConfig.model_validate({"embedder": {"kind": "tfidf", "dims": 100}, "threshold": 0.7, **match})
    return Desk(cache(lambda: Matcher(config, RunSettings())), AnswerCache(tmp_path / "a.sqlite"), RunSettings(), dry)


def questions(*titles: str) -> list[Question]:
    return [Question(f"item-{number}", title) for number, title in enumerate(titles)]  # type: ignore[arg-type]
