"""The proof of an erasure: what went from where, what destinations answered, and what could not be reached.

It holds counts, names of places and keyed hashes: it can be shown to whoever asked, and kept.
"""

from __future__ import annotations

import html
from collections.abc import Mapping, Sequence
from typing import Any, Final

from heap_assets.privacy.places import ELSEWHERE
from heap_assets.privacy.requests import Request

_STYLE: Final = (
    "body{font:15px/1.5 system-ui,sans-serif;margin:2rem auto;max-width:60rem;padding:0 1rem;color:#1c2127}"
    "table{border-collapse:collapse;width:100%;margin:.5rem 0 1.5rem}"
    "th,td{text-align:left;padding:.3rem .6rem;border-bottom:1px solid #d5d9de}"
    "td.n,th.n{text-align:right;font-variant-numeric:tabular-nums}h1{font-size:1.4rem}h2{font-size:1.1rem}"
)


def proof_of(
    request: Request,
    places: Mapping[str, Mapping[str, int]],
    scan: Mapping[str, int],
    unreached: Mapping[str, str] | None = None,
) -> dict[str, Any]:
    """Return the proof of one request as a document; two runs over the same data give the same one.

    Parameters
    ----------
    places
        Objects, rows and cells that went, by place, as of :class:`heap_assets.privacy.Tally`.
    scan
        Of the last scan of the lake: `objects` read, `hits` of the person's values.
    unreached
        What this deployment cannot reach, by its name, besides what none can.
    """
    return {
        "request": request.id,
        "state": str(request.state),
        "requested_at": request.requested_at.isoformat(),
        "source": request.source,
        "confirmed_at": request.confirmed_at.isoformat() if request.confirmed_at else None,
        "identifiers": dict(request.counts.get("identifiers", {})),
        "left": dict(request.counts.get("left", {})),
        "tombstones": sorted(request.tombstones),
        "places": dict(sorted(places.items())),
        "scan": dict(scan),
        "destinations": {
            name: {field: value for field, value in answer.items() if field not in ("keys", "known_as")}
            for name, answer in sorted(request.destinations.items())
        },
        "not_reached": {**ELSEWHERE, **(unreached or {})},
    }


def proof_page(proof: Mapping[str, Any]) -> str:
    """Return a proof as one HTML page that opens without a network."""
    places = [(place, one["objects"], one["rows"], one["cells"]) for place, one in proof["places"].items()]
    destinations = [
        (name, answer.get("state", ""), answer.get("asked", 0), answer.get("note", ""))
        for name, answer in proof["destinations"].items()
    ]
    scan = proof["scan"]
    return "".join(
        [
            "<!doctype html><html lang=en><meta charset=utf-8>",
            f"<title>Erasure {_text(proof['request'])}</title><style>{_STYLE}</style>",
            f"<h1>Erasure {_text(proof['request'])}: {_text(proof['state'])}</h1>",
            _table(
                ("", ""),
                [
                    ("Requested", proof["requested_at"]),
                    ("Confirmed", proof["confirmed_at"]),
                    ("Source", proof["source"]),
                    ("Identifiers erased", _counts(proof["identifiers"])),
                    ("Values left to others", _counts(proof["left"])),
                    ("Tombstones", len(proof["tombstones"])),
                ],
            ),
            "<h2>What went</h2>",
            _table(("Place", "Objects", "Rows", "Cells of other people's rows"), places),
            f"<h2>Scan</h2><p>{scan.get('objects', 0):,} objects of the lake were read after that; "
            f"{scan.get('hits', 0):,} of them held a value of the person.</p>",
            "<h2>Destinations</h2>",
            _table(("Sync", "State", "Keys", "Note"), destinations),
            "<h2>Not reached</h2>",
            _table(("Where", "Why"), list(proof["not_reached"].items())),
            "</html>\n",
        ]
    )


def _table(names: Sequence[str], rows: Sequence[Sequence[Any]]) -> str:
    if not rows:
        return "<p>Nothing.</p>"
    head = "".join(f"<th>{_text(name)}</th>" for name in names)
    body = "".join("<tr>" + "".join(_cell(value) for value in row) + "</tr>" for row in rows)
    return f"<table><tr>{head}</tr>{body}</table>"


def _cell(value: Any) -> str:
    return f"<td class=n>{value:,}</td>" if isinstance(value, int) else f"<td>{_text(value)}</td>"


def _counts(counts: Mapping[str, int]) -> str:
    return ", ".join(f"{count:,} {name}" for name, count in counts.items()) or "none"


def _text(value: Any) -> str:
    return html.escape("" if value is None else str(value))
