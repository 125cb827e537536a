"""Simulated scenes written to disk, and what is known of such a folder."""
