"""Members of static lists, by the ids of their leads, which are looked up before."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import Any, ClassVar, Literal
from urllib.parse import urlencode

from pydantic import Field

from heap_assets.activation.connectors.inputs import MemberConnector, MemberSettings
from heap_assets.activation.connectors.marketo.instance import (
    BATCH_ROWS,
    NO_LEAD,
    MarketoDestination,
    ToMarketo,
    reason_of_row,
    results_of,
    tried,
)
from heap_assets.activation.engine.destination import Row
from heap_assets.activation.engine.exchange import Exchange, Request
from heap_assets.activation.engine.spec import Mode
from heap_assets.activation.engine.verdict import RowVerdict, Verdict, reason_of
from heap_assets.sources.warehouse import Permission

_NO_MEMBER = "1015"


class MarketoListsSync(MemberSettings, ToMarketo):
    """Members of a static list of Marketo.

    **To create there:** as for `marketo_leads`, and a static list. **What is matched:** the key with `lookup_field`.
    Keys without a lead are left alone (`no_match`). Who is no member any more is removed; members that were added in
    Marketo stay. **What can be refused:** keys of several leads (`invalid`). **Never run against Marketo itself.**
    """

    takes_properties: ClassVar[bool] = False

    kind: Literal["marketo_lists"] = "marketo_lists"
    list_id: int = Field(ge=1, description="Id of the static list: the number after ST in its address")


class MarketoListsConnector(MemberConnector[MarketoListsSync]):
    """Members of an audience to a static list."""

    settings_model = MarketoListsSync
    untried = "whether the API user may write lists, and whether the field of the key is unique: Marketo has no call"

    def destination(self, table: str = "") -> MarketoLists:
        return MarketoLists(self.settings)

    def preflight(self) -> Iterator[Permission]:
        destination = self.destination()
        with self.api() as api:
            yield from tried(api, destination, (), {})
            members = Request(f"{destination.url}/rest/v1/lists/{self.settings.list_id}/leads.json", method="GET")
            is_shown = results_of(api.call(members)) is not None  # that there is none is an error that ends the call
        yield Permission("list", is_shown, "it is there" if is_shown else "Marketo does not show it")


class MarketoLists(MarketoDestination):
    """Adds and removes members by the ids of their leads, which are looked up each time: leads are merged there."""

    kind = "marketo_lists"
    mode = Mode.SET

    def __init__(self, settings: MarketoListsSync) -> None:
        super().__init__(settings)
        self._list = settings.list_id

    @property
    def target(self) -> str:
        return f"{super().target}:{self._list}"

    def element(self, row: Row) -> str:
        return row.key

    def request(self, elements: Sequence[bytes], rows: Sequence[Row]) -> Request:
        leads = "&".join(f"id={id.decode()}" for id in elements)
        return Request(
            f"{self.url}/rest/v1/lists/{self._list}/leads.json?{leads}", method="DELETE" if rows[0].removed else "POST"
        )

    def exchange(self, elements: Sequence[bytes], rows: Sequence[Row]) -> Exchange:
        ids_by_value: dict[str, list[str]] = {row.key.lower(): [row.key] for row in rows} if self.lookup == "id" else {}
        if self.lookup != "id":
            answer = yield self._look_up(rows)
            leads = results_of(answer)
            if leads is None:
                return Verdict(rest="not_applied", reason=reason_of(answer))
            for lead in leads:
                ids_by_value.setdefault(str(lead[self.lookup]).lower(), []).append(str(lead["id"]))
        ids = [ids_by_value.get(row.key.lower(), []) for row in rows]
        chosen = list(dict.fromkeys(id for one in ids if len(one) == 1 or rows[0].removed for id in one))
        results_by_id: dict[str, Any] = {}
        for start in range(0, len(chosen), BATCH_ROWS):
            answer = yield self.request([id.encode() for id in chosen[start : start + BATCH_ROWS]], rows)
            results = results_of(answer)
            if results is None:
                return Verdict(rest="not_applied", reason=reason_of(answer))
            results_by_id |= {str(result["id"]): result for result in results}
        return Verdict({index: _member(row, ids[index], results_by_id) for index, row in enumerate(rows)})

    def _look_up(self, rows: Sequence[Row]) -> Request:
        """Return a query in a body: an address would be too short, and would show keys to whoever logs it."""
        keys = ",".join(row.key for row in rows)
        query = {"_method": "GET", "filterType": self.lookup, "fields": f"id,{self.lookup}", "filterValues": keys}
        headers = {"Content-Type": "application/x-www-form-urlencoded"}
        url = f"{self.url}/rest/v1/leads.json?_method=GET"
        return Request(url, urlencode(query).encode(), headers=headers, repeatable=True, rows=0)


def _member(row: Row, ids: Sequence[str], results_by_id: Mapping[str, Any]) -> RowVerdict:
    if not ids:
        return (
            RowVerdict("acknowledged") if row.removed else RowVerdict("no_match", "Marketo has no lead with this key")
        )
    if len(ids) > 1 and not row.removed:
        return RowVerdict("invalid", f"{len(ids)} leads have this key")
    codes = {reason_of_row(results_by_id[id]) for id in ids if results_by_id[id].get("status") == "skipped"}
    for code, reason in codes - {("", ": skipped")}:  # skipped without a reason: it was one already
        if row.removed and code in (NO_LEAD, _NO_MEMBER):
            continue
        return RowVerdict("no_match" if code == NO_LEAD else "rejected", reason)
    return RowVerdict("acknowledged")
