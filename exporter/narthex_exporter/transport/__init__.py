"""Carry HTTP between our programs: TLS contexts, peer identities, one server."""
