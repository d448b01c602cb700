"""Operators: counts against hand-worked ones and torch's counter, the conclusions against made-up measurements."""
import json
import re
from dataclasses import asdict, replace
from types import SimpleNamespace

import pytest
import torch
import torch.nn.functional as F
from timm.models.inception_next import InceptionDWConv2d as TimmInceptionDWConv2d
from torch.utils.flop_counter import FlopCounterMode

from inceptionnext_seg.errors import UserError
from inceptionnext_seg.models.metanext import InceptionDWConv2d
from studies import operator_report as report
from studies import operators
from studies.operators import BranchedConv2d, Case, Table, build, count
from studies.timing import DTYPES, InputPool

SMALL = Case('square', (3, 3), 1.0, 'depthwise', channels=4, size=5, batch_size=2)
CASES = operators.select('quick', channels=[16], size=[13], batch_size=[2], layout=['nchw'], dtype=['fp32'],
                         cache=['cold'])


def name(case):
    return f'{case.operator} {case.grouping} {case.mode}'


# Counts


@pytest.mark.parametrize(('changes', 'parameters', 'macs', 'elements'), [
    # Elements are input + weights + bias + output of each pass; 2 × 4 × 5 × 5 = 200 in an image.
    (dict(), 4 * 9 + 4, 200 * 9, 200 + 40 + 200),
    (dict(grouping='dense'), 16 * 9 + 4, 200 * 4 * 9, 200 + 148 + 200),
    (dict(form='sequential'), 2 * (4 * 3 + 4), 2 * 200 * 3, 2 * (200 + 16 + 200)),
    (dict(form='sequential_relu'), 2 * (4 * 3 + 4), 2 * 200 * 3, 2 * (200 + 16 + 200) + 400),
    # 2×3 loses a row: 2 × 4 × 4 × 5 = 160 outputs.
    (dict(form='one_pass'), 4 * 6 + 4, 160 * 6, 200 + 28 + 160),
    (dict(form='sequential', kernel=(6, 7)), 4 * 13 + 8, 160 * 6 + 160 * 7, (200 + 28 + 160) + (160 + 32 + 160)),
    (dict(form='copy'), 0, 0, 400),
    # Backward: gradients of input (no bias) and of parameters, as many MACs each.
    (dict(mode='train'), 4 * 9 + 4, 3 * 200 * 9, 3 * (200 + 36 + 200) + 2 * 4),
    (dict(form='sequential_relu', mode='train'), 2 * (4 * 3 + 4), 6 * 200 * 3,
     2 * (3 * (200 + 12 + 200) + 2 * 4) + 400 + 600),
    (dict(form='copy', mode='train'), 0, 0, 400),
    # Half of the channels, 100 elements: copied together, convolved, and concatenated with the others.
    (dict(form='partial', ratio=1 / 2), 2 * 9 + 2, 100 * 9, 200 + (100 + 20 + 100) + 400),
    (dict(form='partial', ratio=1 / 2, batch_size=1), 2 * 9 + 2, 50 * 9, (50 + 20 + 50) + 200),
    (dict(form='partial', ratio=1 / 2, batch_size=1, layout='nhwc'), 2 * 9 + 2, 50 * 9, 100 + (50 + 20 + 50) + 200),
    # Three branches of one channel, 50 elements: 9 + 5 + 5 products.
    (dict(form='inception', kernel=(5, 5), ratio=1 / 4), 9 + 5 + 5 + 3, 50 * 19,
     3 * 100 + (3 * 100 + 19 + 3) + 400),
    # All the channels in each of three branches, whose outputs are added in two passes.
    (dict(form='inception', kernel=(5, 5), ratio=1.0), 4 * 19 + 12, 200 * 19, (3 * 400 + 76 + 12) + 2 * 600),
])
def test_counts_are_those_worked_out_by_hand(changes, parameters, macs, elements):
    for dtype in ('fp32', 'bf16'):
        counts = count(replace(SMALL, dtype=dtype, **changes))
        assert (counts.parameters, counts.macs) == (parameters, macs)
        assert counts.bytes == elements * DTYPES[dtype].itemsize


@pytest.mark.parametrize('case', CASES, ids=name)
def test_parameters_macs_and_shape_are_those_of_the_module(case):
    module = build(case)
    assert count(case).parameters == sum(parameter.numel() for parameter in module.parameters())
    x = torch.randn(2, case.channels, 13, 13, requires_grad=True)
    with FlopCounterMode(display=False) as counter:
        y = module(x)
        if case.mode == 'train':
            y.sum().backward()
    assert y.shape == (2, case.channels, *operators.output_size(case))
    # torch counts the backward of a depthwise convolution as that of a dense one.
    if case.mode == 'infer' or case.grouping == 'dense':
        assert counter.get_total_flops() == 2 * count(case).macs


@pytest.mark.parametrize(('side', 'kernel_side'), [(5, 3), (5, 2), (7, 6), (3, 7), (1, 11), (56, 11)])
def test_products_inside_the_image_are_what_a_convolution_of_ones_adds_up(side, kernel_side):
    ones = F.conv1d(torch.ones(1, 1, side), torch.ones(1, 1, kernel_side), padding=(kernel_side - 1) // 2)
    assert operators.taps_inside(side, kernel_side) == int(ones.sum())
    assert operators.output_side(side, kernel_side) == ones.shape[-1]


def test_the_bound_adds_the_longer_of_arithmetic_and_memory_of_each_pass():
    counts = operators.Counts(0, [operators.Pass(100, 80, 10), operators.Pass(100, 10, 90)])
    assert counts.bound(macs_per_second=10, bytes_per_second=30) == 80 / 10 + 90 / 30


def test_the_bound_leaves_out_products_with_padding():
    # A 3×3 kernel on one pixel meets it with its centre only.
    assert count(replace(SMALL, size=1)).passes[0][:2] == (8 * 9, 8)


# Modules


@pytest.mark.logits_match
def test_the_parallel_form_is_timms():
    case = Case('inception', (11, 11), 1 / 8, channels=32)
    timm = TimmInceptionDWConv2d(32, square_kernel_size=3, band_kernel_size=11, branch_ratio=1 / 8)
    ours = build(case)
    assert isinstance(ours, InceptionDWConv2d)
    ours.load_state_dict(timm.state_dict())
    branched = BranchedConv2d(32, operators.branch_kernels(case), 1 / 8, depthwise=True)
    branched.load_state_dict(dict(zip(branched.state_dict(), timm.state_dict().values(), strict=True)))
    x = torch.randn(2, 32, 14, 14)
    torch.testing.assert_close(ours(x), timm(x))
    torch.testing.assert_close(branched(x), timm(x))


@pytest.mark.parametrize('ratio', [1.0, 1 / 2])
def test_branches_that_share_channels_are_added(ratio):
    module = BranchedConv2d(8, [(3, 3), (1, 5), (5, 1)], ratio, depthwise=False)
    x = torch.randn(2, 8, 6, 6)
    taken = int(8 * ratio)
    added = sum(F.conv2d(x[:, -taken:], conv.weight, conv.bias, padding='same') for conv in module.convs)
    torch.testing.assert_close(module(x), torch.cat((x[:, :8 - taken], added), dim=1))


def test_a_sequence_is_the_square_convolution_whose_kernel_is_its_outer_product():
    case = Case('sequential', (7, 7), channels=4)
    column, row = build(case)
    square = build(replace(case, form='square'))[0]
    with torch.no_grad():
        column.bias.zero_()
        square.weight.copy_(column.weight * row.weight)
        square.bias.copy_(row.bias)
    x = torch.randn(2, 4, 9, 9)
    torch.testing.assert_close(row(column(x)), square(x), atol=1e-5, rtol=1e-4)


# Selecting and measuring


def test_filters_replace_shapes_and_keep_operators():
    cases = operators.select('quick', channels=[24], size=[10], mode=['forward'], form=['sequential', 'partial'],
                             kernel=[(7, 7)], grouping=['dense'])
    measured = [case for case in cases if case.size > 1]
    assert {(c.form, c.kernel, c.grouping, c.mode, c.channels, c.size) for c in measured} == {
        ('sequential', (7, 7), 'dense', 'forward', 24, 10)}
    assert len(cases) == len(set(cases))


def test_the_suites_have_every_case_that_the_question_needs():
    quick = set(operators.select('quick'))
    for kernel in ((3, 3), (5, 5), (7, 7), (11, 11), (6, 7)):
        for form in ('square', 'sequential', 'sequential_relu'):
            assert {(c.grouping, c.layout, c.mode) for c in quick if (c.form, c.kernel) == (form, kernel)} >= {
                (grouping, layout, mode) for grouping in operators.GROUPINGS for layout in ('nchw', 'nhwc')
                for mode in ('infer', 'train')}
    assert {c.ratio for c in quick if c.form == 'inception'} == {1, 1 / 2, 1 / 4, 1 / 8, 1 / 16}
    full = operators.select('full')
    assert {c.channels for c in full} >= {32, 768}
    assert {c.size for c in full} >= {7, 128}
    assert {c.mode for c in full} == {'infer', 'forward', 'train'}


def test_filters_that_leave_nothing_are_an_error():
    with pytest.raises(UserError, match='no case'):
        operators.select('quick', kernel=[(4, 4)])


PEAKS = dict(macs_per_second=1e9, bytes_per_second=1e9, cache_bytes_per_second=4e9, matrix_size=8,
             copy_working_set=2**20, cache_copy_working_set=2**10, seconds={})


@pytest.mark.filterwarnings('ignore:CUDA is not available')
@pytest.mark.parametrize('mode', ['infer', 'train'])
def test_a_group_is_measured_on_a_device_that_is_not_a_cpu(mode):
    # The device 'meta' computes nothing; a fake one takes 0.5 s whenever it is waited for.
    fake = SimpleNamespace(now=0.0)

    def work():
        fake.now += 0.5

    group = [replace(SMALL, mode=mode), replace(SMALL, mode=mode, cache='hot'),
             replace(SMALL, mode=mode, form='one_pass')]
    pool = InputPool(torch.float32, 'meta', nbytes=2**16)
    peaks = dict(PEAKS, macs_per_second=1e15)
    records = operators.measure_group(group, pool, 'meta', peaks, rounds=8, synchronize=work, clock=lambda: fake.now)
    assert [record['seconds'] for record in records] == [[0.5] * 8] * 3
    assert [record['cache'] for record in records] == ['cold', 'hot', 'cold']
    assert records[0]['bound_seconds'] == pytest.approx(4 * records[1]['bound_seconds']), 'that of memory and of cache'
    assert all(record['layout_bytes'] is None for record in records)


ONEDNN_LOG = '''\
onednn_verbose,v1,info,oneDNN v3.7.1
onednn_verbose,v1,primitive,info,template:operation,engine,primitive,implementation,prop_kind,memory_descriptors
onednn_verbose,v1,primitive,exec,cpu,reorder,jit:blk,undef,src:f32::blocked:abcd::f0 dst:f32::blocked:aBcd16b::f0,a,,4x96x56x56,0.4
onednn_verbose,v1,primitive,exec,cpu,convolution,jit_dw:avx512_core,forward_training,src:f32 wei:f32,a,b,g96mb4_ic96oc96,0.5
onednn_verbose,v1,primitive,exec,cpu,convolution,x64:gemm:jit,backward_weights,src:f32 wei:f32,a,b,g96mb4_ic96oc96,0.5
onednn_verbose,v1,primitive,exec,cpu,reorder,jit:uni,undef,src:f32::blocked:a::f0 dst:bf16::blocked:a::f0,a,,96,0.1
'''     # noqa: E501


def test_onednns_log_tells_the_kernels_and_the_bytes_of_layout_changes():
    implementations, moved = operators.parse_onednn(ONEDNN_LOG)
    assert implementations == ['forward jit_dw:avx512_core', 'weight gradient x64:gemm:jit']
    assert moved == 4 * 96 * 56 * 56 * (4 + 4) + 96 * (4 + 2)


@pytest.mark.skipif(not torch.backends.mkldnn.is_available(), reason='this torch has no oneDNN')
def test_the_kernels_of_a_convolution_are_found_out(capfd):
    conv, x = torch.nn.Conv2d(16, 16, 3, padding=1), torch.randn(2, 16, 8, 8)
    implementations, moved = operators.kernels_of(lambda: conv(x), 'cpu', lambda: None)
    assert len(implementations) == 1
    assert implementations[0].startswith('forward ')
    assert moved >= 0
    assert 'onednn' not in capfd.readouterr().out


# Conclusions


def result_where(time, rounds=8, **filters):
    """A result in which a call takes ``time(case, counts)`` seconds."""
    records = []
    kept = dict(dict(dtype=['fp32'], kernel=[(1, 1), (3, 3), (7, 7), (11, 11)]), **filters)
    for case in operators.select('quick', **kept):
        counts = count(case)
        # The same disturbance in each round, which pairing has to take out.
        seconds = [time(case, counts) * (1 + 0.3 * (i % 3)) for i in range(rounds)]
        records.append(dict(
            asdict(case), parameters=counts.parameters, macs=counts.macs,
            needed_macs=counts.needed_macs, bytes=counts.bytes, bound_seconds=counts.bound(1e9, 1e9),
            implementations=['forward some', 'weight gradient other'],
            layout_bytes=0, repeats=1, warmup_rounds=3, settled=True, seconds=seconds))
    return dict(
        environment=dict(command='python tools/benchmark_ops.py', date='2000-01-01T00:00:00', device='cpu',
                         device_name='some', cpu_capability='none', threads=1, variables={}, versions=dict(torch='2')),
        suite='quick', rounds=rounds, clock='wall', peaks=dict(fp32=PEAKS), records=records)


def verdicts(result):
    return {(reason, grouping, mode): finding.verdict
            for reason, _, grouping, mode, finding in operators.reasons(Table(result))}


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
    for grouping in operators.GROUPINGS:
        for mode in ('infer', 'train'):
            assert found['operation count', grouping, mode] == 'borne out'
            assert found['memory traffic', grouping, mode] == 'not borne out'
            assert found['launch and synchronization', grouping, mode] == 'not borne out'
            assert operators.correlations(Table(result), grouping, mode, 'nhwc')[1] == pytest.approx(1)


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
    assert report.reasons_table(result).count('**not measured**') == len(verdicts(result)) + 2


# Report


@pytest.fixture(scope='module')
def result():
    return result_where(lambda case, counts: counts.bytes / 1e9)


def test_a_document_is_filled_from_the_result(result):
    text = ('before <!-- measured: bytes sequential:7x7 / square:7x7 depthwise nchw infer -->?<!-- /measured -->, '
            '<!-- measured: macs inception:11x11:1/8 / square:7x7 depthwise nchw infer --><!-- /measured --> after\n'
            '<!-- measured: limits -->old<!-- /measured -->\n'
            '<!-- measured: time sequential:3x3 / square:3x3 dense nchw infer @32x1x2:fp32 --><!-- /measured -->')
    filled = report.fill(text, result)
    # 2 × (C·H·W·2·B + weights) over one; (9 + 11 + 11) / 8 products for 49.
    assert 'depthwise nchw infer -->2.00<!-- /measured -->, ' in filled
    assert f'-->{31 / 8 / 49:.2f}<!-- /measured --> after' in filled
    # On one pixel: 2 × (images 2 · 64, weights 3 · 32², bias 32) over (2 · 64, 9 · 32², 32).
    assert f'-->{2 * (128 + 3 * 1024 + 32) / (128 + 9 * 1024 + 32):.2f}<!-- /measured -->' in filled
    assert '| fp32 | 1.0 | 1.0 | 4.0 | 1.0 |' in filled
    assert report.fill(filled, result) == filled


@pytest.mark.parametrize('what', ['nothing known', 'time square:7x7 / cube:7x7 depthwise nchw infer',
                                  'time square:9x9 / square:7x7 depthwise nchw infer'])
def test_a_document_that_asks_for_what_is_not_there_is_an_error(result, what):
    with pytest.raises(UserError, match='Next: '):
        report.fill(f'<!-- measured: {what} --><!-- /measured -->', result)


def test_a_result_without_one_grouping_or_mode_is_reported_too(tmp_path):
    result = result_where(lambda case, counts: 1e-6, grouping=['dense'], mode=['infer'], form=['square', 'row'])
    report.write_report(result, tmp_path / 'part.md')
    assert 'Factorized, depthwise' not in (tmp_path / 'part.md').read_text()


@pytest.fixture
def two_threads():
    before = torch.get_num_threads()
    yield
    torch.set_num_threads(before)


def test_the_tool_measures_writes_and_reports_again(call_tool, tmp_path, two_threads):
    out = tmp_path / 'operators.json'
    done = call_tool('benchmark_ops', '--channels', 16, '--size', 6, '--batch-size', 2, '--dtype', 'fp32', '--layout',
                     'nchw', '--mode', 'infer', '--kernel', 3, '11', '--form', 'square', 'sequential', 'inception',
                     '--grouping', 'depthwise', '--rounds', 8, '--threads', 1, '--clock', 'cpu', '--out', out)
    assert done.returncode == 0, done.stderr
    assert 'Which reasons the numbers bear out' in done.stdout
    result = json.loads(out.read_text())
    assert len(result['records']) == len(operators.select(
        'quick', channels=[16], size=[6], batch_size=[2], dtype=['fp32'], layout=['nchw'], mode=['infer'],
        kernel=[(3, 3), (11, 11)], form=['square', 'sequential', 'inception'], grouping=['depthwise']))
    assert all(len(record['seconds']) == 8 for record in result['records'])
    images = sorted(path.name for path in tmp_path.glob('*.png'))
    assert images == sorted(f'operators_{name}.png' for name in report.FIGURES)
    written = out.with_suffix('.md').read_text()
    out.with_suffix('.md').unlink()
    document = tmp_path / 'document.md'
    document.write_text('<!-- measured: environment --><!-- /measured -->')
    assert call_tool('benchmark_ops', '--report', out, '--fill', document).returncode == 0
    assert out.with_suffix('.md').read_text() == written
    assert f'torch {torch.__version__.split("+")[0]}' in document.read_text()


@pytest.mark.parametrize(('arguments', 'message'), [
    (['--rounds', '3'], '--rounds 3; wanted at least 8'),
    (['--device', 'nowhere'], '--device nowhere cannot be used'),
    (['--device', 'cpu', '--dtype', 'fp16'], '--dtype fp16 on a CPU'),
    (['--out', 'result.md'], 'wanted a name that ends in .json'),
    (['--device', 'cpu', '--threads', '2', '--clock', 'cpu'], 'wanted one thread'),
    (['--channels', '0'], '--channels [0]; wanted whole numbers above 0'),
    (['--form', 'copy', '--kernel', '7'], 'no case of the suite'),
    (['--report', 'missing.json'], 'missing.json cannot be read'),
])
def test_mistakes_are_one_message(call_tool, two_threads, arguments, message):
    done = call_tool('benchmark_ops', *arguments)
    assert done.returncode == 2
    assert message in done.stderr
    assert 'Next: ' in done.stderr


@pytest.mark.parametrize('damage', [
    lambda result: result.pop('environment'),
    lambda result: result['records'].clear(),
    lambda result: result['records'][0].pop('macs'),
    lambda result: result['records'][0].update(form='cube'),
    lambda result: result['records'][0].update(seconds=['a', 'b']),
    lambda result: result['peaks']['fp32'].update(bytes_per_second=0),
])
def test_a_file_that_is_no_such_result_is_refused(result, tmp_path, damage):
    path = tmp_path / 'result.json'
    copy = json.loads(json.dumps(result))
    path.write_text(json.dumps(copy))
    assert operators.read_result(path) == copy
    damage(copy)
    path.write_text(json.dumps(copy))
    with pytest.raises(UserError, match=r'result\.json'):
        operators.read_result(path)


# What is in the repository


@pytest.fixture(scope='module')
def kept(root):
    return operators.read_result(root / 'docs' / 'results' / 'operators_cpu.json')


def test_the_tables_in_the_repository_are_those_of_its_result(root, kept):
    text = (root / 'docs' / 'results' / 'operators_cpu.md').read_text(encoding='utf-8')
    assert text == report.markdown(kept, 'operators_cpu')


def test_every_figure_of_the_document_is_that_of_the_result(root, kept):
    text = (root / 'docs' / 'factorized_convolutions.md').read_text(encoding='utf-8')
    assert report.fill(text, kept) == text
    by_hand = report.MARKER.sub('', text).replace('95 % bootstrap intervals', '')
    assert not re.findall(r'\d+\.\d+|\d+ ?(?:%|ms|µs|GB|GMACs|times\b)', by_hand)


def test_the_figures_of_the_document_are_there_and_small(root):
    text = (root / 'docs' / 'factorized_convolutions.md').read_text(encoding='utf-8')
    images = re.findall(r'!\[[^]]+\]\(([^)]+)\)', text)
    assert images
    for image in images:
        assert (root / 'docs' / image).stat().st_size < 200_000
