"""Decisions against precision and recall: the first entries of the queue of two companies, decided by the truth.

    make bench-review                     # or: python benchmarks/review.py --folder data/demo --entries 20

The demo's company is read from a demo that was made before (`heap-assets demo`), into which nothing is written. The
foreign one (`heap_assets_tests/foreign`, --seed, --people) is made here; its shared inboxes, which are nobody's, count
as a person each, so that whoever is given one costs precision. After each decision all is resolved again; neither
precision nor recall may fall. Then all decisions are undone, and the graph must be what it was.
"""

from __future__ import annotations

import argparse
import json
import os
import sys
import tempfile
from dataclasses import dataclass, replace
from datetime import date
from pathlib import Path
from typing import Any

import polars as pl

from heap_assets.identity import (
    ColumnMapping,
    Decision,
    IdentifierRule,
    IdentityTables,
    Rules,
    SourceTable,
    extract,
    quality,
    resolve,
    review,
    user_migrations_table,
    users_table,
)
from heap_assets.identity.decision_links import decision_links
from heap_assets.pipelines.readiness import links_as_of, newest_graph_day
from heap_assets.project import open_project

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))
from heap_assets_tests.foreign.company import ForeignCompany

_KEY = ["identifier_type", "identifier"]
_LAST = date(2026, 11, 27)


@dataclass(frozen=True)
class Company:
    """Links and rules of a company, and the truth of it.

    `truth`: identifier_type, identifier, person: String; shared: Boolean, whether nobody owns it.
    """

    links: pl.LazyFrame
    rules: Rules
    truth: pl.DataFrame


def demo(folder: Path) -> Company:
    """Return the company of a demo."""
    os.environ["HEAP_ASSETS_DEMO"] = str(folder.resolve())
    project = open_project()
    day = newest_graph_day(project)
    rules = replace(project.rules_of_days.on(day), decisions=())
    truth = pl.read_parquet(folder / "truth" / "identifiers.parquet").select(
        *_KEY, pl.col("person").cast(pl.String), "shared"
    )
    return Company(links_as_of(project, day).collect().lazy(), rules, truth)


def foreign(seed: int, people: int) -> Company:
    """Return a company that was not designed for this product, with the rules that its deployment has."""
    rules = Rules(
        (
            IdentifierRule("heap_identity", max_per_profile=1),
            IdentifierRule("crm_id", max_per_profile=1),
            IdentifierRule("customer_id", max_per_profile=1),
            IdentifierRule("email", max_per_profile=3, normalise="email"),
            IdentifierRule("heap_user_id", shared_above=1),
        )
    )
    ids, mail = ColumnMapping("heap_user_id", ("user_id",)), ColumnMapping("email", ("email",))
    tables = {
        "users": users_table(mappings=(ids, ColumnMapping("heap_identity", ("identity",)), mail)),
        "user_migrations": user_migrations_table(),
        "contacts": _source("contacts", "created", Contact_ID="crm_id", Email="email"),
        "subscriptions": _source("subscriptions", None, customer_id="customer_id", contact_email="email"),
        "tickets": _source("tickets", None, requester="email"),
    }
    with tempfile.TemporaryDirectory() as name:
        company = ForeignCompany.make(Path(name), seed=seed, people=people, days=8, last=_LAST)
        rows = company.heap.rows | company.warehouse.rows
    links = [extract(_frame(rows[name], table), table, rules, _LAST).links for name, table in tables.items()]
    groups = [(kind, value, str(n), False) for n, group in enumerate(company.groups()) for kind, value in group]
    inboxes = [("email", inbox, f"nobody of {inbox}", True) for inbox in company.shared_inboxes()]
    schema = {**dict.fromkeys(_KEY, pl.String), "person": pl.String, "shared": pl.Boolean}
    truth = pl.DataFrame(sorted(groups) + sorted(inboxes), schema=schema, orient="row")
    return Company(pl.concat(links).collect().lazy(), rules, truth)


def _source(name: str, time_column: str | None, **columns: str) -> SourceTable:
    mappings = tuple(ColumnMapping(kind, (column,)) for column, kind in columns.items())
    return SourceTable(name, "snapshot", mappings, time_column)


def _frame(rows: dict[Any, dict[str, Any]], table: SourceTable) -> pl.LazyFrame:
    """Return what a table maps as text, as all its systems could be read."""
    names = [column for mapping in table.mappings for column in mapping.columns]
    names += [table.time_column] if table.time_column else []
    values = {
        name: [None if row[name] is None else str(row[name]) for row in rows.values()] for name in dict.fromkeys(names)
    }
    return pl.LazyFrame(values, schema=dict.fromkeys(values, pl.String))


def settled_by_truth(names: list[str], kind: str, owner: dict[str, str | None]) -> Decision:
    """Return what somebody who knows the truth decides about an entry; `owner` has None for shared values."""
    pairs = tuple(tuple(name.split(":", 1)) for name in names)
    people = {owner.get(name) for name in names}
    if len(names) == 1:
        return Decision("nobody" if people == {None} and kind == "claimed" else "confirmed", pairs)
    if len(people) == 1 and None not in people:
        return Decision("same" if kind == "refused" else "confirmed", pairs)
    first = {owner[name]: pair for name, pair in reversed(list(zip(names, pairs, strict=True))) if owner.get(name)}
    if len(first) < 2:
        return Decision("confirmed", pairs)
    return Decision("apart", tuple(sorted(first.values())))


def tables_of(links: pl.LazyFrame, rules: Rules) -> IdentityTables:
    """Resolve links with decisions; of a link with a value of nobody the other end stays, as a sighting."""
    for kind, value in sorted(rules.excluded):
        is_a, is_b = (
            ((pl.col(f"type_{end}") == kind) & (pl.col(f"value_{end}") == value)).fill_null(value=False) for end in "ab"
        )
        links = links.with_columns(
            *(pl.when(is_a).then(f"{part}_b").otherwise(f"{part}_a").alias(f"{part}_a") for part in ("type", "value")),
            *(pl.when(~is_a & ~is_b).then(f"{part}_b").alias(f"{part}_b") for part in ("type", "value")),
        ).filter(pl.col("type_a").is_not_null())
    result = resolve(links, rules)
    frames = [result.graph.collect().lazy(), result.conflicts.collect().lazy(), result.shared.collect().lazy()]
    return IdentityTables(pl.concat([links, decision_links(rules).lazy()]), *frames)


def curve(company: Company, entries: int) -> list[dict[str, object]]:
    """Return one row per decision: entry, decision, precision and recall."""
    links, rules, truth = company.links, company.rules, company.truth
    key_types = [rule.type for rank, rule in enumerate(rules.identifiers) if not rules.sharing[rank]]
    owner = {
        f"{kind}:{value}": None if shared else str(person)
        for kind, value, person, shared in truth.select(*_KEY, "person", "shared").iter_rows()
    }
    tables = before = tables_of(links, rules)
    rows = [_row(tables, truth, "", "")]
    while len(rows) <= entries:
        queue = review(tables, rules, key_types)
        if queue.is_empty():
            break
        kind, names = queue.row(0, named=True)["kind"], queue["identifiers"][0].to_list()
        decision = settled_by_truth(names, kind, owner)
        if any({*decision.identifiers} == {*one.identifiers} for one in rules.decisions):
            break
        covered = tuple(tuple(name.split(":", 1)) for name in names)
        looked_at = () if {*covered} <= {*decision.identifiers} else (Decision("confirmed", covered),)
        rules = replace(rules, decisions=(*rules.decisions, decision, *looked_at))
        tables = tables_of(links, rules)
        rows.append(_row(tables, truth, kind, decision.kind))
    undone = tables_of(links, replace(rules, decisions=()))
    assert undone.graph.collect().equals(before.graph.collect()), "undoing restores the graph"
    return rows


def _row(tables: IdentityTables, truth: pl.DataFrame, kind: str, decision: str) -> dict[str, object]:
    scores = quality(tables.graph, truth.lazy().join(tables.graph, on=_KEY, how="semi"))
    return {"entry": kind, "decision": decision, "precision": scores.precision, "recall": scores.recall}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--folder", type=Path, default=Path("data/demo"))
    parser.add_argument("--entries", type=int, default=20)
    parser.add_argument("--seed", type=int, default=1, help="of the foreign company")
    parser.add_argument("--people", type=int, default=600, help="of the foreign company")
    arguments = parser.parse_args()
    last = {
        "foreign": _printed(f"foreign, seed {arguments.seed}", foreign(arguments.seed, arguments.people), arguments)
    }
    if (arguments.folder / "truth").is_dir():
        last["demo"] = _printed("demo", demo(arguments.folder), arguments)
    else:
        print(f"demo: {arguments.folder} has no demo; `heap-assets demo` makes one")
    print(json.dumps(last))


def _printed(name: str, company: Company, arguments: argparse.Namespace) -> dict[str, object]:
    """Print the curve of a company, of which nothing may fall; returns its ends."""
    rows = curve(company, arguments.entries)
    print(f"{name}: {company.truth.height:,} identifiers")
    for number, row in enumerate(rows):
        print(f"{number:3}  {row['entry']:9} {row['decision']:10} P {row['precision']:.5f}  R {row['recall']:.5f}")
    for measure in ("precision", "recall"):
        values = [float(str(row[measure])) for row in rows]
        assert values == sorted(values), f"{name}: {measure} never falls"
    return {"decisions": len(rows) - 1, **{m: [rows[0][m], rows[-1][m]] for m in ("precision", "recall")}}


if __name__ == "__main__":
    main()
