"""The two ways this platform cuts time: UTC days for every table, and Heap's dumps."""

from datetime import date

import dagster as dg

DUMPS = dg.DynamicPartitionsDefinition(name="heap_dumps")
"""One partition a dump, added by the manifest sensor."""


def days(start_date: date) -> dg.DailyPartitionsDefinition:
    """Return the UTC days from `start_date` to the running one.

    One definition serves every table: a backfill over several assets then needs one run a day rather than one a day
    and asset (reference: Dagster groups runs by equal partition definitions).
    """
    return dg.DailyPartitionsDefinition(start_date=start_date.isoformat(), timezone="UTC", end_offset=1)
