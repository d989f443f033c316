"""Group `inbox`: messages that other systems post, by day, and who identified and grouped themselves."""

from functools import partial

import dagster as dg

from heap_assets.orchestration.assets.table_step import TableAsset, table_step
from heap_assets.orchestration.automation import posted_days
from heap_assets.orchestration.checks import asset_key
from heap_assets.orchestration.schedules import policy_for
from heap_assets.pipelines.inbox import folded_day, message_day
from heap_assets.pipelines.suites import checks_of
from heap_assets.project import Project
from heap_assets.quality import Cadence
from heap_assets.tables import INBOX_ACCOUNTS, INBOX_USERS, inbox_asset

GROUP = "inbox"
_EVERY_DAY = Cadence()
"""A quiet day has its tables too: without a message they are empty."""
_ABOUT = {
    INBOX_USERS: "Who identified themselves, with the newest value of each trait; `account_id` is the group that they "
    "joined last. Traits of profiles may come from here.",
    INBOX_ACCOUNTS: "Accounts that people were grouped in, with the newest value of each trait.",
}


def inbox_tables(project: Project) -> list[dg.AssetsDefinition]:
    """Return the step that builds days of messages, and the one that folds them; none without an inbox."""
    if project.settings.inbox is None:
        return []
    messages = [
        _table(project, asset, f"Messages of the table `{table.name}`, each once, on the day on which they happened.")
        for asset, table in project.message_tables.items()
    ]
    deps = [asset_key(inbox_asset(name), project.names) for name in ("identify", "group")]
    folded = [_table(project, asset, about, deps) for asset, about in _ABOUT.items()]
    return [
        table_step(
            "inbox_message_tables",
            messages,
            project,
            description="Builds days of messages from what was posted; late ones rebuild their day.",
        ),
        table_step(
            "inbox_people",
            folded,
            project,
            description="Folds identify and group messages into users and accounts as of the end of each day.",
        ),
    ]


def _table(project: Project, asset: str, about: str, deps: list[dg.AssetKey] | None = None) -> TableAsset:
    spec = dg.AssetSpec(
        asset_key(asset, project.names),
        deps=deps,
        description=about,
        group_name=project.names.group(GROUP),
        kinds={"polars", "parquet"},
        tags={"source": GROUP, "table_kind": "snapshot" if deps else "event", "personal_data": ""},
        metadata={"dagster/table_name": asset.replace("/", "."), "dagster/uri": project.lake.store.uri(asset)},
        automation_condition=posted_days(project),
        freshness_policy=policy_for("heap", _EVERY_DAY),
    )
    return TableAsset(asset, partial(folded_day if deps else message_day, asset=asset), spec, checks_of(project, asset))
