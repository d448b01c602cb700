"""What a fast class is: a subclass of a plain module's class that overrides how it computes, and holds no state.

Acceleration changes a module's class and nothing else: parameters, buffers, hooks, names and the module itself stay the
same objects, so a checkpoint, an optimizer or DistributedDataParallel sees no change.
"""


class Fast:
    """Mixin of fast classes, the first of their bases: ``class FastBlock(Fast, Block)``.

    Attributes:
        plain (type): The class that this one stands for, which ``restore`` sets again.
        parts (tuple[str]): The parts of the acceleration that it runs, as ``accelerate`` names them.
        forms (dict[str, str | bool]): For each part that is not on 'auto', the form that runs it; False is none.
    """
    plain = None
    parts = ()
    forms = {}
    fast = None     # the class itself, which one derived from it later (a parametrization, FSDP) inherits and is not

    def __init_subclass__(cls, **settings):
        super().__init_subclass__(**settings)
        if 'plain' in vars(cls):
            cls.fast = cls

    def form(self, part, *known):
        """How ``part`` is computed: 'auto', 'torch' (torch's own operators), a form's name, or False (left alone).

        Args:
            known: The forms of the operator that asks. Without any it is not the part's main operator, and a form's
                name is 'auto' for it.
        """
        form = self.forms.get(part, 'auto')
        return form if form in ('auto', 'torch', False, *known) else 'auto'


def is_swapped(module):
    """Whether the class of ``module`` is a fast one, rather than one that someone derived from it since."""
    return isinstance(module, Fast) and type(module).fast is type(module)


def plain_type(module):
    """The class of ``module`` before acceleration."""
    return type(module).plain if is_swapped(module) else type(module)


def run_plain(module, *args):
    """What ``module`` computes before acceleration, so that a fast ``forward`` that falls back does not call itself.

    A module that is not accelerated is called, with its hooks.
    """
    return module.plain.forward(module, *args) if isinstance(module, Fast) else module(*args)


def is_bare(module, *plain_types):
    """Whether ``module`` is of exactly one of these classes, and its parameters may be used without calling it.

    They may not where a hook waits for the call (profilers, pruning, spectral norm), the class is another one
    (parametrizations, LoRA), or the module has a ``forward`` of its own (weights that Hugging Face keeps elsewhere).
    """
    # torch.compile of torch 2.4 knows __dict__, and not vars().
    return plain_type(module) in plain_types and 'forward' not in module.__dict__ and not (
        module._forward_hooks or module._forward_pre_hooks or module._backward_hooks or module._backward_pre_hooks)
