"""Facades, houses and fences."""
import itertools

import numpy as np

from .camera import Region, between
from .classes import BUILDING, CLAY, FENCE, SIGNBOARD, STONE, VIVID
from .random import noise


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


def fence_across(scene, x, z):
    random = scene.random
    half, height = random.integer(3000, 14000), random.integer(900, 1900)
    region = scene.upright(x, z, half, height)
    fence(random, region, (np.abs(region.x) < half) & (region.y < height), height)


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
