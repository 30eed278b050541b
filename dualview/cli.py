"""The command line: a thin skin over the Python calls, one file a verb in `dualview/commands`.

Nothing heavy is imported until a verb needs it. Exit codes: 0 done, 1 error, 2 something is stale or below what was
asked, 130 interrupted, 143 terminated. With --json, stdout is one JSON document whatever happens: the verb's result, or
{"error": {code, message, remedy, retryable}}; what is said to people stays on stderr.
"""

from __future__ import annotations

import errno
import inspect
import os
import sys
import warnings
from collections.abc import Callable
from typing import Any

import typer

from dualview.commands import (
    audit,
    demo,
    diff,
    doctor,
    errors,
    evaluate,
    export,
    fit,
    forget,
    gc,
    history,
    import_texts,
    import_vectors,
    ingest,
    init,
    materialize,
    msr,
    preferences,
    promote,
    prompt,
    publish,
    recommend,
    releases,
    rollback,
    runs,
    serve,
    similar,
    sql,
    status,
    study,
    trace,
    train,
)

app = typer.Typer(
    name="dualview",
    help="An embedding feature store with vector search, made for multimodal sequential recommendation.",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
    context_settings={"help_option_names": ["-h", "--help"]},
)

VERBS = {
    "Fill the store": [init, ingest, materialize, fit, publish],
    "Look and ask": [status, errors, doctor, sql, similar, trace, history, releases, diff],
    "Learn and recommend": [preferences, train, runs, evaluate, audit, promote, recommend, serve],
    "Exchange with other tools": [export, import_vectors, import_texts],
    "Keep it in order": [rollback, gc, forget],
    "Try it": [demo],
}


def _paragraphs(verb: Callable[..., None]) -> str:
    """The docstring, each paragraph on one line: a terminal breaks it where it ends, not where the source does."""
    return "\n\n".join(" ".join(part.split()) for part in (inspect.getdoc(verb) or "").split("\n\n"))


for panel, modules in VERBS.items():
    for module in modules:
        name = module.__name__.rsplit(".", 1)[-1].replace("_", "-")
        app.command(name, help=_paragraphs(module.run), rich_help_panel=panel)(module.run)
app.add_typer(prompt.app, name="prompt", rich_help_panel="Look and ask")
app.add_typer(msr.app, name="msr", rich_help_panel="Learn and recommend")
app.add_typer(study.app, name="study", rich_help_panel="Learn and recommend")


# what the system says of a path that was given wrongly, or of a disk; any other error of its is a bug, and shown whole
PLACES = frozenset(
    (errno.EACCES, errno.EPERM, errno.EROFS, errno.ENOTDIR, errno.ENAMETOOLONG, errno.ENOSPC, errno.EDQUOT)
)


@app.callback(invoke_without_command=True)
def _top(version: bool = typer.Option(False, "--version", help="Print the version and end.")) -> None:
    if version:
        from dualview import __version__

        typer.echo(f"dualview {__version__}")
        raise typer.Exit


USAGE: Any = typer.BadParameter.__mro__[2]  # what Typer raises for a wrong call


def main() -> None:
    # torch and FAISS bring an OpenMP each: waiting threads that spin slow both down (measured: 10x on a busy machine)
    os.environ.setdefault("OMP_WAIT_POLICY", "passive")
    os.environ.setdefault("GOMP_SPINCOUNT", "0")
    typer.BadParameter.__mro__[1].exit_code = 1  # type: ignore[attr-defined]  # wrong usage is an error, not "stale"
    from featurestore import interrupts
    from featurestore.errors import DualviewError

    interrupts.install()
    warnings.showwarning = _Notes()
    asked = "--json" in sys.argv[1:]
    try:
        # standing alone, Typer prints by itself what is wrong with a call, and ends
        sys.exit(app(standalone_mode=not asked))
    except DualviewError as error:
        _failed(error.code, error.message, error.remedy, error.retryable, asked)
        sys.exit(error.exit_code)
    except USAGE as error:
        _failed("usage", error.format_message(), "dualview VERB --help", False, asked)
        sys.exit(1)
    except OSError as error:
        if error.filename is None or error.errno not in PLACES:
            _bug(error, asked)
            raise
        _failed(
            "disk",
            f"{error.filename}: {error.strerror}",
            "check the path, who owns it, and that the disk has room",
            True,
            asked,
        )
        sys.exit(1)
    except interrupts.Interrupted as stop:
        said = stop.told or "everything committed so far is kept; run the same command again to go on"
        sys.stderr.write(f"\ninterrupted: {said}\n")
        _as_json("interrupted", "interrupted", said, True, asked)
        sys.exit(stop.exit_code)
    except Exception as error:
        _bug(error, asked)
        raise


class _Notes:
    """Our own warnings (of ingest and recommender) as notes, each once; a library's as Python shows them."""

    def __init__(self) -> None:
        self._shown, self._said = warnings.showwarning, set[str]()

    def __call__(self, message: Warning | str, category: type[Warning], *rest: Any, **named: Any) -> None:
        if category.__module__.split(".")[0] not in ("dualview", "recommender", "ingest", "featurestore"):
            self._shown(message, category, *rest, **named)
        elif str(message) not in self._said:
            from dualview import console

            self._said.add(str(message))
            console.warn(str(message))


def _failed(code: str, message: str, remedy: str | None, retryable: bool, asked: bool) -> None:
    """Say on stderr why it failed, and with --json on stdout too, so that a script has one document to read."""
    from dualview import console

    console.failure(message, remedy)
    _as_json(code, message, remedy, retryable, asked)


def _bug(error: Exception, asked: bool) -> None:
    _as_json("bug", f"{type(error).__name__}: {error}", None, False, asked)


def _as_json(code: str, message: str, remedy: str | None, retryable: bool, asked: bool) -> None:
    if asked:
        from dualview import console

        console.as_json(
            {"error": {"code": code, "message": message, "remedy": remedy, "retryable": retryable}}
        )
