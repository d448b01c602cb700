"""CamVid, leave one sequence out: lists of images, arms, and the report of runs that are made up."""
import json

import numpy as np
import pytest
from mmengine.config import Config
from study_runs import changed, pilot_runs, unread

from inceptionnext_seg.errors import UserError
from studies import camvid_sequences
from studies.sweep import Run, parse_options
from studies.trainings import ROOT, settings_digest


def camvid(folder):
    for split, names in (('training', ('0001TP_1', '0006R0_1', '0016E5_1')), ('validation', ('0016E5_2', ))):
        for kind, suffix in (('images', 'jpg'), ('annotations', 'png')):
            (folder / kind / split).mkdir(parents=True)
            for name in names:
                (folder / kind / split / f'{name}.{suffix}').touch()
    (folder / 'images/test').mkdir()
    (folder / 'images/test/Seq05VD_1.jpg').touch()     # not read
    return folder


def test_each_sequence_is_left_out_of_training_and_is_all_of_validation(tmp_path):
    found = camvid_sequences.splits(camvid(tmp_path / 'data'))
    camvid_sequences.write_lists(found, tmp_path)
    lists = {path.stem: path.read_text().split() for path in tmp_path.glob('*.txt')}
    assert lists['0016E5_training'] == ['training/0001TP_1', 'training/0006R0_1']
    assert lists['0016E5_validation'] == ['training/0016E5_1']      # every fifth
    assert lists['0006R0_training'] == ['training/0001TP_1', 'training/0016E5_1', 'validation/0016E5_2']
    for sequence in camvid_sequences.SEQUENCES:
        both = lists[f'{sequence}_training'] + lists[f'{sequence}_validation']
        assert len(both) == len(set(both)) == 4 - (sequence == '0016E5')
    options = parse_options(camvid_sequences.options_of('0006R0', tmp_path / 'data', tmp_path))
    assert options['val_dataloader.dataset.ann_file'] == str(tmp_path / '0006R0_validation.txt')


def test_about_as_many_frames_of_each_sequence_are_validated_spread_over_it():
    found = {sequence: [f'{sequence}_{i:05}' for i in range(count)] for sequence, count in (
        ('0001TP', 62), ('0006R0', 101), ('0016E5', 305))}
    chosen = camvid_sequences.validated(found)
    assert {sequence: len(names) for sequence, names in chosen.items()} == {'0001TP': 62, '0006R0': 51, '0016E5': 61}
    assert chosen['0016E5'][:2] == ['0016E5_00000', '0016E5_00005'] and chosen['0016E5'][-1] == '0016E5_00300'


def test_a_folder_that_is_not_camvid_is_one_message(tmp_path):
    with pytest.raises(UserError, match='no image of 0001TP, 0006R0, 0016E5'):
        camvid_sequences.splits(tmp_path)
    data = camvid(tmp_path / 'data')
    (data / 'annotations/validation/0016E5_2.png').unlink()
    with pytest.raises(UserError, match='0016E5_2'):
        camvid_sequences.splits(data)


def test_the_four_arms_of_camvid_are_both_families_with_both_norms():
    kinds = {arm: Config.fromfile(ROOT / camvid_sequences.config_of(arm)).model.backbone
             for arm in camvid_sequences.ARMS}
    assert {(kind.type, kind.norm_cfg.type if kind.get('norm_cfg') else 'BN', kind.out_norm_cfg.type)
            for kind in kinds.values()} == {(family, norm, norm) for family in ('ConvNeXt', 'InceptionNeXt')
                                            for norm in ('BN', 'LN2d')}
    for arm in camvid_sequences.ARMS:
        assert changed(camvid_sequences.config_of(arm), camvid_sequences.config_of('inceptionnext_bn')) <= {
            'model.backbone.type', 'model.backbone.norm_cfg', 'model.backbone.out_norm_cfg'}


def test_sequences_are_the_clusters(tmp_path):
    generator, runs = np.random.default_rng(0), []
    norm = dict(zip(camvid_sequences.SEQUENCES, (-2., -3., -4.), strict=True))
    for sequence, effect in norm.items():
        for seed in range(4):
            for arm in camvid_sequences.ARMS:
                miou = 30 + effect * arm.endswith('bn') + generator.normal(0, 1e-6)
                runs.append(dict(pilot_runs()[0], arm=arm, left_out=sequence, seed=seed, curve=[
                    dict(iteration=i, cross_entropy=-miou, mIoU=miou) for i in (200, 300, 400)]))
    whole, inside = camvid_sequences.effects(runs, 'mIoU')['BatchNorm − LayerNorm']
    # By hand: mean −3, standard deviation 1, t of 2 degrees of freedom 4.3027.
    assert (whole.difference, whole.low, whole.high) == pytest.approx(
        (-3, -3 - 4.3027 / 3**.5, -3 + 4.3027 / 3**.5), abs=1e-3)
    assert inside['0006R0'].difference == pytest.approx(-3, abs=1e-4)
    out = tmp_path / 'camvid.json'
    out.write_text(json.dumps(dict(
        seeds=4, images=dict.fromkeys(norm, 5), validated=dict.fromkeys(norm, 2), runs=runs, failed=[],
        environment=dict(command='python -m x'))))
    assert len(camvid_sequences.write_report(out)) == 3
    assert 'Preliminary' not in out.with_suffix('.md').read_text()
    content = json.loads(out.read_text())
    out.write_text(json.dumps(dict(content, runs=runs[1:], failed=[['convnext_bn', '0001TP', 0]])))
    assert len(camvid_sequences.write_report(out)) == 2
    text = out.with_suffix('.md').read_text()
    assert 'Runs failed: ConvNeXt-A, BatchNorm, without 0001TP, seed 0.' in text
    assert 'over the three sequences' not in text and 'Preliminary' not in text
    assert camvid_sequences.effects(runs[:20], 'mIoU') is None


def test_a_failed_run_of_camvid_stays_failed_until_it_is_done(tmp_path, monkeypatch):
    args = camvid_sequences.parse_args(['camvid', '--out', str(tmp_path / 'camvid.json'), '--seeds', '1'])
    arms = unread([f'{arm}_{sequence}' for sequence in camvid_sequences.SEQUENCES for arm in camvid_sequences.ARMS],
                  tmp_path)
    failed = [Run(arms[5], 0)]
    monkeypatch.setattr(camvid_sequences, 'record', lambda run, **names: None if run in failed else
                        dict(names, seed=run.seed))
    def collect(failed):
        return camvid_sequences.collect(args, {}, arms, failed, lambda candidate, seed: None)

    for now in (failed, []):
        content = collect(now)
        assert content['failed'] == [('inceptionnext_bn', '0006R0', 0)] and len(content['runs']) == 11
        assert 'features' in content['environment']
        args.out.write_text(json.dumps(content))
    failed.clear()
    content = collect([])
    assert content['failed'] == [] and len(content['runs']) == 12


def test_runs_of_the_result_file_are_not_trained_again_where_their_folders_are_gone(tmp_path, monkeypatch, capsys):
    data = tmp_path / 'camvid'
    found = {sequence: [f'training/{sequence}_{i}' for i in range(2)] for sequence in camvid_sequences.SEQUENCES}
    monkeypatch.setattr(camvid_sequences, 'splits', lambda data: found)
    command = [str(data), '--out', str(tmp_path / 'camvid.json'), '--work-dir', str(tmp_path / 'runs'), '--seeds', '2',
               '--jobs', '1']
    config = ROOT / camvid_sequences.config_of('inceptionnext_ln')
    known = dict(arm='inceptionnext_ln', left_out='0006R0', seed=1, iterations=450,
                 settings=settings_digest(str(config)), curve=[])
    (tmp_path / 'camvid.json').write_text(json.dumps(dict(runs=[known], failed=[])))
    left = []

    def train(candidates_of, seeds, settled, recorded):
        left.extend((candidate.name, seed) for seed in seeds for candidate in candidates_of(seed)
                    if not recorded(candidate, seed))
        settled([])
        return []

    monkeypatch.setattr(camvid_sequences, 'train', train)
    monkeypatch.setattr(camvid_sequences, 'write_report', lambda out: [out])
    camvid_sequences.main(command)
    assert len(left) == 23 and ('inceptionnext_ln, without 0006R0', 1) not in left
    assert ('inceptionnext_ln, without 0006R0', 0) in left and ('inceptionnext_ln, without 0001TP', 1) in left
    content = json.loads((tmp_path / 'camvid.json').read_text())
    assert content['runs'] == [known]
    # Other images: no run of the file is one of theirs.
    found['0001TP'].pop()
    with pytest.raises(SystemExit):
        camvid_sequences.main(command)
    assert "{'0001TP': 1" in capsys.readouterr().err
    assert json.loads((tmp_path / 'camvid.json').read_text()) == content
