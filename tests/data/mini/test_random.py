import numpy as np

from inceptionnext_seg.data.mini.random import Random, interpolate, noise


def test_random_words_are_those_of_numpys_own_test_set():
    # numpy/random/tests/data/pcg64-testset-1.csv, seed 0xdeadbeaf.
    assert Random(0xDEADBEAF).integer(0, 2**64 - 1) == 0x60D24054E17A0698
    assert Random(0xDEADBEAF).integers(0, 99, 1).tolist() == [0x60D24054E17A0698 % 100]


def test_noise_interpolates_its_lattice_by_the_hand_worked_smoothstep():
    lattice = np.array([[0], [200]], np.int32)
    # At a quarter, a half and three quarters of a cell the smoothstep 3t^2 - 2t^3 is 5/32, 1/2 and 27/32.
    assert interpolate(lattice, 4, 4).ravel().tolist() == [0, 31, 100, 168]
    values = noise(Random(0), 50, 70, 16)
    assert values.shape == (50, 70) and -128 <= values.min() < 0 < values.max() <= 127
