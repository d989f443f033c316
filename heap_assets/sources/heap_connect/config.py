"""The choices of landing."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from datetime import UTC, date, datetime, timedelta

from heap_assets.sources.heap_connect.avro_container import Limits
from heap_assets.sources.heap_connect.selection import Selection


def _utc_now() -> datetime:
    return datetime.now(UTC)


@dataclass(frozen=True)
class LandingConfig:
    """Choices of landing.

    Attributes
    ----------
    start_date
        First day of which event rows are kept (inclusive).
    workers
        Tables landed at the same time.
    recheck_dumps
        So many of the newest dumps are looked at for files that were changed in place (None: all).
    retry_after, retry_at_most
        A failed table is tried again after the first, then after twice that, and so on up to the second.
    limits
        What a data file may take up once it is decompressed.
    """

    start_date: date
    tables: Selection = field(default_factory=Selection)
    workers: int = 2
    recheck_dumps: int | None = 30
    retry_after: timedelta = timedelta(minutes=5)
    retry_at_most: timedelta = timedelta(hours=6)
    limits: Limits = field(default_factory=Limits)
    now: Callable[[], datetime] = _utc_now

    def retry_at(self, attempts: int) -> datetime:
        """Say when something that failed so many times is tried again."""
        wait: timedelta = min(self.retry_after * 2 ** min(attempts - 1, 20), self.retry_at_most)
        return self.now() + wait
