"""Damaged files end in rows or in a refusal that names the file: never in anything else, and never in the process.

HEAP_ASSETS_MUTATED_FILES says how many are tried (1,000). They are read in processes of their own, which may not take
more memory than a block needs, nor longer than a minute for each batch of files.
"""

from __future__ import annotations

import json
import os
import random
import subprocess
import sys
from collections import Counter
from pathlib import Path
from typing import Any

import pytest
from avro_builders import COMPRESS, NULLABLE_TEXT, avro_file, long, record, text

FILES = int(os.environ.get("HEAP_ASSETS_MUTATED_FILES", "1000"))
BATCH = 250
SECONDS = 120
HERE = Path(__file__).parent


def flat(rnd: random.Random, rows: int) -> bytes:
    return b"".join(
        long(i) + (long(1) + text("ä" * rnd.randrange(9)) if rnd.random() < 0.8 else long(0)) + long(rnd.randrange(3))
        for i in range(rows)
    )


def nested(rnd: random.Random, rows: int) -> bytes:
    def one(i: int) -> bytes:
        items = b"".join(long(rnd.randrange(99)) for _ in range(3))
        union = rnd.choice([long(0), long(1) + text("x"), long(2) + long(9)])
        decimal = text(rnd.randbytes(3))
        return long(3) + items + long(0) + long(1) + text("k") + long(i) + long(0) + union + decimal

    return b"".join(one(i) for i in range(rows))


SCHEMAS: list[tuple[Any, Any]] = [
    (
        record({"id": "long", "name": NULLABLE_TEXT, "e": {"type": "enum", "name": "E", "symbols": ["a", "b", "c"]}}),
        flat,
    ),
    (
        record(
            {
                "l": {"type": "array", "items": "long"},
                "m": {"type": "map", "values": {"type": "long", "logicalType": "timestamp-micros"}},
                "u": ["null", "string", "long"],
                "d": {"type": "bytes", "logicalType": "decimal", "precision": 9, "scale": 2},
            }
        ),
        nested,
    ),
]


def mutated(path: Path, seed: int) -> None:
    """Write a file that was good before one to four things happened to it."""
    rnd = random.Random(seed)
    schema, rows_of = rnd.choice(SCHEMAS)
    codec = rnd.choice([*COMPRESS, "null", "null", "snappy"])
    counts = [rnd.randrange(1, 30) for _ in range(rnd.randrange(1, 5))]
    spelled = json.dumps(schema)
    if rnd.random() < 0.2:
        spelled = damaged_text(rnd, spelled)
    blocks = [(count, rows_of(rnd, count)) for count in counts]
    if rnd.random() < 0.3:  # damage that checksums do not see
        place = rnd.randrange(len(blocks))
        blocks[place] = (blocks[place][0], bytes(damaged(rnd, bytearray(blocks[place][1]))))
    if rnd.random() < 0.2:
        place = rnd.randrange(len(blocks))
        blocks[place] = (rnd.choice([-1, 0, 1, 10**6, 2**31, 2**62, -(2**63)]), blocks[place][1])
    avro_file(path, spelled, [(count, COMPRESS[codec](data)) for count, data in blocks], codec)
    if rnd.random() < 0.6:
        path.write_bytes(damaged(rnd, bytearray(path.read_bytes())))


def damaged_text(rnd: random.Random, spelled: str) -> str:
    words = [
        "null",
        "long",
        "string",
        "record",
        "array",
        "map",
        "enum",
        "top",
        "R",
        "",
        "\\u0000",
        "\\ud800",
        "decimal",
    ]
    old = rnd.choice(["long", "string", "top", "symbols", "items", "type", "name", "null", "fields"])
    return spelled.replace(old, rnd.choice(words), rnd.choice([1, 1, 99]))


def damaged(rnd: random.Random, data: bytearray) -> bytearray:
    for _ in range(rnd.randrange(1, 5)):
        if not data:
            break
        at = rnd.randrange(len(data))
        what = rnd.randrange(6)
        if what == 0:
            data[at] ^= 1 << rnd.randrange(8)
        elif what == 1:
            data[at] = rnd.choice([0, 1, 2, 0x7F, 0x80, 0xFE, 0xFF])
        elif what == 2:
            del data[at : at + rnd.randrange(1, 20)]
        elif what == 3:
            data[at:at] = rnd.randbytes(rnd.randrange(1, 12))
        elif what == 4:
            data[at : at + 9] = long(rnd.choice([2**31, 2**40, 2**62, -(2**62)]))
        else:
            del data[rnd.randrange(len(data)) :]
    return data


def try_all(folder: Path, seeds: range) -> Counter[str]:
    """Read the files of these seeds in this process; anything but rows or a refusal is an error of the test."""
    from heap_assets.sources.heap_connect import Limits
    from heap_assets.sources.heap_connect.avro import AvroError, read_batches

    outcomes: Counter[str] = Counter()
    path = folder / "mutated.avro"
    for seed in seeds:
        (folder / "seed").write_text(str(seed))
        mutated(path, seed)
        try:
            for batch in read_batches(path, name="the file", limits=Limits(8 << 20, 16 << 20)):
                batch.rows.rows()
            outcomes["rows"] += 1
        except AvroError as error:
            assert str(error).startswith("the file, ")  # noqa: PT017  all the others are errors
            outcomes["refused"] += 1
    return outcomes


@pytest.mark.parametrize("first", range(0, FILES, BATCH))
def test_mutated_files_end_in_rows_or_a_refusal(tmp_path: Path, first: int) -> None:
    seeds = range(first, min(first + BATCH, FILES))
    command = [sys.executable, __file__, str(tmp_path), str(seeds.start), str(seeds.stop)]
    done = subprocess.run(command, capture_output=True, text=True, timeout=SECONDS, cwd=HERE, check=False)
    seed = (tmp_path / "seed").read_text()
    assert done.returncode == 0, f"seed {seed} ended with {done.returncode}: {done.stderr[-3000:]}"
    outcomes = json.loads(done.stdout)
    assert sum(outcomes.values()) == len(seeds)
    assert min(outcomes.get("rows", 0), outcomes.get("refused", 0)) > 0 or len(seeds) < BATCH


def main() -> None:
    import resource

    resource.setrlimit(resource.RLIMIT_AS, (4 << 30, 4 << 30))
    print(json.dumps(try_all(Path(sys.argv[1]), range(int(sys.argv[2]), int(sys.argv[3])))))


if __name__ == "__main__":
    main()
