"""Results on stdout (a table or JSON), remarks on stderr."""

import json
import sys
from collections.abc import Iterable, Mapping, Sequence
from typing import TYPE_CHECKING, Any

import typer

if TYPE_CHECKING:
    from rich.table import Table

    from sidrec.recommenders.recommended import RecommendedList
    from sidrec.stages.inspect import Inspection, Node
    from sidrec.stages.layout import StageResult

__all__ = [
    "column_groups",
    "gate_line",
    "metric_rows",
    "note",
    "print_answers",
    "print_evaluation",
    "print_inspection",
    "print_json",
    "print_lines",
    "print_outcome",
    "print_stage",
    "print_table",
    "stage_json",
]

SHARES = {
    "certified": "certified exact (share of lists)",
    "seen_targets": "targets in their own history (share)",
    "open_ties": "lists with a tie across the last place (share)",
    "sid_short": "lists with fewer than k different codes (share)",
}
"""Figures of an evaluation's summary that say how far the metrics can be trusted, in words."""
NUMERIC = frozenset("0123456789.,+-–%±[]() s")


def note(text: str) -> None:
    """A remark for people, on stderr."""
    typer.echo(text, err=True)


def print_json(value: Any) -> None:
    """One JSON document on stdout, and nothing else."""
    typer.echo(json.dumps(value, indent=1, ensure_ascii=False))


def print_table(columns: Sequence[str], rows: Iterable[Sequence[str]], title: str = "", *, cut: bool = False) -> None:
    """A table on stdout, as wide as it must be where there is no terminal; numbers stand to the right.

    Args:
        columns: titles.
        rows: cells.
        title: stands above.
        cut: what happens on a terminal that is too narrow: the table is cut into several that repeat the
            first column, instead of folding the cells.
    """
    from rich.console import Console

    lines = [list(map(str, row)) for row in rows]
    console = Console(file=sys.stdout, width=None if sys.stdout.isatty() else 400, highlight=False)
    for group in column_groups(columns, lines, console.width) if cut else [list(range(len(columns)))]:
        shown = [[line[index] for index in group] for line in lines]
        console.print(_table([columns[index] for index in group], shown, title))


def column_groups(columns: Sequence[str], lines: Sequence[Sequence[str]], width: int) -> list[list[int]]:
    """Numbers of the columns of tables that fit a width, each with the first column again.

    >>> column_groups(["name", "a", "b"], [["x", "1234567", "1234567"]], width=18)
    [[0, 1], [0, 2]]
    """
    gap = 3
    widths = [gap + max(map(len, column)) for column in zip(columns, *lines, strict=True)]
    groups = [[0]]
    for index in range(1, len(columns)):
        if len(groups[-1]) > 1 and sum(widths[member] for member in groups[-1]) + widths[index] > width:
            groups.append([0])
        groups[-1].append(index)
    return groups


def _table(columns: Sequence[str], lines: Sequence[Sequence[str]], title: str) -> "Table":
    from rich import box
    from rich.table import Table
    from rich.text import Text

    table = Table(title=title or None, title_justify="left", box=box.SIMPLE_HEAD, pad_edge=False)
    for index, name in enumerate(columns):
        is_numeric = bool(lines) and all(set(line[index]) <= NUMERIC for line in lines)
        table.add_column(name, justify="right" if is_numeric else "left", overflow="fold")
    for line in lines:
        table.add_row(*(Text(cell) for cell in line))
    return table


def stage_json(stage: str, result: "StageResult") -> dict[str, Any]:
    """What a stage left behind, for machines."""
    return {
        "stage": stage,
        "path": str(result.artifact.path),
        "digest": result.artifact.digest,
        "skipped": result.skipped,
        "seconds": round(result.seconds, 3),
        "summary": result.artifact.summary,
    }


def print_stage(stage: str, result: "StageResult") -> None:
    """One line on stderr about a finished stage."""
    state = "up to date" if result.skipped else f"{result.seconds:.1f} s"
    note(f"{stage}: {state} ({result.artifact.path})")
    if result.artifact.kind == "tokenizer":
        for line in code_lines(result.artifact.summary):
            note(f"  {line}")
    if weights := result.artifact.summary.get("report", {}).get("member_weights"):
        members = result.artifact.config["recommender"]["members"]
        note(f"  weights: {', '.join(f'{name} {share:.3g}' for name, share in zip(members, weights, strict=True))}")
    if "gate" in result.artifact.summary:
        note(f"  {gate_line(result.artifact.summary['gate'])}")


def print_outcome(stage: str, result: "StageResult", *, as_json: bool) -> None:
    """What a stage left behind: JSON on stdout, or one line on stderr."""
    if as_json:
        print_json(stage_json(stage, result))
    else:
        print_stage(stage, result)


def gate_line(gate: Mapping[str, Any]) -> str:
    """Whether tuning helped, by which figures.

    >>> gate_line({"metric": "ndcg@10", "start": 0.0542, "tuned": 0.0531, "difference": -0.0011, "kept": "start"})
    'validation ndcg@10: 0.0542 before, 0.0531 (-0.0011) at best after tuning; the start was kept, weights and all'
    """
    kept = "the tuned state was kept" if gate["kept"] == "tuned" else "the start was kept, weights and all"
    after = f"{gate['tuned']:.4f} ({gate['difference']:+.4f}) at best after tuning"
    return f"validation {gate['metric']}: {gate['start']:.4f} before, {after}; {kept}"


def code_lines(summary: Mapping[str, Any]) -> list[str]:
    """What semantic IDs are like in a line, and advice where a figure is bad.

    >>> summary = {"items": 60, "codebook_sizes": [60, 1], "perplexity": [60.0, 1.0], "collision_rate_before": 0.0}
    >>> code_lines(summary | {"advice": ["level 2 is empty; use fewer levels"]})[1]
    'advice: level 2 is empty; use fewer levels'
    """
    sizes, perplexity, items = summary["codebook_sizes"], summary["perplexity"], summary["items"]
    return [
        f"semantic IDs of {items:,} items: codes a level {' × '.join(map(str, sizes))}, perplexity "
        f"{', '.join(f'{value:.1f}' for value in perplexity)}, "
        f"collision rate {100 * summary['collision_rate_before']:.1f} % before the policy, "
        f"{100 * summary.get('collision_rate', 0.0):.1f} % after",
        *(f"advice: {text}" for text in summary["advice"]),
    ]


def print_lines(texts: Iterable[str]) -> None:
    """Texts on stdout, as they are."""
    for text in texts:
        typer.echo(text)


def metric_rows(summary: Mapping[str, Any]) -> list[tuple[str, str]]:
    """(name, value) of the metrics in the summary of an evaluation, then how far they can be trusted.

    >>> metric_rows({"ndcg@10": 0.12345, "certified": 0.5, "users": 5, "seconds": 1.5})
    [('ndcg@10', '0.1235'), ('certified exact (share of lists)', '0.5000'), ('users', '5')]
    """
    rows = [(name, f"{value:.4f}") for name, value in summary.items() if "@" in name]
    rows += [(text, f"{summary[name]:.4f}") for name, text in SHARES.items() if name in summary]
    return rows + [(name, f"{summary[name]:d}") for name in ("users", "examples") if name in summary]


def print_evaluation(summary: Mapping[str, Any]) -> None:
    """Metrics on stdout; on stderr the rules by which they were made, and how to make lists exact."""
    from sidrec.evaluation.report import exact_note

    note(str(summary["protocol"]))
    print_table(("metric", "value"), metric_rows(summary))
    if summary["certified"] < 1:
        note(exact_note(summary["certified"]))


def print_answers(answers: Sequence["RecommendedList"], k: int) -> None:
    """Lists of recommended items on stdout, one table a user; on stderr which are shorter than the k asked for."""
    for number, answer in enumerate(answers, start=1):
        has_codes = any(item.semantic_id for item in answer)
        codes = ["semantic ID"] if has_codes else []
        columns = ("rank", "item", "title", *codes, "score")
        rows = [
            (str(rank), item.item, item.title, *([item.semantic_id] if codes else []), f"{item.score:.4f}")
            for rank, item in enumerate(answer, start=1)
        ]
        certified = (
            "certified: the true top of what the user may get"
            if answer.exact
            else "not certified; --exact searches on until it is"
        )
        title = f"user {number}: {certified}" if len(answers) > 1 else certified
        print_table(columns, rows, title=title)
        if len(answer) < k:
            note(
                f"user {number} gets {len(answer)} of {k} items: no more are left by the lists and the user's own "
                "history; --allow-seen allows items of the history"
            )


def print_inspection(inspection: "Inspection") -> None:
    """Kind, settings, figures and lineage of an artefact on stdout."""
    artifact, manifest = inspection.artifact, inspection.artifact.manifest
    typer.echo(f"{artifact.kind} {artifact.path}")
    typer.echo(f"  made by sidrec {manifest['version']}{_commit(manifest['source'])}, seed {manifest['seed']}")
    typer.echo(f"  digest {artifact.digest[:12]}, request {artifact.fingerprint[:12]}")
    for title, values in (("settings", artifact.config), ("figures", artifact.summary)):
        typer.echo(f"  {title}:")
        for key, value in flat(values):
            typer.echo(f"    {key}: {value}")
    for name, summary in inspection.evaluations.items():
        typer.echo(f"  evaluation {name}:")
        for key, value in metric_rows(summary):
            typer.echo(f"    {key}: {value}")
    typer.echo("  lineage:")
    _print_node(inspection.lineage, 2)


def flat(values: Mapping[str, Any], prefix: str = "", limit: int = 120) -> list[tuple[str, str]]:
    """Nested values as (dotted key, text); long lists are shortened, sentences get a line each.

    >>> flat({"a": {"b": 1}, "c": 0.25, "d": ["One sentence.", "And another."]})
    [('a.b', '1'), ('c', '0.25'), ('d', 'One sentence.'), ('d', 'And another.')]
    """
    out: list[tuple[str, str]] = []
    for key, value in values.items():
        if isinstance(value, Mapping):
            out.extend(flat(value, f"{prefix}{key}.", limit))
            continue
        if isinstance(value, list) and value and all(isinstance(part, str) and " " in part for part in value):
            out.extend((f"{prefix}{key}", part) for part in value)
            continue
        text = f"{value:.6g}" if isinstance(value, float) else str(value)
        out.append((f"{prefix}{key}", text if len(text) <= limit else text[: limit - 1] + "…"))
    return out


def _commit(source: Mapping[str, Any]) -> str:
    if not source:
        return ""
    return f" (commit {source['commit'][:12]}{', with changes' if source['dirty'] else ''})"


def _print_node(node: "Node", depth: int) -> None:
    state = "" if node.state in ("present", "source") else f" - {node.state}"
    typer.echo(f"{'  ' * depth}{node.role}: {node.path} ({node.digest[:12]}){state}")
    for parent in node.parents:
        _print_node(parent, depth + 1)
