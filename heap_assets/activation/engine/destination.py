"""What a destination says of itself: how rows become calls, and what an answer means for the call and for its rows."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any, Literal

import polars as pl

from heap_assets.activation.engine.auth import Auth
from heap_assets.activation.engine.exchange import Exchange, Request
from heap_assets.activation.engine.limits import Limits
from heap_assets.activation.engine.spec import Mode
from heap_assets.activation.engine.value_rules import Recipe, ValueRules
from heap_assets.activation.engine.verdict import Response, RowVerdict, Trouble, Verdict, reason_of
from heap_assets.errors import DeliveryError


@dataclass(slots=True)
class Row:
    """One row of a batch as a destination sees it."""

    key: str
    """What the ledger knows the row by: the destination's key, or the event key."""
    person: str
    """Who it is about: the key of an upsert, the identity an event goes to."""
    values: Mapping[str, Any]
    """Mapped properties: text, number or boolean; None for one that is sent as null."""
    extra: Mapping[str, Any] = field(default_factory=dict)
    """Addressing columns of the rows other than the key (`event`, `time`, `event_key`, ...)."""
    removed: bool = False
    """Of a set: the row leaves it; a batch holds only rows that enter, or only rows that leave."""
    remote_id: str | None = None
    """Id of its record at the destination, if an earlier verdict told it."""
    identifier: str = ""
    """The key as calls have it: as the destination's `key_recipe` makes it, the key itself without one."""

    @property
    def filled(self) -> dict[str, Any]:
        """The mapped properties that have a value."""
        return {name: value for name, value in self.values.items() if value is not None}

    @property
    def cleared(self) -> list[str]:
        """The mapped properties whose value is gone."""
        return [name for name, value in self.values.items() if value is None]


@dataclass(frozen=True)
class Dedupe:
    """What the destination does with a row that it is sent twice: it decides what is done about a lost answer.

    `natural`: nothing bad, the row is sent again. `window`: it drops the second one for `seconds`; later it would count
    twice. `none`: it counts twice: a row without an answer stays `unknown` and is not sent again by itself.
    """

    kind: Literal["none", "window", "natural"] = "natural"
    seconds: float = 0.0


class Service:
    """A vendor's API at one account: what any call there needs to know, of rows or not.

    Attributes
    ----------
    kind, limits
        Its name, and what its calls may hold and how many there may be.
    auth
        How calls say who they are, unless the requests do it themselves.
    dedupe
        What becomes of a row that arrives twice.
    """

    kind: str = "custom"
    limits: Limits = Limits()
    auth: Auth | None = None
    dedupe: Dedupe = Dedupe()

    @property
    def target(self) -> str:
        """Name the account written to, without secrets: another target is another ledger's worth of rows."""
        return self.kind

    @property
    def account(self) -> str:
        """Name the address and the account that is written to: each has a ledger of its own. Only its hash is kept."""
        return self.target

    def trouble(self, response: Response) -> Trouble | None:
        """Return what is wrong with a call as a whole, or None: then its rows are judged.

        It is asked about every answer of every request, before anything else; by default the status tells.
        """
        return Trouble.of_status(response)


class Destination(Service, ABC):
    """A service that rows are sent to, a batch by :meth:`exchange`: any number of calls.

    Attributes
    ----------
    mode
        How rows become calls.
    required, optional
        Columns of the rows it needs or takes besides the key and the mapped ones.
    key_may_be_null
        Rows may be addressed otherwise.
    accepted
        Status of a row that the destination took: `acknowledged`, or `sent` where only a later export proves it.
    values
        How null, booleans, times and long texts look there.
    recipes
        Property to how the identifier is made that is sent as it (advertising).
    key_recipe
        The same of the key, where it is an identifier: `Row.identifier`. Keys that are none are invalid.
    replaces
        Of a set that can only be given whole: a run that changes anything gives every member, in one batch and one
        exchange, in which rows that leave are marked as `removed`.
    divisible
        Whether many rows may be judged part by part: rows whose keys are one but for upper case, as numbers or by the
        `key_recipe` are always in one part. False where `invalid_rows` compares rows otherwise; where `held_rows` is
        overridden they are judged at once in any case.
    """

    mode: Mode = Mode.UPSERT
    required: tuple[str, ...] = ()
    optional: tuple[str, ...] = ()
    key_may_be_null: bool = False
    accepted: Literal["acknowledged", "sent"] = "acknowledged"
    replaces: bool = False
    divisible: bool = True
    values: ValueRules = ValueRules()
    recipes: Mapping[str, Recipe] = {}
    key_recipe: Recipe | None = None

    def batch_rows(self, planned: int) -> int:
        """Return the most rows of a batch in a run that is to send so many: many may go in another way than few."""
        del planned
        return self.limits.batch_rows

    def precondition_error(self) -> str | None:
        """Return why nothing can be sent yet, or None."""
        return None

    def invalid_rows(self, rows: pl.LazyFrame) -> Mapping[str, pl.Expr]:
        """Return reason to expression that is true for rows that must not be sent."""
        del rows
        return {}

    def held_rows(self, rows: pl.DataFrame, ledger: pl.DataFrame) -> pl.Series:
        """Return for planned rows why they are held because of what was sent before (text), or null."""
        del ledger
        return pl.Series("reason", [None], dtype=pl.String).new_from_index(0, len(rows))

    def element(self, row: Row) -> Any:
        """Return the JSON value that stands for one row in a request."""
        return {"key": row.key, "properties": dict(row.values)}

    @abstractmethod
    def exchange(self, elements: Sequence[bytes], rows: Sequence[Row]) -> Exchange:
        """Deliver a batch of encoded elements: yields calls and other steps, returns what became of the rows."""

    def resume(self, state: Mapping[str, Any], rows: Sequence[Row]) -> Exchange:
        """Go on with a batch whose run was stopped after it had yielded :class:`Remember`; needed by kinds that do.

        `rows`: as they were in the batch and in its order, with keys and remote ids, but without values.
        """
        raise DeliveryError(
            f"{self.kind} has remembered {', '.join(sorted(state))} of a batch and has no `resume`, which would go on "
            "with it: add that method to its destination"
        )


class BaseDestination(Destination):
    """Base of destinations that make one call a batch: `request` is all that a simple one has to say."""

    @abstractmethod
    def request(self, elements: Sequence[bytes], rows: Sequence[Row]) -> Request:
        """Build one call from encoded elements."""

    def rejections(self, response: Response, rows: Sequence[Row]) -> Mapping[int, str] | None:
        """Return index to reason of the rows that this answer rejects, or None if it does not say."""
        del response, rows
        return None

    def verdict(self, response: Response, rows: Sequence[Row]) -> Verdict:
        """Return what an answer means for each row; by default what the status and `rejections` say.

        Whether a refused batch was applied in part, nobody says (heap.md 1.3).
        """
        refused = {i: RowVerdict("rejected", str(why)) for i, why in (self.rejections(response, rows) or {}).items()}
        return Verdict(refused) if response.accepted else Verdict(refused, "unknown", reason_of(response))

    def exchange(self, elements: Sequence[bytes], rows: Sequence[Row]) -> Exchange:
        """Deliver a batch by one call, judged by :meth:`verdict`."""
        response = yield self.request(elements, rows)
        return self.verdict(response, rows)


class RowByRowDestination(BaseDestination):
    """Base of destinations whose calls take one row, and to which a row that arrives twice does no harm.

    `request` and `verdict` are asked for each row of a batch. The log is written for a batch, whose rows a killed run
    sends again.
    """

    def exchange(self, elements: Sequence[bytes], rows: Sequence[Row]) -> Exchange:
        """Deliver a batch by one call a row."""
        verdicts: dict[int, RowVerdict] = {}
        for index, (element, row) in enumerate(zip(elements, rows, strict=True)):
            response = yield replace(self.request([element], [row]), rows=1)
            answer = self.verdict(response, [row])
            own = RowVerdict(self.accepted) if answer.rest == "applied" else RowVerdict("rejected", answer.reason)
            verdicts[index] = answer.rows.get(0, own)
        return Verdict(verdicts)
