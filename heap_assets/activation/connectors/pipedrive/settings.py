"""What a sync to Pipedrive is told: the objects, their keys, and what a new one needs."""

from __future__ import annotations

from typing import ClassVar, Literal

from pydantic import Field, model_validator

from heap_assets.activation.connectors.inputs import RecordSettings
from heap_assets.activation.connectors.pipedrive.company import Objects, ToPipedrive
from heap_assets.config import PROPERTIES, Match, MatchSettings

OWN_ID = "id"
"""Key of those who know Pipedrive's ids."""
_VARCHAR = 255


class PipedriveRecordsSync(RecordSettings, MatchSettings, ToPipedrive):
    """What persons, organizations and deals have in common."""

    matches: ClassVar[tuple[Match, ...]] = ("update_only", "upsert")
    of: ClassVar[Objects]
    label: ClassVar[str] = "name"
    """The field that every record has."""
    plain_key: ClassVar[str] = "name"
    """A field of Pipedrive's own by which records are searched for."""

    properties: dict[str, str] = PROPERTIES
    key_field: str = Field(
        min_length=1,
        description="Custom field of type text that holds the key, by its name or key; or id",
    )
    longest_varchar: int = Field(default=_VARCHAR, ge=1, description="Characters of a custom field of type text")
    search_lag_minutes: int = Field(
        default=60, ge=0, description="Records that changed so recently are listed before one is made"
    )

    @model_validator(mode="after")
    def _new_records_have_a_name(self) -> PipedriveRecordsSync:
        if self.match_policy == "upsert" and self.key_field == OWN_ID:
            raise ValueError("match: upsert makes records, whose ids only Pipedrive gives: it must be update_only")
        if self.match_policy == "upsert" and self.label not in (self.key_field, *self.properties):
            raise ValueError(f"properties: match: upsert makes records, which need a {self.label}: map `{self.label}`")
        return self


class PipedrivePersonsSync(PipedriveRecordsSync):
    """Persons of Pipedrive, by a custom field or an e-mail address.

    **To create there:** an API token of a user who sees all persons; a custom field of type text for the key; the
    custom fields that are mapped, by their names (`heap-assets sync check` names those that are missing).

    **What is matched:** the key with `key_field`, or with one of a person's addresses (`key_field: email`); the id is
    remembered. `key_field: id` takes Pipedrive's own ids, such as another system has kept. Keys without a person are
    left alone (`no_match`) unless `match: upsert` is set, which needs a `name` for each; of a key that several persons
    have none is written (`invalid`). The search has the key in its address, which a proxy may log: an id of one's own
    is better than an e-mail address. It knows new persons only after a while: before one is made, those that changed in
    the last `search_lag_minutes` are listed, too.

    **What is sent:** `name`, `owner_id`, `org_id`, `marketing_status` and `visible_to` as such, all others as custom
    fields; of fields with options the label. A withdrawn value is sent as null, but for the name, which stays.
    Addresses and telephone numbers are never changed, and given to new persons only as the key.

    **What can be refused:** a value of another type, an option that a field does not have. A person whose answer was
    lost while it was made is `unknown` until the next run finds it. **Never run against Pipedrive itself.**
    """

    of: ClassVar[Objects] = "persons"
    plain_key: ClassVar[str] = "email"

    kind: Literal["pipedrive_persons"] = "pipedrive_persons"


class PipedriveOrganizationsSync(PipedriveRecordsSync):
    """Organizations of Pipedrive, by a custom field or their name.

    **To create there:** as for `pipedrive_persons`, with the fields of organizations. **What is matched:** the key with
    `key_field`; `key_field: name` matches the name, whatever its case. **What can be refused:** as of persons.
    **Never run against Pipedrive itself.**
    """

    of: ClassVar[Objects] = "organizations"

    kind: Literal["pipedrive_organizations"] = "pipedrive_organizations"
    source: str = Field(description="A warehouse table with one row per organization")


class PipedriveDealsSync(PipedriveRecordsSync):
    """Deals of Pipedrive, by Pipedrive's id, a custom field or their title.

    **To create there:** as for `pipedrive_persons`, with the fields of deals. **What is matched:** the key with
    `key_field`: a custom field, `id` for Pipedrive's own, or `title`; none is written of a key that several deals have
    (`invalid`).

    **What is sent:** `title`, `value`, `currency`, `status`, `stage_id`, `pipeline_id`, `person_id`, `org_id`,
    `owner_id` and `expected_close_date` as such, all others as custom fields.

    **What can be refused:** as of persons; a stage of another pipeline. **Never run against Pipedrive itself.**
    """

    of: ClassVar[Objects] = "deals"
    label: ClassVar[str] = "title"
    plain_key: ClassVar[str] = "title"

    kind: Literal["pipedrive_deals"] = "pipedrive_deals"
    source: str = Field(description="A warehouse table with one row per deal")
