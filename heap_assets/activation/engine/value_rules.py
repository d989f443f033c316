"""How values look at a destination: null, booleans, numbers, times, texts, names; and identifiers that are hashed."""

from __future__ import annotations

import hashlib
import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any, Literal

import polars as pl

_WIDTH = {"characters": ("utf-32-le", 4), "utf16": ("utf-16-le", 2), "bytes": ("utf-8", 1)}


@dataclass(frozen=True)
class ValueRules:
    """How a destination takes values. The defaults change nothing: JSON's own forms, times as ISO 8601 in UTC.

    Attributes
    ----------
    null
        What stands for a value that is cleared.
    boolean
        `native`, or as text (`true`), or as a number (1).
    number
        `native`, or as text.
    time, date
        `iso`; `s` or `ms`: seconds or milliseconds since 1970 (of a date: of its midnight in UTC); or a format of
        strftime, in UTC.
    longest, unit, too_long
        Most of a text in characters, UTF-16 units or UTF-8 bytes; a longer one is cut, or makes its row invalid.
    name
        Pattern that names of properties must match as a whole.
    """

    null: Any = None
    boolean: Literal["native", "text", "number"] = "native"
    number: Literal["native", "text"] = "native"
    time: str = "iso"
    date: str = "iso"
    longest: int | None = None
    unit: Literal["characters", "utf16", "bytes"] = "characters"
    too_long: Literal["invalid", "truncate"] = "invalid"
    name: str | None = None

    def applied(self, value: pl.Expr, dtype: pl.DataType, usual: Callable[[], pl.Expr]) -> pl.Expr:
        """Return the expression of a value as it looks there; `usual` makes what it is without a rule."""
        if isinstance(dtype, pl.Datetime) and self.time != "iso":
            utc = value.dt.convert_time_zone("UTC") if dtype.time_zone else value.dt.replace_time_zone("UTC")
            return _time(utc, self.time)
        if dtype == pl.Date and self.date != "iso":
            return _time(value.cast(pl.Datetime("us")).dt.replace_time_zone("UTC"), self.date)
        if dtype == pl.Boolean and self.boolean != "native":
            return value.cast(pl.String if self.boolean == "text" else pl.Int64)
        if dtype.is_numeric() and self.number == "text":
            return usual().cast(pl.String)
        text = usual()
        if self.longest is None or self.too_long == "invalid" or dtype.is_numeric() or dtype == pl.Boolean:
            return text
        return text.map_batches(self._cut, return_dtype=pl.String)

    def is_too_long(self, texts: pl.Series) -> pl.Series:
        """Tell which texts make their rows invalid; null is never too long."""
        if self.longest is None or self.too_long == "truncate":
            return pl.Series("too_long", [False]).new_from_index(0, len(texts))
        return self._longer(texts)

    def _longer(self, texts: pl.Series) -> pl.Series:
        units = texts.str.len_bytes() if self.unit == "bytes" else texts.str.len_chars()
        if self.unit == "utf16":
            units = units + texts.str.count_matches(r"[\x{10000}-\x{10FFFF}]")
        return (units > self.longest).fill_null(value=False)

    def _cut(self, texts: pl.Series) -> pl.Series:
        longer = self._longer(texts)
        if not longer.any():
            return texts
        code, width = _WIDTH[self.unit]
        most = (self.longest or 0) * width
        cut = [text.encode(code)[:most].decode(code, "ignore") for text in texts.filter(longer)]
        return texts.scatter(longer.arg_true(), cut)


def _time(utc: pl.Expr, form: str) -> pl.Expr:
    if form == "s":
        return utc.dt.epoch("s").cast(pl.Int64)
    return utc.dt.epoch("ms").cast(pl.Int64) if form == "ms" else utc.dt.strftime(form)


@dataclass(frozen=True)
class Recipe:
    """How an identifier is made ready for advertising: normalised, and hashed unless the vendor wants it plain.

    `normalise`: one of :data:`NORMALISERS`. What cannot be normalised becomes null, and is not sent.
    """

    normalise: str
    hashed: bool = True

    def applied(self, value: pl.Expr, *, already: bool = False) -> pl.Expr:
        """Return the expression of an identifier. `already`: the column holds SHA-256 in hex, which is passed on."""
        text = value.cast(pl.String)
        if already:
            digest = text.str.strip_chars().str.to_lowercase()
            return pl.when(_is_digest(digest)).then(digest)
        text = NORMALISERS[self.normalise](pl.when(~self.looks_hashed(text)).then(text))
        text = pl.when(text != "").then(text)
        return text.map_batches(sha256_hex, return_dtype=pl.String) if self.hashed else text

    def looks_hashed(self, value: pl.Expr) -> pl.Expr:
        """Whether a value would be hashed for the second time."""
        text = value.cast(pl.String).str.strip_chars().str.to_lowercase()
        return _is_digest(text).fill_null(value=False) & pl.lit(self.hashed)


def sha256_hex(texts: pl.Series) -> pl.Series:
    """Hash texts by their UTF-8 bytes; null stays null."""
    digests = [None if text is None else hashlib.sha256(text.encode()).hexdigest() for text in texts]
    return pl.Series(texts.name, digests, pl.String)


def _is_digest(text: pl.Expr) -> pl.Expr:
    return text.str.contains(r"^[0-9a-f]{64}$")


def _trimmed(text: pl.Expr) -> pl.Expr:
    return text.str.strip_chars().str.to_lowercase()


def _email(text: pl.Expr) -> pl.Expr:
    address = _trimmed(text)
    return pl.when(address.str.contains(r"^[^\s@]+@[^\s@]+$")).then(address)


def _email_without_dots(text: pl.Expr) -> pl.Expr:
    """Google's form: dots before @gmail.com and @googlemail.com do not count; what follows a `+` does."""
    address = _email(text)
    user, host = address.str.extract(r"^([^@]+)@", 1), address.str.extract(r"@(.+)$", 1)
    is_gmail = host.is_in(["gmail.com", "googlemail.com"])
    plain = pl.concat_str(user.str.replace_all(".", "", literal=True), pl.lit("@"), host)
    return pl.when(is_gmail).then(plain).otherwise(address)


def _email_without_suffix(text: pl.Expr) -> pl.Expr:
    """The form of Google's older samples: before @gmail.com what follows a `+` does not count either."""
    return _email_without_dots(text).str.replace(r"^([^@+]+)\+[^@]*(@(?:gmail|googlemail)\.com)$", "${1}${2}")


def _phone(text: pl.Expr) -> pl.Expr:
    """A number with its country code, which no rule can guess: `+` or `00` must stand before it."""
    number = text.str.strip_chars()
    digits = number.str.replace_all(r"[^0-9]", "").str.replace(r"^00", "")
    is_international = number.str.contains(r"^(\+|00)") & digits.str.contains(r"^[1-9][0-9]{6,14}$")
    return pl.when(is_international).then(digits)


def _plain(text: pl.Expr) -> pl.Expr:
    return _trimmed(text).str.replace_all(r"[!-/:-@\[-`{-~]", "")


def _two_letters(text: pl.Expr) -> pl.Expr:
    code = _trimmed(text)
    return pl.when(code.str.contains(r"^[a-z]{2}$")).then(code)


NORMALISERS: Mapping[str, Callable[[pl.Expr], pl.Expr]] = {
    "text": lambda text: text,
    "trim": lambda text: text.str.strip_chars(),
    "lower": _trimmed,
    "email": _email,
    "email_without_dots": _email_without_dots,
    "email_without_suffix": _email_without_suffix,
    "phone_e164": lambda text: pl.concat_str(pl.lit("+"), _phone(text)),
    "phone_digits": _phone,
    "name": _trimmed,
    "name_without_punctuation": _plain,
    "first_letter": lambda text: _plain(text).str.head(1),
    "gender": lambda text: _trimmed(text).str.head(1).replace_strict({"f": "f", "m": "m"}, default=None),
    "city": lambda text: _trimmed(text).str.replace_all(r"[^\p{L}]", ""),
    "country": _two_letters,
    "country_upper": lambda text: _two_letters(text).str.to_uppercase(),
    "year": lambda text: text.str.strip_chars().str.extract(r"^((?:19|20)[0-9]{2})$"),
    "two_digits": lambda text: text.str.strip_chars().str.extract(r"^([0-9]{1,2})$").str.zfill(2),
    "postal_code": lambda text: _trimmed(text).str.replace_all(r"[\s\-]", ""),
}
"""Name to how an identifier is written before it is hashed; null for what cannot be one."""


def name_error(rules: ValueRules, name: str) -> str | None:
    """Return why the destination cannot have a property of this name, or None."""
    if rules.name is None or re.fullmatch(rules.name, name):
        return None
    return f"property {name[:40]!r} has a name that the destination does not take: it must match {rules.name}"
