"""What is held of one person and who got it: an export as a zip of JSON and Parquet, and the sharing log."""

from __future__ import annotations

import io
import json
import zipfile
from collections.abc import Iterable, Iterator
from datetime import date
from pathlib import Path
from typing import Any, Final

import polars as pl

from heap_assets import clock
from heap_assets.activation import changelog, connector_of, hashed_keys, salt
from heap_assets.errors import MissingInputError
from heap_assets.pipelines.erasure_ledgers import known_keys
from heap_assets.pipelines.erasure_walk import shape_of
from heap_assets.privacy import Eraser, Named, Pair, People, Plan, people_of, place_of, plans
from heap_assets.project import Project, with_pseudonyms
from heap_assets.tables import LINKS, SHARED_WITH
from heap_assets.values import json_or_exact

SHARING: Final = pl.Schema(
    {
        "sync": pl.String(),
        "destination": pl.String(),
        "day": pl.Date(),
        "field": pl.String(),
        "people": pl.Int64(),
    }
)
_PERSON: Final = "person"
_STATED: Final = "acknowledged", "sent"


def export_person(project: Project, person: Iterable[Pair], out: Path, also: Iterable[Pair] = ()) -> dict[str, int]:
    """Write all that the lake holds of one person into a zip file; returns the number of rows by table.

    `person.json` has the identifiers, the links that join them with sources and dates, values that are left to others
    and why, and which destination got what and when. `rows/<table>.parquet` and `.json` have the person's rows of every
    day, with the day as `partition_day`.

    Parameters
    ----------
    person
        Identifiers of the person (type, value); those that they lead to are found as for an erasure.
    also
        Values that would be left to others, and are theirs.

    Raises MissingInputError if nobody is known by the identifiers.
    """
    named = Named(with_pseudonyms(project, person), with_pseudonyms(project, also))
    plan = plans(project.lake, {_PERSON: named}, clock.today())[_PERSON]
    people = people_of(project.lake, {_PERSON: plan.identifiers})
    if not people.profiles:
        raise MissingInputError("nobody is known by these identifiers: no graph of the lake has them")
    counts: dict[str, int] = {}
    with zipfile.ZipFile(out, "w", zipfile.ZIP_DEFLATED) as archive:
        for asset, rows in _rows(project, people):
            counts[asset] = rows.height
            buffer = io.BytesIO()
            rows.write_parquet(buffer)
            archive.writestr(f"rows/{asset}.parquet", buffer.getvalue())
            archive.writestr(f"rows/{asset}.json", _as_json(rows))
        document = _document(project, plan, people)
        archive.writestr("person.json", json.dumps(document | {"rows": counts}, indent=1, ensure_ascii=False))
    return counts


def _document(project: Project, plan: Plan, people: People) -> dict[str, Any]:
    return {
        "exported_at": clock.now().isoformat(),
        "identifiers": [{"type": kind, "value": value} for kind, value in plan.identifiers],
        "links": _links(project, plan),
        "left_to_others": [{"type": one.identifier_type, "why": one.why} for one in plan.left],
        "shared_with": _without_nulls(shared_with(project, people)),
    }


def _links(project: Project, plan: Plan) -> list[dict[str, Any]]:
    """Return the links of the newest day between the person's identifiers: the chain that joins them."""
    newest = project.lake.newest_partition(LINKS, clock.today())
    if newest is None:
        return []
    own = pl.DataFrame(list(plan.identifiers), schema={"type": pl.String, "value": pl.String}, orient="row").lazy()
    links = project.lake.scan(LINKS, str(newest))
    for end in ("a", "b"):
        links = links.join(own, left_on=[f"type_{end}", f"value_{end}"], right_on=["type", "value"], how="semi")
    columns = ["type_a", "value_a", "type_b", "value_b", "source", "first_seen", "last_seen", "count"]
    return _without_nulls(links.select(columns).sort("first_seen", *columns[:5]).collect())


def _rows(project: Project, people: People) -> Iterator[tuple[str, pl.DataFrame]]:
    """Yield each table of the lake with the person's rows of all of its days."""
    eraser = Eraser(people, project.rules_of_settings)
    by_asset: dict[str, list[str]] = {}
    for info in project.lake.store.list():
        if info.key.endswith(".parquet") and not info.key.startswith("_") and place_of(info.key).how == "rows":
            by_asset.setdefault(info.key.rpartition("/")[0], []).append(info.key)
    for asset, keys in sorted(by_asset.items()):
        frames = []
        for key in keys:
            day = key.rpartition("/")[2].removesuffix(".parquet")
            rows = project.lake.scan(asset, day)
            owned = eraser.owned(rows, shape_of(project, people, key)).collect(engine="streaming")
            if owned.height:
                frames.append(owned.with_columns(partition_day=pl.lit(day)))
        if frames:
            yield asset, pl.concat(frames, how="diagonal_relaxed")


def _as_json(rows: pl.DataFrame) -> str:
    fields = rows.select(json_or_exact(pl.struct(pl.all()), pl.Struct(rows.schema)).alias("row"))["row"]
    return "[\n" + ",\n".join(fields.to_list()) + "\n]\n"


def _without_nulls(rows: pl.DataFrame) -> list[dict[str, Any]]:
    return [{name: _plain(value) for name, value in row.items() if value is not None} for row in rows.to_dicts()]


def _plain(value: Any) -> Any:
    return value.isoformat() if isinstance(value, date) else value


def shared_with(project: Project, people: People) -> pl.DataFrame:
    """Return which destination got which fields of people, and when.

    Columns: sync, destination, field, first_sent, last_sent (UTC), times.
    """
    frames = []
    for name in project.settings.sync:
        connector = connector_of(project, name)
        keys = list(known_keys(project, connector, people))
        for table, spec in zip(connector.ledger_tables, connector.specs(), strict=True):
            every = [*keys, *connector.event_keys(keys, table)]
            hashes = hashed_keys(pl.Series("key", every, pl.String), salt(project.lake.store, spec.salt, keep=False))
            sent = _sent(changelog(project.lake.store, spec.folder)).filter(pl.col("key_hash").is_in(hashes.implode()))
            frames.append(
                sent.group_by("field")
                .agg(
                    pl.col("answered_at").min().alias("first_sent"),
                    pl.col("answered_at").max().alias("last_sent"),
                    pl.len().cast(pl.Int64).alias("times"),
                )
                .select(
                    pl.lit(name).alias("sync"),
                    pl.lit(project.settings.sync[name].vendor).alias("destination"),
                    pl.all(),
                )
            )
    empty = pl.DataFrame(
        schema={
            "sync": pl.String, "destination": pl.String, "field": pl.String,
            "first_sent": pl.Datetime("us", "UTC"), "last_sent": pl.Datetime("us", "UTC"), "times": pl.Int64,
        }
    )  # fmt: skip
    return pl.concat([empty, *frames], how="diagonal_relaxed").select(empty.columns).sort("sync", "field")


def _sent(log: pl.DataFrame) -> pl.DataFrame:
    """Return what destinations took, a row for each field of each row."""
    taken = log.filter(pl.col("status").is_in(_STATED)).with_columns(field=pl.col("fields").fill_null([]))
    return taken.explode("field").with_columns(pl.col("field").fill_null("(membership or event)"))


def sharing_log(project: Project) -> pl.DataFrame:
    """Return, by sync, day of sending and field, how many people's went there: :data:`SHARING`."""
    frames = [pl.DataFrame(schema=SHARING)]
    for name, settings in project.settings.sync.items():
        for spec in connector_of(project, name).specs():
            sent = _sent(changelog(project.lake.store, spec.folder))
            counted = sent.group_by(pl.col("answered_at").dt.date().alias("day"), "field").agg(
                pl.col("key_hash").n_unique().cast(pl.Int64).alias("people")
            )
            facts = {"sync": pl.lit(name), "destination": pl.lit(settings.vendor)}
            frames.append(counted.with_columns(**facts).select(*SHARING))
    return pl.concat(frames).group_by("sync", "destination", "day", "field").agg(pl.col("people").sum()).sort(pl.all())


def write_sharing_log(project: Project) -> pl.DataFrame:
    """Write :func:`sharing_log` as the table `privacy/shared_with` of the lake; returns it."""
    log = sharing_log(project)
    project.lake.write(SHARED_WITH, None, log)
    return log


def known_people(project: Project, person: Iterable[Pair]) -> People:
    """Return one person by identifiers of theirs, with those that they lead to."""
    named = Named(with_pseudonyms(project, person))
    plan = plans(project.lake, {_PERSON: named}, clock.today())[_PERSON]
    return people_of(project.lake, {_PERSON: plan.identifiers})
