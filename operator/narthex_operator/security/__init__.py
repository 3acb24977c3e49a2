"""Passwords, sessions, secrets and the way to the signer."""
