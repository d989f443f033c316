"""What is blanked in text from outside, and what must stay readable."""

from __future__ import annotations

import ast
import base64
import json
import traceback
from collections.abc import Iterator
from pathlib import Path
from urllib.parse import quote, quote_plus

import pytest
from hypothesis import given
from hypothesis import strategies as st

import heap_assets
from heap_assets.config.secrets import is_secret_name, secrets_of_environment
from heap_assets.errors import SourceError
from heap_assets.redaction import MASK, keep_addresses, redact, redact_error, redacting, register_secrets

SECRET = 'kQ7/"+tricky&secret=\\9'
register_secrets([SECRET, "https://hooks.example/T00/abcd1234efgh?sig=zyxwvu98"])


def test_no_message_of_ours_is_blanked_by_our_own_redaction() -> None:
    package = Path(heap_assets.__file__).parent
    blanked = [
        f"{path.relative_to(package)}: {text}"
        for path in sorted(package.rglob("*.py"))
        if path.relative_to(package).parts[0] != "demo"
        for text in _texts_of_errors(ast.parse(path.read_text()))
        if MASK in redact(text)
    ]
    assert not blanked


def _texts_of_errors(tree: ast.Module) -> Iterator[str]:
    """Yield the texts of what a module raises, constants that they name included; `X` stands for what is put in."""
    constants = {
        target.id: node.value.value
        for node in tree.body
        if isinstance(node, ast.Assign) and isinstance(node.value, ast.Constant) and isinstance(node.value.value, str)
        for target in node.targets
        if isinstance(target, ast.Name)
    }
    for error in (node for node in ast.walk(tree) if isinstance(node, ast.Raise)):
        for node in ast.walk(error):
            if isinstance(node, ast.JoinedStr):
                parts = (part.value if isinstance(part, ast.Constant) else "X" for part in node.values)
                yield "".join(map(str, parts))
            elif isinstance(node, ast.Constant) and isinstance(node.value, str):
                yield node.value
            elif isinstance(node, ast.Name) and node.id in constants:
                yield constants[node.id]


@given(before=st.binary(max_size=20), after=st.binary(max_size=20))
def test_a_secret_is_blanked_in_base64_wherever_it_stands(before: bytes, after: bytes) -> None:
    text = base64.b64encode(before + SECRET.encode() + after).decode()
    kept = redact(f"got {text} from you")
    assert MASK in kept
    # what is left of it stands beside the secret, but for the letters that it shares with its neighbours
    assert base64.b64encode(SECRET.encode()).decode()[2:-4] not in kept
    left = sum(len(part) for part in kept.split()[1].split(MASK))
    assert left <= len(text) - len(SECRET) * 8 // 6 + 3


@pytest.mark.parametrize(
    "form",
    [
        SECRET,
        quote(SECRET),
        quote(SECRET, safe=""),
        quote(SECRET, safe="").lower().replace("kq7", "kQ7"),
        quote_plus(SECRET),
        json.dumps(SECRET),
        json.dumps(SECRET).replace("/", "\\/"),
        SECRET.encode().hex(),
    ],
)
def test_a_secret_is_blanked_however_it_is_spelled(form: str) -> None:
    assert form not in redact(f"<{form}>")
    assert MASK in redact(f"<{form}>")


@pytest.mark.parametrize("part", ["T00/abcd1234efgh", "abcd1234efgh", "sig=zyxwvu98", "zyxwvu98"])
def test_what_is_secret_of_an_address_is_blanked_alone(part: str) -> None:
    assert part not in redact(f"POST /{part} failed")


@pytest.mark.parametrize(
    ("text", "gone"),
    [
        ("Authorization: Bearer abc.def.ghi", "abc.def"),
        ("{'authorization': 'Basic dXNlcjpwdw=='}", "dXNlcjpwdw"),
        ("proxy-authorization: Digest abcdef", "abcdef"),
        ("sent with bearer abcdefgh", "abcdefgh"),
        ("postgresql://ann:pw1@h/db", "pw1"),
        ("host=h password='pw1' user=u", "pw1"),
        ('{"api_key": "k1"}', "k1"),
        ("x-api-key: k1", "k1"),
        ("?access_token=t1&x=2", "t1"),
        ("eyJhbGciOi.eyJzdWIi.sig", "eyJhbGci"),
        ("mail ann.lee+x@mail.example now", "ann.lee"),
        ("ann%40mail.example", "ann"),
        ("ann\\u0040mail.example", "ann\\"),
        ("<\N{LATIN SMALL LETTER U WITH DIAERESIS}nn@m\N{LATIN SMALL LETTER U WITH DIAERESIS}nchen.example>", "@"),
        ("call +49 151 2345678", "2345678"),
        ("call (555) 867-5309", "867"),
        ("call 555-867-5309", "867"),
        ("from 203.0.113.7", "203"),
        ("from 2001:db8::7", "2001"),
        ("from [fe80::1]:80", "fe80"),
        ("a\x1b[31mb\x00c\ud800", "\x1b"),
    ],
)
def test_authorizations_and_personal_data_are_blanked(text: str, gone: str) -> None:
    assert gone not in redact(text)


@pytest.mark.parametrize(
    "text",
    [
        "HTTP 400: property Plan is too long (1024 characters)",
        "2026-11-20 12:30:45+00:00 and 2026-11-20T12:30:45.123456Z, 2026-11-01...2026-11-05",
        "12,345,678 rows, 1234567890 bytes in 1.25 s",
        "run 12345678-1234-1234-1234-123456789012, batch 0000000012-00000001",
        "127.0.0.1:5432 and ::1 and 0.0.0.0",
        "std::io::Error at core::fmt, polars 1.36.1",
        "the key of column contact_id; expected: text, as ${WAREHOUSE_DSN}",
        "_sync/users/log/0000000001-00000002-intent.parquet",
    ],
)
def test_what_names_no_one_stays(text: str) -> None:
    assert redact(text) == text


def test_addresses_of_the_settings_stay() -> None:
    keep_addresses("http://198.51.100.4:9000/x")
    assert redact("198.51.100.4:9000 refused 198.51.100.5") == f"198.51.100.4:9000 refused {MASK}"


@given(values=st.lists(st.text(min_size=3, max_size=12), min_size=1, max_size=5), data=st.data())
def test_values_of_a_row_are_blanked_where_they_stand_alone(values: list[str], data: st.DataObject) -> None:
    value = data.draw(st.sampled_from(values)).encode("utf-8", "replace").decode()
    if value.isalnum():
        assert value not in redact(f"<{value}>", [value]).replace(MASK, "")


def test_a_text_is_cut_after_it_is_blanked() -> None:
    assert "kQ7" not in redact("x" * 8 + " " + SECRET, longest=12)


def test_an_error_of_ours_is_redacted_where_it_is_made() -> None:
    assert "ann@" not in str(SourceError("row of ann@x.example"))
    assert "ann@" not in repr(SourceError("row of ann@x.example"))


def _fails() -> None:
    try:
        int("Ann Lee")
    except ValueError as error:
        raise SourceError("a number was expected") from error


def _raises() -> None:
    {"known": 1}["Ann Lee"]


@pytest.mark.parametrize("function", [_fails, _raises])
def test_a_raised_error_keeps_place_and_name_and_no_value(function: object) -> None:
    with pytest.raises(Exception) as raised:  # noqa: PT011  which one is not the point
        redacting(function)()  # type: ignore[arg-type]
    told = "".join(traceback.format_exception(raised.value))
    assert function.__name__ in told  # type: ignore[attr-defined]
    assert "Ann Lee" not in told.replace('"Ann Lee"', "")  # the source line is no value
    assert raised.value.__cause__ is None
    assert raised.value.__context__ is None


def test_a_generator_stays_one() -> None:
    @redacting
    def numbers() -> object:
        yield 1
        raise KeyError("Ann Lee")

    made = numbers()
    assert next(made) == 1  # type: ignore[call-overload]
    with pytest.raises(Exception, match="…"):
        next(made)  # type: ignore[call-overload]


def test_a_library_error_keeps_its_column() -> None:
    text = """conversion from `str` to `i64` failed in column 'n' for 1 out of 1 values: ["Ann"]"""
    assert redact_error(ValueError(text)).endswith("(column n)")
    assert "Ann" not in redact_error(ValueError(text))


@pytest.mark.parametrize("length", [500_000])
@pytest.mark.parametrize(
    "unit", ["a", "a@", "1-", "+1 ", ":", "1.", "f:", "password", "a-", "authorization:", "(1", "a://"]
)
def test_a_long_text_takes_no_longer_than_its_length(unit: str, length: int) -> None:
    # a pattern that tries again from each place would take hours
    redact(unit * (length // len(unit)))


@pytest.mark.parametrize(
    ("name", "secret"),
    [
        ("PGPASSWORD", True),
        ("AWS_SECRET_ACCESS_KEY", True),
        ("SEGMENT_WRITE_KEY", True),
        ("apiKey", True),
        ("DAGSTER_PG_DSN", True),
        ("GITHUB_TOKEN", True),
        ("PWD", False),
        ("OLDPWD", False),
        ("AWS_ACCESS_KEY_ID", False),
        ("GOOGLE_CREDENTIALS_FILE", False),
        ("TOKENIZERS_PARALLELISM", False),
        ("KEYBOARD", False),
    ],
)
def test_a_secret_is_known_by_its_name(name: str, secret: bool) -> None:
    assert is_secret_name(name) is secret


def test_passwords_of_addresses_are_known_in_any_variable() -> None:
    found = set(secrets_of_environment({"STORAGE": "postgresql://u:p%40w0rd@h/db", "HOME": "/root"}))
    assert found == {"postgresql://u:p%40w0rd@h/db"}
