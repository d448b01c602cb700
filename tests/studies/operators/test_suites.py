import pytest

from inceptionnext_seg.errors import UserError
from studies.operators.cases import GROUPINGS
from studies.operators.suites import select


def test_filters_replace_shapes_and_keep_operators():
    cases = select('quick', channels=[24], size=[10], mode=['forward'], form=['sequential', 'partial'],
                             kernel=[(7, 7)], grouping=['dense'])
    measured = [case for case in cases if case.size > 1]
    assert {(c.form, c.kernel, c.grouping, c.mode, c.channels, c.size) for c in measured} == {
        ('sequential', (7, 7), 'dense', 'forward', 24, 10)}
    assert len(cases) == len(set(cases))


def test_the_suites_have_every_case_that_the_question_needs():
    quick = set(select('quick'))
    for kernel in ((3, 3), (5, 5), (7, 7), (11, 11), (6, 7)):
        for form in ('square', 'sequential', 'sequential_relu'):
            assert {(c.grouping, c.layout, c.mode) for c in quick if (c.form, c.kernel) == (form, kernel)} >= {
                (grouping, layout, mode) for grouping in GROUPINGS for layout in ('nchw', 'nhwc')
                for mode in ('infer', 'train')}
    assert {c.ratio for c in quick if c.form == 'inception'} == {1, 1 / 2, 1 / 4, 1 / 8, 1 / 16}
    full = select('full')
    assert {c.channels for c in full} >= {32, 768}
    assert {c.size for c in full} >= {7, 128}
    assert {c.mode for c in full} == {'infer', 'forward', 'train'}


def test_filters_that_leave_nothing_are_an_error():
    with pytest.raises(UserError, match='no case'):
        select('quick', kernel=[(4, 4)])
