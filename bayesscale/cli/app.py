"""The table of commands."""

from __future__ import annotations

from typing import Annotated

import typer

from bayesscale.cli import demonstrating, describing, fitting, newmodel, passk, reading, resampling, simulating
from bayesscale.cli.compile_cache import VARIABLE, keep_programs
from bayesscale.cli.device import Device, use_device
from bayesscale.cli.options import EXIT_CODES

app = typer.Typer(
    name="bayesscale",
    help="Probabilistic scaling laws for language-model evaluation logs: posteriors, compared by what they predict.",
    epilog=f"\b\nExample:\n  bayesscale demo --out demo-results\n\n{EXIT_CODES}",
    no_args_is_help=True,
    pretty_exceptions_enable=False,
    add_completion=False,
)


def show_version(wanted: bool) -> None:
    """Print the version and stop."""
    if wanted:
        from bayesscale import __version__

        typer.echo(f"bayesscale {__version__}")
        raise typer.Exit


@app.callback()
def options(
    version: bool = typer.Option(False, "--version", help="Show the version.", callback=show_version, is_eager=True),
    compile_cache: bool = typer.Option(
        False,
        "--compile-cache",
        envvar=VARIABLE,
        help="Keep compiled programs in your cache folder (private): later commands start several times faster.",
    ),
    device: Annotated[
        Device, typer.Option("--device", help="Where to compute; auto takes an accelerator where jax finds one.")
    ] = Device.auto,
) -> None:
    """Probabilistic scaling laws for language-model evaluation logs: posteriors, compared by what they predict."""
    if compile_cache:
        keep_programs()
    use_device(device)


app.command("fit", epilog=fitting.EPILOG)(fitting.fit)
app.command("merge", epilog=fitting.MERGE_EPILOG)(fitting.merge)
app.command("check", epilog=describing.CHECK_EPILOG)(describing.check)
app.command("compare", epilog=reading.COMPARE_EPILOG)(reading.compare)
app.command("predict", epilog=reading.PREDICT_EPILOG)(reading.predict)
app.command("passk", epilog=passk.EPILOG)(passk.passk)
app.command("verifier", epilog=resampling.VERIFIER_EPILOG)(resampling.verifier)
app.command("votes", epilog=resampling.VOTES_EPILOG)(resampling.votes)
app.command("newmodel", epilog=newmodel.EPILOG)(newmodel.newmodel)
app.command("laws", epilog=describing.LAWS_EPILOG)(describing.laws)
app.command("demo", epilog=demonstrating.EPILOG)(demonstrating.demo)
app.add_typer(simulating.app, name="simulate")
