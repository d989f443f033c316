"""The people of the sample company: who they are, which emails and ids they own, and when each of that changed.

One row per person. Nothing in here depends on a day that is being written: a day only looks at who has joined by then.
"""

from dataclasses import dataclass

import numpy as np
import polars as pl

from heap_assets.demo import words
from heap_assets.demo.chance import NEVER, Ints, choose, daytime, hashed_id, moments, stream
from heap_assets.demo.plan import GROWTH_DAYS, Plan

CUSTOMER, VISITOR, LEAD = "customer", "visitor", "lead"
ACCOUNT_SIZE = 12


@dataclass(frozen=True)
class People:
    """Who there is.

    Attributes
    ----------
    persons
        person Int64 (row number); person_id, kind, given, surname, handle, email, changed_email, second_email,
        third_email, product_id, crm_id, twin_crm_id, billing_id String; account Int64; born_at, signup_at,
        email_changed_at Int64 microseconds (`NEVER` if it never happens); rate Float64, sessions per day.
    accounts
        account Int64; account_id, crm_account_id, name, domain, industry, mailbox String; employees Int64.
    identities
        identity Int64 (row number); person Int64; value String; heap_user_id Int64; merged_at Int64; merged_into Int64
        (the heap_user_id that Heap merged it into, else itself).
    first_identity
        Per person the row number of the identity, or −1.
    second_identity
        Per person the row number of a second one, or −1; `duplicates` are those that Heap never merges.
    """

    persons: pl.DataFrame
    accounts: pl.DataFrame
    identities: pl.DataFrame
    first_identity: Ints
    second_identity: Ints
    duplicates: Ints
    cycle: Ints

    @property
    def count(self) -> int:
        """How many people there are."""
        return self.persons.height


def make_people(plan: Plan) -> People:
    """Draw the people of a company.

    Parameters
    ----------
    plan
        How many, and the days they join in.

    Returns
    -------
    People
        80 % customers, who sign up, 15 % visitors, who never do, 5 % leads, whom only the CRM knows.
    """
    accounts = _accounts(plan)
    persons = _persons(plan, accounts)
    return _with_identities(plan, _with_twins(plan, persons), accounts)


def _accounts(plan: Plan) -> pl.DataFrame:
    count = max(3, plan.people // ACCOUNT_SIZE)
    rng = stream(plan.seed, "accounts")
    names: list[str] = []
    for number in range(count):
        base, ending = number % len(words.COMPANIES), (number // len(words.COMPANIES)) % len(words.COMPANY_ENDINGS)
        cycle = number // (len(words.COMPANIES) * len(words.COMPANY_ENDINGS))
        names.append(f"{words.COMPANIES[base]}{words.COMPANY_ENDINGS[ending]}{cycle or ''}")
    domains = [f"{name}.example" for name in names]
    return pl.DataFrame(
        {
            "account": np.arange(count),
            "account_id": [f"acc_{number:05d}" for number in range(count)],
            "crm_account_id": [f"A-{100_000 + 7 * number}" for number in range(count)],
            "name": [name.capitalize() for name in names],
            "domain": domains,
            "industry": choose(rng, ("software", "retail", "finance", "health", "logistics"), count),
            "mailbox": [f"billing@{domain}" for domain in domains],
            "employees": rng.integers(5, 4000, count),
        }
    )


def _persons(plan: Plan, accounts: pl.DataFrame) -> pl.DataFrame:
    rng = stream(plan.seed, "persons")
    count = plan.people
    kind = np.asarray(rng.choice([0, 1, 2], size=count, p=[0.80, 0.15, 0.05]))
    kind[: min(3, count)] = 0
    joined = np.where(
        rng.random(count) < 0.65, rng.integers(-365, 0, count), rng.integers(0, plan.days + GROWTH_DAYS // 6, count)
    )
    joined_at = moments(plan.midnight, joined, daytime(rng, count))
    changes = rng.random(count) < 0.08
    changed_at = moments(
        plan.midnight, np.maximum(rng.integers(-100, plan.days, count), joined + 5), daytime(rng, count)
    )
    named = _named(rng, count, (accounts.height * rng.random(count) ** 1.6).astype(np.int64), accounts)
    customer = pl.Series(kind == 0)
    return named.with_columns(
        kind=pl.Series([CUSTOMER, VISITOR, LEAD]).gather(pl.Series(kind.astype(np.uint32))),
        born_at=pl.Series(joined_at),
        signup_at=pl.Series(np.where(kind == 0, joined_at, NEVER)),
        email_changed_at=pl.Series(np.where(changes & (kind == 0), changed_at, NEVER)),
        changed_email=pl.when(pl.Series(changes)).then("changed_email"),
        second_email=pl.when(pl.Series(rng.random(count) < 0.15)).then("second_email"),
        third_email=pl.when(pl.Series(rng.random(count) < 0.02) & ~pl.Series(changes)).then("third_email"),
        product_id=pl.when(customer).then("product_id"),
        crm_id=pl.when(pl.Series((rng.random(count) < 0.7) & (kind == 0) | (kind == 2))).then("crm_id"),
        billing_id=pl.when(pl.Series((rng.random(count) < 0.35) & (kind == 0))).then("billing_id"),
        rate=pl.Series(np.clip(rng.lognormal(-2.2, 0.9, count), 0.01, 2.5) * np.asarray([1.0, 0.5, 0.0])[kind]),
    )


def _named(rng: np.random.Generator, count: int, account: Ints, accounts: pl.DataFrame) -> pl.DataFrame:
    """Give each person names, and every email and id that they could have; the caller keeps some."""
    first_names = choose(rng, words.FIRST_NAMES, count)
    surname = choose(rng, words.SURNAMES, count)
    host = choose(rng, words.MAIL_HOSTS, count)
    number = pl.Series(rng.permutation(count) + 1, dtype=pl.Int64)
    frame = pl.DataFrame({"given": first_names, "surname": surname, "host": host, "number": number, "account": account})
    frame = frame.with_row_index("person").join(
        accounts.select("account", "domain"), on="account", maintain_order="left"
    )
    plain = [_ascii(pl.col(name)) for name in ("given", "surname")]
    frame = frame.with_columns(local=pl.concat_str(plain[0], pl.lit("."), plain[1]))
    nth = pl.int_range(pl.len()).over("local", "domain")
    frame = frame.with_columns(work=pl.col("local") + pl.when(nth > 0).then(nth.cast(pl.String)).otherwise(pl.lit("")))
    tag = pl.col("number").cast(pl.String)
    return frame.select(
        pl.col("person").cast(pl.Int64),
        pl.format("p{}", pl.col("person").cast(pl.String).str.zfill(6)).alias("person_id"),
        "given", "surname", "account",
        pl.format("{}{}", "local", "number").alias("handle"),
        pl.format("{}@{}", "work", "domain").alias("email"),
        pl.format("{}.new{}@{}", "local", tag, "domain").alias("changed_email"),
        pl.format("{}{}@{}", plain[0], tag, "host").alias("second_email"),
        pl.format("{}_{}@{}", plain[1], tag, "host").alias("third_email"),
        pl.format("usr_{}", (pl.col("number") * 13 + 10_000).cast(pl.String)).alias("product_id"),
        pl.format("C-{}", (pl.col("number") * 17 + 200_000).cast(pl.String)).alias("crm_id"),
        pl.format("cus_{}", (pl.col("number") * 29 + 300_000).cast(pl.String)).alias("billing_id"),
    )  # fmt: skip


def _with_twins(plan: Plan, persons: pl.DataFrame) -> pl.DataFrame:
    """Enter some people into the CRM twice, if faults are planted."""
    in_crm = np.flatnonzero(persons["crm_id"].is_not_null().to_numpy())
    count = min(len(in_crm), max(2, plan.people // 150)) if plan.faults else 0
    twins = stream(plan.seed, "twins").choice(in_crm, count, replace=False)
    duplicate_id = pl.lit("C-9") + pl.col("crm_id").str.slice(2)
    return persons.with_columns(twin_crm_id=pl.when(pl.col("person").is_in(twins.tolist())).then(duplicate_id))


def _ascii(name: pl.Expr) -> pl.Expr:
    """Spell a name as people spell it in an email address."""
    folded = name.str.replace_many(["Ł", "ł", "ø"], ["l", "l", "o"]).str.normalize("NFKD").str.to_lowercase()
    return folded.str.replace_all(r"[^a-z]", "")


def _with_identities(plan: Plan, persons: pl.DataFrame, accounts: pl.DataFrame) -> People:
    """Give customers their Heap identity: the email as they signed up, or for a third the product's own id."""
    rng = stream(plan.seed, "identities")
    count = persons.height
    customers = np.flatnonzero((persons["kind"] == CUSTOMER).to_numpy())
    by_email = rng.random(count) < 0.65
    settled = customers[persons["signup_at"].to_numpy()[customers] < plan.midnight]
    settled = rng.permutation(settled)
    doubled = max(3, len(customers) // 100) if len(settled) > 12 else 0
    duplicates = settled[:doubled] if plan.faults else settled[:0]
    cycle = settled[doubled : doubled + 1] if plan.faults and doubled else settled[:0]
    merged = settled[doubled + 1 : doubled + 1 + doubled]
    twice = np.concatenate([duplicates, cycle, merged])
    by_email[twice] = True
    merge_day = rng.integers(-30, max(1, plan.days - 2), count)
    merge_day[cycle] = -10
    rows = _identity_rows(persons, customers, by_email, twice)
    merged_at = np.full(len(rows), NEVER)
    into = rows["heap_user_id"].to_numpy().copy()
    first, second = np.full(count, -1), np.full(count, -1)
    first[customers] = np.arange(len(customers))
    second[twice] = len(customers) + np.arange(len(twice))
    for group in (merged, cycle):
        merged_at[first[group]] = moments(plan.midnight, merge_day[group], daytime(rng, len(group)))
        into[first[group]] = into[second[group]]
    identities = rows.with_columns(merged_at=pl.Series(merged_at), merged_into=pl.Series(into)).with_row_index(
        "identity"
    )
    return People(
        persons, accounts, identities.with_columns(pl.col("identity").cast(pl.Int64)), first, second, duplicates, cycle
    )


def _identity_rows(persons: pl.DataFrame, customers: Ints, by_email: np.ndarray, twice: Ints) -> pl.DataFrame:
    """One row per customer's first identity, then one per second identity, which is the product's id."""
    emails, products = persons["email"], persons["product_id"]
    first = pl.select(
        pl.when(pl.Series(by_email[customers])).then(emails.gather(customers)).otherwise(products.gather(customers))
    )
    value = pl.concat([first.to_series().rename("value"), products.gather(twice).rename("value")])
    return pl.DataFrame(
        {
            "person": np.concatenate([customers, twice]),
            "value": value,
            "heap_user_id": np.asarray([hashed_id(f"identity:{text}") for text in value], dtype=np.int64),
        }
    )
