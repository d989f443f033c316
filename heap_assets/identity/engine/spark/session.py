"""The Spark session of this process."""

from __future__ import annotations

import os
import sys
from typing import Final

from pyspark.sql import SparkSession

from heap_assets.identity.engine.spark.tuning import SparkTuning

_SETTINGS: Final = {
    "spark.sql.session.timeZone": "UTC",
    "spark.sql.ansi.enabled": "false",
    "spark.sql.adaptive.enabled": "true",
    "spark.sql.adaptive.skewJoin.enabled": "true",
    # Parquet of Polars says nothing of calendars: its dates are Gregorian
    "spark.sql.parquet.datetimeRebaseModeInRead": "CORRECTED",
    "spark.sql.parquet.datetimeRebaseModeInWrite": "CORRECTED",
    "spark.sql.parquet.outputTimestampType": "TIMESTAMP_MICROS",
}


def session(tuning: SparkTuning) -> SparkSession:
    """Return the session: one that is active already, or else a local one; its SQL settings are set."""
    return with_settings(SparkSession.getActiveSession() or _local(tuning), tuning)


def with_settings(spark: SparkSession, tuning: SparkTuning) -> SparkSession:
    """Set the SQL settings that the engine relies on, and return the session."""
    for name, value in {**_SETTINGS, "spark.sql.shuffle.partitions": str(tuning.parts)}.items():
        spark.conf.set(name, value)
    return spark


def _local(tuning: SparkTuning) -> SparkSession:
    os.environ.setdefault("PYSPARK_PYTHON", sys.executable)  # else executors run whichever python3 is first on PATH
    return (
        SparkSession.builder.master(f"local[{tuning.cores or '*'}]")
        .appName("heap_assets identity")
        .config("spark.driver.memory", tuning.memory)
        .config("spark.driver.host", "127.0.0.1")
        .config("spark.driver.bindAddress", "127.0.0.1")
        .config("spark.ui.enabled", "false")
        .config("spark.ui.showConsoleProgress", "false")
        .config("spark.log.level", "ERROR")
        .getOrCreate()
    )
