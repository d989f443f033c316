"""The ledgers of a sync, one for each account that it writes to.

The first account has the folder of the sync's name, which `destination.json` records; every other one has
`<sync>@<hash of address and account>`, listed below `<sync>/others/`. A ledger from before accounts had ledgers of
their own belongs to the account that the sync sends to next.
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

_ACCOUNT_DIGITS = 16


def at_account(store: Store, spec: SyncSpec, destination: Destination | None = None, *, claim: bool = True) -> SyncSpec:
    """Return a sync with the ledger of the account that its destination writes to.

    `destination`: says which account it writes to, unless the sync does. `claim`: write down whose ledger it is;
    without, nothing is written: only who sends makes a ledger an account's.
    """
    account = spec.account or (spec.name if destination is None else str(destination.account))
    return replace(spec, account=account, ledger=ledger_of(store, spec.name, account, claim=claim))


def ledger_of(store: Store, sync: str, account: str, *, claim: bool = True) -> str:
    """Return the folder below `_sync/` in which the ledger of an account is kept.

    `account`: address and account in any spelling that stays the same; only its hash is kept. Raises DeliveryError if
    what says whose ledger it is cannot be read.
    """
    digest = hashlib.sha256(f"heap_assets ledger {account}".encode()).hexdigest()[:_ACCOUNT_DIGITS]
    first = _first_account(store, sync)
    if first is None and claim:
        facts = {"account": digest, "since": datetime.now(UTC).isoformat(timespec="seconds")}
        store.create(_account_key(sync), json.dumps(facts).encode())
        first = _first_account(store, sync)
    if first in (None, digest):
        return sync
    folder = f"{sync}@{digest}"
    if claim and not store.exists(f"{state_keys.SYNC}/{sync}/others/{folder}"):
        store.create(f"{state_keys.SYNC}/{sync}/others/{folder}", b"{}")
    return folder


def all_ledgers(store: Store, sync: str) -> list[str]:
    """Return the folders of all accounts that a sync ever wrote to, the first one's first."""
    return [sync, *(info.key.rsplit("/", 1)[-1] for info in store.list(f"{state_keys.SYNC}/{sync}/others"))]


def _first_account(store: Store, sync: str) -> str | None:
    try:
        return str(json.loads(store.read(_account_key(sync)))["account"])
    except FileNotFoundError:
        return None
    except (ValueError, KeyError, TypeError) as error:
        raise DeliveryError(
            f"{store.uri(_account_key(sync))} is damaged: nobody can tell whose ledger it is. Restore it from a "
            "backup; or, if the sync never wrote to another account, delete it"
        ) from error


def _account_key(sync: str) -> str:
    return f"{state_keys.SYNC}/{sync}/destination.json"
