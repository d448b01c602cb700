"""What lies behind and below the objects: sky, horizon, ground and water."""
import numpy as np

from .classes import AUTUMN, BUILDING, CLAY, FOLIAGE, GRASS, MOUNTAIN, ROAD, SIDEWALK, SKY, STONE, TREE, WATER
from .random import noise


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


def ground_texture(scene, region, grain, amount):
    """Light (of 256) from noise that lies on the ground: it shrinks with the distance."""
    tile = noise(scene.random, 64, 64, 16, 4)
    return 256 + (tile[region.y // (2 * grain) % 64, region.x // grain % 64] * amount >> 7)
