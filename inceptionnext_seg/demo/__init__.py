"""A page on this machine that segments what is dropped on it: ``inceptionnext-seg demo``.

``segmenting`` is what happens to an upload, ``viewer`` what is shown of a prediction, and ``page`` the Gradio page
around them, the only module that imports Gradio.
"""
