"""Store log lines on SQLite and speak the HTTP API of Loki."""
