"""Throughput of segmentors and backbones, side by side: the library of ``tools/benchmark.py``.

In reading order: ``setting`` says what is measured of every candidate alike, ``candidates`` builds their models,
``step`` takes one training or inference step, ``measuring`` times the steps in turns, beside their ``limits`` and peak
``memory``. ``summary`` turns raw samples into rows, which ``report`` and ``pictures`` show. ``profile``, ``mixer`` and
``loader`` measure the parts of a step, the token mixer and the data loading.
"""
