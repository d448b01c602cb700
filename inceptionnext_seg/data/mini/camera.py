"""The picture and its camera: planes in millimetres, what is painted on them, and the photograph at the end."""
import numpy as np

from .classes import SKIES
from .random import noise


class Scene:
    """The picture, and the camera that looks along ``z`` from ``eye`` mm above the ground at ``x = position``."""

    def __init__(self, random, height, width):
        self.random, self.height, self.width = random, height, width
        self.image = np.zeros((height, width, 3), np.int32)
        self.labels = np.zeros((height, width), np.uint8)
        self.rows, self.cols = np.arange(height, dtype=np.int64)[:, None], np.arange(width, dtype=np.int64)[None]
        self.horizon = height * random.integer(34, 60) // 100
        self.middle = width * random.integer(30, 70) // 100
        self.focal = width * random.integer(70, 115) // 100
        self.eye = random.integer(1400, 3200)
        self.position, self.camera_along = 0, True
        self.zenith, self.haze_colour = (random.colour([colour]) for colour in random.pick(SKIES))
        self.clear = random.integer(60, 400) * 1000  # z at which everything has faded into the haze

    def haze_at(self, z):
        return np.minimum(z * 200 // self.clear, 200)

    def flat(self, top=0, bottom=None):
        """The rows from ``top`` to ``bottom`` as a region without perspective; coordinates are pixels."""
        bottom = self.height if bottom is None else bottom
        return Region(self.image[top:bottom], self.labels[top:bottom], self.cols, self.rows[top:bottom])

    def ground(self):
        """The rows below the horizon; ``y`` is z, the distance on the ground."""
        drop = 2 * (self.rows[self.horizon:] - self.horizon) + 1
        x = (2 * (self.cols - self.middle) + 1) * self.eye // drop + self.position
        z = 2 * self.focal * self.eye // drop
        return Region(self.image[self.horizon:], self.labels[self.horizon:], x, z,
                      haze=self.haze_at(z), haze_colour=self.haze_colour)

    def label_of_ground(self, x, z):
        row = self.horizon + self.focal * self.eye // z
        col = self.middle + self.focal * (x - self.position) // z
        return self.labels[np.clip(row, 0, self.height - 1), np.clip(col, 0, self.width - 1)]

    def upright(self, x, z, half_width, height):
        """A plane that faces the camera, standing on the ground at (x, z); ``x`` of the region is 0 at its middle."""
        foot = self.horizon + self.focal * self.eye // z
        centre = self.middle + self.focal * (x - self.position) // z
        pixel = max(1, z // self.focal)
        left, right = centre - half_width // pixel - 1, centre + half_width // pixel + 2
        top = foot - height // pixel - 1
        rows = slice(max(0, min(top, self.height)), max(0, min(foot + 1, self.height)))
        cols = slice(max(0, min(left, self.width)), max(0, min(right, self.width)))
        return Region(self.image[rows, cols], self.labels[rows, cols],
                      (self.cols[:, cols] - centre) * z // self.focal, (foot - self.rows[rows]) * z // self.focal,
                      pixel, self.haze_at(z), self.haze_colour)

    def side(self, x):
        """The plane along the street at ``x``; ``x`` of the region is z, the distance."""
        offset = x - self.position
        cols = slice(self.middle + 1, self.width) if offset > 0 else slice(0, self.middle)
        distance = np.abs(self.cols[:, cols] - self.middle)
        z = self.focal * abs(offset) // distance
        y = self.eye - (self.rows - self.horizon) * abs(offset) // distance
        return Region(self.image[:, cols], self.labels[:, cols], z, y, 0, self.haze_at(z), self.haze_colour)

    def shadow(self, x, z, half_width):
        """Darken the ground below a thing that stands at (x, z)."""
        foot = self.horizon + self.focal * self.eye // z
        centre = self.middle + self.focal * (x - self.position + half_width // 3) // z
        wide = max(1, half_width * self.focal // z)
        tall = max(1, wide * self.eye // z)
        rows = slice(max(0, foot - tall), max(0, foot + tall + 1))
        cols = slice(max(0, centre - wide), max(0, centre + wide + 1))
        dark = ellipse(self.cols[:, cols], self.rows[rows], centre, foot, wide, tall) < 1000
        image = self.image[rows, cols]
        np.copyto(image, image * 9 >> 4, where=dark[..., None])


class Region:
    """A box of the picture: views of its pixels (h, w, 3) and labels (h, w), and coordinates of its pixels in mm.

    ``x`` and ``y`` broadcast to (h, w): along the plane that is drawn, and above the ground. ``pixel`` is the size of
    a pixel in mm, ``haze`` how far (of 256) colours fade into ``haze_colour``.
    """

    def __init__(self, image, labels, x, y, pixel=0, haze=0, haze_colour=0):
        self.image, self.labels, self.x, self.y, self.pixel = image, labels, x, y, pixel
        self.haze, self.haze_colour = haze, haze_colour
        self.shape = labels.shape

    def fill(self, mask, colour, label=None, light=256):
        """Paint where ``mask``; ``light`` (of 256, scalar or (h, w)) shades the colour. No label: keep the labels."""
        colour = np.asarray(colour, np.int32) * np.asarray(light, np.int32)[..., None] >> 8
        colour = colour + ((self.haze_colour - colour) * np.asarray(self.haze, np.int32)[..., None] >> 8)
        np.copyto(self.image, colour, where=mask[..., None])
        if label is not None:
            np.copyto(self.labels, np.uint8(label), where=mask)


def ellipse(x, y, centre_x, centre_y, radius_x, radius_y):
    """1000 on the outline of the ellipse, 0 at its centre: square of the distance, in thousandths."""
    return (x - centre_x) ** 2 * 1000 // radius_x**2 + (y - centre_y) ** 2 * 1000 // radius_y**2


def capsule(x, y, start, end, radius):
    """Mask of the points within ``radius`` of the line from ``start`` to ``end``."""
    dx, dy = end[0] - start[0], end[1] - start[1]
    length = max(1, dx * dx + dy * dy)
    along = np.clip((x - start[0]) * dx + (y - start[1]) * dy, 0, length)
    return (x - start[0] - along * dx // length) ** 2 + (y - start[1] - along * dy // length) ** 2 <= radius * radius


def between(values, low, high):
    return (values >= low) & (values < high)


def photograph(scene):
    """Light, exposure, colour cast, lens blur and sensor noise -> uint8 (H, W, 3)."""
    random, image = scene.random, scene.image
    across, down = random.integer(-70, 70), random.integer(-40, 40)
    light = 256 + across * (2 * scene.cols - scene.width) // scene.width
    light = light + down * (2 * scene.rows - scene.height) // scene.height
    if random.chance(50):  # shade of clouds or of things outside the picture
        patches = noise(random, scene.height, scene.width, max(8, scene.width // 3), 3)
        light = light - (np.clip(patches + random.integer(0, 50), 0, 127) * random.integer(60, 160) >> 7)
    cast = np.array([random.integer(-26, 26) for _ in range(3)]) + random.integer(190, 340)
    image = (image * light[..., None] >> 8) * cast.astype(np.int32) >> 8
    for _ in range(random.pick((0, 1, 1, 2))):
        image = blur(image)
    strength = random.integer(2, 16)
    grain = random.integers(-strength, strength, (scene.height, scene.width, 3))
    return np.clip(image + grain + random.integer(-6, 14), 0, 255).astype(np.uint8)


def blur(image):
    """3x3 binomial blur of (H, W, 3) integers."""
    for axis in (0, 1):
        padded = np.pad(image, [(1, 1) if axis == a else (0, 0) for a in range(3)], mode='edge')
        before, after = (padded[:-2], padded[2:]) if axis == 0 else (padded[:, :-2], padded[:, 2:])
        image = (before + 2 * image + after + 2) >> 2
    return image
