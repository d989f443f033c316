"""Every fault that a check is there for, to be planted one by one on a sound company (`heap-assets demo --faults`).

The list answers one question for each check: what would have to go wrong, where it would really go wrong, so that this
check has to say so? Most faults are planted in what Heap, the warehouse or the destination hands over. A few rules are
held by the platform itself before any check; for those the partition is rewritten behind its back (`rewrite`).
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any

import polars as pl

from heap_assets.demo import plants_in_dumps as dumps
from heap_assets.demo.tamper import Dump

DUMPS, USERS, MIGRATIONS, PAGEVIEWS = "heap_connect/dumps", "heap/users", "heap/user_migrations", "heap/pageviews"
CONTACTS, CUSTOMERS, TICKETS = "warehouse/crm_contacts", "warehouse/billing_customers", "warehouse/support_tickets"
SYNC = "sync/heap_user_properties"
_USERS_API = "/api/add_user_properties"
Frames = Callable[[pl.DataFrame], pl.DataFrame]


@dataclass(frozen=True)
class Plant:
    """One fault, and where it shows.

    Attributes
    ----------
    name, done
        A short name, and what was done in one sentence.
    asset, found_by
        The asset and the check that is expected to find it; for alerts that no check gives, what the alert is about.
    dump
        Does the damage to the night's dump, before it is landed.
    sql
        Statements run on the warehouse, before it is read.
    rewrite
        What a stranger makes of the asset's newest partition in the lake; its checks are then run again.
    orders
        Orders to fail for the local Heap (server_faults.py).
    settings
        Other settings, by dotted key.
    nights
        Nights for which the fault stands; `sql` is done each night, `dump` too. None for what needs no new night.
    watch_hours
        Hours that are watched afterwards, for what only time tells.
    """

    name: str
    done: str
    asset: str
    found_by: str
    dump: Callable[[Dump], None] | None = None
    sql: tuple[str, ...] = ()
    rewrite: Frames | None = None
    orders: tuple[Mapping[str, Any], ...] = ()
    settings: Mapping[str, Any] = field(default_factory=dict)
    nights: int = 1
    watch_hours: int = 0


NOT_PLANTED: Mapping[str, str] = {
    "alive": "A sign of life, for a dead man's switch: what it tells is its absence.",
    "findings_are_settled": "It looks at the settings of masking each morning, not at what a day brings.",
    "keys_are_replaced_in_time": "The sample company's destinations are local servers: its keys have no age.",
    "no_key_ends_soon": "The sample company's destinations are local servers: its keys do not end.",
    "nothing_is_older": "The sample company is some days old; what is kept is kept for years.",
}
"""Checks and alerts without a plant, and why."""


def plants() -> list[Plant]:
    """Return all of them, in the order of the flow."""
    return [*_in_dumps(), *_in_the_warehouse(), *_in_identity(), *_in_profiles(), *_in_syncs()]


def _in_dumps() -> list[Plant]:
    message, feature = "heap/events/invite_teammate", "heap/events/feature_used"
    return [
        Plant("dump_cut_off", "A file of the dump is cut off in the middle.", DUMPS, "every_table_landed",
              lambda d: d.cut_off("pageviews")),
        Plant("file_missing", "A file that the manifest lists is not in the bucket.", PAGEVIEWS, "readable",
              lambda d: d.lose_file("pageviews")),
        Plant("new_table", "Somebody defined a new event in Heap.", DUMPS, "catalogue_is_complete",
              dumps.new_table),
        Plant("new_column", "A team tracks a new property.", DUMPS, "catalogue_is_complete",
              dumps.new_column("pageviews", "coupon")),
        Plant("quota_nearly_used", "The month's rows are nearly used up.", DUMPS, "rows_within_quota",
              settings={"heap.quota": {"rows_a_month": 1000}}),
        Plant("vanished_column", "A release no longer sends a property.", PAGEVIEWS, "columns_as_usual",
              dumps.without_column("pageviews", "title")),
        Plant("emptied_column", "A property arrives empty in two of three rows.", PAGEVIEWS, "columns_as_usual",
              dumps.mostly_empty("pageviews", "landing_page")),
        Plant("retyped_column", "A property of numbers in text arrives as a number.", feature, "columns_as_usual",
              dumps.as_number("feature_used", "duration_ms")),
        Plant("unreadable_rows", "Event ids have been through a spreadsheet.", PAGEVIEWS, "rejected_rows",
              dumps.ids_through_a_spreadsheet("pageviews")),
        Plant("volume_drop", "Tracking broke: nine of ten rows are missing.", PAGEVIEWS, "volume_as_usual",
              dumps.one_in_ten("pageviews")),
        Plant("volume_jump", "A loop in the product fires an event four times.", PAGEVIEWS, "volume_as_usual",
              dumps.four_times("pageviews")),
        Plant("unknown_sessions", "Events name sessions that Heap never exported.", PAGEVIEWS, "names_known",
              dumps.other_sessions("pageviews")),
        Plant("unknown_users", "Events name users that Heap never exported.", USERS, "users_of_events_known",
              dumps.other_users("pageviews")),
        Plant("emails", "Free text holds email addresses.", message, "no_personal_data",
              dumps.text("invite_teammate", "message", "write to ann.lee{n}@mail.example please")),
        Plant("card_numbers", "A property holds card numbers that pass Luhn.", feature, "no_personal_data",
              dumps.text("feature_used", "feature", "4242 4242 4242 4242")),
        Plant("social_security_numbers", "Free text holds social security numbers.", message, "no_personal_data",
              dumps.text("invite_teammate", "message", "my number is 219-09-{n:04d}")),
        Plant("phone_numbers", "A property holds telephone numbers.", feature, "no_personal_data",
              dumps.text("feature_used", "feature", "+1 415 555 {n:04d}")),
        Plant("ip_addresses", "A property holds IP addresses.", feature, "no_personal_data",
              dumps.text("feature_used", "feature", "8.8.{n}.{n}")),
        Plant("repeated_events", "A stranger wrote rows of a partition twice.", PAGEVIEWS, "unique_keys",
              rewrite=lambda rows: pl.concat([rows, rows.head(5)]), nights=0),
        Plant("events_of_other_days", "A stranger wrote rows into the wrong day.", PAGEVIEWS, "ids_and_times",
              rewrite=lambda rows: rows.with_columns(pl.col("time").dt.offset_by("1d")), nights=0),
        Plant("events_of_nobody", "A stranger wrote rows without a user.", PAGEVIEWS, "ids_and_times",
              rewrite=lambda rows: rows.with_columns(user_id=pl.lit(None, pl.Int64)), nights=0),
        Plant("event_stops", "A release no longer sends one event.", "heap/events/feature_used", "newest_row_is_recent",
              dumps.no_rows("feature_used"), nights=2, watch_hours=60),
        Plant("no_dump", "Heap delivers no dump any more.", PAGEVIEWS, "newest_row_is_recent",
              lambda d: d.withhold(), watch_hours=48),
        Plant("users_collapse", "A full resync brings a fraction of the users.", USERS, "not_shrunk",
              lambda d: d.call_complete("users")),
        Plant("repeated_users", "A stranger wrote users twice.", USERS, "unique_keys",
              rewrite=lambda rows: pl.concat([rows, rows.head(5)]), nights=0),
        Plant("users_without_id", "A stranger wrote users without an id.", USERS, "ids_present",
              rewrite=lambda rows: rows.with_columns(user_id=pl.lit(None, pl.Int64)), nights=0),
        Plant("users_lose_column", "Heap no longer exports a property of users.", USERS, "columns_as_usual",
              rewrite=lambda rows: rows.drop("role"), nights=0),
        Plant("migration_cycle", "Two users migrate into each other.", MIGRATIONS, "no_cycles", dumps.cycle),
        Plant("migration_chain", "A script calls identify in a loop.", MIGRATIONS, "chains_short", dumps.chain),
        Plant("migrations_of_nobody", "A stranger wrote migrations without their source.", MIGRATIONS, "ids_present",
              rewrite=lambda rows: rows.with_columns(from_user_id=pl.lit(None, pl.Int64)), nights=0),
    ]  # fmt: skip


def _in_the_warehouse() -> list[Plant]:
    return [
        Plant("column_gone", "A mapped column was renamed.", CONTACTS, "readable",
              sql=("ALTER TABLE crm.contacts RENAME email TO mail",)),
        Plant("table_gone", "A table was dropped.", CUSTOMERS, "readable", sql=("DROP TABLE billing.customers",)),
        Plant("repeated_key", "A join in the loader doubled some rows.", "warehouse/crm_accounts", "unique_keys",
              sql=("INSERT INTO crm.accounts SELECT * FROM crm.accounts LIMIT 5",)),
        Plant("row_without_key", "A row has no key.", CONTACTS, "ids_present",
              sql=("UPDATE crm.contacts SET contact_id = NULL WHERE rowid = 3",)),
        Plant("nobody_named", "Two thirds of the tickets name nobody.", TICKETS, "identifiers_filled",
              sql=("UPDATE support.tickets SET product_user_id = NULL, requester_email = NULL WHERE rowid % 3 > 0",)),
        Plant("masked_emails", "The loader masks emails.", "warehouse/product_users", "identifiers_well_formed",
              sql=("UPDATE product.users SET email = left(email, 1) || '***@***' WHERE rowid % 5 = 0",)),
        Plant("rows_collapse", "The loader stopped half way.", CONTACTS, "not_shrunk",
              sql=("DELETE FROM crm.contacts WHERE rowid % 2 = 0",)),
        Plant("column_emptied", "A column of the CRM arrives empty.", CONTACTS, "columns_as_usual",
              sql=("UPDATE crm.contacts SET stage = NULL",)),
        Plant("column_added", "The CRM has a new column.", CONTACTS, "columns_as_usual",
              sql=("ALTER TABLE crm.contacts ADD COLUMN score INTEGER",)),
        Plant("column_retyped", "A column of the billing system changed its type.", CUSTOMERS, "columns_as_usual",
              sql=("ALTER TABLE billing.customers ALTER mrr TYPE VARCHAR",)),
        Plant("endless_contracts", "The billing system writes contracts without an end as `infinity`.", CUSTOMERS,
              "values_kept", sql=("ALTER TABLE billing.customers ADD COLUMN ends_on DATE",
                                  "UPDATE billing.customers SET ends_on = 'infinity'")),
        Plant("loader_stopped", "The loader of one table stopped.", TICKETS, "newest_row_is_recent",
              sql=("DELETE FROM support.tickets WHERE created_at > (SELECT max(created_at) - INTERVAL 30 HOUR "
                   "FROM support.tickets)",), watch_hours=48),
        Plant("not_read_in_time", "A day was not read while it was new, and is asked for later.", CONTACTS,
              "read_from_source", watch_hours=1, settings={"late": "warehouse/crm_contacts"}),
    ]  # fmt: skip


def _in_identity() -> list[Plant]:
    graph = "identity/graph"
    return [
        Plant("endless_merging", "A shared test account takes in 150 anonymous users.", graph, "not_over_merged",
              dumps.many_become_one),
        Plant("migrated_apart", "A stranger parted users that Heap had migrated into each other.", graph,
              "migrations_followed", rewrite=dumps.migrated_apart, nights=0),
        Plant("limits_reached", "The product calls identify with a second id.", graph, "few_at_limit",
              dumps.second_identities),
        Plant("match_rate_falls", "Half of the customers lost email and CRM id.", graph, "matched_as_before",
              sql=("UPDATE billing.customers SET email = NULL, crm_contact_id = NULL WHERE rowid % 2 = 0",)),
        Plant("conflicts_rise", "Customers carry the CRM id of somebody else.", "identity/conflicts",
              "conflicts_as_usual", sql=(_CROSS_ALL,)),
        Plant("shared_inboxes", "Resellers pay for a few customers: every two are billed to one inbox.",
              "identity/conflicts", "claimed_by_one",
              sql=("UPDATE billing.customers SET email = 'billing' || rowid // 2 || '@reseller.example' "
                   "WHERE rowid < 20",)),
        Plant("shared_values_rise", "Twenty new kiosks: devices with several people on each.", "identity/shared",
              "shared_as_usual", dumps.kiosks),
        Plant("ids_renumbered", "The CRM was migrated: every contact has a new id.", "identity/changes", "ids_stable",
              sql=("UPDATE crm.contacts SET contact_id = 'M' || contact_id",
                   "UPDATE billing.customers SET crm_contact_id = 'M' || crm_contact_id")),
    ]  # fmt: skip


_CROSS_ALL = """UPDATE billing.customers SET crm_contact_id = other.id FROM (
    SELECT customer_id AS customer, lead(crm_contact_id) OVER (ORDER BY customer_id) AS id
    FROM billing.customers WHERE crm_contact_id IS NOT NULL) AS other
    WHERE customer_id = other.customer AND other.id IS NOT NULL AND crm_contact_id IS NOT NULL"""
_CROSS_SOME = _CROSS_ALL + " AND hash(customer_id) % 12 = 0"


def _in_profiles() -> list[Plant]:
    return [
        Plant("several_identities", "The product identifies one in ten people by a second id.", "profiles",
              "one_identity_per_profile", dumps.second_identities),
        Plant("trait_types_clash", "The CRM changed its account ids to numbers, the product kept its own.", "profiles",
              "traits_made",
              sql=("ALTER TABLE crm.contacts ALTER account_id TYPE BIGINT USING hash(account_id) % 100000",)),
        Plant("identity_on_two_profiles", "A stranger wrote an identity onto a second profile.", "profiles",
              "one_profile_per_identity", rewrite=dumps.identity_twice, nights=0),
        Plant("repeated_profiles", "A stranger wrote profiles twice.", "profiles", "unique_keys",
              rewrite=lambda rows: pl.concat([rows, rows.head(3)]), nights=0),
        Plant("result_without_rows", "A stranger emptied a result.", "analytics/activation", "result_has_rows",
              rewrite=lambda rows: rows.clear(), nights=0),
        Plant("anonymous_twins", "A release forgets to call identify: known people come back as anonymous users.",
              "profiles", "no_anonymous_twins", dumps.anonymous_again),
        Plant("shared_email", "A functional mailbox is the email of many contacts.", "profiles",
              "unique_identifiers_not_shared",
              sql=("UPDATE crm.contacts SET email = 'office@bigcorp.example' WHERE rowid % 40 = 0",)),
        Plant("crossed_keys", "Some customers carry the CRM id of somebody else.", "profiles",
              "one_profile_per_billing_customers_key", sql=(_CROSS_SOME,)),
        Plant("audience_empties", "The stages of deals, which define an audience, arrive empty.", "audiences",
              "members_as_usual", sql=("UPDATE crm.contacts SET stage = NULL",)),
        Plant("double_contacts", "Sales entered people a second time.", "profiles",
              "one_profile_per_crm_contacts_key",
              sql=("INSERT INTO crm.contacts SELECT * REPLACE ('D' || contact_id AS contact_id) FROM crm.contacts "
                   "WHERE hash(contact_id) % 20 = 0 AND email LIKE '%@%'",)),
    ]  # fmt: skip


_BY_DOMAIN: Mapping[str, Any] = {
    "source": "crm_accounts",
    "key": "domain",  # no key of the table: neither `unique_keys` nor `one_profile_per_identity` stands before it
    "account_id_configured": True,
    "properties": {"Industry": "industry"},
    "guard": {"max_removed": 1.0},
}


def _in_syncs() -> list[Plant]:
    paid = "UPDATE billing.customers SET {}, updated_at = updated_at + INTERVAL 1 SECOND WHERE rowid % {} = 0"
    moved = (paid.format("mrr = mrr + 1 + rowid % 50", 4),)
    return [
        Plant("rows_refused", "Heap refuses some of the rows.", SYNC, "few_rejected", sql=moved,
              orders=({"kind": "refuse_rows", "path": _USERS_API, "match": "^a|1$", "status": 400},)),
        Plant("values_too_long", "A value is longer than Heap takes.", SYNC, "few_invalid",
              sql=(paid.format("plan = repeat(customer_id, 150)", 6),)),
        Plant("no_answer", "Heap takes rows and never answers.", SYNC, "nothing_unanswered", sql=moved,
              orders=({"kind": "drop", "path": _USERS_API},)),
        Plant("credentials_refused", "The environment ID is not accepted any more.", SYNC, "delivered", sql=moved,
              orders=({"status": 401, "path": _USERS_API},)),
        Plant("key_of_two", "Accounts are sent by their domain, and two of them come to share one.",
              "sync/heap_account_properties", "one_row_per_key", settings={"sync.heap_account_properties": _BY_DOMAIN},
              sql=("UPDATE crm.accounts SET domain = (SELECT min(domain) FROM crm.accounts) WHERE rowid < 3",)),
        Plant("gate_shut", "A blocking check of the profiles' sources fails.", SYNC, "delivered",
              sql=("INSERT INTO crm.contacts SELECT * FROM crm.contacts LIMIT 3",)),
        Plant("ghost_users", "People we have sent to are gone from Heap's export.", SYNC, "no_ghost_users",
              dumps.identities_gone),
        Plant("never_delivered", "The destination is down for days.", SYNC, "newest_complete_day_delivered", sql=moved,
              orders=({"status": 401, "path": _USERS_API},), watch_hours=72),
        Plant("run_fails", "The destination's host is gone.", "sync__heap_user_properties", "run_failed", sql=moved,
              orders=({"kind": "dead"},)),
        Plant("bucket_gone", "The bucket cannot be listed.", "heap_manifests", "tick_failed",
              settings={"heap.source": {"kind": "folder", "path": "/nonexistent/bucket"}}, nights=0),
        Plant("daemon_silent", "The process that runs schedules is gone.", "scheduler daemon", "no_heartbeat",
              settings={"silent": "SCHEDULER"}, nights=0),
        Plant("webhook_dead", "A channel of alerts answers nobody.", "second", "undelivered",
              lambda d: d.cut_off("pageviews"), settings={"dead_channel": "second"}),
    ]  # fmt: skip
