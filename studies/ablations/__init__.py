"""Ablations of the token mixer and the norm with power: docs/studies/ablations.md is the protocol, which came first."""
