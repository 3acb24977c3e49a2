"""Keep users, nodes and the audit, and run actions on nodes."""
