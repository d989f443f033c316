"""Toy tables over a real lake, whose rows a test chooses by day."""

from datetime import UTC, datetime

import dagster as dg
import polars as pl

from heap_assets.storage import Lake

DAYS = dg.DailyPartitionsDefinition("2026-11-01", end_date="2026-11-08")


class LakeResource(dg.ConfigurableResource):
    url: str

    def open(self) -> Lake:
        return Lake.open(self.url)


def events(day: str, rows: int = 3, **columns: object) -> pl.DataFrame:
    noon = datetime.fromisoformat(f"{day}T12:00:00").replace(tzinfo=UTC)
    frame = pl.DataFrame(
        {"event_id": range(rows), "user_id": range(rows), "session_id": range(rows), "time": [noon] * rows},
        schema={"event_id": pl.Int64, "user_id": pl.Int64, "session_id": pl.Int64, "time": pl.Datetime("us", "UTC")},
    )
    return frame.with_columns(pl.lit(value).alias(name) for name, value in columns.items())
