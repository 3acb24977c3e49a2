"""Commands that ask an operator over its API, from wherever a person sits."""
