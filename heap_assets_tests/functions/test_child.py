"""What hostile or broken scripts end in: a rejected row within its limit, and a pool that goes on."""

from __future__ import annotations

import json
import os
import random
import signal
import threading
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest

from heap_assets.functions import (
    DROPPED,
    REJECTED,
    RESULT,
    SPLIT,
    FunctionFailedError,
    Limits,
    Pool,
    batches_of,
    bundle,
    process,
)

SCRIPTS = int(os.environ.get("HEAP_ASSETS_FUZZED_SCRIPTS", "1000"))
KILLS = int(os.environ.get("HEAP_ASSETS_FUNCTION_KILLS", "3"))
LIMITS = Limits(cpu_seconds=0.1, wall_seconds=2)


def run(
    folder: Path, source: str, rows: Sequence[dict[str, Any]], limits: Limits = LIMITS, **options: Any
) -> list[tuple[int, Any, str]]:
    (folder / "f.js").write_text(source)
    with Pool(bundle(folder, "f.js"), limits, workers=1, **options) as pool:
        results = list(pool.run(batches_of(map(json.dumps, rows), limits)))
    return [row for part in results for row in part.rows]


GUARDED = "export default function (row) { if (!row.guilty) return { ok: row.n, clean: ({}).x === undefined };\n%s\n}"

ATTACKS = {
    "endless loop": ("while (true) {}", "processor time"),
    "endless loop that catches": ("for (;;) { try { for (;;) {} } catch {} }", "processor time"),
    "catastrophic regular expression": ("return { a: /^(a+)+$/.test('a'.repeat(60) + 'b') }", "processor time"),
    "arrays that grow": ("const a = []; for (;;) a.push(new Array(1000).fill(1))", "memory|processor"),
    "typed arrays": ("const a = []; for (;;) a.push(new Uint8Array(64 << 20))", "memory"),
    "memory that is caught": (
        "const a = []; try { for (;;) a.push('x'.repeat(1 << 20) + a.length) } catch {} throw 1",
        "",
    ),
    "native sort": (
        "const a = new Array(3e6).fill(0).map((_, i) => (i * 7919) % 3000017); a.sort(); return { a: a[0] }",
        "memory|processor time|in time",
    ),
    "native work": (
        "'x'.repeat(1 << 24).split('').sort().reverse().join('').replace(/x/g, 'yy')",
        "memory|processor|time",
    ),
    "recursion": ("function f() { return f() + 1 } return f()", "call stack"),
    "recursion in getters": ("const o = { get a() { return this.a } }; return o", "call stack"),
    "JSON nested 200,000 deep": (
        "return { a: JSON.parse('['.repeat(200000) + ']'.repeat(200000)) }",
        "call stack|nested",
    ),
    "objects nested 200,000 deep": ("let o = {}; for (let i = 0; i < 200000; i++) o = { o }; return o", "nested|stack"),
    "a circle": ("const o = {}; o.o = o; return o", "nested|circular"),
    "prototype pollution": ("Object.prototype.x = 1; return {}", "extensible|frozen|read-only"),
    "pollution by way of __proto__": ("row.__proto__.__proto__ = { x: 1 }; return {}", "extensible|prototype"),
    "pollution by define": ("Object.defineProperty(Object.prototype, 'x', { value: 1 }); return {}", "extensible"),
    "a global": ("globalThis.x = 1; return {}", "extensible"),
    "JSON replaced": ("JSON.stringify = () => 'null'; return {}", "read-only"),
    "import()": ("return eval(\"import('os')\")", "could not load module"),
    "output of 1 GB": ("return { a: 'x'.repeat(1 << 30 - 1) }", "memory|string|longer"),
    "output in many pieces": ("return new Array(1000).fill({ a: 'x'.repeat(100000) })", "longer|memory"),
    "a Promise that never resolves": ("return new Promise(() => {})", "never resolves"),
    "microtasks without end": (
        "const p = () => Promise.resolve().then(p); return p()",
        "processor time|never resolves",
    ),
    "nothing": ("return undefined", "returned nothing"),
    "a number": ("return 7", "returned a number"),
    "a list of numbers": ("return [1]", "a list must hold objects"),
    "an error that throws": ("throw { get message() { throw 1 } }", "cannot be read"),
    "a toJSON that throws": ("return { toJSON() { throw new Error('no') } }", "no"),
    "a fake engine's error": ("throw new InternalError('fake')", "fake"),
    "a process": ("return { a: process.env }", "not defined"),
    "require": ("return require('fs')", "not defined"),
    "a BigInt": ("return { a: 10n }", "BigInt"),
}


@pytest.mark.parametrize("attack", ATTACKS)
def test_an_attack_ends_in_a_rejected_row(tmp_path: Path, attack: str) -> None:
    body, reason = ATTACKS[attack]
    started = time.monotonic()
    rows = run(tmp_path, GUARDED % body, [{"n": 1}, {"guilty": True}, {"n": 3}])
    assert time.monotonic() - started < 15
    assert [kind for kind, _, _ in rows] == [RESULT, REJECTED, RESULT]
    assert rows[0][1] == {"ok": 1, "clean": True}
    assert rows[2][1] == {"ok": 3, "clean": True}
    assert any(part in rows[1][1] for part in reason.split("|")), rows[1]


def test_results_errors_and_their_places(tmp_path: Path) -> None:
    (tmp_path / "lib").mkdir()
    (tmp_path / "lib" / "prices.js").write_text(
        "// prices\nexport const rate = 2;\nexport function twice(value) {\n  return value.amount.cents * rate;\n}\n"
    )
    source = (
        'import { twice as double } from "./lib/prices.js";\n'
        "export default (row, context) => {\n"
        "  if (row.n === 0) return null;\n"
        "  if (row.n === 1) return context.drop('robot');\n"
        "  if (row.n === 2) return [{ a: 1 }, { a: 2 }];\n"
        "  if (row.n === 3) return { a: double({ amount: { cents: 4 } }) };\n"
        "  return { a: double({}) };\n};\n"
    )
    assert run(tmp_path, source, [{"n": n} for n in range(5)]) == [
        (DROPPED, "null", ""),
        (DROPPED, "robot", ""),
        (SPLIT, [{"a": 1}, {"a": 2}], ""),
        (RESULT, {"a": 8}, ""),
        (REJECTED, "TypeError: cannot read property 'cents' of undefined", "lib/prices.js:4:10"),
    ]


def test_clock_and_chance_depend_on_the_position_alone(tmp_path: Path) -> None:
    source = (
        "export default (row, { now, random }) => ({ now, date: new Date(), other: new (new Date(0).constructor)(),"
        " ticks: Date.now(), chance: [random(), Math.random()] });"
    )
    rows = [{"n": n} for n in range(6)]
    options = {"now": 1_767_225_600_000, "seed": 7}
    together = run(tmp_path, source, rows, **options)
    assert together == run(tmp_path, source, rows, Limits(batch=1), **options)
    assert {row[1]["date"] for row in together} == {row[1]["other"] for row in together} == {"2026-01-01T00:00:00.000Z"}
    assert len({chance for row in together for chance in row[1]["chance"]}) == 12
    assert together[0][1]["chance"] != run(tmp_path, source, rows, now=0, seed=8)[0][1]["chance"]


@pytest.mark.parametrize(
    ("source", "message"),
    [
        ("export default function (row) {\n  return {;\n}", r"f\.js:2:1\d?: SyntaxError"),
        ("const a = 1;", r"f\.js.*no `export default function`"),
        ("while (true) {}\nexport default () => null", r"f\.js.*processor time"),
        ("export default () => null;\nnope();", r"f\.js:2:1: ReferenceError: nope is not defined"),
    ],
)
def test_a_mistake_of_the_file_is_told_once(tmp_path: Path, source: str, message: str) -> None:
    with pytest.raises(FunctionFailedError, match=message):
        run(tmp_path, source, [{"n": 1}])


def test_a_function_that_is_always_stuck_ends_the_call(tmp_path: Path) -> None:
    limits = Limits(cpu_seconds=0.05, most_stuck=3)
    with pytest.raises(FunctionFailedError, match="more than 3 rows ran into its limits"):
        run(tmp_path, "export default () => { for (;;) {} }", [{"n": 1}] * 10, limits)


def test_a_platform_without_limits_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(process, "find_spec", lambda name: None)
    with pytest.raises(FunctionFailedError, match="no resource limits"):
        process.require_limits()


def test_what_is_logged_is_limited(tmp_path: Path) -> None:
    (tmp_path / "f.js").write_text(
        "export default (row) => { console.log('n', { n: row.n }, 'x'.repeat(900)); return row; }"
    )
    with Pool(bundle(tmp_path, "f.js"), LIMITS, workers=1) as pool:
        (results,) = pool.run(batches_of([json.dumps({"n": n}) for n in range(130)], LIMITS))
    assert len(results.log) == 100
    assert results.log_left_off == 30
    assert results.log[3][0] == 3
    assert results.log[3][1].startswith('n {"n":3} xxx')
    assert len(results.log[3][1]) == 500


FRAGMENTS = (
    "{}", "[]", "null", "row", "globalThis", "Object.prototype", "this", "1e308", "'\\ud800'", "`${x}`", "/(a|a)*b/",
    "new Proxy({}, {get(){throw 1}})", "Symbol.iterator", "10n", "x", "(() => x)()", "function* () { yield x }",
    "class A extends Array {}", "new Map([[x, x]])", "JSON.parse('{\"__proto__\":{\"x\":1}}')", "Reflect.ownKeys(x)",
    "Object.assign(Object.prototype, {x: 1})", "x.__proto__.x = x", "Object.setPrototypeOf(Object.prototype, x)",
    "Array.prototype.push = x", "delete globalThis.JSON", "eval('var x = ' + x)", "new Function('return this')().x = 1",
    "Promise.reject(x)", "async () => { await x }", "'x'.repeat(1e6)", "new Array(1e5).fill(x)",
    "x.constructor.constructor('x=1')()",
    "Object.defineProperty(x, 'x', {get(){return x}})", "JSON.stringify(x)", "String(x)", "x => { throw x }",
    "import('./x')",
    "while(1){}", "(function f(){f()})()", "context.drop(x)", "console.log(x)", "new Date(x)",
    "Error.prepareStackTrace = x",
    "Iterator.prototype.map = x", "new Uint8Array(1e9)", "structuredClone(x)", "label: for(;;) break label",
    "\u0000", "}", "*/",
)  # fmt: skip


def test_fuzzed_scripts_reach_nothing(tmp_path: Path) -> None:
    """Between two scripts stands a row whose result tells that the script before it changed nothing."""
    chance = random.Random(24)
    (tmp_path / "f.js").write_text(
        "export default function (row, context) {\n"
        "  if (row.script === undefined) return { n: row.n, clean: ({}).x === undefined && [].push(1) === 1"
        " && JSON.stringify(row).length > 5 && new Date().getTime() === 0 };\n"
        "  const x = row;\n"
        "  return eval(row.script);\n}"
    )
    limits = Limits(cpu_seconds=0.02, wall_seconds=30, batch=20, most_stuck=SCRIPTS)
    rows: list[dict[str, Any]] = []
    for n in range(SCRIPTS):
        parts = chance.choices(FRAGMENTS, k=chance.randint(1, 5))
        script = chance.choice([";", ",", " + ", "\n", "(", "."]).join(parts)
        if chance.random() < 0.3:
            script = script.replace("x", chance.choice(FRAGMENTS))
        rows += [{"script": script}, {"n": n}]
    with Pool(bundle(tmp_path, "f.js"), limits) as pool:
        results = [row for part in pool.run(batches_of(map(json.dumps, rows), limits)) for row in part.rows]
    assert len(results) == len(rows)
    assert [row[1] for row in results[1::2]] == [{"n": n, "clean": True} for n in range(SCRIPTS)]


def test_killed_children_lose_and_double_nothing(tmp_path: Path) -> None:
    (tmp_path / "f.js").write_text(
        "export default (row) => { let s = 0; for (let i = 0; i < 20000; i++) s += i; return { n: row.n }; }"
    )
    chance, kills = random.Random(7), 0
    limits = Limits(batch=50, cpu_seconds=5)
    is_over = threading.Event()
    rows = (json.dumps({"n": n}) for n in range(10**9))
    stream = (row for row in iter(lambda: None if kills >= KILLS else next(rows), None))
    with Pool(bundle(tmp_path, "f.js"), limits, workers=2) as pool:

        def kill() -> None:
            nonlocal kills
            while kills < KILLS and not is_over.is_set():
                time.sleep(chance.uniform(0.02, 0.15))
                if pids := pool.pids:
                    os.kill(chance.choice(pids), signal.SIGKILL)
                    kills += 1

        killer = threading.Thread(target=kill)
        killer.start()
        try:
            results = [row for part in pool.run(batches_of(stream, limits)) for row in part.rows]
        finally:
            is_over.set()
            killer.join()
    assert kills == KILLS
    assert results == [(RESULT, {"n": n}, "") for n in range(len(results))]
    assert len(results) >= 50
