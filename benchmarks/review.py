"""Decisions against precision and recall: the first entries of the queue of the demo's company, decided by the truth.

    make bench-review                     # or: python benchmarks/review.py --folder data/demo --entries 20

Reads a demo that was made before (`heap-assets demo`) and writes nothing into it. After each decision all is resolved
again; neither precision nor recall may fall. Then all decisions are undone, and the graph must be what it was.
"""

from __future__ import annotations

import argparse
import json
import os
from dataclasses import replace
from pathlib import Path

import polars as pl

from heap_assets.identity import Decision, IdentityTables, Rules, quality, resolve, review
from heap_assets.identity.decision_links import decision_links
from heap_assets.pipelines.readiness import links_as_of, newest_graph_day
from heap_assets.project import Project, open_project

_KEY = ["identifier_type", "identifier"]


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
    """Resolve links with decisions; a value that is nobody's is left out of the links that are there."""
    for kind, value in sorted(rules.excluded):
        for end in "ab":
            is_it = (pl.col(f"type_{end}") == kind) & (pl.col(f"value_{end}") == value)
            links = links.filter(is_it.fill_null(value=False).not_())
    result = resolve(links, rules)
    frames = [result.graph.collect().lazy(), result.conflicts.collect().lazy(), result.shared.collect().lazy()]
    return IdentityTables(pl.concat([links, decision_links(rules).lazy()]), *frames)


def curve(project: Project, truth: pl.DataFrame, entries: int) -> list[dict[str, object]]:
    """Return one row per decision: entry, decision, precision and recall."""
    day = newest_graph_day(project)
    rules = replace(project.rules_of_days.on(day), decisions=())
    links = links_as_of(project, day).collect().lazy()
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
    arguments = parser.parse_args()
    os.environ["HEAP_ASSETS_DEMO"] = str(arguments.folder.resolve())
    truth = pl.read_parquet(arguments.folder / "truth" / "identifiers.parquet")
    rows = curve(open_project(), truth, arguments.entries)
    for number, row in enumerate(rows):
        print(f"{number:3}  {row['entry']:9} {row['decision']:10} P {row['precision']:.5f}  R {row['recall']:.5f}")
    for name in ("precision", "recall"):
        values = [float(str(row[name])) for row in rows]
        assert values == sorted(values), f"{name} never falls"
    print(json.dumps(rows[-1]))


if __name__ == "__main__":
    main()
