"""What the repository publishes: reports, pictures and blocks of documents, all made from the files in docs/results.

``files`` knows the report that stands beside each result file and its pictures, ``stamps`` says what a picture was
drawn from, ``studies`` lists what measures them. tools/readme.py writes all of it.
"""
