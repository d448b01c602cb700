"""Square, factorized and Inception convolutions: what they cost on paper, what they take, and why.

In reading order: a :class:`.cases.Case` names one convolution operator under one set of conditions, ``suites`` which
cases are measured, ``modules`` what runs, ``counting`` what it must cost; ``measuring`` what it takes and ``kernels``
which kernels of the library ran. From a ``result``, ``reasons`` says which explanations the numbers bear out;
``tables``, ``pictures``, ``report`` and ``document`` show it. ``tools/benchmark_ops.py`` is the command,
``docs/factorized_convolutions.md`` the answer.
"""
