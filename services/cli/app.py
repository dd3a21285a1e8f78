"""``mamba-search`` itself: its commands, and how everything that goes wrong ends in one line and an exit code."""

from __future__ import annotations

import os
import sys
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Annotated, Any

import typer
import typer.core

from encoder.errors import InvalidInput, MambaSearchError
from services.cli import bench, dead_letters, documents, jobs, keys
from services.cli.ask import ask
from services.cli.bulk_load import bulk_load
from services.cli.convert import convert
from services.cli.encode import encode
from services.cli.evaluate import evaluate
from services.cli.fit_fusion import fit_fusion
from services.cli.given import give_to_all
from services.cli.ingest import ingest
from services.cli.mine import mine
from services.cli.reindex import reindex
from services.cli.retrieve import retrieve
from services.cli.search import search
from services.cli.similar import similar
from services.cli.train import train
from services.cli.up import up
from services.reading_settings import check_target
from services.version import package_version

EXIT_INTERRUPTED = 130
EXIT_PIPE_CLOSED = 141


def run(arguments: Sequence[str]) -> int:
    """Run one command and give its exit code; an error is told on standard error in one line, without a traceback."""
    try:
        code = _make_app()(list(arguments), prog_name="mamba-search", standalone_mode=False)
        sys.stdout.flush()
    except typer.TyperException as error:
        return _refuse(f"{error.format_message().rstrip('.')}. See mamba-search --help.", error.exit_code)
    except MambaSearchError as error:
        from services.status import exit_code

        return _refuse(str(error), exit_code(error))
    except (KeyboardInterrupt, typer.Abort):
        return EXIT_INTERRUPTED
    except BrokenPipeError:
        # Whoever read us has seen enough (`| head`). What is still buffered must not fail again at exit.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return EXIT_PIPE_CLOSED
    return code if isinstance(code, int) else 0


def _refuse(message: str, code: int) -> int:
    sys.stderr.write(f"mamba-search: {' '.join(message.split())}\n")
    return code


class _Command(typer.core.TyperCommand):
    """A command that refuses, before it runs, what no command accepts of the options that several have."""

    def invoke(self, ctx: Any) -> object:  # noqa: ANN401 - typer's own name of its class is private
        target, data_dir = (ctx.params.get(name) for name in ("target", "data_dir"))
        if target is not None:
            if data_dir is not None:
                raise InvalidInput("target", "--target and --data-dir exclude each other; give one of them.")
            try:
                check_target(target)
            except ValueError as error:
                raise InvalidInput("target", f"target is {target!r}; {error}.") from None
        return super().invoke(ctx)


_COMMANDS: Sequence[Callable[..., object]] = (
    up,
    ingest,
    bulk_load,
    reindex,
    search,
    retrieve,
    similar,
    ask,
    encode,
    evaluate,
    convert,
    train,
    mine,
    fit_fusion,
)
_GROUPS: Sequence[tuple[str, str, Mapping[str, Callable[..., None]]]] = (
    (
        "jobs",
        "Ingestion that the worker does by itself.",
        {
            "create": jobs.create,
            "list": jobs.list_jobs,
            "show": jobs.show,
            "watch": jobs.watch,
            "cancel": jobs.cancel,
        },
    ),
    (
        "dead-letters",
        "What jobs could not ingest.",
        {"list": dead_letters.list_letters, "replay": dead_letters.replay},
    ),
    (
        "keys",
        "API keys of the services.",
        {"create": keys.create, "list": keys.list_keys, "revoke": keys.revoke},
    ),
    (
        "documents",
        "What is in the index.",
        {"list": documents.list_documents, "show": documents.show, "delete": documents.delete},
    ),
    (
        "bench",
        "How fast things are on this machine.",
        {"encoder": bench.encoder},
    ),
)


def _make_app() -> typer.Typer:
    app = typer.Typer(
        help="Search long documents: a Mamba encoder, Qdrant's engine, gRPC.",
        add_completion=False,
        pretty_exceptions_enable=False,
        context_settings={"help_option_names": ["-h", "--help"]},
    )
    app.callback(invoke_without_command=True)(_root)
    for command in _COMMANDS:
        app.command(cls=_Command)(command)
    for name, help_text, commands in _GROUPS:
        group = typer.Typer(help=help_text, no_args_is_help=True)
        for word, group_command in commands.items():
            group.command(word, cls=_Command)(group_command)
        app.add_typer(group, name=name)
    return app


def _root(
    context: typer.Context,
    version: Annotated[bool, typer.Option("--version", help="Print the version and leave.")] = False,
    tls_ca: Annotated[
        Path | None,
        typer.Option(help="Ask services over TLS; this file (PEM) has the authorities they are certified by."),
    ] = None,
    tls_client_cert: Annotated[Path | None, typer.Option(help="Show services this certificate (PEM).")] = None,
    tls_client_key: Annotated[Path | None, typer.Option(help="Its private key (PEM).")] = None,
    api_key_file: Annotated[
        Path | None, typer.Option(help="Show services the API key in this file. Default: MAMBASEARCH_API_KEY, if set.")
    ] = None,
) -> None:
    given = {
        "tls_ca": tls_ca,
        "tls_client_cert": tls_client_cert,
        "tls_client_key": tls_client_key,
        "api_key_file": api_key_file,
    }
    give_to_all({name: value for name, value in given.items() if value is not None})
    if version:
        typer.echo(f"mamba-search {package_version()}")
        raise typer.Exit
    if context.invoked_subcommand is None:
        typer.echo(context.get_help())
