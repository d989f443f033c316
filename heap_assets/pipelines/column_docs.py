"""What the columns of the platform's tables mean, as far as settings and code have it before anything is built."""

from collections.abc import Mapping
from dataclasses import dataclass

from heap_assets.analytics import result_columns
from heap_assets.config import AccountsSettings, Behaviour
from heap_assets.pipelines.analytics import query_of
from heap_assets.profiles import UNIFIED
from heap_assets.project import Project
from heap_assets.signals import FIRING_COLUMNS, PERSONAL_COLUMNS
from heap_assets.tables import (
    ACCOUNT_AUDIENCES,
    ACCOUNT_PROFILES,
    ANALYTICS,
    AUDIENCES,
    AUDIT,
    CHANGES,
    CONFLICTS,
    DUMPS,
    ERASURES,
    FINDINGS,
    GRAPH,
    KEYS,
    LINKS,
    MIGRATIONS,
    PROFILES,
    RETENTION,
    REVIEW,
    SHARED,
    SIGNALS,
    TOP_PAGES_COLUMN,
    UNIFIED_EVENTS,
    USERS,
    is_analytics,
    is_heap_table,
    is_signal,
    is_sync,
    sync_name,
    warehouse_asset,
    warehouse_table,
)


@dataclass(frozen=True)
class ColumnDoc:
    """The description of a column, and whether it holds personal data."""

    text: str
    personal: bool = False


_END = "a value that names a person"
_MEMBERSHIP: Mapping[str, ColumnDoc] = {
    "audience": ColumnDoc("Name of the audience."),
    "change": ColumnDoc("entered, stayed or left, from the day before."),
    "since": ColumnDoc("First day of the membership; of who left, the first day without."),
}
_COLUMNS: Mapping[str, Mapping[str, ColumnDoc]] = {
    LINKS: {
        "type_a": ColumnDoc("Identifier type of the stronger end."),
        "value_a": ColumnDoc(f"The stronger end: {_END}.", personal=True),
        "type_b": ColumnDoc("Identifier type of the weaker end; empty for an identifier seen alone."),
        "value_b": ColumnDoc(f"The weaker end: {_END}.", personal=True),
        "source": ColumnDoc("Table whose rows say so."),
        "first_seen": ColumnDoc("When a row first said so, UTC."),
        "last_seen": ColumnDoc("When a row last said so, UTC."),
        "count": ColumnDoc("Rows that say so."),
        "authoritative": ColumnDoc("Heap has decided it: the link is never refused."),
    },
    GRAPH: {
        "identifier_type": ColumnDoc("Type of the identifier, such as email."),
        "identifier": ColumnDoc(f"The identifier: {_END}.", personal=True),
        "profile_id": ColumnDoc("The person it belongs to; empty if it is shared."),
        "first_seen": ColumnDoc("First row that names it, UTC."),
        "last_seen": ColumnDoc("Last row that names it, UTC."),
        "shared": ColumnDoc("It belongs to several people and merges nobody."),
    },
    CONFLICTS: {
        "type_a": ColumnDoc("Identifier type of the stronger end of the refused link."),
        "value_a": ColumnDoc("The stronger end.", personal=True),
        "type_b": ColumnDoc("Identifier type of the weaker end."),
        "value_b": ColumnDoc("The weaker end.", personal=True),
        "sources": ColumnDoc("Tables whose rows say that both are one person."),
        "first_seen": ColumnDoc("When a row first said so, UTC."),
        "limited_type": ColumnDoc("The type whose merge limit refused it; empty if a decision did."),
        "limit": ColumnDoc("How many of that type a profile may have."),
        "count_a": ColumnDoc("How many the profile of the stronger end had."),
        "count_b": ColumnDoc("How many the profile of the weaker end had."),
        "profile_a": ColumnDoc("Profile of the stronger end."),
        "profile_b": ColumnDoc("Profile of the weaker end."),
        "decision": ColumnDoc("The decision of a person that refused it; empty if a limit did."),
    },
    SHARED: {
        "identifier_type": ColumnDoc("Type of the shared value."),
        "identifier": ColumnDoc("The value that belongs to several people.", personal=True),
        "stronger_type": ColumnDoc("The type by which these people were told apart."),
        "groups": ColumnDoc("How many people it belongs to."),
    },
    CHANGES: {
        "old_profile_id": ColumnDoc("Profile of the day before; empty if it is new."),
        "new_profile_id": ColumnDoc("Profile of the day; empty if it is gone."),
        "kind": ColumnDoc("merged, split, moved, renamed, created or removed."),
        "identifiers": ColumnDoc("Identifiers that both have."),
        "decision": ColumnDoc("The decision of a person behind it; empty if there is none."),
    },
    REVIEW: {
        "rank": ColumnDoc("1 is the most important."),
        "kind": ColumnDoc("claimed, refused, several, at_limit, moving or shared (docs/identity.md)."),
        "identifiers": ColumnDoc("What a decision would name, as type:value.", personal=True),
        "profiles": ColumnDoc("Profiles that it is about."),
        "rows": ColumnDoc("Rows of all tables that name one of the identifiers."),
        "money": ColumnDoc("Sum of the trait `identity.review_by` over these profiles."),
        "syncs": ColumnDoc("Syncs that send these profiles, counted once a profile."),
        "evidence": ColumnDoc("Why somebody should look."),
        "decision": ColumnDoc("The decision that would settle it; confirmed settles each as it is."),
    },
    PROFILES: {
        "profile_id": ColumnDoc("The person: 128 bits of SHA-256 over the strongest, earliest identifier."),
        "first_seen": ColumnDoc("First row of any table that names the person, UTC."),
        "last_seen": ColumnDoc("Last row that names the person, UTC."),
        "identifiers": ColumnDoc("All identifiers, strongest type first.", personal=True),
        "heap_identity": ColumnDoc("The Heap identity that properties are sent to.", personal=True),
        "heap_identities": ColumnDoc("All Heap identities; more than one is a duplicate in Heap.", personal=True),
        "heap_user_ids": ColumnDoc("All of Heap's users that are this person."),
        "conflicts": ColumnDoc("Refused links that touch the profile."),
    },
    ACCOUNT_PROFILES: {
        "account": ColumnDoc("Id of the account."),
        "people": ColumnDoc("Its people."),
        "active_people": ColumnDoc("Those with an event in the days of `accounts.behaviour`."),
    },
    AUDIENCES: {"profile_id": ColumnDoc("A member, or who was one the day before."), **_MEMBERSHIP},
    ACCOUNT_AUDIENCES: {"account": ColumnDoc("A member, or what was one the day before."), **_MEMBERSHIP},
    ERASURES: {
        "request": ColumnDoc("Id of the request, which says nothing of the person."),
        "state": ColumnDoc(
            "requested, confirmed, erasing, waiting (for a destination), complete, cancelled or lifted."
        ),
        "source": ColumnDoc("Where it came from: cli, or the asset of a table."),
        "requested_at": ColumnDoc("When it came in (UTC)."),
        "confirmed_at": ColumnDoc("When it was confirmed (UTC)."),
        "identifiers": ColumnDoc("Number of identifiers that it erases."),
        "left": ColumnDoc("Number of values that it leaves to others."),
        "destinations_asked": ColumnDoc("Destinations that were asked, or have to be by people."),
        "destinations_open": ColumnDoc("Destinations that have not finished, or could not be asked yet."),
    },
    FINDINGS: {
        "table": ColumnDoc("The table that was searched, as an asset."),
        "day": ColumnDoc("Its newest day, of which a sample was searched."),
        "column": ColumnDoc("Where it was found."),
        "kind": ColumnDoc("What values look like: email, phone, card_number and so on."),
        "rule": ColumnDoc("by value, by name, or the rule of privacy.rules that is about it."),
        "action": ColumnDoc("What that rule would do."),
        "values": ColumnDoc("Number of such values in the sample."),
        "rows_searched": ColumnDoc("Rows of the sample."),
        "share": ColumnDoc("Such values as a share."),
        "settled_by": ColumnDoc("What says that it is there on purpose; empty if nothing does."),
    },
    KEYS: {
        "key": ColumnDoc("The variable that holds the credential."),
        "issued": ColumnDoc("Day on which it was made, by the settings or as it tells itself."),
        "ends": ColumnDoc("Day on which it ends, or has to be replaced."),
        "age_days": ColumnDoc("Days since it was made."),
        "days_left": ColumnDoc("Days until it ends; below zero if it has to be replaced."),
        "why": ColumnDoc("What says so."),
    },
    RETENTION: {
        "table": ColumnDoc("The table, as an asset."),
        "oldest_day": ColumnDoc("Its oldest day in the lake."),
        "days": ColumnDoc("Days that it has."),
        "expired_days": ColumnDoc("Days that `keep` no longer asks for."),
        "expired_sources": ColumnDoc("Landed rows, or files of messages, that such days would be built from again."),
    },
    AUDIT: {
        "metric": ColumnDoc("What was counted."),
        "subject": ColumnDoc("The table, type or limit it was counted of."),
        "value": ColumnDoc("The count."),
        "share": ColumnDoc("The count as a share of what it is a part of."),
    },
    MIGRATIONS: {
        "resolved_to": ColumnDoc("The end of the chain of migrations."),
        "cycle": ColumnDoc("The chain has no end."),
    },
    USERS: {"migrated_to": ColumnDoc("The user that this one has become; empty if it stands.")},
    DUMPS: {},
    UNIFIED_EVENTS: {name: ColumnDoc(column.about, column.personal) for name, column in UNIFIED.items()},
}


_BEHAVIOUR: Mapping[str, str] = {
    "session_count": "Sessions in the last {} days.",
    "active_days": "Days of the last {} with a session.",
    "last_active": "Newest session of the last {} days.",
    "engagement_score": "0 to 100: how often, how lately and how broadly the product was used in {} days.",
    "lifecycle_stage": "Where the person stands, by what was done in the last {} days.",
}


def _asked_for(behaviour: Behaviour) -> dict[str, ColumnDoc]:
    """Describe the columns of behaviour that are made on request."""
    half = f"halves of the last {behaviour.days} days"
    trends = {
        "sessions_per_week": ColumnDoc(f"Sessions a week in the last {behaviour.days} days."),
        "trend": ColumnDoc(f"rising, steady or falling: sessions in the {half}; empty without any."),
        "features_used": ColumnDoc("How many of the features of `behaviour` were used."),
    }
    pages = {
        TOP_PAGES_COLUMN: ColumnDoc(f"The most frequent `{behaviour.top_pages}` of pageviews, the first the most.")
    }
    return (trends if behaviour.trends else {}) | (pages if behaviour.top_pages else {})


def column_docs(project: Project, path: str) -> dict[str, ColumnDoc]:
    """Return column to its description, as far as settings and code have it before anything is built."""
    fixed = dict(_COLUMNS.get(path, {}))
    if path == PROFILES:
        return fixed | _traits(project)
    if path == ACCOUNT_PROFILES and (accounts := project.settings.accounts):
        return fixed | _of_accounts(accounts)
    if is_analytics(path):
        query = query_of(project, path.removeprefix(ANALYTICS))
        return {name: ColumnDoc(meaning) for name, meaning in result_columns(query).items()}
    if is_signal(path):
        traits = project.signals[path.removeprefix(SIGNALS)].properties
        own = {name: ColumnDoc(text, name in PERSONAL_COLUMNS) for name, text in FIRING_COLUMNS.items()}
        return own | {name: ColumnDoc(f"The trait `{trait}` when it fired.") for name, trait in traits.items()}
    if warehouse_table(path) in project.settings.source_tables:
        return fixed | _inbox(project, path) | _warehouse(project, path)
    if is_sync(path):
        return _properties(project, sync_name(path))
    if is_heap_table(path):
        table = project.catalogue.tables.get(project.heap_tables.get(path, ""))
        from_catalogue = {name: ColumnDoc(c.description, c.pii) for name, c in (table.columns if table else {}).items()}
        return from_catalogue | fixed
    return fixed


def _traits(project: Project) -> dict[str, ColumnDoc]:
    profiles, docs = project.settings.profiles, {}
    for name, trait in profiles.traits.items():
        described = f"{trait.description.rstrip('.')}. " if trait.description else ""
        docs[name] = ColumnDoc(
            f"{described}From {' or '.join(trait.sources)} ({trait.choose.replace('_', ' ')}).", trait.personal
        )
        docs[f"{name}__source"] = ColumnDoc(f"Which column `{name}` came from.")
    if profiles.behaviour:
        docs |= _asked_for(profiles.behaviour)
        docs |= {name: ColumnDoc(text.format(profiles.behaviour.days)) for name, text in _BEHAVIOUR.items()}
        for name, event in profiles.behaviour.features.items():
            docs[name] = ColumnDoc(f"Whether the person did `{event}` in the last {profiles.behaviour.days} days.")
    for name, score in profiles.scores.items():
        described = f"{score.description.rstrip('.')}. " if score.description else ""
        docs[name] = ColumnDoc(f"{described}Weighted number of {', '.join(score.weights)} in {score.within_days} days.")
    for function in project.settings.functions.enrich.values():
        docs |= {name: ColumnDoc(f"Made by the function {function.file}.") for name in function.columns}
    for name in profiles.audiences:
        docs[name] = ColumnDoc("Whether the person is in this audience.")
    return docs


def _of_accounts(accounts: AccountsSettings) -> dict[str, ColumnDoc]:
    docs: dict[str, ColumnDoc] = {}
    if behaviour := accounts.behaviour:
        docs = {name: ColumnDoc(text.format(behaviour.days)) for name, text in _BEHAVIOUR.items()}
        docs |= _asked_for(behaviour)
        for name, event in behaviour.features.items():
            docs[name] = ColumnDoc(f"Whether any of its people did `{event}` in the last {behaviour.days} days.")
            docs[f"{name}_people"] = ColumnDoc("How many of its people did.")
    for name, score in accounts.scores.items():
        docs[name] = ColumnDoc(f"Weighted number of {', '.join(score.weights)} in {score.within_days} days.")
    return docs | {name: ColumnDoc("Whether the account is in this audience.") for name in accounts.audiences}


_OF_MESSAGES: Mapping[str, ColumnDoc] = {
    "message_id": ColumnDoc("Tells messages apart; of a message without one, a hash of what it says."),
    "time": ColumnDoc("When it happened."),
    "received_at": ColumnDoc("When it came."),
    "source": ColumnDoc("Who posted it, of `inbox.sources`."),
    "user_id": ColumnDoc("The user that the sender knows.", personal=True),
    "anonymous_id": ColumnDoc("The visitor that the sender knows.", personal=True),
    "previous_id": ColumnDoc("The former id of the user, of an alias.", personal=True),
    "group_id": ColumnDoc("The account, of a group call."),
    "event": ColumnDoc("Name of the event."),
    "name": ColumnDoc("Name of the page or screen."),
    "category": ColumnDoc("Category of the page or screen."),
    "sent_by": ColumnDoc("Who sent it, if that was us: such messages identify nobody."),
    "body": ColumnDoc("The message as it came, as JSON.", personal=True),
}


def _inbox(project: Project, path: str) -> dict[str, ColumnDoc]:
    if path not in project.message_tables:
        return {}
    own = {
        column.name: ColumnDoc(f"`{column.path}` of the message.") for column in project.message_tables[path].columns
    }
    added = {name: ColumnDoc("Made by the table's function.") for name in project.message_tables[path].added}
    return {**_OF_MESSAGES, **added, **own}


def _warehouse(project: Project, path: str) -> dict[str, ColumnDoc]:
    table = project.settings.source_tables[warehouse_table(path)]
    docs: dict[str, ColumnDoc] = {}
    for mapping in project.sources[path].mappings:
        for column in (name.partition(".")[0].partition("[")[0] for name in mapping.columns):
            prefix = f"{docs[column].text.rstrip('.')}, " if column in docs else "Identifies a person: "
            docs[column] = ColumnDoc(f"{prefix}{mapping.type}.", personal=True)
    for column, text in _roles(table.key, table.created_at, table.updated_at):
        described = f"{text} {docs[column].text}" if column in docs else text
        docs[column] = ColumnDoc(described, column in docs and docs[column].personal)
    for name, trait in project.settings.profiles.traits.items():
        for source in trait.sources:
            asset, _, column = source.partition(".")
            if warehouse_asset(asset) == path:
                doc = docs.get(column, ColumnDoc(""))
                docs[column] = ColumnDoc(
                    f"{doc.text} Gives the trait `{name}`.".strip(), doc.personal or trait.personal
                )
    return docs


def _roles(key: str | None, created: str | None, updated: str | None) -> list[tuple[str, str]]:
    roles = [(key, "Key of the row."), (created, "When the record came to be."), (updated, "When it last changed.")]
    return [(column, text) for column, text in roles if column]


def _properties(project: Project, name: str) -> dict[str, ColumnDoc]:
    """Describe where each property that is sent comes from, back to the columns of the source tables."""
    sync = project.settings.sync[name]
    traits = project.settings.profiles.traits
    docs = {}
    for prop, column in sync.properties.items():
        if sync.source == PROFILES and column in traits:
            described = f"Trait `{column}` of profiles, from {' or '.join(traits[column].sources)}."
            docs[prop] = ColumnDoc(described, traits[column].personal)
        else:
            docs[prop] = ColumnDoc(f"Column `{column}` of {sync.source}.")
    return docs
