"""Frames of a video through a segmentor, and back into one, through PyAV (the extra `video`)."""
import contextlib
import importlib
from collections.abc import Callable, Iterator
from fractions import Fraction
from pathlib import Path

import numpy as np

from ..errors import UserError
from ..files import replacing

VIDEO_SUFFIXES = ('.avi', '.m4v', '.mkv', '.mov', '.mp4', '.mpeg', '.mpg', '.webm')
# Of the 51 steps of H.264: 23 is its own default, 18 can hardly be told from the original.
CRF, DEFAULT_RATE = '20', 25


def import_av():
    """PyAV. Raises UserError where it is not installed, or does not know how a frame is turned."""
    try:
        av = importlib.import_module('av')
    except ImportError as error:
        raise UserError(
            f'videos are read and written through PyAV, which is not installed ({error}). Next: pip install '
            "'inceptionnext-seg[video]', or pip install av."
        ) from error
    if not hasattr(av.VideoFrame, 'rotation'):
        raise UserError(f'PyAV is of version {av.__version__}; expected: 14.2 or later, which knows of the rotation of '
                        "videos from phones. Next: pip install 'inceptionnext-seg[video]', or pip install -U av.")
    return av


def frames(path: str | Path) -> Iterator[np.ndarray]:
    """The frames of a video, (H, W, 3), RGB, 8 bits, one at a time, turned as a player shows them.

    Raises:
        UserError: It cannot be read, or has no frames.
    """
    av = import_av()
    try:
        with av.open(str(path)) as container:
            if not container.streams.video:
                raise UserError(f'{path} has no video. Expected: a file such as {", ".join(VIDEO_SUFFIXES)}.')
            container.streams.video[0].thread_type = 'AUTO'
            for frame in container.decode(video=0):
                # Phones store frames as the sensor has them, and by how much to turn them, counterclockwise.
                yield np.rot90(frame.to_ndarray(format='rgb24'), round(frame.rotation / 90))
    except (av.FFmpegError, OSError) as error:
        raise UserError(f'{path} cannot be read as a video: {error}. Next: check the file.') from error


def rate_and_count(path: str | Path) -> tuple[Fraction, int | None]:
    """Frames a second, and how many there are where the file says it."""
    av = import_av()
    try:
        with av.open(str(path)) as container:
            stream = container.streams.video[0]
            return Fraction(stream.average_rate or DEFAULT_RATE), stream.frames or None
    except (av.FFmpegError, OSError, IndexError) as error:
        raise UserError(f'{path} cannot be read as a video: {error}. Next: check the file.') from error


@contextlib.contextmanager
def writer(path: str | Path, rate: Fraction) -> Iterator[Callable[[np.ndarray], None]]:
    """A function that appends a frame, (H, W, 3), RGB, to an H.264 video, which gets its name when it is whole.

    Raises:
        UserError: It cannot be written.
    """
    av = import_av()
    try:
        with replacing(path) as temporary, av.open(str(temporary), 'w') as container:
            stream = container.add_stream('libx264', rate=rate, options=dict(crf=CRF))
            stream.pix_fmt = 'yuv420p'

            def append(frame):
                # H.264 stores colours for two pixels each way: an odd row or column is cut off.
                height, width = frame.shape[0] // 2 * 2, frame.shape[1] // 2 * 2
                if not stream.codec_context.is_open:
                    stream.width, stream.height = width, height
                picture = av.VideoFrame.from_ndarray(np.ascontiguousarray(frame[:height, :width]), format='rgb24')
                container.mux(stream.encode(picture))

            yield append
            container.mux(stream.encode())
    except (av.FFmpegError, OSError, ValueError) as error:
        raise UserError(
            f'cannot write the video {path}: {error}. Expected: a path that ends in .mp4, in a folder with free space.'
        ) from error
