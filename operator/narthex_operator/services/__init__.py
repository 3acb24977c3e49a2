"""What the operator can do, for the panel, the API and the CLI alike."""
