"""Mini-ADE20K: procedurally drawn street, landscape and room scenes in ADE20K's layout and class numbering.

The set needs no download, and every pixel is the same on every machine: the drawing is integer arithmetic only (no
``sin``, no rasterizer of a drawing library), and the randomness is PCG64's raw 64-bit words, whose stream NumPy
guarantees (NEP 19), while the streams of ``Generator`` methods may change from one NumPy version to the next.

The scenes are made so that colour alone does not tell the class: road, sidewalk, facades, walls, ceilings and
mountains share their greys, trees and grass their greens, and water mirrors the sky. A perspective camera makes a near
person a hundred times larger in area than a far one. World coordinates are millimetres: ``x`` to the right of the
street's middle, ``z`` ahead of the camera, heights above the ground.
"""
import hashlib
import itertools
import json
import shutil
import tempfile
from pathlib import Path

import numpy as np
from PIL import Image
from tqdm import tqdm

from ..errors import UserError

# Names and numbers (1 to 150, in the order of objectInfo150.csv) are those of mmseg's ADE20KDataset; 0 is unlabelled.
CLASSES_USED = {
    'wall': 1, 'building': 2, 'sky': 3, 'floor': 4, 'tree': 5, 'ceiling': 6, 'road': 7, 'windowpane': 9, 'grass': 10,
    'sidewalk': 12, 'person': 13, 'mountain': 17, 'car': 21, 'water': 22, 'painting': 23, 'fence': 33,
    'signboard': 44, 'streetlight': 88,
}
UNLABELLED = 0
(WALL, BUILDING, SKY, FLOOR, TREE, CEILING, ROAD, WINDOW, GRASS,
 SIDEWALK, PERSON, MOUNTAIN, CAR, WATER, PAINTING, FENCE,
 SIGNBOARD, STREETLIGHT) = CLASSES_USED.values()

DEFAULT_SIZE = (160, 224)
# Raise it with every change that alters a pixel or the layout: a data set on disk is of one version.
FORMAT_VERSION = 1

# Classes draw from shared palettes, so that a colour is a hint and not an answer.
STONE = ((128, 128, 128), (152, 147, 140), (96, 98, 103), (178, 173, 164), (112, 106, 100), (140, 138, 146))
CLAY = ((150, 92, 72), (172, 128, 92), (122, 88, 64), (190, 162, 124), (140, 110, 90))
FOLIAGE = ((70, 105, 45), (92, 124, 55), (52, 86, 50), (116, 128, 60), (80, 100, 70))
AUTUMN = ((160, 118, 48), (150, 82, 40), (132, 112, 60))
VIVID = ((180, 32, 36), (36, 72, 150), (226, 226, 222), (32, 34, 38), (132, 136, 142), (205, 172, 44), (42, 112, 72),
         (94, 46, 92), (120, 160, 200))
SKIN = ((226, 186, 160), (196, 146, 112), (140, 96, 70), (92, 62, 46))
# (zenith, horizon) of clear, overcast, evening, dusk, white and deep blue skies.
SKIES = (((74, 124, 202), (182, 208, 232)), ((146, 152, 160), (206, 206, 206)), ((96, 98, 160), (240, 176, 120)),
         ((62, 72, 112), (150, 142, 152)), ((205, 210, 215), (232, 232, 230)), ((40, 90, 170), (130, 175, 220)))


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


def interpolate(lattice, length, cell):
    """Integer smooth interpolation of ``lattice`` (n, m), one knot every ``cell`` pixels -> (length, m)."""
    position = np.arange(length)
    index, weight = position // cell, (position % cell * 256 // cell)[:, None].astype(np.int32)
    weight = weight * weight * (768 - 2 * weight) >> 16
    return (lattice[index] * (256 - weight) + lattice[index + 1] * weight) >> 8


def noise(random, height, width, cell, octaves=3):
    """Fractal value noise, int32 (height, width) of -128 to 127; its largest features are ``cell`` pixels wide."""
    total = np.zeros((height, width), np.int32)
    for octave in range(octaves):
        lattice = random.integers(0, 255, (height // cell + 2, width // cell + 2))
        total += interpolate(interpolate(lattice, height, cell).T, width, cell).T << (octaves - 1 - octave)
        cell = max(1, cell // 2)
    return total // (2**octaves - 1) - 128


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


# --- Backgrounds ---------------------------------------------------------------------------------------------------


def sky(scene):
    random, region = scene.random, scene.flat()
    weight = np.minimum(region.y * 256 // max(1, scene.horizon), 256)[..., None]
    colour = scene.zenith + ((scene.haze_colour - scene.zenith) * weight >> 8)
    region.fill(np.ones(region.shape, bool), colour.astype(np.int32), SKY)
    if random.chance(60):
        cover = noise(random, *region.shape, max(8, scene.height // 4), 4)
        cover = np.clip((cover + random.integer(-30, 10)) * 6, 0, random.integer(120, 230))[..., None]
        cloud = np.array((random.integer(150, 250),) * 3, np.int32)
        scene.image += (cloud - scene.image) * cover >> 8


def ridge(scene, label, palette, base, rise, cell, fade, jagged):
    """A far silhouette from ``base`` (a row) up to ``rise`` rows higher: mountains, tree lines, skylines."""
    random, region = scene.random, scene.flat(0, base)
    line = noise(random, 1, scene.width, cell, 4 if jagged else 2)[0]
    if jagged:
        line = 127 - 2 * np.abs(line)
    top = base - rise // 3 - rise * (line + 128) // 320
    mask = region.y >= top
    texture = noise(random, *region.shape, max(4, cell // 3), 4)
    light = 256 + texture
    if label == MOUNTAIN:
        # Slopes to the left of a peak are lit, those to the right lie in shadow; the texture bends the gullies.
        slope = np.clip((np.roll(top, 3) - np.roll(top, -3)) * 16, -60, 60)
        light += slope[(region.x + texture // 5 + (region.y - base) // 3) % scene.width]
    colour = random.colour(palette)
    colour = colour + ((scene.haze_colour - colour) * fade >> 8)
    region.fill(mask, colour, label, light)
    if label == MOUNTAIN and random.chance(35):
        snow = mask & (region.y < top.min() + rise * random.integer(15, 45) // 100 + texture // 6)
        region.fill(snow, (236, 238, 242), label, np.minimum(light, 280))


def backdrop(scene, mountains, trees, skyline):
    """What stands at the horizon, each with its chance in percent."""
    random, height = scene.random, scene.height
    if random.chance(mountains):
        layers = random.integer(1, 3)
        for layer in range(layers):
            rise = scene.horizon * random.integer(30, 85) // (100 + 60 * layer)
            ridge(scene, MOUNTAIN, STONE + FOLIAGE[:3] + ((110, 125, 160),), scene.horizon + 1, rise,
                  random.integer(scene.width // 6, scene.width // 3), 150 - 130 * (layer + 1) // layers, True)
    if random.chance(skyline):
        ridge_width = max(3, scene.width // 24)
        tops = np.repeat(random.integers(2, max(4, height // 6), 40), ridge_width)[: scene.width]
        region = scene.flat(0, scene.horizon + 1)
        lit = (region.x % 4 < 2) & (region.y % 5 < 3)
        region.fill(region.y > scene.horizon - np.resize(tops, scene.width), random.colour(STONE), BUILDING,
                    np.where(lit, 230, 256))
    if random.chance(trees):
        ridge(scene, TREE, FOLIAGE, scene.horizon + 2, random.integer(height // 24 + 2, height // 8 + 3),
              max(4, scene.width // 24), random.integer(20, 110), False)


def ground_texture(scene, region, grain, amount):
    """Light (of 256) from noise that lies on the ground: it shrinks with the distance."""
    tile = noise(scene.random, 64, 64, 16, 4)
    return 256 + (tile[region.y // (2 * grain) % 64, region.x // grain % 64] * amount >> 7)


def grass(scene, region, mask):
    light = ground_texture(scene, region, 60, 70) + (noise(scene.random, *region.shape, 24) >> 2)
    region.fill(mask, scene.random.colour(FOLIAGE + AUTUMN[2:]), GRASS, light)


def road(scene, region, mask, across, along):
    """Asphalt; ``across`` is 0 in the middle of the road, ``along`` runs with it."""
    random = scene.random
    light = ground_texture(scene, region, 40, random.integer(10, 50))
    region.fill(mask, random.colour(STONE[:3] + STONE[4:]), ROAD, light)
    if random.chance(75):
        dashes = np.abs(across) < 90
        if random.chance(70):
            dashes = dashes & (along % 6000 < 3000)
        region.fill(mask & dashes, random.pick(((214, 214, 208), (206, 172, 62))), ROAD, light)


def sidewalk(scene, region, mask):
    random, slab = scene.random, scene.random.integer(400, 1200)
    light = ground_texture(scene, region, 50, random.integer(10, 50))
    joints = (region.x % slab < 50) | (region.y % slab < 50)
    light = light - np.where(joints, random.integer(0, 50), 0)
    region.fill(mask, random.colour(STONE + CLAY[3:]), SIDEWALK, light)


def water(scene, region, mask, shore):
    """A surface that mirrors what stands above the row ``shore``, broken by waves."""
    random = scene.random
    rows = np.arange(scene.horizon, scene.height)[:, None]
    waves = noise(random, *region.shape, 4, 2)
    depth = rows - shore
    source_rows = np.clip(shore - depth - (waves * depth >> 9), 0, shore)
    source_cols = np.clip(scene.cols + (waves >> 5), 0, scene.width - 1)
    mirrored = scene.image[source_rows, source_cols]
    tone = random.colour(((60, 90, 110), (70, 110, 130), (90, 120, 150)))
    mirrored = mirrored + ((tone - mirrored) * random.integer(20, 120) >> 8)
    streaks = noise(random, region.shape[0], 1 + region.shape[1] // 12, 2, 2)
    streaks = np.repeat(streaks, 12, axis=1)[:, : region.shape[1]]
    region.fill(mask, mirrored, WATER, 236 + (streaks >> 2) + (waves >> 3))


# --- Things that stand in the scene ----------------------------------------------------------------------------------


def facade(random, region, inside, height):
    """A wall with windows, on the plane of ``region``."""
    x, y = region.x, region.y
    colour = random.colour(STONE + CLAY + ((205, 200, 190), (120, 140, 165)))
    light = 256 + (noise(random, *region.shape, 12) * random.integer(10, 60) >> 7)
    if random.chance(30):  # courses of brick or panels
        light = light - np.where((y % 300 < 60) | ((x + y // 300 * 150) % 600 < 60), 26, 0)
    region.fill(inside, colour, BUILDING, light)
    pitch, storey = random.integer(1800, 4200), random.integer(2800, 3800)
    wide, tall = pitch * random.integer(35, 75) // 100, storey * random.integer(40, 70) // 100
    windows = inside & (x % pitch < wide) & between(y % storey, storey // 4, storey // 4 + tall) & (y < height - 600)
    # Each pane has its own brightness: some are lit, some mirror the sky, most are dark.
    pane = ((x // pitch * 7919 + y // storey * 104729 + random.integer(0, 10**6)) * 2654435761 >> 9) & 255
    glass = random.colour(((52, 60, 72), (90, 110, 135), (40, 44, 50)))
    region.fill(windows, glass, BUILDING, np.where(pane > 215, 560, 180 + (pane >> 1)))
    region.fill(inside & (y > height - random.integer(300, 700)), colour, BUILDING, random.pick((170, 320)))
    if random.chance(45):
        sign = inside & between(y, storey - 300, storey + 600) & between(x % (3 * pitch), pitch // 3, 2 * pitch)
        signboard_face(random, region, sign, x % (3 * pitch) - pitch // 3, y - storey + 300, 900)


def signboard_face(random, region, mask, x, y, height):
    face, ink = random.colour(VIVID), random.pick(((240, 240, 236), (24, 24, 28), (230, 196, 60)))
    region.fill(mask, face, SIGNBOARD, random.integer(220, 290))
    line = height // random.integer(1, 3)
    letters = between(y % line, line // 4, line * 3 // 4) & ((x // (line // 4) * 40503 >> 3) % 3 > 0)
    region.fill(mask & letters & between(y, height // 8, height * 7 // 8), ink, SIGNBOARD)


def building(scene, x, z, tallest=22000):
    random = scene.random
    half, height = random.integer(3000, 9000), random.integer(3000, tallest)
    gable = random.integer(1500, 3500) if height < 8000 else 0
    region = scene.upright(x, z, half + 300, height + gable)
    inside = (np.abs(region.x) < half) & (region.y < height)
    if gable:
        roof = (region.y >= height) & (np.abs(region.x) < (half + 300) * (height + gable - region.y) // gable)
        region.fill(roof, random.colour(CLAY + STONE), BUILDING, 256 - (region.y % 400 < 120) * 30)
    facade(random, region, inside, height)


def house(scene, x, z):
    building(scene, x, z, 8000)


def buildings_along(scene, x):
    """A row of buildings along the street at ``x``, from far to near."""
    random, outward = scene.random, 1 if x > scene.position else -1
    ends = [random.integer(70000, 110000)]
    while ends[-1] > 3000:
        ends.append(ends[-1] - random.integer(7000, 22000))
    plane = scene.side(x)
    for far, near in itertools.pairwise(ends):
        if random.chance(18):  # a gap
            continue
        height = random.integer(4000, 24000)
        if near > 2000:  # the end wall, which a lower neighbour or a gap leaves to be seen
            front = scene.upright(x + outward * 6000, near, 6000, height)
            facade(random, front, (np.abs(front.x) < 6000) & (front.y < height), height)
        cols = np.flatnonzero(between(plane.x[0], near, far))
        if len(cols):
            part = slice(cols[0], cols[-1] + 1)
            wall = Region(plane.image[:, part], plane.labels[:, part], plane.x[:, part], plane.y[:, part],
                          0, plane.haze[:, part], plane.haze_colour)
            facade(random, wall, between(wall.y, 0, height), height)


def fence(random, region, inside, height):
    """Bars or mesh. The gaps are labelled fence too, as annotators do, though other things show through them."""
    x, y = region.x, region.y
    colour, pitch = random.colour(STONE + CLAY + VIVID[2:5]), random.integer(180, 420)
    rails = between(y, height // 5, height // 5 + 130) | between(y, height * 4 // 5, height * 4 // 5 + 130)
    bars = random.pick((
        rails | (x % pitch < pitch * 6 // 10),
        rails | (x % (5 * pitch) < 160) | between(y, height // 2, height // 2 + 110),
        (y > height - 100) | ((x + y) % pitch < pitch // 4) | ((x - y) % pitch < pitch // 4),
        rails | (x % (pitch * 2 // 3) < pitch // 4),
    ))
    region.fill(inside & bars, colour, light=256 - (x % (2 * pitch) < pitch) * 24)
    np.copyto(region.labels, np.uint8(FENCE), where=inside)


def fence_across(scene, x, z):
    random = scene.random
    half, height = random.integer(3000, 14000), random.integer(900, 1900)
    region = scene.upright(x, z, half, height)
    fence(random, region, (np.abs(region.x) < half) & (region.y < height), height)


def tree(scene, x, z):
    random = scene.random
    height = random.integer(3500, 11000)
    region = scene.upright(x, z, height // 2, height)
    rx, ry = region.x, region.y
    colour = random.colour(AUTUMN if random.chance(12) else FOLIAGE)
    ragged = noise(random, *region.shape, max(3, height // region.pixel // 10), 3)
    scene.shadow(x, z, height // 5)
    trunk = max(region.pixel * 6 // 10, height // random.integer(28, 50))
    region.fill(capsule(rx, ry, (0, 0), (random.integer(-300, 300), height * 7 // 10), trunk),
                random.colour(CLAY[2:3] + STONE[2:5]), TREE, 190 + (ragged >> 1))
    light = 250 + ragged + (ry - height * 6 // 10) * 110 // height - rx * 70 // height
    if random.chance(30):  # conifer
        start = height // random.integer(6, 12)
        spread = (height - ry) * random.integer(25, 38) // 100 * (700 + (ry % (height // 7)) * -1800 // height) // 700
        crown = (ry > start) & (np.abs(rx) < spread + ragged * height // 3000)
    else:
        crown = np.zeros(region.shape, bool)
        for _ in range(random.integer(4, 7)):
            centre = random.integer(-height // 5, height // 5), height * random.integer(48, 80) // 100
            radius = height * random.integer(15, 25) // 100
            crown |= ellipse(rx, ry, *centre, radius, radius * 9 // 10) + ragged * 5 < 1000
    region.fill(crown, colour, TREE, light)


def car(scene, x, z):
    """A car, from the side or from one of its ends."""
    random, paint = scene.random, scene.random.colour(VIVID + STONE[2:4])
    glass = random.colour(((46, 54, 64), (96, 116, 136)))
    side_view = random.chance(18) if scene.camera_along else random.chance(90)
    half, height = (random.integer(1950, 2350) if side_view else random.integer(850, 950)), random.integer(1400, 1850)
    scene.shadow(x, z, half * 11 // 10)
    region = scene.upright(x, z, half, height)
    rx, ry = region.x * random.pick((-1, 1)), region.y
    waist, light = height * 58 // 100, 230 + region.y * 60 // height
    wheels = np.zeros(region.shape, bool)
    if side_view:
        front, rear = half * random.integer(25, 55) // 100, half * random.integer(60, 92) // 100
        slope = ry - waist
        cabin = between(ry, waist, height) & between(rx, slope * 7 // 10 - rear, front - slope * 9 // 10)
        panes = cabin & between(ry, waist + 60, height - 110) & (np.abs(rx + half // 8) > 60)
        panes &= between(rx, slope * 7 // 10 - rear + 120, front - slope * 9 // 10 - 120)
        for centre in (-half * 62 // 100, half * 64 // 100):
            wheels |= ellipse(rx, ry, centre, 310, 330, 330) < 1000
        lamps = between(ry, waist - 250, waist - 100) & (np.abs(rx) > half - 180)
    else:
        cabin = between(ry, waist, height) & (np.abs(rx) < half * 92 // 100 - (ry - waist) * 4 // 10)
        panes = cabin & between(ry, waist + 60, height - 120) & (np.abs(rx) < half * 82 // 100 - (ry - waist) * 4 // 10)
        wheels = (ry < 420) & between(np.abs(rx), half * 6 // 10, half * 95 // 100)
        lamps = between(ry, waist - 260, waist - 90) & (np.abs(rx) > half * 68 // 100)
    body = between(ry, 230, waist) & (np.abs(rx) < half - np.maximum(0, 420 - ry) // 4)
    region.fill(wheels, (26, 26, 28), CAR)
    region.fill(body & ~wheels if side_view else body, paint, CAR, light)
    region.fill(cabin, paint, CAR, light)
    region.fill(panes, glass, CAR, light)
    region.fill(body & lamps, random.pick(((196, 30, 30), (240, 236, 210))), CAR)
    if side_view:
        for centre in (-half * 62 // 100, half * 64 // 100):
            region.fill(ellipse(rx, ry, centre, 310, 170, 170) < 1000, (150, 152, 156), CAR)
    else:
        region.fill(body & between(ry, 480, 600) & (np.abs(rx) < 280), (222, 222, 210), CAR)


def person(scene, x, z):
    random = scene.random
    height = random.integer(1050, 1400) if random.chance(15) else random.integer(1550, 1950)
    scene.shadow(x, z, 380)
    region = scene.upright(x, z, height * 3 // 10, height)
    # The body is laid out at a height of 1000; no limb is thinner than a pixel.
    rx, ry, thin = region.x * 1000 // height, region.y * 1000 // height, region.pixel * 550 // height
    shirt, trousers, skin = random.colour(VIVID + CLAY), random.colour(VIVID + STONE), random.colour(SKIN, 6)
    stride, swing = random.integer(30, 130), random.integer(-70, 60)
    light = 256 - rx * random.integer(-300, 300) // 1000
    for sign in (-1, 1):
        region.fill(capsule(rx, ry, (40 * sign, 480), (stride * sign, 30), max(thin, 52)), trousers, PERSON, light)
        region.fill(capsule(rx, ry, (110 * sign, 780), ((170 + swing) * sign, 480), max(thin, 34)),
                    random.pick((shirt, skin)), PERSON, light - 20)
    coat = random.chance(30)
    region.fill(capsule(rx, ry, (0, 320 if coat else 540), (0, 760), max(thin, 105)), shirt, PERSON, light)
    region.fill(ellipse(rx, ry, 0, 915, max(thin, 62), 80) < 1000, skin, PERSON, light)
    hair = (ellipse(rx, ry, 0, 925, max(thin, 66), 80) < 1000) & (ry > random.integer(920, 950))
    region.fill(hair, random.colour(((40, 30, 24), (90, 62, 40), (170, 140, 90), (120, 120, 120))), PERSON)


def streetlight(scene, x, z):
    random = scene.random
    height, reach = random.integer(5000, 8500), random.pick((-1, 1)) * random.integer(900, 2200)
    region = scene.upright(x, z, 2600, height + 300)
    radius, colour = max(region.pixel * 6 // 10, random.integer(80, 130)), random.colour(STONE + VIVID[3:4])
    rx, ry = region.x, region.y
    light = 256 - rx * 60 // radius * (np.abs(rx) < radius)
    post = capsule(rx, ry, (0, 0), (0, height), radius)
    if random.chance(30):  # a lantern on the post
        lamp = ellipse(rx, ry, 0, height - 200, 380, 480) < 1000
    else:
        post = post | capsule(rx, ry, (0, height), (reach, height + 100), radius * 3 // 4)
        lamp = capsule(rx, ry, (reach * 7 // 10, height + 50), (reach, height + 80), max(radius, 190))
    region.fill(post, colour, STREETLIGHT, light)
    region.fill(lamp, random.pick(((236, 228, 190), (200, 200, 200))), STREETLIGHT)


def signboard(scene, x, z):
    """A board on one or two posts; the posts are unlabelled."""
    random = scene.random
    half, low, tall = random.integer(400, 2400), random.integer(900, 2600), random.integer(700, 1900)
    region = scene.upright(x, z, half, low + tall)
    radius, offset = max(region.pixel * 6 // 10, 70), half * 7 // 10 if half > 1000 else 0
    region.fill((np.abs(np.abs(region.x) - offset) < radius) & (region.y < low), random.colour(STONE), UNLABELLED)
    face = (np.abs(region.x) < half) & between(region.y, low, low + tall)
    signboard_face(random, region, face, region.x + half, region.y - low, tall)


def clutter(scene, x, z):
    """A bin, a crate or a bollard: things outside the class list, hence unlabelled."""
    random = scene.random
    half, height = random.integer(150, 500), random.integer(500, 1300)
    scene.shadow(x, z, half)
    region = scene.upright(x, z, half, height)
    region.fill((np.abs(region.x) < half) & (region.y < height), random.colour(VIVID + STONE + CLAY), UNLABELLED,
                270 - (region.y % 300 < 60) * 60 - region.x * 60 // half)


def draw_far_to_near(scene, things):
    for x, z, draw in sorted(things, key=lambda thing: -thing[1]):
        draw(scene, x, z)


# --- Scenes ----------------------------------------------------------------------------------------------------------


def street_along(scene):
    """The camera looks down a street: facades, parks and fences on both sides in perspective."""
    random = scene.random
    road_half, walk = random.integer(2600, 6000), random.integer(1500, 3800)
    scene.position = random.integer(-road_half - walk // 2, road_half + walk // 2)
    sky(scene)
    backdrop(scene, mountains=20, trees=45, skyline=35)
    region = scene.ground()
    outside = np.abs(region.x)
    grass(scene, region, outside >= road_half + walk)
    sidewalk(scene, region, between(outside, road_half, road_half + walk))
    road(scene, region, outside < road_half, region.x, region.y)
    region.fill(between(outside, road_half - 120, road_half + 120), (186, 184, 178), SIDEWALK)  # kerb
    if random.chance(25):
        start = random.integer(4000, 14000)
        stripes = (outside < road_half - 300) & between(region.y, start, start + 3500) & (region.x % 1000 < 500)
        region.fill(stripes, (216, 216, 210), ROAD)

    things = []
    for side in (-1, 1):
        edge = side * (road_half + walk)
        if random.chance(70):
            buildings_along(scene, edge + side * random.integer(0, 2500))
        else:
            park = [(edge + side * random.integer(1500, 16000), random.integer(7000, 60000), tree)
                    for _ in range(random.integer(3, 8))]
            draw_far_to_near(scene, park)
            if random.chance(60):
                plane, height = scene.side(edge + side * 300), random.integer(900, 1900)
                fence(random, plane, between(plane.y, 0, height) & between(plane.x, 2500, 60000), height)
        kerb = side * (road_half + 500)
        spacing, first = random.integer(9000, 20000), random.integer(4500, 12000)
        planted = random.pick((tree, streetlight, streetlight, None))
        if planted:
            things += [(kerb, first + i * spacing, planted) for i in range(random.integer(2, 5))]
        for _ in range(random.integer(0, 4)):
            x = side * random.integer(road_half + 400, road_half + walk - 300)
            things.append((x, random.integer(3000, 12000) * random.integer(1, 4), person))
        if random.chance(40):
            things.append((kerb, random.integer(5000, 22000), signboard))
        if random.chance(50):
            things.append((side * (road_half + walk - 500), random.integer(3500, 16000), clutter))
        for _ in range(random.integer(0, 4)):
            lane = side * random.pick((road_half // 2, road_half - 1100))
            things.append((lane, random.integer(5000, 14000) * random.integer(1, 5), car))
    if random.chance(30):
        things.append((random.integer(-road_half, road_half), random.integer(5000, 25000), person))
    draw_far_to_near(scene, [thing for thing in things if thing[1] < 90000])


def street_across(scene):
    """The camera looks across a street at the buildings or the park on its far side."""
    random = scene.random
    scene.camera_along = False
    kerb = random.integer(5000, 10000)  # z of the near edge of the road
    road_far = kerb + random.integer(5000, 9000)
    walk_far = road_far + random.integer(1500, 5000)
    sky(scene)
    backdrop(scene, mountains=25, trees=40, skyline=30)
    region = scene.ground()
    grass(scene, region, region.y >= walk_far)
    sidewalk(scene, region, between(region.y, road_far, walk_far) | (region.y < kerb))
    road(scene, region, between(region.y, kerb, road_far), region.y - (kerb + road_far) // 2, region.x)
    for edge in (kerb, road_far):
        region.fill(between(region.y, edge, edge + 200), (180, 178, 172), SIDEWALK)

    view = scene.width * walk_far // scene.focal  # how much of the far side is seen, in mm
    behind, things = walk_far + random.integer(0, 4000), []
    built = random.integer(20, 95)
    x = -view
    while x < view:
        if random.chance(built):
            things.append((x, behind + random.integer(0, 400), building))
        else:
            things.append((x, behind + random.integer(0, 6000), tree))
        x += random.integer(4000, 12000)
    if random.chance(45):
        things.append((random.integer(-view // 3, view // 3), walk_far + 200, fence_across))

    def across():
        return random.integer(-view // 2, view // 2)

    things += [(across(), random.integer(kerb + 1200, road_far - 1000), car) for _ in range(random.integer(0, 4))]
    things += [(across(), random.integer(road_far + 300, walk_far), person) for _ in range(random.integer(0, 4))]
    things += [(across() // 3, random.integer(3000, kerb), person) for _ in range(random.integer(0, 2))]
    things += [(across(), road_far + 500, streetlight) for _ in range(random.integer(0, 3))]
    things += [(across(), road_far + 600, tree) for _ in range(random.integer(0, 1))]
    things += [(across(), road_far + 700, signboard) for _ in range(random.integer(0, 2))]
    things += [(across(), road_far + 800, clutter) for _ in range(random.integer(0, 2))]
    draw_far_to_near(scene, things)


def landscape(scene):
    """Mountains, meadows, lakes, a winding road, a few houses and people."""
    random = scene.random
    scene.eye = random.integer(1500, 7000)
    sky(scene)
    backdrop(scene, mountains=78, trees=60, skyline=4)
    region = scene.ground()
    grass(scene, region, np.ones(region.shape, bool))
    things = []
    lake = random.chance(62)
    if lake:
        near = random.integer(3000, 20000)
        wobble = noise(random, *region.shape, max(4, scene.width // 5), 3)
        far = near * random.integer(2, 30)
        shore = scene.horizon + scene.focal * scene.eye // far
        z = region.y + (region.y * wobble >> 8)
        water(scene, region, between(z, near, far), min(shore, scene.height - 1))
    if random.chance(40):
        half, bend, start = random.integer(1500, 3500), random.integer(-300, 300), random.integer(-6000, 6000)
        distance = region.y // 100
        across = region.x - start - bend * distance * distance // 20000 - region.y * random.integer(-30, 30) // 100
        road(scene, region, np.abs(across) < half, across, region.y)
        if random.chance(60):
            z = random.integer(7000, 30000)
            things.append((start + bend * (z // 100) ** 2 // 20000, z, car))

    def scatter(draw, count, nearest, farthest):
        for _ in range(count):
            z = random.integer(nearest, farthest)
            reach = scene.width * z // scene.focal // 2
            x = random.integer(-reach, reach)
            if scene.label_of_ground(x, z) != WATER:
                things.append((x, z, draw))

    scatter(tree, random.integer(0, 8), 7000, 70000)
    scatter(house, random.pick((0, 0, 0, 1, 2)), 18000, 60000)
    scatter(person, random.pick((0, 0, 1, 2, 3)), 4000, 25000)
    if not lake:
        scatter(fence_across, random.pick((0, 1)), 7000, 25000)
    scatter(signboard, random.pick((0, 0, 0, 1)), 5000, 20000)
    scatter(clutter, random.pick((0, 0, 1, 3)), 4000, 20000)
    draw_far_to_near(scene, things)


def room(scene):
    """A room: three walls, floor, ceiling, windows, paintings, people and unlabelled furniture."""
    random = scene.random
    scene.eye = random.integer(1300, 1800)
    scene.horizon = scene.height * random.integer(40, 58) // 100
    scene.clear = 10**9
    depth, ceiling = random.integer(3500, 8000), random.integer(2400, 3400)
    left, right = -random.integer(1500, 4000), random.integer(1500, 4000)
    floor_region = scene.ground()
    plain = random.integer(8, 40)

    def wall(region, inside, colour, light):
        light = light + (noise(random, *region.shape, 32) * plain >> 7)
        if stripes:
            light = light - np.where(region.x % stripes < stripes // 2, 18, 0)
        region.fill(inside, colour, WALL, light)
        region.fill(inside & (region.y < 140), colour, WALL, 190)  # skirting board

    # Everything is painted from back to front: ceiling and floor up to the camera, then the walls over them.
    tone = random.integer(150, 235)
    flat = scene.flat()
    shade = 256 - np.abs(flat.y - scene.horizon) * random.integer(0, 60) // scene.height
    flat.fill(np.ones(flat.shape, bool), random.colour(((tone, tone, tone - 8),), 6), CEILING, shade)
    boards, tiles = random.integer(120, 300), random.chance(40)
    light = ground_texture(scene, floor_region, 40, random.integer(20, 60))
    seams = floor_region.x % boards < boards // 8
    if tiles:
        seams = seams | (floor_region.y % boards < boards // 8)
    floor_region.fill(np.ones(floor_region.shape, bool), random.colour(CLAY + CLAY + STONE), FLOOR, light - seams * 40)

    stripes = random.integer(200, 900) if random.chance(25) else 0
    colour = random.colour(STONE + CLAY[3:] + ((190, 200, 205), (205, 195, 175), (225, 222, 214), (150, 175, 160)))
    back = scene.upright(0, depth, 10**5, ceiling)
    walls = [(back, between(back.x, left, right) & between(back.y, 0, ceiling), left, right, 256)]
    for x, lightness in ((left, random.integer(190, 240)), (right, random.integer(215, 280))):
        plane = scene.side(x)
        walls.append((plane, (plane.x < depth) & between(plane.y, 0, ceiling), 1500, depth, lightness))
    for region, inside, start, end, lightness in walls:
        wall(region, inside, colour, lightness)
        # Windows and paintings hang side by side, one to a slot.
        slot = random.integer(1300, 2600)
        for place in range(start + 200, end - slot, slot):
            draw = random.pick((window, painting, painting, window, None))
            if draw:
                draw(scene, region, inside, place + slot // 8, place + slot * random.integer(60, 90) // 100, lightness)
    things = [(random.integer(left, right), random.integer(1900, depth), person) for _ in range(random.integer(0, 2))]
    things += [(random.integer(left, right), random.integer(1800, depth), furniture)
               for _ in range(random.integer(1, 3))]
    draw_far_to_near(scene, things)


def window(scene, region, inside, start, end, lightness):
    """Sky, trees and houses show through it; all of it is windowpane."""
    random = scene.random
    low, high = random.integer(500, 1000), random.integer(1900, 2300)
    x, y = region.x, region.y
    frame = inside & between(x, start, end) & between(y, low, high)
    region.fill(frame, (226, 224, 218), WINDOW, lightness)
    panes = between((x - start) % ((end - start) // 2), 60, (end - start) // 2 - 20) & between(y, low + 70, high - 70)
    weight = np.clip((high - y) * 256 // (high - low), 0, 256)[..., None]
    view = scene.zenith + ((scene.haze_colour - scene.zenith) * weight >> 8)
    region.fill(frame & panes, view, WINDOW, 270)
    skyline = low + 300 + (x // 150 * 7919 % 7) * random.integer(10, 110)
    region.fill(frame & panes & (y < skyline), random.colour(FOLIAGE + STONE), WINDOW)


def painting(scene, region, inside, start, end, lightness):
    """A small landscape or an abstract picture in a frame."""
    random = scene.random
    low, high = random.integer(1000, 1400), random.integer(1700, 2200)
    x, y = region.x, region.y
    whole = inside & between(x, start, end) & between(y, low, high)
    region.fill(whole, random.colour(CLAY + VIVID[2:5]), PAINTING, lightness)
    canvas = whole & between(x, start + 70, end - 70) & between(y, low + 70, high - 70)
    top, middle, bottom = (random.colour(palette) for palette in (VIVID + SKIES[0], VIVID + STONE, FOLIAGE + VIVID))
    region.fill(canvas, top, PAINTING, lightness)
    hill = low + (high - low) * random.integer(35, 65) // 100
    hill = hill + np.abs(x - (start + end) // 2) * random.integer(-40, 40) // 100
    region.fill(canvas & (y < hill), middle, PAINTING, lightness)
    region.fill(canvas & (y < hill - (high - low) // 4), bottom, PAINTING, lightness)


def furniture(scene, x, z):
    """A table or a chest: outside the class list, hence unlabelled."""
    random = scene.random
    half, height = random.integer(350, 1000), random.integer(420, 1100)
    scene.shadow(x, z, half)
    region = scene.upright(x, z, half, height)
    top = (np.abs(region.x) < half) & between(region.y, height - 90, height)
    solid = (np.abs(region.x) < half - 40) & (region.y < height)
    legs = solid & (np.abs(region.x) > half - 140)
    colour = random.colour(CLAY + STONE + VIVID)
    region.fill(legs if random.chance(50) else solid, colour, UNLABELLED, 210 - (region.y % 350 < 40) * 50)
    region.fill(top, colour, UNLABELLED, 270)


def blur(image):
    """3x3 binomial blur of (H, W, 3) integers."""
    for axis in (0, 1):
        padded = np.pad(image, [(1, 1) if axis == a else (0, 0) for a in range(3)], mode='edge')
        before, after = (padded[:-2], padded[2:]) if axis == 0 else (padded[:, :-2], padded[:, 2:])
        image = (before + 2 * image + after + 2) >> 2
    return image


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


# --- The data set ----------------------------------------------------------------------------------------------------

# The last digit of a scene's seed picks its kind, so that any run of scenes has the same mix.
KINDS = (street_along, landscape, room, street_across, street_along,
         landscape, street_along, room, landscape, street_across)
# Scene i of a split has the seed `seed * 2**20 + first + i`: no scene is in both splits, or in sets of two seeds.
SPLITS = {'training': ('ADE_train', 0), 'validation': ('ADE_val', 2**19)}
SMALLEST_SIDE = 32
README = """Mini-ADE20K: synthetic scenes in ADE20K's layout, drawn by inceptionnext_seg.data.scenes.

images/{training,validation}/*.png       RGB
annotations/{training,validation}/*.png  8 bit: 1 to 150 as in ADE20K's objectInfo150.csv, 0 is unlabelled
mini.json                                format version, parameters, classes and the SHA-256 of all decoded pixels
                                         (per split, in the order of the file names: image, annotation)

The pictures hold no photograph and may be used like the code that drew them.
"""


def draw_scene(seed, size=DEFAULT_SIZE):
    """Draw one scene.

    Args:
        seed (int): 0 or greater; the same seed and size give the same pixels on every machine.
        size (int | tuple[int, int]): Height and width, or the side of a square, in pixels; at least 32.

    Returns:
        tuple[np.ndarray, np.ndarray]: The image, uint8 (H, W, 3), RGB, and the annotation, uint8 (H, W), with the
        numbers of :data:`CLASSES_USED` and 0 where unlabelled.

    Raises:
        UserError: A side is shorter than 32 pixels, or the seed negative.
    """
    height, width = (size, size) if isinstance(size, int) else size
    if min(height, width) < SMALLEST_SIDE:
        raise UserError(f'size {height}x{width} is too small for a scene: give at least {SMALLEST_SIDE} pixels a side')
    if seed < 0:
        raise UserError(f'seed {seed} is negative: give 0 or greater')
    scene = Scene(Random(seed), height, width)
    KINDS[seed % len(KINDS)](scene)
    return photograph(scene), scene.labels


def make_mini_ade20k(root, num_train=320, num_val=64, size=DEFAULT_SIZE, seed=0):
    """Draw the mini-ADE20K data set into ``root``, unless it is there already.

    The set is drawn into a hidden folder beside ``root`` and renamed when it is complete, so that ``root`` never holds
    a part of it. Of two processes that draw it at once, the one that finishes last discards its copy.

    Args:
        root (str | Path): The folder to make; its parents are made too.
        num_train (int): Scenes in ``training``.
        num_val (int): Scenes in ``validation``; scene i is the same whatever ``num_train``.
        size (int | tuple[int, int]): As in :func:`draw_scene`.
        seed (int): Sets of different seeds have no scene in common.

    Returns:
        Path: ``root``, with ``images/``, ``annotations/``, ``README.txt`` and ``mini.json`` (:func:`read_manifest`).

    Raises:
        UserError: ``root`` holds something else (it is never deleted or overwritten), it cannot be written, or a
            parameter is out of range.
    """
    for name, value, lowest in (('num_train', num_train, 1), ('num_val', num_val, 1), ('seed', seed, 0)):
        if not lowest <= value < 2**19:
            raise UserError(f'{name} is {value}: give {lowest} to {2**19 - 1}')
    root = Path(root)
    size = [size, size] if isinstance(size, int) else list(size)
    wanted = {'format_version': FORMAT_VERSION, 'num_train': num_train, 'num_val': num_val, 'size': size, 'seed': seed}
    draft = None
    try:
        if root.exists():
            return check_mini_ade20k(root, wanted)
        root.parent.mkdir(parents=True, exist_ok=True)
        draft = Path(tempfile.mkdtemp(prefix=f'.{root.name}.part-', dir=root.parent))
        # A folder inside the private temporary one, so that the data set gets the permissions of any new folder.
        write_mini_ade20k(draft / root.name, wanted)
        try:
            (draft / root.name).rename(root)
        except OSError:
            if not root.exists():
                raise
            check_mini_ade20k(root, wanted)  # another process was faster
    except OSError as error:
        raise UserError(f'cannot write the data set to {root} ({error}): '
                        'give a folder that you may write, on a disk with room for it') from error
    finally:
        if draft:
            shutil.rmtree(draft, ignore_errors=True)
    return root


def scene_paths(wanted):
    """(seed, image path, annotation path) of each scene; paths are relative to the root of the data set."""
    for (split, (prefix, first)), count in zip(SPLITS.items(), (wanted['num_train'], wanted['num_val']), strict=True):
        for index in range(count):
            name = f'{prefix}_{index + 1:08d}.png'
            yield wanted['seed'] * 2**20 + first + index, Path('images', split, name), Path('annotations', split, name)


def write_mini_ade20k(root, wanted):
    for folder in ('images', 'annotations'):
        for split in SPLITS:
            (root / folder / split).mkdir(parents=True)
    digest = hashlib.sha256()
    scenes = list(scene_paths(wanted))
    for seed, image_path, annotation_path in tqdm(scenes, desc='Drawing mini-ADE20K', unit='scene'):
        image, annotation = draw_scene(seed, tuple(wanted['size']))
        for pixels, path in ((image, image_path), (annotation, annotation_path)):
            digest.update(pixels.tobytes())
            Image.fromarray(pixels).save(root / path, compress_level=1)
    (root / 'README.txt').write_text(README, encoding='utf-8')
    manifest = {'name': 'mini-ade20k', **wanted, 'classes': CLASSES_USED, 'sha256': digest.hexdigest()}
    (root / 'mini.json').write_text(json.dumps(manifest, indent=2) + '\n', encoding='utf-8')


def read_manifest(root):
    """The manifest of the mini-ADE20K data set in ``root``, or None where there is none that can be read."""
    try:
        manifest = json.loads((Path(root) / 'mini.json').read_text(encoding='utf-8'))
    except (OSError, ValueError):
        return None
    return manifest if isinstance(manifest, dict) and manifest.get('name') == 'mini-ade20k' else None


def check_mini_ade20k(root, wanted):
    """Return ``root`` if it holds all files of the wanted data set; else a UserError says what it holds."""
    advice = 'give another folder, or remove this one to have the data set drawn again'
    manifest = read_manifest(root)
    if manifest is None:
        raise UserError(f'{root} exists and is no mini-ADE20K data set (no valid mini.json in it): {advice}')
    for name, value in wanted.items():
        if manifest.get(name) != value:
            raise UserError(f'{root} holds a mini-ADE20K data set with {name} {manifest.get(name)}, '
                            f'wanted is {value}: {advice}')
    files = [path for _, *pair in scene_paths(wanted) for path in pair]
    missing = [path for path in files if not (root / path).is_file()]
    if missing:
        raise UserError(f'{root} lacks {len(missing)} of the {len(files)} files of its mini-ADE20K data set, '
                        f'the first is {missing[0]}: {advice}')
    return root
