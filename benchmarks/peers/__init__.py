"""Owns the peers, a module each: requirements and how to ask it; the modules are independent."""
