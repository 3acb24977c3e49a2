"""Talks to whatever speaks Loki's HTTP API."""

from typing import Any

import requests


class Client:
    """Talk to a store as a client of Loki does."""

    def __init__(self, url: str) -> None:
        self.url = url
        self.session = requests.Session()
        self.session.trust_env = False

    def push(self, streams: list[dict[str, Any]]) -> requests.Response:
        return self.session.post(
            f"{self.url}/loki/api/v1/push", json={"streams": streams}, timeout=10
        )

    def lines(self, labels: dict[str, str], *values: list[Any]) -> requests.Response:
        return self.push([{"stream": labels, "values": list(values)}])

    def get(self, path: str, **params: Any) -> requests.Response:
        return self.session.get(f"{self.url}/loki/api/v1/{path}", params=params, timeout=10)

    def select(self, query: str, **params: Any) -> list[tuple[int, str]]:
        reply = self.get("query_range", query=query, **params)
        assert reply.status_code == 200, reply.text
        return [
            (int(value[0]), value[1])
            for stream in reply.json()["data"]["result"]
            for value in stream["values"]
        ]
