"""Privacy: erasure with proof, tombstones, the register of places, and what of people a table holds."""

from heap_assets.privacy.consent import (
    consent_column,
    consent_since_column,
    long_statements,
    newest_statements,
    wide_statements,
    with_consent,
)
from heap_assets.privacy.journal import Entry, Journal, Tally, tallies
from heap_assets.privacy.kinds import KINDS, Kind, is_card, luhn
from heap_assets.privacy.masking import (
    STAND_IN,
    Masker,
    MaskHits,
    MaskRule,
    SelectorError,
    parsed_selector,
    pseudonyms_of,
)
from heap_assets.privacy.people import Left, Named, Pair, People, Plan, people_of, plans, requests_of_pairs, spelled
from heap_assets.privacy.places import ELSEWHERE, PLACES, UNREGISTERED, Place, place_of, unregistered
from heap_assets.privacy.proof import proof_of, proof_page
from heap_assets.privacy.requests import OPEN, Request, Requests, State, begun, closed, new_id, planned
from heap_assets.privacy.rows import Erased, Eraser, Shape
from heap_assets.privacy.texts import BLANKED, Texts
from heap_assets.privacy.tombstones import (
    PREFIX,
    TombstoneReader,
    Tombstones,
    bury,
    hash_of,
    hashes_of,
    keyed_hashes,
    lift,
    privacy_key,
)
from heap_assets.privacy.value_index import ValueIndexes

__all__ = [
    "BLANKED",
    "ELSEWHERE",
    "KINDS",
    "OPEN",
    "PLACES",
    "PREFIX",
    "STAND_IN",
    "UNREGISTERED",
    "Entry",
    "Erased",
    "Eraser",
    "Journal",
    "Kind",
    "Left",
    "MaskHits",
    "MaskRule",
    "Masker",
    "Named",
    "Pair",
    "People",
    "Place",
    "Plan",
    "Request",
    "Requests",
    "SelectorError",
    "Shape",
    "State",
    "Tally",
    "Texts",
    "TombstoneReader",
    "Tombstones",
    "ValueIndexes",
    "begun",
    "bury",
    "closed",
    "consent_column",
    "consent_since_column",
    "hash_of",
    "hashes_of",
    "is_card",
    "keyed_hashes",
    "lift",
    "long_statements",
    "luhn",
    "new_id",
    "newest_statements",
    "parsed_selector",
    "people_of",
    "place_of",
    "planned",
    "plans",
    "privacy_key",
    "proof_of",
    "proof_page",
    "pseudonyms_of",
    "requests_of_pairs",
    "spelled",
    "tallies",
    "unregistered",
    "wide_statements",
    "with_consent",
]
