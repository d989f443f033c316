"""A company that nobody here designed for: its bucket, its warehouse, and the truth of both.

`python -m heap_assets_tests.foreign.company OUT --seed 1 --people 3000 --days 14` writes `OUT/bucket`,
`OUT/warehouse.sql` and `OUT/truth.json`; `--nights N` adds nights to what is there and only appends.
"""

from __future__ import annotations

import argparse
import json
import random
import unicodedata
from collections import Counter
from collections.abc import Iterable
from dataclasses import dataclass
from datetime import UTC, date, datetime, timedelta
from decimal import Decimal
from pathlib import Path
from typing import Any

from heap_assets_tests.foreign.heap_export import TEXT_TOTAL_FROM, HeapExport
from heap_assets_tests.foreign.people import BAD_EMAILS, Person, make_person
from heap_assets_tests.foreign.warehouse import WarehouseTables

Identifier = tuple[str, str]
MAY_FAIL = {
    "volume_as_usual", "conflicts_as_usual", "shared_as_usual", "matched_as_before", "ids_stable",
}  # fmt: skip
"""Checks of history, which a week of few people does not make."""
SPLIT_KEYS, SHARED_VALUES, MANY_PEOPLE = 0.01, 0.01, 5
"""What the checks of keys and identifiers tolerate (docs/checks.md)."""
TRAITS = ("plan", "mrr", "stage", "payment")


@dataclass
class ForeignCompany:
    """Everything there is, and what must come of it."""

    folder: Path
    people: list[Person]
    heap: HeapExport
    warehouse: WarehouseTables

    @classmethod
    def make(cls, folder: Path, *, seed: int, people: int, days: int, last: date) -> ForeignCompany:
        """Write `days` nights of exports until `last`, and the warehouse as of that evening.

        Companies with an even seed use the address as Heap's identity, the others an id of their own.
        """
        dice = random.Random(seed)
        persons = [make_person(dice, number, identity_is_email=seed % 2 == 0) for number in range(people)]
        heap = HeapExport(folder / "bucket", dice, persons, last - timedelta(days=days - 1))
        for _ in range(days):
            heap.night()
        company = cls(folder, persons, heap, WarehouseTables(dice, persons))
        company._sql("warehouse.sql", company.warehouse.fill(heap.first, last))
        return company

    def append_night(self) -> Path:
        """Export one more day and return the SQL file of what changed in the warehouse."""
        self.heap.night()
        return self._sql(f"warehouse_{self.heap.day}.sql", self.warehouse.night(self.heap.day))

    def groups(self) -> list[set[Identifier]]:
        """Return identifiers that the data itself joins; what it never joins, nobody can find.

        Shared inboxes are in no group: they are nobody's address.
        """
        return [group for person in self.people for group in self._groups_of(person)]

    def shared_inboxes(self) -> set[str]:
        """Return the inboxes that more than one customer gave as their address."""
        return {inbox for inbox, customers in self._inboxes().items() if customers > 1}

    def traits(self, group: Iterable[Identifier]) -> dict[str, Any]:
        """Return the traits of the profile that has these identifiers; those without a value are left out.

        plan is billing's, else the CRM's; mrr adds up; stage is the CRM's; payment is billing's.
        """
        rows = self.warehouse.rows
        contacts = [rows["contacts"][value] for kind, value in group if kind == "crm_id" and value in rows["contacts"]]
        customers = [value for kind, value in group if kind == "customer_id"]
        subscriptions = [row for key, row in rows["subscriptions"].items() if str(key) in customers]
        plans = [row["plan"] for row in (*subscriptions, *contacts)]
        traits = {
            "plan": plans[0] if plans else None,
            "mrr": sum((row["mrr"] for row in subscriptions), Decimal(0)) if subscriptions else None,
            "stage": contacts[0]["stage"] if contacts else None,
            "payment": subscriptions[0]["Payment Method"] if subscriptions else None,
        }
        return {name: value for name, value in traits.items() if value is not None}

    def planted_failures(self) -> dict[str, set[str]]:
        """Return asset to the checks that must fail; those of :data:`MAY_FAIL` may fail besides."""
        failures = {
            "warehouse/subscriptions": {"values_kept"},  # renews: infinity
            "warehouse/tickets": {"values_kept"},  # at: 24:00
        }
        if self.heap.nights > TEXT_TOTAL_FROM:
            # `order_total` is empty from then on: its values are texts, in a column of their own
            failures["heap/events/checkout_complete"] = {"columns_as_usual"}
        contacts = [row["Email"] for row in self.warehouse.rows["contacts"].values()]
        if sum(email in BAD_EMAILS and bool((email or "").strip()) for email in contacts) > 0.02 * len(contacts):
            failures["warehouse/contacts"] = {"identifiers_well_formed"}
        if self.shared_inboxes():
            failures["identity/conflicts"] = {"claimed_by_one"}
        if of_profiles := self._failures_of_profiles():
            failures["profiles"] = of_profiles
        return failures

    def _failures_of_profiles(self) -> set[str]:
        """Return the checks that shared inboxes fail, if they are many.

        One of its customers gets an inbox, so the rows of all others speak of two profiles.
        """
        inboxes = self._inboxes()
        shared = [customers for customers in inboxes.values() if customers > 1]
        own = {identifier for group in self.groups() for identifier in group if identifier[0] != "heap_user_id"}
        failures = set()
        if sum(shared) - len(shared) > SPLIT_KEYS * len(self.warehouse.rows["subscriptions"]):
            failures.add("one_profile_per_subscriptions_key")
        if len(shared) > SHARED_VALUES * (len(own) + len(inboxes)) or max(shared, default=0) >= MANY_PEOPLE:
            failures.add("unique_identifiers_not_shared")
        return failures

    def _inboxes(self) -> Counter[str]:
        """Count the customers who gave an inbox as their address."""
        rows = self.warehouse.rows["subscriptions"]
        return Counter(p.inbox for p in self.people if p.customer in rows and self._customer_email(p) == p.inbox)

    def _groups_of(self, person: Person) -> list[set[Identifier]]:
        parts: list[set[Identifier]] = [{("heap_user_id", str(user))} for user in person.devices]
        for joined in self._joins_of(person):
            touched = [part for part in parts if part & joined]
            parts = [part for part in parts if part not in touched] + [joined.union(*touched)]
        return parts

    def _joins_of(self, person: Person) -> Iterable[set[Identifier]]:
        if person.identity is not None:
            home = ("heap_user_id", str(person.devices[0]))
            yield {home, ("heap_identity", person.identity), ("email", person.email)}
            yield {home, *(("heap_user_id", str(user)) for user in person.devices)}
        contact = self.warehouse.rows["contacts"].get(person.contact)
        if contact is not None:
            named = contact["Email"] not in BAD_EMAILS
            yield {("crm_id", str(person.contact)), *({("email", person.email)} if named else ())}
        if person.customer in self.warehouse.rows["subscriptions"]:
            email = self._customer_email(person)
            yield {("customer_id", str(person.customer)), *({("email", email)} if email != person.inbox else ())}
        if f"T-{person.number}" in self.warehouse.rows["tickets"]:
            yield {("email", person.email)}

    def _customer_email(self, person: Person) -> str:
        typed = str(self.warehouse.rows["subscriptions"][person.customer]["contact_email"])
        return next(e for e in (person.email, *person.more_emails, person.inbox) if _letters(e) == _letters(typed))

    def _sql(self, name: str, statements: Iterable[str]) -> Path:
        path = self.folder / name
        path.write_text("\n".join(statements) + "\n")
        return path


def _letters(email: str) -> str:
    """Return what is left of an address when only ASCII letters and digits count, so that spellings agree."""
    composed = unicodedata.normalize("NFC", email.lower()).removeprefix("mailto:")
    return "".join(c for c in composed if c.isascii() and c.isalnum())


def main() -> None:
    """Write a company and its truth."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("out", type=Path)
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--people", type=int, default=3000)
    parser.add_argument("--days", type=int, default=14)
    parser.add_argument("--nights", type=int, default=0, help="Further nights after the last day, each appended")
    parser.add_argument("--last-day", type=date.fromisoformat, default=datetime.now(UTC).date() - timedelta(days=1))
    options = parser.parse_args()
    company = ForeignCompany.make(
        options.out, seed=options.seed, people=options.people, days=options.days, last=options.last_day
    )
    for _ in range(options.nights):
        company.append_night()
    truth = {
        "rows": {table: list(rows.values()) for table, rows in company.heap.rows.items()},
        "warehouse": {table: list(rows.values()) for table, rows in company.warehouse.rows.items()},
        "profiles": [{"identifiers": sorted(group), "traits": company.traits(group)} for group in company.groups()],
        "shared_inboxes": sorted(company.shared_inboxes()),
    }
    (options.out / "truth.json").write_text(json.dumps(truth, default=str))
    print({table: len(rows) for table, rows in (company.heap.rows | company.warehouse.rows).items()})


if __name__ == "__main__":
    main()
