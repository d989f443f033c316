"""Whether the settings should map Heap's identity to more than it is mapped to, judged by the values themselves."""

from __future__ import annotations

from heap_assets.identity import EMAIL, HEAP_IDENTITY, identity_values
from heap_assets.project import Project
from heap_assets.tables import USERS


def identity_proposal(project: Project) -> str | None:
    """Return one sentence if many Heap identities are email addresses that nothing maps to emails; else None.

    The newest `heap/users` is looked at; before it is built there is nothing to judge by.
    """
    days = project.lake.partitions(USERS)
    mapped = {mapping.type for mapping in project.snapshot_sources[USERS].mappings if mapping.columns == ("identity",)}
    if not days or EMAIL in mapped or EMAIL not in project.rules.types:
        return None
    identities = project.lake.scan(USERS, days[-1]).select("identity").collect()["identity"]
    values = identity_values(identities)
    return values.summary if values.types != (HEAP_IDENTITY,) else None
