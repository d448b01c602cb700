"""What there is to know on a GPU, by one command for whoever has one: ``make gpu``.

The tests of ``tests/gpu``, then throughput and memory of training and inference. Each cell is a process of its own, and
a run that is stopped goes on with the next cell. docs/gpu.md says what is known without it.
"""
