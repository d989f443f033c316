"""The status page as HTML: what needs a look first, then how new, how many, who is who, what was sent."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from html import escape
from importlib.resources import files

from heap_assets.quality import SIZE_EDGES, WHOLE, StoredVerdict
from heap_assets.report.charts import bar_chart, line_chart, number, sparkline, strip
from heap_assets.report.collect import Status, SyncRun, outcome
from heap_assets.tables import EVENTS

_MARK = {"pass": "✓ passes", "warn": "! warns", "error": "✕ fails", "unjudged": "– not judged"}
_TABLES_DRAWN = 24
_RUNS_SHOWN = 12
_FAILING_SHOWN = 60
_RUN_COUNTS = ("planned", "sent", "unchanged", "empty", "rejected", "invalid", "held", "withdrawn")


def render(status: Status) -> str:
    """Return the page, whole: style and pictures are inside, nothing is loaded from anywhere."""
    style = files("heap_assets.report").joinpath("status.css").read_text()
    body = "".join(
        (
            _head(status),
            _attention(status.failing),
            _unjudged(status.unjudged),
            _freshness(status.freshness),
            _people(status),
            _volumes(status),
            _syncs(status.syncs),
            _all_checks(status),
        )
    )
    return (
        '<!doctype html>\n<html lang="en">\n<head>\n<meta charset="utf-8">\n'
        '<meta name="viewport" content="width=device-width, initial-scale=1">\n'
        f"<title>heap_assets status, {status.at:%Y-%m-%d %H:%M} UTC</title>\n<style>\n{style}</style>\n</head>\n"
        f"<body><main>{body}</main></body>\n</html>\n"
    )


def _head(status: Status) -> str:
    outcomes = [outcome(verdict) for verdict in status.newest]
    errors, warnings, unjudged = (outcomes.count(kind) for kind in ("error", "warn", "unjudged"))
    blocking = sum(verdict.blocking for verdict in status.failing if outcome(verdict) == "error")
    if not outcomes:
        told = "Nothing has been judged yet."
    elif not errors and not warnings:
        told = f"All {len(outcomes) - unjudged} checks pass" + (f", {unjudged} are not judged" if unjudged else ".")
    else:
        told = f"{errors} of {len(outcomes)} checks fail, {warnings} warn" + (
            f", {unjudged} are not judged" if unjudged else ""
        )
    blocks = f" {blocking} of them block: nothing is sent from where they stand." if blocking else ""
    tiles = [
        ("people", status.figures.get("profiles")),
        ("known to Heap by identity", status.figures.get("identified")),
        ("on several Heap identities", status.figures.get("duplicated")),
        ("refused links", status.figures.get("conflicts")),
        ("shared values", status.figures.get("shared")),
        ("identifiers of the largest profile", status.figures.get("largest")),
    ]
    shown = "".join(f"<li><b>{number(value)}</b>{name}</li>" for name, value in tiles if value is not None)
    return (
        f"<header><h1>{told}</h1><p class=soft>As of {status.at:%A, %d %B %Y, %H:%M} UTC. "
        f"Days {status.days[0]} to {status.days[-1]}.{blocks}</p></header>"
        + (f"<ul class=tiles>{shown}</ul>" if shown else "")
    )


def _attention(failing: Sequence[StoredVerdict]) -> str:
    if not failing:
        return ""
    rows = "".join(
        f"<tr><td>{_state(v)}</td><td class=asset>{_breakable(v.asset)}<br><small>{_breakable(v.check)}"
        f"{'' if v.partition == WHOLE else ', ' + v.partition}</small></td>"
        f"<td class=rule>{escape(v.rule)}<br><small>{_told(v)}</small></td></tr>"
        for v in failing[:_FAILING_SHOWN]
    )
    more = f"<p class=soft>and {len(failing) - _FAILING_SHOWN} more</p>" if len(failing) > _FAILING_SHOWN else ""
    return "<h2>Needs a look</h2>" + _table(("", "Where", "Rule that does not hold"), rows, "stack") + more


def _unjudged(unjudged: Sequence[StoredVerdict]) -> str:
    if not unjudged:
        return ""
    rows = "".join(
        f"<tr><td>{_state(v)}{'' if v.passed else ', and should have been'}</td>"
        f"<td class=asset>{_breakable(v.asset)}<br><small>{_breakable(v.check)}"
        f"{'' if v.partition == WHOLE else ', ' + v.partition}</small></td><td>{escape(v.not_judged)}</td></tr>"
        for v in unjudged[:_FAILING_SHOWN]
    )
    opened = "" if all(v.passed for v in unjudged) else " open"
    more = f"<p class=soft>and {len(unjudged) - _FAILING_SHOWN} more</p>" if len(unjudged) > _FAILING_SHOWN else ""
    table = _table(("", "Where", "Why"), rows, "stack")
    return f"<h2>Not judged</h2><details{opened}><summary>{len(unjudged)} checks</summary>{table}{more}</details>"


def _freshness(freshness: Sequence[StoredVerdict]) -> str:
    if not freshness:
        return ""
    rows = "".join(
        f"<tr><td>{_state(v)}</td><td class=asset>{_breakable(v.asset)}</td>"
        f"<td>{escape(v.notes.get('newest_row') or v.notes.get('newest_day_delivered') or 'none')}</td>"
        f"<td class=n>{number(v.numbers['hours_behind']) if 'hours_behind' in v.numbers else '–'}</td>"
        f"<td class=n>{number(v.numbers.get('allowed_hours', 0))}</td></tr>"
        for v in freshness
    )
    table = _table(("", "Asset", "Newest row, or day delivered", "#Hours behind", "#Allowed"), rows)
    late = sum(verdict.failed for verdict in freshness)
    if len(freshness) <= 15:
        return f"<h2>How new the data is</h2>{table}"
    summary = f"{len(freshness)} assets, {late} behind"
    return (
        f"<h2>How new the data is</h2><details{' open' if late else ''}><summary>{summary}</summary>{table}</details>"
    )


def _people(status: Status) -> str:
    cards = []
    if status.duplicates:
        cards.append(("Duplicates", line_chart(status.duplicates, status.days, "Duplicates by kind over days")))
    if status.matches:
        chart = line_chart(status.matches, status.days, "Share of the company's people that Heap knows", share=True)
        cards.append(("People of each system that Heap knows too, by identifier", chart))
    if status.cluster_sizes:
        sizes = {_size_name(edge): float(n) for edge, n in status.cluster_sizes.items()}
        cards.append(("Profiles by number of identifiers", bar_chart(sizes, "Profiles by size", "profiles")))
    if status.identity:
        cards.append(
            ("Refused links and shared values", line_chart(status.identity, status.days, "Conflicts over days"))
        )
    if not cards:
        return ""
    shown = "".join(f"<section class=card><h3>{escape(title)}</h3>{chart}</section>" for title, chart in cards)
    return f"<h2>Who is who</h2><div class=cards>{shown}</div>"


def _size_name(edge: str) -> str:
    least = int(edge)
    after = next((other for other in SIZE_EDGES if other > least), None)
    if after is None:
        return f"{least} and more"
    return str(least) if after == least + 1 else f"{least} to {after - 1}"


def _volumes(status: Status) -> str:
    if not status.volumes:
        return ""
    by_size = sorted(status.volumes.items(), key=lambda item: -item[1][max(item[1])])
    newest = max(max(line) for line in status.volumes.values())
    cards = "".join(
        f"<section class=card><h3>{_breakable(asset.removeprefix(EVENTS))}</h3>"
        f"{sparkline(line, status.days, f'Rows of {asset} by day')}<small>{number(line[max(line)])} rows"
        f"{'' if max(line) == newest else f', <b>last on {max(line)}</b>'}</small></section>"
        for asset, line in by_size[:_TABLES_DRAWN]
    )
    more = (
        f"<p class=soft>and {len(by_size) - _TABLES_DRAWN} smaller tables</p>" if len(by_size) > _TABLES_DRAWN else ""
    )
    note = f"<p class=soft>Up to {newest}; each picture has its own scale.</p>"
    return f"<h2>Rows by day</h2>{note}<div class=small-cards>{cards}</div>{more}"


def _syncs(runs: Sequence[SyncRun]) -> str:
    if not runs:
        return ""
    rows = "".join(_run_row(run) for run in runs[:_RUNS_SHOWN])
    heads = ("Sync", "Day", "Outcome", *(f"#{name.capitalize()}" for name in _RUN_COUNTS))
    more = f"<p class=soft>and {len(runs) - _RUNS_SHOWN} earlier runs</p>" if len(runs) > _RUNS_SHOWN else ""
    return f"<h2>What was sent</h2>{_table(heads, rows)}{more}"


def _run_row(run: SyncRun) -> str:
    reason = f"<br><small>{escape(run.reason)}</small>" if run.reason else ""
    counts = "".join(f"<td class=n>{number(run.counts.get(name, 0))}</td>" for name in _RUN_COUNTS)
    word = escape(run.status.replace("_", " "))
    name = f"<td class=asset>{_breakable(run.sync)}</td><td class=day>{run.day}</td>"
    return f"<tr>{name}<td>{word}{reason}</td>{counts}</tr>"


def _all_checks(status: Status) -> str:
    if not status.strips:
        return ""
    newest: dict[str, list[StoredVerdict]] = {}
    for verdict in status.newest:
        newest.setdefault(verdict.asset, []).append(verdict)
    rows = "".join(
        f"<tr><td class=asset>{_breakable(asset)}</td>"
        f"<td>{strip(status.days, outcomes, f'Checks of {asset} by day')}</td>"
        f"<td class=n>{_tally(newest.get(asset, ()))}</td></tr>"
        for asset, outcomes in status.strips.items()
    )
    note = "<p class=soft>One bar a day: low passed, middle warned, high failed, a line not judged.</p>"
    return f"<h2>All checks by day</h2>{note}{_table(('Asset', 'Days', '#Checks now'), rows)}"


def _tally(found: Iterable[StoredVerdict]) -> str:
    outcomes = [outcome(verdict) for verdict in found]
    passed, unjudged = outcomes.count("pass"), outcomes.count("unjudged")
    return f"{passed} of {len(outcomes)} pass" + (f", {unjudged} not judged" if unjudged else "")


def _state(verdict: StoredVerdict) -> str:
    state = outcome(verdict)
    blocks = "<br> and blocks" if verdict.blocking and not verdict.passed and state != "warn" else ""
    return f'<span class="state {state}">{_MARK[state]}{blocks}</span>'


def _told(verdict: StoredVerdict) -> str:
    numbers = [f"{name.replace('_', ' ')} {number(value)}" for name, value in verdict.numbers.items()]
    notes = [f"{name.replace('_', ' ')}: {told}" for name, told in verdict.notes.items()]
    return escape(", ".join([*numbers[:6], *notes]))


def _breakable(name: str) -> str:
    """Let a browser break a long name after a slash or an underscore."""
    return escape(name).replace("/", "/<wbr>").replace("_", "_<wbr>")


def _table(heads: Sequence[str], rows: str, css: str = "") -> str:
    """Return a table that scrolls by itself; heads that begin with # are of numbers."""
    cells = "".join(
        f"<th class=n>{escape(head[1:])}</th>" if head.startswith("#") else f"<th>{escape(head)}</th>" for head in heads
    )
    return f'<div class="scroll {css}"><table><thead><tr>{cells}</tr></thead><tbody>{rows}</tbody></table></div>'
