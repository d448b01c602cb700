"""The Gradio page: where an image is dropped, the viewers, and what is downloaded."""
from collections.abc import Sequence
from pathlib import Path

import gradio

from ..errors import UserError
from .segmenting import Model, Result, segment, write_files
from .viewer import SCRIPT, STYLE, message, viewer

LARGEST_FILE = 200 * 2**20      # bytes
# System fonts: the theme's own would be fetched from the network.
THEME = gradio.themes.Default(font=['system-ui', 'sans-serif'], font_mono=['ui-monospace', 'monospace'])
SET_OPACITY = "value => { document.documentElement.style.setProperty('--overlay-opacity', value); }"


def build(models: Sequence[Model], examples: Sequence[Path], folder: Path, max_pixels: int) -> gradio.Blocks:
    """The page for one model, or for several side by side.

    Args:
        models: What segments an upload, in the order of the page.
        examples: Image files to try.
        folder: Where the files to download are written.
        max_pixels: An image of more is refused.
    """

    def downloads(results: list[Result] | None, path: str | None, opacity: float) -> list[dict]:
        """The files of each model, of the colours' opacity as it is now."""
        if not results:
            return [gradio.update(value=None, interactive=False) for _ in models for _ in range(2)]
        return [gradio.update(value=file, interactive=True) for result in results
                for file in write_files(result, folder, Path(path).stem, opacity)]

    def show(path: str | None, opacity: float, progress=gradio.Progress()):
        """(message, results, a viewer for each model, two files for each model), of an upload or of none."""
        if path is None:
            return ['', None, *('' for _ in models), *downloads(None, None, opacity)]
        try:
            results = segment(models, Path(path), max_pixels, lambda name: progress(0, desc=name))
            return ['', results, *map(viewer, results), *downloads(results, path, opacity)]
        except UserError as error:
            return [message(error), None, *('' for _ in models), *downloads(None, None, opacity)]

    def chosen(event: gradio.SelectData) -> str:
        return str(examples[event.index])

    with gradio.Blocks(title='inceptionnext-seg', analytics_enabled=False, fill_width=True,
                       delete_cache=(3600, 24 * 3600)) as page:
        results = gradio.State(None)
        with gradio.Row():
            with gradio.Column(scale=1, min_width=280):
                upload = gradio.File(label='Drop an image here', type='filepath', height=140, elem_id='upload')
                opacity = gradio.Slider(0, 1, 0.5, step=0.05, label="Opacity of the classes' colours",
                                        elem_id='opacity')
                gallery = gradio.Gallery([str(path) for path in examples], label='Or try one of these', columns=2,
                                         height='auto', allow_preview=False, elem_id='examples')
            with gradio.Column(scale=4):
                error = gradio.HTML(css_template=STYLE, elem_id='message')
                viewers, files = [], []
                with gradio.Row():
                    for i, model in enumerate(models):
                        with gradio.Column(min_width=320):
                            viewers.append(gradio.HTML(
                                css_template=STYLE, js_on_load=SCRIPT, min_height=240, elem_id=f'viewer{i + 1}',
                                label=model.name))
                            with gradio.Row():
                                files += [gradio.DownloadButton(label, interactive=False, size='sm',
                                                                elem_id=f'{label.split()[0].lower()}{i + 1}')
                                          for label in ('Classes as PNG', 'Overlay as PNG')]
        outputs = [error, results, *viewers, *files]
        # One image at a time, whoever asks: times are of a model that has the machine to itself.
        upload.change(show, [upload, opacity], outputs, concurrency_id='segment', api_visibility='private')
        gallery.select(chosen, None, upload, api_visibility='private')
        opacity.input(None, opacity, None, js=SET_OPACITY)
        opacity.release(downloads, [results, upload, opacity], files, show_progress='hidden',
                        api_visibility='private')
    return page


def launch(page: gradio.Blocks, port: int | None, open_browser: bool = False) -> str:
    """Serve the page to this machine alone, in threads of its own; its address.

    Raises:
        UserError: The port is taken, or the page cannot be reached.
    """
    try:
        _, address, _ = page.queue().launch(
            server_name='127.0.0.1', server_port=port, inbrowser=open_browser, share=False, quiet=True,
            prevent_thread_lock=True, max_file_size=LARGEST_FILE, theme=THEME, footer_links=[])
    except OSError as error:
        raise UserError(f'the page cannot be served at 127.0.0.1:{port or "7860 to 7959"} ({error}). Next: give '
                        'another --port.') from error
    except ValueError as error:
        raise UserError(f'the page is served, but 127.0.0.1 cannot be reached ({error}). Next: where a proxy is set, '
                        'NO_PROXY=127.0.0.1.') from error
    return address
