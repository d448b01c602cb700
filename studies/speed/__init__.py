"""The published study of speed: python -m studies.speed --out docs/results/MACHINE/speed.json

In reading order: ``cells`` says what is compared at which setting and in which order, ``measuring`` does it, process by
process, and adds each result to the file, ``statistics`` makes intervals of them, ``summary`` the figures, ``report``
and ``pictures`` show them.
"""
