"""CRM, billing and support of the foreign company in PostgreSQL, as SQL, with what its tables must read as."""

from __future__ import annotations

import json
import random
from collections.abc import Iterator
from dataclasses import dataclass, field
from datetime import UTC, date, datetime, time, timedelta
from decimal import Decimal
from typing import Any

from heap_assets_tests.foreign.people import BAD_EMAILS, Person, typed_by_somebody

Row = dict[str, Any]
SCHEMA = """
create schema crm; create schema billing; create schema support;
create table crm.contacts ("Contact_ID" text primary key, "Email" text, account_id bigint, owner text, phone text,
    stage text, plan text, tags text[], profile jsonb, created date, updated_at timestamp);
create table crm.accounts (account_id bigint primary key, name text, domain text, tier text, renewal date,
    updated_at date);
create table billing.subscriptions (id bigint primary key, customer_id bigint, contact_email varchar(200), plan text,
    mrr numeric, seats int, active boolean, renews timestamptz, "Payment Method" text, updated_at timestamptz);
create table support.tickets (ticket_id text primary key, requester text, priority text, opened text, took interval,
    at time);
"""
RELATIONS = {
    "contacts": "crm.contacts",
    "accounts": "crm.accounts",
    "subscriptions": "billing.subscriptions",
    "tickets": "support.tickets",
}
KEYS = {"contacts": "Contact_ID", "accounts": "account_id", "subscriptions": "id", "tickets": "ticket_id"}
INFINITY = "infinity"


@dataclass
class WarehouseTables:
    """Rows by table and key, as the database holds them."""

    dice: random.Random
    people: list[Person]
    rows: dict[str, dict[Any, Row]] = field(default_factory=lambda: {name: {} for name in RELATIONS})

    def fill(self, first: date, last: date) -> Iterator[str]:
        """Yield the statements that make and fill all tables as of the evening of `last`."""
        yield SCHEMA
        evening = datetime.combine(last, time(20))
        for person in self.people:
            if person.contact:
                yield self._insert("contacts", self._contact(person, person.contact, first, evening))
            if person.customer:
                yield self._insert("subscriptions", self._subscription(person, person.customer, evening))
            if person.number % 6 == 0:
                yield self._insert("tickets", self._ticket(person, evening))
        for firm in sorted({person.firm for person in self.people}):
            yield self._insert("accounts", self._account(firm, last))

    def night(self, day: date) -> Iterator[str]:
        """Yield what changes until the evening of `day`: rows in time, one loaded late, one older than all others."""
        evening = datetime.combine(day, time(20))
        contacts = list(self.rows["contacts"])
        for place, key in enumerate(self.dice.sample(contacts, min(4, len(contacts)))):
            late = timedelta(hours=0 if place < 2 else 9 if place == 2 else 24 * 40)
            yield self._update("contacts", key, {"stage": f"moved {day}", "updated_at": evening - late})
        for key in self.dice.sample(list(self.rows["subscriptions"]), 2):
            changed = {"plan": "enterprise", "updated_at": evening.replace(tzinfo=UTC)}
            yield self._update("subscriptions", key, changed)
        yield self._update("accounts", min(self.rows["accounts"]), {"tier": f"since {day}", "updated_at": day})

    def _contact(self, person: Person, key: str, first: date, evening: datetime) -> Row:
        dice = self.dice
        bad = dice.random() < 0.06
        return {
            "Contact_ID": key,
            "Email": dice.choice(BAD_EMAILS) if bad else typed_by_somebody(dice, person.email),
            "account_id": person.firm,
            "owner": dice.choice(["O'Neil", "Żak", None]),
            "phone": f"+47 {person.number:08d}",
            "stage": dice.choice(["lead", "won"]),
            "plan": dice.choice(["growth", "what the salesman remembers"]),
            "tags": ["a", "b c"],
            "profile": {"nps": person.number % 11, "note": None},
            "created": first - timedelta(days=person.number % 300),
            "updated_at": evening - timedelta(minutes=person.number),
        }

    def _subscription(self, person: Person, key: int, evening: datetime) -> Row:
        dice = self.dice
        email = person.inbox if dice.random() < 0.2 else dice.choice([person.email, *person.more_emails])
        return {
            "id": key,
            "customer_id": key,
            "contact_email": typed_by_somebody(dice, email),
            "plan": dice.choice(["growth", "pro", "1.10", "NO"]),
            "mrr": Decimal(dice.randrange(90_000)) / 100 if key % 5 else Decimal("33.333333333333333333"),
            "seats": dice.randrange(90),
            "active": dice.random() < 0.9,
            "renews": (evening + timedelta(days=dice.randrange(60))).replace(tzinfo=UTC) if key % 9 else INFINITY,
            "Payment Method": dice.choice(["card", "invoice"]),
            "updated_at": evening.replace(tzinfo=UTC),
        }

    def _ticket(self, person: Person, evening: datetime) -> Row:
        opened = evening.strftime("%d/%m/%Y %H:%M") if person.number % 2 else evening.isoformat()
        return {
            "ticket_id": f"T-{person.number}",
            "requester": typed_by_somebody(self.dice, person.email),
            "priority": self.dice.choice(["high", "low"]),
            "opened": opened,
            "took": "3 days 04:05:06",
            "at": "24:00:00" if person.number % 60 == 0 else "09:30:00",
        }

    def _account(self, firm: int, last: date) -> Row:
        return {
            "account_id": firm,
            "name": f"Firm {firm} & Søn",
            "domain": f"firm{firm}.example",
            "tier": self.dice.choice(["gold", "NO"]),
            "renewal": last + timedelta(days=firm % 90),
            "updated_at": last,
        }

    def _insert(self, table: str, row: Row) -> str:
        self.rows[table][row[KEYS[table]]] = row
        names = ", ".join(f'"{name}"' for name in row)
        return f"insert into {RELATIONS[table]} ({names}) values ({', '.join(map(_literal, row.values()))});"

    def _update(self, table: str, key: Any, changed: Row) -> str:
        self.rows[table][key] = self.rows[table][key] | changed
        assignments = ", ".join(f'"{name}" = {_literal(value)}' for name, value in changed.items())
        return f'update {RELATIONS[table]} set {assignments} where "{KEYS[table]}" = {_literal(key)};'


def _literal(value: Any) -> str:
    if value is None:
        return "null"
    if isinstance(value, list):
        return "array[" + ", ".join(map(_literal, value)) + "]::text[]"
    text = json.dumps(value) if isinstance(value, dict) else str(value)
    return "'" + text.replace("'", "''") + "'"
