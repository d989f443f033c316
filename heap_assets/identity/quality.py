"""Quality of a grouping against a known truth: pairs, B-cubed, over- and under-merging, exact clusters.

Everything comes from one contingency table (how many records of true person j ended in cluster i), so the cost is a
group-by over records and never a loop over pairs.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, dataclass

import polars as pl

from heap_assets.errors import HeapAssetsError


class QualityError(HeapAssetsError):
    """The tables to be compared do not fit together."""


@dataclass(frozen=True)
class Quality:
    """A grouping measured against the truth (reference: identity.md 6).

    Attributes
    ----------
    records
        Records of the truth; `unresolved` of them are absent from the result or in no profile.
    clusters, people
        Groups in the result and in the truth, over those records.
    precision, recall, f1
        Over pairs of records that are together; 1.0 where there are no pairs.
    bcubed_precision, bcubed_recall, bcubed_f1
        Averages over records: not blind to small clusters, nearly blind to one giant one. Read both.
    over_merged, over_merge_rate
        Clusters that hold two or more people, and their share of clusters.
    under_merged, under_merge_rate
        People who are in two or more clusters, and their share of people.
    exact, exact_precision, exact_recall
        Clusters that are one person, whole; their share of clusters and of people.
    largest_cluster
        Records in the largest cluster of the result.
    """

    records: int
    unresolved: int
    clusters: int
    people: int
    precision: float
    recall: float
    f1: float
    bcubed_precision: float
    bcubed_recall: float
    bcubed_f1: float
    over_merged: int
    over_merge_rate: float
    under_merged: int
    under_merge_rate: float
    exact: int
    exact_precision: float
    exact_recall: float
    largest_cluster: int

    def frame(self) -> pl.DataFrame:
        """Return the figures as a table: metric String, value Float64."""
        figures = asdict(self)
        return pl.DataFrame({"metric": list(figures), "value": [float(value) for value in figures.values()]})

    def text(self) -> str:
        """Return three aligned lines for people."""
        return (
            f"pairs      precision {self.precision:.4f}  recall {self.recall:.4f}  F1 {self.f1:.4f}\n"
            f"B-cubed    precision {self.bcubed_precision:.4f}  recall {self.bcubed_recall:.4f}  "
            f"F1 {self.bcubed_f1:.4f}\n"
            f"clusters   {self.exact:,} of {self.clusters:,} exact   {self.over_merged:,} over-merged   "
            f"{self.under_merged:,} of {self.people:,} people split"
        )


def quality(
    result: pl.LazyFrame,
    truth: pl.LazyFrame,
    *,
    on: Sequence[str] = ("identifier_type", "identifier"),
    result_id: str = "profile_id",
    truth_id: str = "person",
) -> Quality:
    """Measure a grouping against the truth.

    Parameters
    ----------
    result
        `on`, `result_id`: one row per record, such as `identity/graph`. Records unknown to the truth are left out.
    truth
        `on`, `truth_id`: one row per record. A null `truth_id` is nobody in particular (a kiosk): left out.

    A record without a `result_id`, or not in `result`, counts as a cluster of its own: not resolving a record costs
    recall and cannot raise precision.

    Raises QualityError: a record is in `truth` or in `result` twice, or the truth is empty.
    """
    keys = list(on)
    labelled = truth.filter(pl.col(truth_id).is_not_null()).select(*keys, pl.col(truth_id).alias("_person"))
    clustered = result.select(*keys, pl.col(result_id).alias("_cluster"))
    _require_unique(labelled, keys, "truth")
    _require_unique(clustered.join(labelled, on=keys, how="semi"), keys, "result")
    cells = (
        labelled.join(clustered, on=keys, how="left")
        .with_row_index("_row")
        .group_by(
            "_person",
            "_cluster",
            # a record in no cluster stands alone
            pl.when(pl.col("_cluster").is_null()).then(pl.col("_row")).alias("_alone"),
        )
        .agg(n=pl.len().cast(pl.Int64))
        .collect()
    )
    if cells.is_empty():
        raise QualityError("The truth names no record with a person: there is nothing to measure against.")
    return _measure(cells)


def _require_unique(frame: pl.LazyFrame, keys: list[str], title: str) -> None:
    repeated = frame.group_by(keys).len().filter(pl.col("len") > 1).select(pl.len()).collect().item()
    if repeated:
        raise QualityError(
            f"{repeated} records stand more than once in the {title}; a record is one {' + '.join(keys)}."
        )


def _measure(cells: pl.DataFrame) -> Quality:
    """Compute all figures from the contingency table: _person, _cluster, _alone, n."""
    clusters = cells.group_by("_cluster", "_alone").agg(size=pl.col("n").sum(), people=pl.len())
    people = cells.group_by("_person").agg(size=pl.col("n").sum(), clusters=pl.len())
    sized = cells.join(
        clusters.select("_cluster", "_alone", a="size"), on=["_cluster", "_alone"], nulls_equal=True
    ).join(people.select("_person", b="size"), on="_person")
    records = int(cells["n"].sum())
    joined_pairs = _pairs(cells["n"])
    precision, recall = _ratio(joined_pairs, _pairs(clusters["size"])), _ratio(joined_pairs, _pairs(people["size"]))
    square = pl.col("n").cast(pl.Float64) * pl.col("n")
    b_precision, b_recall = (float(sized.select((square / pl.col(of)).sum()).item()) / records for of in ("a", "b"))
    over = clusters.filter(pl.col("people") > 1).height
    under = people.filter(pl.col("clusters") > 1).height
    exact = sized.filter((pl.col("n") == pl.col("a")) & (pl.col("n") == pl.col("b"))).height
    return Quality(
        records=records,
        unresolved=int(clusters.filter(pl.col("_cluster").is_null())["size"].sum()),
        clusters=clusters.height,
        people=people.height,
        precision=precision,
        recall=recall,
        f1=_harmonic(precision, recall),
        bcubed_precision=b_precision,
        bcubed_recall=b_recall,
        bcubed_f1=_harmonic(b_precision, b_recall),
        over_merged=over,
        over_merge_rate=over / clusters.height,
        under_merged=under,
        under_merge_rate=under / people.height,
        exact=exact,
        exact_precision=exact / clusters.height,
        exact_recall=exact / people.height,
        largest_cluster=int(clusters.select(pl.col("size").max()).item()),
    )


def _pairs(sizes: pl.Series) -> int:
    return int((sizes * (sizes - 1) // 2).sum())


def _ratio(part: int, total: int) -> float:
    return part / total if total else 1.0


def _harmonic(a: float, b: float) -> float:
    return 2 * a * b / (a + b) if a + b else 0.0
