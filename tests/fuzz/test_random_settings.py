"""Random values for random settings, and random names: a model that can be built, or a message, and nothing else."""
import copy
import functools
import math
from pathlib import Path

import hypothesis.strategies as st
import pytest
from mmseg.registry import MODELS

from inceptionnext_seg.engine.launch import explain_errors, load_config
from inceptionnext_seg.engine.settings import nodes, settings_of
from inceptionnext_seg.errors import UserError

from .running import fuzzed

CAMVID = Path(__file__).resolve().parents[2] / 'configs/upernet_inceptionnext_a_camvid.py'
VALUES = st.one_of(
    st.none(), st.booleans(), st.integers(-3, 70), st.sampled_from([0., 0.5, -1., 1e-3, math.nan, math.inf, 2**40]),
    st.sampled_from(['', 'abc', 'BN', 'GELU', 'atto', 'nano', 'IoUMetric', 'LN2d', 'None', '0', '../x', 'ä']),
    st.lists(st.integers(-1, 5), max_size=4), st.lists(st.integers(1, 99), min_size=2, max_size=2).map(tuple),
    st.just({}), st.builds(lambda kind: dict(type=kind), st.sampled_from(['BN', 'LN2d', 'Nothing', '', 5, None])))


@functools.cache
def paths():
    """Of every setting of a config."""
    return sorted(path for path, _ in nodes(settings_of(load_config(CAMVID))))


# Built models are small whatever is drawn: these decide how large.
def is_large(path, value):
    return isinstance(value, int | float) and value > 1000 and path.startswith('model.')


def outcome(options):
    """The error's message, or None where a config is loaded and its model built."""
    options = copy.deepcopy(options)
    try:
        cfg = load_config(CAMVID, options)
        if any(path.startswith('model') for path in options):
            with explain_errors():
                MODELS.build(cfg.model)
    except UserError as error:
        return str(error)
    return None


@fuzzed(short=40, share=0.06, data=st.data())
def test_any_value_of_any_setting_is_a_config_or_a_message(data):
    pytest.importorskip('inceptionnext_seg.engine.values')
    path = data.draw(st.sampled_from([path for path in paths() if not path.endswith('init_cfg')]))
    value = data.draw(VALUES)
    if not is_large(path, value):
        message = outcome({path: value})
        assert message is None or len(message) > 20


@fuzzed(short=15, share=0.02, data=st.data())
def test_a_name_that_no_setting_has_is_refused_by_its_name(data):
    known = paths()
    name = data.draw(st.sampled_from([path for path in known if '.' not in path]))
    place = data.draw(st.integers(0, len(name)))
    name = name[:place] + data.draw(st.sampled_from(['x', '_', 'Q'])) + name[place:]
    message = outcome({name: 1})
    assert message is not None and name in message
