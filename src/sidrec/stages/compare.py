"""All recommenders of a run → one table with intervals, costs, pictures and readable examples.

Every recommender is scored under the same protocol on the same users; what stands already is not
scored again. The examples are drawn by seed, never picked.
"""

import json
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import polars as pl

from sidrec.artifact import MANIFEST, Artifact, ArtifactWriter, open_artifact
from sidrec.config import RunSettings, parse, with_overrides
from sidrec.data.dataset import Dataset
from sidrec.errors import ArtifactError, ConfigError
from sidrec.evaluation.comparison import Scored, compared_rows, example_texts
from sidrec.evaluation.plots import cost_plot, metric_bars, slice_plot
from sidrec.evaluation.protocol import Protocol, ScoredPart
from sidrec.evaluation.report import as_html, as_markdown, remarks, slice_names, terminal_cells
from sidrec.stages.evaluate import LISTS, METRICS, PER_USER, check_dataset, evaluate
from sidrec.stages.layout import RunFolder, StageResult, make_artifact
from sidrec.tokenizers.semantic_ids import META, SemanticIds
from sidrec.types import IntArray, Json

__all__ = ["common_protocol", "compare", "comparison_remarks", "comparison_rows", "examples_of", "shown_in_examples"]

COMPARISON = "comparison.json"


def compare(
    folder: RunFolder,
    run: RunSettings,
    *,
    part: ScoredPart = "test",
    examples: int = 5,
    force: bool = False,
    protocol: Protocol | None = None,
) -> StageResult:
    """Compare all recommenders of a run into `comparison`.

    Writes `comparison.json`, `comparison.md`, `comparison.html` and the pictures as SVG.

    Args:
        folder: the run.
        run: seed, device, progress.
        part: which targets are scored.
        examples: example users of the best generative recommender.
        force: score and write everything anew.
        protocol: the rules; None takes those of the evaluations that stand, or the defaults.

    Raises:
        ArtifactError: the run has no dataset or no recommender.
        DataError: a recommender was trained on another dataset.
        ConfigError: the evaluations that stand follow different rules and none was given.
    """
    dataset = open_artifact(folder.dataset, "dataset")
    recommenders = _recommenders(folder)
    for recommender in recommenders.values():
        check_dataset(recommender, dataset)
    protocol = protocol or common_protocol(folder, part)
    scored = {
        name: evaluate(folder.recommender(name), part, protocol, run, force=force).artifact for name in recommenders
    }

    def write(writer: ArtifactWriter) -> None:
        _write(writer, dataset, recommenders, scored, protocol, part, examples, run.seed)

    return make_artifact(
        folder.comparison,
        kind="comparison",
        config={"part": part, "examples": examples, "protocol": protocol.model_dump(mode="json")},
        seed=run.seed,
        parents={"dataset": dataset} | {f"evaluation of {name}": artifact for name, artifact in scored.items()},
        write=write,
        force=force,
    )


def comparison_rows(artifact: Artifact) -> list[list[str]]:
    """The table of a comparison, ready to print: column titles first, then one line a recommender, best first."""
    return terminal_cells(_read(artifact.path / COMPARISON))


def comparison_remarks(artifact: Artifact) -> list[str]:
    """The rules of a comparison, and what to know about its figures."""
    comparison = _read(artifact.path / COMPARISON)
    return [comparison["protocol"], *remarks(comparison)]


def examples_of(artifact: Artifact) -> list[str]:
    """The example users of a comparison, one text of several lines each."""
    return list(_read(artifact.path / COMPARISON)["examples"])


def shown_in_examples(artifact: Artifact) -> str | None:
    """Name of the recommender whose lists the example users show; None where there are none."""
    return _read(artifact.path / COMPARISON)["examples_of"]


def _recommenders(folder: RunFolder) -> dict[str, Artifact]:
    home = folder.path / "recommenders"
    names = sorted(path.parent.name for path in home.glob(f"[!.]*/{MANIFEST}"))
    if not names:
        raise ArtifactError(
            "the run has no recommender",
            where=str(home),
            next=f"train one with 'sidrec run tiger --run {folder.path}'",
        )
    return {name: open_artifact(folder.recommender(name), "recommender") for name in names}


def common_protocol(folder: RunFolder, part: ScoredPart, settings: Sequence[str] = ()) -> Protocol:
    """The rules for comparing: those of the evaluations that stand, with settings laid over them.

    Recommenders that were not scored yet follow the others. Where there are no evaluations, the defaults
    are the ground.

    Args:
        folder: the run.
        part: which targets are scored.
        settings: `key=value`; the same rules for all recommenders.

    Raises:
        ConfigError: the evaluations that stand follow different rules and no setting was given; wrong settings.
    """
    found: dict[str, Protocol] = {}
    for name in _recommenders(folder):
        path = folder.evaluation(name, part)
        if (path / MANIFEST).is_file():
            found[name] = parse(Protocol, open_artifact(path, "evaluation").config["protocol"], where=str(path))
    first = next(iter(found), "")
    others = [name for name in found if found[name] != found[first]]
    if others and not settings:
        raise ConfigError(
            f"evaluation: '{first}' and '{others[0]}' were scored by different rules: "
            f"{found[first].describe()} | {found[others[0]].describe()}",
            next=f"say which rules hold for all: sidrec compare {folder.path} primary={found[first].primary}",
        )
    ground = found[first].model_dump(mode="json") if found and not others else {}
    return parse(Protocol, with_overrides(ground, settings), where="settings of the comparison")


def _write(
    writer: ArtifactWriter,
    dataset_artifact: Artifact,
    recommenders: dict[str, Artifact],
    scored: dict[str, Artifact],
    protocol: Protocol,
    part: ScoredPart,
    num_examples: int,
    seed: int,
) -> None:
    dataset = Dataset.load(dataset_artifact.path)
    found = {name: _scored(recommenders[name], evaluation) for name, evaluation in scored.items()}
    rows, reference = compared_rows(found, protocol.primary, seed)
    shown = next((row["name"] for row in rows if row["generative"]), rows[0]["name"])
    comparison: Json = {
        "title": "Comparison of recommenders",
        "part": part,
        "protocol": protocol.describe(dataset.split.name, part),
        "primary": protocol.primary,
        "reference": reference,
        "dataset": {
            "items": len(dataset.catalog),
            "users": len(set(dataset.sequences.users)),
            "interactions": len(dataset.sequences.rows),
            "users scored": rows[0]["users"],
            "examples scored": rows[0]["examples"],
        },
        "rows": rows,
        "examples_of": shown,
        "examples": example_texts(
            dataset,
            part,
            found[shown].table,
            _lists(scored[shown])[:, : max(protocol.k)],
            _semantic_ids(recommenders[shown]),
            num_examples,
            seed,
        ),
    }
    pictures = {
        "metrics.svg": metric_bars(rows, protocol.primary),
        "cost.svg": cost_plot(rows, protocol.primary),
        "slices.svg": slice_plot(rows, protocol.primary, slice_names(rows)),
    }
    captions = (
        f"{protocol.primary} with 95 % bootstrap intervals (blue: generative)",
        "Quality against training cost (blue: generative; a larger dot ranks more users a second)",
        f"{protocol.primary} by group of users",
    )
    for name, svg in pictures.items():
        (writer.path / name).write_text(svg, encoding="utf-8")
    page = as_html(comparison, dict(zip(captions, pictures.values(), strict=True)))
    (writer.path / "comparison.html").write_text(page, encoding="utf-8")
    (writer.path / "comparison.md").write_text(as_markdown(comparison), encoding="utf-8")
    (writer.path / COMPARISON).write_text(json.dumps(comparison, indent=1, ensure_ascii=False), encoding="utf-8")
    writer.summary.update(
        protocol=comparison["protocol"],
        best=rows[0]["name"],
        reference=reference,
        **{f"{row['name']} {protocol.primary}": row["metrics"][protocol.primary] for row in rows},
    )


def _scored(recommender: Artifact, evaluation: Artifact) -> Scored:
    cost = {
        "train_seconds": recommender.summary.get("train_seconds"),
        "users_per_second": evaluation.summary.get("users_per_second"),
        "parameters": recommender.summary.get("parameters"),
    }
    return Scored(_read(evaluation.path / METRICS), pl.read_parquet(evaluation.path / PER_USER), cost)


def _lists(evaluation: Artifact) -> IntArray:
    with np.load(evaluation.path / LISTS, allow_pickle=False) as file:
        return file["rows"]


def _semantic_ids(recommender: Artifact) -> SemanticIds | None:
    return SemanticIds.load(recommender.path) if (recommender.path / META).is_file() else None


def _read(path: Path) -> Json:
    return json.loads(path.read_text(encoding="utf-8"))
