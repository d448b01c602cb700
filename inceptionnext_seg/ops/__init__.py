"""One operator a file: identity, reference in torch, fast forms, gradient, and what each form cannot take."""
