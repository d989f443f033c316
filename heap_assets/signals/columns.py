"""The columns of firings, with their meaning."""

from collections.abc import Mapping

FIRING_COLUMNS: Mapping[str, str] = {
    "firing_id": "What this firing is known by, everywhere and for ever.",
    "signal": "Name of the signal.",
    "event": "Name that destinations call it by.",
    "time": "When the rule was met, UTC.",
    "profile_id": "The person, as known when it fired.",
    "identifier_type": "Type of the person's strongest identifier.",
    "identifier": "It, by which the firing finds its person after merges.",
    "heap_identity": "The person's Heap identity, if there was one.",
    "user_id": "Heap's user whose event it was, or one of the person's.",
    "step": "Step of a campaign, or missing; empty for other rules.",
    "status": "fired, or cancelled: what was missing came late.",
    "observed_at": "When it was computed, UTC.",
    "live": "Computed soon after its time: only such firings are sent, unless `backfill` says otherwise.",
}
PERSONAL_COLUMNS = frozenset({"identifier", "heap_identity"})
"""Those with personal data."""
