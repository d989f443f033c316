"""What could be otherwise: `email=1..5`, `device_id.shared_above=1,never`, `order=first_seen`, `block=email:a@b.io`."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any

from heap_assets.errors import SettingsError
from heap_assets.identity.rules import IdentifierRule, Rules

MAX_VARIANTS = 50
FORMS = "email=1..5, email=2,none, device_id.shared_above=1,never, order=first_seen or block=email:info@acme.io"


class SweepError(SettingsError):
    """A sweep that cannot be read; the message says what can be asked."""


@dataclass(frozen=True)
class Variant:
    """Rules that differ in one setting.

    Attributes
    ----------
    setting, value
        What is changed, and to what.
    rules
        The whole rules.
    blocked
        (type, value) that is taken out.
    exact
        False if the change also decides which links records make (a value blocked, sharing switched on or off): links
        that exist are resolved by the new rules, links that other records would make instead are not known.
    """

    setting: str
    value: str
    rules: Rules
    blocked: tuple[str, str] | None = None
    exact: bool = True


def variants(sweeps: Sequence[str], rules: Rules) -> list[Variant]:
    """Read sweeps, each of which changes one setting at a time.

    Raises
    ------
    SweepError
        A sweep names nothing that the rules have, or a value it cannot take; or there are more than `MAX_VARIANTS`.
    """
    found = [variant for sweep in sweeps for variant in _variants(sweep, rules)]
    if not found:
        raise SweepError(f"nothing to vary; ask for {FORMS}.")
    if len(found) > MAX_VARIANTS:
        raise SweepError(f"{len(found)} variants, at most {MAX_VARIANTS} in one go.")
    return found


def _variants(sweep: str, rules: Rules) -> list[Variant]:
    setting, equals, values = (part.strip() for part in sweep.partition("="))
    if not equals or not values:
        raise SweepError(f"{sweep!r} is no sweep; ask for {FORMS}.")
    if setting == "block":
        return [_blocked(value.strip(), rules) for value in values.split(",")]
    return [_changed(setting, value, sweep, rules) for value in _expanded(values)]


def _expanded(values: str) -> list[str]:
    found = []
    for part in (part.strip() for part in values.split(",")):
        span = re.fullmatch(r"(\d+)\.\.(\d+)", part)
        found += (
            [str(n) for n in range(int(span[1]), min(int(span[2]), int(span[1]) + MAX_VARIANTS) + 1)]
            if span
            else [part]
        )
    return found


def _changed(setting: str, value: str, sweep: str, rules: Rules) -> Variant:
    if setting == "order":
        if value not in ("priority", "first_seen"):
            raise SweepError(f"{sweep!r}: order is priority or first_seen.")
        return _variant(setting, value, rules, replace(rules, order=value))  # type: ignore[arg-type]
    name, _, what = setting.partition(".")
    what = what or "max_per_profile"
    if name not in rules.types or what not in ("max_per_profile", "shared_above"):
        raise SweepError(
            f"{sweep!r}: unknown setting {setting!r}; types are {', '.join(rules.types)}. Ask for {FORMS}."
        )
    words: dict[str, Any] = {"none": None} if what == "max_per_profile" else {"never": "never"}
    if value not in words and not re.fullmatch(r"\d+", value):
        raise SweepError(f"{sweep!r}: {value!r} is neither a number nor {next(iter(words))!r}.")
    content: Any = words[value] if value in words else int(value)
    identifiers = tuple(_with(rule, what, content) if rule.type == name else rule for rule in rules.identifiers)
    return _variant(f"{name}.{what}", value, rules, replace(rules, identifiers=identifiers))


def _with(rule: IdentifierRule, what: str, content: Any) -> IdentifierRule:
    return replace(rule, max_per_profile=content) if what == "max_per_profile" else replace(rule, shared_above=content)


def _blocked(value: str, rules: Rules) -> Variant:
    name, colon, blocked = value.partition(":")
    if not colon or not blocked or name not in rules.types:
        raise SweepError(f"block={value!r}: expected type:value with a type of {', '.join(rules.types)}.")
    return Variant("block", value, rules, blocked=(name, blocked), exact=False)


def _variant(setting: str, value: str, today: Rules, rules: Rules) -> Variant:
    return Variant(setting, value, rules, exact=rules.value_digest == today.value_digest)
