"""Measures this project against others. Never imported by what runs."""
