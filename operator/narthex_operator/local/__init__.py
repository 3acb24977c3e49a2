"""Run the whole product on one machine, supervised."""
