"""`heap-assets model`: what models there are, and a sample of one."""

from __future__ import annotations

from datetime import date, datetime

import click

from heap_assets import clock
from heap_assets.cli.output import COUNT, json_option, print_frame, print_json, print_rows, progress, records
from heap_assets.errors import no_such
from heap_assets.pipelines.models import check_models, inputs_of, model_of_day
from heap_assets.project import open_project

_ROWS = 20


@click.command()
@click.argument("name", required=False)
@click.option("--day", type=click.DateTime(["%Y-%m-%d"]), help="As of the end of this day [default: today]")
@click.option("--rows", "most", type=COUNT, default=_ROWS, show_default=True, help="Rows of the sample")
@json_option
def model(name: str | None, day: datetime | None, most: int, *, as_json: bool) -> None:
    """Show a sample of a model as it would be now, without writing (personal data!); all models without a name."""
    project = open_project()
    check_models(project)
    if name is None:
        models = project.settings.models
        listed = [(key, ", ".join(inputs_of(project, key)), one.key or "") for key, one in models.items()]
        if as_json:
            print_json({"model": key, "reads": reads, "key": column} for key, reads, column in listed)
        else:
            print_rows(("model", "reads", "key"), listed)
        return
    if name not in project.settings.models:
        raise no_such("model", name, project.settings.models)
    chosen: date = day.date() if day else clock.today()
    with progress(f"Computing {name} as of {chosen}"):
        frame = model_of_day(project, name, chosen, most).frame.collect()
    if as_json:
        print_json(records(frame))
    else:
        print_frame(frame)
