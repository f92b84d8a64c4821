"""`embedway serve`: the gateway."""

from typing import Annotated

import typer

from embedway.cli.log import show_server_log
from embedway.cli.options import Invocation
from embedway.cli.output import print_message


def serve(
    context: typer.Context,
    *,
    host: Annotated[
        str | None,
        typer.Option(
            "--host", metavar="ADDRESS", help="Address to listen on. Default: server.host, which is 127.0.0.1."
        ),
    ] = None,
    port: Annotated[
        int | None,
        typer.Option("--port", min=0, max=65535, metavar="N", help="Port; 0 for a free one. Default: 8080."),
    ] = None,
    workers: Annotated[
        int | None, typer.Option("--workers", min=1, metavar="N", help="HTTP worker processes. Default: 1.")
    ] = None,
    auth: Annotated[
        str | None,
        typer.Option("--auth", metavar="auto|keys|none", help="Whether requests need an API key (`embedway keys`)."),
    ] = None,
) -> None:
    """Serve embeddings and reranking over HTTP, as OpenAI's API and those of other services."""
    invocation = Invocation.of(context)
    flags = {"server.host": host, "server.port": port, "server.workers": workers, "server.auth": auth}
    config = invocation.config(flags)
    show_server_log(config, verbose=invocation.verbose)
    from embedway.server.serve import serve as serve_gateway

    raise typer.Exit(serve_gateway(config, print_message))
