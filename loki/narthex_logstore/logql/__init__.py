"""Read LogQL: grammar, syntax tree, pipelines."""
