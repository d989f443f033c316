"""The records of all dumps: what each has of a table, whatever was looked at before."""

from __future__ import annotations

from datetime import UTC, date, datetime, timedelta
from typing import Any

from hypothesis import given
from hypothesis import strategies as st

from heap_assets.sources.heap_connect.records import (
    DumpRecord,
    DumpRecords,
    TableRecord,
    TableState,
    days_ever,
    deliveries,
)

START = datetime(2026, 3, 1, 6, tzinfo=UTC)
NAMES = ["a", "b"]
DAYS = st.frozensets(st.integers(1, 5).map(lambda day: date(2026, 3, day)))
TABLES = st.dictionaries(
    st.sampled_from(NAMES), st.tuples(st.sampled_from([*TableState]), st.booleans(), DAYS), max_size=2
)


def dump(number: int, tables: dict[str, tuple[TableState, bool, frozenset[date]]]) -> DumpRecord:
    records = {
        name: TableRecord(name, state, incremental=incremental, days_ever=days)
        for name, (state, incremental, days) in tables.items()
    }
    return DumpRecord(number, "", "", START + timedelta(days=number), records)


@given(st.lists(st.tuples(st.integers(1, 6), TABLES, st.sets(st.sampled_from(NAMES))), max_size=10))
def test_what_dumps_have_of_a_table_is_what_a_look_at_each_gives(
    changes: list[tuple[int, dict[str, Any], set[str]]],
) -> None:
    records, plain = DumpRecords({}), dict[int, DumpRecord]()
    for number, tables, looked_at in changes:
        for name in looked_at:
            records.of_table(name)
        plain[number] = dump(number, tables)
        records = records.with_record(plain[number])
        assert list(records.items()) == sorted(plain.items())
        for name in NAMES:
            of_table = [(record, record.tables[name]) for _, record in sorted(plain.items()) if name in record.tables]
            assert [(one.dump, one.table) for one in records.of_table(name)] == of_table
            assert days_ever(records, name) == {day for _, table in of_table for day in table.days_ever}
            landed = [(record, table) for record, table in of_table if table.state is TableState.LANDED]
            whole = [at for at, (_, table) in enumerate(landed) if not table.incremental]
            assert [one.table for one in deliveries(records, name)] == [t for _, t in landed[(whole or [0])[-1] :]]
