"""The console command: its commands are those of tools/, and configs have names in every folder."""
import re
import sys

from inceptionnext_seg import __version__, cli

RUNS = re.compile(r'from inceptionnext_seg\.cli\.(\w+) import main')


def run(monkeypatch, capsys, *arguments):
    """(exit code, what it printed, its errors)."""
    monkeypatch.setattr(sys, 'argv', ['/somewhere/bin/inceptionnext-seg', *arguments])
    try:
        cli.main()
        code = 0
    except SystemExit as stop:
        code = stop.code or 0
    return code, *capsys.readouterr()


def test_every_tool_of_the_package_is_a_command_and_the_script_runs_the_same_code(root):
    scripts = {path.stem: RUNS.findall(path.read_text()) for path in (root / 'tools').glob('[!_]*.py')}
    ours = {name for name, found in scripts.items() if found}
    assert {'train', 'test', 'predict', 'prepare_ade20k'} <= ours
    assert all(scripts[name] == [name] for name in ours)
    commands = {cli.module_name(name) for name in cli.COMMANDS}
    assert commands - {'list'} == ours
    modules = {path.stem for path in (root / 'inceptionnext_seg/cli').glob('[!_]*.py')}
    assert modules == commands
    assert {cli.module_name(name) for name in cli.OF_A_CHECKOUT} <= scripts.keys() - ours


def test_help_lists_every_command_and_version_is_the_packages(monkeypatch, capsys):
    for arguments in ((), ('--help', )):
        code, out, _ = run(monkeypatch, capsys, *arguments)
        assert code == 0
        assert all(re.search(rf'^  {name} ', out, re.M) for name in (*cli.COMMANDS, *cli.OF_A_CHECKOUT))
    assert run(monkeypatch, capsys, '--version')[1].strip() == __version__


def test_an_unknown_command_is_one_message_with_the_nearest(monkeypatch, capsys):
    code, _, err = run(monkeypatch, capsys, 'trian')
    assert code == 2
    assert "'trian'; expected: train" in err


def test_a_config_has_a_name_in_every_folder_and_the_result_says_the_command(monkeypatch, capsys, tmp_path):
    monkeypatch.chdir(tmp_path)
    code, out, _ = run(monkeypatch, capsys, 'list', '*_camvid')
    assert (code, out.split()) == (0, ['upernet_convnext_a_camvid', 'upernet_inceptionnext_a_camvid'])
    code, _, err = run(monkeypatch, capsys, 'complexity', 'upernet_inceptionnext_a_camvid', '--out', 'cost.md')
    assert code == 0, err
    assert 'Written by `inceptionnext-seg complexity upernet_inceptionnext_a_camvid --out cost.md`' in (
        tmp_path / 'cost.md').read_text()
    code, _, err = run(monkeypatch, capsys, 'train', 'upernet_inceptionnext_t_ade20k')
    assert code == 2
    assert 'data/ade/ADEChallengeData2016/images/training' in err     # the config was found, its data is not there


def test_help_of_a_command_names_the_command(monkeypatch, capsys):
    code, out, _ = run(monkeypatch, capsys, 'predict', '--help')
    assert code == 0
    assert out.startswith('usage: inceptionnext-seg predict ')


def test_no_help_names_a_script_that_a_wheel_does_not_have(monkeypatch, capsys):
    for command in cli.COMMANDS:
        code, out, _ = run(monkeypatch, capsys, command, '--help')
        assert code == 0 and 'tools/' not in out, command


def test_a_study_runs_in_a_checkout_and_elsewhere_says_where_it_is(monkeypatch, capsys, tmp_path):
    code, out, _ = run(monkeypatch, capsys, 'compare', '--help')
    assert code == 0
    assert out.startswith('usage: ') and '--html' in out
    monkeypatch.setattr(cli, 'CHECKOUT', tmp_path)
    code, _, err = run(monkeypatch, capsys, 'compare', '--help')
    assert code == 2
    assert 'no part of the installed package' in err and 'clone' in err
