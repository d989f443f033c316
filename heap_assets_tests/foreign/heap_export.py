"""Heap Connect's export of the foreign company: one dump a night, with the mess that real exports have.

Links with a query of their own on every row, event ids above 2^53, properties called like columns of ours or with
blanks and capitals in them, late rows, rows delivered twice, a full resync, new columns, columns that change their
type, an event that is defined later.
"""

from __future__ import annotations

import json
import os
import random
import uuid
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from datetime import UTC, date, datetime, time, timedelta
from pathlib import Path
from typing import Any

import fastavro

from heap_assets_tests.foreign.people import Person, typed_by_somebody

Row = dict[str, Any]
LONG, TEXT, REAL = ["long", "null"], ["string", "null"], ["double", "null"]
KEYS = {"event_id": LONG, "user_id": LONG, "session_id": LONG, "time": TEXT, "session_time": TEXT}
COMMON = (
    "library", "platform", "device_type", "country", "region", "city", "ip", "referrer", "landing_page",
    "landing_page_query", "browser", "utm_source", "utm_campaign",
)  # fmt: skip
EVENTS: Mapping[str, Mapping[str, list[str]]] = {
    "pageviews": {"path": TEXT, "title": TEXT},
    "sign_up_click_link": {"plan": TEXT, "cart value": REAL},
    "checkout_complete": {"order_total": REAL, "currency": TEXT, "items": TEXT, "filename": TEXT},
    "feature_used": {"feature": TEXT, "profile_id": TEXT, "partition_day": TEXT, "Seats": LONG},
    "gift_sent": {"to_user_id": TEXT, "joindate": TEXT},
}
"""Event table to its custom properties."""
USERS = {"user_id": LONG, "identity": TEXT, "handle": TEXT, "email": TEXT, "joindate": TEXT, "last_modified": TEXT,
         "role": TEXT, "migrated_to": TEXT}  # fmt: skip
SEATS_FROM, SEATS_TEXT_FROM = 3, 4
"""Nights on which users get a property, and on which it becomes text."""
DEFINED_ON, RESYNC_ON, TEXT_TOTAL_FROM = 2, 5, 6
"""Nights: `feature_used` is defined; `sign_up_click_link` comes anew; `order_total` becomes text."""
BUCKET = "heap-rs3-foreign"
FIRST_DUMP = 4_100


@dataclass
class HeapExport:
    """The bucket, and what its tables must hold: `rows` by table and key."""

    folder: Path
    dice: random.Random
    people: list[Person]
    first: date
    rows: dict[str, dict[int, Row]] = field(default_factory=dict)
    nights: int = 0
    next_event: int = 2**53 + 10

    @property
    def day(self) -> date:
        """The newest day that was exported."""
        return self.first + timedelta(days=self.nights - 1)

    def night(self) -> None:
        """Export one more day."""
        self.nights += 1
        number = self.nights - 1
        tables = [self._users(number), self._migrations(number)]
        tables += [self._events(table, number) for table in EVENTS if table != "feature_used" or number >= DEFINED_ON]
        dump = FIRST_DUMP + number
        manifest = {
            "dump_id": dump,
            "tables": tables,
            "property_definitions": f"s3://{BUCKET}/property_definitions/{dump}.json",
        }
        path = self.folder / "manifests" / f"sync_{dump}.json"
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(json.dumps(manifest))
        written = datetime.combine(self.day, time(23, 30), tzinfo=UTC).timestamp()
        for file in (path, *(self.folder / f"sync_{dump}").rglob("*.avro")):
            os.utime(file, (written, written))

    def _users(self, number: int) -> Row:
        columns = dict(USERS)
        if number >= SEATS_FROM:
            columns["seats"] = TEXT if number >= SEATS_TEXT_FROM else LONG
        changed = self.people if number == 0 else self.dice.sample(self.people, max(1, len(self.people) // 20))
        rows = [self._user(person, user, columns) for person in changed for user in person.devices]
        return self._write("users", columns, rows, incremental=number > 0, key="user_id")

    def _user(self, person: Person, user: int, columns: Mapping[str, list[str]]) -> Row:
        known = user == person.devices[0] and person.identity is not None
        seats = self.dice.randrange(50)
        row = {
            "user_id": user,
            "identity": person.identity if known else None,
            "handle": None,
            "email": typed_by_somebody(self.dice, person.email) if known else None,
            "joindate": f"{self.first} 00:00:00.000",
            "last_modified": self._moment(self.day),
            "role": self.dice.choice(["admin", "member", None]),
            "migrated_to": self.dice.choice(["new pricing", None]),
            "seats": f"{seats} seats" if columns.get("seats") == TEXT else seats,
        }
        return {column: row[column] for column in columns}

    def _migrations(self, number: int) -> Row:
        rows = [
            {"from_user_id": user, "to_user_id": person.devices[0], "time": self._moment(self.first)}
            for person in self.people
            if person.identity is not None and person.number % 7 <= number
            for user in person.devices[1:]
        ]
        columns = {"from_user_id": LONG, "to_user_id": LONG, "time": TEXT}
        return self._write("user_migrations", columns, rows, incremental=False, key="from_user_id")

    def _events(self, table: str, number: int) -> Row:
        custom = dict(EVENTS[table])
        if table == "checkout_complete" and number >= TEXT_TOTAL_FROM:
            custom["order_total"] = TEXT
        count = len(self.people) * (4 if table == "pageviews" else 1)
        rows = [self._event(custom) for _ in range(count)]
        columns = KEYS | dict.fromkeys(COMMON, TEXT) | custom
        if table == "sign_up_click_link" and number == RESYNC_ON:
            kept = [row for row in self.rows[table].values() if row["event_id"] % 10]
            return self._write(table, columns, kept + rows, incremental=False, files=2)
        twice = [dict(row) for row in self.dice.sample(rows, min(20, len(rows)))]
        return self._write(table, columns, rows + twice, incremental=True, files=3)

    def _event(self, custom: Mapping[str, list[str]]) -> Row:
        dice, number = self.dice, self.next_event
        self.next_event += 1
        is_late = dice.random() < 0.03
        moment = self._moment(max(self.first, self.day - timedelta(days=2)) if is_late else self.day)
        pages = ["/", "/pricing", "/app", "/app/settings", f"/docs/{dice.randrange(4_000)}"]
        row = {
            "event_id": number,
            "user_id": dice.choice(dice.choice(self.people).devices),
            "session_id": number // 7,
            "time": moment,
            "session_time": moment,
            "library": "web",
            "platform": dice.choice(["Mac OS X", "Windows 11", "Android 15"]),
            "device_type": dice.choice(["Desktop", "Mobile"]),
            "country": dice.choice(["Norway", "NO", "Österreich", None]),
            "region": None,
            "city": f"City {dice.randrange(300)}",
            "ip": f"10.{number % 256}.{number >> 8 & 255}.{dice.randrange(256)}",
            "referrer": f"https://www.example.com/search?q={number % 9973}",
            "landing_page": dice.choice(pages),
            "landing_page_query": f"?gclid={uuid.UUID(int=dice.getrandbits(128)).hex}&ref={number}",
            "browser": dice.choice(["Chrome 141", "Safari 19"]),
            "utm_source": dice.choice([None, None, "google", "nëws"]),
            "utm_campaign": None,
        }
        return row | {column: self._value(column, kind, number) for column, kind in custom.items()}

    def _value(self, column: str, kind: Sequence[str], number: int) -> str | float | int | None:
        if self.dice.random() < 0.2:
            return None
        if kind == REAL:
            return round(self.dice.random() * 500, 2)
        if kind == LONG:
            return number % 90
        if column == "order_total":
            return f"{number % 500}.50 EUR"
        items = json.dumps([{"sku": f"A{number % 40}", "n": 1}])
        texts = {"items": items, "currency": "EUR", "joindate": "last spring"}
        return texts.get(column, f"{column} {number % 25}")

    def _moment(self, day: date) -> str:
        moment = datetime.combine(day, time()) + timedelta(milliseconds=self.dice.randrange(86_400_000))
        return moment.strftime("%Y-%m-%d %H:%M:%S.%f")[:-3]

    def _write(
        self,
        table: str,
        columns: Mapping[str, list[str]],
        rows: list[Row],
        *,
        incremental: bool,
        files: int = 1,
        key: str = "event_id",
    ) -> Row:
        dump = f"sync_{FIRST_DUMP + self.nights - 1}"
        folder = self.folder / dump / table
        folder.mkdir(parents=True, exist_ok=True)
        fields = [{"name": name, "type": kind} for name, kind in columns.items()]
        schema = fastavro.parse_schema({"type": "record", "name": "topLevelRecord", "fields": fields})
        names = []
        for part in range(files):
            name = f"part-{part:05d}-{uuid.UUID(int=self.dice.getrandbits(128))}-c000.avro"
            block = self.dice.choice([4_000, 64_000, 4_000_000])
            with (folder / name).open("wb") as file:
                fastavro.writer(file, schema, rows[part::files], codec="snappy", sync_interval=block)
            names.append(f"s3://{BUCKET}/{dump}/{table}/{name}")
        kept = self.rows.setdefault(table, {})
        if not incremental:
            kept.clear()
        kept.update({row[key]: row for row in rows})
        return {"name": table, "files": names, "columns": list(columns), "incremental": incremental}
