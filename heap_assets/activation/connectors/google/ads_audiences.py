"""Members of an audience (a user list) by the older Ads endpoints: a job of each batch, which takes hours."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from datetime import timedelta
from typing import Any, ClassVar, Literal

from pydantic import Field, model_validator

from heap_assets.activation.connectors.google.ads import (
    UNTRIED,
    GoogleAdsDestination,
    ToGoogleAds,
    code_of,
    errors_of,
    looked_up,
    refused_rows,
)
from heap_assets.activation.connectors.google.login import begun_now, details_of, overdue
from heap_assets.activation.connectors.google.people import ADS, CONSENT, NAMES, GooglePeopleSettings
from heap_assets.activation.connectors.inputs import MemberConnector, MemberSettings
from heap_assets.activation.connectors.preflight import untried
from heap_assets.activation.engine.destination import Row
from heap_assets.activation.engine.exchange import LATER, Exchange, Remember, Request, Wait
from heap_assets.activation.engine.spec import Mode
from heap_assets.activation.engine.verdict import RowVerdict, Verdict, reason_of
from heap_assets.sources.warehouse import Permission

_OPERATIONS = 10_000
"""Each has up to 3 identifiers besides its key, and a call up to 100,000."""
_QUERY = (
    "SELECT offline_user_data_job.status, offline_user_data_job.failure_reason FROM offline_user_data_job "
    "WHERE offline_user_data_job.resource_name = '{}'"
)


class GoogleAdsAudiencesSync(MemberSettings, GooglePeopleSettings, ToGoogleAds):
    """Members of a Customer Match audience of Google, by the Ads API, for accounts that may still use it.

    Google lets in only developer tokens that uploaded members between October 2025 and March 2026; others take
    `google_audiences`, which this is like in what is matched and in who is removed. **To create there:** a developer
    token, a login that may use the account, an audience of the type customer list.

    **What can be refused:** single rows, by name. Each batch is a job, of adding or of removing, that takes Google
    about six hours: later runs ask for its end, and its rows count as unanswered until then. What a job has not ended
    within 48 hours is given to another one, which does no harm. The first population of an audience takes up to 48
    hours, in which its rows raise no alarm. **Never run against Google itself.**
    """

    first_population: ClassVar[timedelta] = timedelta(hours=48)

    kind: Literal["google_ads_audiences"] = "google_ads_audiences"
    consent: str = CONSENT
    audience_id: str = Field(pattern=r"^[0-9]+$", description="Id of the audience (user list)")
    key_identifier: Literal["email", "phone"] = Field(default="email", description="What the key is")
    poll_seconds: float = Field(default=60.0, gt=0, description="Between two looks at a job")
    polls: int = Field(default=3, ge=1, description="Looks in one run; a job takes hours, and later runs ask for it")

    @model_validator(mode="after")
    def _properties_are_identifiers(self) -> GoogleAdsAudiencesSync:
        allowed = [name for name in NAMES if name != self.key_identifier]
        if unknown := sorted(set(self.properties) - set(allowed)):
            raise ValueError(f"properties: {unknown[0]!r} is none of {', '.join(allowed)}")
        return self


class GoogleAdsAudiencesConnector(MemberConnector[GoogleAdsAudiencesSync]):
    """Members of an audience to a user list."""

    settings_model = GoogleAdsAudiencesSync
    untried = UNTRIED

    def destination(self, table: str = "") -> GoogleAdsAudience:
        return GoogleAdsAudience(self.settings)

    def preflight(self) -> Iterator[Permission]:
        destination = self.destination()
        with self.api() as api:
            yield from looked_up(api, destination, "user_list", destination.list_name)
        yield untried("developer token", self.untried)


class GoogleAdsAudience(GoogleAdsDestination):
    """Adds and removes members by jobs: started, filled, run, and asked for their end."""

    kind = "google_ads_audiences"
    mode = Mode.SET

    def __init__(self, settings: GoogleAdsAudiencesSync) -> None:
        super().__init__(settings, settings.audience_id, _OPERATIONS)
        self._key, self.recipes = settings.key_identifier, settings.recipes
        self.key_recipe = self.recipes[self._key]
        self.list_name = f"{self.customer}/userLists/{settings.audience_id}"
        self._every, self._looks = settings.poll_seconds, settings.polls

    def element(self, row: Row) -> dict[str, Any]:
        identifiers = ADS.identifiers({**row.values, self._key: row.identifier})
        return {"remove" if row.removed else "create": {"userIdentifiers": identifiers}}

    def request(self, elements: Sequence[bytes], rows: Sequence[Row]) -> Request:
        """Return the call that starts an empty job."""
        granted = {"adUserData": "GRANTED", "adPersonalization": "GRANTED"}
        metadata = {"userList": self.list_name, "consent": granted}
        job = {"type": "CUSTOMER_MATCH_USER_LIST", "customerMatchUserListMetadata": metadata}
        return self.call(f"{self.customer}/offlineUserDataJobs:create", {"job": job}, rows=0)

    def exchange(self, elements: Sequence[bytes], rows: Sequence[Row]) -> Exchange:
        started = yield self.request(elements, rows)
        if not started.accepted:
            return Verdict(rest="not_applied", reason=reason_of(started))
        job = started.json["resourceName"]
        yield Remember({"job": job})
        body = b'{"enablePartialFailure":true,"operations":[' + b",".join(elements) + b"]}"
        added = yield self.call(f"{job}:addOperations", body)
        refused = refused_rows(added, "operations") if added.accepted else None
        if refused is None:
            return Verdict(rest="not_applied", reason=reason_of(added))
        if len(refused) == len(rows):
            return Verdict(_rejected(refused))
        named = {str(index): code for index, code in refused.items()}
        state = {"job": job, "runs": True, "refused": named, **begun_now()}
        yield Remember(state)
        return (yield from self.resume(state, rows))

    def resume(self, state: Mapping[str, Any], rows: Sequence[Row]) -> Exchange:
        if not state.get("runs"):
            return Verdict(rest="not_applied", reason="the run ended before the job was complete")
        refused = _rejected({int(index): code for index, code in state["refused"].items()})
        # whether an earlier run came so far, nobody knows; a job runs once whatever it is job_row
        ran = yield self.call(f"{state['job']}:run", b"{}", rows=0, reads=frozenset({404}))
        codes = {code_of(error)[1] for error in errors_of(details_of(ran))}
        if not ran.accepted and "JOB_ALREADY_STARTED" not in codes:
            return Verdict(refused, "not_applied", reason_of(ran))
        query = {"query": _QUERY.format(state["job"])}
        look = 0
        while True:
            answer = yield self.call(f"{self.customer}/googleAds:search", query, repeatable=True, rows=0)
            results = (answer.fields.get("results") or [{}]) if answer.accepted else [{}]
            job_row = results[0].get("offlineUserDataJob") or {}
            if job_row.get("status") == "SUCCESS":
                return Verdict(refused)
            if job_row.get("status") == "FAILED":
                reason = RowVerdict("rejected", f"the job failed: {job_row.get('failureReason', 'FAILED')}")
                return Verdict({**dict.fromkeys(range(len(rows)), reason), **refused})
            if (late := overdue(state, len(rows))) is not None:
                return Verdict({**late.rows, **refused})
            look += 1
            yield Wait(self._every) if look < self._looks else LATER


def _rejected(codes: Mapping[int, str]) -> dict[int, RowVerdict]:
    return {index: RowVerdict("rejected", code) for index, code in codes.items()}
