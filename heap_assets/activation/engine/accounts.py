"""Which ledger belongs to which account: what one address and account acknowledged says nothing of another.

The account that a sync writes to first has the folder of the sync's name, and says so in `destination.json`; every
other one has `<sync>@<hash of address and account>`, listed below `<sync>/others/`. A ledger from before accounts were
told apart belongs to the account that the sync next sends to.
"""

from __future__ import annotations

import hashlib
import json
from dataclasses import replace
from datetime import UTC, datetime

from heap_assets.activation.engine.destination import Destination
from heap_assets.activation.engine.spec import SyncSpec
from heap_assets.errors import DeliveryError
from heap_assets.storage import Store, state_keys

_DIGITS = 16


def at_account(store: Store, spec: SyncSpec, destination: Destination | None = None, *, claim: bool = True) -> SyncSpec:
    """Return a sync with the ledger of the account that its destination writes to.

    Parameters
    ----------
    destination
        Says which account it writes to, unless the sync does.
    claim
        Write down whose ledger it is; without, nothing is written: only who sends makes a ledger an account's.
    """
    account = spec.account or (spec.name if destination is None else str(destination.account))
    return replace(spec, account=account, ledger=ledger_of(store, spec.name, account, claim=claim))


def ledger_of(store: Store, sync: str, account: str, *, claim: bool = True) -> str:
    """Return the folder below `_sync/` in which the ledger of an account is kept.

    Parameters
    ----------
    account
        Address and account in any spelling that stays the same; only its hash is kept.

    Raises
    ------
    DeliveryError
        If what says whose ledger it is cannot be read.
    """
    told = hashlib.sha256(f"heap_assets ledger {account}".encode()).hexdigest()[:_DIGITS]
    first = _first(store, sync)
    if first is None and claim:
        facts = {"account": told, "since": datetime.now(UTC).isoformat(timespec="seconds")}
        store.create(_key(sync), json.dumps(facts).encode())
        first = _first(store, sync)
    if first in (None, told):
        return sync
    folder = f"{sync}@{told}"
    if claim and not store.exists(f"{state_keys.SYNC}/{sync}/others/{folder}"):
        store.create(f"{state_keys.SYNC}/{sync}/others/{folder}", b"{}")
    return folder


def all_ledgers(store: Store, sync: str) -> list[str]:
    """Return the folders of all accounts that a sync ever wrote to, the first one's first."""
    return [sync, *(info.key.rsplit("/", 1)[-1] for info in store.list(f"{state_keys.SYNC}/{sync}/others"))]


def _first(store: Store, sync: str) -> str | None:
    try:
        return str(json.loads(store.read(_key(sync)))["account"])
    except FileNotFoundError:
        return None
    except (ValueError, KeyError, TypeError) as error:
        raise DeliveryError(
            f"{store.uri(_key(sync))} is damaged: nobody can tell whose ledger it is. Restore it from a backup; or, if "
            "the sync never wrote to another account, delete it"
        ) from error


def _key(sync: str) -> str:
    return f"{state_keys.SYNC}/{sync}/destination.json"
