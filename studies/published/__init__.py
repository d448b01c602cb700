"""What the repository publishes: reports, pictures and blocks of documents, all made from the files in docs/results.

``files`` knows for each result file the report that stands beside it and its pictures, ``stamps`` says of a picture what
it was drawn from, ``studies`` lists what measures them. tools/readme.py writes all of it.
"""
