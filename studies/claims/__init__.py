"""What is claimed of InceptionNeXt and of factorized convolutions, beside what was measured: docs/claims.md.

``figures`` takes numbers with their intervals from the result files, ``rules`` make a verdict of them, ``table`` lists
the claims, ``checklist`` says under which conditions each result file was made, ``page`` writes it all.
"""
