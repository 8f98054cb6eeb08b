"""Stage `enrich`: a prepared dataset → facts about its items from outside, by item id.

Answers are kept in a file of their own beside the artefacts, so that a killed or repeated run asks only for
what is missing. An artefact in which items failed is never up to date.
"""

import shutil
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import cache as once
from pathlib import Path
from typing import Any

from sidrec.artifact import ArtifactWriter, open_artifact
from sidrec.config import RunSettings, build
from sidrec.data.catalog import Catalog
from sidrec.data.dataset import Dataset
from sidrec.embeddings.enrich.answers import Answer, Question
from sidrec.embeddings.enrich.cache import AnswerCache
from sidrec.embeddings.enrich.client import Plan
from sidrec.embeddings.enrich.config import EnrichConfig
from sidrec.embeddings.enrich.facts import ItemFacts
from sidrec.embeddings.enrich.matching import Matcher
from sidrec.embeddings.enrich.merging import facts_line, merged
from sidrec.embeddings.enrich.source import Desk, FactSource
from sidrec.embeddings.fields import field_texts, joined_texts
from sidrec.errors import ArtifactError
from sidrec.stages.layout import RunFolder, StageResult, make_artifact, name_for
from sidrec.types import Json

__all__ = ["enrich", "enrich_plan"]

NAME = "facts"
NUM_REASONS = 3
"""Reasons of failures that stand in the summary."""


@dataclass(frozen=True)
class _Job:
    """What is asked of whom, and where answers are kept."""

    questions: list[Question]
    sources: dict[str, FactSource]
    desk: Desk

    def ask(self) -> Json:
        """Ask all sources in their order; what they found stands in `desk.earlier`, their notes are returned."""
        notes: Json = {}
        for name, source in self.sources.items():
            findings = source.ask(name, self.questions, self.desk)
            findings.check(self.questions)
            self.desk.earlier[name] = findings.answers
            notes[name] = findings.notes
        return notes


def enrich(
    folder: RunFolder,
    config: EnrichConfig,
    run: RunSettings,
    *,
    name: str | None = None,
    force: bool = False,
    cache: Path | None = None,
) -> StageResult:
    """Make a facts artefact; a killed run goes on where it stopped.

    Args:
        folder: the run.
        config: sources, matching, merging.
        run: device and progress.
        name: of the artefact, `facts` by default.
        force: make it even if it is up to date; answers on disk are used all the same.
        cache: folder of the answers; inside the run by default.

    Raises:
        ConfigError: a key or contact address is not in the environment.
        DataError: there are no titles, a dump is broken, or a server refuses everything.
    """
    path = folder.facts(name_for(NAME, name))
    sources = _sources(config)
    scratch = run.scratch or folder.scratch(f"enrich-{path.name}")

    def write(writer: ArtifactWriter) -> None:
        catalog = Dataset.load(folder.dataset).catalog
        answers = AnswerCache(_cache_file(folder, cache))
        try:
            job = _job(catalog, config, sources, answers, replace(run, scratch=scratch))
            notes = job.ask()
        finally:
            answers.close()
        facts = _facts(config, job)
        facts.save(writer.path)
        writer.summary.update(_summary(facts, job, notes))

    # The order of sources decides, and the order of keys is lost in a digest.
    settings = config.model_dump(mode="json") | {"order": list(config.sources)}
    files = {
        f"{role} of {each}": digest for each, source in sources.items() for role, digest in source.sources().items()
    }
    result = make_artifact(
        path,
        kind="facts",
        config=settings,
        seed=0,  # Nothing is drawn.
        parents={"dataset": open_artifact(folder.dataset, "dataset"), **files},
        write=write,
        force=force or _has_failures(path),
    )
    if run.scratch is None:
        shutil.rmtree(scratch, ignore_errors=True)
    return result


def enrich_plan(
    folder: RunFolder, config: EnrichConfig, run: RunSettings, *, cache: Path | None = None
) -> dict[str, Plan]:
    """What each source that asks a server would send; nothing is sent or made, and no key is needed.

    Where a source reads what an earlier one finds, texts that are not there yet are not counted.

    Args:
        folder: the run.
        config: sources, matching, merging.
        run: device and progress.
        cache: folder of the answers; inside the run by default.
    """
    catalog = Dataset.load(folder.dataset).catalog
    remote = {name: source for name, source in _sources(config).items() if source.is_remote}
    file = _cache_file(folder, cache)
    answers = AnswerCache(file if file.exists() else None)
    try:
        job = _job(catalog, config, remote, answers, run, dry=True)
        job.ask()
    finally:
        answers.close()
    return job.desk.plans


def _sources(config: EnrichConfig) -> dict[str, FactSource]:
    return {name: build("source", each) for name, each in config.sources.items()}


def _cache_file(folder: RunFolder, cache: Path | None) -> Path:
    return (cache or folder.path / ".cache") / "answers.sqlite"


def _job(
    catalog: Catalog,
    config: EnrichConfig,
    sources: dict[str, FactSource],
    answers: AnswerCache,
    run: RunSettings,
    dry: bool = False,
) -> _Job:
    titles = field_texts(catalog, [config.title])[config.title]
    others = [name for name in catalog.text_fields if name != config.title]
    texts = joined_texts(catalog, others) if others else [""] * len(catalog)
    questions = [Question(*each) for each in zip(catalog.ids, titles, texts, strict=True)]
    # Most sources match nothing, and an embedder may need an extra.
    matcher = once(lambda: Matcher(config.match, run))
    return _Job(questions, sources, Desk(matcher, answers, run, dry))


def _facts(config: EnrichConfig, job: _Job) -> ItemFacts:
    """What all sources said about all items, by item id."""
    answers: dict[Any, dict[str, Answer]] = {
        question.item: {name: said[row] for name, said in job.desk.earlier.items()}
        for row, question in enumerate(job.questions)
    }
    facts = {
        item: merged({name: answer.facts for name, answer in own.items()}, config.precedence)
        for item, own in answers.items()
    }
    return ItemFacts({item: facts_line(own, config.line) for item, own in facts.items()}, facts, answers)


def _summary(facts: ItemFacts, job: _Job, notes: Json) -> Json:
    """Figures of an artefact: what each source found, and why items failed."""
    sources = {name: _source_summary(said) | notes[name] for name, said in job.desk.earlier.items()}
    for name, plan in job.desk.plans.items():
        sources[name] |= {"requests": plan.requests, "from_disk": plan.cached}
    return {
        "items": len(facts.lines),
        "items_with_facts": sum(1 for line in facts.lines.values() if line),
        "failed": sum(each["failed"] for each in sources.values()),
        "sources": sources,
    }


def _source_summary(answers: Sequence[Answer]) -> Json:
    outcomes = Counter(answer.outcome for answer in answers)
    reasons = Counter(answer.reason for answer in answers if answer.outcome == "failed")
    return {
        **{outcome: outcomes[outcome] for outcome in ("found", "none", "failed")},
        "reasons": [f"{count} × {reason}" for reason, count in sorted(reasons.items(), key=_most_first)[:NUM_REASONS]],
    }


def _most_first(reason_and_count: tuple[str, int]) -> tuple[int, str]:
    return -reason_and_count[1], reason_and_count[0]


def _has_failures(path: Path) -> bool:
    """Whether the artefact that stands there lacks answers that another run may get."""
    try:
        return bool(open_artifact(path, "facts").summary["failed"])
    except ArtifactError:
        return False
