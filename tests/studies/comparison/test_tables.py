"""Tables of totals and classes, against what is written out by hand."""
import re

import compare
import pytest

from inceptionnext_seg.errors import UserError
from studies.comparison.collecting import collect
from studies.comparison.tables import paper_rows, read_candidates, tables

from .common import write_run


def run(miou, sky, bus):
    return dict(metrics=dict(mIoU=miou, mAcc=50.0, aAcc=75.5, per_class={
        'sky': dict(IoU=sky, Acc=1.0), 'bus & tram_2|3': dict(IoU=bus, Acc=None)}))


# Mean 31, deviation sqrt(2); sky 80 ± 0; the bus occurs in none of A's second run.
CANDIDATES = [dict(name='A_100%', runs=[run(30.0, 80.0, 10.0), run(32.0, 80.0, None)]),
              dict(name='B', runs=[run(33.333, 90.0, 12.345)])]
LATEX = r'''% \usepackage{booktabs}
\begin{tabular}{lrrr}
\toprule
 & mIoU (\%) & mAcc (\%) & aAcc (\%) \\
\midrule
A\_100\% & 31.00\,$\pm$\,1.41 & 50.00\,$\pm$\,0.00 & 75.50\,$\pm$\,0.00 \\
B & 33.33 & 50.00 & 75.50 \\
\bottomrule
\end{tabular}

\begin{tabular}{lrr}
\toprule
IoU (\%) & A\_100\% & B \\
\midrule
sky & 80.00\,$\pm$\,0.00 & 90.00 \\
bus \& tram\_2|3 & -- & 12.35 \\
\bottomrule
\end{tabular}
'''
CSV = '''table,candidate,name,runs,mean,standard deviation
total,A_100%,mIoU,2,31.0,1.4142135623730951
total,A_100%,mAcc,2,50.0,0.0
total,A_100%,aAcc,2,75.5,0.0
total,B,mIoU,1,33.333,
total,B,mAcc,1,50.0,
total,B,aAcc,1,75.5,
class,A_100%,sky,2,80.0,0.0
class,B,sky,1,90.0,
class,A_100%,bus & tram_2|3,2,,
class,B,bus & tram_2|3,1,12.345,
'''
MARKDOWN = r'''|  | n | mIoU (%) | mAcc (%) | aAcc (%) |
| :-- | --: | --: | --: | --: |
| A_100% | 2 | 31.00 ± 1.41 | 50.00 ± 0.00 | 75.50 ± 0.00 |
| B | 1 | 33.33 | 50.00 | 75.50 |

| IoU (%) | A_100% | B |
| :-- | --: | --: |
| sky | 80.00 ± 0.00 | 90.00 |
| bus & tram_2\|3 | – | 12.35 |
'''


@pytest.mark.parametrize(('form', 'expected'), [('latex', LATEX), ('csv', CSV), ('markdown', MARKDOWN)])
def test_the_tables_are_those_worked_out_by_hand(form, expected):
    assert tables(CANDIDATES, form) == expected


def test_one_run_is_enough_for_tables_and_a_report_needs_two(candidates, tmp_path, capsys):
    only = f'A={candidates["A"][0]}'
    compare.main([only, '--format', 'csv'])
    printed = capsys.readouterr().out
    assert printed.startswith('table,candidate,name,runs,mean') and '\ntotal,A,mIoU,1,' in printed
    compare.main([only, '--format', 'csv', '--out', str(tmp_path / 'table.csv')])
    assert (tmp_path / 'table.csv').read_text() == printed
    with pytest.raises((UserError, SystemExit)):
        compare.main([only, '--out', str(tmp_path / 'report.md')])


def test_tables_of_runs_at_one_scale_and_at_several_say_so(tmp_path):
    single = write_run(tmp_path / 'a', miou=40.)
    multi = write_run(tmp_path / 'b', miou=42., command='python tools/test.py configs/a.py a.pth --tta')
    assert [c['name'] for c in read_candidates(dict(A=[single], B=[multi]))] == ['A, single scale', 'B, multi-scale']
    assert [c['name'] for c in read_candidates(dict(A=[single], B=[single]))] == ['A', 'B']
    with pytest.raises(UserError, match='multi-scale test'):
        read_candidates(dict(A=[single, multi]))


@pytest.mark.parametrize('read', [read_candidates, paper_rows])
def test_a_run_that_is_named_twice_is_no_second_seed(tmp_path, read):
    run = write_run(tmp_path / 'a', miou=40.)
    with pytest.raises(UserError, match='twice'):
        read(dict(A=[run, run]))


@pytest.mark.parametrize('read', [read_candidates, paper_rows, lambda candidates: collect(dict(candidates, B=['b']))])
def test_two_evaluations_of_one_training_are_no_two_seeds(tmp_path, read):
    trained = write_run(tmp_path / 'a', miou=40.)
    tested = write_run(tmp_path / 'best', miou=41., checkpoint='work_dirs/a/best_mIoU_iter_150.pth')
    with pytest.raises(UserError, match=rf'A names two results of seed 0, {trained} and {tested}'):
        read(dict(A=[trained, tested]))


@pytest.mark.parametrize('paper', [[], ['--paper']])
def test_a_table_of_a_run_that_is_not_over_says_so(tmp_path, capsys, paper):
    config = 'configs/upernet_inceptionnext_a_mini.py'
    over, running = (write_run(tmp_path / str(seed), 40., seed=seed, iteration=iteration, config=config)
                     for seed, iteration in enumerate((300, 150)))
    compare.main([f'A={over},{running}', '--format', 'latex', *paper])
    assert re.search(r'not evaluated at the same iteration \(.*: 300, .*: 150\)', capsys.readouterr().err)
    compare.main([f'A={over}', '--format', 'latex', *paper])
    assert not capsys.readouterr().err


def test_the_table_of_a_paper_has_cost_and_miou_at_one_scale_and_at_several(tmp_path, capsys):
    """Parameters and MACs as in docs/results/complexity.md; the paper's Table 5 counts the norms too."""
    names = ['upernet_inceptionnext_t_ade20k', 'upernet_convnext_t_ade20k']
    runs = [write_run(tmp_path / f'{name}{command[13:15]}', miou, config=f'configs/{name}.py', command=command)
            for name, mious in zip(names, ((45., 47.), (44., 46.)), strict=True)
            for miou, command in zip(mious, ('python tools/train.py', 'python tools/test.py a b --tta'), strict=True)]
    arguments = [f'A_1={runs[0]},{runs[1]}', f'B={runs[2]}', '--paper', '--format']
    compare.main([*arguments, 'markdown'])
    header = '|  | parameters (M) | MACs (G) at 512×2048 | mIoU (%), single scale | mIoU (%), multi-scale |'
    assert capsys.readouterr().out == header + '''
| :-- | --: | --: | --: | --: |
| A_1 | 56.4 | 933 | 45.00 | 47.00 |
| B | 60.2 | 938 | 44.00 | – |
'''
    compare.main([*arguments, 'latex'])
    assert 'A\\_1 & 56.4 & 933 & 45.00 & 47.00' in capsys.readouterr().out
    compare.main([*arguments, 'csv'])
    assert '512×2048,44.0,,,\n' in capsys.readouterr().out
