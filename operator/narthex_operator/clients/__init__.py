"""Talk to nodes, Prometheus, Alertmanager and the log store."""
