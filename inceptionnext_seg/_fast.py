"""What a fast class is: a subclass of a plain module's class with a ``forward`` of its own and nothing else.

Acceleration changes a module's class and no more, so that parameters, buffers, hooks, names and the module itself stay
what they are: for a checkpoint, an optimizer and DistributedDataParallel nothing happens.
"""


class Fast:
    """Mixin of fast classes, the first of their bases: ``class FastBlock(Fast, Block)``.

    Attributes:
        plain (type): The class that this one stands for, which ``restore`` sets again.
        forms (dict[str, str]): For each part of the acceleration that is not on 'auto', the form that runs it.
    """
    plain = None
    forms = {}

    def form(self, part):
        """'auto', 'torch' (the operators of the plain module) or the name of a form."""
        return self.forms.get(part, 'auto')


def plain_type(module):
    """The class of ``module`` before acceleration."""
    return type(module).plain if isinstance(module, Fast) else type(module)


def run_plain(module, *args):
    """What ``module`` computes before acceleration, so that a fast ``forward`` in its plain form does not call itself.

    A module that is not accelerated is called, hooks and all.
    """
    return module.plain.forward(module, *args) if isinstance(module, Fast) else module(*args)
