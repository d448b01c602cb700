"""A result file, and comparisons among its records."""
import collections
import pathlib
import statistics
from dataclasses import fields

from inceptionnext_seg.errors import UserError
from inceptionnext_seg.files import read_json

from ..timing import DTYPES, MEMORY_FORMATS, median_interval, ratio
from .cases import FORMS, GROUPINGS, MODES, Case
from .suites import PROBE


def read_result(path):
    """A result file as :func:`write_result` made it.

    Raises:
        UserError: There is no such file, or it is not such a result.
    """
    path = pathlib.Path(path)
    expected = 'Expected: a result file of tools/benchmark_ops.py. Next: run it with --out to make one'
    try:
        result = read_json(path)
        table = Table(result)
        origin = result['environment']
        described = ''.join([result['clock'], origin['versions']['torch'], str(origin['threads'] + result['rounds']), *(
            origin[key] for key in ('command', 'date', 'device', 'device_name', 'cpu_capability'))])
        described += ''.join(origin['variables'].values())
        limits = [limit for peaks in result['peaks'].values() for limit in (
            peaks['macs_per_second'], peaks['bytes_per_second'], peaks['cache_bytes_per_second'],
            peaks['matrix_size'], peaks['copy_working_set'], peaks['cache_copy_working_set'])]
        if not described or not all(limit > 0 for limit in limits):
            raise ValueError('a limit is not above 0')
    except OSError as error:
        raise UserError(f'result file {path} cannot be read ({error.strerror}). {expected}') from error
    except (ValueError, KeyError, TypeError, AttributeError) as error:
        raise UserError(f'result file {path} is not a result of operators ({error!r}). {expected}') from error
    if not table.records:
        raise UserError(f'result file {path} has no records. {expected}')
    return result


COUNTED = ('parameters', 'macs', 'needed_macs', 'bytes')


class Table:
    """The records of a result by their :class:`Case`, and comparisons among them."""

    def __init__(self, result):
        self.records = {}
        for record in result['records']:
            values = {field.name: record[field.name] for field in fields(Case)}
            case = Case(**dict(values, kernel=tuple(values['kernel'])))
            known = (case.form in FORMS and case.mode in MODES and case.grouping in GROUPINGS
                     and case.layout in MEMORY_FORMATS and case.dtype in DTYPES and case.dtype in result['peaks'])
            counted = all(record[key] >= 0 for key in COUNTED) and record['bound_seconds'] > 0
            told = isinstance(record['settled'], bool) and {type(name) for name in record['implementations']} <= {str}
            if not (known and counted and told and len(record['seconds']) > 1 and min(record['seconds']) > 0):
                raise ValueError(f'unusable record of {case}')
            self.records[case] = record

    def __iter__(self):
        return iter(self.records)

    def __contains__(self, case):
        return case in self.records

    def time(self, case):
        """Median time of a call with its interval, in seconds."""
        return median_interval(self.records[case]['seconds'])

    def ratio(self, a, b):
        """Time of ``a`` over that of ``b``, paired by round; both of one group."""
        return ratio(self.records[a]['seconds'], self.records[b]['seconds'])

    def share(self, case):
        """Roofline bound over the median time: 1 is as fast as the machine's limits allow."""
        record = self.records[case]
        return record['bound_seconds'] / statistics.median(record['seconds'])

    def quotient(self, key, a, b):
        """``key``, such as 'macs', of ``a`` over that of ``b``."""
        return self.records[a][key] / self.records[b][key]

    def base(self, grouping):
        """Channels, size, batch size and dtype under which most operators of ``grouping`` were measured, or None."""
        seen = collections.Counter(
            (case.channels, case.size, case.batch_size, case.dtype) for case in self
            if case.grouping == grouping and case.size > PROBE['size'])
        return max(seen, key=seen.get, default=None)


# The order in which tables list the conditions of a case.
LAYOUT_AND_MODE = [(layout, mode) for mode in MODES for layout in ('nchw', 'nhwc')]


def conditions(table, grouping):
    """The (layout, mode) pairs measured for ``grouping``."""
    seen = {(case.layout, case.mode) for case in table if case.grouping == grouping}
    return [pair for pair in LAYOUT_AND_MODE if pair in seen]


def modes_of(table):
    """The modes measured, in the order of :data:`MODES`."""
    seen = {case.mode for case in table}
    return [mode for mode in MODES if mode in seen]


def base_case(table, grouping, form, kernel, ratio=1.0, layout='nchw', mode='infer'):
    """The case of the shape under which most operators of ``grouping`` were measured, or None without one."""
    base = table.base(grouping)
    if base is None:
        return None
    channels, size, batch_size, dtype = base
    return Case(form, kernel, ratio, grouping, channels, size, batch_size, dtype, layout, mode)
