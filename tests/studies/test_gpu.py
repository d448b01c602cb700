"""make gpu, exercised on a CPU: its cells, that it goes on where it was stopped, what it says without a GPU."""
import re
import subprocess
import time
from types import SimpleNamespace
from unittest import mock

import psutil
import pytest
import torch
from throughput.common import INCEPTIONNEXT, SMALL

from studies.gpu import cell as cell_module
from studies.gpu import running
from studies.gpu.cells import CONVNEXT, Cell, cells
from studies.gpu.cells import INCEPTIONNEXT as INCEPTIONNEXT_T
from studies.gpu.conditions import conditions, slug
from studies.gpu.estimate import FAST, GPUS, KERNELS, SLOW, Count, Operator, count_step, seconds, table
from studies.gpu.report import compared_table, families_table, report, segmentors_table, speed_table, words
from studies.throughput.candidates import GRAPH, STOCK
from studies.throughput.setting import Setting


@pytest.mark.skipif(torch.cuda.is_available(), reason='there is a GPU')
def test_without_a_gpu_it_says_so_and_exits_3(call_tool):
    done = call_tool('gpu')
    assert done.returncode == 3
    assert 'cuda is not there' in done.stderr and 'make gpu' in done.stderr and '--device cpu --quick' in done.stderr


def speed_cell():
    return Cell('segmentors', 'speed', candidates=[(f'{INCEPTIONNEXT}::none', 'nchw'), (INCEPTIONNEXT, 'nhwc')],
                setting=dict(mode='train', batch_size=2, size=32, dtype='fp32', device='cpu'), rounds=8)


def found(cell, device):
    if cell.kind == 'tests':
        return dict(tests=[dict(name='test_a', outcome='passed', seconds=1., reason=''),
                           dict(name='test_b', outcome='failed', seconds=1., reason='E  assert 1 == 2')])
    if cell.kind == 'operators':
        return dict(choices=[dict(operator='residual', first_map='1×2', form='triton', rule='triton',
                                  seconds=dict(triton=0.001, torch=0.003))])
    raise RuntimeError('out of memory')


def test_a_cell_of_throughput_takes_candidates_in_turn_and_is_in_the_report(tmp_path):
    measured = cell_module.run(speed_cell(), 'cpu', dict(SMALL))
    assert [row['layout'] for row in measured['results']] == ['nchw', 'nhwc'] and measured['halved'] == 0
    assert all(len(row['seconds']) == 8 and min(row['seconds']) > 0 for row in measured['results'])
    result = running.run_all('cpu', tmp_path, quick=True, run=lambda cell, device: (
        measured if cell.kind == 'speed' else found(cell, device)))
    text = (tmp_path / 'gpu.md').read_text()
    assert 'No figure here means anything' in text and 'residual' in text and 'E  assert 1 == 2' in text
    # The text has pytest's command line, where test_provenance.py may be.
    assert text.count('upernet_inceptionnext_a_mini') >= 2 and not re.search(r'\bnan\b', text)
    assert running.failures(result) == [f'{name}: test_b' for name in result['cells'] if name.startswith('tests')]


def test_a_run_that_was_stopped_goes_on_with_the_next_cell_and_repeats_what_failed(tmp_path):
    calls = []

    def stop(cell, device):
        calls.append(cell.name)
        if len(calls) == 5:
            raise KeyboardInterrupt
        return found(cell, device)
    with pytest.raises(KeyboardInterrupt):
        running.run_all('cpu', tmp_path, quick=True, run=stop)
    first, names = calls[:4], [cell.name for cell in cells('cpu', quick=True)]
    failed = [name for name in first if not name.startswith(('tests', 'operators'))]
    calls.clear()
    result = running.run_all('cpu', tmp_path, quick=True, run=lambda *args: calls.append(args[0].name) or found(*args))
    assert calls == [name for name in names if name not in first or name in failed]
    assert list(result['cells']) == names and set(failed) < set(running.failures(result))
    said = running.what_to_send('docs/results/gpu', result)
    assert 'pull request' in said and 'git add docs/results/gpu' in said
    assert 'Did not run: RuntimeError: out of memory' in report(result)


def timed(name, layout, *seconds, peak_memory=2**20):
    return dict(name=name, label=name, layout=layout, peak_memory=peak_memory, seconds=list(seconds), settled=True)


def test_ratios_are_to_stock_in_its_faster_layout_and_a_graph_has_no_peak_memory():
    cell = dict(setting=dict(batch_size=2), halved=0, results=[
        timed(STOCK, 'nchw', 6., 6.), timed(STOCK, 'nhwc', 4., 4.), timed(CONVNEXT, 'nhwc', 2., 2.),
        timed(f'{CONVNEXT}::{GRAPH}', 'nhwc', 1., 1.)])
    head, _, *rows = [line.strip('| ').split(' | ') for line in speed_table(cell).splitlines()]
    assert head[4] == 'speed against stock in its faster layout (95 %)'
    assert [row[4] for row in rows] == ['0.67 (0.67–0.67)', '1', '2.00 (2.00–2.00)', '4.00 (4.00–4.00)']
    assert [row[5] for row in rows] == ['1', '1', '1', '–']
    cell['results'] = cell['results'][2:]
    text = speed_table(cell)
    assert 'speed against the first (95 %)' in text and '| 1 | 1 |' in text


def test_figures_of_segmentors_stand_in_one_table_and_in_words_that_call_what_is_slower_slower():
    def cell(batch_size, ours):
        return dict(kind='speed', setting=dict(mode='infer', dtype='bf16', batch_size=batch_size, size=512), halved=0,
                    results=[timed(STOCK, 'nchw', 6., 6.), timed(STOCK, 'nhwc', 4., 4.),
                             timed(INCEPTIONNEXT_T, 'nhwc', ours, ours), timed(CONVNEXT, 'nhwc', 4., 4.)])
    result = dict(cells={'segmentors, infer, bf16, 1 images': cell(1, 8.), 'segmentors, infer, bf16, 16 images':
                         cell(16, 2.), 'segmentors, infer, fp32, 1 images': dict(kind='speed', error='x'),
                         'backbones, infer, bf16, 16 images': cell(16, 1.)})
    text = segmentors_table(result)
    assert len(text.splitlines()) == 6 and 'inference, bf16, 1 × 512×512' in text
    assert '0.50 (0.50–0.50)' in text and '2.00 (2.00–2.00)' in text
    said = words(result)
    assert 'inference, bf16, 1 × 512×512: **0.50 (0.50–0.50)×, slower than stock**' in said
    assert 'inference, bf16, 16 × 512×512: 2.00 (2.00–2.00)×' in said
    assert families_table(result).splitlines()[2:] == [
        '| inference, bf16, 1 × 512×512 | – | 0.50 (0.50–0.50) | – |',
        '| inference, bf16, 16 × 512×512 | – | 2.00 (2.00–2.00) | – |']


def test_an_estimate_stands_beside_what_was_measured():
    rows = [dict(gpu=gpu, dtype=dtype, candidate='a: none', low=dict(x=0.001), high=dict(x=0.002))
            for gpu in ('A100', 'H100') for dtype in ('bf16', 'fp32')]
    measured = dict(environment=dict(device_name='NVIDIA H100 80GB HBM3'), cells={
        'segmentors, train, bf16, 16 images': dict(
            kind='speed', setting=dict(mode='train', dtype='bf16', batch_size=16, size=512), halved=0,
            results=[dict(timed('a::none', 'nhwc', 0.008, 0.008), label='a: none')])})
    text = compared_table(dict(batch_size=16, size=512, rows=rows), measured)
    assert text.splitlines()[2:] == ['| bf16 | a: none | 1–2 | 8 |']


def runs(pid):
    try:
        return psutil.Process(pid).status() != psutil.STATUS_ZOMBIE
    except psutil.NoSuchProcess:
        return False


def test_a_cell_that_hangs_is_stopped_with_what_it_has_started(tmp_path, monkeypatch):
    monkeypatch.setattr(running, 'GRACE', 0.2)
    # As a cell with its pytest: a child that does not end by itself, nor when it is asked to.
    script = f'(trap "" TERM; echo $BASHPID > {tmp_path}/pid; exec sleep 60) & wait'
    begin = time.monotonic()
    with pytest.raises(TimeoutError, match=r'0\.5 s'):
        running.run_with_children(['bash', '-c', script], 0.5, '')
    assert time.monotonic() - begin < 20
    pid = int((tmp_path / 'pid').read_text())
    while runs(pid):
        assert time.monotonic() - begin < 20
        time.sleep(0.05)
    assert running.run_with_children(['bash', '-c', 'read line; echo "$line" >&2; exit 3'], 20, 'why\n') == (3, 'why\n')


def test_every_cell_is_there_for_a_gpu(monkeypatch):
    monkeypatch.setattr(torch.cuda, 'get_device_capability', lambda device: (7, 0))
    names = [cell.name for cell in cells('cuda')]
    assert {'tests: kernels', 'tests: steps', 'tests: processes', 'segmentors, train, fp16, 16 images',
            'segmentors, infer, fp32, 1 images', 'backbones, train, fp32, 16 images',
            'parts alone, infer, fp16, 16 images', 'compiled, train, fp32, 16 images',
            'sliding windows, fp16, 1024×2048'} <= set(names)
    assert len(set(names)) == len(names)


def test_what_is_quick_has_every_kind_of_cell_in_training_and_inference_stock_among_the_candidates(monkeypatch):
    monkeypatch.setattr(torch.cuda, 'get_device_capability', lambda device: (8, 0))
    kinds = {re.sub(r'.*: |,.*| of .*', '', cell.name) for cell in cells('cuda')}
    quick = cells('cpu', quick=True)
    assert {re.sub(r'.*: |,.*| of .*', '', cell.name) for cell in quick} == kinds
    settings = [cell.setting for cell in quick if cell.setting]
    assert {(s['mode'], s['dtype']) for s in settings} == {('train', 'fp32'), ('infer', 'bf16')}
    assert max(s['size'] for s in settings) <= 128 and any('compile' in s for s in settings)
    assert any(name == STOCK for cell in quick for name, _ in cell.candidates)


def test_a_cell_of_sliding_windows_predicts_by_windows(monkeypatch):
    from inceptionnext_seg.segmentation import segmentor
    predicted = mock.Mock(wraps=segmentor.predict_windows)
    monkeypatch.setattr(segmentor, 'predict_windows', predicted)
    setting = dict(mode='infer', batch_size=1, size=32, width=48, dtype='bf16', device='cpu')
    found = cell_module.run(
        Cell('sliding windows', 'speed', candidates=[(f'{INCEPTIONNEXT}::none', 'nchw'), (INCEPTIONNEXT, 'nhwc')],
             setting=setting, rounds=8, slide=(32, 16)), 'cpu', dict(SMALL))
    assert len(found['results']) == 2 and found['setting']['width'] == 48
    assert [call.args[1].lefts for call in predicted.call_args_list[:1]] == [[0, 16]]


def test_reports_of_pytest_and_words_of_nvidia_smi_are_read(monkeypatch):
    xml = ('<testsuites><testsuite><testcase name="a" time="0.5"/><testcase name="b" time="1"><skipped message="needs '
           'two GPUs"/></testcase><testcase name="c" time="1"><failure message="m">trace</failure></testcase>'
           '</testsuite></testsuites>')
    assert [(t['name'], t['outcome'], t['reason']) for t in cell_module.read_report(xml)] == [
        ('a', 'passed', ''), ('b', 'skipped', 'needs two GPUs'), ('c', 'failed', 'trace')]
    monkeypatch.setattr(torch.cuda, 'get_device_properties', lambda device: SimpleNamespace(uuid='1-2'))
    said = conditions('cuda', lambda command, **settings: SimpleNamespace(
        stdout='570.1, 400.00, 60.5, 1410, 1410, 1593, 1593, 31, 0x0000000000000000, Enabled, 5, 81920, [N/A]\n'))
    assert said['driver'] == '570.1' or said['driver'] == 570.1
    assert said['power_limit_W'] == 400 and said['largest_clock_MHz'] == 1410 and 'mig' not in said

    def missing(*args, **settings):
        raise subprocess.CalledProcessError(9, 'nvidia-smi')
    assert conditions('cuda', missing) == {} and slug('NVIDIA A100-SXM4-80GB') == 'nvidia-a100-sxm4-80gb'


def test_an_estimate_is_the_longest_of_arithmetic_bytes_and_launch_and_says_what_it_is():
    a100 = GPUS[0]
    operators = [Operator('mm', 'products', int(a100.half * 0.7), 8, True), Operator('add', 'others', 0, int(
        a100.memory * 0.9), False), Operator('add', 'others', 0, 8, False)]
    low = seconds(operators, 0, a100, FAST, amp=True)
    assert low['products'] == pytest.approx(1) and low['others'] == pytest.approx(1 + FAST.launch)
    high = seconds(operators, 0, a100, SLOW, amp=True)
    assert high['products'] == pytest.approx(2)
    row = dict(candidate='ours', dtype='fp32', gpu='A100', operators=3, operations=1, nbytes=1, low=low, high=high)
    assert all('estimate' in line for line in table(dict(rows=[row, row])).splitlines()[2:])


def test_a_kernel_takes_the_time_of_its_instructions_on_as_many_multiprocessors_as_it_has_programs():
    for gpu, clock in zip(GPUS, (1.41e9, 1.98e9), strict=True):     # of the data sheets
        assert gpu.clocks / gpu.processors == pytest.approx(clock, rel=0.002)
    a100 = GPUS[0]
    work = dict(instructions=int(0.3 * a100.instructions), special=int(0.3 * a100.special))
    operators = [Operator('loss_kernel', KERNELS, 0, 8, False, **work, programs=10**6)]
    assert seconds(operators, 0, a100, FAST, amp=True)[KERNELS] == pytest.approx(1)
    operators = [operators[0]._replace(programs=27)]        # of 108 multiprocessors
    assert seconds(operators, 0, a100, SLOW, amp=True)[KERNELS] == pytest.approx(8)


def test_every_launch_of_a_step_counts_with_its_exponentials():
    pytest.importorskip('triton', reason='triton is not installed')
    setting = Setting(batch_size=2, size=64, dtype='bf16')
    operators, _ = count_step(INCEPTIONNEXT, setting)
    launches = [operator for operator in operators if operator.kind == KERNELS]
    names = [launch.name for launch in launches]
    assert {name: names.count(name) for name in ('loss_kernel', 'add_kernel', 'convolution_kernel')} == dict(
        loss_kernel=2, add_kernel=12, convolution_kernel=24)    # two heads; forward; forward and backward
    assert not any(operator.name.startswith(('inception_dwconv2d', 'residual')) for operator in operators)
    for launch in launches:
        assert launch.instructions > 0 and launch.programs > 0 and launch.nbytes > 0 and launch.operations == 0
    # 18 classes lie on 32 lanes, and one is the other part; a logarithm is two in all lanes of a warp.
    pixels = 2 * 64 * 64
    forward = [launch for launch in launches if launch.name == 'loss_kernel']
    assert [launch.special for launch in forward] == 2 * [pixels * (32 + 1 + 64)]
    backward = [launch for launch in launches if launch.name == 'gradient_kernel' and launch.special]
    # Of so few logits each is a segment of its own: every pixel is met from above and below, from left and right.
    assert [launch.special for launch in backward] == 2 * [4 * pixels * 33]


def test_products_count_their_arithmetic_and_all_others_their_tensors():
    x, weight = torch.empty(2, 4, 6, 6, device='meta'), torch.empty(8, 4, 3, 3, device='meta', requires_grad=True)
    with Count() as count:
        torch.nn.functional.conv2d(x, weight, padding=1).relu().sum().backward()
    kinds = {operator.name: operator for operator in count.operators}
    macs = 2 * 36 * 8 * 4 * 9
    assert kinds['convolution'].operations == 2 * macs and kinds['convolution_backward'].operations == 2 * macs
    assert kinds['relu'].nbytes == 2 * 4 * 2 * 8 * 36
