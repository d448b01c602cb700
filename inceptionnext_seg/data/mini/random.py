"""Integer randomness and noise that are the same on every machine."""
import numpy as np


class Random:
    """Integers from the raw words of PCG64."""

    def __init__(self, seed):
        self.bits = np.random.PCG64(seed)

    def integer(self, low, high):
        """One integer, ``low <= n <= high``."""
        return low + self.bits.random_raw() % (high - low + 1)

    def integers(self, low, high, shape):
        """An int32 array of integers, ``low <= n <= high``."""
        words = self.bits.random_raw(int(np.prod(shape))) % np.uint64(high - low + 1)
        return words.astype(np.int32).reshape(shape) + np.int32(low)

    def chance(self, percent):
        return self.integer(0, 99) < percent

    def pick(self, options):
        return options[self.integer(0, len(options) - 1)]

    def colour(self, palette, spread=14):
        """A colour near one of the palette, lighter or darker: int32 (3,)."""
        scaled = np.array(self.pick(palette), np.int32) * self.integer(180, 300) >> 8
        return np.clip(scaled + self.integers(-spread, spread, 3), 6, 250)


def noise(random, height, width, cell, octaves=3):
    """Fractal value noise, int32 (height, width) of -128 to 127; its largest features are ``cell`` pixels wide."""
    total = np.zeros((height, width), np.int32)
    for octave in range(octaves):
        lattice = random.integers(0, 255, (height // cell + 2, width // cell + 2))
        total += interpolate(interpolate(lattice, height, cell).T, width, cell).T << (octaves - 1 - octave)
        cell = max(1, cell // 2)
    return total // (2**octaves - 1) - 128


def interpolate(lattice, length, cell):
    """Integer smooth interpolation of ``lattice`` (n, m), one knot every ``cell`` pixels -> (length, m)."""
    position = np.arange(length)
    index, weight = position // cell, (position % cell * 256 // cell)[:, None].astype(np.int32)
    weight = weight * weight * (768 - 2 * weight) >> 16
    return (lattice[index] * (256 - weight) + lattice[index + 1] * weight) >> 8
