"""Trunks, SOL, GAA and the network they make."""
