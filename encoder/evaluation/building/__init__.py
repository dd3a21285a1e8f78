"""Builds each evaluation folder from its public source: one module per format of source."""
