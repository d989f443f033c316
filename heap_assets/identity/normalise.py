"""Values of identifiers: normalised by type, refused with a reason (junk, blocked, suppressed, malformed)."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Final

import polars as pl

from heap_assets.identity.rules import EMAIL, HEAP_IDENTITY, IdentifierRule, Rules, RulesError
from heap_assets.values import PSEUDONYM, key_text

JUNK_VALUES: Final = (
    "null", "none", "nan", "nil", "undefined", "unknown", "anonymous", "guest", "invalid", "n/a", "not set", "-1",
    "(none)", "(null)", "(not set)", "[object object]",
)  # fmt: skip

JUNK_PATTERNS: Final = (
    r"^[0-]*$",  # 0, 000, the zero UUID 00000000-0000-0000-0000-000000000000
    r"^(test|no|noreply|no-reply)@",
    r"@example\.com$",
)


MAX_BYTES: Final = 1024
"""Longer values are payloads in the wrong column; Heap's own identities have at most 255 characters (heap.md 1.9)."""

REASONS: Final = (
    "null",
    "empty",
    "too_long",
    "junk",
    "blocked",
    "nobody",
    "suppressed",
    "control_character",
    "pattern",
)
"""Reasons why a value is no identifier, in the order of the tests."""

IN_WORDS: Final[dict[str | None, str | None]] = {
    None: None,
    "null": "it is null",
    "empty": "it is blank",
    "too_long": "it is longer than any identifier",
    "pattern": "it does not match the pattern of its type",
    "control_character": "it holds a control character",
    "junk": "it is on the list of values that mean nobody",
    "blocked": "the settings block it",
    "nobody": "a decision says that it identifies nobody",
    "suppressed": "this person is to be unknown",
}

_INVISIBLE: Final = r"[\p{Cf}\p{Default_Ignorable_Code_Point}]+"
"""Zero-width characters, marks of direction, byte-order marks, soft hyphens, fillers (Unicode 16, 3.5 and 5.21)."""
_PLAIN: Final = r"^[!-~]*$"
_PLAIN_ADDRESS: Final = r"^[A-Za-z0-9][A-Za-z0-9._%+-]*@[A-Za-z0-9.-]*[A-Za-z0-9]$"
_AROUND: Final = r"""\s"'`<>()\[\],;:“”„‘’‚«»‹›"""
_BEFORE_ADDRESS: Final = f"^(?:[{_AROUND}]|mailto:)+"
_AFTER_ADDRESS: Final = rf"[{_AROUND}.]+$"
"""Characters around an address that was copied out of letters, lists and links."""


def as_text(column: pl.Expr, dtype: pl.DataType, where: str) -> pl.Expr:
    """Cast a column of strings, integers, decimals, dates or categories to text.

    Raises RulesError for floats (an id that has been through one may be another id) and for types that are no
    identifiers.
    """
    if dtype == pl.String:
        return column
    if dtype == pl.Null or dtype.is_integer() or isinstance(dtype, pl.Enum | pl.Categorical | pl.Date | pl.Datetime):
        return column.cast(pl.String)
    if isinstance(dtype, pl.Decimal):
        return key_text(column, dtype)
    raise RulesError(
        f"{where} is {dtype}: an identifier must be text, a whole number, a decimal or a date; "
        "cast it to text in the source (never through a float)"
    )


def normalised(value: pl.Expr, normaliser: str) -> pl.Expr:
    """Apply a type's normaliser to text (rule 1; docs/identity.md, "Spellings"); idempotent."""
    match normaliser:
        case "none":
            return value
        case "strip":
            return _each(value, _PLAIN, lambda plain: plain, _visible)
        case "lower":
            return _each(value, _PLAIN, _quick_lower, _lower)
        case "email":
            return _each(value, _PLAIN_ADDRESS, _quick_lower, lambda spelt: _address(_lower(spelt)))
        case "digits":
            return pl.when(value.str.contains(PSEUDONYM)).then(value).otherwise(value.str.replace_all(r"[^0-9]", ""))
    raise RulesError(f"unknown normaliser {normaliser!r}")


def _each(
    value: pl.Expr, plain: str, quick: Callable[[pl.Expr], pl.Expr], thorough: Callable[[pl.Expr], pl.Expr]
) -> pl.Expr:
    """Apply `thorough` to values that are not `plain`, `quick` to all others.

    Nearly all values of a table are plain, and composing characters takes ten times as long as all the rest.
    """

    def batch(values: pl.Series) -> pl.Series:
        normalised = values.alias("v").to_frame().select(quick(pl.col("v")), odd=~pl.col("v").str.contains(plain))
        odd = normalised["odd"].fill_null(value=False)
        if not odd.any():
            return normalised["v"].alias(values.name)
        cleaned = values.filter(odd).alias("v").to_frame().select(thorough(pl.col("v")))["v"]
        place = odd.cast(pl.UInt32).cum_sum() + (len(values) - 1)
        chosen = pl.select(pl.when(odd).then(place).otherwise(pl.int_range(len(values), dtype=pl.UInt32))).to_series()
        return pl.concat([normalised["v"], cleaned]).gather(chosen).alias(values.name)

    return value.map_batches(batch, return_dtype=pl.String, is_elementwise=True)


def _quick_lower(value: pl.Expr) -> pl.Expr:
    return value.str.to_lowercase()


def _visible(value: pl.Expr) -> pl.Expr:
    """Compose characters (NFC), and remove invisible ones and surrounding blanks."""
    return value.str.replace_all(_INVISIBLE, "").str.normalize("NFC").str.strip_chars()


def _lower(value: pl.Expr) -> pl.Expr:
    # a letter in lower case may be composed where the one in upper case could not
    return _visible(value).str.to_lowercase().str.normalize("NFC")


def _address(value: pl.Expr) -> pl.Expr:
    """Take an address out of quotes, brackets, `mailto:` with its subject, and punctuation that follows it."""
    link = value.str.contains(f"^[{_AROUND}]*mailto:")
    plain = pl.when(link).then(value.str.replace(r"\?.*$", "")).otherwise(value)
    return plain.str.replace(_BEFORE_ADDRESS, "").str.replace(_AFTER_ADDRESS, "")


def suppressed_values(rules: Rules, identifier_type: str) -> frozenset[str]:
    """Return the suppressed values of a type, normalised; none of a type that the rules do not know."""
    raw = [value for kind, value in sorted(rules.suppressed) if kind == identifier_type]
    return frozenset(_all_normalised(raw, rules[identifier_type])) if raw else frozenset()


def _all_normalised(values: Sequence[str], rule: IdentifierRule) -> list[str]:
    spelt = pl.Series("v", list(values), pl.String).to_frame().select(normalised(pl.col("v"), rule.normaliser))
    return spelt["v"].to_list()


def composite(parts: list[pl.Expr]) -> pl.Expr:
    r"""Join normalised parts with `|`, null if one is null or blank.

    `|` and `\\` inside a part are escaped, so that different parts never make the same value.
    """
    escaped = [
        pl.when(part.str.strip_chars() != "").then(
            part.str.replace_all("\\", "\\\\", literal=True).str.replace_all("|", "\\|", literal=True)
        )
        for part in parts
    ]
    return pl.concat_str(escaped, separator="|", ignore_nulls=False)


def why_not(value: pl.Expr, identifier_type: str, rules: Rules) -> pl.Expr:
    """Return in words why text is no identifier of a type; null if it is one."""
    rule = rules[identifier_type]
    return reason(normalised(value, rule.normaliser), rule, rules).replace_strict(IN_WORDS, return_dtype=pl.String)


def reason(value: pl.Expr, rule: IdentifierRule, rules: Rules) -> pl.Expr:
    """Return one of :data:`REASONS` for a normalised value that is no identifier; null if it is one."""
    suppressed = sorted(suppressed_values(rules, rule.type))
    plain = value.str.strip_chars().str.to_lowercase()
    junk = plain.is_in(list(JUNK_VALUES)) | plain.str.contains("|".join(f"(?:{p})" for p in JUNK_PATTERNS))
    tests: list[tuple[str, pl.Expr]] = [
        ("null", value.is_null()),
        ("empty", value.str.strip_chars() == ""),
        ("too_long", value.str.len_bytes() > MAX_BYTES),
        ("junk", junk),
    ]
    if rule.blocked:
        tests.append(("blocked", value.is_in(_all_normalised(rule.blocked, rule))))
    if rule.blocked_patterns:
        tests.append(("blocked", value.str.contains("|".join(f"(?:{p})" for p in rule.blocked_patterns))))
    if excluded := sorted(value for kind, value in rules.excluded if kind == rule.type):
        tests.append(("nobody", value.is_in(excluded)))
    if suppressed:
        tests.append(("suppressed", value.is_in(suppressed)))
    if rule.normaliser != "none":
        tests.append(("control_character", value.str.contains(r"\p{Cc}")))
    if rule.value_pattern:
        stands_for_one = value.str.contains(PSEUDONYM)
        tests.append(("pattern", ~(value.str.contains(rule.value_pattern) | stands_for_one)))
    return pl.coalesce(*(pl.when(test).then(pl.lit(name)) for name, test in tests), pl.lit(None, pl.String))


_WORTH_A_MAPPING: Final = 0.05
"""Share of email addresses from which a mapping to both types is proposed; other values are refused as emails and
counted, so the mapping costs nothing."""


@dataclass(frozen=True)
class IdentityValues:
    """The number of different identities, and how many of them are email addresses."""

    values: int
    emails: int

    @property
    def share(self) -> float:
        """Share of email addresses, 0 of no values."""
        return self.emails / self.values if self.values else 0.0

    @property
    def types(self) -> tuple[str, ...]:
        """The identifier types to map the column to, strongest first."""
        return (HEAP_IDENTITY, EMAIL) if self.share >= _WORTH_A_MAPPING else (HEAP_IDENTITY,)

    @property
    def summary(self) -> str:
        """One sentence without a value, for people."""
        shares = f"{self.emails:,} of {self.values:,} Heap identities ({self.share:.0%}) are email addresses"
        proposal = ": map heap.identifiers.users.identity to [heap_identity, email]"
        return shares + (proposal if EMAIL in self.types else "")


def identity_values(identities: pl.Series) -> IdentityValues:
    """Count the values of the column `identity` of Heap's users, without null, blank and junk ones.

    The default rule of type email decides what is an address, whatever the settings say.
    """
    rule = IdentifierRule(EMAIL)
    rules = Rules((rule, IdentifierRule(HEAP_IDENTITY)))
    counts = (
        identities.cast(pl.String)
        .alias("identity")
        .to_frame()
        .lazy()
        .unique()
        .filter(reason(pl.col("identity"), rules[HEAP_IDENTITY], rules).is_null())
        .select(address=normalised(pl.col("identity"), rule.normaliser))
        .select(values=pl.len(), emails=reason(pl.col("address"), rule, rules).is_null().sum())
        .collect()
    )
    values, emails = counts.row(0)
    return IdentityValues(values, emails)
