"""Runs that are killed, resumed and compared with runs that are not: tools/reliability.py."""
