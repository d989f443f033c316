"""Questions about audiences before they are used: how large, who and why, what another number would do, as SQL."""

from __future__ import annotations

import copy
import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, replace
from datetime import UTC, date, datetime, timedelta
from typing import Any, ClassVar

import polars as pl

from heap_assets.analytics import AudienceTables, Dialect, Statement, audience_sql
from heap_assets.errors import MissingInputError, SettingsError, no_such
from heap_assets.pipelines.behaviour import audience_facts, audience_reach, windows_of
from heap_assets.pipelines.relations import Relations
from heap_assets.profiles import (
    Audience,
    Condition,
    EventCriterion,
    Facts,
    counts_of,
    current_members,
    events_needed,
    in_order,
    members,
    parse_audience,
    with_audience,
)
from heap_assets.project import Project
from heap_assets.tables import AUDIENCES, GRAPH, PROFILES, is_signal


@dataclass(frozen=True)
class AudienceDay:
    """A project's audiences on the day of its newest profiles, evaluated from their definitions."""

    project: Project
    day: date
    audiences: Mapping[str, Audience]
    members_of: ClassVar[str] = PROFILES
    stored_in: ClassVar[str] = AUDIENCES

    @classmethod
    def of_settings(cls, project: Project) -> list[Audience]:
        """Return the audiences of the settings, each after those that it names."""
        return project.audiences

    @property
    def declared(self) -> Mapping[str, Mapping[str, Any]]:
        """The definitions of the settings, as written."""
        return self.project.settings.profiles.audiences

    @classmethod
    def newest(
        cls, project: Project, day: date | None = None, more: Mapping[str, Mapping[str, Any]] | None = None
    ) -> AudienceDay:
        """Return the audiences of the settings, and `more` definitions by name, on a day whose profiles are built.

        Raises MissingInputError: there is no such day.
        """
        newest = day or project.lake.newest_partition(cls.members_of, date.max)
        if newest is None or project.lake.find(cls.members_of, str(newest)) is None:
            raise MissingInputError(f"{cls.members_of} {day or ''} has not been built yet: materialize it first")
        parsed = [parse_audience(name, definition) for name, definition in (more or {}).items()]
        listed = {audience.name: audience for audience in [*cls.of_settings(project), *parsed]}
        return cls(project, newest, {audience.name: audience for audience in in_order(list(listed.values()))})

    @property
    def as_of(self) -> datetime:
        """The end of the day."""
        return datetime(self.day.year, self.day.month, self.day.day, tzinfo=UTC) + timedelta(days=1)

    def one(self, name: str) -> Audience:
        """Return an audience by its name; SettingsError names those that there are."""
        if name not in self.audiences:
            raise no_such("audience", name, self.audiences)
        return self.audiences[name]

    def facts(self, *audiences: Audience) -> Facts:
        """Return what the audiences and those that they name are evaluated on."""
        graph = self.project.lake.scan(GRAPH, str(self.day))
        named = [*audiences, *self._named(*audiences)]
        return audience_facts(self.project, named, graph, windows_of(self.project, self.day, named))

    def rows(self, path: str) -> pl.LazyFrame:
        """Return the rows of a table on the day, with `profile_id`."""
        return self.project.lake.scan(path, str(self.day))

    def relations(self, dialect: Dialect) -> Relations:
        """Return the tables that statements read."""
        return Relations(self.project, self.day, dialect)

    def people(self, *audiences: Audience) -> pl.LazyFrame:
        """Return the profiles of the day, with a Boolean column for each audience that the given ones name."""
        profiles = self.rows(self.members_of)
        profiles = profiles.drop([name for name in self.audiences if name in profiles.collect_schema()])
        for audience in self._named(*audiences):
            profiles = with_audience(profiles, audience, self.facts(audience))
        return profiles

    def _named(self, *audiences: Audience) -> list[Audience]:
        """Return the audiences that others name, directly or not, each after those that it names."""
        names: set[str] = set()
        pending = [name for audience in audiences for part in audience.parts for name in part.audiences]
        while pending:
            name = pending.pop()
            if name not in names:
                names.add(name)
                pending += [other for part in self.one(name).parts for other in part.audiences]
        return [audience for name, audience in self.audiences.items() if name in names]

    def members(self, audience: Audience) -> pl.DataFrame:
        """Return profile_id of the members, sorted."""
        facts = self.facts(audience)
        inside = members(audience, self.people(audience), facts.events, facts.as_of, facts.accounts)
        return inside.collect()

    def stored(self) -> dict[str, set[str]]:
        """Return the members of each audience as they were stored for the day; nothing if they were not."""
        if self.project.lake.find(self.stored_in, str(self.day)) is None:
            return {}
        table = current_members(self.rows(self.stored_in)).collect()
        return {str(name): set(rows["profile_id"]) for (name,), rows in table.group_by("audience")}

    def statement(self, audience: Audience, dialect: Dialect = "lake") -> Statement:
        """Return the SQL of an audience over the tables of `heap-assets sql`, or those published to BigQuery."""
        relations, named = self.relations(dialect), self._named(audience)
        signals = [event for event in events_needed([audience, *named]) if is_signal(event)]
        events = relations.named([*audience_reach(self.project, [audience, *named]), *signals])
        tables = AudienceTables(
            relations.people(), events, self.as_of, relations.accounts(), {one.name: one for one in named}
        )
        return relations.bound(audience_sql(audience, tables))

    def explained(self, audience: Audience) -> pl.DataFrame:
        """Return condition, meet (people who meet it), left (people who meet it and all before it), in order."""
        rows, left = [], None
        for text, part in _conditions(audience):
            meet = set(self.members(part)["profile_id"])
            left = meet if left is None else left & meet
            rows.append((text, len(meet), len(left)))
        return pl.DataFrame(rows, schema={"condition": pl.String, "meet": pl.Int64, "left": pl.Int64}, orient="row")

    def explained_person(self, audience: Audience, identifier: str) -> pl.DataFrame:
        """Return condition, met, value (of a trait, or how often an event happened) for one person.

        Raises SettingsError: no profile of the day has the identifier, `type:value`.
        """
        profile = self._owner(identifier)
        person = self.people(audience).filter(pl.col("profile_id") == profile)
        row = person.collect().row(0, named=True)
        rows = []
        for text, part in _conditions(audience):
            facts = self.facts(part)
            inside = members(part, person, facts.events, facts.as_of, facts.accounts).collect()
            rows.append((text, inside.height > 0, self._value(part, facts, row)))
        return pl.DataFrame(rows, schema={"condition": pl.String, "met": pl.Boolean, "value": pl.String}, orient="row")

    def _owner(self, identifier: str) -> str:
        kind, _, value = identifier.partition(":")
        graph = self.project.lake.scan(GRAPH, str(self.day))
        owner = graph.filter((pl.col("identifier_type") == kind) & (pl.col("identifier") == value))
        profile: str | None = next(iter(owner.collect()["profile_id"].drop_nulls()), None)
        if profile is None:
            raise SettingsError(
                f"no profile of {self.day} has this identifier of the type {kind!r}; expected type:value"
            )
        return profile

    def _value(self, part: Audience, facts: Facts, row: Mapping[str, Any]) -> str | None:
        if part.user_properties:
            value = row.get(part.user_properties[0][0])
            return None if value is None else str(value)
        for criterion in (*part.events, *part.exclude_events):
            counts = counts_of(criterion, facts).filter(pl.col("profile_id") == row["profile_id"]).collect()
            return str(counts["count"][0] if counts.height else 0)
        return None

    def changed(self, name: str, path: str, value: Any) -> dict[str, Any]:
        """Return what another value at a path of a definition would do: value, members, enter, leave."""
        definition = self.declared.get(name)
        if definition is None:
            raise no_such("audience", name, self.declared)
        current = set(self.members(self.one(name))["profile_id"])
        changed = set(self.members(parse_audience(name, _with_value(definition, path, value), name))["profile_id"])
        return {
            "value": value,
            "members": len(changed),
            "enter": len(changed - current),
            "leave": len(current - changed),
        }


def _conditions(audience: Audience) -> Iterator[tuple[str, Audience]]:
    """Yield each condition in words, and a definition that has nothing else."""
    empty = Audience(audience.name)
    for name, condition in audience.user_properties:
        yield f"{name} {_text(condition)}", replace(empty, user_properties=((name, condition),))
    for name, condition in audience.account_properties:
        yield f"account: {name} {_text(condition)}", replace(empty, account_properties=((name, condition),))
    for name in audience.audiences:
        yield f"in {name}", replace(empty, audiences=(name,))
    for criterion in audience.events:
        yield _event(criterion), replace(empty, events=(criterion,))
    for criterion in audience.exclude_events:
        yield f"not: {_event(criterion)}", replace(empty, exclude_events=(criterion,))
    for sequence in audience.sequences:
        steps = ", then ".join(step.type for step in sequence.steps)
        span = f" within {timedelta(days=sequence.span_days)}" if sequence.span_days else ""
        yield f"{steps}{span}", replace(empty, sequences=(sequence,))
    for group in audience.all_of:
        yield f"all of: {_joined_text(group)}", replace(empty, all_of=(group,))
    for group in audience.none_of:
        yield f"none of: {_joined_text(group)}", replace(empty, none_of=(group,))
    if audience.any_of:
        text = " or ".join(map(_joined_text, audience.any_of))
        yield f"any of: {text}", replace(empty, any_of=audience.any_of)


def _joined_text(group: Audience) -> str:
    return " and ".join(text for text, _ in _conditions(group))


def _event(criterion: EventCriterion) -> str:
    of = ", ".join(f"{name} {_text(condition)}" for name, condition in criterion.properties)
    window = f" in the last {criterion.within_days:g} days" if criterion.within_days else ""
    counts = " and ".join(f"{_text(condition)} times" for condition in criterion.count)
    return f"{criterion.type}{f' ({of})' if of else ''} {counts}{window}"


def _text(condition: Condition) -> str:
    operand = condition.operand
    text = ", ".join(map(str, operand)) if isinstance(operand, tuple) else str(operand)
    return f"{condition.operator} {text}"


_STEP = re.compile(r"\.?(?P<key>[^.\[\]]+)|\[(?P<index>[0-9]{1,6})\]")


def _with_value(definition: Mapping[str, Any], path: str, value: Any) -> dict[str, Any]:
    """Return a definition with another value at `events[0].count.gte`; SettingsError if the path leads nowhere."""
    changed = copy.deepcopy(dict(definition))
    target: Any = changed.get("definition", changed)
    steps = [match["key"] if match["key"] is not None else int(match["index"]) for match in _STEP.finditer(path)]
    try:
        for step in steps[:-1]:
            target = target[step]
        if isinstance(target, list):
            target[int(steps[-1])] = value
        else:
            target.update({steps[-1]: value})
    except (AttributeError, KeyError, IndexError, TypeError, ValueError) as error:
        raise SettingsError(
            f"{path} leads nowhere in the definition; expected a path such as events[0].count.gte"
        ) from error
    return changed
