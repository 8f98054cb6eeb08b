"""The command `sidrec`: puts the verbs together and turns every failure into one message.

Verbs import what they need when they run, so that help answers at once.
"""

import sys
from collections.abc import Sequence
from typing import Any

import typer
from typer.core import TyperGroup

from sidrec.cli import (
    cold_start,
    compare,
    embed,
    enrich,
    evaluate,
    export,
    inspect,
    prepare,
    recipes,
    recommend,
    run,
    tokenize,
    train,
    tune,
)
from sidrec.cli.failure import report
from sidrec.version import __version__

__all__ = ["app", "main"]


class Verbs(TyperGroup):
    """Runs a verb and reports its failure; usage errors are left to the parser."""

    def invoke(self, ctx: Any) -> Any:
        """Run the verb; the one place where errors become messages."""
        try:
            result = super().invoke(ctx)
            sys.stdout.flush()
            return result
        except (typer.Exit, typer.Abort, typer.BadParameter):
            raise
        except (Exception, KeyboardInterrupt) as error:
            if isinstance(error, _USAGE):
                raise
            raise typer.Exit(report(error, debug=bool(ctx.params["debug"]))) from None


_USAGE: type[Exception] = typer.BadParameter.__mro__[1]
"""The parser's own class for wrong usage; which module it lives in depends on the version of typer."""

PARSER_INTERRUPTED = 130
"""With this code, and without a word, the parser ends when Ctrl-C comes before a verb has begun."""

app = typer.Typer(
    cls=Verbs,
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
    help="Interactions and item content in, a generative recommender with semantic IDs out.",
    epilog="First steps: sidrec prepare --reader table --path LOGS --run RUN, then sidrec run sasrec --run RUN",
)


def _show_version(wanted: bool) -> None:
    if wanted:
        typer.echo(f"sidrec {__version__}")
        raise typer.Exit


@app.callback()
def _settings(
    debug: bool = typer.Option(False, "--debug", help="Show the traceback of an error."),
    version: bool = typer.Option(False, "--version", callback=_show_version, is_eager=True, help="Print the version."),
) -> None:
    del debug, version  # read by Verbs.invoke and by the option's callback


for verb in (
    prepare, enrich, embed, tokenize, train, tune, run, recommend, evaluate, compare, cold_start, inspect, export,
):  # fmt: skip
    verb.add_to(app)
app.add_typer(recipes.app, name="recipes")


def main(argv: Sequence[str] | None = None) -> int:
    """Run the command; the exit code is 0 (done), 1 (failed) or 2 (wrong usage or settings)."""
    try:
        from sidrec.cli.session import quiet_libraries

        quiet_libraries()
        app(args=None if argv is None else list(argv), prog_name="sidrec")
    except SystemExit as end:
        if end.code == PARSER_INTERRUPTED:
            return report(KeyboardInterrupt(), debug=False)
        return end.code if isinstance(end.code, int) else int(end.code is not None)
    except KeyboardInterrupt as error:
        return report(error, debug=False)
    return 0
