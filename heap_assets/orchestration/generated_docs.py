"""Pages of docs/ made from the definitions: checks.md, how_to/failed_checks.md and reference/tables.md."""

import re
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import fields

import dagster as dg

from heap_assets.alerts import DEFAULT_KINDS, MEANINGS
from heap_assets.quality import Thresholds, consent_check
from heap_assets.tables import is_event_table, is_heap_table, is_sync, is_warehouse_table

_EVENT_TABLE = re.compile(r"^heap/(events/.+|pageviews|sessions)$")
_ANY_TABLE, _EVENT_TABLES, _WAREHOUSE_TABLES = "Every table", "Heap event tables", "Warehouse tables"
_ORDER = (_ANY_TABLE, "heap_connect", _EVENT_TABLES, "heap", _WAREHOUSE_TABLES, "identity", "profiles", "sync")
_GENERAL = {
    _ANY_TABLE: [
        (r"at most [\d.]+ hours old(, or as old as is usual for a rare event)?", "as young as the table's cadence asks")
    ],
    _EVENT_TABLES: [(r"session_id( and|, user_id)", r"event_id\1")],
    _WAREHOUSE_TABLES: [
        (r"^No \w+ is there", "No key is there"),
        (r"^Every row has \w+", "Every row has its key"),
        (r" \(.*\)\.$", "."),
    ],
}
"""What tables of a kind share of a rule: their own column names and hours left out."""
_HEAD = """# Checks, thresholds and alerts

Generated from the definitions by `make docs`; do not edit.

A check belongs to a day of a table and keeps a result per day, in backfills too. **Blocks** means that nothing is sent
to Heap or Segment from that day while it fails, and that the rest of its run is skipped. WARN means look, ERROR means
wrong. Results carry numbers that plot over time and at most ten offenders; what would name a person is shown as a
keyed hash (the key lies in the lake: `_verdicts/.key`).

From a failed check to the row, for those who may read the lake: `offenders_in_clear` in a result's metadata is the
command. It prints values and rows in clear, and writes and sends nothing.

```
heap-assets rows profiles one_profile_per_identity --day 2026-11-01   # all offenders that the check shows
heap-assets rows profiles one_profile_per_identity --key 3fa9c1d20b77 # the one that is shown as this hash
heap-assets rows --key 3fa9c1d20b77                                   # of whichever check or sync shows it
heap-assets rows sync/heap_user_properties --key 9b1f0c64d1a2e735     # a key of a sync: rejected, held, planned, sent
```

`--rows` says how many rows of each table, `--json` prints an object a line. The check is held against the day as it
stands now; if that was built again since, this is said. `heap-assets explain` then shows how identifiers were joined.
Hashes that `sync plan` shows in a lake in which no sync has run yet are of that call alone: it keeps no key.

`claimed_by_one` and `unique_identifiers_not_shared` look at the same values, those of a type that is one person's and
that resolution gave to one profile though the records of others name them. The first is a list to work off: one value
is enough, and `checks.claimed_values` says how many are known and left. The second says that a whole source is wrong:
it weighs their share of all values, and one value of many people, whatever is tolerated by the first.

A check that cannot be judged has not passed: its result warns and says "Not judged" and why, the status page counts it
apart, and the step of its table goes on. If there is nothing to compare with yet (no earlier day, a table that is not
built), nothing is held up and no alert is sent. If it should have been judged and could not (a column of another type,
an error), it alerts, and a blocking check holds syncs up as if it had failed.
"""
_ALERTS = """
## Alerts

One message a run, with a link to it. Told once when something goes wrong and once when it is right again. A channel
that is down fails nothing: its messages wait and the other channels are told. A webhook's body is signed:
`X-Heap-Assets-Signature: sha256=` HMAC-SHA256 of `<X-Heap-Assets-Timestamp>.<body>`.
"""


_WHERE_CONFIGURED = {"Syncs with a `purpose`": [consent_check("sync", "its purpose")]}
"""Place to checks that a deployment has by its settings, and the definitions at hand need not have."""


def checks_document(defs: dg.Definitions) -> str:
    """Return docs/checks.md for these definitions: every check, threshold, alert kind and alert sensor."""
    repository = defs.get_repository_def()
    specs = [spec for assets in repository.asset_graph.assets_defs for spec in assets.check_specs]
    sensors = sorted((s.name, s.description or "") for s in repository.sensor_defs if "alerts" in s.name)
    kinds = [
        (f"`{kind.value}`", meaning, "yes" if kind in DEFAULT_KINDS else "on request")
        for kind, meaning in MEANINGS.items()
    ]
    thresholds = [(f"`{field.name}`", str(field.default), field.metadata["meaning"]) for field in fields(Thresholds)]
    return "\n".join(
        (
            _HEAD,
            markdown_table(("On", "Check", "Severity", "Blocks", "Rule", "What mends it"), _check_rows(specs)),
            "\n## Thresholds\n\nNames under `checks:` in heap_assets.yaml. Shares are fractions of one.\n",
            markdown_table(("Name", "Default", "Meaning"), thresholds),
            _ALERTS,
            markdown_table(("Kind (`on:`)", "When", "By default"), kinds),
            "",
            markdown_table(("Sensor", "What it does"), [(f"`{name}`", description) for name, description in sensors]),
            "",
        )
    )


def _check_rows(specs: Iterable[dg.AssetCheckSpec]) -> list[tuple[str, ...]]:
    """Return a row per check; tables of a kind, of which there may be hundreds, share theirs."""
    rows = set()
    for spec in specs:
        family, rule = _family(spec), str(spec.metadata.get("rule") or spec.description or "")
        for pattern, replacement in _GENERAL.get(family, ()):
            rule = re.sub(pattern, replacement, rule)
        severity, remedy = str(spec.metadata.get("severity", "")), str(spec.metadata.get("mend", ""))
        rows.add((family, spec.name, severity, "yes" if spec.blocking else "", rule, remedy))
    for place, checks in _WHERE_CONFIGURED.items():
        rows |= {(place, c.name, c.severity.value, "yes" if c.blocking else "", c.rule, c.remedy) for c in checks}
    return [
        (family, f"`{name}`", *cells)
        for family, name, *cells in sorted(rows, key=lambda row: (_rank(row[0]), row[0], not row[3], row[1]))
    ]


def _family(spec: dg.AssetCheckSpec) -> str:
    asset = spec.asset_key.to_user_string()
    if spec.name == "newest_row_is_recent":
        return _ANY_TABLE
    if _EVENT_TABLE.match(asset):
        return _EVENT_TABLES
    return _WAREHOUSE_TABLES if is_warehouse_table(asset) else asset


def _rank(family: str) -> int:
    group = family if family in _ORDER else family.partition("/")[0]
    return _ORDER.index(group) if group in _ORDER else len(_ORDER)


_PER_TABLE = re.compile(r"^(`one_profile_per_).+(_key`)$")
_OF_A_TABLE = re.compile(r"^(At most [\d.]+% of the )\w+ of \w+/\w+")
"""The same check of each table of the warehouse, which has the table's name in its own."""
_FAILED_HEAD = """# What to do when a check fails

Generated from the definitions by `make docs`; do not edit.

1. `heap-assets status` names the check, the table and the day; so does the alert.
2. Find the check below: what it says when it passes, and what mends it.
3. `heap-assets rows TABLE CHECK --day DAY` shows the rows behind the hashes, for those who may read the lake.
4. Mend the cause. What is built anew is judged anew; a check alone is judged again by *Execute* on it in the UI.

**Blocking** checks hold back every sync that reads their table; the others only tell. Limits that do not fit your data
are [thresholds](../checks.md#thresholds) below `checks:` in heap_assets.yaml.
"""


def failed_checks_page(defs: dg.Definitions) -> str:
    """Return docs/how_to/failed_checks.md for these definitions: an entry for each check, with what mends it."""
    return _FAILED_HEAD + "".join(_entries(defs))


def _entries(defs: dg.Definitions) -> Iterator[str]:
    specs = [spec for assets in defs.get_repository_def().asset_graph.assets_defs for spec in assets.check_specs]
    by_check: dict[str, dict[tuple[str, ...], list[str]]] = {}
    for family, name, severity, blocks, rule, remedy in _check_rows(specs):
        check, general = _PER_TABLE.sub(r"\1<table>\2", name), _OF_A_TABLE.sub(r"\1keys of a table", rule)
        places = by_check.setdefault(check, {}).setdefault((severity, blocks, general, remedy), [])
        place = "Every sync" if is_sync(family) else family
        if place not in places:
            places.append(place)
    for check, results in sorted(by_check.items()):
        yield f"\n## {check}\n\n"
        for (severity, blocks, rule, remedy), places in results.items():
            yield f"* {', '.join(places)}: {rule}\n  {severity}{', blocking' if blocks else ''}. To mend: {remedy}\n"


_TABLES_HEAD = """# Tables

Generated from the definitions by `make docs`; do not edit.

Each table is an asset, partitioned by day, and Parquet in the lake: `<lake>/<asset>/<day>.parquet`. `heap-assets sql`
shows all of them. Listed are the tables that every deployment has, with the columns that have a meaning of their own.
**Personal** marks columns that name a person: they are masked in previews.

Beside the columns that are listed, tables of Heap have every property that the catalogue knows, tables of the
warehouse the columns of their relation, and `profiles` a pair of columns for each trait and a column for each feature
and audience ([profiles](../profiles.md)). `warehouse/<table>` and `<source>/<table>` are snapshots of your own tables
([warehouse](../warehouse.md)); `sync/<name>` sends and stores no table ([connectors](connectors.md)). Traits and
audiences in the examples are those of the demo.
"""
_EVENTS = "heap/events/<table>"
_EVENTS_TEXT = "Events of one kind, one table for each event that Heap exports."
_SCHEMA = "dagster/column_schema"


def tables_page(defs: dg.Definitions) -> str:
    """Return docs/reference/tables.md for these definitions."""
    specs = {
        spec.key.to_user_string(): spec
        for assets in defs.get_repository_def().asset_graph.assets_defs
        for spec in assets.specs
    }
    events = [spec for key, spec in specs.items() if is_event_table(key)]
    common = set.intersection(*(set(_columns(spec)) for spec in events)) if events else set()
    parts = [_section(_EVENTS, _EVENTS_TEXT, {n: c for n, c in _columns(events[0]).items() if n in common})]
    for key, spec in sorted(specs.items()):
        if not (is_event_table(key) or is_sync(key) or (is_warehouse_table(key) and not is_heap_table(key))):
            parts.append(_section(key, spec.description or "", _columns(spec)))
    return _TABLES_HEAD + "".join(f"\n{part}" for part in parts)


def _columns(spec: dg.AssetSpec) -> dict[str, dg.TableColumn]:
    schema = spec.metadata.get(_SCHEMA)
    columns = schema.columns if isinstance(schema, dg.TableSchema) else []
    return {column.name: column for column in columns if column.description}


def _section(key: str, description: str, columns: dict[str, dg.TableColumn]) -> str:
    return "\n".join(_lines(key, description, columns)) + "\n"


def _lines(key: str, description: str, columns: dict[str, dg.TableColumn]) -> Iterator[str]:
    yield f"## `{key}`\n"
    yield description.strip()
    if columns:
        personal = {name: "yes" if column.tags else "" for name, column in columns.items()}
        rows = [(f"`{name}`", column.description or "", personal[name]) for name, column in columns.items()]
        yield "\n" + markdown_table(("Column", "Meaning", "Personal"), rows)


def markdown_table(heads: Sequence[str], rows: Iterable[Sequence[str]]) -> str:
    """Return a table; a `|` inside a cell is escaped."""
    lines = ["| " + " | ".join(heads) + " |", "|" + " --- |" * len(heads)]
    lines += ["| " + " | ".join(cell.replace("|", "\\|") for cell in row) + " |" for row in rows]
    return "\n".join(lines)


def heading_anchor(heading: str) -> str:
    """Return the fragment that a heading is linked by, as GitHub and MyST make it.

    >>> heading_anchor("`heap.source`, kind: s3")
    'heapsource-kind-s3'
    """
    return re.sub(r"[^\w\- ]", "", heading.lower()).strip().replace(" ", "-")
