"""Tableau data sources (.tds), one for each table, those of event tables joined with what belongs to their rows.

The form is the federated connection of Tableau's own files: named connection, relations, a map of columns, columns.
"""

from __future__ import annotations

from collections.abc import Iterator
from xml.etree import ElementTree as ET

from heap_assets.bi.layer import Column, Kind, Layer, Table
from heap_assets.bi.statements import newest_day

_TYPES = {
    Kind.TEXT: "string",
    Kind.INTEGER: "integer",
    Kind.NUMBER: "real",
    Kind.BOOLEAN: "boolean",
    Kind.TIME: "datetime",
    Kind.DATE: "date",
    Kind.OTHER: "string",
}
_NUMBERS = (Kind.NUMBER,)
"""Kinds that are added up; integers here are keys and ranks more often than amounts."""


def files(layer: Layer) -> Iterator[tuple[str, str]]:
    """Yield each file's path and text; Tableau asks for the password."""
    for table in layer.tables:
        root = _datasource(layer, table)
        ET.indent(root)
        yield f"{table.name}.tds", ET.tostring(root, encoding="unicode", xml_declaration=True) + "\n"


def _datasource(layer: Layer, table: Table) -> ET.Element:
    connection = f"{layer.location.dialect}.{layer.uuid('connection').hex[:28]}"
    root = ET.Element(
        "datasource",
        {
            "caption": table.title,
            "formatted-name": f"federated.{layer.uuid('tableau', table.name).hex[:28]}",
            "inline": "true",
            "version": "18.1",
        },
    )
    federated = ET.SubElement(root, "connection", {"class": "federated"})
    named = ET.SubElement(ET.SubElement(federated, "named-connections"), "named-connection")
    named.attrib |= {"caption": layer.name, "name": connection}
    ET.SubElement(named, "connection", {**layer.location.tableau, "schema": table.schema})
    joins = layer.joins_of(table)
    relation = _relation(layer, connection, table)
    for join in joins:
        right, outer = layer.table(join.right), ET.Element("relation", {"join": "left", "type": "join"})
        outer.append(_clause(table, right, join.on))
        outer.extend([relation, _relation(layer, connection, right)])
        relation = outer
    federated.append(relation)
    columns = [(column.name, table, column) for column in table.columns]
    for join in joins:
        right = layer.table(join.right)
        columns += [(f"{column.name} ({right.name})", right, column) for column in right.columns]
    cols = ET.SubElement(federated, "cols")
    for name, of, column in columns:
        ET.SubElement(cols, "map", {"key": f"[{name}]", "value": f"[{of.name}].[{column.name}]"})
    ET.SubElement(root, "aliases", {"enabled": "yes"})
    for name, of, column in columns:
        root.append(_column(name, column, "" if of is table else f" ({of.title})"))
    return root


def _relation(layer: Layer, connection: str, table: Table) -> ET.Element:
    about = {"connection": connection, "name": table.name}
    if not table.newest:
        return ET.Element("relation", about | {"table": f"[{table.schema}].[{table.name}]", "type": "table"})
    query = ET.Element("relation", about | {"type": "text"})
    # Tableau reads << in custom SQL as >> of a parameter: the query has neither
    query.text = newest_day(layer, table)
    return query


def _clause(left: Table, right: Table, on: tuple[tuple[str, str], ...]) -> ET.Element:
    clause = ET.Element("clause", {"type": "join"})
    place = clause if len(on) == 1 else ET.SubElement(clause, "expression", {"op": "AND"})
    for one, other in on:
        equal = ET.SubElement(place, "expression", {"op": "="})
        ET.SubElement(equal, "expression", {"op": f"[{left.name}].[{one}]"})
        ET.SubElement(equal, "expression", {"op": f"[{right.name}].[{other}]"})
    return clause


def _column(name: str, column: Column, suffix: str) -> ET.Element:
    is_measure = column.kind in _NUMBERS
    has_order = column.kind in (Kind.TIME, Kind.DATE, Kind.INTEGER)
    described = ET.Element(
        "column",
        {
            "caption": f"{column.title}{suffix}",
            "datatype": _TYPES[column.kind],
            "name": f"[{name}]",
            "role": "measure" if is_measure else "dimension",
            "type": "quantitative" if is_measure else "ordinal" if has_order else "nominal",
        },
    )
    if column.meaning:
        text = ET.SubElement(ET.SubElement(described, "desc"), "formatted-text")
        ET.SubElement(text, "run").text = column.meaning
    return described
