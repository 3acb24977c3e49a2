"""Everything a node can be asked to do: one module a family, one line here for each."""
