"""Personal data in event properties is found by value and by name, and nothing else is taken for it."""

import polars as pl
import pytest
from hypothesis import given
from hypothesis import strategies as st

from heap_assets.quality.personal_data import is_card, luhn, named_like_personal_data, no_personal_data


class TestPersonalData:
    @pytest.mark.parametrize(
        ("column", "value", "kind"),
        [
            ("referrer", "ann.lee@example.co.uk", "email"),
            ("note", "call 536-22-8145 please", "social_security_number"),
            ("ref", "4111 1111 1111 1111", "card_number"),
            ("ref", "5555555555554444", "card_number"),
            ("contact", "+1 415 555 2671", "phone"),
            ("contact", "(415) 555-2671", "phone"),
            ("origin", "81.2.69.142", "ip_address"),
        ],
    )
    def test_values(self, column: str, value: str, kind: str) -> None:
        rows = pl.LazyFrame({column: [value] * 60 + ["-"] * 40})
        result = no_personal_data(rows, [column], [], rows_searched=1000, allowed=0.001)
        assert result.offenders is not None
        assert (result.offenders["property"][0], result.offenders["kind"][0]) == (column, kind)
        assert value not in str(result.sample(b"key")) + str(result.notes)

    def test_one_email_in_a_thousand_rows_is_too_many(self) -> None:
        rows = pl.LazyFrame({"search_term": ["shoes"] * 997 + ["ann@acme.com"] * 3})
        assert not no_personal_data(rows, ["search_term"], [], rows_searched=20_000, allowed=0.001).passed

    def test_what_only_looks_like_it(self) -> None:
        clean = pl.LazyFrame(
            {
                "order_number": [str(4_000_000_000_000_000 + 7 * n) for n in range(500)],
                "app_version": ["14.1.2.30"] * 500,
                "private": ["10.0.0.1"] * 500,
                "email_template": ["welcome"] * 500,
                "has_email": ["true", "false"] * 250,
                "created": ["2026-11-01 10:00:00"] * 500,
                "url": ["https://acme.test/a?b=1"] * 500,
                "uuid": ["550e8400-e29b-41d4-a716-446655440000"] * 500,
                "price": ["1234.50"] * 500,
            }
        )
        result = no_personal_data(clean, clean.collect_schema().names(), [], rows_searched=20_000, allowed=0.001)
        assert result.passed, result.notes

    def test_a_property_called_like_personal_data(self) -> None:
        rows = pl.LazyFrame({"billing_phone": ["n/a yet"]})
        assert not no_personal_data(rows, ["billing_phone"], [], rows_searched=10, allowed=0.001).passed
        assert no_personal_data(rows, ["billing_phone"], ["billing_phone"], rows_searched=10, allowed=0.0).passed
        for name in ("user_email", "userEmail", "phoneNumber", "ssn", "ip_address", "date_of_birth"):
            assert named_like_personal_data(name)
        for name in ("email_template", "has_phone", "company_name", "shipping", "panel", "clip", "emails_sent"):
            assert not named_like_personal_data(name)

    @given(st.text("0123456789", min_size=1, max_size=19))
    def test_luhn_sees_every_changed_digit(self, digits: str) -> None:
        for place in range(len(digits)):
            changed = digits[:place] + str((int(digits[place]) + 1) % 10) + digits[place + 1 :]
            assert not (luhn(digits) and luhn(changed))

    def test_a_row_of_equal_digits_is_no_card(self) -> None:
        assert not is_card("0000000000000000")
