"""Run declared actions as root, behind a Unix socket, for tickets only."""
