"""Syncs of Hightouch and Census, which send by themselves what was published here: started, and waited for.

What is needed to go on after a kill is stored before each step: first the runs that there were, then the id of the run
that was started. A run that began before it was asked for may have missed the newest rows, so its end is awaited and
another one is started.
"""

from __future__ import annotations

import json
import re
from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any, Protocol

from heap_assets.activation.engine.api import Api
from heap_assets.activation.engine.auth import Bearer
from heap_assets.activation.engine.destination import Dedupe, Service
from heap_assets.activation.engine.exchange import Request
from heap_assets.activation.engine.rate_limit import Clock, RealClock
from heap_assets.activation.engine.verdict import Response
from heap_assets.config import CensusSettings, HightouchSettings
from heap_assets.errors import DeliveryError
from heap_assets.redaction import redact

_LONGEST_REASON = 300
_UNLISTED_FOR = 600.0
"""Seconds after which a run that the tool does not list is not waited for any longer."""
_NOT_THERE = frozenset({404})
_RUN_ID = re.compile(r"[\w-]{1,100}")


@dataclass(frozen=True)
class ToolRun:
    """A run of the tool.

    Attributes
    ----------
    status
        The tool's own word.
    ended, skipped
        Whether it is over; whether it did nothing because another one was running.
    failure
        Why it failed as a whole, empty if it did not.
    planned, sent, rejected, invalid
        Rows; None where the tool does not say. `invalid` ones were left out by the tool itself.
    """

    id: str
    status: str
    ended: bool
    skipped: bool = False
    failure: str = ""
    planned: int | None = None
    sent: int | None = None
    rejected: int | None = None
    invalid: int | None = None

    @property
    def rejected_share(self) -> float:
        """The share of rejected and invalid rows among all."""
        lost = (self.rejected or 0) + (self.invalid or 0)
        return lost / max(self.planned or 0, lost + (self.sent or 0), 1)


class Tool(Service, ABC):
    """The calls of one tool's API. A trigger whose answer is lost is not made again: it may have started a run."""

    dedupe = Dedupe("none")

    def __init__(self, url: str, sync: int, token: str) -> None:
        self.auth = Bearer(token)
        self.sync = f"{url}/syncs/{sync}"
        self.url = url

    def look_up(self) -> Request:
        """Return the call that looks the sync up."""
        return Request(self.sync, method="GET", reads=_NOT_THERE)

    @abstractmethod
    def trigger(self, *, full: bool) -> Request:
        """Return the call that starts a run; `full`: of all rows, not of what changed."""

    @abstractmethod
    def triggered(self, answer: Mapping[str, Any]) -> Any:
        """Return the id of the run that an answer names."""

    @abstractmethod
    def run(self, run: str) -> Request:
        """Return the call that looks at a run."""

    @abstractmethod
    def described(self, run: str, answer: Mapping[str, Any]) -> ToolRun | None:
        """Return what an answer says of a run; None if it does not have it yet."""

    def runs(self) -> Request | None:
        """Return the call that lists the newest runs; None for a tool that skips a run beside another one."""
        return None


class HightouchTool(Tool):
    """Hightouch: a trigger beside an active run returns that run or queues another; `warning`: rows were rejected."""

    kind = "hightouch"

    def trigger(self, *, full: bool) -> Request:
        return Request(f"{self.sync}/trigger", json.dumps({"fullResync": full}).encode())

    def triggered(self, answer: Mapping[str, Any]) -> Any:
        return answer.get("id")

    def runs(self) -> Request:
        return Request(f"{self.sync}/runs", method="GET")

    def run(self, run: str) -> Request:
        return Request(f"{self.sync}/runs?runId={run}", method="GET")

    def described(self, run: str, answer: Mapping[str, Any]) -> ToolRun | None:
        entry = next((entry for entry in _entries(answer) if str(entry.get("id")) == run), None)
        if entry is None:
            return None
        status, error = str(entry.get("status")), entry.get("error")
        ended = status in ("success", "warning") or bool(entry.get("finishedAt"))
        ended = ended or status in ("failed", "cancelled", "interrupted")
        failed = ended and status not in ("success", "warning")
        return ToolRun(
            *(run, status, ended),
            failure=_reason(status, error) if failed else "",
            planned=_rows(entry.get("plannedRows")),
            sent=_rows(entry.get("successfulRows")),
            rejected=_rows(entry.get("failedRows")),
        )


class CensusTool(Tool):
    """Census: the envelope says `success` whatever became of the run; a run beside another one is skipped."""

    kind = "census"

    def trigger(self, *, full: bool) -> Request:
        return Request(f"{self.sync}/trigger?force_full_sync={json.dumps(full)}", b"{}")

    def triggered(self, answer: Mapping[str, Any]) -> Any:
        return _data(answer).get("sync_run_id")

    def run(self, run: str) -> Request:
        return Request(f"{self.url}/sync_runs/{run}", method="GET", reads=_NOT_THERE)

    def described(self, run: str, answer: Mapping[str, Any]) -> ToolRun | None:
        data = _data(answer)
        if not data:
            return None
        status, skipped = str(data.get("status")), data.get("status") == "skipped"
        ended = skipped or status in ("completed", "failed") or bool(data.get("completed_at") or data.get("canceled"))
        failed = ended and not skipped and (status != "completed" or bool(data.get("canceled")))
        words = [data.get(name) for name in ("error_code", "error_message", "error_detail")]
        return ToolRun(
            *(run, "cancelled" if data.get("canceled") else status, ended, skipped),
            failure=_reason(status, ": ".join(str(word) for word in words if word)) if failed else "",
            planned=_rows(data.get("source_record_count")),
            sent=_rows(data.get("records_updated")),
            rejected=_rows(data.get("records_failed")),
            invalid=_rows(data.get("records_invalid")),
        )


def tool_of(settings: HightouchSettings | CensusSettings) -> Tool:
    """Return the tool that settings name."""
    tool = HightouchTool if settings.kind == "hightouch" else CensusTool
    return tool(settings.url, settings.sync, settings.token.get_secret_value())


class Memory(Protocol):
    """What a killed run leaves to the next one."""

    def load(self) -> Mapping[str, Any] | None:
        """Return what was stored last, None if nothing is."""

    def store(self, state: Mapping[str, Any]) -> None:
        """Store plain JSON without secrets."""

    def clear(self) -> None:
        """Forget it: the run has ended."""


class ToolRunner:
    """Starts a run of a sync and waits for its end.

    Parameters
    ----------
    memory
        Where the started run is kept.
    poll_seconds, timeout
        The longest wait between two looks, and how long to wait at most, in seconds.
    report
        Is called with the run whenever its status changes.
    """

    def __init__(
        self,
        tool: Tool,
        api: Api,
        memory: Memory,
        *,
        poll_seconds: float,
        timeout: float,
        report: Callable[[ToolRun], None] = lambda run: None,
        clock: Clock | None = None,
    ) -> None:
        self._tool, self._api, self._memory, self._report = tool, api, memory, report
        self._clock = clock or RealClock()
        self._poll = poll_seconds
        self._timeout, self._until = timeout, self._clock.now() + timeout

    def run(self, inputs: str, *, full: bool = False) -> ToolRun:
        """Return the ended run of a sync over some inputs; a run that was started over the same is waited for.

        `inputs`: a version of what the sync reads. A run over others is left to itself.

        Raises
        ------
        DeliveryError
            If the tool cannot be reached or refuses, or the time is over; what was started stays known.
        """
        state = self._memory.load() or {}
        started = self._resumed(state) if (state.get("inputs"), state.get("full")) == (inputs, full) else None
        while True:
            run_id, began_before = started or self._started(inputs, full=full)
            run = self._ended(run_id)
            if not (run.skipped or began_before):
                self._memory.clear()
                return run
            started = None
            if run.skipped:  # another one is running: nothing says which, so it is tried again now and then
                self._pause(self._poll)

    def _resumed(self, state: Mapping[str, Any]) -> tuple[str, bool] | None:
        """Return the run that was started, and whether it began before; None if none was, as far as can be known."""
        before = set(state.get("before", ()))
        if state.get("run"):
            return state["run"], state["run"] in before
        newer = [run for run in self._listed() if run not in before]
        return (newer[0], False) if newer else None

    def _started(self, inputs: str, *, full: bool) -> tuple[str, bool]:
        before = self._listed()
        state = {"inputs": inputs, "full": full, "before": before}
        self._memory.store(state)
        answer = self._call(self._tool.trigger(full=full))
        run = str(self._tool.triggered(answer.fields) or "")
        if not answer.accepted or not _RUN_ID.fullmatch(run):
            raise DeliveryError(f"{self._tool.kind} started no run: {_answered(answer)}")
        self._memory.store({**state, "run": run})
        return run, run in before

    def _listed(self) -> list[str]:
        request = self._tool.runs()
        return [] if request is None else [str(entry.get("id")) for entry in _entries(self._call(request).fields)]

    def _ended(self, run_id: str) -> ToolRun:
        wait, since, status = min(1.0, self._poll), self._clock.now(), ""
        while True:
            answer = self._call(self._tool.run(run_id))
            run = self._tool.described(run_id, answer.fields) if answer.accepted else None
            if run is None and (answer.status not in (200, 404) or self._clock.now() - since > _UNLISTED_FOR):
                self._memory.clear()
                raise DeliveryError(f"{self._tool.kind} does not know its run {run_id}: {_answered(answer)}")
            if run is not None and run.status != status:
                status = run.status
                self._report(run)
            if run is not None and run.ended:
                return run
            self._pause(wait)
            wait = min(wait * 2, self._poll)

    def _pause(self, seconds: float) -> None:
        if self._clock.now() + seconds > self._until:
            raise DeliveryError(
                f"{self._tool.kind} is at it for more than {self._timeout / 3600:g} h: the next run goes on waiting"
            )
        self._clock.wait(seconds)

    def _call(self, request: Request) -> Response:
        return self._api.call(request)


def _entries(answer: Mapping[str, Any]) -> list[Mapping[str, Any]]:
    entries = answer.get("data")
    return [entry for entry in entries if isinstance(entry, dict)] if isinstance(entries, list) else []


def _data(answer: Mapping[str, Any]) -> Mapping[str, Any]:
    data = answer.get("data")
    return data if isinstance(data, dict) else {}


def _rows(count: object) -> int | None:
    """Return a number of rows: one number, or one for each of what was added, changed and removed."""
    if isinstance(count, dict):
        parts = [_rows(part) for part in count.values()]
        return sum(part for part in parts if part is not None) if any(part is not None for part in parts) else None
    return count if isinstance(count, int) and not isinstance(count, bool) else None


def _reason(status: str, words: object) -> str:
    return redact(f"{status}: {words}" if words else status, longest=_LONGEST_REASON)


def _answered(answer: Response) -> str:
    text = answer.body[:_LONGEST_REASON].decode("utf-8", "replace").strip()
    return redact(f"HTTP {answer.status} {text}".strip(), longest=_LONGEST_REASON)
