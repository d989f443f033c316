"""The planted faults, in one list: what is wrong, where, and which check is expected to find it.

`planted` is the list; the other functions do the damage where rows, files or tables are written. Faults are small on
purpose: the newest day still resolves and syncs.
"""

from dataclasses import asdict, dataclass
from datetime import timedelta
from typing import Any

import polars as pl

from heap_assets.demo.chance import hashed_hex
from heap_assets.demo.plan import Plan

STALE_DAYS = 6
STALE_TICKET_DAYS = 9
STALE_EVENT_TABLE = "_key_events__export_data_"
BAD_FILE_TABLE = "click_on_anything"
PII_TABLE = "invite_teammate"
REJECTED_TABLE = "checkout_complete"
SHRUNK_TABLE = "feature_used"


@dataclass(frozen=True)
class Fault:
    """One planted fault.

    Attributes
    ----------
    name
        Short name, as the demo's report prints it.
    done
        What was done, in one sentence.
    asset
        The asset on which it shows.
    partition
        The day (YYYY-MM-DD) on which it shows.
    found_by
        The check that is expected to find it.
    counted_as
        Empty if that check fails. Else the fault is too small to fail it, and is found if this one of the result's
        numbers is above 0.
    """

    name: str
    done: str
    asset: str
    partition: str
    found_by: str
    counted_as: str = ""

    def as_dict(self) -> dict[str, Any]:
        """Return the fault as plain data."""
        return asdict(self)


def planted(plan: Plan) -> list[Fault]:
    """Return the faults of a company; none if it was written without.

    Those that lie in a day of events stay there when the company grows; the others show on its newest day.
    """
    if not plan.faults:
        return []
    newest = plan.date_of(plan.last_day).isoformat()
    stale, bad, pii = (f"heap/events/{table}" for table in (STALE_EVENT_TABLE, BAD_FILE_TABLE, PII_TABLE))
    rejected, shrunk = f"heap/events/{REJECTED_TABLE}", f"heap/events/{SHRUNK_TABLE}"
    bad_day, rejected_on, shrunk_on = (
        plan.date_of(number).isoformat() for number in (bad_file_day(plan), rejected_day(plan), shrunk_day(plan))
    )
    return [
        Fault("stale_warehouse_table", f"The loader of support.tickets stopped {STALE_TICKET_DAYS} days ago.",
              "warehouse/support_tickets", newest, "newest_row_is_recent"),
        Fault("stale_event_table", f"Heap exports no {STALE_EVENT_TABLE} of the last {STALE_DAYS} days.",
              stale, newest, "newest_row_is_recent"),
        Fault("duplicate_profiles", "Some people log in under their email and under their product id.",
              "profiles", newest, "one_identity_per_profile", "profiles_on_several_identities"),
        Fault("broken_email_column", "Nearly half of product.users.email is blank or masked since the newest load.",
              "warehouse/product_users", newest, "identifiers_well_formed"),
        Fault("bad_avro_file", "A file of one dump is cut off in the middle.", bad, bad_day, "readable"),
        Fault("unreadable_rows", "Rows whose ids or times cannot be read.", rejected, rejected_on, "rejected_rows"),
        Fault("personal_data", "Emails and telephone numbers in the free text of `message`.",
              pii, newest, "no_personal_data"),
        Fault("duplicate_warehouse_key", "Two rows of product.accounts have the account_id of another row.",
              "warehouse/product_accounts", newest, "unique_keys"),
        Fault("migration_cycle", "Two identified users of one person migrate into each other.",
              "heap/user_migrations", newest, "no_cycles"),
        Fault("crossed_keys", "Three billing customers carry the CRM id of somebody else.",
              "profiles", newest, "one_profile_per_billing_customers_key", "keys_on_several_profiles"),
        Fault("claimed_ids", "The CRM ids that those customers carry are claimed by several people.",
              "identity/conflicts", newest, "claimed_by_one", "claimed_crm_id"),
        Fault("duplicate_contacts", "Some people are in the CRM twice, with one email.",
              "profiles", newest, "one_profile_per_crm_contacts_key", "keys_on_several_profiles"),
        Fault("volume_drop", "Nine of ten rows of a day are missing.", shrunk, shrunk_on, "volume_as_usual"),
    ]  # fmt: skip


def bad_file_day(plan: Plan) -> int:
    """The day whose dump has a file that is cut off."""
    return max(plan.history_end + 1, plan.planned_last - 3)


def rejected_day(plan: Plan) -> int:
    """The day whose dump has rows that cannot be read."""
    return max(plan.history_end, plan.planned_last - 1)


def shrunk_day(plan: Plan) -> int:
    """The day that lacks most of its rows."""
    return max(0, plan.planned_last - 1)


def spoil_rows(plan: Plan, table: str, day: int, rows: pl.DataFrame) -> pl.DataFrame:
    """Return a table's rows of a day of arrival with what is planted in them."""
    if not plan.faults:
        return rows
    last = plan.planned_last
    if table == STALE_EVENT_TABLE and day > last - STALE_DAYS:
        return rows.clear()
    if table == SHRUNK_TABLE and day == shrunk_day(plan):
        return rows.filter(pl.col("event_id") % 10 == 1)
    if table == PII_TABLE and day >= last - 1:
        text = pl.format(
            "It is urgent, write to {}.private@mail.example or call +1 415 555 01{}",
            "account_id",
            pl.col("event_id") % 90 + 10,
        )
        return rows.with_columns(message=pl.when(pl.int_range(pl.len()) % 3 == 0).then(text).otherwise("message"))
    return rows


def junk_rows(plan: Plan, table: str, day: int) -> pl.DataFrame | None:
    """Return rows to add to a file whose ids are text: ids that are floating point or blank, times that are none."""
    if not plan.faults or table != REJECTED_TABLE or day != rejected_day(plan):
        return None
    good = str((plan.midnight + day * 86_400_000_000) // 1000)
    future = "4070908800000"
    return pl.DataFrame(
        {
            "event_id": ["9.007199254740993E15", "", "7001", "7002", "99999999999999999999999", "7003"],
            "user_id": ["7101", "7102", "1.23E+17", "7104", "7105", "7106"],
            "session_id": ["7201"] * 6,
            "time": [good, good, good, "yesterday", good, future],
            "order_id": [f"ord_bad_{number}" for number in range(6)],
        }
    )


def spoil_file(plan: Plan, table: str, day: int, container: bytes) -> bytes:
    """Return a file's bytes, cut off in the middle if that is planted."""
    if plan.faults and table == BAD_FILE_TABLE and day == bad_file_day(plan):
        return container[: len(container) * 2 // 3]
    return container


def spoil_relation(plan: Plan, relation: str, day: int, rows: pl.DataFrame) -> pl.DataFrame:
    """Return a warehouse table as of the end of a day with what is planted in it."""
    if not plan.faults:
        return rows
    if relation == "support.tickets":
        stopped = pl.lit(plan.date_of(plan.planned_last - STALE_TICKET_DAYS) + timedelta(days=1)).cast(
            pl.Datetime("us", "UTC")
        )
        # what was answered since then never reached the warehouse either
        answered_before = pl.when(pl.col("updated_at") < stopped).then("updated_at").otherwise("created_at")
        return rows.filter(pl.col("created_at") < stopped).with_columns(updated_at=answered_before)
    if relation == "product.users" and day >= plan.planned_last:
        return _broken_emails(rows)
    if relation == "product.accounts":
        return pl.concat([rows, rows.head(2).with_columns(seats=pl.col("seats") + 1)])
    if relation == "billing.customers":
        return _crossed(rows)
    return rows


def _broken_emails(rows: pl.DataFrame) -> pl.DataFrame:
    luck = pl.Series([int(hashed_hex(f"broken {key}", 4), 16) % 100 for key in rows["user_id"]], dtype=pl.Int64)
    masked = pl.col("email").str.slice(0, 1) + pl.lit("***@***")
    return rows.with_columns(email=pl.when(luck < 25).then(pl.lit("")).when(luck < 45).then(masked).otherwise("email"))


def _crossed(rows: pl.DataFrame) -> pl.DataFrame:
    """Give three customers the CRM id of the next customer that has one."""
    contacts = rows.filter(pl.col("crm_contact_id").is_not_null()).sort("customer_id").head(6)
    wrong = dict(zip(contacts["customer_id"][::2], contacts["crm_contact_id"][1::2], strict=False))
    crossed = pl.col("customer_id").replace_strict(wrong, default=None, return_dtype=pl.String)
    return rows.with_columns(crm_contact_id=pl.coalesce(crossed, "crm_contact_id"))
