"""Everything a node can be asked about: one module a family, one line here for each."""
