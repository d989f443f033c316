"""Members of an audience as Segment's Track (Audience Entered, Audience Exited) or Identify (features.md T5, T19)."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from datetime import date
from typing import Any, ClassVar, Literal

import polars as pl
from pydantic import Field, model_validator

from heap_assets import clock
from heap_assets.activation.connectors.base import Rows
from heap_assets.activation.connectors.inputs import MemberConnector, MemberSettings
from heap_assets.activation.connectors.segment import SegmentDestination, SegmentSource, ToSegment, anonymous_id
from heap_assets.activation.engine.addressing import Addressed
from heap_assets.activation.engine.destination import Row
from heap_assets.activation.engine.events import derived_id
from heap_assets.activation.engine.spec import Mode
from heap_assets.errors import SettingsError
from heap_assets.tables import PROFILES, USERS


class SegmentAudienceSync(MemberSettings, ToSegment):
    """Members of an audience, told to Segment as they enter and leave.

    **As Track:** `Audience Entered` and `Audience Exited` with the property `audience_name`. **As Identify:** a trait
    with the audience's name, true for members, false for who has left. With `use: suppress` the calls say so
    (`audience_use`, or the trait `suppress_<name>`): destinations behind Segment leave these people out.

    **Who is told:** people by their userId; with `anonymous: true` also people that Heap knows without an identity, by
    the anonymousId that `segment_track` gives their events.
    """

    takes_properties: ClassVar[bool] = False

    kind: Literal["segment_audience"] = "segment_audience"
    audience: str = Field(description="The audience: a Boolean column of profiles or of the table")
    audience_name: str | None = Field(default=None, description="What Segment calls it; its name here unless given")
    send: Literal["track", "identify"] = Field(default="track", description="Which calls tell of members")
    use: Literal["target", "suppress"] = Field(default="target", description="What the audience is for")
    anonymous: bool = Field(default=False, description="Also people without identity, by anonymousId")

    @model_validator(mode="after")
    def _member_is_the_audience(self) -> SegmentAudienceSync:
        if self.member is not None and self.member != self.audience:
            raise ValueError("member: audience says whose members they are; leave member out")
        if self.anonymous and self.source != PROFILES:
            raise ValueError("anonymous: only people of profiles have user ids of Heap; leave it out")
        object.__setattr__(self, "member", self.audience)
        return self


class SegmentAudienceConnector(MemberConnector[SegmentAudienceSync]):
    """Members of an audience by the identifier that is Segment's userId, or by anonymousId."""

    settings_model = SegmentAudienceSync

    def destination(self, table: str = "") -> SegmentAudience:
        return SegmentAudience(self.settings, self.deployment.settings.heap.app_id)

    def inputs(self) -> list[str]:
        return [PROFILES, USERS] if self.settings.source == PROFILES else super().inputs()

    def check(self) -> None:
        audiences = self.deployment.settings.profiles.columns
        if self.settings.source == PROFILES and self.settings.audience not in audiences:
            raise SettingsError(
                f"sync.{self.name}.audience is {self.settings.audience!r}, which is no audience. "
                f"Audiences: {', '.join(self.deployment.settings.profiles.audiences) or 'none'}"
            )

    def lineage(self) -> Iterator[tuple[str, str, str]]:
        yield self.settings.audience, self.inputs()[0], self.settings.audience

    def rows(self, day: date, table: str = "") -> Rows:
        rows = super().rows(day, table)
        if not self.settings.anonymous or not isinstance(rows, Addressed):
            return rows
        nameless = (
            self.deployment.lake.scan(PROFILES, str(day))
            .filter(pl.col("heap_identities").list.len() == 0)
            .explode("heap_user_ids", empty_as_null=False, keep_nulls=False)
            .select(
                "profile_id",
                key=anonymous_id(self.deployment.settings.heap.app_id, pl.col("heap_user_ids")),
                member=pl.col(self.settings.audience).cast(pl.Boolean),
            )
        )
        identified = rows.rows.select("profile_id", "key", "member")
        held = rows.held.join(nameless, on="profile_id", how="anti")
        return replace(rows, rows=pl.concat([identified, nameless]), held=held, writable=None)


class SegmentAudience(SegmentDestination):
    """Tells of members that enter and of members that leave."""

    kind = "segment_audience"
    mode = Mode.SET
    key_may_be_null = False

    def __init__(self, settings: SegmentAudienceSync, app_id: str) -> None:
        super().__init__(SegmentSource.of(settings))
        self._name = settings.audience_name or settings.audience
        self._settings = settings
        self._anonymous = f"heap|{app_id}|"

    @property
    def target(self) -> str:
        return f"{super().target}:{self._settings.send}:{self._name}"

    def element(self, row: Row) -> dict[str, Any]:
        settings, enters = self._settings, not row.removed
        is_anonymous = settings.anonymous and row.key.startswith(self._anonymous)
        message: dict[str, Any] = {
            "type": settings.send,
            "messageId": self._message_id(row),
            "anonymousId" if is_anonymous else "userId": row.key,
            "timestamp": clock.now().isoformat(timespec="milliseconds"),
            "integrations": {"Heap": False},
        }
        suppresses = settings.use == "suppress"
        if settings.send == "identify":
            return {**message, "traits": {f"suppress_{self._name}" if suppresses else self._name: enters}}
        properties = {"audience_name": self._name, "audience_use": settings.use}
        return {**message, "event": "Audience Entered" if enters else "Audience Exited", "properties": properties}

    def _message_id(self, row: Row) -> str:
        """Return a message id from run, member and direction: Segment drops a repeated call, and takes a return."""
        direction = "out" if row.removed else "in"
        return "heap_assets-" + derived_id(f"{self.target}:{row.extra.get('fence')}", f"{row.key}:{direction}")
