"""A run that was killed and resumed against the run that was not: the same bits."""
import shutil
import zipfile

import pytest
import torch
from engine.small_run import Killed, KillHook, Noisy, build, differing, state_of
from mmengine.hooks import Hook

from inceptionnext_seg.data.draws import Draw, SeededDataset
from inceptionnext_seg.engine.resuming import find_latest, forget_before_restarts, read_pointer
from inceptionnext_seg.engine.run_state import random_state
from inceptionnext_seg.errors import UserError


def train_with_kills(work_dir, kills, **settings):
    """Train to the end, killed at each ``(event, number)`` of ``kills`` and resumed after it."""
    for i, (event, number) in enumerate(kills):
        hook = dict(type=KillHook, event=event, number=number)
        with pytest.raises(Killed):
            build(work_dir, resume=i > 0, hooks=[hook], **settings).train()
    build(work_dir, resume=True, **settings).train()


class Rising(Hook):
    """Each validation is better than the one before it."""

    priority = 'VERY_HIGH'

    def __init__(self, score=0):
        self.score = score

    def after_val_epoch(self, runner, metrics=None):
        self.score += 1
        metrics.update(accuracy=self.score, recall=self.score)


@pytest.fixture(scope='module')
def undisturbed(tmp_path_factory):
    folder = tmp_path_factory.mktemp('undisturbed')
    build(folder).train()
    return state_of(folder)


@pytest.mark.parametrize('workers', [0, 2])
def test_a_killed_and_resumed_run_is_the_undisturbed_one_bit_for_bit(tmp_path, undisturbed, workers):
    train_with_kills(tmp_path, [
        ('after_train_iter', 2),    # before the first checkpoint
        ('after_train_iter', 5),    # after iter_3
        ('before_val_iter', 2),     # within the validation at 4
        ('before_save_checkpoint', 2), ('after_train_iter', 1), ('after_val_epoch', 2)], workers=workers)
    assert differing(state_of(tmp_path), undisturbed) == []


def test_a_checkpoint_that_is_saved_while_a_validation_is_made_up_for_has_the_random_states_of_training(
        tmp_path, undisturbed):
    train_with_kills(tmp_path, [('before_val_iter', 1), ('after_val', 1)], interval=4)
    assert differing(state_of(tmp_path), undisturbed) == []


def test_the_number_of_workers_does_not_matter_and_the_seed_does(tmp_path, undisturbed):
    build(tmp_path / 'one', workers=1).train()
    assert differing(state_of(tmp_path / 'one'), undisturbed) == []
    build(tmp_path / 'another', seed=1).train()
    changed = differing(state_of(tmp_path / 'another'), undisturbed)
    assert 'state_dict.network.0.weight' in changed and 'state_dict.network.5.weight' in changed


@pytest.mark.parametrize('settings', [
    dict(accumulate=5), dict(micro_batch_size=2), dict(sampler='DefaultSampler')], ids=str)
def test_gradients_in_flight_and_other_samplers_are_resumed_too(tmp_path, monkeypatch, settings):
    monkeypatch.setattr('mmengine.runner.loops.time.sleep', lambda seconds: None)  # at the end of an epoch
    build(tmp_path / 'whole', **settings).train()
    train_with_kills(tmp_path / 'parts', [('after_train_iter', 5), ('after_train_iter', 4)], **settings)
    assert differing(state_of(tmp_path / 'parts'), state_of(tmp_path / 'whole')) == []


# Samples


def drawn(workers, seed=0, processes=1):
    """The images of 26 draws, by number."""
    dataset = SeededDataset(dict(type=Noisy), seed)
    order = [Draw(number % 13, number) for number in range(26)]
    loader = torch.utils.data.DataLoader(dataset, batch_size=2, num_workers=workers, sampler=order, collate_fn=list,
                                         generator=torch.Generator())
    return torch.stack([sample['inputs'] for batch in loader for sample in batch])


def test_a_sample_depends_on_seed_draw_and_index_and_leaves_the_generators_alone():
    before = random_state()
    images = drawn(0)
    assert str(random_state()) == str(before)
    assert torch.equal(torch.get_rng_state(), before['torch'])
    assert torch.equal(images, drawn(3))
    assert len({tuple(image.flatten().tolist()) for image in torch.cat([images, drawn(0, seed=1)])}) == 52


# Which checkpoint


def run_folder(tmp_path, **settings):
    build(tmp_path, max_iters=9, keep=3, interval=3, **settings).train()
    return tmp_path


def test_a_damaged_checkpoint_is_reported_and_the_one_before_it_is_used(tmp_path, capsys):
    folder = run_folder(tmp_path)
    newest = folder / (folder / 'last_checkpoint').read_text()
    assert newest.name == 'iter_9.pth'
    whole = newest.read_bytes()
    before = max((path for path in folder.glob('iter_*.pth') if path != newest), key=lambda path: path.stat().st_mtime)
    with zipfile.ZipFile(newest) as archive:
        place = max(archive.infolist(), key=lambda record: record.file_size).header_offset + 500
    for damaged in (whole[:-2000], b'', whole[:place] + bytes([whole[place] ^ 1]) + whole[place + 1:]):
        newest.write_bytes(damaged)
        path, checkpoint = find_latest(folder)
        assert path == before
        assert checkpoint['meta']['iter'] == int(before.stem.partition('_')[2])
        said = capsys.readouterr().out
        assert 'iter_9.pth' in said and before.name in said
    for path in folder.glob('iter_*.pth'):
        path.write_bytes(b'')
    with pytest.raises(UserError, match=r'iter_9\.pth.*0 bytes'):
        find_latest(folder)


@pytest.mark.parametrize('pointer', [b'', b'\xff\x00', b'/nowhere/iter_9.pth', b'iter_9.pth\n'])
def test_last_checkpoint_may_be_empty_binary_or_of_another_place(tmp_path, pointer):
    folder = run_folder(tmp_path)
    (folder / 'last_checkpoint').write_bytes(pointer)
    assert find_latest(folder)[0] == folder / 'iter_9.pth'


def test_a_work_dir_that_was_moved_is_resumed_and_its_best_checkpoint_is_replaced(tmp_path, undisturbed):
    build(tmp_path / 'old', max_iters=6).train()
    shutil.move(tmp_path / 'old', tmp_path / 'new')
    assert read_pointer(tmp_path / 'new') == tmp_path / 'new/iter_6.pth'
    build(tmp_path / 'new', resume=True).train()
    assert differing(state_of(tmp_path / 'new'), undisturbed) == []
    assert len(list((tmp_path / 'new').glob('best_*.pth'))) == 1
    assert not (tmp_path / 'old').exists()


def test_a_run_from_the_start_does_not_take_the_checkpoints_of_another(tmp_path):
    folder = run_folder(tmp_path)
    with pytest.raises(Killed):
        build(folder, hooks=[dict(type=KillHook, event='after_train_iter', number=1)]).train()
    assert find_latest(folder) is None
    assert (folder / 'iter_9.pth').is_file()


def test_a_run_that_torchrun_started_again_resumes_of_itself(tmp_path, monkeypatch, undisturbed):
    with pytest.raises(Killed):
        build(tmp_path, hooks=[dict(type=KillHook, event='after_train_iter', number=8)]).train()
    monkeypatch.setenv('TORCHELASTIC_RESTART_COUNT', '1')
    runner = build(tmp_path, seed=None)  # drawn anew by each start where none is given
    runner.train()
    assert runner.seed == 0
    assert differing(state_of(tmp_path), undisturbed) == []


def test_a_new_run_that_torchrun_started_again_does_not_resume_an_older_one(tmp_path, monkeypatch):
    build(tmp_path, max_iters=4).train()
    (tmp_path / 'in_the_tool').mkdir()
    shutil.copy(tmp_path / 'last_checkpoint', tmp_path / 'in_the_tool')
    for name, value in (('USE_AGENT_STORE', 'True'), ('MAX_RESTARTS', '3'), ('RESTART_COUNT', '1')):
        monkeypatch.setenv(f'TORCHELASTIC_{name}', value)
    forget_before_restarts(tmp_path / 'in_the_tool')
    assert read_pointer(tmp_path / 'in_the_tool') is not None
    monkeypatch.setenv('TORCHELASTIC_RESTART_COUNT', '0')
    forget_before_restarts(tmp_path / 'in_the_tool')
    assert read_pointer(tmp_path / 'in_the_tool') is None
    with pytest.raises(Killed):
        build(tmp_path, max_iters=2, hooks=[dict(type=KillHook, event='before_run', number=1)]).train()
    monkeypatch.setenv('TORCHELASTIC_RESTART_COUNT', '1')
    build(tmp_path, max_iters=2).train()
    assert (tmp_path / 'last_checkpoint').read_text() == 'iter_2.pth'


def test_early_stopping_counts_on(tmp_path):
    """The accuracy that was the best stays so, and patience is of all validations."""
    never = dict(patience=3, max_iters=40)
    build(tmp_path / 'whole', **never).train()
    whole = max(int(path.stem[5:]) for path in (tmp_path / 'whole').glob('iter_*.pth'))
    for resume, event in ((False, 'after_val_epoch'), (True, 'after_val_epoch'), (True, 'after_val_epoch')):
        hook = dict(type=KillHook, event=event, number=2)
        with pytest.raises(Killed):
            build(tmp_path / 'parts', resume=resume, hooks=[hook], **never).train()
    build(tmp_path / 'parts', resume=True, **never).train()
    assert max(int(path.stem[5:]) for path in (tmp_path / 'parts').glob('iter_*.pth')) == whole < 40


def test_a_copy_of_a_work_dir_goes_on_without_touching_the_best_checkpoint_of_the_original(tmp_path):
    build(tmp_path / 'run', max_iters=6, hooks=[Rising()]).train()
    shutil.copytree(tmp_path / 'run', tmp_path / 'copy')
    build(tmp_path / 'copy', resume=True, hooks=[Rising(10)]).train()
    assert [path.name for path in (tmp_path / 'run').glob('best_*')] == ['best_accuracy_iter_6.pth']
    assert [path.name for path in (tmp_path / 'copy').glob('best_*')] == ['best_accuracy_iter_12.pth']


@pytest.mark.parametrize('named', ['folder', 'best_accuracy_iter_1.pth', 'run/best_of_all.pth'])
@pytest.mark.parametrize('monitored', ['accuracy', ['accuracy', 'recall']], ids=str)
def test_what_a_checkpoint_names_is_neither_deleted_nor_run(tmp_path, monitored, named):
    settings = dict(keep=1, save_best=monitored)
    build(tmp_path / 'run', max_iters=4, hooks=[Rising()], **settings).train()
    (tmp_path / 'folder').mkdir()
    precious = [tmp_path / name for name in (
        'folder/photo', 'iter_1.pth', 'best_accuracy_iter_1.pth', 'run/best_of_all.pth')]
    for path in precious:
        path.write_text('precious')
    (tmp_path / 'run/iter_').mkdir()  # a number of a checkpoint could lead through it
    checkpoint = torch.load(tmp_path / 'run/iter_4.pth', weights_only=False)
    checkpoint['meta']['config'] = f'open({str(tmp_path / "ran")!r}, "w")'
    info = checkpoint['message_hub']['runtime_info']
    info['keep_ckpt_ids'] = ['/../../iter_1', True, -1, None, 4]
    info.update({name: str(tmp_path / named) for name in info if name.startswith('best_ckpt')})
    torch.save(checkpoint, tmp_path / 'run/iter_4.pth')
    build(tmp_path / 'run', max_iters=6, resume=True, hooks=[Rising(10)], **settings).train()
    assert all(path.read_text() == 'precious' for path in precious)
    assert not (tmp_path / 'ran').exists()
    assert [path.name for path in (tmp_path / 'run').glob('iter_*.pth')] == ['iter_6.pth']


@pytest.mark.parametrize(('settings', 'more'), [
    (dict(patience=1, min_delta=5), dict(patience=9)), (dict(stopping_threshold=1.5), dict(stopping_threshold=99))],
    ids=str)
def test_a_run_that_early_stopping_has_ended_stays_so_unless_its_limit_is_raised(tmp_path, settings, more):
    """At iteration 8, whose score is the best: a checkpoint is saved after it."""
    def train(score=0, **settings):
        hooks = [Rising(score), dict(type='EarlyStoppingHook', monitor='accuracy', rule='greater', **settings)]
        runner = build(tmp_path, hooks=hooks, resume=score > 0)
        runner.train()
        return runner.iter

    assert train(**settings) == 8
    assert train(2, **settings) == 8
    assert train(2, **{**settings, **more}) == 12


def test_a_run_that_another_hook_has_ended_stays_so(tmp_path):
    class Ends(Hook):
        def after_val_epoch(self, runner, metrics=None):
            runner.train_loop.stop_training = True

    build(tmp_path, hooks=[Rising(), Ends()]).train()
    resumed = build(tmp_path, resume=True)
    resumed.train()
    assert resumed.iter == 4


class Decaying(Hook):
    """Changes the optimizer's weight decay as it goes."""

    def after_train_iter(self, runner, batch_idx, data_batch=None, outputs=None):
        for group in runner.optim_wrapper.optimizer.param_groups:
            group['weight_decay'] *= 0.9


@pytest.mark.parametrize(('name', 'value', 'trained'), [
    ('lr', 1e-5, r'0\.01'), ('weight_decay', 0.3, r'0\.01'), ('betas', (0.8, 0.99), r'\[0\.9, 0\.999\]')])
def test_another_rate_or_weight_decay_than_the_run_was_trained_with_is_refused(short_run, name, value, trained):
    runner = build(short_run, resume=True)
    runner.optim_wrapper['optimizer'][name] = value
    with pytest.raises(UserError, match=rf'optimizer\.{name} is .*trained with {trained} .*load_from'):
        runner.train()


def test_another_precision_than_the_run_was_trained_in_is_refused(short_run):
    runner = build(short_run, resume=True)
    runner.optim_wrapper['type'] = 'BFloat16OptimWrapper'
    with pytest.raises(UserError, match=r'trained in float32.*go on in bfloat16.*without --amp'):
        runner.train()


def test_a_checkpoint_without_the_settings_of_its_optimizer_is_compared_by_what_that_says(short_run, tmp_path):
    checkpoint = torch.load(short_run / 'iter_4.pth', weights_only=False)
    checkpoint['run_state'].pop('hyperparameters')
    torch.save(checkpoint, tmp_path / 'old.pth')
    runner = build(tmp_path, resume=True, load_from=str(tmp_path / 'old.pth'))
    runner.optim_wrapper['optimizer'] = dict(type='AdamW', lr=0.02)  # the schedule has lowered it to 0.006
    with pytest.raises(UserError, match=r'optimizer\.lr is 0\.02.*trained with 0\.01 '):
        runner.train()


@pytest.mark.parametrize(('state', 'told'), [
    ([1], 'is no dict'), (dict(format=2), 'has the format 2; expected: 1'), (dict(random=[]), 'random states'),
    (dict(processes=2), 'random states'), (dict(gradients=[1, 2]), 'gradients'), (dict(hooks=[['EMAHook']]), 'hooks')],
    ids=str)
def test_a_run_state_that_is_none_is_one_message(short_run, tmp_path, state, told):
    checkpoint = torch.load(short_run / 'iter_4.pth', weights_only=False)
    checkpoint['run_state'] = {**checkpoint['run_state'], **state} if isinstance(state, dict) else state
    torch.save(checkpoint, tmp_path / 'iter_4.pth')
    with pytest.raises(UserError, match=rf'run_state of the checkpoint .*{told}.*Next: an earlier'):
        build(tmp_path, resume=True, load_from=str(tmp_path / 'iter_4.pth')).train()


def test_a_checkpoint_whose_meta_is_no_dict_is_passed_over(tmp_path):
    for number, meta in ((1, dict(seed=3)), (2, [])):
        torch.save(dict(optimizer={}, meta=meta), tmp_path / f'iter_{number}.pth')
    (tmp_path / 'last_checkpoint').write_text('iter_2.pth')
    assert find_latest(tmp_path)[0].name == 'iter_1.pth'


def test_the_batch_size_that_a_rate_follows_is_part_of_it(short_run):
    runner = build(short_run, resume=True, auto_scale_lr=dict(enable=True, base_batch_size=2))
    with pytest.raises(UserError, match=r'optimizer\.lr is 0\.02.*batch size.*trained with 0\.01 '):
        runner.train()


def test_what_hooks_have_changed_in_an_optimizer_is_no_other_setting(short_run):
    runner = build(short_run, max_iters=5, resume=True, hooks=[Decaying()])
    runner.train()
    assert runner.iter == 5


@pytest.fixture(scope='module')
def short_run(tmp_path_factory):
    folder = tmp_path_factory.mktemp('short')
    build(folder, max_iters=4, hooks=[Decaying()]).train()
    return folder
