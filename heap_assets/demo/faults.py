"""The planted faults, in one list: what is wrong, where, and which check is expected to find it.

`planted` is the list; the other functions do the damage where the rows, files or tables are written. Faults are small on
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
        The first day (YYYY-MM-DD) on which it shows.
    found_by
        The check that is expected to find it, named as in the design.
    blocking
        Whether that check stops syncs that read the asset.
    """

    name: str
    done: str
    asset: str
    partition: str
    found_by: str
    blocking: bool = False

    def as_dict(self) -> dict[str, Any]:
        """Return the fault as plain data."""
        return asdict(self)


def planted(plan: Plan) -> list[Fault]:
    """Return the faults of a company; none if it was written without.

    Days are those of the company as first written; after `grow` only the fault `broken_email_column` has moved on.
    """
    if not plan.faults:
        return []
    last = plan.planned_last

    def day(number: int) -> str:
        return plan.date_of(max(0, number)).isoformat()

    newest = day(plan.last_day)
    return [
        Fault("stale_warehouse_table", f"The loader of support.tickets stopped {STALE_TICKET_DAYS} days before the end.",
              "warehouse/support_tickets", newest, "newest_row_is_recent"),
        Fault("stale_event_table", f"Heap exports no rows of {STALE_EVENT_TABLE} for the last {STALE_DAYS} days.",
              f"heap/events/{STALE_EVENT_TABLE}", day(last), "newest_row_is_recent"),
        Fault("duplicate_profiles", "Some people log in under their email and under the product's id: two Heap identities each.",
              "profiles", newest, "one_identity_per_profile", True),
        Fault("broken_email_column", "Nearly half of product.users.email is blank or masked since the newest load.",
              "warehouse/product_users", newest, "null_rate or refused identifier values"),
        Fault("bad_avro_file", f"The file of {BAD_FILE_TABLE} in one dump is cut off in the middle.",
              f"heap/events/{BAD_FILE_TABLE}", day(bad_file_day(plan)), "readable"),
        Fault("unreadable_rows", f"{REJECTED_TABLE} has rows whose ids or times cannot be read.",
              f"heap/events/{REJECTED_TABLE}", day(rejected_day(plan)), "rejected_rows"),
        Fault("personal_data", f"Emails and telephone numbers in the free text {PII_TABLE}.message.",
              f"heap/events/{PII_TABLE}", day(last - 1), "personal_data", True),
        Fault("duplicate_warehouse_key", "Two rows of product.accounts have the account_id of another row.",
              "warehouse/product_accounts", newest, "unique_key", True),
        Fault("migration_cycle", "Two identified users of one person migrate into each other.",
              "heap/user_migrations", newest, "migration_cycles"),
        Fault("crossed_keys", "Three billing customers carry the CRM id of somebody else.",
              "warehouse/billing_customers", newest, "warehouse_key_on_several_profiles"),
        Fault("volume_drop", f"Nine of ten rows of {SHRUNK_TABLE} are missing on one day.",
              f"heap/events/{SHRUNK_TABLE}", day(last - 1), "volume"),
    ]  # fmt: skip


def bad_file_day(plan: Plan) -> int:
    """The day whose dump has a file that is cut off."""
    return max(plan.history_end + 1, plan.planned_last - 3)


def rejected_day(plan: Plan) -> int:
    """The day whose dump has rows that cannot be read."""
    return max(plan.history_end, plan.planned_last - 1)


def spoil_rows(plan: Plan, table: str, day: int, rows: pl.DataFrame) -> pl.DataFrame:
    """Return a table's rows of a day of arrival with what is planted in them."""
    if not plan.faults:
        return rows
    last = plan.planned_last
    if table == STALE_EVENT_TABLE and day > last - STALE_DAYS:
        return rows.clear()
    if table == SHRUNK_TABLE and day == last - 1:
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
    """Return rows to add to a file whose ids are text: ids in floating point, blank or too long, and times that are none."""
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
        stopped = plan.date_of(plan.planned_last - STALE_TICKET_DAYS) + timedelta(days=1)
        return rows.filter(pl.col("created_at") < pl.lit(stopped).cast(pl.Datetime("us", "UTC")))
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
    known = rows.filter(pl.col("crm_contact_id").is_not_null()).sort("customer_id").head(6)
    wrong = dict(zip(known["customer_id"][::2], known["crm_contact_id"][1::2], strict=False))
    crossed = pl.col("customer_id").replace_strict(wrong, default=None, return_dtype=pl.String)
    return rows.with_columns(crm_contact_id=pl.coalesce(crossed, "crm_contact_id"))
