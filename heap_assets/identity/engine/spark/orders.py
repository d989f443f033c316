"""What a job on a cluster is told, as plain values: where the links are, by which rules, and where results go.

The job makes the rules from these values again and holds their digest against the one that it was given: code of
another version, which would decide otherwise, is an error before anything is read.
"""

from __future__ import annotations

import dataclasses
import hashlib
from collections.abc import Mapping
from dataclasses import dataclass, field
from functools import cache
from pathlib import Path
from typing import Any, Final

from heap_assets.errors import HeapAssetsError
from heap_assets.identity.decisions import Decision
from heap_assets.identity.engine.spark.tuning import SparkTuning
from heap_assets.identity.rules import IdentifierRule, Rules
from heap_assets.storage import Store

_PUBLIC_OPTIONS: Final = ("aws_region", "aws_endpoint_url", "aws_virtual_hosted_style_request", "aws_allow_http")
"""Options of a store that travel with orders: where it is, and nothing by which it is opened."""


class SparkJobError(HeapAssetsError):
    """A job of Spark failed, or ended without results; nothing of it is in the lake."""

    exit_status = 1


@dataclass(frozen=True)
class JobOrders:
    """One resolution.

    Attributes
    ----------
    links
        Addresses of the Parquet files of the links as of a day.
    folder, options
        The store below which the job writes, and its options without credentials: those are of the cluster's role.
    graph, graph_options
        The store of the graph's files, likewise; that of all tables unless given.
    is_local
        Whether the job starts a Spark of its own, on its machine.
    """

    links: tuple[str, ...]
    rules: Rules
    tuning: SparkTuning
    folder: str
    options: Mapping[str, str] = field(default_factory=dict)
    is_local: bool = False
    graph: str | None = None
    graph_options: Mapping[str, str] = field(default_factory=dict)

    def values(self) -> dict[str, Any]:
        """Return the orders as JSON can hold them."""
        return {
            "code": code_digest(),
            "links": list(self.links),
            "rules": rules_values(self.rules),
            "digest": self.rules.digest,
            "tuning": dataclasses.asdict(self.tuning),
            "folder": self.folder,
            "options": public_options(self.options),
            "is_local": self.is_local,
            "graph": self.graph,
            "graph_options": public_options(self.graph_options),
        }

    @classmethod
    def of_values(cls, values: Mapping[str, Any]) -> JobOrders:
        """Return the orders that :meth:`values` were made of.

        Raises
        ------
        SparkJobError
            If they are those of another version.
        """
        if values.get("code") != code_digest():
            raise SparkJobError(
                "the cluster has the heap_assets of another version than the run: install the run's own on the cluster"
            )
        rules = rules_of_values(values["rules"])
        if rules.digest != values["digest"]:
            raise SparkJobError("the rules did not arrive as they were sent: their digest is another one")
        return cls(
            links=tuple(values["links"]),
            rules=rules,
            tuning=SparkTuning(**values["tuning"]),
            folder=values["folder"],
            options=values["options"],
            is_local=values["is_local"],
            graph=values["graph"],
            graph_options=values["graph_options"],
        )

    @property
    def store(self) -> Store:
        """Where the job writes."""
        return Store(self.folder, self.options)

    @property
    def graph_store(self) -> Store | None:
        """Where the job writes the graph, if it is not below :attr:`store`."""
        return None if self.graph is None else Store(self.graph, self.graph_options)


@cache
def code_digest() -> str:
    """Return a hash of the code that resolves: numbers of versions are the same for every commit between releases."""
    room = Path(__file__).parents[2]
    files = sorted(room.rglob("*.py"), key=lambda file: file.relative_to(room).as_posix())
    content = b"\0".join(file.relative_to(room).as_posix().encode() + b"\0" + file.read_bytes() for file in files)
    return hashlib.sha256(content).hexdigest()[:32]


def public_options(options: Mapping[str, str]) -> dict[str, str]:
    """Return the options of a store that say where it is, without those that open it."""
    return {name: options[name] for name in _PUBLIC_OPTIONS if name in options}


def rules_values(rules: Rules) -> dict[str, Any]:
    """Return rules as JSON can hold them; of decisions what resolution knows of."""
    return {
        "identifiers": [vars(rule) for rule in rules.identifiers],
        "order": rules.order,
        "suppressed": sorted(map(list, rules.suppressed)),
        "decisions": [[one.kind, one.id, *map(list, one.identifiers)] for one in rules.decisions],
    }


def rules_of_values(values: Mapping[str, Any]) -> Rules:
    """Return the rules that :func:`rules_values` were made of."""
    return Rules(
        identifiers=tuple(_identifier_rule(rule) for rule in values["identifiers"]),
        order=values["order"],
        suppressed=frozenset((kind, value) for kind, value in values["suppressed"]),
        decisions=tuple(
            Decision(kind, tuple((name, value) for name, value in pairs), id=number)
            for kind, number, *pairs in values["decisions"]
        ),
    )


def _identifier_rule(values: Mapping[str, Any]) -> IdentifierRule:
    fields: dict[str, Any] = {
        name: tuple(entry) if isinstance(entry, list) else entry for name, entry in values.items()
    }
    return IdentifierRule(**fields)
