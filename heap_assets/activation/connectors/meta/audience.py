"""Members of a custom audience: rows of identifiers by position, up to 10,000 a call, which are hashed here."""

from __future__ import annotations

import hashlib
from collections.abc import Generator, Iterable, Iterator, Mapping, Sequence
from datetime import datetime, timedelta
from typing import Any, Literal
from urllib.parse import urlencode

import orjson
import polars as pl
from pydantic import Field, model_validator

from heap_assets import clock
from heap_assets.activation.connectors.inputs import MemberConnector, MemberSettings
from heap_assets.activation.connectors.meta.account import MetaDestination, ToMeta
from heap_assets.activation.connectors.preflight import untried
from heap_assets.activation.engine.destination import Row
from heap_assets.activation.engine.exchange import Exchange, Remember, Request, Step
from heap_assets.activation.engine.limits import Limits
from heap_assets.activation.engine.spec import Mode
from heap_assets.activation.engine.value_rules import Recipe
from heap_assets.activation.engine.verdict import Response, RowVerdict, Verdict, reason_of
from heap_assets.config import HashedSettings
from heap_assets.sources.warehouse import Permission

_ROWS, _KEY_UNITS = 10_000, 255
_SESSION = timedelta(minutes=80)
"""A replacement has about 90 minutes; one that is older is begun anew."""
_FEW = 20
"""So many invalid rows of a call are worth the calls that find them; of more only the number is reported."""
_COUNTED = "Meta counts it as invalid"
_VALUE = "LOOKALIKE_VALUE"
_BLOCKED = frozenset({471})
"""Codes of an audience's `operation_status` with which it takes no uploads."""
RECIPES: Mapping[str, Recipe] = {
    "EMAIL": Recipe("email"),
    "PHONE": Recipe("phone_digits"),
    "FN": Recipe("name_without_punctuation"),
    "LN": Recipe("name_without_punctuation"),
    "FI": Recipe("first_letter"),
    "GEN": Recipe("gender"),
    "DOBY": Recipe("year"),
    "DOBM": Recipe("two_digits"),
    "DOBD": Recipe("two_digits"),
    "CT": Recipe("city"),
    "ST": Recipe("city"),
    "ZIP": Recipe("postal_code"),
    "COUNTRY": Recipe("country"),
    "MADID": Recipe("lower", hashed=False),
}
"""Keys of Meta's schema, and how each is written (destinations_b.md 2)."""


class MetaAudienceSync(MemberSettings, HashedSettings, ToMeta):
    """Members of a custom audience of Meta.

    **To create there:** a custom audience of the type customer list; its terms accepted for the ad account; a system
    user whose token has `ads_management`.

    **What is matched:** Meta looks for people with the identifiers of `properties`: EMAIL, PHONE, FN, LN, FI, GEN,
    DOBY, DOBM, DOBD, CT, ST, ZIP, COUNTRY, MADID; LOOKALIKE_VALUE is a number. They are normalised and hashed with
    SHA-256 here; one that is none is left out. A phone number needs its country code (`+49…`). The key is an id of
    yours (EXTERN_ID, which goes as it is), or an identifier itself. Who left, or has no `consent` any more, is removed;
    with `replace: true` the audience is given whole whenever anything changed, so that members whom others added leave,
    too.

    **What can be refused:** Meta counts invalid rows and does not name them. Up to 20 of a call are found by sending
    parts of it again; of more the report has the number. Rows count as sent: changes take Meta up to a day.

    **Never run against Meta itself.**

    ```yaml
    kind: meta_audience
    access_token: ${META_TOKEN}
    app_secret: ${META_SECRET}
    audience_id: "23840000000001"
    source: customers          # a table whose key is an id of yours
    member: in_trial
    consent: ads_consent
    properties: {EMAIL: email, PHONE: phone, COUNTRY: country}
    ```
    """

    kind: Literal["meta_audience"] = "meta_audience"
    audience_id: str = Field(pattern=r"^[0-9]+$", description="Id of the custom audience")
    key_identifier: Literal["EXTERN_ID", "EMAIL", "PHONE", "MADID"] = Field(
        default="EXTERN_ID", description="What the key is: an id of yours, or an identifier"
    )
    consent: str = Field(description="Boolean trait or column; without true a row is not sent, and a member is removed")
    replace: bool = Field(default=False, description="Give the audience whole whenever anything changed")
    batch_rows: int = Field(default=_ROWS, ge=1, le=_ROWS, description="Rows of a call")

    @model_validator(mode="after")
    def _properties_are_identifiers(self) -> MetaAudienceSync:
        schema = {*RECIPES, _VALUE} - {self.key_identifier}
        if unknown := sorted(set(self.properties) - schema):
            raise ValueError(f"properties: {unknown[0]!r} is none of {', '.join(sorted(schema))}")
        if self.key_identifier == "EXTERN_ID" and not set(self.properties) - {_VALUE}:
            raise ValueError("properties: Meta finds nobody by EXTERN_ID alone; map EMAIL, PHONE or others")
        return self


class MetaAudienceConnector(MemberConnector[MetaAudienceSync]):
    """Members of an audience to a custom audience."""

    settings_model = MetaAudienceSync
    untried = "whether the token may change the audience: only a change shows it. Identifiers are checked when loading"

    def destination(self, table: str = "") -> MetaAudience:
        return MetaAudience(self.settings)

    def preflight(self) -> Iterator[Permission]:
        """Try the token and whether the audience is there, takes identifiers and is not blocked."""
        with self.api() as api:
            audience = api.call(self.destination().look_up()).fields
        yield Permission("login", True, "the audience can be read")
        is_list = audience.get("subtype", "CUSTOM") == "CUSTOM"
        detail = "is a customer list" if is_list else f"is of the type {audience['subtype']}"
        yield Permission("audience", is_list, detail, "take an audience of the type customer list")
        status = audience.get("operation_status") or {}
        blocked = status.get("code") in _BLOCKED
        detail = str(status.get("description") or ("uploads are blocked" if blocked else "takes uploads"))
        yield Permission("uploads", not blocked, detail, "look at its status in the Audience Manager")
        yield untried("scope", self.untried)


class MetaAudience(MetaDestination):
    """Adds and removes members, or gives all of them in one session of ordered calls."""

    kind = "meta_audience"
    mode = Mode.SET
    accepted = "sent"
    recipes = RECIPES

    def __init__(self, settings: MetaAudienceSync) -> None:
        super().__init__(settings)
        self._audience, self._rows, self.replaces = settings.audience_id, settings.batch_rows, settings.replace
        self._key, self._names = settings.key_identifier, tuple(settings.properties)
        self.key_recipe = RECIPES.get(self._key)
        self._schema = orjson.dumps([self._key, *self._names])
        self._left_open: Mapping[str, Any] | None = None
        account = f"meta:{self.url}:{self._audience}"
        self.limits = Limits(batch_rows=self._rows, key_units=_KEY_UNITS, shared_by=account)

    @property
    def target(self) -> str:
        return f"{self.kind}:{self.url}:{self._audience}:{self._key}"

    def invalid_rows(self, rows: pl.LazyFrame) -> Mapping[str, pl.Expr]:
        faults: dict[str, pl.Expr] = {}
        if _VALUE in self._names:
            faults[f"{_VALUE} is negative"] = (pl.col(f"v:{_VALUE}") < 0).fill_null(value=False)
        if self._key == "EXTERN_ID":
            identifiers = [pl.col(f"v:{name}").is_not_null() for name in self._names if name != _VALUE]
            faults["it has no identifier that Meta could match"] = ~pl.any_horizontal(identifiers)
            faults["key is an e-mail address, which would go unhashed"] = pl.col("key").str.contains("@", literal=True)
        return faults

    def element(self, row: Row) -> list[Any]:
        values = row.filled
        return [row.identifier, *(values.get(name, 0 if name == _VALUE else "") for name in self._names)]

    def request(self, elements: Sequence[bytes], rows: Sequence[Row]) -> Request:
        return self._call("users", elements, method="DELETE" if rows[0].removed else "POST")

    def look_up(self) -> Request:
        """Return the call that looks at the audience."""
        query = urlencode({"fields": "id,subtype,operation_status", **self.proof()})
        return Request(f"{self.versioned}/{self._audience}?{query}", method="GET")

    def _call(self, edge: str, elements: Iterable[bytes], *, method: str = "POST", **members: Any) -> Request:
        payload = b'{"payload":{"schema":' + self._schema + b',"data":[' + b",".join(elements) + b"]}"
        beside = orjson.dumps({**members, **self.proof()})[1:-1]
        body = payload + (b"," if beside else b"") + beside + b"}"
        return Request(f"{self.versioned}/{self._audience}/{edge}", body, method)

    def exchange(self, elements: Sequence[bytes], rows: Sequence[Row]) -> Exchange:
        if not self.replaces:
            return (yield from super().exchange(elements, rows))
        members = [element for element, row in zip(elements, rows, strict=True) if not row.removed]
        leavers = [element for element, row in zip(elements, rows, strict=True) if row.removed]
        left_open, self._left_open = self._left_open, None
        begun = {"id": _session_id(members, rows), "sequence": 1, "began": clock.now().isoformat()}
        answers = yield from self._replacement(members, left_open or begun)
        # nobody knows whether the earlier run ended its session
        if left_open and len(answers) == 2 and not answers[1].accepted:
            answers = yield from self._replacement(members, begun)
        # a part that the earlier run sent may have who left; without members there is no session
        if answers[-1].accepted and (left_open or not members):
            for at in range(0, len(leavers), self._rows):
                answer = yield self._call("users", leavers[at : at + self._rows], method="DELETE")
                answers.append(answer)
                if not answer.accepted:
                    break
        if not answers[-1].accepted:
            return Verdict(rest="not_applied", reason=reason_of(answers[-1]))
        invalid = sum(map(_invalid, answers))
        return Verdict(unnamed={_COUNTED: invalid} if invalid else {})

    def _replacement(
        self, members: Sequence[bytes], session: Mapping[str, Any]
    ) -> Generator[Step, Response, list[Response]]:
        """Give all members in a session; returns the answers, of which only the last one may be a refusal."""
        answers = [Response(200)]
        for at in range(0, len(members), self._rows):
            sequence = session["sequence"] + at // self._rows
            yield Remember({**session, "sequence": sequence})
            is_last = at + self._rows >= len(members)
            of_session = {"session_id": session["id"], "batch_seq": sequence, "last_batch_flag": is_last}
            session_fields = {**of_session, "estimated_num_total": len(members)}
            answers.append((yield self._call("usersreplace", members[at : at + self._rows], session=session_fields)))
            if not answers[-1].accepted:
                break
        return answers

    def resume(self, state: Mapping[str, Any], rows: Sequence[Row]) -> Exchange:
        """Leave the session to the next exchange, which has the values: an audience has one session at a time."""
        yield from ()
        if clock.now() - datetime.fromisoformat(state["began"]) < _SESSION:
            self._left_open = state
        return Verdict(rest="not_applied", reason="the run ended before the audience was given whole")

    def verdict(self, response: Response, rows: Sequence[Row]) -> Verdict:
        if not response.accepted:
            return Verdict(rest="not_applied", reason=reason_of(response))
        invalid = _invalid(response)
        if invalid >= len(rows):
            return Verdict({index: RowVerdict("rejected", _COUNTED) for index in range(len(rows))})
        if invalid > _FEW:
            return Verdict(unnamed={_COUNTED: invalid})
        return Verdict(rest="unknown" if invalid else "applied")


def _invalid(response: Response) -> int:
    return int(response.fields.get("num_invalid_entries") or 0)


def _session_id(members: Iterable[bytes], rows: Sequence[Row]) -> int:
    """Return a number for a session: the same only for the same members of the same run."""
    members_hash = hashlib.sha256(b"".join([str(rows[0].extra.get("fence")).encode(), *members]))
    return int.from_bytes(members_hash.digest()[:6], "big") | 1
