"""What is narrowed before a search is never less than what the search finds; many aliases and hostile ones are data."""

from __future__ import annotations

import os
import resource
import time
from pathlib import Path

import polars as pl
import pyarrow as pa
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from heap_assets.pipelines import erasure
from heap_assets.privacy import BLANKED, Named, Texts
from heap_assets.privacy import texts as module
from heap_assets.privacy.tokens import telling_tokens_of, tokens_of
from heap_assets_tests.pipelines.delivery_world import DAY, World, users
from heap_assets_tests.privacy.canary import BOB, CANARIES, ZOE, copied, places_of

ALIASES = int(os.environ.get("HEAP_ASSETS_ERASURE_ALIASES", "10000"))
"""A million in the long form."""
LETTERS = st.text(st.sampled_from(list("aB1é.@-+_%/\\\"' \nn")), min_size=1, max_size=9)
BESIDE = [*"+@x-/é", "", " ", ".", "%2F", "%40", "\\n", '"', ".@", "\n", "..", ".-", "..x", "%40b%40", "\\"]
AROUND = st.sampled_from(BESIDE)
VALUES = st.builds(lambda text, mark: f"{text}{mark}", LETTERS, st.sampled_from(["@x.example", "12345678", "@é.ex"]))


@settings(deadline=None)
@given(st.lists(VALUES, min_size=1, max_size=4), st.data())
def test_narrowing_leaves_out_no_value_that_stands_in_a_text(values: list[str], data: st.DataObject) -> None:
    texts = Texts.of(dict.fromkeys(values, "r"))
    spelled = data.draw(st.lists(st.sampled_from(sorted(texts.requests)), max_size=3)) if texts.requests else []
    lines = [f"{data.draw(AROUND)}{one.upper()}{data.draw(AROUND)}" for one in spelled] or [""]
    column = pl.Series(["other", *lines, None], dtype=pl.String)
    stand = {one for line in lines for one in texts.requests if Texts({one: "r"}).blanked(line)[1]}
    for few in (0, 1_000):
        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(module, "_FEW", few)
            again = Texts(texts.requests)  # patterns are kept
            assert stand <= set(again.within([column]).requests)
            assert not stand or again.may_be_in([pa.array(column.to_list(), pa.large_string())])
            assert not stand or again.blanked("\n".join(lines))[1]


@pytest.mark.parametrize("value", ["nan@acme.example", "two\nparts-4711", "k1234567"])
def test_whatever_a_value_stands_beside_its_token_is_one_of_the_text(value: str) -> None:
    texts = Texts.of({value: "r"})
    standing = 0
    for before in BESIDE:
        for after in BESIDE:
            for spelling, anchor in texts.anchors.iter_rows():
                line = f"{before}{spelling.upper().replace('K', chr(0x212A))}{after}"
                if Texts({spelling: "r"}).blanked(line)[1]:
                    standing += 1
                    column = pl.Series(["other", line])
                    assert anchor in tokens_of(column).to_list(), line
                    assert anchor in telling_tokens_of(column).to_list(), line
    assert standing > 100


def test_a_person_with_very_many_aliases_is_erased_in_bounded_time(canary_base: World, tmp_path: Path) -> None:
    """Some of them are quotes, wildcards, parts of paths and ends of lines."""
    world = copied(canary_base, tmp_path / "world")
    hostile = ["a'b\"@h.example", "%_*?@h.example", "../../_privacy/key@h.example", "two\nlines@h.example", ".*|@h.ex"]
    aliases = [f"alias-{number * 7919}@many.example" for number in range(ALIASES - len(hostile))] + hostile
    rows = world.lake.scan("warehouse/contacts", str(DAY)).collect()
    zoe = rows.filter(pl.col("email") == ZOE)
    of_alias = zoe.with_columns(contact_id=pl.lit(None, pl.String)).drop("email")
    of_alias = of_alias.join(pl.DataFrame({"email": aliases}), how="cross").select(rows.columns)
    world.write("warehouse/contacts", DAY, pl.concat([rows, of_alias]))
    world.write("heap/users", DAY, users((50, aliases[3]), (51, hostile[3])))
    signup = world.lake.scan("heap/events/signup", str(DAY)).collect()
    mails = pl.Series([*(f"{aliases[-9].upper()}; {one}" for one in hostile), BOB, *([None] * signup.height)])
    world.write("heap/events/signup", DAY, signup.with_columns(contact_mail=mails.head(signup.height)))
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    begun = time.perf_counter()
    pairs = tuple(("email", one.lower()) for one in [ZOE, *aliases])
    named = Named(pairs[:1], pairs)
    [request] = erasure.take_in(world.project, [erasure.Wish(named, request_id="er-many")])
    erasure.confirm(world.project, request.id, "dpo")
    assert erasure.run(world.project, "run").requests == {"er-many": "complete"}
    seconds, grown = time.perf_counter() - begun, (resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before) >> 10
    print(f"{ALIASES:,} aliases: {seconds:.1f} s, {grown} MB more memory")
    assert places_of(world.folder / "lake", *CANARIES, aliases[3], aliases[-9], "h.example") == {}
    after = world.lake.scan("heap/events/signup", str(DAY)).collect()["contact_mail"].drop_nulls()
    assert set(after) <= {f"{BLANKED}; {BLANKED}", BOB}
    assert world.lake.scan("warehouse/contacts", str(DAY)).collect().height == rows.height - 1
    assert seconds < 60 + ALIASES / 5_000
    assert grown < 512 + ALIASES // 700
