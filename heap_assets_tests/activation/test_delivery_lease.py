"""One writer at a time, whoever dies."""

from __future__ import annotations

import os
import subprocess
import sys
import time
from datetime import UTC, datetime, timedelta

import polars as pl
import pytest

from heap_assets.activation.engine.lease import Holder, Lease, LeaseHeldError, LeaseLostError
from heap_assets.activation.engine.log import INTENT_SCHEMA, OUTCOME_SCHEMA, Log, fold
from heap_assets.errors import DamagedFileError
from heap_assets.storage import Store

TTL = timedelta(seconds=60)


def foreign(run: str, clock_wrong_by: timedelta = timedelta()) -> bytes:
    heartbeat = datetime.now(UTC) + clock_wrong_by
    return Holder(run, "another machine", 1, "1", heartbeat, TTL.total_seconds()).to_json()


def write_lease(lake: Store, number: int, data: bytes, silent_for: float) -> None:
    """Write a lease as it is after nobody has written it for so many seconds."""
    key = f"_sync/s/lease/{number:010d}.json"
    lake.write(key, data)
    then = time.time() - silent_for
    os.utime(lake.uri(key), (then, then))


def wrote(log: Log, value: int) -> None:
    """Append the intent to send a value for ann, and its acknowledgement."""
    name = log.batch()
    facts = {"batch": name, "row": 0, "key": "ann", "op": "change", "mapping": "m", "fence": log.fence}
    facts |= {"day": datetime(2026, 11, 20).date(), "p:Plan": value}
    log.append(name, "intent", pl.DataFrame([facts], schema={**INTENT_SCHEMA, "p:Plan": pl.UInt64}))
    outcome = {"batch": name, "row": 0, "status": "acknowledged", "answered_at": datetime.now(UTC)}
    log.append(name, "outcome", pl.DataFrame([outcome], schema=OUTCOME_SCHEMA))


def test_the_fencing_number_grows_with_every_holder(lake: Store) -> None:
    numbers = []
    for run in ("a", "b", "c"):
        with Lease(lake, "s", run, TTL) as lease:
            numbers.append(lease.fence)
    assert numbers == [1, 2, 3]


def test_a_lease_of_another_machine_holds_until_it_is_silent_for_too_long(lake: Store) -> None:
    write_lease(lake, 7, foreign("far-away"), silent_for=30)
    with pytest.raises(LeaseHeldError, match="far-away"), Lease(lake, "s", "me", TTL):
        pass
    write_lease(lake, 7, foreign("far-away"), silent_for=61)
    with Lease(lake, "s", "me", TTL) as lease:
        assert lease.fence == 8
        assert lease.previous is not None
        assert lease.previous.run_id == "far-away"


@pytest.mark.parametrize("wrong_by", [timedelta(days=30), timedelta(days=-30)], ids=["fast", "slow"])
def test_a_clock_that_is_wrong_neither_keeps_a_lease_nor_loses_it(lake: Store, wrong_by: timedelta) -> None:
    write_lease(lake, 7, foreign("far-away", wrong_by), silent_for=30)
    with pytest.raises(LeaseHeldError, match="far-away"), Lease(lake, "s", "me", TTL):
        pass
    write_lease(lake, 7, foreign("far-away", wrong_by), silent_for=61)
    with Lease(lake, "s", "me", TTL) as lease:
        assert lease.fence == 8


def test_a_damaged_lease_is_named_and_holds_until_it_is_silent(lake: Store) -> None:
    write_lease(lake, 7, b'{"run_id": "far', silent_for=30)
    with pytest.raises(LeaseHeldError, match=r"damaged: .*0000000007\.json"), Lease(lake, "s", "me", TTL):
        pass
    with Lease(lake, "another", "me", TTL) as other:
        assert other.fence == 1
    write_lease(lake, 7, b"", silent_for=61)
    with Lease(lake, "s", "me", TTL) as lease:
        assert lease.fence == 8


def test_a_dead_process_of_this_machine_is_followed_at_once(lake: Store) -> None:
    script = (
        "import os, sys, datetime; from heap_assets.storage import Store\n"
        "from heap_assets.activation.engine.lease import Lease\n"
        "Lease(Store(sys.argv[1]), 's', 'killed-run', datetime.timedelta(hours=1)).__enter__(); os._exit(9)"
    )
    subprocess.run([sys.executable, "-c", script, lake.url], check=False, timeout=60)
    with Lease(lake, "s", "me", TTL) as lease:
        assert lease.fence == 2
        assert lease.previous is not None
        assert lease.previous.run_id == "killed-run"


def test_a_run_that_was_overtaken_stops_and_leaves_the_new_lease_alone(lake: Store) -> None:
    with Lease(lake, "s", "slow", timedelta(seconds=0.6)) as lease:
        lake.create("_sync/s/lease/0000000002.json", foreign("faster"))
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
    log = Log(lake, "s", 2)
    wrote(log, 222)
    log.save(fold(log), compact_after=1000)
    wrote(Log(lake, "s", 1), 111)
    row = fold(log, log.ledger()).frame.row(0, named=True)
    assert (row["status"], row["p:Plan"], row["mapping"]) == ("unknown", 1, "")


def test_a_writer_that_was_overtaken_removes_no_base_of_its_successor(lake: Store) -> None:
    first, second = Log(lake, "s", 1), Log(lake, "s", 2)
    wrote(first, 111)
    late = fold(first)
    wrote(second, 222)
    second.save(fold(second), compact_after=0)
    first.save(late, compact_after=0)
    assert fold(Log(lake, "s")).frame["p:Plan"].to_list() == [222]


def test_a_damaged_ledger_is_made_anew_and_a_damaged_segment_is_named(
    lake: Store, caplog: pytest.LogCaptureFixture
) -> None:
    log = Log(lake, "s", 1)
    wrote(log, 111)
    log.save(fold(log), compact_after=1000)
    lake.write("_sync/s/ledger.parquet", b"PAR1")
    again = Log(lake, "s")
    assert fold(again, again.ledger()).frame["p:Plan"].to_list() == [111]
    assert "ledger.parquet is damaged" in caplog.text
    lake.write(f"_sync/s/log/{again.segments()[0]}", b"PAR1")
    with pytest.raises(DamagedFileError, match=again.segments()[0]):
        fold(Log(lake, "s"))


def test_a_flipped_bit_in_a_segment_or_a_ledger_is_no_other_outcome(lake: Store) -> None:
    log = Log(lake, "s", 1)
    wrote(log, 111)
    log.save(fold(log), compact_after=1000)
    expected = fold(Log(lake, "s")).frame
    segment, ledger = f"_sync/s/log/{log.segments()[-1]}", "_sync/s/ledger.parquet"
    for key in (segment, ledger):
        whole = lake.read(key)
        for at in range(0, len(whole), max(1, len(whole) // 150)):
            lake.write(key, whole[:at] + bytes([whole[at] ^ 4]) + whole[at + 1 :])
            again = Log(lake, "s")
            if key == ledger:
                assert fold(again, again.ledger()).frame.equals(expected)
            else:
                with pytest.raises(DamagedFileError, match=key):
                    fold(again)
        lake.write(key, whole)
