"""The hook in a run: the model that it accelerates is the one that the seed gives."""
import json

import pytest


@pytest.mark.slow
def test_one_seed_is_one_run_with_and_without_acceleration(run_command, root, tiny_options, tmp_path):
    """Random weights are drawn in the order of memory, which acceleration changes: it has to come after them."""
    losses = []
    for enabled in (True, False):
        done = run_command(
            'tools/train.py', root / 'configs/upernet_inceptionnext_a_camvid.py', '--seed', 0, '--work-dir', tmp_path,
            '--cfg-options', *tiny_options, f'default_hooks.accelerate.enabled={enabled}')
        assert done.returncode == 0, done.stderr
        scalars = max(tmp_path.glob('*/vis_data/scalars.json'))
        losses.append([line['loss'] for line in map(json.loads, scalars.read_text().splitlines()) if 'loss' in line])
    assert losses[0][0] == pytest.approx(losses[1][0], rel=1e-5)
