"""The conclusions, against made-up measurements."""
import pytest

from studies.operators.cases import GROUPINGS
from studies.operators.reasons import correlations, reasons
from studies.operators.result import Table
from studies.operators.tables import reasons_table

from .common import result_where


def verdicts(result):
    return {(reason, grouping, mode): finding.verdict
            for reason, _, grouping, mode, finding in reasons(Table(result))}


def test_where_time_is_bytes_memory_traffic_is_borne_out_and_the_operation_count_is_not():
    found = verdicts(result_where(lambda case, counts: counts.bytes / 1e9, layout=['nhwc']))
    for mode in ('infer', 'train'):
        assert found['memory traffic', 'depthwise', mode] == 'borne out'
        assert found['sequential passes', 'depthwise', mode] == 'borne out'
        assert found['operation count', 'depthwise', mode] == 'not borne out'
        assert found['kernel tuning', 'depthwise', mode] == 'not borne out'
        assert found['caching', 'depthwise', mode] == 'not borne out'


def test_where_time_is_macs_the_operation_count_is_borne_out_and_memory_traffic_is_not():
    result = result_where(lambda case, counts: (counts.macs + 1) / 1e9, layout=['nhwc'])
    found = verdicts(result)
    for grouping in GROUPINGS:
        for mode in ('infer', 'train'):
            assert found['operation count', grouping, mode] == 'borne out'
            assert found['memory traffic', grouping, mode] == 'not borne out'
            assert found['launch and synchronization', grouping, mode] == 'not borne out'
            assert correlations(Table(result), grouping, mode, 'nhwc')[1] == pytest.approx(1)


def test_where_every_call_takes_the_same_launching_is_borne_out():
    def calls(case, counts):
        return 1e-5 * dict(sequential=2, sequential_relu=2, inception=4).get(case.form, 1)

    found = verdicts(result_where(calls, layout=['nhwc']))
    assert found['launch and synchronization', 'dense', 'infer'] == 'borne out'
    assert found['sequential passes', 'dense', 'infer'] == 'borne out'
    assert found['operation count', 'dense', 'infer'] == 'not borne out'


def test_cold_inputs_and_slow_rows_are_found_where_they_are():
    def time(case, counts):
        cold = 1.5 if case.cache == 'cold' and case.form == 'sequential' else 1.0
        return 1e-6 * cold * (2.0 if case.form == 'row' and case.mode == 'train' else 1.0)

    found = verdicts(result_where(time, layout=['nhwc']))
    assert found['caching, of the factorized', 'dense', 'infer'] == 'borne out'
    assert found['caching', 'dense', 'infer'] == 'in part'
    assert found['kernel tuning', 'depthwise', 'train'] == 'borne out'
    assert found['kernel tuning', 'depthwise', 'infer'] == 'not borne out'


def test_what_was_not_measured_is_said_to_be_so():
    result = result_where(lambda case, counts: 1.0, form=['square'], cache=['cold'])
    assert set(verdicts(result).values()) == {'not measured'}
    assert reasons_table(result).count('**not measured**') == len(verdicts(result)) + 2
