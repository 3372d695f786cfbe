"""Benchmarks of this project and its peers; not part of the installed product."""
