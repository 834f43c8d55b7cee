"""Send arrays and get arrays: ``client.py PYRO:...``."""

import sys

import numpy as np

from pyroplug.api import Proxy, SerializeError

with Proxy(sys.argv[1]) as lab:
    counts, edges = lab.histogram(np.linspace(0.0, 1.0, 1000).reshape(10, 100), 4)
    print("counts:", counts, "edges:", edges.dtype, edges.shape)
    print("solved:", lab.solve(np.array([[3.0, 1.0], [1.0, 2.0]]), np.array([9.0, 8.0])))
    norm = lab.norm(np.array([3, 4]))
    print("norm:", norm, type(norm).__name__)
    print("days:", *lab.days())
    lab.days()[0] = np.datetime64("2000-01-01")  # what arrives is yours, and can be written to

    # arrays of objects could only travel as pickles, which run code: they do not
    try:
        lab.norm(np.array([object()]))
    except SerializeError as error:
        print("refused:", str(error).partition(":")[0])
    lab.stop()
