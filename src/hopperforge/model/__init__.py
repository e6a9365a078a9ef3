"""Frozen values and how they are parsed and printed. No input or output, no decisions about a machine."""
