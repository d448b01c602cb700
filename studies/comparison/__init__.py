"""Is the difference real? Runs of several candidates, compared in one report: over seeds, over images, in speed.

A report has two steps. :func:`.collecting.collect` reads the runs (``reading``) and resamples their images
(``differences``) into one dict, which is kept as JSON beside the report; :func:`.report.report` turns that dict, and
nothing else, into ``sections``, ``speed`` and ``pictures``, which ``formats`` writes, so that the JSON rebuilds the
report. The statistics are scipy's. IoU and Acc are in per cent, their differences in percentage points.
"""
