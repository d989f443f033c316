"""The tables of the inbox as the settings describe them: their columns, and how they name people."""

from __future__ import annotations

from collections.abc import Mapping

from heap_assets.config import FunctionsSettings, IdentifierTypes, InboxSettings
from heap_assets.errors import SettingsError, did_you_mean
from heap_assets.identity import ColumnMapping, Rules, SourceTable
from heap_assets.sources.inbox import MessageColumn, MessageTable
from heap_assets.tables import INBOX_ACCOUNTS, INBOX_COLUMNS, INBOX_USERS, inbox_asset

_FOLDED = {
    INBOX_USERS: ("identify", ("id", "user_id", "anonymous_id", "first_seen", "time", "account_id")),
    INBOX_ACCOUNTS: ("group", ("group_id", "first_seen", "time", "people")),
}
"""Of each folded table: the table of messages whose columns it has, and the columns that it has by itself."""
_PAIRS = {"alias": ("previous_id", "user_id"), "identify": ("anonymous_id", "user_id")}
"""The two ids of one person that a call says."""


def message_tables(inbox: InboxSettings, functions: FunctionsSettings) -> dict[str, MessageTable]:
    """Return lake asset to what a table of messages holds."""
    return {
        inbox_asset(name): MessageTable(
            name,
            tuple(MessageColumn(own, one.path, one.type) for own, one in inbox.table(name).typed_columns().items()),
            is_webhook=name in inbox.sources,
            added=_added(functions, inbox_asset(name)),
        )
        for name in inbox.message_tables
    }


def _added(functions: FunctionsSettings, asset: str) -> dict[str, str]:
    return {
        name: kind
        for pattern in functions.patterns_of(asset)
        for name, kind in functions.transform[pattern].columns.items()
    }


def message_sources(inbox: InboxSettings, rules: Rules) -> dict[str, SourceTable]:
    """Return lake asset to how a table of messages names people."""
    sources = {}
    for name in inbox.message_tables:
        identifiers, asset = inbox.identifiers_of(name), inbox_asset(name)
        pair = _types_of_pair(name, identifiers) if inbox.table(name).authoritative else None
        mappings = mappings_of(identifiers, rules)
        sources[asset] = SourceTable(asset, "event", mappings, "time", authoritative=(pair,) if pair else False)
    return sources


def _types_of_pair(name: str, identifiers: Mapping[str, IdentifierTypes]) -> tuple[str, str]:
    types = [identifiers.get(column) for column in _PAIRS[name]]
    if not all(isinstance(one, str) for one in types):
        raise SettingsError(
            f"inbox.tables.{name}.authoritative: map {' and '.join(_PAIRS[name])} to one identifier type each"
        )
    return str(types[0]), str(types[1])


def folded_columns(inbox: InboxSettings | None, functions: FunctionsSettings, table: str) -> list[str]:
    """Return the columns of `inbox/users` or `inbox/accounts`."""
    messages, own = _FOLDED[table]
    names = [*inbox.table(messages).columns, *_added(functions, inbox_asset(messages))] if inbox else []
    return list(dict.fromkeys([*own, *names]))


def check_folded_column(
    inbox: InboxSettings | None, functions: FunctionsSettings, table: str, column: str, where: str
) -> None:
    """Raise SettingsError, naming the key `where`, if a folded table has no such column."""
    columns = folded_columns(inbox, functions, table)
    if column not in columns:
        messages = _FOLDED[table][0]
        raise SettingsError(
            f"{where} is '{table}.{column}', but {table} has no column {column!r}. Columns: {', '.join(columns)}; "
            f"name more below inbox.tables.{messages}.columns.{did_you_mean(column, columns)}"
        )


def table_columns(inbox: InboxSettings, functions: FunctionsSettings, table: str) -> list[str]:
    """Return the columns of any table of the inbox, by its asset."""
    if table in _FOLDED:
        return folded_columns(inbox, functions, table)
    return [*INBOX_COLUMNS, *inbox.table(table.partition("/")[2]).columns, *_added(functions, table)]


def mappings_of(identifiers: Mapping[str, IdentifierTypes], rules: Rules) -> tuple[ColumnMapping, ...]:
    """Turn `column: type`, `column: [types]` and `type: [columns]` (a composite) into mappings."""
    mappings = []
    for name, value in identifiers.items():
        values = [value] if isinstance(value, str) else value
        if name in rules.types and not set(values) & set(rules.types):
            mappings.append(ColumnMapping(name, tuple(values)))
        else:
            mappings += [ColumnMapping(one, (name,)) for one in values]
    return tuple(mappings)
