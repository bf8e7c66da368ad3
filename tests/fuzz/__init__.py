"""Fuzzing of what reads a stranger's file; `python -m tests.fuzz` says how."""
