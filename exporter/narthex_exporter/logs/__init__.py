"""Ship logs: sources, a queue on disk, pushes in the format of Loki."""
