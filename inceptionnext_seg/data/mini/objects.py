"""Things that stand in the scene or hang on its walls. Each draws itself at (x, z)."""
import numpy as np

from .buildings import signboard_face
from .camera import between, capsule, ellipse
from .classes import (
    AUTUMN,
    CAR,
    CLAY,
    FOLIAGE,
    PAINTING,
    PERSON,
    SKIES,
    SKIN,
    STONE,
    STREETLIGHT,
    TREE,
    UNLABELLED,
    VIVID,
    WINDOW,
)
from .random import noise


def draw_far_to_near(scene, things):
    for x, z, draw in sorted(things, key=lambda thing: -thing[1]):
        draw(scene, x, z)


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
