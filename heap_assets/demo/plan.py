"""When what happens in the dump series: days, dump ids, and the nights on which Heap does something unusual."""

from dataclasses import dataclass
from datetime import UTC, date, datetime, timedelta

from heap_assets.demo.chance import hashed_hex, micros
from heap_assets.errors import HeapAssetsError

DIGIT_BOUNDARY = 1_000_000_000
GROWTH_DAYS = 60
"""People keep joining for this many days after `until`, so that `grow` has news."""


class DemoError(HeapAssetsError):
    """The sample company cannot be written as asked."""


@dataclass(frozen=True)
class Plan:
    """The parameters that the whole sample company follows from; days count from `first_day` = 0.

    `grown` is the number of days that were added after the company was first written: it changes which days exist and
    nothing about the days before.
    """

    people: int
    days: int
    seed: int
    first_day: date
    faults: bool
    grown: int = 0

    @property
    def midnight(self) -> int:
        """Midnight of day 0 in microseconds since 1970."""
        return micros(self.first_day)

    @property
    def history_end(self) -> int:
        """The day of the first dump, which carries everything up to and including that day."""
        return (self.days - 1) // 3

    @property
    def planned_last(self) -> int:
        """The last day as first written, from which planted oddities are placed."""
        return self.days - 1

    @property
    def last_day(self) -> int:
        """The newest day that exists now."""
        return self.days - 1 + self.grown

    @property
    def dump_days(self) -> range:
        """The days that have a dump of their own."""
        return range(self.history_end, self.last_day + 1)

    def date_of(self, day: int) -> date:
        """Return the calendar day of a day number."""
        return self.first_day + timedelta(days=day)

    def _between(self, share: float) -> int:
        """Return a day that is this share of the way from the first nightly dump to the planned last one."""
        first = min(self.history_end + 1, self.planned_last)
        return first + round((self.planned_last - first) * share)

    @property
    def resync_day(self) -> int:
        """In this day's dump `feature_used` comes whole, because its definition was changed."""
        return self._between(0.5)

    @property
    def new_column_day(self) -> int:
        """From this day's dump on `users` has the column `deal_stage`."""
        return self._between(0.3)

    @property
    def new_table_day(self) -> int:
        """This day's dump is the first to have the table `ticket_opened`."""
        return self._between(0.6)

    @property
    def skipped_day(self) -> int:
        """This day's dump lacks the table `invite_teammate`; its rows come a night later."""
        return self._between(0.2)

    @property
    def text_time_day(self) -> int:
        """From this day's dump on `users.joindate` is text instead of microseconds."""
        return self._between(0.7)

    def dump_id(self, day: int) -> int:
        """Return a dump's id: large, increasing, with gaps, and one digit longer from mid-series on (heap.md 2.2)."""
        crossing = self._between(0.4)
        gaps = [self._gap(step) for step in range(min(day, crossing), max(day, crossing))]
        return DIGIT_BOUNDARY + 7 + (sum(gaps) if day >= crossing else -sum(gaps) - 8)

    def _gap(self, day: int) -> int:
        return 37 + int(hashed_hex(f"gap {self.seed} {day}", 8), 16) % 193

    def written_at(self, day: int, *, now: datetime | None = None) -> datetime:
        """Return when a day's dump was finished: the night after, about 02:00 UTC, and never in the future.

        Raises
        ------
        DemoError
            If the day is not over for long enough that a dump written now would belong to it (as_of − 12 h, design.md).
        """
        minute = 95 + int(hashed_hex(f"written {self.seed} {day}", 8), 16) % 55
        planned = datetime.combine(self.date_of(day + 1), datetime.min.time(), UTC) + timedelta(minutes=minute)
        written = min(planned, now or datetime.now(UTC))
        if (written - timedelta(hours=12)).date() != self.date_of(day):
            raise DemoError(
                f"{self.date_of(day)} cannot have a dump yet: a dump carries a day that is over (UTC). "
                "Choose an earlier last day, such as yesterday."
            )
        return written
