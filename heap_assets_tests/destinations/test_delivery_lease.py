"""One writer at a time, whoever dies."""

from __future__ import annotations

import subprocess
import sys
import time
from datetime import UTC, datetime, timedelta

import polars as pl
import pytest

from heap_assets.destinations.lease import Holder, Lease, LeaseHeldError, LeaseLostError
from heap_assets.destinations.log import INTENT_SCHEMA, OUTCOME_SCHEMA, Log, fold
from heap_assets.lake import Store

TTL = timedelta(seconds=60)


def foreign(run: str, silent_for: float, ttl: float = 60.0) -> bytes:
    heartbeat = datetime.now(UTC) - timedelta(seconds=silent_for)
    return Holder(run, "another machine", 1, "1", heartbeat, ttl).to_json()


def test_the_fencing_number_grows_with_every_holder(lake: Store) -> None:
    numbers = []
    for run in ("a", "b", "c"):
        with Lease(lake, "s", run, TTL) as lease:
            numbers.append(lease.fence)
    assert numbers == [1, 2, 3]


def test_a_lease_of_another_machine_holds_until_it_is_silent_for_too_long(lake: Store) -> None:
    lake.write("_sync/s/lease/0000000007.json", foreign("far-away", silent_for=30))
    with pytest.raises(LeaseHeldError, match="far-away"), Lease(lake, "s", "me", TTL):
        pass
    lake.write("_sync/s/lease/0000000007.json", foreign("far-away", silent_for=61))
    with Lease(lake, "s", "me", TTL) as lease:
        assert lease.fence == 8
        assert lease.previous is not None
        assert lease.previous.run_id == "far-away"


def test_a_dead_process_of_this_machine_is_followed_at_once(lake: Store) -> None:
    script = (
        "import os, sys, datetime; from heap_assets.lake import Store\n"
        "from heap_assets.destinations.lease import Lease\n"
        "Lease(Store(sys.argv[1]), 's', 'killed-run', datetime.timedelta(hours=1)).__enter__(); os._exit(9)"
    )
    subprocess.run([sys.executable, "-c", script, lake.url], check=False, timeout=60)
    with Lease(lake, "s", "me", TTL) as lease:
        assert lease.fence == 2
        assert lease.previous is not None
        assert lease.previous.run_id == "killed-run"


def test_a_run_that_was_overtaken_stops_and_leaves_the_new_lease_alone(lake: Store) -> None:
    with Lease(lake, "s", "slow", timedelta(seconds=0.6)) as lease:
        lake.create("_sync/s/lease/0000000002.json", foreign("faster", silent_for=0))
        time.sleep(0.5)
        with pytest.raises(LeaseLostError):
            lease.check()
    assert Holder.from_json(lake.read("_sync/s/lease/0000000002.json")).run_id == "faster"
    assert not Holder.from_json(lake.read("_sync/s/lease/0000000001.json")).released


def test_a_held_lease_beats(lake: Store) -> None:
    with Lease(lake, "s", "long", timedelta(seconds=0.6)) as lease:
        time.sleep(1.0)
        lease.check()
        with pytest.raises(LeaseHeldError), Lease(lake, "s", "other", TTL):
            pass


def test_what_a_run_says_after_it_lost_its_lease_makes_its_rows_unknown(lake: Store) -> None:
    def wrote(fence: int, value: int) -> None:
        log = Log(lake, "s", fence)
        name = log.batch()
        facts = {"batch": name, "row": 0, "key": "ann", "op": "change", "mapping": "m", "fence": fence}
        facts |= {"day": datetime(2026, 11, 20).date(), "p:Plan": value}
        log.append(name, "intent", pl.DataFrame([facts], schema={**INTENT_SCHEMA, "p:Plan": pl.UInt64}))
        outcome = {"batch": name, "row": 0, "status": "acknowledged", "answered_at": datetime.now(UTC)}
        log.append(name, "outcome", pl.DataFrame([outcome], schema=OUTCOME_SCHEMA))

    wrote(2, 222)
    log = Log(lake, "s", 2)
    log.save(fold(log), compact_after=1000)
    wrote(1, 111)
    row = fold(log, log.ledger()).frame.row(0, named=True)
    assert (row["status"], row["p:Plan"], row["mapping"]) == ("unknown", 1, "")
