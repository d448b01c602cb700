import numpy as np

from inceptionnext_seg.data.mini import CLASSES_USED
from inceptionnext_seg.data.mini.camera import Scene
from inceptionnext_seg.data.mini.objects import car, draw_far_to_near, person, streetlight
from inceptionnext_seg.data.mini.random import Random


def test_things_stand_where_a_pinhole_camera_puts_them():
    feet = []
    for z in (4000, 16000):
        scene = Scene(Random(0), 400, 400)
        scene.horizon, scene.middle, scene.focal, scene.eye = 150, 200, 400, 1600
        streetlight(scene, 0, z)
        feet.append(np.flatnonzero((scene.labels == CLASSES_USED['streetlight']).any(1)).max())
    assert feet == [150 + 160, 150 + 40]  # horizon + focal * eye / z


def test_a_near_thing_hides_a_far_one():
    scene = Scene(Random(0), 100, 100)
    scene.horizon, scene.middle, scene.eye = 40, 50, 1000
    draw_far_to_near(scene, [(0, 6000, car), (0, 60000, person)])
    assert set(np.unique(scene.labels)) == {0, CLASSES_USED['car']}
