"""What is promised between nodes and operator: declarations, steps, messages, tickets.

Imports nothing else of ours, so that the operator may import it without loading code that
touches a node. Import the modules, not the package: a node's exporter needs few of them, and the
rest takes as much memory as all its metrics.
"""
