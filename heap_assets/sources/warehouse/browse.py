"""Lists datasets, tables and columns of a warehouse, and proposes identifier mappings as YAML."""

from __future__ import annotations

import re
from collections.abc import Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass, field

import polars as pl

from heap_assets.redaction import redact_error
from heap_assets.sources.warehouse.base import Column, Sample, Table, Warehouse, WarehouseError
from heap_assets.sources.warehouse.names import safe_name

SAMPLE_ROWS = 1000
_SURE = 0.8
"""Share of sampled values that must match a pattern for a column to count as such."""

_EMAIL = r"^\s*[^@\s]+@[^@\s]+\.[^@\s]+\s*$"
_PHONE = r"^[+(]?[0-9][0-9 ()./-]{6,}$"
_NAMES: Sequence[tuple[str, str]] = (
    (r"e_?mail", "email"),
    (r"heap_identity|heap_id", "heap_identity"),
    (r"heap_user_id", "heap_user_id"),
    (r"device_?id|idfa|gaid|advertising_id", "device_id"),
    (r"anonymous_?id|cookie(_?id)?|visitor_?id", "cookie"),
    (r"phone|mobile|msisdn", "phone"),
    (r"contact_?id|crm_?id|lead_?id|salesforce_?id|hubspot_?id", "crm_id"),
    (r"customer_?id|stripe_?(customer_?)?id|billing_?id|subscriber_?id", "customer_id"),
    (r"user_?id|external_?id|member_?id", "user_id"),
)
"""Patterns for names of identifier columns, with the type; the last part of a nested path counts."""
_RULES: Mapping[str, str] = {
    "heap_identity": "max_per_profile: 2",
    "user_id": "max_per_profile: 1",
    "customer_id": "max_per_profile: 1",
    "crm_id": "max_per_profile: 1",
    "email": "max_per_profile: 3, normalise: email",
    "phone": "max_per_profile: 3, normalise: digits",
    "device_id": "max_per_profile: 20, shared_above: 1",
    "cookie": "max_per_profile: 20, shared_above: 1",
    "heap_user_id": "shared_above: 1",
}
"""Proposed rules of each type, strongest first; the same as `init` writes."""
_CREATED = ("created_at", "created", "created_on", "signup_at", "signed_up_at", "registered_at", "inserted_at")
_UPDATED = ("updated_at", "modified_at", "last_modified", "updated", "last_updated", "systemmodstamp")
_TIME_TYPES = ("TIMESTAMP", "DATETIME", "DATE")


@dataclass(frozen=True)
class Proposal:
    """A column that looks like an identifier, and why."""

    path: str
    identifier_type: str
    reason: str


@dataclass(frozen=True)
class TableView:
    """One table as `browse` shows it: a row per column and nested path, samples only if they were asked for."""

    table: Table
    columns: tuple[Column, ...]
    samples: Mapping[str, tuple[str, ...]] = field(default_factory=dict)

    def rows(self) -> Iterator[tuple[str, str, str, str]]:
        """Yield path, type, mode (REQUIRED, NULLABLE, REPEATED), description."""
        for column in self.columns:
            yield from _rows(column, "")


def datasets(warehouse: Warehouse) -> dict[str, int]:
    """Return the number of tables and views of each dataset or schema."""
    counts: dict[str, int] = {}
    for table in warehouse.tables():
        dataset = table.name.rpartition(".")[0]
        counts[dataset] = counts.get(dataset, 0) + 1
    return counts


def tables_of(warehouse: Warehouse, dataset: str) -> list[Table]:
    """Return the tables of one dataset or schema, with rows where the engine knows them."""
    names = [table for table in warehouse.tables() if table.name.rpartition(".")[0] == dataset]
    return [
        table if table.rows is not None or table.kind != "table" else warehouse.table(table.name) for table in names
    ]


@dataclass(frozen=True)
class Inspection:
    """A table with its columns and a sample of its rows."""

    table: Table
    columns: tuple[Column, ...]
    sample: Sample

    @property
    def rows(self) -> pl.DataFrame:
        """The sampled rows; none, of unknown types, where nothing could be sampled."""
        return (
            pl.DataFrame({column.name: [] for column in self.columns})
            if self.sample.frame is None
            else self.sample.frame
        )


def inspect_table(warehouse: Warehouse, relation: str, rows: int = SAMPLE_ROWS) -> Inspection:
    """Read a table's description, columns and sample once; `describe` and `propose` accept the result."""
    return Inspection(warehouse.table(relation), tuple(warehouse.columns(relation)), warehouse.sample(relation, rows))


def describe(warehouse: Warehouse, relation: str, samples: int = 0, inspection: Inspection | None = None) -> TableView:
    """Describe one table; `samples` values of each column are read only if asked for, for they may be personal."""
    if inspection is None and not samples:
        return TableView(warehouse.table(relation), tuple(warehouse.columns(relation)))
    inspection = inspection or inspect_table(warehouse, relation, samples)
    frame = inspection.rows.head(samples)
    shown = {name: tuple(str(value) for value in frame[name].to_list()) for name in frame.columns} if samples else {}
    return TableView(inspection.table, inspection.columns, shown)


def propose(warehouse: Warehouse, relation: str, inspection: Inspection | None = None) -> list[Proposal]:
    """Find identifiers by the names of columns and by what a sample of their values looks like.

    No value leaves this function: a reason tells shares only.

    Raises
    ------
    WarehouseError
        Naming table and column, if values cannot be looked at.
    """
    inspection = inspection or inspect_table(warehouse, relation)
    proposals = []
    for column in inspection.columns:
        values = inspection.rows.get_column(column.name, default=pl.Series(column.name, []))
        try:
            candidates = [_proposal(path, leaf) for path, leaf in _leaves(column, values, "")]
        except pl.exceptions.PolarsError as error:
            raise WarehouseError(
                f"{inspection.table.name}: column {column.name!r} ({column.type}): {redact_error(error)}"
            ) from None
        proposals += [proposal for proposal in candidates if proposal]
    return proposals


def propose_yaml(warehouse: Warehouse, relation: str, inspection: Inspection | None = None) -> str:
    """Write the proposal for `warehouse.tables` of heap_assets.yaml, ready to be pasted and corrected."""
    inspection = inspection or inspect_table(warehouse, relation)
    name, columns = inspection.table.name, inspection.columns
    lines = [f"{_table_key(name)}:", f"  relation: {_yaml(name)}"]
    key = _key(name, columns, inspection.rows)
    unknown = "no column is unique and never null in the sample" if len(inspection.rows) else "the sample has no rows"
    lines.append(f"  key: {key}" if key else f"  key: ???  # {unknown}")
    for setting, names in (("created_at", _CREATED), ("updated_at", _UPDATED)):
        if column := _time_column(columns, names):
            lines.append(f"  {setting}: {column}")
    proposals = propose(warehouse, relation, inspection)
    lines.append("  identifiers:" if proposals else "  identifiers: {}  # nothing looks like an identifier")
    width = max((len(f"{p.path}: {p.identifier_type}") for p in proposals), default=0)
    lines += [f"    {f'{_yaml(p.path)}: {p.identifier_type}':<{width}}  # {p.reason}" for p in proposals]
    return "\n".join(lines) + "\n"


def declare_yaml(proposals: Sequence[Proposal], declared: Collection[str]) -> str:
    """Write for `identity.identifiers` the types that proposals name and the settings do not declare; empty if none."""
    lacking = {proposal.identifier_type for proposal in proposals} - set(declared)
    return "".join(f"- {{type: {name}, {rule}}}\n" for name, rule in _RULES.items() if name in lacking)


def _table_key(relation: str) -> str:
    """Name the table in the settings: `crm.contacts` is `crm_contacts`, `web.events_*` is `web_events`."""
    return safe_name(relation)


def _rows(column: Column, prefix: str) -> Iterator[tuple[str, str, str, str]]:
    path = f"{prefix}{column.name}{'[]' if column.repeated else ''}"
    mode = "REPEATED" if column.repeated else "NULLABLE" if column.nullable else "REQUIRED"
    yield path, column.type, mode, column.description
    for child in column.fields:
        yield from _rows(child, f"{path}.")


def _leaves(column: Column, values: pl.Series, prefix: str) -> Iterator[tuple[str, pl.Series]]:
    path = f"{prefix}{column.name}"
    if column.repeated:
        path += "[]"
        values = values.explode() if isinstance(values.dtype, pl.List | pl.Array) else values
    if not column.fields:
        yield path, values
        return
    if not isinstance(values.dtype, pl.Struct):
        values = pl.Series(values.name, [], pl.Struct({child.name: pl.Null() for child in column.fields}))
    for child in column.fields:
        yield from _leaves(child, values.struct.field(child.name), f"{path}.")


def _proposal(path: str, values: pl.Series) -> Proposal | None:
    present = values.drop_nulls()
    dtype = present.dtype
    if isinstance(dtype, pl.List | pl.Struct | pl.Binary | pl.Boolean) or dtype.is_temporal() or dtype.is_float():
        return None
    text = present.cast(pl.String)
    name = path.replace("[]", "").rpartition(".")[2].casefold()
    kind_by_name = next((kind for pattern, kind in _NAMES if re.search(rf"(^|_){pattern}($|_)", name)), None)
    if text.len() and (share := _share(text, _EMAIL)) >= _SURE:
        return Proposal(path, "email", f"{share:.0%} of {text.len()} values look like emails")
    if kind_by_name == "email":
        if not text.len():
            return Proposal(path, "email", "by name; the sample has no value")
        share = _share(text, _EMAIL)
        return Proposal(path, "email", f"by name; only {share:.0%} of {text.len()} values look like emails")
    if kind_by_name == "phone" and text.len() and _share(text, _PHONE) < _SURE:
        return None
    if kind_by_name is None or (text.len() and text.str.len_chars().max() == 0):
        return None
    return Proposal(path, kind_by_name, f"by name; {text.n_unique()} different values in {values.len()} rows")


def _share(text: pl.Series, pattern: str) -> float:
    return float(text.str.contains(pattern).mean() or 0.0) if text.len() else 0.0  # type: ignore[arg-type]


def _key(relation: str, columns: Sequence[Column], sample: pl.DataFrame) -> str | None:
    """Guess the key: unique and never null in the sample; best `<table>_id`, then `id`, then any `…_id`."""
    table = relation.rpartition(".")[2].casefold()
    singular = table[:-3] + "y" if table.endswith("ies") else table.removesuffix("s")
    candidates = [
        column.name
        for column in columns
        if not column.fields and not column.repeated and sample.height and column.name in sample.columns
        and sample[column.name].null_count() == 0
        and sample[column.name].n_unique() == sample.height
    ]  # fmt: skip
    order = [f"{singular}_id", f"{table}_id", "id", "key", "uuid"]
    ranked = sorted(
        (name for name in candidates if name.casefold() in order or re.search(r"(_id|_key|uuid)$", name.casefold())),
        key=lambda name: order.index(name.casefold()) if name.casefold() in order else len(order),
    )
    return ranked[0] if ranked else None


def _time_column(columns: Sequence[Column], names: Sequence[str]) -> str | None:
    by_name = {column.name.casefold(): column for column in columns if column.type.upper().startswith(_TIME_TYPES)}
    return next((by_name[name].name for name in names if name in by_name), None)


def _yaml(path: str) -> str:
    return f'"{path}"' if re.search(r"[^A-Za-z0-9_.-]", path) else path
