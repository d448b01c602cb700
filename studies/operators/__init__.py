"""Square, factorized and Inception convolutions: what they cost on paper, what they take, and why.

``python -m studies.operators --out docs/results/MACHINE/operators.json`` is the command, and
``docs/factorized_convolutions.md`` the answer. In reading order: a :class:`.cases.Case` is one operator, ``modules``
what runs, ``counting`` what it must cost, ``networks`` whole networks with other convolutions; ``cells`` says what is
compared under which conditions, ``measuring`` does it, process by process, in the processes of ``worker``. From the
file, ``summary`` makes ratios with intervals, ``roofline`` the break-even, predicted and measured, ``reasons`` the
verdicts; ``blocks``, ``pictures`` and ``report`` show them.
"""
