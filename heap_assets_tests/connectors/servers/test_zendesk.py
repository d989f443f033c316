"""The stand-in for Zendesk is as strict as its documents; calls as the fact sheet has them."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import httpx
import pytest

from heap_assets_tests.connectors.servers.clients import client
from heap_assets_tests.connectors.servers.core import ManualClock
from heap_assets_tests.connectors.servers.zendesk import ZendeskServer

MANY = "/api/v2/users/create_or_update_many.json"
EXPORT = "/api/v2/incremental/tickets/cursor.json"


@pytest.fixture
def account() -> Iterator[ZendeskServer]:
    with ZendeskServer(clock=ManualClock()) as server:
        server.user_fields |= {"health_score": "integer", "plan": "tagger", "trial": "date", "pql": "checkbox"}
        server.user_options["plan"] = {"pro", "free"}
        yield server


@pytest.fixture
def api(account: ZendeskServer) -> Iterator[httpx.Client]:
    with signed_in(account) as one:
        yield one


def signed_in(server: ZendeskServer) -> httpx.Client:
    one = client(server)
    one.auth = httpx.BasicAuth("admin@example.com/token", "token-1")
    return one


def user(key: str = "u-1", **more: Any) -> dict[str, Any]:
    return {"external_id": key, "name": "A. Ng", "skip_verify_email": True, **more}


def run(api: httpx.Client, *users: dict[str, Any]) -> list[dict[str, Any]]:
    """Start a job and ask for it until it is over."""
    job = api.post(MANY, json={"users": users}).json()["job_status"]
    while job["status"] in ("queued", "working"):
        job = api.get(f"/api/v2/job_statuses/{job['id']}.json").json()["job_status"]
    assert job["status"] == "completed"
    return list(job["results"])


def test_the_sheets_own_example_is_a_job(account: ZendeskServer, api: httpx.Client) -> None:
    example = user(email="a@x.io", verified=True, user_fields={"health_score": 71, "plan": "pro"})
    started = api.post(MANY, json={"users": [example]})
    assert (started.status_code, started.json()) == (
        200,
        {
            "job_status": {
                "id": "job-1",
                "url": f"{account.url}/api/v2/job_statuses/job-1.json",
                "total": 1,
                "progress": 0,
                "status": "queued",
                "message": None,
                "results": None,
            }
        },
    )
    polls = [api.get("/api/v2/job_statuses/job-1.json").json()["job_status"] for _ in range(2)]
    assert [poll["status"] for poll in polls] == ["queued", "completed"]
    assert polls[1]["results"] == [{"id": 9002, "status": "Created"}]
    assert account.records["user"] == {
        "9002": {
            "id": 9002,
            "created_at": "2026-01-01T00:00:00Z",
            "updated_at": "2026-01-01T00:00:00Z",
            "role": "end-user",
            "external_id": "u-1",
            "name": "A. Ng",
            "email": "a@x.io",
            "verified": True,
            "user_fields": {"health_score": 71, "plan": "pro"},
        }
    }
    assert run(api, example) == [{"id": 9002, "status": "Updated"}]
    assert account.violations == []


def test_results_are_in_order_and_the_id_of_a_failed_one_is_no_users(account: ZendeskServer, api: httpx.Client) -> None:
    account.fail("bad_row", key="u-7")
    bad = [
        {"external_id": "u-2"},
        user("u-3", email="nobody"),
        user("u-4", user_fields={"health_score": "71"}),
        user("u-5", user_fields={"plan": "Pro"}),
        user("u-6", user_fields={"trial": "2026-1-2"}),
        user("u-7"),
        user("u-8", user_fields={"pql": "true"}),
    ]
    results = run(api, user("u-1"), *bad, user("u-9", user_fields={"nope": 1, "pql": True, "trial": "2026-01-02"}))
    assert [result["status"] for result in results] == ["Created", *["Failed"] * 7, "Created"]
    assert [result["id"] for result in results[1:8]] == [1, 2, 3, 4, 5, 6, 7]
    assert {result["error"] for result in results[1:8]} == {"UserUpdateError"}
    assert account.records["user"][str(results[8]["id"])]["user_fields"] == {"pql": True, "trial": "2026-01-02"}
    assert run(api, user("u-9", user_fields={"pql": None})) == [{"id": results[8]["id"], "status": "Updated"}]


def test_who_a_row_is_about(account: ZendeskServer, api: httpx.Client) -> None:
    run(api, user("u-1", email="a@x.io"), user("u-2", email="b@x.io"))
    assert run(api, user("u-1", email="B@x.io"))[0]["details"] == "External has already been taken"
    assert run(api, {"email": "A@x.io", "name": "B"})[0]["status"] == "Updated"
    assert run(api, user("U-1", email="c@x.io"))[0]["status"] == "Updated"
    first = account.records["user"]["9002"]
    assert (first["email"], first["identities"], first["name"]) == ("a@x.io", ["c@x.io"], "A. Ng")
    account.case_sensitive = True
    assert [result["status"] for result in run(api, user("V-1"), user("v-1"))] == ["Created", "Created"]


def test_a_verification_mail_goes_out_unless_it_is_told_not_to(account: ZendeskServer, api: httpx.Client) -> None:
    run(api, user("u-1", email="a@x.io"), {"external_id": "u-2", "email": "b@x.io", "name": "B"})
    assert account.mails == ["b@x.io"]


def test_update_never_creates(account: ZendeskServer, api: httpx.Client) -> None:
    run(api, user("u-1"))
    for call in (
        {"json": {"users": [user("u-1", name="B"), user("u-2")]}},
        {"params": {"external_ids": "u-1,u-2"}, "json": {"user": {"name": "B"}}},
    ):
        id = api.put("/api/v2/users/update_many.json", **call).json()["job_status"]["id"]  # type: ignore[arg-type]
        job = [api.get(f"/api/v2/job_statuses/{id}.json").json()["job_status"] for _ in range(2)][-1]
        assert [result["status"] for result in job["results"]] == ["Updated", "Failed"]
    assert [one["name"] for one in account.records["user"].values()] == ["B"]


@pytest.mark.parametrize(
    "body", [{"users": []}, [user()], {"user": user()}, {"users": [user(str(n)) for n in range(101)]}]
)
def test_a_malformed_call(account: ZendeskServer, api: httpx.Client, body: Any) -> None:
    assert api.post(MANY, json=body).status_code in (400, 422)
    assert (len(account.violations), account.jobs) == (1, {})


def test_jobs_are_lost_slow_killed_and_too_many(account: ZendeskServer, api: httpx.Client) -> None:
    run(api, *(user(str(n)) for n in range(100)))
    account.fail("job_fails", status="killed", done=1)
    id = api.post(MANY, json={"users": [user("u-1"), user("u-2")]}).json()["job_status"]["id"]
    job = [api.get(f"/api/v2/job_statuses/{id}.json").json()["job_status"] for _ in range(2)][-1]
    assert (job["status"], len(job["results"])) == ("killed", 1)
    account.clock.advance(3600)  # type: ignore[attr-defined]
    assert api.get(f"/api/v2/job_statuses/{id}.json").status_code == 404
    account.fail("slow_job", seconds=7200, times=30)
    for n in range(30):
        assert api.post(MANY, json={"users": [user(str(n))]}).status_code == 200
    refused = api.post(MANY, json={"users": [user()]})
    assert (refused.status_code, refused.json()["error"], refused.headers["Retry-After"]) == (429, "TooManyJobs", "10")
    assert [violation.rule for violation in account.violations] == ["limit: 30 jobs at once"]


def test_only_a_hundred_jobs_are_kept(account: ZendeskServer, api: httpx.Client) -> None:
    account.job_polls = 0
    ids = [api.post(MANY, json={"users": [user(str(n))]}).json()["job_status"]["id"] for n in range(101)]
    assert [api.get(f"/api/v2/job_statuses/{id}.json").status_code for id in (ids[0], ids[1])] == [404, 200]


def test_one_user_and_search(account: ZendeskServer, api: httpx.Client) -> None:
    body = {"user": user(email="a@x.io")}
    codes = [api.post("/api/v2/users/create_or_update.json", json=body).status_code for _ in range(2)]
    assert codes == [201, 200]
    invalid = api.post("/api/v2/users/create_or_update.json", json={"user": user("u-2", email="x")})
    assert (invalid.status_code, invalid.json()["error"]) == (422, "RecordInvalid")
    for query in ({"external_id": "u-1"}, {"query": "email:a@x.io"}):
        assert api.get("/api/v2/users/search.json", params=query).json()["users"][0]["id"] == 9001
    assert api.get("/api/v2/users/search.json", params={"external_id": "u-9"}).json()["count"] == 0
    assert api.get("/api/v2/users/9001.json").json()["user"]["email"] == "a@x.io"
    assert api.get("/api/v2/users/77.json").status_code == 404
    assert {one["key"] for one in api.get("/api/v2/user_fields.json").json()["user_fields"]} == set(account.user_fields)


def test_who_may_come_in(account: ZendeskServer) -> None:
    with client(account) as one:
        for name, status in (("admin@example.com/token", 200), ("admin@example.com", 401)):
            assert one.get("/api/v2/user_fields.json", auth=(name, "token-1")).status_code == status
        assert one.get("/api/v2/user_fields.json", headers={"Authorization": "Bearer oauth-1"}).status_code == 200


def test_calls_a_minute() -> None:
    clock = ManualClock()
    with ZendeskServer(clock=clock, a_minute=2) as account, signed_in(account) as api:
        first = api.get("/api/v2/user_fields.json")
        assert (first.headers["X-Rate-Limit"], first.headers["X-Rate-Limit-Remaining"]) == ("2", "1")
        clock.advance(20)
        api.get("/api/v2/user_fields.json")
        refused = api.get("/api/v2/user_fields.json")
        assert (refused.status_code, refused.headers["Retry-After"], refused.headers["ratelimit-reset"]) == (
            429,
            "40",
            "40",
        )
        account.fail("server_error", wait=7)
        assert api.get("/api/v2/user_fields.json").headers["Retry-After"] == "7"


# tickets


def test_tickets_are_exported_by_cursor_and_come_again_when_written(account: ZendeskServer, api: httpx.Client) -> None:
    clock = account.clock
    start = int(clock())
    ids = [account.put_ticket(subject=f"t{n}") for n in range(3)]
    clock.advance(61)  # type: ignore[attr-defined]
    account.put_ticket(subject="too new")
    first = api.get(EXPORT, params={"start_time": start, "per_page": 2}).json()
    assert ([one["id"] for one in first["tickets"]], first["end_of_stream"]) == (ids[:2], False)
    second = api.get(first["after_url"]).json()
    assert ([one["id"] for one in second["tickets"]], second["end_of_stream"]) == (ids[2:], True)
    link = {"ticket": {"custom_fields": [{"id": 1, "value": "https://x.io/s/1"}, {"id": 2, "value": "x"}]}}
    written = api.put(f"/api/v2/tickets/{ids[0]}.json", json=link).json()["ticket"]
    assert written["custom_fields"] == [{"id": 1, "value": "https://x.io/s/1"}]
    account.put_ticket(ids[1], status="deleted")
    clock.advance(61)  # type: ignore[attr-defined]
    cursor = {"cursor": second["after_cursor"]}
    third = api.get(EXPORT, params=cursor).json()
    assert [(one["id"], one["status"]) for one in third["tickets"]] == [(1, "new"), (2, "deleted"), (4, "new")]
    fourth = api.get(EXPORT, params=cursor | {"exclude_deleted": "true"}).json()
    assert [one["id"] for one in fourth["tickets"]] == [1, 4]
    last = api.get(EXPORT, params={"cursor": third["after_cursor"]}).json()
    assert (last["tickets"], last["after_cursor"]) == ([], third["after_cursor"])
    assert account.violations == []


@pytest.mark.parametrize(
    "query",
    [
        {},
        {"start_time": "1767225600"},
        {"start_time": "2026-01-01"},
        {"cursor": "!"},
        {"start_time": "1", "per_page": "1001"},
    ],
)
def test_an_export_that_is_none(account: ZendeskServer, api: httpx.Client, query: dict[str, str]) -> None:
    assert api.get(EXPORT, params=query).status_code in (400, 422)
    assert len(account.violations) == 1


def test_ten_exports_a_minute(account: ZendeskServer, api: httpx.Client) -> None:
    assert [api.get(EXPORT, params={"start_time": "1"}).status_code for _ in range(11)] == [200] * 10 + [429]
