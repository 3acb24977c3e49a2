"""Hold the CA key and the ticket key, and sign under limits of its own."""
