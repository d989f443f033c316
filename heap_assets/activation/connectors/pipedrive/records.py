"""Persons, organizations and deals, one a call, by Pipedrive's ids: a record is searched for once."""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Generator, Iterator, Mapping, Sequence
from datetime import timedelta
from typing import Any, Generic, TypeVar

import polars as pl

from heap_assets import clock
from heap_assets.activation.connectors.inputs import PeopleConnector
from heap_assets.activation.connectors.pipedrive.company import (
    MISSING_STATUSES,
    STANDARD,
    CompanyField,
    PipedriveDestination,
    outcome,
    why,
)
from heap_assets.activation.connectors.pipedrive.preflight import KEY_TYPES, tried
from heap_assets.activation.connectors.pipedrive.settings import (
    OWN_ID,
    PipedriveDealsSync,
    PipedriveOrganizationsSync,
    PipedrivePersonsSync,
    PipedriveRecordsSync,
)
from heap_assets.activation.engine.destination import Row
from heap_assets.activation.engine.exchange import Exchange, Request
from heap_assets.activation.engine.prepare import VALUE
from heap_assets.activation.engine.spec import Mode
from heap_assets.activation.engine.verdict import Response, RowVerdict, Verdict
from heap_assets.sources.warehouse import Permission

_AT_ONCE, _HITS, _VARCHAR = 10, 100, 255
_LISTS = frozenset({"id", "email", "emails", "phone", "phones", "label_ids", "custom_fields"})
"""What a write would replace, with what people have added."""
R = TypeVar("R", bound="PipedriveRecordsSync")
_NO_MATCH = RowVerdict("no_match", "Pipedrive has no record with this key")


class PipedriveConnector(PeopleConnector[R], Generic[R]):
    """What persons, organizations and deals have in common."""

    @abstractmethod
    def destination(self, table: str = "") -> PipedriveRecords:
        """Return what makes requests of rows."""

    def preflight(self) -> Iterator[Permission]:
        """Try the login, the key's field, and whether each field exists and takes what its column has."""
        destination = self.destination()
        with self.api() as api:
            custom = api.through(destination.fields())
        yield Permission("login", passed=True, detail="fields can be read")
        kinds = {**{name: field.type for name, field in custom.items()}, **destination.standard}
        yield from tried(destination.key_of_ours, self.settings.properties, kinds, self.column_types())


class PipedrivePersonsConnector(PipedriveConnector[PipedrivePersonsSync]):
    """People to persons."""

    settings_model = PipedrivePersonsSync

    def destination(self, table: str = "") -> PipedriveRecords:
        return PipedriveRecords(self.settings)


class PipedriveOrganizationsConnector(PipedriveConnector[PipedriveOrganizationsSync]):
    """Accounts to organizations."""

    settings_model = PipedriveOrganizationsSync

    def destination(self, table: str = "") -> PipedriveRecords:
        return PipedriveRecords(self.settings)


class PipedriveDealsConnector(PipedriveConnector[PipedriveDealsSync]):
    """Rows to deals."""

    settings_model = PipedriveDealsSync

    def destination(self, table: str = "") -> PipedriveRecords:
        return PipedriveRecords(self.settings)


class PipedriveRecords(PipedriveDestination):
    """Updates or upserts records; the id of each is kept in the ledger."""

    mode = Mode.UPSERT

    def __init__(self, settings: PipedriveRecordsSync) -> None:
        self._key, self._creates = settings.key_field, settings.match_policy == "upsert"
        super().__init__(
            settings,
            settings.of,
            batch_rows=_AT_ONCE,
            key_units=_VARCHAR,
            forbidden_names=_LISTS | {self._key.lower()},
        )
        self.standard, self._label = STANDARD[self.of], settings.label
        self._by_id, self._key_is_plain = self._key == OWN_ID, self._key in (OWN_ID, settings.plain_key)
        self.key_of_ours = None if self._key_is_plain else self._key
        self._custom = sorted({*settings.properties, *filter(None, [self.key_of_ours])} - self.standard.keys())
        self._longest, self._lag = settings.longest_varchar, timedelta(minutes=settings.search_lag_minutes)
        self._fields: dict[str, CompanyField] | None = None
        self._recent: dict[str, list[str]] | None = None

    @property
    def target(self) -> str:
        return f"{self.kind}:{self.url}:{self._key}"

    def invalid_rows(self, rows: pl.LazyFrame) -> Mapping[str, pl.Expr]:
        same = pl.col("key").str.to_lowercase().is_duplicated() & ~pl.col("key").is_duplicated()
        faults = {"another key is the same but for upper case": same}
        if self._by_id:
            faults["key is no id of Pipedrive's"] = ~pl.col("key").str.contains(r"^[0-9]{1,18}$")
        if self._creates and self._key != self._label:
            faults[f"a new record needs a {self._label}"] = pl.col(f"{VALUE}{self._label}").is_null()
        return faults

    def element(self, row: Row) -> dict[str, Any]:
        standard = {n: v for n, v in row.values.items() if n in self.standard and not (n == self._label and v is None)}
        custom = {name: value for name, value in row.values.items() if name not in self.standard}
        return standard | ({"custom_fields": custom} if custom else {})

    def exchange(self, elements: Sequence[bytes], rows: Sequence[Row]) -> Exchange:
        if self._fields is None:
            self._fields = yield from self.fields()
        fields = self._fields
        if missing := [name for name in self._custom if name not in fields]:
            return Verdict(rest="not_applied", stop=f"Pipedrive has no custom field {missing[0]!r} of {self.of}")
        if not self._key_is_plain and fields[self._key].type not in KEY_TYPES:
            return Verdict(rest="not_applied", stop=f"key_field {self._key!r} of Pipedrive is not of type text")
        verdicts: dict[int, RowVerdict] = {}
        for i, row in enumerate(rows):
            try:
                verdicts[i] = yield from self._placed(row, self._record(row, fields), fields)
            except ValueError as wrong:
                verdicts[i] = RowVerdict("invalid", str(wrong))
        return Verdict(verdicts)

    def _record(self, row: Row, fields: Mapping[str, CompanyField]) -> dict[str, Any]:
        """Return the record with the keys of custom fields. Raises ValueError for a value that a field cannot have."""
        record = self.element(row)
        for name, value in record.get("custom_fields", {}).items():
            if fields[name].type == "varchar" and isinstance(value, str) and len(value) > self._longest:
                raise ValueError(f"{name} is longer than {self._longest} characters")
        if "custom_fields" in record:
            record["custom_fields"] = {fields[n].code: fields[n].written(v) for n, v in record["custom_fields"].items()}
        return record

    def _placed(
        self, row: Row, record: dict[str, Any], fields: Mapping[str, CompanyField]
    ) -> Generator[Request, Response, RowVerdict]:
        """Write a row to the record that it is known to be, to the one that has its key, or to a new one."""
        remote_id = row.key if self._by_id else row.remote_id
        if remote_id is not None:
            answer = yield self.write(record, remote_id)
            if answer.status not in MISSING_STATUSES:  # it was merged into another, or deleted
                return outcome(answer)
            if self._by_id:
                return _NO_MATCH
        ids = yield from self._search(row.key, fields)
        if not ids and self._creates:
            ids = (yield from self._changed_lately(fields)).get(row.key.casefold(), [])
        if len(ids) > 1:
            return RowVerdict("invalid", f"{len(ids)} records have this key")
        if not ids and not self._creates:
            return _NO_MATCH
        answer = yield self.write(record, ids[0]) if ids else self.write(self._new(row.key, record, fields))
        return _NO_MATCH if answer.status in MISSING_STATUSES else outcome(answer)

    def _search(self, key: str, fields: Mapping[str, CompanyField]) -> Generator[Request, Response, list[str]]:
        """Return the ids of the records that have a key; what is alike in another field is none."""
        where = self._key if self._key_is_plain else "custom_fields"
        answer = yield self.get(f"{self.of}/search", term=key, fields=where, exact_match="true", limit=_HITS)
        if not answer.accepted:
            raise ValueError(why(answer))
        hits = [hit["item"] for hit in answer.json["data"]["items"]]
        if not self._key_is_plain:
            answers = []
            for hit in hits:
                answers.append((yield self.get(f"{self.of}/{hit['id']}")))
            hits = [answer.json["data"] for answer in answers if answer.accepted]
        return [str(hit["id"]) for hit in hits if key.casefold() in self._keys_of(hit, fields)]

    def _changed_lately(self, fields: Mapping[str, CompanyField]) -> Generator[Request, Response, dict[str, list[str]]]:
        """Return the ids by key of the records that the search may not know yet; asked once a run."""
        if self._recent is None:
            since = f"{clock.now() - self._lag:%Y-%m-%dT%H:%M:%SZ}"
            recent: dict[str, list[str]] = {}
            for record in (yield from self.listed(self.of, updated_since=since)):
                for key in self._keys_of(record, fields):
                    recent.setdefault(key, []).append(str(record["id"]))
            self._recent = recent
        return self._recent

    def _keys_of(self, record: Mapping[str, Any], fields: Mapping[str, CompanyField]) -> set[str]:
        if self._key == "email" and self._key_is_plain:
            held = [one["value"] if isinstance(one, dict) else one for one in record.get("emails") or ()]
        elif self._key_is_plain:
            held = [record.get(self._label)]
        else:
            held = [(record.get("custom_fields") or {}).get(fields[self._key].code)]
        return {str(one).casefold() for one in held if one}

    def _new(self, key: str, record: dict[str, Any], fields: Mapping[str, CompanyField]) -> dict[str, Any]:
        if not self._key_is_plain:
            return {**record, "custom_fields": {**record.get("custom_fields", {}), fields[self._key].code: key}}
        email = {"emails": [{"value": key, "primary": True, "label": "work"}]}
        return record | (email if self._key == "email" else {self._label: key})
