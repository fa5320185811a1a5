"""Standard benchmarks: fetch, check and convert them to the kit's folder format.

`python -m data_scripts --help` lists the commands; `table.py` describes every dataset.
"""
