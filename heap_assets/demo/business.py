"""What happens to customers as a business: plans they pay for, stages of their deal, tickets they open."""

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
import polars as pl

from heap_assets.demo import words
from heap_assets.demo.chance import DAY, NEVER, Ints, choose, daytime, moments, pick, stream
from heap_assets.demo.people import LEAD, People
from heap_assets.demo.plan import GROWTH_DAYS, Plan

MONTHLY = (0.0, 49.0, 199.0, 999.5)
"""Monthly price per plan, in the order of `words.PLANS`."""


@dataclass(frozen=True)
class Business:
    """Timelines of customers; moments are Int64 microseconds, `NEVER` if it does not happen.

    Attributes
    ----------
    upgrades
        person, at, from_plan, to_plan Int64 (indices of `words.PLANS`), by time.
    stage_at
        Per person and stage after the first, when it was reached.
    in_crm_at, in_billing_at
        Per person, when the CRM and billing got to know them.
    tickets
        ticket_id String; person, at Int64; email_choice, solved_after Int64; priority, subject String; by time.
    """

    upgrades: pl.DataFrame
    stage_at: Ints
    in_crm_at: Ints
    in_billing_at: Ints
    tickets: pl.DataFrame

    def plan_as_of(self, people: int, at: int) -> Ints:
        """Return per person the index of the plan that they have at a moment."""
        current = (self.in_billing_at <= at).astype(np.int64)
        upgrades = self.upgrades.filter(pl.col("at") <= at)
        np.maximum.at(current, upgrades["person"].to_numpy(), upgrades["to_plan"].to_numpy())
        return current[:people]

    def stage_as_of(self, at: int) -> pl.Series:
        """Return per person the stage of the deal at a moment; null for people the CRM does not know yet."""
        stage = pick(words.STAGES, (self.stage_at <= at).sum(axis=1))
        return pl.select(pl.when(pl.Series(self.in_crm_at <= at)).then(stage)).to_series()


def make_business(plan: Plan, people: People) -> Business:
    """Draw the timelines of a company's customers."""
    rng = stream(plan.seed, "business")
    persons = people.persons
    n = people.count
    joined = persons["born_at"].to_numpy()
    earlier = np.where((persons["kind"] == LEAD).to_numpy(), 0, rng.integers(-20, 40, n)) * DAY
    in_crm = np.where(persons["crm_id"].is_not_null().to_numpy(), joined - earlier, NEVER)
    in_billing = np.where(persons["billing_id"].is_not_null().to_numpy(), joined + rng.integers(0, 20, n) * DAY, NEVER)
    steps = np.cumsum(rng.exponential(35, (n, len(words.STAGES) - 1)) * DAY, axis=1).astype(np.int64)
    stage_at = np.where(in_crm[:, None] < NEVER, np.minimum(in_crm, NEVER // 2)[:, None] + steps, NEVER)
    return Business(_upgrades(rng, in_billing), stage_at, in_crm, in_billing, _tickets(plan, persons))


def _upgrades(rng: np.random.Generator, in_billing: Ints) -> pl.DataFrame:
    payers = np.flatnonzero(in_billing < NEVER)
    first = in_billing[payers] + rng.integers(3 * 86_400, 200 * 86_400, len(payers)) * 1_000_000
    second = first + rng.integers(10 * 86_400, 200 * 86_400, len(payers)) * 1_000_000
    goes, goes_on = rng.random(len(payers)) < 0.7, rng.random(len(payers)) < 0.3
    rows = [
        pl.DataFrame(
            {"person": payers[mask], "at": at[mask], "from_plan": step, "to_plan": step + 1}, schema_overrides=_INTS
        )
        for mask, at, step in ((goes, first, 1), (goes & goes_on, second, 2))
    ]
    return pl.concat(rows).sort("at", "person")


_INTS = {"person": pl.Int64, "at": pl.Int64, "from_plan": pl.Int64, "to_plan": pl.Int64}


def _tickets(plan: Plan, persons: pl.DataFrame) -> pl.DataFrame:
    rng = stream(plan.seed, "tickets")
    span = 200 + plan.days + GROWTH_DAYS
    n = max(60, persons.height * span // 350)
    signup = persons["signup_at"].to_numpy()
    person = rng.choice(np.flatnonzero(signup < NEVER), n)
    at: npt.NDArray[np.int64] = moments(
        plan.midnight, np.sort(rng.integers(-200, plan.days + GROWTH_DAYS, n)), daytime(rng, n)
    )
    frame = pl.DataFrame(
        {
            "person": person,
            "at": at,
            "email_choice": rng.choice([0, 0, 0, 1, 2], n),
            "solved_after": rng.integers(1, 20, n) * DAY,
            "priority": choose(rng, ("low", "normal", "high", "urgent"), n, (4, 8, 2, 1)),
            "subject": choose(rng, ("Export fails", "How do I share a board", "Invoice question", "Login problem"), n),
        }
    )
    frame = frame.filter(pl.Series(signup[person] < at)).sort("at", "person").with_row_index("number")
    return frame.with_columns(ticket_id=pl.format("T-{}", pl.col("number").cast(pl.Int64) * 3 + 50_000)).drop("number")
