"""The top folders of the lake's state beside its tables, each named once.

A key of an object below one of them is `<folder>/…`; who owns the folder says below what its keys look like. Tables
never start with an underscore, so neither SQL over the lake nor a listing of tables meets these folders.
"""

from typing import Final

LANDING: Final = "_landing"
"""Records of dumps and the Parquet parts of their rows (`heap_connect`). To lose it: dumps land again."""

EXPORTS: Final = "_exports"
"""What was last seen of Heap's export in a warehouse, a fingerprint a day and table. To lose it: days are read anew."""

ENVIRONMENT: Final = "_environment"
"""Whose the lake is: app, prefix of asset keys, schemas published to. To lose it: names may be changed once."""

INBOX: Final = "_inbox"
"""Messages that were posted to us, by table and day, and those not yet in it. To lose it: they are lost for good."""

CATALOGUE: Final = "_catalogue"
"""The catalogue where the settings folder is read-only, and its changes. To lose it: `catalogue accept` again."""

OBSERVED: Final = "_observed"
"""What was last read of each warehouse table, so that only changes are read. To lose it: tables are read whole."""

IDENTITY: Final = "_identity"
"""Caches of identity resolution: extracted links and the resolved state. To lose it: one full resolution."""

PARTS: Final = "_parts"
"""Files of partitions that have several (`parts`). To lose it: those partitions are damaged; build them again."""

DECISIONS: Final = "_decisions"
"""Values of decisions whose file holds hashes, with the key. To lose it: these decisions hold no more."""

CHECK_RESULTS: Final = "_verdicts"
"""Results of checks, `<asset>/<check>/<partition>.json`. To lose it: syncs wait until checks have run again."""

SYNC: Final = "_sync"
"""Ledgers, logs, leases and reports of syncs, and the salt of hashes. To lose it: everything is sent again."""

QUOTAS: Final = "_quotas"
"""How many calls of a day were made to each account that has a daily quota. To lose it: today's are counted anew."""

FIRST_RUNS: Final = "_first_runs"
"""Syncs whose first run was shown and waits for a confirmation. To lose it: the first run is shown again."""

PUBLISHED: Final = "_published"
"""What was loaded into which published table. To lose it: targets are loaded once more."""

LOADING: Final = "_publishing"
"""Files that a warehouse is loading from the lake's own bucket. To lose it: the load fails, and is done again."""

REVERSE_ETL: Final = "_reverse_etl"
"""Runs of Hightouch and Census that are waited for. To lose it: a killed run starts another one there."""

REPORTS: Final = "_reports"
"""Which day of a report went to which file or mail server. To lose it: the newest day is mailed once more."""

ALERTS: Final = "_alerts"
"""Alerts that are open, and those that no channel has taken yet. To lose it: open alarms are sent again."""

STATUS: Final = "_status"
"""The status page. To lose it: it is written again in the morning."""

PRIVACY: Final = "_privacy"
"""Requests of erasure with their proofs, tombstones and their key, consent. To lose it: erased people come back."""

ALL: Final = (
    LANDING,
    EXPORTS,
    ENVIRONMENT,
    INBOX,
    CATALOGUE,
    OBSERVED,
    IDENTITY,
    PARTS,
    DECISIONS,
    CHECK_RESULTS,
    SYNC,
    QUOTAS,
    FIRST_RUNS,
    PUBLISHED,
    LOADING,
    REVERSE_ETL,
    REPORTS,
    ALERTS,
    STATUS,
    PRIVACY,
)
