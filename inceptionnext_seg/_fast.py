"""What a fast class is: a subclass of a plain module's class with a ``forward`` of its own and nothing else.

Acceleration changes a module's class and no more, so that parameters, buffers, hooks, names and the module itself stay what
they are: to a checkpoint, an optimizer and DistributedDataParallel nothing happens.
"""


class Fast:
    """Mixin, first among the bases, of the fast classes.

    Attributes:
        plain (type): The class that this one stands for, and that ``restore`` sets again.
        form (str): Which form of the operator runs: 'auto', 'torch' or a form's name.
    """
    plain = None
    form = 'auto'

    def extra_repr(self):
        return ', '.join(filter(None, (super().extra_repr(), f'accelerated, form={self.form!r}')))


def plain_type(module):
    """The class of ``module`` before acceleration."""
    return type(module).plain if isinstance(module, Fast) else type(module)
