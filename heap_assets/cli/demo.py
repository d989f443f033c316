"""`heap-assets demo` and `heap-assets dev`."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from importlib import resources
from pathlib import Path

import click
import httpx

from heap_assets.cli.home import DEFAULT_DEMO_FOLDER, use_dagster_home, use_demo_folder
from heap_assets.cli.output import report_option
from heap_assets.config import PATH_VARIABLE, settings_path
from heap_assets.demo.server_process import Kind, ServerError, ServerProcess, running_server
from heap_assets.errors import SettingsError
from heap_assets.project import load_settings

_PORTS = {"heap": 7311, "segment": 7312}
"""Where heap_assets.yaml expects the demo's servers."""


@click.command(epilog="Status 1: with --faults, a fault raised no alert or sound data raised one.")
@click.option("--people", default=2000, show_default=True, help="How many people there are")
@click.option("--days", default=31, show_default=True, help="How many days of behaviour")
@click.option("--seed", default=1, show_default=True, help="Another seed is another company")
@click.option("--folder", type=click.Path(path_type=Path), help=f"Where it goes [default: {DEFAULT_DEMO_FOLDER}]")
@click.option("--fresh", is_flag=True, help="Start over, also if the folder holds a company")
@report_option
@click.option("--faults", is_flag=True, help="Instead: plant every fault by itself and print who was told how soon")
@click.option("--only", multiple=True, help="With --faults: only the fault of this name")
@click.option(
    "--out", type=click.Path(path_type=Path), help="With --faults: write the table here, as docs/faults.md is"
)
def demo(
    people: int,
    days: int,
    seed: int,
    folder: Path | None,
    fresh: bool,
    as_json: bool,
    faults: bool,
    only: tuple[str, ...],
    out: Path | None,
) -> None:
    """Write a sample company, ingest it, resolve who is who, check it, and send profiles to a local Heap server.

    Run again it finds nothing new and sends 0 rows.
    """
    if faults:
        _require_demo_settings(use_demo_folder(folder))
        _plant_faults(only, out)
        return
    folder = use_demo_folder(folder)
    _require_demo_settings(folder)
    use_dagster_home()
    from heap_assets.demo.nights import DemoRun
    from heap_assets.demo.report import summary

    with local_server("heap", folder) as heap, local_server("segment", folder):
        run = DemoRun(folder, heap, lambda text: click.echo(text, err=as_json))
        run.prepare(people=people, days=days, seed=seed, fresh=fresh)
        run.nights()
        result = summary(run)
        click.echo(result.json() if as_json else result.text())


def _plant_faults(only: tuple[str, ...], out: Path | None) -> None:
    """Print the fault table; exit with status 1 if a fault raised no alert."""
    from heap_assets.demo.fault_table import document, fault_table

    os.environ["DAGSTER_DISABLE_TELEMETRY"] = "1"
    outcomes, quiet = fault_table(only, click.echo)
    if out is not None:
        out.write_text(document(outcomes, quiet))
    missed = [outcome.plant.name for outcome in outcomes if not (outcome.seen and outcome.is_alerted)]
    click.echo(f"{len(outcomes) - len(missed)} of {len(outcomes)} faults were told of")
    raise SystemExit(1 if missed or quiet else 0)


@contextmanager
def local_server(kind: Kind, folder: Path) -> Iterator[ServerProcess]:
    """Run a local server, or use the one that `heap-assets dev` is running for the same folder already."""
    state = folder / "servers" / kind
    address = os.environ.get(f"{kind.upper()}_BASE_URL", f"http://127.0.0.1:{_PORTS[kind]}")
    try:
        response = httpx.get(f"{address}/_state", params={"only": "summary"}, timeout=2, trust_env=False)
    except httpx.TransportError:
        with running_server(kind, state, port=int(address.rpartition(":")[2])) as server:
            yield server
        return
    if response.status_code != httpx.codes.OK or not (state / "port").exists():
        raise ServerError(
            f"{address} is taken by another program: stop it, or choose another address with {kind.upper()}_BASE_URL"
        )
    yield ServerProcess(kind, state, address, None, process=subprocess.Popen([sys.executable, "-c", ""]))


def _write_demo_settings(path: Path) -> None:
    """Write the demo's settings and catalogue into a folder without settings."""
    if PATH_VARIABLE in os.environ:
        raise SettingsError(f"{path} does not exist, and ${PATH_VARIABLE} names it: unset that, or name another file")
    # the settings last: they are what the next start looks for
    for name in ("heap_catalogue.yaml", path.name):
        (path.parent / name).write_text(resources.files("heap_assets.demo").joinpath(name).read_text())
    click.echo(f"Wrote the demo's settings to {path}, with the catalogue of its tables beside it", err=True)


def _require_demo_settings(folder: Path) -> None:
    """Raise SettingsError for settings other than the demo's: it would write to their lake and send to their Heap."""
    path = settings_path()
    if not path.is_file():
        _write_demo_settings(path)
    settings = load_settings(path)
    source, lake = settings.heap.source, Path(settings.lake.url).absolute()
    is_demo = source.kind == "folder" and source.path.absolute() == folder / "bucket" and lake.is_relative_to(folder)
    if not is_demo or settings.heap.base_url is None:
        raise SettingsError(
            f"{path} is not the demo's: its source, lake and Heap are not those below {folder}. Nothing was done. "
            "Run the demo in an empty folder, or in the project's own"
        )
