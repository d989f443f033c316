"""Days of a run, each for itself: what can be built is reported, what waits is named, and neither stops the other.

A backfill over a range is one run with many days. One that lacks an input, or cannot be read, is no reason to leave
the others undone, nor to skip what is downstream of them in the same run.
"""

from collections.abc import Callable, Iterator, Mapping
from typing import Any

import dagster as dg

# Dagster's own mark of an output that reports no materialization; it has no public name.
from dagster._core.definitions.source_asset import SYSTEM_METADATA_KEY_SOURCE_ASSET_OBSERVATION

from heap_assets.errors import HeapAssetsError, MissingInputError
from heap_assets.orchestration.checks import asset_key

WAITS = "waits"
"""Metadata of an observation: what an asset waits for, in words, and until when where that is known."""


class Days:
    """Builds the days of one asset in a run.

    >>> days = Days(context, "profiles")                                                    # doctest: +SKIP
    >>> for day in context.partition_keys:                                                  # doctest: +SKIP
    ...     days.build(day, lambda: _build(day))
    >>> yield from days.results()                                                           # doctest: +SKIP
    """

    def __init__(self, context: dg.AssetExecutionContext, path: str) -> None:
        self._context = context
        self._path = path
        self._built: dict[str, Mapping[str, Any]] = {}
        self._failed: dict[str, HeapAssetsError] = {}

    def build(self, day: str, make: Callable[[], Mapping[str, Any]]) -> None:
        """Build a day by `make`, which returns its metadata; a missing input or an error is noted."""
        try:
            self._built[day] = make()
        except MissingInputError as error:
            note_wait(self._context, self._path, day, str(error))
        except HeapAssetsError as error:
            self._context.log.error("%s %s: %s", self._path, day, error)  # noqa: TRY400  the message says all
            self._failed[day] = error

    def results(self) -> Iterator[Any]:
        """Yield what was built.

        Raises
        ------
        Failure
            Naming the days that could not be built for another reason than a missing input.
        """
        yield from materializations(self._context, asset_key(self._path), self._built)
        if self._failed:
            reasons = "\n".join(f"{day}: {error}" for day, error in self._failed.items())
            raise dg.Failure(f"{self._path} could not be built for {len(self._failed)} days\n{reasons}")


def note_wait(context: dg.AssetExecutionContext, path: str, day: str, reason: str) -> None:
    """Write on the page of an asset, and into the log of the run, what a day of it waits for."""
    context.log.warning("%s %s waits: %s", path, day, reason)
    context.log_event(dg.AssetObservation(asset_key(path), partition=day, metadata={WAITS: reason}))


def materializations(
    context: dg.AssetExecutionContext, key: dg.AssetKey, built: Mapping[str, Mapping[str, Any]]
) -> Iterator[Any]:
    """Report the days of a run that were built; the output of `key` must be skippable.

    Dagster's result covers all days of a run, so a run with gaps reports day by day. Its output then reports nothing
    more, and lets what is downstream in the same run go on with the days that there are.
    """
    if len(built) == len(context.partition_keys):
        for day, metadata in built.items():
            context.add_asset_metadata(metadata, asset_key=key, partition_key=day)
        yield dg.MaterializeResult(asset_key=key)
        return
    for day, metadata in built.items():
        context.log_event(dg.AssetMaterialization(key, partition=day, metadata=metadata))
    if built:
        name = context.assets_def.get_output_name_for_asset_key(key)
        yield dg.Output(None, output_name=name, metadata={SYSTEM_METADATA_KEY_SOURCE_ASSET_OBSERVATION: True})
