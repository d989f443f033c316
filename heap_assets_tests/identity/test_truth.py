"""Resolution where the truth is known: kiosks, laptops shared in pairs, people with several emails."""

from __future__ import annotations

import random
from dataclasses import dataclass, field

import polars as pl
import pytest

from heap_assets.identity import IdentifierRule, Resolution, Rules, resolve
from heap_assets.identity.quality import Quality, quality

_KINDS = ("account", "email", "device", "cookie")
RULES = Rules(
    (
        IdentifierRule("account", max_per_profile=1),
        IdentifierRule("email", max_per_profile=4),
        IdentifierRule("device", max_per_profile=10, shared_above=1),
        IdentifierRule("cookie", shared_above=1),
    )
)
PLAIN = Rules(tuple(IdentifierRule(kind, shared_above="never") for kind in _KINDS))


@dataclass
class Town:
    """People, the links that their records give, and who owns which identifier."""

    links: list[tuple[str, str, str, str]] = field(default_factory=list)
    owner: dict[tuple[str, str], int] = field(default_factory=dict)
    common: set[str] = field(default_factory=set)


def town(people: int, seed: int) -> Town:
    dice, made = random.Random(seed), Town()
    emails: list[list[str]] = []
    for person in range(people):
        mine = [f"p{person}.{n}@mail.io" for n in range(2 + dice.randrange(2) if dice.random() < 0.3 else 1)]
        emails.append(mine)
        for email in mine:
            made.links.append(("account", f"A{person}", "email", email))
            made.owner["email", email] = person
        made.owner["account", f"A{person}"] = person
        for number in range(dice.choice([1, 2, 3])):
            device = f"d{person}.{number}"
            made.owner["device", device] = person
            made.links.extend(
                ("email", email, "device", device) for email in dice.sample(mine, dice.randint(1, len(mine)))
            )
            made.links.append(("device", device, "cookie", f"c{device}"))
            made.owner["cookie", f"c{device}"] = person
    for number in range(people // 100):
        device, users = f"kiosk{number}", dice.sample(range(people), dice.choice([2, 2, 2, 5, 40]))
        made.common.add(device)
        made.links.extend(("email", dice.choice(emails[user]), "device", device) for user in users)
    return made


def resolved(made: Town, rules: Rules) -> Resolution:
    return resolve(pl.LazyFrame(made.links, schema=["type_a", "value_a", "type_b", "value_b"], orient="row"), rules)


def measured(made: Town, resolution: Resolution) -> Quality:
    truth = pl.LazyFrame(
        [(*identifier, person) for identifier, person in made.owner.items()],
        schema=["identifier_type", "identifier", "person"],
        orient="row",
    )
    return quality(resolution.graph, truth.with_columns(pl.col("person").cast(pl.String)))


@pytest.mark.parametrize("seed", [1, 2])
def test_strangers_are_kept_apart_and_people_together(seed: int) -> None:
    made = town(5_000, seed)
    ours, plain = measured(made, resolved(made, RULES)), measured(made, resolved(made, PLAIN))
    assert ours.precision >= 0.998
    assert ours.recall >= plain.recall - 0.025
    assert plain.precision < 0.9


def test_every_shared_device_is_found_and_nobody_s_own() -> None:
    made = town(5_000, 3)
    assert set(resolved(made, RULES).shared.collect()["identifier"]) == made.common


def test_a_person_s_own_laptop_is_not_shared_for_having_two_emails() -> None:
    links = [("account", "A", "email", email) for email in ("a", "b")] + [
        ("email", e, "device", "d") for e in ("a", "b")
    ]
    assert resolved(Town(links), RULES).shared.collect().is_empty()


def test_a_shared_value_keeps_what_heap_has_decided() -> None:
    links = pl.LazyFrame(
        [
            ("email", "a", "device", "kiosk", False),
            ("email", "b", "device", "kiosk", False),
            ("account", "A", "device", "kiosk", True),
        ],
        schema=["type_a", "value_a", "type_b", "value_b", "authoritative"],
        orient="row",
    )
    graph = {row[1]: (row[2], row[5]) for row in resolve(links, RULES).graph.collect().rows()}
    assert graph["kiosk"] == (graph["A"][0], True)
    assert len({graph[name][0] for name in ("a", "b", "A")}) == 3
