"""What a Heap app knows after the requests it accepted: users, accounts, events, identities joined."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping
from typing import Any

MONTH_SECONDS = 30 * 86_400
USER_IDS_PER_MONTH = 10
NEVER_AN_IDENTITY = frozenset({"undefined", "null", "user", "guest", "0"})


class AppState:
    """State of one app_id. All methods are functions of their arguments, so that a journal can be replayed."""

    def __init__(self) -> None:
        self.users: dict[str, dict[str, Any]] = {}
        self.accounts: dict[str, dict[str, Any]] = {}
        self.events: dict[str, dict[str, Any]] = {}
        self.anonymous: Counter[str] = Counter()
        self.identify: dict[str, str] = {}
        self.known_user_ids: set[str] = set()
        self.joins: dict[str, list[float]] = {}
        self.counts: Counter[str] = Counter()
        self.deletions: dict[str, list[dict[str, Any]]] = {}

    def seed(self, value: Mapping[str, Any]) -> None:
        """Make users known as if the SDK had seen them: `identities` (list or {identity: {property: value}})."""
        identities = value.get("identities", [])
        properties = identities if isinstance(identities, dict) else {}
        for identity in identities:
            self._user(identity, "seed")["properties"].update(properties.get(identity, {}))
        self.known_user_ids.update(str(user_id) for user_id in value.get("user_ids", []))

    def add_user_properties(self, row: Mapping[str, Any]) -> None:
        """Overwrite properties; an unknown identity becomes a user without events, a ghost (heap.md 1.5)."""
        self._user(row["identity"], "add_user_properties")["properties"].update(row["properties"])
        self.counts["user_rows"] += 1

    def add_account_properties(self, row: Mapping[str, Any]) -> None:
        self.accounts.setdefault(row["account_id"], {}).update(row["properties"])
        self.counts["account_rows"] += 1

    def track(self, row: Mapping[str, Any]) -> None:
        """Store an event; a repeated idempotency key is a no-op (heap.md 1.2)."""
        key = row.get("idempotency_key") or f"generated-{self.counts['event_rows']}"
        self.counts["event_rows"] += 1
        if key in self.events:
            self.counts["repeated_keys"] += 1
            return
        self.events[key] = {name: value for name, value in row.items() if name != "idempotency_key"}
        identity = row.get("identity") or self.identify.get(row["user_id"])
        if identity is None:
            self.anonymous[row["user_id"]] += 1
        else:
            self._user(identity, "track")["events"] += 1

    def join(self, row: Mapping[str, Any], at: float) -> None:
        """Map a user_id to an identity, or drop the call in silence (heap.md 1.7).

        A user_id has one identity, ever; an identity takes ten user_ids per month.
        """
        user_id, identity = row["user_id"], row["identity"]
        if user_id in self.identify:
            self.counts["identify_repeated" if self.identify[user_id] == identity else "identify_dropped"] += 1
            return
        recent = [moment for moment in self.joins.get(identity, []) if moment > at - MONTH_SECONDS]
        if len(recent) >= USER_IDS_PER_MONTH:
            self.counts["identify_ignored"] += 1
            return
        self.joins[identity] = [*recent, at]
        self.identify[user_id] = identity
        user = self._user(identity, "identify")
        user["user_ids"].append(user_id)
        user["events"] += self.anonymous.pop(user_id, 0)

    def delete(self, request_id: str, users: list[dict[str, Any]]) -> None:
        """Forget users by identity or user_id (heap.md 1.8)."""
        self.deletions[request_id] = users
        for row in users:
            identity = row.get("identity") or self.identify.get(str(row.get("user_id")))
            if identity is not None:
                self.users.pop(identity, None)
            self.anonymous.pop(str(row.get("user_id")), None)

    def ghosts(self) -> list[str]:
        """Return the users that a server-side call created and no event was ever seen of."""
        return sorted(
            identity
            for identity, user in self.users.items()
            if user["created_by"] == "add_user_properties" and not user["events"] and not user["user_ids"]
        )

    def summary(self) -> dict[str, int]:
        return {
            "users": len(self.users),
            "ghost_users": len(self.ghosts()),
            "accounts": len(self.accounts),
            "events": len(self.events),
            "anonymous_users": len(self.anonymous),
            "identified_user_ids": len(self.identify),
            **dict(self.counts),
        }

    def _user(self, identity: str, created_by: str) -> dict[str, Any]:
        user = self.users.get(identity)
        if user is None:
            if identity in NEVER_AN_IDENTITY:
                self.counts["shared_constants_as_identity"] += 1
            user = {"properties": {}, "created_by": created_by, "events": 0, "user_ids": []}
            self.users[identity] = user
        return user
