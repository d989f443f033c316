"""What the columns of the platform's own tables mean, and which of them name a person."""

from collections.abc import Mapping
from dataclasses import dataclass

from heap_assets.project import Project
from heap_assets.tables import (
    AUDIENCES,
    AUDIT,
    CHANGES,
    CONFLICTS,
    DUMPS,
    GRAPH,
    LINKS,
    MIGRATIONS,
    PROFILES,
    SHARED,
    USERS,
    is_heap_table,
    is_sync,
    is_warehouse_table,
    sync_name,
    warehouse_asset,
    warehouse_table,
)


@dataclass(frozen=True)
class Words:
    """What a column means."""

    text: str
    personal: bool = False


_END = "a value that names a person"
_OWN: Mapping[str, Mapping[str, Words]] = {
    LINKS: {
        "type_a": Words("Identifier type of the stronger end."),
        "value_a": Words(f"The stronger end: {_END}.", personal=True),
        "type_b": Words("Identifier type of the weaker end; empty for an identifier seen alone."),
        "value_b": Words(f"The weaker end: {_END}.", personal=True),
        "source": Words("Table whose rows say so."),
        "first_seen": Words("When a row first said so, UTC."),
        "last_seen": Words("When a row last said so, UTC."),
        "count": Words("Rows that say so."),
        "authoritative": Words("Heap has decided it: the link is never refused."),
    },
    GRAPH: {
        "identifier_type": Words("Type of the identifier, such as email."),
        "identifier": Words(f"The identifier: {_END}.", personal=True),
        "profile_id": Words("The person it belongs to; empty if it is shared."),
        "first_seen": Words("First row that names it, UTC."),
        "last_seen": Words("Last row that names it, UTC."),
        "shared": Words("It belongs to several people and merges nobody."),
    },
    CONFLICTS: {
        "type_a": Words("Identifier type of the stronger end of the refused link."),
        "value_a": Words("The stronger end.", personal=True),
        "type_b": Words("Identifier type of the weaker end."),
        "value_b": Words("The weaker end.", personal=True),
        "sources": Words("Tables whose rows say that both are one person."),
        "first_seen": Words("When a row first said so, UTC."),
        "limited_type": Words("The type whose merge limit refused it."),
        "limit": Words("How many of that type a profile may have."),
        "count_a": Words("How many the profile of the stronger end had."),
        "count_b": Words("How many the profile of the weaker end had."),
        "profile_a": Words("Profile of the stronger end."),
        "profile_b": Words("Profile of the weaker end."),
    },
    SHARED: {
        "identifier_type": Words("Type of the shared value."),
        "identifier": Words("The value that belongs to several people.", personal=True),
        "stronger_type": Words("The type by which these people were told apart."),
        "groups": Words("How many people it belongs to."),
    },
    CHANGES: {
        "old_profile_id": Words("Profile of the day before; empty if it is new."),
        "new_profile_id": Words("Profile of the day; empty if it is gone."),
        "kind": Words("merged, split, moved, renamed, created or removed."),
        "identifiers": Words("Identifiers that both have."),
    },
    PROFILES: {
        "profile_id": Words("The person: 128 bits of SHA-256 over the strongest, earliest identifier."),
        "first_seen": Words("First row of any table that names the person, UTC."),
        "last_seen": Words("Last row that names the person, UTC."),
        "identifiers": Words("All identifiers, strongest type first.", personal=True),
        "heap_identity": Words("The Heap identity that properties are sent to.", personal=True),
        "heap_identities": Words("All Heap identities; more than one is a duplicate in Heap.", personal=True),
        "heap_user_ids": Words("All of Heap's users that are this person."),
        "conflicts": Words("Refused links that touch the profile."),
    },
    AUDIENCES: {
        "audience": Words("Name of the audience."),
        "profile_id": Words("A member."),
    },
    AUDIT: {
        "metric": Words("What was counted."),
        "subject": Words("The table, type or limit it was counted of."),
        "value": Words("The count."),
        "share": Words("The count as a share of what it is a part of."),
    },
    MIGRATIONS: {"resolved_to": Words("The end of the chain of migrations."), "cycle": Words("The chain has no end.")},
    USERS: {"migrated_to": Words("The user that this one has become; empty if it stands.")},
    DUMPS: {},
}


_BEHAVIOUR: Mapping[str, str] = {
    "session_count": "Sessions in the last {} days.",
    "active_days": "Days of the last {} with a session.",
    "last_active": "Newest session of the last {} days.",
    "engagement_score": "0 to 100: how often, how lately and how broadly the product was used in {} days.",
    "lifecycle_stage": "Where the person stands, by what was done in the last {} days.",
}


def words_for(project: Project, path: str) -> dict[str, Words]:
    """Return column to its meaning, as far as settings and code know it before anything is built."""
    found = dict(_OWN.get(path, {}))
    if path == PROFILES:
        return found | _traits(project)
    if is_warehouse_table(path):
        return found | _warehouse(project, path)
    if is_sync(path):
        return _properties(project, sync_name(path))
    if is_heap_table(path):
        table = project.catalogue.tables.get(project.heap_tables.get(path, ""))
        known = {name: Words(c.description, c.pii) for name, c in (table.columns if table else {}).items()}
        return known | found
    return found


def _traits(project: Project) -> dict[str, Words]:
    profiles, found = project.settings.profiles, {}
    for name, trait in profiles.traits.items():
        told = f"{trait.description.rstrip('.')}. " if trait.description else ""
        found[name] = Words(
            f"{told}From {' or '.join(trait.sources)} ({trait.choose.replace('_', ' ')}).", trait.personal
        )
        found[f"{name}__source"] = Words(f"Which column `{name}` came from.")
    if profiles.behaviour:
        found |= {name: Words(text.format(profiles.behaviour.days)) for name, text in _BEHAVIOUR.items()}
        for name, event in profiles.behaviour.features.items():
            found[name] = Words(f"Whether the person did `{event}` in the last {profiles.behaviour.days} days.")
    for name in profiles.audiences:
        found[name] = Words("Whether the person is in this audience.")
    return found


def _warehouse(project: Project, path: str) -> dict[str, Words]:
    settings = project.settings.warehouse
    table = settings.tables[warehouse_table(path)] if settings else None
    found: dict[str, Words] = {}
    for mapping in project.snapshot_sources[path].mappings:
        for column in (name.partition(".")[0].partition("[")[0] for name in mapping.columns):
            before = f"{found[column].text.rstrip('.')}, " if column in found else "Identifies a person: "
            found[column] = Words(f"{before}{mapping.type}.", personal=True)
    for column, text in _roles(table.key, table.created_at, table.updated_at) if table else ():
        told = f"{text} {found[column].text}" if column in found else text
        found[column] = Words(told, column in found and found[column].personal)
    for name, trait in project.settings.profiles.traits.items():
        for source in trait.sources:
            asset, _, column = source.partition(".")
            if warehouse_asset(asset) == path:
                known = found.get(column, Words(""))
                found[column] = Words(
                    f"{known.text} Gives the trait `{name}`.".strip(), known.personal or trait.personal
                )
    return found


def _roles(key: str | None, created: str | None, updated: str | None) -> list[tuple[str, str]]:
    roles = [(key, "Key of the row."), (created, "When the record came to be."), (updated, "When it last changed.")]
    return [(column, text) for column, text in roles if column]


def _properties(project: Project, name: str) -> dict[str, Words]:
    """Say of each property that is sent where it comes from, back to the columns of the source tables."""
    sync = project.settings.sync[name]
    traits = project.settings.profiles.traits
    found = {}
    for prop, column in sync.properties.items():
        if sync.source == PROFILES and column in traits:
            told = f"Trait `{column}` of profiles, from {' or '.join(traits[column].sources)}."
            found[prop] = Words(told, traits[column].personal)
        else:
            found[prop] = Words(f"Column `{column}` of {sync.source}.")
    return found
