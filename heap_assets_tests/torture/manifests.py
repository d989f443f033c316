"""Manifests that are cut, damaged or hostile: each ends in a landing or a clear refusal, and no other dump suffers."""

from __future__ import annotations

import json
import os
import shutil
from collections import Counter
from datetime import date
from pathlib import Path
from random import Random
from typing import Any

import fastavro

from heap_assets.sources.heap_connect import FolderSource, Landing, LandingConfig
from heap_assets.storage import Store

_START = date(2026, 1, 1)
_GOOD, _BAD = 1, 7
_NAMES = [
    "_dumps", "..", ".", "a/../../b", "x" * 300, "a\x00b", "\ud800", "", " ", "café", "Sign Up", "${HOME}", "a#b",
    ".tmp-x",
    "users", "user_migrations", "sessions", "(manifest)", "/etc/passwd", "_seen", "a\nb", "😀", "%2e%2e", "CON", "nul",
]  # fmt: skip
_URIS = [
    "../../etc/passwd", "/etc/passwd", "loop", "s3://other/../../etc/passwd", "a\x00b", "x" * 5_000, "", "s3://",
    "s3:///",
    "\ud800", ".", "..", "sync_7", "manifests/sync_1.json", "http://localhost/a", "s3://b/k\n", "%00", "file:///etc/passwd",
]  # fmt: skip
_VALUES: list[Any] = [
    None, True, False, 0, -1, 1.5, 2**63 - 1, 2**63, 2**64, 10**400,
    1e308, "", "²", "7", " 7 ", "７", "8", [], {}, [[]],
    [None],
    {"a": 1}, "x" * 10_000,
]  # fmt: skip
_IDS = ["7", "²", "07", "9223372036854775807", "9223372036854775808", "7" * 200, "-7", "1e3", "７", "7 (1)", ""]


def try_manifests(folder: Path, count: int, seed: int) -> tuple[Counter[str], list[str]]:
    """Land so many mutated manifests beside a good one; return how they ended, and what was wrong."""
    bucket = folder / "bucket"
    _write_bucket(bucket)
    ended, wrong = Counter[str](), []
    for number in range(count):
        chance = Random(f"{seed} {number}")
        name, data = _mutated(chance)
        path = bucket / "manifests" / f"sync_{name}.json"
        path.write_bytes(data)
        try:
            ended[_landed(bucket, folder / "lake")] += 1
        except Exception as error:
            wrong.append(f"manifest {number} of seed {seed}: {type(error).__name__}: {error}"[:300])
        if (outside := {p.name for p in folder.iterdir()} - {"bucket", "lake"}) or (bucket.parent / "b").exists():
            wrong.append(f"manifest {number} of seed {seed} wrote {outside} outside the lake")
        path.unlink()
        shutil.rmtree(folder / "lake", ignore_errors=True)
    return ended, wrong


def _landed(bucket: Path, lake: Path) -> str:
    source = FolderSource(bucket)
    landing = Landing(Store(str(lake)), LandingConfig(_START))
    reports = {manifest.dump_id: landing.land(source, manifest) for manifest in landing.pending(source)}
    again = Landing(Store(str(lake)), LandingConfig(_START))
    assert "good" in again.tables(), "the good dump did not land"
    assert not again.pending(source), "something is pending that no record explains"
    again.reports().write_ndjson()
    bad = [report for dump, report in reports.items() if dump != _GOOD]
    if not bad:
        return "left out by name"
    [report] = bad
    assert all(t.failure and t.failure.summary.isprintable() and len(t.failure.summary) < 12_000 for t in report.failed)
    if any(table.table == "(manifest)" and not table.files and table.failure for table in report.failed):
        return "refused"
    return "landed in part" if report.failed else "landed"


def _write_bucket(bucket: Path) -> None:
    fields = [{"name": name, "type": "long"} for name in ("event_id", "user_id")] + [{"name": "time", "type": "string"}]
    schema = {"type": "record", "name": "r", "fields": fields}
    rows = [{"event_id": n, "user_id": 1, "time": "2026-03-01 10:00:00"} for n in range(3)]
    for dump in (_GOOD, _BAD):
        file = bucket / f"sync_{dump}/good/part-0.avro"
        file.parent.mkdir(parents=True)
        with file.open("wb") as target:
            fastavro.writer(target, schema, rows)
    (bucket / "manifests").mkdir()
    (bucket / f"manifests/sync_{_GOOD}.json").write_text(json.dumps(_document(_GOOD)))
    (bucket / "loop").symlink_to(bucket / "loop")
    os.mkfifo(bucket / "pipe")


def _document(dump: int) -> dict[str, Any]:
    files = [f"s3://bucket/sync_{dump}/good/part-0.avro"]
    table = {"name": "good", "files": files, "columns": ["event_id", "user_id", "time"], "incremental": True}
    return {"dump_id": dump, "tables": [table], "property_definitions": None}


def _mutated(chance: Random) -> tuple[str, bytes]:
    """Return the number in a manifest's name, and its content."""
    name = chance.choice(_IDS) if chance.random() < 0.1 else "7"
    document = _document(_BAD)
    tables = document["tables"]
    for _ in range(chance.randint(1, 4)):
        entry = chance.choice([one for one in tables if isinstance(one, dict)] or [{}])
        change = chance.randrange(9)
        if change == 0:
            tables.append({**_document(_BAD)["tables"][0], "name": chance.choice(_NAMES)})
        elif change == 1:
            entry["files"] = [chance.choice([*_URIS, "pipe", "s3://bucket/sync_7/good/part-0.avro"]) for _ in range(2)]
        elif change == 2:
            entry[chance.choice(["name", "files", "columns", "incremental"])] = chance.choice(_VALUES)
        elif change == 3:
            document[chance.choice(["dump_id", "tables", "property_definitions"])] = chance.choice(_VALUES)
            tables = document["tables"] if isinstance(document["tables"], list) else []
        elif change == 4:
            tables.append(chance.choice(_VALUES))
        elif change == 5:
            tables.append(dict(entry))
        elif change == 6:
            entry.pop(chance.choice(["name", "files", "columns", "incremental"]), None)
        elif change == 7:
            document["tables"] = tables = [*tables, *({"name": f"t{n}", "files": []} for n in range(50))]
        else:
            document["deep"] = "DEEP"
    data = bytearray(json.dumps(document).replace('"DEEP"', "[" * 20_000 + "]" * 20_000).encode())
    return name, _damaged(chance, data)


def _damaged(chance: Random, data: bytearray) -> bytes:
    change = chance.randrange(10)
    if change == 0:
        return bytes(data[: chance.randrange(len(data))])
    if change == 1:
        for _ in range(chance.randint(1, 8)):
            data[chance.randrange(len(data))] = chance.randrange(256)
    elif change == 2:
        at = chance.randrange(len(data))
        data[at:at] = chance.randbytes(chance.randint(1, 40))
    elif change == 3:
        return b"\xef\xbb\xbf" + data
    elif change == 4:
        return data.decode().encode("utf-16")
    return bytes(data)
